package upstream

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// leaseLater asks for a lease in a goroutine of its own.
func leaseLater(t *testing.T, ctx context.Context, c *Cluster, class Class) <-chan any {
	t.Helper()
	got := make(chan any, 1)
	go func() {
		conn, err := c.Lease(ctx, 3, class)
		if err != nil {
			got <- err
			return
		}
		got <- conn
	}()
	synctest.Wait()
	return got
}

func wantLeased(t *testing.T, c *Cluster, class Class, want int) {
	t.Helper()
	if _, leased := c.Connections(); leased[class.String()] != want {
		t.Errorf("%d leases of class %v are out, want %d", leased[class.String()], class, want)
	}
}

// Long polls that use up their class neither delay nor are delayed by others; who
// waits is served in order, with the connection that came back.
func TestLeasesAreLimitedByClass(t *testing.T) {
	withStub(t, func(cfg *Config, _ *stub) { cfg.Limits[Fetch] = 2 }, func(t *testing.T, c *Cluster, s *stub) {
		a, b := lease(t, c, Fetch), lease(t, c, Fetch)
		if a == b {
			t.Fatal("one connection was leased twice")
		}
		first := leaseLater(t, t.Context(), c, Fetch)
		second := leaseLater(t, t.Context(), c, Fetch)
		for _, class := range []Class{Control, Produce, GroupWait, Share} {
			began := time.Now()
			lease(t, c, class).Release()
			if d := time.Since(began); d > 0 {
				t.Errorf("class %v waited %v for Fetch", class, d)
			}
		}
		wantLeased(t, c, Fetch, 2)
		b.Release()
		synctest.Wait()
		if got := <-first; got != b {
			t.Errorf("the first who waited got %v, want the connection that came back", got)
		}
		select {
		case got := <-second:
			t.Fatalf("a third lease was given: %v", got)
		default:
		}
		a.Close() // dead: who waits dials
		synctest.Wait()
		if got := <-second; got == a || got == b {
			t.Error("a connection that is dead or leased was leased")
		} else {
			got.(*Conn).Release()
		}
		b.Release()
		wantLeased(t, c, Fetch, 0)
	})
}

func TestLeasesThatAreNotToBeHad(t *testing.T) {
	withStub(t, func(cfg *Config, _ *stub) { cfg.Limits[Produce] = 1 }, func(t *testing.T, c *Cluster, s *stub) {
		held := lease(t, c, Produce)
		began := time.Now()
		got := <-leaseLater(t, t.Context(), c, Produce)
		if _, ok := got.(*UnavailableError); !ok || time.Since(began) != 10*time.Second {
			t.Errorf("%v after %v, want an UnavailableError after 10s", got, time.Since(began))
		}
		gone := errors.New("client gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		waiting := leaseLater(t, ctx, c, Produce)
		cancel(gone)
		if err, _ := (<-waiting).(error); !errors.Is(err, gone) {
			t.Errorf("a cancelled wait ended with %v", err)
		}
		if _, err := c.Lease(t.Context(), 9, Produce); err == nil {
			t.Error("a node that there is not was leased")
		} else if _, ok := errors.AsType[*UnavailableError](err); !ok {
			t.Errorf("a node that there is not: %v", err)
		}
		held.Release()
		wantLeased(t, c, Produce, 0)
		if conn := lease(t, c, Produce); conn != held {
			t.Error("those who gave up keep the place taken")
		}
	})
}

// A lease given at the moment that its waiter gives up is not lost.
func TestLeasesAreNotLost(t *testing.T) {
	withStub(t, func(cfg *Config, _ *stub) { cfg.Limits[Fetch] = 1 }, func(t *testing.T, c *Cluster, s *stub) {
		for range 300 {
			held := lease(t, c, Fetch)
			ctx, cancel := context.WithCancel(t.Context())
			waiting := leaseLater(t, ctx, c, Fetch)
			var wg sync.WaitGroup
			wg.Go(cancel)
			wg.Go(held.Release)
			wg.Wait()
			if conn, ok := (<-waiting).(*Conn); ok {
				conn.Release()
			}
			synctest.Wait()
			wantLeased(t, c, Fetch, 0)
		}
		if open, _ := c.Connections(); open > 4 {
			t.Errorf("%d connections for one lease at a time", open)
		}
	})
}

// A broker that cannot be reached is dialled less and less often, whoever asks, and
// at once when it can be again.
func TestDialsBackOff(t *testing.T) {
	withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
		down := errors.New("connection refused")
		var held []*Conn
		for open, _ := c.Connections(); open > 0; open-- { // none is idle any more
			held = append(held, lease(t, c, Control))
		}
		s.set(func() { s.refuse = down })
		before := s.dialled(addrOf(3))
		for range 500 { // 5 s
			if _, err := c.Lease(t.Context(), 3, Control); !errors.Is(err, down) {
				t.Fatalf("Lease() = %v, want %v", err, down)
			}
			time.Sleep(10 * time.Millisecond)
		}
		// At 0, 50, 150, 350, 750, 1550 and 3150 ms; the next would be at 6350: a
		// quarter sooner or later.
		if n := s.dialled(addrOf(3)) - before; n < 7 || n > 8 {
			t.Errorf("%d dials in 5 s, want 7 or 8", n)
		}
		s.set(func() { s.refuse = nil })
		time.Sleep(maxBackoff)
		held = append(held, lease(t, c, Control))
		s.set(func() { s.refuse = down })
		before = s.dialled(addrOf(3))
		for range 10 {
			c.Lease(t.Context(), 3, Control)
			time.Sleep(10 * time.Millisecond)
		}
		if n := s.dialled(addrOf(3)) - before; n != 2 && n != 3 {
			t.Errorf("%d dials in 100 ms after a success, want 2 or 3: the delay begins anew", n)
		}
		for _, conn := range held {
			conn.Release()
		}
	})
}

// Of the idle connections a few stay warm; the others are closed.
func TestIdleConnectionsAreClosed(t *testing.T) {
	withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
		before, _ := c.Connections()
		var held []*Conn
		for range 9 {
			held = append(held, lease(t, c, Fetch))
		}
		for _, conn := range held {
			conn.Release()
		}
		time.Sleep(59 * time.Second)
		if open, _ := c.Connections(); open < 9 {
			t.Errorf("%d connections open before their time", open)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if open, _ := c.Connections(); open > before+2 {
			t.Errorf("%d connections open after a minute, want %d at most", open, before+2)
		}
		began := time.Now()
		lease(t, c, Fetch).Release()
		if time.Since(began) > 0 {
			t.Error("no connection was warm")
		}
	})
}

func TestClosedClustersLeaseNothing(t *testing.T) {
	withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
		held := lease(t, c, Produce)
		sink := new(recorder)
		send(t, held, sink, 1, 0)
		c.Close()
		if _, lost, _, _ := sink.saw(); !slices.Equal(lost, []int32{1}) {
			t.Errorf("lost %v, want the one request", lost)
		}
		held.Release()
		if _, err := c.Lease(t.Context(), 3, Control); err == nil {
			t.Error("a closed cluster leases")
		}
		if open, _ := c.Connections(); open != 0 {
			t.Errorf("%d connections are open", open)
		}
	})
}
