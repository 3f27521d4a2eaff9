package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
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
//
// A lease is an idle connection or has to wait. Who waits is served by whatever comes
// first: a connection given back, one that has proved itself again, or a new one. As
// many are dialled as there are waiters, no faster than the broker is to bear.
type Broker struct {
	ID      int32
	cluster *Cluster

	mu       sync.Mutex
	addr     string
	here     context.Context // ends when the address is no longer this one
	leave    context.CancelFunc
	idle     []*Conn // most recently used last
	all      map[*Conn]struct{}
	out      [classes]int
	waiters  []*leaseWaiter // short calls first, then as they came
	waiting  [classes]int
	dialing  int
	renewing int // connections that log in again and are then to be had
	versions *kmsg.ApiVersionsResponse
	closed   bool

	// Dials are limited to a rate, and rarer after failures.
	tokens   float64
	filled   time.Time // when tokens was right
	backoff  time.Duration
	notUntil time.Time // the next dial
	failed   time.Time // the last dial that did
	lastErr  error     // of it; nil after one that did not, and while it is crowded
	crowded  bool      // it has too many connections
	told     string    // the cause that was logged
	retry    *time.Timer
}

type leaseWaiter struct {
	class Class
	since time.Time
	ready chan grant
}

type grant struct {
	conn *Conn
	err  error
}

const (
	minBackoff = 50 * time.Millisecond
	// maxBackoff is the longest time, but for chance, that a broker which cannot be
	// reached is left alone.
	maxBackoff = 5 * time.Second
	// crowdedBackoff is how long one is left alone that has too many connections.
	crowdedBackoff = 2 * time.Second
)

