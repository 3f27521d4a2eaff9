package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate.internal/services/portal"
)

const examples = "../../examples"

// upstreams are the clusters that tollgate dev has.
const upstreams = `{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: ["127.0.0.1:19092"]}}
---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: west}, spec: {bootstrap: ["127.0.0.1:19192"]}}
`

// servePortal runs a control plane until the test ends.
func servePortal(t *testing.T) (server, token string) {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan map[string]string, 1), make(chan error, 1)
	go func() {
		ended <- portal.Run(ctx, portal.Config{
			Listen: "127.0.0.1:0", Database: "sqlite:" + filepath.Join(dir, "tollgate.db"), FirstToken: filepath.Join(dir, "token"),
			Ready: func(addresses map[string]string) { ready <- addresses },
		})
	}()
	select {
	case addresses := <-ready:
		server = "http://" + addresses[portal.APIAddress]
	case err := <-ended:
		cancel()
		t.Fatalf("portal: %v", err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("portal: %v", err)
		}
	})
	data, err := os.ReadFile(filepath.Join(dir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	return server, strings.TrimSpace(string(data))
}

// operate makes the commands of a test talk to a control plane.
func operate(t *testing.T, server, token string) {
	t.Setenv("TOLLGATE_SERVER", server)
	t.Setenv("TOLLGATE_TOKEN", token)
	t.Setenv("TOLLGATE_CONFIG", filepath.Join(t.TempDir(), "config.yaml"))
}

// controlPlane is a new one, with the clusters of tollgate dev and the examples.
func controlPlane(t *testing.T) {
	t.Helper()
	server, token := servePortal(t)
	operate(t, server, token)
	must(t, upstreams, "apply", "-f", "-")
	must(t, "", "apply", "-f", examples)
}

// outcome runs a command and returns all that it says, and its exit code.
func outcome(t *testing.T, input string, args ...string) (out, complaint string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	err := run(ctx, args, stdio{strings.NewReader(input), &stdout, &stderr})
	if err != nil {
		complain(&stderr, err)
	}
	return stdout.String(), stderr.String(), exitCode(err)
}

// check runs a command that is to end so, and returns all that it says.
func check(t *testing.T, code int, args ...string) string {
	t.Helper()
	out, complaint, got := outcome(t, "", args...)
	if got != code {
		t.Fatalf("tollgate %s ended with %d, want %d:\n%s%s", strings.Join(args, " "), got, code, out, complaint)
	}
	return out + complaint
}

func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s has no %q:\n%s", what, part, text)
		}
	}
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestApplyingTwiceChangesNothing(t *testing.T) {
	server, token := servePortal(t)
	operate(t, server, token)
	must(t, upstreams, "apply", "-f", "-")

	contains(t, "diff", check(t, exitDifferent, "diff", "-f", examples), "--- /dev/null\n+++ virtual-cluster/initech-prod\n", "+kind: AliasTopic")
	contains(t, "dry run", check(t, exitOK, "apply", "-f", examples, "--dry-run"), "+++ tenant/initech", "dry run: 11 objects: 11 created", "1 secret of accounts would be imported")
	check(t, exitNotFound, "get", "tenant", "initech")

	first := must(t, "", "apply", "-f", examples, "--wait")
	contains(t, "the first time", first, "created tenant/initech\n", "imported the secret of service-account/initech-prod/warehouse", "11 objects: 11 created")
	if strings.Index(first, "tenant/initech\n") > strings.Index(first, "alias-topic/") {
		t.Errorf("what depends on others comes first:\n%s", first)
	}
	before := must(t, "", "get", "all", "-o", "yaml")
	if got := must(t, "", "apply", "-f", examples); got != "nothing changed: 11 objects are as the files say\n" {
		t.Errorf("the second time: %s", got)
	}
	if after := must(t, "", "get", "all", "-o", "yaml"); after != before {
		t.Errorf("changed by the second time:\n%s", after)
	}
	if got := must(t, "", "diff", "-f", examples); got != "" {
		t.Errorf("diff: %s", got)
	}

	// One field of one object.
	changed := file(t, "tenant.yaml", "{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: initech, labels: {example: \"true\", plan: standard}}, spec: {displayName: Initech Inc, contacts: [kafka@initech.example]}}")
	want := "-  displayName: Initech\n+  displayName: Initech Inc\n"
	contains(t, "diff", check(t, exitDifferent, "diff", "-f", changed), want)
	contains(t, "apply", must(t, "", "apply", "-f", changed), "replaced tenant/initech\n", "1 object: 1 replaced")
	var answer struct {
		Results []struct{ Kind, Name, Change string }
	}
	if err := json.Unmarshal([]byte(must(t, "", "apply", "-f", changed, "-o", "json")), &answer); err != nil || len(answer.Results) != 1 || answer.Results[0].Change != "unchanged" {
		t.Errorf("%+v, %v", answer, err)
	}
}

// All mistakes are named at once, each with its place; and nothing is applied.
func TestMistakesInFilesHavePlaces(t *testing.T) {
	controlPlane(t)
	wrong := file(t, "wrong.yaml", `apiVersion: tollgate/v1
kind: Tenant
metadata: {name: hooli}
spec: {}
---
apiVersion: tollgate/v1
kind: AliasTopic
metadata: {name: returns, virtualCluster: initech-prod}
spec:
  cluster: main
  topic: shop.returns
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: hooli, tenant: hooli}
spec:
  type: partner
  host: initech
  home: elsewhere
  authentication: {plain: {}}
`)
	refused := check(t, exitInvalid, "apply", "-f", wrong)
	contains(t, "apply", refused, wrong+":18: spec.host: ", wrong+":19: spec.home: there is no UpstreamCluster \"elsewhere\"")
	check(t, exitNotFound, "get", "tenant", "hooli")
	contains(t, "diff", check(t, exitInvalid, "diff", "-f", wrong), wrong+":19: spec.home")

	// What one object is refused for has its place too.
	alone := file(t, "alone.yaml", "# a comment\napiVersion: tollgate/v1\nkind: AliasTopic\nmetadata: {name: returns, virtualCluster: initech-prod}\nspec:\n  cluster: main\n  topic: shop.returns\n")
	contains(t, "apply", check(t, exitInvalid, "apply", "-f", alone), alone+":7: spec.topic: no TopicGrant")

	// What is seen without the server is all said as well, and not sent.
	unread := file(t, "unread.yaml", `apiVersion: tollgate/v1
kind: Tenant
metadata: {name: a}
spec: {colour: red}
---
apiVersion: tollgate/v1
kind: ServiceAccount
metadata: {name: a, virtualCluster: initech-prod}
spec: {type: local, password: hunter2}
---
apiVersion: tollgate/v1
kind: ServiceAccount
metadata: {name: b, virtualCluster: initech-prod}
spec: {type: local, password: "env:TOLLGATE_TEST_NOT_SET"}
---
apiVersion: tollgate/v1
kind: Tenant
metadata: {name: a}
spec: {}
`)
	refused = check(t, exitInvalid, "apply", "-f", unread)
	contains(t, "apply", refused, unread+":4: spec.colour: unknown field", unread+":9: spec.password: must be a reference",
		unread+":14: spec.password: resolve secret env:TOLLGATE_TEST_NOT_SET", unread+":18: metadata.name: Tenant a stands in "+unread+":1 already")
	if strings.Contains(refused, "hunter2") {
		t.Errorf("a password is printed:\n%s", refused)
	}
	contains(t, "standard input", func() string { _, c, _ := outcome(t, "kind: Tenant\nx: [", "apply", "-f", "-"); return c }(), "stdin:2")
}

