package portal_test

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal"
)

// sample is what a kind is tried with: by a tenant that has one of a name, if tenants
// have any, while another has one of theirs; and writes another one, if tenants write
// any.
type sample struct{ own, theirs, body, patch string }

// samples has every kind. Whoever adds one also gives it to globex, in busyWorld.
var samples = map[string]sample{
	resource.KindTenant:          {own: "acme", theirs: "globex"},
	resource.KindUpstreamCluster: {theirs: "globex-own"},
	resource.KindVirtualCluster:  {own: "acme-prod", theirs: "globex-prod"},
	resource.KindTopicGrant:      {own: "orders", theirs: "secret"},
	resource.KindAliasTopic:      {own: "orders", theirs: "secret"},
	resource.KindServiceAccount:  {own: "shipping", theirs: "spy", body: `"spec":{"type":"local"}`, patch: `{"metadata":{"labels":{"x":"y"}}}`},
	resource.KindPriceBook:       {theirs: "globex-2020"},
	resource.KindPolicy:          {own: "durable", theirs: "hidden"},
	resource.KindBudget:          {own: "monthly", theirs: "secret", body: `"spec":{"period":"day","bytes":1,"notify":{"emails":["a@acme.example"]}}`, patch: `{"spec":{"bytes":2}}`},
	resource.KindACL: {
		own: "reads", theirs: "hidden", body: `"spec":{"principal":"User:a","resource":{"type":"topic","name":"x"},"operation":"READ","permission":"ALLOW"}`,
		patch: `{"spec":{"operation":"WRITE"}}`,
	},
}

// busyWorld is what others have beside acme, with what is in world.
const busyWorld = `
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: globex-own}, spec: {bootstrap: ["b-1.globex.example:9092"]}}
---
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: hooli}, spec: {}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: hooli-prod, tenant: hooli}, spec: {type: standard, host: hooli, home: globex-own, authentication: {plain: {}}}}
---
{apiVersion: tollgate/v1, kind: PriceBook, metadata: {name: globex-2020}, spec: {from: 2020-01-01T00:00:00Z, plan: globex-plan, currency: EUR, entries: [{unit: GiB, price: "0.035"}]}}
---
{apiVersion: tollgate/v1, kind: Policy, metadata: {name: hidden, labels: {of: globex}}, spec: {type: produce, scope: {virtualClusterLabels: {of: globex}}, config: {acks: leader}}}
---
{apiVersion: tollgate/v1, kind: Budget, metadata: {name: hidden, tenant: hooli}, spec: {period: day, bytes: 1, notify: {emails: [ops@hooli.example]}}}
`

// side is a portal, and how acme sees it.
type side struct {
	*client  // of those who run the gateway
	busy     bool
	own      map[string]*client // acme's, by what its tokens may do
	other    *client            // globex's
	node     *client
	vars     map[string]string
	labels   map[string]string
	disturbs int
	serve    func(applied int64) // what the node applied
	seen     []string            // what acme asked and was answered
}

func newSide(t *testing.T, cfg portal.Config, busy bool) *side {
	t.Helper()
	_, keys := withRedis(t, &cfg)
	s := &side{client: run(t, cfg), busy: busy, vars: make(map[string]string), labels: make(map[string]string)}
	reader := readerOf(t, cfg.Redis, fleet.DefaultDeployment, keys)
	later := time.Now().UTC().Add(time.Hour)
	s.serve = func(applied int64) {
		beat(t, reader, fleet.Node{ID: "n-1", Host: "127.0.0.1", Port: 9092, Version: "test", BundleFormat: bundle.Format, State: fleet.NodeServing, Started: later, Heartbeat: later, Applied: applied})
	}
	s.serve(everything)
	alike := s.client.http

	var mine []string // documents
	for document := range strings.SplitSeq(world, "---\n") {
		if busy || !strings.Contains(document, "globex") {
			mine = append(mine, document)
		}
	}
	if busy {
		// Others run the gateway here, from elsewhere.
		s.client = s.tokenFor(`{"name":"eve of operations","role":"ops"}`)
		s.client.http = fromElsewhere()
		s.want(200, "POST", "/v1/apply", busyWorld, "Content-Type: application/yaml")
	}
	s.want(200, "POST", "/v1/apply", strings.Join(mine, "---\n"), "Content-Type: application/yaml")
	if busy {
		s.other = s.tokenFor(`{"name":"globex","role":"tenant","tenant":"globex"}`)
	}
	s.node = s.tokenFor(`{"name":"n","role":"node"}`)
	s.own = map[string]*client{
		"tenant": s.tokenFor(`{"name":"pipeline","role":"tenant","tenant":"acme"}`),
		"reader": s.tokenFor(`{"name":"reader","role":"tenant","tenant":"acme","readOnly":true}`),
	}
	for _, own := range s.own {
		own.http = alike
	}
	return s
}

