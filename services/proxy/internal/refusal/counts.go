package refusal

import "sync/atomic"

// Counts says how often each entry of the catalogue was refused. It is closed, as
// the catalogue is, so it can be a metric.
type Counts struct {
	of map[*Refusal]*atomic.Uint64 // never changed
}

// NewCounts begins at zero.
func NewCounts() *Counts {
	c := &Counts{of: make(map[*Refusal]*atomic.Uint64)}
	for _, r := range All() {
		c.of[r] = new(atomic.Uint64)
	}
	return c
}

// Add counts one; nil, for what nobody catalogued, counts as [Internal].
func (c *Counts) Add(r *Refusal) {
	n := c.of[r]
	if n == nil {
		n = c.of[Internal]
	}
	n.Add(1)
}

// Each calls f with every refusal that was counted.
func (c *Counts) Each(f func(r *Refusal, n uint64)) {
	for _, r := range All() {
		if n := c.of[r].Load(); n > 0 {
			f(r, n)
		}
	}
}
