package control

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"tollgate.internal/pkg/resource"
)

// What a cluster was given once is never another's, whatever comes and goes.
func TestSlotsAreGivenForGood(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		hash := func(cluster string) int32 { return (&resource.VirtualClusterSpec{Home: "main"}).Slot(cluster) }
		b.apply(doc("Tenant name: t | displayName: t", `UpstreamCluster name: main | bootstrap: ["a:1"]`,
			`UpstreamCluster name: west | bootstrap: ["a:1"]`, `UpstreamCluster name: east | bootstrap: ["a:1"]`))
		vc := func(rest string) string {
			return doc("VirtualCluster name: vc, tenant: t | type: standard, host: vc, home: main, authentication: {plain: {}}" + rest)
		}
		slots := func() map[string]int32 {
			t.Helper()
			stored, err := b.Get(t.Context(), resource.Key{Kind: resource.KindVirtualCluster, Name: "vc"})
			if err != nil {
				t.Fatal(err)
			}
			return stored.Object.(*resource.VirtualCluster).Spec.Slots
		}
		for _, step := range []struct {
			name, rest string
			change     Change
			want       map[string]int32
		}{
			{"home has 0", "", Created, map[string]int32{"main": 0}},
			{"one that somebody else's name would give", fmt.Sprintf(", clusters: [main, west], slots: {west: %d}", hash("east")), Replaced, map[string]int32{"main": 0, "west": hash("east")}},
			{"what was given need not be said again", ", clusters: [main, west]", Unchanged, map[string]int32{"main": 0, "west": hash("east")}},
			{"one that has left keeps its own", ", clusters: [main]", Replaced, map[string]int32{"main": 0, "west": hash("east")}},
			{"the next gets another", ", clusters: [main, east]", Replaced, map[string]int32{"main": 0, "west": hash("east"), "east": hash("east") + 1}},
			{"one that is back has it again", ", clusters: [east, main, west]", Replaced, map[string]int32{"main": 0, "west": hash("east"), "east": hash("east") + 1}},
		} {
			r := b.apply(vc(step.rest))
			if got := slots(); r[0].Change != step.change || !maps.Equal(got, step.want) {
				t.Errorf("%s: %s, %v, want %s, %v", step.name, r[0].Change, got, step.change, step.want)
			}
		}
		_, err := b.try(vc(", clusters: [main, west], slots: {west: 3}"))
		if err == nil || !strings.Contains(err.Error(), "spec.slots.west: cluster west has slot") {
			t.Errorf("another slot: %v", err)
		}
		_, err = b.try(vc(", clusters: [main, west], slots: {main: 3}"))
		if err == nil || !strings.Contains(err.Error(), "spec.slots.main: cluster main has slot 0") {
			t.Errorf("another slot of home: %v", err)
		}
	})
}