// everything is more than there will be.
const everything = 1 << 40

// disturb is what others do between any two requests of acme.
func (s *side) disturb() {
	if !s.busy {
		return
	}
	s.disturbs++
	account := fmt.Sprintf("/v1/virtual-clusters/globex-prod/service-accounts/a-%d", s.disturbs)
	s.other.want(201, "PUT", account, `{"apiVersion":"tollgate/v1","kind":"ServiceAccount","metadata":{"labels":{"x":"y"}},"spec":{"type":"external","externalNames":["CN=`+strconv.Itoa(s.disturbs)+`"]}}`)
	switch s.disturbs % 9 {
	case 0:
		s.want(200, "PATCH", "/v1/tenants/hooli", `{"spec":{"plan":"`+strconv.Itoa(s.disturbs)+`"}}`)
	case 1:
		s.other.want(200, "POST", "/v1/apply?prune=x", "[]")
	case 2:
		s.other.want(200, "PATCH", "/v1/virtual-clusters/globex-prod/acls/hidden", `{"spec":{"permission":"DENY"},"metadata":{"labels":{"n":"`+strconv.Itoa(s.disturbs)+`"}}}`)
	case 3:
		s.other.want(404, "GET", "/v1/virtual-clusters/acme-prod", "")
	case 4:
		s.want(200, "POST", "/v1/apply", `[{"apiVersion":"tollgate/v1","kind":"UpstreamCluster","metadata":{"name":"west"},"spec":{"bootstrap":["b-`+strconv.Itoa(s.disturbs)+`.west.example:9092"]}}]`)
	case 5:
		s.as("tg_abcdefghijkl_x").do("GET", "/v1/tenants", "") // 401, and soon 429
	case 6:
		s.kafka("globex-prod", strconv.Itoa(s.disturbs))
	case 7:
		s.want(201, "POST", "/v1/tokens", `{"name":"acme","role":"tenant","tenant":"globex"}`)
	case 8:
		asked := s.other.want(201, "POST", "/v1/tenants/globex/topic-grant-requests", `{"topic":{"name":"returns-`+strconv.Itoa(s.disturbs)+`"},"access":"read","reason":"globex"}`)
		s.want(200, "POST", "/v1/tenants/globex/topic-grant-requests/"+asked.text("id")+"/refuse", `{"reason":"hooli has it"}`)
	}
}

// kafka is a change of ACLs through a proxy.
func (s *side) kafka(virtualCluster, topic string) {
	s.node.want(200, "POST", "/v1/internal/acl-changes", `{"virtualCluster":"`+virtualCluster+`","principal":"User:admin","address":"10.9.8.7","create":[{"resourceType":2,"resourceName":"`+topic+`","pattern":3,"principal":"User:a","host":"*","operation":3,"permission":3}]}`)
}

var placeholder = regexp.MustCompile(`«([^»]+)»`)

