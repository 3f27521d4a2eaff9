// Package netio reads and writes sockets the way the data path needs it: a
// connection that waits holds no buffer, whole TLS records that arrived
// together are decrypted together, and what is written together leaves in one
// system call.
//
// A [Conn] goes under crypto/tls. A [Reader] goes on top, of TLS or of the bare
// connection, and hands out Kafka frames.
package netio

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
)

const recordHeader = 5 // TLS: type, version, length

// Conn wraps a TCP connection. It is used by one reader and one writer at a
// time, like the connection itself.
type Conn struct {
	net.Conn
	raw syscall.RawConn // nil when the connection is not a socket (tests)

	// Read side: bytes buf.B[r:w] have been read and not been handed out.
	buf  *Buffer
	r, w int
	rest int // bytes of the TLS record being handed out that are still to come

	readOnce func(fd uintptr) bool // kept, so that waiting allocates nothing
	readErr  error

	// Write side.
	corked bool
	out    *Buffer
	outN   int
	writes atomic.Uint64 // twice the writes done, odd inside one

	bytesIn, bytesOut atomic.Uint64
}

// New wraps c.
func New(c net.Conn) *Conn {
	n := &Conn{Conn: c}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			n.raw = raw
		}
	}
	n.readOnce = n.tryRead
	return n
}

// tryRead is what the runtime's poller calls: it takes a buffer only for as
// long as there is something to put into it.
func (c *Conn) tryRead(fd uintptr) bool {
	buf := Get(BaseSize)
	for {
		n, err := syscall.Read(int(fd), buf.B)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			buf.Release()
			return false
		case err != nil:
			buf.Release()
			c.readErr = os.NewSyscallError("read", err)
		case n == 0:
			buf.Release()
			c.readErr = io.EOF
		default:
			c.buf, c.r, c.w = buf, 0, n
			c.bytesIn.Add(uint64(n))
		}
		return true
	}
}

// Wait blocks, without holding memory, until Buffered is not zero.
func (c *Conn) Wait() error {
	if c.r < c.w {
		return nil
	}
	c.drop()
	if c.raw == nil {
		buf := Get(BaseSize)
		n, err := c.Conn.Read(buf.B)
		if n > 0 {
			c.buf, c.r, c.w = buf, 0, n
			c.bytesIn.Add(uint64(n))
			return nil
		}
		buf.Release()
		if err == nil {
			err = io.ErrNoProgress
		}
		return err
	}
	c.readErr = nil
	if err := c.raw.Read(c.readOnce); err != nil {
		return err
	}
	return c.readErr
}

// Buffered reports how many bytes Read returns without a system call.
func (c *Conn) Buffered() int { return c.w - c.r }

// RecordBuffered reports whether a whole TLS record can be read without
// waiting for the peer.
func (c *Conn) RecordBuffered() bool {
	if c.rest > 0 {
		return c.Buffered() >= c.rest
	}
	if c.Buffered() < recordHeader {
		return false
	}
	return c.Buffered() >= recordHeader+int(binary.BigEndian.Uint16(c.buf.B[c.r+3:]))
}

// Read hands out at most one TLS record at a time, so that crypto/tls never
// holds bytes of a record that RecordBuffered could not see.
func (c *Conn) Read(p []byte) (int, error) {
	if c.r == c.w {
		if err := c.Wait(); err != nil {
			return 0, err
		}
	}
	if c.rest == 0 {
		if have := c.Buffered(); have < recordHeader {
			// Part of a header: hand it out, the rest follows. The length
			// is not known yet, so the boundary is found at the next header.
			if err := c.completeHeader(); err != nil {
				return 0, err
			}
		}
		c.rest = recordHeader + int(binary.BigEndian.Uint16(c.buf.B[c.r+3:]))
	}
	n := copy(p, c.buf.B[c.r:min(c.w, c.r+c.rest)])
	c.r += n
	c.rest -= n
	if c.r == c.w {
		c.drop()
	}
	return n, nil
}

