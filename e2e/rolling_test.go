package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/e2e/internal/fleet"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/load"
)

// object is a resource as the API takes it.
func object(kind, name string, spec map[string]any, metadata ...string) map[string]any {
	meta := map[string]any{"name": name}
	for i := 0; i+1 < len(metadata); i += 2 {
		meta[metadata[i]] = metadata[i+1]
	}
	return map[string]any{"apiVersion": "tollgate/v1", "kind": kind, "metadata": meta, "spec": spec}
}

// One node after the other is told to end and started again, under Java, librdkafka and
// franz-go that produce and read all the while: none of them sees an error, and nothing
// is lost, there twice or out of order (PROTOCOL.md §H3).
func TestARollingRestartIsNoticedByNobody(t *testing.T) {
	for name, internal := range map[string]bool{"external": false, "internal": true} {
		t.Run(name, func(t *testing.T) { rollingRestart(t, name, internal) })
	}
}

func rollingRestart(t *testing.T, name string, internal bool) {
	const partitions, grace, spread = 6, time.Second, 4 * time.Second
	kafka := three.Get(t)
	f := fleet.Start(t, fleet.Options{
		Nodes: 3, Internal: internal, Settings: fmt.Sprintf("drainGrace: %v\ndrainSpread: %v\ndrainTimeout: 20s\n", grace, spread),
	})
	vc := "roll-" + name
	f.Put(t, "tenants/acme", object("Tenant", "acme", map[string]any{"displayName": "ACME"}))
	f.Put(t, "upstream-clusters/main", object("UpstreamCluster", "main", map[string]any{"bootstrap": strings.Split(kafka.Bootstrap(), ",")}))
	f.Put(t, "virtual-clusters/"+vc, object("VirtualCluster", vc, map[string]any{
		"type": "standard", "host": vc, "home": "main", "authentication": map[string]any{"scram": map[string]any{}},
	}, "tenant", "acme"))
	f.Put(t, "virtual-clusters/"+vc+"/service-accounts/dev", object("ServiceAccount", "dev", map[string]any{"type": "local"}, "virtualCluster", vc))
	f.Post(t, "virtual-clusters/"+vc+"/service-accounts/dev/secrets", map[string]any{"password": "dev-secret-of-the-fleet"})

	admin := kadm.NewClient(kafka.Client(t))
	topics := []string{vc + ".numbers", vc + ".java", vc + ".librdkafka"}
	if _, err := admin.CreateTopics(t.Context(), partitions, -1, nil, topics...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := admin.DeleteTopics(context.Background(), topics...); err != nil {
			t.Error(err)
		}
	})
	var brokers []int32
	for _, b := range kafka.Brokers() {
		brokers = append(brokers, b.ID)
	}
	target := f.Target(vc, brokers)
	target.Mechanism, target.User, target.Password = "SCRAM-SHA-512", "dev", "dev-secret-of-the-fleet"

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	client := func(opts ...kgo.Opt) *kgo.Client {
		base, err := target.KgoOpts()
		if err != nil {
			t.Fatal(err)
		}
		c, err := kgo.NewClient(append(base, opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.CloseAllowingRebalance)
		return c
	}
	producer := load.Produce(client(load.ProducerOpts()...), "numbers", partitions)
	consumer := load.Consume(client(kgo.ConsumerGroup("readers"), kgo.ConsumeTopics("numbers"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())))
	must := func(v *load.Verifiable, err error) *load.Verifiable {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	java := must(load.VerifiableProducer(ctx, kafkatest.V4, target, "java"))
	javaReader := must(load.VerifiableConsumer(ctx, kafkatest.V4, target, "java", "java-readers"))
	other := must(load.LibrdkafkaProducer(ctx, target, "librdkafka"))
	otherReader := must(load.LibrdkafkaConsumer(ctx, target, "librdkafka", "librdkafka-readers"))

	ends := func(topic string) map[int32]int64 {
		t.Helper()
		listed, err := admin.ListEndOffsets(ctx, topic)
		if err != nil {
			t.Fatal(err)
		}
		all := make(map[int32]int64)
		listed.Each(func(o kadm.ListedOffset) { all[o.Partition] = o.Offset })
		return all
	}
	goesOn := func(when string) {
		t.Helper()
		began := time.Now()
		defer func() { t.Logf("%s all went on within %v", when, time.Since(began).Round(time.Millisecond)) }()
		for what, err := range map[string]error{
			"franz-go's producer": producer.WaitMore(ctx, 50), "Java's producer": java.WaitMore(ctx, 200), "librdkafka's producer": other.WaitMore(ctx, 200),
		} {
			if err != nil {
				t.Fatalf("%s, %s: %v", what, when, err)
			}
		}
		for what, err := range map[string]error{
			"franz-go's consumer": consumer.WaitFor(ctx, producer.Counts()),
			"Java's consumer":     javaReader.WaitFor(ctx, ends(topics[1])), "librdkafka's consumer": otherReader.WaitFor(ctx, ends(topics[2])),
		} {
			if err != nil {
				t.Fatalf("%s, %s: %v", what, when, err)
			}
		}
	}
	goesOn("at the beginning")
	busy := 0
	for _, n := range f.Nodes {
		sessions, err := n.Sessions(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if sessions > 0 {
			busy++
		}
		took := n.Stop(t)
		t.Logf("%s had %d sessions and ended after %v", n.ID, sessions, took.Round(time.Millisecond))
		if took < grace || sessions > 3 && took < grace+spread/3 {
			t.Errorf("%s ended after %v: it has not moved %d clients off over %v", n.ID, took, sessions, spread)
		}
		if strings.Contains(n.Log(t), "the time for draining is over") {
			t.Errorf("%s had to close clients", n.ID)
		}
		goesOn("without " + n.ID)
		n.Launch(t)
		goesOn("with " + n.ID + " again")
	}
	if busy < 2 {
		t.Errorf("%d nodes had clients", busy)
	}

	counts, err := producer.Stop(ctx)
	if err != nil {
		t.Errorf("franz-go's producer: %v", err)
	}
	if err := consumer.WaitFor(ctx, counts); err != nil {
		t.Errorf("franz-go's consumer: %v", err)
	}
	if err := consumer.Stop(); err != nil {
		t.Errorf("franz-go's consumer: %v", err)
	}
	brokersOwn := []kgo.Opt{kgo.SeedBrokers(kafka.Seeds(kafkatest.PLAINTEXT)...)}
	if err := load.Check(ctx, brokersOwn, topics[0], counts); err != nil {
		t.Errorf("what franz-go wrote: %v", err)
	}
	for i, c := range []struct {
		name           string
		writer, reader *load.Verifiable
	}{{"Java", java, javaReader}, {"librdkafka", other, otherReader}} {
		if err := c.writer.Stop(ctx); err != nil {
			t.Errorf("%s's producer: %v", c.name, err)
		}
		end, err := c.writer.Check(ctx, brokersOwn, topics[1+i])
		if err != nil {
			t.Errorf("what %s wrote: %v", c.name, err)
		}
		if err := c.reader.WaitFor(ctx, end); err != nil {
			t.Errorf("%s's consumer: %v", c.name, err)
		}
		if err := c.reader.Stop(ctx); err != nil {
			t.Errorf("%s's consumer: %v", c.name, err)
		}
		if err := errors.Join(c.writer.Disconnected(), c.reader.Disconnected()); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