// ask is a request of acme's. What an earlier answer had stands in «», by its name.
func (s *side) ask(who, method, path, body string, headers ...string) {
	s.t.Helper()
	if len(s.seen)%4 == 0 {
		s.disturb()
	}
	fill := func(text string) string {
		return placeholder.ReplaceAllStringFunc(text, func(name string) string {
			value, ok := s.vars[strings.Trim(name, "«»")]
			if !ok {
				s.t.Errorf("%s %s: there is no %s", method, path, name)
			}
			return value
		})
	}
	filled := make([]string, len(headers))
	for i := range headers {
		filled[i] = fill(headers[i])
	}
	if strings.Contains(path, "wait=applied") { // in vain
		s.serve(0)
		defer s.serve(everything)
	}
	a := s.own[who].do(method, fill(path), fill(body), filled...)
	if etag := a.header.Get("ETag"); etag != "" {
		s.vars["etag"] = etag
	}
	for name, at := range map[string]string{"revision": "metadata.revision", "id": "id", "next": "next"} {
		switch value := a.at(at).(type) {
		case string:
			s.vars[name] = value
		case json.Number:
			s.vars[name] = value.String()
		}
	}
	s.seen = append(s.seen, fmt.Sprintf("%s: %s %s %s %v\n%s", who, method, path, body, headers, s.normal(a)))
}

var (
	moments   = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	labelled  = regexp.MustCompile(`\b([0-9]{7,16}|[a-z2-7]{12}|[a-z2-7]{26})\b|"password":"[^"]+"`)
	positions = regexp.MustCompile(`"next":"([A-Za-z0-9_-]+)"`)
)

// normal is an answer without what no two answers have in common: times, and what is
// random, which goes by the order in which it came. A number that is small is not
// random: it stays, and so does a count.
func (s *side) normal(a answer) string {
	header := maps.Clone(a.header)
	for _, varies := range []string{"Date", "Content-Length"} {
		delete(header, varies)
	}
	var b strings.Builder
	fmt.Fprintln(&b, a.status)
	_ = header.Write(&b) // to memory
	body := positions.ReplaceAllStringFunc(a.body, func(next string) string {
		text, err := base64.RawURLEncoding.DecodeString(positions.FindStringSubmatch(next)[1])
		if err != nil {
			return next
		}
		return fmt.Sprintf(`"next":%q`, strings.Split(string(text), "\x00"))
	})
	return s.label(b.String() + body)
}

func (s *side) label(text string) string {
	return labelled.ReplaceAllStringFunc(moments.ReplaceAllString(text, "TIME"), func(value string) string {
		if s.labels[value] == "" {
			s.labels[value] = fmt.Sprintf("<%d>", len(s.labels))
		}
		return s.labels[value]
	})
}

// secrets are names of others, of brokers, and of those who run the gateway.
var secrets = regexp.MustCompile(`globex|hooli|first token|eve of operations|\bwest\b|shop\.orders|\bn-1\b|\b127\.1\.`)

// Of two portals the second has other tenants, who do something before each request
// of the first tenant, and are served by other people. What the first tenant is
// answered, whatever it asks, is the same to the byte.
func TestNothingOfOthersShows(t *testing.T) {
	for name, database := range map[string]func(t *testing.T) string{
		"sqlite": sqlite,
		"postgres": func(t *testing.T) string {
			started = true
			s, err := server()
			if err != nil {
				t.Fatal(err)
			}
			return s.Database(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			quiet, busy := newSide(t, portal.Config{Database: database(t)}, false), newSide(t, portal.Config{Database: database(t)}, true)
			for _, kind := range resource.Kinds {
				path := "/v1/" + kind.Plural + "?limit=1000"
				if few, many := len(quiet.items(path)), len(busy.items(path)); few >= many {
					t.Errorf("kind %s: others have %d more of it: give them some in busyWorld", kind.Name, many-few)
				}
			}
			for _, s := range []*side{quiet, busy} {
				s.play(t)
			}
			if len(quiet.seen) != len(busy.seen) {
				t.Fatalf("%d answers, and %d beside others", len(quiet.seen), len(busy.seen))
			}
			different := 0
			for i := range quiet.seen {
				if quiet.seen[i] != busy.seen[i] && different < 10 {
					different++
					ask, _, _ := strings.Cut(quiet.seen[i], "\n")
					t.Errorf("%s\nalone:\n%s\nbeside others:\n%s", ask, from(quiet.seen[i], busy.seen[i]), from(busy.seen[i], quiet.seen[i]))
				}
				if _, answered, _ := strings.Cut(busy.seen[i], "\n"); secrets.MatchString(answered) {
					t.Errorf("%q shows in\n%s", secrets.FindString(answered), busy.seen[i])
				}
			}
			// Nothing that tenants can ask is left out.
			all, _ := operations(t, quiet.client)
			for _, op := range all {
				path := parameter.ReplaceAllString(op[1], "[^/ ?]+") // no other character of a path has a meaning
				pattern := regexp.MustCompile("^(tenant|reader): " + op[0] + " " + path + "[ ?]")
				if !slices.ContainsFunc(quiet.seen, pattern.MatchString) {
					t.Errorf("%s %s is not tried: add it to play", op[0], op[1])
				}
			}
		})
	}
}