// jittered is d or up to a quarter more or less: what failed together is not to be
// tried again together.
func jittered(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

func newBroker(c *Cluster, id int32, addr string) *Broker {
	b := &Broker{
		ID: id, cluster: c, addr: addr, all: make(map[*Conn]struct{}),
		closed: c.ctx.Err() != nil,
		tokens: float64(c.cfg.DialBurst), filled: time.Now(),
	}
	b.here, b.leave = context.WithCancel(c.ctx)
	return b
}

// Lease returns a connection that is the caller's alone until Release or Close.
// The error is an *UnavailableError.
func (b *Broker) Lease(ctx context.Context, class Class) (*Conn, error) {
	b.mu.Lock()
	if b.out[class] < b.cluster.cfg.Limits[class] {
		if c := b.pop(); c != nil {
			b.out[class]++
			c.class = class
			b.mu.Unlock()
			return c, nil
		}
	}
	if err := b.hopeless(time.Now()); err != nil {
		b.mu.Unlock()
		return nil, b.unavailable(err)
	}
	w := &leaseWaiter{class: class, since: time.Now(), ready: make(chan grant, 1)}
	b.enqueue(w)
	b.pump()
	b.mu.Unlock()
	timeout := time.NewTimer(b.cluster.cfg.LeaseTimeout)
	defer timeout.Stop()
	select {
	case got := <-w.ready:
		if got.err != nil {
			return nil, b.unavailable(got.err)
		}
		return got.conn, nil
	case <-ctx.Done():
		_ = b.abandon(w)
		return nil, b.unavailable(context.Cause(ctx))
	case <-timeout.C:
		return nil, b.unavailable(b.abandon(w))
	}
}

// hopeless says why a lease that cannot be had now is not worth waiting for. b.mu is
// held.
func (b *Broker) hopeless(now time.Time) error {
	if b.closed {
		return net.ErrClosed
	}
	if wait := b.notUntil.Sub(now); wait > 0 && b.lastErr != nil {
		return fmt.Errorf("next try in %v: %w", wait.Round(time.Millisecond), b.lastErr)
	}
	if wait, err := b.cluster.loginPause(now); wait > 0 {
		return fmt.Errorf("next try in %v: %w", wait.Round(time.Millisecond), err)
	}
	return nil
}

// request leases a connection for one request.
func (b *Broker) request(ctx context.Context, class Class, limit time.Duration, clientID string, req kmsg.Request) (kmsg.Response, error) {
	conn, err := b.Lease(ctx, class)
	if err != nil {
		return nil, err
	}
	return conn.request(ctx, clientID, limit, req)
}

// pop takes an idle connection that may be used. b.mu is held.
func (b *Broker) pop() *Conn {
	for len(b.idle) > 0 {
		c := b.idle[len(b.idle)-1]
		b.idle[len(b.idle)-1] = nil
		b.idle = b.idle[:len(b.idle)-1]
		switch {
		case c.dead() != nil:
		case c.Due():
			b.renew(c)
		default:
			return c
		}
	}
	return nil
}

// enqueue makes w wait. b.mu is held.
func (b *Broker) enqueue(w *leaseWaiter) {
	at := len(b.waiters)
	if w.class == Control { // it gives its connection back at once
		at = b.waiting[Control]
	}
	b.waiters = slices.Insert(b.waiters, at, w)
	b.waiting[w.class]++
}

// dequeue takes the i-th who waits out of the queue. b.mu is held.
func (b *Broker) dequeue(i int) *leaseWaiter {
	w := b.waiters[i]
	b.waiters = slices.Delete(b.waiters, i, i+1)
	b.waiting[w.class]--
	return w
}

// abandon makes w wait no longer, and says what it waited for.
func (b *Broker) abandon(w *leaseWaiter) error {
	b.mu.Lock()
	if i := slices.Index(b.waiters, w); i >= 0 {
		b.dequeue(i)
		full := b.out[w.class] >= b.cluster.cfg.Limits[w.class]
		b.mu.Unlock()
		if full {
			return refusal.Busy.Errorf("all %d connections for %s in use", b.cluster.cfg.Limits[w.class], w.class)
		}
		return refusal.Busy.Errorf("no connection for %s came free, and no more may be dialled yet", w.class)
	}
	b.mu.Unlock()
	// The lease was handed over at the same moment: give it back.
	got := <-w.ready
	if got.conn != nil {
		got.conn.Release()
		return refusal.Busy.Errorf("a connection for %s came free too late", w.class)
	}
	return got.err
}

// pump hands idle connections to those who wait, and sees to it that there will be
// one for each of them. b.mu is held.
func (b *Broker) pump() {
	for i := 0; i < len(b.waiters); {
		class := b.waiters[i].class
		if b.out[class] >= b.cluster.cfg.Limits[class] {
			i++
			continue
		}
		c := b.pop()
		if c == nil {
			break
		}
		w := b.dequeue(i)
		b.out[class]++
		c.class = class
		w.ready <- grant{conn: c}
	}
	if len(b.waiters) == 0 || b.closed {
		return
	}
	wanted := 0
	for class, n := range b.waiting {
		wanted += min(n, max(b.cluster.cfg.Limits[class]-b.out[class], 0))
	}
	atOnce := b.cluster.cfg.ConcurrentDials
	if b.lastErr != nil || b.crowded {
		atOnce = 1 // to see whether it can be reached again
	}
	for now := time.Now(); b.dialing < atOnce && b.dialing+b.renewing < wanted; {
		wait, _ := b.cluster.loginPause(now)
		wait = max(wait, b.notUntil.Sub(now))
		if wait <= 0 {
			wait = b.token(now)
		}
		if wait > 0 {
			b.pumpIn(wait)
			return
		}
		b.dialing++
		ctx, addr := b.here, b.addr
		b.cluster.wg.Go(func() { b.dialOne(ctx, addr) }) // not closed: nobody waits for wg yet
	}
}

// token takes leave to dial once, or says how long until there is one. b.mu is held.
func (b *Broker) token(now time.Time) time.Duration {
	rate := float64(b.cluster.cfg.DialsPerSecond)
	b.tokens = min(b.tokens+now.Sub(b.filled).Seconds()*rate, float64(b.cluster.cfg.DialBurst))
	b.filled = now
	if b.tokens >= 1 {
		b.tokens--
		return 0
	}
	return time.Duration((1-b.tokens)/rate*float64(time.Second)) + time.Microsecond
}

// pumpIn pumps again after a while. b.mu is held.
func (b *Broker) pumpIn(wait time.Duration) {
	if b.retry != nil {
		return
	}
	b.retry = time.AfterFunc(wait, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.retry = nil
		b.pump()
	})
}

// dialOne dials for whoever waits.
func (b *Broker) dialOne(ctx context.Context, addr string) {
	began := time.Now()
	b.cluster.dials.Add(1)
	c, err := b.dial(ctx, addr)
	b.mu.Lock()
	b.dialing--
	report := false
	switch {
	case err == nil && (b.closed || ctx.Err() != nil):
		c.net.Close()
		c.r.Close()
	case err == nil:
		b.backoff, b.notUntil, b.lastErr, b.crowded, b.told = 0, time.Time{}, nil, false, ""
		b.all[c] = struct{}{}
		b.putBack(c, time.Now())
		b.cluster.wg.Go(c.read)
	case ctx.Err() == nil:
		report = b.dialFailed(began, err)
	}
	b.pump()
	b.mu.Unlock()
	if report {
		b.report(ctx, "broker unreachable", err)
	}
}

