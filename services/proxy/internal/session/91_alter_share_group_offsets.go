package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// AlterShareGroupOffsets (KIP-932): version 0. READ on the group, READ on each topic.
func alterShareGroupOffsets(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.AlterShareGroupOffsetsRequest)
	resp := req.ResponseKind().(*kmsg.AlterShareGroupOffsetsResponse)
	refuse := func(why error, args ...any) (kmsg.Response, error) {
		resp.ErrorCode, resp.ErrorMessage = s.refusedText(why, args...)
		return resp, nil
	}
	t, why := s.tableFor(ctx, s.refuseMember, kmsg.ACLOperationRead, req.GroupID)
	if why != nil {
		return refuse(why, "group", req.GroupID)
	}
	forward := *req
	forward.GroupID, forward.Topics = group(t, req.GroupID), nil
	for _, rt := range req.Topics {
		topic, code := s.topic(t, kmsg.ACLOperationRead, rt.Topic)
		if code != 0 {
			out := kmsg.NewAlterShareGroupOffsetsResponseTopic()
			out.Topic = rt.Topic
			for _, p := range rt.Partitions {
				rp := kmsg.NewAlterShareGroupOffsetsResponseTopicPartition()
				rp.Partition, rp.ErrorCode, rp.ErrorMessage = p.Partition, code, stockText(code)
				out.Partitions = append(out.Partitions, rp)
			}
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
	answer := up.(*kmsg.AlterShareGroupOffsetsResponse)
	answer.ErrorMessage = stockText(answer.ErrorCode)
	for i := range answer.Topics {
		rt := &answer.Topics[i]
		topic := t.Grouped(rt.Topic)
		if topic == nil {
			return nil, errForeign
		}
		rt.Topic, rt.TopicID = topic.Name, topic.ID
		for j := range rt.Partitions {
			rt.Partitions[j].ErrorMessage = stockText(rt.Partitions[j].ErrorCode)
		}
	}
	answer.Topics = append(resp.Topics, answer.Topics...)
	return answer, nil
}
