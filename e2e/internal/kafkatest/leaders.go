package kafkatest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// MoveLeaders makes the next replica of every partition of these topics its
// leader, and returns when they lead.
func (c *Cluster) MoveLeaders(ctx context.Context, topics ...string) error {
	client, err := c.NewClient()
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	found, err := admin.ListTopics(ctx, topics...)
	if err != nil {
		return fmt.Errorf("move leaders: %w", err)
	}
	var moves kadm.AlterPartitionAssignmentsReq
	var all kadm.TopicsSet
	want := make(map[string]map[int32]int32)
	for _, topic := range found.Sorted() {
		want[topic.Topic] = make(map[int32]int32)
		for _, p := range topic.Partitions.Sorted() {
			order := slices.Concat(p.Replicas[1:], p.Replicas[:1])
			moves.Assign(topic.Topic, p.Partition, order)
			all.Add(topic.Topic, p.Partition)
			want[topic.Topic][p.Partition] = order[0]
		}
	}
	moved, err := admin.AlterPartitionAssignments(ctx, moves)
	if err == nil {
		err = moved.Error()
	}
	if err != nil {
		return fmt.Errorf("move leaders: %w", err)
	}
	led := func() error {
		if _, err := admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, all); err != nil {
			return err
		}
		now, err := admin.ListTopics(ctx, topics...)
		if err != nil {
			return err
		}
		for topic, partitions := range want {
			for p, leader := range partitions {
				if got := now[topic].Partitions[p].Leader; got != leader {
					return fmt.Errorf("%s/%d is led by %d, not yet by %d", topic, p, got, leader)
				}
			}
		}
		return nil
	}
	for {
		last := led()
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("move leaders: %w: %w", context.Cause(ctx), last)
		case <-time.After(pollInterval):
		}
	}
}
