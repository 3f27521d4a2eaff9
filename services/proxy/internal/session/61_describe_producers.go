package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/view"
)

// DescribeProducers: version 0. READ on the topic. Producers behind an alias may
// be anybody's, so aliases are refused.
func describeProducers(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DescribeProducersRequest)
	return askLeader(s, ctx, req, &req.Topics,
		func(r *kmsg.DescribeProducersResponse) *[]kmsg.DescribeProducersResponseTopic { return &r.Topics },
		byTopic[kmsg.DescribeProducersRequestTopic, kmsg.DescribeProducersResponseTopic]{
			judge: func(t *view.Table, name string) (*view.Topic, int16) {
				return s.ownTopic(t, kmsg.ACLOperationRead, name)
			},
			asked:    func(q *kmsg.DescribeProducersRequestTopic) *string { return &q.Topic },
			answered: func(a *kmsg.DescribeProducersResponseTopic) *string { return &a.Topic },
			refused:  refusedDescribeProducers,
			mapped: func(a *kmsg.DescribeProducersResponseTopic) {
				for i := range a.Partitions {
					if p := &a.Partitions[i]; p.ErrorCode != 0 {
						p.ErrorMessage = ownText(p.ErrorCode, p.ErrorMessage)
					}
				}
			},
		})
}

func refusedDescribeProducers(q kmsg.DescribeProducersRequestTopic, code int16) kmsg.DescribeProducersResponseTopic {
	out := kmsg.NewDescribeProducersResponseTopic()
	out.Topic = q.Topic
	for _, p := range q.Partitions {
		rp := kmsg.NewDescribeProducersResponseTopicPartition()
		rp.Partition, rp.ErrorCode, rp.ErrorMessage = p, code, stockText(code)
		out.Partitions = append(out.Partitions, rp)
	}
	return out
}
