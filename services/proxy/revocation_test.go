package proxy_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A session ends within a second of what it was admitted by, whether that was
// changed, removed or has run out; others notice nothing.
func TestASessionEndsWithinASecondOfItsRight(t *testing.T) {
	const account = `metadata: {name: dev, virtualCluster: acme-dev}, spec: {type: local, password: "file:dev.secret"`
	end := func() string { return time.Now().Add(time.Hour).UTC().Format(time.RFC3339) }
	for _, c := range []struct {
		name   string
		change func(t *testing.T, g *gateway) // to be heeded at once, or within an hour
		after  time.Duration
		why    string
	}{
		{"another password", func(t *testing.T, g *gateway) { g.write(t, "dev.secret", "another-secret-now") }, 0, "TG-AUTH-016"},
		{"no account", func(t *testing.T, g *gateway) {
			g.replace(t, "all.yaml", "metadata: {name: dev, virtualCluster: acme-dev}", "metadata: {name: someone, virtualCluster: acme-dev}")
		}, 0, "TG-AUTH-016"},
		{"another way to log in", func(t *testing.T, g *gateway) {
			g.replace(t, "all.yaml", "  autoCreateTopics: true\n  authentication: {plain: {}, scram: {}}", "  autoCreateTopics: true\n  authentication: {scram: {}}")
		}, 0, "TG-AUTH-016"},
		{"a suspended tenant", func(t *testing.T, g *gateway) {
			g.replace(t, "all.yaml", "spec: {displayName: ACME}", "spec: {displayName: ACME, state: suspended}")
		}, 0, "TG-AUTH-019"},
		{"no virtual cluster", func(t *testing.T, g *gateway) {
			g.replace(t, "all.yaml", "metadata: {name: acme-dev, tenant: acme}", "metadata: {name: acme-new, tenant: acme}")
			g.replace(t, "all.yaml", "virtualCluster: acme-dev}", "virtualCluster: acme-new}")
		}, 0, "TG-LISTEN-017"},
		{"an account that expires, known from the change on", func(t *testing.T, g *gateway) {
			g.replace(t, "all.yaml", account, account+", expires: "+end())
		}, time.Hour, "TG-AUTH-016"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *gateway) {
				held := g.raw(t, "acme-dev.gw.test")
				if code := held.login("dev", "dev-secret"); code != 0 {
					t.Fatalf("login: error %d", code)
				}
				bystander := g.raw(t, "open.gw.test")
				bystander.ask(&kmsg.MetadataRequest{Version: 9})
				c.change(t, g)
				if took := whenClosed(t, held); took < c.after || took > c.after+time.Second {
					t.Errorf("ended after %v, want %v and less than a second", took, c.after)
				}
				synctest.Wait()
				if lines := g.log.with("session ended", " refusal="+c.why+" ", "principal=User:dev"); len(lines) != 1 {
					t.Errorf("logged %q, want one line with %s", g.log.with("session ended"), c.why)
				}
				if c.why != "TG-AUTH-019" { // which is the bystander's tenant too
					bystander.SetDeadline(time.Now().Add(time.Minute))
					bystander.ask(&kmsg.MetadataRequest{Version: 9})
				}
			})
		})
	}
}
