package proxy_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"tollgate.internal/services/proxy"
)

// logBook keeps what was logged.
type logBook struct {
	mu    sync.Mutex
	lines []string
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

// with are the lines that have all of the words.
func (l *logBook) with(words ...string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
next:
	for _, line := range l.lines {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

// gateway is a proxy over a kfake cluster.
type gateway struct {
	addr      string
	admin     string
	roots     *x509.CertPool
	resources string
	upstream  *kfake.Cluster
	dial      func(ctx context.Context, network, address string) (net.Conn, error)
	cfg       proxy.Config
	log       *logBook
	brokers   *brokerLines
	usage     iter.Seq[proxy.Usage]
	stop      func() error // drains the proxy, as the end of the test does
}

// loopback gives the connections of a network within the process addresses as TCP
// has them.
type loopback struct{ net.Listener }

func (l *loopback) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &loopbackConn{c}, nil
}

func (l *loopback) Addr() net.Addr {
	addr, err := net.ResolveTCPAddr("tcp", strings.Replace(l.Listener.Addr().String(), "localhost", "127.0.0.1", 1))
	if err != nil {
		return l.Listener.Addr()
	}
	return addr
}

type loopbackConn struct{ net.Conn }

func (c *loopbackConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711}
}

const resources = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: [%s]}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: acme-dev, tenant: acme}
spec:
  type: standard
  host: acme-dev
  home: main
  autoCreateTopics: true
  authentication: {plain: {}, scram: {}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: acme-prod, tenant: acme}
spec:
  type: partner
  host: acme
  home: main
  authentication: {plain: {}, scram: {}}
  acls: {superUsers: ["User:admin"]}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: open, tenant: acme}, spec: {type: standard, host: open, home: main, authentication: {anonymous: {}}}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: orders, tenant: acme}, spec: {cluster: main, topic: {name: shop.orders.v2}, access: read-write}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: orders, virtualCluster: acme-prod}, spec: {cluster: main, topic: shop.orders.v2}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: dev, virtualCluster: acme-dev}, spec: {type: local, password: "file:dev.secret"}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: admin, virtualCluster: acme-prod}, spec: {type: local, password: "file:dev.secret"}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: reader, virtualCluster: acme-prod}, spec: {type: local, password: "file:dev.secret"}}
