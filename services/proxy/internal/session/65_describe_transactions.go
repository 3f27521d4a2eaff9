package session

import (
	"context"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// DescribeTransactions: version 0. Topics that the client may not see are left out.
func describeTransactions(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DescribeTransactionsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeTransactionsResponse)
	refuse := func(id string, code int16) {
		out := kmsg.NewDescribeTransactionsResponseTransactionState()
		out.TransactionalID, out.ErrorCode = id, code
		resp.TransactionStates = append(resp.TransactionStates, out)
	}
	t, err := s.table(ctx)
	forward := *req
	forward.TransactionalIDs = nil
	var m *view.Member
	if err == nil {
		m, _ = s.dialled(t)
	}
	for _, id := range req.TransactionalIDs {
		if err != nil {
			refuse(id, s.refused(refusal.CoordinatorUnavailable.With(err)))
		} else if why := s.refuseTxn(t, kmsg.ACLOperationDescribe, id); why != nil {
			refuse(id, s.refused(why, "transactional_id", id))
		} else if t.TransactionMember(id) != m {
			refuse(id, s.refused(refusal.CoordinatorElsewhere, "transactional_id", id))
		} else {
			forward.TransactionalIDs = append(forward.TransactionalIDs, t.View.Prefix+id)
		}
	}
	if len(forward.TransactionalIDs) == 0 {
		return resp, nil
	}
	up, code := s.coordinator(ctx, t, m, upstream.Control, 0, &forward)
	if code != 0 {
		for _, id := range forward.TransactionalIDs {
			refuse(id[len(t.View.Prefix):], code)
		}
		return resp, nil
	}
	answer := up.(*kmsg.DescribeTransactionsResponse)
	for i := range answer.TransactionStates {
		st := &answer.TransactionStates[i]
		id, ok := strings.CutPrefix(st.TransactionalID, t.View.Prefix)
		if !ok {
			return nil, errForeign
		}
		st.TransactionalID = id
		kept := st.Topics[:0]
		for _, rt := range st.Topics {
			if topic := m.Topic(rt.Topic); topic != nil && s.mayTopic(t, kmsg.ACLOperationDescribe, topic.Name) {
				rt.Topic = topic.Name
				kept = append(kept, rt)
			}
		}
		st.Topics = kept
	}
	answer.TransactionStates = append(resp.TransactionStates, answer.TransactionStates...)
	return answer, nil
}
