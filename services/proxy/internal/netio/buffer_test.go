package netio

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

func TestBuffersAreOfTheSizeAskedFor(t *testing.T) {
	for n, want := range map[int]int{
		0: BaseSize, 1: BaseSize, BaseSize: BaseSize, BaseSize + 1: 2 * BaseSize,
		1 << 20: 1 << 20, 1<<20 + 1: 1 << 21, 1 << maxClass: 1 << maxClass,
		1<<maxClass + 1: 1<<maxClass + 1, // above the largest class: as large as asked for
	} {
		b := Get(n)
		if len(b.B) != want {
			t.Errorf("Get(%d): %d bytes, want %d", n, len(b.B), want)
		}
		b.Release()
	}
	(*Buffer)(nil).Release()
}

// Nobody gets memory that somebody else still holds.
func TestBuffersAreHeldByOne(t *testing.T) {
	var wg sync.WaitGroup
	for worker := range byte(8) {
		wg.Go(func() {
			for range 300 {
				a, b := Get(1), Get(BaseSize+1)
				a.B[0], b.B[0], a.B[BaseSize-1] = worker, worker, worker
				if a == b || a.B[0] != worker || b.B[0] != worker || a.B[BaseSize-1] != worker {
					t.Error("a buffer is held twice")
				}
				a.Release()
				b.Release()
			}
		})
	}
	wg.Wait()
}

// reserve takes n bytes in a goroutine of its own and says so in order.
func reserve(t *testing.T, b *Budget, n int64, order *[]int64, mu *sync.Mutex) {
	t.Helper()
	go func() {
		if err := b.Reserve(context.Background(), n); err != nil {
			t.Error(err)
		}
		mu.Lock()
		*order = append(*order, n)
		mu.Unlock()
	}()
	synctest.Wait()
}

func wantUsed(t *testing.T, b *Budget, bytes int64, waiting int) {
	t.Helper()
	synctest.Wait()
	if gotBytes, gotWaiting := b.Used(); gotBytes != bytes || gotWaiting != waiting {
		t.Errorf("Used() = %d, %d, want %d, %d", gotBytes, gotWaiting, bytes, waiting)
	}
}

// A small frame does not overtake a large one that waits, or the large one might
// wait forever.
func TestBudgetIsGivenInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var order []int64
		b := NewBudget(100)
		reserve(t, b, 90, &order, &mu)
		reserve(t, b, 50, &order, &mu) // does not fit
		reserve(t, b, 5, &order, &mu)  // would
		wantUsed(t, b, 90, 2)
		b.Release(30)
		wantUsed(t, b, 60, 2)
		b.Release(10)
		wantUsed(t, b, 50+50, 1)
		b.Release(5)
		wantUsed(t, b, 45+50+5, 0)
		if want := []int64{90, 50, 5}; !slices.Equal(order, want) {
			t.Errorf("let in %v, want %v", order, want)
		}
	})
}

// A frame larger than the whole budget is let in when nothing else is held, and
// nothing is let in beside it.
func TestBudgetLetsAnOversizedFrameInAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var order []int64
		b := NewBudget(100)
		reserve(t, b, 1, &order, &mu)
		reserve(t, b, 500, &order, &mu)
		wantUsed(t, b, 1, 1)
		b.Release(1)
		wantUsed(t, b, 500, 0)
		reserve(t, b, 1, &order, &mu)
		wantUsed(t, b, 500, 1)
		b.Release(500)
		wantUsed(t, b, 1, 0)
	})
}

// Who gives up leaves the place to those behind.
func TestBudgetPassesOnWhatIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var order []int64
		b := NewBudget(100)
		reserve(t, b, 60, &order, &mu)
		gone := errors.New("client gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		got := make(chan error, 1)
		go func() { got <- b.Reserve(ctx, 80) }()
		synctest.Wait()
		reserve(t, b, 40, &order, &mu)
		wantUsed(t, b, 60, 2)
		cancel(gone)
		if err := <-got; !errors.Is(err, gone) {
			t.Errorf("Reserve() = %v, want %v", err, gone)
		}
		wantUsed(t, b, 100, 0)
	})
}

// Whichever of both comes first, nothing is lost when a wait is given up at the
// moment that it ends.
func TestBudgetGivenUpAtTheLastMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(10)
		letIn := 0
		for round := range 100 {
			if err := b.Reserve(t.Context(), 10); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			got := make(chan error, 1)
			go func() { got <- b.Reserve(ctx, 10) }()
			synctest.Wait() // it waits
			b.mu.Lock()     // both happen before it can look
			if round%2 == 0 {
				cancel()
			}
			b.used -= 10
			b.admit()
			cancel()
			b.mu.Unlock()
			if err := <-got; err == nil {
				letIn++
				b.Release(10)
			}
			wantUsed(t, b, 0, 0)
		}
		if letIn == 0 || letIn == 100 {
			t.Errorf("%d of 100 were let in: only one of the two was tried", letIn)
		}
	})
}

// One that has used up its share waits for itself; others get theirs, and what is
// given up or given back is free in both.
func TestSharesOfABudget(t *testing.T) {
	node := NewBudget(100)
	one, other := node.Share(50), node.Share(50)
	ctx := t.Context()
	if err := one.Reserve(ctx, 40); err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithCancel(ctx)
	cancel()
	if err := one.Reserve(impatient, 20); err == nil {
		t.Error("one got 60 of a share of 50")
	}
	if err := other.Reserve(impatient, 50); err != nil {
		t.Errorf("the other waits for one: %v", err)
	}
	third := node.Share(50)
	if err := third.Reserve(impatient, 20); err == nil {
		t.Error("a third got 20 of 10 that are left")
	}
	if used, waiting := third.Used(); used != 0 || waiting != 0 {
		t.Errorf("%d bytes held by who got nothing, %d waiting", used, waiting)
	}
	one.Release(40)
	if err := third.Reserve(impatient, 20); err != nil {
		t.Errorf("the third, after one gave back: %v", err)
	}
	other.Release(50)
	third.Release(20)
	if used, waiting := node.Used(); used != 0 || waiting != 0 {
		t.Errorf("%d bytes held, %d waiting at the end", used, waiting)
	}
}