`

// loginDev logs in to acme-dev.
var loginDev = kgo.SASL(scram.Auth{User: "dev", Pass: "dev-secret"}.AsSha512Mechanism())

func start(t *testing.T, opts ...kfake.Opt) *gateway { return startOn(t, nil, opts...) }

// startOn starts everything on a network within the process, which a bubble needs;
// nil: on TCP, with an admin listener.
func startOn(t *testing.T, network *kfake.VirtualNetwork, more ...kfake.Opt) *gateway {
	t.Helper()
	log, brokers := new(logBook), new(brokerLines)
	cfg := proxy.Config{
		Domains: []string{"gw.test"}, Admin: "127.0.0.1:0",
		Log: slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), log), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	listen, opts := "127.0.0.1:0", []kfake.Opt{kfake.NumBrokers(3), kfake.ClusterID(upstreamID), kfake.SeedTopics(3, "shop.orders.v2", "other.secret", "globex.hidden")}
	brokers.dial = (&net.Dialer{}).DialContext
	cfg.Dial = brokers.Dial
	if network != nil {
		listen, cfg.Admin = "127.0.0.1:9092", ""
		cfg.Listen = func(_ context.Context, n, address string) (net.Listener, error) {
			l, err := network.Listen(n, address)
			return &loopback{Listener: l}, err
		}
		brokers.dial = network.DialContext
		opts = append(opts, kfake.ListenFn(network.Listen), kfake.Ports(19092, 19093, 19094))
	}
	upstream, err := kfake.NewCluster(append(opts, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(upstream.Close)
	dir := t.TempDir()
	g := &gateway{log: log, brokers: brokers, resources: filepath.Join(dir, "resources"), upstream: upstream, dial: (&net.Dialer{}).DialContext}
	if network != nil {
		g.dial = network.DialContext
	}
	if err := os.Mkdir(g.resources, 0o700); err != nil {
		t.Fatal(err)
	}
	g.write(t, "all.yaml", fmt.Sprintf(resources, strings.Join(quoted(upstream.ListenAddrs()), ",")))
	g.write(t, "dev.secret", "dev-secret\n")
	pair, roots := certificate(t, dir)
	g.roots = roots
	cfg.Resources = g.resources
	cfg.Listeners = []proxy.Listener{{Name: "sni", Address: listen, Routing: proxy.BySNI, Certificates: []proxy.KeyPair{pair}}}
	cfg.Usage = func(counters iter.Seq[proxy.Usage]) { g.usage = counters }
	g.cfg = cfg
	t.Cleanup(func() {
		if err := g.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	g.run(t)
	return g
}

// run starts the proxy, also again after stop.
func (g *gateway) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan map[string]string, 1)
	done := make(chan error, 1)
	cfg := g.cfg
	cfg.Ready = func(a map[string]string) { ready <- a }
	go func() { done <- proxy.Run(ctx, cfg) }()
	g.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	select {
	case a := <-ready:
		if g.addr == "" {
			g.addr, g.admin = a["sni"], a[proxy.AdminAddress]
		}
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
}

func quoted(in []string) (out []string) {
	for _, s := range in {
		out = append(out, `"`+s+`"`)
	}
	return out
}

func (g *gateway) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.resources, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace changes a file.
func (g *gateway) replace(t *testing.T, name, old, now string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(g.resources, name))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), old) {
		t.Fatalf("%s has no %q", name, old)
	}
	g.write(t, name, strings.ReplaceAll(string(raw), old, now))
}

// client connects by host name; every name leads to the gateway.
func (g *gateway) client(t *testing.T, host string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(host + ":9092"),
		kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.Dialer(func(ctx context.Context, _, hostport string) (net.Conn, error) {
			name, _, err := net.SplitHostPort(hostport)
			if err != nil {
				return nil, err
			}
			c, err := g.dial(ctx, "tcp", g.addr)
			if err != nil {
				return nil, err
			}
			return &watchedConn{Conn: tls.Client(c, &tls.Config{RootCAs: g.roots, ServerName: name}), t: t}, nil
		}),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// watchedConn fails the test when anything physical, or of another tenant, reaches
// the client, in whatever field of whatever answer.
type watchedConn struct {
	net.Conn
	t    *testing.T
	tail []byte // the last bytes read: a name may be split over two reads
}

// upstreamID is the cluster id of the upstream cluster.
const upstreamID = "upstreamClusterId-abcd"

// westID is that of the other one, where there are two.
const westID = "westernClusterId-abcde"

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	seen := append(c.tail, p[:n]...)
	for _, never := range []string{"shop.orders", "globex.hidden", upstreamID, "acme-dev.t", "acme-dev.r", "acme-dev._", westID, "shop.far", "__tg.", "wide.near", "wide.both", "wide.pay", "wide.only"} {
		if i := bytes.Index(seen, []byte(never)); i >= 0 {
			c.t.Errorf("the client was sent %q", seen[max(0, i-20):min(len(seen), i+60)])
		}
	}
	c.tail = append([]byte(nil), seen[max(0, len(seen)-40):]...)
	return n, err
}

func certificate(t *testing.T, dir string, more ...string) (proxy.KeyPair, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gw.test"}, DNSNames: append([]string{"*.gw.test"}, more...),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gw.test"}}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pair := proxy.KeyPair{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(pair.CertFile, certPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pair.KeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	return pair, roots
}

func TestProduceAndConsumeInAGroup(t *testing.T) {
	for _, c := range []struct {
		name, host, topic, user string
		group                   string
	}{
		{"a standard virtual cluster's own topic", "acme-dev.gw.test", "things", "dev", "readers"},
		{"an alias of a partner", "acme.gw.test", "orders", "admin", "readers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			login := kgo.SASL(scram.Auth{User: c.user, Pass: "dev-secret"}.AsSha512Mechanism())
			producer := g.client(t, c.host, login, kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic(c.topic))
			const n = 100
			for i := range n {
				if err := producer.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(i))).FirstErr(); err != nil {
					t.Fatalf("produce %d: %v", i, err)
				}
			}
			consumer := g.client(t, c.host, kgo.SASL(plain.Auth{User: c.user, Pass: "dev-secret"}.AsMechanism()),
				kgo.ConsumerGroup(c.group), kgo.ConsumeTopics(c.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
			seen := make(map[string]int)
			for len(seen) < n {
				fs := consumer.PollFetches(ctx)
				if err := fs.Err(); err != nil {
					t.Fatalf("consume after %d: %v", len(seen), err)
				}
				fs.EachRecord(func(r *kgo.Record) {
					if r.Topic != c.topic {
						t.Errorf("record of topic %q, want %q", r.Topic, c.topic)
					}
					seen[string(r.Value)]++
				})
			}
			if err := consumer.CommitUncommittedOffsets(ctx); err != nil {
				t.Fatalf("commit: %v", err)
			}
		})
	}
}

func TestWrongPasswordIsRefused(t *testing.T) {
	g := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, c := range []struct{ name, user, password string }{
		{"a wrong password", "dev", "guess"},
		{"no such user", "nobody", "dev-secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := g.client(t, "acme-dev.gw.test", kgo.SASL(plain.Auth{User: c.user, Pass: c.password}.AsMechanism()))
			err := cl.Ping(ctx)
			if err == nil || !strings.Contains(err.Error(), "SASL_AUTHENTICATION_FAILED") {
				t.Errorf("Ping: %v, want SASL_AUTHENTICATION_FAILED", err)
			}
		})
	}
}
