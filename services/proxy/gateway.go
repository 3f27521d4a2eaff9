package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/admin"
	"tollgate.internal/services/proxy/internal/auth"
	"tollgate.internal/services/proxy/internal/credential"
	"tollgate.internal/services/proxy/internal/listener"
	"tollgate.internal/services/proxy/internal/meter"
	"tollgate.internal/services/proxy/internal/netio"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/session"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// gateway is a running proxy: what it serves, and to whom.
type gateway struct {
	cfg         *Config
	deps        *auth.Deps
	node        *session.Node
	credentials *credential.Keeper
	listener    *listener.Listener
	admin       net.Listener // nil: none
	handler     http.Handler // of admin
	checks      *admin.Checks
	serving     atomic.Pointer[serving]
	started     time.Time

	mu       sync.Mutex // one apply at a time
	clusters map[string]*runningCluster
	ports    map[string]listener.Spec // of Config.PortsOf, by virtual cluster

	sessionsMu sync.Mutex
	sessions   map[*session.Session]struct{}

	problem  atomic.Pointer[error] // why the files were not loaded last time
	refusals *refusal.Notes
	counts   counts
}

// serving is one consistent state of the resources, swapped whole.
type serving struct {
	set      *resource.Set
	names    *listener.Names
	clusters map[string]*view.VirtualCluster
	changes  time.Time // when to compile again without a change of files
}

func newGateway(cfg *Config) (*gateway, error) {
	g := &gateway{
		cfg:         cfg,
		started:     time.Now(),
		deps:        auth.NewDeps(auth.Options{SaltKey: cfg.SaltKey}),
		clusters:    make(map[string]*runningCluster),
		credentials: credential.NewKeeper(cfg.Log),
		sessions:    make(map[*session.Session]struct{}),
		checks:      admin.NewChecks(checkListeners, checkResources, checkUpstream),
		refusals:    refusal.NewNotes(cfg.Log),
		counts:      newCounts(),
	}
	g.node = &session.Node{
		Log: cfg.Log, Meter: meter.New(), Backoff: auth.NewBackoff(time.Now),
		Requests: netio.NewBudget(cfg.RequestMemory), Decoding: netio.NewBudget(cfg.RequestMemory), Answers: netio.NewBudget(cfg.RequestMemory), MaxFrameBytes: cfg.MaxFrameBytes, MaxInFlight: cfg.InFlight, FrameTimeout: cfg.FrameTimeout, WriteStall: cfg.StallTimeout,
		Refusals: g.refusals, Refused: g.counts.requests.Add, Observe: g.counts.durations.observe,
	}
	ids, err := newProducerIDs(cfg)
	if err != nil {
		return nil, err
	}
	g.node.ProducerIDs = ids
	l, err := listener.New(listener.Config{
		Specs: cfg.Listeners, Router: g, Limits: cfg.Limits, Log: cfg.Log, Listen: cfg.Listen,
		Wrap:   func(c net.Conn) net.Conn { return netio.New(c) },
		Handle: g.serve, Refused: g.counts.connections.Add,
	})
	if err != nil {
		return nil, err
	}
	g.listener = l
	if cfg.Usage != nil {
		cfg.Usage(func(yield func(Usage) bool) {
			for k, u := range g.node.Meter.All() {
				if !yield(Usage{
					VirtualCluster: k.VirtualCluster, Principal: k.Principal, Topic: k.Topic, Cluster: k.Cluster, Direction: k.Direction.String(),
					Bytes: u.Bytes, Records: u.Records, Requests: u.Requests,
				}) {
					return
				}
			}
		})
	}
	if cfg.Admin != "" {
		if g.handler, err = g.adminHandler(); err != nil {
			l.Stop()
			return nil, fmt.Errorf("admin listener: %w", err)
		}
		if g.admin, err = net.Listen("tcp", cfg.Admin); err != nil {
			l.Stop()
			return nil, fmt.Errorf("admin listener: %w", err)
		}
	}
	return g, nil
}

