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
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"tollgate.internal/services/proxy/internal/refusal"
)

func mechanismOf(name, password string) sasl.Mechanism {
	switch name {
	case "PLAIN":
		return plain.Auth{User: "gateway", Pass: password}.AsMechanism()
	case "SCRAM-SHA-256":
		return scram.Auth{User: "gateway", Pass: password}.AsSha256Mechanism()
	}
	return oauth.Auth{Token: password}.AsMechanism()
}

// withLogins is withStub with logins that have an end, and with what is logged.
func withLogins(t *testing.T, mechanism string, lifetime time.Duration, f func(t *testing.T, c *Cluster, s *stub, logged *logText)) {
	t.Helper()
	logged := new(logText)
	withStub(t, func(cfg *Config, s *stub) {
		s.sasl = &stubSASL{mechanism: mechanism, password: "secret", lifetime: lifetime}
		s.handle = func(n net.Conn, frame []byte) {
			time.Sleep(2 * time.Millisecond)
			n.Write(answerTo(frame, produced()))
		}
		for _, addr := range []string{bootstrap, addrOf(3), addrOf(7)} {
			s.versions[addr] = versionsOf(map[int16]int16{0: 13, 1: 18, 3: 13, 17: 1, 36: 2}, nil)
		}
		s.versions[addrOf(7)] = versionsOf(map[int16]int16{0: 13, 1: 18, 3: 13, 17: 1, 36: 1}, nil)
		cfg.SASL = mechanismOf(mechanism, "secret")
		cfg.Log = slog.New(slog.NewTextHandler(logged, nil))
	}, func(t *testing.T, c *Cluster, s *stub) { f(t, c, s, logged) })
}

// logText is a log that is read while it is written.
type logText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logText) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// sawLogins is what the stub saw of logins.
func (s *stub) sawLogins() stubSASL {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *s.sasl
}

// orderly fails if a broker would have closed a connection.
func (s *stub) orderly(t *testing.T) {
	t.Helper()
	if saw := s.sawLogins(); saw.expired > 0 || saw.tooSoon > 0 || saw.disorder > 0 {
		t.Errorf("%d requests after the end of a login, %d renewals within a second, %d requests amid a login", saw.expired, saw.tooSoon, saw.disorder)
	}
}

// Under load no connection ends with its login, none is dialled in its place, and
// nobody waits for longer than a login takes.
func TestLoginsAreRenewedUnderLoad(t *testing.T) {
	const clients, lifetimes, latency = 4, 5, 5 * time.Millisecond
	for mechanism, login := range map[string]time.Duration{"PLAIN": 2 * latency, "SCRAM-SHA-256": 3 * latency, "OAUTHBEARER": 2 * latency} {
		for _, lifetime := range []time.Duration{1500 * time.Millisecond, time.Hour} {
			t.Run(mechanism+" "+lifetime.String(), func(t *testing.T) {
				withLogins(t, mechanism, lifetime, func(t *testing.T, c *Cluster, s *stub, _ *logText) {
					s.set(func() { s.sasl.latency = latency })
					done, pause := time.Now().Add(lifetimes*lifetime), lifetime/100
					var mu sync.Mutex
					var longest time.Duration
					var dialled uint64
					time.AfterFunc(lifetime/10, func() {
						mu.Lock()
						defer mu.Unlock()
						dialled, _ = c.Dials()
					})
					var wg sync.WaitGroup
					for range clients {
						// As a session does: one lease as long as there is always something
						// in flight, given back when it is due.
						wg.Go(func() {
							var conn *Conn
							for time.Now().Before(done) {
								began := time.Now()
								if conn != nil && conn.Due() {
									conn.Release()
									conn = nil
								}
								if conn == nil {
									var err error
									if conn, err = c.Lease(t.Context(), 3, Produce); err != nil {
										t.Error(err)
										return
									}
								}
								req := kmsg.NewPtrProduceRequest()
								req.Version = 9
								if _, err := conn.exchange(t.Context(), "c", req, time.Minute); err != nil {
									t.Error(err)
									conn.Close()
									return
								}
								mu.Lock()
								longest = max(longest, time.Since(began))
								mu.Unlock()
								time.Sleep(pause)
							}
							conn.Release()
						})
					}
					wg.Wait()
					after, renewed := c.Dials()
					mu.Lock()
					defer mu.Unlock()
					if after != dialled {
						t.Errorf("%d connections in the beginning, %d in the end", dialled, after)
					}
					if want := uint64(clients * lifetimes); renewed < want {
						t.Errorf("%d renewals, want %d at least", renewed, want)
					}
					// Its own, and the time it takes: a lease may be of another's.
					if limit := 2*login + 10*time.Millisecond; longest > limit {
						t.Errorf("one waited %v, want %v at most", longest, limit)
					}
					s.orderly(t)
					t.Logf("%d connections, %d renewals, longest wait %v", after, renewed, longest)
				})
			})
		}
	}
}

