package portal_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

const (
	acme      = `{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":{"name":"acme","labels":{"plan":"gold"}},"spec":{"displayName":"ACME <&> GmbH"}}`
	shippingY = "apiVersion: tollgate/v1\nkind: ServiceAccount\nmetadata: {}\nspec: {type: local}\n"
)

func TestAnObjectIsMadeReadChangedAndDeleted(t *testing.T) {
	each(t, func(t *testing.T, ops *client) {
		a := ops.want(201, "PUT", "/v1/tenants/acme", acme)
		if a.header.Get("Location") != "/v1/tenants/acme" || a.header.Get("Tollgate-Change") != "created" || a.text("spec.displayName") != "ACME <&> GmbH" || a.text("spec.state") != "active" || a.text("status.created") == "" {
			t.Errorf("created: %v %s", a.header, a.body)
		}
		etag := a.header.Get("ETag")
		if etag == "" || etag != `"`+a.text("metadata.revision")+`"` {
			t.Errorf("ETag %s of %s", etag, a.body)
		}
		if got := ops.want(200, "GET", "/v1/tenants/acme", ""); got.body != a.body || got.header.Get("ETag") != etag {
			t.Errorf("read: %s, want %s", got.body, a.body)
		}
		if again := ops.want(200, "PUT", "/v1/tenants/acme", acme); again.header.Get("Tollgate-Change") != "unchanged" || again.header.Get("ETag") != etag {
			t.Errorf("the same again: %v, want nothing changed", again.header)
		}
		// What was read can be sent back.
		if back := ops.want(200, "PUT", "/v1/tenants/acme", a.body); back.header.Get("Tollgate-Change") != "unchanged" {
			t.Errorf("sent back: %v", back.header)
		}

		if a = ops.want(200, "PATCH", "/v1/tenants/acme", `{"spec":{"plan":"gold","displayName":null},"metadata":{"labels":{"plan":null,"x":"y"}}}`, "Content-Type: application/merge-patch+json"); a.text("spec.plan") != "gold" || strings.Contains(a.body, "displayName") || a.text("metadata.labels.x") != "y" || a.text("metadata.labels.plan") != "" {
			t.Errorf("patched: %s", a.body)
		}
		newer := a.header.Get("ETag")
		stale := []string{"If-Match: " + etag}
		ops.want(412, "PUT", "/v1/tenants/acme", acme, stale...)
		ops.want(412, "PATCH", "/v1/tenants/acme", `{"spec":{"plan":"x"}}`, stale...)
		ops.want(412, "DELETE", "/v1/tenants/acme", "", stale...)
		ops.want(409, "PUT", "/v1/tenants/acme", strings.Replace(acme, `"labels"`, `"revision":`+strings.Trim(etag, `"`)+`,"labels"`, 1))
		ops.want(412, "PUT", "/v1/tenants/acme", acme, "If-None-Match: *")
		ops.want(412, "PUT", "/v1/tenants/nobody", strings.ReplaceAll(acme, "acme", "nobody"), "If-Match: *")
		for _, bad := range []string{"17", `W/"17"`, `"a"`, `"-1"`, `"1","2"`, `""`} {
			ops.want(422, "PUT", "/v1/tenants/acme", acme, "If-Match: "+bad)
		}
		ops.want(422, "PUT", "/v1/tenants/acme", acme, "If-Match: *", "If-None-Match: *")
		a = ops.want(200, "PUT", "/v1/tenants/acme", acme, "If-Match: "+newer)

		for _, dry := range []answer{
			ops.want(200, "PUT", "/v1/tenants/acme?dryRun=true", strings.Replace(acme, "GmbH", "AG", 1)),
			ops.want(200, "PATCH", "/v1/tenants/acme?dryRun=true", `{"spec":{"displayName":"ACME <&> AG"}}`),
		} {
			if dry.text("spec.displayName") != "ACME <&> AG" || dry.header.Get("Tollgate-Change") != "replaced" {
				t.Errorf("dry run: %v %s", dry.header, dry.body)
			}
		}
		if dry := ops.want(200, "DELETE", "/v1/tenants/acme?dryRun=true", ""); dry.header.Get("Tollgate-Change") != "deleted" {
			t.Errorf("dry run: %v", dry.header)
		}
		if dry := ops.want(200, "PUT", "/v1/tenants/new?dryRun=true", strings.ReplaceAll(acme, "acme", "new")); dry.header.Get("Tollgate-Change") != "created" || dry.header.Get("Location") != "" {
			t.Errorf("dry run: %v", dry.header)
		}
		ops.want(404, "GET", "/v1/tenants/new", "")
		if got := ops.want(200, "GET", "/v1/tenants/acme", ""); got.body != a.body {
			t.Errorf("after dry runs: %s, want %s", got.body, a.body)
		}

		if a = ops.want(200, "DELETE", "/v1/tenants/acme", "", "If-Match: "+a.header.Get("ETag")); a.text("metadata.name") != "acme" || a.header.Get("Tollgate-Change") != "deleted" {
			t.Errorf("deleted: %v %s", a.header, a.body)
		}
		ops.want(404, "GET", "/v1/tenants/acme", "")
		ops.want(404, "DELETE", "/v1/tenants/acme", "")
		ops.want(404, "PATCH", "/v1/tenants/acme", `{}`)
	})
}

