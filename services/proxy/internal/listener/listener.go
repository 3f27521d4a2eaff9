// Package listener accepts the clients: it knows which virtual cluster and
// which virtual broker a connection is for before a byte of Kafka is read.
//
// A [Listener] serves several addresses, by SNI or by port ([Spec]). It speaks
// the PROXY protocol with the balancers it was told about, does the TLS
// handshake, applies the [Limits], and hands a [Conn] to Config.Handle on a fresh
// goroutine, whose stack the handshake has not grown.
//
// Who may do what is not decided here: the session authenticates, and says so
// with [Conn.Authenticated]. The listener closes what it accepted, after Handle
// has returned or when Serve's context ends, whichever comes first.
package listener

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"tollgate.internal/services/proxy/internal/quota"
	"tollgate.internal/services/proxy/internal/refusal"
)

// A Router knows the virtual clusters. It is asked for every connection, so a
// reload takes effect with the next one.
type Router interface {
	// Host maps a host name, in lower case, to its route. It may wait while the
	// virtual cluster is loaded, but for a few seconds only and no longer than ctx.
	// The error says that nobody knows yet whose the name is.
	Host(ctx context.Context, name string) (r Route, ok bool, err error)
	// Hosts are some of the bootstrap names, and how many there are, for the log
	// line about an unknown one.
	Hosts(most int) (some []string, all int)
	// ClientCAs is nil when a virtual cluster asks for no client certificate.
	ClientCAs(vc string) *x509.CertPool
	// ClientCertificateRequired makes the handshake fail without one. When it is
	// false, a certificate is verified if the client has one.
	ClientCertificateRequired(vc string) bool
	// Quotas bound a virtual cluster's connections; nil: nothing does.
	Quotas(vc string) *quota.Quotas
}

// Config is what a Listener is made of.
type Config struct {
	Specs  []Spec
	Router Router
	Limits Limits
	// Wrap goes around the socket, under TLS. Nil leaves the socket as it is.
	Wrap func(net.Conn) net.Conn
	// Handle serves one client. It blocks until the session is over.
	Handle func(ctx context.Context, c *Conn)
	// Refused counts connections that the listener closed; nil counts none. The
	// refusals are TG-LISTEN-…, TG-AUTH-017 and TG-NODE-005.
	Refused func(*refusal.Refusal)
	Log     *slog.Logger
	// Listen opens a socket; nil means TCP.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
	// CertificatePoll is how often the certificate files are looked at; 5 s.
	CertificatePoll time.Duration
}

// A Conn is a client that has come through the handshake.
type Conn struct {
	net.Conn                      // *tls.Conn, or Raw without TLS
	Raw      net.Conn             // what Config.Wrap returned
	TLS      *tls.ConnectionState // nil without TLS
	Route    Route
	Remote   netip.Addr // the client's own address, also behind a balancer
	Spec     *Spec

	listener *Listener
	socket   net.Conn // what was accepted
	host     string   // the bootstrap host of the family the client came in by
	port     uint16   // SNI: the port that is advertised
	guard    *time.Timer
	proved   atomic.Bool
	why      atomic.Pointer[refusal.Refusal] // the listener closed it
	counts   counts                          // guarded by the limiter
}

// Advertise returns the address of a virtual broker for this client: in the
// family of host names it came in by, or on the listener's own ports. With port
// routing a node outside the configured ranges has no address: "" and 0.
func (c *Conn) Advertise(vNode int32) (host string, port int32) {
	if c.Spec.Routing == BySNI {
		return BrokerHost(c.host, vNode), int32(c.port)
	}
	if _, advertised, ok := c.Spec.brokerPort(vNode); ok {
		return c.Spec.AdvertisedHost, int32(advertised)
	}
	return "", 0
}

// Refused is why the listener has closed the connection; nil: it has not. The
// listener has logged and counted it.
func (c *Conn) Refused() *refusal.Refusal { return c.why.Load() }

// Authenticated says that the client has proved who it is, by whatever means, also
// by a certificate or by being allowed to stay anonymous. The connection leaves
// the number of unauthenticated ones and the time limit on authentication, and
// is counted in its virtual cluster; when that is full, it is closed.
func (c *Conn) Authenticated(ctx context.Context) {
	if !c.proved.CompareAndSwap(false, true) {
		return
	}
	c.guard.Stop()
	q := c.listener.cfg.Router.Quotas(c.Route.VirtualCluster)
	if err := c.listener.limits.authenticated(ctx, &c.counts, q); err != nil {
		c.listener.refused(context.Background(), c, err)
		c.socket.Close()
	}
}