// from is a text from where it begins to be another one.
func from(text, other string) string {
	at := 0
	for at < min(len(text), len(other)) && text[at] == other[at] {
		at++
	}
	return text[max(0, at-100):min(len(text), at+300)]
}

func (s *side) items(path string) []json.RawMessage {
	s.t.Helper()
	var page struct{ Items []json.RawMessage }
	if err := json.Unmarshal([]byte(s.want(200, "GET", path, "").body), &page); err != nil {
		s.t.Fatal(err)
	}
	return page.Items
}

// play is everything that acme does.
func (s *side) play(t *testing.T) {
	t.Helper()
	stream := s.follow("")
	for _, path := range []string{"/openapi.json", "/docs", "/healthz", "/readyz"} {
		s.ask("tenant", "GET", path, "")
	}
	for _, kind := range resource.Kinds {
		it, ok := samples[kind.Name]
		if !ok {
			t.Fatalf("kind %s has no sample", kind.Name)
		}
		s.playKind(kind, it)
	}
	s.playApply()
	s.playSecrets()
	s.playRequests()
	s.playLog()
	for _, ask := range [][3]string{
		{"GET", "/v1/tokens", ""},
		{"POST", "/v1/tokens", `{"name":"x","role":"ops"}`},
		{"DELETE", "/v1/tokens/abcdefghijkl", ""},
		{"GET", "/v1/nodes", ""},
		{"POST", "/v1/nodes/n-1/drain", ""},
		{"POST", "/v1/nodes/n-1/undrain", ""},
		{"POST", "/v1/nodes/n-2/drain", ""},
		{"POST", "/v1/internal/acl-changes", `{"virtualCluster":"acme-prod","principal":"User:x","address":"","create":[]}`},
		{"GET", "/v1/sessions", ""},
		{"GET", "/v1/sessions?tenant=globex", ""},
		{"GET", "/v1/sessions?virtualCluster=globex-prod", ""},
		{"GET", "/v1/sessions?node=n-1", ""},
		{"DELETE", "/v1/sessions/abcdefghijkl", ""},
		{"GET", "/v1/nothing", ""},
		{"BREW", "/v1/tenants", ""},
		{"GET", "/v1/../v1/tenants", ""},
	} {
		s.ask("tenant", ask[0], ask[1], ask[2])
		if !strings.Contains(ask[1], "sessions") { // for which nodes are waited for
			s.ask("reader", ask[0], ask[1], ask[2])
		}
	}
	// The stream had all of that, and continues behind an event.
	s.ask("tenant", "PUT", "/v1/virtual-clusters/acme-prod/acls/last", s.document(resource.Kinds[slices.IndexFunc(resource.Kinds, func(k resource.Kind) bool { return k.Name == resource.KindACL })], samples[resource.KindACL], ""))
	events := stream.await(`"name":"last"`)
	ids := regexp.MustCompile(`(?m)^id: (\S+)$`).FindAllStringSubmatch(events, -1)
	again := s.follow(ids[len(ids)/2][1])
	s.seen = append(s.seen, "tenant: GET /v1/events \n"+s.label(quietly(events)), "behind an event:\n"+s.label(quietly(again.await(`"name":"last"`))))
	for _, id := range []string{"1.0", "9.0", "999.0", "4503599627370495.0", "4503599627370496.1", "9223372036854775807.0", "9223372036854775808.0", "x"} {
		s.ask("tenant", "GET", "/v1/events", "", "Last-Event-ID: "+id)
	}
}

// quietly is a stream without what only keeps it open.
func quietly(events string) string {
	return strings.TrimLeft(keepsOpen.ReplaceAllString(events, ""), "\n")
}

var keepsOpen = regexp.MustCompile(`(?m)^:\n\n`)

