package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate.internal/pkg/bundle"
	board "tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/secret"
)

// self is a node's gateway, to those who speak for it.
type self struct {
	mu      sync.Mutex
	report  Report
	changed chan struct{}
	told    []string

	sessions []board.Session
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

func (s *self) Sessions(ask board.Ask) (some []board.Session, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.sessions {
		if ask.Session == "" || ask.Session == one.ID {
			all++
			some = append(some, one)
		}
	}
	return some[:min(len(some), ask.Limit)], all
}

func (s *self) CloseSession(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.sessions)
	s.sessions = slices.DeleteFunc(s.sessions, func(one board.Session) bool { return one.ID == id })
	return len(s.sessions) < before
}

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
		return n.ID == "n1" && n.Applied == 1 && n.BundleFormat == bundle.Format && n.Rack == "r" && n.Problem == ""
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
	// The last that was heard of it may be from before, and is told when there is time.
	if took := time.Since(began); took < board.NodeTTL-3*board.HeartbeatEvery || took > board.NodeTTL+30*time.Second {
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
	again.join(t)
	until(t, "n2 sees the new process", func() bool {
		if problem := fmt.Sprint(again.Problem()); strings.Contains(problem, "is taken") {
			t.Fatalf("it waits for its own record: %s", problem)
		}
		nodes := n2.Nodes()
		return len(nodes) == 2 && nodes[0].Started.Equal(again.options.Node.Started)
	})
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

// Who asks is answered by every node, and by none after that: not when the question is
// read again, nor by a node that was away.
func TestQuestionsAboutSessions(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	one, two := b.ready(t, t.TempDir(), named("n1")), b.ready(t, t.TempDir(), named("n2"))
	s1, _ := one.join(t)
	s2, leave := two.join(t)
	one.wants(t, "n1 serving, n2 serving")
	since := time.Now().UTC().Round(time.Millisecond)
	s1.sessions = []board.Session{{ID: "x", VirtualCluster: "a", Principal: "User:a", Since: since}, {ID: "y", VirtualCluster: "a", Since: since}}
	s2.sessions = []board.Session{{ID: "z", VirtualCluster: "a", Since: since}}
	ask := func(c board.Command, patience time.Duration, nodes ...string) string {
		t.Helper()
		answers, err := b.publisher.Ask(t.Context(), c, nodes, patience)
		if err != nil {
			t.Fatal(err)
		}
		var said []string
		for _, id := range nodes {
			a, answered := answers[id]
			text := id + ":"
			for _, s := range a.Sessions {
				text += " " + s.ID
			}
			if answered {
				text += fmt.Sprintf(" of %d %v", a.Total, a.Closed)
			} else {
				text += " nothing"
			}
			said = append(said, text)
		}
		return strings.Join(said, "; ")
	}
	all := board.Command{Action: board.TellSessions, Ask: &board.Ask{Limit: 10}}
	if got, want := ask(all, time.Minute, "n1", "n2"), "n1: x y of 2 false; n2: z of 1 false"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	few := board.Command{Action: board.TellSessions, Ask: &board.Ask{Limit: 1}}
	if got, want := ask(few, time.Minute, "n1", "n2"), "n1: x of 2 false; n2: z of 1 false"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	end := board.Command{Action: board.CloseSession, Node: "n1", Started: one.options.Node.Started, Ask: &board.Ask{Session: "x"}}
	if got, want := ask(end, time.Minute, "n1"), "n1: of 0 true"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := ask(end, time.Minute, "n1"), "n1: of 0 false"; got != want {
		t.Errorf("again: %s, want %s", got, want)
	}
	// To nobody in particular, and to another process of the node: nobody closes anything.
	for _, wrong := range []board.Command{
		{Action: board.CloseSession, Ask: &board.Ask{Session: "y"}},
		{Action: board.CloseSession, Node: "n1", Started: since.Add(-time.Hour), Ask: &board.Ask{Session: "y"}},
	} {
		if got, want := ask(wrong, 100*time.Millisecond, "n1"), "n1: nothing"; got != want {
			t.Errorf("%+v: %s, want %s", wrong, got, want)
		}
	}
	leave()
	two.stop()
	if got, want := ask(all, 5*time.Second, "n1", "n2"), "n1: y of 1 false; n2: nothing"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	client, err := board.Open(b.url, secret.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	// Nothing is left of questions, nor written where nobody asks.
	late := board.Command{Action: board.TellSessions, Ask: &board.Ask{Limit: 10}, ID: "late"}
	if err := b.publisher.Send(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	if got, want := ask(all, time.Minute, "n1"), "n1: y of 1 false"; got != want { // it has read the other one
		t.Errorf("%s, want %s", got, want)
	}
	keys, err := client.Keys(t.Context(), board.Deployment(eu).Key("answers", "*")).Result()
	if err != nil || len(keys) > 0 {
		t.Errorf("left in redis: %v, %v", keys, err)
	}
}
