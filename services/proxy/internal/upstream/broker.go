package upstream

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
)

// Class says what a leased connection is for. A broker serves one request of a
// connection at a time, so each class has its own limit: waiting joins or long
// polls cannot use up what short calls need.
type Class uint8

// The classes.
const (
	Control   Class = iota // short calls
	Produce                // held while a client has produce requests in flight
	Fetch                  // held while a client's long poll is out
	GroupWait              // JoinGroup and SyncGroup, up to the rebalance timeout
	Share                  // KIP-932: held as long as the client's own connection
	classes
)

func (c Class) String() string {
	return [classes]string{"control", "produce", "fetch", "group_wait", "share"}[c]
}

// UnavailableError is a request that was not sent: no broker connection could be
// had. The client may safely try again.
type UnavailableError struct {
	Cluster string
	Node    int32
	Err     error
}

func (e *UnavailableError) Error() string {
	return "cluster " + e.Cluster + " node " + strconv.Itoa(int(e.Node)) + ": " + e.Err.Error()
}

func (e *UnavailableError) Unwrap() error { return e.Err }

// Broker is one broker of a cluster with the connections to it.
type Broker struct {
	ID      int32
	cluster *Cluster
	dials   chan struct{} // bounds dials under way

	mu       sync.Mutex
	addr     string
	idle     []*Conn // most recently used last
	all      map[*Conn]struct{}
	out      [classes]int
	waiters  []*leaseWaiter
	nextDial time.Time // after a failed dial: not before
	backoff  time.Duration
	lastErr  error
	versions *kmsg.ApiVersionsResponse
	closed   bool
}

// maxBackoff is the longest time a broker that cannot be reached is left alone.
const maxBackoff = 2 * time.Second

type leaseWaiter struct {
	class Class
	ready chan *Conn // nil: dial yourself
}

func newBroker(c *Cluster, id int32, addr string) *Broker {
	return &Broker{
		ID: id, cluster: c, addr: addr, all: make(map[*Conn]struct{}),
		dials: make(chan struct{}, c.cfg.ConcurrentDials),
	}
}

// Lease returns a connection that is the caller's alone until Release or Close.
// The error is an *UnavailableError.
func (b *Broker) Lease(ctx context.Context, class Class) (*Conn, error) {
	b.mu.Lock()
	if b.out[class] >= b.cluster.cfg.Limits[class] {
		w := &leaseWaiter{class: class, ready: make(chan *Conn, 1)}
		b.waiters = append(b.waiters, w)
		b.mu.Unlock()
		timeout := time.NewTimer(b.cluster.cfg.LeaseTimeout)
		defer timeout.Stop()
		select {
		case c := <-w.ready:
			if c != nil {
				return c, nil
			}
			return b.dialLeased(ctx, class)
		case <-ctx.Done():
			b.abandon(w)
			return nil, b.unavailable(context.Cause(ctx))
		case <-timeout.C:
			b.abandon(w)
			return nil, b.unavailable(refusal.Busy.Errorf("all %d connections for %s in use", b.cluster.cfg.Limits[class], class))
		}
	}
	b.out[class]++
	if c := b.pop(class); c != nil {
		b.mu.Unlock()
		return c, nil
	}
	b.mu.Unlock()
	return b.dialLeased(ctx, class)
}

// request leases a connection for one request.
func (b *Broker) request(ctx context.Context, class Class, limit time.Duration, clientID string, req kmsg.Request) (kmsg.Response, error) {
	conn, err := b.Lease(ctx, class)
	if err != nil {
		return nil, err
	}
	return conn.request(ctx, clientID, limit, req)
}

// pop takes an idle connection. b.mu is held.
func (b *Broker) pop(class Class) *Conn {
	now := time.Now()
	for len(b.idle) > 0 {
		c := b.idle[len(b.idle)-1]
		b.idle[len(b.idle)-1] = nil
		b.idle = b.idle[:len(b.idle)-1]
		if c.dead() != nil {
			continue
		}
		if !c.expire.IsZero() && now.After(c.expire) {
			go c.fail(net.ErrClosed)
			continue
		}
		c.class = class
		return c
	}
	return nil
}

// dialLeased dials; the lease is already counted.
func (b *Broker) dialLeased(ctx context.Context, class Class) (*Conn, error) {
	c, err := b.dialNew(ctx)
	if err != nil {
		b.mu.Lock()
		b.out[class]--
		b.wake()
		b.mu.Unlock()
		return nil, b.unavailable(err)
	}
	c.class = class
	return c, nil
}

