// Package config reads the configuration file of a proxy: what a node is, as
// opposed to what it serves, which is in the resource files.
//
//	resources: resources             # directory of resource files
//	control:                         # or, in place of resources: the control plane; see docs/operating.md
//	  redis: redis://HOST:PORT       # of portal and nodes; rediss://, unix://, Sentinels, cluster
//	  password: env:REDIS_PASSWORD   # absent: the URL's
//	  publicKeys: portal.pub         # PEM, of the key that the portal signs with; two while it is replaced
//	  state: state                   # directory of this node alone, which outlives the process
//	  deployment: default            # tells fleets on one Redis apart
//	  node: n1                       # id, another for each node; absent: the host name
//	  rack: eu-west-1a               # as brokers name it
//	  balancing: external            # internal: clients are sent to the nodes' own domains
//	  advertise: n1.gw.example.com   # the node's own domain, and :PORT if it is another than the first SNI listener's
//	  api: https://HOST:PORT         # of the portal; absent: ACLs cannot be changed by Kafka's admin protocol
//	  token: file:node.token         # the node's own, for the API
//	  preload: false                 # load every virtual cluster at the start: needed where clients come by port
//	  unloadAfter: 1h                # without a session
//	domains: [gw.example.com]        # virtual clusters are <host>.<domain>
//	saltKey: file:salt.key           # 16 bytes or more, the same on all nodes of a fleet; see proxy.Config.SaltKey
//	admin: 127.0.0.1:9410            # /healthz /readyz /metrics /debug/pprof; absent: none
//	producerIDs:                     # of idempotent producers; absent: those of a virtual cluster's only cluster
//	  source: file:producer-ids      # or redis://HOST:PORT, the same for all nodes of a fleet; see docs/proxy.md
//	  password: env:REDIS_PASSWORD   # of the Redis; absent: the URL's
//	  deployment: 0                  # 0 to 1023: another one for each fleet that reaches the same clusters
//	log: {level: info, format: json} # debug, info, warn, error; text or json
//	drainGrace: 5s                   # from not being ready to not accepting any more, after SIGTERM; 0s: none
//	drainSpread: 30s                 # over which sessions are then moved off; 0s: all at once
//	drainTimeout: 30s                # for the last of them to finish after that
//	reloadEvery: 250ms               # how often the resource files are looked at
//	limits:
//	  handshakeTimeout: 10s          # accept to the end of the TLS handshake
//	  authenticationTimeout: 30s     # accept to authenticated
//	  connections: 15000             # absent: no limit
//	  connectionsPerAddress: 1000    # absent: no limit; IPv6 addresses count by their /64
//	  unauthenticatedConnections: 2000
//	  unauthenticatedConnectionsPerAddress: 1000 # default: half of the above
//	  requestBytes: 100MiB           # one request frame
//	  requestTimeout: 60s            # for a request to arrive once it has begun
//	  requestsInFlight: 64           # Produce or Fetch of one client
//	  stallTimeout: 30s              # for a client to take some of an answer
//	  requestMemory: 512MiB          # large request frames in the whole node, and as much for decoding
//	                                 # requests: one other than Produce has a 32nd of it at most
//	listeners:
//	  - name: public
//	    address: 0.0.0.0:9092
//	    routing: sni                 # every virtual cluster, by host name
//	    advertisedPort: 9092         # behind a balancer on another port
//	    certificates: [{certFile: gw.pem, keyFile: gw.key}]
//	    proxyProtocol: [10.0.0.0/8]  # balancers that send PROXY protocol v2
//	  - name: acme-internal
//	    address: 10.1.2.3:9501       # the bootstrap's
//	    routing: port                # one virtual cluster
//	    protocol: SASL_PLAINTEXT     # SSL, SASL_SSL, PLAINTEXT; TLS: what the virtual cluster offers
//	    virtualCluster: acme-prod
//	    advertisedHost: gw.internal  # defaults to the host of address
//	    brokerPorts: 9502-9600       # virtual node 0 on 9502, and so on
//	    # or, for sparse ids and other slots; advertised is the port that clients see for the first:
//	    # brokerPorts: [{ports: 9502-9504, firstNode: 0}, {ports: 9510-9519, firstNode: 1001, advertised: 19510}]
//
// Relative paths are relative to the file. A mistake is a [resource.Problem]
// with line and field, and every one is reported.
package config

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/pkg/strictyaml"
	"tollgate.internal/services/proxy"
	"tollgate.internal/services/proxy/internal/listener"
	"tollgate.internal/services/proxy/internal/producerid"
)

