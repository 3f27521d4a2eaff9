package view

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tollgate.internal/services/proxy/internal/netio"
	"tollgate.internal/services/proxy/internal/quota"
	"tollgate.internal/services/proxy/internal/stub"
	"tollgate.internal/services/proxy/internal/upstream"
)

// VirtualCluster is a virtual cluster that is being served: its current view and
// the clusters behind it.
type VirtualCluster struct {
	Name         string
	Home         *upstream.Cluster
	Quotas       *quota.Quotas // shared by all sessions of the node
	Creating     Turn          // of those who create topics within a limit
	Transactions Transactions
	Splits       Splits
	// FeaturesEpoch is what the epoch of the features begins with. It has to be more
	// than before the node was started.
	FeaturesEpoch int64

	// Its shares of the node's memory for large frames; nil: all of it.
	Requests, Answers *netio.Budget

	fleet    quota.Fleet // nil: quotas are the node's own
	accounts accounts

	log    *slog.Logger
	state  atomic.Pointer[state]
	table  atomic.Pointer[Table]
	offer  atomic.Pointer[Offer]
	mu     sync.Mutex      // builds tables and offers one at a time
	keeper *stub.Keeper    // nil: no alias ever needed a stub; guarded by mu
	ready  chan struct{}   // closed when what can be known at the start is known
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

var noStubs = new(stub.Snapshot)

// state is what resources say.
type state struct {
	view    *View
	members []Member // without metadata; home first
}

// startLimit is how long the first clients wait, when home has been reached, for the
// other clusters and for stubs to be looked at.
const startLimit = 10 * time.Second

// NewVirtualCluster serves v from the clusters of its view, by name. Its quotas are the
// fleet's; nil: this node's. Close it.
func NewVirtualCluster(v *View, clusters map[string]*upstream.Cluster, fleet quota.Fleet, log *slog.Logger) *VirtualCluster {
	vc := &VirtualCluster{
		Name: v.Name, Home: clusters[v.Spec.Home], Quotas: quota.New("vc:"+v.Name, fleet), fleet: fleet, Creating: NewTurn(),
		log: log, ready: make(chan struct{}),
	}
	vc.ctx, vc.cancel = context.WithCancel(context.Background())
	vc.Swap(v, clusters)
	if v.needsStubs() {
		vc.wg.Go(vc.start)
	} else {
		close(vc.ready)
	}
	return vc
}

// Close ends what it does in the background.
func (vc *VirtualCluster) Close() {
	vc.mu.Lock() // nothing is begun after
	vc.cancel()
	vc.mu.Unlock()
	vc.wg.Wait()
	if vc.keeper != nil {
		vc.keeper.Close()
	}
}

// View is the current view.
func (vc *VirtualCluster) View() *View { return vc.state.Load().view }

// Swap puts a new view under the live sessions. Its home is the same.
func (vc *VirtualCluster) Swap(v *View, clusters map[string]*upstream.Cluster) {
	vc.limit(v)
	next := &state{view: v}
	for _, name := range v.Spec.Clusters {
		next.members = append(next.members, Member{Name: name, Slot: v.Spec.Slot(name), Cluster: clusters[name]})
	}
	slices.SortFunc(next.members, func(a, b Member) int {
		switch {
		case a.Name == v.Spec.Home:
			return -1
		case b.Name == v.Spec.Home || a.Name > b.Name:
			return 1
		}
		return -1
	})
	vc.state.Store(next)
}

// start lets nobody see a virtual cluster that only looks smaller than it is because
// the node has just begun: groups would be balanced anew.
func (vc *VirtualCluster) start() {
	defer close(vc.ready)
	for changed := vc.Home.Changed(); vc.Home.Metadata() == nil; changed = vc.Home.Changed() {
		select {
		case <-changed:
		case <-vc.ctx.Done():
			return
		}
	}
	ctx, cancel := context.WithTimeout(vc.ctx, startLimit)
	defer cancel()
	for _, m := range vc.state.Load().members {
		if err := m.Cluster.Tried(ctx); err != nil {
			vc.log.Warn("cluster not reached", "virtual_cluster", vc.Name, "cluster", m.Name, "err", err)
		}
	}
	vc.build()
	vc.mu.Lock()
	k := vc.keeper
	vc.mu.Unlock()
	if k == nil {
		return
	}
	if err := k.Wait(ctx); err != nil {
		vc.log.Warn("stub topics not all looked at", "virtual_cluster", vc.Name, "err", err)
	}
}

// follow makes tables also while no client asks, so that stubs are there before one
// does.
func (vc *VirtualCluster) follow() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-vc.ctx.Done():
			return
		case <-tick.C:
			vc.build()
		}
	}
}

