package listener

import (
	"net/netip"
	"sync"
	"time"

	"tollgate.internal/services/proxy/internal/refusal"
)

// Limits keep strangers from using up the node. A count of zero is no limit; a
// time of zero is the default.
type Limits struct {
	HandshakeTimeout                     time.Duration // from accept to the end of the TLS handshake; 10 s
	AuthenticationTimeout                time.Duration // from accept to Conn.Authenticated; 30 s
	Connections                          int
	UnauthenticatedConnections           int // that have not called Conn.Authenticated
	ConnectionsPerAddress                int // an IPv6 address counts by its /64
	UnauthenticatedConnectionsPerAddress int
}

// limiter counts connections. A key is in a map as long as it has connections,
// so the maps are no larger than the number of those.
type limiter struct {
	limits Limits

	mu                sync.Mutex
	all               int
	unproved          int
	byAddress         map[netip.Prefix]int
	unprovedByAddress map[netip.Prefix]int
	byCluster         map[string]int
}

func newLimiter(l Limits) *limiter {
	return &limiter{
		limits:            l,
		byAddress:         make(map[netip.Prefix]int),
		unprovedByAddress: make(map[netip.Prefix]int),
		byCluster:         make(map[string]int),
	}
}

// counts is what a connection is counted in. It only grows, apart from unproved.
type counts struct {
	all, unproved bool
	address       netip.Prefix // valid when it is counted
	cluster       string       // not empty when it is counted
}

// enter counts a connection that is not authenticated.
func (l *limiter) enter(c *counts) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case over(l.all, l.limits.Connections):
		return refusal.TooManyConnections
	case over(l.unproved, l.limits.UnauthenticatedConnections):
		return refusal.TooManyUnauthenticated
	}
	l.all++
	l.unproved++
	c.all, c.unproved = true, true
	return nil
}

// enterAddress follows enter once the client's own address is known.
func (l *limiter) enterAddress(c *counts, a netip.Addr) error {
	bits := 32
	if a.Is6() {
		bits = 64 // what one subscriber has: he has 2^64 addresses
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return nil // no IP address (a test's pipe): nothing to count by
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case over(l.byAddress[p], l.limits.ConnectionsPerAddress):
		return refusal.TooManyFromAddress
	case over(l.unprovedByAddress[p], l.limits.UnauthenticatedConnectionsPerAddress):
		return refusal.TooManyUnauthenticatedFromAddress
	}
	l.byAddress[p]++
	l.unprovedByAddress[p]++
	c.address = p
	return nil
}

// admits reports whether a virtual cluster has room for one more.
func (l *limiter) admits(vc string, limit int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if over(l.byCluster[vc], limit) {
		return refusal.TooManyOfVirtualCluster
	}
	return nil
}

// authenticated counts a connection in its virtual cluster. Only now: or
// strangers who know a host name could use up a tenant's connections.
func (l *limiter) authenticated(c *counts, vc string, limit int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !c.all {
		return nil // released meanwhile
	}
	l.prove(c)
	if over(l.byCluster[vc], limit) {
		return refusal.TooManyOfVirtualCluster
	}
	l.byCluster[vc]++
	c.cluster = vc
	return nil
}

func (l *limiter) prove(c *counts) {
	if !c.unproved {
		return
	}
	c.unproved = false
	l.unproved--
	if c.address.IsValid() {
		leave(l.unprovedByAddress, c.address)
	}
}

// leave takes a connection out of all it is counted in.
func (l *limiter) leave(c *counts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prove(c)
	if c.all {
		l.all--
	}
	if c.address.IsValid() {
		leave(l.byAddress, c.address)
	}
	if c.cluster != "" {
		leave(l.byCluster, c.cluster)
	}
	*c = counts{}
}

func over(n, limit int) bool { return limit > 0 && n >= limit }

func leave[K comparable](m map[K]int, k K) {
	if m[k]--; m[k] == 0 {
		delete(m, k)
	}
}
