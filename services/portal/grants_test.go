package portal_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

const requests = "/v1/tenants/acme/topic-grant-requests"

func TestATenantAsksAndOperatorsDecide(t *testing.T) {
	each(t, func(t *testing.T, ops *client) {
		ops.populate()
		own := ops.tokenFor(`{"name":"pipeline","role":"tenant","tenant":"acme"}`)
		const body = `{"topic":{"name":"returns"},"access":"read-write","until":"2099-01-01T00:00:00Z","reason":"we ship what comes back"}`
		asked := own.want(201, "POST", requests, body)
		at := requests + "/" + asked.text("id")
		if asked.header.Get("Location") != at || asked.text("state") != "open" || asked.text("topic.name") != "returns" || asked.text("topic.pattern") != "literal" || !strings.HasPrefix(asked.text("askedBy"), "pipeline (") {
			t.Errorf("asked: %v %s", asked.header, asked.body)
		}
		if again := own.want(200, "POST", requests, body); again.body != asked.body {
			t.Errorf("asked again: %s, want %s", again.body, asked.body)
		}
		if got := own.want(200, "GET", at, ""); got.body != asked.body {
			t.Errorf("read: %s, want %s", got.body, asked.body)
		}
		third := own.want(201, "POST", requests, strings.Replace(body, "returns", "third", 1))

		// Those who decide see it among all.
		all := ops.want(200, "GET", "/v1/topic-grant-requests?state=open", "")
		if all.text("items.0.id") != asked.text("id") || all.text("items.0.tenant") != "acme" || all.text("items.1.id") != third.text("id") {
			t.Errorf("open: %s", all.body)
		}
		wrong := ops.want(422, "POST", at+"/approve", `{"cluster":"mars","topic":{"name":"shop.returns"},"access":"read-write","until":"2099-06-01T00:00:00Z"}`)
		if p := wrong.problems(); len(p) != 1 || !strings.Contains(p["until"], "is later than was asked for") {
			t.Errorf("more than was asked for: %v", p)
		}
		wrong = ops.want(422, "POST", at+"/approve", `{"cluster":"mars"}`)
		if p := wrong.problems(); len(p) != 1 || !strings.Contains(p["cluster"], `there is no UpstreamCluster "mars"`) {
			t.Errorf("a cluster that is not there: %v", p)
		}
		const approval = `{"cluster":"west","topic":{"name":"shop.returns.v3"},"access":"read","name":"returns"}`
		if dry := ops.want(200, "POST", at+"/approve?dryRun=true", approval); dry.text("state") != "approved" {
			t.Errorf("dry run: %s", dry.body)
		}
		ops.want(404, "GET", "/v1/tenants/acme/topic-grants/returns", "")
		done := ops.want(200, "POST", at+"/approve", approval)
		if done.text("state") != "approved" || done.text("granted.name") != "returns" || done.text("granted.access") != "read" || !strings.HasPrefix(done.text("decidedBy"), "first token") {
			t.Errorf("approved: %s", done.body)
		}
		if g := ops.want(200, "GET", "/v1/tenants/acme/topic-grants/returns", ""); g.text("spec.topic.name") != "shop.returns.v3" || g.text("spec.access") != "read" || g.text("spec.until") != "2099-01-01T00:00:00Z" {
			t.Errorf("the grant: %s", g.body)
		}
		for path, body := range map[string]string{"/approve": approval, "/refuse": `{"reason":"no"}`, "/withdraw": ""} {
			if late := ops.want(409, "POST", at+path, body); !strings.Contains(late.text("detail"), "was approved already, by first token") {
				t.Errorf("%s: %s", path, late.body)
			}
		}
		if late := own.want(409, "POST", at+"/withdraw", ""); !strings.Contains(late.text("detail"), "was approved already, by operator at ") {
			t.Errorf("withdrawn: %s", late.body)
		}

		// What the tenant reads of it, wherever, has who decided and what it is for the
		// brokers nowhere.
		ops.want(422, "POST", requests+"/"+third.text("id")+"/refuse", `{}`)
		ops.want(200, "POST", requests+"/"+third.text("id")+"/refuse", `{"reason":"ask for returns"}`)
		if no := own.want(200, "GET", requests+"/"+third.text("id"), ""); no.text("state") != "refused" || no.text("answer") != "ask for returns" || no.text("decidedBy") != "operator" {
			t.Errorf("refused: %s", no.body)
		}
		for _, path := range []string{at, requests, "/v1/topic-grant-requests", "/v1/tenants/acme/topic-grants/returns", "/v1/audit?limit=1000", "/v1/audit?kind=TopicGrantRequest"} {
			a := own.want(200, "GET", path, "")
			for _, secret := range []string{"west", "shop.returns", "first token", "127.0.0.1"} {
				if strings.Contains(strings.ReplaceAll(a.body, `"address":"127.0.0.1"`, ""), secret) {
					t.Errorf("%s shows %q: %s", path, secret, a.body)
				}
			}
		}
		if log := ops.want(200, "GET", "/v1/audit?kind=TopicGrantRequest&action=approve-grant", ""); log.text("items.0.before.state") != "open" || log.text("items.0.after.state") != "approved" ||
			!strings.HasPrefix(log.text("items.0.actor"), "first token") || !strings.HasPrefix(log.text("items.0.after.askedBy"), "pipeline") || log.text("items.0.name") != asked.text("id") {
			t.Errorf("the log: %s", log.body)
		}
		fourth := own.want(201, "POST", requests, body)
		if gone := own.want(200, "POST", requests+"/"+fourth.text("id")+"/withdraw", ""); gone.text("state") != "withdrawn" || !strings.HasPrefix(gone.text("decidedBy"), "pipeline (") {
			t.Errorf("withdrawn: %s", gone.body)
		}
		ops.want(404, "GET", requests+"/nothing", "")
		ops.want(404, "POST", "/v1/tenants/nobody/topic-grant-requests", body)
	})
}

