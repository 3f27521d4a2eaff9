package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	board "tollgate.internal/pkg/fleet"
)

// self is a node's gateway, to those who speak for it.
type self struct {
	mu      sync.Mutex
	report  Report
	changed chan struct{}
	told    []string
}

func newSelf() *self {
	return &self{report: Report{State: Serving, Weight: 1}, changed: make(chan struct{})}
}

func (s *self) Report() (Report, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report, s.changed
}

func (s *self) tell(what string, state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, what)
	s.report.State = state
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *self) Drain(over time.Duration) { s.tell("drain over "+over.String(), Draining) }
func (s *self) Undrain()                 { s.tell("undrain", Serving) }

func (s *self) was() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.told)
}

// join makes a node a member until leave.
func (n *node) join(t *testing.T) (s *self, leave func()) {
	t.Helper()
	s = newSelf()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { n.Join(ctx, s) })
	leave = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	stop := n.stop
	n.stop = func() { leave(); stop() }
	t.Cleanup(leave)
	return s, leave
}

func named(id string) func(*Options) {
	return func(o *Options) { o.Node = board.Node{ID: id, Host: "10.0.0." + id[1:], Port: 9092, Rack: "r"} }
}

// sees is who is there, as a node knows it.
func (n *node) sees() string {
	members, _ := n.Members()
	var list []string
	for _, m := range members {
		list = append(list, m.ID+" "+string(m.State))
	}
	return strings.Join(list, ", ")
}

func (n *node) wants(t *testing.T, want string) {
	t.Helper()
	until(t, fmt.Sprintf("%s sees %s", n.options.Node.ID, want), func() bool { return n.sees() == want })
}

func TestNodesKnowOneAnother(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	n1, n2 := b.ready(t, t.TempDir(), named("n1")), b.ready(t, t.TempDir(), named("n2"))
	n1.join(t)
	n1.wants(t, "n1 serving")
	_, changed := n1.Members()
	s2, leave := n2.join(t)
	n1.wants(t, "n1 serving, n2 serving")
	n2.wants(t, "n1 serving, n2 serving")
	select {
	case <-changed:
	default:
		t.Error("nobody was told that the members have changed")
	}
	// A change is there at once, and not only with the next heartbeat.
	s2.Drain(0)
	n1.wants(t, "n1 serving, n2 draining")
	leave()
	n1.wants(t, "n1 serving")
	nodes, err := b.publisher.Nodes(t.Context())
	if err != nil || len(nodes) != 2 || !slices.ContainsFunc(nodes, func(n board.Node) bool {
		return n.ID == "n1" && n.Applied == 1 && n.BundleFormat == 1 && n.Rack == "r" && n.Problem == ""
	}) {
		t.Errorf("the portal sees %+v, %v", nodes, err)
	}
}

// A node that is killed is missed after its last heartbeat has grown old; a Redis that
// is killed or emptied takes nobody with it.
func TestMembersOutliveRedis(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	n1, n2 := b.ready(t, t.TempDir(), named("n1")), b.ready(t, t.TempDir(), named("n2"))
	n1.join(t)
	n2.join(t)
	const both = "n1 serving, n2 serving"
	n1.wants(t, both)
	n2.wants(t, both)
	stays := func(what string, d time.Duration) {
		t.Helper()
		for began := time.Now(); time.Since(began) < d; time.Sleep(5 * time.Millisecond) {
			if got := n1.sees(); got != both {
				t.Fatalf("%s: n1 sees %q", what, got)
			}
		}
	}
	if err := b.redis.Client().FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	stays("Redis was emptied", 2*time.Second)
	b.redis.Kill(t)
	stays("Redis is dead", board.NodeTTL+2*time.Second)
	b.redis.Launch(t)
	stays("Redis is back", 2*time.Second)
	b.publishAll(t)
	// One falls silent without leaving.
	began := time.Now()
	n2.client.Close() // its records are not written any more
	n1.wants(t, "n1 serving")
	if took := time.Since(began); took < board.NodeTTL-2*board.HeartbeatEvery || took > board.NodeTTL+5*time.Second {
		t.Errorf("a silent node is missed after %v, want about %v", took, board.NodeTTL)
	}
}

func TestANodeIDIsOfOneProcess(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	state := t.TempDir()
	n1, n2 := b.ready(t, state, named("n1")), b.ready(t, t.TempDir(), named("n2"))
	n1.join(t)
	n2.join(t)
	n2.wants(t, "n1 serving, n2 serving")
	impostor := b.ready(t, t.TempDir(), named("n1"), func(o *Options) { o.Node.Host = "10.9.9.9" })
	_, leave := impostor.join(t)
	until(t, "it says so", func() bool {
		return strings.Contains(fmt.Sprint(impostor.Problem()), "node id n1 is taken by a process at 10.0.0.1:9092")
	})
	if nodes := n2.Nodes(); nodes[0].Host != "10.0.0.1" {
		t.Errorf("n2 sees %+v", nodes)
	}
	leave()
	n2.wants(t, "n1 serving, n2 serving")
	// The same node, started again: it need not wait for the record of before.
	n1.client.Close() // as kill -9: it does not leave
	n1.stop()
	again := b.ready(t, state, named("n1"))
	began := time.Now()
	again.join(t)
	until(t, "n2 sees the new process", func() bool {
		nodes := n2.Nodes()
		return len(nodes) == 2 && nodes[0].Started.Equal(again.options.Node.Started)
	})
	if took := time.Since(began); took > board.NodeTTL-time.Second {
		t.Errorf("it takes %v", took)
	}
	// The id is free for another one when the node has left.
	again.stop()
	other := b.ready(t, t.TempDir(), named("n1"))
	other.join(t)
	n2.wants(t, "n1 serving, n2 serving")
}

func TestCommandsAreForOneProcess(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	n := b.ready(t, t.TempDir(), named("n1"))
	s, _ := n.join(t)
	n.wants(t, "n1 serving")
	nodes, err := b.publisher.Nodes(t.Context())
	if err != nil || len(nodes) != 1 {
		t.Fatalf("Nodes = %v, %v", nodes, err)
	}
	send := func(c board.Command) {
		t.Helper()
		if err := b.publisher.Send(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	send(board.Command{Node: "n1", Started: nodes[0].Started.Add(-time.Second), Action: board.Drain})
	send(board.Command{Node: "n2", Started: nodes[0].Started, Action: board.Drain})
	send(board.Command{Node: "n1", Started: nodes[0].Started, Action: "dance"})
	send(board.Command{Node: "n1", Started: nodes[0].Started, Action: board.Drain, Over: time.Minute})
	until(t, "it is told", func() bool { return len(s.was()) == 1 })
	send(board.Command{Node: "n1", Started: nodes[0].Started, Action: board.Undrain})
	until(t, "it is told", func() bool { return len(s.was()) == 2 })
	// The same again, by somebody who has no key, and a forged one.
	entries, err := b.redis.Client().XRange(t.Context(), "tollgate:eu:changes", "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	refused := n.Health().Refused["forged"]
	for _, e := range entries {
		if c, ok := e.Values["command"].(string); ok {
			for _, command := range []string{c, c[:len(c)-1] + "!"} {
				err := b.redis.Client().Do(t.Context(), "xadd", "tollgate:eu:changes", "*", "after", "0-0", "command", command).Err()
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	until(t, "they are refused", func() bool { return n.Health().Refused["forged"] == refused+5 })
	if got := s.was(); !slices.Equal(got, []string{"drain over 1m0s", "undrain"}) {
		t.Errorf("told %v", got)
	}
}
