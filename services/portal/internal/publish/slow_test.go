package publish

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/testbed/redistest"
)

// Changes are kept as fast as ever whatever Redis does, and are published as soon as it
// answers; looking whether all is there holds none of them up.
func TestRedisIsSlow(t *testing.T) {
	server := redistest.Start(t)
	link := server.Link(t)
	b := newBedAt(t, link.URL)
	var many strings.Builder
	many.WriteString(acme)
	for i := range 300 {
		fmt.Fprintf(&many, "---\n{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: u%d}, spec: {bootstrap: [\"localhost:9092\"]}}\n", i)
	}
	l, stop := b.publish()
	b.head(l, b.put(many.String()))
	stop()
	// A portal that begins now has to open everything that is there.
	link.Delay(500 * time.Millisecond)
	l, _ = b.publish()
	for _, yes := range []bool{true, false, true} {
		began := time.Now()
		revision := b.put(suspended(yes))
		kept := time.Since(began)
		until(t, l, patience, "it is published", func() bool { return l.Status().Revision >= revision })
		t.Logf("kept after %v, published after %v", kept, time.Since(began))
	}
	if got := state(b.bundle(bundle.VirtualCluster, "shop")); got != resource.TenantSuspended {
		t.Errorf("the tenant is %s", got)
	}
	// So slow that it is away.
	link.Delay(6 * time.Second)
	revision := b.put(suspended(false))
	until(t, l, 2*patience, "the status says so", func() bool { return l.Status().Err != nil })
	link.Delay(0)
	b.head(l, revision)
	// In pieces.
	link.Trickle(50, 20*time.Millisecond)
	b.head(l, b.put(suspended(true)))
}
