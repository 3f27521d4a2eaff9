package failures

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"tollgate.internal/e2e/internal/site"
)

// next is a version whose bundles the present one cannot read.
var next = &site.Version{Overlay: map[string]func(string) string{
	"pkg/bundle/bundle.go": func(text string) string {
		return strings.NewReplacer("formatFirst uint16 = 1", "formatFirst uint16 = 3", "FormatPolicies uint16 = 2", "FormatPolicies uint16 = 3").Replace(text)
	},
}}

// Portal and nodes are updated in the wrong order, and taken back: a node keeps serving
// what it can read, says why, and catches up; clients go on all the while, and nothing
// that was revoked comes back.
func TestTwoVersions(t *testing.T) {
	b := onSQLite(t, 3)
	b.tenant(t, "globex")
	b.open(t, "globex", dev)
	r := b.prepare(t, 3)
	working, changing := b.work(t, false), b.change(t)
	r.one(t)
	portal := b.Portals[0]
	becomes := func(p *site.Process, v *site.Version) {
		t.Helper()
		p.Stop(t)
		p.Version = v
		p.Launch(t)
	}

	becomes(&portal.Process, next)
	site.Eventually(t, "nodes say what they cannot read", func(ctx context.Context) error {
		for _, n := range b.Nodes {
			if n.Metric(t, `tollgate_proxy_fleet_bundles_refused_total{reason="newer"}`) == 0 {
				return fmt.Errorf("%s does not count it", n.Name)
			}
			status, body, err := n.Get(ctx, "/readyz")
			if err != nil || status != http.StatusOK || !strings.Contains(body, "format 3") {
				return fmt.Errorf("%s: %d %s, %w", n.Name, status, body, err)
			}
		}
		return nil
	})
	working.goOn(t)
	r.hold(t)
	for _, n := range b.Nodes {
		becomes(&n.Process, next)
		working.goOn(t)
	}
	changing.goOn(t)
	r.one(t)

	// One is taken back while the portal is not: it has what it could read before.
	first := b.Nodes[0]
	becomes(&first.Process, site.Present)
	site.Open(t, "globex on "+first.Name, first.Target("globex", "PLAIN", dev, password))
	if _, err := site.Refused(t.Context(), first.Target(acme, "PLAIN", dev, password)); err == nil {
		t.Errorf("%s serves what it cannot read", first.Name)
	}
	working.goOn(t)
	becomes(&portal.Process, site.Present)
	working.goOn(t)
	changing.goOn(t)
	r.hold(t)
	for _, n := range b.Nodes[1:] {
		becomes(&n.Process, site.Present)
	}
	working.goOn(t)
	changing.goOn(t)
	r.one(t)
	changing.end(t)
	working.end(t)
}
