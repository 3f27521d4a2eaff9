package listener

import (
	"errors"
	"net/netip"
	"sync"
)

// limiter counts connections. A key is in a map as long as it has connections,
// so the maps are no larger than the number of those.
type limiter struct {
	limits Limits

	mu              sync.Mutex
	unauthenticated int
	addresses       map[netip.Addr]int
	clusters        map[string]int
}

func newLimiter(l Limits) *limiter {
	return &limiter{limits: l, addresses: make(map[netip.Addr]int), clusters: make(map[string]int)}
}

// enter counts a connection that is not authenticated; authenticated ends that.
func (l *limiter) enter() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.limits.Unauthenticated; n > 0 && l.unauthenticated >= n {
		return &closed{reason: ReasonUnauthenticatedLimit, err: errors.New("too many unauthenticated connections")}
	}
	l.unauthenticated++
	return nil
}

func (l *limiter) authenticated() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unauthenticated--
}

func (l *limiter) enterAddress(a netip.Addr) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.limits.PerAddress; n > 0 && l.addresses[a] >= n {
		return &closed{reason: ReasonAddressLimit, err: errors.New("too many connections of this address")}
	}
	l.addresses[a]++
	return nil
}

func (l *limiter) leaveAddress(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	leave(l.addresses, a)
}

func (l *limiter) enterCluster(vc string, limit int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if limit > 0 && l.clusters[vc] >= limit {
		return &closed{reason: ReasonClusterLimit, err: errors.New("too many connections of this virtual cluster")}
	}
	l.clusters[vc]++
	return nil
}

func (l *limiter) leaveCluster(vc string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	leave(l.clusters, vc)
}

func leave[K comparable](m map[K]int, k K) {
	if m[k]--; m[k] == 0 {
		delete(m, k)
	}
}
