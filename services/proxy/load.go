package proxy

import (
	"context"
	"runtime"
	"syscall"
	"time"

	"tollgate.internal/services/proxy/internal/balance"
)

// measureEvery is over how long the load of the node is taken.
const measureEvery = 5 * time.Second

// measure keeps the node's load and weight as they are.
func (g *gateway) measure(ctx context.Context) {
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	var w balance.Weigher
	used, at := processorTime(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		nowUsed, now := processorTime(), time.Now()
		load := float64(nowUsed-used) / float64(now.Sub(at)) / float64(runtime.GOMAXPROCS(0))
		used, at = nowUsed, now
		load = min(max(load, 0), 1)
		g.leaving.loaded(load, w.Weigh(now, load))
	}
}

// processorTime is what the process has used since it began.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