// apply puts a set of resources into service, or reports why it cannot and
// changes nothing.
func (g *gateway) apply(set *resource.Set) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	old := g.serving.Load()
	next := &serving{set: set, clusters: make(map[string]*view.VirtualCluster)}
	var errs []error

	reached, err := g.reach(set)
	if err != nil {
		errs = append(errs, err)
	}
	views := make(map[string]*view.View)
	var hosts []listener.Hosts
	for name, vc := range set.VirtualClusters {
		v, err := view.Compile(set, name, now, g.deps)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if old != nil && old.clusters[name] != nil {
			if err := v.Follows(old.clusters[name].View()); err != nil {
				errs = append(errs, vc.Metadata.Problem("spec.slots", "%v", err))
				continue
			}
		}
		views[name] = v
		hosts = append(hosts, listener.Hosts{VirtualCluster: name, Label: vc.Spec.Host, Custom: vc.Spec.CustomHosts})
		if !v.Changes.IsZero() && (next.changes.IsZero() || v.Changes.Before(next.changes)) {
			next.changes = v.Changes
		}
	}
	names, err := listener.NewNames(g.cfg.Domains, hosts)
	if err != nil {
		errs = append(errs, err)
	}
	ports, err := g.openPorts(set)
	if err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		reached.abandon()
		ports.abandon(g)
		slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		return errors.Join(errs...)
	}

	g.look(reached)
	next.names = names
	clusters := make(map[string]*upstream.Cluster)
	for name, c := range reached.clusters {
		clusters[name] = c.cluster
	}
	for name, v := range views {
		if old != nil {
			if vc := old.clusters[name]; vc != nil && vc.Home == clusters[v.Spec.Home] {
				vc.Swap(v, clusters)
				next.clusters[name] = vc
				continue
			}
		}
		vc := view.NewVirtualCluster(v, clusters, g.cfg.Log)
		vc.FeaturesEpoch = g.started.Unix()
		// One tenant gets no more than half of the memory, whatever it sends.
		vc.Requests, vc.Answers = g.node.Requests.Share(g.cfg.RequestMemory/2), g.node.Answers.Share(g.cfg.RequestMemory/2)
		next.clusters[name] = vc
	}
	g.serving.Store(next)
	unused := reached.commit(g)
	ports.commit(g)

	// Sessions end whose virtual cluster is gone or whose login is no longer
	// good; the others do not notice.
	for _, s := range g.allSessions() {
		if vc := s.VirtualCluster(); next.clusters[vc.Name] != vc {
			s.End(errMoved)
			continue
		}
		s.Revalidate()
	}
	if old != nil {
		for name, vc := range old.clusters {
			if next.clusters[name] != vc {
				vc.Close()
			}
		}
	}
	for _, c := range unused {
		c.Close()
	}
	return nil
}

// look has the metadata of every cluster that answers be as new as the resources: an
// alias may come to mean a topic that was made a moment ago.
func (g *gateway) look(r *reached) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for _, c := range r.clusters {
		if c.cluster.State().Reached && c.cluster.Stale(0) {
			wg.Go(func() { _, _ = c.cluster.Fresh(ctx, 0) })
		}
	}
	wg.Wait()
}

// Host, Hosts, ClientCAs, ClientCertificateRequired and ConnectionLimit make the
// gateway the listener's router.
func (g *gateway) Host(name string) (listener.Route, bool) { return g.serving.Load().names.Host(name) }

// Hosts lists the bootstrap host names.
func (g *gateway) Hosts() []string { return g.serving.Load().names.Hosts() }

func (g *gateway) view(vc string) *view.View {
	if c := g.serving.Load().clusters[vc]; c != nil {
		return c.View()
	}
	return nil
}

// ClientCAs are the CAs of a virtual cluster's clients; nil without mTLS.
func (g *gateway) ClientCAs(vc string) *x509.CertPool {
	if v := g.view(vc); v != nil {
		return v.Realm.ClientCAs()
	}
	return nil
}

// ClientCertificateRequired is true where there is no other way to log in.
func (g *gateway) ClientCertificateRequired(vc string) bool {
	v := g.view(vc)
	return v != nil && v.Spec.Authentication.MTLS != nil && len(v.Realm.Mechanisms()) == 0
}

// ConnectionLimit is the virtual cluster's quota of connections; 0: none.
func (g *gateway) ConnectionLimit(vc string) int {
	if v := g.view(vc); v != nil {
		return v.Spec.Quotas.Connections
	}
	return 0
}