func (b *Broker) dialNew(ctx context.Context) (*Conn, error) {
	select {
	case b.dials <- struct{}{}:
		defer func() { <-b.dials }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	b.mu.Lock()
	addr, closed := b.addr, b.closed
	if wait := time.Until(b.nextDial); wait > 0 && b.lastErr != nil {
		err := b.lastErr
		b.mu.Unlock()
		return nil, fmt.Errorf("next try in %v: %w", wait.Round(time.Millisecond), err)
	}
	b.mu.Unlock()
	if closed {
		return nil, net.ErrClosed
	}
	c, err := b.dial(ctx, addr)

	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			b.backoff = min(max(2*b.backoff, 50*time.Millisecond), maxBackoff)
			b.nextDial, b.lastErr = time.Now().Add(b.backoff), err
			why := err
			if refusal.Of(why) == nil {
				why = refusal.BrokerUnavailable.With(err)
			}
			refusal.Log(ctx, b.cluster.log, slog.LevelWarn, "broker unreachable", why, "cluster", b.cluster.cfg.Name, "node", b.ID)
		}
		b.cluster.markStale()
		return nil, err
	}
	b.backoff, b.lastErr = 0, nil
	b.all[c] = struct{}{}
	b.cluster.wg.Go(c.read)
	if b.closed {
		c.fail(net.ErrClosed)
		return nil, net.ErrClosed
	}
	return c, nil
}

func (b *Broker) unavailable(err error) error {
	return &UnavailableError{Cluster: b.cluster.cfg.Name, Node: b.ID, Err: err}
}

func (b *Broker) abandon(w *leaseWaiter) {
	b.mu.Lock()
	for i, other := range b.waiters {
		if other == w {
			b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
			b.mu.Unlock()
			return
		}
	}
	b.mu.Unlock()
	// The lease was handed over at the same moment: give it back.
	if c := <-w.ready; c != nil {
		c.Release()
		return
	}
	b.mu.Lock()
	b.out[w.class]--
	b.wake()
	b.mu.Unlock()
}

func (b *Broker) release(c *Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.out[c.class]--
	switch {
	case c.dead() != nil:
	case b.closed:
		go c.fail(net.ErrClosed)
	default:
		c.idleSince = time.Now()
		b.idle = append(b.idle, c)
	}
	b.wake()
}

// retire lets those who have a lease keep it, and nobody else in.
func (b *Broker) retire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, c := range b.idle {
		go c.fail(net.ErrClosed)
	}
	b.idle = nil
}

// unused reports whether no connection is left.
func (b *Broker) unused() bool {
	open, _ := b.connections()
	return open == 0
}

// forgive lets the next who asks dial at once: what failed may not fail any more.
func (b *Broker) forgive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backoff, b.nextDial, b.lastErr = 0, time.Time{}, nil
}

// wake hands leases to those who wait. b.mu is held.
func (b *Broker) wake() {
	for i := 0; i < len(b.waiters); {
		w := b.waiters[i]
		if b.out[w.class] >= b.cluster.cfg.Limits[w.class] {
			i++
			continue
		}
		b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
		b.out[w.class]++
		w.ready <- b.pop(w.class)
	}
}

// lost forgets a connection that has ended.
func (b *Broker) lost(c *Conn) {
	b.mu.Lock()
	delete(b.all, c)
	for i, other := range b.idle {
		if other == c {
			b.idle = append(b.idle[:i], b.idle[i+1:]...)
			break
		}
	}
	closed := b.closed
	b.mu.Unlock()
	if !closed {
		b.cluster.markStale()
	}
}

// sweep closes connections that have been idle too long and those whose broker
// does not answer.
func (b *Broker) sweep(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	keep := b.idle[:0]
	for i, c := range b.idle {
		if len(b.idle)-i > b.cluster.cfg.Warm && now.Sub(c.idleSince) > b.cluster.cfg.IdleTimeout {
			go c.fail(net.ErrClosed)
			continue
		}
		keep = append(keep, c)
	}
	clear(b.idle[len(keep):])
	b.idle = keep
	for c := range b.all {
		if c.stalled(now) {
			go c.fail(fmt.Errorf("node %d has not answered in time", b.ID))
		}
	}
}

func (b *Broker) setAddr(addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.addr != addr {
		b.addr, b.backoff, b.lastErr = addr, 0, nil
	}
}

func (b *Broker) setVersions(v *kmsg.ApiVersionsResponse) {
	b.mu.Lock()
	b.versions = v
	b.mu.Unlock()
	b.cluster.updateVersions()
}

func (b *Broker) close() {
	b.mu.Lock()
	b.closed = true
	conns := make([]*Conn, 0, len(b.all))
	for c := range b.all {
		conns = append(conns, c)
	}
	b.mu.Unlock()
	for _, c := range conns {
		c.fail(net.ErrClosed)
	}
}

// connections counts open connections and leases out.
func (b *Broker) connections() (open int, leased [classes]int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.all), b.out
}
