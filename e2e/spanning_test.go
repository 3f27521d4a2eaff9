package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/load"
	"tollgate.internal/e2e/internal/spanning"
)

// Members of a KIP-848 group share the partitions of topics of both clusters, whether
// they name them or match them.
func TestConsumerProtocolGroupsOverTwoClusters(t *testing.T) {
	pair := pairs[kafkatest.V4].Get(t)
	var aliases []spanning.Alias
	kinds := []string{"named", "matched"}
	for _, d := range consumerProtocolDrivers() {
		for _, kind := range kinds {
			aliases = append(aliases, spanning.Alias{Name: drivers.Slug(d) + "-" + kind + "-west", Cluster: "west", Partitions: 2})
		}
	}
	spanning.Lend(t, pair, aliases...)
	p := gateway.Start(t, nil, spanning.Files(pair, aliases...))
	target := p.Target(t, spanning.Standard, "PLAIN", spanning.StandardUser, spanning.Password)
	spanning.Await(t, target, aliases...)
	for _, d := range consumerProtocolDrivers() {
		for _, kind := range kinds {
			name := drivers.Slug(d) + "-" + kind
			t.Run(d.Name()+" "+kind, func(t *testing.T) {
				t.Parallel() // members wait for each other
				ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
				defer cancel()
				topics := []string{name + "-home", name + "-west"}
				if _, err := drivers.Do(ctx, drivers.FranzGo(), target, drivers.Step{Do: drivers.CreateTopic, Topic: topics[0], Partitions: 2}); err != nil {
					t.Fatal(err)
				}
				step := drivers.Step{
					Do: drivers.Consume, Topic: topics[0], Also: topics[1:], Group: name, Count: 10, Seconds: 60,
					Config: map[string]any{"group.protocol": "consumer"},
				}
				if kind == "matched" {
					step.Topic, step.Also = "^"+name+"-[a-z]*$", nil
				}
				var members []<-chan outcome
				for range 2 {
					done := make(chan outcome, 1)
					members = append(members, done)
					go func() {
						outcomes, err := drivers.Do(ctx, d, target, step)
						o := outcome{err: err}
						if len(outcomes) > 0 {
							o.values = outcomes[0].Values()
						}
						done <- o
					}()
				}
				err := load.Wait(ctx, func() error {
					assigned, err := assignments(ctx, pair.Main, spanning.Standard+"."+name)
					if err == nil && (len(assigned) != 2 || assigned[0] != 2 || assigned[1] != 2) {
						err = fmt.Errorf("members with %v partitions, want two with two each", assigned)
					}
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				var steps []drivers.Step
				for _, topic := range topics {
					for partition := range 2 {
						steps = append(steps, drivers.Step{Do: drivers.Produce, Topic: topic, Count: 5, Prefix: fmt.Sprint(topic, partition, "-"), Partition: &partition})
					}
				}
				if _, err := drivers.Do(ctx, drivers.FranzGo(), target, steps...); err != nil {
					t.Fatal(err)
				}
				seen := make(map[string]bool)
				for _, m := range members {
					o := <-m
					if o.err != nil {
						t.Error(o.err)
					}
					for _, v := range o.values {
						seen[v] = true
					}
				}
				if len(seen) != 20 {
					t.Errorf("the members read %d different records of 20", len(seen))
				}
			})
		}
	}
}

// spanRuns are what an administrator sees of a topic on another cluster: the topics
// abroad, which is there, and in-transaction, which is at home.
var spanRuns = []toolRun{
	{tool: "topics", args: "--list", says: []string{"abroad\n", "in-transaction\n"}, not: []string{"shop", "span.", "__"}},
	{tool: "topics", args: "--describe --topic abroad", says: []string{"Topic: abroad", "PartitionCount: 2"}, not: []string{"shop", "stub"}},
	{tool: "console-producer", args: "--topic abroad", stdin: "v1\nv2\nv3\n"},
	{tool: "console-consumer", args: "--include in-transaction|abroad --group both --from-beginning --max-messages 6 --timeout-ms 30000", says: []string{"v1\n", "v2\n", "v3\n", "t-v0\n", "t-v1\n", "t-v2\n"}},
	{tool: "consumer-groups", args: "--describe --group both", says: []string{"abroad", "in-transaction"}, not: []string{"shop", "stub", "span."}},
	{tool: "consumer-groups", args: "--reset-offsets --to-earliest --group both --all-topics --execute", says: []string{"abroad", "in-transaction"}, not: []string{"stub"}},
	{tool: "console-consumer", args: "--include in-transaction|abroad --group both --max-messages 6 --timeout-ms 30000", says: []string{"v1\n", "v2\n", "v3\n", "t-v0\n", "t-v1\n", "t-v2\n"}},
	{tool: "consumer-groups", args: "--delete-offsets --group both --topic abroad", says: []string{"abroad"}},
	{tool: "consumer-groups", args: "--describe --group both", says: []string{"in-transaction"}, not: []string{"abroad"}},
	{tool: "consumer-groups", args: "--delete --group both", says: []string{"was successful"}},
	{tool: "get-offsets", args: "--topic abroad", says: []string{"abroad:0:", "abroad:1:"}},
	{tool: "log-dirs", args: "--describe", says: []string{`"partition":"in-transaction-0"`}, not: []string{"/data", "shop", "stub", "abroad"}},
	{tool: "verifiable-producer", args: "--topic abroad --max-messages 50", says: []string{`"sent":50`, `"acked":50`}},
	{tool: "verifiable-consumer", args: "--topic abroad --group-id verified-abroad --max-messages 53 --reset-policy earliest", says: []string{`"success":true`, "shutdown_complete"}},
	{tool: "producer-perf-test", args: "--topic abroad --num-records 2000 --record-size 500 --throughput -1", says: []string{"2000 records sent"}},
	{tool: "consumer-perf-test", args: "--topic abroad --messages 2000 --group perf-abroad --timeout 30000", says: []string{"MB.sec"}},
	{tool: "transactions", args: "describe-producers --topic abroad --partition 0", fails: true, says: []string{"TopicAuthorizationException"}, not: []string{"shop"}},
	{tool: "topics", args: "--alter --topic abroad --partitions 3", fails: true, says: []string{"TopicAuthorizationException"}, not: []string{"shop"}},
	{tool: "topics", args: "--delete --topic abroad", fails: true, says: []string{"TopicAuthorizationException"}, not: []string{"shop"}},
}

// noShareRuns are what share groups get: what they get from a broker that has none.
// The tool says so and ends with 0.
var noShareRuns = []toolRun{
	{tool: "share-groups", args: "--describe --group crew", says: []string{"UnsupportedVersionException"}},
}

func TestToolsOfKafkaThroughASpanningVirtualCluster(t *testing.T) {
	t.Parallel()
	for _, version := range kafkatest.Versions() {
		t.Run("home on Kafka "+version, func(t *testing.T) {
			// With one broker each: what is done by one is seen by all.
			other := kafkatest.Versions()[0]
			if other == version {
				other = kafkatest.V4
			}
			pair := &kafkatest.Pair{Main: upstreams[version].Get(t), West: upstreams[other].Get(t)}
			spanning.Lend(t, pair, spanning.Alias{Name: "span-tools", Cluster: "west", Partitions: 2}, spanning.Alias{Name: "abroad", Cluster: "west", Partitions: 2})
			resources := strings.NewReplacer(
				"tools-partner", "span-partner", "home: main,", "home: main, clusters: [main, west],", "cluster: main,", "cluster: west,", "topic: {name: shop.tools}", "topic: {name: shop., pattern: prefixed}",
				"topic: shop.tools", "topic: shop.span-tools", "name: tools, tenant", "name: span, tenant", "host: tools,", "host: span,", "virtualCluster: tools}", "virtualCluster: span}",
			).Replace(toolResources) + `---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: abroad, virtualCluster: span}, spec: {cluster: west, topic: shop.abroad}}
`
			p := gateway.Start(t, nil, map[string]string{"clusters.yaml": spanning.Clusters(pair), "all.yaml": resources, "dev.secret": "dev-secret\n"})
			standard := p.Target(t, "span", "SCRAM-SHA-512", "dev", "dev-secret")
			admin := p.Target(t, "span-partner", "PLAIN", "admin", "dev-secret")
			spanning.Await(t, standard, spanning.Alias{Name: "abroad", Partitions: 2})
			spanning.Await(t, admin, spanning.Alias{Name: "lent", Partitions: 2})
			before := []drivers.Step{
				{Do: drivers.CreateTopic, Topic: "in-transaction"},
				{Do: drivers.Transaction, Topic: "in-transaction", TransactionalID: "tool-txn", Count: 3, Prefix: "t-"},
			}
			if _, err := drivers.Do(t.Context(), drivers.FranzGo(), standard, before...); err != nil {
				t.Fatal(err)
			}
			runTools(t, version, standard, toolRuns...)
			runTools(t, version, standard, spanRuns...)
			if version == kafkatest.V4 {
				runTools(t, version, standard, noShareRuns...)
			}
			runTools(t, version, admin, partnerRuns...)
			runTools(t, version, p.Target(t, "span-partner", "PLAIN", "shipping", "dev-secret"), readerRuns...)
		})
	}
}
