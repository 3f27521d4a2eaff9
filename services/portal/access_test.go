package portal_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
)

// operations are all there are, by the document: method and path.
func operations(t *testing.T, c *client) (all [][2]string, open map[string]bool) {
	t.Helper()
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct{ Security *[]any }
	}
	if err := json.Unmarshal([]byte(c.want(200, "GET", "/openapi.json", "").body), &doc); err != nil || doc.OpenAPI != "3.1.0" {
		t.Fatalf("the document: %v, of version %q", err, doc.OpenAPI)
	}
	open = make(map[string]bool)
	for path, item := range doc.Paths {
		for method, op := range item {
			all = append(all, [2]string{strings.ToUpper(method), path})
			if op.Security != nil {
				open[strings.ToUpper(method)+" "+path] = true
			}
		}
	}
	return all, open
}

var elsewhere atomic.Uint32

// fromElsewhere is a client with another address than all before.
func fromElsewhere() *http.Client {
	n := elsewhere.Add(1)
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(n>>8), byte(n))}}
	return &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
}

var parameter = regexp.MustCompile(`\{[^}]+\}`)

func TestEveryRouteWantsAToken(t *testing.T) {
	ops := run(t, configOn(t))
	all, open := operations(t, ops)
	if len(all) < 50 || len(open) != 4 {
		t.Fatalf("%d operations, of which open %v, want openapi.json, docs, healthz, readyz", len(all), open)
	}
	for name, token := range map[string]string{
		"none": "", "what is none": "hunter2", "no secret": "tg_x", "an unknown one": "tg_abcdefghijkl_" + strings.Repeat("a", 52), "a wrong secret": ops.token[:len(ops.token)-1] + "!",
	} {
		other := ops.as(token)
		for _, op := range all {
			other.http = fromElsewhere() // failures of one address are limited
			a := other.do(op[0], parameter.ReplaceAllString(op[1], "x"), "")
			if open[op[0]+" "+op[1]] {
				if a.status != 200 {
					t.Errorf("%v: %d, want it to be open", op, a.status)
				}
				continue
			}
			if a.status != 401 || !strings.HasPrefix(a.header.Get("WWW-Authenticate"), `Bearer realm="tollgate"`) {
				t.Errorf("%v with token %s: %d %v, want 401", op, name, a.status, a.header)
			}
		}
	}
	// One address has so many failures; whoever has a good token there is not refused for them.
	limited := false
	for range 50 {
		a := ops.as("x").do("GET", "/v1/tenants", "")
		if limited = a.status == http.StatusTooManyRequests; limited {
			if a.header.Get("Retry-After") == "" {
				t.Errorf("429 with %v, want Retry-After", a.header)
			}
			break
		}
	}
	if !limited {
		t.Error("50 failures in a row, and no 429")
	}
	ops.want(200, "GET", "/v1/tenants", "")
	// What is answered is in the document: the router knows no route that is not.
	for _, path := range []string{"/", "/v1", "/v1/", "/debug/pprof/", "/metrics", "/schemas/Tenant", "/openapi.yaml", "/openapi-3.0.json"} {
		ops.want(404, "GET", path, "")
	}
}