// serve is one client connection.
func (g *gateway) serve(ctx context.Context, c *listener.Conn) {
	vc := g.serving.Load().clusters[c.Route.VirtualCluster]
	if vc == nil {
		g.closed(ctx, c, "", refusal.VirtualClusterUnknown.Errorf("virtual cluster %q", c.Route.VirtualCluster))
		return
	}
	t, _ := c.Conn.(*tls.Conn)
	client := &session.Client{
		Net: c.Conn, Sock: c.Raw.(*netio.Conn), TLS: t, SASL: wantsSASL(c, vc.View()),
		Remote: c.Remote, Node: c.Route.Node, Advertise: c.Advertise, Authenticated: c.Authenticated,
	}
	s := session.New(g.node, client, vc)
	g.sessionsMu.Lock()
	g.sessions[s] = struct{}{}
	g.sessionsMu.Unlock()
	// The resources may have changed since the look-up above.
	if now := g.serving.Load().clusters[vc.Name]; now != vc {
		s.End(errMoved)
	}
	err := s.Run(context.WithoutCancel(ctx))
	g.sessionsMu.Lock()
	delete(g.sessions, s)
	g.sessionsMu.Unlock()
	g.closed(ctx, c, s.Principal(), err)
}

var errMoved = refusal.VirtualClusterUnknown.Errorf("it was removed or moved")

// closed counts the end of a session, and logs it unless the client just left.
func (g *gateway) closed(ctx context.Context, c *listener.Conn, principal string, err error) {
	if r := c.Refused(); r != nil {
		g.counts.closed(r)
		return
	}
	g.counts.closed(err)
	if err == nil {
		return
	}
	level := slog.LevelWarn
	if refusal.Of(err).Routine {
		level = slog.LevelDebug
	}
	vc := c.Route.VirtualCluster
	g.refusals.Write(ctx, level, "session ended", vc, err,
		"listener", c.Spec.Name, "virtual_cluster", vc, "principal", principal, "remote", c.Remote.String())
}

// wantsSASL says whether a client logs in by SASL: as the listener's protocol
// says, and where it leaves that open, unless the client showed a certificate or
// may stay anonymous.
func wantsSASL(c *listener.Conn, v *view.View) bool {
	switch c.Spec.Protocol {
	case listener.SASLSSL, listener.SASLPlaintext:
		return true
	case listener.SSL, listener.Plaintext:
		return false
	}
	if c.TLS != nil && len(c.TLS.PeerCertificates) > 0 {
		return false
	}
	_, anonymous := v.Realm.Anonymous()
	return !anonymous
}

func (g *gateway) allSessions() []*session.Session {
	g.sessionsMu.Lock()
	defer g.sessionsMu.Unlock()
	all := make([]*session.Session, 0, len(g.sessions))
	for s := range g.sessions {
		all = append(all, s)
	}
	return all
}

// run serves until ctx ends, then drains. loaded is the signature of the resource
// files that were applied.
func (g *gateway) run(ctx context.Context, loaded uint64) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	serveCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	served := make(chan error, 1)
	wg.Go(func() { served <- g.listener.Serve(serveCtx) })
	watchCtx, endWatch := context.WithCancel(ctx)
	defer endWatch()
	wg.Go(func() { g.watch(watchCtx, loaded) })
	if g.node.ProducerIDs != nil {
		wg.Go(func() { g.node.ProducerIDs.Run(serveCtx) })
	}
	if g.admin != nil {
		wg.Go(func() {
			if err := admin.Serve(serveCtx, g.admin, g.handler, g.cfg.Log); err != nil {
				g.cfg.Log.Error("admin listener ended", "err", err)
			}
		})
	}
	g.checks.Set(checkListeners, nil)
	addresses := g.addresses()
	args := make([]any, 0, 2*len(addresses))
	for _, name := range slices.Sorted(maps.Keys(addresses)) {
		args = append(args, name, addresses[name])
	}
	g.cfg.Log.Info("serving", slog.Group("addresses", args...))
	if g.cfg.Ready != nil {
		g.cfg.Ready(addresses)
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	g.cfg.Log.Info("draining")
	g.checks.Set(checkListeners, errors.New("draining"))
	g.listener.Stop()
	for _, s := range g.allSessions() {
		s.Drain()
	}
	limit := time.NewTimer(g.cfg.DrainTimeout)
	defer limit.Stop()
	select {
	case err := <-served:
		return err
	case <-limit.C:
		for _, s := range g.allSessions() {
			s.End(refusal.Draining.Errorf("the time for draining is over"))
		}
	}
	stop()
	return <-served
}

