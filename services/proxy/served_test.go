package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/fleet"
)

// crowd is a source of as many virtual clusters as anybody asks for, all of them alike
// on one upstream cluster: vc-N has the host h-N.
type crowd struct {
	g     *gateway
	finds atomic.Int64
	now   atomic.Int64 // Finds under way
	most  atomic.Int64
}

func (c *crowd) Run(context.Context, fleet.Applier, func()) error { return nil }
func (c *crowd) Problem() error                                   { return nil }
func (c *crowd) Load(context.Context, string) error               { return nil }
func (c *crowd) Upstream(context.Context, string) error           { return nil }

func (c *crowd) Find(_ context.Context, host string) error {
	c.finds.Add(1)
	c.most.Store(max(c.most.Load(), c.now.Add(1)))
	defer c.now.Add(-1)
	time.Sleep(time.Millisecond)
	var n int
	if _, err := fmt.Sscanf(host, "h-%d", &n); err != nil {
		return nil
	}
	return c.g.Put(fmt.Sprintf("vc-%d", n), crowdSet(n), 1)
}

func crowdSet(n int) *resource.Set {
	name := fmt.Sprintf("vc-%d", n)
	set := resource.NewSet(
		&resource.Tenant{Metadata: resource.Metadata{Name: "t-" + name}},
		&resource.VirtualCluster{Metadata: resource.Metadata{Name: name, Tenant: "t-" + name}, Spec: resource.VirtualClusterSpec{
			Type: resource.Partner, Host: fmt.Sprintf("h-%d", n), Home: "main", Clusters: []string{"main"},
			Authentication: resource.Authentication{Plain: &struct{}{}},
		}},
	)
	for i := range 20 {
		topic := fmt.Sprintf("t-%d", i)
		set.TopicGrants = append(set.TopicGrants, &resource.TopicGrant{
			Metadata: resource.Metadata{Name: topic, Tenant: "t-" + name},
			Spec:     resource.TopicGrantSpec{Cluster: "main", Topic: resource.TopicSelector{Name: topic}, Access: resource.ReadWrite, Until: time.Now().Add(time.Duration(i+1) * time.Hour)},
		})
		set.AliasTopics = append(set.AliasTopics, &resource.AliasTopic{
			Metadata: resource.Metadata{Name: topic, VirtualCluster: name}, Spec: resource.AliasTopicSpec{Cluster: "main", Topic: topic},
		})
	}
	return set
}

