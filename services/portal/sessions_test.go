package portal_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/fleet"
)

// talker is a node as far as it answers questions about sessions.
type talker struct {
	fleet.Node
	mu       sync.Mutex
	sessions []fleet.Session
	closed   []string
}

// talk answers until the test ends.
func (n *talker) talk(t *testing.T, url string, keys bundle.Keyring, silent bool) {
	t.Helper()
	reader := readerOf(t, url, "d", keys)
	n.State, n.Started = fleet.NodeServing, time.Now().UTC()
	beat(t, reader, n.Node)
	position, err := reader.Tail(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	if silent {
		return
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			entries, err := reader.Follow(ctx, position, 50*time.Millisecond)
			if err != nil {
				continue
			}
			for _, e := range entries {
				position = e.Position
				c, err := fleet.OpenCommand(keys, "d", e.Command)
				if err != nil || c.Ask == nil || c.Node != "" && c.Node != n.ID {
					continue
				}
				if err := reader.Answer(ctx, c.ID, n.answer(c)); err != nil && ctx.Err() == nil {
					t.Errorf("answer: %v", err)
				}
			}
		}
	})
}

func (n *talker) answer(c fleet.Command) fleet.Answer {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := fleet.Answer{Node: n.ID}
	if c.Action == fleet.CloseSession {
		n.closed = append(n.closed, c.Ask.Session)
		a.Closed = true
		return a
	}
	for _, s := range n.sessions {
		// It pays no heed to the tenant: the portal knows whose a virtual cluster is.
		if (c.Ask.Session == "" || c.Ask.Session == s.ID) && (c.Ask.VirtualCluster == "" || c.Ask.VirtualCluster == s.VirtualCluster) && (c.Ask.Principal == "" || c.Ask.Principal == s.Principal) {
			a.Total++
			if len(a.Sessions) < c.Ask.Limit {
				a.Sessions = append(a.Sessions, s)
			}
		}
	}
	return a
}

