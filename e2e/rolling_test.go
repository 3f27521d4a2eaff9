package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/load"
	"tollgate.internal/e2e/internal/site"
)

// One node after the other is told to end and started again, under Java, librdkafka and
// franz-go that produce and read all the while: none of them sees an error, and nothing
// is lost, there twice or out of order (PROTOCOL.md §H3).
func TestARollingRestartIsNoticedByNobody(t *testing.T) {
	for name, internal := range map[string]bool{"external": false, "internal": true} {
		t.Run(name, func(t *testing.T) { rollingRestart(t, name, internal) })
	}
}

func rollingRestart(t *testing.T, name string, internal bool) {
	const grace, spread = time.Second, 4 * time.Second
	kafka := three.Get(t)
	f := site.Start(t, site.Options{
		Nodes: 3, Internal: internal, Flags: []string{"--drain-grace", grace.String(), "--drain-spread", spread.String(), "--drain-timeout", "20s"},
	})
	vc := "roll-" + name
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	crew, goesOn := crewOf(ctx, t, f, kafka, vc)
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
		began := time.Now()
		n.Stop(t)
		took := time.Since(began)
		t.Logf("%s had %d sessions and ended after %v", n.Name, sessions, took.Round(time.Millisecond))
		if took < grace || sessions > 3 && took < grace+spread/3 {
			t.Errorf("%s ended after %v: it has not moved %d clients off over %v", n.Name, took, sessions, spread)
		}
		if strings.Contains(n.Said(t), "the time for draining is over") {
			t.Errorf("%s had to close clients", n.Name)
		}
		goesOn("without " + n.Name)
		n.Launch(t)
		goesOn("with " + n.Name + " again")
	}
	if busy < 2 {
		t.Errorf("%d nodes had clients", busy)
	}

	if _, err := crew.End(ctx); err != nil {
		t.Error(err)
	}
	if err := crew.Disconnected(); err != nil {
		t.Error(err)
	}
}

// crewOf makes a virtual cluster on a fleet, and a crew of clients of all kinds in it.
// goesOn waits until each of them got on.
func crewOf(ctx context.Context, t *testing.T, f *site.Site, kafka *kafkatest.Cluster, vc string) (crew *load.Crew, goesOn func(when string)) {
	t.Helper()
	const partitions = 6
	f.Apply(t, fmt.Sprintf(`
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: [%[2]s]}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: %[1]s, tenant: acme}, spec: {type: standard, host: %[1]s, home: main, authentication: {scram: {}}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: dev, virtualCluster: %[1]s}, spec: {type: local}}
`, vc, kafka.Bootstrap()))
	f.Secret(t, vc, "dev", "dev-secret-of-the-fleet")

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
	target := f.Target(vc, "SCRAM-SHA-512", "dev", "dev-secret-of-the-fleet")

	crew, err := load.NewCrew(target, "numbers", "readers", partitions, []kgo.Opt{kgo.SeedBrokers(kafka.Seeds(kafkatest.PLAINTEXT)...)}, topics[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(crew.Close)
	must := func(v *load.Verifiable, err error) *load.Verifiable {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	crew.Others = []load.Other{
		{Name: "Java", Topic: topics[1], Writer: must(load.VerifiableProducer(ctx, kafkatest.V4, target, "java")), Reader: must(load.VerifiableConsumer(ctx, kafkatest.V4, target, "java", "java-readers"))},
		{Name: "librdkafka", Topic: topics[2], Writer: must(load.LibrdkafkaProducer(ctx, target, "librdkafka")), Reader: must(load.LibrdkafkaConsumer(ctx, target, "librdkafka", "librdkafka-readers"))},
	}
	goesOn = func(when string) {
		t.Helper()
		began := time.Now()
		if err := crew.GoOn(ctx); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		t.Logf("%s all went on within %v", when, time.Since(began).Round(time.Millisecond))
	}
	return crew, goesOn
}
