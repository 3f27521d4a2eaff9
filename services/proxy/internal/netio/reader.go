package netio

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// recordSize is the most plaintext one TLS record carries (RFC 8446 §5.1). With
// that much room in the buffer a read never leaves part of a record in tls.Conn,
// where [Reader.Ready] could not see it.
const recordSize = 16 << 10

// A frame whose length is not taken.
var (
	ErrFrameSize     = errors.New("frame size above the limit")
	ErrFrameNegative = errors.New("negative frame size")
)

// A Reader hands out length-prefixed Kafka frames. While it waits for a frame to
// begin it holds no buffer. It is used by one goroutine at a time.
type Reader struct {
	conn *Conn
	tls  *tls.Conn // nil: plaintext
	buf  *Buffer
	r, w int
}

// NewReader reads from t, over c, or from c itself when t is nil.
func NewReader(c *Conn, t *tls.Conn) *Reader { return &Reader{conn: c, tls: t} }

// Bytes returns what has been read and not been discarded. It is valid until the
// next call of another method.
func (r *Reader) Bytes() []byte {
	if r.buf == nil {
		return nil
	}
	return r.buf.B[r.r:r.w]
}

// Buffered is len(Bytes()).
func (r *Reader) Buffered() int { return r.w - r.r }

// Discard drops the first n bytes, which must be buffered. The buffer goes back
// to the pool when nothing is left in it.
func (r *Reader) Discard(n int) {
	r.r += n
	if r.r == r.w {
		r.buf.Release()
		r.buf, r.r, r.w = nil, 0, 0
	}
}

// FrameSize returns the size of the next frame including its 4-byte prefix, or 0
// when the prefix is not complete yet.
func (r *Reader) FrameSize(limit int32) (int, error) {
	if r.Buffered() < 4 {
		return 0, nil
	}
	n := int32(binary.BigEndian.Uint32(r.buf.B[r.r:]))
	if n < 0 {
		return 0, fmt.Errorf("%w: %d", ErrFrameNegative, n)
	}
	if n > limit {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrFrameSize, n, limit)
	}
	return 4 + int(n), nil
}

// Ready reports whether Fill would return without waiting for the peer.
func (r *Reader) Ready() bool {
	if r.tls != nil {
		return r.conn.RecordBuffered()
	}
	return r.conn.Buffered() > 0
}

// Wait blocks without holding memory until the peer has sent something.
func (r *Reader) Wait() error {
	if r.Buffered() > 0 {
		return nil
	}
	return r.conn.Wait()
}

// Fill reads more bytes behind those that are buffered, and makes room for need
// bytes in all (a frame's size, when it is known). It reads at least one byte, or
// returns an error; io.ErrUnexpectedEOF when the peer left inside a frame.
func (r *Reader) Fill(need int) error {
	if r.tls == nil && r.Buffered() == 0 && (need <= BaseSize || r.conn.Buffered() > 0) {
		// Take over the buffer that the connection has read into. Inside a
		// larger frame it is read straight into one of the right size instead.
		if err := r.conn.Wait(); err != nil {
			return err
		}
		r.buf.Release()
		r.buf, r.r, r.w = r.conn.buf, r.conn.r, r.conn.w
		r.conn.buf, r.conn.r, r.conn.w = nil, 0, 0
		return nil
	}
	r.room(max(need+recordSize, r.Buffered()+recordSize))
	var n int
	var err error
	if r.tls != nil {
		n, err = r.tls.Read(r.buf.B[r.w:])
	} else {
		n, err = r.conn.Conn.Read(r.buf.B[r.w:])
		r.conn.bytesIn.Add(uint64(max(n, 0)))
	}
	r.w += n
	if n > 0 {
		return nil
	}
	if r.r == r.w {
		r.buf.Release()
		r.buf, r.r, r.w = nil, 0, 0
	} else if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// room makes the buffer at least n bytes large, counted from the first byte that
// is buffered.
func (r *Reader) room(n int) {
	if r.buf == nil {
		r.buf = Get(n)
		r.r, r.w = 0, 0
		return
	}
	if r.r+n <= len(r.buf.B) {
		return
	}
	if n <= len(r.buf.B) {
		r.w = copy(r.buf.B, r.buf.B[r.r:r.w])
		r.r = 0
		return
	}
	bigger := Get(n)
	r.w = copy(bigger.B, r.buf.B[r.r:r.w])
	r.r = 0
	r.buf.Release()
	r.buf = bigger
}

// Frame blocks until the next frame is whole and returns it with its prefix. The
// caller calls Discard(len(frame)) when it is done with it.
func (r *Reader) Frame(limit int32) ([]byte, error) {
	for {
		size, err := r.FrameSize(limit)
		if err != nil {
			return nil, err
		}
		if size > 0 && r.Buffered() >= size {
			return r.buf.B[r.r : r.r+size], nil
		}
		if r.Buffered() == 0 {
			if err := r.Wait(); err != nil {
				return nil, err
			}
		}
		if err := r.Fill(size); err != nil {
			return nil, err
		}
	}
}

// Close gives the buffer back. Bytes must not be used afterwards.
func (r *Reader) Close() {
	r.buf.Release()
	r.buf, r.r, r.w = nil, 0, 0
}
