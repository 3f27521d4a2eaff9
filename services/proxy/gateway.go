package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tollgate.internal/pkg/credential"
	"tollgate.internal/pkg/nodeapi"
	"tollgate.internal/services/proxy/internal/admin"
	"tollgate.internal/services/proxy/internal/auth"
	"tollgate.internal/services/proxy/internal/fleet"
	"tollgate.internal/services/proxy/internal/listener"
	"tollgate.internal/services/proxy/internal/meter"
	"tollgate.internal/services/proxy/internal/netio"
	"tollgate.internal/services/proxy/internal/quota"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/session"
	"tollgate.internal/services/proxy/internal/view"
)

// gateway is a running proxy: what it serves, and to whom.
//
// Locks are taken in this order: common.changing, changing, common, reaching, mu, served.mu. Nobody waits for
// the network or the source while he holds mu or reaching.
type gateway struct {
	cfg         *Config
	deps        *auth.Deps
	node        *session.Node
	credentials *credential.Keeper
	listener    *listener.Listener
	names       *listener.Names
	finder      *finder      // nil: everything there is is loaded
	redis       *fleet.Redis // nil: it serves files
	admin       net.Listener // nil: none
	handler     http.Handler // of admin
	checks      *admin.Checks
	leaving     *leaving
	balancer    *balancer // nil: external balancing
	started     time.Time

	life       context.Context // ends with close
	end        context.CancelFunc
	background sync.WaitGroup

	common   common     // policies of all virtual clusters
	changing locks      // one change at a time of each virtual cluster, by name
	reaching sync.Mutex // one change at a time of the upstream clusters
	asking   sync.Mutex // of Config.PortsOf

	mu                sync.RWMutex
	served            map[string]*served         // by virtual cluster
	revisions         map[string]applied         // of every virtual cluster there ever was
	clusters          map[string]*runningCluster // upstream, by name
	upstreamRevisions map[string]applied
	ports             map[string]listener.Spec // of Config.PortsOf, by virtual cluster
	ended             bool                     // nothing new is served

	quotas   *sharedQuotas         // nil: they are the node's own
	files    *files                // nil: it serves what the control plane says
	problem  atomic.Pointer[error] // why the files were not loaded last time
	refusals *refusal.Notes
	counts   counts
}

// apiTimeout is for one request to the portal, which waits for the other nodes too.
const apiTimeout = 30 * time.Second

func newGateway(cfg *Config) (*gateway, error) {
	g := &gateway{
		cfg:         cfg,
		started:     time.Now(),
		deps:        auth.NewDeps(auth.Options{SaltKey: cfg.SaltKey}),
		credentials: credential.NewKeeper(cfg.Log),
		served:      make(map[string]*served), revisions: make(map[string]applied),
		clusters: make(map[string]*runningCluster), upstreamRevisions: make(map[string]applied),
		ports:    make(map[string]listener.Spec),
		checks:   admin.NewChecks(checkListeners, checkResources, checkUpstream),
		refusals: refusal.NewNotes(cfg.Log),
		counts:   newCounts(),
		leaving:  newLeaving(),
	}
	g.node = &session.Node{
		Log: cfg.Log, Meter: meter.New(), Backoff: auth.NewBackoff(time.Now),
		Requests: netio.NewBudget(cfg.RequestMemory), Decoding: netio.NewBudget(cfg.RequestMemory), Answers: netio.NewBudget(cfg.RequestMemory), MaxFrameBytes: cfg.MaxFrameBytes, MaxInFlight: cfg.InFlight, FrameTimeout: cfg.FrameTimeout, WriteStall: cfg.StallTimeout,
		Refusals: g.refusals, Refused: g.counts.requests.Add, Observe: g.counts.durations.observe,
	}
	var err error
	if g.names, err = listener.NewNames(cfg.allDomains(), nil); err != nil {
		return nil, err
	}
	g.life, g.end = context.WithCancel(context.Background())
	ids, err := newProducerIDs(cfg)
	if err != nil {
		return nil, err
	}
	g.node.ProducerIDs = ids
	if c := cfg.Control; c != nil && c.API != "" {
		g.node.ACLs = &nodeapi.Client{URL: c.API, Token: c.APIToken, HTTP: &http.Client{Timeout: apiTimeout}}
	}
	if g.quotas, err = newSharedQuotas(cfg); err != nil {
		return nil, err
	}
	if g.quotas != nil {
		g.node.Creating = g.quotas.turns.Take
	}
	l, err := listener.New(listener.Config{
		Specs: cfg.Listeners, Router: g, Limits: cfg.Limits, Log: cfg.Log, Listen: cfg.Listen,
		Wrap:   func(c net.Conn) net.Conn { return netio.New(c) },
		Handle: g.serve, Refused: g.counts.connections.Add,
	})
	if err != nil {
		return nil, err
	}
	g.listener = l
	if err := g.join(); err != nil {
		l.Stop()
		return nil, err
	}
	if cfg.Fleet.Balancing == Internal {
		g.balancer = newBalancer(cfg, g.redis)
	}
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
			g.abandon()
			return nil, fmt.Errorf("admin listener: %w", err)
		}
		if g.admin, err = net.Listen("tcp", cfg.Admin); err != nil {
			g.abandon()
			return nil, fmt.Errorf("admin listener: %w", err)
		}
	}
	return g, nil
}