// newCrowd is a gateway without listeners.
func newCrowd(t *testing.T) (*gateway, *crowd) {
	t.Helper()
	c := new(crowd)
	cfg := &Config{
		source: c, Control: &Control{UnloadAfter: time.Hour}, Domains: []string{"gw.test"}, RequestMemory: 1 << 30, Log: slog.New(slog.DiscardHandler),
		Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no network") },
	}
	g, err := newGateway(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.close)
	c.g = g
	if err := g.PutPolicies(nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := g.PutUpstream(&resource.UpstreamCluster{Metadata: resource.Metadata{Name: "main"}, Spec: resource.UpstreamClusterSpec{Bootstrap: []string{"127.0.0.1:1"}}}, 1); err != nil {
		t.Fatal(err)
	}
	return g, c
}

// What it costs to load, change and remove one virtual cluster does not depend on how
// many are loaded. Counted is what is allocated, which copying or listing all would show.
func TestAChangeCostsTheSameHoweverManyAreLoaded(t *testing.T) {
	g, _ := newCrowd(t)
	loaded := 0
	fill := func(n int) {
		for ; loaded < n; loaded++ {
			if err := g.Put(fmt.Sprintf("vc-%d", loaded), crowdSet(loaded), 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Growing maps cost something now and then: the cheapest of several rounds is what
	// there always is to do.
	revision := int64(1)
	cost := func() (bytes uint64) {
		const rounds, each = 10, 20
		sets := make([]*resource.Set, each)
		for i := range sets {
			sets[i] = crowdSet(1_000_000 + i)
		}
		bytes = 1 << 62
		for range rounds {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for i, set := range sets {
				name := fmt.Sprintf("vc-%d", 1_000_000+i)
				err := g.Put(name, set, revision+1)
				err = errors.Join(err, g.Put(name, set, revision+2), g.Remove(name, revision+3))
				if err != nil {
					t.Fatal(err)
				}
			}
			revision += 3
			runtime.ReadMemStats(&after)
			bytes = min(bytes, (after.TotalAlloc-before.TotalAlloc)/each)
		}
		return bytes
	}
	fill(10)
	few := cost()
	fill(5000)
	many := cost()
	t.Logf("%d bytes among 10, %d among 5000", few, many)
	if many > few+5000*8 { // a pointer for each would be more
		t.Errorf("put, put, remove: %d bytes allocated among 10 virtual clusters, %d among 5000", few, many)
	}
}

// A flood of names that nobody owns costs the source a bounded number of questions, of
// which a bounded number are under way, and a bounded memory. Those who own a name get
// in all the same.
func TestAFloodOfUnknownNamesIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, c := newCrowd(t)
		const flood, seconds = 20_000, 4
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		began := time.Now()
		for i := range flood {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * seconds * time.Second / flood)
				if _, ok, _ := g.Host(ctx, fmt.Sprintf("b%d-nobody-%d.gw.test", i%3, i)); ok {
					t.Errorf("name %d leads somewhere", i)
				}
				f := g.finder
				f.mu.Lock()
				defer f.mu.Unlock()
				if len(f.flights) > flightsMost || len(f.answers) > unknownNames {
					t.Errorf("%d look-ups and %d answers are kept", len(f.flights), len(f.answers))
				}
			})
		}
		got := make(map[int]time.Duration)
		for n := range 8 {
			time.Sleep(400 * time.Millisecond)
			at := time.Now()
			for {
				_, ok, err := g.Host(ctx, fmt.Sprintf("h-%d.gw.test", n))
				if ok {
					break
				}
				if err == nil {
					t.Fatalf("h-%d is said to be nobody's", n)
				}
				time.Sleep(50 * time.Millisecond) // as clients do that were closed without a word
			}
			got[n] = time.Since(at)
		}
		wg.Wait()
		took := time.Since(began)
		// Each unknown name is asked for twice: as a label, and whole.
		if asked, most := c.finds.Load(), 2*int64((took.Seconds()+1)*unknownRate)+10; asked > most {
			t.Errorf("asked %d times in %v, want at most %d", asked, took, most)
		}
		if c.most.Load() > lookups {
			t.Errorf("%d questions at once, want at most %d", c.most.Load(), lookups)
		}
		t.Logf("%d names, %d questions in %v; the owners waited %v", flood, c.finds.Load(), took, got)
	})
}

// What cannot be a name is not asked for, and a name that nobody owns once in a second.
func TestWhatIsNotAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, c := newCrowd(t)
		for _, name := range []string{"", "a", "b07-acme.gw.test", "b1-b2-acme.gw.test", "a b.gw.test", "*.gw.test", "käse.gw.test"} {
			if _, ok, err := g.Host(t.Context(), name); ok || err != nil {
				t.Errorf("%q: %t, %v", name, ok, err)
			}
		}
		if n := c.finds.Load(); n != 0 {
			t.Errorf("asked %d times for what cannot be a name", n)
		}
		for range 100 {
			_, _, _ = g.Host(t.Context(), "b5-nobody.gw.test")
			_, _, _ = g.Host(t.Context(), "NOBODY.gw.test.")
		}
		if n := c.finds.Load(); n != 2 {
			t.Errorf("asked %d times, want twice: as a label, and whole", n)
		}
		time.Sleep(2 * time.Second)
		_, _, _ = g.Host(t.Context(), "nobody.gw.test")
		if n := c.finds.Load(); n != 4 {
			t.Errorf("asked %d times two seconds later, want 4", n)
		}
	})
}