// defaultUnauthenticated bounds what strangers can hold: some 30 KiB each
// while they shake hands.
const defaultUnauthenticated = 2000

// A balancer looks every few seconds whether a node is ready, and a fleet's other nodes
// hear from it every second.
const defaultGrace = 5 * time.Second

// defaultSpread keeps what clients do when they come back, a TLS handshake and a login
// for the most part, from reaching the other nodes and the brokers all at once.
const defaultSpread = 30 * time.Second

// defaults is what is there before anything is read.
func defaults() file {
	f := file{Log: logging{Format: "text"}, DrainGrace: defaultGrace, DrainSpread: defaultSpread}
	f.Limits.Unauthenticated = defaultUnauthenticated
	return f
}

type file struct {
	Resources    string        `yaml:"resources"`
	Control      control       `yaml:"control"`
	Domains      []string      `yaml:"domains"`
	SaltKey      string        `yaml:"saltKey"`
	ProducerIDs  producerIDs   `yaml:"producerIDs"`
	Admin        string        `yaml:"admin"`
	Log          logging       `yaml:"log"`
	DrainGrace   time.Duration `yaml:"drainGrace"`
	DrainSpread  time.Duration `yaml:"drainSpread"`
	DrainTimeout time.Duration `yaml:"drainTimeout"`
	ReloadEvery  time.Duration `yaml:"reloadEvery"`
	Limits       limits        `yaml:"limits"`
	Listeners    []listening   `yaml:"listeners"`
}

type logging struct {
	Level  slog.Level `yaml:"level"`
	Format string     `yaml:"format"`
}

type producerIDs struct {
	Source     string `yaml:"source"`
	Password   string `yaml:"password"`
	Deployment int    `yaml:"deployment"`
}

type limits struct {
	HandshakeTimeout          time.Duration `yaml:"handshakeTimeout"`
	AuthenticationTimeout     time.Duration `yaml:"authenticationTimeout"`
	Connections               int           `yaml:"connections"`
	PerAddress                int           `yaml:"connectionsPerAddress"`
	Unauthenticated           int           `yaml:"unauthenticatedConnections"`
	UnauthenticatedPerAddress int           `yaml:"unauthenticatedConnectionsPerAddress"`
	RequestBytes              size          `yaml:"requestBytes"`
	RequestTimeout            time.Duration `yaml:"requestTimeout"`
	InFlight                  int           `yaml:"requestsInFlight"`
	StallTimeout              time.Duration `yaml:"stallTimeout"`
	RequestMemory             size          `yaml:"requestMemory"`
}

type listening struct {
	Name           string        `yaml:"name"`
	Address        string        `yaml:"address"`
	Routing        string        `yaml:"routing"`
	Protocol       string        `yaml:"protocol"`
	Certificates   []keyPair     `yaml:"certificates"`
	AdvertisedPort uint16        `yaml:"advertisedPort"`
	ProxyProtocol  []source      `yaml:"proxyProtocol"`
	VirtualCluster string        `yaml:"virtualCluster"`
	AdvertisedHost string        `yaml:"advertisedHost"`
	BrokerPorts    []brokerPorts `yaml:"brokerPorts"`
}

type keyPair struct {
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
}

// brokerPorts may be written as its ports alone.
type brokerPorts struct {
	Ports      portRange `yaml:"ports"`
	FirstNode  int32     `yaml:"firstNode"`
	Advertised uint16    `yaml:"advertised"`
}

func (b *brokerPorts) UnmarshalText(text []byte) error { return b.Ports.UnmarshalText(text) }

// source is written 10.0.0.0/8 or 10.1.2.3.
type source struct{ netip.Prefix }

func (s *source) UnmarshalText(text []byte) (err error) {
	if s.Prefix, err = netip.ParsePrefix(string(text)); err == nil {
		return nil
	}
	a, err := netip.ParseAddr(string(text))
	if err != nil {
		return errors.New("must be an address or a network such as 10.0.0.0/8")
	}
	s.Prefix = netip.PrefixFrom(a.WithZone(""), a.BitLen())
	return nil
}

