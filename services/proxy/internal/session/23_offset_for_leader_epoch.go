package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/view"
)

// OffsetForLeaderEpoch: versions 2 to 4; librdkafka speaks 2 only. The replica id
// is forced to -1.
func offsetForLeaderEpoch(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.OffsetForLeaderEpochRequest)
	req.ReplicaID = -1
	return askLeader(s, ctx, req, &req.Topics,
		func(r *kmsg.OffsetForLeaderEpochResponse) *[]kmsg.OffsetForLeaderEpochResponseTopic { return &r.Topics },
		byTopic[kmsg.OffsetForLeaderEpochRequestTopic, kmsg.OffsetForLeaderEpochResponseTopic]{
			judge: func(t *view.Table, name string) (*view.Topic, int16) {
				return s.topic(t, kmsg.ACLOperationDescribe, name)
			},
			asked:    func(q *kmsg.OffsetForLeaderEpochRequestTopic) *string { return &q.Topic },
			answered: func(a *kmsg.OffsetForLeaderEpochResponseTopic) *string { return &a.Topic },
			refused:  refusedOffsetForLeaderEpoch,
			mapped: func(a *kmsg.OffsetForLeaderEpochResponseTopic) {
				for _, p := range a.Partitions {
					s.noteError(p.ErrorCode)
				}
			},
		})
}

func refusedOffsetForLeaderEpoch(q kmsg.OffsetForLeaderEpochRequestTopic, code int16) kmsg.OffsetForLeaderEpochResponseTopic {
	out := kmsg.NewOffsetForLeaderEpochResponseTopic()
	out.Topic = q.Topic
	for _, p := range q.Partitions {
		rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
		rp.Partition, rp.ErrorCode, rp.LeaderEpoch, rp.EndOffset = p.Partition, code, -1, -1
		out.Partitions = append(out.Partitions, rp)
	}
	return out
}
