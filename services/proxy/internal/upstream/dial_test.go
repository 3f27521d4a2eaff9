package upstream

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
)

// dialTimes are those of all dials since then.
func (s *stub) dialTimes(since time.Time) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.dialAt), func(at time.Time) bool { return at.Before(since) })
}

// restart ends all connections of node 3, as a broker does that stops and is back at
// once.
func (s *stub) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, addr := range s.conns {
		if addr == addrOf(3) {
			c.Close()
		}
	}
}

// A thousand clients that come back at once share the connections there are while
// more are dialled, at no more than the rate, and everybody is served.
func TestAThousandClientsDoNotStampede(t *testing.T) {
	for name, tt := range map[string]struct {
		holds time.Duration // each its lease
		tries int           // that a client may have to make
	}{
		"with short requests": {20 * time.Millisecond, 1},
		"with long polls":     {time.Hour, 3}, // 1000 connections take 20 s
	} {
		t.Run(name, func(t *testing.T) {
			withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
				s.restart()
				synctest.Wait()
				began := time.Now()
				var wg sync.WaitGroup
				var mu sync.Mutex
				served, longest := 0, time.Duration(0)
				for range 1000 {
					wg.Go(func() {
						for tried := 1; ; tried++ {
							conn, err := c.Lease(t.Context(), 3, Fetch)
							if err != nil && tried < tt.tries {
								continue
							}
							if err != nil {
								t.Error(err)
								return
							}
							mu.Lock()
							served++
							longest = max(longest, time.Since(began))
							mu.Unlock()
							time.Sleep(tt.holds)
							conn.Release()
							return
						}
					})
				}
				wg.Wait()
				dials := s.dialTimes(began)
				for i, from := range dials {
					n := 0
					for _, at := range dials[i:] {
						if at.Sub(from) < time.Second {
							n++
						}
					}
					if limit := c.cfg.DialBurst + c.cfg.DialsPerSecond + 1; n > limit {
						t.Fatalf("%d dials within a second, want %d at most", n, limit)
					}
				}
				if served != 1000 {
					t.Errorf("%d of 1000 were served", served)
				}
				wantLeased(t, c, Fetch, 0)
				t.Logf("%d dials, the last was served after %v", len(dials), longest)
			})
		})
	}
}

// Short calls do not wait behind a queue of long polls.
func TestShortCallsGoFirst(t *testing.T) {
	withStub(t, func(cfg *Config, _ *stub) { cfg.DialBurst, cfg.DialsPerSecond = 1, 1 }, func(t *testing.T, c *Cluster, s *stub) {
		s.restart()
		synctest.Wait()
		var polls []<-chan any
		for range 5 {
			polls = append(polls, leaseLater(t, t.Context(), c, Fetch))
		}
		if d := took(func() { lease(t, c, Control).Release() }); d > 1100*time.Millisecond {
			t.Errorf("a short call waited %v, want the next dial", d)
		}
		for _, poll := range polls {
			if conn, ok := (<-poll).(*Conn); ok {
				conn.Release()
			} else {
				t.Error("a long poll was not served")
			}
		}
	})
}

// A broker that has too many connections is left alone for a while; those that there
// are serve everybody, and nothing is wrong with the login.
func TestABrokerWithTooManyConnections(t *testing.T) {
	withLogins(t, "OAUTHBEARER", 0, func(t *testing.T, c *Cluster, s *stub, logged *logText) {
		s.restart()
		synctest.Wait()
		conns := []*Conn{lease(t, c, Produce), lease(t, c, Produce)}
		crowded := "[3d5f]: Too many connects"
		s.set(func() { s.sasl.refuse = func(string, bool) *string { return &crowded } })
		began := time.Now()
		var waiting []<-chan any
		for range 10 {
			waiting = append(waiting, leaseLater(t, t.Context(), c, Produce))
		}
		time.Sleep(9 * time.Second)
		dials := s.dialTimes(began)
		var apart []time.Duration
		for i := range dials[1:] {
			apart = append(apart, dials[i+1].Sub(dials[i]))
		}
		// The first few were under way together.
		if len(dials) < 3 || len(dials) > 8+6 {
			t.Errorf("dials %v apart", apart)
		}
		for _, d := range apart {
			if d > 0 && d < time.Second {
				t.Errorf("dialled again after %v", d)
			}
		}
		for _, conn := range conns {
			conn.Release()
		}
		for _, w := range waiting {
			if conn, ok := (<-w).(*Conn); ok {
				conn.Release()
			} else {
				t.Error("one who waited was not served")
			}
		}
		if failed, last := c.Logins(); failed > 0 || last != nil {
			t.Errorf("Logins() = %d, %v", failed, last)
		}
		if n := logged.count("too many connects"); n != 1 {
			t.Errorf("told %d times:\n%s", n, logged.b.String())
		}
	})
}

