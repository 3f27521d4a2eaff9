package bench

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/resource"
)

// nodeFigures are about one node, and how many virtual clusters it could serve.
type nodeFigures struct {
	written            time.Duration // of all of them, into Redis
	redis              int64         // bytes that it then has
	emptyReady, ready  []float64     // microseconds until clients are let in
	emptyRSS, rss      []float64     // bytes then
	first, second      []time.Duration
	resident, heap     int64   // bytes more than before, when the virtual clusters are loaded
	silence, unsettled float64 // cores that are busy with them, and without
}

// bundles measures a node whose Redis holds many virtual clusters.
func (b *run) bundles(ctx context.Context) error {
	const full, empty fleet.Deployment = "full", "empty"
	n, err := b.startRedis(ctx, "bundles")
	if err != nil {
		return err
	}
	b.Loaded = min(b.Loaded, b.Bundles-1)
	var f nodeFigures
	b.Progress("writing %d bundles", b.Bundles)
	began := time.Now()
	if err := b.writeBundles(ctx, n, full, b.Bundles); err != nil {
		return err
	}
	f.written = time.Since(began)
	if err := b.writeBundles(ctx, n, empty, 0); err != nil {
		return err
	}
	if f.redis, err = residentBytes(n.server.process.PID()); err != nil {
		return err
	}
	b.Progress("written in %v; starting nodes", f.written)
	var node *server
	for round := range b.Rounds {
		for _, d := range []fleet.Deployment{empty, full} {
			own := len(b.closing)
			began := time.Now()
			s, err := b.startNode(fmt.Sprintf("node-%s-%d", d, round), n, d)
			if err != nil {
				return err
			}
			took, err := s.ready(ctx, began)
			if err != nil {
				return err
			}
			rss, err := residentBytes(s.process.PID())
			if err != nil {
				return err
			}
			if d == empty {
				f.emptyReady, f.emptyRSS = append(f.emptyReady, microseconds(took)), append(f.emptyRSS, float64(rss))
			} else {
				f.ready, f.rss = append(f.ready, microseconds(took)), append(f.rss, float64(rss))
			}
			if d == full && round == b.Rounds-1 {
				node = s // it serves what follows
				continue
			}
			if err := b.close(own); err != nil {
				return err
			}
		}
	}
	b.Progress("loading %d virtual clusters", b.Loaded)
	if err := b.loadClusters(ctx, node, &f); err != nil {
		return err
	}
	b.report.addNode(&f, b.Bundles, b.Loaded)
	return nil
}

// writeBundles publishes a deployment with so many virtual clusters, as portals do.
func (b *run) writeBundles(ctx context.Context, n *notices, deployment fleet.Deployment, count int) error {
	t, err := newTenancy(b.address.Plaintext)
	if err != nil {
		return err
	}
	verifier, err := passwordVerifier()
	if err != nil {
		return err
	}
	for _, o := range t {
		if a, ok := o.(*resource.ServiceAccount); ok {
			a.Spec.Verifiers = []resource.Verifier{verifier}
		}
	}
	p, err := b.publisher(n, deployment)
	if err != nil {
		return err
	}
	publish := func(bundles ...*bundle.Bundle) error {
		changes := make([]fleet.Change, len(bundles))
		for i, one := range bundles {
			changes[i] = fleet.Change{ID: one.ID, Revision: one.Revision}
		}
		if err := p.Put(ctx, bundles...); err != nil {
			return err
		}
		return p.Announce(ctx, changes...)
	}
	if err := publish(&bundle.Bundle{
		Deployment: string(deployment), ID: bundle.ID{Kind: bundle.UpstreamCluster, Name: mainCluster}, Revision: 1,
		Objects: bundle.Objects{upstreamObject(b.address.Plaintext)},
	}); err != nil {
		return err
	}
	const page = 200
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for from := 0; from < count; from += page {
		g.Go(func() error {
			var some []*bundle.Bundle
			for i := from; i < min(from+page, count); i++ {
				some = append(some, &bundle.Bundle{
					Deployment: string(deployment), ID: bundle.ID{Kind: bundle.VirtualCluster, Name: virtualClusterOf(i)},
					Revision: int64(2 + i), Objects: t.of(i),
				})
			}
			return publish(some...)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return p.SetHead(ctx, int64(2+count))
}

// loadersAtOnce is how many clients come at a time where nobody looks how long they
// wait.
const loadersAtOnce = 8

// visit is a client that comes, asks for its topic, and leaves.
func (s *server) visit(tenant int) (time.Duration, error) {
	target := s.of(tenant)
	began := time.Now()
	c, err := target.connect(target.Host, &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(1+tenant%200))})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	sees, err := c.sees(aliasName)
	took := time.Since(began)
	if err == nil && !sees {
		err = fmt.Errorf("%s: the client does not see its topic", target.Host)
	}
	return took, err
}

// loadClusters has the first clients come.
func (b *run) loadClusters(ctx context.Context, s *server, f *nodeFigures) error {
	settled := func() (int64, error) {
		select {
		case <-time.After(2 * b.RoundTime):
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		return residentBytes(s.process.PID())
	}
	// The program itself is to be in memory, and what connections need.
	for range 2 * loadersAtOnce {
		if _, err := s.visit(0); err != nil {
			return err
		}
	}
	before, err := heapBytes(ctx, s.admin)
	if err != nil {
		return err
	}
	if f.unsettled, err = busyCores(s.process.PID(), settled); err != nil {
		return err
	}
	resident, err := residentBytes(s.process.PID())
	if err != nil {
		return err
	}
	next := 1
	for ; next <= b.Loaded/5 && ctx.Err() == nil; next++ {
		first, err := s.visit(next)
		if err != nil {
			return err
		}
		second, err := s.visit(next)
		if err != nil {
			return err
		}
		f.first, f.second = append(f.first, first), append(f.second, second)
	}
	var g errgroup.Group
	g.SetLimit(loadersAtOnce)
	for i := next; i <= b.Loaded; i++ {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			_, err := s.visit(i)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	after, err := heapBytes(ctx, s.admin)
	if err != nil {
		return err
	}
	f.heap = after - before
	if f.silence, err = busyCores(s.process.PID(), settled); err != nil {
		return err
	}
	now, err := residentBytes(s.process.PID())
	f.resident = now - resident
	return err
}

var heapAlloc = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`)

// heapBytes is what a gateway has on its heap after a garbage collection.
func heapBytes(ctx context.Context, admin string) (int64, error) {
	var text strings.Builder
	if err := get(ctx, admin+"/debug/pprof/heap?gc=1&debug=1", &text); err != nil {
		return 0, err
	}
	found := heapAlloc.FindStringSubmatch(text.String())
	if found == nil {
		return 0, fmt.Errorf("no heap in %.300s", text.String())
	}
	return strconv.ParseInt(found[1], 10, 64)
}
