package e2e

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
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
