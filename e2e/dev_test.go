package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/load"
)

// On real clusters tollgate dev lends its tenant topics of both, which it creates,
// and goes on with them when it is started again.
func TestTheSeededTenantSpansRealClusters(t *testing.T) {
	t.Parallel()
	pair := pairs[kafkatest.V3].Get(t)
	p := gateway.Seeded(t, "--upstream", "a="+pair.Main.Bootstrap(), "--upstream", "b="+pair.West.Bootstrap())
	at := slices.IndexFunc(p.VirtualClusters, func(vc gateway.VirtualCluster) bool { return vc.Name == "acme-prod" })
	if at < 0 {
		t.Fatalf("no acme-prod among %+v", p.VirtualClusters)
	}
	vc := p.VirtualClusters[at]
	want := []gateway.Topic{{Name: "orders", Cluster: "a", Physical: "shop.orders.v2"}, {Name: "shipments", Cluster: "b", Physical: "logistics.shipments.v1"}}
	if !slices.Equal(vc.Topics, want) {
		t.Errorf("dev.json has the topics %+v, want %+v", vc.Topics, want)
	}
	target := p.Target(t, "acme-prod", "SCRAM-SHA-512", "shipping", p.Account(t, "acme-prod", "shipping").Password)

	for round := range 2 {
		if round == 1 {
			p.Kill(t)
			p.Launch(t)
		}
		prefix := fmt.Sprint(round, "-")
		outcomes, err := drivers.Do(t.Context(), drivers.FranzGo(), target,
			drivers.Step{Do: drivers.Produce, Topic: "orders", Count: 3, Prefix: prefix + "order-", Idempotent: true},
			drivers.Step{Do: drivers.Produce, Topic: "shipments", Count: 3, Prefix: prefix + "shipment-", Idempotent: true},
			drivers.Step{Do: drivers.Consume, Topic: "orders", Also: []string{"shipments"}, Group: "shipping-both", Count: 6})
		if err != nil {
			t.Fatal(err)
		}
		var values []string
		for _, kind := range []string{"order-", "shipment-"} {
			for i := range 3 {
				values = append(values, fmt.Sprint(prefix, kind, "v", i))
			}
		}
		got := outcomes[2].Values()
		slices.Sort(got)
		if !slices.Equal(got, values) {
			t.Errorf("round %d: the group read %v, want %v", round, got, values)
		}
	}
	for topic, c := range map[string]*kafkatest.Cluster{"shop.orders.v2": pair.Main, "logistics.shipments.v1": pair.West} {
		if n := count(t.Context(), t, c, topic); n != 6 {
			t.Errorf("%d records in %s, want 6", n, topic)
		}
	}
}

// count is how many records a physical topic holds.
func count(ctx context.Context, t *testing.T, c *kafkatest.Cluster, topic string) (n int) {
	t.Helper()
	err := load.Each(ctx, []kgo.Opt{kgo.SeedBrokers(c.Seeds(kafkatest.PLAINTEXT)...)}, topic, func(*kgo.Record) { n++ })
	if err != nil {
		t.Fatal(err)
	}
	return n
}
