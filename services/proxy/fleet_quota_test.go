package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
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
	nodes := g.three(t, server.URL)
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

// three has three nodes of one fleet take the place of the one that was stopped.
func (g *gateway) three(t *testing.T, redis string) (nodes []*gateway) {
	t.Helper()
	for _, id := range []string{"a", "b", "c"} {
		n := *g
		n.addr = ""
		n.cfg = proxy.From(g.cfg, &shelf{dir: g.resources, revision: 7}, proxy.Control{
			Redis: redis, State: filepath.Join(t.TempDir(), "state"), Deployment: "test", Node: id,
		})
		n.run(t)
		t.Cleanup(func() {
			if err := n.stop(); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		nodes = append(nodes, &n)
	}
	return nodes
}

// A virtual cluster has no more topics and partitions than it may, also when they are
// created through all nodes at the same moment, and each node goes on when there is no
// Redis to ask whose turn it is.
func TestNodesCreateTopicsInTurn(t *testing.T) {
	server := redistest.Start(t)
	g := start(t)
	g.replace(t, "all.yaml", "  host: acme-dev\n", "  host: acme-dev\n  quotas: {partitions: 23}\n  topics: {maxTopics: 10}\n")
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	nodes := g.three(t, server.URL)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var admins []*kadm.Client
	for range 4 {
		for _, n := range nodes {
			admins = append(admins, kadm.NewClient(n.client(t, "acme-dev.gw.test", loginDev)))
		}
	}
	all := func(what func(i int, c *kadm.Client) error) (made int) {
		t.Helper()
		var wg sync.WaitGroup
		var count atomic.Int64
		for i, c := range admins {
			wg.Go(func() {
				if err := what(i, c); err == nil {
					count.Add(1)
				} else if !errors.Is(err, kerr.PolicyViolation) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		return int(count.Load())
	}
	for range 5 {
		made := all(func(i int, c *kadm.Client) error {
			_, err := c.CreateTopic(ctx, 2, 1, nil, fmt.Sprintf("t-%d", i))
			return err
		})
		if made != 10 {
			t.Errorf("%d topics were made, want 10", made)
		}
		// Three more partitions, one for each who asks.
		grown := all(func(i int, c *kadm.Client) error {
			more, err := c.UpdatePartitions(ctx, 3, fmt.Sprintf("t-%d", i))
			if err == nil {
				err = more[fmt.Sprintf("t-%d", i)].Err
			}
			if errors.Is(err, kerr.UnknownTopicOrPartition) {
				err = kerr.PolicyViolation // was not made
			}
			return err
		})
		if grown != 3 {
			t.Errorf("%d topics have one partition more, want 3", grown)
		}
		var names []string
		for i := range admins {
			names = append(names, fmt.Sprintf("t-%d", i))
		}
		if _, err := admins[0].DeleteTopics(ctx, names...); err != nil {
			t.Fatal(err)
		}
		for _, c := range admins {
			eventually(t, "the topics to be gone on every node", func() bool {
				there, err := c.ListTopics(ctx)
				return err == nil && len(there) == 0
			})
		}
	}
	server.Kill(t)
	began := time.Now()
	made := all(func(i int, c *kadm.Client) error {
		_, err := c.CreateTopic(ctx, 2, 1, nil, fmt.Sprintf("t-%d", i))
		return err
	})
	if took := time.Since(began); made < 10 || made > 10+len(nodes)-1 || took > 20*time.Second {
		t.Errorf("without Redis %d topics were made in %v, want 10, or one more for each further node", made, took)
	}
	eventually(t, "what was made to be seen", func() bool {
		there, err := admins[0].ListTopics(ctx)
		return err == nil && len(there) == made
	})
}
