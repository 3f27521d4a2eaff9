package portal_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/fleet"
	"tollgate.internal/services/portal"
)

func configOn(t *testing.T) portal.Config { return portal.Config{Database: sqlite(t)} }

func TestFromEnvSaysEverythingAtOnce(t *testing.T) {
	env := map[string]string{
		"TOLLGATE_PORTAL_TLS_CERT": "/nowhere", "TOLLGATE_PORTAL_REDIS": "redis://127.0.0.1:1", "TOLLGATE_PORTAL_DRAIN_TIMEOUT": "soon", "TOLLGATE_PORTAL_TRUSTED_PROXIES": "10.0.0.0/8, everybody",
		"TOLLGATE_PORTAL_LOG_LEVEL": "loud", "TOLLGATE_PORTAL_LOG_FORMAT": "xml",
	}
	_, err := portal.FromEnv(func(name string) string { return env[name] })
	for _, want := range []string{"belong together", "without a signing key", "DRAIN_TIMEOUT", `TRUSTED_PROXIES: "everybody"`, "LOG_LEVEL", "LOG_FORMAT"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("FromEnv = %v, want %q in it", err, want)
		}
	}
	cfg, err := portal.FromEnv(func(string) string { return "" })
	if err != nil || cfg.Listen != "127.0.0.1:9401" || cfg.Database != "sqlite:tollgate.db" {
		t.Errorf("FromEnv of nothing = %+v, %v", cfg, err)
	}
}

func TestAMistakeIsReturnedAtOnce(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cfg  portal.Config
		want string
	}{
		"nothing at all":       {portal.Config{}, "no database"},
		"no such database":     {portal.Config{Listen: "127.0.0.1:0", Database: "mysql://x"}, "sqlite:PATH"},
		"an address in use":    {portal.Config{Listen: busy.Addr().String(), Database: sqlite(t)}, "api: listen"},
		"a key that is none":   {portal.Config{Listen: "127.0.0.1:0", Database: sqlite(t), Redis: "redis://127.0.0.1:1", SigningKey: key}, "not PEM"},
		"no place for a token": {portal.Config{Listen: "127.0.0.1:0", Database: sqlite(t), FirstToken: "/nowhere/token"}, "first token"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		if err := portal.Run(ctx, c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Run = %v, want %q", name, err, c.want)
		}
		cancel()
	}
}

func TestTheFirstTokenIsMadeOnce(t *testing.T) {
	cfg := configOn(t)
	cfg.FirstToken = filepath.Join(t.TempDir(), "token")
	t.Run("first", func(t *testing.T) {
		ops := run(t, cfg)
		ops.want(200, "GET", "/v1/tenants", "")
		if info, err := os.Stat(cfg.FirstToken); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the file: %v, %v", info.Mode(), err)
		}
	})
	first, _ := os.ReadFile(cfg.FirstToken)
	t.Run("again", func(t *testing.T) {
		ops := run(t, cfg)
		if again, _ := os.ReadFile(cfg.FirstToken); !bytes.Equal(first, again) {
			t.Error("another token was made")
		}
		own := ops.tokenFor(`{"name":"mine","role":"ops"}`)
		own.want(204, "DELETE", "/v1/tokens/"+strings.Split(ops.token, "_")[1], "")
	})
	t.Run("once there are others", func(t *testing.T) {
		ops := run(t, cfg)
		ops.want(401, "GET", "/v1/tenants", "")
	})
}

