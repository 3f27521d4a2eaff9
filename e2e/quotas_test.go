package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/load"
	"tollgate.internal/e2e/internal/site"
)

// meteredFleet is a portal and its nodes, with a virtual cluster that may have so much
// a second.
type meteredFleet struct {
	*site.Site
	kafka *kafkatest.Cluster
}

const (
	producedPerSecond = 2_000_000
	fetchedPerSecond  = 3_000_000
)

func startMetered(t *testing.T, version string, producedPerSecond int) *meteredFleet {
	t.Helper()
	f := &meteredFleet{site.Start(t, site.Options{}), upstreams[version].Get(t)}
	f.Apply(t, fmt.Sprintf(`
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: [%q]}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: metered, tenant: acme}
spec:
  type: standard
  host: metered
  home: main
  authentication: {anonymous: {}}
  quotas: {produceBytesPerSecond: %d, fetchBytesPerSecond: %d, connections: 60}
`, f.kafka.Bootstrap(), producedPerSecond, fetchedPerSecond))
	return f
}

// target is how clients come to one node.
func (f *meteredFleet) target(node int) drivers.Target {
	return f.Nodes[node].Target("metered", "", "", "")
}

func (f *meteredFleet) client(t *testing.T, node int, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	base, err := f.target(node).KgoOpts()
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(opts, base...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// stored is how many bytes the brokers have of a topic.
func (f *meteredFleet) stored(t *testing.T, admin *kadm.Client, topic string) (bytes int64) {
	t.Helper()
	dirs, err := admin.DescribeAllLogDirs(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	dirs.Each(func(d kadm.DescribedLogDir) {
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) {
			if p.Topic == "metered."+topic {
				bytes += p.Size
			}
		})
	})
	return bytes
}

// rate is how fast a number grew over a time, as a part of a limit.
func rate(over time.Duration, limit float64, count func() int64) float64 {
	before, began := count(), time.Now()
	time.Sleep(over)
	return float64(count()-before) / time.Since(began).Seconds() / limit
}

// metered adds up what clients are told to wait, and what they are sent of topics: the
// batch at the end of a Fetch that is cut short counts, as on a broker.
type metered struct{ told, fetched atomic.Int64 }

func (m *metered) OnBrokerThrottle(_ kgo.BrokerMetadata, d time.Duration, _ bool) {
	m.told.Add(int64(d))
}

func (m *metered) OnBrokerRead(_ kgo.BrokerMetadata, key int16, bytes int, _, _ time.Duration, _ error) {
	if key == int16(kmsg.Fetch) {
		m.fetched.Add(int64(bytes))
	}
}

// Clients get the limit of their virtual cluster within a tenth over 30 seconds, by one
// node and by three, in however uneven a way they use them; and never twice the limit
// when the Redis is killed that the nodes share it by.
func TestAFleetKeepsToQuotas(t *testing.T) {
	f := startMetered(t, kafkatest.V4, producedPerSecond)
	f.Join(t)
	admin := kadm.NewClient(f.kafka.Client(t))
	if _, err := kadm.NewClient(f.client(t, 0)).CreateTopic(t.Context(), 3, 1, nil, "bulk"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := admin.DeleteTopic(context.Background(), "metered.bulk"); err != nil {
			t.Error(err)
		}
	})
	within := func(what string, got, low, high float64) {
		t.Helper()
		t.Logf("%s: %.3f of the limit", what, got)
		if got < low || got > high {
			t.Errorf("%s: %.3f of the limit, want %.2f to %.2f", what, got, low, high)
		}
	}
	payload := make([]byte, 40_000)
	rand.Read(payload)
	meter := new(metered)
	// work has clients of a node produce, or consume, until end.
	work := func(node, producers, consumers int) (end func()) {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range producers {
			cl := f.client(t, node, kgo.DefaultProduceTopic("bulk"), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.DisableIdempotentWrite(), kgo.WithHooks(meter))
			wg.Go(func() {
				for ctx.Err() == nil {
					if err := cl.ProduceSync(ctx, kgo.SliceRecord(payload)).FirstErr(); err != nil && ctx.Err() == nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for range consumers {
			cl := f.client(t, node, kgo.ConsumeTopics("bulk"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxBytes(200_000), kgo.WithHooks(meter))
			wg.Go(func() {
				for ctx.Err() == nil {
					if err := cl.PollFetches(ctx).Err0(); err != nil && ctx.Err() == nil {
						t.Error(err)
						return
					}
				}
			})
		}
		return func() { cancel(); wg.Wait() }
	}
	produced := func() int64 { return f.stored(t, admin, "bulk") }
	await := func(what string, done func() bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
		defer cancel()
		if load.Wait(ctx, func() error {
			if !done() {
				return errors.New(what)
			}
			return nil
		}) != nil {
			t.Fatalf("not within %v: %s", load.Patience, what)
		}
	}
	// atLimit waits until what may be done at once is done: clients are held back again.
	atLimit := func() {
		t.Helper()
		before := meter.told.Load()
		await("clients are throttled", func() bool { return meter.told.Load()-before > int64(time.Second) })
	}

	end := work(0, 4, 0)
	atLimit()
	within("produced over 30 s by one node", rate(30*time.Second, producedPerSecond, produced), 0.9, 1.1)
	f.Join(t)
	f.Join(t)
	ends := []func(){end, work(1, 2, 0), work(2, 1, 0)}
	atLimit()
	within("produced over 30 s by three nodes", rate(30*time.Second, producedPerSecond, produced), 0.9, 1.1)
	if meter.told.Load() == 0 {
		t.Error("no client was told of a throttle time")
	}
	f.Redis.Kill(t)
	within("produced over 10 s from the death of the Redis on", rate(10*time.Second, producedPerSecond, produced), 0, 2)
	within("produced over 10 s without the Redis", rate(10*time.Second, producedPerSecond, produced), 0.3, 2)
	f.Redis.Launch(t)
	await("all nodes have a share", func() bool {
		for _, n := range f.Nodes {
			if n.Metric(t, "tollgate_proxy_quota_leases") == 0 {
				return false
			}
		}
		return true
	})
	atLimit()
	within("produced over 15 s after it came back", rate(15*time.Second, producedPerSecond, produced), 0.9, 1.1)
	for _, end := range ends {
		end()
	}

	// There is more to read by now than they may in so short a time.
	ends = []func(){work(0, 0, 2), work(2, 0, 1)}
	atLimit()
	within("fetched over 30 s by two of three nodes", rate(30*time.Second, fetchedPerSecond, meter.fetched.Load), 0.9, 1.1)
	for _, end := range ends {
		end()
	}
}

// What Java's own client says of its throttling is what its producer was held back for.
func TestJavaIsToldOfThrottling(t *testing.T) {
	t.Parallel()
	// So little that a JVM beside other tests wants more.
	const perSecond = 200_000
	f := startMetered(t, kafkatest.V4, perSecond)
	f.Join(t)
	f.Join(t)
	if _, err := kadm.NewClient(f.client(t, 0)).CreateTopic(t.Context(), 3, 1, nil, "java"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := kadm.NewClient(f.kafka.Client(t)).DeleteTopic(context.Background(), "metered.java"); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	began := time.Now()
	results, err := drivers.JavaTools(ctx, kafkatest.V4, drivers.ToolRun{
		Tool: "producer-perf-test", Target: f.target(1),
		Args: []string{"--topic", "java", "--num-records", strconv.Itoa(20 * perSecond / 10_000), "--record-size", "10000", "--throughput", "-1", "--print-metrics"},
	})
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	said := results[0].Stdout
	if results[0].ExitCode != 0 {
		t.Fatalf("exit code %d\n%s%s", results[0].ExitCode, said, results[0].Stderr)
	}
	if took < 18*time.Second {
		t.Errorf("what takes 20 s at the limit took %v", took)
	}
	m := regexp.MustCompile(`produce-throttle-time-max:\{[^}]*\}\s*:\s*([0-9.]+)`).FindStringSubmatch(said)
	if m == nil {
		t.Fatalf("no metric of throttling in\n%s", said)
	}
	if longest, err := strconv.ParseFloat(m[1], 64); err != nil || longest < 10 || longest > 10_000 {
		t.Errorf("the longest throttle time is %v ms, want some, and 10 s at most", m[1])
	}
}
