package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// CreatePartitions: versions 0 to 3.
func createPartitions(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.CreatePartitionsRequest)
	resp := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
	refuse := func(name string, why *refusalText) {
		out := kmsg.NewCreatePartitionsResponseTopic()
		out.Topic, out.ErrorCode, out.ErrorMessage = name, why.code, kmsg.StringPtr(why.text)
		resp.Topics = append(resp.Topics, out)
	}
	t, err := s.vc.Fresh(ctx, metadataAge)
	forward := *req
	forward.Topics = nil
	for _, rt := range req.Topics {
		if err != nil {
			refuse(rt.Topic, refuseWith(kerr.RequestTimedOut, "%s", kerr.RequestTimedOut.Description))
			continue
		}
		topic, code := s.topic(t, kmsg.ACLOperationAlter, rt.Topic)
		switch {
		case code != 0:
			refuse(rt.Topic, &refusalText{code, *stockText(code)})
		case topic.Alias:
			refuse(rt.Topic, refuseWith(kerr.TopicAuthorizationFailed, "the topic is an alias: its partitions belong to the topic it stands for"))
		case len(rt.Assignment) > 0:
			refuse(rt.Topic, refuseWith(kerr.PolicyViolation, "replica assignments are the provider's choice: give a partition count only"))
		case rt.Count > s.maxPartitions(t):
			refuse(rt.Topic, refuseWith(kerr.PolicyViolation, "%d partitions: at most %d are allowed for a topic", rt.Count, s.maxPartitions(t)))
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
			refuse(t.Virtual(rt.Topic).Name, refuseWith(kerr.RequestTimedOut, "%s", kerr.RequestTimedOut.Description))
		}
		return resp, nil
	}
	s.vc.Home.MarkStale()
	answer := up.(*kmsg.CreatePartitionsResponse)
	for i := range answer.Topics {
		rt := &answer.Topics[i]
		topic := t.Virtual(rt.Topic)
		if topic == nil {
			return nil, errForeign
		}
		rt.Topic = topic.Name
		if rt.ErrorCode != 0 {
			rt.ErrorMessage = stockText(rt.ErrorCode)
		}
	}
	answer.Topics = append(resp.Topics, answer.Topics...)
	return answer, nil
}
