// Package quota bounds what the clients of a virtual cluster, or of one service
// account, do together: bytes produced, bytes fetched, requests, connections and
// how often they are made (PROTOCOL.md §E).
//
// A quota of a rate delays, it refuses nothing: what was done is answered at once
// with a throttle time, and the connection is not read for that long (KIP-219). The
// delay is Kafka's, the observed excess over the limit, (O − T)/T × W for a rate O, a
// limit T and a window W, which is the time in which the limit makes good what was
// done beyond it. Kafka sums samples of one second under a lock; a [Bucket] keeps
// the moment at which all is made good, so that taking from it is one
// compare-and-swap. Its window is shorter than Kafka's ten seconds: over any ten
// seconds no more than the limit and a tenth passes.
//
// Clients that share a bucket are delayed one behind the other, each until its own
// excess is made good: together they keep to the limit however many they are.
//
// A limit is that of the whole fleet, of which a node has a share. A [Fleet] says
// which, a few times a second, in the background: what a client does never waits for
// it, except for a connection beyond those that the node may have at the moment.
package quota

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// window is how much may be done at once after a pause: what the limit allows
	// in that time.
	window = time.Second
	// MaxTold is the longest throttle time that clients are told: the Java client
	// waits that long without noticing that its requests time out. A connection is
	// muted for its whole delay all the same.
	MaxTold = 10 * time.Second
	// MaxDelay bounds how long a connection is not read, so that one whose client
	// has left does not stay for hours.
	MaxDelay = time.Minute
)

// Limits are those of the whole fleet, 0: none.
type Limits struct {
	Produce, Fetch int64 // bytes per second
	Requests       int64 // per second
	Connects       int64 // new connections per second
	Connections    int64 // open ones
}

// Quotas are those of a virtual cluster, or of a service account. The zero value is
// not usable; see [New].
type Quotas struct {
	Subject string // whose they are, for the fleet

	Produce, Fetch Bucket // bytes
	Requests       Bucket
	Connects       Bucket
	Connections    Seats
	Throttled      Throttled // what it came to; of a virtual cluster, its accounts' own limits included

	fleet Fleet // nil: the node is alone
	awake atomic.Bool
}

// New has no limits yet. Without a fleet, all of every limit is this node's.
func New(subject string, fleet Fleet) *Quotas {
	now := time.Now()
	q := &Quotas{Subject: subject, fleet: fleet}
	whole := &rate{share: 1, pace: 1}
	if fleet != nil {
		part := fleet.Unleased()
		whole = &rate{share: part, pace: part}
	}
	for _, b := range q.buckets() {
		b.start, b.of = now, q
		b.rate.Store(whole)
		b.good.Store(-int64(float64(window) * whole.share)) // as after a pause
	}
	q.Connections.of, q.Connections.changed = q, make(chan struct{})
	if fleet == nil {
		q.Connections.unlease(1)
	}
	return q
}

func (q *Quotas) buckets() [Rates]*Bucket {
	return [Rates]*Bucket{&q.Produce, &q.Fetch, &q.Requests, &q.Connects}
}

// Set puts limits in force. What was done before is not forgotten.
func (q *Quotas) Set(l Limits) {
	limits := [Rates]int64{l.Produce, l.Fetch, l.Requests, l.Connects}
	for i, b := range q.buckets() {
		b.change(func(r *rate) { r.limit = limits[i] })
	}
	q.Connections.set(l.Connections)
}

// rate is how fast what was done is made good. It is replaced whole.
type rate struct {
	limit int64   // of the fleet, per second; 0: none
	share float64 // of it, that this node has
	// pace is the share that delays are reckoned by, no less than share: what the
	// node would have if all were as busy. The share of a node whose clients have
	// just begun is small, and grows before a delay reckoned by it were over.
	pace  float64
	since int64 // from the bucket's start
	clock int64 // what the bucket's clock said then
}

// at is what the bucket's clock says: it runs as fast as the share is large, so that
// what is owed stays when the share changes.
func (r *rate) at(now int64) int64 {
	return r.clock + int64(float64(now-r.since)*r.share)
}

// A Bucket is one limit and what was done under it. It is safe for concurrent use,
// takes no lock and allocates nothing.
type Bucket struct {
	of    *Quotas
	start time.Time // what real time counts from
	rate  atomic.Pointer[rate]
	good  atomic.Int64 // when all that was done is made good, by the bucket's clock
	held  atomic.Int64 // until when clients wait, from start
	used  atomic.Int64 // since the fleet asked last

	demand float64 // of the limit; the fleet's
}

// change replaces the rate.
func (b *Bucket) change(how func(*rate)) {
	for {
		old := b.rate.Load()
		next := *old
		next.since = int64(time.Since(b.start))
		next.clock = old.at(next.since)
		how(&next)
		if b.rate.CompareAndSwap(old, &next) {
			return
		}
	}
}

// Take says that n units were done, and returns for how long whoever did them is to
// do nothing more.
func (b *Bucket) Take(n int) time.Duration {
	d, _ := b.take(n, math.Inf(1))
	return d
}

// TakeWithin is Take for what can still be refused: when the delay would be longer
// than most, nothing is done.
func (b *Bucket) TakeWithin(n int, most time.Duration) (delay time.Duration, ok bool) {
	return b.take(n, float64(most))
}

func (b *Bucket) take(n int, most float64) (delay time.Duration, ok bool) {
	r := b.rate.Load()
	if r.limit <= 0 {
		return 0, true
	}
	b.used.Add(int64(n))
	if b.of.fleet != nil && !b.of.awake.Load() {
		b.of.wake()
	}
	real := int64(time.Since(b.start))
	now := r.at(real)
	cost := int64(float64(n) / float64(r.limit) * float64(time.Second))
	earliest := now - int64(float64(window)*r.pace)
	if real < b.held.Load()+int64(window) {
		// The share has grown since clients were told to wait: what was made good
		// for them before they are back is theirs.
		earliest = math.MinInt64
	}
	for {
		good := b.good.Load()
		next := max(good, earliest) + cost
		d := float64(max(next-now, 0)) / r.pace
		if d > most {
			return time.Duration(min(d, float64(MaxDelay))), false
		}
		if !b.good.CompareAndSwap(good, next) {
			continue
		}
		delay = time.Duration(min(d, float64(MaxDelay)))
		if delay > 0 {
			b.hold(real + int64(delay))
		}
		return delay, true
	}
}

// hold takes note of until when clients wait.
func (b *Bucket) hold(until int64) {
	for {
		held := b.held.Load()
		if held >= until || b.held.CompareAndSwap(held, until) {
			return
		}
	}
}

// AtOnce is how much may be asked for at once, so that it costs no more than the
// longest throttle time (KIP-219 caps a fetch in the same way); most when there is
// no limit.
func (b *Bucket) AtOnce(most int32) int32 {
	r := b.rate.Load()
	if r.limit <= 0 {
		return most
	}
	allowed := float64(r.limit) * r.pace * float64(MaxTold/time.Second)
	if allowed >= float64(most) {
		return most
	}
	return max(int32(allowed), 1)
}

// Told is a delay as throttle_time_ms: a client that is delayed at all is told so.
func Told(d time.Duration) int32 {
	d = min(d, MaxTold)
	return int32((d + time.Millisecond - 1) / time.Millisecond)
}