func TestWhatBelongsToOthersIsNotThere(t *testing.T) {
	each(t, func(t *testing.T, ops *client) {
		ops.populate()
		issued := ops.want(201, "POST", "/v1/virtual-clusters/globex-prod/service-accounts/spy/secrets", "")
		asked := ops.want(201, "POST", "/v1/tenants/globex/topic-grant-requests", `{"topic":{"name":"x"},"access":"read","reason":"x"}`)
		own := ops.tokenFor(`{"name":"a","role":"tenant","tenant":"acme"}`)
		other := ops.tokenFor(`{"name":"g","role":"tenant","tenant":"globex"}`)

		// What is asked for by a name, of somebody else and of nobody, answers the same bytes.
		const (
			acl     = `{"apiVersion":"tollgate/v1","kind":"Acl","metadata":{},"spec":{"principal":"User:a","resource":{"type":"topic","name":"x"},"operation":"READ","permission":"ALLOW"}}`
			account = `{"apiVersion":"tollgate/v1","kind":"ServiceAccount","metadata":{},"spec":{"type":"external","externalNames":["CN=x"]}}`
		)
		type ask struct{ method, path, body string }
		var asks []ask
		for _, method := range []string{"GET", "PUT", "PATCH", "DELETE"} {
			for _, path := range []string{
				"/v1/tenants/T", "/v1/virtual-clusters/V", "/v1/tenants/T/topic-grants/G", "/v1/virtual-clusters/V/alias-topics/G",
				"/v1/virtual-clusters/V/service-accounts/S", "/v1/virtual-clusters/V/acls/L", "/v1/upstream-clusters/U",
				"/v1/virtual-clusters/V/policies/L", "/v1/price-books/B", "/v1/tenants/T/budgets/G",
			} {
				for _, query := range []string{"", "?dryRun=true", "?wait=applied"} {
					bodies := []string{""}
					switch method {
					case "PUT":
						bodies = []string{acl, account, acme, "{}", "{", "[]", strings.Repeat("[", 1000)}
					case "PATCH":
						bodies = []string{"{}", `{"spec":{"x":1}}`, "[", `{"metadata":{"revision":1}}`}
					case "GET":
						if query != "" {
							continue
						}
					}
					for _, body := range bodies {
						asks = append(asks, ask{method, path + query, body})
					}
				}
			}
		}
		for _, path := range []string{"/v1/tenants/T/topic-grants", "/v1/virtual-clusters/V/alias-topics", "/v1/virtual-clusters/V/service-accounts", "/v1/virtual-clusters/V/acls?limit=1&name=x&labelSelector=a", "/v1/tenants/T/budgets", "/v1/virtual-clusters/V/policies"} {
			asks = append(asks, ask{"GET", path, ""})
		}
		secrets := "/v1/virtual-clusters/V/service-accounts/S/secrets"
		asks = append(asks, ask{"GET", secrets, ""}, ask{"POST", secrets, ""}, ask{"POST", secrets + "?dryRun=true", `{"password":"x"}`}, ask{"PATCH", secrets + "/I", `{"expires":null}`}, ask{"DELETE", secrets + "/I", ""},
			ask{"DELETE", "/v1/virtual-clusters/acme-prod/service-accounts/shipping/secrets/I", ""},
			ask{"GET", "/v1/audit?tenant=T", ""}, ask{"GET", "/v1/audit?scope=V", ""}, ask{"GET", "/v1/audit?name=S", ""}, ask{"GET", "/v1/audit?kind=UpstreamCluster&name=U", ""}, ask{"GET", "/v1/audit?actor=A", ""},
			ask{"GET", "/v1/acls?tenant=T", ""}, ask{"GET", "/v1/tenants?tenant=T", ""}, ask{"GET", "/v1/tenants?name=T", ""}, ask{"GET", "/v1/virtual-clusters?name=V", ""}, ask{"GET", "/v1/upstream-clusters?name=U", ""},
			ask{"GET", "/v1/policies?tenant=T", ""}, ask{"GET", "/v1/policies?name=L", ""}, ask{"GET", "/v1/price-books?name=B", ""}, ask{"GET", "/v1/budgets?tenant=T", ""}, ask{"GET", "/v1/budgets?name=G", ""}, ask{"GET", "/v1/audit?kind=PriceBook&name=B", ""}, ask{"GET", "/v1/audit?kind=Budget&name=G", ""},
			ask{"POST", "/v1/apply", `[{"apiVersion":"tollgate/v1","kind":"Budget","metadata":{"name":"G","tenant":"T"},"spec":{"period":"day","bytes":1,"notify":{"emails":["a@b.example"]}}}]`},
			ask{"POST", "/v1/apply", `[` + strings.Replace(acl, `"metadata":{}`, `"metadata":{"name":"L","virtualCluster":"V"}`, 1) + `]`},
			ask{"POST", "/v1/apply?dryRun=true", `[` + strings.Replace(account, `"metadata":{}`, `"metadata":{"name":"S","virtualCluster":"V"}`, 1) + `]`},
			ask{"POST", "/v1/apply", `[` + strings.Replace(acme, `"acme"`, `"T"`, 1) + `]`},
			ask{"POST", "/v1/nodes/T/drain", ""}, ask{"DELETE", "/v1/tokens/K", ""}, ask{"GET", "/v1/tokens", ""}, ask{"GET", "/v1/nodes", ""},
			ask{"GET", "/v1/topic-grant-requests?tenant=T", ""}, ask{"GET", "/v1/tenants/T/topic-grant-requests", ""}, ask{"POST", "/v1/tenants/T/topic-grant-requests", `{"topic":{"name":"x"},"access":"read","reason":"x"}`},
			ask{"GET", "/v1/tenants/T/topic-grant-requests/R", ""}, ask{"GET", "/v1/tenants/acme/topic-grant-requests/R", ""}, ask{"POST", "/v1/tenants/T/topic-grant-requests/R/withdraw", ""}, ask{"POST", "/v1/tenants/acme/topic-grant-requests/R/withdraw", ""},
			ask{"POST", "/v1/tenants/T/topic-grant-requests/R/approve", `{"cluster":"U"}`}, ask{"POST", "/v1/tenants/T/topic-grant-requests/R/refuse", `{"reason":"x"}`}, ask{"GET", "/v1/audit?kind=TopicGrantRequest&name=R", ""},
			ask{"GET", "/v1/sessions?tenant=T", ""}, ask{"GET", "/v1/sessions?virtualCluster=V&limit=5", ""}, ask{"DELETE", "/v1/sessions/K", ""},
			ask{"POST", "/v1/internal/acl-changes", `{"virtualCluster":"V","principal":"User:x","address":"","create":[]}`},
		)
		theirs := strings.NewReplacer("/T", "/globex", "=T", "=globex", `"T"`, `"globex"`, "/V", "/globex-prod", "=V", "=globex-prod", `"V"`, `"globex-prod"`, "/S", "/spy", "=S", "=spy", `"S"`, `"spy"`,
			"/G", "/secret", "/L", "/hidden", "=L", "=hidden", `"L"`, `"hidden"`, "/U", "/west", "=U", "=west", "/B", "/gold", "=B", "=gold", "=G", "=secret", `"G"`, `"secret"`, "/I", "/"+issued.text("id"), "/R", "/"+asked.text("id"), "=R", "="+asked.text("id"), "/K", "/"+strings.Split(other.token, "_")[1], "=A", "=first+token")
		nobodys := strings.NewReplacer("/T", "/nobody", "=T", "=nobody", `"T"`, `"nobody"`, "/V", "/nothing-1", "=V", "=nothing-1", `"V"`, `"nothing-1"`, "/S", "/non", "=S", "=non", `"S"`, `"non"`,
			"/G", "/nosuch", "/L", "/nosuch", "=L", "=nosuch", `"L"`, `"nosuch"`, "/U", "/nono", "=U", "=nono", "/B", "/none", "=B", "=none", "=G", "=nosuch", `"G"`, `"nosuch"`, "/I", "/abcdefghijkl", "/R", "/abcdefghijkl", "=R", "=abcdefghijkl", "/K", "/abcdefghijkl", "=A", "=first+nobody")
		for _, q := range asks {
			got := own.do(q.method, theirs.Replace(q.path), theirs.Replace(q.body))
			want := own.do(q.method, nobodys.Replace(q.path), nobodys.Replace(q.body))
			if got.bytes() != want.bytes() {
				t.Errorf("%s %s %s: for somebody's\n%s\nfor nobody's\n%s", q.method, q.path, q.body, got.bytes(), want.bytes())
			}
			if got.status < 300 && strings.Contains(got.body, "globex") {
				t.Errorf("%s %s %s: %s", q.method, q.path, q.body, got.body)
			}
		}
		// Nothing of that changed anything.
		if a := other.want(200, "GET", "/v1/topic-grant-requests", ""); strings.Count(a.body, `"state":"open"`) != 1 || a.text("items.1") != "" {
			t.Errorf("globex has requests %s", a.body)
		}
		if a := other.want(200, "GET", "/v1/virtual-clusters/globex-prod/acls", ""); strings.Count(a.body, `"kind":"Acl"`) != 1 {
			t.Errorf("globex has %s", a.body)
		}
		if a := other.want(200, "GET", "/v1/virtual-clusters/globex-prod/service-accounts/spy/secrets", ""); a.text("items.0.id") != issued.text("id") || a.text("items.1") != "" {
			t.Errorf("globex has secrets %s", a.body)
		}
	})
}