func TestPruneDeletesWhatItsSelectorSelects(t *testing.T) {
	controlPlane(t)
	must(t, `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: team-a, labels: {team: a}}, spec: {}}
---
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: team-a-old, labels: {team: a}}, spec: {}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: old, tenant: team-a-old, labels: {team: a}}, spec: {cluster: main, topic: {name: x}, access: read}}
---
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: team-b, labels: {team: b}}, spec: {}}
`, "apply", "-f", "-")
	keep := file(t, "a.yaml", "{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: team-a, labels: {team: a}}, spec: {}}")

	contains(t, "without a selector", check(t, exitUsage, "apply", "-f", keep, "--prune"), "--prune needs a label selector")
	contains(t, "a selector alone", check(t, exitUsage, "apply", "-f", keep, "-l", "team=a"), "add --prune")
	contains(t, "dry run", check(t, exitOK, "apply", "-f", keep, "--prune", "-l", "team=a", "--dry-run"),
		"--- tenant/team-a-old\n+++ /dev/null", "3 objects: 2 deleted, 1 unchanged")
	contains(t, "diff", check(t, exitDifferent, "diff", "-f", keep, "--prune", "-l", "team=a"), "--- topic-grant/team-a-old/old\n+++ /dev/null")
	contains(t, "nobody to ask", check(t, exitUsage, "apply", "-f", keep, "--prune", "-l", "team=a"), "delete tenant/team-a-old", "--yes")
	must(t, "", "get", "tenant", "team-a-old")

	contains(t, "apply", check(t, exitOK, "apply", "-f", keep, "--prune", "-l", "team=a", "--yes"), "deleted topic-grant/team-a-old/old", "deleted tenant/team-a-old")
	if got := must(t, "", "get", "tenants", "-o", "name"); got != "tenant/initech\ntenant/team-a\ntenant/team-b\n" {
		t.Errorf("left:\n%s", got)
	}
	contains(t, "again", check(t, exitOK, "apply", "-f", keep, "--prune", "-l", "team=a"), "nothing changed: 1 object is as the files say")
}

// What one control plane exports another applies, and exports again.
func TestExportMovesToAnotherControlPlane(t *testing.T) {
	controlPlane(t)
	out, complaint, code := outcome(t, "", "export")
	if code != exitOK {
		t.Fatal(complaint)
	}
	contains(t, "export", out, "# without secrets: 1 service account of type local")
	for _, word := range []string{"revision:", "status:", "everybody-knows-this-one", "verifiers", "password"} {
		if _, objects, _ := strings.Cut(out, "\napiVersion"); strings.Contains(objects, word) {
			t.Errorf("export has %q in it:\n%s", word, out)
		}
	}
	if got := must(t, out, "apply", "-f", "-"); got != "nothing changed: 13 objects are as the files say\n" {
		t.Errorf("applied where it is from: %s", got)
	}
	if own := must(t, "", "export", "--tenant", "initech"); strings.Contains(own, "UpstreamCluster") || !strings.Contains(own, "warehouse-groups") {
		t.Errorf("of a tenant:\n%s", own)
	}
	dir := filepath.Join(t.TempDir(), "backup")
	must(t, "", "export", "--dir", dir)
	contains(t, "a second time", check(t, exitError, "export", "--dir", dir), "file exists", "choose a directory without it")

	server, token := servePortal(t)
	operate(t, server, token)
	contains(t, "elsewhere", must(t, out, "apply", "-f", "-"), "13 objects: 13 created")
	if got := must(t, "", "diff", "-f", dir); got != "" {
		t.Errorf("differs from the files:\n%s", got)
	}
	again := must(t, "", "export")
	strip := func(s string) string { _, s, _ = strings.Cut(s, "\n"); return s } // where and when
	if strip(again) != strip(out) {
		t.Errorf("exported again:\n%s\nwas\n%s", again, out)
	}
}

// A policy of all virtual clusters goes by its name alone, and one of a virtual cluster
// of the same name beside it is another.
func TestPoliciesOfAllVirtualClusters(t *testing.T) {
	controlPlane(t)
	const all, one = "policy/durable", "policy/initech-prod/durable"
	files := file(t, "policies.yaml", `{apiVersion: tollgate/v1, kind: Policy, metadata: {name: durable, labels: {by: ops}}, spec: {type: produce, config: {acks: all}}}
---
{apiVersion: tollgate/v1, kind: Policy, metadata: {name: durable, virtualCluster: initech-prod, labels: {by: ops}}, spec: {type: produce, config: {compression: [zstd]}}}
`)
	const told = " is a policy of all virtual clusters"
	contains(t, "diff", check(t, exitDifferent, "diff", "-f", files), all, one)
	contains(t, "dry run", must(t, "", "apply", "--dry-run", "-f", files), all+told)
	applied := must(t, "", "apply", "-f", files)
	contains(t, "apply", applied, "created "+all+"\n", "created "+one+"\n", all+told)
	if strings.Contains(applied, one+told) {
		t.Errorf("apply: %s", applied)
	}
	again := must(t, "", "apply", "-f", files)
	contains(t, "apply again", again, "nothing changed")
	if strings.Contains(again, told) {
		t.Errorf("apply again: %s", again)
	}
	if got := must(t, "", "get", "policies", "-o", "name"); got != all+"\n"+one+"\n" {
		t.Errorf("all: %s", got)
	}
	if got := must(t, "", "get", "policies", "--vc", "initech-prod", "-o", "name"); got != one+"\n" {
		t.Errorf("those of one: %s", got)
	}
	contains(t, "the one of all", must(t, "", "get", all, "-o", "yaml"), "acks: all")
	contains(t, "the other", must(t, "", "get", one, "-o", "yaml"), "virtualCluster: initech-prod", "- zstd")
	contains(t, "describe", must(t, "", "describe", all), "durable", "acks")
	editor(t, `sed -i 's/acks: all/acks: leader/' "$1"`)
	contains(t, "edit", must(t, "", "edit", all), "replaced "+all)
	contains(t, "the other is as it was", must(t, "", "get", one, "-o", "yaml"), "- zstd")
	exported := must(t, "", "export")
	contains(t, "export", exported, "acks: leader")
	if got := must(t, exported, "apply", "-f", "-"); !strings.HasPrefix(got, "nothing changed") {
		t.Errorf("what was exported changes something: %s", got)
	}
	contains(t, "the log", must(t, "", "audit", all), "create", "replace", "durable")
	if log := must(t, "", "audit", all); strings.Contains(log, "initech-prod") {
		t.Errorf("the log of %s has another:\n%s", all, log)
	}
	contains(t, "delete", must(t, "", "delete", all, "--yes"), "deleted "+all)
	check(t, exitNotFound, "get", all)
	must(t, "", "get", one)
	contains(t, "prune", must(t, "{apiVersion: tollgate/v1, kind: Policy, metadata: {name: other, labels: {by: ops}}, spec: {type: produce, config: {acks: all}}}", "apply", "-f", "-", "--prune", "-l", "by=ops", "--yes"), "created policy/other", "deleted "+one)
}

