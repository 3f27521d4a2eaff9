package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/site"
)

const ruledResources = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: ruled, tenant: acme}
spec: {type: standard, host: ruled, home: main, authentication: {anonymous: {}}}
---
{apiVersion: tollgate/v1, kind: Policy, metadata: {name: durable, virtualCluster: ruled}, spec: {type: produce, scope: {topics: [{name: acked}]}, config: {acks: all}}}
---
{apiVersion: tollgate/v1, kind: Policy, metadata: {name: compressed, virtualCluster: ruled}, spec: {type: produce, scope: {topics: [{name: zstd}]}, config: {compression: [zstd]}}}
---
{apiVersion: tollgate/v1, kind: Policy, metadata: {name: small, virtualCluster: ruled}, spec: {type: produce, scope: {topics: [{name: small}]}, config: {maxBatchBytes: 2000}}}
---
{apiVersion: tollgate/v1, kind: Policy, metadata: {name: exact, virtualCluster: ruled}, spec: {type: produce, scope: {topics: [{name: exact}]}, config: {idempotent: true}}}
`

// refusalPatience is far below every client's delivery timeout: whoever is refused is told,
// and does not try until that ends.
const refusalPatience = 40 * time.Second

// Every client reports what a policy refuses at once, for what it is, and works when
// it does as the policy asks.
func TestEveryClientIsToldWhatAPolicyRefuses(t *testing.T) {
	t.Parallel()
	for _, version := range kafkatest.Versions() {
		t.Run("Kafka "+version, func(t *testing.T) {
			kafka := upstreams[version].Get(t)
			p := gateway.Start(t, map[string]string{"main": kafka.Bootstrap()}, map[string]string{"all.yaml": `{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: ["` + kafka.Bootstrap() + `"]}}` + "\n---\n" + ruledResources})
			target := p.Target(t, "ruled", "", "", "")
			opts, err := target.KgoOpts()
			if err != nil {
				t.Fatal(err)
			}
			admin, err := kgo.NewClient(opts...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(admin.Close)
			topics := []string{"acked", "zstd", "small", "exact"}
			if _, err := kadm.NewClient(admin).CreateTopics(t.Context(), 1, 1, nil, topics...); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if _, err := kadm.NewClient(admin).DeleteTopics(context.Background(), topics...); err != nil {
					t.Error(err)
				}
			})
			big := strings.Repeat("x", 1500)
			for _, c := range []struct {
				name, topic, value string
				franz              []kgo.Opt
				kcat               string
				java               string
				settings           []string
				want               *kerr.Error // nil: accepted
				says               string      // of librdkafka
			}{
				{
					"one acknowledgement", "acked", big,
					[]kgo.Opt{kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite()},
					"-X acks=1", "--acks 1", nil, kerr.InvalidRequiredAcks, "Invalid required acks",
				},
				{"all acknowledgements", "acked", big, nil, "-X acks=all", "", nil, nil, ""},
				{
					"no compression", "zstd", big,
					[]kgo.Opt{kgo.ProducerBatchCompression(kgo.NoCompression())},
					"", "", nil, kerr.PolicyViolation, "Policy violation",
				},
				{
					"another compression", "zstd", big,
					[]kgo.Opt{kgo.ProducerBatchCompression(kgo.GzipCompression())},
					"-z gzip", "",
					[]string{"compression.type=gzip"},
					kerr.PolicyViolation, "Policy violation",
				},
				{
					"zstd", "zstd", big,
					[]kgo.Opt{kgo.ProducerBatchCompression(kgo.ZstdCompression())},
					"-z zstd", "",
					[]string{"compression.type=zstd"},
					nil, "",
				},
				{
					"not idempotent", "exact", big,
					[]kgo.Opt{kgo.DisableIdempotentWrite()},
					"-X enable.idempotence=false", "",
					[]string{"enable.idempotence=false"},
					kerr.PolicyViolation, "Policy violation",
				},
				{"idempotent", "exact", big, nil, "-X enable.idempotence=true", "", []string{"enable.idempotence=true", "retries=10"}, nil, ""},
				{
					"too large", "small", strings.Repeat(big, 3),
					[]kgo.Opt{kgo.ProducerBatchCompression(kgo.NoCompression())},
					"", "--repeating-keys 1",
					[]string{"linger.ms=500"},
					kerr.PolicyViolation, "Policy violation",
				},
				{"small enough", "small", big, []kgo.Opt{kgo.ProducerBatchCompression(kgo.NoCompression())}, "", "", []string{"batch.size=1000"}, nil, ""},
			} {
				t.Run("franz-go/"+c.name, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), refusalPatience)
					defer cancel()
					cl, err := kgo.NewClient(append(append(opts, kgo.DefaultProduceTopic(c.topic)), c.franz...)...)
					if err != nil {
						t.Fatal(err)
					}
					defer cl.Close()
					err = cl.ProduceSync(ctx, kgo.StringRecord(c.value)).FirstErr()
					if c.want == nil && err != nil || c.want != nil && !errors.Is(err, c.want) {
						t.Errorf("%v, want %v", err, c.want)
					}
				})
				t.Run("kcat/"+c.name, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), refusalPatience)
					defer cancel()
					cmd, err := drivers.KcatCommand(target, append([]string{"-P", "-t", c.topic}, strings.Fields(c.kcat)...)...)
					if err != nil {
						t.Fatal(err)
					}
					cmd.Stdin = c.value + "\n"
					result, err := cmd.Run(ctx)
					if err != nil {
						t.Fatal(err)
					}
					if (c.want != nil) != (result.ExitCode != 0) || !strings.Contains(result.Stderr, c.says) {
						t.Errorf("exit code %d, want %q:\n%s%s", result.ExitCode, c.says, result.Stdout, result.Stderr)
					}
				})
				t.Run("Java/"+c.name, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), refusalPatience)
					defer cancel()
					results, err := drivers.JavaTools(ctx, version, drivers.ToolRun{
						Tool: "verifiable-producer", Target: target, Settings: c.settings,
						Args: append([]string{"--topic", c.topic, "--max-messages", "500"}, strings.Fields(c.java)...),
					})
					if err != nil {
						t.Fatal(err)
					}
					out := results[0].Stdout
					want := `"acked":500`
					if c.want != nil {
						want = map[*kerr.Error]string{kerr.InvalidRequiredAcks: "InvalidRequiredAcksException", kerr.PolicyViolation: "PolicyViolationException"}[c.want]
					}
					if !strings.Contains(out, want) || c.want != nil && !strings.Contains(out, `policy \"`) {
						t.Errorf("exit code %d, want %s:\n%.3000s\n%.2000s", results[0].ExitCode, want, out, results[0].Stderr)
					}
				})
			}
		})
	}
}