// portRange is written 9502-9600, both ends included.
type portRange struct{ first, last uint16 }

func (r *portRange) UnmarshalText(text []byte) error {
	from, to, ok := strings.Cut(string(text), "-")
	first, err := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	if !ok || err != nil || err2 != nil || first == 0 || first > last {
		return errors.New("must be a range of ports such as 9502-9600")
	}
	*r = portRange{uint16(first), uint16(last)}
	return nil
}

func (r portRange) count() int { return int(r.last) - int(r.first) + 1 }

// size is a number of bytes, written 1048576, 1024KiB or 1MiB.
type size int64

func (s *size) UnmarshalText(text []byte) error {
	digits, shift := string(text), 0
	for unit, n := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30} {
		if d, ok := strings.CutSuffix(digits, unit); ok {
			digits, shift = d, n
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > 1<<(62-shift) {
		return errors.New("must be a size such as 512MiB: bytes, KiB, MiB or GiB")
	}
	*s = size(n << shift)
	return nil
}

// Load reads a file. The log goes to logs. The error is resource.Problems,
// unless the file cannot be read at all.
func Load(path string, logs io.Writer) (proxy.Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return proxy.Config{}, fmt.Errorf("read configuration: %w", err)
	}
	cfg, problems := parse(path, data, logs)
	if len(problems) > 0 {
		return proxy.Config{}, problems
	}
	return cfg, nil
}

func parse(path string, data []byte, logs io.Writer) (proxy.Config, resource.Problems) {
	var problems resource.Problems
	documents, whole := strictyaml.Read(path, data, &problems)
	if whole && len(documents) == 0 {
		problems = append(problems, resource.Problem{File: path, Line: 1, Message: "is empty"})
	}
	if len(problems) > 0 {
		return proxy.Config{}, problems
	}
	if len(documents) > 1 {
		documents[1].Problem("", "a second document: a configuration is one")
	}
	d := documents[0]
	f := defaults()
	d.Decode(d.Root, &f, "")
	dir := filepath.Dir(path)
	for i := range f.Listeners {
		for j := range f.Listeners[i].Certificates {
			c := &f.Listeners[i].Certificates[j]
			c.CertFile, c.KeyFile = within(dir, c.CertFile), within(dir, c.KeyFile)
		}
	}
	f.check(d)
	salt, ids, control := f.saltKey(d, dir), f.ProducerIDs.resolve(d, dir), f.Control.resolve(&f, d, dir)
	problems.Sort()
	cfg := f.config(dir, logs)
	cfg.SaltKey, cfg.ProducerIDs, cfg.Control = salt, ids, control
	cfg.Fleet = f.Control.fleet()
	return cfg, problems
}

// resolve checks the source by opening it, which looks at nothing.
func (p *producerIDs) resolve(d *strictyaml.Document, dir string) (ids proxy.ProducerIDs) {
	ids.Deployment = p.Deployment
	if p.Deployment < 0 || p.Deployment >= producerid.Deployments {
		d.Problem("producerIDs.deployment", "must be 0 to %d", producerid.Deployments-1)
		return ids
	}
	if p.Source == "" {
		for field, written := range map[string]bool{"deployment": p.Deployment != 0, "password": p.Password != ""} {
			if written {
				d.Problem("producerIDs."+field, "needs producerIDs.source beside it")
			}
		}
		return ids
	}
	ids.Source = p.Source
	if path, ok := strings.CutPrefix(p.Source, "file:"); ok && path != "" {
		ids.Source = "file:" + within(dir, path)
	}
	if p.Password != "" {
		password, err := secret.Resolve(p.Password, dir)
		if err != nil {
			d.Problem("producerIDs.password", "%v", err)
			return ids
		}
		ids.Password = password
	}
	source, err := producerid.Open(ids.Source, ids.Password.Reveal(), ids.Deployment)
	if err != nil {
		d.Problem("producerIDs.source", "%v", err)
		return ids
	}
	if err := source.Close(); err != nil {
		d.Problem("producerIDs.source", "%v", err)
	}
	return ids
}

