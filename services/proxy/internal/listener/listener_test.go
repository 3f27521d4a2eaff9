package listener

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"hash/crc32"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tollgate.internal/services/proxy/internal/quota"
	"tollgate.internal/services/proxy/internal/refusal"
)

// authority issues the certificates of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

var serial atomic.Int64

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), Subject: pkix.Name{CommonName: "test authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert, key, pool}
}

func (a *authority) issue(t *testing.T, names ...string) (certPEM, keyPEM []byte, pair tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if pair, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	return certPEM, keyPEM, pair
}

func (a *authority) files(t *testing.T, names ...string) KeyPair {
	t.Helper()
	dir := t.TempDir()
	pair := KeyPair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	a.write(t, pair, names...)
	return pair
}

func (a *authority) write(t *testing.T, pair KeyPair, names ...string) {
	t.Helper()
	cert, key, _ := a.issue(t, names...)
	for name, content := range map[string][]byte{pair.CertFile: cert, pair.KeyFile: key} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

type router struct {
	*Names
	cas      map[string]*x509.CertPool
	required bool
	quotas   *quota.Quotas
	unknown  error // nobody knows whose the name is
}

func (r *router) Host(_ context.Context, name string) (Route, bool, error) {
	route, ok := r.Names.Host(name)
	return route, ok, r.unknown
}

func (r *router) ClientCAs(vc string) *x509.CertPool    { return r.cas[vc] }
func (r *router) ClientCertificateRequired(string) bool { return r.required }
func (r *router) Quotas(string) *quota.Quotas           { return r.quotas }

func newRouter(t *testing.T) *router {
	t.Helper()
	names, err := NewNames([]string{"gw.test"}, []Hosts{
		{VirtualCluster: "acme-prod", Label: "acme", Custom: []string{"kafka.acme.test"}},
		{VirtualCluster: "bolt-prod", Label: "bolt"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &router{Names: names}
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// bench is a Listener that serves, and what came of its connections.
type bench struct {
	*Listener
	sessions chan *Conn
	refused  chan *refusal.Refusal
	log      *logBuffer
	end      context.CancelFunc
	ended    chan error
}

// serve starts a listener whose sessions echo what they read.
func serve(t *testing.T, cfg Config) *bench {
	t.Helper()
	b := &bench{sessions: make(chan *Conn, 16), refused: make(chan *refusal.Refusal, 16), log: &logBuffer{}, ended: make(chan error, 1)}
	cfg.Log = slog.New(slog.NewTextHandler(b.log, nil))
	cfg.Refused = func(r *refusal.Refusal) { b.refused <- r }
	cfg.Handle = func(_ context.Context, c *Conn) {
		b.sessions <- c
		_, _ = io.Copy(c, c) // ends with the connection, whoever closes it
	}
	if cfg.Router == nil {
		cfg.Router = newRouter(t)
	}
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.Listener = l
	ctx, end := context.WithCancel(t.Context())
	b.end = end
	go func() { b.ended <- l.Serve(ctx) }()
	t.Cleanup(func() {
		end()
		b.wait(t)
	})
	return b
}

func (b *bench) wait(t *testing.T) {
	t.Helper()
	select {
	case err, ok := <-b.ended:
		if ok && err != nil {
			t.Errorf("Serve: %v", err)
		}
		if ok {
			close(b.ended)
		}
	case <-time.After(20 * time.Second):
		t.Error("Serve does not return")
	}
}

func within[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("no %s in time", what)
		panic("unreachable")
	}
}

func (b *bench) wantRefusal(t *testing.T, want *refusal.Refusal) {
	t.Helper()
	if got := within(t, b.refused, "refusal"); got != want {
		t.Errorf("refused with %v, want %v", got, want)
	}
}

func dial(t *testing.T, addr net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func echo(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatalf("write: %v", err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "ping" {
		t.Fatalf("read %q, %v; want the echo", got, err)
	}
}

func sniSpec(pairs ...KeyPair) Spec {
	return Spec{Name: "public", Address: "127.0.0.1:0", Routing: BySNI, Certificates: pairs, AdvertisedPort: 9092}
}

func TestAHostNameLeadsToItsVirtualClusterAndBroker(t *testing.T) {
	ca := newAuthority(t)
	wrapped := make(chan net.Conn, 16)
	b := serve(t, Config{
		Specs: []Spec{sniSpec(ca.files(t, "*.gw.test"), ca.files(t, "*.acme.test"))},
		Wrap:  func(c net.Conn) net.Conn { wrapped <- c; return struct{ net.Conn }{c} },
	})
	for _, tc := range []struct {
		name  string
		route Route
		next  string // where broker 65537 is for this client
	}{
		{"acme.gw.test", Route{"acme-prod", Bootstrap}, "b65537-acme.gw.test"},
		{"ACME.gw.test", Route{"acme-prod", Bootstrap}, "b65537-acme.gw.test"},
		{"b0-acme.gw.test", Route{"acme-prod", 0}, "b65537-acme.gw.test"},
		{"b65537-bolt.gw.test", Route{"bolt-prod", 65537}, "b65537-bolt.gw.test"},
		{"kafka.acme.test", Route{"acme-prod", Bootstrap}, "b65537-kafka.acme.test"},
		{"b7-kafka.acme.test", Route{"acme-prod", 7}, "b65537-kafka.acme.test"},
	} {
		client := tls.Client(dial(t, b.Addr("public")), &tls.Config{ServerName: tc.name, RootCAs: ca.pool})
		echo(t, client)
		c := within(t, b.sessions, "session")
		if c.Route != tc.route {
			t.Errorf("%s: route %v, want %v", tc.name, c.Route, tc.route)
		}
		if host, port := c.Advertise(65537); host != tc.next || port != 9092 {
			t.Errorf("%s: Advertise = %s:%d, want %s:9092", tc.name, host, port, tc.next)
		}
		if c.Remote != netip.MustParseAddr("127.0.0.1") || c.TLS == nil || c.Spec.Name != "public" {
			t.Errorf("%s: remote %v, TLS %v, spec %v", tc.name, c.Remote, c.TLS != nil, c.Spec)
		}
		if w := within(t, wrapped, "wrapped socket"); c.Raw != (struct{ net.Conn }{w}) {
			t.Errorf("%s: Raw is not what Wrap returned", tc.name)
		}
	}
}

func TestAnUnknownHostIsClosedAndTheLogNamesThoseThatWork(t *testing.T) {
	ca := newAuthority(t)
	for _, tc := range []struct {
		server string
		want   *refusal.Refusal
	}{
		{"nobody.gw.test", refusal.ServerNameUnknown},
		{"b07-acme.gw.test", refusal.ServerNameUnknown},
		{"b1-b2-acme.gw.test", refusal.ServerNameUnknown},
		{"b1073741824-acme.gw.test", refusal.ServerNameUnknown},
		{"", refusal.ServerNameMissing},
		{"kafka.acme.test", refusal.NoCertificate}, // known, but the certificate is for gw.test alone
	} {
		b := serve(t, Config{Specs: []Spec{sniSpec(ca.files(t, "*.gw.test"))}})
		client := tls.Client(dial(t, b.Addr("public")), &tls.Config{ServerName: tc.server, RootCAs: ca.pool, InsecureSkipVerify: tc.server == ""})
		err := client.Handshake()
		if err == nil {
			t.Fatalf("%q: the handshake succeeded", tc.server)
		}
		b.wantRefusal(t, tc.want)
		b.end()
		b.wait(t)
		if tc.want == refusal.NoCertificate {
			continue
		}
		if !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%q: the client sees %v, want the alert unrecognized name", tc.server, err)
		}
		if log := b.log.String(); !strings.Contains(log, "acme.gw.test, bolt.gw.test, kafka.acme.test") || !strings.Contains(log, "refusal="+tc.want.ID) {
			t.Errorf("%q: the log names no host that works: %s", tc.server, log)
		}
	}
}

// An alert is final to a client. While nobody knows whose a name is there is none: the
// client comes back.
func TestAHostNobodyCanLookUpIsClosedWithoutAnAlert(t *testing.T) {
	ca := newAuthority(t)
	r := newRouter(t)
	r.unknown = errors.New("the store is away")
	b := serve(t, Config{Specs: []Spec{sniSpec(ca.files(t, "*.gw.test"))}, Router: r})
	client := tls.Client(dial(t, b.Addr("public")), &tls.Config{ServerName: "acme.gw.test", RootCAs: ca.pool})
	if err := client.Handshake(); err == nil || strings.Contains(err.Error(), "tls: ") {
		t.Errorf("the client sees %v, want a connection that is closed", err)
	}
	b.wantRefusal(t, refusal.VirtualClusterNotLoaded)
	if log := b.log.String(); !strings.Contains(log, "the store is away") {
		t.Errorf("the log does not say why: %s", log)
	}
}

func TestBytesThatAreNoHandshakeAreToldApart(t *testing.T) {
	ca := newAuthority(t)
	for _, tc := range []struct {
		name, sent string
		want       *refusal.Refusal
	}{
		{"a plaintext Kafka client", "\x00\x00\x00\x10\x00\x12\x00\x03\x00\x00", refusal.NotTLS},
		{"a balancer that is not listed", proxySignature + "\x21\x11\x00\x0c", refusal.ProxyHeaderUnlisted},
		{"a health check", "", refusal.ClientGone},
	} {
		b := serve(t, Config{Specs: []Spec{sniSpec(ca.files(t, "*.gw.test"))}})
		c := dial(t, b.Addr("public"))
		if _, err := c.Write([]byte(tc.sent)); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		t.Log(tc.name)
		b.wantRefusal(t, tc.want)
	}
}

func TestASlowHandshakeAndASlowLoginAreEnded(t *testing.T) {
	ca := newAuthority(t)
	b := serve(t, Config{
		Specs:  []Spec{sniSpec(ca.files(t, "*.gw.test"))},
		Limits: Limits{HandshakeTimeout: 50 * time.Millisecond},
	})
	if _, err := dial(t, b.Addr("public")).Write([]byte{22, 3, 1}); err != nil { // slow loris
		t.Fatal(err)
	}
	b.wantRefusal(t, refusal.HandshakeTimeout)

	b = serve(t, Config{Specs: []Spec{portSpec(t)}, Limits: Limits{AuthenticationTimeout: 50 * time.Millisecond}})
	c := dial(t, b.Addr("ports"))
	b.wantRefusal(t, refusal.AuthenticationTimeout)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is open after the time to authenticate")
	}
}

// freePorts returns the first of n consecutive ports that were free just now.
func freePorts(t *testing.T, n int) uint16 {
	t.Helper()
	for range 50 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		first := ln.Addr().(*net.TCPAddr).Port
		open := []net.Listener{ln}
		for i := 1; i < n && first+n < 1<<16; i++ {
			if ln, err = net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(first+i)).String()); err != nil {
				break
			}
			open = append(open, ln)
		}
		for _, ln := range open {
			ln.Close()
		}
		if len(open) == n {
			return uint16(first)
		}
	}
	t.Fatal("no free ports")
	return 0
}

func portSpec(t *testing.T) Spec {
	return Spec{
		Name: "ports", Address: "127.0.0.1:0", Routing: ByPort, Protocol: SASLPlaintext, VirtualCluster: "acme-prod", AdvertisedHost: "gw.example",
		BrokerPorts: []PortRange{
			{First: freePorts(t, 4), Count: 4, Advertised: 31000},
			{First: 60000, Count: 100, Lowest: 1<<16 + 1000},
		},
	}
}

func TestAPortLeadsToItsBroker(t *testing.T) {
	spec := portSpec(t)
	b := serve(t, Config{Specs: []Spec{spec}})
	if err := b.SetBrokers("somebody-else", []int32{3}); err != nil {
		t.Fatal(err)
	}
	if err := b.SetBrokers("acme-prod", []int32{0, 2}); err != nil {
		t.Fatal(err)
	}
	broker := func(n uint16) string {
		return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), spec.BrokerPorts[0].First+n).String()
	}
	live, err := net.Dial("tcp", broker(2))
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	echo(t, live)
	c := within(t, b.sessions, "session")
	if c.Route != (Route{"acme-prod", 2}) || c.TLS != nil {
		t.Errorf("route %v, TLS %v", c.Route, c.TLS)
	}
	for node, want := range map[int32]int32{0: 31000, 3: 31003, 1<<16 + 1000: 60000, 1<<16 + 1099: 60099, 4: 0, 1 << 16: 0} {
		host, port := c.Advertise(node)
		if port != want || (host == "gw.example") != (want != 0) {
			t.Errorf("Advertise(%d) = %s:%d, want port %d", node, host, port, want)
		}
	}
	if c, err := net.Dial("tcp", broker(1)); err == nil {
		c.Close()
		t.Error("a broker that does not exist has a socket")
	}
	// Broker 2 leaves: its socket closes, its connections stay.
	if err := b.SetBrokers("acme-prod", []int32{0}); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", broker(2)); err == nil {
		c.Close()
		t.Error("a broker that left has a socket")
	}
	echo(t, live)
	if err := b.SetBrokers("acme-prod", []int32{0, 99}); err == nil || !strings.Contains(err.Error(), "node 99") {
		t.Errorf("SetBrokers of a node without a port: %v", err)
	}
}

