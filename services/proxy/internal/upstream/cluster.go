// Package upstream speaks to physical clusters: it leases broker connections,
// delivers answers, and keeps each cluster's metadata and versions.
//
// Connections are leased, not owned: a client that has requests in flight holds
// one, an idle client holds none (DESIGN.md §6). What was not sent fails with an
// [UnavailableError] and may be tried again; what was sent and not answered fails
// with [ErrLost].
package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
)

// Config says how to reach a cluster. Zero values get the defaults beside them.
type Config struct {
	Name      string
	Bootstrap []string
	TLS       *tls.Config    // nil: plaintext
	SASL      sasl.Mechanism // nil: none
	Log       *slog.Logger
	Dial      func(ctx context.Context, network, addr string) (net.Conn, error) // net.Dialer

	DialTimeout     time.Duration // to a usable connection, login included; 5 s
	ConcurrentDials int           // per broker; 8
	DialsPerSecond  int           // per broker; 50
	DialBurst       int           // per broker, after a quiet time; 20
	LeaseTimeout    time.Duration // waiting for a connection of a class; 10 s
	RequestTimeout  time.Duration // a short call; 30 s
	IdleTimeout     time.Duration // of pooled connections; 60 s
	Warm            int           // idle connections kept per broker; 2
	Limits          [classes]int  // connections per broker and class; 256, 4096, 16384, 1024, 1024
	MetadataAge     time.Duration // background refresh; 5 s
	LeaderlessAfter time.Duration // of a suspect cluster: its partitions are shown without leaders; 3 s
}

