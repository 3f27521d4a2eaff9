package upstream

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/netio"
)

// A broker that answers nothing is given up after the limit of its oldest request,
// and not before. Sweeps come once a second.
func TestStalledBrokersAreGivenUp(t *testing.T) {
	for _, limit := range []time.Duration{time.Second, 5 * time.Second, time.Minute} {
		withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
			conn, sink, began := lease(t, c, Produce), new(recorder), time.Now()
			send(t, conn, sink, 1, limit)
			send(t, conn, sink, 2, time.Hour) // it waits for the first
			time.Sleep(limit + 3*time.Second)
			_, lost, at, err := sink.saw()
			if !slices.Equal(lost, []int32{1, 2}) || err == nil {
				t.Fatalf("lost %v with %v, want both requests", lost, err)
			}
			if after := at.Sub(began); after <= limit || after > limit+3*time.Second {
				t.Errorf("given up after %v, want a little more than %v", after, limit)
			}
			conn.Release()
		})
	}
}

func TestBrokersAreWaitedFor(t *testing.T) {
	t.Run("without a limit", func(t *testing.T) {
		withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
			conn, sink := lease(t, c, GroupWait), new(recorder)
			send(t, conn, sink, 1, 0)
			time.Sleep(24 * time.Hour)
			if _, lost, _, _ := sink.saw(); len(lost) > 0 {
				t.Error("a request without a limit was given up")
			}
			conn.Close()
		})
	})
	t.Run("with nothing asked", func(t *testing.T) {
		withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
			s.set(func() { s.handle = func(n net.Conn, frame []byte) { n.Write(answerTo(frame, produced())) } })
			conn, sink := lease(t, c, Produce), new(recorder)
			for i := range int32(3) {
				time.Sleep(time.Hour)
				send(t, conn, sink, i, time.Second)
				synctest.Wait()
			}
			if answered, lost, _, _ := sink.saw(); len(answered) != 3 || len(lost) > 0 {
				t.Errorf("answered %v, lost %v", answered, lost)
			}
			conn.Release()
		})
	})
	// A large answer that comes slowly, and comes.
	trickle := func(n net.Conn, frame []byte) {
		out := append([]byte{0, 0, 0, 64}, frame[8:12]...)
		out = append(out, make([]byte, 60)...)
		for _, b := range out {
			time.Sleep(4 * time.Second)
			if _, err := n.Write([]byte{b}); err != nil {
				return
			}
		}
	}
	for progress, want := range map[bool]int{true: 1, false: 0} {
		withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
			s.set(func() { s.handle = trickle })
			conn := lease(t, c, Fetch)
			sink := &recorder{take: func(c *Conn, r *netio.Reader, size int) error {
				for r.Buffered() < size {
					if err := r.Fill(size); err != nil {
						return err
					}
					if progress {
						c.Progress()
					}
				}
				r.Discard(size)
				return nil
			}}
			send(t, conn, sink, 1, 40*time.Second)
			time.Sleep(5 * time.Minute)
			if answered, lost, _, err := sink.saw(); len(answered) != want || len(lost) != 1-want {
				t.Errorf("progress told: %v: answered %v, lost %v (%v)", progress, answered, lost, err)
			}
			conn.Close()
		})
	}
	t.Run("while the client takes its time", func(t *testing.T) {
		withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
			s.set(func() { s.handle = func(n net.Conn, frame []byte) { n.Write(answerTo(frame, produced())) } })
			conn := lease(t, c, Fetch)
			sink := &recorder{take: func(c *Conn, r *netio.Reader, size int) error {
				if _, err := r.Frame(1 << 20); err != nil {
					return err
				}
				c.Handing(true)
				time.Sleep(time.Hour)
				c.Handing(false)
				r.Discard(size)
				return nil
			}}
			send(t, conn, sink, 1, time.Second)
			time.Sleep(2 * time.Hour)
			if answered, lost, _, err := sink.saw(); len(answered) != 1 || len(lost) > 0 {
				t.Errorf("answered %v, lost %v (%v)", answered, lost, err)
			}
			if err := conn.dead(); err != nil {
				t.Errorf("the broker was given up: %v", err)
			}
			conn.Release()
		})
	})
}

func produced() *kmsg.ProduceResponse {
	r := kmsg.NewPtrProduceResponse()
	r.Version = 9
	return r
}

