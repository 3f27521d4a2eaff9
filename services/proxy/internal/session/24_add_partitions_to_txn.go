package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
)

// AddPartitionsToTxn: versions 0 to 3; 4 and up are between brokers. One topic
// that is refused refuses the request: the others get OPERATION_NOT_ATTEMPTED, or,
// beside a topic of another cluster than the transaction's, the same code.
func addPartitionsToTxn(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.AddPartitionsToTxnRequest)
	resp := req.ResponseKind().(*kmsg.AddPartitionsToTxnResponse)
	answerAll := func(code func(topic string) int16) kmsg.Response {
		for _, rt := range req.Topics {
			out := kmsg.NewAddPartitionsToTxnResponseTopic()
			out.Topic = rt.Topic
			for _, p := range rt.Partitions {
				rp := kmsg.NewAddPartitionsToTxnResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p, code(rt.Topic)
				out.Partitions = append(out.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, out)
		}
		return resp
	}
	same := func(code int16) func(string) int16 { return func(string) int16 { return code } }
	t, why := s.tableFor(ctx, s.refuseTxn, kmsg.ACLOperationWrite, req.TransactionalID)
	if why != nil {
		return answerAll(same(s.refused(why, "transactional_id", req.TransactionalID))), nil
	}
	forward := *req
	forward.TransactionalID, forward.Topics = t.View.Prefix+req.TransactionalID, nil
	m := t.TransactionMember(req.TransactionalID)
	var elsewhere error
	refused := make(map[string]int16)
	for _, rt := range req.Topics {
		topic, code := s.topic(t, kmsg.ACLOperationWrite, rt.Topic)
		if code != 0 {
			refused[rt.Topic] = code
			continue
		}
		if topic.Member != m && elsewhere == nil {
			elsewhere = s.refusePartition(req.TransactionalID, topic.Name)
		}
		rt.Topic = topic.Physical.Name
		forward.Topics = append(forward.Topics, rt)
	}
	if elsewhere != nil && len(refused) == 0 {
		// One code for all: 29 and 55 beside it would kill franz-go.
		return answerAll(same(s.refused(elsewhere, "transactional_id", req.TransactionalID))), nil
	}
	if len(refused) > 0 {
		s.vc.Transactions.Refuse(req.TransactionalID)
		return answerAll(func(topic string) int16 {
			if code, ok := refused[topic]; ok {
				return code
			}
			return s.refused(refusal.NotAttempted, "topic", topic)
		}), nil
	}
	up, code := s.coordinator(ctx, t, m, upstream.Control, 0, &forward)
	if code != 0 {
		return answerAll(same(code)), nil
	}
	answer := up.(*kmsg.AddPartitionsToTxnResponse)
	for i := range answer.Topics {
		topic := m.Topic(answer.Topics[i].Topic)
		if topic == nil {
			return nil, errForeign
		}
		answer.Topics[i].Topic = topic.Name
	}
	return answer, nil
}