func (c *Config) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.DialTimeout, 5*time.Second)
	set(&c.LeaseTimeout, 10*time.Second)
	set(&c.RequestTimeout, 30*time.Second)
	set(&c.IdleTimeout, time.Minute)
	set(&c.MetadataAge, 5*time.Second)
	set(&c.LeaderlessAfter, 3*time.Second)
	if c.ConcurrentDials == 0 {
		c.ConcurrentDials = 8
	}
	if c.DialsPerSecond == 0 {
		c.DialsPerSecond = 50
	}
	if c.DialBurst == 0 {
		c.DialBurst = 20
	}
	if c.Warm == 0 {
		c.Warm = 2
	}
	for class, n := range [classes]int{256, 4096, 16384, 1024, 1024} {
		if c.Limits[class] == 0 {
			c.Limits[class] = n
		}
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Cluster is one physical cluster.
type Cluster struct {
	cfg       Config
	log       *slog.Logger
	formatter *kmsg.RequestFormatter
	ctx       context.Context // ends with Close; bounds background work only
	cancel    context.CancelFunc
	wg        sync.WaitGroup

	correlation atomic.Int32
	current     atomic.Pointer[snapshot]
	state       atomic.Pointer[State]
	stale       atomic.Bool
	learning    atomic.Bool
	kick        chan struct{} // the keeper is to refresh now
	controller  atomic.Int32
	answered    atomic.Int32 // the broker whose metadata came last
	versions    atomic.Pointer[Versions]

	access   atomic.Pointer[access]
	logins   logins
	dials    atomic.Uint64
	renewals atomic.Uint64

	mu      sync.Mutex
	brokers map[int32]*Broker
	seeds   []*Broker // bootstrap addresses, ids from -1 down
	lastID  int32     // of the seeds there have been
	retired []*Broker // of an earlier configuration, or of another cluster; some may be leased still
	refresh *refresh
	rebase  bool // the bootstrap addresses are all new: ask there first

	// Writers of current and state.
	told    sync.Mutex
	changed chan struct{} // closed with the next change of either
}

// access is how new connections prove who they are and whom they reach.
type access struct {
	tls  *tls.Config
	sasl sasl.Mechanism
}

type refresh struct {
	done   chan struct{}
	err    error
	silent chan struct{} // closed when it has taken so long that nobody waits for it
	cancel context.CancelCauseFunc
}

// New starts keeping a cluster. Close it.
func New(cfg Config) *Cluster {
	cfg.defaults()
	ctx, cancel := context.WithCancel(context.Background())
	c := &Cluster{
		cfg: cfg, log: cfg.Log, ctx: ctx, cancel: cancel,
		formatter: kmsg.NewRequestFormatter(kmsg.FormatterClientID(OwnClientID)),
		brokers:   make(map[int32]*Broker),
		kick:      make(chan struct{}, 1), changed: make(chan struct{}),
	}
	c.state.Store(&State{Since: time.Now()})
	c.Reconfigure(cfg.Bootstrap, cfg.TLS, cfg.SASL)
	c.wg.Go(c.keep)
	c.wg.Go(c.sweep)
	return c
}

// Reconfigure changes how the cluster is reached from now on. The connections that
// there are stay, and who uses them notices nothing. Addresses that are all new are
// believed before the brokers that are known: they may lead to another cluster.
func (c *Cluster) Reconfigure(bootstrap []string, t *tls.Config, mech sasl.Mechanism) {
	c.access.Store(&access{t, mech})
	c.mu.Lock()
	var seeds []*Broker
	kept := false
	for _, addr := range bootstrap {
		if i := slices.IndexFunc(c.seeds, func(b *Broker) bool { return b.addr == addr }); i >= 0 {
			seeds = append(seeds, c.seeds[i])
			c.seeds = slices.Delete(c.seeds, i, i+1)
			kept = true
			continue
		}
		c.lastID--
		seeds = append(seeds, newBroker(c, c.lastID, addr))
	}
	gone := c.seeds
	c.retired = append(c.retired, gone...)
	c.seeds, c.rebase = seeds, c.rebase || !kept
	if c.refresh != nil {
		c.refresh.cancel(errReconfigured) // it may be waiting for what is no more
	}
	c.mu.Unlock()
	for _, b := range gone {
		b.retire()
	}
	c.forgive()
	c.untried()
	c.markStale()
	c.refreshSoon()
}

// forgive lets everything be tried at once that had failed.
func (c *Cluster) forgive() {
	c.forgiveLogins()
	for _, b := range c.allBrokers() {
		b.forgive()
	}
}

// errReconfigured ends a refresh that began with an earlier configuration.
var errReconfigured = errors.New("reached in another way by now")

// Name is the resource's name.
func (c *Cluster) Name() string { return c.cfg.Name }

// Close ends every connection and waits for what it started.
func (c *Cluster) Close() {
	c.cancel()
	c.mu.Lock()
	all := append(append([]*Broker(nil), c.seeds...), c.retired...)
	for _, b := range c.brokers {
		all = append(all, b)
	}
	c.mu.Unlock()
	for _, b := range all {
		b.close()
	}
	c.wg.Wait()
}

func (c *Cluster) nextCorrelationID() int32 { return c.correlation.Add(1) & 0x7fffffff }

func (c *Cluster) markStale() { c.stale.Store(true) }

// MarkStale says that an answer contradicts the cached metadata: whoever asks
// next waits for a new one.
func (c *Cluster) MarkStale() { c.markStale() }

// start begins a goroutine that Close waits for; false: the cluster is closed.
func (c *Cluster) start(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return false
	}
	c.wg.Go(f)
	return true
}

// sweep looks after the connections.
func (c *Cluster) sweep() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case now := <-tick.C:
			c.mu.Lock()
			c.retired = slices.DeleteFunc(c.retired, (*Broker).unused)
			retired := slices.Clone(c.retired)
			c.mu.Unlock()
			for _, b := range append(c.allBrokers(), retired...) {
				b.sweep(now)
			}
		}
	}
}

// retryEvery is how often a suspect cluster is asked. What that costs is bounded by
// the back-off of each of its brokers.
const retryEvery = 250 * time.Millisecond