// Changes come from everywhere at once. In the end everybody is as his highest revision
// says, whatever the order was.
func TestChangesAtOnceEndWithTheHighestRevision(t *testing.T) {
	g, _ := newCrowd(t)
	const names, rounds = 5, 200
	var revision atomic.Int64
	revision.Store(1)
	type last struct {
		revision int64
		there    bool
	}
	var mu sync.Mutex
	want := make(map[string]last)
	note := func(name string, revision int64, there bool, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil && !errors.Is(err, fleet.ErrOlder) {
			t.Errorf("%s at %d: %v", name, revision, err)
		}
		if want[name].revision < revision {
			want[name] = last{revision, there}
		}
	}
	_, _, _ = g.Host(t.Context(), "h-0.gw.test")
	var wg sync.WaitGroup
	for worker := range 8 {
		r := rand.New(rand.NewPCG(1, uint64(worker)))
		wg.Go(func() {
			for range rounds {
				at, n := revision.Add(1), r.IntN(names)
				vc, cluster := fmt.Sprintf("vc-%d", n), fmt.Sprintf("main-%d", n%2)
				switch r.IntN(6) {
				case 0:
					note(vc, at, false, g.Remove(vc, at))
				case 1:
					note(cluster, at, false, g.RemoveUpstream(cluster, at))
				case 2:
					u := &resource.UpstreamCluster{Metadata: resource.Metadata{Name: cluster}, Spec: resource.UpstreamClusterSpec{Bootstrap: []string{fmt.Sprintf("127.0.0.1:%d", 1+r.IntN(3))}}}
					note(cluster, at, true, g.PutUpstream(u, at))
				case 3:
					g.Loaded()
					g.status()
					_, _, _ = g.Host(t.Context(), fmt.Sprintf("h-%d.gw.test", n))
				default:
					set := crowdSet(n)
					spec := &set.VirtualClusters[vc].Spec
					spec.Home, spec.Clusters = cluster, []string{cluster}
					spec.Slots = map[string]int32{cluster: 1} // Host may have loaded it with another home, whose slot is 0
					note(vc, at, true, g.Put(vc, set, at))
				}
			}
		})
	}
	wg.Wait()
	vcs, upstreams := g.Loaded()
	for name, w := range want {
		is, loaded := vcs[name]
		if strings.HasPrefix(name, "main") {
			if is, loaded = upstreams[name]; loaded && !w.there {
				loaded = !g.clusters[name].removed || g.clusters[name].users == 0 // those in use stay as long as they are
			}
		}
		if loaded != w.there || loaded && is != w.revision {
			t.Errorf("%s: loaded %t at %d, want %t at %d", name, loaded, is, w.there, w.revision)
		}
	}
	for name := range vcs {
		if err := g.Remove(name, revision.Add(1)); err != nil {
			t.Error(err)
		}
	}
	for name := range upstreams {
		if err := g.RemoveUpstream(name, revision.Add(1)); err != nil {
			t.Error(err)
		}
	}
	if vcs, upstreams := g.Loaded(); len(vcs)+len(upstreams)+len(g.clusters) != 0 {
		t.Errorf("left: %v, %v, %d clusters", vcs, upstreams, len(g.clusters))
	}
	if _, all := g.Hosts(0); all != 0 {
		t.Errorf("%d hosts are left", all)
	}
}

func policyOfAll(name string, scope resource.PolicyScope) *resource.Policy {
	return &resource.Policy{Metadata: resource.Metadata{Name: name}, Spec: resource.PolicySpec{Type: resource.PolicyProduce, Scope: scope, Config: resource.PolicyConfig{Acks: resource.AcksAll}}}
}

