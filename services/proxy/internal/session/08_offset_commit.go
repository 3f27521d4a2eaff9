package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// OffsetCommit: versions 2 to 10; names to 9, ids from 10. READ on the group, then
// READ on each topic.
func offsetCommit(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.OffsetCommitRequest)
	resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
	refuse := func(rt kmsg.OffsetCommitRequestTopic, code int16) {
		out := kmsg.NewOffsetCommitResponseTopic()
		out.Topic, out.TopicID = rt.Topic, rt.TopicID
		for _, p := range rt.Partitions {
			rp := kmsg.NewOffsetCommitResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p.Partition, code
			out.Partitions = append(out.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, out)
	}
	refuseAll := func(code int16) (kmsg.Response, error) {
		resp.Topics = nil
		for _, rt := range req.Topics {
			refuse(rt, code)
		}
		return resp, nil
	}
	t, why := s.tableFor(ctx, s.refuseGroup, kmsg.ACLOperationRead, req.Group)
	if why != nil {
		return refuseAll(s.refused(why, "group", req.Group))
	}
	forward := *req
	forward.Group, forward.Topics = group(t, req.Group), nil
	for _, rt := range req.Topics {
		topic, code := s.nameOrID(t, kmsg.ACLOperationRead, req.Version >= 10, rt.Topic, rt.TopicID)
		if code != 0 {
			refuse(rt, code)
			continue
		}
		rt.Topic, rt.TopicID = topic.Grouped.Name, topic.Grouped.ID
		forward.Topics = append(forward.Topics, rt)
	}
	if len(forward.Topics) == 0 && len(req.Topics) > 0 {
		return resp, nil
	}
	up, code := s.coordinator(ctx, t, t.Home, upstream.Control, 0, &forward)
	if code != 0 {
		return refuseAll(code)
	}
	answer := up.(*kmsg.OffsetCommitResponse)
	for i := range answer.Topics {
		rt := &answer.Topics[i]
		topic := t.Grouped(rt.Topic)
		if answer.Version >= 10 {
			topic = t.GroupedByID(rt.TopicID)
		}
		if topic == nil {
			return nil, errForeign
		}
		rt.Topic, rt.TopicID = topic.Name, topic.ID
	}
	answer.Topics = append(resp.Topics, answer.Topics...)
	return answer, nil
}
