package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/load"
)

const groupResources = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: groups, tenant: acme}
spec: {type: standard, host: groups, home: main, authentication: {plain: {}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: dev, virtualCluster: groups}, spec: {type: local, password: "file:dev.secret"}}
`

// Members of a KIP-848 group share its partitions, whether they name their topics
// or match them.
func TestConsumerProtocolGroupsThroughTheGateway(t *testing.T) {
	t.Parallel()
	kafka := upstreams[kafkatest.V4].Get(t)
	p := gateway.Start(t, map[string]string{"main": kafka.Bootstrap()}, map[string]string{"all.yaml": groupResources, "dev.secret": "dev-secret\n"})
	target := p.Target(t, "groups", "PLAIN", "dev", "dev-secret")
	admin := kadm.NewClient(kafka.Client(t))
	for _, d := range consumerProtocolDrivers() {
		name := drivers.Slug(d)
		for kind, subscription := range map[string]string{name + "-named": name + "-named", name + "-matched": "^" + name + "-m[a-z]*$"} {
			t.Run(d.Name()+" subscribed to "+subscription, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
				defer cancel()
				created := drivers.Step{Do: drivers.CreateTopic, Topic: kind, Partitions: 4}
				if _, err := drivers.Do(ctx, drivers.FranzGo(), target, created); err != nil {
					t.Fatal(err)
				}
				// Of nobody here; it would match.
				if _, err := admin.CreateTopic(ctx, 4, 1, nil, kind); err != nil {
					t.Fatal(err)
				}
				members := []<-chan outcome{
					consumes(ctx, d, target, subscription, kind, 10), consumes(ctx, d, target, subscription, kind, 10),
				}
				err := load.Wait(ctx, func() error {
					assigned, err := assignments(ctx, kafka, "groups."+kind)
					if err == nil && (len(assigned) != 2 || assigned[0] != 2 || assigned[1] != 2) {
						err = fmt.Errorf("members with %v partitions, want two with two each", assigned)
					}
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				var steps []drivers.Step
				for partition := range 4 {
					steps = append(steps, drivers.Step{Do: drivers.Produce, Topic: kind, Count: 5, Prefix: fmt.Sprint(partition, "-"), Partition: &partition})
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

// A pattern matches topics that come later too, also after the gateway was started
// again, and none that is somebody else's.
func TestPatternsMatchTopicsThatComeLater(t *testing.T) {
	t.Parallel()
	kafka := upstreams[kafkatest.V4].Get(t)
	p := gateway.Start(t, map[string]string{"main": kafka.Bootstrap()}, map[string]string{"all.yaml": groupResources, "dev.secret": "dev-secret\n"})
	target := p.Target(t, "groups", "PLAIN", "dev", "dev-secret")
	admin := kadm.NewClient(kafka.Client(t))
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	first := drivers.Step{Do: drivers.CreateTopic, Topic: "late-1"}
	if _, err := drivers.Do(ctx, drivers.FranzGo(), target, first); err != nil {
		t.Fatal(err)
	}
	members := make(map[string]<-chan outcome)
	for _, d := range consumerProtocolDrivers() {
		group := "late-" + drivers.Slug(d)
		members[d.Name()] = consumes(ctx, d, target, "^late-.*$", group, 6)
		err := load.Wait(ctx, func() error {
			assigned, err := assignments(ctx, kafka, "groups."+group)
			if err == nil && (len(assigned) != 1 || assigned[0] != 1) {
				err = fmt.Errorf("members with %v partitions, want one with one", assigned)
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", d.Name(), err)
		}
	}
	// The gateway must not need what it was told of patterns before.
	p.Kill(t)
	p.Launch(t)
	// By the owner of the brokers: the gateway has to find them itself.
	if _, err := admin.CreateTopics(ctx, 1, 1, nil, "groups.late-2", "late-3"); err != nil {
		t.Fatal(err)
	}
	steps := []drivers.Step{{Do: drivers.Produce, Topic: "late-1", Count: 3, Prefix: "1-"}, {Do: drivers.Produce, Topic: "late-2", Count: 3, Prefix: "2-"}}
	if _, err := drivers.Do(ctx, drivers.FranzGo(), target, steps...); err != nil {
		t.Fatal(err)
	}
	want := []string{"1-v0", "1-v1", "1-v2", "2-v0", "2-v1", "2-v2"}
	for name, m := range members {
		o := <-m
		slices.Sort(o.values)
		if o.err != nil || !slices.Equal(o.values, want) {
			t.Errorf("%s read %v, want %v: %v", name, o.values, want, o.err)
		}
	}
}

func consumerProtocolDrivers() []drivers.Driver {
	return []drivers.Driver{drivers.Java(kafkatest.V4), drivers.ConfluentKafka(), drivers.FranzGo()}
}

// outcome is what a member that has ended read.
type outcome struct {
	values []string
	err    error
}

// consumes starts a member of a KIP-848 group that ends after so many records.
func consumes(ctx context.Context, d drivers.Driver, target drivers.Target, topic, group string, count int) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		step := drivers.Step{
			Do: drivers.Consume, Topic: topic, Group: group, Count: count, Seconds: 60,
			Config: map[string]any{"group.protocol": "consumer"},
		}
		outcomes, err := drivers.Do(ctx, d, target, step)
		o := outcome{err: err}
		if len(outcomes) > 0 {
			o.values = outcomes[0].Values()
		}
		done <- o
	}()
	return done
}

// assignments are how many partitions each member of a KIP-848 group has, as the
// broker says.
func assignments(ctx context.Context, kafka *kafkatest.Cluster, group string) ([]int, error) {
	client, err := kafka.NewClient()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	req := kmsg.NewPtrConsumerGroupDescribeRequest()
	req.Groups = []string{group}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return nil, err
	}
	g := resp.Groups[0]
	if g.ErrorCode != 0 {
		return nil, fmt.Errorf("describe group %s: %w", group, kerr.ErrorForCode(g.ErrorCode))
	}
	var all []int
	for _, m := range g.Members {
		n := 0
		for _, topic := range m.Assignment.TopicPartitions {
			n += len(topic.Partitions)
		}
		all = append(all, n)
	}
	return all, nil
}