// saltKey resolves the reference. A short one could be guessed from the salts
// that clients are shown.
func (f *file) saltKey(d *strictyaml.Document, dir string) []byte {
	if f.SaltKey == "" {
		return nil
	}
	salt, err := secret.Resolve(f.SaltKey, dir)
	if err != nil {
		d.Problem("saltKey", "%v", err)
		return nil
	}
	if n := len(salt.Reveal()); n < 16 {
		d.Problem("saltKey", "holds %d bytes: 16 or more are needed", n)
	}
	return []byte(salt.Reveal())
}

func within(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func (f *file) check(d *strictyaml.Document) {
	if f.Log.Format != "text" && f.Log.Format != "json" {
		d.Problem("log.format", "%q is neither text nor json", f.Log.Format)
	}
	if _, _, ok := hostPort(f.Admin); f.Admin != "" && !ok {
		d.Problem("admin", "%q is not an address such as 127.0.0.1:9410", f.Admin)
	}
	notNegative(d, "drainGrace", f.DrainGrace)
	notNegative(d, "drainSpread", f.DrainSpread)
	positive(d, "drainTimeout", f.DrainTimeout)
	positive(d, "reloadEvery", f.ReloadEvery)
	f.Limits.check(d)
	for i, domain := range f.Domains {
		if strings.Trim(domain, ".") != domain || !strings.Contains(domain, ".") || strings.ToLower(domain) != domain {
			d.Problem(fmt.Sprintf("domains[%d]", i), "%q is not a domain such as gw.example.com, in lower case", domain)
		}
	}
	if len(f.Listeners) == 0 {
		d.Problem("listeners", "required: at least one")
	}
	names := make(map[string]int)
	var taken []span
	for i := range f.Listeners {
		l := &f.Listeners[i]
		bad := func(field, format string, args ...any) {
			d.Problem(fmt.Sprintf("listeners[%d].%s", i, field), format, args...)
		}
		if l.Name == "" {
			bad("name", "required: it names the listener in logs and metrics")
		} else if first, again := names[l.Name]; again {
			bad("name", "%q is also the name of listeners[%d]", l.Name, first)
		} else {
			names[l.Name] = i
		}
		if l.Routing == string(listener.BySNI) && len(f.Domains) == 0 {
			bad("routing", "sni needs domains: the hosts of virtual clusters are <host>.<domain>")
		}
		for _, s := range l.check(bad) {
			s.field = fmt.Sprintf("listeners[%d].%s", i, s.field)
			for _, t := range taken {
				if s.meets(t) {
					d.Problem(s.field, "ports %s are taken by %s", s, t.field)
				}
			}
			taken = append(taken, s)
		}
	}
}

// notNegative is positive where zero means something.
func notNegative(d *strictyaml.Document, path string, value time.Duration) {
	if value < 0 {
		d.Problem(path, "must not be negative: 0s is none")
	}
}

// positive reports a value below what can be meant. Zero that nobody wrote is the
// default.
func positive[T int | time.Duration](d *strictyaml.Document, path string, value T) {
	if value < 0 || value == 0 && d.Written(path) {
		d.Problem(path, "must be positive: leave it out for the default")
	}
}

func (l *limits) check(d *strictyaml.Document) {
	positive(d, "limits.connections", l.Connections)
	positive(d, "limits.connectionsPerAddress", l.PerAddress)
	positive(d, "limits.unauthenticatedConnections", l.Unauthenticated)
	positive(d, "limits.unauthenticatedConnectionsPerAddress", l.UnauthenticatedPerAddress)
	positive(d, "limits.requestsInFlight", l.InFlight)
	positive(d, "limits.handshakeTimeout", l.HandshakeTimeout)
	positive(d, "limits.authenticationTimeout", l.AuthenticationTimeout)
	positive(d, "limits.requestTimeout", l.RequestTimeout)
	positive(d, "limits.stallTimeout", l.StallTimeout)
	if l.RequestBytes > 1<<31-1 {
		d.Problem("limits.requestBytes", "is larger than a frame can be (2 GiB)")
	}
	// The other one of the two may be its default.
	frame, memory := cmp.Or(l.RequestBytes, 100<<20), cmp.Or(l.RequestMemory, 512<<20)
	if frame > memory {
		d.Problem("limits.requestMemory", "%d bytes are less than the %d of limits.requestBytes: the largest request would never be read", memory, frame)
	}
}

// check reports what is wrong within a listener, and returns the ports that it
// binds.
func (l *listening) check(bad func(field, format string, args ...any)) []span {
	host, port, ok := hostPort(l.Address)
	switch {
	case l.Address == "":
		bad("address", "required: host:port to listen on, such as 0.0.0.0:9092")
	case !ok:
		bad("address", "%q is not an address such as 0.0.0.0:9092", l.Address)
	}
	protocol := l.protocol()
	switch protocol {
	case listener.TLS, listener.SSL, listener.SASLSSL, listener.Plaintext, listener.SASLPlaintext:
	default:
		bad("protocol", "%q is none of TLS, SSL, SASL_SSL, PLAINTEXT, SASL_PLAINTEXT", l.Protocol)
		protocol = listener.TLS
	}
	switch {
	case protocol.Encrypted() && len(l.Certificates) == 0:
		bad("certificates", "required with protocol %s", protocol)
	case !protocol.Encrypted() && len(l.Certificates) > 0:
		bad("certificates", "protocol %s uses none", protocol)
	}
	for i, c := range l.Certificates {
		at := fmt.Sprintf("certificates[%d]", i)
		switch {
		case c.CertFile == "":
			bad(at+".certFile", "required")
		case c.KeyFile == "":
			bad(at+".keyFile", "required")
		default:
			if _, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile); err != nil {
				bad(at, "%v", err)
			}
		}
	}
	switch l.Routing {
	case string(listener.BySNI):
		l.checkSNI(protocol.Encrypted(), bad)
		if ok && port != 0 {
			return []span{{host, port, port, "address"}}
		}
	case string(listener.ByPort):
		return l.checkPort(host, port, ok, bad)
	case "":
		bad("routing", "required: sni or port")
	default:
		bad("routing", "%q is neither sni nor port", l.Routing)
	}
	return nil
}

