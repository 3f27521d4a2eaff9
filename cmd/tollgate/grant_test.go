package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"tollgate.internal/cmd/tollgate/internal/client"
)

func TestGrantsAreAskedForAndDecided(t *testing.T) {
	controlPlane(t)
	ops, tenant := os.Getenv("TOLLGATE_TOKEN"), strings.TrimSpace(must(t, "", "token", "create", "partner", "--role", "tenant", "--tenant", "initech", "-o", "token"))
	as := func(token string) { t.Setenv("TOLLGATE_TOKEN", token) }

	as(tenant)
	request := func(topic string, more ...string) string {
		t.Helper()
		return strings.TrimSpace(must(t, "", append([]string{"grant", "request", topic, "--tenant", "initech", "--reason", "we ship\nreturns", "-o", "name"}, more...)...))
	}
	first := request("returns", "--write", "--at", "2099-01-01T00:00:00Z")
	if again := request("returns", "--write", "--at", "2099-01-01T00:00:00Z"); again != first {
		t.Errorf("the same again is %s, want %s", again, first)
	}
	second := request("shop.", "--prefix")
	listed := must(t, "", "grant", "requests")
	contains(t, "requests", listed, first, second, "returns", "shop.*", "read-write", "2099-01-01T00:00:00Z", `"we ship\nreturns"`)
	if strings.Index(listed, first) > strings.Index(listed, second) {
		t.Errorf("the oldest is not the first:\n%s", listed)
	}
	// It asks, and decides nothing.
	contains(t, "approved by the tenant", check(t, exitNotFound, "grant", "approve", first, "--cluster", "main"), "request "+strings.TrimPrefix(first, "initech/")+" of initech")
	check(t, exitNotFound, "grant", "refuse", first, "--reason", "x")
	check(t, exitNotFound, "grant", "request", "returns", "--tenant", "hooli", "--reason", "x")
	contains(t, "mistakes", check(t, exitInvalid, "grant", "request", "a topic", "--tenant", "initech", "--reason", "x", "--at", "2020-01-01T00:00:00Z"), "topic.name: ", "until: is past")

	as(ops)
	contains(t, "a cluster that is not there", check(t, exitInvalid, "grant", "approve", first, "--cluster", "mars"), `cluster: there is no UpstreamCluster "mars"`)
	contains(t, "more than was asked for", check(t, exitInvalid, "grant", "approve", second, "--cluster", "main", "--access", "read-write"), "access: read was asked for")
	approve := []string{"grant", "approve", first, "--cluster", "main", "--topic", "shop.returns.v3", "--access", "read", "--name", "returns"}
	contains(t, "dry run", must(t, "", append(approve, "--dry-run")...), "dry run: would approve "+first+": topic-grant/initech/returns, read, until 2099-01-01T00:00:00Z\n")
	check(t, exitNotFound, "get", "topic-grant", "initech/returns")
	contains(t, "approve", must(t, "", append(approve, "--wait")...), "approved "+first+": topic-grant/initech/returns, read, until 2099-01-01T00:00:00Z\n")
	contains(t, "the grant", must(t, "", "get", "topic-grant", "initech/returns", "-o", "yaml"), "shop.returns.v3", "access: read\n")
	contains(t, "approved again", check(t, exitConflict, approve...), "was approved already, by ")
	contains(t, "refused", must(t, "", "grant", "refuse", strings.TrimPrefix(second, "initech/"), "--tenant", "initech", "--reason", "ask for what you need"), "refused "+second+"\n")
	contains(t, "the log", must(t, "", "audit", "--action", "approve-grant"), "approve-grant", "TopicGrant returns")

	as(tenant)
	if open := check(t, exitOK, "grant", "requests"); open != "no open requests\n" {
		t.Errorf("open: %s", open)
	}
	all := must(t, "", "grant", "requests", "all", "-o", "wide")
	contains(t, "all", all, "approved", "refused", "operator", "ask for what you need", "partner (")
	if strings.Contains(all, "shop.returns") || strings.Contains(all, "main") || strings.Contains(all, "first token") {
		t.Errorf("the tenant sees\n%s", all)
	}
	third := request("third")
	contains(t, "withdrawn", must(t, "", "grant", "withdraw", third), "withdrew "+third+"\n")
	check(t, exitConflict, "grant", "withdraw", third)
	var page struct{ Items []client.GrantRequest }
	if err := json.Unmarshal([]byte(must(t, "", "grant", "requests", "refused", "-o", "json")), &page); err != nil || len(page.Items) != 1 || page.Items[0].Answer != "ask for what you need" {
		t.Errorf("%+v, %v", page, err)
	}

	for _, args := range [][]string{
		{"requests", "x"},
		{"request", "x"},
		{"request", "x", "--tenant", "initech"},
		{"request", "x", "--tenant", "initech", "--reason", "x", "--in", "1h", "--at", "2099-01-01T00:00:00Z"},
		{"approve", "x", "--cluster", "main"},
		{"approve", "initech/x"},
		{"approve", "initech/x", "--cluster", "main", "--prefix"},
		{"approve", "/x", "--cluster", "main"},
		{"refuse", "initech/x"},
		{"withdraw"},
		{"withdraw", "x"},
	} {
		check(t, exitUsage, append([]string{"grant"}, args...)...)
	}
}
