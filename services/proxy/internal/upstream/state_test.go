package upstream

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// isClosed reports whether a change has been told.
func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// A cluster that does not answer is waited for once, by those who ask first. Later
// ones get what is known, at first as it was and then without leaders; and when it
// answers again everybody sees what it says.
func TestNobodyWaitsForASuspectCluster(t *testing.T) {
	down := errors.New("connection refused")
	for name, tt := range map[string]struct {
		down, up func(*stub)
		wait     time.Duration // of the first who ask
	}{
		"silent": {func(s *stub) { s.silent = true }, func(s *stub) { s.silent = false }, silence},
		"gone":   {func(s *stub) { s.refuse = down; s.hangUp() }, func(s *stub) { s.refuse = nil }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			withStub(t, func(_ *Config, s *stub) {
				s.topics = []kmsg.MetadataResponseTopic{described("a", 1, map[int32][2]int32{0: {3, 5}, 1: {7, 6}})}
			}, func(t *testing.T, c *Cluster, s *stub) {
				first, state := c.Metadata(), c.State()
				if !state.Reached || state.Suspect || state.Err != nil {
					t.Fatalf("at first: %+v", state)
				}
				time.Sleep(time.Millisecond)
				s.set(func() { tt.down(s) })
				synctest.Wait()
				began := time.Now()
				var wg sync.WaitGroup
				for range 20 {
					wg.Go(func() {
						if d := took(func() { c.Fresh(t.Context(), 0) }); d > tt.wait {
							t.Errorf("one of the first waited %v, want %v at most", d, tt.wait)
						}
					})
				}
				wg.Wait()
				synctest.Wait()
				state = c.State()
				if !state.Reached || !state.Suspect || state.Err == nil || time.Since(state.Since) > 0 {
					t.Fatalf("when it does not answer: %+v", state)
				}
				changed := c.Changed()
				for time.Since(began) < tt.wait+2900*time.Millisecond {
					m, err := c.Fresh(t.Context(), 0)
					if err != nil || m != first {
						t.Fatalf("after %v: another snapshot, or %v", time.Since(began), err)
					}
					time.Sleep(100 * time.Millisecond)
				}
				if isClosed(changed) {
					t.Error("a change was told before there was one")
				}
				time.Sleep(200 * time.Millisecond)
				if !isClosed(changed) {
					t.Error("nobody is told that the leaders are gone")
				}
				lost := c.Metadata()
				topic := lost.Topic("a")
				if lost == first || len(topic.Partitions) != 2 || topic.ID != first.Topic("a").ID || lost.TopicByID(topic.ID) != topic || len(lost.Brokers) != 2 {
					t.Fatalf("without leaders: %+v", lost)
				}
				for i, p := range topic.Partitions {
					before := first.Topic("a").Partitions[i]
					if p.Leader != -1 || p.ErrorCode != 5 || p.LeaderEpoch != before.LeaderEpoch || len(p.Replicas) != 2 || len(p.ISR) != 1 {
						t.Errorf("partition %d is %+v", i, p)
					}
				}
				time.Sleep(time.Hour)
				if d := took(func() { c.Fresh(t.Context(), 0) }); d > 0 || c.Metadata() != lost {
					t.Errorf("an hour later: waited %v, or another snapshot", d)
				}

				changed = c.Changed()
				s.set(func() {
					tt.up(s)
					// A broker that lags behind, and one that does not.
					s.topics = []kmsg.MetadataResponseTopic{described("a", 1, map[int32][2]int32{0: {7, 4}, 1: {3, 9}})}
				})
				time.Sleep(maxBackoff + 2*time.Second)
				synctest.Wait()
				state = c.State()
				if state.Suspect || state.Err != nil || !isClosed(changed) {
					t.Errorf("when it answers again: %+v", state)
				}
				ps := c.Metadata().Topic("a").Partitions
				if ps[0].Leader != 3 || ps[0].LeaderEpoch != 5 || ps[1].Leader != 7-4 || ps[1].LeaderEpoch != 9 {
					t.Errorf("when it answers again: %+v", ps)
				}
			})
		})
	}
}

// One that answers before it is shown without leaders was never shown so.
func TestAShortSilenceChangesNothing(t *testing.T) {
	withStub(t, func(_ *Config, s *stub) {
		s.topics = []kmsg.MetadataResponseTopic{described("a", 1, map[int32][2]int32{0: {3, 5}})}
	}, func(t *testing.T, c *Cluster, s *stub) {
		first := c.Metadata()
		for range 3 {
			time.Sleep(time.Millisecond)
			s.set(func() { s.silent = true })
			c.Fresh(t.Context(), 0)
			if !c.State().Suspect {
				t.Fatal("not suspect")
			}
			s.set(func() { s.silent = false })
			for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(100 * time.Millisecond) {
				if c.Metadata() != first {
					t.Fatalf("another snapshot after %v", time.Since(began))
				}
			}
			if c.State().Suspect {
				t.Fatal("still suspect")
			}
		}
	})
}

