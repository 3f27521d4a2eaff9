// Package wire walks Kafka frames without decoding them and splices new pieces
// around bytes that stay where they are (PROTOCOL.md §D1).
package wire

import (
	"encoding/binary"
	"errors"
	"math"
	"net"

	"tollgate.internal/services/proxy/internal/netio"
)

// ErrShort is a frame that ends inside a field, or a length that points past it.
var ErrShort = errors.New("malformed frame")

// A Cursor walks a frame. The first error sticks; after it every read is zero.
type Cursor struct {
	B   []byte
	Pos int
	Err error
}

func (c *Cursor) take(n int) []byte {
	if c.Err != nil || n < 0 || n > len(c.B)-c.Pos {
		c.Err = ErrShort
		return nil
	}
	b := c.B[c.Pos : c.Pos+n]
	c.Pos += n
	return b
}

// Skip passes n bytes and returns them.
func (c *Cursor) Skip(n int) []byte { return c.take(n) }

// Int8 reads an int8.
func (c *Cursor) Int8() int8 {
	if b := c.take(1); b != nil {
		return int8(b[0])
	}
	return 0
}

// Int16 reads an int16.
func (c *Cursor) Int16() int16 {
	if b := c.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

// Int32 reads an int32.
func (c *Cursor) Int32() int32 {
	if b := c.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

// Int64 reads an int64.
func (c *Cursor) Int64() int64 {
	if b := c.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

// Uvarint reads an unsigned varint of at most 32 bits, in its shortest form: no
// client writes another, and readers differ in what they make of those.
func (c *Cursor) Uvarint() uint32 {
	var v uint64
	for shift := 0; shift < 35; shift += 7 {
		b := c.take(1)
		if b == nil {
			return 0
		}
		v |= uint64(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			if b[0] == 0 && shift > 0 || v > math.MaxUint32 {
				break
			}
			return uint32(v)
		}
	}
	c.Err = ErrShort
	return 0
}

// String reads a nullable string, compact when flex. null is nil, empty is not.
func (c *Cursor) String(flex bool) []byte {
	n := 0
	if flex {
		n = int(c.Uvarint()) - 1
	} else {
		n = int(c.Int16())
	}
	if n == -1 {
		return nil
	}
	b := c.take(n)
	if b == nil && c.Err == nil {
		return []byte{}
	}
	return b
}

// Records reads nullable bytes with a 32-bit length, compact when flex.
func (c *Cursor) Records(flex bool) []byte {
	n := 0
	if flex {
		n = int(c.Uvarint()) - 1
	} else {
		n = int(c.Int32())
	}
	if n == -1 {
		return nil
	}
	return c.take(n)
}

// Len reads an array length, compact when flex; -1 is null. A length that the
// frame cannot hold is an error, so loops over it are bounded.
func (c *Cursor) Len(flex bool) int {
	n := 0
	if flex {
		n = int(c.Uvarint()) - 1
	} else {
		n = int(c.Int32())
	}
	if n < -1 || n > len(c.B)-c.Pos {
		c.Err = ErrShort
	}
	if c.Err != nil {
		return 0
	}
	return n
}

// Array is Len of an array that may not be null.
func (c *Cursor) Array(flex bool) int {
	n := c.Len(flex)
	if n < 0 {
		c.Err = ErrShort
		return 0
	}
	return n
}

// Tags passes a tag section and reports whether it held any tag.
func (c *Cursor) Tags() bool {
	n := c.Uvarint()
	for i := uint32(0); i < n && c.Err == nil; i++ {
		c.Uvarint()
		c.take(int(c.Uvarint()))
	}
	return n > 0
}

// refSize is from where on bytes are sent from where they lie. Below it, copying
// is cheaper than one more piece.
const refSize = 4096

// A Splice gathers frames for one write: small pieces are copied, large ones are
// kept by reference until Write. The zero Splice is ready.
type Splice struct {
	buf   *netio.Buffer
	n     int
	cuts  []cut
	refs  int // bytes by reference
	start int // Len at the begin of the frame that is being gathered
	mark  int // where its size goes
	bufs  net.Buffers
}

type cut struct {
	at  int
	ref []byte
}

// Len is how many bytes were gathered.
func (s *Splice) Len() int { return s.n + s.refs }

// References reports whether bytes are held by reference: they must not change
// before Write.
func (s *Splice) References() bool { return s.refs > 0 }

func (s *Splice) grow(n int) {
	if s.buf == nil {
		s.buf = netio.Get(n)
		return
	}
	if s.n+n <= len(s.buf.B) {
		return
	}
	bigger := netio.Get(s.n + n)
	copy(bigger.B, s.buf.B[:s.n])
	s.buf.Release()
	s.buf = bigger
}

// Begin starts a frame: four bytes for its size.
func (s *Splice) Begin() {
	s.start = s.Len()
	s.mark = s.n
	s.Int32(0)
}

// End writes the size of the frame begun last.
func (s *Splice) End() {
	binary.BigEndian.PutUint32(s.buf.B[s.mark:], uint32(s.Len()-s.start-4))
}

// EndAt writes the size of the frame begun last, of which size bytes in all are
// known to come, so that it can be written before it is whole.
func (s *Splice) EndAt(size int) {
	binary.BigEndian.PutUint32(s.buf.B[s.mark:], uint32(size-4))
}

// Copy appends b.
func (s *Splice) Copy(b []byte) {
	s.grow(len(b))
	s.n += copy(s.buf.B[s.n:], b)
}

// Append appends b by copy or by reference.
func (s *Splice) Append(b []byte) {
	if len(b) < refSize {
		s.Copy(b)
		return
	}
	s.grow(0)
	s.cuts = append(s.cuts, cut{s.n, b})
	s.refs += len(b)
}

// Int16 appends an int16.
func (s *Splice) Int16(v int16) {
	s.grow(2)
	binary.BigEndian.PutUint16(s.buf.B[s.n:], uint16(v))
	s.n += 2
}

// Int32 appends an int32.
func (s *Splice) Int32(v int32) {
	s.grow(4)
	binary.BigEndian.PutUint32(s.buf.B[s.n:], uint32(v))
	s.n += 4
}

// Uvarint appends an unsigned varint.
func (s *Splice) Uvarint(v uint32) {
	s.grow(5)
	s.n += binary.PutUvarint(s.buf.B[s.n:], uint64(v))
}

// String appends prefix+v as a string, compact when flex.
func (s *Splice) String(flex bool, prefix, v string) {
	n := len(prefix) + len(v)
	if flex {
		s.Uvarint(uint32(n + 1))
	} else {
		s.Int16(int16(n))
	}
	s.grow(n)
	s.n += copy(s.buf.B[s.n:], prefix)
	s.n += copy(s.buf.B[s.n:], v)
}

// StringSize is how many bytes String takes for v.
func StringSize(flex bool, v string) int {
	if !flex {
		return 2 + len(v)
	}
	n := 1
	for size := len(v) + 1; size >= 0x80; size >>= 7 {
		n++
	}
	return n + len(v)
}

// StringOf is String of bytes.
func (s *Splice) StringOf(flex bool, prefix string, v []byte) {
	n := len(prefix) + len(v)
	if flex {
		s.Uvarint(uint32(n + 1))
	} else {
		s.Int16(int16(n))
	}
	s.grow(n)
	s.n += copy(s.buf.B[s.n:], prefix)
	s.n += copy(s.buf.B[s.n:], v)
}

// State is a point to which Rewind goes back.
type State struct{ n, cuts, refs int }

// Save remembers how much was gathered.
func (s *Splice) Save() State { return State{s.n, len(s.cuts), s.refs} }

// Rewind forgets what was gathered since st.
func (s *Splice) Rewind(st State) {
	s.n, s.refs = st.n, st.refs
	clear(s.cuts[st.cuts:])
	s.cuts = s.cuts[:st.cuts]
}

// A Writer takes gathered frames.
type Writer interface {
	Write(b []byte) error
	WriteBuffers(bufs *net.Buffers) error
}

// Write sends everything and empties the splice.
func (s *Splice) Write(w Writer) error {
	if s.Len() == 0 {
		return nil
	}
	var err error
	if len(s.cuts) == 0 {
		err = w.Write(s.buf.B[:s.n])
	} else {
		all := s.bufs[:0]
		from := 0
		for _, c := range s.cuts {
			if c.at > from {
				all = append(all, s.buf.B[from:c.at])
			}
			all = append(all, c.ref)
			from = c.at
		}
		if s.n > from {
			all = append(all, s.buf.B[from:s.n])
		}
		keep := all
		s.bufs = all
		err = w.WriteBuffers(&s.bufs)
		clear(keep)
		s.bufs = keep[:0]
	}
	s.Reset()
	return err
}

// Reset empties the splice and gives its memory back.
func (s *Splice) Reset() {
	s.buf.Release()
	s.buf = nil
	clear(s.cuts)
	s.cuts, s.n, s.refs = s.cuts[:0], 0, 0
}

// BatchHeader is how many bytes of a record batch v2 precede its records.
const BatchHeader = 61

// Batch reads the header of a record batch, of which b holds at least 17 bytes or
// all there is: how long the batch is and how many records it says it holds (v2:
// the count at byte 57, none for a control batch; an older message set is one per
// message). Size 0 is what no batch begins with.
func Batch(b []byte) (size int, records int64) {
	if len(b) < 17 {
		return 0, 0
	}
	size = int(int32(binary.BigEndian.Uint32(b[8:]))) + 12
	if size < 17 {
		return 0, 0
	}
	switch {
	case b[16] != 2:
		records = 1
	case size >= BatchHeader && len(b) >= BatchHeader && b[22]&0x20 == 0:
		records = int64(int32(binary.BigEndian.Uint32(b[57:])))
	}
	return size, records
}

// Batches walks the record batches of one partition and returns how many records
// they say they hold. A batch cut short at the end of a fetch holds none.
func Batches(b []byte) (records int64) {
	for {
		size, n := Batch(b)
		if size == 0 || size > len(b) {
			return records
		}
		records += n
		b = b[size:]
	}
}
