package netio

import (
	"context"
	"math/bits"
	"sync"
)

// BaseSize is the size of the buffer that a connection with something to read
// holds; frames that do not fit take a larger one, see [Get].
const BaseSize = 32 << 10

const (
	minClass = 15 // 1 << 15 == BaseSize
	maxClass = 27 // 128 MiB, above Kafka's socket.request.max.bytes
)

// A Buffer is borrowed memory: whoever takes it from [Get] gives it back with
// Release, once. len(B) is always the full size of its class.
type Buffer struct {
	B     []byte
	class int
}

var pools [maxClass + 1]sync.Pool

// Get returns a buffer of at least n bytes. Its content is arbitrary.
func Get(n int) *Buffer {
	class := max(minClass, bits.Len(uint(max(n, 1)-1)))
	if class > maxClass {
		return &Buffer{B: make([]byte, n), class: class}
	}
	if b, ok := pools[class].Get().(*Buffer); ok {
		return b
	}
	return &Buffer{B: make([]byte, 1<<class), class: class}
}

// Release gives the buffer back. The caller must not use B afterwards.
func (b *Buffer) Release() {
	if b != nil && b.class <= maxClass {
		pools[b.class].Put(b)
	}
}

// A Budget bounds the memory that large frames may hold in the whole node. A
// frame reserves its full size before its body is read, so one that was let in
// can always be finished, and a node that is out of budget stops reading
// instead of growing.
type Budget struct {
	limit  int64
	parent *Budget // of which this is a share; nil: none

	mu      sync.Mutex
	used    int64
	waiters []*waiter // in order of arrival: a large frame is not overtaken forever
}

type waiter struct {
	n     int64
	ready chan struct{}
}

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Limit is what NewBudget was given.
func (b *Budget) Limit() int64 { return b.limit }

// Share returns a budget out of b for one of many: what it reserves is reserved in b
// too, and it holds no more than limit, so that one cannot take what all others need.
func (b *Budget) Share(limit int64) *Budget { return &Budget{limit: limit, parent: b} }

// Reserve waits until n bytes are free and takes them. n above the limit is
// let in alone, when nothing else is held.
func (b *Budget) Reserve(ctx context.Context, n int64) error {
	if err := b.reserve(ctx, n); err != nil || b.parent == nil {
		return err
	}
	if err := b.parent.Reserve(ctx, n); err != nil {
		b.release(n)
		return err
	}
	return nil
}

func (b *Budget) reserve(ctx context.Context, n int64) error {
	b.mu.Lock()
	if len(b.waiters) == 0 && b.fits(n) {
		b.used += n
		b.mu.Unlock()
		return nil
	}
	w := &waiter{n: n, ready: make(chan struct{})}
	b.waiters = append(b.waiters, w)
	b.mu.Unlock()

	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, other := range b.waiters {
		if other == w {
			b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
			b.admit()
			return context.Cause(ctx)
		}
	}
	b.used -= n // it was let in at the same moment
	b.admit()
	return context.Cause(ctx)
}

// Release gives n reserved bytes back.
func (b *Budget) Release(n int64) {
	if b.parent != nil {
		b.parent.Release(n)
	}
	b.release(n)
}

func (b *Budget) release(n int64) {
	b.mu.Lock()
	b.used -= n
	b.admit()
	b.mu.Unlock()
}

// Used reports the bytes held now and how many frames wait for some.
func (b *Budget) Used() (bytes int64, waiting int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used, len(b.waiters)
}

func (b *Budget) fits(n int64) bool { return b.used == 0 || b.used+n <= b.limit }

func (b *Budget) admit() {
	for len(b.waiters) > 0 && b.fits(b.waiters[0].n) {
		b.used += b.waiters[0].n
		close(b.waiters[0].ready)
		b.waiters = b.waiters[1:]
	}
}
