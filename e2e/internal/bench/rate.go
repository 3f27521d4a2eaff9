package bench

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
)

// RateArgs say how many requests a second to send, over all connections, however
// fast they are answered.
type RateArgs struct {
	ID        int
	PerSecond float64
	For       time.Duration
}

// RateResult has the time each answer took, from the moment its request was to be
// sent: a stall counts for every request that it held up, not for one of them.
type RateResult struct {
	Took []time.Duration
}

// Rate sends requests by the clock.
func (l *load) Rate(a RateArgs, result *RateResult) error {
	lanes := l.get(a.ID)
	each := time.Duration(float64(time.Second) * float64(len(lanes)) / a.PerSecond)
	count := int(a.For / each)
	var g errgroup.Group
	var mu sync.Mutex
	start := time.Now().Add(10 * time.Millisecond)
	for i, c := range lanes {
		first := start.Add(each * time.Duration(i) / time.Duration(len(lanes)))
		c.SetDeadline(first.Add(a.For + timeLimit))
		g.Go(func() error {
			// The runtime's timers may be a millisecond late; the kernel's are not.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for n := range count {
				for wait := time.Until(first.Add(each * time.Duration(n))); wait > 0; wait = 0 {
					t := syscall.NsecToTimespec(wait.Nanoseconds())
					syscall.Nanosleep(&t, nil) // cut short by a signal, a request leaves early by that much
				}
				if err := c.send(); err != nil {
					return fmt.Errorf("send: %w", err)
				}
			}
			return nil
		})
		g.Go(func() error {
			took := make([]time.Duration, count)
			for n := range took {
				if err := c.await(); err != nil {
					return fmt.Errorf("await an answer: %w", err)
				}
				took[n] = time.Since(first.Add(each * time.Duration(n)))
			}
			mu.Lock()
			defer mu.Unlock()
			result.Took = append(result.Took, took...)
			return nil
		})
	}
	return g.Wait()
}

// A pace is a workload at a rate that no side has trouble with.
type pace struct {
	name      string
	workload  workload
	perSecond float64
}

var paces = []pace{
	{"latency-1k", workload{Key: int16(kmsg.Produce), Version: 12, Bytes: 1 << 10}, 1000},
	{"latency-64k", workload{Key: int16(kmsg.Produce), Version: 12, Bytes: 64 << 10}, 200},
}

// timing is what a side took.
type timing struct {
	target Target
	server *server // nil: no proxy
	id     int
	took   []time.Duration
	cpu    []float64 // microseconds per request
}

func (b *run) latency(ctx context.Context, p pace) error {
	direct := Target{Name: "no proxy, plaintext", Addr: b.address.Plaintext, Topic: physicalName}
	encrypted := Target{Name: "no proxy, TLS", Addr: b.address.TLS, Host: stubHost, CA: b.pki.ca.PEM, Topic: physicalName}
	sides := []*timing{{target: direct}, {target: encrypted}, {target: b.haproxy.target, server: b.haproxy}}
	for _, g := range b.gateways {
		sides = append(sides, &timing{target: g.target, server: g})
	}
	for _, s := range sides {
		if err := b.load.call(ctx, "Load.Connect", ConnectArgs{s.target, p.workload, connections}, &s.id); err != nil {
			return err
		}
		if err := b.load.call(ctx, "Load.Saturate", SaturateArgs{s.id, inFlight, b.RoundTime / 5}, &LoadResult{}); err != nil {
			return err // to warm up
		}
	}
	for range b.Rounds {
		for _, s := range sides {
			if err := b.rate(ctx, s, RateArgs{s.id, p.perSecond, b.RoundTime}); err != nil {
				return fmt.Errorf("%s: %w", s.target.Name, err)
			}
		}
	}
	for _, s := range sides {
		if err := b.load.call(ctx, "Load.Disconnect", s.id, &struct{}{}); err != nil {
			return err
		}
		slices.Sort(s.took)
	}
	b.report.addLatency(p, sides)
	return nil
}

func (b *run) rate(ctx context.Context, s *timing, args RateArgs) (err error) {
	var before, after time.Duration
	if s.server != nil {
		if before, err = cpuTime(s.server.process.PID()); err != nil {
			return err
		}
	}
	var r RateResult
	if err := b.load.call(ctx, "Load.Rate", args, &r); err != nil {
		return err
	}
	if len(r.Took) == 0 {
		return fmt.Errorf("no request in %v at %.0f a second", args.For, args.PerSecond)
	}
	s.took = append(s.took, r.Took...)
	if s.server != nil {
		if after, err = cpuTime(s.server.process.PID()); err != nil {
			return err
		}
		s.cpu = append(s.cpu, float64((after-before).Nanoseconds())/1e3/float64(len(r.Took)))
	}
	return nil
}

// quantile of sorted values: the smallest that at least the share q does not exceed.
func quantile(sorted []time.Duration, q float64) time.Duration {
	i := int(q*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}