func TestGet(t *testing.T) {
	controlPlane(t)
	for _, name := range []string{"vc", "vcs", "VirtualCluster", "virtual-cluster", "virtual-clusters", "virtualclusters"} {
		if got := must(t, "", "get", name, "-o", "name"); got != "virtual-cluster/initech-prod\n" {
			t.Errorf("get %s: %s", name, got)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"get", "vc"}, "NAME          TENANT   TYPE     HOST     HOME\ninitech-prod  initech  partner  initech  main\n"},
		{[]string{"get", "alias", "--vc", "initech-prod", "orders"}, "VIRTUAL-CLUSTER  NAME    CLUSTER  TOPIC\ninitech-prod     orders  main     shop.orders.v2\n"},
		{[]string{"get", "alias-topic/initech-prod/orders", "tenant/initech", "-o", "name"}, "alias-topic/initech-prod/orders\ntenant/initech\n"},
		{[]string{"get", "sa"}, "VIRTUAL-CLUSTER  NAME       TYPE   SECRETS  EXPIRES\ninitech-prod     warehouse  local  1        -\n"},
		{[]string{"get", "grants", "--tenant", "initech", "-o", "name"}, "topic-grant/initech/logistics\ntopic-grant/initech/orders\n"},
		{[]string{"get", "tenants", "-l", "plan=standard,example", "-o", "name"}, "tenant/initech\n"},
	} {
		if got := must(t, "", c.args...); got != c.want {
			t.Errorf("%q:\n%swant\n%s", c.args, got, c.want)
		}
	}
	must(t, `apiVersion: tollgate/v1
kind: Budget
metadata: {name: monthly, tenant: initech}
spec: {period: month, amount: "5000.00", currency: EUR, notify: {emails: [kafka@initech.example]}}
---
apiVersion: tollgate/v1
kind: Policy
metadata: {name: durable, virtualCluster: initech-prod}
spec:
  type: produce
  scope: {principals: ["User:warehouse"], accountLabels: {team: a}, topics: [{name: or, pattern: prefixed}], exceptTopics: [{name: orx}]}
  config: {acks: all, compression: [none, zstd], maxBatchBytes: 1000000, idempotent: true}
---
apiVersion: tollgate/v1
kind: PriceBook
metadata: {name: all}
spec:
  from: 2099-01-01T00:00:00+01:00
  currency: EUR
  entries: [{unit: GiB, price: "0.04"}, {unit: GiB, direction: produced, cluster: main, topic: {name: shop., pattern: prefixed}, price: "0"}]
`, "apply", "-f", "-")
	for _, c := range []struct{ args, want string }{
		{"get budgets", "TENANT   NAME     PERIOD  LIMIT        THRESHOLDS\ninitech  monthly  month   5000.00 EUR  80%,100%\n"},
		{"get policies --vc initech-prod", "VIRTUAL-CLUSTER  NAME     TYPE     PRIORITY  ASKS-FOR\ninitech-prod     durable  produce  0         acks=all,compression=none|zstd,batch<=1000000,idempotent\n"},
		{"get pb", "NAME  PLAN  FROM                  CURRENCY  ENTRIES\nall   -     2098-12-31T23:00:00Z  EUR       2\n"},
		{"get budget initech/monthly -o name", "budget/initech/monthly\n"},
	} {
		if got := must(t, "", strings.Fields(c.args)...); got != c.want {
			t.Errorf("%s:\n%swant\n%s", c.args, got, c.want)
		}
	}
	contains(t, "prices", must(t, "", "get", "price-books", "-o", "wide"), "PRICES", "GiB=0.04; GiB produced main shop.*=0")
	contains(t, "scope", must(t, "", "get", "policy", "-o", "wide"), "User:warehouse,team=a", "or* except orx")
	contains(t, "who is told", must(t, "", "get", "budgets", "-o", "wide"), "EMAILS", "kafka@initech.example")
	contains(t, "describe", must(t, "", "describe", "tenant", "initech"), "budget/initech/monthly")
	contains(t, "export", must(t, "", "export", "pb,budget"), "kind: PriceBook", "kind: Budget")
	contains(t, "wide", must(t, "", "get", "vc", "-o", "wide"), "LOGINS", "plain,scram", "example=true")
	contains(t, "none", check(t, exitOK, "get", "vc", "-l", "!example"), "no virtual-clusters")
	contains(t, "several kinds", must(t, "", "get", "tenants,vc"), "tenants:\n", "\nvirtual-clusters:\n")
	var one struct{ Status struct{ Created time.Time } }
	if err := json.Unmarshal([]byte(must(t, "", "get", "tenant", "initech", "-o", "json")), &one); err != nil || one.Status.Created.IsZero() {
		t.Errorf("one as JSON: %+v, %v", one, err)
	}
	var many struct{ Items []struct{ Kind string } }
	if err := json.Unmarshal([]byte(must(t, "", "get", "acls", "-o", "json")), &many); err != nil || len(many.Items) != 4 {
		t.Errorf("many as JSON: %+v, %v", many, err)
	}
	// What -o yaml prints apply takes.
	if got := must(t, must(t, "", "get", "all", "-o", "yaml"), "apply", "-f", "-"); !strings.HasPrefix(got, "nothing changed") {
		t.Errorf("applied as it was read: %s", got)
	}

	got := check(t, exitNotFound, "get", "tenant", "initech", "hooli")
	contains(t, "one that is not there", got, "initech  active", "Tenant hooli: there is no such thing")
	contains(t, "describe", must(t, "", "describe", "vc", "initech-prod"), "VirtualCluster initech-prod\n", "Referenced by:\nalias-topic/initech-prod/orders\n", "policy/initech-prod/durable\n", "Audit, the newest first:\n", "create")
	contains(t, "describe", must(t, "", "describe", "sa/initech-prod/warehouse"), "Secrets:\nID", "live   imported", "import-secret")
	contains(t, "describe", must(t, "", "describe", "acl", "initech-prod/warehouse-groups"), "principal: User:warehouse")
	contains(t, "describe", must(t, "", "describe", "uc", "west"), "Referenced by:\nvirtual-cluster/initech-prod\ntopic-grant/initech/logistics\n")
}

