package session

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// DescribeTopicPartitions (KIP-966): version 0; what Java's Admin asks instead of
// Metadata since 4.0. Topics come by virtual name, in pages. Everything but the
// eligible leader replicas is in the cached metadata; those are asked for where
// brokers have them.

// partitionsPerAnswer is max.request.partition.size.limit.
const partitionsPerAnswer = 2000

func describeTopicPartitions(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DescribeTopicPartitionsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeTopicPartitionsResponse)
	t, err := s.vc.Fresh(ctx, metadataAge)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(req.Topics, func(rt kmsg.DescribeTopicPartitionsRequestTopic) bool { return t.Topic(rt.Topic) == nil }) {
		t.MarkStale() // it may have been made a moment ago
		if t, err = s.vc.Fresh(ctx, metadataAge); err != nil {
			return nil, err
		}
	}
	var names []string
	for _, rt := range req.Topics {
		names = append(names, rt.Topic)
	}
	if why := cursorRefused(req, names); why != nil {
		code := s.refused(why)
		for _, name := range names {
			out := describedTopic(name)
			out.ErrorCode = code
			resp.Topics = append(resp.Topics, out)
		}
		return resp, nil
	}
	all := len(names) == 0
	if all {
		for _, topic := range t.Topics {
			names = append(names, topic.Name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	first := int32(0) // partition of the first topic
	if c := req.Cursor; c != nil {
		names = slices.DeleteFunc(names, func(name string) bool { return name < c.Topic })
		if len(names) > 0 && names[0] == c.Topic {
			first = c.Partition
		}
	}

	left := max(min(req.ResponsePartitionLimit, partitionsPerAnswer), 1)
	var hidden []kmsg.DescribeTopicPartitionsResponseTopic
	var shown []*view.Topic
	for i, name := range names {
		topic, why := s.lookUp(t, kmsg.ACLOperationDescribe, name)
		if why == refusal.TopicNotAuthorized {
			if !all {
				out := describedTopic(name)
				out.ErrorCode = s.refusedTopic(why, kmsg.ACLOperationDescribe, name)
				hidden = append(hidden, out)
			}
			continue
		}
		if left == 0 {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name}
			break
		}
		out := describedTopic(name)
		out.AuthorizedOperations = s.operations(t, true, kmsg.ACLResourceTypeTopic, name)
		if why != nil {
			if why == refusal.TopicUnknown && !legalTopic(name) {
				why = refusal.TopicNameInvalid
			}
			out.ErrorCode = s.refusedTopic(why, kmsg.ACLOperationDescribe, name)
			resp.Topics = append(resp.Topics, out)
			continue
		}
		from := int32(0)
		if i == 0 {
			from = first
		}
		total := int32(len(topic.Partitions))
		to := from + min(left, max(total-from, 0))
		out.TopicID = topic.ID
		for p := from; p < to; p++ {
			out.Partitions = append(out.Partitions, describedPartition(topic, p))
		}
		resp.Topics = append(resp.Topics, out)
		shown = append(shown, topic)
		left -= to - from
		if to < total && from < total {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name, Partition: to}
			break
		}
	}
	s.eligibleLeaders(ctx, t, shown, resp.Topics)
	resp.Topics = append(resp.Topics, hidden...)
	return resp, nil
}

// cursorRefused is why a request is refused as a whole.
func cursorRefused(req *kmsg.DescribeTopicPartitionsRequest, names []string) error {
	switch {
	case req.Cursor == nil:
		return nil
	case req.Cursor.Partition < 0:
		return refusal.Invalid.Errorf("cursor at partition %d", req.Cursor.Partition)
	case len(names) > 0 && !slices.Contains(names, req.Cursor.Topic):
		return refusal.Invalid.Errorf("the cursor's topic is not among those asked for")
	}
	return nil
}

func describedTopic(name string) kmsg.DescribeTopicPartitionsResponseTopic {
	out := kmsg.NewDescribeTopicPartitionsResponseTopic()
	out.Topic = kmsg.StringPtr(name)
	return out
}

func describedPartition(topic *view.Topic, index int32) kmsg.DescribeTopicPartitionsResponseTopicPartition {
	p, m := &topic.Partitions[index], topic.Member
	out := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
	out.Partition, out.LeaderID, out.LeaderEpoch = index, m.VirtualNode(p.Leader), p.LeaderEpoch
	out.Replicas, out.ISR, out.OfflineReplicas = m.VirtualNodes(p.Replicas), m.VirtualNodes(p.ISR), m.VirtualNodes(p.Offline)
	out.EligibleLeaderReplicas, out.LastKnownELR = []int32{}, []int32{}
	return out
}

// eligibleLeaders fills in the eligible and the last known eligible leader replicas
// of each cluster's topics. Without a broker's answer the partitions have none, as
// before KIP-966.
func (s *Session) eligibleLeaders(ctx context.Context, t *view.Table, topics []*view.Topic, out []kmsg.DescribeTopicPartitionsResponseTopic) {
	for _, m := range t.Members {
		var of []*view.Topic
		for _, topic := range topics {
			if topic.Member == m {
				of = append(of, topic)
			}
		}
		s.eligibleLeadersOf(ctx, t, m, of, out)
	}
}

func (s *Session) eligibleLeadersOf(ctx context.Context, t *view.Table, m *view.Member, topics []*view.Topic, out []kmsg.DescribeTopicPartitionsResponseTopic) {
	v := m.Cluster.Versions()
	if len(topics) == 0 || v == nil || v.Finalized["eligible.leader.replicas.version"] < 1 {
		return
	}
	type key struct {
		topic     string
		partition int32
	}
	wanted := make(map[key]*kmsg.DescribeTopicPartitionsResponseTopicPartition)
	for i := range out {
		topic := t.Topic(*out[i].Topic)
		if topic == nil || topic.Member != m {
			continue
		}
		for j := range out[i].Partitions {
			p := &out[i].Partitions[j]
			wanted[key{topic.Physical.Name, p.Partition}] = p
		}
	}
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	req.ResponsePartitionLimit = partitionsPerAnswer
	slices.SortFunc(topics, func(a, b *view.Topic) int { return strings.Compare(a.Physical.Name, b.Physical.Name) })
	for _, topic := range topics {
		req.Topics = append(req.Topics, kmsg.DescribeTopicPartitionsRequestTopic{Topic: topic.Physical.Name})
	}
	for len(wanted) > 0 {
		up, err := m.Cluster.Request(ctx, s.near(t, m), upstream.Control, 0, s.clientID(), req)
		if err != nil {
			s.log.Debug("eligible leader replicas are not known", "err", err)
			return
		}
		answer := up.(*kmsg.DescribeTopicPartitionsResponse)
		for _, rt := range answer.Topics {
			for _, rp := range rt.Partitions {
				k := key{*rt.Topic, rp.Partition}
				if p := wanted[k]; p != nil {
					p.EligibleLeaderReplicas, p.LastKnownELR = m.VirtualNodes(rp.EligibleLeaderReplicas), m.VirtualNodes(rp.LastKnownELR)
					delete(wanted, k)
				}
			}
		}
		next := answer.NextCursor
		if next == nil || req.Cursor != nil && next.Topic == req.Cursor.Topic && next.Partition == req.Cursor.Partition {
			return
		}
		req.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: next.Topic, Partition: next.Partition}
	}
}