// needsStubs reports whether some alias may need one.
func (v *View) needsStubs() bool {
	for _, a := range v.aliases {
		if a.cluster != v.Spec.Home || a.identity != ([16]byte{}) {
			return true
		}
	}
	return false
}

// Table is the current table over the metadata at hand; nil before there is any, and
// while the node has just begun.
func (vc *VirtualCluster) Table() *Table {
	if t := vc.table.Load(); t != nil && vc.current(t) {
		return t
	}
	select {
	case <-vc.ready:
		return vc.build()
	default:
		return nil
	}
}

// current reports whether nothing has changed since t was made.
func (vc *VirtualCluster) current(t *Table) bool {
	if t.View != vc.state.Load().view {
		return false
	}
	for _, m := range t.Members {
		if m.Cluster.Metadata() != m.Meta {
			return false
		}
	}
	return t.keeper == nil || t.keeper.Current() == t.stubs
}

// build makes a new table if there is need; nil: home was never reached.
func (vc *VirtualCluster) build() *Table {
	vc.mu.Lock()
	defer vc.mu.Unlock()
	before := vc.table.Load()
	if before != nil && vc.current(before) {
		return before
	}
	st := vc.state.Load()
	members := make([]*Member, len(st.members))
	for i := range st.members {
		m := st.members[i]
		m.Meta = m.Cluster.Metadata()
		members[i] = &m
	}
	if members[0].Meta == nil {
		return nil
	}
	spec := st.view.Spec.Stubs
	settings := stub.Settings{ReplicationFactor: spec.ReplicationFactor, KeepFor: time.Duration(spec.KeepFor), Disabled: spec.Disabled}
	// Also for stubs that an earlier process made: they outlive their aliases for a while only.
	if vc.keeper == nil && vc.ctx.Err() == nil && (st.view.needsStubs() || len(members[0].Meta.WithPrefix(st.view.Prefix+stub.Segment)) > 0) {
		vc.keeper = stub.New(stub.Config{Home: vc.Home, VirtualCluster: vc.Name, Prefix: st.view.Prefix, Log: vc.log, Settings: settings})
		vc.wg.Go(vc.follow)
	}
	stubs := noStubs
	if vc.keeper != nil {
		if before == nil || before.View != st.view {
			vc.keeper.Set(settings)
			vc.keeper.Keep(st.view.Aliases())
		}
		stubs = vc.keeper.Current()
	}
	t := newTable(st.view, members, stubs, before)
	t.keeper = vc.keeper
	if vc.keeper != nil {
		vc.keeper.Want(t.wants)
	}
	vc.table.Store(t)
	return t
}

// Fresh is Table over metadata not older than age, of those clusters that answer.
func (vc *VirtualCluster) Fresh(ctx context.Context, age time.Duration) (*Table, error) {
	members := vc.state.Load().members
	var others sync.WaitGroup
	for _, m := range members[1:] {
		if m.Cluster.Stale(age) {
			others.Go(func() { _, _ = m.Cluster.Fresh(ctx, age) })
		}
	}
	_, err := vc.Home.Fresh(ctx, age)
	others.Wait()
	if err != nil {
		return nil, err
	}
	select {
	case <-vc.ready:
		return vc.Table(), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Stubs is how the stub topics are, for operators; false: there are none.
func (vc *VirtualCluster) Stubs() (stub.Status, bool) {
	vc.mu.Lock()
	defer vc.mu.Unlock()
	if vc.keeper == nil {
		return stub.Status{}, false
	}
	return vc.keeper.Status(), true
}
