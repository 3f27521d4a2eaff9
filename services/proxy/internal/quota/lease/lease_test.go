package lease

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tollgate.internal/services/proxy/internal/quota"
)

const subjectName = "vc:acme"

// node is one of a fleet.
type node struct {
	name   string
	keeper *Keeper
	quotas *quota.Quotas
	stop   func()
}

// fleet runs nodes over one store inside a bubble.
type fleet struct {
	t      *testing.T
	store  *memory
	limits quota.Limits
	nodes  []*node

	mu   sync.Mutex
	done map[int]float64 // units in each tenth of a second since the bubble began
	zero time.Time
}

func newFleet(t *testing.T, nodes int, limits quota.Limits) *fleet {
	f := &fleet{t: t, store: newMemory(), limits: limits, done: make(map[int]float64), zero: time.Now()}
	for range nodes {
		f.join("")
	}
	time.Sleep(2 * time.Second)
	return f
}

// join starts one more node.
func (f *fleet) join(file string) *node {
	name := fmt.Sprintf("node-%d", len(f.nodes))
	k, err := New(Config{Node: name, Store: f.store, File: file, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.t.Fatal(err)
	}
	n := &node{name: name, keeper: k, quotas: quota.New(subjectName, k)}
	n.quotas.Set(f.limits)
	ctx, cancel := context.WithCancel(f.t.Context())
	ended := make(chan struct{})
	go func() { k.Run(ctx); close(ended) }()
	n.stop = func() { cancel(); <-ended }
	f.nodes = append(f.nodes, n)
	return n
}

// kill ends a node without a good-bye.
func (f *fleet) kill(n *node) {
	before := f.store.away
	f.store.cut(func(name string) bool { return name == n.name || before != nil && before(name) })
	n.stop()
}

func (f *fleet) close() {
	for _, n := range f.nodes {
		n.stop()
	}
}

func (f *fleet) count(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done[int(time.Since(f.zero)/(100*time.Millisecond))] += float64(n)
}

// rate is how many units were done per second between two moments.
func (f *fleet) rate(from, to time.Time) float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	sum := 0.0
	first, last := int(from.Sub(f.zero)/(100*time.Millisecond)), int(to.Sub(f.zero)/(100*time.Millisecond))
	for i := first; i < last; i++ {
		sum += f.done[i]
	}
	return sum / to.Sub(from).Seconds()
}

// work has clients produce through a node as fast as they are let, until ctx ends.
func (f *fleet) work(ctx context.Context, wg *sync.WaitGroup, n *node, clients int, size func() int) {
	for range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				units := size()
				f.count(units)
				d := max(n.quotas.Produce.Take(units), time.Millisecond)
				select {
				case <-ctx.Done():
				case <-time.After(d):
				}
			}
		})
	}
}

func fixed(n int) func() int { return func() int { return n } }

const limit = 1_000_000

// within checks the rate of what was done since.
func (f *fleet) within(what string, since time.Time, low, high float64) {
	f.t.Helper()
	r := f.rate(since, time.Now()) / limit
	f.t.Logf("%s: %.3f of the limit", what, r)
	if r < low || r > high {
		f.t.Errorf("%s: %.3f of the limit, want %.2f to %.2f", what, r, low, high)
	}
}

// Over 30 seconds, from the first request on, clients get the limit within a tenth.
func TestTheFleetKeepsTheLimit(t *testing.T) {
	anySize := func() int { return 1 + rand.IntN(50_000) }
	for _, c := range []struct {
		name    string
		clients []int // of each node
		size    func() int
	}{
		{"one node, one client", []int{1}, fixed(10_000)},
		{"one node, forty clients", []int{40}, anySize},
		{"three nodes, alike", []int{10, 10, 10}, anySize},
		{"three nodes, one client each", []int{1, 1, 1}, fixed(20_000)},
		{"three nodes, one client each with large requests", []int{1, 1, 1}, fixed(400_000)},
		{"three nodes, one of them busy", []int{30, 0, 0}, anySize},
		{"three nodes, uneven", []int{40, 5, 1}, anySize},
		{"three nodes, two busy", []int{1, 20, 0}, fixed(50_000)},
		{"ten nodes", []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, func() int { return 1 + rand.IntN(25_000) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, len(c.clients), quota.Limits{Produce: limit})
				defer f.close()
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for i, n := range c.clients {
					f.work(ctx, &wg, f.nodes[i], n, c.size)
				}
				for range 4 {
					began := time.Now()
					time.Sleep(30 * time.Second)
					f.within("30 s", began, 0.9, 1.1)
					if s := f.store.sum(subjectName, quota.Produce); s > quota.Parts {
						t.Errorf("shares are %d of %d", s, quota.Parts)
					}
				}
				cancel()
				wg.Wait()
			})
		})
	}
}