// watch follows the resource files, the ends of grants, and the brokers that port
// listeners must have sockets for.
func (g *gateway) watch(ctx context.Context, seen uint64) {
	tick := time.NewTicker(g.cfg.ReloadEvery)
	defer tick.Stop()
	for {
		g.setBrokers()
		g.check()
		select {
		case <-ctx.Done():
			return
		case at := <-tick.C:
			for _, s := range g.allSessions() {
				s.Sweep(at)
			}
		}
		g.reread()
		now := signature(g.cfg.Resources)
		current := g.serving.Load()
		due := !current.changes.IsZero() && time.Now().After(current.changes)
		if now == seen && !due {
			continue
		}
		set := current.set
		if now != seen {
			seen = now
			var err error
			if set, err = resource.LoadDir(g.cfg.Resources); err != nil {
				g.refused(err)
				continue
			}
		}
		if err := g.apply(set); err != nil {
			g.refused(err)
			continue
		}
		g.problem.Store(nil)
		g.cfg.Log.Info("resources applied", "virtual_clusters", len(set.VirtualClusters))
		if g.cfg.Applied != nil {
			g.cfg.Applied(set)
		}
	}
}

// refused keeps the old resources and says why.
func (g *gateway) refused(err error) {
	g.problem.Store(&err)
	g.counts.reloads.Add(1)
	g.cfg.Log.Error("resources not applied, the previous ones stay in service", "err", err)
}

// addresses are those of the listeners, by name.
func (g *gateway) addresses() map[string]string {
	addresses := make(map[string]string)
	for _, spec := range append(slices.Clone(g.cfg.Listeners), g.portListeners()...) {
		if a := g.listener.Addr(spec.Name); a != nil {
			addresses[spec.Name] = a.String()
		}
	}
	if g.admin != nil {
		addresses[AdminAddress] = g.admin.Addr().String()
	}
	return addresses
}

func (g *gateway) setBrokers() {
	for _, spec := range g.portListeners() {
		vc := g.serving.Load().clusters[spec.VirtualCluster]
		if vc == nil {
			continue
		}
		t := vc.Table()
		if t == nil {
			continue
		}
		var nodes []int32
		for _, b := range t.Brokers {
			nodes = append(nodes, b.Node)
		}
		if err := g.listener.SetBrokers(spec.VirtualCluster, nodes); err != nil {
			g.refusals.Write(context.Background(), slog.LevelWarn, "brokers not served", spec.Name, refusal.BrokerWithoutPort.With(err), "listener", spec.Name, "virtual_cluster", spec.VirtualCluster)
		}
	}
}

// signature changes when any file below dir does. Links are followed, as LoadDir
// follows them; a link back into itself ends at the depth no real tree has.
func signature(dir string) uint64 {
	h := fnv.New64a()
	var walk func(path string, depth int)
	walk = func(path string, depth int) {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			h.Write([]byte(err.Error()))
		case !info.IsDir():
			h.Write([]byte(path + "\x00" + strconv.FormatInt(info.ModTime().UnixNano(), 10) + "\x00" + strconv.FormatInt(info.Size(), 10) + "\x00"))
		case depth < 16:
			entries, err := os.ReadDir(path)
			if err != nil {
				h.Write([]byte(err.Error()))
			}
			for _, e := range entries {
				walk(filepath.Join(path, e.Name()), depth+1)
			}
		}
	}
	walk(dir, 0)
	return h.Sum64()
}

// close ends what is left when nothing is served, or nothing ever was.
func (g *gateway) close() {
	g.listener.Stop()
	if g.admin != nil {
		g.admin.Close()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.serving.Load(); s != nil {
		for _, vc := range s.clusters {
			vc.Close()
		}
	}
	for _, c := range g.clusters {
		c.cluster.Close()
		c.credential.Close()
	}
	g.credentials.Close()
}
