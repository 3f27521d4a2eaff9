package proxy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"tollgate.internal/services/proxy/internal/fleet"
)

// Bounds of what strangers can make a node do by asking for names.
const (
	loadLimit    = 8 * time.Second // for a virtual cluster to be loaded, of a slow Redis; shorter than a handshake may take
	unknownFor   = time.Second     // a name is not asked for again
	unknownNames = 4096            // that are remembered
	flightsMost  = 4096            // names that are being asked for, or wait for that
	lookups      = 64              // at once
	unknownRate  = 1000            // names that nobody owns, a second
)

// errTooMany is a name that is not asked for because so many are.
var errTooMany = errors.New("too many names are asked for that the node does not know")

// finder loads virtual clusters when their first clients come. A name is asked for once
// at a time, however many clients wait for it. Names that nobody owns cost the source and
// the memory no more than the bounds above, whatever their number; those of virtual
// clusters that are there cost the source one question.
type finder struct {
	source fleet.Source
	g      *gateway
	life   context.Context
	slots  chan struct{}

	mu         sync.Mutex
	flights    map[string]*flight
	answers    map[string]answer
	order      []string // of answers, a ring: the oldest is forgotten first
	next       int
	generation uint64    // of answers
	full       time.Time // when unknownRate of unknown names may be asked for at once

	counts [len(findings)]atomic.Uint64
}

// What became of look-ups, as a metric says.
var findings = [...]string{found: "found", unknown: "unknown", failed: "failed", turnedAway: "turned_away"}

const (
	found = iota
	unknown
	failed     // the source could not say, or what it found cannot be served
	turnedAway // not asked
)

type flight struct {
	done chan struct{}
	err  error // once it is done
}

// answer is that nobody owns a name, or an error.
type answer struct {
	until time.Time
	err   error
}

func newFinder(life context.Context, source fleet.Source, g *gateway) *finder {
	return &finder{
		source: source, g: g, life: life, slots: make(chan struct{}, lookups),
		flights: make(map[string]*flight), answers: make(map[string]answer), order: make([]string, unknownNames),
	}
}

// find loads the virtual cluster of a host name, if there is one. The error is that this
// could not be found out.
func (f *finder) find(ctx context.Context, name string) error {
	host, claims := f.g.names.Claims(name)
	if len(claims) == 0 {
		return nil
	}
	return f.fly(ctx, host, func(ctx context.Context) (string, error) {
		for _, claim := range claims {
			err := f.source.Find(ctx, claim)
			if r, ok := f.g.names.Host(host); ok {
				return r.VirtualCluster, nil
			}
			if err != nil {
				return "", err
			}
		}
		return "", nil
	})
}

// load loads a virtual cluster by its name.
func (f *finder) load(ctx context.Context, vc string) error {
	return f.fly(ctx, "\x00"+vc, func(ctx context.Context) (string, error) { // no host has a NUL
		err := f.source.Load(ctx, vc)
		if f.g.find(vc) != nil {
			return vc, nil
		}
		return "", err
	})
}

// fly waits for a look-up, which is shared by all who want it. It returns the virtual
// cluster that was loaded, if there is one.
func (f *finder) fly(ctx context.Context, key string, lookUp func(context.Context) (string, error)) error {
	f.mu.Lock()
	if a, known := f.answers[key]; known && time.Now().Before(a.until) {
		f.mu.Unlock()
		return a.err
	}
	fl := f.flights[key]
	switch {
	case fl != nil:
	case len(f.flights) >= flightsMost || f.life.Err() != nil:
		f.mu.Unlock()
		f.counts[turnedAway].Add(1)
		return errTooMany
	default:
		fl = &flight{done: make(chan struct{})}
		f.flights[key] = fl
		generation := f.generation
		f.g.background.Go(func() {
			fl.err = f.run(key, generation, lookUp)
			f.mu.Lock()
			delete(f.flights, key)
			f.mu.Unlock()
			close(fl.done)
		})
	}
	f.mu.Unlock()
	select {
	case <-fl.done:
		return fl.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (f *finder) run(key string, generation uint64, lookUp func(context.Context) (string, error)) error {
	ctx, cancel := context.WithTimeoutCause(f.life, loadLimit, fmt.Errorf("no answer within %v", loadLimit))
	defer cancel()
	select {
	case f.slots <- struct{}{}:
	case <-ctx.Done():
		f.counts[turnedAway].Add(1)
		return errTooMany
	}
	if !f.pay(ctx) {
		<-f.slots
		f.counts[turnedAway].Add(1)
		return errTooMany
	}
	vc, err := lookUp(ctx)
	<-f.slots // what follows is waited for by the clients of this virtual cluster alone
	switch {
	case vc != "":
		f.counts[found].Add(1)
		f.refund()
		f.g.reachable(ctx, vc)
		return nil
	case err == nil:
		f.counts[unknown].Add(1)
	default:
		f.counts[failed].Add(1)
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
	f.remember(key, generation, err)
	return err
}

// pay waits until one more unknown name may be asked for. What turns out to be known is
// paid back.
func (f *finder) pay(ctx context.Context) bool {
	const each = time.Second / unknownRate
	f.mu.Lock()
	now := time.Now()
	if f.full.Before(now) {
		f.full = now
	}
	wait := f.full.Add(each).Sub(now) - time.Second
	if deadline, ok := ctx.Deadline(); ok && now.Add(wait).After(deadline) {
		f.mu.Unlock()
		return false
	}
	f.full = f.full.Add(each)
	f.mu.Unlock()
	if wait <= 0 {
		return true
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (f *finder) refund() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.full = f.full.Add(-time.Second / unknownRate)
}

// remember keeps an answer, unless it may have been overtaken.
func (f *finder) remember(key string, generation uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.generation != generation {
		return
	}
	if _, known := f.answers[key]; !known {
		delete(f.answers, f.order[f.next])
		f.order[f.next] = key
		f.next = (f.next + 1) % len(f.order)
	}
	f.answers[key] = answer{time.Now().Add(unknownFor), err}
}

// forget has everything asked for again.
func (f *finder) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.generation++
	clear(f.answers)
	clear(f.order)
	f.next = 0
}

// reachable waits until it is known how to reach the clusters of a virtual cluster that
// was just loaded: its first client would meet errors.
func (g *gateway) reachable(ctx context.Context, vc string) {
	v := g.view(vc)
	if v == nil {
		return
	}
	for _, name := range v.Spec.Clusters {
		g.mu.RLock()
		c := g.clusters[name]
		g.mu.RUnlock()
		if c == nil {
			continue
		}
		select {
		case <-c.there:
		case <-ctx.Done():
			return
		}
	}
}

// loadPinned loads the virtual clusters of listeners by port: no host name brings them.
func (g *gateway) loadPinned() {
	for _, spec := range g.cfg.Listeners {
		if vc := spec.VirtualCluster; vc != "" && g.find(vc) == nil {
			ctx, cancel := context.WithCancel(g.life)
			cancel() // nobody waits here; the answer is remembered for a moment, also that there is none
			_ = g.finder.load(ctx, vc)
		}
	}
}
