// Package lease shares quotas among the nodes of a fleet.
//
// Every node tells the others, through a [Store], what its clients use of a quota and
// would use if they were let, and takes a share of the limit for a short time. The
// store never lets the shares of a quota be more than the limit together, whatever
// the nodes think of each other; so a node that wants more waits until others have
// given back. They do that when they next look, twice a second: unused shares are
// where they are needed within a second.
//
//   - Only quotas that are in use are leased. With the first use a node has its part
//     of the limit, one divided by the number of nodes, until it is told its share
//     a moment later.
//   - While clients want less than the limit, what is left is spread over the nodes
//     that have clients. When they want more, shares are as large as what is wanted, so
//     that all clients are held back for equally long, as by one node; a small part
//     of the limit goes to each node in any case.
//   - What a node has open of connections cannot be taken from it, only what it has to
//     spare.
//   - The share of a node that has died is free when its lease ends.
//
// A node whose lease ends because the store is away goes on with its part of the
// limit. Together the nodes then have the limit, and at most as much again: leases that
// others still hold are no more than the limit either. A node counts as one of the
// fleet for a quarter of an hour after it was seen last unless it said good-bye,
// because it may be serving and only not reach the store. The number is kept in a file,
// for a node that is started while the store is away.
package lease

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"tollgate.internal/services/proxy/internal/quota"
)

// A Store holds the shares. It is for concurrent use.
type Store interface {
	// Exchange renews what node has and wants, and says what it got and what the
	// others have. An error is for all claims: none, some, or all of them may have
	// been made. Answers are in the order of the claims.
	Exchange(ctx context.Context, node string, claims []Claim) ([]Answer, error)
}

// A Claim is what a node has to say about a subject.
type Claim struct {
	Subject string
	Lasts   time.Duration // the lease, from now; 0: the node leaves
	Asks    []Ask         // one for each kind of quota
}

// An Ask is about one quota. The share is what is wanted, but no more than what the
// others leave of Whole; and never less than Hold.
type Ask struct {
	Whole, Demand, Want, Hold int64
}

// An Answer is what there is of a subject.
type Answer struct {
	Shares []int64 // of the node's own, by kind
	Others []Held
}

// Held is what another node has.
type Held struct {
	Node           string
	Demand, Shares []int64 // by kind
}

const (
	every   = 500 * time.Millisecond // between two looks at a subject that is in use
	soon    = 100 * time.Millisecond // when others are to give back
	atOnce  = 20 * time.Millisecond
	lasts   = 2 * time.Second        // a lease of a subject in use
	timeout = 500 * time.Millisecond // for the store to answer
	pause   = time.Second            // after it did not

	quiet     = 10 // looks without any use, and a subject rests
	restEvery = 10 * time.Second
	restLasts = 30 * time.Second

	// present is for how long a node that was not heard of any more counts.
	present      = 15 * time.Minute
	presentEvery = time.Second
	// presence is no subject of a quota: those have a colon.
	presence = "nodes"

	// unknown is how many nodes there are taken to be when that was never known.
	unknown = 16

	batch = 500 // claims at once
)

// Config is what a Keeper needs.
type Config struct {
	Node  string // another one for each node, and the same after a restart
	Store Store
	File  string // where the number of nodes is kept; empty: nowhere
	Log   *slog.Logger
}

// A Keeper leases shares for one node. It is the node's [quota.Fleet].
type Keeper struct {
	cfg   Config
	nodes atomic.Int64
	poke  chan struct{}

	mu     sync.Mutex
	joined []*quota.Quotas

	// Run's own.
	subjects  map[string]*subject
	nextNodes time.Time
	retry     time.Time // zero: the store answers
	written   int64     // in the file

	failures atomic.Uint64
	away     atomic.Pointer[error]
	leased   atomic.Int64
}

