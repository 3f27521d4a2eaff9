package portal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/pkg/testbed/postgres"
	"tollgate.internal/services/portal"
)

// One PostgreSQL serves every test of the package: each has a database of its own.
var (
	server  = sync.OnceValues(postgres.New)
	started bool
)

func TestMain(m *testing.M) {
	code := m.Run()
	if started {
		if s, err := server(); err == nil {
			if err := s.Close(); err != nil {
				code = 1
			}
		}
	}
	os.Exit(code)
}

// each runs a test against a portal on both databases.
func each(t *testing.T, test func(t *testing.T, ops *client)) {
	t.Run("sqlite", func(t *testing.T) { test(t, run(t, portal.Config{Database: sqlite(t)})) })
	t.Run("postgres", func(t *testing.T) {
		started = true
		s, err := server()
		if err != nil {
			t.Fatal(err)
		}
		test(t, run(t, portal.Config{Database: s.Database(t)}))
	})
}

func sqlite(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "tollgate.db") }

// run serves until the test ends, and is the client of a token of scope ops.
func run(t *testing.T, cfg portal.Config) *client {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan map[string]string, 1), make(chan error, 1)
	cfg.Listen = "127.0.0.1:0"
	if cfg.FirstToken == "" {
		cfg.FirstToken = filepath.Join(t.TempDir(), "token")
	}
	cfg.Ready = func(addresses map[string]string) { ready <- addresses }
	go func() { ended <- portal.Run(ctx, cfg) }()
	var addresses map[string]string
	select {
	case addresses = <-ready:
	case err := <-ended:
		cancel()
		t.Fatalf("Run = %v", err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	token, err := os.ReadFile(cfg.FirstToken)
	if err != nil {
		t.Fatal(err)
	}
	return &client{t: t, url: "http://" + addresses[portal.APIAddress], token: strings.TrimSpace(string(token)), addresses: addresses, stop: cancel, http: http.DefaultClient}
}

// client asks a portal with one token.
type client struct {
	t         *testing.T
	url       string
	token     string
	addresses map[string]string
	stop      context.CancelFunc
	http      *http.Client
}

func (c *client) as(token string) *client {
	other := *c
	other.token = token
	return &other
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request. Headers are "Name: value".
func (c *client) do(method, path, body string, headers ...string) answer {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	a := answer{resp.StatusCode, resp.Header, string(data)}
	if method != http.MethodHead { // whose problems have no body
		a.check(c.t, method+" "+path)
	}
	return a
}

// check looks at what holds for every answer.
func (a answer) check(t *testing.T, what string) {
	t.Helper()
	if a.status >= 500 && a.status != http.StatusServiceUnavailable {
		t.Errorf("%s: %d %s", what, a.status, a.body)
	}
	if a.header.Get("Request-Id") == "" || a.header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(a.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%s: headers %v, want those that every answer has", what, a.header)
	}
	if a.status < 400 {
		return
	}
	var p struct {
		Title, Detail string
		Status        int
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || p.Status != a.status || p.Title == "" || p.Detail == "" || a.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s: %d %s %q, want a problem (%v)", what, a.status, a.header.Get("Content-Type"), a.body, err)
	}
}

// want sends a request whose status is known.
func (c *client) want(status int, method, path, body string, headers ...string) answer {
	c.t.Helper()
	a := c.do(method, path, body, headers...)
	if a.status != status {
		c.t.Errorf("%s %s: %d %s, want %d", method, path, a.status, a.body, status)
	}
	return a
}

// at finds a value in a JSON answer: items.0.metadata.name.
func (a answer) at(path string) any {
	var v any
	d := json.NewDecoder(strings.NewReader(a.body))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return err
	}
	for part := range strings.SplitSeq(path, ".") {
		switch of := v.(type) {
		case map[string]any:
			v = of[part]
		case []any:
			var i int
			if _, err := fmt.Sscan(part, &i); err != nil || i >= len(of) {
				return nil
			}
			v = of[i]
		default:
			return nil
		}
	}
	return v
}

func (a answer) text(path string) string {
	if v := a.at(path); v != nil {
		return fmt.Sprint(v)
	}
	return ""
}

// problems are the fields of a problem, with their messages.
func (a answer) problems() map[string]string {
	var p struct {
		Errors []struct{ Field, Message, Object string }
	}
	_ = json.Unmarshal([]byte(a.body), &p)
	all := make(map[string]string)
	for _, e := range p.Errors {
		all[strings.TrimSpace(e.Object+" "+e.Field)] = e.Message
	}
	return all
}

// bytes are what a client can tell answers apart by.
func (a answer) bytes() string {
	header := maps.Clone(a.header)
	for _, varies := range []string{"Request-Id", "Date"} {
		delete(header, varies)
	}
	var b bytes.Buffer
	_ = header.Write(&b)
	return fmt.Sprintf("%d\n%s\n%s", a.status, b.String(), a.body)
}

// world is two tenants with everything.
const world = `
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: west}, spec: {bootstrap: ["b-1.west.example:9092"]}}
---
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme, labels: {plan: gold}}, spec: {displayName: ACME GmbH}}
---
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: globex}, spec: {}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: acme-prod, tenant: acme}, spec: {type: partner, host: acme, home: west, authentication: {plain: {}, scram: {}}}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: globex-prod, tenant: globex}, spec: {type: partner, host: globex, home: west, authentication: {plain: {}, scram: {}}}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: orders, tenant: acme}, spec: {cluster: west, topic: {name: shop.orders.v2}, access: read-write}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: secret, tenant: globex}, spec: {cluster: west, topic: {name: globex.internal}, access: read}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: orders, virtualCluster: acme-prod}, spec: {cluster: west, topic: shop.orders.v2}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: secret, virtualCluster: globex-prod}, spec: {cluster: west, topic: globex.internal}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: shipping, virtualCluster: acme-prod}, spec: {type: local}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: spy, virtualCluster: globex-prod}, spec: {type: local}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: reads, virtualCluster: acme-prod}, spec: {principal: "User:shipping", resource: {type: topic, name: orders}, operation: READ, permission: ALLOW}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: hidden, virtualCluster: globex-prod}, spec: {principal: "User:spy", resource: {type: topic, name: secret}, operation: READ, permission: ALLOW}}
---
{apiVersion: tollgate/v1, kind: Policy, metadata: {name: durable, virtualCluster: acme-prod}, spec: {type: produce, config: {acks: all}}}
---
{apiVersion: tollgate/v1, kind: Policy, metadata: {name: hidden, virtualCluster: globex-prod}, spec: {type: produce, scope: {topics: [{name: globex, pattern: prefixed}]}, config: {acks: all}}}
---
{apiVersion: tollgate/v1, kind: PriceBook, metadata: {name: gold}, spec: {from: 2026-01-01T00:00:00Z, plan: gold, currency: EUR, entries: [{unit: GiB, cluster: west, price: "0.035"}]}}
---
{apiVersion: tollgate/v1, kind: Budget, metadata: {name: monthly, tenant: acme}, spec: {period: month, amount: "5000", currency: EUR, notify: {emails: [ops@acme.example]}}}
---
{apiVersion: tollgate/v1, kind: Budget, metadata: {name: secret, tenant: globex}, spec: {period: day, bytes: 1, notify: {webhooks: ["https://hooks.globex.example/"]}}}
`

// populate makes the world, and tokens in it.
func (c *client) populate() {
	c.t.Helper()
	c.want(200, "POST", "/v1/apply", world, "Content-Type: application/yaml")
}

func (c *client) tokenFor(body string) *client {
	c.t.Helper()
	a := c.want(201, "POST", "/v1/tokens", body)
	return c.as(a.text("token"))
}

// lockedWriter is for logs: several goroutines write, and a test reads afterwards.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// withRedis gives a portal a Redis of its own, and a key to sign with; nodes trust by the
// keys.
func withRedis(t *testing.T, cfg *portal.Config) (redis *miniredis.Miniredis, keys bundle.Keyring) {
	t.Helper()
	signer, err := bundle.NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	text, err := signer.Private()
	if err != nil {
		t.Fatal(err)
	}
	redis = miniredis.RunT(t)
	cfg.Redis, cfg.SigningKey = "redis://"+redis.Addr(), filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(cfg.SigningKey, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return redis, signer.Keyring()
}

// readerOf is what a node of a deployment reads with.
func readerOf(t *testing.T, url string, deployment fleet.Deployment, keys bundle.Keyring) *fleet.Reader {
	t.Helper()
	conn, err := fleet.Open(url, secret.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // nothing is done with it any more
	reader, err := fleet.NewReader(conn, deployment, keys)
	if err != nil {
		t.Fatal(err)
	}
	return reader
}

// beat is a heartbeat of a node.
func beat(t *testing.T, reader *fleet.Reader, n fleet.Node) {
	t.Helper()
	if _, err := reader.Heartbeat(t.Context(), n, n.ID); err != nil {
		t.Fatal(err)
	}
}
