package credential

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// How renewals go.
const (
	renewTimeout  = 10 * time.Second
	firstRetry    = 500 * time.Millisecond // after a failure, doubling
	lastRetry     = 10 * time.Second
	refusedAgain  = 5 * time.Second // a value that was refused is not renewed more often
	expiryMargin  = 5 * time.Second // or a tenth of the lifetime: a value is not used so shortly before its end
	renewFraction = 5               // a fifth of the lifetime before its end, it is renewed
)

// lease is a value and how long it is good.
type lease[T any] struct {
	value   T
	expires time.Time // zero: it does not end
	renew   time.Time // zero: a fifth of its lifetime before expires, if that is set
}

// renewing holds a value that ends. Only one fetch is under way at a time; while the
// value is good nobody waits for it.
type renewing[T any] struct {
	keeper *Keeper
	text   string // what it is, in logs
	fetch  func(ctx context.Context) (lease[T], error)

	mu       sync.Mutex
	lease    lease[T]
	have     bool
	fetched  time.Time
	flight   chan struct{} // closed when the fetch that is under way ends; nil: none is
	err      error         // of the last fetch
	failures int
	notUntil time.Time // after a failure
}

// get returns a value that is good now.
func (r *renewing[T]) get(ctx context.Context) (T, error) {
	for {
		r.mu.Lock()
		now := time.Now()
		good := r.have && (r.lease.expires.IsZero() || now.Before(r.lease.expires))
		due := !good || !r.lease.renew.IsZero() && !now.Before(r.lease.renew)
		if due && r.flight == nil && !now.Before(r.notUntil) {
			r.begin()
		}
		value, flight, err, wait := r.lease.value, r.flight, r.err, r.notUntil.Sub(now)
		r.mu.Unlock()
		switch {
		case good:
			return value, nil
		case flight == nil:
			var none T
			return none, fmt.Errorf("next try in %v: %w", wait.Round(time.Millisecond), err)
		}
		select {
		case <-flight:
		case <-ctx.Done():
			var none T
			return none, context.Cause(ctx)
		}
		r.mu.Lock()
		failed := r.flight == nil && r.err != nil
		err = r.err
		r.mu.Unlock()
		if failed {
			var none T
			return none, err
		}
	}
}

// begin starts a fetch. r.mu is held.
func (r *renewing[T]) begin() {
	done := make(chan struct{})
	r.flight = done
	r.keeper.wg.Go(func() {
		ctx, cancel := context.WithTimeout(r.keeper.ctx, renewTimeout)
		defer cancel()
		next, err := r.fetch(ctx)
		now := time.Now()
		if err == nil {
			err = next.arrange(now)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.flight, r.err = nil, err
		close(done)
		if err == nil {
			r.lease, r.have, r.fetched, r.failures, r.notUntil = next, true, now, 0, time.Time{}
			return
		}
		r.notUntil = now.Add(min(firstRetry<<min(r.failures, 10), lastRetry))
		r.failures++
		if r.have && (r.lease.expires.IsZero() || now.Before(r.lease.expires)) && r.keeper.ctx.Err() == nil {
			r.keeper.log.Warn("credential not renewed, the one there is serves on",
				"credential", r.text, "until", r.lease.expires, "err", err)
		}
	})
}

// arrange sets when a value that was just had is renewed, and how long it is used.
func (l *lease[T]) arrange(now time.Time) error {
	if l.expires.IsZero() {
		return nil
	}
	life := l.expires.Sub(now)
	if life <= 0 {
		return fmt.Errorf("it had ended %v before it was had: compare the clocks", -life.Round(time.Second))
	}
	if l.renew.IsZero() {
		l.renew = l.expires.Add(-life / renewFraction)
	}
	l.expires = l.expires.Add(-min(expiryMargin, life/10))
	return nil
}

// doubt has the value renewed at its next use. It serves until there is another:
// somebody else may find nothing wrong with it.
func (r *renewing[T]) doubt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); r.have && now.Sub(r.fetched) >= refusedAgain {
		r.lease.renew = now
	}
}
