package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// DescribeProducers: version 0. READ on the topic. Producers behind an alias may
// be anybody's, so aliases are refused.
func describeProducers(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DescribeProducersRequest)
	resp := req.ResponseKind().(*kmsg.DescribeProducersResponse)
	refuse := func(rt kmsg.DescribeProducersRequestTopic, code int16) {
		out := kmsg.NewDescribeProducersResponseTopic()
		out.Topic = rt.Topic
		for _, p := range rt.Partitions {
			rp := kmsg.NewDescribeProducersResponseTopicPartition()
			rp.Partition, rp.ErrorCode, rp.ErrorMessage = p, code, stockText(code)
			out.Partitions = append(out.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, out)
	}
	t, err := s.table(ctx)
	forward := *req
	forward.Topics = nil
	var accepted []kmsg.DescribeProducersRequestTopic
	for _, rt := range req.Topics {
		if err != nil {
			refuse(rt, kerr.NotLeaderForPartition.Code)
			continue
		}
		topic, code := s.topic(t, kmsg.ACLOperationRead, rt.Topic)
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
	up, err := s.request(ctx, upstream.Control, 0, &forward)
	if err != nil {
		s.vc.Home.MarkStale()
		for _, rt := range accepted {
			refuse(rt, kerr.NotLeaderForPartition.Code)
		}
		return resp, nil
	}
	answer := up.(*kmsg.DescribeProducersResponse)
	for i := range answer.Topics {
		rt := &answer.Topics[i]
		topic := t.Virtual(rt.Topic)
		if topic == nil {
			return nil, errForeign
		}
		rt.Topic = topic.Name
		for j := range rt.Partitions {
			if p := &rt.Partitions[j]; p.ErrorCode != 0 {
				p.ErrorMessage = stockText(p.ErrorCode)
			}
		}
	}
	answer.Topics = append(resp.Topics, answer.Topics...)
	return answer, nil
}
