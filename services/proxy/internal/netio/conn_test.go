package netio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// patience is how long anything may take that must happen.
const patience = time.Minute

// sockets are both ends of a loopback connection.
func sockets(t testing.TB) (ours, theirs *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	c.SetDeadline(time.Now().Add(patience))
	s.SetDeadline(time.Now().Add(patience))
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

// record is a TLS record of n bytes.
func record(n int) []byte {
	b := make([]byte, recordHeader+n)
	b[0], b[1], b[2] = 23, 3, 3
	binary.BigEndian.PutUint16(b[3:], uint16(n))
	for i := range n {
		b[recordHeader+i] = byte(i)
	}
	return b
}

// scripted is a connection whose reads return what they are given, piece by piece.
type scripted struct {
	net.Conn
	pieces [][]byte
}

func (s *scripted) Read(p []byte) (int, error) {
	if len(s.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.pieces[0])
	if s.pieces[0] = s.pieces[0][n:]; len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

// Whichever pieces records arrive in, also within a header, Read hands out no more
// than one at a time: the boundary is where crypto/tls asks again.
func TestReadStopsAtRecordBoundaries(t *testing.T) {
	var stream []byte
	var ends []int
	for _, n := range []int{0, 1, 40, 16 << 10, 3, 30000, 0, 7} {
		stream = append(stream, record(n)...)
		ends = append(ends, len(stream))
	}
	for range 400 {
		var pieces [][]byte
		for rest := stream; len(rest) > 0; {
			n := 1 + rand.IntN(min(len(rest), []int{1, 3, 6, 70000}[rand.IntN(4)]))
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		c := New(&scripted{pieces: pieces})
		var got []byte
		p := make([]byte, 40000)
		for {
			n, err := c.Read(p[:1+rand.IntN(len(p))])
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || n == 0 {
				t.Fatalf("Read() = %d, %v after %d bytes", n, err, len(got))
			}
			next := ends[slices.IndexFunc(ends, func(end int) bool { return end > len(got) })]
			if len(got)+n > next {
				t.Fatalf("Read() = %d bytes at %d, past the record's end at %d", n, len(got), next)
			}
			got = append(got, p[:n]...)
		}
		if !bytes.Equal(got, stream) {
			t.Fatal("the stream was read wrong")
		}
		if c.buf != nil || c.Buffered() != 0 {
			t.Fatal("a connection with nothing to read holds a buffer")
		}
	}
}

func TestReadOfAPartialHeader(t *testing.T) {
	c := New(&scripted{pieces: [][]byte{{23, 3}}})
	if n, err := c.Read(make([]byte, 9)); n != 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Read() = %d, %v, want 0, unexpected EOF", n, err)
	}
}

// RecordBuffered says whether the rest of the record is here.
func TestRecordBuffered(t *testing.T) {
	ours, theirs := sockets(t)
	c := New(ours)
	if c.RecordBuffered() {
		t.Error("nothing has arrived, and a record is said to be here")
	}
	stream := append(record(100), record(200)...)
	for cut := 1; cut < len(stream); cut += 7 {
		theirs.Write(stream[:cut])
		if err := c.Wait(); err != nil {
			t.Fatal(err)
		}
		if got, want := c.RecordBuffered(), cut >= recordHeader+100; got != want {
			t.Errorf("of %d bytes RecordBuffered() = %v, want %v", cut, got, want)
		}
		theirs.Write(stream[cut:])
		if _, err := io.ReadFull(c, make([]byte, len(stream))); err != nil {
			t.Fatal(err)
		}
	}
	theirs.Write(record(50))
	io.ReadFull(c, make([]byte, recordHeader)) // as crypto/tls reads, header first
	if !c.RecordBuffered() {
		t.Error("the rest of the record is here, and is said not to be")
	}
}

// counted records what was written, and by how many writes.
type counted struct {
	net.Conn
	sizes []int
	bytes.Buffer
	err error
}

func (c *counted) Write(b []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	c.sizes = append(c.sizes, len(b))
	return c.Buffer.Write(b)
}

func (c *counted) Read([]byte) (int, error) { return 0, io.EOF }

func TestCorkGathers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		writes []int
		want   []int
	}{
		{"nothing", nil, nil},
		{"small records leave together", []int{10, 20, 30}, []int{60}},
		{"up to the limit", []int{corkSize - 1, 1}, []int{corkSize}},
		{"above it what was gathered leaves first", []int{corkSize - 1, 2, 5}, []int{corkSize - 1, 7}},
		{"a large one leaves by itself when it does not fit", []int{corkSize / 2, corkSize/2 + 1, 5}, []int{corkSize / 2, corkSize/2 + 1, 5}},
		{"one above the limit leaves by itself", []int{7, 3 * corkSize, 9}, []int{7, 3 * corkSize, 9}},
		{"many of TLS's size", slices.Repeat([]int{16406}, 20), []int{15 * 16406, 5 * 16406}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := &counted{}
			c := New(out)
			var want []byte
			c.Cork()
			for i, n := range tt.writes {
				b := bytes.Repeat([]byte{byte(i + 1)}, n)
				want = append(want, b...)
				if got, err := c.Write(b); got != n || err != nil {
					t.Fatalf("Write(%d) = %d, %v", n, got, err)
				}
				clear(b) // it is the caller's again
			}
			if err := c.Flush(); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(out.sizes, tt.want) || !bytes.Equal(out.Bytes(), want) {
				t.Errorf("writes of %v, want %v; bytes equal: %v", out.sizes, tt.want, bytes.Equal(out.Bytes(), want))
			}
			if c.out != nil {
				t.Error("a buffer is held after Flush")
			}
			c.Write([]byte{1})
			if n := len(out.sizes); out.sizes[n-1] != 1 {
				t.Error("still corked after Flush")
			}
		})
	}
}