// A password that is wrong is tried again, rarely, at one broker at a time; it is told
// once, and again when the cause is another. The right one is used at once.
func TestAWrongPassword(t *testing.T) {
	withLogins(t, "PLAIN", 0, func(t *testing.T, c *Cluster, s *stub, logged *logText) {
		other := New(Config{Name: "other", Bootstrap: []string{bootstrap}, Dial: s.dial, SASL: mechanismOf("PLAIN", "secret")})
		defer other.Close()
		if err := other.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.Reconfigure([]string{bootstrap}, nil, mechanismOf("PLAIN", "wrong"))
		s.set(s.hangUp)
		synctest.Wait()
		began := time.Now()
		for time.Since(began) < time.Minute {
			for _, node := range []int32{3, 7} {
				if _, err := c.Lease(t.Context(), node, Produce); refusal.Of(err) != refusal.LoginFailed {
					t.Fatalf("Lease() = %v, want %v", err, refusal.LoginFailed)
				}
				conn, err := other.Lease(t.Context(), node, Produce)
				if err != nil {
					t.Fatalf("another cluster: %v", err)
				}
				conn.Release()
			}
			time.Sleep(100 * time.Millisecond)
		}
		failed, _ := c.Logins()
		if failed < 5 || failed > 40 {
			t.Errorf("%d logins were tried in a minute", failed)
		}
		if n := logged.count(`msg="broker unreachable" refusal=TG-UPSTREAM-009`); n != 1 {
			t.Errorf("told %d times:\n%s", n, logged.b.String())
		}
		locked := "the account is locked"
		s.set(func() { s.sasl.refuse = func(string, bool) *string { return &locked } })
		c.Reconfigure([]string{bootstrap}, nil, mechanismOf("PLAIN", "wrong"))
		time.Sleep(time.Minute)
		if n := logged.count(`msg="broker unreachable" refusal=TG-UPSTREAM-009`); n != 2 {
			t.Errorf("told %d times, want it again for another cause:\n%s", n, logged.b.String())
		}
		s.set(func() { s.sasl.refuse = nil })
		c.Reconfigure([]string{bootstrap}, nil, mechanismOf("PLAIN", "secret"))
		if d := took(func() { lease(t, c, Produce).Release() }); d > 0 {
			t.Errorf("the right one was used after %v", d)
		}
		if _, last := c.Logins(); last != nil {
			t.Errorf("the last login failed: %v", last)
		}
	})
}

// at makes the cluster's brokers listen elsewhere.
func (s *stub) at(host string) {
	s.listed = func(string) []kmsg.MetadataResponseBroker {
		return []kmsg.MetadataResponseBroker{{NodeID: 3, Host: host + "3", Port: 9092}, {NodeID: 7, Host: host + "7", Port: 9092}}
	}
}

// A broker with another address is dialled there at once, whatever came of dials to
// the old one; who has a lease there keeps it.
func TestABrokerThatMoves(t *testing.T) {
	withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
		held, idle := lease(t, c, Produce), lease(t, c, Produce)
		idle.Release()
		lease(t, c, Produce).Release() // the idle one
		took1 := lease(t, c, Fetch)    // again
		s.set(func() { s.hang = map[string]bool{addrOf(3): true} })
		waiting := leaseLater(t, t.Context(), c, Fetch)
		took1.Release()
		if conn, ok := (<-waiting).(*Conn); !ok || conn != took1 {
			t.Fatal("a connection that came back was not handed on")
		}
		hanging := leaseLater(t, t.Context(), c, Fetch)
		s.set(func() { s.at("new") })
		if d := took(func() {
			if err := c.Refresh(t.Context()); err != nil {
				t.Error(err)
			}
			conn, ok := (<-hanging).(*Conn)
			if !ok || conn.addr != "new3:9092" {
				t.Fatalf("got %v", conn)
			}
			conn.Release()
			conn = lease(t, c, Control)
			if conn.addr != "new3:9092" {
				t.Errorf("leased at %s", conn.addr)
			}
			conn.Release()
		}); d > patience { // the broker that is asked for metadata may be the one
			t.Errorf("it took %v", d)
		}
		for _, conn := range []*Conn{held, took1} {
			if conn.dead() != nil {
				t.Error("a lease was ended")
			}
			conn.Release()
		}
		synctest.Wait()
		if idle.dead() == nil || held.dead() == nil || took1.dead() == nil {
			t.Error("a connection to the old address is kept")
		}
	})
}