func TestEveryKind(t *testing.T) {
	each(t, func(t *testing.T, ops *client) {
		ops.populate()
		for _, path := range []string{
			"/v1/tenants/acme", "/v1/upstream-clusters/west", "/v1/virtual-clusters/acme-prod", "/v1/tenants/acme/topic-grants/orders",
			"/v1/virtual-clusters/acme-prod/alias-topics/orders", "/v1/virtual-clusters/acme-prod/service-accounts/shipping", "/v1/virtual-clusters/acme-prod/acls/reads",
			"/v1/virtual-clusters/acme-prod/policies/durable", "/v1/price-books/gold", "/v1/tenants/acme/budgets/monthly",
		} {
			a := ops.want(200, "GET", path, "")
			if back := ops.want(200, "PUT", path, a.body); back.header.Get("Tollgate-Change") != "unchanged" {
				t.Errorf("%s sent back: %v", path, back.header)
			}
			collection := path[:strings.LastIndexByte(path, '/')]
			list := ops.want(200, "GET", collection, "")
			if !strings.Contains(list.body, strings.TrimSpace(a.body)) {
				t.Errorf("%s: %s, want the object in it", collection, list.body)
			}
			if everywhere := "/v1" + collection[strings.LastIndexByte(collection, '/'):]; everywhere != collection {
				if list := ops.want(200, "GET", everywhere+"?tenant=acme", ""); !strings.Contains(list.body, strings.TrimSpace(a.body)) || strings.Contains(list.body, "globex") {
					t.Errorf("%s: %s, want those of acme", everywhere, list.body)
				}
			}
		}
		// Names of the path may be left out, and YAML may be sent.
		a := ops.want(201, "PUT", "/v1/virtual-clusters/acme-prod/service-accounts/billing", shippingY, "Content-Type: application/yaml")
		if a.text("metadata.virtualCluster") != "acme-prod" || a.text("metadata.name") != "billing" {
			t.Errorf("made: %s", a.body)
		}
		// What was paid by stays.
		a = ops.want(409, "DELETE", "/v1/price-books/gold", "")
		if !strings.Contains(a.text("detail"), "write another PriceBook of the same plan with a later from") {
			t.Errorf("refused: %s, want what to do instead", a.body)
		}
		a = ops.want(422, "PATCH", "/v1/price-books/gold", `{"spec":{"currency":"USD"}}`)
		if a.text("errors.0.field") != "spec" || !strings.Contains(a.text("errors.0.message"), "is in effect since 2026-01-01T00:00:00Z") {
			t.Errorf("refused: %s, want since when", a.body)
		}
		a = ops.want(422, "PATCH", "/v1/virtual-clusters/acme-prod/policies/durable", `{"spec":{"type":"tap-dance","config":{"compression":["brotli"],"shoe":1}}}`)
		for _, field := range []string{"spec.type", "spec.config.compression[0]", "spec.config.shoe"} {
			if !strings.Contains(a.body, `"field":"`+field+`"`) {
				t.Errorf("refused: %s, want %s", a.body, field)
			}
		}
		a = ops.want(422, "PUT", "/v1/price-books/new", `{"apiVersion":"tollgate/v1","kind":"PriceBook","metadata":{},"spec":{"from":"2099-01-01","currency":"XXX","entries":[{"unit":"GiB","price":0.1},{"unit":"GiB","price":"1e3"}]}}`)
		for i, field := range []string{"spec.currency", "spec.entries[0].price", "spec.entries[1].price", "spec.from"} {
			if !strings.Contains(a.body, `"field":"`+field+`"`) {
				t.Errorf("problem %d: %s, want %s", i, a.body, field)
			}
		}
		// What others refer to stays.
		a = ops.want(409, "DELETE", "/v1/upstream-clusters/west", "")
		if !strings.Contains(a.text("detail"), "VirtualCluster acme-prod") || a.text("errors.0.object") == "" {
			t.Errorf("refused: %s, want who refers to it", a.body)
		}
	})
}

