package proxy

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/fleet"
	"tollgate.internal/services/proxy/internal/listener"
	"tollgate.internal/services/proxy/internal/policy"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/session"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// served is one virtual cluster in service. What a change of it costs depends on its own
// size and sessions, and on nothing of the others'.
type served struct {
	vc *view.VirtualCluster

	// Guarded by gateway.changing of its name.
	set      *resource.Set // what its view is compiled from
	clusters []*runningCluster
	renewal  *time.Timer // when a grant ends; nil: none does

	mu       sync.Mutex
	sessions map[*session.Session]struct{}
	over     bool      // nobody comes in any more
	idle     time.Time // since when nobody is in
}

// enter counts a session, unless it is too late for that.
func (sv *served) enter(s *session.Session) bool {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if !sv.over {
		sv.sessions[s] = struct{}{}
	}
	return !sv.over
}

func (sv *served) leave(s *session.Session) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if delete(sv.sessions, s); len(sv.sessions) == 0 {
		sv.idle = time.Now()
	}
}

// all are its sessions.
func (sv *served) all() []*session.Session {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	all := make([]*session.Session, 0, len(sv.sessions))
	for s := range sv.sessions {
		all = append(all, s)
	}
	return all
}

// end lets nobody in any more, and ends those who are.
func (sv *served) end(reason error) {
	sv.mu.Lock()
	sv.over = true
	sv.mu.Unlock()
	for _, s := range sv.all() {
		s.End(reason)
	}
}

// endIdle is end if nobody has been in for that long.
func (sv *served) endIdle(d time.Duration) bool {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	sv.over = sv.over || len(sv.sessions) == 0 && time.Since(sv.idle) >= d
	return sv.over
}

// byName are the upstream clusters in use.
func (sv *served) byName() map[string]*upstream.Cluster { return clustersOf(sv.clusters) }

func clustersOf(clusters []*runningCluster) map[string]*upstream.Cluster {
	m := make(map[string]*upstream.Cluster, len(clusters))
	for _, c := range clusters {
		m[c.cluster.Name()] = c.cluster
	}
	return m
}

var errMoved = refusal.VirtualClusterUnknown.Errorf("it was removed or moved")

// applied is the last that was done about a document.
type applied struct {
	revision int64
	removed  bool
}

// follows says whether a revision is to be applied: it is not when it is the one that
// was, and it must not be when it is an older one.
func (a applied) follows(revision int64, removed, loaded bool) (bool, error) {
	switch {
	case revision < a.revision:
		return false, fmt.Errorf("revision %d after %d: %w", revision, a.revision, fleet.ErrOlder)
	case revision > a.revision:
		return true, nil
	case a.removed != removed:
		return false, fmt.Errorf("revision %d is known as another change: %w", revision, fleet.ErrOlder)
	}
	return loaded == removed, nil
}

// change is a virtual cluster as it is to be served next.
type change struct {
	set      *resource.Set
	view     *view.View
	hosts    listener.Hosts
	port     portChange
	revision int64
}

// prepare finds out whether a virtual cluster can be served like this. Nothing is
// changed, but that a listener of its own may be open.
func (g *gateway) prepare(set *resource.Set, name string, common *policy.Common, revision int64) (*change, error) {
	v, err := view.Compile(set, name, time.Now(), g.deps, common)
	if err != nil {
		return nil, err
	}
	vc := set.VirtualClusters[name]
	if !slices.Contains(vc.Spec.Clusters, vc.Spec.Home) {
		return nil, vc.Metadata.Problem("spec.clusters", "home %q is not among %q", vc.Spec.Home, vc.Spec.Clusters)
	}
	if old := g.find(name); old != nil {
		if err := v.Follows(old.vc.View()); err != nil {
			return nil, vc.Metadata.Problem("spec.slots", "%v", err)
		}
	}
	c := &change{
		set: set, view: v, revision: revision,
		hosts: listener.Hosts{VirtualCluster: name, Label: vc.Spec.Host, Custom: vc.Spec.CustomHosts, Revision: revision},
	}
	c.port, err = g.openPort(vc)
	return c, err
}

// commit puts a change into service. Sessions end whose login is no longer good, and all
// of them if the virtual cluster has another home; no other connection notices. Its
// names are not changed.
func (g *gateway) commit(c *change) {
	name := c.view.Name
	clusters := g.use(c.view.Spec.Clusters)
	byName := clustersOf(clusters)
	for _, m := range c.view.Missing(byName) {
		m.MarkStale()
	}
	old := g.find(name)
	sv := old
	var unused []*runningCluster
	if old != nil && old.vc.Home == byName[c.view.Spec.Home] {
		old.vc.Swap(c.view, byName)
		unused = old.clusters
		old.set, old.clusters = c.set, clusters
	} else {
		sv = &served{set: c.set, clusters: clusters, sessions: make(map[*session.Session]struct{}), idle: time.Now()}
		sv.vc = view.NewVirtualCluster(c.view, byName, g.fleet(), g.cfg.Log)
		sv.vc.FeaturesEpoch = time.Now().Unix()
		// One tenant gets no more than half of the memory, whatever it sends.
		sv.vc.Requests, sv.vc.Answers = g.node.Requests.Share(g.cfg.RequestMemory/2), g.node.Answers.Share(g.cfg.RequestMemory/2)
	}
	g.mu.Lock()
	g.served[name] = sv
	g.revisions[name] = applied{revision: c.revision}
	g.mu.Unlock()
	c.port.commit(g)
	if sv != old && old != nil {
		g.finish(old, errMoved)
	}
	for _, s := range sv.all() {
		s.Revalidate()
	}
	g.unuse(unused)
	g.renewLater(name, sv)
}