func TestDelete(t *testing.T) {
	controlPlane(t)
	contains(t, "what others need", check(t, exitConflict, "delete", "vc", "initech-prod", "--yes"), "is needed by", "AliasTopic orders of initech-prod")
	contains(t, "nobody to ask", check(t, exitUsage, "delete", "alias-topic", "initech-prod/orders"), "--yes")
	contains(t, "a whole kind", check(t, exitUsage, "delete", "tenants", "--yes"), "name the objects")
	must(t, "", "delete", "alias-topic", "--vc", "initech-prod", "orders", "--yes")
	check(t, exitNotFound, "delete", "alias-topic", "--vc", "initech-prod", "orders", "--yes")
	check(t, exitOK, "delete", "alias-topic", "--vc", "initech-prod", "orders", "--yes", "--ignore-not-found")
	// What is in others goes before them, whatever the order in the files.
	out := must(t, "", "delete", "-f", examples, "--yes", "--ignore-not-found", "--wait")
	contains(t, "delete -f", out, "deleted virtual-cluster/initech-prod\n", "deleted tenant/initech\n")
	if got := must(t, "", "get", "all", "-o", "name"); got != "upstream-cluster/main\nupstream-cluster/west\n" {
		t.Errorf("left:\n%s", got)
	}
}

func TestSecrets(t *testing.T) {
	controlPlane(t)
	const account = "initech-prod/warehouse"
	issued := check(t, exitOK, "secret", "issue", account, "--in", "1h")
	contains(t, "issue", issued, "username: warehouse\npassword: ", "expires:", "shown this once")
	list := must(t, "", "secret", "list", account)
	contains(t, "list", list, "live   imported", "live   issued")
	_, password, _ := strings.Cut(issued, "password: ")
	password, _, _ = strings.Cut(password, "\n")
	if strings.Contains(list+must(t, "", "get", "sa", account, "-o", "yaml")+must(t, "", "audit", "-o", "json"), password) {
		t.Error("a password is told twice")
	}
	contains(t, "a third", check(t, exitConflict, "secret", "issue", account), "2 live secrets")

	// The one of the file is there already, and stays the only one.
	contains(t, "import", must(t, "", "secret", "import", account, "--from", "file:"+filepath.Join(examples, "secrets/warehouse")), "nothing changed: it is secret")
	contains(t, "no terminal", check(t, exitUsage, "secret", "import", account), "--from")

	id := strings.Fields(must(t, "", "secret", "list", account, "-o", "name"))[1]
	contains(t, "when", check(t, exitUsage, "secret", "expire", account, id), "--in")
	contains(t, "expire", must(t, "", "secret", "expire", account, id, "--at", "2100-01-01T00:00:00Z"), "ends at 2100-01-01T00:00:00Z")
	contains(t, "list", must(t, "", "secret", "list", account), "2100-01-01T00:00:00Z")
	contains(t, "nobody to ask", check(t, exitUsage, "secret", "revoke", account, id), "--yes")
	must(t, "", "secret", "revoke", "--vc", "initech-prod", "warehouse", id, "--yes", "--wait")
	contains(t, "gone", check(t, exitNotFound, "secret", "revoke", account, id, "--yes"), "secret "+id+" of ServiceAccount warehouse of initech-prod")

	out, complaint, code := outcome(t, "from-elsewhere\n", "secret", "import", account, "--from", "-")
	if code != exitOK {
		t.Fatal(complaint)
	}
	contains(t, "import", out, "imported as secret")
}

// A token of a tenant sees what is the tenant's, and changes its accounts and ACLs.
func TestATenantAtWork(t *testing.T) {
	controlPlane(t)
	must(t, "{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: hooli}, spec: {}}", "apply", "-f", "-")
	made := check(t, exitOK, "token", "create", "initech", "--role", "tenant", "--tenant", "initech", "--in", "1h")
	contains(t, "create", made, "id:    ", "token: tg_", "shown this once")
	token := strings.TrimSpace(must(t, "", "token", "create", "reader", "--role", "tenant", "--tenant", "initech", "--read-only", "-o", "token"))
	contains(t, "list", must(t, "", "token", "list"), "tenant:initech,read-only", "first token")
	contains(t, "a role", check(t, exitUsage, "token", "create", "x"), "--role")
	contains(t, "a tenant", check(t, exitUsage, "token", "create", "x", "--role", "tenant"), "--tenant")

	t.Setenv("TOLLGATE_TOKEN", token)
	contains(t, "reads", must(t, "", "get", "all", "-o", "name"), "acl/initech-prod/warehouse-groups")
	check(t, exitForbidden, "secret", "issue", "initech-prod/warehouse")
	_, rest, _ := strings.Cut(made, "token: ")
	token, _, _ = strings.Cut(rest, "\n")
	t.Setenv("TOLLGATE_TOKEN", token)
	check(t, exitOK, "secret", "issue", "initech-prod/warehouse")
	contains(t, "another tenant", check(t, exitNotFound, "get", "tenant", "hooli"), "no such thing")
	check(t, exitForbidden, "apply", "-f", examples)
	contains(t, "its own", must(t, "", "apply", "-f", filepath.Join(examples, "accounts.yaml")), "nothing changed")
	contains(t, "describe", must(t, "", "describe", "vc", "initech-prod"), "host: initech")
	contains(t, "export", check(t, exitOK, "export", "alias-topics"), "warning: this token does not see")
	t.Setenv("TOLLGATE_TOKEN", "tg_nobody_knows")
	contains(t, "a wrong token", check(t, exitForbidden, "get", "tenants"), "the token is not good")
}