func TestLists(t *testing.T) {
	each(t, func(t *testing.T, ops *client) {
		var body strings.Builder
		for i := range 25 {
			fmt.Fprintf(&body, "---\n{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: t-%02d, labels: {even: %q, n: \"%d\"}}, spec: {}}\n", i, fmt.Sprint(i%2 == 0), i)
		}
		ops.want(200, "POST", "/v1/apply", body.String(), "Content-Type: application/yaml")
		names := func(query string) (all []string) {
			for {
				a := ops.want(200, "GET", "/v1/tenants?"+query, "")
				var page struct {
					Items []struct{ Metadata struct{ Name string } }
					Next  string
				}
				if err := json.Unmarshal([]byte(a.body), &page); err != nil {
					t.Fatal(err)
				}
				for _, item := range page.Items {
					all = append(all, item.Metadata.Name)
				}
				if page.Next == "" {
					return all
				}
				values, _ := url.ParseQuery(query)
				values.Set("after", page.Next)
				query = values.Encode()
			}
		}
		for query, want := range map[string]int{
			"limit=7": 25, "limit=25": 25, "limit=1000": 25, "name=t-1": 10, "name=nobody": 0,
			"limit=4&labelSelector=even%3Dtrue": 13, "labelSelector=even!%3Dtrue,n+in+(1,2,3)": 2, "labelSelector=!even": 0,
		} {
			got := names(query)
			if len(got) != want {
				t.Errorf("%s: %d tenants, want %d: %v", query, len(got), want, got)
			}
			for i := 1; i < len(got); i++ {
				if got[i-1] >= got[i] {
					t.Errorf("%s: %v, want them in order, each once", query, got)
				}
			}
		}
		for query, field := range map[string]string{
			"limit=0": "query.limit", "limit=1001": "query.limit", "limit=x": "query.limit", "after=!": "query.after", "after=eHh4": "query.after",
			"labelSelector=a%3D%3D%3Db": "query.labelSelector", "limit=1&limit=2": "query.limit", "name=": "query.name", "name=%00": "query.name", "Name=x": "query.Name", "name=%ff": "query.name",
		} {
			a := ops.want(422, "GET", "/v1/tenants?"+query, "")
			if a.problems()[field] == "" {
				t.Errorf("%s: %s, want %s named", query, a.body, field)
			}
		}
		ops.want(400, "GET", "/v1/tenants?name=%zz", "")
	})
}

