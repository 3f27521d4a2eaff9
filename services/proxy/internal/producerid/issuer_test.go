package producerid

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// fakeSource gives the leases 0, 1, 2, … or its error.
type fakeSource struct {
	mu        sync.Mutex
	next      Lease
	err       error
	tries     []time.Time
	confirmed []Lease
	forgotten int
	closed    bool
}

func (f *fakeSource) Take(context.Context) (Lease, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tries = append(f.tries, time.Now())
	if f.err != nil {
		return 0, f.err
	}
	f.next++
	return f.next - 1, nil
}

func (f *fakeSource) Confirm(_ context.Context, leases []Lease) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.confirmed = leases
	return f.forgotten, f.err
}

func (f *fakeSource) String() string { return "fake" }

func (f *fakeSource) Close() error { f.closed = true; return nil }

func (f *fakeSource) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.tries = err, nil
}

func (f *fakeSource) forget(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgotten = n
}

// issuing runs an issuer with leases of perLease ids on a fake clock.
func issuing(t *testing.T, perLease int, f func(t *testing.T, i *Issuer, source *fakeSource, log *bytes.Buffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		source, log := new(fakeSource), new(bytes.Buffer)
		i := NewIssuer(source, 7, slog.New(slog.NewTextHandler(log, nil)))
		i.perLease = perLease
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { i.Run(ctx) })
		synctest.Wait()
		f(t, i, source, log)
		cancel()
		wg.Wait()
		if !source.closed {
			t.Error("the source was not closed")
		}
	})
}

// issue wants an id of a lease.
func issue(t *testing.T, i *Issuer, lease Lease) {
	t.Helper()
	id, err := i.Issue("acme")
	if err != nil {
		t.Fatalf("Issue: %v", err)
	}
	if want := newBlock(7, lease).first >> counterBits; id>>counterBits != want {
		t.Fatalf("id %#x, want one of lease %d", id, lease)
	}
}

func TestTheNextLeaseIsFetchedWhenHalfOfOneIsGiven(t *testing.T) {
	issuing(t, 10, func(t *testing.T, i *Issuer, source *fakeSource, _ *bytes.Buffer) {
		for n := range 5 {
			issue(t, i, 0)
			synctest.Wait()
			if source.next != 1 {
				t.Fatalf("%d leases after %d of 10 ids", source.next, n+1)
			}
		}
		issue(t, i, 0)
		synctest.Wait()
		if source.next != 2 {
			t.Fatalf("%d leases after 6 of 10 ids, want 2", source.next)
		}
		for range 4 {
			issue(t, i, 0)
		}
		issue(t, i, 1)
		if s := i.Stats(); s.Leases != 2 || s.Issued != 11 || s.Without != 0 || s.Missing != nil {
			t.Errorf("figures %+v", s)
		}
	})
}

// A source that is down is not noticed by producers before everything that the
// node holds is given, and soon after it is back.
func TestASourceThatIsDown(t *testing.T) {
	issuing(t, 10, func(t *testing.T, i *Issuer, source *fakeSource, log *bytes.Buffer) {
		down := errors.New("connection refused")
		source.fail(down)
		for range 10 {
			issue(t, i, 0)
			synctest.Wait()
		}
		if got := log.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, "going on with what is held") {
			t.Errorf("log:\n%s", got)
		}
		for range 100 {
			if id, err := i.Issue("acme"); !errors.Is(err, ErrNoLease) || !errors.Is(err, down) || id != 0 {
				t.Fatalf("Issue: %d, %v, want none and why", id, err)
			}
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := i.Stats(); s.Missing == nil || s.Missing.Error() != "no lease for producer ids from fake: connection refused" || s.Without != time.Hour {
			t.Errorf("figures %+v", s)
		}
		if n := len(source.tries); n < 3600 || n > 2*3600+10 {
			t.Errorf("the source was asked %d times in an hour", n)
		}
		if log.Len() > 4000 {
			t.Errorf("%d bytes of log in an hour without a source", log.Len())
		}
		source.fail(nil)
		time.Sleep(maxPause)
		synctest.Wait()
		issue(t, i, 1)
		if s := i.Stats(); s.Missing != nil || s.Without <= time.Hour || s.Without > time.Hour+maxPause {
			t.Errorf("figures %+v", s)
		}
	})
}

func TestASourceThatIsDownAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, log := &fakeSource{err: errors.New("read-only file system")}, new(bytes.Buffer)
		i := NewIssuer(source, 7, slog.New(slog.NewTextHandler(log, nil)))
		if _, err := i.Issue("acme"); !errors.Is(err, ErrNoLease) {
			t.Errorf("Issue before Run: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go i.Run(ctx)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := log.String(); strings.Count(got, "level=ERROR") != 1 || strings.Count(got, "read-only file system") != 1 {
			t.Errorf("log:\n%s", got)
		}
		source.fail(nil)
		time.Sleep(maxPause)
		synctest.Wait()
		issue(t, i, 0)
	})
}

func TestOneVirtualClusterGetsSoManyIDsPerSecond(t *testing.T) {
	issuing(t, PerLease, func(t *testing.T, i *Issuer, _ *fakeSource, _ *bytes.Buffer) {
		given := func() (n int) {
			for {
				_, err := i.Issue("acme")
				if errors.Is(err, ErrTooFast) {
					return n
				}
				if err != nil {
					t.Fatal(err)
				}
				n++
			}
		}
		if n := given(); n != 1000 {
			t.Errorf("%d ids at once, want 1000", n)
		}
		time.Sleep(500 * time.Millisecond)
		if n := given(); n != 50 {
			t.Errorf("%d ids after half a second, want 50", n)
		}
		if _, err := i.Issue("globex"); err != nil {
			t.Errorf("another virtual cluster: %v", err)
		}
		time.Sleep(time.Hour)
		if n := given(); n != 1000 {
			t.Errorf("%d ids at once after an hour, want 1000", n)
		}
	})
}

func TestTheSourceIsRemindedOfLeases(t *testing.T) {
	issuing(t, 2, func(t *testing.T, i *Issuer, source *fakeSource, log *bytes.Buffer) {
		issue(t, i, 0)
		issue(t, i, 0)
		time.Sleep(confirmEvery + time.Second)
		synctest.Wait()
		if fmt.Sprint(source.confirmed) != "[0 1]" {
			t.Errorf("confirmed %v, want [0 1]", source.confirmed)
		}
		if strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("log:\n%s", log)
		}
		source.forget(2)
		time.Sleep(confirmEvery)
		synctest.Wait()
		if got := log.String(); strings.Count(got, "level=ERROR") != 1 || !strings.Contains(got, "had forgotten leases") || !strings.Contains(got, "forgotten=2") {
			t.Errorf("log:\n%s", got)
		}
	})
}

// run starts an issuer on a real source.
func run(t *testing.T, ref string, perLease int) *Issuer {
	t.Helper()
	source, err := Open(ref, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	i := NewIssuer(source, 0, slog.New(slog.NewTextHandler(t.Output(), nil)))
	i.perLease = perLease
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { i.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return i
}

// next waits for an id.
func next(t *testing.T, i *Issuer, vc string) int64 {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		id, err := i.Issue(vc)
		if err == nil {
			return id
		}
		select {
		case <-ctx.Done():
			t.Errorf("no id: %v", err)
			return -1
		case <-time.After(time.Millisecond):
		}
	}
}

func TestIssuersShareNoID(t *testing.T) {
	for name, start := range sources(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ref := start(t)
			var mu sync.Mutex
			given := make(map[int64]bool)
			var wg sync.WaitGroup
			for range 3 {
				i := run(t, ref, 500)
				for g := range 8 {
					wg.Go(func() {
						ids := make([]int64, 0, 900)
						for range cap(ids) {
							ids = append(ids, next(t, i, fmt.Sprint(g)))
						}
						mu.Lock()
						defer mu.Unlock()
						for _, id := range ids {
							if given[id] || id < 1<<52 || id >= 1<<53 {
								t.Errorf("id %#x again, or out of range", id)
							}
							given[id] = true
						}
					})
				}
			}
			wg.Wait()
			if len(given) != 3*8*900 {
				t.Errorf("%d ids", len(given))
			}
		})
	}
}

