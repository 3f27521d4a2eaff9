package e2e

import (
	"context"
	"fmt"
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
			aliases = append(aliases, spanning.Alias{Name: slug(d) + "-" + kind + "-west", Cluster: "west", Partitions: 2})
		}
	}
	spanning.Lend(t, pair, aliases...)
	p := gateway.Start(t, nil, spanning.Files(pair, aliases...))
	target := p.Target(t, spanning.Standard, "PLAIN", spanning.StandardUser, spanning.Password)
	spanning.Await(t, target, aliases...)
	for _, d := range consumerProtocolDrivers() {
		for _, kind := range kinds {
			name := slug(d) + "-" + kind
			t.Run(d.Name()+" "+kind, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
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