// A Listener accepts clients on several addresses.
type Listener struct {
	cfg    Config
	limits *limiter

	mu      sync.Mutex
	specs   []*Spec         // nil: removed
	certs   []*certificates // by index of spec; nil without TLS
	sockets map[socketID]*socket
	conns   map[net.Conn]struct{}
	paused  map[socketID]string // addresses of sockets to open again; nil: it is not paused
	start   func(*socket)       // set by Serve
	stopped bool                // no more sockets
	ended   bool                // no more connections either

	stop  chan struct{}
	wg    sync.WaitGroup // accept loops and connections
	notes *refusal.Notes
}

type socketID struct {
	spec int
	node int32
}

type socket struct {
	net.Listener
	spec   *Spec
	node   int32
	config *tls.Config
	port   uint16
	closed chan struct{}

	withCAs sync.Map // virtual cluster → *tls.Config that asks for client certificates
}

// New checks the configuration, reads the certificates and opens the sockets
// of the specs. The caller then calls Serve, or Stop.
func New(cfg Config) (*Listener, error) {
	if cfg.Listen == nil {
		lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4}}
		cfg.Listen = lc.Listen
	}
	if cfg.Wrap == nil {
		cfg.Wrap = func(c net.Conn) net.Conn { return c }
	}
	if cfg.Refused == nil {
		cfg.Refused = func(*refusal.Refusal) {}
	}
	if cfg.CertificatePoll <= 0 {
		cfg.CertificatePoll = 5 * time.Second
	}
	if cfg.Limits.HandshakeTimeout <= 0 {
		cfg.Limits.HandshakeTimeout = 10 * time.Second
	}
	if cfg.Limits.AuthenticationTimeout <= 0 {
		cfg.Limits.AuthenticationTimeout = 30 * time.Second
	}
	l := &Listener{
		cfg:     cfg,
		limits:  newLimiter(cfg.Limits),
		sockets: make(map[socketID]*socket),
		conns:   make(map[net.Conn]struct{}),
		stop:    make(chan struct{}),
		notes:   refusal.NewNotes(cfg.Log),
	}
	var errs []error
	for _, s := range cfg.Specs {
		_, err := l.add(s)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for i := range cfg.Specs {
		if err := l.open(i, Bootstrap); err != nil {
			l.Stop()
			return nil, err
		}
	}
	return l, nil
}

// add checks a spec and reads its certificates.
func (l *Listener) add(s Spec) (index int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.ContainsFunc(l.specs, func(o *Spec) bool { return o != nil && o.Name == s.Name }) {
		return 0, fmt.Errorf("listener %q: the name is used twice", s.Name)
	}
	if err := s.normalise(); err != nil {
		return 0, err
	}
	var certs *certificates
	if s.Protocol.Encrypted() {
		if certs, err = loadCertificates(s.Certificates); err != nil {
			return 0, fmt.Errorf("listener %q: %w", s.Name, err)
		}
	}
	l.specs, l.certs = append(l.specs, &s), append(l.certs, certs)
	return len(l.specs) - 1, nil
}

// Add makes the listener accept on one more address, also while it serves.
func (l *Listener) Add(s Spec) error {
	i, err := l.add(s)
	if err != nil {
		return err
	}
	if err := l.open(i, Bootstrap); err != nil {
		l.Remove(s.Name)
		return err
	}
	return nil
}

// Remove closes the sockets of a spec. Those who came in by them stay.
func (l *Listener) Remove(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.specs {
		if s == nil || s.Name != name {
			continue
		}
		for id, sock := range l.sockets {
			if id.spec == i {
				l.shut(id, sock)
			}
		}
		l.specs[i], l.certs[i] = nil, nil
	}
}

// open opens the socket of a spec for a node, unless it is open. The mutex is
// held while binding, which does not wait for anything: so nobody else opens it.
func (l *Listener) open(spec int, node int32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := socketID{spec, node}
	if l.stopped || l.paused != nil || l.sockets[id] != nil {
		return nil
	}
	return l.bind(id, "")
}

// bind opens a socket at an address, or where its spec says. The mutex is held.
func (l *Listener) bind(id socketID, again string) error {
	spec, node := id.spec, id.node
	s := l.specs[spec]
	if s == nil {
		return nil // removed meanwhile
	}
	address := s.Address
	if node != Bootstrap {
		host, _, err := net.SplitHostPort(s.Address)
		if err != nil {
			return err
		}
		port, _, ok := s.brokerPort(node)
		if !ok {
			return fmt.Errorf("listener %q: node %d has no port: widen the broker ports", s.Name, node)
		}
		address = net.JoinHostPort(host, strconv.Itoa(int(port)))
	}
	address = cmp.Or(again, address)
	ln, err := l.cfg.Listen(context.Background(), "tcp", address)
	if err != nil {
		return fmt.Errorf("listener %q: %w", s.Name, err)
	}
	sock := &socket{Listener: ln, spec: s, node: node, port: s.AdvertisedPort, closed: make(chan struct{})}
	if sock.port == 0 {
		if a, ok := ln.Addr().(*net.TCPAddr); ok {
			sock.port = uint16(a.Port)
		}
	}
	if s.Protocol.Encrypted() {
		sock.config = l.serverConfig(s, l.certs[spec], &sock.withCAs)
	}
	l.sockets[id] = sock
	if l.start != nil {
		l.start(sock)
	}
	return nil
}