// finish ends what is no longer served.
func (g *gateway) finish(sv *served, reason error) {
	sv.end(reason)
	if sv.renewal != nil {
		sv.renewal.Stop()
	}
	sv.vc.Close()
	g.unuse(sv.clusters)
}

// longestRenewal bounds how far a timer and the clock on the wall come apart.
const longestRenewal = time.Hour

// renewLater has the view made anew when a grant ends.
func (g *gateway) renewLater(name string, sv *served) {
	if sv.renewal != nil {
		sv.renewal.Stop()
		sv.renewal = nil
	}
	at := sv.vc.View().Changes
	if at.IsZero() {
		return
	}
	sv.renewal = time.AfterFunc(min(time.Until(at), longestRenewal), func() {
		defer g.changing.lock(name)()
		if g.find(name) != sv {
			return
		}
		if now := time.Now(); !now.Before(at) {
			sv.vc.Swap(sv.vc.View().At(sv.set, now), sv.byName())
			g.cfg.Log.Info("grant ended", "virtual_cluster", name)
		}
		g.renewLater(name, sv)
	})
}

// Put, Remove, PutPolicies, PutUpstream, RemoveUpstream, Loaded and Announced make the gateway the
// applier of a fleet's source.
var _ fleet.Applier = (*gateway)(nil)

// Put serves a virtual cluster.
func (g *gateway) Put(name string, set *resource.Set, revision int64) error {
	defer g.changing.lock(name)()
	// Between what it is compiled with and its being served, they do not change.
	g.common.RLock()
	defer g.common.RUnlock()
	if !g.common.known {
		return errNoPolicies
	}
	g.mu.RLock()
	due, err := g.revisions[name].follows(revision, false, g.served[name] != nil)
	ended := g.ended
	g.mu.RUnlock()
	switch {
	case ended:
		return errEnded
	case err != nil || !due:
		return err
	}
	c, err := g.prepare(set, name, g.common.policies, revision)
	if err == nil {
		err = g.names.Check(c.hosts)
	}
	if err != nil {
		if c != nil {
			c.port.abandon(g)
		}
		return g.narrow(set, name, err)
	}
	g.commit(c)
	if kept := g.names.Put(c.hosts); len(kept) > 0 {
		g.cfg.Log.Warn("hosts are those of another virtual cluster by now", "virtual_cluster", name, "hosts", kept)
	}
	return nil
}

// narrow puts those parts of a change into service that can be, when the whole cannot:
// rights are never older than the newest that the node was told. What they are to be
// (tenant, accounts, secrets, authentication, grants, ACLs, policies, limits) is taken from the
// change, without what of it cannot be made out; where things are (clusters, slots, a
// listener by port) stays as it was, and hosts are those that were and still are. The
// revision stays the one of before, so that the change is tried again. The error is
// problem. The lock of the name is held, and common.
func (g *gateway) narrow(set *resource.Set, name string, problem error) error {
	old := g.find(name)
	if old == nil || set.VirtualClusters[name] == nil {
		return problem // nobody is let in
	}
	vc := *set.VirtualClusters[name]
	was := old.vc.View().Spec
	vc.Spec.Home, vc.Spec.Clusters, vc.Spec.Slots, vc.Spec.Transactions, vc.Spec.Stubs = was.Home, was.Clusters, was.Slots, was.Transactions, was.Stubs
	if vc.Spec.Host != was.Host {
		vc.Spec.Host = ""
	}
	vc.Spec.CustomHosts = slices.DeleteFunc(slices.Clone(vc.Spec.CustomHosts), func(host string) bool { return !slices.Contains(was.CustomHosts, host) })
	own := resource.NewSet(&vc)
	own.Tenants, own.TopicGrants = set.Tenants, set.TopicGrants
	own.AliasTopics, own.ServiceAccounts, own.ACLs = set.OfVirtualCluster(name)
	own.Policies = set.PoliciesOf(name)
	g.mu.RLock()
	revision := g.revisions[name].revision
	g.mu.RUnlock()
	v, err := view.Narrow(own, name, time.Now(), g.deps, g.common.policies, old.vc.View())
	if err != nil { // that there is no such virtual cluster, which there is
		g.drop(name, errMoved)
		return errors.Join(problem, err)
	}
	c := &change{
		set: own, view: v, revision: revision,
		hosts: listener.Hosts{VirtualCluster: name, Label: vc.Spec.Host, Custom: vc.Spec.CustomHosts, Revision: revision},
		port:  portChange{vc: name},
	}
	c.port.spec, c.port.wanted = g.port(name)
	g.commit(c)
	g.names.Put(c.hosts)
	return fmt.Errorf("%w: %w", fleet.ErrNarrowed, problem)
}

