package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate.internal/pkg/acl"
	"tollgate.internal/pkg/nodeapi"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/services/portal/internal/control"
	"tollgate.internal/services/portal/internal/store"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fakeFleet is one whose nodes serve everything up to a revision.
type fakeFleet struct {
	mu      sync.Mutex
	applied int64
	away    error
	told    []string
	broken  bool

	sessions []Session
	missing  []string
	queries  []SessionQuery
	asked    func() // called when somebody waits
}

func (f *fakeFleet) Nodes(context.Context) ([]Node, error) {
	if f.broken {
		panic("of a secret nature")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return []Node{{ID: "n-2", State: "serving", Applied: f.applied}, {ID: "n-1", State: "draining"}}, f.away
}

func (f *fakeFleet) WaitApplied(ctx context.Context, revision int64) error {
	if f.asked != nil {
		f.asked()
	}
	for {
		f.mu.Lock()
		applied, away := f.applied, f.away
		f.mu.Unlock()
		if away != nil {
			return away
		}
		if applied >= revision {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func (f *fakeFleet) Drain(_ context.Context, id string, over time.Duration) error {
	if id != "n-1" {
		return ErrNoNode
	}
	f.told = append(f.told, id+" "+over.String())
	return f.away
}

func (f *fakeFleet) Undrain(ctx context.Context, id string) error { return f.Drain(ctx, id, 0) }
func (f *fakeFleet) Problem() error                               { return f.away }

func (f *fakeFleet) Sessions(_ context.Context, q SessionQuery) (found SessionsFound, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queries = append(f.queries, q)
	for _, s := range f.sessions {
		if (q.ID == "" || q.ID == s.ID) && (q.Tenant == "" || q.Tenant == s.Tenant) && (q.VirtualCluster == "" || q.VirtualCluster == s.VirtualCluster) {
			found.Sessions = append(found.Sessions, s)
			found.Total++
		}
	}
	found.Missing = f.missing
	return found, f.away
}

func (f *fakeFleet) CloseSession(_ context.Context, node, id string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = append(f.told, node+" "+id)
	return !slices.Contains(f.missing, node), f.away
}

func (f *fakeFleet) set(applied int64, away error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied, f.away = applied, away
}

type bed struct {
	*API
	t       *testing.T
	fleet   *fakeFleet
	store   *store.Store
	log     *bytes.Buffer
	metrics *prometheus.Registry
	stop    chan struct{}
	tokens  map[control.Role]string
}

func newBed(t *testing.T) *bed {
	s, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "tollgate.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // some tests close it
	b := &bed{t: t, fleet: new(fakeFleet), store: s, log: new(bytes.Buffer), metrics: prometheus.NewRegistry(), stop: make(chan struct{}), tokens: make(map[control.Role]string)}
	c := control.New(s, nil)
	b.API = New(Config{Control: c, Fleet: b.fleet, Log: slog.New(slog.NewTextHandler(b.log, nil)), Metrics: b.metrics, Version: "test", Stopping: b.stop})
	for _, role := range []control.Role{control.RoleOps, control.RoleNode} {
		_, shown, err := c.CreateToken(t.Context(), control.Actor{Name: "test"}, control.TokenRequest{Name: "test", Role: role})
		if err != nil {
			t.Fatal(err)
		}
		b.tokens[role] = shown.Reveal()
	}
	return b
}

func (b *bed) do(method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+b.tokens[control.RoleOps])
	if body == "" {
		r.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	return w
}

const tenant = `{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":{"name":"acme"},"spec":{}}`

func TestChangesWaitForTheFleet(t *testing.T) {
	b := newBed(t)
	w := b.do("PUT", "/v1/tenants/acme?wait=applied&timeout=20ms", tenant)
	if w.Code != 202 || !strings.HasPrefix(w.Header().Get("Tollgate-Applied"), "pending: revision") || w.Header().Get("Location") == "" || !strings.Contains(w.Body.String(), `"name":"acme"`) {
		t.Errorf("not applied: %d %v %s", w.Code, w.Header(), w.Body)
	}
	// What is there already has to be applied as well, and a dry run waits for nothing.
	if w = b.do("PUT", "/v1/tenants/acme?wait=applied&timeout=1ms", tenant); w.Code != 202 {
		t.Errorf("unchanged, not applied: %d", w.Code)
	}
	if w = b.do("DELETE", "/v1/tenants/acme?wait=applied&dryRun=true", ""); w.Code != 200 || w.Header().Get("Tollgate-Applied") != "" {
		t.Errorf("dry run: %d %v", w.Code, w.Header())
	}
	b.fleet.set(0, errors.New("redis: connection refused"))
	if w = b.do("PATCH", "/v1/tenants/acme?wait=applied", `{"spec":{"plan":"x"}}`); w.Code != 202 || !strings.HasPrefix(w.Header().Get("Tollgate-Applied"), "unknown") {
		t.Errorf("nobody knows: %d %v", w.Code, w.Header())
	}
	b.fleet.set(0, nil)
	b.fleet.asked = func() { go b.fleet.set(1000, nil) }
	if w = b.do("PATCH", "/v1/tenants/acme?wait=applied", `{"spec":{"plan":"y"}}`); w.Code != 200 || w.Header().Get("Tollgate-Applied") != "yes" {
		t.Errorf("applied: %d %v", w.Code, w.Header())
	}
	// A stop ends the wait, and the change stays.
	b.fleet.set(0, nil)
	b.fleet.asked = func() { close(b.stop) }
	if w = b.do("DELETE", "/v1/tenants/acme?wait=applied&timeout=60s", ""); w.Code != 202 {
		t.Errorf("stopped: %d %v", w.Code, w.Header())
	}
	if w = b.do("GET", "/v1/tenants/acme", ""); w.Code != 404 {
		t.Errorf("after all: %d", w.Code)
	}
	if w = b.do("GET", "/readyz", ""); w.Code != 503 {
		t.Errorf("ready while it stops: %d", w.Code)
	}
}

func TestNodes(t *testing.T) {
	b := newBed(t)
	w := b.do("GET", "/v1/nodes", "")
	var list struct {
		Items   []Node
		Problem string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list.Items) != 2 || list.Items[0].ID != "n-1" || list.Problem != "" {
		t.Errorf("%s, %v", w.Body, err)
	}
	for path, want := range map[string]int{"n-1/drain": 202, "n-1/undrain": 202, "n-3/drain": 404, "n-3/undrain": 404} {
		if w := b.do("POST", "/v1/nodes/"+path, ""); w.Code != want {
			t.Errorf("%s: %d %s, want %d", path, w.Code, w.Body, want)
		}
	}
	b.fleet.told = nil
	for body, want := range map[string]int{`{"over":"5s"}`: 202, `{"over":"2h"}`: 422, `{"over":"soon"}`: 422, `{"over":5}`: 422, `{"after":"5s"}`: 422} {
		if w := b.do("POST", "/v1/nodes/n-1/drain", body); w.Code != want {
			t.Errorf("%s: %d %s, want %d", body, w.Code, w.Body, want)
		}
	}
	if len(b.fleet.told) != 1 || b.fleet.told[0] != "n-1 5s" {
		t.Errorf("told %q, want n-1 5s once", b.fleet.told)
	}
	b.fleet.set(0, errors.New("redis at 10.0.0.1: connection refused"))
	if w := b.do("GET", "/v1/nodes", ""); w.Code != 503 || strings.Contains(w.Body.String(), "10.0.0.1") || !strings.Contains(b.log.String(), "10.0.0.1") {
		t.Errorf("away: %d %s, log %s", w.Code, w.Body, b.log)
	}
	if w := b.do("GET", "/readyz", ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"status":"degraded"`) {
		t.Errorf("ready: %d %s", w.Code, w.Body)
	}
}

func TestACLChangesOfKafkaClients(t *testing.T) {
	b := newBed(t)
	b.fleet.set(1<<40, nil)
	for path, body := range map[string]string{
		"/v1/apply": `[{"apiVersion":"tollgate/v1","kind":"UpstreamCluster","metadata":{"name":"west"},"spec":{"bootstrap":["h:1"]}},` + tenant + `,
			{"apiVersion":"tollgate/v1","kind":"VirtualCluster","metadata":{"name":"acme-prod","tenant":"acme"},"spec":{"type":"partner","host":"acme","home":"west","authentication":{"plain":{}}}}]`,
	} {
		if w := b.do("POST", path, body); w.Code != 200 {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	server := httptest.NewServer(b)
	defer server.Close()
	c := &nodeapi.Client{URL: server.URL, Token: secret.New(b.tokens[control.RoleNode]), HTTP: server.Client()}
	binding := acl.Binding{Principal: "User:a", Host: "*", ResourceType: kmsg.ACLResourceTypeTopic, ResourceName: "x", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationRead, Permission: kmsg.ACLPermissionTypeAllow}
	wrong, nul := binding, binding
	wrong.Operation, nul.ResourceName = kmsg.ACLOperationAny, "a\x00b"
	nonsense := binding
	nonsense.Operation = kmsg.ACLOperationIdempotentWrite // has no meaning for a topic
	ask := &nodeapi.ACLChange{VirtualCluster: "acme-prod", Principal: "User:admin", Address: "10.1.2.3"}
	for _, one := range []acl.Binding{wrong, binding, nul, nonsense} {
		ask.Create = append(ask.Create, nodeapi.BindingOf(&one))
	}
	done, err := c.ChangeACLs(t.Context(), ask)
	if err != nil || done.Revision == 0 || done.Behind || done.Create[0].Refused == "" || done.Create[1].Refused != "" || done.Create[2].Refused == "" || done.Create[3].Refused == "" {
		t.Fatalf("created: %+v, %v", done, err)
	}
	if w := b.do("GET", "/v1/audit?limit=1", ""); !strings.Contains(w.Body.String(), `"actor":"User:admin","actorKind":"kafka","address":"10.1.2.3"`) {
		t.Errorf("the log: %s", w.Body)
	}
	any := acl.Filter{ResourceType: kmsg.ACLResourceTypeAny, Pattern: kmsg.ACLResourcePatternTypeAny, Operation: kmsg.ACLOperationAny, Permission: kmsg.ACLPermissionTypeAny}
	done, err = c.ChangeACLs(t.Context(), &nodeapi.ACLChange{VirtualCluster: "acme-prod", Principal: "User:admin", Delete: []nodeapi.Filter{nodeapi.FilterOf(&any)}})
	if err != nil || len(done.Delete[0].Deleted) != 1 || done.Delete[0].Deleted[0].ACL() != binding {
		t.Errorf("deleted: %+v, %v", done, err)
	}
	if _, err = c.ChangeACLs(t.Context(), &nodeapi.ACLChange{VirtualCluster: "nobody"}); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("of nobody: %v", err)
	}
	c.Token = secret.New(b.tokens[control.RoleOps])
	if _, err = c.ChangeACLs(t.Context(), ask); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("with a token of ops: %v", err)
	}
}

func TestFaultsOfThePortal(t *testing.T) {
	b := newBed(t)
	b.fleet.broken = true
	w := b.do("GET", "/v1/nodes", "")
	var p Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 500 || p.RequestID == "" || p.RequestID != w.Header().Get("Request-Id") || strings.Contains(w.Body.String(), "secret nature") {
		t.Errorf("a panic: %d %s, %v", w.Code, w.Body, err)
	}
	if n := strings.Count(b.log.String(), p.RequestID); n != 1 || !strings.Contains(b.log.String(), "secret nature") || strings.Contains(b.log.String(), b.tokens[control.RoleOps]) {
		t.Errorf("the log has the request %d times, want once:\n%s", n, b.log)
	}
	if err := b.store.Close(); err != nil {
		t.Fatal(err)
	}
	b.log.Reset()
	for _, path := range []string{"/v1/tenants", "/v1/tenants/x", "/v1/audit", "/v1/events"} {
		w := b.do("GET", path, "")
		if w.Code < 500 || strings.Contains(w.Body.String(), "sql") || !strings.Contains(w.Body.String(), "requestId") {
			t.Errorf("%s without a store: %d %s", path, w.Code, w.Body)
		}
	}
	if w := b.do("GET", "/readyz", ""); w.Code != 503 || !strings.Contains(w.Body.String(), `"store":"unavailable"`) {
		t.Errorf("ready: %d %s", w.Code, w.Body)
	}
	if w := b.do("GET", "/healthz", ""); w.Code != 200 {
		t.Errorf("healthy: %d", w.Code)
	}
}

func TestMetricsHaveClosedLabels(t *testing.T) {
	b := newBed(t)
	for _, path := range []string{"/v1/tenants/a", "/v1/tenants/b", "/nowhere/c", "/v1/virtual-clusters/d/acls/e"} {
		b.do("GET", path, "")
		b.do("BREW", path, "")
	}
	families, err := b.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				seen[l.GetName()+"="+l.GetValue()] = true
			}
		}
	}
	for label := range seen {
		for _, name := range []string{"/a", "/b", "/c", "/d", "/e", "BREW"} {
			if strings.HasSuffix(label, name) {
				t.Errorf("label %s", label)
			}
		}
	}
	if !seen["route=/v1/tenants/{name}"] || !seen["method=other"] || !seen["route=none"] {
		t.Errorf("labels %v", seen)
	}
}

func TestThePageNeedsNothingFromElsewhere(t *testing.T) {
	b := newBed(t)
	w := b.do("GET", "/docs", "")
	policy, body := w.Header().Get("Content-Security-Policy"), w.Body.String()
	if w.Code != 200 || !strings.Contains(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") {
		t.Errorf("%d %s", w.Code, policy)
	}
	for _, bad := range []string{"<script", "http://", "https://", "@import", "<img", "<link", "style=", "ZgotmplZ"} {
		if strings.Contains(body, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	for path := range b.huma.OpenAPI().Paths {
		if !strings.Contains(body, "<code>"+path+"</code>") {
			t.Errorf("the page lacks %s", path)
		}
	}
}

// A schema that is said to be complete has every field that files can set, and no
// enumeration is about a field that is gone.
func TestSchemas(t *testing.T) {
	b := newBed(t)
	for name, fields := range words {
		component := b.schemas.registry.Map()[name]
		for field := range fields {
			if component == nil || len(component.Properties[field].Enum) == 0 {
				t.Errorf("%s.%s has no words", name, field)
			}
		}
	}
	for kind, fields := range hidden {
		spec := b.schemas.registry.Map()[kind+"Spec"]
		for _, field := range fields {
			if spec.Properties[field] == nil {
				t.Errorf("%s has no field %s to hide", kind, field)
			}
		}
	}
	text := string(b.document)
	for _, bad := range []string{"ErrorModel", `"null"`, "octet-stream", "Struct\"", `"password":{"type":"string","description":"env`} {
		if strings.Contains(text, bad) {
			t.Errorf("the document has %s", bad)
		}
	}
}
