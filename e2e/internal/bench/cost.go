package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The load of the figures that have a budget.
const (
	connections = 4
	inFlight    = 5
)

// A cost is the CPU that one request takes from what stands between client and
// broker.
type cost struct {
	name     string
	workload workload
	budget   float64 // of the gateway against HAProxy; 0: none
	goal     float64 // the budget to come
}

// costs has Produce of the last version by name, which sarama, librdkafka (10) and
// Java to 3.9 use, and by id, which Java from 4.0 on uses; Fetch likewise.
var costs = []cost{
	{"produce-1k", workload{int16(kmsg.Produce), 12, 1 << 10}, 1.5, 1.2},
	{"produce-1k-by-id", workload{int16(kmsg.Produce), 13, 1 << 10}, 1.5, 1.2},
	{"produce-64k", workload{int16(kmsg.Produce), 12, 64 << 10}, 1.4, 1.2},
	{"produce-64k-by-id", workload{int16(kmsg.Produce), 13, 64 << 10}, 1.4, 1.2},
	{"fetch-64k", workload{int16(kmsg.Fetch), 12, 64 << 10}, 0, 0},
	{"fetch-64k-by-id", workload{int16(kmsg.Fetch), 17, 64 << 10}, 0, 0},
}

// usage is what a server used under a load, round by round.
type usage struct {
	server *server
	id     int       // of its connections
	cpu    []float64 // microseconds per request
	rate   []float64 // requests per second
}

func (b *run) cost(ctx context.Context, c cost) error {
	var sides []*usage
	for _, s := range slices.Concat(b.gateways, []*server{b.haproxy}) {
		u := &usage{server: s}
		if err := b.load.call(ctx, "Load.Connect", ConnectArgs{s.target, c.workload, connections}, &u.id); err != nil {
			return err
		}
		sides = append(sides, u)
	}
	before, err := b.stubStats(ctx)
	if err != nil {
		return err
	}
	var sent int64
	for round := range b.Rounds + 1 {
		for _, u := range sides {
			span := b.RoundTime
			if round == 0 {
				span /= 3 // to warm up
			}
			r, used, err := b.saturate(ctx, u, span)
			if err != nil {
				return err
			}
			sent += r.Requests
			if round > 0 {
				u.cpu = append(u.cpu, float64(used.Nanoseconds())/1e3/float64(r.Requests))
				u.rate = append(u.rate, float64(r.Requests)/r.Elapsed.Seconds())
			}
		}
	}
	after, err := b.stubStats(ctx)
	if err != nil {
		return err
	}
	// What the clients were answered, the broker has done.
	if did := after.Produced + after.Fetched - before.Produced - before.Fetched; did != sent || after.Refused != before.Refused {
		return fmt.Errorf("clients had %d requests answered, the broker did %d and refused %d", sent, did, after.Refused-before.Refused)
	}
	if b.Profile != "" {
		if err := b.profile(ctx, sides[0]); err != nil {
			return err
		}
	}
	for _, u := range sides {
		if err := b.load.call(ctx, "Load.Disconnect", u.id, &struct{}{}); err != nil {
			return err
		}
	}
	b.report.addCost(c, sides)
	return nil
}

func (b *run) stubStats(ctx context.Context) (s StubStats, err error) {
	return s, b.stub.call(ctx, "Stub.Stats", struct{}{}, &s)
}

// saturate loads one side and returns what it used for that.
func (b *run) saturate(ctx context.Context, u *usage, span time.Duration) (r LoadResult, used time.Duration, err error) {
	before, err := cpuTime(u.server.process.PID())
	if err != nil {
		return r, 0, err
	}
	if err := b.load.call(ctx, "Load.Saturate", SaturateArgs{u.id, inFlight, span}, &r); err != nil {
		return r, 0, fmt.Errorf("through %s: %w", u.server.name, err)
	}
	after, err := cpuTime(u.server.process.PID())
	if err == nil && r.Requests == 0 {
		err = errors.New("no request was answered")
	}
	return r, after - before, err
}

// profile takes a CPU profile of the gateway under the load, after the figures,
// which it would disturb.
func (b *run) profile(ctx context.Context, u *usage) error {
	f, err := os.Create(b.Profile)
	if err != nil {
		return err
	}
	defer f.Close()
	done := make(chan error, 1)
	go func() {
		done <- get(ctx, fmt.Sprintf("%s/debug/pprof/profile?seconds=%.0f", u.server.admin, b.ProfileTime.Seconds()), f)
	}()
	_, _, err = b.saturate(ctx, u, b.ProfileTime+time.Second)
	return errors.Join(err, <-done, f.Close())
}
