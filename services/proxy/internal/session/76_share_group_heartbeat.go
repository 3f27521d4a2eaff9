package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
)

// ShareGroupHeartbeat (KIP-932, PROTOCOL.md §B7): version 1; 0 was Kafka 4.0's early
// access. READ on the group and DESCRIBE on every topic named: one without it
// refuses the heartbeat.
func shareGroupHeartbeat(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.ShareGroupHeartbeatRequest)
	resp := req.ResponseKind().(*kmsg.ShareGroupHeartbeatResponse)
	refuse := func(why error, args ...any) (kmsg.Response, error) {
		resp.ErrorCode, resp.ErrorMessage = s.refusedText(why, args...)
		return resp, nil
	}
	t, why := s.tableFor(ctx, s.refuseGroup, kmsg.ACLOperationRead, req.GroupID)
	if why != nil {
		return refuse(why, "group", req.GroupID)
	}
	if req.GroupID == "" {
		return refuse(refusal.Invalid.Tell("GroupId can't be empty."))
	}
	for i, name := range req.SubscribedTopicNames {
		if !s.mayTopic(t, kmsg.ACLOperationDescribe, name) {
			return refuse(refusal.TopicNotAuthorized, "topic", name)
		}
		req.SubscribedTopicNames[i] = t.GroupName(name)
	}
	req.GroupID = group(t, req.GroupID)
	up, code := s.coordinator(ctx, t, t.Home, upstream.Control, 0, req)
	if code != 0 {
		resp.ErrorCode, resp.ErrorMessage = code, stockText(code)
		return resp, nil
	}
	answer := up.(*kmsg.ShareGroupHeartbeatResponse)
	answer.ErrorMessage = ownText(answer.ErrorCode, answer.ErrorMessage)
	if answer.Assignment != nil {
		kept := answer.Assignment.TopicPartitions[:0]
		for _, tp := range answer.Assignment.TopicPartitions {
			if topic := s.assigned(ctx, t, tp.TopicID); topic != nil {
				tp.TopicID = topic.ID
				kept = append(kept, tp)
			}
		}
		answer.Assignment.TopicPartitions = kept
	}
	return answer, nil
}