// Revisions tell a tenant nothing of others, and serve it all the same.
func TestATenantChangesWhatItRead(t *testing.T) {
	controlPlane(t)
	token := strings.TrimSpace(must(t, "", "token", "create", "initech", "--role", "tenant", "--tenant", "initech", "-o", "token"))
	t.Setenv("TOLLGATE_TOKEN", token)
	const acl = "acl/initech-prod/warehouse-groups"
	text := must(t, "", "get", acl, "-o", "yaml")
	read := regexp.MustCompile(`revision: (\d+)\n`).FindStringSubmatch(text)
	if read == nil || len(read[1]) < 8 {
		t.Fatalf("no revision, or one that counts: %q of\n%s", read, text)
	}
	contains(t, "the table", must(t, "", "get", acl, "-o", "wide"), " "+read[1]+" ")
	contains(t, "JSON", must(t, "", "get", acl, "-o", "json"), `"revision": `+read[1])
	contains(t, "the same again", must(t, text, "apply", "-f", "-", "--wait"), "nothing changed")
	if _, _, code := outcome(t, text, "diff", "-f", "-"); code != exitOK {
		t.Errorf("diff of what was read ended with %d", code)
	}
	editor(t, `sed -i 's/permission: ALLOW/permission: DENY/' "$1"`)
	contains(t, "edit", must(t, "", "edit", acl, "--wait"), "replaced")
	// What was read before is old now.
	_, complaint, code := outcome(t, text, "apply", "-f", "-")
	if code == exitOK {
		t.Error("an old revision is as good as a new one")
	}
	contains(t, "the complaint", complaint, "the change is for revision "+read[1])
	contains(t, "the log", must(t, "", "audit", acl, "--diff"), "operator  create", "initech (", "-  permission: ALLOW", "+  permission: DENY")
	for _, hidden := range []string{"first token", "operator@"} {
		if out := must(t, "", "audit", "-o", "json"); strings.Contains(out, hidden) {
			t.Errorf("the log has %q:\n%s", hidden, out)
		}
	}
	contains(t, "what operators did", must(t, "", "audit", "--actor", "operator"), "virtual-cluster/initech-prod")
	check(t, exitOK, "delete", acl, "--yes")
}

func TestContexts(t *testing.T) {
	server, token := servePortal(t)
	t.Setenv("TOLLGATE_CONFIG", filepath.Join(t.TempDir(), "config.yaml"))
	t.Chdir(t.TempDir()) // where no tollgate dev runs
	contains(t, "none", check(t, exitUsage, "get", "tenants"), "tollgate login")
	secret := file(t, "token", token+"\n")
	contains(t, "login", must(t, "", "login", server, "--name", "one", "--token-from", "file:"+secret), "the context one is the current one")
	must(t, "", "get", "tenants")

	other, otherToken := servePortal(t)
	if _, complaint, code := outcome(t, otherToken, "login", other, "--token-from", "-"); code != exitOK {
		t.Fatal(complaint)
	}
	must(t, "{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: here}, spec: {}}", "apply", "-f", "-")
	if got := must(t, "", "get", "tenants", "-o", "name", "--context", "one"); got != "" {
		t.Errorf("the other one has %s", got)
	}
	contains(t, "list", must(t, "", "context", "list"), "127.0.0.1", "one", "*")
	must(t, "", "context", "use", "one")
	if got := must(t, "", "get", "tenants", "-o", "name"); got != "" {
		t.Errorf("after use: %s", got)
	}
	contains(t, "unknown", check(t, exitUsage, "get", "tenants", "--context", "two"), "there are 127.0.0.1, one")
	contains(t, "both", check(t, exitUsage, "get", "tenants", "--context", "one", "--server", other), "choose one")
	contains(t, "a wrong token", check(t, exitForbidden, "login", server, "--name", "bad", "--token-from", "file:"+file(t, "bad", "tg_x_y")), "not good")
	must(t, "", "context", "delete", "one")
	contains(t, "none is current", check(t, exitUsage, "get", "tenants"), "choose by tollgate context use")
}

// Without anything else said, commands are about the tollgate dev that runs here.
func TestTheControlPlaneOfARunningDev(t *testing.T) {
	server, token := servePortal(t)
	t.Setenv("TOLLGATE_CONFIG", filepath.Join(t.TempDir(), "config.yaml"))
	dir := t.TempDir()
	t.Chdir(dir)
	state := filepath.Join(dir, defaultState)
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	info, err := json.Marshal(map[string]string{"api": server, "apiToken": token})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, "dev.json"), info, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "", "get", "tenants")
	t.Chdir(t.TempDir())
	check(t, exitUsage, "get", "tenants")
	must(t, "", "get", "tenants", "--state", state)
	contains(t, "nothing serves", check(t, exitError, "get", "tenants", "--state", dir), "start tollgate dev")
}

// editor is an EDITOR that runs a script of sed for the first time it is called, and
// the next one then; once they are used up it changes nothing.
func editor(t *testing.T, scripts ...string) (opened func() []string) {
	t.Helper()
	dir := t.TempDir()
	for i, s := range scripts {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("script-", i)), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "editor")
	script := `#!/bin/sh -e
cd "$(dirname "$0")"
n=$(ls | grep -c ^opened- || true)
cp "$2" "opened-$n"
[ "$1" = --wait ]
if [ -e "script-$n" ]; then sh -e "script-$n" "$2"; fi
`
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VISUAL", "")
	t.Setenv("EDITOR", path+" --wait")
	t.Setenv("TMPDIR", filepath.Join(dir, "tmp"))
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	return func() (texts []string) {
		for i := 0; ; i++ {
			data, err := os.ReadFile(filepath.Join(dir, fmt.Sprint("opened-", i)))
			if err != nil {
				return texts
			}
			texts = append(texts, string(data))
		}
	}
}