func TestCertificatesAreReplacedUnderLiveConnections(t *testing.T) {
	ca := newAuthority(t)
	files := ca.files(t, "*.gw.test")
	b := serve(t, Config{Specs: []Spec{sniSpec(files)}, CertificatePoll: time.Millisecond})
	connect := func() (*tls.Conn, *big.Int) {
		c := tls.Client(dial(t, b.Addr("public")), &tls.Config{ServerName: "acme.gw.test", RootCAs: ca.pool})
		echo(t, c)
		return c, c.ConnectionState().PeerCertificates[0].SerialNumber
	}
	live, before := connect()
	if err := os.WriteFile(files.KeyFile, []byte("half a k"), 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(b.log.String(), "certificates not reloaded"); {
		if time.Now().After(deadline) {
			t.Fatal("a broken key is not logged")
		}
	}
	if _, serial := connect(); serial.Cmp(before) != 0 {
		t.Error("a broken key replaced the certificate")
	}
	ca.write(t, files, "*.gw.test")
	for deadline := time.Now().Add(20 * time.Second); ; {
		if _, serial := connect(); serial.Cmp(before) != 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the new certificate is not served")
		}
	}
	echo(t, live)
}

func TestACertificateIsChosenByNameExactBeforeWildcard(t *testing.T) {
	ca := newAuthority(t)
	b := serve(t, Config{Specs: []Spec{sniSpec(ca.files(t, "*.acme.test"), ca.files(t, "*.gw.test"), ca.files(t, "bolt.gw.test"))}})
	for server, want := range map[string]string{"acme.gw.test": "*.gw.test", "bolt.gw.test": "bolt.gw.test", "b1-bolt.gw.test": "*.gw.test", "kafka.acme.test": "*.acme.test"} {
		c := tls.Client(dial(t, b.Addr("public")), &tls.Config{ServerName: server, RootCAs: ca.pool})
		if err := c.Handshake(); err != nil {
			t.Fatalf("%s: %v", server, err)
		}
		if got := c.ConnectionState().PeerCertificates[0].DNSNames[0]; got != want {
			t.Errorf("%s: certificate %s, want %s", server, got, want)
		}
	}
}

