package view

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// One at a time has the turn of a group, groups do not wait for each other, and who
// gives up leaves nothing behind.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var x Splits
		var wg sync.WaitGroup
		var mu sync.Mutex
		inside, most := map[string]int{}, map[string]int{}
		began := time.Now()
		for range 5 {
			for _, group := range []string{"a", "b"} {
				wg.Go(func() {
					end, err := x.Turn(t.Context(), group)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					inside[group]++
					most[group] = max(most[group], inside[group])
					mu.Unlock()
					time.Sleep(time.Second)
					mu.Lock()
					inside[group]--
					mu.Unlock()
					end()
				})
			}
		}
		impatient := errors.New("impatient")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 1500*time.Millisecond, impatient)
		defer cancel()
		time.Sleep(500 * time.Millisecond)
		if _, err := x.Turn(ctx, "a"); !errors.Is(err, impatient) {
			t.Errorf("Turn: %v, want %v", err, impatient)
		}
		wg.Wait()
		if most["a"] != 1 || most["b"] != 1 {
			t.Errorf("at most %v at a time, want one of each group", most)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("ten turns of two groups of a second each take %v, want 5s", took)
		}
		if len(x.turns) != 0 {
			t.Errorf("%d groups are remembered", len(x.turns))
		}
	})
}
