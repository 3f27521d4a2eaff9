package proxy_test

import (
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/pkg/testbed/redistest"
	"tollgate.internal/services/proxy"
)

// Three nodes on a real Redis give the clients of all of them together what one would,
// and go on when the Redis is killed, with no more than twice that.
func TestNodesShareQuotas(t *testing.T) {
	const limit = 300_000
	server := redistest.Start(t)
	g := start(t)
	g.replace(t, "all.yaml", "host: open, home: main,", "host: open, home: main, quotas: {produceBytesPerSecond: 300000, connections: 30},")
	if err := g.upstream.CreateTopic("open.bulk", 1, nil); err != nil {
		t.Fatal(err)
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	var nodes []*gateway
	for _, id := range []string{"a", "b", "c"} {
		n := *g
		n.addr = ""
		n.cfg = proxy.From(g.cfg, &shelf{dir: g.resources, revision: 7}, proxy.Control{
			Redis: server.URL, State: filepath.Join(t.TempDir(), "state"), Deployment: "test", Node: id,
		})
		n.run(t)
		t.Cleanup(func() {
			if err := n.stop(); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		nodes = append(nodes, &n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var sent atomic.Int64
	var wg sync.WaitGroup
	for i, clients := range []int{4, 1, 1} {
		for range clients {
			// kgo dials one connection for its own and one for producing.
			cl := nodes[i].client(t, "open.gw.test", kgo.DefaultProduceTopic("bulk"), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.DisableIdempotentWrite())
			wg.Go(func() {
				for ctx.Err() == nil {
					if err := cl.ProduceSync(ctx, kgo.SliceRecord(make([]byte, 9_900))).FirstErr(); err == nil {
						sent.Add(10_000)
					} else if ctx.Err() == nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	measure := func(name string, over time.Duration, low, high float64) {
		t.Helper()
		before, began := sent.Load(), time.Now()
		time.Sleep(over)
		rate := float64(sent.Load()-before) / time.Since(began).Seconds() / limit
		if rate < low || rate > high {
			t.Errorf("%s: %.2f of the limit, want %.2f to %.2f", name, rate, low, high)
		}
	}
	time.Sleep(2 * time.Second)
	measure("ten seconds", 10*time.Second, 0.85, 1.15)
	for _, n := range nodes {
		if got := n.metric(t, "tollgate_proxy_quota_nodes"); got != 3 {
			t.Errorf("%v nodes share quotas, want 3", got)
		}
		if got := n.metric(t, "tollgate_proxy_quota_leases"); got != 1 {
			t.Errorf("%v leases, want that of the virtual cluster", got)
		}
	}
	server.Kill(t)
	measure("five seconds from the death of the Redis on", 5*time.Second, 0, 2)
	measure("ten seconds without a Redis", 10*time.Second, 0.85, 1.15)
	for _, n := range nodes {
		n.says(t, "/readyz", "share quotas through Redis")
	}
	cancel()
	wg.Wait()
}
