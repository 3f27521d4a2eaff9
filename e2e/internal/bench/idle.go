package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// atOnce is how many of the idle connections send their one request at a time.
const atOnce = 50

// perAddress is how many idle connections come from one address of loopback.
const perAddress = 500

// IdleArgs say how many connections to hold, and what each carries when it is asked to.
type IdleArgs struct {
	Target      Target
	Workload    workload
	Connections int
	Parallel    int
}

// Idle opens connections, logs in, asks for metadata, and leaves them alone. It
// returns a number for them.
func (l *load) Idle(a IdleArgs, id *int) error {
	host, found, err := a.Target.toLeader()
	if err != nil {
		return err
	}
	lanes := make([]*lane, a.Connections)
	request, err := a.Workload.request(found)
	if err != nil {
		return err
	}
	want, err := a.Workload.answer(found)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(a.Parallel)
	for i := range lanes {
		g.Go(func() error {
			from := &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+i/perAddress/250), byte(1+i/perAddress%250))}
			c, err := a.Target.connect(host, from)
			if err != nil {
				return fmt.Errorf("connection %d of %d: %w", i+1, a.Connections, err)
			}
			c.SetDeadline(time.Now().Add(timeLimit))
			if _, _, err := a.Target.metadata(c); err != nil {
				return fmt.Errorf("connection %d of %d: %w", i+1, a.Connections, err)
			}
			lanes[i] = &lane{conn: c, request: request, want: want, next: c.correlationID + 1}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	*id = len(l.lanes)
	l.lanes[*id] = lanes
	return nil
}

// Once sends one request on each connection, on several at a time.
func (l *load) Once(id int, result *LoadResult) error {
	var g errgroup.Group
	g.SetLimit(atOnce)
	start := time.Now()
	lanes := l.get(id)
	for i, c := range lanes {
		g.Go(func() error {
			c.SetDeadline(time.Now().Add(timeLimit))
			// Connections share the bytes of the request.
			own := *c
			own.request = slices.Clone(c.request)
			if err := own.send(); err != nil {
				return fmt.Errorf("connection %d: send: %w", i+1, err)
			}
			if err := own.await(); err != nil {
				return fmt.Errorf("connection %d: await an answer: %w", i+1, err)
			}
			return nil
		})
	}
	result.Requests = int64(len(lanes))
	err := g.Wait()
	result.Elapsed = time.Since(start)
	return err
}

// idleness is what idle connections cost.
type idleness struct {
	name                     string
	connections              int
	fresh, collected, served int64   // bytes of memory more than before the first connection
	upstream, afterwards     int64   // connections to the broker
	silence                  float64 // cores that are busy while nobody asks for anything
}

func (b *run) idle(ctx context.Context) error {
	var sides []*idleness
	for _, name := range []string{"tollgate", "haproxy"} {
		side, err := b.idleBehind(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		sides = append(sides, side)
	}
	b.report.addIdle(sides)
	return nil
}

func (b *run) idleBehind(ctx context.Context, name string) (*idleness, error) {
	// Processes that have done nothing yet: memory that was needed before and is
	// free now would hide what connections take. And a broker of their own, which
	// counts connections.
	broker, address, err := b.startStub(ctx, mainCluster, theTopic)
	if err != nil {
		return nil, err
	}
	var s *server
	if name == "haproxy" {
		s, _, err = b.startHAProxy(ctx, name+"-idle", address.Plaintext)
	} else {
		s, err = b.startGateway(ctx, name+"-idle", b.Gateway, partnerResources(address.Plaintext))
	}
	if err != nil {
		return nil, err
	}
	settled := func() (int64, error) {
		select { // time for what is asynchronous in either
		case <-time.After(2 * b.RoundTime):
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		return residentBytes(s.process.PID())
	}
	side := &idleness{name: name, connections: b.Idle}
	args := IdleArgs{s.target, costs[0].workload, atOnce, 8}
	var id int
	if err := b.load.call(ctx, "Load.Idle", args, &id); err != nil {
		return nil, err // to have the program itself in memory
	}
	if err := b.load.call(ctx, "Load.Disconnect", id, &struct{}{}); err != nil {
		return nil, err
	}
	before, err := settled()
	if err != nil {
		return nil, err
	}
	upstream := func() (int64, error) {
		var stats StubStats
		err := broker.call(ctx, "Stub.Stats", struct{}{}, &stats)
		return stats.Open, err
	}
	args.Connections = b.Idle
	if err := b.load.call(ctx, "Load.Idle", args, &id); err != nil {
		return nil, err
	}
	if side.fresh, err = settled(); err != nil {
		return nil, err
	}
	if side.upstream, err = upstream(); err != nil {
		return nil, err
	}
	if s.admin != "" {
		if err := get(ctx, s.admin+"/debug/pprof/heap?gc=1", io.Discard); err != nil {
			return nil, err
		}
	}
	if side.collected, err = settled(); err != nil {
		return nil, err
	}
	if side.silence, err = busyCores(s.process.PID(), settled); err != nil {
		return nil, err
	}
	var r LoadResult
	if err := b.load.call(ctx, "Load.Once", id, &r); err != nil {
		return nil, err
	}
	if side.served, err = settled(); err != nil {
		return nil, err
	}
	if side.afterwards, err = upstream(); err != nil {
		return nil, err
	}
	side.fresh, side.collected, side.served = side.fresh-before, side.collected-before, side.served-before
	return side, b.load.call(ctx, "Load.Disconnect", id, &struct{}{})
}

// busyCores is how many cores a process keeps busy while wait lasts.
func busyCores(pid int, wait func() (int64, error)) (float64, error) {
	start := time.Now()
	before, err := cpuTime(pid)
	if err != nil {
		return 0, err
	}
	if _, err := wait(); err != nil {
		return 0, err
	}
	after, err := cpuTime(pid)
	return float64(after-before) / float64(time.Since(start)), err
}
