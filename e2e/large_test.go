package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
)

// Records far larger than any buffer pass unchanged, whether topics are named or
// have ids in a request, and whether the size of an answer is known before its end
// (one alias, or names that grow alike) or not.
func TestLargeRecordsPassUnchanged(t *testing.T) {
	const size, count = 6 << 20, 4
	kafka := upstreams[kafkatest.V4].Get(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	files := resources(kafka.Bootstrap(), nil)
	files["large.yaml"] = `
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: orders-large, virtualCluster: acme-prod}, spec: {cluster: main, topic: shop.large.1}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: orders, virtualCluster: acme-prod}, spec: {cluster: main, topic: shop.large.2}}
`
	admin := kadm.NewClient(kafka.Client(t))
	if _, err := admin.CreateTopics(ctx, 1, 1, map[string]*string{"max.message.bytes": kadm.StringPtr("8388608")}, "shop.large.1", "shop.large.2"); err != nil {
		t.Fatal(err)
	}
	p := gateway.Start(t, map[string]string{"main": kafka.Bootstrap()}, files)
	opts, err := p.Target(t, "acme-prod", "PLAIN", "shipping", "dev-secret").KgoOpts()
	if err != nil {
		t.Fatal(err)
	}
	topics := []string{"orders-large", "orders"}
	values := make([][]byte, count)
	for i := range values {
		values[i] = make([]byte, size)
		rand.Read(values[i])
	}
	for i, versions := range []*kversion.Versions{kversion.V2_3_0(), kversion.V3_0_0(), kversion.Stable()} { // Fetch 11, 12, and by id
		client := func(more ...kgo.Opt) *kgo.Client {
			cl, err := kgo.NewClient(append(append(more, kgo.MaxVersions(versions), kgo.ProducerBatchMaxBytes(8<<20), kgo.MaxBufferedRecords(1),
				kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.FetchMaxBytes(64<<20), kgo.FetchMaxPartitionBytes(64<<20)), opts...)...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(cl.Close)
			return cl
		}
		producer := client()
		for _, topic := range topics {
			for _, v := range values {
				if err := producer.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: v}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, read := range [][]string{topics[:1], topics} {
			t.Run(fmt.Sprintf("%s, %d topics", versions.VersionGuess(), len(read)), func(t *testing.T) {
				from := make(map[string]map[int32]kgo.Offset)
				for _, topic := range read {
					from[topic] = map[int32]kgo.Offset{0: kgo.NewOffset().At(int64(i * count))}
				}
				consumer := client(kgo.ConsumePartitions(from))
				defer consumer.Close()
				got := make(map[string]int)
				for got[read[0]] < count || got[read[len(read)-1]] < count {
					fs := consumer.PollFetches(ctx)
					if err := fs.Err(); err != nil {
						t.Fatal(err)
					}
					fs.EachRecord(func(r *kgo.Record) {
						n := got[r.Topic]
						if n < count && (r.Offset != int64(i*count+n) || !bytes.Equal(r.Value, values[n])) {
							t.Errorf("%s: record at %d is not what was produced", r.Topic, r.Offset)
						}
						got[r.Topic]++
					})
				}
			})
		}
	}
}