// When a broker goes, what it has not answered is lost, all of it, in order, and the
// connection is leased to nobody else.
func TestLostRequestsAreToldInOrder(t *testing.T) {
	withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
		n := 0
		s.set(func() {
			s.handle = func(c net.Conn, frame []byte) {
				switch n++; n {
				case 1, 2:
					c.Write(answerTo(frame, produced()))
				case 6:
					c.Close()
				}
			}
		})
		conn, sink := lease(t, c, Produce), new(recorder)
		for i := range int32(5) {
			send(t, conn, sink, 10+i, time.Minute)
		}
		conn.Expect(Pending{Sink: sink, CorrelationID: 15, Version: 9})
		conn.Expect(Pending{Sink: sink, CorrelationID: 16, Version: 9}) // not written yet
		conn.Write(produceFrame(15))
		answered, lost, _, err := sink.saw()
		if !slices.Equal(answered, []int32{10, 11}) || !slices.Equal(lost, []int32{12, 13, 14, 15, 16}) || !errors.Is(err, io.EOF) {
			t.Errorf("answered %v, lost %v with %v", answered, lost, err)
		}
		if err := conn.Expect(Pending{Sink: sink}); err == nil {
			t.Error("a dead connection takes requests")
		}
		conn.Release()
		if next := lease(t, c, Produce); next == conn {
			t.Error("a dead connection is leased")
		} else {
			next.Release()
		}
	})
}

// An answer that is none ends the connection; nobody takes it for another's.
func TestAnswersThatAreNone(t *testing.T) {
	wrongID := func(frame []byte) []byte {
		out := answerTo(frame, produced())
		binary.BigEndian.PutUint32(out[4:], 999)
		return out
	}
	for name, answer := range map[string]func(frame []byte) []byte{
		"of another request":  wrongID,
		"too short":           func([]byte) []byte { return []byte{0, 0, 0, 2, 0, 0, 0, 0} },
		"of a negative size":  func([]byte) []byte { return []byte{0xff, 0, 0, 0, 0, 0, 0, 0} },
		"of a size too large": func([]byte) []byte { return []byte{0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0} },
	} {
		t.Run(name, func(t *testing.T) {
			withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
				s.set(func() { s.handle = func(n net.Conn, frame []byte) { n.Write(answer(frame)) } })
				conn, sink := lease(t, c, Produce), new(recorder)
				send(t, conn, sink, 1, time.Minute)
				if answered, lost, _, err := sink.saw(); len(answered) > 0 || len(lost) != 1 || err == nil {
					t.Errorf("answered %v, lost %v with %v", answered, lost, err)
				}
				conn.Release()
			})
		})
	}
	t.Run("to no request", func(t *testing.T) {
		withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
			s.set(func() {
				s.handle = func(n net.Conn, frame []byte) {
					n.Write(append(answerTo(frame, produced()), answerTo(frame, produced())...))
				}
			})
			conn, sink := lease(t, c, Produce), new(recorder)
			send(t, conn, sink, 1, time.Minute)
			if answered, lost, _, _ := sink.saw(); len(answered) != 1 || len(lost) != 0 {
				t.Errorf("answered %v, lost %v", answered, lost)
			}
			if conn.dead() == nil {
				t.Error("the connection lives on")
			}
			conn.Release()
		})
	})
}

// What was sent and not answered may have been done; what was not sent was not.
func TestRoundTripsTellWhetherAnythingWasSent(t *testing.T) {
	withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
		s.set(func() { s.handle = func(n net.Conn, _ []byte) { n.Close() } })
		req := kmsg.NewPtrProduceRequest()
		req.Version = 9
		conn := lease(t, c, Control)
		if _, err := conn.RoundTrip(t.Context(), "c", req, time.Minute); !errors.Is(err, ErrLost) {
			t.Errorf("the broker hung up: %v, want ErrLost", err)
		}
		_, err := conn.RoundTrip(t.Context(), "c", req, time.Minute)
		if _, ok := errors.AsType[*UnavailableError](err); !ok || errors.Is(err, ErrLost) {
			t.Errorf("on a dead connection: %v, want an UnavailableError", err)
		}
		conn.Close()
		wantLeased(t, c, Control, 0)
	})
}

// Answers that have arrived together are handed on together.
func TestAnswersThatAreHereAreFlushedTogether(t *testing.T) {
	withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
		n, all := 0, []byte(nil)
		s.set(func() {
			s.handle = func(c net.Conn, frame []byte) {
				all = append(all, answerTo(frame, produced())...)
				if n++; n == 3 {
					c.Write(all)
				}
			}
		})
		conn, sink := lease(t, c, Produce), new(recorder)
		for i := range int32(3) {
			send(t, conn, sink, i, time.Minute)
		}
		answered, _, _, _ := sink.saw()
		if len(answered) != 3 || sink.flushed != 1 {
			t.Errorf("%d answers with %d flushes, want three with one", len(answered), sink.flushed)
		}
		conn.Close()
	})
}
