package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/view"
)

// DescribeShareGroupOffsets (KIP-932): versions 0 to 1 (lag, KIP-1226). DESCRIBE on
// the group and on each topic; null topics mean all, of which those the client may
// not see are left out.
func describeShareGroupOffsets(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	type asked = kmsg.DescribeShareGroupOffsetsRequestGroup
	type answered = kmsg.DescribeShareGroupOffsetsResponseGroup
	req := r.(*kmsg.DescribeShareGroupOffsetsRequest)
	hidden := make(map[string][]kmsg.DescribeShareGroupOffsetsResponseGroupTopic) // by the group's name on home
	return askCoordinator(s, ctx, req, &req.Groups,
		func(r *kmsg.DescribeShareGroupOffsetsResponse) *[]answered { return &r.Groups },
		byGroup[asked, answered]{
			named:    true,
			op:       kmsg.ACLOperationDescribe,
			asked:    func(q *asked) *string { return &q.GroupID },
			answered: func(a *answered) *string { return &a.GroupID },
			refused: func(q asked, code int16) answered {
				g := kmsg.NewDescribeShareGroupOffsetsResponseGroup()
				g.GroupID, g.ErrorCode, g.ErrorMessage = q.GroupID, code, stockText(code)
				return g
			},
			forward: func(t *view.Table, q *asked) {
				topics := q.Topics
				if topics == nil {
					return
				}
				q.Topics = []kmsg.DescribeShareGroupOffsetsRequestGroupTopic{}
				for _, rt := range topics {
					if !s.mayTopic(t, kmsg.ACLOperationDescribe, rt.Topic) {
						code := s.refused(refusal.TopicNotAuthorized, "topic", rt.Topic)
						hidden[q.GroupID] = append(hidden[q.GroupID], hiddenShareOffsets(rt, code))
						continue
					}
					rt.Topic = t.GroupName(rt.Topic)
					q.Topics = append(q.Topics, rt)
				}
			},
			mapped: func(t *view.Table, g *answered) int16 {
				g.ErrorMessage = stockText(g.ErrorCode)
				kept := g.Topics[:0]
				for _, rt := range g.Topics {
					name, ok := t.TopicName(rt.Topic)
					if !ok || !s.mayTopic(t, kmsg.ACLOperationDescribe, name) {
						continue
					}
					rt.Topic, rt.TopicID = name, virtualTopicID(t, name)
					for i := range rt.Partitions {
						rt.Partitions[i].ErrorMessage = stockText(rt.Partitions[i].ErrorCode)
					}
					kept = append(kept, rt)
				}
				g.Topics = append(kept, hidden[group(t, g.GroupID)]...)
				return 0
			},
		})
}

func hiddenShareOffsets(rt kmsg.DescribeShareGroupOffsetsRequestGroupTopic, code int16) kmsg.DescribeShareGroupOffsetsResponseGroupTopic {
	out := kmsg.NewDescribeShareGroupOffsetsResponseGroupTopic()
	out.Topic = rt.Topic
	for _, p := range rt.Partitions {
		rp := kmsg.NewDescribeShareGroupOffsetsResponseGroupTopicPartition()
		rp.Partition, rp.ErrorCode, rp.ErrorMessage, rp.StartOffset = p, code, stockText(code), -1
		out.Partitions = append(out.Partitions, rp)
	}
	return out
}

// virtualTopicID is the id of a topic, zero when there is none.
func virtualTopicID(t *view.Table, name string) [16]byte {
	if topic := t.Topic(name); topic != nil {
		return topic.ID
	}
	return [16]byte{}
}