// keep refreshes metadata: when it is old, when it is asked to, and again and again
// while the cluster does not answer.
func (c *Cluster) keep() {
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.kick:
		case <-next.C:
		}
		c.mu.Lock()
		rebase := c.rebase
		c.mu.Unlock()
		if s := c.current.Load(); s == nil || rebase || c.State().Suspect || c.stale.Load() || time.Since(s.at) >= c.cfg.MetadataAge {
			c.backgroundRefresh()
		}
		if c.State().Suspect {
			next.Reset(retryEvery)
		} else {
			next.Reset(min(time.Second, c.cfg.MetadataAge))
		}
	}
}

// refreshSoon wakes the keeper.
func (c *Cluster) refreshSoon() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

func (c *Cluster) backgroundRefresh() {
	_ = c.Refresh(c.ctx) // the state says why not
	if c.learning.CompareAndSwap(false, true) && !c.start(c.learn) {
		c.learning.Store(false)
	}
}

// learn asks every broker for its versions, also those nobody has used yet. One that
// is frozen keeps only this waiting.
func (c *Cluster) learn() {
	defer c.learning.Store(false)
	for _, b := range c.allBrokers() {
		b.mu.Lock()
		known := b.versions != nil
		b.mu.Unlock()
		if !known && b.ID >= 0 {
			if conn, err := b.Lease(c.ctx, Control); err == nil {
				conn.Release()
			}
		}
	}
}

func (c *Cluster) allBrokers() []*Broker {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := append([]*Broker(nil), c.seeds...)
	for _, b := range c.brokers {
		all = append(all, b)
	}
	return all
}

// Metadata returns the last snapshot, nil before the first. That of a cluster which
// has not answered for a while shows every partition without a leader.
func (c *Cluster) Metadata() *Metadata {
	if s := c.current.Load(); s != nil {
		return s.Metadata
	}
	return nil
}

// Stale reports whether Fresh would ask the cluster and wait for it.
func (c *Cluster) Stale(age time.Duration) bool {
	s := c.current.Load()
	return (s == nil || time.Since(s.at) > age || c.stale.Load()) && !c.State().Suspect
}