func TestMistakesAreToldAllAtOnce(t *testing.T) {
	ops := run(t, configOn(t))
	ops.populate()
	a := ops.want(422, "PUT", "/v1/virtual-clusters/new", `{"apiVersion":"tollgate/v1","kind":"VirtualCluster","metadata":{"name":"other","tenant":"nobody","lables":{}},
		"spec":{"type":"partnr","host":"acme","home":"east","home":"west","authentication":{"plain":{},"anonymous":{}},"quotas":{"connections":"many"},"customHosts":["a.example",7]}}`)
	for field, message := range map[string]string{
		"metadata.name": `the path says "new"`, "metadata.tenant": "there is no Tenant", "metadata.lables": "unknown field", "spec.type": "partnr", "spec.host": "acme",
		"spec.authentication.anonymous": "stands alone", "spec.quotas.connections": "must be a whole number", "spec.customHosts[1]": "must be a string",
	} {
		if got := a.problems()[field]; !strings.Contains(got, message) {
			t.Errorf("%s: %q, want %q", field, got, message)
		}
	}
	if !strings.Contains(a.body, `"field":"spec.home","message":"appears twice`) {
		t.Errorf("doubled: %s", a.body)
	}
	// The cure for a secret in the wrong place.
	a = ops.want(422, "PUT", "/v1/virtual-clusters/acme-prod/service-accounts/x", `{"apiVersion":"tollgate/v1","kind":"ServiceAccount","metadata":{},"spec":{"type":"local","password":"hunter2"}}`)
	if !strings.Contains(a.problems()["spec.password"], "POST …/service-accounts/x/secrets") || strings.Contains(a.body, "hunter2") {
		t.Errorf("a password: %s", a.body)
	}
	a = ops.want(422, "PUT", "/v1/upstream-clusters/x", "apiVersion: tollgate/v1\nkind: UpstreamCluster\nmetadata: {name: x}\nspec:\n  bootstrap: [a]\n  tls: {caFile: ca.pem}\n", "Content-Type: application/yaml")
	if !strings.Contains(a.body, `"line":5`) || !strings.Contains(a.problems()["spec.tls.caFile"], "absolute") {
		t.Errorf("YAML: %s, want lines, and that paths are absolute", a.body)
	}
	// Without a kind, or with another one, it is still known what was to be put here.
	for kind, want := range map[string]string{``: "required: Tenant", `,"kind":"Acl"`: "must be Tenant here", `,"kind":"Nope"`: "must be Tenant here"} {
		a = ops.want(422, "PUT", "/v1/tenants/x", `{"metadata":{"name":"y"},"spec":{"displayNam":"x"}`+kind+`}`)
		if p := a.problems(); !strings.Contains(p["kind"], want) || p["apiVersion"] == "" || !strings.HasPrefix(p["spec.displayNam"], "unknown field") || p["metadata.name"] == "" {
			t.Errorf("%s: %s", kind, a.body)
		}
	}
}

func TestManyObjectsAtOnce(t *testing.T) {
	each(t, func(t *testing.T, ops *client) {
		yaml := "Content-Type: application/yaml"
		dry := ops.want(200, "POST", "/v1/apply?dryRun=true", world, yaml)
		if dry.text("results.0.change") != "created" || dry.text("revision") != "0" {
			t.Errorf("dry run: %s", dry.body)
		}
		if list := ops.want(200, "GET", "/v1/tenants", ""); list.text("items.0") != "" {
			t.Errorf("after a dry run: %s", list.body)
		}
		a := ops.want(200, "POST", "/v1/apply", world, yaml)
		if a.text("revision") == "0" || a.text("results.3.kind") != "VirtualCluster" || a.text("results.9.scope") != "acme-prod" || a.text("results.9.object.spec.type") != "local" {
			t.Errorf("applied: %s", a.body)
		}
		if again := ops.want(200, "POST", "/v1/apply", world, yaml); again.text("revision") != "0" || strings.Contains(again.body, `"change":"created"`) || strings.Contains(again.body, `"change":"replaced"`) {
			t.Errorf("applied again: %s, want nothing changed", again.body)
		}
		// One mistake, and nothing is kept; all mistakes are told.
		a = ops.want(422, "POST", "/v1/apply", `[{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":{"name":"fine"},"spec":{}},
			{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":{"name":"bad-1"},"spec":{"state":"x"}},{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":{"name":"bad-2"},"spec":{"x":1}}]`)
		if p := a.problems(); p["Tenant bad-1 spec.state"] == "" || p["Tenant bad-2 spec.x"] == "" || len(p) != 2 {
			t.Errorf("mistakes: %s", a.body)
		}
		ops.want(404, "GET", "/v1/tenants/fine", "")

		labelled := func(names ...string) string {
			var b strings.Builder
			for _, n := range names {
				fmt.Fprintf(&b, "---\n{apiVersion: tollgate/v1, kind: Acl, metadata: {name: %s, virtualCluster: acme-prod, labels: {from: git}}, spec: {principal: 'User:a', resource: {type: topic, name: %s}, operation: READ, permission: ALLOW}}\n", n, n)
			}
			return b.String()
		}
		ops.want(200, "POST", "/v1/apply?prune=from%3Dgit", labelled("a", "b", "c"), yaml)
		dry = ops.want(200, "POST", "/v1/apply?prune=from%3Dgit&dryRun=true", labelled("b", "d"), yaml)
		a = ops.want(200, "POST", "/v1/apply?prune=from%3Dgit", labelled("b", "d"), yaml)
		for _, x := range []answer{dry, a} {
			if x.text("results.0.change") != "unchanged" || x.text("results.1.change") != "created" || x.text("results.2.change") != "deleted" || x.text("results.2.name") != "c" || x.text("results.3.name") != "a" {
				t.Errorf("pruned: %s", x.body)
			}
		}
		if list := ops.want(200, "GET", "/v1/acls?labelSelector=from", ""); strings.Count(list.body, `"kind":"Acl"`) != 2 {
			t.Errorf("after pruning: %s", list.body)
		}
		ops.want(422, "POST", "/v1/apply?prune=%2C", labelled("b"), yaml)
		ops.want(200, "POST", "/v1/apply?prune=from%3Dgit", "[]")

		// A thousand in one go.
		var many strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&many, "---\n{apiVersion: tollgate/v1, kind: Acl, metadata: {name: m-%d, virtualCluster: acme-prod}, spec: {principal: 'User:a', resource: {type: topic, name: t%d}, operation: READ, permission: ALLOW}}\n", i, i)
		}
		if a = ops.want(200, "POST", "/v1/apply", many.String(), yaml); a.text("results.999.name") != "m-999" {
			t.Errorf("a thousand: %.200s", a.body)
		}
	})
}

