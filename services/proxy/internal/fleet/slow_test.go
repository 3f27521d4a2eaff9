package fleet

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate.internal/pkg/bundle"
	board "tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/testbed/redistest"
)

// over has a node come to Redis by way of a link.
func over(l *redistest.Link) func(*Options) { return func(o *Options) { o.Redis = l.URL } }

// steady notes what must not change for as long as Redis is only slow.
type steady struct {
	mu     sync.Mutex
	broken []string
	end    func()
}

func (s *steady) breaks(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = append(s.broken, fmt.Sprintf(format, args...))
}

// watch has nodes that know one another looked at all the time, by themselves and by the
// portal, until the end.
func (b *bed) watch(t *testing.T, connected bool, nodes ...*node) *steady {
	t.Helper()
	s := new(steady)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() {
			before := n.sees()
			_, changed := n.Members()
			for {
				select {
				case <-done:
					return
				case <-changed:
					s.breaks("%s sees %s after %s", n.options.Node.ID, n.sees(), before)
					_, changed = n.Members()
				case <-time.After(10 * time.Millisecond):
					if h := n.Health(); connected && !h.Connected {
						s.breaks("%s takes Redis to be away: %s", n.options.Node.ID, h.Problem)
						return
					}
				}
			}
		})
	}
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
			}
			there, err := b.publisher.Nodes(t.Context())
			if err == nil && len(there) < len(nodes) && connected {
				s.breaks("the portal sees %d nodes of %d", len(there), len(nodes))
				return
			}
		}
	})
	s.end = sync.OnceFunc(func() {
		close(done)
		wg.Wait()
		for _, text := range s.broken {
			t.Error(text)
		}
	})
	t.Cleanup(s.end)
	return s
}

// two are nodes that know each other by way of a link. The first has loaded one virtual
// cluster, and has another on its disk alone.
func (b *bed) two(t *testing.T, l *redistest.Link) (n1, n2 *node) {
	t.Helper()
	n1, n2 = b.ready(t, t.TempDir(), named("n1"), over(l)), b.ready(t, t.TempDir(), named("n2"), over(l))
	n1.join(t)
	n2.join(t)
	n1.wants(t, "n1 serving, n2 serving")
	n2.wants(t, "n1 serving, n2 serving")
	n1.find(t, "loaded", "loaded", 1)
	n1.find(t, "disk", "disk", 2)
	n1.gateway.unload("disk")
	return n1, n2
}

// A Redis that answers late is used: what it says is in effect as soon as it says it,
// and nobody is taken to be away.
func TestRedisIsSlow(t *testing.T) {
	t.Parallel()
	for _, delay := range []time.Duration{300 * time.Millisecond, 2 * time.Second} {
		t.Run(delay.String(), func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			for _, name := range []string{"loaded", "disk", "other"} {
				b.set(t, name)
			}
			b.change(t, func(r int64) *bundle.Bundle { return upstreamCluster("home", r) })
			l := b.redis.Link(t)
			n1, n2 := b.two(t, l)
			s := b.watch(t, true, n1, n2)

			l.Delay(delay)
			// Longer than a node is believed to be there without news.
			quiet := time.NewTimer(3 * board.NodeTTL)
			defer quiet.Stop()
			// A revocation, say: of what is loaded, and of what is on disk only.
			began := time.Now()
			loaded, disk := b.set(t, "loaded"), b.set(t, "disk")
			n1.applies(t, "loaded", loaded)
			t.Logf("in effect after %v, where each answer takes %v", time.Since(began), delay)
			until(t, "what is on disk is followed", func() bool { return n1.lastSeen(idOf("disk")) == disk })
			var clients sync.WaitGroup
			for name, revision := range map[string]int64{"disk": disk, "other": 3, "nobody": 0} {
				clients.Go(func() {
					began := time.Now()
					n1.find(t, name, name, revision)
					if took := time.Since(began); took > 10*time.Second {
						t.Errorf("a client waits %v for %s", took, name)
					}
				})
			}
			clients.Go(func() {
				if err := n1.Upstream(t.Context(), "home"); err != nil {
					t.Error(err)
				}
			})
			clients.Wait()
			if delay >= board.SlowAfter {
				until(t, "it says so", func() bool { return strings.Contains(fmt.Sprint(n1.Problem()), "answers slowly") })
				if h := n1.Health(); !h.Slow || h.Stale || h.Answer < 1 {
					t.Errorf("Health = %+v", h)
				}
			} else if err := n1.Problem(); err != nil {
				t.Errorf("Problem = %v", err)
			}
			<-quiet.C
			l.Delay(0)
			until(t, "it no longer says so", func() bool { return n1.Problem() == nil && !n1.Health().Slow })
			s.end()
		})
	}
}

// A Redis that takes longer over an answer than anybody waits is away: the nodes go on by
// what they knew, of one another too.
func TestRedisIsTooSlow(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "loaded")
	b.set(t, "disk")
	b.set(t, "never")
	l := b.redis.Link(t)
	n1, n2 := b.two(t, l)
	s := b.watch(t, false, n1, n2)
	l.Delay(6 * time.Second)
	until(t, "the nodes say so", func() bool {
		return strings.Contains(fmt.Sprint(n1.Problem()), "cannot be used") && strings.Contains(fmt.Sprint(n2.Problem()), "cannot be used")
	})
	n1.find(t, "disk", "disk", 2)
	if err := n1.Find(t.Context(), "never"); err == nil {
		t.Error("Find of what was never loaded: no error")
	}
	revision := b.set(t, "loaded")
	quiet := time.NewTimer(2 * board.NodeTTL)
	defer quiet.Stop()
	<-quiet.C
	if h := n1.Health(); h.Connected || h.Slow || !h.Stale {
		t.Errorf("Health = %+v", h)
	}
	l.Delay(0)
	n1.applies(t, "loaded", revision)
	n1.follows(t)
	n2.follows(t)
	n1.find(t, "never", "never", 3)
	s.end()
}

// Answers come in pieces, and what is asked for at once takes longer than anybody waits.
func TestRedisTrickles(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	const n = 16
	for i := range n {
		b.set(t, fmt.Sprintf("v%d", i))
	}
	l := b.redis.Link(t)
	one := b.ready(t, t.TempDir(), over(l))
	for i := range n {
		name := fmt.Sprintf("v%d", i)
		one.find(t, name, name, int64(i+1))
	}
	l.Trickle(100, 60*time.Millisecond)
	revisions := make(map[string]int64)
	for i := range n {
		name := fmt.Sprintf("v%d", i)
		revisions[name] = b.set(t, name)
	}
	for deadline := time.Now().Add(2 * time.Minute); len(revisions) > 0; time.Sleep(10 * time.Millisecond) {
		for name, revision := range revisions {
			if one.gateway.revision(name) == revision {
				delete(revisions, name)
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("not in effect: %v; %v", revisions, one.Problem())
		}
	}
	l.Delay(0)
	one.follows(t)
}