// Idle connections are renewed in the background, so that nobody who leases waits.
func TestIdleConnectionsLogInAgain(t *testing.T) {
	withLogins(t, "OAUTHBEARER", 10*time.Second, func(t *testing.T, c *Cluster, s *stub, _ *logText) {
		conn := lease(t, c, Produce)
		conn.Release()
		dialled, _ := c.Dials()
		for range 20 {
			time.Sleep(time.Minute)
			if d := took(func() { lease(t, c, Produce).Release() }); d > 0 {
				t.Errorf("waited %v", d)
			}
		}
		if now, renewed := c.Dials(); now != dialled || renewed < 120 {
			t.Errorf("%d dials, %d renewals", now-dialled, renewed)
		}
		s.orderly(t)
	})
}

// A holder that only now and then has something to ask keeps its connection: it logs
// in before it asks, also after the lifetime.
func TestHeldConnectionsLogInBeforeTheNextRequest(t *testing.T) {
	withLogins(t, "PLAIN", 10*time.Second, func(t *testing.T, c *Cluster, s *stub, _ *logText) {
		conn := lease(t, c, Share)
		req := kmsg.NewPtrProduceRequest()
		req.Version = 9
		for _, pause := range []time.Duration{0, time.Second, 9500 * time.Millisecond, time.Minute, 10 * time.Minute, 0} {
			time.Sleep(pause)
			if _, err := conn.RoundTrip(t.Context(), "c", req, time.Minute); err != nil {
				t.Fatalf("after %v: %v", pause, err)
			}
		}
		s.orderly(t)
		if _, renewed := c.Dials(); renewed < 3 {
			t.Errorf("%d renewals", renewed)
		}
		conn.Release()
	})
}

// A login that a broker does not renew costs this connection, is told once, and is
// tried again; another broker's connections, and another cluster's, go on.
func TestALoginThatIsNotRenewed(t *testing.T) {
	withLogins(t, "PLAIN", 10*time.Second, func(t *testing.T, c *Cluster, s *stub, logged *logText) {
		other := New(Config{Name: "other", Bootstrap: []string{bootstrap}, Dial: s.dial, SASL: mechanismOf("PLAIN", "secret")})
		defer other.Close()
		if err := other.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		held := make([]*Conn, 3)
		for i := range held {
			held[i] = lease(t, c, Produce)
		}
		for _, conn := range held {
			conn.Release()
		}
		refused := "the account is locked"
		s.set(func() {
			s.sasl.refuse = func(addr string, renewal bool) *string {
				if addr == addrOf(3) {
					return &refused
				}
				return nil
			}
		})
		time.Sleep(11 * time.Second)
		for _, conn := range held {
			if conn.dead() == nil {
				t.Error("a connection that was not let in again is kept")
			}
		}
		if n := logged.count("refusal=TG-UPSTREAM-009"); n != 1 {
			t.Errorf("told %d times:\n%s", n, logged.b.String())
		}
		if logged.count("the account is locked") != 1 || logged.count("cluster=main node=3") == 0 {
			t.Errorf("not told what and where:\n%s", logged.b.String())
		}
		if _, err := c.Lease(t.Context(), 3, Produce); refusal.Of(err) != refusal.LoginFailed {
			t.Errorf("Lease() = %v, want %v", err, refusal.LoginFailed)
		}
		if failed, _ := c.Logins(); failed == 0 {
			t.Error("no failed login is counted")
		}
		if conn, err := c.Lease(t.Context(), 7, Produce); err != nil {
			t.Errorf("another broker: %v", err)
		} else {
			conn.Release()
		}
		if conn, err := other.Lease(t.Context(), 7, Produce); err != nil {
			t.Errorf("another cluster: %v", err)
		} else {
			conn.Release()
		}
		s.set(func() { s.sasl.refuse = nil })
		time.Sleep(maxLoginBackoff + maxBackoff)
		lease(t, c, Produce).Release()
		s.orderly(t)
	})
}

