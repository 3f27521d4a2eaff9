package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// ListOffsets: versions 1 to 11, names in all of them; the replica id is forced to
// -1, since other values read what consumers may not (PROTOCOL.md §A).
func listOffsets(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.ListOffsetsRequest)
	resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
	refuse := func(rt kmsg.ListOffsetsRequestTopic, code int16) {
		out := kmsg.NewListOffsetsResponseTopic()
		out.Topic = rt.Topic
		for _, p := range rt.Partitions {
			rp := kmsg.NewListOffsetsResponseTopicPartition()
			rp.Partition, rp.ErrorCode, rp.Timestamp, rp.Offset, rp.LeaderEpoch = p.Partition, code, -1, -1, -1
			out.Partitions = append(out.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, out)
	}
	t, err := s.table(ctx)
	forward := *req
	forward.ReplicaID, forward.Topics = -1, nil
	var accepted []kmsg.ListOffsetsRequestTopic
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
	answer := up.(*kmsg.ListOffsetsResponse)
	for i := range answer.Topics {
		rt := &answer.Topics[i]
		topic := t.Virtual(rt.Topic)
		if topic == nil {
			return nil, errForeign
		}
		rt.Topic = topic.Name
		for _, p := range rt.Partitions {
			s.noteError(p.ErrorCode)
		}
	}
	answer.Topics = append(resp.Topics, answer.Topics...)
	return answer, nil
}