func (s *side) follow(last string) *events {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+"/v1/events", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+s.own["tenant"].token)
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("events: %v, %v", resp, err)
	}
	s.t.Cleanup(func() { resp.Body.Close() })
	e := &events{t: s.t, body: resp.Body}
	e.await(": events follow")
	return e
}

// document is an object as acme sends it.
func (s *side) document(kind resource.Kind, it sample, metadata string) string {
	return `{"apiVersion":"tollgate/v1","kind":"` + kind.Name + `","metadata":{` + metadata + `},` + cmp.Or(it.body, `"spec":{}`) + `}`
}

// playKind asks everything that there is for one kind, in what is acme's, somebody's
// and nobody's.
func (s *side) playKind(kind resource.Kind, it sample) {
	all := "/v1/" + kind.Plural
	within := map[string]string{"": all}
	switch kind.Scope {
	case resource.KindTenant:
		within = map[string]string{"acme": "/v1/tenants/acme/" + kind.Plural, "globex": "/v1/tenants/globex/" + kind.Plural, "nobody": "/v1/tenants/nobody/" + kind.Plural}
	case resource.KindVirtualCluster:
		within = map[string]string{"acme-prod": "/v1/virtual-clusters/acme-prod/" + kind.Plural, "globex-prod": "/v1/virtual-clusters/globex-prod/" + kind.Plural, "nobody-1": "/v1/virtual-clusters/nobody-1/" + kind.Plural}
	}
	if kind.Everywhere() {
		within["everywhere"] = all
	}
	for _, query := range []string{"", "?limit=1", "?limit=1&after=«next»", "?name=e", "?name=globex", "?tenant=globex", "?tenant=acme", "?labelSelector=!x", "?labelSelector=x%3Dy", "?labelSelector=%3D", "?after=x", "?limit=0", "?unknown=1"} {
		if _, paged := s.vars["next"]; paged || !strings.Contains(query, "«") {
			s.ask("tenant", "GET", all+query, "")
		}
	}
	delete(s.vars, "next")
	for _, scope := range slices.Sorted(maps.Keys(within)) {
		path := within[scope]
		s.ask("reader", "GET", path, "")
		for _, name := range []string{cmp.Or(it.own, "west"), it.theirs, "nobody"} {
			s.ask("tenant", "GET", path+"/"+name, "")
			s.ask("tenant", "HEAD", path+"/"+name, "")
			s.ask("reader", "PUT", path+"/"+name, s.document(kind, it, ""), "If-Match: *")
			s.ask("reader", "PATCH", path+"/"+name, `{}`, "If-Match: *")
			s.ask("reader", "DELETE", path+"/"+name, "", `If-Match: "1"`)
			if it.body != "" && strings.HasPrefix(scope, "acme") {
				continue // that has its effect
			}
			s.ask("tenant", "PUT", path+"/"+name, s.document(kind, it, ""))
			s.ask("tenant", "PATCH", path+"/"+name, cmp.Or(it.patch, "{}"))
			s.ask("tenant", "DELETE", path+"/"+name, "")
		}
	}
	if it.body == "" {
		return
	}
	one := within["acme-prod"]
	if kind.Scope == resource.KindTenant {
		one = within["acme"]
	}
	one += "/mine"
	s.ask("tenant", "PUT", one+"?dryRun=true", s.document(kind, it, ""))
	s.ask("tenant", "PUT", one, s.document(kind, it, ""), "If-Match: *")
	s.ask("tenant", "PUT", one, s.document(kind, it, `"revision":17`))
	s.ask("tenant", "PUT", one, s.document(kind, it, ""))
	s.ask("tenant", "PUT", one, s.document(kind, it, ""), "If-None-Match: *")
	s.vars["created"] = s.vars["etag"]
	s.ask("tenant", "PUT", one, s.document(kind, it, ""), "If-Match: «created»")
	s.ask("tenant", "PUT", one+"?wait=applied&timeout=1ms", s.document(kind, it, ""))
	s.ask("tenant", "PATCH", one+"?dryRun=true", it.patch)
	s.ask("tenant", "PATCH", one, it.patch, "If-Match: «created»")
	s.ask("tenant", "PATCH", one, it.patch, "If-Match: «created»")
	s.ask("tenant", "PATCH", one, `{"metadata":{"revision":17}}`)
	s.ask("tenant", "PATCH", one, `{"metadata":{"revision":«revision»,"labels":{"a":"b"}}}`)
	s.ask("tenant", "PATCH", one+"?wait=applied&timeout=1ms", `{"metadata":{"labels":{"a":"c"}}}`)
	for n := range 30 {
		s.ask("tenant", "DELETE", one, "", fmt.Sprintf(`If-Match: "%d"`, n+1))
	}
	for _, match := range []string{"4503599627370495", "4503599627370496", "9007199254740993", "9223372036854775807"} {
		s.ask("tenant", "DELETE", one, "", `If-Match: "`+match+`"`)
		s.ask("tenant", "PUT", one, s.document(kind, it, `"revision":`+match))
	}
	s.ask("tenant", "PUT", one, s.document(kind, it, `"revision":9223372036854775808`))
	s.ask("tenant", "PUT", one, s.document(kind, it, `"revision":«revision»`))
	s.ask("tenant", "GET", one, "")
	s.ask("tenant", "DELETE", one+"?dryRun=true", "")
	s.ask("tenant", "DELETE", one+"?wait=applied&timeout=1ms", "", "If-Match: «etag»")
	s.ask("tenant", "GET", one, "")
	s.ask("tenant", "GET", all, "")
}