// Host, Hosts, ClientCAs, ClientCertificateRequired and Quotas make the
// gateway the listener's router.
func (g *gateway) Host(ctx context.Context, name string) (r listener.Route, ok bool, err error) {
	if r, ok = g.names.Host(name); ok || g.finder == nil {
		return r, ok, nil
	}
	if err := g.finder.find(ctx, name); err != nil {
		return r, false, err
	}
	r, ok = g.names.Host(name)
	return r, ok, nil
}

// Hosts are some of the bootstrap host names that are loaded.
func (g *gateway) Hosts(most int) (some []string, all int) { return g.names.Hosts(most) }

func (g *gateway) view(vc string) *view.View {
	if sv := g.find(vc); sv != nil {
		return sv.vc.View()
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

// Quotas bound a virtual cluster's connections.
func (g *gateway) Quotas(vc string) *quota.Quotas {
	if sv := g.find(vc); sv != nil {
		return sv.vc.Quotas
	}
	return nil
}

// serve is one client connection.
func (g *gateway) serve(ctx context.Context, c *listener.Conn) {
	sv := g.find(c.Route.VirtualCluster)
	if sv == nil {
		g.closed(ctx, c, "", refusal.VirtualClusterUnknown.Errorf("virtual cluster %q", c.Route.VirtualCluster))
		return
	}
	t, _ := c.Conn.(*tls.Conn)
	client := &session.Client{
		Net: c.Conn, Sock: c.Raw.(*netio.Conn), TLS: t, SASL: wantsSASL(c, sv.vc.View()),
		Remote: c.Remote, Node: c.Route.Node, Advertise: g.advertise(c, sv.vc), Authenticated: c.Authenticated,
	}
	s := session.New(g.node, client, sv.vc)
	if !sv.enter(s) { // changed since the look-up above
		s.End(errMoved)
	}
	g.leaving.enters(s)
	err := s.Run(context.WithoutCancel(ctx))
	sv.leave(s)
	g.leaving.leaves()
	g.closed(ctx, c, s.Principal(), err)
}

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

// run serves until ctx ends, then drains.
func (g *gateway) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	serveCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	if g.node.ProducerIDs != nil {
		wg.Go(func() { g.node.ProducerIDs.Run(serveCtx) })
	}
	if g.quotas != nil {
		wg.Go(func() { g.quotas.run(serveCtx) })
	}
	if g.admin != nil {
		wg.Go(func() {
			if err := admin.Serve(serveCtx, g.admin, g.handler, g.cfg.Log); err != nil {
				g.cfg.Log.Error("admin listener ended", "err", err)
			}
		})
	}
	if g.cfg.source != nil {
		if err := g.control(ctx, serveCtx, &wg); err != nil {
			if ctx.Err() != nil {
				err = nil // it was ended before it began
			}
			return err
		}
	}
	served := make(chan error, 1)
	wg.Go(func() { served <- g.listener.Serve(serveCtx) })
	wg.Go(func() { g.watch(serveCtx) })
	wg.Go(func() { g.steer(serveCtx) })
	wg.Go(func() { g.measure(serveCtx) })
	if g.redis != nil {
		wg.Go(func() { g.redis.Join(serveCtx, g) })
	}
	if g.balancer != nil {
		wg.Go(func() { g.followMembers(serveCtx) })
	}
	g.checks.Set(checkListeners, nil)
	addresses := g.addresses()
	args := make([]any, 0, 2*len(addresses))
	for _, name := range slices.Sorted(maps.Keys(addresses)) {
		args = append(args, name, addresses[name])
	}
	g.cfg.Log.Info("serving", slog.Group("addresses", args...))
	if g.cfg.self != nil {
		g.cfg.self(g)
	}
	if g.cfg.Ready != nil {
		g.cfg.Ready(addresses)
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	g.leaving.want(true, true, g.cfg.DrainSpread)
	if ended, err := g.drained(served); ended {
		return err
	}
	// Nobody is left but those who shake hands.
	g.listener.Stop()
	limit := time.NewTimer(handshakesEnd)
	defer limit.Stop()
	select {
	case err := <-served:
		return err
	case <-limit.C:
	}
	stop()
	return <-served
}

// handshakesEnd is what handshakes get that are under way when the node ends.
const handshakesEnd = 2 * time.Second

// watch looks now and then at what nobody tells of: files, sessions that stall, the
// brokers that port listeners must have sockets for, and what is no longer used.
func (g *gateway) watch(ctx context.Context) {
	tick := time.NewTicker(g.cfg.ReloadEvery)
	defer tick.Stop()
	swept := time.Now()
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
		if g.files != nil {
			g.files.follow(g)
			continue
		}
		g.loadPinned()
		if !g.cfg.Control.Preload && time.Since(swept) >= min(time.Minute, g.cfg.Control.UnloadAfter) {
			swept = time.Now()
			g.unload()
		}
	}
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
		sv := g.find(spec.VirtualCluster)
		if sv == nil {
			continue
		}
		t := sv.vc.Table()
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

// abandon gives up what newGateway opened.
func (g *gateway) abandon() {
	g.listener.Stop()
	g.end()
	if g.redis != nil {
		g.redis.Close()
	}
}

// close ends what is left when nothing is served, or nothing ever was.
func (g *gateway) close() {
	g.listener.Stop()
	if g.admin != nil {
		g.admin.Close()
	}
	g.mu.Lock()
	g.ended = true
	g.mu.Unlock()
	g.end()
	g.background.Wait()
	for name := range g.loaded() {
		unlock := g.changing.lock(name)
		g.drop(name, errMoved)
		unlock()
	}
	for _, name := range g.upstreams() {
		g.forgetUpstream(name)
	}
	g.credentials.Close()
	if g.redis != nil {
		g.redis.Close()
	}
}