func TestClientCertificatesAreJudgedByTheVirtualClustersOwnAuthority(t *testing.T) {
	ca, acme, other := newAuthority(t), newAuthority(t), newAuthority(t)
	_, _, good := acme.issue(t, "shipping")
	_, _, bad := other.issue(t, "shipping")
	for _, tc := range []struct {
		name     string
		server   string
		protocol Protocol
		required bool
		cert     *tls.Certificate
		ok       bool
		peers    int
	}{
		{"its own client", "acme.gw.test", TLS, true, &good, true, 1},
		{"somebody else's client", "acme.gw.test", TLS, true, &bad, false, 0},
		{"none where one is needed", "acme.gw.test", TLS, true, nil, false, 0},
		{"none where SASL would do", "acme.gw.test", TLS, false, nil, true, 0},
		{"a bad one where SASL would do", "acme.gw.test", TLS, false, &bad, false, 0},
		{"not asked for in another virtual cluster", "bolt.gw.test", TLS, true, &good, true, 0},
		{"none on SSL, where nothing else would authenticate", "acme.gw.test", SSL, false, nil, false, 0},
		{"not asked for on SASL_SSL", "acme.gw.test", SASLSSL, true, &good, true, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRouter(t)
			r.cas, r.required = map[string]*x509.CertPool{"acme-prod": acme.pool}, tc.required
			spec := sniSpec(ca.files(t, "*.gw.test"))
			spec.Protocol = tc.protocol
			b := serve(t, Config{Specs: []Spec{spec}, Router: r})
			client := tls.Client(dial(t, b.Addr("public")), &tls.Config{
				ServerName: tc.server, RootCAs: ca.pool,
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					if tc.cert == nil {
						return &tls.Certificate{}, nil
					}
					return tc.cert, nil
				},
			})
			if !tc.ok {
				_ = client.Handshake() // with TLS 1.3 the client learns it only when it reads
				b.wantRefusal(t, refusal.ClientCertificateRefused)
				return
			}
			echo(t, client)
			if c := within(t, b.sessions, "session"); len(c.TLS.PeerCertificates) != tc.peers {
				t.Errorf("%d peer certificates, want %d", len(c.TLS.PeerCertificates), tc.peers)
			}
		})
	}
}