// subject is what the node knows of one.
type subject struct {
	q       *quota.Quotas
	others  []Held
	shares  [quota.Kinds]int64
	until   time.Time // the lease, as this node sees it; zero: none
	looked  time.Time
	due     time.Time
	idle    int // looks without use
	resting bool

	use   [quota.Kinds]quota.Use // at the last look
	asked time.Time
}

// New reads how many nodes there were.
func New(cfg Config) (*Keeper, error) {
	k := &Keeper{cfg: cfg, poke: make(chan struct{}, 1), subjects: make(map[string]*subject)}
	n, err := remembered(cfg.File)
	if err != nil {
		return nil, err
	}
	k.written = n
	if n == 0 {
		n = unknown
	}
	k.nodes.Store(n)
	return k, nil
}

// Unleased is the node's part of a limit while nobody says how much it has.
func (k *Keeper) Unleased() float64 { return 1 / float64(k.nodes.Load()) }

// Join makes q be looked at.
func (k *Keeper) Join(q *quota.Quotas) {
	k.mu.Lock()
	k.joined = append(k.joined, q)
	k.mu.Unlock()
	select {
	case k.poke <- struct{}{}:
	default:
	}
}

// Stats are for operators.
type Stats struct {
	Nodes    int64  // that share quotas
	Leased   int64  // subjects
	Failures uint64 // of the store to answer
	Away     error  // why it does not answer now; nil: it does
}

// Stats may be asked for at any time.
func (k *Keeper) Stats() Stats {
	s := Stats{Nodes: k.nodes.Load(), Leased: k.leased.Load(), Failures: k.failures.Load()}
	if err := k.away.Load(); err != nil {
		s.Away = *err
	}
	return s
}

// Run leases until ctx ends, and then gives everything back.
func (k *Keeper) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			k.leave(context.WithoutCancel(ctx))
			return
		case <-timer.C:
		case <-k.poke:
		}
		timer.Reset(max(time.Until(k.round(ctx)), 0))
	}
}