func TestRequestsFinishWhenThePortalStops(t *testing.T) {
	ops := run(t, configOn(t))
	conn, err := net.Dial("tcp", strings.TrimPrefix(ops.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	head := "PUT /v1/tenants/acme HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + ops.token + "\r\nContent-Type: application/json\r\nContent-Length: "
	if _, err := io.WriteString(conn, head+big.NewInt(int64(len(acme))).String()+"\r\nExpect: 100-continue\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf) // the portal waits for the body
	if err != nil || !strings.Contains(string(buf[:n]), "100 Continue") {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	ops.stop()
	for { // no new one is taken
		c, err := net.Dial("tcp", strings.TrimPrefix(ops.url, "http://"))
		if err != nil {
			break
		}
		c.Close()
	}
	if _, err := io.WriteString(conn, acme); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 201 Created") {
		t.Errorf("%s, %v", answer, err)
	}
}

// certificate writes one for 127.0.0.1, and is what trusts it.
func certificate(t *testing.T, cert, key string) *x509.CertPool {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return pool
}

func TestProxiesSayWhereRequestsComeFrom(t *testing.T) {
	for trusted, want := range map[string]string{"127.0.0.0/8": "192.0.2.1", "10.0.0.0/8": "127.0.0.1"} {
		cfg := configOn(t)
		cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(trusted)}
		ops := run(t, cfg)
		ops.want(201, "PUT", "/v1/tenants/acme", acme, "X-Forwarded-For: 203.0.113.9, 192.0.2.1")
		if a := ops.want(200, "GET", "/v1/audit?limit=1", ""); a.text("items.0.address") != want {
			t.Errorf("with %s trusted the log has %s, want %s", trusted, a.text("items.0.address"), want)
		}
	}
}

func TestTLS(t *testing.T) {
	cfg := configOn(t)
	dir := t.TempDir()
	cfg.CertFile, cfg.KeyFile = filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	first := certificate(t, cfg.CertFile, cfg.KeyFile)
	ops := run(t, cfg)
	ops.url = strings.Replace(ops.url, "http:", "https:", 1)
	over := func(pool *x509.CertPool) *http.Client {
		return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true, DisableKeepAlives: true}}
	}
	ops.http = over(first)
	if a := ops.want(200, "GET", "/v1/tenants", ""); a.header.Get("Strict-Transport-Security") == "" {
		t.Errorf("headers %v", a.header)
	}
	if resp, err := http.Get(strings.Replace(ops.url, "https:", "http:", 1) + "/healthz"); err == nil {
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			t.Error("the API answers without TLS, too")
		}
	}
	// A certificate is replaced while the portal runs.
	second := certificate(t, cfg.CertFile, cfg.KeyFile)
	deadline := time.Now().Add(30 * time.Second)
	for {
		resp, err := over(second).Get(ops.url + "/healthz")
		if err == nil {
			resp.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the new certificate is not used: %v", err)
		}
	}
}

// runWithRedis runs a portal with a Redis of its own, and something in its store; reader is
// what a node reads with, by the keys.
func runWithRedis(t *testing.T) (ops *client, redis *miniredis.Miniredis, reader *fleet.Reader, keys bundle.Keyring) {
	t.Helper()
	cfg := configOn(t)
	cfg.Deployment, cfg.Admin = "d", "127.0.0.1:0"
	redis, keys = withRedis(t, &cfg)
	ops = run(t, cfg)
	ops.populate()
	return ops, redis, readerOf(t, cfg.Redis, "d", keys), keys
}

// aNode is one that has just begun to serve.
func aNode() fleet.Node {
	now := time.Now().UTC()
	return fleet.Node{ID: "n-1", Host: "127.0.0.1", Port: 9092, Version: "test", State: fleet.NodeServing, Started: now, Heartbeat: now}
}

