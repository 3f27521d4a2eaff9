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
	{"produce-1k", workload{Key: int16(kmsg.Produce), Version: 12, Bytes: 1 << 10}, 1.5, 1.2},
	{"produce-1k-by-id", workload{Key: int16(kmsg.Produce), Version: 13, Bytes: 1 << 10}, 1.5, 1.2},
	{"produce-64k", workload{Key: int16(kmsg.Produce), Version: 12, Bytes: 64 << 10}, 1.4, 1.2},
	{"produce-64k-by-id", workload{Key: int16(kmsg.Produce), Version: 13, Bytes: 64 << 10}, 1.4, 1.2},
	{"fetch-64k", workload{Key: int16(kmsg.Fetch), Version: 12, Bytes: 64 << 10}, 0, 0},
	{"fetch-64k-by-id", workload{Key: int16(kmsg.Fetch), Version: 17, Bytes: 64 << 10}, 0, 0},
}

// usage is what a side used under a load, round by round.
type usage struct {
	target Target
	server *server   // what stands before the broker; nil: nothing
	id     int       // of its connections
	cpu    []float64 // microseconds per request
	rate   []float64 // requests per second
}

func (b *run) cost(ctx context.Context, c cost) error {
	var sides []*usage
	for _, s := range slices.Concat(b.gateways, []*server{b.haproxy}) {
		sides = append(sides, &usage{target: s.target, server: s})
	}
	if err := b.checked(ctx, c.workload, sides, b.stub); err != nil {
		return err
	}
	b.report.addCost(c, sides)
	return nil
}

// checked is compare with what the stub brokers did counted too: it must be what
// the clients were answered.
func (b *run) checked(ctx context.Context, w workload, sides []*usage, stubs ...*child) error {
	var before, after StubStats
	for _, stub := range stubs {
		if err := before.add(ctx, stub); err != nil {
			return err
		}
	}
	sent, err := b.compare(ctx, w, sides, connections, inFlight)
	if err != nil {
		return err
	}
	for _, stub := range stubs {
		if err := after.add(ctx, stub); err != nil {
			return err
		}
	}
	if did := after.Produced + after.Fetched - before.Produced - before.Fetched; did != sent || after.Refused != before.Refused {
		return fmt.Errorf("clients had %d requests answered, the broker did %d and refused %d", sent, did, after.Refused-before.Refused)
	}
	return nil
}

// add adds what a stub has seen so far.
func (s *StubStats) add(ctx context.Context, stub *child) error {
	one, err := stubStats(ctx, stub)
	if err != nil {
		return err
	}
	s.Produced, s.Fetched, s.Refused = s.Produced+one.Produced, s.Fetched+one.Fetched, s.Refused+one.Refused
	return nil
}

func stubStats(ctx context.Context, stub *child) (s StubStats, err error) {
	return s, stub.call(ctx, "Stub.Stats", struct{}{}, &s)
}

// compare loads the sides in turns, and returns how many requests were answered.
func (b *run) compare(ctx context.Context, w workload, sides []*usage, connections, inFlight int) (answered int64, err error) {
	for _, u := range sides {
		err := awaited(ctx, func() error {
			return b.load.call(ctx, "Load.Connect", ConnectArgs{u.target, w, connections}, &u.id)
		})
		if err != nil {
			return 0, fmt.Errorf("%s: %w", u.target.Name, err)
		}
	}
	for round := range b.Rounds + 1 {
		for _, u := range sides {
			args := SaturateArgs{u.id, inFlight, b.RoundTime}
			if round == 0 {
				args.For /= 3 // to warm up
			}
			r, used, err := b.saturate(ctx, u, args)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", u.target.Name, err)
			}
			answered += r.Requests
			if round > 0 {
				u.rate = append(u.rate, float64(r.Requests)/r.Elapsed.Seconds())
				if u.server != nil {
					u.cpu = append(u.cpu, microseconds(used)/float64(r.Requests))
				}
			}
		}
	}
	if i := slices.IndexFunc(sides, func(u *usage) bool { return u.server != nil && u.server.admin != "" }); b.Profile != "" && i >= 0 {
		args := SaturateArgs{sides[i].id, inFlight, b.ProfileTime + time.Second}
		err := b.profile(ctx, sides[i].server.admin, func() error {
			r, _, err := b.saturate(ctx, sides[i], args)
			answered += r.Requests
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	for _, u := range sides {
		if err := b.load.call(ctx, "Load.Disconnect", u.id, &struct{}{}); err != nil {
			return 0, err
		}
	}
	return answered, nil
}

// awaited tries for a while what works as soon as topics and groups have leaders
// that everybody knows.
func awaited(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 3*timeLimit)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// saturate loads one side and returns what it used for that.
func (b *run) saturate(ctx context.Context, u *usage, args SaturateArgs) (r LoadResult, used time.Duration, err error) {
	var before, after time.Duration
	if u.server != nil {
		if before, err = cpuTime(u.server.process.PID()); err != nil {
			return r, 0, err
		}
	}
	if err := b.load.call(ctx, "Load.Saturate", args, &r); err != nil {
		return r, 0, err
	}
	if r.Requests == 0 {
		return r, 0, errors.New("no request was answered")
	}
	if u.server != nil {
		after, err = cpuTime(u.server.process.PID())
	}
	return r, after - before, err
}

// profile takes a CPU profile of a gateway under a load, after the figures, which
// it would disturb.
func (b *run) profile(ctx context.Context, admin string, load func() error) error {
	f, err := os.Create(b.Profile)
	if err != nil {
		return err
	}
	defer f.Close()
	done := make(chan error, 1)
	go func() {
		done <- get(ctx, fmt.Sprintf("%s/debug/pprof/profile?seconds=%.0f", admin, b.ProfileTime.Seconds()), f)
	}()
	return errors.Join(load(), <-done, f.Close())
}
