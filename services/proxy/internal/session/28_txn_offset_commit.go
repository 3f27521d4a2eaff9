package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// TxnOffsetCommit: versions 0 to 5; 6 (ids, KIP-1319) is not served.
func txnOffsetCommit(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.TxnOffsetCommitRequest)
	resp := req.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
	refuse := func(rt kmsg.TxnOffsetCommitRequestTopic, code int16) {
		out := kmsg.NewTxnOffsetCommitResponseTopic()
		out.Topic = rt.Topic
		for _, p := range rt.Partitions {
			rp := kmsg.NewTxnOffsetCommitResponseTopicPartition()
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
	t, why := s.tableFor(ctx, s.refuseTxn, kmsg.ACLOperationWrite, req.TransactionalID)
	if why != nil {
		return refuseAll(s.refused(why, "transactional_id", req.TransactionalID))
	}
	if why := s.refuseMember(t, kmsg.ACLOperationRead, req.Group); why != nil {
		return refuseAll(s.refused(why, "group", req.Group))
	}
	if t.TransactionMember(req.TransactionalID) != t.Home {
		return refuseAll(s.refused(s.refuseOffsets(req.TransactionalID, req.Version >= 4), "transactional_id", req.TransactionalID, "group", req.Group))
	}
	forward := *req
	forward.TransactionalID, forward.Group, forward.Topics = t.View.Prefix+req.TransactionalID, group(t, req.Group), nil
	for _, rt := range req.Topics {
		topic, code := s.topic(t, kmsg.ACLOperationRead, rt.Topic)
		if code != 0 {
			refuse(rt, code)
			continue
		}
		if topic.Split != nil {
			return refuseAll(s.refused(s.refuseOffsets(req.TransactionalID, req.Version >= 4), "transactional_id", req.TransactionalID, "topic", topic.Name))
		}
		rt.Topic = topic.Grouped.Name
		forward.Topics = append(forward.Topics, rt)
	}
	if len(forward.Topics) == 0 {
		return resp, nil
	}
	up, code := s.coordinator(ctx, t, t.Home, upstream.Control, 0, &forward)
	if code != 0 {
		return refuseAll(code)
	}
	answer := up.(*kmsg.TxnOffsetCommitResponse)
	for i := range answer.Topics {
		topic := t.Grouped(answer.Topics[i].Topic)
		if topic == nil {
			return nil, errForeign
		}
		answer.Topics[i].Topic = topic.Name
	}
	answer.Topics = append(resp.Topics, answer.Topics...)
	return answer, nil
}
