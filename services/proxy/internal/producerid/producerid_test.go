package producerid

import (
	"errors"
	"testing"
)

// PROTOCOL.md §C1: above all that controllers give, exact in a double, and the
// parts do not overlap.
func TestLayout(t *testing.T) {
	for _, tc := range []struct {
		deployment int
		lease      Lease
		first      int64
	}{
		{0, 0, 1 << 52},
		{0, 1, 1<<52 + 1<<20},
		{1, 0, 1<<52 + 1<<42},
		{Deployments - 1, Leases - 1, 1<<53 - 1<<20},
	} {
		b := newBlock(tc.deployment, tc.lease)
		if b.first != tc.first {
			t.Errorf("deployment %d, lease %d: first id %#x, want %#x", tc.deployment, tc.lease, b.first, tc.first)
		}
	}
}

func TestALeaseHasEachOfItsIDsOnce(t *testing.T) {
	b := newBlock(3, 77)
	seen := make([]bool, PerLease)
	for b.left > 0 {
		id := b.take()
		if id < b.first || id >= b.first+PerLease {
			t.Fatalf("id %#x is not of the lease that begins with %#x", id, b.first)
		}
		if seen[id-b.first] {
			t.Fatalf("id %#x twice", id)
		}
		seen[id-b.first] = true
		if float := float64(id); int64(float) != id {
			t.Fatalf("id %d is %d as a double", id, int64(float))
		}
	}
	for i, s := range seen {
		if !s {
			t.Fatalf("id %#x was never given", b.first+int64(i))
		}
	}
}

// Two holders of one lease, which only the loss of a source's record can bring,
// must not begin with the same ids.
func TestLeasesBeginAnywhere(t *testing.T) {
	starts := make(map[int64]bool)
	for range 100 {
		starts[newBlock(0, 5).take()] = true
	}
	if len(starts) < 90 {
		t.Errorf("%d starts of 100 leases", len(starts))
	}
}

func TestTheLastLeaseIsFoundAndNoneAfterIt(t *testing.T) {
	s := make(leaseSet, leaseSetBytes)
	const last = 1234567
	for l := range Lease(Leases) {
		if l != last {
			s.add(l)
		}
	}
	if l, err := s.draw(); err != nil || l != last {
		t.Fatalf("draw: %d, %v, want %d", l, err, last)
	}
	s.add(last)
	if _, err := s.draw(); !errors.Is(err, ErrExhausted) {
		t.Fatalf("draw of none: %v, want ErrExhausted", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, ref, password string
		deployment          int
		want                string
	}{
		{"nothing", "", "", 0, "must be file:PATH or redis://HOST:PORT; also rediss:// and unix://"},
		{"a path", "/var/lib/ids", "", 0, "must be file:PATH or redis://HOST:PORT; also rediss:// and unix://"},
		{"a file without a path", "file:", "", 0, "must be file:PATH or redis://HOST:PORT; also rediss:// and unix://"},
		{"the URL of a file", "file:///var/lib/ids", "", 0, "must be file:PATH or redis://HOST:PORT; also rediss:// and unix://"},
		{"a password for a file", "file:ids", "x", 0, "a file has no password"},
		{"a URL with a mistake, of which the password is not told", "redis://u:pass word@%zz", "", 0, "not a URL such as redis://user@host:6379/0"},
		{"an option that go-redis does not know", "redis://h:1?colour=red", "", 0, "redis: unexpected option: colour"},
		{"a deployment below the range", "file:ids", "", -1, "deployment -1 is not a number from 0 to 1023"},
		{"a deployment above the range", "file:ids", "", 1024, "deployment 1024 is not a number from 0 to 1023"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Open(tc.ref, tc.password, tc.deployment); err == nil || err.Error() != tc.want {
				t.Errorf("Open(%q): %v, want %s", tc.ref, err, tc.want)
			}
		})
	}
}