func TestATenantReadsNoPhysicalNames(t *testing.T) {
	each(t, func(t *testing.T, ops *client) {
		ops.populate()
		ops.want(200, "PATCH", "/v1/virtual-clusters/acme-prod", `{"spec":{"slots":{"west":0},"transactions":[{"prefix":"p","cluster":"west"}]}}`)
		own := ops.tokenFor(`{"name":"a","role":"tenant","tenant":"acme"}`)
		for _, path := range []string{
			"/v1/tenants", "/v1/tenants/acme", "/v1/virtual-clusters", "/v1/virtual-clusters/acme-prod", "/v1/tenants/acme/topic-grants", "/v1/tenants/acme/topic-grants/orders", "/v1/topic-grants",
			"/v1/virtual-clusters/acme-prod/alias-topics", "/v1/virtual-clusters/acme-prod/alias-topics/orders", "/v1/virtual-clusters/acme-prod/service-accounts/shipping", "/v1/acls",
			"/v1/upstream-clusters", "/v1/audit?limit=1000", "/v1/audit?kind=VirtualCluster", "/v1/policies", "/v1/virtual-clusters/acme-prod/policies/durable", "/v1/price-books", "/v1/budgets", "/v1/tenants/acme/budgets/monthly",
		} {
			a := own.want(200, "GET", path, "")
			for _, secret := range []string{"west", "shop.orders", "globex", "127.0.0.1", "UpstreamCluster", "slots", "PriceBook", "0.035"} {
				if strings.Contains(a.body, secret) {
					t.Errorf("%s shows %q: %s", path, secret, a.body)
				}
			}
		}
		if a := own.want(200, "GET", "/v1/audit", "", "Accept: application/x-ndjson"); strings.Contains(a.body, "west") || !strings.Contains(a.body, "acme-prod") {
			t.Errorf("the log: %s", a.body)
		}
		// What it may read and not write is refused as that.
		vc := own.want(200, "GET", "/v1/virtual-clusters/acme-prod", "")
		for path, body := range map[string]string{
			"/v1/tenants/acme": acme, "/v1/virtual-clusters/acme-prod": vc.body, "/v1/virtual-clusters/acme-prod/alias-topics/orders": "{}",
			"/v1/virtual-clusters/acme-prod/alias-topics/new": "{}", "/v1/virtual-clusters/acme-prod/policies/durable": "{}", "/v1/tenants/acme/topic-grants/orders": "{}",
		} {
			own.want(403, "PUT", path, body)
		}
		own.want(403, "PATCH", "/v1/virtual-clusters/acme-prod", `{}`)
		own.want(403, "DELETE", "/v1/virtual-clusters/acme-prod", "")
		own.want(403, "POST", "/v1/apply", "["+acme+"]")

		// Its budgets, accounts, their secrets and its ACLs are its own to change.
		own.want(201, "PUT", "/v1/tenants/acme/budgets/own", `{"apiVersion":"tollgate/v1","kind":"Budget","metadata":{},"spec":{"period":"day","bytes":1,"notify":{"emails":["a@b.example"]}}}`)
		own.want(200, "PATCH", "/v1/tenants/acme/budgets/own", `{"spec":{"bytes":2}}`)
		own.want(200, "DELETE", "/v1/tenants/acme/budgets/own", "")
		own.want(404, "PUT", "/v1/price-books/own", `{"apiVersion":"tollgate/v1","kind":"PriceBook","metadata":{},"spec":{}}`)
		own.want(403, "POST", "/v1/apply", `[{"apiVersion":"tollgate/v1","kind":"PriceBook","metadata":{"name":"own"},"spec":{}}]`)
		own.want(201, "PUT", "/v1/virtual-clusters/acme-prod/service-accounts/new", strings.ReplaceAll(shippingY, "{}", "{name: new}"), "Content-Type: application/yaml")
		own.want(201, "POST", "/v1/virtual-clusters/acme-prod/service-accounts/new/secrets", "")
		own.want(200, "PATCH", "/v1/virtual-clusters/acme-prod/acls/reads", `{"spec":{"operation":"write"}}`)
		own.want(200, "POST", "/v1/apply?prune=x", "[]")
		own.want(200, "DELETE", "/v1/virtual-clusters/acme-prod/service-accounts/new", "")
		// A label that others use too prunes what is one's own.
		ops.want(200, "PATCH", "/v1/virtual-clusters/globex-prod/acls/hidden", `{"metadata":{"labels":{"x":"y"}}}`)
		ops.want(200, "PATCH", "/v1/virtual-clusters/acme-prod", `{"metadata":{"labels":{"x":"y"}}}`)
		ops.want(200, "PATCH", "/v1/virtual-clusters/acme-prod/acls/reads", `{"metadata":{"labels":{"x":"y"}}}`)
		if a := own.want(200, "POST", "/v1/apply?prune=x", "[]"); a.text("results.0.name") != "reads" || a.text("results.1") != "" {
			t.Errorf("pruned: %s", a.body)
		}

		// Read-only, and a token of a proxy.
		reader := ops.tokenFor(`{"name":"r","role":"tenant","tenant":"acme","readOnly":true}`)
		reader.want(200, "GET", "/v1/virtual-clusters/acme-prod", "")
		reader.want(403, "PUT", "/v1/virtual-clusters/acme-prod/service-accounts/new", "{}")
		reader.want(403, "POST", "/v1/virtual-clusters/acme-prod/service-accounts/shipping/secrets", "")
		reader.want(404, "POST", "/v1/virtual-clusters/globex-prod/service-accounts/spy/secrets", "")
		reader.want(403, "POST", "/v1/apply", "[]")
		node := ops.tokenFor(`{"name":"n","role":"node"}`)
		all, open := operations(t, ops)
		for _, op := range all {
			if op[1] == "/v1/internal/acl-changes" || open[op[0]+" "+op[1]] {
				continue
			}
			path := strings.NewReplacer("{virtualCluster}", "acme-prod", "{tenant}", "acme", "{name}", "acme").Replace(op[1])
			if a := node.do(op[0], strings.ReplaceAll(path, "{id}", "x"), ""); a.status != 404 {
				t.Errorf("%v with a token of a node: %d, want 404", op, a.status)
			}
		}
	})
}

