package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// DeleteRecords: versions 0 to 2. Records behind an alias are somebody else's.
func deleteRecords(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DeleteRecordsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteRecordsResponse)
	refuse := func(rt kmsg.DeleteRecordsRequestTopic, code int16) {
		out := kmsg.NewDeleteRecordsResponseTopic()
		out.Topic = rt.Topic
		for _, p := range rt.Partitions {
			rp := kmsg.NewDeleteRecordsResponseTopicPartition()
			rp.Partition, rp.ErrorCode, rp.LowWatermark = p.Partition, code, -1
			out.Partitions = append(out.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, out)
	}
	t, err := s.table(ctx)
	forward := *req
	forward.Topics = nil
	var accepted []kmsg.DeleteRecordsRequestTopic
	for _, rt := range req.Topics {
		if err != nil {
			refuse(rt, kerr.NotLeaderForPartition.Code)
			continue
		}
		topic, code := s.topic(t, kmsg.ACLOperationDelete, rt.Topic)
		if code == 0 && topic.Alias {
			code = kerr.TopicAuthorizationFailed.Code
		}
		if code != 0 {
			refuse(rt, code)
			continue
		}
		accepted = append(accepted, rt)
		rt.Topic = topic.Physical.Name
		forward.Topics = append(forward.Topics, rt)
	}
	if len(forward.Topics) == 0 {
		return resp, nil
	}
	up, err := s.request(ctx, upstream.Control, adminLimit(req.TimeoutMillis), &forward)
	if err != nil {
		s.vc.Home.MarkStale()
		for _, rt := range accepted {
			refuse(rt, kerr.NotLeaderForPartition.Code)
		}
		return resp, nil
	}
	answer := up.(*kmsg.DeleteRecordsResponse)
	for i := range answer.Topics {
		topic := t.Virtual(answer.Topics[i].Topic)
		if topic == nil {
			return nil, errForeign
		}
		answer.Topics[i].Topic = topic.Name
	}
	answer.Topics = append(resp.Topics, answer.Topics...)
	return answer, nil
}