// A cluster that has never answered is waited for until the first attempt has failed.
func TestAClusterThatWasNeverReached(t *testing.T) {
	down := errors.New("connection refused")
	synctest.Test(t, func(t *testing.T) {
		s := newStub()
		s.refuse = down
		c := New(Config{Name: "main", Bootstrap: []string{bootstrap}, Dial: s.dial})
		defer c.Close()
		if d := took(func() {
			if err := c.Tried(t.Context()); !errors.Is(err, down) {
				t.Errorf("Tried() = %v, want %v", err, down)
			}
		}); d > 0 {
			t.Errorf("Tried took %v", d)
		}
		for range 3 {
			if _, err := c.Fresh(t.Context(), time.Minute); !errors.Is(err, down) {
				t.Errorf("Fresh() = %v, want %v", err, down)
			} else if _, ok := errors.AsType[*UnavailableError](err); !ok {
				t.Errorf("Fresh() = %T", err)
			}
		}
		time.Sleep(time.Minute)
		if state := c.State(); state.Reached || !state.Suspect || c.Metadata() != nil {
			t.Errorf("state %+v, metadata %v", state, c.Metadata())
		}
		s.set(func() { s.refuse, s.silent = nil, true })
		time.Sleep(time.Minute)
		if state := c.State(); state.Reached || !state.Suspect {
			t.Errorf("accepted and not answered: %+v", state)
		}
		s.set(func() { s.silent = false })
		// At worst a dial has just begun: it fails, and the broker is left alone for the longest time there is.
		time.Sleep(c.cfg.DialTimeout + maxBackoff*5/4 + silence)
		if err := c.Tried(t.Context()); err != nil || !c.State().Reached || c.State().Suspect {
			t.Errorf("Tried() = %v in %+v", err, c.State())
		}
	})
	t.Run("silent from the beginning", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStub()
			s.silent = true
			c := New(Config{Name: "main", Bootstrap: []string{bootstrap}, Dial: s.dial})
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), silence/2)
			defer cancel()
			if err := c.Tried(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Tried() = %v, want the end of its context", err)
			}
			if d := took(func() {
				if c.Tried(t.Context()) == nil {
					t.Error("reached")
				}
			}); d > silence {
				t.Errorf("Tried took %v", d)
			}
		})
	})
	t.Run("closed while it is waited for", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStub()
			s.silent = true
			c := New(Config{Name: "main", Bootstrap: []string{bootstrap}, Dial: s.dial})
			go c.Close()
			if err := c.Tried(t.Context()); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Tried() = %v, want %v", err, net.ErrClosed)
			}
			if err := c.Refresh(t.Context()); err == nil {
				t.Error("a closed cluster is asked")
			}
		})
	})
}

// An address that leads to another cluster than before: nothing of the old one is
// taken for the new one's.
func TestAnAddressThatLeadsToAnotherCluster(t *testing.T) {
	topicAt := func(epoch int32) []kmsg.MetadataResponseTopic {
		return []kmsg.MetadataResponseTopic{described("a", 1, map[int32][2]int32{0: {3, epoch}})}
	}
	check := func(t *testing.T, c *Cluster, logged *strings.Builder) {
		t.Helper()
		if m := c.Metadata(); m.ClusterID != "other" || m.Topic("a").Partitions[0].LeaderEpoch != 2 {
			t.Errorf("cluster %s, partition %+v", m.ClusterID, m.Topic("a").Partitions[0])
		}
		if n := strings.Count(logged.String(), "leads to another cluster"); n != 1 {
			t.Errorf("logged %d times: %s", n, logged)
		}
	}
	logged := new(strings.Builder)
	configure := func(cfg *Config, s *stub) {
		logged.Reset()
		cfg.Log = slog.New(slog.NewTextHandler(logged, nil))
		s.topics = topicAt(5)
		s.cluster = map[string]string{bootstrap: "first", addrOf(3): "first", addrOf(7): "first"}
	}
	t.Run("its brokers are others now", func(t *testing.T) {
		withStub(t, configure, func(t *testing.T, c *Cluster, s *stub) {
			conn, waits, sink := lease(t, c, Produce), lease(t, c, Produce), new(recorder)
			send(t, waits, sink, 1, 5*time.Second)
			s.set(func() {
				s.topics = topicAt(2)
				s.cluster = map[string]string{bootstrap: "other", addrOf(3): "other", addrOf(7): "other"}
			})
			if err := c.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			check(t, c, logged)
			if conn.dead() != nil {
				t.Error("a lease was ended")
			}
			conn.Release()
			synctest.Wait()
			if conn.dead() == nil {
				t.Error("a connection to the old cluster is kept")
			}
			time.Sleep(10 * time.Second)
			if _, lost, _, _ := sink.saw(); len(lost) != 1 {
				t.Error("a broker of the old cluster that does not answer is waited for without end")
			}
			waits.Release()
		})
	})
	// The brokers of the old cluster live on, and are not asked any more.
	t.Run("it is configured with new addresses", func(t *testing.T) {
		withStub(t, configure, func(t *testing.T, c *Cluster, s *stub) {
			s.set(func() {
				s.topics = topicAt(2)
				s.cluster["elsewhere:9092"] = "other"
				s.refused = map[string]error{"elsewhere:9092": errors.New("not up yet")}
				s.listed = func(addr string) []kmsg.MetadataResponseBroker {
					if s.cluster[addr] == "other" {
						return []kmsg.MetadataResponseBroker{{NodeID: 3, Host: "elsewhere", Port: 9092}}
					}
					return nil
				}
			})
			c.Reconfigure([]string{"elsewhere:9092"}, nil, nil)
			time.Sleep(10 * time.Second)
			if m := c.Metadata(); m.ClusterID != "first" || c.State().Suspect {
				t.Errorf("while the new addresses lead nowhere: cluster %s, %+v", m.ClusterID, c.State())
			}
			s.set(func() { s.refused = nil })
			time.Sleep(2*maxBackoff + 10*time.Second)
			check(t, c, logged)
			before := s.dialled("elsewhere:9092")
			lease(t, c, Produce).Release()
			lease(t, c, Produce).Release()
			if s.dialled("elsewhere:9092") > before+1 || len(c.Metadata().Brokers) != 1 {
				t.Error("leases of a broker of the old cluster")
			}
		})
	})
}