func (s *side) playApply() {
	acl := func(name, vc, more string) string {
		return `{"apiVersion":"tollgate/v1","kind":"Acl","metadata":{"name":"` + name + `","virtualCluster":"` + vc + `","labels":{"x":"y"}` + more + `},` + samples[resource.KindACL].body + `}`
	}
	for _, body := range []string{
		"[]", "[" + acl("one", "acme-prod", "") + "," + acl("two", "acme-prod", "") + "]", "[" + acl("one", "acme-prod", "") + "," + acl("three", "acme-prod", "") + "]",
		"[" + acl("one", "acme-prod", `,"revision":1`) + "]", "[" + acl("one", "acme-prod", "") + "," + acl("two", "globex-prod", "") + "]", "[" + acl("hidden", "globex-prod", "") + "]",
		"[" + acl("one", "nobody", "") + "]", `[{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":{"name":"globex"},"spec":{}}]`, "{",
		`[{"apiVersion":"tollgate/v1","kind":"Policy","metadata":{"name":"hidden"},"spec":{"type":"produce","config":{"acks":"leader"}}}]`,
	} {
		for _, query := range []string{"?dryRun=true", "?dryRun=true&prune=x", "", "?wait=applied&timeout=1ms", "?prune=x%3Dy"} {
			s.ask("tenant", "POST", "/v1/apply"+query, body)
		}
		s.ask("reader", "POST", "/v1/apply", body)
	}
}

func (s *side) playSecrets() {
	for _, account := range []string{"acme-prod/service-accounts/shipping", "acme-prod/service-accounts/spy", "globex-prod/service-accounts/spy", "nobody-1/service-accounts/x"} {
		path := "/v1/virtual-clusters/" + account + "/secrets"
		s.ask("reader", "GET", path, "")
		s.ask("reader", "POST", path, "")
		s.ask("tenant", "POST", path+"?dryRun=true", "")
		s.ask("tenant", "POST", path+"?wait=applied&timeout=1ms", "")
		for _, id := range []string{"«id»", "abcdefghijkl"} {
			if _, made := s.vars["id"]; !made && id == "«id»" {
				continue
			}
			s.ask("reader", "PATCH", path+"/"+id, `{"expires":null}`)
			s.ask("reader", "DELETE", path+"/"+id, "")
			s.ask("tenant", "PATCH", path+"/"+id, `{"expires":"2099-01-01T00:00:00Z"}`)
			s.ask("tenant", "DELETE", path+"/"+id, "")
		}
	}
	s.ask("tenant", "POST", "/v1/virtual-clusters/acme-prod/service-accounts/shipping/secrets", `{"password":"correct horse battery staple"}`)
	s.ask("tenant", "POST", "/v1/virtual-clusters/acme-prod/service-accounts/shipping/secrets", `{"password":"correct horse battery staple"}`)
	s.ask("tenant", "GET", "/v1/service-accounts", "")
}

