package lease

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	board "tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/pkg/testbed/redistest"
)

func newTurns(t *testing.T, url string, away func() error) *Turns {
	t.Helper()
	client, err := board.Open(url, secret.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	turns := NewTurns(client, "turn:", away, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		turns.Close()
		_ = client.Close()
	})
	return turns
}

func here() error { return nil }

// One node at a time has a turn; that of one which died is over; and without Redis nobody
// waits.
func TestTurns(t *testing.T) {
	server := redistest.Start(t)
	link := server.Link(t)
	nodes := []*Turns{newTurns(t, server.URL, here), newTurns(t, server.URL, here), newTurns(t, server.URL, here)}
	var inside, turns atomic.Int64
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() {
			for range 10 {
				done, err := n.Take(t.Context(), "acme")
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d have the turn", n)
				}
				turns.Add(1)
				inside.Add(-1)
				done()
			}
		})
	}
	wg.Wait()
	if n := turns.Load(); n != 30 {
		t.Errorf("%d turns, want 30", n)
	}
	// One that died.
	if err := server.Client().Set(t.Context(), "turn:acme", "somebody", 500*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := nodes[0].Take(ended, "acme"); !errors.Is(err, context.Canceled) {
		t.Errorf("Take by who is gone: %v", err)
	}
	done, err := nodes[0].Take(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	if owner, err := server.Client().Get(t.Context(), "turn:acme").Result(); err != nil || owner == "somebody" {
		t.Errorf("the turn is %s's, %v", owner, err)
	}
	done()
	// Redis is slow, known to be away, and dead.
	link.Delay(6 * time.Second)
	slow := newTurns(t, link.URL, here)
	known := newTurns(t, link.URL, func() error { return errors.New("away") })
	for _, n := range []*Turns{slow, known} {
		began := time.Now()
		done, err := n.Take(t.Context(), "acme")
		if err != nil || time.Since(began) > 10*turnAsk {
			t.Errorf("without Redis: %v after %v", err, time.Since(began))
			continue
		}
		done()
	}
	server.Kill(t)
	if done, err = nodes[1].Take(t.Context(), "acme"); err != nil {
		t.Errorf("Redis is killed: %v", err)
	} else {
		done()
	}
}
