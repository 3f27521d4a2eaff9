// Package quota bounds what the clients of a virtual cluster do on one node
// together: bytes produced, bytes fetched, requests (PROTOCOL.md §E).
//
// A quota delays, it refuses nothing: what was done is answered at once with a
// throttle time, and the connection is not read for that long (KIP-219). The delay
// is Kafka's, the observed excess over the limit, (O − T)/T × W for a rate O, a
// limit T and a window W, which is the time in which the limit makes good what was
// done beyond it. Kafka sums samples of one second under a lock; a [Bucket] keeps
// the moment at which all is made good, so that taking from it is one
// compare-and-swap. Its window is shorter than Kafka's ten seconds: over any ten
// seconds no more than the limit and a tenth passes.
//
// Clients that share a bucket are delayed one behind the other, each until its own
// excess is made good: together they keep to the limit however many they are.
package quota

import (
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

// Quotas are those of a virtual cluster. The zero value is not usable; see [New].
type Quotas struct {
	Produce, Fetch Bucket // bytes
	Requests       Bucket
}

// New has no limits yet.
func New() *Quotas {
	now := time.Now()
	q := new(Quotas)
	for _, b := range []*Bucket{&q.Produce, &q.Fetch, &q.Requests} {
		b.start = now
		b.good.Store(-int64(window)) // as after a pause
	}
	return q
}

// Set puts limits per second in force, 0: none. What was done before is not
// forgotten.
func (q *Quotas) Set(produceBytes, fetchBytes, requests int64) {
	q.Produce.limit.Store(produceBytes)
	q.Fetch.limit.Store(fetchBytes)
	q.Requests.limit.Store(requests)
}

// A Bucket is one limit and what was done under it. It is safe for concurrent use,
// takes no lock and allocates nothing.
type Bucket struct {
	start time.Time    // what good counts from
	limit atomic.Int64 // per second; 0: none
	good  atomic.Int64 // when all that was done is made good
}

// Take says that n units were done, and returns for how long whoever did them is to
// do nothing more.
func (b *Bucket) Take(n int) time.Duration {
	limit := b.limit.Load()
	if limit <= 0 {
		return 0
	}
	now := int64(time.Since(b.start))
	cost := int64(float64(n) / float64(limit) * float64(time.Second))
	for {
		good := b.good.Load()
		next := max(good, now-int64(window)) + cost
		if b.good.CompareAndSwap(good, next) {
			return time.Duration(min(max(next-now, 0), int64(MaxDelay)))
		}
	}
}

// AtOnce is how much may be asked for at once, so that it costs no more than the
// longest throttle time (KIP-219 caps a fetch in the same way); most when there is
// no limit.
func (b *Bucket) AtOnce(most int32) int32 {
	limit := b.limit.Load()
	if limit <= 0 || limit >= int64(most)/int64(MaxTold/time.Second) {
		return most
	}
	return int32(limit * int64(MaxTold/time.Second))
}

// Told is a delay as throttle_time_ms: a client that is delayed at all is told so.
func Told(d time.Duration) int32 {
	d = min(d, MaxTold)
	return int32((d + time.Millisecond - 1) / time.Millisecond)
}