// Fresh returns a snapshot not older than age, or, when the cluster does not
// answer, the last one there was. The error says that there is none at all. For a
// suspect cluster nobody waits.
func (c *Cluster) Fresh(ctx context.Context, age time.Duration) (*Metadata, error) {
	s := c.current.Load()
	if s != nil && time.Since(s.at) <= age && !c.stale.Load() {
		return s.Metadata, nil
	}
	if state := c.State(); state.Suspect {
		if s != nil {
			return s.Metadata, nil
		}
		return nil, c.unavailable(state.Err)
	}
	r := c.beginRefresh()
	var err error
	select {
	case <-r.done:
		err = r.err
	case <-r.silent:
		err = errSilent
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if errors.Is(err, errReconfigured) {
		return c.Fresh(ctx, age) // the one that was joined asked where nobody is to be asked any more
	}
	if m := c.Metadata(); m != nil {
		return m, nil
	}
	return nil, c.unavailable(err)
}

func (c *Cluster) unavailable(err error) error {
	return &UnavailableError{Cluster: c.cfg.Name, Node: -1, Err: err}
}

// Refresh asks the cluster now. Callers at the same time share one request.
func (c *Cluster) Refresh(ctx context.Context) error {
	r := c.beginRefresh()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// beginRefresh joins the refresh that is under way, or begins one.
func (c *Cluster) beginRefresh() *refresh {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refresh != nil {
		return c.refresh
	}
	r := &refresh{done: make(chan struct{}), silent: make(chan struct{})}
	if c.ctx.Err() != nil {
		r.err = net.ErrClosed
		close(r.done)
		return r
	}
	ctx, cancel := context.WithCancelCause(c.ctx)
	r.cancel, c.refresh = cancel, r
	silent := time.AfterFunc(silence, func() {
		c.suspect(errSilent)
		close(r.silent)
	})
	c.wg.Go(func() {
		defer cancel(nil)
		r.err = c.load(ctx)
		silent.Stop()
		switch {
		case r.err == nil || c.ctx.Err() != nil:
		case errors.Is(context.Cause(ctx), errReconfigured):
			r.err = errReconfigured // whatever came of that
		default:
			c.suspect(r.err)
		}
		c.mu.Lock()
		c.refresh = nil
		c.mu.Unlock()
		close(r.done)
	})
	return r
}

// load asks for metadata and applies the answer.
func (c *Cluster) load(ctx context.Context) error {
	c.stale.Store(false)
	c.mu.Lock()
	rebase := c.rebase
	c.mu.Unlock()
	order := c.askOrder(-1)
	if n := len(order); rebase {
		seeds := slices.IndexFunc(order, func(b *Broker) bool { return b.ID < 0 })
		if seeds > 0 {
			order = append(append(make([]*Broker, 0, n), order[seeds:]...), order[:seeds]...)
		}
	}
	b, resp, err := c.ask(ctx, order, func(b *Broker) (kmsg.Response, error) { return c.metadataOf(ctx, b) })
	if err == nil {
		err = context.Cause(ctx) // nothing of an earlier configuration
	}
	if err != nil {
		c.stale.Store(true)
		return err
	}
	c.mu.Lock()
	c.rebase = c.rebase && b.ID >= 0
	c.mu.Unlock()
	c.answered.Store(b.ID)
	c.apply(resp.(*kmsg.MetadataResponse))
	return nil
}

// patience is how long one broker is waited for before another is asked as well.
// One that is frozen accepts connections and never answers.
const patience = time.Second

// ask tries brokers in this order until one answers, each next one when the one
// before has failed or has been silent for a while. What is asked must be the same
// to every broker and may be done twice.
func (c *Cluster) ask(ctx context.Context, order []*Broker, try func(*Broker) (kmsg.Response, error)) (*Broker, kmsg.Response, error) {
	type answer struct {
		b    *Broker
		resp kmsg.Response
		err  error
	}
	answers := make(chan answer, len(order))
	silent := time.NewTimer(patience)
	defer silent.Stop()
	var errs []error
	for asked, next := 0, true; ; {
		if next && asked < len(order) {
			b := order[asked]
			asked++
			if !c.start(func() {
				resp, err := try(b)
				answers <- answer{b, resp, err}
			}) {
				return nil, nil, c.unavailable(net.ErrClosed)
			}
			silent.Reset(patience)
		}
		next = false
		select {
		case a := <-answers:
			if a.err == nil {
				return a.b, a.resp, nil
			}
			errs = append(errs, a.err)
			if len(errs) == len(order) {
				return nil, nil, errors.Join(errs...)
			}
			next = true
		case <-silent.C:
			next = true
		case <-ctx.Done():
			return nil, nil, errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
}

// askOrder are all brokers: the preferred one first, -1 for none, then the one that
// answered last. Brokers learn of changes at different moments, and one broker
// never goes back in time.
func (c *Cluster) askOrder(preferred int32) []*Broker {
	c.mu.Lock()
	defer c.mu.Unlock()
	var order []*Broker
	for _, b := range c.brokers {
		order = append(order, b)
	}
	rank := func(b *Broker) int {
		switch b.ID {
		case preferred:
			return 0
		case c.answered.Load():
			return 1
		}
		return 2
	}
	slices.SortFunc(order, func(a, b *Broker) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.ID, b.ID)) })
	return append(order, c.seeds...)
}

func (c *Cluster) metadataOf(ctx context.Context, b *Broker) (kmsg.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 12
	resp, err := b.request(ctx, Control, 3*time.Second, OwnClientID, req)
	if err != nil {
		return nil, err
	}
	if len(resp.(*kmsg.MetadataResponse).Brokers) == 0 {
		return nil, fmt.Errorf("node %d lists no brokers", b.ID)
	}
	return resp, nil
}

func (c *Cluster) apply(resp *kmsg.MetadataResponse) {
	var old *Metadata
	if s := c.current.Load(); s != nil {
		old = s.known
	}
	if old != nil && resp.ClusterID != nil && old.ClusterID != "" && *resp.ClusterID != old.ClusterID {
		c.log.Warn("the address of an upstream cluster leads to another cluster: what was known of the old one is forgotten",
			"cluster", c.cfg.Name, "was", old.ClusterID, "is", *resp.ClusterID)
		old = nil
		c.forget()
	}
	next := NewMetadata(resp, old)
	if old != nil && next.equal(old) {
		next = old
	}
	c.controller.Store(resp.ControllerID)
	c.mu.Lock()
	var gone []*Broker
	live := make(map[int32]bool, len(next.Brokers))
	for _, info := range next.Brokers {
		live[info.ID] = true
		addr := net.JoinHostPort(info.Host, strconv.Itoa(int(info.Port)))
		if b := c.brokers[info.ID]; b != nil {
			b.setAddr(addr)
			if back := old != nil && !old.Live(info.ID); back || c.State().Suspect {
				b.forgive()
			}
		} else {
			c.brokers[info.ID] = newBroker(c, info.ID, addr)
		}
	}
	for id, b := range c.brokers {
		if !live[id] {
			if open, _ := b.connections(); open == 0 {
				delete(c.brokers, id)
				gone = append(gone, b)
			}
		}
	}
	c.mu.Unlock()
	for _, b := range gone {
		b.close()
	}
	c.confirmed(next) // who sees it finds its brokers
	c.updateVersions()
}

// forget gives up the brokers of a cluster that this is no longer. Those who hold a
// lease keep it.
func (c *Cluster) forget() {
	c.mu.Lock()
	gone := slices.Collect(maps.Values(c.brokers))
	clear(c.brokers)
	c.retired = append(c.retired, gone...)
	c.mu.Unlock()
	for _, b := range gone {
		b.retire()
	}
}

// Controller is the node that admin requests go to: the controller of a ZooKeeper
// cluster, any live broker of a KRaft cluster, which forwards them.
func (c *Cluster) Controller() int32 { return c.controller.Load() }

// Lease returns a connection to a node. Node -1 is any: the lowest live broker
// that can be reached. The error is an *UnavailableError.
func (c *Cluster) Lease(ctx context.Context, node int32, class Class) (*Conn, error) {
	if node >= 0 {
		c.mu.Lock()
		b := c.brokers[node]
		c.mu.Unlock()
		if b == nil {
			return nil, &UnavailableError{Cluster: c.cfg.Name, Node: node, Err: errors.New("no such broker")}
		}
		return b.Lease(ctx, class)
	}
	last := c.unavailable(errors.New("no broker known"))
	for _, b := range c.anyOrder(node) {
		conn, err := b.Lease(ctx, class)
		if err == nil {
			return conn, nil
		}
		last = err
	}
	return nil, last
}

// anyOrder is the order in which brokers are asked for what any of them, or the one
// preferred, can do. Seeds are for metadata, unless nothing else is known.
func (c *Cluster) anyOrder(preferred int32) []*Broker {
	order := c.askOrder(preferred)
	n := slices.IndexFunc(order, func(b *Broker) bool { return b.ID < 0 })
	if n <= 0 {
		return order
	}
	order = order[:n]
	if preferred < 0 {
		k := rand.IntN(n)
		order[0], order[k] = order[k], order[0]
	}
	return order
}

// OwnClientID is the client id of what the gateway asks for itself.
const OwnClientID = "tollgate"

// Request leases a connection, sends req for the client of that id, and returns
// the answer. A broker that does not know the version of req is asked at the highest
// it has, and the version of the answer is the one that was spoken; the error is a
// *VersionError when it has none that is as low. req is not changed.
func (c *Cluster) Request(ctx context.Context, node int32, class Class, limit time.Duration, clientID string, req kmsg.Request) (kmsg.Response, error) {
	if limit == 0 {
		limit = c.cfg.RequestTimeout
	}
	conn, err := c.Lease(ctx, node, class)
	if err != nil {
		return nil, err
	}
	return conn.request(ctx, clientID, limit, req)
}

// RequestAny is Request of what every broker can answer and may be asked twice:
// another one is asked when this node, -1 for any, cannot or does not in good time. A
// suspect cluster has a second.
func (c *Cluster) RequestAny(ctx context.Context, node int32, clientID string, req kmsg.Request) (kmsg.Response, error) {
	if c.State().Suspect { // nobody is to wait for it
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, patience, errSilent)
		defer cancel()
	}
	_, resp, err := c.ask(ctx, c.anyOrder(node), func(b *Broker) (kmsg.Response, error) {
		return b.request(ctx, Control, c.cfg.RequestTimeout, clientID, req)
	})
	return resp, err
}

