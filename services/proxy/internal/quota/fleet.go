package quota

import (
	"math"
	"time"
)

// What clients want is not read off one moment: they come in bursts, and shares that
// follow each of them are never where they are needed.
const (
	memory  = 2 * time.Second
	coming  = time.Second            // when more is wanted than before
	parting = 250 * time.Millisecond // when nobody is there who might come again
)

// A Fleet shares limits among nodes.
type Fleet interface {
	// Unleased is the part of every limit that this node may use as long as nobody
	// says how much it has: one divided by the number of nodes.
	Unleased() float64
	// Join is told that q is used, and asks for its shares. It does not wait. It may
	// be called with q's locks held.
	Join(q *Quotas)
}

// The quotas that are shared, as indexes.
const (
	Produce = iota
	Fetch
	Requests
	Connects
	Rates       // how many of them are rates
	Connections = Rates
	Kinds       = Connections + 1
)

// Parts is what a share of a rate is of. A share of connections is of their number.
const Parts = 1 << 20

// Use is what a node does under a limit and would do if it could.
type Use struct {
	Whole  int64 // Parts, or the limit of connections; 0: there is no limit
	Demand int64 // of Whole; more than Whole when clients are held back
	Hold   int64 // of Whole, that cannot be given back now: open connections
}

// wake is called when something is used that the fleet did not know to be in use.
func (q *Quotas) wake() {
	if q.awake.CompareAndSwap(false, true) {
		q.fleet.Join(q)
	}
}

func (q *Quotas) use() {
	if q.fleet != nil && !q.awake.Load() {
		q.wake()
	}
}

// Measure is what was used in the time since it was asked last, and whether that was
// anything at all. It and the methods below are the fleet's, which calls them from
// one goroutine.
func (q *Quotas) Measure(elapsed time.Duration) (use [Kinds]Use, busy bool) {
	for i, b := range q.buckets() {
		r := b.rate.Load()
		used := b.used.Swap(0)
		if r.limit <= 0 {
			continue
		}
		busy = busy || used > 0
		real := int64(time.Since(b.start))
		owed := max(b.good.Load()-r.at(real), 0)
		if elapsed > 0 {
			now := float64(used) / float64(r.limit) / elapsed.Seconds()
			now += float64(owed) / float64(time.Second) // is to be made good in a second
			memory := memory
			switch {
			case used == 0 && real > b.held.Load():
				memory = parting
			case now > b.demand:
				memory = coming
			}
			keep := math.Exp(-elapsed.Seconds() / memory.Seconds())
			if b.demand == 0 {
				keep = 0
			}
			b.demand = b.demand*keep + now*(1-keep)
			if b.demand < 0.001 {
				b.demand = 0
			}
		}
		busy = busy || owed > 0
		use[i] = Use{Whole: Parts, Demand: int64(min(b.demand, 1000) * Parts)}
	}
	s := &q.Connections
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit > 0 {
		use[Connections] = Use{Whole: s.limit, Demand: s.open + s.waiting, Hold: s.open}
		busy = busy || s.waiting > 0
	}
	return use, busy
}

// Waiting reports whether connections wait for room.
func (q *Quotas) Waiting() bool {
	q.Connections.mu.Lock()
	defer q.Connections.mu.Unlock()
	return q.Connections.waiting > 0
}

// Allot puts shares in force: of Parts for rates, a number of connections. Delays are
// reckoned by no less than pace of a limit. Full says that there are no connections
// to be had from others.
func (q *Quotas) Allot(shares [Kinds]int64, pace float64, full bool) {
	for i, b := range q.buckets() {
		b.share(float64(shares[i])/Parts, pace)
	}
	q.Connections.grant(shares[Connections], full)
}

// Unlease puts in force what the node has when nobody can be asked.
func (q *Quotas) Unlease(part float64) {
	for _, b := range q.buckets() {
		b.share(part, part)
	}
	q.Connections.unlease(part)
}

// Rest is for when nothing is used: connections that are open stay, and with the
// next use the node has part of the rates until the fleet says how much it has.
func (q *Quotas) Rest(part float64) {
	for _, b := range q.buckets() {
		b.share(part, part)
	}
	q.Connections.rest()
	q.awake.Store(false)
}

func (b *Bucket) share(share, pace float64) {
	pace = max(share, pace)
	if r := b.rate.Load(); r.share != share || r.pace != pace {
		b.change(func(r *rate) { r.share, r.pace = share, pace })
	}
}