// A whole cluster that is at other ports after a restart: the right addresses are all
// it takes, whatever has failed before.
func TestAClusterThatMoves(t *testing.T) {
	withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
		down := errors.New("connection refused")
		lease(t, c, Produce).Release()
		before := c.Metadata()
		s.set(func() {
			s.refused = map[string]error{bootstrap: down, addrOf(3): down, addrOf(7): down}
			s.hangUp()
			s.at("new")
		})
		for range 100 {
			time.Sleep(300 * time.Millisecond)
			c.Lease(t.Context(), 3, Produce)
		}
		if !c.State().Suspect {
			t.Error("not suspect")
		}
		c.Reconfigure([]string{"elsewhere:9092"}, nil, nil)
		synctest.Wait()
		if d := took(func() {
			conn := lease(t, c, Produce)
			if conn.addr != "new3:9092" {
				t.Errorf("leased at %s", conn.addr)
			}
			conn.Release()
		}); d > 0 || c.State().Suspect {
			t.Errorf("it took %v; %+v", d, c.State())
		}
		if c.Metadata() == before || len(c.Metadata().Brokers) != 2 {
			t.Error("not where the brokers are")
		}
	})
	// The refresh that asks the old addresses is not waited for.
	withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
		s.set(func() { s.silent = true })
		time.Sleep(time.Millisecond)
		c.Fresh(t.Context(), 0)
		s.set(func() {
			s.silent, s.hang = false, map[string]bool{bootstrap: true, addrOf(3): true, addrOf(7): true}
			s.at("new")
			s.hangUp()
		})
		c.Reconfigure([]string{"elsewhere:9092"}, nil, nil)
		synctest.Wait()
		if c.State().Suspect {
			t.Error("still suspect")
		}
		if d := took(func() { lease(t, c, Produce).Release() }); d > 0 {
			t.Errorf("it took %v", d)
		}
	})
}

// A broker that has been frozen from the beginning keeps nobody from following the
// cluster to its new addresses.
func TestAFrozenBrokerDoesNotDelayAMove(t *testing.T) {
	withStub(t, func(_ *Config, s *stub) {
		s.hang = map[string]bool{addrOf(7): true} // what it can do is not known
	}, func(t *testing.T, c *Cluster, s *stub) {
		down := errors.New("connection refused")
		s.set(func() {
			s.refused = map[string]error{bootstrap: down, addrOf(3): down}
			s.hangUp()
			s.at("new")
		})
		time.Sleep(7 * time.Second)
		c.Reconfigure([]string{"elsewhere:9092"}, nil, nil)
		time.Sleep(time.Millisecond)
		if c.State().Suspect {
			t.Error("not followed at once")
		}
	})
}

// Bootstrap addresses are for finding brokers; who leases any broker gets a broker.
func TestSeedsServeNoLeases(t *testing.T) {
	withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
		down := errors.New("connection refused")
		seed := s.dialled(bootstrap)
		for range 10 {
			conn, err := c.Lease(t.Context(), -1, Control)
			if err != nil {
				t.Fatal(err)
			}
			if conn.addr == bootstrap {
				t.Error("a seed was leased")
			}
			conn.Release()
		}
		s.set(func() {
			s.refused = map[string]error{addrOf(3): down, addrOf(7): down}
			s.hangUp()
		})
		synctest.Wait()
		if conn, err := c.Lease(t.Context(), -1, Control); err == nil {
			t.Errorf("leased at %s with all brokers gone", conn.addr)
		}
		if _, err := c.RequestAny(t.Context(), -1, OwnClientID, kmsg.NewPtrProduceRequest()); err == nil || strings.Contains(err.Error(), "node -") {
			t.Errorf("a seed was asked: %v", err)
		}
		if err := c.Refresh(t.Context()); err != nil {
			t.Errorf("metadata, which a seed could give: %v", err)
		}
		if s.dialled(bootstrap) == seed {
			t.Error("nobody asked the seed for metadata")
		}
	})
}

// Frozen: dials end in nothing after their timeout. One at a time is tried then, and
// who asks meanwhile waits no longer than that one takes.
func TestAFrozenBrokerIsTriedByOneAtATime(t *testing.T) {
	withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
		s.restart()
		synctest.Wait()
		s.set(func() { s.hang = map[string]bool{addrOf(3): true} })
		began := time.Now()
		time.AfterFunc(10*time.Second, func() { s.set(func() { s.hungAtOnce = 0 }) })
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				for time.Since(began) < time.Minute {
					if d := took(func() {
						if _, err := c.Lease(t.Context(), 3, Produce); err == nil {
							t.Error("leased")
						}
					}); d > 2*c.cfg.DialTimeout {
						t.Errorf("waited %v", d)
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		s.set(func() {
			if s.hungAtOnce != 1 {
				t.Errorf("%d dials at once to a broker that was found frozen", s.hungAtOnce)
			}
		})
		s.set(func() { s.hang = nil })
		time.Sleep(c.cfg.DialTimeout + 2*maxBackoff)
		lease(t, c, Produce).Release()
	})
}
