package quota

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// of is a fleet in which this node has a part, and counts who joins.
type of struct {
	part   float64
	joined chan *Quotas
}

func newFleet(part float64) *of { return &of{part, make(chan *Quotas, 100)} }

func (f *of) Unleased() float64 { return f.part }
func (f *of) Join(q *Quotas)    { f.joined <- q }

// What is owed stays when the share changes, and is made good at the new pace.
func TestASharePacesWhatIsOwed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(0.5)
		q := New("vc:a", f)
		q.Set(Limits{Produce: 1000})
		if d := q.Produce.Take(500); d != 0 {
			t.Errorf("the node's part of a second is delayed by %v", d)
		}
		if d := q.Produce.Take(500); d != time.Second {
			t.Errorf("as much again at half of the limit is delayed by %v, want a second", d)
		}
		if len(f.joined) != 1 {
			t.Errorf("the fleet was told %d times that the quotas are used, want once", len(f.joined))
		}
		q.Allot([Kinds]int64{Produce: Parts}, 0.5, false)
		time.Sleep(250 * time.Millisecond)
		if d := q.Produce.Take(0); d != 250*time.Millisecond {
			t.Errorf("of half a second at the whole limit %v is left after a quarter, want another quarter", d)
		}
		// A share of nothing does not last: delays are reckoned by the part.
		q.Allot([Kinds]int64{}, 0.5, false)
		if d := q.Produce.Take(0); d != 500*time.Millisecond {
			t.Errorf("delay %v, want what the part would take", d)
		}
		time.Sleep(time.Minute)
		if d := q.Produce.Take(0); d != 500*time.Millisecond {
			t.Errorf("delay %v after a minute without a share: nothing was made good", d)
		}
		q.Unlease(0.25)
		time.Sleep(time.Second)
		if d := q.Produce.Take(0); d != 0 {
			t.Errorf("delay %v, after a second at a quarter of the limit", d)
		}
		if n := q.Produce.AtOnce(1 << 20); n != 2500 {
			t.Errorf("a fetch of %d may be asked for, want ten seconds' worth of the part", n)
		}
	})
}

// What is refused does not count.
func TestTakingWithinATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New("vc:a", nil)
		q.Set(Limits{Connects: 10})
		in := 0
		for range 100 {
			if _, ok := q.Connects.TakeWithin(1, 2*time.Second); ok {
				in++
			}
		}
		if in != 30 {
			t.Errorf("%d of 100 at once, want a second's worth and those that wait for two", in)
		}
		time.Sleep(time.Second)
		for range 10 {
			if d, ok := q.Connects.TakeWithin(1, 2*time.Second); !ok || d > 2*time.Second {
				t.Errorf("a second later: %v, %v", d, ok)
			}
		}
	})
}

// A node that has no room asks, waits for a while, and is refused at once when there is
// none to be had.
func TestSeatsAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(0.5)
		q := New("vc:a", f)
		q.Set(Limits{Connections: 10})
		s := &q.Connections
		go func() {
			<-f.joined
			time.Sleep(100 * time.Millisecond)
			q.Allot([Kinds]int64{Connections: 1}, 0.5, false)
		}()
		began := time.Now()
		if !s.Enter(t.Context()) || time.Since(began) != 100*time.Millisecond {
			t.Errorf("the first came in after %v", time.Since(began))
		}
		began = time.Now()
		if s.Enter(t.Context()) || time.Since(began) != patience {
			t.Errorf("nobody gave any room, for %v", time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		if s.Enter(ctx) || time.Since(began) != time.Second {
			t.Errorf("a client that left was waited for %v", time.Since(began))
		}
		if s.Full() {
			t.Error("full although others may have room")
		}
		q.Allot([Kinds]int64{Connections: 1}, 0.5, true)
		began = time.Now()
		if s.Enter(t.Context()) || time.Since(began) != 0 || !s.Full() {
			t.Errorf("it was full, and took %v", time.Since(began))
		}
		q.Set(Limits{})
		for range 20 {
			if !s.Enter(t.Context()) {
				t.Fatal("refused without a limit")
			}
		}
	})
}

func TestTakingAShareAllocatesNothing(t *testing.T) {
	q := New("vc:a", newFleet(0.5))
	q.Set(Limits{Produce: 1_000_000})
	q.Produce.Take(1)
	if n := testing.AllocsPerRun(1000, func() { q.Produce.Take(1000) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