// typed is what a failed edit leaves, in the file that it names.
func typed(t *testing.T, complaint string) string {
	t.Helper()
	_, path, found := strings.Cut(complaint, "what was typed is in ")
	if !found {
		t.Fatalf("no file is named:\n%s", complaint)
	}
	data, err := os.ReadFile(strings.TrimSpace(path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func leftovers(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestEdit(t *testing.T) {
	controlPlane(t)
	t.Run("a change is sent", func(t *testing.T) {
		opened := editor(t, `sed -i 's/Initech/Initech Inc/' "$1"`)
		if got := must(t, "", "edit", "tenant", "initech"); got != "replaced tenant/initech\n" {
			t.Error(got)
		}
		contains(t, "the tenant", must(t, "", "get", "tenant", "initech"), "Initech Inc")
		contains(t, "what was opened", opened()[0], "# Tenant initech", "displayName: Initech\n")
		if leftovers(t) > 0 {
			t.Error("a file is left")
		}
	})
	t.Run("nothing is changed", func(t *testing.T) {
		editor(t)
		if got := must(t, "", "edit", "tenant/initech"); got != "nothing changed\n" || leftovers(t) > 0 {
			t.Error(got)
		}
	})
	t.Run("what is refused is opened again", func(t *testing.T) {
		opened := editor(t, `sed -i 's/state: active/state: sleeping/' "$1"`, `sed -i 's/state: sleeping/state: suspended/' "$1"`)
		must(t, "", "edit", "tenant", "initech")
		contains(t, "the tenant", must(t, "", "get", "tenant", "initech"), "suspended")
		contains(t, "what was opened again", opened()[1], "# ", "spec.state: unknown word", "\n  state: sleeping\n")
	})
	t.Run("what cannot be read is opened again, and kept when that is not mended", func(t *testing.T) {
		editor(t, `echo 'spec: {colour: red}' >> "$1"`)
		_, complaint, code := outcome(t, "", "edit", "tenant", "initech")
		if code == exitOK {
			t.Error("it was accepted")
		}
		contains(t, "the complaint", complaint, "saved as it was opened", "spec")
		contains(t, "what was typed", typed(t, complaint), "spec: {colour: red}")
	})
	t.Run("another object is not made by it", func(t *testing.T) {
		editor(t, `sed -i 's/name: initech/name: hooli/' "$1"`)
		_, complaint, _ := outcome(t, "", "edit", "tenant", "initech")
		contains(t, "the complaint", complaint, "an object keeps its kind and its name")
		check(t, exitNotFound, "get", "tenant", "hooli")
	})
	t.Run("an editor that fails", func(t *testing.T) {
		editor(t, `echo '# typed' >> "$1"; exit 3`)
		_, complaint, code := outcome(t, "", "edit", "tenant", "initech")
		if code != exitError || !strings.Contains(complaint, "exit status") {
			t.Errorf("%d: %s", code, complaint)
		}
	})

	// Whoever edits is slow: somebody else is faster.
	meanwhile := func(t *testing.T, mine, theirs string) string {
		t.Helper()
		must(t, tenant("Initech", "standard"), "apply", "-f", "-")
		other := file(t, "theirs.yaml", theirs)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("sed -i '%s' \"$1\"; TOLLGATE_AS_COMMAND=1 %s apply -f %s >&2", mine, self, other)
	}
	t.Run("others changed other fields", func(t *testing.T) {
		opened := editor(t, meanwhile(t, "s/displayName: Initech/displayName: Mine/", tenant("Initech", "theirs")))
		_, complaint, code := outcome(t, "", "edit", "tenant", "initech")
		if code != exitOK {
			t.Fatal(complaint)
		}
		contains(t, "the complaint", complaint, "both changes are kept")
		contains(t, "the tenant", must(t, "", "get", "tenant", "initech", "-o", "yaml"), "displayName: Mine", "plan: theirs")
		if n := len(opened()); n != 1 {
			t.Errorf("opened %d times", n)
		}
	})
	t.Run("others changed the same field, and theirs is replaced on purpose", func(t *testing.T) {
		opened := editor(t, meanwhile(t, "s/displayName: Initech/displayName: Mine/", tenant("Theirs", "theirs")), `sed -i '/^#/d' "$1"`)
		must(t, "", "edit", "tenant", "initech")
		contains(t, "what was opened again", opened()[1], `#   spec.displayName: "Theirs"`, "displayName: Mine", "plan: theirs")
		contains(t, "the tenant", must(t, "", "get", "tenant", "initech", "-o", "yaml"), "displayName: Mine", "plan: theirs")
	})
	t.Run("others changed the same field, and it is given up", func(t *testing.T) {
		editor(t, meanwhile(t, "s/displayName: Initech/displayName: Mine/", tenant("Theirs", "theirs")))
		_, complaint, code := outcome(t, "", "edit", "tenant", "initech")
		if code == exitOK {
			t.Error("no error")
		}
		contains(t, "what was typed", typed(t, complaint), "displayName: Mine")
		contains(t, "the tenant", must(t, "", "get", "tenant", "initech", "-o", "yaml"), "displayName: Theirs")
	})
	t.Run("the server is gone", func(t *testing.T) {
		editor(t, `sed -i 's/displayName: .*/displayName: Mine/' "$1"`)
		server := os.Getenv("TOLLGATE_SERVER")
		gone := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			forward(t, w, r, server)
		}))
		defer gone.Close()
		t.Setenv("TOLLGATE_SERVER", gone.URL)
		_, complaint, code := outcome(t, "", "edit", "tenant", "initech")
		if code != exitUnreachable {
			t.Errorf("ended with %d: %s", code, complaint)
		}
		contains(t, "what was typed", typed(t, complaint), "displayName: Mine")
	})
}

func tenant(name, plan string) string {
	return fmt.Sprintf("{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: initech}, spec: {displayName: %s, plan: %s}}", name, plan)
}

// forward sends a request on, for a test that breaks some of them.
func forward(t *testing.T, w http.ResponseWriter, r *http.Request, server string) {
	t.Helper()
	on, err := http.NewRequestWithContext(r.Context(), r.Method, server+r.URL.RequestURI(), r.Body)
	if err != nil {
		t.Error(err)
		return
	}
	on.Header = r.Header.Clone()
	response, err := http.DefaultClient.Do(on)
	if err != nil {
		t.Error(err)
		return
	}
	defer response.Body.Close()
	for name, values := range response.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(response.StatusCode)
	io.Copy(w, response.Body)
}

// An account's secret that is not taken leaves the objects, and the next time does the rest.
func TestAnApplyThatBreaksInTheMiddle(t *testing.T) {
	server, token := servePortal(t)
	operate(t, server, token)
	must(t, upstreams, "apply", "-f", "-")
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/secrets") {
			panic(http.ErrAbortHandler)
		}
		forward(t, w, r, server)
	}))
	defer broken.Close()
	t.Setenv("TOLLGATE_SERVER", broken.URL)
	contains(t, "the complaint", check(t, exitUnreachable, "apply", "-f", examples), "11 objects: 11 created", "the objects were applied", "accounts.yaml:4: the secret of ServiceAccount warehouse", "doing it again does no harm")
	t.Setenv("TOLLGATE_SERVER", server)
	contains(t, "again", must(t, "", "apply", "-f", examples), "imported the secret of")
}

func TestExitCodesOfFaults(t *testing.T) {
	operate(t, "http://127.0.0.1:1", "tg_a_b")
	contains(t, "nobody listens", check(t, exitUnreachable, "get", "tenants"), "http://127.0.0.1:1 cannot be reached")
	for status, code := range map[int]int{
		400: exitInvalid, 401: exitForbidden, 403: exitForbidden, 404: exitNotFound, 409: exitConflict, 412: exitConflict, 413: exitInvalid,
		422: exitInvalid, 429: exitUnreachable, 500: exitError, 502: exitUnreachable, 503: exitUnreachable, 507: exitUnreachable,
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		t.Setenv("TOLLGATE_SERVER", s.URL)
		if _, complaint, got := outcome(t, "", "get", "tenants"); got != code {
			t.Errorf("status %d: %d, want %d: %s", status, got, code, complaint)
		}
		s.Close()
	}
	late := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Tollgate-Applied", "pending: node-2 is behind")
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, `{"revision":3,"results":[{"kind":"Tenant","name":"a","change":"created"}]}`)
	}))
	defer late.Close()
	t.Setenv("TOLLGATE_SERVER", late.URL)
	contains(t, "late", check(t, exitNotApplied, "apply", "-f", file(t, "a.yaml", tenant("A", "a")), "--wait"), "created tenant/a", "the change is kept, but not every node", "node-2 is behind")
}

