package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// OffsetCommit: versions 2 to 10; names to 9, ids from 10. READ on the group, then
// READ on each topic. What is not on home follows when home has accepted the rest, or
// else an empty commit of the client's (see split.go).
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
	var away []awayCommit
	for _, rt := range req.Topics {
		topic, code := s.nameOrID(t, kmsg.ACLOperationRead, req.Version >= 10, rt.Topic, rt.TopicID)
		if code != 0 {
			refuse(rt, code)
			continue
		}
		if topic.Split != nil {
			away = addAway(away, topic, rt)
			continue
		}
		rt.Topic, rt.TopicID = topic.Grouped.Name, topic.Grouped.ID
		forward.Topics = append(forward.Topics, rt)
	}
	if len(forward.Topics) == 0 && len(away) == 0 && len(req.Topics) > 0 {
		return resp, nil
	}
	var busy error
	if len(away) > 0 {
		var end func()
		end, busy = s.turn(ctx, forward.Group)
		defer end()
	}
	passed, code := false, int16(0)
	if len(forward.Topics) > 0 || len(away) == 0 {
		up, lost := s.coordinator(ctx, t, t.Home, upstream.Control, 0, &forward)
		if lost != 0 {
			return refuseAll(lost)
		}
		answer := up.(*kmsg.OffsetCommitResponse)
		passed, code = fenced(answer)
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
		resp = answer
	}
	if len(away) == 0 {
		return resp, nil
	}
	switch {
	case code != 0:
	case busy != nil:
		code = s.refused(busy, "group", req.Group)
	case !passed:
		code = s.fence(ctx, t, &forward)
	}
	if code == 0 {
		s.commitAway(ctx, &forward, away)
	}
	for i := range away {
		p := &away[i]
		all := code
		if p.err != nil {
			all = s.refused(p.err, "group", req.Group)
		}
		resp.Topics = append(resp.Topics, p.answer(all)...)
	}
	return resp, nil
}