// leave gives back what the node has.
func (k *Keeper) leave(ctx context.Context) {
	k.admit(time.Now())
	claims := []Claim{{Subject: presence}}
	for name, s := range k.subjects {
		s.q.Unlease(k.Unleased())
		claims = append(claims, Claim{Subject: name})
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for len(claims) > 0 {
		n := min(batch, len(claims))
		if _, err := k.cfg.Store.Exchange(ctx, k.cfg.Node, claims[:n]); err != nil {
			return // the leases end by themselves
		}
		claims = claims[n:]
	}
}

// admit takes in what was joined.
func (k *Keeper) admit(now time.Time) {
	k.mu.Lock()
	joined := k.joined
	k.joined = nil
	k.mu.Unlock()
	for _, q := range joined {
		s := k.subjects[q.Subject]
		switch {
		case s == nil:
			s = &subject{q: q, looked: now, due: now}
			k.subjects[q.Subject] = s
		case s.q != q: // the virtual cluster was unloaded and came back
			s.q.Rest(k.Unleased())
			s.q = q
		}
		s.idle, s.resting = 0, false
		if at := s.asked.Add(atOnce); at.Before(s.due) {
			s.due = at
		}
		if !k.retry.IsZero() && s.until.IsZero() {
			q.Unlease(k.Unleased())
		}
	}
}

// round looks at all that is due, and says when to look again.
func (k *Keeper) round(ctx context.Context) (next time.Time) {
	now := time.Now()
	k.admit(now)
	// Before the store counts a lease as ended the node no longer uses it, also
	// when the store takes its time now.
	for _, s := range k.subjects {
		if !s.until.IsZero() && s.until.Before(now.Add(timeout)) {
			s.until = time.Time{}
			if !s.resting {
				s.q.Unlease(k.Unleased())
			}
		}
	}
	if now.Before(k.retry) {
		return k.retry
	}
	var due []*subject
	for _, s := range k.subjects {
		if !s.due.After(now) {
			k.look(s, now)
			due = append(due, s)
		}
	}
	err := k.exchange(ctx, now, due)
	if err == nil {
		// Others may have changed: what this node is to give back, they wait for.
		var again []*subject
		for _, s := range due {
			if s.unsettled() {
				again = append(again, s)
			}
		}
		if len(again) > 0 {
			err = k.exchange(ctx, time.Now(), again)
		}
	}
	k.result(ctx, err)
	now = time.Now()
	for _, s := range due {
		s.due = now.Add(s.interval())
		if err == nil && s.leaves() {
			delete(k.subjects, s.q.Subject)
		}
	}
	next = k.nextNodes
	leased := int64(0)
	for _, s := range k.subjects {
		if !s.until.IsZero() {
			leased++
		}
		if s.due.Before(next) {
			next = s.due
		}
	}
	k.leased.Store(leased)
	if now.Before(k.retry) {
		return k.retry
	}
	return next
}

// result takes note of whether the store answers.
func (k *Keeper) result(ctx context.Context, err error) {
	before := k.away.Load()
	switch {
	case err == nil && before != nil:
		k.retry = time.Time{}
		k.away.Store(nil)
		k.cfg.Log.Info("quotas are shared with the other nodes again")
	case err == nil || ctx.Err() != nil:
	default:
		k.failures.Add(1)
		k.away.Store(&err)
		k.retry = time.Now().Add(pause)
		for _, s := range k.subjects {
			if s.until.IsZero() && !s.resting {
				s.q.Unlease(k.Unleased())
			}
		}
		if before == nil {
			k.cfg.Log.Warn("quotas cannot be shared with the other nodes: this one keeps to its part of them", "nodes", k.nodes.Load(), "err", err)
		}
	}
}

// look measures a subject, and lets it rest when it is not in use any more.
func (k *Keeper) look(s *subject, now time.Time) {
	use, busy := s.q.Measure(now.Sub(s.looked))
	s.looked = now
	if busy {
		s.idle = 0
	} else if s.idle++; s.idle >= quiet {
		if !s.resting {
			s.resting = true
			s.q.Rest(k.Unleased())
		}
		if use, busy = s.q.Measure(0); busy { // in between, when it was not told
			k.Join(s.q)
		}
		held := use[quota.Connections]
		held.Demand = held.Hold
		use = [quota.Kinds]quota.Use{quota.Connections: held}
	}
	s.use = use
}

// leaves reports whether the node has nothing of the subject any more.
func (s *subject) leaves() bool { return s.resting && s.use[quota.Connections].Hold == 0 }

// interval is how long a subject is left alone.
func (s *subject) interval() time.Duration {
	switch {
	case s.resting:
		return restEvery
	case s.hungry():
		return soon
	}
	return every
}

// errStore is a store that does not do what it promises.
var errStore = errors.New("it answers something else than what was asked")

// exchange renews subjects, and the node's presence when that is due.
func (k *Keeper) exchange(ctx context.Context, now time.Time, due []*subject) error {
	here := !now.Before(k.nextNodes)
	for here || len(due) > 0 {
		var claims []Claim
		if here {
			claims = append(claims, Claim{Subject: presence, Lasts: present})
		}
		n := min(batch, len(due))
		sent := time.Now()
		for _, s := range due[:n] {
			s.asked = sent
			claims = append(claims, s.claim())
		}
		limited, cancel := context.WithTimeout(ctx, timeout)
		answers, err := k.cfg.Store.Exchange(limited, k.cfg.Node, claims)
		cancel()
		if err == nil && len(answers) != len(claims) {
			err = errStore
		}
		if err != nil {
			return err
		}
		if here {
			here = false
			k.nextNodes = sent.Add(presentEvery)
			k.know(int64(1 + len(answers[0].Others)))
			answers = answers[1:]
		}
		for i, s := range due[:n] {
			k.take(s, sent, answers[i])
		}
		due = due[n:]
	}
	return nil
}

// claim is what the node says about a subject.
func (s *subject) claim() Claim {
	if s.leaves() {
		return Claim{Subject: s.q.Subject}
	}
	c := Claim{Subject: s.q.Subject, Lasts: lasts, Asks: make([]Ask, quota.Kinds)}
	if s.resting {
		c.Lasts = restLasts
	}
	for kind, u := range s.use {
		c.Asks[kind] = Ask{Whole: u.Whole, Demand: u.Demand, Want: s.fair(kind), Hold: u.Hold}
	}
	return c
}

// take puts an answer in force.
func (k *Keeper) take(s *subject, sent time.Time, a Answer) {
	s.others = a.Others
	if s.leaves() {
		s.until = time.Time{}
		return
	}
	for kind := range s.shares {
		s.shares[kind] = at(a.Shares, kind)
	}
	if s.resting {
		s.until = sent.Add(restLasts)
		return
	}
	s.until = sent.Add(lasts)
	shares := s.shares
	for kind, u := range s.use {
		if u.Whole == 0 && kind != quota.Connections {
			shares[kind] = quota.Parts // nothing was said of what has no limit
		}
	}
	s.q.Allot(shares, k.Unleased(), s.full())
}

// at is a number of a list that may be shorter: a node of another version knows of
// other kinds.
func at(list []int64, kind int) int64 {
	if kind < len(list) {
		return list[kind]
	}
	return 0
}

// fair is the share that the node should have of a quota, for what is known of the
// others.
func (s *subject) fair(kind int) int64 {
	u := s.use[kind]
	nodes, demand := int64(1), u.Demand
	for _, o := range s.others {
		if d := at(o.Demand, kind); d > 0 || at(o.Shares, kind) > 0 {
			nodes++
			demand += d
		}
	}
	switch {
	case s.resting:
		return u.Hold
	case demand <= u.Whole:
		return u.Demand + (u.Whole-demand)/nodes
	case kind == quota.Connections:
		return u.Demand // those who wait have what is free, in the order they ask
	}
	least := u.Whole / (32 * nodes)
	return least + int64(float64(u.Whole-nodes*least)*float64(u.Demand)/float64(demand))
}

// free is what nobody has of a quota.
func (s *subject) free(kind int) int64 {
	free := s.use[kind].Whole - s.shares[kind]
	for _, o := range s.others {
		free -= at(o.Shares, kind)
	}
	return max(free, 0)
}

// tolerance is by how much a share may differ from the fair one before that is worth
// a message.
func tolerance(kind int) int64 {
	if kind == quota.Connections {
		return 0
	}
	return quota.Parts / 64
}

// unsettled reports whether the node has more than it should, or could have more.
func (s *subject) unsettled() bool {
	for kind, u := range s.use {
		if u.Whole == 0 || s.resting {
			continue
		}
		over, t := s.shares[kind]-max(s.fair(kind), u.Hold), tolerance(kind)
		if over > t || -over > t && s.free(kind) > t {
			return true
		}
	}
	return false
}

// hungry reports whether others are to give back what this node should have.
func (s *subject) hungry() bool {
	for kind, u := range s.use {
		if u.Whole == 0 || u.Demand <= s.shares[kind] || kind == quota.Connections && s.full() {
			continue
		}
		if s.fair(kind)-s.shares[kind] > tolerance(kind) {
			return true
		}
	}
	return false
}

// full reports whether there are no connections to be had: none is free, and nobody
// has any to spare.
func (s *subject) full() bool {
	if s.free(quota.Connections) > 0 {
		return false
	}
	for _, o := range s.others {
		if at(o.Shares, quota.Connections) > at(o.Demand, quota.Connections) {
			return false
		}
	}
	return true
}

// know takes note of how many nodes there are.
func (k *Keeper) know(nodes int64) {
	k.nodes.Store(nodes)
	if k.written == nodes || k.cfg.File == "" {
		return
	}
	if err := remember(k.cfg.File, nodes); err != nil {
		k.cfg.Log.Warn("the number of nodes was not written down", "file", k.cfg.File, "err", err)
		return
	}
	k.written = nodes
}