// dialFailed decides when to dial again, and whether to say so: the cause is another
// one than before. b.mu is held.
func (b *Broker) dialFailed(began time.Time, err error) (report bool) {
	b.cluster.markStale()
	now := time.Now()
	if !began.Before(b.failed) { // not one of many that failed together
		b.backoff = min(max(2*b.backoff, minBackoff), maxBackoff)
		b.failed = now
		if errors.Is(err, errCrowded) {
			b.backoff = max(b.backoff, crowdedBackoff)
		}
		b.notUntil = now.Add(jittered(b.backoff))
	}
	why := cause(err)
	if refusal.Of(err) == refusal.LoginFailed {
		report = b.reportLogin(why)
	} else {
		report = b.told != why
	}
	b.told = why
	if b.crowded = errors.Is(err, errCrowded); b.crowded {
		b.lastErr = nil
		return report // connections that there are come free
	}
	b.lastErr = err
	b.failWaiters(err, began)
	return report
}

// failWaiters ends the wait of those who have waited since then or longer. b.mu is held.
func (b *Broker) failWaiters(err error, since time.Time) {
	for i := 0; i < len(b.waiters); {
		if b.waiters[i].since.After(since) {
			i++
			continue
		}
		b.dequeue(i).ready <- grant{err: err}
	}
}

// report logs what ails the broker.
func (b *Broker) report(ctx context.Context, msg string, err error) {
	if refusal.Of(err) == nil {
		err = refusal.BrokerUnavailable.With(err)
	}
	refusal.Log(ctx, b.cluster.log, slog.LevelWarn, msg, err, "cluster", b.cluster.cfg.Name, "node", b.ID)
}

// cause is what is the same in the text of an error each time that it happens.
func cause(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok { // it names a port of this side
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

func (b *Broker) unavailable(err error) error {
	return &UnavailableError{Cluster: b.cluster.cfg.Name, Node: b.ID, Err: err}
}

func (b *Broker) release(c *Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.out[c.class]--
	b.putBack(c, time.Now())
	b.pump()
}

// putBack makes a connection idle that nobody has used since then, unless it is not to
// be used again. b.mu is held.
func (b *Broker) putBack(c *Conn, since time.Time) {
	c.idleSince = since
	switch {
	case c.dead() != nil:
	case b.closed || c.addr != b.addr:
		go c.fail(net.ErrClosed)
	case c.Due():
		b.renew(c)
	default:
		b.idle = append(b.idle, c)
	}
}

// renew lets a connection that nobody uses log in again. b.mu is held.
func (b *Broker) renew(c *Conn) {
	if b.closed {
		go c.fail(net.ErrClosed)
		return
	}
	b.renewing++
	ctx := b.here
	b.cluster.wg.Go(func() { // not closed: nobody waits for wg yet
		err := c.renew(ctx)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.renewing--
		if err == nil {
			b.putBack(c, c.idleSince)
		}
		b.pump()
	})
}

// fallDue makes an idle connection log in again. Whoever has leased it sees to it.
func (b *Broker) fallDue(c *Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.idle, c); i >= 0 {
		b.idle = slices.Delete(b.idle, i, i+1)
		b.renew(c)
	}
}

// retire lets those who have a lease keep it, and nobody else in.
func (b *Broker) retire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.leave()
	if b.retry != nil {
		b.retry.Stop()
	}
	b.closeIdle()
	b.failWaiters(net.ErrClosed, time.Now())
}

// closeIdle closes what nobody uses. b.mu is held.
func (b *Broker) closeIdle() {
	for _, c := range b.idle {
		go c.fail(net.ErrClosed)
	}
	clear(b.idle)
	b.idle = b.idle[:0]
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
	b.forget()
}

// forget is forgive with b.mu held.
func (b *Broker) forget() {
	b.backoff, b.notUntil, b.failed, b.lastErr, b.crowded, b.told = 0, time.Time{}, time.Time{}, nil, false, ""
	if b.retry != nil && b.retry.Stop() {
		b.retry = nil
	}
	b.pump()
}

// lost forgets a connection that has ended.
func (b *Broker) lost(c *Conn) {
	b.mu.Lock()
	delete(b.all, c)
	if i := slices.Index(b.idle, c); i >= 0 {
		b.idle = slices.Delete(b.idle, i, i+1)
	}
	stale := !b.closed && c.addr == b.addr && !errors.Is(c.dead(), errRecalled)
	b.mu.Unlock()
	if stale {
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

// setAddr notes where the broker is now. Nobody waits for where it was, and who holds
// a lease there keeps it.
func (b *Broker) setAddr(addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.addr == addr || b.closed {
		return
	}
	b.leave()
	b.addr = addr
	b.here, b.leave = context.WithCancel(b.cluster.ctx)
	b.closeIdle()
	b.forget()
}

func (b *Broker) setVersions(v *kmsg.ApiVersionsResponse) {
	b.mu.Lock()
	b.versions = v
	b.mu.Unlock()
	b.cluster.updateVersions()
}

func (b *Broker) close() {
	b.retire()
	b.mu.Lock()
	conns := slices.Collect(maps.Keys(b.all))
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
