package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
)

// CreatePartitions: versions 0 to 3.
func createPartitions(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.CreatePartitionsRequest)
	resp := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
	refuse := func(name string, why error) {
		out := kmsg.NewCreatePartitionsResponseTopic()
		out.Topic = name
		out.ErrorCode, out.ErrorMessage = s.refusedText(why, "topic", name)
		resp.Topics = append(resp.Topics, out)
	}
	t, err := s.vc.Fresh(ctx, metadataAge)
	forward := *req
	forward.Topics = nil
	for _, rt := range req.Topics {
		if err != nil {
			refuse(rt.Topic, refusal.TimedOut.With(err))
			continue
		}
		topic, why := s.lookUp(t, kmsg.ACLOperationAlter, rt.Topic)
		switch {
		case why != nil:
			refuse(rt.Topic, why)
		case topic.Alias:
			refuse(rt.Topic, refusal.AliasReadOnly.Tell("the topic is an alias: its partitions belong to the topic it stands for"))
		case len(rt.Assignment) > 0:
			refuse(rt.Topic, refusal.ReplicaAssignment.Tell("replica assignments are the provider's choice: give a partition count only"))
		case rt.Count > s.maxPartitions(t):
			refuse(rt.Topic, refusal.PartitionsOverLimit.Tell("%d partitions: at most %d are allowed for a topic", rt.Count, s.maxPartitions(t)))
		default:
			rt.Topic = topic.Physical.Name
			forward.Topics = append(forward.Topics, rt)
		}
	}
	if len(forward.Topics) == 0 {
		return resp, nil
	}
	up, err := s.admin(ctx, adminLimit(req.TimeoutMillis), &forward)
	if err != nil {
		for _, rt := range forward.Topics {
			refuse(t.Home.Topic(rt.Topic).Name, refusal.TimedOut.With(err))
		}
		return resp, nil
	}
	s.vc.Home.MarkStale()
	answer := up.(*kmsg.CreatePartitionsResponse)
	for i := range answer.Topics {
		rt := &answer.Topics[i]
		topic := t.Home.Topic(rt.Topic)
		if topic == nil {
			return nil, errForeign
		}
		rt.Topic = topic.Name
		if rt.ErrorCode != 0 {
			rt.ErrorMessage = ownText(rt.ErrorCode, rt.ErrorMessage)
		}
	}
	answer.Topics = append(resp.Topics, answer.Topics...)
	return answer, nil
}