func (l *listening) protocol() listener.Protocol {
	return listener.Protocol(cmp.Or(l.Protocol, string(listener.TLS)))
}

func (l *listening) checkSNI(encrypted bool, bad func(field, format string, args ...any)) {
	if !encrypted {
		bad("protocol", "%s has no handshake and so no host name to route by: use routing port", l.Protocol)
	}
	for _, f := range []struct {
		name    string
		written bool
	}{{"virtualCluster", l.VirtualCluster != ""}, {"advertisedHost", l.AdvertisedHost != ""}, {"brokerPorts", len(l.BrokerPorts) > 0}} {
		if f.written {
			bad(f.name, "belongs to routing port")
		}
	}
}

func (l *listening) checkPort(host string, port uint16, ok bool, bad func(field, format string, args ...any)) []span {
	if l.Protocol == "" {
		bad("protocol", "required with routing port: SASL_SSL, for one")
	}
	if l.AdvertisedPort != 0 {
		bad("advertisedPort", "belongs to routing sni")
	}
	if l.VirtualCluster == "" {
		bad("virtualCluster", "required with routing port")
	}
	if ip, err := netip.ParseAddr(host); ok && l.AdvertisedHost == "" && (host == "" || err == nil && ip.IsUnspecified()) {
		bad("advertisedHost", "required: clients cannot be sent to %s", l.Address)
	}
	if len(l.BrokerPorts) == 0 {
		bad("brokerPorts", "required with routing port: a range such as 9502-9600")
	}
	var spans []span
	if ok && port != 0 {
		spans = append(spans, span{host, port, port, "address"})
	}
	const maxNode = 1<<30 - 1
	for i, b := range l.BrokerPorts {
		at := fmt.Sprintf("brokerPorts[%d]", i)
		if b.Ports == (portRange{}) {
			bad(at+".ports", "required: a range such as 9502-9600")
			continue
		}
		if ok {
			spans = append(spans, span{host, b.Ports.first, b.Ports.last, at})
		}
		if b.FirstNode < 0 || int64(b.FirstNode)+int64(b.Ports.count()) > maxNode+1 {
			bad(at+".firstNode", "virtual node ids are 0 to %d", maxNode)
		}
		if b.Advertised != 0 && int(b.Advertised)+b.Ports.count() > 1<<16 {
			bad(at+".advertised", "leaves no room for %d ports below 65536", b.Ports.count())
		}
		for j, o := range l.BrokerPorts[:i] {
			if int64(o.FirstNode) < int64(b.FirstNode)+int64(b.Ports.count()) && int64(b.FirstNode) < int64(o.FirstNode)+int64(o.Ports.count()) {
				bad(at+".firstNode", "virtual nodes %d-%d have ports in brokerPorts[%d] already", max(b.FirstNode, o.FirstNode),
					min(int(b.FirstNode)+b.Ports.count(), int(o.FirstNode)+o.Ports.count())-1, j)
			}
		}
	}
	return spans
}