// taken is how many leases a Redis knows of.
func (r *redisServer) taken(t *testing.T) int64 {
	return r.do(t, "bitcount", redisKey(0)).(int64)
}

// Whatever a Redis forgets, it knows the leases of running nodes again, and those
// who come later stay clear of them.
func TestARedisThatForgets(t *testing.T) {
	for name, forget := range map[string]func(t *testing.T, r *redisServer){
		"flushed": func(t *testing.T, r *redisServer) { r.do(t, "flushall") },
		"restarted without its data": func(t *testing.T, r *redisServer) {
			r.kill()
			if err := os.Remove(filepath.Join(r.dir, "dump.rdb")); err != nil {
				t.Fatal(err)
			}
			r.start(t)
		},
		"restarted from an old copy": func(t *testing.T, r *redisServer) {
			r.kill() // what was written after the copy was made is lost
			r.start(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startRedis(t)
			first := run(t, r.url(), 4)
			given := make(map[int64]bool)
			take := func(i *Issuer, n int) {
				for range n {
					id := next(t, i, "acme")
					if given[id] {
						t.Errorf("id %#x again", id)
					}
					given[id] = true
				}
			}
			take(first, 3)
			r.do(t, "save") // the old copy
			take(first, 40)
			before := r.taken(t)
			forget(t, r)
			if now := r.taken(t); now >= before {
				t.Fatalf("%d leases are known of %d: nothing was forgotten", now, before)
			}
			take(first, 40) // it goes on at once
			first.confirm(t.Context())
			// A lease may be on its way to the node.
			ctx := within(t, 20*time.Second)
			for now, held := int64(0), uint64(1); now != int64(held); now, held = r.taken(t), first.Stats().Leases {
				if ctx.Err() != nil {
					t.Fatalf("%d leases are known, %d are held", now, held)
				}
			}
			take(run(t, r.url(), 4), 40)
		})
	}
}

// A node without Redis goes on with what it holds; one that starts then has
// nothing and says why; both go on when Redis is back.
func TestARedisThatIsDown(t *testing.T) {
	for name, fault := range map[string]struct {
		begin, end func(t *testing.T, r *redisServer)
		why        string
	}{
		"killed": {
			func(_ *testing.T, r *redisServer) { r.kill() },
			func(t *testing.T, r *redisServer) { r.start(t) },
			"connection refused",
		},
		"stopped": {
			func(_ *testing.T, r *redisServer) { r.cmd.Process.Signal(syscall.SIGSTOP) },
			func(_ *testing.T, r *redisServer) { r.cmd.Process.Signal(syscall.SIGCONT) },
			"deadline exceeded",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startRedis(t)
			old := run(t, r.url(), PerLease)
			given := map[int64]bool{next(t, old, "acme"): true}
			fault.begin(t, r)
			began := time.Now()
			for range 900 {
				id, err := old.Issue("acme")
				if err != nil || given[id] {
					t.Fatalf("Issue: %#x, %v", id, err)
				}
				given[id] = true
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("900 ids took %v: somebody waited for Redis", took)
			}
			young := run(t, r.url(), PerLease)
			ctx := within(t, 30*time.Second)
			for {
				_, err := young.Issue("acme")
				if err == nil {
					t.Fatal("an id without a lease")
				}
				if strings.Contains(err.Error(), fault.why) {
					break
				}
				select {
				case <-ctx.Done():
					t.Fatalf("Issue: %v, want one that says %s", err, fault.why)
				case <-time.After(10 * time.Millisecond):
				}
			}
			fault.end(t, r)
			if id := next(t, young, "acme"); given[id] {
				t.Errorf("id %#x again", id)
			}
		})
	}
}