// Clients that leave one node for another find their share there soon.
func TestSharesFollowTheClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, quota.Limits{Produce: limit})
		defer f.close()
		f.work(t.Context(), new(sync.WaitGroup), f.nodes[2], 1, fixed(1000)) // somebody is there already, and stays
		began := time.Now()
		for i := range 6 {
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			moved := time.Now()
			f.work(ctx, &wg, f.nodes[i%3], 20, fixed(10_000))
			time.Sleep(1500 * time.Millisecond)
			settled := time.Now()
			time.Sleep(3500 * time.Millisecond)
			f.within("once moved", settled, 0.85, 1.15)
			f.within("with the move", moved, 0.75, 1.3)
			cancel()
			wg.Wait()
		}
		f.within("30 s of moving", began, 0.9, 1.1)
	})
}

// What a node had that died is the others' when its lease is over.
func TestADeadNodeGivesItsShareBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, quota.Limits{Produce: limit, Connections: 9})
		defer f.close()
		victim, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		f.work(victim, &wg, f.nodes[0], 20, fixed(10_000))
		f.work(t.Context(), new(sync.WaitGroup), f.nodes[1], 10, fixed(10_000))
		f.work(t.Context(), new(sync.WaitGroup), f.nodes[2], 10, fixed(10_000))
		for range 8 {
			if !f.nodes[0].quotas.Connections.Enter(t.Context()) {
				t.Fatal("no room for eight of nine")
			}
		}
		time.Sleep(10 * time.Second)
		died := time.Now()
		cancel()
		wg.Wait()
		f.kill(f.nodes[0])
		time.Sleep(30 * time.Second)
		f.within("30 s from the death on", died, 0.9, 1.1)
		for range 9 {
			if !f.nodes[1].quotas.Connections.Enter(t.Context()) {
				t.Fatal("no room for nine after the node with eight died")
			}
		}
		if f.nodes[2].quotas.Connections.Enter(t.Context()) {
			t.Error("a tenth connection of nine")
		}
	})
}

// never checks that in no window of that length since then more was done.
func (f *fleet) never(what string, since time.Time, window time.Duration, most float64) {
	f.t.Helper()
	worst := 0.0
	for at := since; !at.Add(window).After(time.Now()); at = at.Add(100 * time.Millisecond) {
		worst = max(worst, f.rate(at, at.Add(window))/limit)
	}
	f.t.Logf("%s: at most %.3f of the limit", what, worst)
	if worst > most {
		f.t.Errorf("%s: %.3f of the limit, want no more than %.2f", what, worst, most)
	}
}

// Without the store the fleet never has twice the limit, however the clients are
// spread; and with it again it keeps the limit again.
func TestTheStoreGoesAwayAndComesBack(t *testing.T) {
	for _, clients := range [][]int{{10, 10, 10}, {40, 1, 1}, {30, 0, 0}, {1, 1, 1}, {15}} {
		t.Run(fmt.Sprint(clients), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, len(clients), quota.Limits{Produce: limit})
				defer f.close()
				for i, n := range clients {
					f.work(t.Context(), new(sync.WaitGroup), f.nodes[i], n, fixed(10_000))
				}
				time.Sleep(10 * time.Second)
				went := time.Now()
				f.store.cut(everybody)
				time.Sleep(5 * time.Second)
				gone := time.Now()
				time.Sleep(30 * time.Second)
				f.never("while it is away", went, 3*time.Second, 2)
				if clients[len(clients)-1] > 0 { // all nodes are busy
					f.within("30 s without the store", gone, 0.9, 1.1)
				}
				for _, n := range f.nodes {
					if n.keeper.Stats().Away == nil {
						t.Errorf("%s does not say that the store is away", n.name)
					}
				}
				back := time.Now()
				f.store.cut(nil)
				time.Sleep(30 * time.Second)
				f.within("30 s from its return on", back, 0.9, 1.1)
				for _, n := range f.nodes {
					if err := n.keeper.Stats().Away; err != nil {
						t.Errorf("%s says that the store is away: %v", n.name, err)
					}
				}
			})
		})
	}
}