// Whatever a tenant's token sends, nothing of what it asks for is lent by that.
func TestATenantApprovesNothingItself(t *testing.T) {
	each(t, func(t *testing.T, ops *client) {
		ops.populate()
		own := ops.tokenFor(`{"name":"pipeline","role":"tenant","tenant":"acme"}`)
		reader := ops.tokenFor(`{"name":"reader","role":"tenant","tenant":"acme","readOnly":true}`)
		const body = `{"topic":{"name":"returns"},"access":"read","reason":"x"}`
		asked := own.want(201, "POST", requests, body)
		at := requests + "/" + asked.text("id")
		head := ops.want(200, "GET", "/v1/audit?limit=1", "").text("items.0.revision")

		for _, field := range []string{`"state":"approved"`, `"granted":{"name":"x","access":"read"}`, `"decided":"2027-01-01T00:00:00Z"`, `"cluster":"west"`, `"tenant":"acme"`, `"id":"a"`, `"askedBy":"ops"`} {
			own.want(422, "POST", requests, strings.Replace(body, "{", "{"+field+",", 1))
			own.want(422, "POST", requests+"?dryRun=true", strings.Replace(body, "{", "{"+field+",", 1))
		}
		const grant = `{"apiVersion":"tollgate/v1","kind":"TopicGrant","metadata":{"name":"returns","tenant":"acme"},"spec":{"cluster":"west","topic":{"name":"returns"},"access":"read","state":"approved"}}`
		for _, headers := range [][]string{nil, {"If-Match: *"}, {`If-Match: "` + head + `"`}, {"If-None-Match: *"}} {
			for _, dry := range []string{"", "?dryRun=true", "?dryRun=false"} {
				for _, c := range []*client{own, reader} {
					for _, what := range []string{"/approve", "/refuse"} {
						c.want(404, "POST", at+what+dry, `{"cluster":"west","reason":"x"}`, headers...)
					}
					for _, method := range []string{"PUT", "PATCH", "DELETE"} {
						if a := c.do(method, at+dry, `{"state":"approved"}`, headers...); a.status != 405 && a.status != 404 {
							t.Errorf("%s of a request: %d %s", method, a.status, a.body)
						}
						if a := c.do(method, "/v1/tenants/acme/topic-grants/returns"+dry, grant, headers...); a.status < 400 {
							t.Errorf("%s of a grant: %d %s", method, a.status, a.body)
						}
					}
					for _, document := range []string{grant, strings.Replace(grant, "TopicGrant", "TopicGrantRequest", 1)} {
						if a := c.do("POST", "/v1/apply"+dry, "["+document+"]", headers...); a.status < 400 {
							t.Errorf("apply: %d %s", a.status, a.body)
						}
					}
				}
				reader.want(403, "POST", requests+dry, body, headers...)
				reader.want(403, "POST", at+"/withdraw"+dry, "", headers...)
			}
		}
		// Those who may look only decide nothing either.
		looker := ops.tokenFor(`{"name":"looker","role":"ops","readOnly":true}`)
		looker.want(200, "GET", at, "")
		looker.want(403, "POST", at+"/approve", `{"cluster":"west"}`)
		looker.want(403, "POST", at+"/refuse", `{"reason":"x"}`)
		looker.want(403, "POST", at+"/withdraw", "")
		looker.want(403, "POST", requests, body)

		if a := ops.want(200, "GET", at, ""); a.body != asked.body {
			t.Errorf("the request is %s, want %s", a.body, asked.body)
		}
		if a := ops.want(200, "GET", "/v1/tenants/acme/topic-grants", ""); a.text("items.0.metadata.name") != "orders" || a.text("items.1") != "" {
			t.Errorf("grants: %s", a.body)
		}
		if a := ops.want(200, "GET", "/v1/audit?limit=1&tenant=acme&order=newest&kind=TopicGrantRequest", ""); a.text("items.0.action") != "request-grant" || a.text("items.0.revision") != head {
			t.Errorf("the log: %s", a.body)
		}
	})
}