// flaky has nothing to log in with for a time.
type flaky struct {
	sasl.Mechanism
	mu  sync.Mutex
	err error
}

func (f *flaky) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, nil, f.err
	}
	return f.Mechanism.Authenticate(ctx, host)
}

func (f *flaky) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// While there is no new credential to be had, what was logged in stays so to its end.
func TestACredentialThatIsLate(t *testing.T) {
	gone := errors.New("the token endpoint does not answer")
	for name, tt := range map[string]struct {
		late time.Duration // before the end of the lifetime
		kept bool
	}{
		"but in time": {late: 5 * time.Second, kept: true},
		"too late":    {late: -5 * time.Second, kept: false},
	} {
		t.Run(name, func(t *testing.T) {
			withLogins(t, "OAUTHBEARER", time.Minute, func(t *testing.T, c *Cluster, s *stub, logged *logText) {
				mech := &flaky{Mechanism: mechanismOf("OAUTHBEARER", "secret")}
				c.Reconfigure([]string{bootstrap}, nil, mech)
				conn := lease(t, c, Produce)
				conn.Release()
				mech.set(gone)
				time.Sleep(time.Until(conn.login.expire) - 10*time.Second)
				if d := took(func() {
					if again := lease(t, c, Produce); again != conn {
						t.Error("a connection that is good yet was not used")
					}
				}); d > 0 {
					t.Errorf("waited %v", d)
				}
				conn.Release()
				time.Sleep(time.Until(conn.login.expire) - tt.late)
				mech.set(nil)
				time.Sleep(20 * time.Second)
				if kept := conn.dead() == nil; kept != tt.kept {
					t.Errorf("kept is %v, want %v", kept, tt.kept)
				}
				lease(t, c, Produce).Release()
				if n := logged.count("refusal=TG-UPSTREAM-009"); n != 1 {
					t.Errorf("told %d times:\n%s", n, logged.b.String())
				}
				s.orderly(t)
			})
		})
	}
}

// A broker that finds a renewal too early is asked again later, on the same connection.
func TestARenewalThatIsTooEarly(t *testing.T) {
	withLogins(t, "PLAIN", 20*time.Second, func(t *testing.T, c *Cluster, s *stub, _ *logText) {
		conn := lease(t, c, Produce)
		conn.Release()
		s.set(func() { s.sasl.tooOften = true })
		time.Sleep(18*time.Second + 100*time.Millisecond)
		if conn.dead() != nil || s.sawLogins().tooOften {
			t.Fatal("it did not come to that, or the connection was closed")
		}
		time.Sleep(time.Minute)
		if again := lease(t, c, Produce); again != conn {
			t.Error("another connection")
		}
		conn.Release()
		s.orderly(t)
	})
}

// With another mechanism than it began with a connection cannot log in again, and as
// somebody else neither: it ends when it is due, without noise.
func TestAnotherLoginTakesEffectWithTheNextConnection(t *testing.T) {
	for name, next := range map[string]string{"another mechanism": "SCRAM-SHA-256", "another principal": "PLAIN"} {
		t.Run(name, func(t *testing.T) {
			withLogins(t, "PLAIN", 10*time.Second, func(t *testing.T, c *Cluster, s *stub, logged *logText) {
				conn := lease(t, c, Produce)
				conn.Release()
				s.set(func() {
					s.sasl.mechanism = next
					different := "another principal"
					s.sasl.refuse = func(_ string, renewal bool) *string {
						if renewal && s.sasl.renewals == 0 {
							return &different
						}
						return nil
					}
				})
				c.Reconfigure([]string{bootstrap}, nil, mechanismOf(next, "secret"))
				if again := lease(t, c, Produce); again != conn || conn.dead() != nil {
					t.Error("a connection was given up at once")
				}
				conn.Release()
				time.Sleep(9 * time.Second)
				synctest.Wait()
				if conn.dead() == nil {
					t.Error("kept although it cannot log in again")
				}
				s.set(func() { s.sasl.refuse = nil })
				lease(t, c, Produce).Release()
				if n := logged.count("level=WARN"); n > 0 {
					t.Errorf("noise:\n%s", logged.b.String())
				}
			})
		})
	}
}
