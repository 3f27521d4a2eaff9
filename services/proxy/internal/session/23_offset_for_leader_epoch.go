package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// OffsetForLeaderEpoch: versions 2 to 4; librdkafka speaks 2 only. The replica id
// is forced to -1.
func offsetForLeaderEpoch(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.OffsetForLeaderEpochRequest)
	resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	refuse := func(rt kmsg.OffsetForLeaderEpochRequestTopic, code int16) {
		out := kmsg.NewOffsetForLeaderEpochResponseTopic()
		out.Topic = rt.Topic
		for _, p := range rt.Partitions {
			rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			rp.Partition, rp.ErrorCode, rp.LeaderEpoch, rp.EndOffset = p.Partition, code, -1, -1
			out.Partitions = append(out.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, out)
	}
	t, err := s.table(ctx)
	forward := *req
	forward.ReplicaID, forward.Topics = -1, nil
	var accepted []kmsg.OffsetForLeaderEpochRequestTopic
	for _, rt := range req.Topics {
		if err != nil {
			refuse(rt, kerr.NotLeaderForPartition.Code)
			continue
		}
		topic, code := s.topic(t, kmsg.ACLOperationDescribe, rt.Topic)
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
	up, err := s.request(ctx, upstream.Control, 0, &forward)
	if err != nil {
		s.vc.Home.MarkStale()
		for _, rt := range accepted {
			refuse(rt, kerr.NotLeaderForPartition.Code)
		}
		return resp, nil
	}
	answer := up.(*kmsg.OffsetForLeaderEpochResponse)
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