func TestTLSBelow12IsRefused(t *testing.T) {
	ca := newAuthority(t)
	b := serve(t, Config{Specs: []Spec{sniSpec(ca.files(t, "*.gw.test"))}})
	client := tls.Client(dial(t, b.Addr("public")), &tls.Config{ServerName: "acme.gw.test", RootCAs: ca.pool, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	if err := client.Handshake(); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
	b.wantRefusal(t, refusal.HandshakeFailed)
}

func proxyHeader(command byte, family byte, body []byte) []byte {
	h := append([]byte(proxySignature), 2<<4|command, family)
	h = binary.BigEndian.AppendUint16(h, uint16(len(body)))
	return append(h, body...)
}

// withCRC adds a checksum, which is off by some.
func withCRC(addresses []byte, off uint32) []byte {
	h := proxyHeader(1, 0x11, append(slices.Clone(addresses), tlvCRC32C, 0, 4, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(h[len(h)-4:], crc32.Checksum(h, castagnoli)+off)
	return h
}

func TestAListedBalancerNamesTheClient(t *testing.T) {
	v4 := []byte{203, 0, 113, 9, 10, 0, 0, 1, 0x80, 0, 0x23, 0x84}
	v6 := slices.Concat(netip.MustParseAddr("2001:db8::7").AsSlice(), make([]byte, 20), []byte{4, 0, 1, 9}) // and a TLV
	for _, tc := range []struct {
		name   string
		header []byte
		remote string
	}{
		{"TCP4", proxyHeader(1, 0x11, v4), "203.0.113.9"},
		{"TCP6 with a TLV", proxyHeader(1, 0x21, v6), "2001:db8::7"},
		{"a connection of the balancer itself", proxyHeader(0, 0, nil), "127.0.0.1"},
		{"a family it cannot express", proxyHeader(1, 0, []byte{1, 2, 3}), "127.0.0.1"},
		{"addresses cut off", proxyHeader(1, 0x11, v4[:11]), ""},
		{"UDP", proxyHeader(1, 0x12, v4), ""},
		{"an unknown command", proxyHeader(2, 0x11, v4), ""},
		{"too long", append([]byte(proxySignature), 0x21, 0x11, 0xff, 0xff), ""},
		{"with its checksum", withCRC(v4, 0), "203.0.113.9"},
		{"a checksum that does not match", withCRC(v4, 1), ""},
		{"a TLV cut off", proxyHeader(1, 0x11, append(slices.Clone(v4), 4, 0, 9, 1)), ""},
		{"version 1", []byte("PROXY TCP4 203.0.113.9 10.0.0.1 1 2\r\n"), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec := portSpec(t)
			spec.ProxyProtocol = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			b := serve(t, Config{Specs: []Spec{spec}})
			c := dial(t, b.Addr("ports"))
			if _, err := c.Write(tc.header); err != nil {
				t.Fatal(err)
			}
			if tc.remote == "" {
				b.wantRefusal(t, refusal.ProxyHeaderInvalid)
				return
			}
			echo(t, c) // not a byte of the session was taken for the header's
			if got := within(t, b.sessions, "session").Remote; got != netip.MustParseAddr(tc.remote) {
				t.Errorf("remote %v, want %s", got, tc.remote)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	for _, tc := range []struct {
		name   string
		limits Limits
		vc     int64
		proved bool // the first connection authenticates
		want   *refusal.Refusal
	}{
		{"of the node", Limits{Connections: 1}, 0, true, refusal.TooManyConnections},
		{"unauthenticated", Limits{UnauthenticatedConnections: 1}, 0, false, refusal.TooManyUnauthenticated},
		{"unauthenticated, the first has authenticated", Limits{UnauthenticatedConnections: 1}, 0, true, nil},
		{"of an address", Limits{ConnectionsPerAddress: 1}, 0, true, refusal.TooManyFromAddress},
		{"unauthenticated of an address", Limits{UnauthenticatedConnectionsPerAddress: 1}, 0, false, refusal.TooManyUnauthenticatedFromAddress},
		{"unauthenticated of an address, the first has authenticated", Limits{UnauthenticatedConnectionsPerAddress: 1}, 0, true, nil},
		{"of a virtual cluster", Limits{}, 1, true, refusal.TooManyOfVirtualCluster},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRouter(t)
			r.quotas = quotasOf(quota.Limits{Connections: tc.vc})
			b := serve(t, Config{Specs: []Spec{portSpec(t)}, Limits: tc.limits, Router: r})
			first := dial(t, b.Addr("ports"))
			c := within(t, b.sessions, "session")
			if tc.proved {
				c.Authenticated(t.Context())
				c.Authenticated(t.Context()) // twice is once
			}
			second := dial(t, b.Addr("ports"))
			if tc.want == nil {
				echo(t, second)
				return
			}
			b.wantRefusal(t, tc.want)
			echo(t, first)
			// The place comes free again.
			first.Close()
			for deadline := time.Now().Add(20 * time.Second); ; {
				again := dial(t, b.Addr("ports"))
				select {
				case <-b.sessions:
					echo(t, again) // and was not closed meanwhile
					return
				case <-b.refused:
				}
				if time.Now().After(deadline) {
					t.Fatal("the place of a closed connection is not given back")
				}
			}
		})
	}
}

func quotasOf(l quota.Limits) *quota.Quotas {
	q := quota.New("vc:acme-prod", nil)
	q.Set(l)
	return q
}

// Strangers who know a host name must not use up a tenant's connections.
func TestOnlyAuthenticatedConnectionsCountInAVirtualCluster(t *testing.T) {
	r := newRouter(t)
	r.quotas = quotasOf(quota.Limits{Connections: 1})
	b := serve(t, Config{Specs: []Spec{portSpec(t)}, Router: r})
	echo(t, dial(t, b.Addr("ports")))
	stranger := within(t, b.sessions, "session")
	client := dial(t, b.Addr("ports"))
	within(t, b.sessions, "session").Authenticated(t.Context())
	echo(t, client)
	stranger.Authenticated(t.Context()) // too late: the place is taken
	b.wantRefusal(t, refusal.TooManyOfVirtualCluster)
	echo(t, client)
}

func TestCountsGoBackToZero(t *testing.T) {
	l := newLimiter(Limits{})
	quotas := quotasOf(quota.Limits{Connections: 1})
	for i, addr := range []string{"127.0.0.1", "2001:db8::1", "2001:db8::2"} {
		var c counts
		if err := l.enter(&c); err != nil {
			t.Fatal(err)
		}
		if err := l.enterAddress(&c, netip.MustParseAddr(addr)); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			if err := l.authenticated(t.Context(), &c, quotas); err != nil {
				t.Fatal(err)
			}
		}
		l.leave(&c)
		l.leave(&c)
	}
	if l.all != 0 || l.unproved != 0 || len(l.byAddress)+len(l.unprovedByAddress) != 0 {
		t.Errorf("left over: %+v", l)
	}
	if quotas.Connections.Full() {
		t.Error("a connection that left is still counted in its virtual cluster")
	}
	var a, b counts
	l.limits.ConnectionsPerAddress = 1
	if err := l.enterAddress(&a, netip.MustParseAddr("2001:db8::1")); err != nil {
		t.Fatal(err)
	}
	if err := l.enterAddress(&b, netip.MustParseAddr("2001:db8::2")); err == nil {
		t.Error("one IPv6 subscriber counts as many")
	}
}

// hungry has no file descriptors for its first Accepts.
type hungry struct {
	net.Listener
	failures atomic.Int32
}

func (h *hungry) Accept() (net.Conn, error) {
	if h.failures.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return h.Listener.Accept()
}

func TestRunningOutOfFileDescriptorsEndsNothing(t *testing.T) {
	b := serve(t, Config{
		Specs: []Spec{portSpec(t)},
		Listen: func(ctx context.Context, network, address string) (net.Listener, error) {
			ln, err := new(net.ListenConfig).Listen(ctx, network, address)
			h := &hungry{Listener: ln}
			h.failures.Store(3)
			return h, err
		},
	})
	for range 3 {
		b.wantRefusal(t, refusal.SocketsExhausted)
	}
	echo(t, dial(t, b.Addr("ports")))
	if n := strings.Count(b.log.String(), "accept failed"); n != 1 {
		t.Errorf("%d log lines within a second, want 1", n)
	}
}

func TestStopKeepsThoseWhoAreIn(t *testing.T) {
	b := serve(t, Config{Specs: []Spec{portSpec(t)}})
	addr := b.Addr("ports")
	c := dial(t, addr)
	echo(t, c)
	b.Stop()
	b.Stop()
	if c, err := net.Dial("tcp", addr.String()); err == nil {
		c.Close()
		t.Error("somebody came in after Stop")
	}
	if err := b.SetBrokers("acme-prod", []int32{1}); err != nil {
		t.Errorf("SetBrokers after Stop: %v", err)
	}
	echo(t, c)
	c.Close()
	b.wait(t) // the last session is over
}

func TestTheEndOfServeClosesEverything(t *testing.T) {
	b := serve(t, Config{Specs: []Spec{portSpec(t)}})
	c := dial(t, b.Addr("ports"))
	echo(t, c)
	b.end()
	b.wait(t)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlived Serve")
	}
}

func TestWhatIsWrongWithASpec(t *testing.T) {
	ok := PortRange{First: 9502, Count: 10}
	for _, tc := range []struct {
		spec Spec
		want string
	}{
		{Spec{Address: ":1", Routing: BySNI}, "needs a certificate"},
		{Spec{Address: ":1", Routing: BySNI, Protocol: Plaintext}, "sni routing needs TLS"},
		{Spec{Address: ":1", Routing: "dns", Protocol: Plaintext}, `"dns" is neither sni nor port`},
		{Spec{Address: "h:1", Routing: ByPort, VirtualCluster: "v", BrokerPorts: []PortRange{ok}}, `protocol ""`},
		{Spec{Address: "h:1", Routing: ByPort, Protocol: Plaintext}, "needs a virtual cluster"},
		{Spec{Address: "0.0.0.0:1", Routing: ByPort, Protocol: Plaintext, VirtualCluster: "v", BrokerPorts: []PortRange{ok}}, "set an advertised host"},
		{Spec{Address: "h:9505", Routing: ByPort, Protocol: Plaintext, VirtualCluster: "v", BrokerPorts: []PortRange{ok}}, "the bootstrap port 9505 is one of them"},
		{Spec{Address: "h:1", Routing: ByPort, Protocol: Plaintext, VirtualCluster: "v", BrokerPorts: []PortRange{ok, {First: 9511, Count: 2, Lowest: 20}}}, "overlap"},
		{Spec{Address: "h:1", Routing: ByPort, Protocol: Plaintext, VirtualCluster: "v", BrokerPorts: []PortRange{ok, {First: 9600, Count: 2, Lowest: 9}}}, "same node ids"},
		{Spec{Address: "h:1", Routing: ByPort, Protocol: Plaintext, VirtualCluster: "v", BrokerPorts: []PortRange{{First: 65530, Count: 10}}}, "below 65536"},
		{Spec{Address: "h", Routing: ByPort, Protocol: Plaintext}, "missing port"},
	} {
		tc.spec.Name = "x"
		_, err := New(Config{Specs: []Spec{tc.spec}, Router: newRouter(t), Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("New(%+v) = %v, want %q", tc.spec, err, tc.want)
		}
	}
}
