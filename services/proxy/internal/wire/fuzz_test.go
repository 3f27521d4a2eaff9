package wire

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// sink keeps what a splice writes.
type sink struct{ bytes.Buffer }

func (s *sink) Write(b []byte) error {
	s.Buffer.Write(b)
	return nil
}

func (s *sink) WriteBuffers(bufs *net.Buffers) error {
	_, err := bufs.WriteTo(&s.Buffer)
	return err
}

// Whatever a frame holds and in whatever order it is read, a cursor stays in it,
// goes forward only, and reads zeros after its first error.
func FuzzCursor(f *testing.F) {
	f.Add([]byte{0, 3, 'a', 'b', 'c', 2, 1, 2, 3}, []byte("si4t"))
	f.Add([]byte{4, 'a', 'b', 'c', 0xff, 0xff, 0xff, 0xff, 0x0f, 1}, []byte("SVvT"))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x80, 0, 0, 0}, []byte("rlsn"))
	f.Fuzz(func(t *testing.T, frame, ops []byte) {
		c := Cursor{B: frame}
		for _, op := range ops {
			before, failed := c.Pos, c.Err != nil
			var out []byte
			var n int64
			switch op {
			case 's', 'S':
				out = c.String(op == 'S')
			case 'r', 'R':
				out = c.Records(op == 'R')
			case 'l', 'L':
				n = int64(c.Len(op == 'L'))
				if n > int64(len(frame)-c.Pos) {
					t.Fatalf("an array of %d elements in %d bytes", n, len(frame)-c.Pos)
				}
			case 't':
				c.Tags()
			case 'v':
				n = int64(c.Uvarint())
			case '1':
				n = int64(c.Int8())
			case '2':
				n = int64(c.Int16())
			case '4':
				n = int64(c.Int32())
			case '8':
				n = c.Int64()
			default:
				out = c.Skip(int(int8(op)))
			}
			switch {
			case c.Pos < before || c.Pos > len(frame):
				t.Fatalf("%q moved from %d to %d of %d", op, before, c.Pos, len(frame))
			case failed && (c.Pos != before || len(out) > 0 || n > 0):
				t.Fatalf("%q read %x and %d behind an error", op, out, n)
			case len(out) > c.Pos-before:
				t.Fatalf("%q handed out %d bytes and passed %d", op, len(out), c.Pos-before)
			}
		}
	})
}

// An unsigned varint is read as kmsg reads it, and in its shortest form only: a
// length that two readers take for two lengths would let a request hide in another.
func FuzzUvarint(f *testing.F) {
	f.Add([]byte{0x80, 0x00})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x1f})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := Cursor{B: b}
		got := c.Uvarint()
		want, n := binary.Uvarint(b)
		if ok := n > 0 && want < 1<<32 && n == len(binary.AppendUvarint(nil, want)); ok != (c.Err == nil) || ok && (uint64(got) != want || c.Pos != n) {
			t.Errorf("%x is %d after %d bytes, %v; want %d after %d", b, got, c.Pos, c.Err, want, n)
		}
	})
}

// The walk over record batches neither leaves the bytes nor stops before their end,
// and counts what a decoder counts.
func FuzzBatches(f *testing.F) {
	one := func(records int32, attributes int16) []byte {
		b := kmsg.RecordBatch{Length: 49 + 3, Magic: 2, Attributes: attributes, NumRecords: records, Records: []byte{1, 2, 3}}
		return b.AppendTo(nil)
	}
	f.Add(one(3, 0))
	f.Add(append(one(3, 0), one(5, 0x20)...))
	f.Add(append(one(3, 0), 1, 2, 3))
	f.Add(append([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 1, 0}, one(1, 0)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var want int64
		for rest := b; len(rest) >= 17; {
			size := int64(int32(binary.BigEndian.Uint32(rest[8:]))) + 12
			if size < 17 || size > int64(len(rest)) {
				break
			}
			var batch kmsg.RecordBatch
			switch {
			case rest[16] != 2:
				want++
			case batch.ReadFrom(rest[:size]) == nil && batch.Attributes&0x20 == 0:
				want += int64(batch.NumRecords)
			}
			rest = rest[size:]
		}
		if got := Batches(b); got != want {
			t.Errorf("%d records in %x, want %d", got, b, want)
		}
	})
}

// What is spliced together comes out in order, whether it was copied or referred
// to, and a frame's size is that of the frame.
func FuzzSplice(f *testing.F) {
	f.Add([]byte("name"), uint16(5000), true)
	f.Add([]byte{}, uint16(4096), false)
	f.Fuzz(func(t *testing.T, piece []byte, large uint16, flex bool) {
		var s Splice
		big := bytes.Repeat([]byte{7}, int(large))
		var want []byte
		for range 2 {
			body := []byte{1}
			if flex {
				body = binary.AppendUvarint(body, uint64(len(piece)+2+1))
			} else {
				body = binary.BigEndian.AppendUint16(body, uint16(len(piece)+2))
			}
			body = append(append(append(body, "p."...), piece...), big...)
			want = append(binary.BigEndian.AppendUint32(want, uint32(len(body))), body...)

			s.Begin()
			s.Copy([]byte{1})
			s.StringOf(flex, "p.", piece)
			s.Append(big)
			s.End()
		}
		if s.Len() != len(want) {
			t.Errorf("Len %d, want %d", s.Len(), len(want))
		}
		var out sink
		if err := s.Write(&out); err != nil || !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%v, wrote %d bytes, want %d", err, out.Len(), len(want))
		}
		if s.Len() != 0 {
			t.Errorf("%d bytes are left", s.Len())
		}
	})
}