func TestSecrets(t *testing.T) {
	each(t, func(t *testing.T, ops *client) {
		ops.populate()
		const path = "/v1/virtual-clusters/acme-prod/service-accounts/shipping/secrets"
		first := ops.want(201, "POST", path, "")
		if first.text("username") != "shipping" || len(first.text("password")) < 32 || first.text("id") == "" || first.text("change") != "created" {
			t.Errorf("issued: %s", first.body)
		}
		dry := ops.want(200, "POST", path+"?dryRun=true", "")
		if dry.text("password") != "" {
			t.Errorf("dry run: %s, want no password", dry.body)
		}
		second := ops.want(201, "POST", path, `{"password":"brought along","expires":"2100-01-01T00:00:00Z"}`)
		if second.text("password") != "" || second.text("imported") != "true" || second.text("expires") == "" {
			t.Errorf("imported: %s", second.body)
		}
		if again := ops.want(200, "POST", path, `{"password":"brought along"}`); again.text("id") != second.text("id") || again.text("change") != "unchanged" {
			t.Errorf("imported again: %s, want %s", again.body, second.body)
		}
		if a := ops.want(409, "POST", path, `{}`); !strings.Contains(a.text("detail"), first.text("id")) {
			t.Errorf("a third: %s", a.body)
		}
		list := ops.want(200, "GET", path, "")
		account := ops.want(200, "GET", "/v1/virtual-clusters/acme-prod/service-accounts/shipping", "")
		for _, a := range []answer{list, account, ops.want(200, "GET", "/v1/audit", "")} {
			for _, secret := range []string{first.text("password"), "brought along", "verif", "salt", "storedKey"} {
				if strings.Contains(a.body, secret) {
					t.Errorf("%s shows %q", a.body, secret)
				}
			}
		}
		if list.text("items.1.id") != second.text("id") || account.text("status.secrets.0.id") != first.text("id") {
			t.Errorf("listed: %s, %s", list.body, account.body)
		}
		one := path + "/" + first.text("id")
		if a := ops.want(200, "PATCH", one, `{"expires":"2000-01-01T00:00:00Z"}`); a.text("expires") != "2000-01-01T00:00:00Z" {
			t.Errorf("expired: %s", a.body)
		}
		if a := ops.want(200, "PATCH", one, `{"expires":null}`); a.text("expires") != "" {
			t.Errorf("never: %s", a.body)
		}
		ops.want(422, "PATCH", one, `{}`)
		ops.want(422, "PATCH", one, `{"expires":"tomorrow"}`)
		ops.want(422, "PATCH", one, `{"expired":null}`)
		ops.want(204, "DELETE", one+"?dryRun=true", "")
		ops.want(204, "DELETE", one, "")
		ops.want(404, "DELETE", one, "")
		ops.want(404, "PATCH", one, `{"expires":null}`)
		for body, field := range map[string]string{
			`{"password":"x","verifiers":[{"mechanism":"argon2id","hash":"x"}]}`: "verifiers", `{"verifiers":[{"mechanism":"MD5"}]}`: "verifiers[0].mechanism",
			`{"expires":"2000-01-01T00:00:00Z"}`: "expires", `{"pasword":"x"}`: "pasword", `{"password":7}`: "password", `{"password":"a\u0000b"}`: "password",
		} {
			if a := ops.want(422, "POST", path, body); a.problems()[field] == "" {
				t.Errorf("%s: %s, want %s named", body, a.body, field)
			}
		}
	})
}

