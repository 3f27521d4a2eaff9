package lease

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// memory is a store in this process. It does what the script of redisStore does.
type memory struct {
	latency time.Duration

	mu    sync.Mutex
	away  func(node string) bool
	calls int
	keys  map[string]map[string]kept
}

type kept struct {
	until          time.Time
	demand, shares []int64
}

func newMemory() *memory {
	return &memory{latency: time.Millisecond, keys: make(map[string]map[string]kept)}
}

// cut says which nodes cannot reach the store from now on.
func (m *memory) cut(from func(node string) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = from
}

func (m *memory) called() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

func everybody(string) bool { return true }

func (m *memory) flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.keys)
}

var errAway = errors.New("the store is away")

func (m *memory) Exchange(ctx context.Context, node string, claims []Claim) ([]Answer, error) {
	m.mu.Lock()
	away := m.away != nil && m.away(node)
	m.calls++
	wait := m.latency
	m.mu.Unlock()
	if away {
		wait = time.Hour
	}
	select {
	case <-ctx.Done():
		return nil, errAway
	case <-time.After(wait):
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var answers []Answer
	for _, c := range claims {
		answers = append(answers, m.exchange(node, c, time.Now()))
	}
	return answers, nil
}

func (m *memory) exchange(node string, c Claim, now time.Time) (a Answer) {
	key := m.keys[c.Subject]
	if key == nil {
		key = make(map[string]kept)
		m.keys[c.Subject] = key
	}
	for _, other := range slices.Sorted(maps.Keys(key)) {
		switch k := key[other]; {
		case !k.until.After(now):
			delete(key, other)
		case other != node:
			a.Others = append(a.Others, Held{other, k.demand, k.shares})
		}
	}
	if c.Lasts == 0 {
		delete(key, node)
		return a
	}
	mine := kept{until: now.Add(c.Lasts)}
	for kind, ask := range c.Asks {
		free := ask.Whole
		for _, o := range a.Others {
			free -= at(o.Shares, kind)
		}
		mine.demand = append(mine.demand, ask.Demand)
		mine.shares = append(mine.shares, max(min(ask.Want, free), ask.Hold, 0))
	}
	key[node] = mine
	a.Shares = mine.shares
	return a
}

// sum is what all nodes have of a quota together.
func (m *memory) sum(subject string, kind int) (n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.keys[subject] {
		if k.until.After(time.Now()) {
			n += at(k.shares, kind)
		}
	}
	return n
}
