package auth

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var (
	home  = netip.MustParseAddr("192.0.2.1")
	other = netip.MustParseAddr("192.0.2.2")
)

func newTestBackoff() (*Backoff, *clock) {
	c := &clock{testNow}
	return NewBackoff(c.now), c
}

func wantDelay(t *testing.T, b *Backoff, addr netip.Addr, vc, principal string, want time.Duration) {
	t.Helper()
	if got := b.Delay(addr, vc, principal); got != want {
		t.Errorf("Delay(%s, %s, %s) = %s, want %s", addr, vc, principal, got, want)
	}
}

func TestDelayDoublesFromATenthOfASecondToFiveSeconds(t *testing.T) {
	b, _ := newTestBackoff()
	wantDelay(t, b, home, "acme", "alice", 0)
	for _, ms := range []int{100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000} {
		b.Failed(home, "acme", "alice")
		wantDelay(t, b, home, "acme", "alice", time.Duration(ms)*time.Millisecond)
	}
}

func TestDelayDecays(t *testing.T) {
	b, c := newTestBackoff()
	for range 20 {
		b.Failed(home, "acme", "alice")
	}
	c.advance(backoffDecay)
	wantDelay(t, b, home, "acme", "alice", 3200*time.Millisecond)
	c.advance(3*backoffDecay - time.Second)
	wantDelay(t, b, home, "acme", "alice", 800*time.Millisecond)
	c.advance(5 * backoffDecay)
	wantDelay(t, b, home, "acme", "alice", 0)
}

func TestNobodyLocksAPrincipalOutFromElsewhere(t *testing.T) {
	b, _ := newTestBackoff()
	for range 100 {
		b.Failed(other, "acme", "alice")
	}
	wantDelay(t, b, home, "acme", "alice", 0)
	wantDelay(t, b, other, "acme", "alice", backoffMost)
	// Whoever guesses from a new address gets one try before the full delay.
	b.Failed(home, "acme", "alice")
	wantDelay(t, b, home, "acme", "alice", backoffMost)
	b.Succeeded(home, "acme", "alice")
	wantDelay(t, b, home, "acme", "alice", 0)
	// The same name in another virtual cluster is somebody else.
	b.Failed(netip.MustParseAddr("192.0.2.3"), "other", "alice")
	wantDelay(t, b, netip.MustParseAddr("192.0.2.3"), "other", "alice", backoffFirst)
}

func TestAGoodClientIsNotSlowedByABadNeighbour(t *testing.T) {
	b, c := newTestBackoff()
	b.Succeeded(home, "acme", "alice")
	for range 10 {
		b.Failed(home, "acme", "mallory")
	}
	wantDelay(t, b, home, "acme", "alice", 0)
	wantDelay(t, b, home, "acme", "bob", backoffMost) // names are not guessed in parallel
	b.Succeeded(home, "acme", "bob")
	wantDelay(t, b, home, "acme", "mallory", backoffMost) // one good login does not reset the address
	c.advance(backoffTrusted + time.Second)
	for range 10 {
		b.Failed(home, "acme", "mallory")
	}
	wantDelay(t, b, home, "acme", "alice", backoffMost)
}

func TestIPv6CountsByNetworkAndIPv4MappedAsIPv4(t *testing.T) {
	b, _ := newTestBackoff()
	b.Failed(netip.MustParseAddr("2001:db8::1"), "acme", "alice")
	wantDelay(t, b, netip.MustParseAddr("2001:db8::ffff"), "acme", "alice", backoffFirst)
	wantDelay(t, b, netip.MustParseAddr("2001:db8:0:1::1"), "acme", "alice", 0)
	b.Failed(netip.MustParseAddr("::ffff:192.0.2.9"), "acme", "bob")
	wantDelay(t, b, netip.MustParseAddr("192.0.2.9"), "acme", "bob", backoffFirst)
	wantDelay(t, b, netip.Addr{}, "acme", "nobody", 0) // an address that is not IP
}

func TestBackoffMemoryIsBounded(t *testing.T) {
	b, _ := newTestBackoff()
	long := strings.Repeat("x", 300)
	for i := range backoffEntries + 500 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		b.Failed(a, "acme", fmt.Sprint(long, i))
		b.Succeeded(a, "acme", fmt.Sprint(i))
	}
	for name, n := range map[string]int{
		"pair": len(b.pair.byKey), "address": len(b.address.byKey),
		"principal": len(b.principal.byKey), "trusted": len(b.trusted.byKey),
	} {
		if n != backoffEntries {
			t.Errorf("%s holds %d entries, want %d", name, n, backoffEntries)
		}
	}
	for k := range b.pair.byKey {
		if len(k.principal) > 256 {
			t.Fatalf("a name of %d bytes is kept", len(k.principal))
		}
	}
}

// Clients behind one address, or of one name, of which one goes on failing with all it
// has: the others are delayed by less than what the least patient of them waits.
func TestABadNeighbourDelaysAndDoesNotLockOut(t *testing.T) {
	const leastPatient = 10 * time.Second
	b, c := newTestBackoff()
	for range 100 {
		b.Failed(home, "acme", "mallory")
		b.Failed(home, "acme", "shared")
		b.Failed(home, "acme", "") // by token
		c.advance(100 * time.Millisecond)
	}
	for _, who := range []string{"newcomer", "shared", ""} {
		if d := b.Delay(home, "acme", who); d <= 0 || d > leastPatient/2 {
			t.Errorf("a good login of %q waits %v", who, d)
		}
		b.Succeeded(home, "acme", who)
		wantDelay(t, b, home, "acme", who, 0)
	}
}
