package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// DeleteShareGroupOffsets (KIP-932): version 0. DELETE on the group, READ on each
// topic.
func deleteShareGroupOffsets(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DeleteShareGroupOffsetsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteShareGroupOffsetsResponse)
	refuse := func(why error, args ...any) (kmsg.Response, error) {
		resp.ErrorCode, resp.ErrorMessage = s.refusedText(why, args...)
		return resp, nil
	}
	t, why := s.tableFor(ctx, s.refuseMember, kmsg.ACLOperationDelete, req.GroupID)
	if why != nil {
		return refuse(why, "group", req.GroupID)
	}
	forward := *req
	forward.GroupID, forward.Topics = group(t, req.GroupID), nil
	for _, rt := range req.Topics {
		topic, code := s.topic(t, kmsg.ACLOperationRead, rt.Topic)
		if code != 0 {
			out := kmsg.NewDeleteShareGroupOffsetsResponseTopic()
			out.Topic, out.ErrorCode, out.ErrorMessage = rt.Topic, code, stockText(code)
			resp.Topics = append(resp.Topics, out)
			continue
		}
		rt.Topic = topic.Physical.Name
		forward.Topics = append(forward.Topics, rt)
	}
	if len(forward.Topics) == 0 && len(req.Topics) > 0 {
		return resp, nil
	}
	up, code := s.coordinator(ctx, t, t.Home, upstream.Control, 0, &forward)
	if code != 0 {
		resp.ErrorCode, resp.ErrorMessage, resp.Topics = code, stockText(code), nil
		return resp, nil
	}
	answer := up.(*kmsg.DeleteShareGroupOffsetsResponse)
	answer.ErrorMessage = ownText(answer.ErrorCode, answer.ErrorMessage)
	for i := range answer.Topics {
		rt := &answer.Topics[i]
		topic := t.Grouped(rt.Topic)
		if topic == nil {
			return nil, errForeign
		}
		rt.Topic = topic.Name
		if rt.TopicID != ([16]byte{}) {
			rt.TopicID = topic.ID
		}
		rt.ErrorMessage = ownText(rt.ErrorCode, rt.ErrorMessage)
	}
	answer.Topics = append(resp.Topics, answer.Topics...)
	return answer, nil
}