func TestUsageIsExplained(t *testing.T) {
	t.Setenv("TOLLGATE_CONFIG", filepath.Join(t.TempDir(), "config.yaml"))
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"get"}, "name a kind"},
		{[]string{"get", "spaceships"}, `no kind "spaceships": there are tenants, upstream-clusters`},
		{[]string{"get", "vc", "--colour"}, "unknown flag: --colour"},
		{[]string{"get", "vc", "-o", "xml"}, "there are table, wide, yaml, json, name"},
		{[]string{"get", "alias-topic", "orders"}, "say where it is: VC/orders or --vc"},
		{[]string{"get", "topic-grant", "orders"}, "say where it is: TENANT/orders or --tenant"},
		{[]string{"get", "vc", "a/b"}, "unique everywhere"},
		{[]string{"describe", "vc"}, "name one object"},
		{[]string{"apply"}, "-f FILE"},
		{[]string{"apply", "x.yaml"}, "x.yaml"},
		{[]string{"apply", "-f", "absent.yaml"}, "no such file"},
		{[]string{"delete", "-f", "a", "vc/b"}, "not both"},
		{[]string{"secret", "fly"}, `no command "fly"`},
		{[]string{"secret", "issue"}, "accepts 1 arg"},
		{[]string{"audit", "--from", "yesterday"}, "write a time with its zone"},
		{[]string{"appl"}, "is it apply?"},
	} {
		contains(t, strings.Join(c.args, " "), check(t, exitUsage, c.args...), c.want, "--help tells more")
	}
	for _, args := range [][]string{{"--help"}, {"apply", "--help"}, {"help", "secret", "issue"}} {
		contains(t, strings.Join(args, " "), check(t, exitOK, args...), "Usage:")
	}
	for _, args := range [][]string{{"produce", "--help"}, {"help", "topics", "create"}, {"topics", "--help"}, {"help", "dev"}, {"dev", "exec", "--help"}} {
		contains(t, strings.Join(args, " "), check(t, exitOK, args...), "usage: tollgate ")
	}
}

func TestAudit(t *testing.T) {
	controlPlane(t)
	contains(t, "all", must(t, "", "audit"), "create  tenant/initech\n", "import-secret  service-account/initech-prod/warehouse")
	if got := must(t, "", "audit", "-n", "1"); strings.Count(got, "\n") != 1 || !strings.Contains(got, "import-secret") {
		t.Errorf("the last one:\n%s", got)
	}
	must(t, tenant("Other", "x"), "apply", "-f", "-")
	contains(t, "of one object", must(t, "", "audit", "tenant/initech", "--diff"), "replace  tenant/initech", "-  displayName: Initech\n", "+  displayName: Other\n")
	lines := strings.Split(strings.TrimSpace(must(t, "", "audit", "-n", "0", "-o", "json", "--tenant", "initech", "--since", "1h")), "\n")
	var first struct{ Action, Kind string }
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil || first.Action != "create" || len(lines) != 13 {
		t.Errorf("%d lines, %+v, %v", len(lines), first, err)
	}
	contains(t, "of one kind", must(t, "", "audit", "acls", "--vc", "initech-prod"), "acl/initech-prod/warehouse-groups")
}

func TestNodes(t *testing.T) {
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Method+" "+r.URL.RequestURI()+" "+string(body))
		switch {
		case r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/v1/nodes/node-1/"):
			w.WriteHeader(http.StatusAccepted)
		case r.Method == http.MethodPost:
			w.WriteHeader(http.StatusNotFound)
		default:
			state, sessions := "serving", 12
			switch { // it is told by the second request, and hears of it a moment later
			case len(asked) > 4:
				state, sessions = "drained", 0
			case len(asked) > 3:
				state, sessions = "draining", 3
			}
			fmt.Fprintf(w, `{"items":[{"id":"node-1","state":%q,"version":"1.2.3","sessions":%d,"load":0.25,"applied":17,"rack":"a"}],"problem":"redis is away"}`, state, sessions)
		}
	}))
	defer s.Close()
	operate(t, s.URL, "tg_a_b")
	out, complaint, _ := outcome(t, "", "node", "list")
	if want := "ID      STATE    VERSION  SESSIONS  LOAD  APPLIED  RACK  PROBLEM\nnode-1  serving  1.2.3    12        25%   17       a     -\n"; out != want || !strings.Contains(complaint, "redis is away") {
		t.Errorf("%s%s", out, complaint)
	}
	contains(t, "drain", must(t, "", "node", "drain", "node-1", "--over", "1m", "--wait"), "drains node-1", "node-1 has no sessions")
	if !slices.Contains(asked, `POST /v1/nodes/node-1/drain {"over":"1m0s"}`) {
		t.Errorf("asked %q", asked)
	}
	must(t, "", "node", "undrain", "node-1")
	contains(t, "none of that name", check(t, exitNotFound, "node", "drain", "node-2"), "node node-2")
}

func TestSessions(t *testing.T) {
	now := time.Now().UTC()
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.RequestURI())
		switch {
		case r.Method == http.MethodDelete && r.URL.Path == "/v1/sessions/abc":
			w.WriteHeader(http.StatusNoContent)
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusNotFound)
		case r.URL.Query().Get("principal") == "User:none":
			fmt.Fprint(w, `{"items":[],"total":0}`)
		default:
			fmt.Fprintf(w, `{"items":[{"id":"abc","tenant":"acme","virtualCluster":"acme-prod","principal":"User:a","mechanism":"PLAIN","clientId":"app","software":"kgo","softwareVersion":"1.2","address":"10.0.0.9","node":"n1","since":%q,"lastRequest":%q,"requests":7,"bytesIn":1023,"bytesOut":1268777}],"total":3,"incomplete":true,"missing":["n2"]}`,
				now.Add(-3*time.Hour).Format(time.RFC3339), now.Add(-30*time.Minute).Format(time.RFC3339))
		}
	}))
	defer s.Close()
	operate(t, s.URL, "tg_a_b")
	out, complaint, _ := outcome(t, "", "session", "list", "--vc", "acme-prod", "-n", "1")
	if want := "ID   VIRTUAL-CLUSTER  PRINCIPAL  CLIENT  ADDRESS   SINCE  IDLE  IN    OUT\nabc  acme-prod        User:a     app     10.0.0.9  3h     30m   1023  1.21MiB\n"; out != want || !strings.Contains(complaint, "no answer from n2") || !strings.Contains(complaint, "1 of 3 sessions") {
		t.Errorf("%s%s", out, complaint)
	}
	if want := "GET /v1/sessions?limit=1&virtualCluster=acme-prod"; asked[0] != want {
		t.Errorf("asked %q, want %s", asked, want)
	}
	contains(t, "wide", must(t, "", "session", "list", "-o", "wide"), "PLAIN", "kgo 1.2", "n1", "acme")
	contains(t, "yaml", must(t, "", "session", "list", "-o", "yaml"), "items:\n", "id: abc", "total: 3", "- n2")
	contains(t, "json", must(t, "", "session", "list", "-o", "json"), `"bytesOut": 1268777`)
	if got := must(t, "", "session", "list", "-o", "name"); got != "abc\n" {
		t.Errorf("names: %q", got)
	}
	if out, complaint, _ := outcome(t, "", "session", "list", "--principal", "User:none"); out != "" || !strings.Contains(complaint, "no sessions") {
		t.Errorf("none: %s%s", out, complaint)
	}
	check(t, exitUsage, "session", "list", "-n", "0")
	contains(t, "close", must(t, "", "session", "close", "abc"), "closed abc")
	contains(t, "close", check(t, exitNotFound, "session", "close", "abd"), "session abd")
}