// Nodes that lose the store one after the other, while the others share among
// themselves what those had, have no more than twice the limit together with them.
func TestNodesAreCutOffOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 4, quota.Limits{Produce: limit})
		defer f.close()
		for _, n := range f.nodes {
			f.work(t.Context(), new(sync.WaitGroup), n, 10, fixed(5_000))
		}
		time.Sleep(10 * time.Second)
		began := time.Now()
		for i := range f.nodes {
			f.store.cut(func(name string) bool { return name <= f.nodes[i].name })
			time.Sleep(10 * time.Second)
		}
		f.never("while one after the other is cut off", began, 3*time.Second, 2)
		all := time.Now()
		time.Sleep(30 * time.Second)
		f.within("all cut off", all, 0.9, 1.1)
	})
}

// Nodes that are started while the store is away take no more than their part: a
// node that was of the fleet knows it from its file, another takes there to be sixteen.
func TestNodesJoinWithoutTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{t: t, store: newMemory(), limits: quota.Limits{Produce: limit}, done: make(map[int]float64), zero: time.Now()}
		defer f.close()
		files := []string{t.TempDir() + "/a", t.TempDir() + "/b"}
		f.join(files[0])
		f.join(files[1])
		time.Sleep(3 * time.Second)
		f.store.cut(everybody)
		time.Sleep(3 * time.Second)
		f.nodes[0].stop() // restarted
		again, err := New(Config{Node: f.nodes[0].name, Store: f.store, File: files[0], Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if got := again.Unleased(); got != 0.5 {
			t.Errorf("a node of two takes %v of the limit after a restart, want a half", got)
		}
		for range 10 {
			n := f.join("")
			if got := n.keeper.Unleased(); got != 1./16 {
				t.Errorf("a node that knows of none takes %v of the limit, want a sixteenth", got)
			}
			f.work(t.Context(), new(sync.WaitGroup), n, 2, fixed(5_000))
		}
		f.work(t.Context(), new(sync.WaitGroup), f.nodes[1], 10, fixed(5_000))
		q := quota.New(subjectName, again)
		q.Set(f.limits)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { again.Run(ctx); close(ended) }()
		defer func() { cancel(); <-ended }()
		f.work(t.Context(), new(sync.WaitGroup), &node{quotas: q}, 10, fixed(5_000))
		began := time.Now()
		time.Sleep(30 * time.Second)
		f.never("two nodes, and ten that came", began, 10*time.Second, 2)
	})
}

// A store that has forgotten everything, or answers slowly, is no reason to do more.
func TestTheStoreForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, quota.Limits{Produce: limit})
		defer f.close()
		for i, n := range f.nodes {
			f.work(t.Context(), new(sync.WaitGroup), n, 5*(i+1), fixed(5_000))
		}
		time.Sleep(10 * time.Second)
		began := time.Now()
		for range 10 {
			f.store.flush()
			time.Sleep(3 * time.Second)
		}
		f.within("30 s with a flush every three", began, 0.9, 1.1)
		f.store.mu.Lock()
		f.store.latency = 300 * time.Millisecond
		f.store.mu.Unlock()
		began = time.Now()
		time.Sleep(30 * time.Second)
		f.within("30 s with a slow store", began, 0.9, 1.1)
	})
}

// Connections are counted over all nodes: one that another node has no use for is to
// be had here, and not one more than the limit.
func TestConnectionsOfTheFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, quota.Limits{Connections: 30})
		defer f.close()
		enter := func(n *node) bool { return n.quotas.Connections.Enter(t.Context()) }
		for i := range 30 {
			if !enter(f.nodes[i*i%3]) {
				t.Fatalf("connection %d of 30 is refused", i+1)
			}
		}
		began := time.Now()
		for _, n := range f.nodes {
			if enter(n) {
				t.Errorf("%s takes one more than all there may be", n.name)
			}
		}
		if took := time.Since(began); took > 3*2*time.Second {
			t.Errorf("the refusals took %v", took)
		}
		f.nodes[1].quotas.Connections.Leave()
		began = time.Now()
		for !enter(f.nodes[0]) {
			if time.Since(began) > 5*time.Second {
				t.Fatal("what was left elsewhere is not to be had")
			}
			time.Sleep(100 * time.Millisecond)
		}
		// At rest nothing changes, and the store hears little.
		time.Sleep(time.Minute)
		before := f.store.called()
		time.Sleep(time.Minute)
		if calls := f.store.called() - before; calls > 3*(60+7) {
			t.Errorf("%d calls in a minute without any use", calls)
		}
		if enter(f.nodes[2]) {
			t.Error("one more than all there may be, after a rest")
		}
		if s := f.store.sum(subjectName, quota.Connections); s != 30 {
			t.Errorf("%d connections are held, want 30", s)
		}
	})
}