// SetBrokers says which virtual brokers a virtual cluster has. With port routing
// each of them gets its socket; those of brokers that are gone are closed, and
// live connections stay. Nodes that no port range covers are in the error, and
// the others are served all the same.
func (l *Listener) SetBrokers(vc string, vNodes []int32) error {
	var errs []error
	l.mu.Lock()
	specs := slices.Clone(l.specs)
	l.mu.Unlock()
	for i, s := range specs {
		if s == nil || s.Routing != ByPort || s.VirtualCluster != vc {
			continue
		}
		keep := map[int32]bool{Bootstrap: true}
		for _, node := range vNodes {
			keep[node] = true
		}
		l.mu.Lock()
		for id, sock := range l.sockets {
			if id.spec == i && !keep[id.node] {
				l.shut(id, sock)
			}
		}
		l.mu.Unlock()
		for _, node := range vNodes {
			errs = append(errs, l.open(i, node))
		}
	}
	return errors.Join(errs...)
}

func (l *Listener) shut(id socketID, sock *socket) {
	delete(l.sockets, id)
	close(sock.closed)
	sock.Close()
}

// Forget drops what was kept for connections of a virtual cluster that is no longer
// served.
func (l *Listener) Forget(vc string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sock := range l.sockets {
		sock.withCAs.Delete(vc)
	}
}

// Addr returns the address of a spec's bootstrap socket, nil once it is closed.
func (l *Listener) Addr(spec string) net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, sock := range l.sockets {
		if id.node == Bootstrap && sock.spec.Name == spec {
			return sock.Addr()
		}
	}
	return nil
}

// Stop closes the sockets: nobody comes in any more, and those who are in
// stay. It is the first step of a drain.
func (l *Listener) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	l.stopped = true
	for id, sock := range l.sockets {
		l.shut(id, sock)
	}
	close(l.stop)
}

// Serve accepts until ctx ends, and then closes every connection; or until Stop
// was called and the last session is over. All that it started has returned by
// the time it returns. It is called once.
func (l *Listener) Serve(ctx context.Context) error {
	l.mu.Lock()
	l.start = func(s *socket) {
		l.wg.Go(func() { l.accept(ctx, s) })
	}
	for _, s := range l.sockets {
		l.start(s)
	}
	l.mu.Unlock()

	var background sync.WaitGroup
	bg, endBackground := context.WithCancel(ctx)
	background.Go(func() { l.reloadCertificates(bg) })
	defer background.Wait()
	defer endBackground()

	select {
	case <-ctx.Done():
		l.Stop()
	case <-l.stop:
	}
	idle := make(chan struct{})
	background.Go(func() { l.wg.Wait(); close(idle) })
	select {
	case <-ctx.Done():
		l.closeAll()
		<-idle
	case <-idle:
	}
	return nil
}

// Run is New and Serve.
func Run(ctx context.Context, cfg Config) error {
	l, err := New(cfg)
	if err != nil {
		return err
	}
	return l.Serve(ctx)
}

