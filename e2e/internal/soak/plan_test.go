package soak

import (
	"fmt"
	"testing"
	"time"
)

var planSites = []site{{gatewaySite, 2, false}, {home, 3, false}, {west, 1, false}}

var fleetSites = []site{{gatewaySite, 3, true}, {controlSite, 1, true}, {home, 3, false}, {west, 1, false}}

func TestTheSameSeedDrawsTheSameFaults(t *testing.T) {
	for seed := range uint64(20) {
		if one, other := fmt.Sprint(plan(seed, 30, planSites)), fmt.Sprint(plan(seed, 30, planSites)); one != other {
			t.Errorf("seed %d draws\n%s and\n%s", seed, one, other)
		}
	}
	if fmt.Sprint(plan(1, 30, planSites)) == fmt.Sprint(plan(2, 30, planSites)) {
		t.Error("two seeds draw the same")
	}
}

// Thirty rounds have faults of every kind at every site that knows it, never two
// at one site at once.
func TestARunHasEveryFault(t *testing.T) {
	for seed := range uint64(50) {
		hasEveryFault(t, seed, planSites)
		hasEveryFault(t, seed, fleetSites)
	}
}

func hasEveryFault(t *testing.T, seed uint64, sites []site) {
	t.Helper()
	{
		seen := make(map[string]bool)
		rounds := plan(seed, 30, sites)
		if len(rounds) != 30 {
			t.Fatalf("seed %d: %d rounds", seed, len(rounds))
		}
		for i, faults := range rounds {
			if n := len(faults); n < 1 || n > 2 {
				t.Fatalf("seed %d: round %d has %d faults", seed, i, n)
			}
			if len(faults) == 2 && faults[0].site == faults[1].site {
				t.Errorf("seed %d: round %d has two faults at one site: %v", seed, i, faults)
			}
			for _, f := range faults {
				seen[fmt.Sprint(f.kind, f.site)] = true
				if f.length < 2*time.Second || f.length > 8*time.Second {
					t.Errorf("seed %d: %v", seed, f)
				}
			}
		}
		for _, site := range sites {
			for _, k := range site.kinds() {
				if !seen[fmt.Sprint(k, site.name)] {
					t.Errorf("seed %d: nowhere %v %s", seed, k, site.name)
				}
			}
		}
	}
}
