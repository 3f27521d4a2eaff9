package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// OffsetDelete: version 0. DELETE on the group, READ on each topic. What is not on
// home is deleted where it is, once home says that no member reads it (see split.go).
func offsetDelete(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.OffsetDeleteRequest)
	resp := req.ResponseKind().(*kmsg.OffsetDeleteResponse)
	t, why := s.tableFor(ctx, s.refuseGroup, kmsg.ACLOperationDelete, req.Group)
	if why != nil {
		resp.ErrorCode = s.refused(why, "group", req.Group)
		return resp, nil
	}
	forward := *req
	forward.Group, forward.Topics = group(t, req.Group), nil
	var away []awayDelete
	for _, rt := range req.Topics {
		topic, code := s.topic(t, kmsg.ACLOperationRead, rt.Topic)
		if code != 0 {
			out := kmsg.NewOffsetDeleteResponseTopic()
			out.Topic = rt.Topic
			for _, p := range rt.Partitions {
				rp := kmsg.NewOffsetDeleteResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p.Partition, code
				out.Partitions = append(out.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, out)
			continue
		}
		if topic.Split != nil {
			away = addDelete(away, topic, rt)
			continue
		}
		rt.Topic = topic.Grouped.Name
		forward.Topics = append(forward.Topics, rt)
	}
	if len(forward.Topics) == 0 && len(away) == 0 && len(req.Topics) > 0 {
		return resp, nil
	}
	if len(away) > 0 {
		end, busy := s.turn(ctx, forward.Group)
		defer end()
		if busy != nil {
			resp.ErrorCode, resp.Topics = s.refused(busy, "group", req.Group), nil
			return resp, nil
		}
	}
	if len(forward.Topics) > 0 || len(away) == 0 {
		up, code := s.coordinator(ctx, t, t.Home, upstream.Control, 0, &forward)
		if code != 0 {
			resp.ErrorCode, resp.Topics = code, nil
			return resp, nil
		}
		answer := up.(*kmsg.OffsetDeleteResponse)
		for i := range answer.Topics {
			topic := t.Grouped(answer.Topics[i].Topic)
			if topic == nil {
				return nil, errForeign
			}
			answer.Topics[i].Topic = topic.Name
		}
		answer.Topics = append(resp.Topics, answer.Topics...)
		resp = answer
	}
	if len(away) == 0 || resp.ErrorCode != 0 && resp.ErrorCode != kerr.GroupIDNotFound.Code {
		return resp, nil
	}
	return s.deleteOffsetsAway(ctx, t, &forward, resp, away), nil
}