// playRequests asks to be lent topics: those that there are, and those that nobody has.
func (s *side) playRequests() {
	const all, own = "/v1/topic-grant-requests", "/v1/tenants/acme/topic-grant-requests"
	theirs := "abcdefghijkl"
	if s.busy {
		theirs = s.other.want(201, "POST", "/v1/tenants/globex/topic-grant-requests", `{"topic":{"name":"hidden"},"access":"read","reason":"globex"}`).text("id")
	}
	s.vars["theirs"] = theirs
	request := func(topic, more string) string {
		return `{"topic":{"name":"` + topic + `"},"access":"read-write","reason":"returns"` + more + `}`
	}
	for _, body := range []string{
		request("returns", ""), request("returns", ""), request("orders", `,"until":"2099-01-01T00:00:00Z"`), request("internal", ""),
		request("returns", `,"state":"approved"`), request("returns", `,"granted":{"name":"x"}`), request("", ""), request("__consumer_offsets", ""), request("returns", `,"until":"2000-01-01T00:00:00Z"`), "{}", "{", "[]",
	} {
		s.ask("tenant", "POST", own+"?dryRun=true", body)
		s.ask("tenant", "POST", own, body)
		s.ask("reader", "POST", own, body)
		for _, other := range []string{"globex", "hooli", "nobody"} {
			s.ask("tenant", "POST", "/v1/tenants/"+other+"/topic-grant-requests", body)
		}
	}
	lists := func() {
		for _, query := range []string{"", "?state=open", "?state=refused", "?state=approved", "?state=none", "?limit=1", "?limit=1&after=«next»", "?after=x", "?after=" + base64.RawURLEncoding.EncodeToString([]byte("x\x00x"))} {
			s.ask("tenant", "GET", all+query, "")
			s.ask("reader", "GET", own+query, "")
		}
		s.ask("tenant", "GET", all+"?tenant=globex", "")
		s.ask("tenant", "GET", "/v1/tenants/globex/topic-grant-requests", "")
		s.ask("tenant", "GET", "/v1/tenants/nobody/topic-grant-requests", "")
	}
	lists()
	// What is asked of somebody's, of nobody's and of its own, as those would who decide.
	ids := make([]string, 3)
	for i := range ids {
		s.ask("tenant", "POST", own, request("number-"+strconv.Itoa(i), ""))
		ids[i] = s.vars["id"]
	}
	for _, at := range []string{own + "/«id»", own + "/«theirs»", "/v1/tenants/globex/topic-grant-requests/«theirs»", "/v1/tenants/nobody/topic-grant-requests/abcdefghijkl", own + "/nothing"} {
		for _, who := range []string{"tenant", "reader"} {
			s.ask(who, "GET", at, "")
			for _, dry := range []string{"?dryRun=true", ""} {
				s.ask(who, "POST", at+"/approve"+dry, `{"cluster":"west"}`, "If-Match: *")
				s.ask(who, "POST", at+"/refuse"+dry, `{"reason":"x"}`)
			}
			if who == "reader" || !strings.HasSuffix(at, "«id»") {
				s.ask(who, "POST", at+"/withdraw", "")
			}
			for _, method := range []string{"PUT", "PATCH", "DELETE"} {
				s.ask(who, method, at, `{"state":"approved"}`)
			}
		}
	}
	decide := func(id, what, body string) {
		s.want(200, "POST", own+"/"+id+"/"+what, body)
	}
	decide(ids[0], "approve", `{"cluster":"west","topic":{"name":"shop.orders.v9"},"access":"read","name":"lent"}`)
	decide(ids[1], "refuse", `{"reason":"ask for the one that is yours"}`)
	for _, id := range ids {
		s.vars["id"] = id
		s.ask("tenant", "GET", own+"/«id»", "")
		s.vars["id"] = id
		s.ask("tenant", "POST", own+"/«id»/withdraw?dryRun=true", "")
		s.vars["id"] = id
		s.ask("tenant", "POST", own+"/«id»/withdraw", "")
	}
	lists()
	s.ask("tenant", "GET", "/v1/tenants/acme/topic-grants/lent", "")
	for n := range 20 { // as many as may be open, and more
		s.ask("tenant", "POST", own, request("flood-"+strconv.Itoa(n), ""))
	}
}

