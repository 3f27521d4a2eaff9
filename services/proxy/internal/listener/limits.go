package listener

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"tollgate.internal/services/proxy/internal/quota"
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
}

func newLimiter(l Limits) *limiter {
	return &limiter{
		limits:            l,
		byAddress:         make(map[netip.Prefix]int),
		unprovedByAddress: make(map[netip.Prefix]int),
	}
}

// counts is what a connection is counted in. It only grows, apart from unproved.
type counts struct {
	all, unproved bool
	address       netip.Prefix // valid when it is counted
	seats         *quota.Seats // of the virtual cluster; not nil when it is counted
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

// authenticated counts a connection in its virtual cluster. Only now: or
// strangers who know a host name could use up a tenant's connections. Other nodes may
// have to be asked for room, for a moment.
func (l *limiter) authenticated(ctx context.Context, c *counts, q *quota.Quotas) error {
	entered := q == nil || q.Connections.Enter(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !c.all: // released meanwhile
		if entered && q != nil {
			q.Connections.Leave()
		}
		return nil
	case !entered:
		l.prove(c)
		return refusal.TooManyOfVirtualCluster
	}
	l.prove(c)
	if q != nil {
		c.seats = &q.Connections
	}
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
	if c.seats != nil {
		c.seats.Leave()
	}
	*c = counts{}
}

func over(n, limit int) bool { return limit > 0 && n >= limit }

func leave[K comparable](m map[K]int, k K) {
	if m[k]--; m[k] == 0 {
		delete(m, k)
	}
}

// rushWait is how long a connection is kept waiting at most because others have come in
// too fast. Clients dial again sooner than they give up on one that waits.
const rushWait = 2 * time.Second

// pace keeps to the virtual cluster's rate of new connections (KIP-612), before any work
// is put into one.
func pace(ctx context.Context, q *quota.Quotas) error {
	if q == nil {
		return nil
	}
	wait, ok := q.Connects.TakeWithin(1, rushWait)
	switch {
	case !ok:
		return refusal.TooFastForVirtualCluster
	case wait == 0:
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