// Nobody is served before it is known which policies there are of all virtual clusters, and
// whatever comes together, what is served in the end is served with them.
func TestNobodyIsServedWithoutThePoliciesOfAll(t *testing.T) {
	g, _ := newCrowd(t)
	g.common.known = false
	if err := g.Put("vc-0", crowdSet(0), 1); !errors.Is(err, errNoPolicies) || g.find("vc-0") != nil {
		t.Fatalf("Put: %v, want %v", err, errNoPolicies)
	}
	const many, rounds = 40, 20
	var wg sync.WaitGroup
	wg.Go(func() {
		for r := range rounds {
			if err := g.PutPolicies([]*resource.Policy{policyOfAll(fmt.Sprintf("r-%d", r), resource.PolicyScope{})}, int64(r+1)); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range many {
		wg.Go(func() {
			for {
				err := g.Put(fmt.Sprintf("vc-%d", i), crowdSet(i), 1)
				if err == nil {
					return
				}
				if !errors.Is(err, errNoPolicies) {
					t.Error(err)
					return
				}
				runtime.Gosched()
			}
		})
	}
	wg.Wait()
	for name, vc := range g.loaded() {
		steps := vc.View().Policies.Produce("User:x", "t")
		if why := steps.Refuse(1, nil); why == nil || !strings.Contains(why.Err.Error(), fmt.Sprintf("policy r-%d of all", rounds-1)) {
			t.Errorf("%s goes by %v, want the last ones", name, why)
		}
	}
	if err := g.PutPolicies(nil, rounds-1); !errors.Is(err, fleet.ErrOlder) {
		t.Errorf("older ones: %v, want %v", err, fleet.ErrOlder)
	}
	other := policyOfAll("x", resource.PolicyScope{})
	other.Spec.Type = "tap-dance"
	if err := g.PutPolicies([]*resource.Policy{other}, rounds+1); err == nil {
		t.Error("one of an unknown type is taken")
	}
	if revision, known := g.Revision(bundle.Everywhere); revision != rounds || !known {
		t.Errorf("in force is revision %d, %v, want %d", revision, known, rounds)
	}
}

// A virtual cluster that no policy is about keeps its view: its sessions do nothing anew.
func TestPoliciesOfOthersCostNothing(t *testing.T) {
	g, _ := newCrowd(t)
	if err := g.Put("vc-0", crowdSet(0), 1); err != nil {
		t.Fatal(err)
	}
	before := g.find("vc-0").vc.View()
	for r := range int64(3) {
		p := policyOfAll("gold", resource.PolicyScope{VirtualClusterLabels: map[string]string{"tier": "gold"}})
		if err := g.PutPolicies([]*resource.Policy{p}, r+1); err != nil {
			t.Fatal(err)
		}
	}
	if g.find("vc-0").vc.View() != before {
		t.Error("the view is another one")
	}
}

// What cannot be served as it is is not served without its policies.
func TestPoliciesStayWhereAChangeIsNarrowed(t *testing.T) {
	g, _ := newCrowd(t)
	own := func(name string, kind resource.PolicyType) *resource.Policy {
		p := policyOfAll(name, resource.PolicyScope{})
		p.Metadata.VirtualCluster, p.Spec.Type = "vc-0", kind
		return p
	}
	set := crowdSet(0)
	set.Policies = []*resource.Policy{own("first", resource.PolicyProduce)}
	if err := g.Put("vc-0", set, 1); err != nil {
		t.Fatal(err)
	}
	for revision, c := range map[int64]struct {
		policy *resource.Policy
		want   string
	}{
		2: {own("second", resource.PolicyProduce), "policy second"},
		3: {own("third", "tap-dance"), "policy "},
	} {
		next := crowdSet(0)
		next.Policies = []*resource.Policy{c.policy}
		next.VirtualClusters["vc-0"].Spec.Authentication.MTLS = &resource.MTLS{CAFile: "/nowhere/ca.pem"}
		if err := g.Put("vc-0", next, revision); !errors.Is(err, fleet.ErrNarrowed) {
			t.Fatalf("Put: %v, want %v", err, fleet.ErrNarrowed)
		}
		why := g.find("vc-0").vc.View().Policies.Produce("User:x", "t").Refuse(1, nil)
		if why == nil || !strings.Contains(why.Err.Error(), c.want) {
			t.Errorf("revision %d goes by %v, want %s", revision, why, c.want)
		}
	}
}