func TestSessions(t *testing.T) {
	cfg := configOn(t)
	cfg.Deployment = "d"
	redis, keys := withRedis(t, &cfg)
	ops := run(t, cfg)
	ops.populate()
	own := ops.tokenFor(`{"name":"a","role":"tenant","tenant":"acme"}`)
	reads := ops.tokenFor(`{"name":"r","role":"tenant","tenant":"acme","readOnly":true}`)

	since := time.Now().UTC().Truncate(time.Second).Add(-time.Hour)
	session := func(id, tenant, principal string, age time.Duration) fleet.Session {
		return fleet.Session{
			ID: id, Tenant: tenant, VirtualCluster: tenant + "-prod", Principal: principal, Mechanism: "PLAIN", ClientID: "c", Software: "s", SoftwareVersion: "1",
			Address: "10.0.0.9", Since: since.Add(-age), LastRequest: since, Requests: 3, BytesIn: 4, BytesOut: 5,
		}
	}
	one := &talker{Node: fleet.Node{ID: "n-1"}, sessions: []fleet.Session{session("a2", "acme", "User:b", 0), session("g1", "globex", "User:spy", 0)}}
	two := &talker{Node: fleet.Node{ID: "n-2"}, sessions: []fleet.Session{session("a1", "acme", "User:a", 0), session("a3", "acme", "User:b", time.Hour), session("x1", "nobody", "User:spy", 0)}}
	one.talk(t, cfg.Redis, keys, false)
	two.talk(t, cfg.Redis, keys, false)

	list := func(c *client, query string) string {
		t.Helper()
		a := c.want(200, "GET", "/v1/sessions"+query, "")
		var ids []string
		for i := range 10 {
			if id := a.text("items." + string(rune('0'+i)) + ".id"); id != "" {
				ids = append(ids, id)
			}
		}
		return strings.Join(ids, " ") + " of " + a.text("total")
	}
	for query, want := range map[string]string{
		"": "a1 a3 a2 g1 x1 of 5", "?limit=2": "a1 a3 of 5", "?virtualCluster=acme-prod": "a1 a3 a2 of 3", "?principal=User:b": "a3 a2 of 2",
		"?node=n-1": "a2 g1 of 2", "?node=n-9": " of 0",
	} {
		if got := list(ops, query); got != want {
			t.Errorf("ops, %s: %s, want %s", query, got, want)
		}
	}
	for query, want := range map[string]string{
		"": "a1 a3 a2 of 3", "?tenant=acme": "a1 a3 a2 of 3", "?principal=User:b": "a3 a2 of 2", "?virtualCluster=acme-prod": "a1 a3 a2 of 3",
	} {
		if got := list(own, query); got != want {
			t.Errorf("tenant, %s: %s, want %s", query, got, want)
		}
	}
	if a := own.want(200, "GET", "/v1/sessions?limit=1", ""); a.at("items.0.node") != nil || a.text("items.0.address") != "10.0.0.9" || a.text("items.0.software") != "s" ||
		a.text("items.0.requests") != "3" || a.text("items.0.bytesOut") != "5" || strings.Contains(a.body, "n-2") {
		t.Errorf("a tenant reads %s", a.body)
	}
	if a := ops.want(200, "GET", "/v1/sessions?limit=1", ""); a.text("items.0.node") != "n-2" || a.at("missing") != nil {
		t.Errorf("ops read %s", a.body)
	}
	// Somebody's and nobody's.
	for _, pair := range [][2]string{
		{"GET /v1/sessions?tenant=globex", "GET /v1/sessions?tenant=nobody"},
		{"GET /v1/sessions?virtualCluster=globex-prod", "GET /v1/sessions?virtualCluster=nothing-1"},
		{"GET /v1/sessions?principal=User:spy", "GET /v1/sessions?principal=User:non"},
		{"GET /v1/sessions?node=n-1", "GET /v1/sessions?node=n-9"},
		{"DELETE /v1/sessions/g1", "DELETE /v1/sessions/z9"},
	} {
		var said [2]string
		for i, what := range pair {
			method, path, _ := strings.Cut(what, " ")
			said[i] = own.do(method, path, "").bytes()
		}
		if said[0] != said[1] || strings.Contains(said[0], "globex") {
			t.Errorf("%s:\n%s\n%s:\n%s", pair[0], said[0], pair[1], said[1])
		}
	}
	ops.want(422, "GET", "/v1/sessions?limit=0", "")
	ops.want(422, "GET", "/v1/sessions?colour=red", "")
	ops.want(404, "DELETE", "/v1/sessions/z9", "")
	reads.want(403, "DELETE", "/v1/sessions/a1", "")
	own.want(204, "DELETE", "/v1/sessions/a3", "")
	ops.want(204, "DELETE", "/v1/sessions/g1", "")
	one.mu.Lock()
	two.mu.Lock()
	if strings.Join(one.closed, " ") != "g1" || strings.Join(two.closed, " ") != "a3" {
		t.Errorf("closed %v on n-1 and %v on n-2", one.closed, two.closed)
	}
	two.mu.Unlock()
	one.mu.Unlock()
	a := own.want(200, "GET", "/v1/audit?action=close-session", "")
	if a.text("items.0.name") != "acme-prod" || a.text("items.0.detail") != "session a3 of User:b from 10.0.0.9" || a.at("items.1") != nil {
		t.Errorf("the log of acme: %s", a.body)
	}
	if a := ops.want(200, "GET", "/v1/audit?action=close-session", ""); a.text("items.1.name") != "acme-prod" || a.text("items.0.name") != "globex-prod" {
		t.Errorf("the log: %s", a.body)
	}

	// Who asks all the time waits, and others do not.
	slow := false
	for range 200 {
		if a := own.do("GET", "/v1/sessions?principal=User:b", ""); a.status == http.StatusTooManyRequests && a.header.Get("Retry-After") != "" {
			slow = true
			break
		}
	}
	if !slow {
		t.Error("200 questions of a tenant in a row are answered")
	}
	ops.want(200, "GET", "/v1/sessions", "")
	// One that does not answer is named to operators.
	mute := &talker{Node: fleet.Node{ID: "n-3"}}
	mute.talk(t, cfg.Redis, keys, true)
	if a := ops.want(200, "GET", "/v1/sessions", ""); a.text("missing.0") != "n-3" || a.text("incomplete") != "true" || a.text("total") != "5" {
		t.Errorf("with a mute node: %s", a.body)
	}
	theirs := ops.tokenFor(`{"name":"g","role":"tenant","tenant":"globex"}`)
	if a := theirs.want(200, "GET", "/v1/sessions", ""); a.at("missing") != nil || a.text("incomplete") != "true" || strings.Contains(a.body, "n-3") {
		t.Errorf("with a mute node a tenant reads %s", a.body)
	}
	ops.want(503, "DELETE", "/v1/sessions/z9", "")

	redis.Close()
	ops.want(503, "GET", "/v1/sessions", "")
}
