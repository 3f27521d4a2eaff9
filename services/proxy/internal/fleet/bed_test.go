package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"tollgate.internal/pkg/bundle"
	board "tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/pkg/testbed/redistest"
)

// bed is a real Redis and a portal.
type bed struct {
	redis     *redistest.Server // nil: of several servers
	url       string
	signer    *bundle.Signer
	publisher *board.Publisher
	store     map[bundle.ID]*bundle.Bundle // what the portal has in SQL
	revision  int64
}

const eu = "eu"

func newBed(t *testing.T) *bed {
	t.Helper()
	redis := redistest.Start(t)
	b := newBedAt(t, redis.URL)
	b.redis = redis
	return b
}

func newBedAt(t *testing.T, url string) *bed {
	t.Helper()
	b := &bed{url: url, store: make(map[bundle.ID]*bundle.Bundle)}
	var err error
	if b.signer, err = bundle.NewSigner(); err != nil {
		t.Fatal(err)
	}
	client, err := board.Open(url, secret.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if b.publisher, err = board.NewPublisher(client, eu, b.signer, nil); err != nil {
		t.Fatal(err)
	}
	return b
}

func idOf(name string) bundle.ID { return bundle.ID{Kind: bundle.VirtualCluster, Name: name} }

// virtualCluster is one with hosts, of which the first is its label.
func virtualCluster(name string, revision int64, hosts ...string) *bundle.Bundle {
	return &bundle.Bundle{
		Deployment: eu, ID: idOf(name), Revision: revision,
		Objects: bundle.Objects{
			&resource.Tenant{Metadata: resource.Metadata{Name: "acme"}},
			&resource.VirtualCluster{Metadata: resource.Metadata{Name: name, Tenant: "acme"}, Spec: resource.VirtualClusterSpec{Host: hosts[0], CustomHosts: hosts[1:], Home: "home"}},
		},
	}
}

func upstreamCluster(name string, revision int64) *bundle.Bundle {
	return &bundle.Bundle{
		Deployment: eu, ID: bundle.ID{Kind: bundle.UpstreamCluster, Name: name}, Revision: revision,
		Objects: bundle.Objects{&resource.UpstreamCluster{Metadata: resource.Metadata{Name: name}, Spec: resource.UpstreamClusterSpec{Bootstrap: []string{"b:1"}}}},
	}
}

func tombstone(id bundle.ID, revision int64) *bundle.Bundle {
	return &bundle.Bundle{Deployment: eu, ID: id, Revision: revision, Deleted: true}
}

// change is what the portal does when there is a change: it keeps it, and publishes.
func (b *bed) change(t *testing.T, change func(revision int64) *bundle.Bundle) (revision int64) {
	t.Helper()
	b.keep(change)
	b.publish(t, b.revision)
	return b.revision
}

// keep is a change that the portal has no time to publish.
func (b *bed) keep(change func(revision int64) *bundle.Bundle) {
	b.revision++
	c := change(b.revision)
	b.store[c.ID] = c
}

// publish publishes what is of a revision.
func (b *bed) publish(t *testing.T, revision int64) {
	t.Helper()
	ctx := within(t, patience)
	for _, c := range b.store {
		if c.Revision != revision {
			continue
		}
		err := errors.Join(b.publisher.Put(ctx, c), b.publisher.Announce(ctx, board.Change{ID: c.ID, Revision: c.Revision}))
		if err != nil {
			t.Fatal(err)
		}
	}
	b.head(t, revision)
}

// head says that everything up to a revision is published.
func (b *bed) head(t *testing.T, revision int64) {
	t.Helper()
	head := board.Head{Revision: revision}
	if p := b.store[bundle.Everywhere]; p != nil {
		head.Policies = p.Revision
	}
	if err := b.publisher.Advance(within(t, 20*time.Second), 0, head); err != nil {
		t.Fatal(err)
	}
}

// publishAll is what the portal does when Redis has forgotten something.
func (b *bed) publishAll(t *testing.T) {
	t.Helper()
	ctx := within(t, patience)
	for _, c := range b.store {
		if err := b.publisher.Put(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	b.head(t, b.revision)
}

// set changes a virtual cluster that has a label of its own name.
func (b *bed) set(t *testing.T, name string) (revision int64) {
	t.Helper()
	return b.change(t, func(r int64) *bundle.Bundle { return virtualCluster(name, r, name) })
}

func (b *bed) remove(t *testing.T, name string) (revision int64) {
	t.Helper()
	return b.change(t, func(r int64) *bundle.Bundle { return tombstone(idOf(name), r) })
}

// node is a proxy with a gateway of paper.
type node struct {
	*Redis
	gateway *gateway
	state   string
	stop    func()
}

// node starts a node with a state directory.
func (b *bed) node(t *testing.T, state string, options ...func(*Options)) *node {
	t.Helper()
	o := Options{
		Redis: b.url, Keys: b.signer.Keyring(), State: state, Deployment: eu,
		Node: board.Node{ID: "n1", Host: "10.0.0.1", Port: 9092}, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, option := range options {
		option(&o)
	}
	r, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Redis: r, state: state, gateway: newGateway(t)}
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { _ = n.Run(ctx, n.gateway, func() { close(ready) }) })
	n.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		r.Close()
	})
	t.Cleanup(n.stop)
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatalf("the node is not ready after %v", patience)
	}
	return n
}