func (c *Conn) completeHeader() error {
	if c.r+recordHeader > len(c.buf.B) {
		c.w = copy(c.buf.B, c.buf.B[c.r:c.w])
		c.r = 0
	}
	for c.Buffered() < recordHeader {
		n, err := c.Conn.Read(c.buf.B[c.w:])
		c.w += n
		c.bytesIn.Add(uint64(max(n, 0)))
		if err != nil {
			if errors.Is(err, io.EOF) {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

func (c *Conn) drop() {
	c.buf.Release()
	c.buf, c.r, c.w = nil, 0, 0
}

// Cork makes Write gather until Flush.
func (c *Conn) Cork() { c.corked = true }

// corkSize holds the TLS records of a little over 128 KiB.
const corkSize = 256 << 10

// Write writes p, or keeps it until Flush after Cork.
func (c *Conn) Write(p []byte) (int, error) {
	if !c.corked {
		return c.write(p)
	}
	if c.outN+len(p) > corkSize {
		if err := c.flush(); err != nil {
			return 0, err
		}
		if len(p) > corkSize/2 {
			return c.write(p)
		}
	}
	if c.out == nil || c.outN+len(p) > len(c.out.B) {
		bigger := Get(c.outN + len(p))
		if c.out != nil {
			copy(bigger.B, c.out.B[:c.outN])
			c.out.Release()
		}
		c.out = bigger
	}
	c.outN += copy(c.out.B[c.outN:], p)
	return len(p), nil
}

// write is one write that the peer has to take in before anything else is sent.
func (c *Conn) write(p []byte) (int, error) {
	c.writes.Add(1)
	n, err := c.Conn.Write(p)
	c.writes.Add(1)
	c.bytesOut.Add(uint64(max(n, 0)))
	return n, err
}

// WriteBuffers writes several pieces past Cork, in one system call while they are
// no more than it would gather.
func (c *Conn) WriteBuffers(bufs *net.Buffers) error {
	total := 0
	for _, b := range *bufs {
		total += len(b)
	}
	if total <= corkSize {
		c.writes.Add(1)
		n, err := bufs.WriteTo(c.Conn)
		c.writes.Add(1)
		c.bytesOut.Add(uint64(max(n, 0)))
		return err
	}
	for _, b := range *bufs {
		for len(b) > 0 {
			n, err := c.write(b[:min(len(b), corkSize)])
			if err != nil {
				return err
			}
			b = b[n:]
		}
	}
	return nil
}

// WriteOver writes b by way of over: the TLS connection that stands on c, or c. What
// becomes several TLS records leaves in one system call.
func (c *Conn) WriteOver(over net.Conn, b []byte) error {
	if over == net.Conn(c) || len(b) <= recordSize {
		_, err := over.Write(b)
		return err
	}
	c.Cork()
	_, err := over.Write(b)
	if ferr := c.Flush(); err == nil {
		err = ferr
	}
	return err
}

// WriteBuffersOver is WriteOver of several pieces.
func (c *Conn) WriteBuffersOver(over net.Conn, bufs *net.Buffers) error {
	if over == net.Conn(c) {
		return c.WriteBuffers(bufs)
	}
	c.Cork()
	_, err := bufs.WriteTo(over)
	if ferr := c.Flush(); err == nil {
		err = ferr
	}
	return err
}

// Bytes are those that came and went, TLS and all.
func (c *Conn) Bytes() (in, out uint64) { return c.bytesIn.Load(), c.bytesOut.Load() }

// Writes tells how far writing has come: the same odd number twice is a peer that
// took nothing in between.
func (c *Conn) Writes() uint64 { return c.writes.Load() }

// Flush writes what was gathered since Cork, in one system call.
func (c *Conn) Flush() error {
	c.corked = false
	return c.flush()
}

func (c *Conn) flush() error {
	if c.outN == 0 {
		return nil
	}
	_, err := c.write(c.out.B[:c.outN])
	c.out.Release()
	c.out, c.outN = nil, 0
	return err
}
