package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/view"
)

// ListOffsets: versions 1 to 11, names in all of them; the replica id is forced to
// -1, since other values read what consumers may not (PROTOCOL.md §A).
func listOffsets(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.ListOffsetsRequest)
	req.ReplicaID = -1
	return askLeader(s, ctx, req, &req.Topics,
		func(r *kmsg.ListOffsetsResponse) *[]kmsg.ListOffsetsResponseTopic { return &r.Topics },
		byTopic[kmsg.ListOffsetsRequestTopic, kmsg.ListOffsetsResponseTopic]{
			judge: func(t *view.Table, name string) (*view.Topic, int16) {
				return s.topic(t, kmsg.ACLOperationDescribe, name)
			},
			asked:    func(q *kmsg.ListOffsetsRequestTopic) *string { return &q.Topic },
			answered: func(a *kmsg.ListOffsetsResponseTopic) *string { return &a.Topic },
			refused:  refusedListOffsets,
			mapped: func(a *kmsg.ListOffsetsResponseTopic) {
				for _, p := range a.Partitions {
					s.noteError(p.ErrorCode)
				}
			},
		})
}

func refusedListOffsets(q kmsg.ListOffsetsRequestTopic, code int16) kmsg.ListOffsetsResponseTopic {
	out := kmsg.NewListOffsetsResponseTopic()
	out.Topic = q.Topic
	for _, p := range q.Partitions {
		rp := kmsg.NewListOffsetsResponseTopicPartition()
		rp.Partition, rp.ErrorCode, rp.Timestamp, rp.Offset, rp.LeaderEpoch = p.Partition, code, -1, -1, -1
		out.Partitions = append(out.Partitions, rp)
	}
	return out
}
