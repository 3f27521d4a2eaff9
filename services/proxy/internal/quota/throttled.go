package quota

import (
	"sync/atomic"
	"time"
)

// RateNames are what the rates are called, by their indexes.
var RateNames = [Rates]string{Produce: "produce", Fetch: "fetch", Requests: "request", Connects: "connection"}

// Throttled sums up for how long clients were told to be quiet, or were left unread, for
// the sake of each rate.
type Throttled [Rates]atomic.Int64

// Add counts a delay.
func (t *Throttled) Add(rate int, d time.Duration) { t[rate].Add(int64(d)) }

// Sum is all for a rate.
func (t *Throttled) Sum(rate int) time.Duration { return time.Duration(t[rate].Load()) }