func TestWriteBuffers(t *testing.T) {
	for _, sizes := range [][]int{{1}, {10, 0, 20}, {corkSize}, {corkSize, 1}, {5, 3*corkSize + 7, 9}} {
		out := &counted{}
		c := New(out)
		var bufs net.Buffers
		var want []byte
		for i, n := range sizes {
			bufs = append(bufs, bytes.Repeat([]byte{byte(i + 1)}, n))
			want = append(want, bufs[i]...)
		}
		if err := c.WriteBuffers(&bufs); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%v was written wrong", sizes)
		}
		if most := slices.Max(out.sizes); most > corkSize {
			t.Errorf("%v: one write of %d bytes, at most %d", sizes, most, corkSize)
		}
		if c.Writes()%2 != 0 {
			t.Errorf("%v: still writing afterwards", sizes)
		}
	}
	broken := errors.New("broken")
	c := New(&counted{err: broken})
	for _, n := range []int{10, 2 * corkSize} {
		if err := c.WriteBuffers(&net.Buffers{make([]byte, n)}); !errors.Is(err, broken) {
			t.Errorf("WriteBuffers of %d bytes = %v, want %v", n, err, broken)
		}
	}
	c.Cork()
	c.Write([]byte{1})
	if err := c.Flush(); !errors.Is(err, broken) {
		t.Errorf("Flush() = %v, want %v", err, broken)
	}
}

// While a peer takes nothing, Writes is odd and stays as it is.
func TestWritesTellsOfAPeerThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		c := New(ours)
		for _, write := range []func(){
			func() { c.Write(make([]byte, 100)) },
			func() { c.WriteBuffers(&net.Buffers{make([]byte, 100)}) },
			func() { c.Cork(); c.Write(make([]byte, 100)); c.Flush() },
		} {
			before := c.Writes()
			go write()
			synctest.Wait()
			during := c.Writes()
			time.Sleep(time.Hour)
			if before%2 != 0 || during != before+1 || c.Writes() != during {
				t.Errorf("Writes() = %d, %d, %d before, during and during a write", before, during, c.Writes())
			}
			io.ReadFull(theirs, make([]byte, 100))
			synctest.Wait()
			if c.Writes() != before+2 {
				t.Errorf("Writes() = %d after a write, want %d", c.Writes(), before+2)
			}
		}
		// Large pieces tell that they move.
		go c.WriteBuffers(&net.Buffers{make([]byte, 3*corkSize)})
		seen := make(map[uint64]bool)
		for range 3 {
			synctest.Wait()
			seen[c.Writes()] = true
			io.ReadFull(theirs, make([]byte, corkSize))
		}
		if len(seen) != 3 {
			t.Errorf("Writes() = %v while three pieces were taken", seen)
		}
	})
}

// A connection that waits holds no buffer, and a deadline ends the wait.
func TestWaitHoldsNothing(t *testing.T) {
	ours, theirs := sockets(t)
	c := New(ours)
	got := make(chan error)
	go func() { got <- c.Wait() }()
	theirs.Write([]byte{1, 2, 3})
	if err := <-got; err != nil || c.Buffered() != 3 {
		t.Fatalf("Wait() = %v, %d bytes", err, c.Buffered())
	}
	c.drop()
	ours.SetReadDeadline(time.Unix(1, 0))
	if err := c.Wait(); err == nil || c.buf != nil {
		t.Errorf("Wait() = %v with a deadline in the past, holds %v", err, c.buf)
	}
	ours.SetReadDeadline(time.Now().Add(patience))
	theirs.Close()
	if err := c.Wait(); !errors.Is(err, io.EOF) || c.buf != nil {
		t.Errorf("Wait() = %v after the peer left, want EOF", err)
	}
}
