package producerid

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// attemptTimeout bounds one call of the source: it may hang.
	attemptTimeout = 5 * time.Second
	// confirmEvery is how often the source is reminded of the leases it gave.
	confirmEvery = 30 * time.Second

	// The longest is short enough for those that wait: sarama asks 50 times in 5 s
	// and gives up.
	minPause, maxPause = 250 * time.Millisecond, time.Second

	// A virtual cluster gets so many ids of a node: brokers remember each one, per
	// partition, for a day, and leases are not without end.
	idsPerSecond, idsAtOnce = 100, 1000
)

// Errors of Issue. Both pass.
var (
	ErrNoLease = errors.New("no lease for producer ids")
	ErrTooFast = fmt.Errorf("more than %d producer ids, and %d per second after them", idsAtOnce, idsPerSecond)
)

// An Issuer gives the producer ids of one process:
//
//	without --Take--> holding --half given, Take--> holding and a spare
//	   ^                |  ^                             |
//	   '--- used up ----'  '---------- used up ----------'
//
// The source is asked in the background only, by Run; Issue never waits for it.
type Issuer struct {
	source     Source
	deployment int
	log        *slog.Logger
	wanted     chan struct{} // a lease; room for one
	perLease   int           // PerLease; tests have no time for so many

	mu      sync.Mutex
	held    *block // nil: without
	spare   *block
	leases  []Lease // all that were taken, for Confirm
	issued  uint64
	err     error         // of the last Take; nil: it went well
	without time.Duration // spent without a lease, before since
	since   time.Time     // when the state without began; zero: it does not hold
	rates   map[string]*rate
}

// NewIssuer returns an issuer that has no lease before Run has fetched one. It
// owns the source.
func NewIssuer(source Source, deployment int, log *slog.Logger) *Issuer {
	return &Issuer{
		source: source, deployment: deployment, log: log.With("source", source.String(), "deployment", deployment),
		wanted: make(chan struct{}, 1), perLease: PerLease, since: time.Now(), rates: make(map[string]*rate),
	}
}

// Issue gives an id that nobody had before, for a producer of a virtual cluster.
func (i *Issuer) Issue(virtualCluster string) (int64, error) {
	now := time.Now()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.held == nil {
		if i.err != nil {
			return 0, fmt.Errorf("%w: %w", ErrNoLease, i.err)
		}
		return 0, ErrNoLease
	}
	r := i.rates[virtualCluster]
	if r == nil {
		r = &rate{tokens: idsAtOnce, at: now}
		i.rates[virtualCluster] = r
	}
	if !r.take(now) {
		return 0, ErrTooFast
	}
	id := i.held.take()
	i.issued++
	if i.held.left == 0 {
		i.held, i.spare = i.spare, nil
		if i.held == nil {
			i.since = now
		}
	}
	if i.wants() {
		select {
		case i.wanted <- struct{}{}:
		default: // it knows
		}
	}
	return id, nil
}

// wants says whether a lease is to be fetched: when half of the one at hand is
// given. What is left is enough to go on with while the source is down, and most
// processes end before they get there, so a restart costs one lease. mu is held.
func (i *Issuer) wants() bool { return i.spare == nil && (i.held == nil || i.held.left < i.perLease/2) }

// Run fetches leases until ctx ends, and closes the source.
func (i *Issuer) Run(ctx context.Context) {
	defer func() {
		if err := i.source.Close(); err != nil {
			i.log.Debug("source of producer ids not closed", "err", err)
		}
	}()
	failures := 0
	confirm := time.NewTicker(confirmEvery)
	defer confirm.Stop()
	for {
		i.mu.Lock()
		wants := i.wants()
		i.mu.Unlock()
		var again <-chan time.Time
		wanted := i.wanted
		if wants {
			err := i.fetch(ctx)
			if ctx.Err() != nil {
				return
			}
			i.report(err, failures)
			if err == nil {
				failures = 0
				continue
			}
			failures++
			// Whoever wants one in the meantime waits with us.
			again, wanted = time.After(pause(failures)), nil
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-wanted:
		case <-confirm.C:
			i.confirm(ctx)
		}
	}
}

// pause grows with each failure, and differs from node to node.
func pause(failures int) time.Duration {
	p := maxPause
	if failures < 8 {
		p = min(maxPause, minPause<<(failures-1))
	}
	return p/2 + rand.N(p/2)
}

func (i *Issuer) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	l, err := i.source.Take(ctx)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.err = err
	if err != nil {
		return err
	}
	b := newBlock(i.deployment, l)
	b.left = i.perLease
	i.leases = append(i.leases, l)
	if i.held != nil {
		i.spare = b
		return nil
	}
	i.held = b
	i.without += time.Since(i.since)
	i.since = time.Time{}
	return nil
}

// report logs the first failure in a row, and its end.
func (i *Issuer) report(err error, failures int) {
	i.mu.Lock()
	left := 0
	for _, b := range []*block{i.held, i.spare} {
		if b != nil {
			left += b.left
		}
	}
	taken := len(i.leases)
	i.mu.Unlock()
	switch {
	case err == nil:
		i.log.Info("producer id lease taken", "leases", taken, "ids_left", left)
	case failures > 0:
		i.log.Debug("no producer id lease yet", "err", err, "ids_left", left)
	case left == 0:
		i.log.Error("no producer id lease: idempotent producers wait", "err", err)
	default:
		i.log.Warn("no further producer id lease, going on with what is held", "err", err, "ids_left", left)
	}
}

// confirm tells the source of the leases that this process took: a Redis that was
// flushed, or has gone back to an older state, knows them again.
func (i *Issuer) confirm(ctx context.Context) {
	i.mu.Lock()
	leases := i.leases[:len(i.leases):len(i.leases)]
	i.mu.Unlock()
	if len(leases) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	forgotten, err := i.source.Confirm(ctx, leases)
	if forgotten > 0 {
		i.log.Error("the source of producer ids had forgotten leases: it was emptied, or has gone back to an older state; this node's are recorded again, see docs/decisions/006-producer-ids.md",
			"forgotten", forgotten)
	}
	if err != nil {
		i.log.Debug("producer id leases not confirmed", "err", err)
	}
}

// Stats are the figures of an issuer.
type Stats struct {
	Leases  uint64        // taken
	Issued  uint64        // ids
	Without time.Duration // spent without a lease, since the start
	// Missing is why there is no lease now; nil: there is one.
	Missing error
}

// Stats returns the figures as they are now.
func (i *Issuer) Stats() Stats {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := Stats{Leases: uint64(len(i.leases)), Issued: i.issued, Without: i.without}
	if i.held == nil {
		s.Without += time.Since(i.since)
		s.Missing = ErrNoLease
		if i.err != nil {
			s.Missing = fmt.Errorf("%w from %s: %w", ErrNoLease, i.source, i.err)
		}
	}
	return s
}

// rate is a token bucket.
type rate struct {
	tokens float64
	at     time.Time
}

func (r *rate) take(now time.Time) bool {
	r.tokens = min(idsAtOnce, r.tokens+now.Sub(r.at).Seconds()*idsPerSecond)
	r.at = now
	if r.tokens < 1 {
		return false
	}
	r.tokens--
	return true
}