// Dials counts the connections that were begun, and the logins that were renewed on
// connections that there were.
func (c *Cluster) Dials() (begun, renewed uint64) { return c.dials.Load(), c.renewals.Load() }

// Connections counts the open connections of the cluster and the leases by class.
func (c *Cluster) Connections() (open int, leased map[string]int) {
	leased = make(map[string]int)
	for _, b := range c.allBrokers() {
		n, out := b.connections()
		open += n
		for class, k := range out {
			leased[Class(class).String()] += k
		}
	}
	return open, leased
}

// Versions is what every broker of a cluster can do.
type Versions struct {
	Ranges    map[int16]Range
	Finalized map[string]int16 // finalized feature levels
	Supported map[string]Range // supported feature ranges
}

// Range is inclusive.
type Range struct{ Min, Max int16 }

// Versions returns the intersection over the brokers seen, nil before the first.
func (c *Cluster) Versions() *Versions { return c.versions.Load() }

func (c *Cluster) updateVersions() {
	var v *Versions
	// Seeds, which are asked only in the beginning, come last: what they could do
	// then says little when brokers are known.
	all := c.allBrokers()
	slices.SortStableFunc(all, func(a, b *Broker) int { return cmp.Compare(b.ID, a.ID) })
	for _, b := range all {
		b.mu.Lock()
		r := b.versions
		b.mu.Unlock()
		if r == nil {
			continue
		}
		if b.ID < 0 && v != nil {
			break
		}
		one := &Versions{Ranges: make(map[int16]Range), Finalized: make(map[string]int16), Supported: make(map[string]Range)}
		for _, k := range r.ApiKeys {
			one.Ranges[k.ApiKey] = Range{k.MinVersion, k.MaxVersion}
		}
		for _, f := range r.FinalizedFeatures {
			one.Finalized[f.Name] = f.MaxVersionLevel
		}
		for _, f := range r.SupportedFeatures {
			one.Supported[f.Name] = Range{f.MinVersion, f.MaxVersion}
		}
		v = v.Intersect(one)
	}
	if v != nil {
		c.versions.Store(v)
	}
}

// Intersect is what both can do; nil: everything.
func (v *Versions) Intersect(o *Versions) *Versions {
	if v == nil {
		return o
	}
	out := &Versions{Ranges: make(map[int16]Range), Finalized: make(map[string]int16), Supported: make(map[string]Range)}
	for key, r := range v.Ranges {
		if s, ok := o.Ranges[key]; ok && max(r.Min, s.Min) <= min(r.Max, s.Max) {
			out.Ranges[key] = Range{max(r.Min, s.Min), min(r.Max, s.Max)}
		}
	}
	for name, level := range v.Finalized {
		if l, ok := o.Finalized[name]; ok {
			out.Finalized[name] = min(level, l)
		}
	}
	for name, r := range v.Supported {
		if s, ok := o.Supported[name]; ok {
			out.Supported[name] = Range{max(r.Min, s.Min), min(r.Max, s.Max)}
		}
	}
	return out
}