func TestTokens(t *testing.T) {
	each(t, func(t *testing.T, ops *client) {
		ops.populate()
		a := ops.want(201, "POST", "/v1/tokens", `{"name":"robot","role":"ops","readOnly":true}`)
		robot := ops.as(a.text("token"))
		robot.want(200, "GET", "/v1/tenants", "")
		robot.want(403, "PUT", "/v1/tenants/acme", acme)
		robot.want(403, "POST", "/v1/apply", world, "Content-Type: application/yaml")
		robot.want(403, "DELETE", "/v1/tenants/acme", "")
		robot.want(403, "POST", "/v1/tokens", `{"name":"x","role":"ops"}`)
		robot.want(404, "DELETE", "/v1/tenants/nobody", "")
		list := ops.want(200, "GET", "/v1/tokens?limit=1", "")
		if strings.Contains(list.body, a.text("token")) || list.text("next") == "" || list.text("items.1") != "" {
			t.Errorf("listed: %s", list.body)
		}
		if next := ops.want(200, "GET", "/v1/tokens?limit=1&after="+list.text("next"), ""); next.text("items.0.id") == list.text("items.0.id") || next.text("next") != "" {
			t.Errorf("the next page: %s", next.body)
		}
		ops.want(204, "DELETE", "/v1/tokens/"+a.text("id"), "")
		ops.want(404, "DELETE", "/v1/tokens/nobody", "")
		robot.want(401, "GET", "/v1/tenants", "")
		for body, field := range map[string]string{
			`{"name":"x","role":"boss"}`: "role", `{"name":"a\u0000b","role":"ops"}`: "name", `{"role":"ops"}`: "name", `{"name":"x","role":"tenant"}`: "tenant", `{"name":"x","role":"tenant","tenant":"nobody"}`: "tenant",
			`{"name":"x","role":"ops","expires":"2000-01-01T00:00:00Z"}`: "expires", `{"name":7}`: "name",
		} {
			if a := ops.want(422, "POST", "/v1/tokens", body); a.problems()[field] == "" {
				t.Errorf("%s: %s, want %s named", body, a.body, field)
			}
		}
	})
}

