package api

import (
	"math/rand/v2"
	"slices"
	"testing"

	"tollgate.internal/services/portal/internal/control"
)

func TestRevisionsOfTenants(t *testing.T) {
	key := []byte("a key of 32 bytes, as stores have")
	acme, globex := revisionsFor("acme", key), revisionsFor("globex", key)
	again, elsewhere := revisionsFor("acme", key), revisionsFor("acme", []byte("another key"))
	random := rand.New(rand.NewPCG(1, 2))
	seen := make(map[Revision]bool)
	var rising, small int
	const n = 20_000
	before := Revision(0)
	for i := int64(1); i <= n; i++ {
		shown := acme.shown(i)
		if shown <= 0 || shown > 1<<52-1 || seen[shown] {
			t.Fatalf("revision %d is shown as %d, which is no number of its own in 52 bits", i, shown)
		}
		seen[shown] = true
		if got := acme.meant(shown); got != i {
			t.Fatalf("revision %d is shown as %d, and that means %d", i, shown, got)
		}
		if again.shown(i) != shown {
			t.Fatalf("revision %d is shown in two ways", i)
		}
		// Neither another tenant nor another database knows it.
		if globex.meant(shown) == i || elsewhere.meant(shown) == i {
			t.Fatalf("%d, which is revision %d, is that to another as well", shown, i)
		}
		if shown > before {
			rising++
		}
		if shown < 1<<40 {
			small++
		}
		before = shown
		// What was made up means nothing that there could be.
		if made := Revision(1 + random.Int64N(1<<52-1)); acme.meant(made) <= 1<<30 && !seen[made] {
			t.Errorf("%d was made up, and means revision %d", made, acme.meant(made))
		}
	}
	// Which of two is newer cannot be told, nor how many there are.
	if rising < n*48/100 || rising > n*52/100 || small > n/1000 {
		t.Errorf("of %d revisions %d rise, and %d are small", n, rising, small)
	}
	// There is none, and what is sent beyond the numbers stays what it is.
	for _, r := range []int64{0, -1, 1 << 52, 1<<63 - 1} {
		if acme.shown(r) != Revision(r) || acme.meant(Revision(r)) != r {
			t.Errorf("revision %d is shown as %d, and %d means %d", r, acme.shown(r), r, acme.meant(Revision(r)))
		}
	}
	if acme.meant(maxShown) == 0 || acme.shown(maxShown) == 0 {
		t.Error("the last number is none")
	}
	ops := revisionsFor("", key)
	if ops.shown(7) != 7 || ops.meant(7) != 7 {
		t.Error("those who run the gateway read other revisions than the store's")
	}
}

func TestPlacesInTheLogOfTenants(t *testing.T) {
	acme := revisionsFor("acme", []byte("key"))
	type place struct {
		revision Revision
		seq      int64
	}
	var seen []place
	for revision := int64(1); revision < 20; revision++ {
		for seq := range int64(20) {
			r, s := acme.shownAt(control.Position{Revision: revision, Seq: seq})
			if got := acme.meantAt(r, s); got != (control.Position{Revision: revision, Seq: seq}) || r != acme.shown(revision) || s < 1000 {
				t.Errorf("%d.%d is shown as %d.%d, which means %v", revision, seq, r, s, got)
			}
			if slices.Contains(seen, place{r, s}) {
				t.Errorf("%d.%d is two places", r, s)
			}
			seen = append(seen, place{r, s})
		}
	}
	if r, s := (revisions{}).shownAt(control.Position{Revision: 3, Seq: 4}); r != 3 || s != 4 {
		t.Errorf("to those who run the gateway 3.4 is %d.%d", r, s)
	}
}
