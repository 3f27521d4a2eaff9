package quota

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// obedient is a client that does one thing after another and keeps to its delays.
func obedient(b *Bucket, size func() int, until time.Time, done func(at time.Time, n int)) {
	for time.Now().Before(until) {
		n := size()
		done(time.Now(), n)
		time.Sleep(max(b.Take(n), time.Microsecond))
	}
}

// Over any ten seconds, as long as Kafka's window, clients get the limit: no tenth
// more, and no tenth less.
func TestClientsGetTheLimit(t *testing.T) {
	const limit = 1_000_000
	for _, c := range []struct {
		name    string
		clients int
		size    func() int
	}{
		{"one client with small requests", 1, func() int { return 1000 }},
		{"one client with large requests", 1, func() int { return 900_000 }},
		{"forty clients with requests of any size", 40, func() int { return 1 + rand.IntN(50_000) }},
		{"two hundred clients whose requests together take a minute", 200, func() int { return 300_000 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := New("", nil)
				q.Set(Limits{Produce: limit})
				began := time.Now()
				var mu sync.Mutex
				perSecond := make([]int, 400)
				var wg sync.WaitGroup
				for range c.clients {
					wg.Go(func() {
						obedient(&q.Produce, c.size, began.Add(300*time.Second), func(at time.Time, n int) {
							mu.Lock()
							defer mu.Unlock()
							perSecond[int(at.Sub(began)/time.Second)] += n
						})
					})
				}
				wg.Wait()
				// The first requests of all pass before anyone is delayed; the
				// debt is made good after that.
				first := c.clients * 300_000 / limit
				for s := first + 10; s+10 < 290; s++ {
					sum := 0
					for _, n := range perSecond[s : s+10] {
						sum += n
					}
					if low, high := 9*limit, 11*limit; sum < low || sum > high {
						t.Fatalf("%d units in the ten seconds from %d s on, want %d to %d", sum, s, low, high)
					}
				}
			})
		})
	}
}

func TestDelayIsKafkas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New("", nil)
		q.Set(Limits{Requests: 100})
		for _, c := range []struct {
			name  string
			pause time.Duration
			n     int
			want  time.Duration
		}{
			{"what the limit allows in the window passes", time.Hour, 100, 0},
			{"half of it more takes half a second", 0, 50, 500 * time.Millisecond},
			{"which is made good by waiting", 500 * time.Millisecond, 0, 0},
			{"no credit is left then", 0, 10, 100 * time.Millisecond},
			{"a pause earns the window and no more", time.Hour, 300, 2 * time.Second},
			{"an excess adds to what is owed", time.Second, 200, 3 * time.Second},
			{"a connection is never unread for longer than a minute", time.Hour, 1_000_000, MaxDelay},
		} {
			time.Sleep(c.pause)
			if got := q.Requests.Take(c.n); got != c.want {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
			}
		}
	})
}

func TestNoLimitDelaysNobody(t *testing.T) {
	q := New("", nil)
	for range 1000 {
		if d := q.Produce.Take(1 << 30); d != 0 {
			t.Fatalf("delayed for %v", d)
		}
	}
	if got := q.Fetch.AtOnce(1 << 20); got != 1<<20 {
		t.Errorf("a fetch is cut to %d bytes", got)
	}
}

func TestLimitsChangeWhileClientsWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New("", nil)
		q.Set(Limits{Produce: 1000})
		q.Produce.Take(1000)
		if d := q.Produce.Take(1000); d != time.Second {
			t.Fatalf("delay %v, want 1s", d)
		}
		q.Set(Limits{})
		if d := q.Produce.Take(1000); d != 0 {
			t.Errorf("delay %v without a limit", d)
		}
		q.Set(Limits{Produce: 2000})
		if d := q.Produce.Take(1000); d != 1500*time.Millisecond {
			t.Errorf("delay %v, want 1.5s: one that is owed and half a one", d)
		}
	})
}

func TestToldAndAtOnce(t *testing.T) {
	for d, want := range map[time.Duration]int32{0: 0, 1: 1, time.Millisecond: 1, 1500 * time.Microsecond: 2, time.Hour: 10_000} {
		if got := Told(d); got != want {
			t.Errorf("Told(%v) = %d, want %d", d, got, want)
		}
	}
	q := New("", nil)
	q.Set(Limits{Fetch: 1000})
	if got := q.Fetch.AtOnce(1 << 20); got != 10_000 {
		t.Errorf("a fetch of %d bytes may be asked for at once, want 10000", got)
	}
}

func TestTakingAllocatesNothing(t *testing.T) {
	q := New("", nil)
	q.Set(Limits{Produce: 1_000_000})
	if n := testing.AllocsPerRun(1000, func() { q.Produce.Take(1000) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