// ready starts a node and waits until it follows.
func (b *bed) ready(t *testing.T, state string, options ...func(*Options)) *node {
	t.Helper()
	n := b.node(t, state, options...)
	n.follows(t)
	return n
}

// follows waits until the node has applied everything that is published.
func (n *node) follows(t *testing.T) {
	t.Helper()
	until(t, "the node follows", func() bool {
		h := n.Health()
		return h.Connected && !h.Stale && h.Applied >= h.Head
	})
}

// applies waits until the node serves a virtual cluster at a revision.
func (n *node) applies(t *testing.T, name string, revision int64) {
	t.Helper()
	until(t, fmt.Sprintf("%s is served at revision %d", name, revision), func() bool { return n.gateway.revision(name) == revision })
}

// appliesAll waits until the node has applied everything up to a revision.
func (n *node) appliesAll(t *testing.T, revision int64) {
	t.Helper()
	until(t, fmt.Sprintf("everything up to revision %d is applied", revision), func() bool { return n.Health().Applied >= revision })
}

// find wants a host to lead to what is served at a revision; 0: to nobody. On a machine
// with much else to do Redis may not answer in time, and the node goes by what it has,
// or refuses, and says so: then it is asked again.
func (n *node) find(t *testing.T, host, name string, revision int64) {
	t.Helper()
	var err error
	var got int64
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		err = n.Find(within(t, patience), host)
		got = n.gateway.revision(name)
		h := n.Health()
		if err == nil && (got == revision || h.Connected && !h.Stale) || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		t.Errorf("Find(%s): %v", host, err)
	}
	if got != revision {
		t.Errorf("after Find(%s) %s is served at revision %d, want %d", host, name, got, revision)
	}
}

// gateway is what a gateway promises: no revision is followed by a lower one. That one
// comes at all fails the test.
type gateway struct {
	t *testing.T

	mu        sync.Mutex
	served    map[bundle.ID]int64
	highest   map[bundle.ID]int64
	refuse    map[string]error
	policies  []*resource.Policy // of all virtual clusters
	announced int
	listed    int               // times that all that is served was listed
	put       func(name string) // before
}

func newGateway(t *testing.T) *gateway {
	return &gateway{t: t, served: make(map[bundle.ID]int64), highest: make(map[bundle.ID]int64), refuse: make(map[string]error)}
}

func (g *gateway) apply(id bundle.ID, revision int64, there bool) error {
	if g.put != nil {
		g.put(id.Name)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.refuse[id.Name]; err != nil {
		return err
	}
	if revision < g.highest[id] {
		g.t.Errorf("%v is put at revision %d after %d", id, revision, g.highest[id])
		return ErrOlder
	}
	g.highest[id] = revision
	if there {
		g.served[id] = revision
	} else {
		delete(g.served, id)
	}
	return nil
}

func (g *gateway) Put(name string, set *resource.Set, revision int64) error {
	if _, known := g.Revision(bundle.Everywhere); !known {
		g.t.Errorf("%s is put before it is known which policies there are of all virtual clusters", name)
	}
	if set.VirtualClusters[name] == nil || set.Tenants["acme"] == nil {
		g.t.Errorf("%s is put with %+v", name, set)
	}
	return g.apply(idOf(name), revision, true)
}

func (g *gateway) Remove(name string, revision int64) error {
	return g.apply(idOf(name), revision, false)
}

func (g *gateway) PutPolicies(policies []*resource.Policy, revision int64) error {
	err := g.apply(bundle.Everywhere, revision, true)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		g.policies = policies
	}
	return err
}

func (g *gateway) PutUpstream(u *resource.UpstreamCluster, revision int64) error {
	return g.apply(bundle.ID{Kind: bundle.UpstreamCluster, Name: u.Metadata.Name}, revision, true)
}

func (g *gateway) RemoveUpstream(name string, revision int64) error {
	return g.apply(bundle.ID{Kind: bundle.UpstreamCluster, Name: name}, revision, false)
}

func (g *gateway) Loaded() (virtualClusters, upstreams map[string]int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listed++
	virtualClusters, upstreams = make(map[string]int64), make(map[string]int64)
	for id, revision := range g.served {
		switch id.Kind {
		case bundle.VirtualCluster:
			virtualClusters[id.Name] = revision
		case bundle.UpstreamCluster:
			upstreams[id.Name] = revision
		}
	}
	return virtualClusters, upstreams
}

func (g *gateway) Revision(id bundle.ID) (revision int64, served bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	revision, served = g.served[id]
	return revision, served
}

func (g *gateway) Announced() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.announced++
}

// unload is what a gateway does with what has no sessions for long.
func (g *gateway) unload(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.served, idOf(name))
}

func (g *gateway) refuses(name string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refuse[name] = err
}

func (g *gateway) revision(name string) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.served[idOf(name)]
}

// patience is for what is going to happen, however much else the machine has to do.
const patience = 2 * time.Minute

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
