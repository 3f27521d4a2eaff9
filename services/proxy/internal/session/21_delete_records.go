package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/view"
)

// DeleteRecords: versions 0 to 2. Records behind an alias are somebody else's.
func deleteRecords(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DeleteRecordsRequest)
	return askLeader(s, ctx, req, &req.Topics,
		func(r *kmsg.DeleteRecordsResponse) *[]kmsg.DeleteRecordsResponseTopic { return &r.Topics },
		byTopic[kmsg.DeleteRecordsRequestTopic, kmsg.DeleteRecordsResponseTopic]{
			judge: func(t *view.Table, name string) (*view.Topic, int16) {
				return s.ownTopic(t, kmsg.ACLOperationDelete, name)
			},
			asked:    func(q *kmsg.DeleteRecordsRequestTopic) *string { return &q.Topic },
			answered: func(a *kmsg.DeleteRecordsResponseTopic) *string { return &a.Topic },
			refused:  refusedDeleteRecords,
			limit:    adminLimit(req.TimeoutMillis),
		})
}

func refusedDeleteRecords(q kmsg.DeleteRecordsRequestTopic, code int16) kmsg.DeleteRecordsResponseTopic {
	out := kmsg.NewDeleteRecordsResponseTopic()
	out.Topic = q.Topic
	for _, p := range q.Partitions {
		rp := kmsg.NewDeleteRecordsResponseTopicPartition()
		rp.Partition, rp.ErrorCode, rp.LowWatermark = p.Partition, code, -1
		out.Partitions = append(out.Partitions, rp)
	}
	return out
}

// ownTopic is topic for what may not be done to the topic behind an alias.
func (s *Session) ownTopic(t *view.Table, op kmsg.ACLOperation, name string) (*view.Topic, int16) {
	topic, code := s.topic(t, op, name)
	if code == 0 && topic.Alias {
		return nil, s.refused(refusal.AliasReadOnly, "topic", name)
	}
	return topic, code
}
