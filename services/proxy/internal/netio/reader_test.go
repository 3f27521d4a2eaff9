package netio

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// serverConfig has a throw-away certificate.
func serverConfig(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(crand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// choppy writes in pieces of its own.
type choppy struct {
	net.Conn
	rand *rand.Rand
}

func (c *choppy) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := 1 + c.rand.IntN(min(len(rest), []int{4, 300, 1 << 20}[c.rand.IntN(3)]))
		if _, err := c.Conn.Write(rest[:n]); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(b), nil
}

// pair is a Reader and what writes to it.
func pair(t testing.TB, config *tls.Config, seed uint64) (*Reader, net.Conn) {
	t.Helper()
	ours, theirs := sockets(t)
	c := New(ours)
	w := &choppy{theirs, rand.New(rand.NewPCG(seed, 1))}
	if config == nil {
		return NewReader(c, nil), w
	}
	server, client := tls.Server(c, config), tls.Client(w, &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- client.Handshake() }()
	if err := server.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return NewReader(c, server), client
}

func framesOf(r *rand.Rand) (frames [][]byte, stream []byte) {
	for range 60 {
		n := []int{0, 1, 4, 100, BaseSize - 4, BaseSize, 3 * BaseSize, 200_000}[r.IntN(8)]
		if n > 4 {
			n = r.IntN(n)
		}
		frame := binary.BigEndian.AppendUint32(nil, uint32(n))
		for range n {
			frame = append(frame, byte(r.Uint32()))
		}
		frames, stream = append(frames, frame), append(stream, frame...)
	}
	return frames, stream
}

// Frames come out as they went in, however they are split into writes, TLS records
// and packets. Between them no buffer is held.
func TestFramesSplitAnywhere(t *testing.T) {
	config := serverConfig(t)
	for _, transport := range []string{"plaintext", "TLS"} {
		for seed := range uint64(12) {
			t.Run(fmt.Sprintf("%s %d", transport, seed), func(t *testing.T) {
				t.Parallel()
				c := config
				if transport == "plaintext" {
					c = nil
				}
				r, w := pair(t, c, seed)
				random := rand.New(rand.NewPCG(seed, 2))
				frames, stream := framesOf(random)
				taken := make(chan struct{}, 1)
				go func() {
					for rest := stream; len(rest) > 0; {
						n := 1 + random.IntN(min(len(rest), 50_000))
						if _, err := w.Write(rest[:n]); err != nil {
							t.Error(err)
							return
						}
						rest = rest[n:]
					}
					<-taken
					w.Close()
				}()
				for i, want := range frames {
					got, err := r.Frame(1 << 20)
					if err != nil {
						t.Fatalf("frame %d: %v", i, err)
					}
					if !bytes.Equal(got, want) {
						t.Fatalf("frame %d of %d bytes: got %d bytes", i, len(want), len(got))
					}
					r.Discard(len(got))
					if r.Buffered() == 0 && r.buf != nil {
						t.Fatalf("frame %d: a buffer without content is held", i)
					}
				}
				taken <- struct{}{}
				if _, err := r.Frame(1 << 20); !errors.Is(err, io.EOF) {
					t.Errorf("after the last frame: %v, want EOF", err)
				}
				if r.buf != nil || r.conn.buf != nil {
					t.Errorf("buffers are held after the last frame: %v, %v", r.buf, r.conn.buf)
				}
				r.Close()
			})
		}
	}
}

// While Ready, Fill does not wait for the peer; when it is not, nothing that has
// arrived in full is out of sight.
func TestReadyMeansNoWaiting(t *testing.T) {
	config := serverConfig(t)
	for _, transport := range []string{"plaintext", "TLS"} {
		t.Run(transport, func(t *testing.T) {
			c := config
			if transport == "plaintext" {
				c = nil
			}
			r, w := pair(t, c, 1)
			for round := range 30 {
				const frames, size = 9, 700
				var sent []byte
				for i := range frames {
					frame := binary.BigEndian.AppendUint32(nil, size)
					frame = append(frame, bytes.Repeat([]byte{byte(i)}, size)...)
					sent = append(sent, frame...)
					go w.Write(nil)
				}
				go func() { // each frame a write, as clients do: a TLS record each
					for i := range frames {
						w.Write(sent[i*(4+size) : (i+1)*(4+size)])
					}
				}()
				var got []byte
				for len(got) < len(sent) {
					if r.Buffered() == 0 {
						if err := r.Wait(); err != nil {
							t.Fatal(err)
						}
					}
					for r.Ready() {
						r.conn.Conn.SetReadDeadline(time.Unix(1, 0))
						if err := r.Fill(0); err != nil {
							t.Fatalf("round %d: Fill while Ready: %v", round, err)
						}
						r.conn.Conn.SetReadDeadline(time.Now().Add(patience))
					}
					if r.Buffered() == 0 { // part of a record only
						if err := r.Fill(0); err != nil {
							t.Fatal(err)
						}
					}
					got = append(got, r.Bytes()...)
					r.Discard(r.Buffered())
				}
				if !bytes.Equal(got, sent) {
					t.Fatalf("round %d: read wrong", round)
				}
			}
		})
	}
}

func TestFramesThatAreNotTaken(t *testing.T) {
	for _, tt := range []struct {
		name string
		sent []byte
		want error
	}{
		{"negative size", []byte{0xff, 0xff, 0xff, 0xff, 1}, ErrFrameNegative},
		{"above the limit", []byte{0, 0, 0, 101, 1}, ErrFrameSize},
		{"the largest there is", []byte{0x7f, 0xff, 0xff, 0xff}, ErrFrameSize},
		{"left within the size", []byte{0, 0}, io.ErrUnexpectedEOF},
		{"left within the frame", []byte{0, 0, 0, 100, 1, 2, 3}, io.ErrUnexpectedEOF},
		{"left before a frame", nil, io.EOF},
	} {
		for _, config := range []*tls.Config{nil, serverConfig(t)} {
			t.Run(fmt.Sprintf("%s, TLS %v", tt.name, config != nil), func(t *testing.T) {
				r, w := pair(t, config, 3)
				if len(tt.sent) > 0 {
					w.Write(tt.sent)
				}
				w.Close()
				if _, err := r.Frame(100); !errors.Is(err, tt.want) {
					t.Errorf("Frame() = %v, want %v", err, tt.want)
				}
				r.Close()
				if r.buf != nil {
					t.Error("a buffer is held after Close")
				}
			})
		}
	}
}

// A large frame takes memory when it is read, once, and what follows it stays.
func TestLargeFramesTakeTheirSize(t *testing.T) {
	r, w := pair(t, nil, 5)
	const size = 3 << 20
	frame := binary.BigEndian.AppendUint32(nil, size)
	frame = append(frame, make([]byte, size)...)
	frame[len(frame)-1] = 9
	go func() { w.Write(frame); w.Write([]byte{0, 0, 0, 1, 7}) }()
	got, err := r.Frame(4 << 20)
	if err != nil || !bytes.Equal(got, frame) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if n := len(r.buf.B); n > 4<<20 {
		t.Errorf("a frame of 3 MiB takes %d bytes", n)
	}
	r.Discard(len(got))
	if got, err = r.Frame(100); err != nil || !bytes.Equal(got, []byte{0, 0, 0, 1, 7}) {
		t.Errorf("the next frame is %x, %v", got, err)
	}
}
