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

	"github.com/twmb/franz-go/pkg/kerr"
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

// A request is sent at the highest version that both sides know, and stays as it is.
func TestRequestsAreSentAtAVersionTheBrokerKnows(t *testing.T) {
	withStub(t, func(_ *Config, s *stub) {
		for i, addr := range []string{bootstrap, addrOf(3), addrOf(7)} {
			v := versionsOf(map[int16]int16{3: 13, 10: 4 - int16(i)}, nil)
			v.ApiKeys = append(v.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: 12, MinVersion: 2, MaxVersion: 4})
			s.versions[addr] = v
		}
		s.handle = func(n net.Conn, frame []byte) {
			resp := kmsg.NewPtrFindCoordinatorResponse()
			resp.Version = int16(binary.BigEndian.Uint16(frame[6:]))
			resp.NodeID = int32(resp.Version)
			resp.Coordinators = []kmsg.FindCoordinatorResponseCoordinator{{NodeID: int32(resp.Version)}}
			n.Write(answerTo(frame, resp))
		}
	}, func(t *testing.T, c *Cluster, s *stub) {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorKey = "readers"
		for _, tt := range []struct {
			node          int32
			version, want int16
		}{{3, 6, 3}, {3, 3, 3}, {3, 2, 2}, {7, 6, 2}, {7, 0, 0}} {
			req.Version = tt.version
			resp, err := c.Request(t.Context(), tt.node, Control, 0, OwnClientID, req)
			if err != nil {
				t.Fatal(err)
			}
			if got := resp.(*kmsg.FindCoordinatorResponse); got.GetVersion() != tt.want || got.NodeID != int32(tt.want) {
				t.Errorf("node %d, version %d: answered %d at version %d, want %d", tt.node, tt.version, got.NodeID, got.GetVersion(), tt.want)
			}
			if req.Version != tt.version {
				t.Errorf("the request has version %d now, not %d", req.Version, tt.version)
			}
		}
		req.Version = 6
		resp, err := c.RequestAny(t.Context(), 7, OwnClientID, req)
		if err != nil || resp.GetVersion() != 2 || req.Version != 6 {
			t.Errorf("any node: %v, %v", resp, err)
		}
		for _, tt := range []struct {
			req  kmsg.Request
			want string
		}{
			{&kmsg.HeartbeatRequest{Version: 1}, "cluster main node 3 does not serve Heartbeat version 1, but 2 to 4"},
			{&kmsg.LeaveGroupRequest{Version: 1}, "cluster main node 3 does not serve LeaveGroup version 1, nor any other"},
		} {
			before := s.dialled(addrOf(3))
			_, err := c.Request(t.Context(), 3, Control, 0, OwnClientID, tt.req)
			if !errors.Is(err, kerr.UnsupportedVersion) || err.Error() != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
			if s.dialled(addrOf(3)) != before {
				t.Error("a connection was lost over it")
			}
		}
		wantLeased(t, c, Control, 0)
		conn := lease(t, c, Produce)
		if !conn.Serves(12, 2) || !conn.Serves(12, 4) || conn.Serves(12, 1) || conn.Serves(12, 5) || conn.Serves(13, 0) {
			t.Error("Serves says something else than the broker")
		}
		conn.Release()
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