// playLog reads the log: of what those did who run the gateway, too, and what came
// through Kafka.
func (s *side) playLog() {
	others := ""
	if s.busy { // acme's change is in the middle of one of others
		others = `{"apiVersion":"tollgate/v1","kind":"Acl","metadata":{"name":"hidden","virtualCluster":"globex-prod"},` + samples[resource.KindACL].body + `},`
	}
	s.want(200, "POST", "/v1/apply", `[`+others+`{"apiVersion":"tollgate/v1","kind":"Acl","metadata":{"name":"given","virtualCluster":"acme-prod"},`+samples[resource.KindACL].body+`},
		{"apiVersion":"tollgate/v1","kind":"VirtualCluster","metadata":{"name":"acme-prod","tenant":"acme"},"spec":{"type":"partner","host":"acme","home":"west","transactions":[{"prefix":"p","cluster":"west"}],"authentication":{"plain":{},"scram":{}}}}]`)
	s.want(200, "POST", "/v1/apply", `[{"apiVersion":"tollgate/v1","kind":"TopicGrant","metadata":{"name":"more","tenant":"acme"},"spec":{"cluster":"west","topic":{"name":"shop.orders.v3"},"access":"read"}},
		{"apiVersion":"tollgate/v1","kind":"AliasTopic","metadata":{"name":"more","virtualCluster":"acme-prod"},"spec":{"cluster":"west","topic":"shop.orders.v3"}}]`)
	s.want(200, "DELETE", "/v1/virtual-clusters/acme-prod/alias-topics/more", "")
	gone := s.want(201, "POST", "/v1/tokens", `{"name":"gone","role":"tenant","tenant":"acme"}`)
	s.want(204, "DELETE", "/v1/tokens/"+gone.text("id"), "")
	s.kafka("acme-prod", "x")
	for _, query := range []string{
		"?limit=1000", "?limit=1000&order=oldest", "?limit=3", "?limit=3&after=«next»", "?limit=3&order=oldest", "?limit=3&order=oldest&after=«next»", "?limit=3&order=oldest&after=«next»",
		"?kind=Acl", "?kind=Acl&scope=globex-prod", "?scope=globex-prod", "?name=hidden", "?tenant=globex", "?tenant=acme&kind=Token", "?kind=VirtualCluster", "?kind=UpstreamCluster", "?kind=TopicGrant", "?kind=TopicGrantRequest", "?action=approve-grant", "?action=request-grant&limit=2", "?kind=AliasTopic",
		"?actor=operator", "?actor=User:admin", "?actor=nobody", "?action=create-token", "?action=delete", "?from=2100-01-01T00:00:00Z", "?to=2100-01-01T00:00:00Z&limit=2", "?after=x",
		"?after=" + base64.RawURLEncoding.EncodeToString([]byte("9\x000")), "?order=oldest&after=" + base64.RawURLEncoding.EncodeToString([]byte("9\x000")),
	} {
		s.ask("tenant", "GET", "/v1/audit"+query, "")
	}
	// As somebody would try who knows their names.
	for _, actor := range []string{"first token", "eve of operations", "portal", s.actor()} {
		s.vars["actor"] = strings.NewReplacer(" ", "+", "(", "%28", ")", "%29").Replace(actor)
		s.ask("tenant", "GET", "/v1/audit?actor=«actor»", "")
		if last := s.seen[len(s.seen)-1]; !strings.Contains(last, `{"items":[]}`) {
			s.t.Errorf("what %s did is found by that name: %s", actor, last)
		}
	}
	s.ask("tenant", "GET", "/v1/audit", "", "Accept: application/x-ndjson")
	s.ask("reader", "GET", "/v1/audit?order=oldest", "", "Accept: application/x-ndjson")
}

// actor is how the log calls those who run the gateway.
func (s *side) actor() string {
	return s.want(200, "GET", "/v1/audit?kind=Tenant&name=acme&limit=1", "").text("items.0.actor")
}
