package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
)

// ConsumerGroupHeartbeat (KIP-848, PROTOCOL.md §B6): versions 0 to 1.
func consumerGroupHeartbeat(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.ConsumerGroupHeartbeatRequest)
	resp := req.ResponseKind().(*kmsg.ConsumerGroupHeartbeatResponse)
	refuse := func(why error, args ...any) (kmsg.Response, error) {
		resp.ErrorCode, resp.ErrorMessage = s.refusedText(why, args...)
		return resp, nil
	}
	t, why := s.tableFor(ctx, s.refuseGroup, kmsg.ACLOperationRead, req.Group)
	if why != nil {
		return refuse(why, "group", req.Group)
	}
	if req.Group == "" {
		return refuse(refusal.Invalid.Tell("GroupId can't be empty."))
	}
	for i, name := range req.SubscribedTopicNames {
		if !s.mayTopic(t, kmsg.ACLOperationDescribe, name) {
			return refuse(refusal.TopicNotAuthorized, "topic", name)
		}
		if topic := t.Topic(name); topic != nil && topic.Split != nil {
			return refuse(refusal.NoStub.Tell("topic '%s' cannot be used with group.protocol=consumer here: use classic", name), "topic", name)
		}
		req.SubscribedTopicNames[i] = t.GroupName(name)
	}
	if err := s.subscribe(ctx, t, req); err != nil {
		return refuse(err)
	}
	owned := req.Topics[:0]
	for _, rt := range req.Topics {
		if topic := t.TopicByID(rt.TopicID); topic != nil {
			rt.TopicID = topic.Grouped.ID
			owned = append(owned, rt)
		}
	}
	if req.Topics != nil {
		req.Topics = owned
	}
	req.Group = group(t, req.Group)
	up, code := s.coordinator(ctx, t, t.Home, upstream.Control, 0, req)
	if code != 0 {
		resp.ErrorCode = code
		return resp, nil
	}
	answer := up.(*kmsg.ConsumerGroupHeartbeatResponse)
	if answer.ErrorCode != 0 {
		answer.ErrorMessage = ownText(answer.ErrorCode, answer.ErrorMessage)
	}
	if answer.Assignment != nil {
		topics := answer.Assignment.Topics[:0]
		for _, at := range answer.Assignment.Topics {
			topic := s.assigned(ctx, t, at.TopicID)
			if topic != nil {
				at.TopicID = topic.ID
				topics = append(topics, at)
			}
		}
		answer.Assignment.Topics = topics
	}
	return answer, nil
}