// span is a range of ports that a listener binds.
type span struct {
	host        string
	first, last uint16
	field       string
}

func (s span) String() string {
	if s.first == s.last {
		return strconv.Itoa(int(s.first))
	}
	return fmt.Sprintf("%d-%d", s.first, s.last)
}

func (s span) meets(t span) bool {
	all := func(host string) bool {
		ip, err := netip.ParseAddr(host)
		return host == "" || err == nil && ip.IsUnspecified()
	}
	return s.first <= t.last && t.first <= s.last && (s.host == t.host || all(s.host) || all(t.host))
}

func hostPort(address string) (host string, port uint16, ok bool) {
	host, p, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, false
	}
	n, err := strconv.ParseUint(p, 10, 16)
	return host, uint16(n), err == nil
}

// config is what the file says, in the words of the proxy.
func (f *file) config(dir string, logs io.Writer) proxy.Config {
	options := &slog.HandlerOptions{Level: f.Log.Level}
	var handler slog.Handler = slog.NewTextHandler(logs, options)
	if f.Log.Format == "json" {
		handler = slog.NewJSONHandler(logs, options)
	}
	cfg := proxy.Config{
		Resources: within(dir, f.Resources),
		Domains:   f.Domains,
		Admin:     f.Admin,
		Log:       slog.New(handler),
		Limits: listener.Limits{
			HandshakeTimeout:           f.Limits.HandshakeTimeout,
			AuthenticationTimeout:      f.Limits.AuthenticationTimeout,
			Connections:                f.Limits.Connections,
			ConnectionsPerAddress:      f.Limits.PerAddress,
			UnauthenticatedConnections: f.Limits.Unauthenticated,
			// Half, so that one address cannot lock out all the others.
			UnauthenticatedConnectionsPerAddress: cmp.Or(f.Limits.UnauthenticatedPerAddress, (f.Limits.Unauthenticated+1)/2),
		},
		MaxFrameBytes: int32(f.Limits.RequestBytes),
		RequestMemory: int64(f.Limits.RequestMemory),
		FrameTimeout:  f.Limits.RequestTimeout,
		StallTimeout:  f.Limits.StallTimeout,
		InFlight:      f.Limits.InFlight,
		DrainGrace:    f.DrainGrace,
		DrainSpread:   f.DrainSpread,
		DrainTimeout:  f.DrainTimeout,
		ReloadEvery:   f.ReloadEvery,
	}
	for _, l := range f.Listeners {
		spec := listener.Spec{
			Name: l.Name, Address: l.Address, Routing: listener.Routing(l.Routing), Protocol: l.protocol(),
			AdvertisedPort: l.AdvertisedPort, VirtualCluster: l.VirtualCluster, AdvertisedHost: l.AdvertisedHost,
		}
		for _, from := range l.ProxyProtocol {
			spec.ProxyProtocol = append(spec.ProxyProtocol, from.Prefix)
		}
		for _, c := range l.Certificates {
			spec.Certificates = append(spec.Certificates, listener.KeyPair{CertFile: c.CertFile, KeyFile: c.KeyFile})
		}
		for _, b := range l.BrokerPorts {
			spec.BrokerPorts = append(spec.BrokerPorts, listener.PortRange{
				First: b.Ports.first, Count: b.Ports.count(), Lowest: b.FirstNode, Advertised: b.Advertised,
			})
		}
		cfg.Listeners = append(cfg.Listeners, spec)
	}
	return cfg
}
