package producerid

import (
	"bufio"
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// sources are all kinds of Source; each call of open is another process's view of
// the same record.
func sources(t *testing.T) map[string]func(t *testing.T) (ref string) {
	return map[string]func(t *testing.T) string{
		"file":     func(t *testing.T) string { return "file:" + filepath.Join(t.TempDir(), "ids") },
		"redis":    func(t *testing.T) string { return startRedis(t).url() },
		"sentinel": startSentinel,
		"cluster":  startCluster,
	}
}

func open(t *testing.T, ref string) Source {
	t.Helper()
	s, err := Open(ref, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSourcesKeepTheirPromise(t *testing.T) {
	for name, start := range sources(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ref := start(t)
			var mu sync.Mutex
			taken := make(map[Lease]bool)
			var wg sync.WaitGroup
			for range 3 {
				s := open(t, ref)
				for range 4 {
					wg.Go(func() {
						for range 10 {
							l, err := s.Take(t.Context())
							if err != nil {
								t.Errorf("Take: %v", err)
								return
							}
							mu.Lock()
							if taken[l] || l >= Leases {
								t.Errorf("lease %d, of %d, again or out of range", l, len(taken))
							}
							taken[l] = true
							mu.Unlock()
						}
					})
				}
			}
			wg.Wait()
			s := open(t, ref)
			all := make([]Lease, 0, len(taken))
			for l := range taken {
				all = append(all, l)
			}
			if n, err := s.Confirm(t.Context(), all); n != 0 || err != nil {
				t.Errorf("Confirm of what was taken: %d forgotten, %v, want none", n, err)
			}
			var foreign Lease
			for taken[foreign] {
				foreign++
			}
			for _, want := range []int{1, 0} {
				if n, err := s.Confirm(t.Context(), []Lease{foreign}); n != want || err != nil {
					t.Errorf("Confirm of a lease that the source does not know: %d forgotten, %v, want %d", n, err, want)
				}
			}
		})
	}
}

// Dense is what no deployment becomes in years; the way there must not end before.
func TestSourcesGiveTheLastLeaseAndThenNone(t *testing.T) {
	for name, fill := range map[string]func(t *testing.T, all leaseSet) (ref string){
		"file": func(t *testing.T, all leaseSet) string {
			path := filepath.Join(t.TempDir(), "ids")
			if err := writeLeases(path, all); err != nil {
				t.Fatal(err)
			}
			return "file:" + path
		},
		"redis": func(t *testing.T, all leaseSet) string {
			r := startRedis(t)
			s := open(t, r.url()).(*redisSource)
			if err := s.client.Set(t.Context(), s.key, string(all), 0).Err(); err != nil {
				t.Fatal(err)
			}
			return r.url()
		},
	} {
		t.Run(name, func(t *testing.T) {
			all := make(leaseSet, leaseSetBytes)
			for i := range all {
				all[i] = 0xff
			}
			all[4711] = 0xfb
			s := open(t, fill(t, all))
			if l, err := s.Take(t.Context()); err != nil || l != 4711*8+5 {
				t.Errorf("Take: %d, %v, want %d", l, err, 4711*8+5)
			}
			if _, err := s.Take(t.Context()); err == nil || !strings.Contains(err.Error(), "choose a deployment number") {
				t.Errorf("Take of none: %v, want ErrExhausted", err)
			}
		})
	}
}

// Processes that are killed while they take leases have each their own, and what
// one of them may have used is recorded.
func TestKilledProcessesShareNoLease(t *testing.T) {
	for name, start := range sources(t) {
		if name == "sentinel" || name == "cluster" {
			continue // the same commands on a server of the same kind
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ref := start(t)
			owner := make(map[Lease]int)
			for round := range 8 {
				var held [2][]Lease
				var wg sync.WaitGroup
				for i := range held {
					cmd := child("take", ref)
					cmd.Stderr = t.Output()
					out, err := cmd.StdoutPipe()
					if err != nil {
						t.Fatal(err)
					}
					if err := cmd.Start(); err != nil {
						t.Fatal(err)
					}
					wg.Go(func() {
						lines := bufio.NewScanner(out)
						for lines.Scan() {
							l, err := strconv.ParseUint(lines.Text(), 10, 22)
							if err != nil {
								continue // killed within the line
							}
							if held[i] = append(held[i], Lease(l)); len(held[i]) == 5+3*round {
								cmd.Process.Kill()
							}
						}
						cmd.Wait()
						if len(held[i]) < 5 {
							t.Errorf("the process ended after %d leases", len(held[i]))
						}
					})
				}
				wg.Wait()
				for i, leases := range held {
					for _, l := range leases {
						if before, again := owner[l]; again {
							t.Errorf("lease %d of process %d was process %d's", l, 2*round+i, before)
						}
						owner[l] = 2*round + i
					}
				}
			}
			all := make([]Lease, 0, len(owner))
			for l := range owner {
				all = append(all, l)
			}
			if n, err := open(t, ref).Confirm(t.Context(), all); n != 0 || err != nil {
				t.Errorf("%d of %d leases are not recorded, %v", n, len(all), err)
			}
		})
	}
}

// within bounds a wait.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, fmt.Errorf("not within %v", d))
	t.Cleanup(cancel)
	return ctx
}