func (l *Listener) closeAll() {
	l.mu.Lock()
	l.ended = true
	conns := make([]net.Conn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// track makes closeAll reach c. It reports false when it is too late for that.
func (l *Listener) track(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.conns[c] = struct{}{}
	}
	return !l.ended
}

func (l *Listener) untrack(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// accept hands out connections until the socket is closed. Every other error
// passes: out of file descriptors means to wait until some are free, since a
// gateway that stops listening is worse than one that is full.
func (l *Listener) accept(ctx context.Context, s *socket) {
	const shortest, longest = 5 * time.Millisecond, time.Second
	delay := shortest
	for {
		nc, err := s.Accept()
		switch {
		case err == nil:
			delay = shortest
			l.wg.Go(func() { l.admit(ctx, s, nc) })
			continue
		case errors.Is(err, net.ErrClosed):
			return
		}
		select {
		case <-s.closed:
			return
		default:
		}
		l.cfg.Refused(refusal.SocketsExhausted)
		l.notes.Write(ctx, slog.LevelError, "accept failed", s.spec.Name, refusal.SocketsExhausted.With(err), "listener", s.spec.Name)
		wait := time.NewTimer(delay)
		select {
		case <-wait.C:
		case <-s.closed:
			wait.Stop()
			return
		}
		delay = min(2*delay, longest)
	}
}

// admit takes a connection from accept to the start of its session, or closes it.
func (l *Listener) admit(ctx context.Context, s *socket, nc net.Conn) {
	c := &Conn{Spec: s.spec, Remote: addrOf(nc.RemoteAddr()), listener: l, socket: nc, port: s.port}
	err := l.handshake(ctx, s, c)
	if err != nil {
		c.release()
		l.refused(ctx, c, err)
		return
	}
	// A goroutine of its own: the handshake has grown the stack of this one.
	l.wg.Go(func() {
		defer c.release()
		l.cfg.Handle(ctx, c)
	})
}

// errEnded is a connection that came in while Serve was ending.
var errEnded = errors.New("the listener has ended")

// handshake does everything that comes before the session. What has to be undone
// when the connection is over is in c, for release.
func (l *Listener) handshake(ctx context.Context, s *socket, c *Conn) error {
	accepted := time.Now()
	if !l.track(c.socket) {
		return errEnded
	}
	if err := l.limits.enter(&c.counts); err != nil {
		return err
	}
	if err := c.socket.SetDeadline(accepted.Add(l.cfg.Limits.HandshakeTimeout)); err != nil {
		return err
	}
	if s.spec.trusts(c.Remote) {
		remote, err := readProxyHeader(c.socket)
		if err != nil {
			return err
		}
		if remote.IsValid() {
			c.Remote = remote
		}
	}
	if err := l.limits.enterAddress(&c.counts, c.Remote); err != nil {
		return err
	}

	c.Raw = l.cfg.Wrap(c.socket)
	c.Conn = c.Raw
	c.Route = Route{s.spec.VirtualCluster, s.node}
	if s.spec.Routing == ByPort {
		if err := pace(ctx, l.cfg.Router.Quotas(s.spec.VirtualCluster)); err != nil {
			return err
		}
	}
	if s.config != nil {
		tc := tls.Server(c.Raw, s.config)
		if err := tc.HandshakeContext(ctx); err != nil {
			return err
		}
		state := tc.ConnectionState()
		c.Conn, c.TLS = tc, &state
		if s.spec.Routing == BySNI {
			// Asked again: the virtual cluster may have gone since the hello.
			var ok bool
			var err error
			c.host = normaliseHost(state.ServerName)
			if c.Route, ok, err = l.cfg.Router.Host(ctx, c.host); err != nil {
				return refusal.VirtualClusterNotLoaded.Errorf("host %q: %w", c.host, err)
			} else if !ok {
				return l.unknownHost(c.host)
			}
			if c.Route.Node != Bootstrap {
				_, c.host, _ = splitBroker(c.host)
			}
		}
	}
	if err := c.socket.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if q := l.cfg.Router.Quotas(c.Route.VirtualCluster); q != nil && q.Connections.Full() {
		return refusal.TooManyOfVirtualCluster
	}
	c.guard = time.AfterFunc(l.cfg.Limits.AuthenticationTimeout-time.Since(accepted), c.expire)
	return nil
}

// expire ends a connection that was not authenticated in time.
func (c *Conn) expire() {
	if !c.proved.Load() {
		c.listener.refused(context.Background(), c, refusal.AuthenticationTimeout)
		c.socket.Close()
	}
}

// release undoes what handshake did, and closes the connection.
func (c *Conn) release() {
	l := c.listener
	if c.guard != nil {
		c.guard.Stop()
	}
	c.socket.Close()
	l.untrack(c.socket)
	l.limits.leave(&c.counts)
}

// refused counts and logs why a connection was closed.
func (l *Listener) refused(ctx context.Context, c *Conn, err error) {
	if errors.Is(err, errEnded) {
		return
	}
	err = classify(err)
	r := refusal.Of(err)
	c.why.Store(r)
	l.cfg.Refused(r)
	args := []any{"listener", c.Spec.Name, "client", c.Remote.String()}
	if c.Route.VirtualCluster != "" {
		args = append(args, "virtual_cluster", c.Route.VirtualCluster)
	}
	if r == refusal.ClientGone {
		// Health checks of balancers do this all day.
		refusal.Log(ctx, l.cfg.Log, slog.LevelDebug, "connection refused", err, args...)
		return
	}
	l.notes.Write(ctx, slog.LevelWarn, "connection refused", c.Spec.Name, err, args...)
}

func addrOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap().WithZone("")
	}
	if ap, err := netip.ParseAddrPort(a.String()); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