// Many who come at once to all nodes are as many as there may be.
func TestConnectionsComeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, quota.Limits{Connections: 100})
		defer f.close()
		var mu sync.Mutex
		in := 0
		var wg sync.WaitGroup
		for _, n := range f.nodes {
			for range 60 {
				wg.Go(func() {
					for range 20 { // as clients do
						if n.quotas.Connections.Enter(t.Context()) {
							mu.Lock()
							in++
							mu.Unlock()
							return
						}
						time.Sleep(100 * time.Millisecond)
					}
				})
			}
		}
		wg.Wait()
		if in != 100 {
			t.Errorf("%d of 180 came in, want 100", in)
		}
	})
}

// Without the store a node has its part of the connections, keeps what it has, and
// does not make anybody wait.
func TestConnectionsWithoutTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, quota.Limits{Connections: 12})
		defer f.close()
		for range 6 {
			if !f.nodes[0].quotas.Connections.Enter(t.Context()) {
				t.Fatal("refused")
			}
		}
		f.store.cut(everybody)
		time.Sleep(5 * time.Second)
		in := 6
		for _, n := range f.nodes {
			for range 10 {
				if n.quotas.Connections.Enter(t.Context()) {
					in++
				}
			}
			began := time.Now()
			if n.quotas.Connections.Enter(t.Context()) || time.Since(began) != 0 {
				t.Errorf("%s: one more, or a wait of %v", n.name, time.Since(began))
			}
		}
		if in != 6+4+4 {
			t.Errorf("%d connections of 12 with three nodes, want 14", in)
		}
		f.store.cut(nil)
		time.Sleep(5 * time.Second)
		if f.nodes[1].quotas.Connections.Enter(t.Context()) {
			t.Error("one more although there are too many already")
		}
	})
}

// A new limit holds for the next request and the next connection.
func TestLimitsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, quota.Limits{})
		defer f.close()
		for _, n := range f.nodes {
			for range 2 {
				if !n.quotas.Connections.Enter(t.Context()) {
					t.Fatal("refused without a limit")
				}
			}
		}
		for _, n := range f.nodes {
			n.quotas.Set(quota.Limits{Produce: limit, Connections: 8})
		}
		for range 2 {
			if !f.nodes[0].quotas.Connections.Enter(t.Context()) {
				t.Error("no room for eight")
			}
		}
		if f.nodes[1].quotas.Connections.Enter(t.Context()) {
			t.Error("a ninth connection of eight")
		}
		for _, n := range f.nodes {
			f.work(t.Context(), new(sync.WaitGroup), n, 10, fixed(5_000))
		}
		time.Sleep(5 * time.Second)
		for _, n := range f.nodes {
			n.quotas.Set(quota.Limits{Produce: limit / 4})
		}
		began := time.Now()
		time.Sleep(30 * time.Second)
		f.within("a quarter of the limit", began, 0.9/4, 1.1/4)
		if !f.nodes[1].quotas.Connections.Enter(t.Context()) {
			t.Error("refused after the limit was taken away")
		}
	})
}

// With a good-bye a node does not count any more; without, for a quarter of an hour.
func TestHowManyNodesThereAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 4, quota.Limits{Produce: limit})
		defer f.close()
		count := func(want int64) {
			t.Helper()
			time.Sleep(2 * time.Second)
			if got := f.nodes[0].keeper.Stats().Nodes; got != want {
				t.Errorf("%d nodes, want %d", got, want)
			}
		}
		count(4)
		f.nodes[1].stop()
		count(3)
		f.kill(f.nodes[2])
		count(3)
		time.Sleep(present)
		count(2)
	})
}

// A node that is alone has all of the limit, from the first look on.
func TestANodeAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1, quota.Limits{Requests: 100})
		defer f.close()
		q := f.nodes[0].quotas
		q.Requests.Take(1)
		time.Sleep(2 * time.Second)
		if d := q.Requests.Take(100); d != 0 {
			t.Errorf("a second's worth is delayed by %v", d)
		}
		if d := q.Requests.Take(50); d != 500*time.Millisecond {
			t.Errorf("half of a second more is delayed by %v", d)
		}
	})
}