// disconnects counts the connections that a client lost.
type disconnects struct{ atomic.Int64 }

func (d *disconnects) OnBrokerDisconnect(kgo.BrokerMetadata, net.Conn) { d.Add(1) }

// A policy of all virtual clusters is in force on every node when it is applied: under
// connected producers, in virtual clusters that were loaded and in those that were not,
// after a node was killed, also without Redis; and no virtual cluster's own policy loosens it.
func TestAPolicyOfAllVirtualClusters(t *testing.T) {
	t.Parallel()
	kafka := upstreams[kafkatest.Versions()[0]].Get(t)
	f := site.Start(t, site.Options{Nodes: 2})
	virtualCluster := func(name, labels string) string {
		return fmt.Sprintf("---\n{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: %s, tenant: acme, labels: {%s}}, spec: {type: standard, host: %[1]s, home: main, autoCreateTopics: true, authentication: {anonymous: {}}}}\n", name, labels)
	}
	f.Apply(t, fmt.Sprintf(`
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: [%q]}}
`, kafka.Bootstrap())+virtualCluster("asked", "")+virtualCluster("looser", "")+virtualCluster("exempted", "acks: any")+virtualCluster("later", "")+`---
{apiVersion: tollgate/v1, kind: Policy, metadata: {name: loose, virtualCluster: looser}, spec: {type: produce, priority: -1, config: {acks: leader}}}
`)
	// Producers that wait for the leader alone.
	const topic = "of-all"
	lost := new(disconnects)
	type producer struct {
		vc     string
		client *kgo.Client
	}
	connect := func(node *site.Node, vc string, opts ...kgo.Opt) producer {
		t.Helper()
		base, err := node.Target(vc, "", "", "").KgoOpts()
		if err != nil {
			t.Fatal(err)
		}
		cl, err := kgo.NewClient(append(append(base, kgo.DefaultProduceTopic(topic), kgo.AllowAutoTopicCreation(), kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite()), opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		return producer{vc, cl}
	}
	produce := func(when string, p producer, want *kerr.Error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), refusalPatience)
		defer cancel()
		err := p.client.ProduceSync(ctx, kgo.StringRecord(when)).FirstErr()
		if want == nil && err != nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s, in %s: %v, want %v", when, p.vc, err, want)
		}
	}
	var connected []producer
	for _, n := range f.Nodes {
		for _, vc := range []string{"asked", "looser", "exempted"} {
			p := connect(n, vc, kgo.WithHooks(lost))
			produce("before", p, nil)
			connected = append(connected, p)
		}
	}
	wants := map[string]*kerr.Error{"asked": kerr.InvalidRequiredAcks, "looser": kerr.InvalidRequiredAcks, "later": kerr.InvalidRequiredAcks}
	lostBefore := lost.Load()

	const path = "/v1/policies/acknowledged"
	f.Must(t, http.MethodPut, path+"?wait=applied&timeout=30s", `{"apiVersion": "tollgate/v1", "kind": "Policy", "metadata": {"name": "acknowledged"},
		"spec": {"type": "produce", "priority": 5, "scope": {"exceptVirtualClusterLabels": {"acks": "any"}}, "config": {"acks": "all"}}}`)
	for _, p := range connected {
		produce("while it holds", p, wants[p.vc])
		// All acknowledgements are what every policy wants.
		if wants[p.vc] != nil {
			for _, n := range f.Nodes {
				produce("as it asks", connect(n, p.vc, kgo.RequiredAcks(kgo.AllISRAcks())), nil)
			}
		}
	}
	for _, n := range f.Nodes {
		produce("while it holds", connect(n, "later"), wants["later"])
	}
	if n := lost.Load() - lostBefore; n != 0 {
		t.Errorf("%d connections were closed by a change that closes none", n)
	}

	// The text that a client gets does not name what is the operator's.
	cmd, err := drivers.KcatCommand(f.Nodes[0].Target("asked", "", "", ""), "-P", "-t", topic, "-X", "acks=1")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = "kcat\n"
	ctx, cancel := context.WithTimeout(t.Context(), refusalPatience)
	defer cancel()
	if result, err := cmd.Run(ctx); err != nil || result.ExitCode == 0 || !strings.Contains(result.Stderr, "Invalid required acks") || strings.Contains(result.Stderr, "acknowledged") {
		t.Errorf("kcat: %v, %+v", err, result)
	}

	// A node that comes back without Redis has it from its disk.
	f.Redis.Kill(t)
	f.Nodes[0].Kill(t)
	f.Nodes[0].Launch(t)
	for _, vc := range []string{"asked", "looser", "exempted", "later"} {
		produce("without Redis", connect(f.Nodes[0], vc), wants[vc])
	}
	f.Redis.Launch(t)

	f.Must(t, http.MethodDelete, path+"?wait=applied&timeout=30s", "", "If-Match: *")
	for _, p := range connected {
		produce("when it is gone", p, nil)
	}
}