func TestAudit(t *testing.T) {
	each(t, func(t *testing.T, ops *client) {
		ops.populate()
		ops.want(200, "PATCH", "/v1/tenants/acme", `{"spec":{"plan":"gold"}}`)
		a := ops.want(200, "GET", "/v1/audit?limit=1", "")
		if a.text("items.0.action") != "replace" || a.text("items.0.before.spec.plan") != "" || a.text("items.0.after.spec.plan") != "gold" || a.text("items.0.address") != "127.0.0.1" || !strings.HasPrefix(a.text("items.0.actor"), "first token (") {
			t.Errorf("the newest: %s", a.body)
		}
		all := 0
		for next := "limit=4&order=oldest"; next != ""; {
			page := ops.want(200, "GET", "/v1/audit?"+next, "")
			all += strings.Count(page.body, `"seq":`)
			if next = page.text("next"); next != "" {
				next = "limit=4&order=oldest&after=" + next
			}
		}
		lines := strings.Split(strings.TrimSpace(ops.want(200, "GET", "/v1/audit", "", "Accept: application/x-ndjson").body), "\n")
		if len(lines) != 20 || all != 20 { // the first token, 18 objects, a change
			t.Errorf("%d entries, and %d on pages, want 20", len(lines), all)
		}
		for query, want := range map[string]int{
			"kind=Acl": 2, "kind=Acl&scope=acme-prod": 1, "tenant=globex": 8, "action=replace": 1, "actor=nobody": 0, "from=2100-01-01T00:00:00Z": 0, "to=2100-01-01T00:00:00Z": 20, "name=west": 1,
		} {
			if a := ops.want(200, "GET", "/v1/audit?"+query, ""); strings.Count(a.body, `"seq":`) != want {
				t.Errorf("%s: %s, want %d entries", query, a.body, want)
			}
		}
		ops.want(422, "GET", "/v1/audit?from=yesterday", "")
		ops.want(422, "GET", "/v1/audit?action=nothing", "")
		ops.want(422, "GET", "/v1/audit?after=eHgAeQ", "")
	})
}

func TestEvents(t *testing.T) {
	each(t, func(t *testing.T, ops *client) {
		ops.populate()
		tenant := ops.tokenFor(`{"name":"t","role":"tenant","tenant":"acme"}`)
		follow := func(c *client, last string) *events {
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+"/v1/events", nil)
			r.Header.Set("Authorization", "Bearer "+c.token)
			if last != "" {
				r.Header.Set("Last-Event-ID", last)
			}
			resp, err := c.http.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
				t.Fatalf("events: %s %v", resp.Status, resp.Header)
			}
			t.Cleanup(func() { resp.Body.Close() })
			return &events{t: t, body: resp.Body}
		}
		everything, own := follow(ops, ""), follow(tenant, "")
		everything.await(": events follow")
		own.await(": events follow")
		ops.want(201, "PUT", "/v1/tenants/third", strings.ReplaceAll(acme, "acme", "third"))
		ops.want(200, "PATCH", "/v1/virtual-clusters/globex-prod/acls/hidden", `{"spec":{"operation":"WRITE"}}`)
		ops.want(200, "PATCH", "/v1/virtual-clusters/acme-prod/acls/reads", `{"spec":{"operation":"WRITE"}}`)
		first := everything.await(`"name":"third"`)
		everything.await(`"name":"hidden"`)
		everything.await(`"name":"reads"`)
		if saw := own.await(`"name":"reads"`); strings.Contains(saw, "third") || strings.Contains(saw, "hidden") || strings.Contains(saw, "globex") {
			t.Errorf("a tenant saw %s", saw)
		}
		// From an event on, none is missed and none comes again.
		id := first[strings.LastIndex(first, "id: ")+4:]
		id = id[:strings.IndexByte(id, '\n')]
		if again := follow(ops, id).await(`"name":"reads"`); strings.Contains(again, "third") || !strings.Contains(again, "hidden") {
			t.Errorf("behind %s: %s", id, again)
		}
		ops.want(422, "GET", "/v1/events", "", "Last-Event-ID: x")
		// A stop ends streams at once.
		ops.stop()
		if rest, err := io.ReadAll(everything.body); err != nil {
			t.Errorf("the end of the stream: %q, %v", rest, err)
		}
	})
}

// events reads a stream.
type events struct {
	t    *testing.T
	body io.ReadCloser
	seen string
}

// await reads until something came, and returns everything up to the end of its event.
func (e *events) await(text string) string {
	e.t.Helper()
	for {
		if i := strings.Index(e.seen, text); i >= 0 {
			if end := strings.Index(e.seen[i:], "\n\n"); end >= 0 {
				saw := e.seen[:i+end+2]
				e.seen = e.seen[i+end+2:]
				return saw
			}
		}
		buf := make([]byte, 4096)
		n, err := e.body.Read(buf)
		e.seen += string(buf[:n])
		if err != nil {
			e.t.Fatalf("waiting for %q: %v, after %q", text, err, e.seen)
		}
	}
}

