// Package meter counts what tenants use: bytes of record batches, records and
// requests, at the moment the broker accepted them or the client was sent them
// (DESIGN.md §6).
package meter

import (
	"iter"
	"maps"
	"sync"
	"sync/atomic"
)

// Direction is which way records went.
type Direction uint8

// The directions.
const (
	Produced Direction = iota
	Fetched
)

func (d Direction) String() string {
	if d == Produced {
		return "produced"
	}
	return "fetched"
}

// Key is what a counter is for. Topic is the virtual name.
type Key struct {
	VirtualCluster, Principal, Topic, Cluster string
	Direction                                 Direction
}

// Counter only grows. It is safe for concurrent use and takes no lock.
type Counter struct{ bytes, records, requests atomic.Uint64 }

// Add counts one partition of a request.
func (c *Counter) Add(bytes, records uint64) {
	c.bytes.Add(bytes)
	c.records.Add(records)
}

// Request counts one request that touched the topic.
func (c *Counter) Request() { c.requests.Add(1) }

// Usage is the value of a counter.
type Usage struct{ Bytes, Records, Requests uint64 }

// Meter holds the counters of a node.
type Meter struct {
	mu       sync.RWMutex
	counters map[Key]*Counter
}

// New returns an empty meter.
func New() *Meter { return &Meter{counters: make(map[Key]*Counter)} }

// Counter returns the counter of k, which stays the same for the node's life.
func (m *Meter) Counter(k Key) *Counter {
	m.mu.RLock()
	c := m.counters[k]
	m.mu.RUnlock()
	if c != nil {
		return c
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c = m.counters[k]; c == nil {
		c = new(Counter)
		m.counters[k] = c
	}
	return c
}

// All ranges over the counters. Values read together may be of slightly different
// moments; none ever goes back. The loop's body may take its time: no lock is held.
func (m *Meter) All() iter.Seq2[Key, Usage] {
	return func(yield func(Key, Usage) bool) {
		m.mu.RLock()
		counters := maps.Clone(m.counters)
		m.mu.RUnlock()
		for k, c := range counters {
			if !yield(k, Usage{c.bytes.Load(), c.records.Load(), c.requests.Load()}) {
				return
			}
		}
	}
}