func TestTheFleetLearnsOfChanges(t *testing.T) {
	ops, redis, reader, keys := runWithRedis(t)
	node := aNode()
	beat(t, reader, node)
	if a := ops.want(200, "GET", "/v1/nodes", ""); a.text("items.0.id") != "n-1" || a.text("items.0.state") != "serving" {
		t.Errorf("nodes: %s", a.body)
	}
	a := ops.want(202, "PATCH", "/v1/tenants/acme?wait=applied&timeout=100ms", `{"spec":{"plan":"x"}}`)
	if !strings.HasPrefix(a.header.Get("Tollgate-Applied"), "pending") {
		t.Errorf("applied: %v", a.header)
	}
	for head := int64(0); ; {
		h, err := reader.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if head = h.Revision; head > 0 && a.header.Get("ETag") == `"`+big.NewInt(head).String()+`"` {
			node.Applied = head
			break
		}
	}
	beat(t, reader, node)
	if a = ops.want(200, "PATCH", "/v1/tenants/acme?wait=applied", `{"spec":{"plan":"x"}}`); a.header.Get("Tollgate-Applied") != "yes" {
		t.Errorf("applied: %v", a.header)
	}

	// A node that passes over a policy of all virtual clusters has not applied it, whatever it says.
	const policy, durable = "/v1/policies/durable?wait=applied&timeout=", `{"apiVersion":"tollgate/v1","kind":"Policy","metadata":{},"spec":{"type":"produce","config":{"acks":"all"}}}`
	node.Applied = everything
	beat(t, reader, node)
	if a = ops.want(202, "PUT", policy+"100ms", durable); !strings.HasPrefix(a.header.Get("Tollgate-Applied"), "pending") {
		t.Errorf("applied by a node that is too old: %v", a.header)
	}
	if a = ops.want(200, "GET", "/v1/nodes", ""); !strings.Contains(a.text("items.0.problem"), "too old") {
		t.Errorf("nodes: %s", a.body)
	}
	node.BundleFormat = bundle.FormatPolicies
	beat(t, reader, node)
	if a = ops.want(200, "PUT", policy+"30s", durable); a.header.Get("Tollgate-Applied") != "yes" {
		t.Errorf("applied: %v", a.header)
	}
	if a = ops.want(200, "GET", "/v1/nodes", ""); strings.Contains(a.body, "too old") {
		t.Errorf("nodes: %s", a.body)
	}

	tail, err := reader.Tail(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ops.want(202, "POST", "/v1/nodes/n-1/drain", `{"over":"7s"}`)
	ops.want(404, "POST", "/v1/nodes/n-2/drain", "")
	entries, err := reader.Follow(t.Context(), tail, time.Second)
	if err != nil || len(entries) != 1 {
		t.Fatalf("entries %v, %v", entries, err)
	}
	if c, err := fleet.OpenCommand(keys, "d", entries[0].Command); err != nil || c.Node != "n-1" || c.Action != fleet.Drain || c.Over != 7*time.Second {
		t.Errorf("command %+v, %v", c, err)
	}

	metrics := func() string {
		resp, err := http.Get("http://" + ops.addresses[portal.AdminAddress] + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, _ := io.ReadAll(resp.Body)
		return string(data)
	}
	for _, want := range []string{"tollgate_portal_store_reachable 1", "tollgate_portal_fleet_reachable 1", "tollgate_build_info{", "tollgate_portal_bundles_published_total ", `tollgate_portal_requests_total{method="PATCH",route="/v1/tenants/{name}",status="202"} 1`} {
		if !strings.Contains(metrics(), want) {
			t.Errorf("metrics lack %s:\n%s", want, metrics())
		}
	}
	// Without Redis changes are kept, and it is said that nodes do not learn of them.
	redis.Close()
	for !strings.Contains(ops.want(200, "GET", "/readyz", "").body, "degraded") {
	}
	a = ops.want(202, "PATCH", "/v1/tenants/acme?wait=applied&timeout=5s", `{"spec":{"plan":"y"}}`)
	if !strings.HasPrefix(a.header.Get("Tollgate-Applied"), "unknown") {
		t.Errorf("applied: %v", a.header)
	}
	ops.want(503, "GET", "/v1/nodes", "")
	if m := metrics(); !strings.Contains(m, "tollgate_portal_fleet_reachable 0") {
		t.Errorf("metrics: %s", m)
	}
}

func TestAChangeWaitsForNodesThatRedisForgot(t *testing.T) {
	ops, redis, reader, _ := runWithRedis(t)
	applies := func(revision int64) {
		t.Helper()
		node := aNode()
		node.Applied = revision
		beat(t, reader, node)
	}
	// change makes one, and returns its revision.
	change := func(want int, applied, timeout, plan string) int64 {
		t.Helper()
		a := ops.want(want, "PATCH", "/v1/tenants/acme?wait=applied&timeout="+timeout, `{"spec":{"plan":"`+plan+`"}}`)
		if got := a.header.Get("Tollgate-Applied"); !strings.HasPrefix(got, applied) {
			t.Errorf("%s: applied %q, want %q", plan, got, applied)
		}
		revision, err := strconv.ParseInt(strings.Trim(a.header.Get("ETag"), `"`), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return revision
	}
	applies(0)
	applies(change(202, "pending", "100ms", "known"))

	// It serves by what it has, and has yet to say that it is there.
	redis.FlushAll()
	emptied := change(202, "pending", "500ms", "emptied")
	applies(emptied - 1)
	change(202, "pending", "100ms", "back, and behind")
	applies(emptied + 1)
	applies(change(202, "pending", "100ms", "told"))

	// One that never comes back is waited for until its time is over.
	redis.FlushAll()
	change(200, "yes", "30s", "lost")
}