func TestOfTwoOperatorsOneDecides(t *testing.T) {
	each(t, func(t *testing.T, ops *client) {
		ops.populate()
		own := ops.tokenFor(`{"name":"pipeline","role":"tenant","tenant":"acme"}`)
		for i := range 5 {
			at := requests + "/" + own.want(201, "POST", requests, fmt.Sprintf(`{"topic":{"name":"returns"},"access":"read","reason":"number %d"}`, i)).text("id")
			var wg sync.WaitGroup
			answers := make([]answer, 6)
			for n := range answers {
				wg.Go(func() {
					if n%2 == 0 {
						answers[n] = ops.do("POST", at+"/approve", fmt.Sprintf(`{"cluster":"west","name":"g-%d-%d"}`, i, n))
					} else {
						answers[n] = ops.do("POST", at+"/refuse", `{"reason":"x"}`)
					}
				})
			}
			wg.Wait()
			won := 0
			for _, a := range answers {
				if a.status == 200 {
					won++
				} else if a.status != 409 {
					t.Errorf("%d %s, want 409", a.status, a.body)
				}
			}
			grants := strings.Count(ops.want(200, "GET", fmt.Sprintf("/v1/tenants/acme/topic-grants?name=g-%d-", i), "").body, `"kind":"TopicGrant"`)
			if state := ops.want(200, "GET", at, "").text("state"); won != 1 || (state == "approved") != (grants == 1) || grants > 1 {
				t.Errorf("%d decided, it is %s, and there are %d grants", won, state, grants)
			}
		}
	})
}

func TestABudgetOfOperatorsIsNotTheTenants(t *testing.T) {
	each(t, func(t *testing.T, ops *client) {
		ops.populate()
		own := ops.tokenFor(`{"name":"pipeline","role":"tenant","tenant":"acme"}`)
		const ours, theirs = "/v1/tenants/acme/budgets/monthly", "/v1/tenants/acme/budgets/own"
		const body = `{"apiVersion":"tollgate/v1","kind":"Budget","metadata":{"tenant":"acme"},"spec":{"period":"day","bytes":1,"notify":{"emails":["a@b.example"]}}}`
		before := own.want(200, "GET", ours, "")
		if before.text("spec.owner") != "operator" {
			t.Errorf("it is %s", before.body)
		}
		for _, headers := range [][]string{nil, {"If-Match: *"}, {"If-Match: " + before.header.Get("ETag")}} {
			for _, query := range []string{"", "?dryRun=true"} {
				for _, a := range []answer{
					own.want(403, "PUT", ours+query, body, headers...),
					own.want(403, "PUT", ours+query, strings.Replace(body, `"spec":{`, `"spec":{"owner":"tenant",`, 1), headers...),
					own.want(403, "PUT", ours+query, before.body, headers...),
					own.want(403, "PATCH", ours+query, `{"spec":{"owner":"tenant"}}`, headers...),
					own.want(403, "DELETE", ours+query, "", headers...),
				} {
					if !strings.Contains(a.text("detail"), "was written by those who run the gateway") {
						t.Errorf("refused: %s", a.body)
					}
				}
			}
		}
		own.want(403, "POST", "/v1/apply", "["+strings.Replace(body, `{"tenant"`, `{"name":"monthly","tenant"`, 1)+"]")
		if a := own.want(200, "GET", ours, ""); a.body != before.body {
			t.Errorf("it is %s by now", a.body)
		}
		if a := own.want(201, "PUT", theirs, body); a.text("spec.owner") != "tenant" {
			t.Errorf("the tenant's own: %s", a.body)
		}
		if p := own.want(422, "PATCH", theirs, `{"spec":{"owner":"operator"}}`).problems(); !strings.Contains(p["spec.owner"], "is for those who run the gateway") {
			t.Errorf("problems %v", p)
		}
		own.want(200, "PATCH", theirs, `{"spec":{"bytes":2}}`)
		ops.want(200, "PATCH", theirs, `{"metadata":{"labels":{"x":"y"}}}`)
		own.want(200, "DELETE", theirs, "")
		ops.want(200, "DELETE", ours, "")

		// A price book that is in effect says why it stays, and what helps.
		stays := ops.want(409, "DELETE", "/v1/price-books/gold", "").text("detail")
		if !strings.Contains(stays, "is in effect since 2026-01-01T00:00:00Z and stays, for what was counted keeps its price") || !strings.Contains(stays, "write another PriceBook of the same plan with a later from") {
			t.Errorf("deleted: %s", stays)
		}
	})
}