func TestTokensEnd(t *testing.T) {
	ops := run(t, configOn(t))
	ops.populate()
	a := ops.want(201, "POST", "/v1/tokens", `{"name":"t","role":"tenant","tenant":"globex"}`)
	own := ops.as(a.text("token"))
	own.want(200, "GET", "/v1/tenants/globex", "")
	ops.want(204, "DELETE", "/v1/tokens/"+a.text("id"), "")
	ended := own.want(401, "GET", "/v1/tenants/globex", "")
	unknown := ops.as("tg_abcdefghijkl_aaaa").want(401, "GET", "/v1/tenants/globex", "")
	if ended.bytes() != unknown.bytes() {
		t.Errorf("an ended token: %s\nan unknown one: %s", ended.bytes(), unknown.bytes())
	}
	for _, header := range []string{"Basic abc", "Bearer", "Bearer ", "bearer x y", ops.token, "Token " + ops.token} {
		none := ops.as("")
		none.want(401, "GET", "/v1/tenants", "", "Authorization: "+header)
	}
	ops.as("").want(200, "GET", "/v1/tenants", "", "Authorization: bearer "+ops.token) // schemes have no case
}

func TestBadInput(t *testing.T) {
	each(t, func(t *testing.T, ops *client) {
		ops.populate()
		const yaml = "Content-Type: application/yaml"
		for _, c := range []struct {
			name, method, path, body string
			status                   int
			header                   string
		}{
			{"no body", "PUT", "/v1/tenants/x", "", 400, ""},
			{"blanks", "PUT", "/v1/tenants/x", " \n ", 400, ""},
			{"malformed JSON", "PUT", "/v1/tenants/x", `{"apiVersion":`, 400, ""},
			{"JSON and more", "PUT", "/v1/tenants/x", acme + "x", 400, ""},
			{"two objects", "PUT", "/v1/tenants/acme", acme + acme, 400, ""},
			{"no object", "PUT", "/v1/tenants/x", `null`, 400, ""},
			{"a string", "PUT", "/v1/tenants/x", `"x"`, 422, ""},
			{"a list", "PUT", "/v1/tenants/acme", `[1]`, 422, ""},
			{"an empty object", "PUT", "/v1/tenants/x", `{}`, 422, ""},
			{"wrong types everywhere", "PUT", "/v1/tenants/x", `{"apiVersion":1,"kind":["Tenant"],"metadata":"x","spec":[]}`, 422, ""},
			{"wrong types", "PUT", "/v1/tenants/x", `{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":[],"spec":{"contacts":{}}}`, 422, ""},
			{"null", "PUT", "/v1/tenants/x", `{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":null,"spec":null}`, 422, ""},
			{"a huge number", "PUT", "/v1/tenants/x", `{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":{"name":"x","revision":1e999},"spec":{}}`, 422, ""},
			{"a NUL", "PUT", "/v1/tenants/x", `{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":{"name":"x"},"spec":{"displayName":"\u0000"}}`, 422, ""},
			{"half a surrogate", "PUT", "/v1/tenants/x", `{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":{"name":"x"},"spec":{"displayName":"\ud800"}}`, 201, ""},
			{"malformed YAML", "PUT", "/v1/tenants/x", "a: b\n c: d", 400, yaml},
			{"an anchor", "PUT", "/v1/tenants/x", "a: &a [*a, *a]", 422, yaml},
			{"a tag", "PUT", "/v1/tenants/x", "!!python/object:os.system x", 422, yaml},
			{"UTF-16", "PUT", "/v1/tenants/x", "\xff\xfe\x00\x01", 422, yaml},
			{"bytes", "PUT", "/v1/tenants/x", "\xff\xff\x00\x01", 400, yaml},
			{"1 MiB", "PUT", "/v1/tenants/x", strings.Repeat(" ", 1<<20) + acme, 413, ""},
			{"10 MB", "PUT", "/v1/tenants/x", `{"a":"` + strings.Repeat("a", 10_000_000) + `"}`, 413, ""},
			{"11 MB to apply", "POST", "/v1/apply", `["` + strings.Repeat("a", 11_000_000) + `"]`, 413, ""},
			{"10 MB in one object", "POST", "/v1/apply", `["` + strings.Repeat("a", 10_000_000) + `"]`, 413, ""},
			{"10 MB of YAML", "POST", "/v1/apply", strings.Repeat("---\na: [b, c]\n", 10_000_000/14), 422, yaml},
			{"deep JSON", "PUT", "/v1/tenants/x", strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000), 400, ""},
			{"deep YAML", "PUT", "/v1/tenants/x", strings.Repeat("[", 1<<19), 400, yaml},
			{"deep in a field", "PUT", "/v1/tenants/x", `{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":{"name":"x"},"spec":{"x":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}}`, 400, ""},
			{"form", "PUT", "/v1/tenants/x", "a=b", 415, "Content-Type: application/x-www-form-urlencoded"},
			{"no type at all", "PUT", "/v1/tenants/x", "{}", 415, "Content-Type: ;;"},
			{"encoded", "PUT", "/v1/tenants/x", acme, 415, "Content-Encoding: gzip"},
			{"a patch in YAML", "PATCH", "/v1/tenants/acme", "spec: {}", 415, yaml},
			{"a JSON patch", "PATCH", "/v1/tenants/acme", `[{"op":"remove","path":"/spec"}]`, 400, ""},
			{"a patch that renames", "PATCH", "/v1/tenants/acme", `{"metadata":{"name":"other"}}`, 422, ""},
			{"a patch of the kind", "PATCH", "/v1/tenants/acme", `{"kind":"UpstreamCluster"}`, 422, ""},
			{"a patch that takes everything", "PATCH", "/v1/tenants/acme", `{"apiVersion":null,"kind":null,"metadata":null,"spec":null}`, 422, ""},
			{"a patch with unknown fields", "PATCH", "/v1/tenants/acme", `{"spec":{"x":1}}`, 422, ""},
			{"a body where none belongs", "GET", "/v1/tenants", "{}", 400, ""},
			{"a method nobody knows", "BREW", "/v1/tenants", "", 405, ""},
			{"a method of elsewhere", "POST", "/v1/tenants", "{}", 405, ""},
			{"TRACE", "TRACE", "/v1/tenants/acme", "", 405, ""},
			{"OPTIONS", "OPTIONS", "/v1/tenants/acme", "", 405, ""},
			{"a path up", "GET", "/v1/virtual-clusters/../tenants/acme", "", 404, ""},
			{"a path up, encoded", "GET", "/v1/virtual-clusters/%2e%2e/tenants/acme", "", 404, ""},
			{"a slash, encoded", "GET", "/v1/tenants%2facme", "", 404, ""},
			{"two slashes", "GET", "//v1//tenants/acme", "", 404, ""},
			{"a slash behind", "GET", "/v1/tenants/", "", 404, ""},
			{"a slash in a name", "GET", "/v1/tenants/a%2Fb", "", 404, ""},
			{"a dot", "GET", "/v1/tenants/.", "", 404, ""},
			{"a NUL in a name", "GET", "/v1/tenants/a%00", "", 404, ""},
			{"no UTF-8 in a name", "GET", "/v1/tenants/%ff", "", 404, ""},
			{"a quote in a name", "GET", "/v1/tenants/'%20OR%20''='", "", 404, ""},
			{"a long name", "GET", "/v1/tenants/" + strings.Repeat("a", 5000), "", 404, ""},
			{"a NUL in a name to put", "PUT", "/v1/tenants/a%00", acme, 422, ""},
			{"no UTF-8 in a name to put", "PUT", "/v1/tenants/%ff", acme, 422, ""},
			{"a name in capitals", "PUT", "/v1/tenants/ACME", strings.ReplaceAll(acme, `"acme"`, `"ACME"`), 422, ""},
			{"a query that repeats", "PUT", "/v1/tenants/x?dryRun=false&dryRun=true", acme, 422, ""},
			{"a flag without a value", "PUT", "/v1/tenants/x?dryRun", acme, 422, ""},
			{"a flag behind another", "PUT", "/v1/tenants/x?wait&dryRun=true", acme, 422, ""},
			{"a flag in capitals", "PUT", "/v1/tenants/x?dryrun=true", acme, 422, ""},
			{"a flag that is none", "PUT", "/v1/tenants/x?dryRun=maybe", acme, 422, ""},
			{"waiting for nothing", "PUT", "/v1/tenants/x?timeout=5s", acme, 422, ""},
			{"waiting too long", "PUT", "/v1/tenants/x?wait=applied&timeout=1h", acme, 422, ""},
			{"waiting for something else", "PUT", "/v1/tenants/x?wait=forever", acme, 422, ""},
			{"a header that repeats", "GET", "/v1/events", "", 422, "Last-Event-ID: 1"},
			{"ACLs of nobody", "POST", "/v1/internal/acl-changes", `{"virtualCluster":"acme-prod"}`, 404, ""},
		} {
			headers := []string(nil)
			if c.header != "" {
				headers = append(headers, c.header)
			}
			a := ops.want(c.status, c.method, c.path, c.body, headers...)
			if a.status != c.status {
				t.Errorf("^ %s", c.name)
			}
			if c.status == 405 && a.header.Get("Allow") == "" {
				t.Errorf("%s: %v, want what is allowed", c.name, a.header)
			}
			if c.status >= 500 || len(a.body) > 10_000_000 {
				t.Errorf("%s: %d bytes of %d", c.name, len(a.body), a.status)
			}
		}
		if a := ops.want(200, "GET", "/v1/tenants", ""); fmt.Sprint(a.at("items.3")) != "<nil>" {
			t.Errorf("left behind: %s", a.body)
		}
	})
}