// Policies of all virtual clusters are where the list of all policies is, for those who run
// the gateway, and have what every object has.
func TestPoliciesOfAllVirtualClusters(t *testing.T) {
	each(t, func(t *testing.T, ops *client) {
		ops.populate()
		const path, body = "/v1/policies/durable", `{"apiVersion":"tollgate/v1","kind":"Policy","metadata":{"labels":{"by":"ops"}},"spec":{"type":"produce","config":{"acks":"all"}}}`
		tenant := ops.tokenFor(`{"name":"t","role":"tenant","tenant":"acme"}`)
		nothing := tenant.want(404, "GET", "/v1/policies/nothing", "").body
		a := ops.want(201, "PUT", path, body)
		if a.header.Get("Location") != path || a.text("metadata.virtualCluster") != "" || a.text("metadata.revision") == "" {
			t.Errorf("created: %v %s", a.header, a.body)
		}
		for _, ask := range [][3]string{{"GET", path, ""}, {"PUT", path, body}, {"PATCH", path, `{}`}, {"DELETE", path, ""}, {"PUT", "/v1/policies/other", body}, {"PUT", "/v1/policies/other", "{"}} {
			if a := tenant.want(404, ask[0], ask[1], ask[2]); a.body != nothing {
				t.Errorf("a tenant is answered %s, and %s for nothing", a.body, nothing)
			}
		}
		if list := tenant.want(200, "GET", "/v1/policies", ""); list.text("items.0.metadata.virtualCluster") != "acme-prod" || list.text("items.1") != "" {
			t.Errorf("a tenant lists %s", list.body)
		}
		list := ops.want(200, "GET", "/v1/policies?limit=1", "")
		if list.text("items.0.metadata.name") != "durable" || list.text("items.0.metadata.virtualCluster") != "" {
			t.Errorf("listed first: %s", list.body)
		}
		if next := ops.want(200, "GET", "/v1/policies?limit=1&after="+list.text("next"), ""); next.text("items.0.metadata.virtualCluster") != "acme-prod" {
			t.Errorf("listed next: %s", next.body)
		}
		if list := ops.want(200, "GET", "/v1/policies?labelSelector=by%3Dops", ""); list.text("items.0.metadata.name") != "durable" || list.text("items.1") != "" {
			t.Errorf("by label: %s", list.body)
		}
		ops.want(412, "PUT", path, body, `If-Match: "999"`)
		ops.want(412, "PUT", path, body, "If-None-Match: *")
		ops.want(200, "PATCH", path, `{"spec":{"scope":{"exceptVirtualClusterLabels":{"exempt":"acks"}}}}`, "If-Match: "+a.header.Get("ETag"))
		a = ops.want(422, "PUT", path, strings.Replace(body, `"labels"`, `"virtualCluster":"acme-prod","labels"`, 1))
		if !strings.Contains(a.problems()["metadata.virtualCluster"], "/v1/virtual-clusters/acme-prod/policies/durable") {
			t.Errorf("of one virtual cluster: %s", a.body)
		}
		a = ops.want(200, "POST", "/v1/apply?dryRun=true", "["+strings.Replace(body, `"labels"`, `"name":"durable","labels"`, 1)+"]")
		if a.text("results.0.change") != "replaced" || a.text("results.0.scope") != "" {
			t.Errorf("applied: %s", a.body)
		}
		entries := ops.want(200, "GET", "/v1/audit?kind=Policy&name=durable&action=replace", "")
		if entries.text("items.0.scope") != "" || entries.text("items.0.after.spec.scope.exceptVirtualClusterLabels.exempt") != "acks" {
			t.Errorf("audited: %s", entries.body)
		}
		if entries := tenant.want(200, "GET", "/v1/audit?kind=Policy&name=durable&action=replace", ""); entries.text("items.0") != "" {
			t.Errorf("a tenant reads of it: %s", entries.body)
		}
		readOnly := ops.as(ops.want(201, "POST", "/v1/tokens", `{"name":"r","role":"ops","readOnly":true}`).text("token"))
		readOnly.want(200, "GET", path, "")
		readOnly.want(403, "DELETE", path, "")
		ops.want(200, "DELETE", path, "")
		ops.want(404, "GET", path, "")
		ops.want(200, "GET", "/v1/virtual-clusters/acme-prod/policies/durable", "")
	})
}