var errEnded = errors.New("the gateway has ended")

// Remove ends a virtual cluster.
func (g *gateway) Remove(name string, revision int64) error {
	defer g.changing.lock(name)()
	g.mu.RLock()
	due, err := g.revisions[name].follows(revision, true, g.served[name] != nil)
	g.mu.RUnlock()
	if err != nil || !due {
		return err
	}
	g.mu.Lock()
	g.revisions[name] = applied{revision: revision, removed: true}
	g.mu.Unlock()
	g.drop(name, errMoved)
	return nil
}

// drop ends a virtual cluster, if there is one of that name. The lock of its name is
// held.
func (g *gateway) drop(name string, reason error) {
	g.names.Remove(name)
	g.mu.Lock()
	sv := g.served[name]
	delete(g.served, name)
	g.mu.Unlock()
	if sv == nil {
		return
	}
	g.closePort(name)
	g.finish(sv, reason)
	g.listener.Forget(name)
}

// unload drops virtual clusters that had no session for long, but for those that have a
// listener of their own: nobody else could bring them back.
func (g *gateway) unload() {
	g.mu.RLock()
	var idle []string
	for name, sv := range g.served {
		sv.mu.Lock()
		if len(sv.sessions) == 0 && time.Since(sv.idle) >= g.cfg.Control.UnloadAfter && !g.hasPort(name) {
			idle = append(idle, name)
		}
		sv.mu.Unlock()
	}
	g.mu.RUnlock()
	for _, name := range idle {
		unlock := g.changing.lock(name)
		if sv := g.find(name); sv != nil && sv.endIdle(g.cfg.Control.UnloadAfter) {
			g.drop(name, errMoved)
			g.cfg.Log.Debug("virtual cluster unloaded", "virtual_cluster", name)
		}
		unlock()
	}
}

// Loaded are the revisions of what is served.
func (g *gateway) Loaded() (virtualClusters, upstreams map[string]int64) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	virtualClusters, upstreams = make(map[string]int64, len(g.served)), make(map[string]int64, len(g.clusters))
	for name := range g.served {
		virtualClusters[name] = g.revisions[name].revision
	}
	for name, c := range g.clusters {
		if c.resource != nil {
			upstreams[name] = g.upstreamRevisions[name].revision
		}
	}
	return virtualClusters, upstreams
}

// Revision is that of what is served, whatever else is.
func (g *gateway) Revision(id bundle.ID) (revision int64, served bool) {
	if id == bundle.Everywhere {
		g.common.RLock()
		defer g.common.RUnlock()
		return g.common.revision.revision, g.common.known
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	if id.Kind == bundle.UpstreamCluster {
		c := g.clusters[id.Name]
		return g.upstreamRevisions[id.Name].revision, c != nil && c.resource != nil
	}
	return g.revisions[id.Name].revision, g.served[id.Name] != nil
}

// Announced has names asked for again that were unknown a moment ago.
func (g *gateway) Announced() {
	if g.finder != nil {
		g.finder.forget()
	}
}

// find is a virtual cluster that is served, or nil.
func (g *gateway) find(name string) *served {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.served[name]
}

// loaded are all virtual clusters that are served, by name.
func (g *gateway) loaded() map[string]*view.VirtualCluster {
	g.mu.RLock()
	defer g.mu.RUnlock()
	all := make(map[string]*view.VirtualCluster, len(g.served))
	for name, sv := range g.served {
		all[name] = sv.vc
	}
	return all
}

// allSessions are those of every virtual cluster.
func (g *gateway) allSessions() (all []*session.Session) {
	g.mu.RLock()
	servings := make([]*served, 0, len(g.served))
	for _, sv := range g.served {
		servings = append(servings, sv)
	}
	g.mu.RUnlock()
	for _, sv := range servings {
		all = append(all, sv.all()...)
	}
	return all
}

// locks are one lock for each name that somebody holds or waits for.
type locks struct {
	mu   sync.Mutex
	held map[string]*heldLock
}

type heldLock struct {
	sync.Mutex
	users int
}

// lock waits for the lock of a name, and returns what unlocks it.
func (l *locks) lock(name string) (unlock func()) {
	l.mu.Lock()
	if l.held == nil {
		l.held = make(map[string]*heldLock)
	}
	h := l.held[name]
	if h == nil {
		h = new(heldLock)
		l.held[name] = h
	}
	h.users++
	l.mu.Unlock()
	h.Lock()
	return func() {
		h.Unlock()
		l.mu.Lock()
		if h.users--; h.users == 0 {
			delete(l.held, name)
		}
		l.mu.Unlock()
	}
}
