package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// EndTxn: versions 0 to 5. A coordinator does not know a transaction of which
// everything was refused here; its abort succeeds all the same (PROTOCOL.md §C3).
func endTxn(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.EndTxnRequest)
	resp := req.ResponseKind().(*kmsg.EndTxnResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	t, why := s.tableFor(ctx, s.refuseTxn, kmsg.ACLOperationWrite, req.TransactionalID)
	if why != nil {
		resp.ErrorCode = s.refused(why, "transactional_id", req.TransactionalID)
		return resp, nil
	}
	id := req.TransactionalID
	req.TransactionalID = t.View.Prefix + id
	up, code := s.coordinator(ctx, t, t.TransactionMember(id), upstream.Control, 0, req)
	if code != 0 {
		resp.ErrorCode = code
		return resp, nil
	}
	answer := up.(*kmsg.EndTxnResponse)
	if answer.ErrorCode == kerr.InvalidTxnState.Code && !req.Commit && s.vc.Transactions.Refused(id) {
		answer.ErrorCode = 0
	}
	if answer.ErrorCode == 0 {
		s.vc.Transactions.End(id)
	}
	return up, nil
}
