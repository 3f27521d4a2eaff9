package api

import (
	"sync"
	"time"
)

// The failures that one address may have: at first, and then again after a time.
// A token that is good is never refused for somebody else's failures behind the same
// address.
const (
	freeFailures  = 20
	failureReturn = 3 * time.Second
	maxAddresses  = 10_000
)

// limiter counts failed authentication by address.
type limiter struct {
	now func() time.Time

	mu      sync.Mutex
	blocked map[string]time.Time // when all failures of an address will be forgotten
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, blocked: make(map[string]time.Time)}
}

// failed counts a failure. Wait is how long the address should be quiet; 0: it may
// go on.
func (l *limiter) failed(address string) (wait time.Duration) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	until := l.blocked[address]
	if until.Before(now) {
		until = now
	}
	if until.Sub(now) >= freeFailures*failureReturn {
		return until.Sub(now) - (freeFailures-1)*failureReturn
	}
	if len(l.blocked) >= maxAddresses {
		for a, forgotten := range l.blocked {
			if forgotten.Before(now) {
				delete(l.blocked, a)
			}
		}
		if len(l.blocked) >= maxAddresses { // an attack from everywhere: all are one
			address = ""
		}
	}
	l.blocked[address] = until.Add(failureReturn)
	return 0
}