func TestBytesForPeople(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 1023: "1023", 1024: "1.00KiB", 12345: "12.1KiB", 234567: "229KiB", 1023 << 10: "1.00MiB", 5 << 40: "5.00TiB", 1<<64 - 1: "16.0EiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d bytes are %s, want %s", n, got, want)
		}
	}
}

func TestCompletion(t *testing.T) {
	controlPlane(t)
	for _, shell := range []string{"bash", "zsh", "fish"} {
		contains(t, shell, must(t, "", "completion", shell), "tollgate")
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"get", "vir"}, []string{"virtual-clusters", "virtual-cluster/"}},
		{[]string{"get", "vc", ""}, []string{"initech-prod"}},
		{[]string{"describe", "alias-topic", ""}, []string{"initech-prod/orders", "initech-prod/shipments"}},
		{[]string{"describe", "alias-topic", "--vc", "initech-prod", ""}, []string{"orders", "shipments"}},
		{[]string{"edit", "acl/initech-prod/warehouse-g"}, []string{"acl/initech-prod/warehouse-groups"}},
		{[]string{"get", "acls", "--vc", ""}, []string{"initech-prod"}},
		{[]string{"secret", "issue", ""}, []string{"initech-prod/warehouse"}},
		{[]string{"get", "vc", "-o", ""}, []string{"table", "wide", "yaml", "json", "name"}},
		{[]string{"token", "create", "x", "--role", ""}, []string{"ops", "tenant", "node"}},
	} {
		out, _, _ := outcome(t, "", append([]string{"__complete"}, c.args...)...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		for _, want := range c.want {
			if !slices.ContainsFunc(lines, func(l string) bool { w, _, _ := strings.Cut(l, "\t"); return w == want }) {
				t.Errorf("%q is completed by\n%swant %s", c.args, out, want)
			}
		}
	}
	id := strings.TrimSpace(must(t, "", "secret", "list", "initech-prod/warehouse", "-o", "name"))
	out, _, _ := outcome(t, "", "__complete", "secret", "revoke", "initech-prod/warehouse", "")
	contains(t, "the id of a secret", out, id)
	// A server that is away leaves a shell alone.
	t.Setenv("TOLLGATE_SERVER", "http://127.0.0.1:1")
	out, _, code := outcome(t, "", "__complete", "get", "vc", "")
	if code != exitOK || strings.Contains(out, "cannot be reached") {
		t.Errorf("%d: %s", code, out)
	}
}

// onTerminal runs a command line of a shell on a terminal, where somebody types.
func onTerminal(t *testing.T, types, command string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "script", "--quiet", "--return", "--command", "exec "+self+" "+command, os.DevNull)
	cmd.Env = append(os.Environ(), "TOLLGATE_AS_COMMAND=1", "TERM=xterm")
	cmd.Stdin = strings.NewReader(types)
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	} else if ok {
		return fmt.Sprintf("%s\nended with %d", out, exit.ExitCode())
	}
	return string(out)
}

func TestOnATerminal(t *testing.T) {
	controlPlane(t)
	changed := file(t, "tenant.yaml", tenant("Other", "standard"))
	got := onTerminal(t, "", "diff -f "+changed)
	contains(t, "diff", got, "\x1b[31m-  displayName: Initech\x1b[0m", "\x1b[32m+  displayName: Other\x1b[0m", "ended with 3")
	t.Run("NO_COLOR", func(t *testing.T) {
		t.Setenv("NO_COLOR", "1")
		if got := onTerminal(t, "", "diff -f "+changed); strings.Contains(got, "\x1b[") {
			t.Errorf("in colour: %q", got)
		}
	})

	const remove = "delete acl initech-prod/warehouse-groups"
	contains(t, "no", onTerminal(t, "n\n", remove), "Delete 1 object? [y/N]", "nothing was changed", "ended with 1")
	must(t, "", "get", "acl", "initech-prod/warehouse-groups")
	contains(t, "yes", onTerminal(t, "y\n", remove), "deleted acl/initech-prod/warehouse-groups")
	check(t, exitNotFound, "get", "acl", "initech-prod/warehouse-groups")

	got = onTerminal(t, "typed-by-somebody\n", "secret import initech-prod/warehouse")
	contains(t, "import", got, "Password of warehouse:", "imported as secret")
}

// What the README says: after tollgate apply -f examples/ a Kafka client works.
func TestAClientWorksAfterTheExamplesAreApplied(t *testing.T) {
	t.Setenv("TOLLGATE_CONFIG", filepath.Join(t.TempDir(), "config.yaml"))
	state := filepath.Join(t.TempDir(), "state")
	base := freePorts(t)
	startDev(t, "--state", state, "--listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(base)), "--port-base", strconv.Itoa(base))
	contains(t, "apply", must(t, "", "apply", "-f", examples, "--wait", "--state", state), "11 objects: 11 created")
	if got := must(t, "", "apply", "-f", examples, "--wait", "--state", state); !strings.HasPrefix(got, "nothing changed") {
		t.Errorf("the second time: %s", got)
	}
	as := func(password string, args ...string) []string {
		return append(args, "--state", state, "--vc", "initech-prod", "--user", "warehouse", "--password", password)
	}
	const password = "everybody-knows-this-one"
	must(t, "one\n", as(password, "produce", "orders")...)
	if got := must(t, "", as(password, "consume", "orders", "shipments", "--group", "warehouse-1", "--from-beginning", "--max", "1")...); got != "one\n" {
		t.Errorf("consumed %q", got)
	}
	// Lent to read only: the second cluster is behind it, and the wall holds.
	if _, err := tollgate(t, "x\n", as(password, "produce", "shipments")...); err == nil {
		t.Error("wrote a topic that was lent to read")
	}
	issued := strings.TrimSpace(must(t, "", "secret", "issue", "initech-prod/warehouse", "-o", "password", "--wait", "--state", state))
	must(t, "two\n", as(issued, "produce", "orders")...)
	contains(t, "nodes", must(t, "", "node", "list", "--state", state), "serving")
	must(t, "", "delete", "-f", examples, "--yes", "--wait", "--state", state)
	contains(t, "what is left", must(t, "", "get", "virtual-clusters", "-o", "name", "--state", state), "virtual-cluster/acme-prod")
	check(t, exitNotFound, "get", "virtual-cluster", "initech-prod", "--state", state)
}
