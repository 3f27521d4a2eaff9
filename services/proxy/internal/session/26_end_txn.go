package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// EndTxn: versions 0 to 5. The abort of a transaction of which everything was
// refused is answered here (PROTOCOL.md §C3).
func endTxn(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.EndTxnRequest)
	resp := req.ResponseKind().(*kmsg.EndTxnResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	t, why := s.tableFor(ctx, s.refuseTxn, kmsg.ACLOperationWrite, req.TransactionalID)
	if why != nil {
		resp.ErrorCode = s.refused(why, "transactional_id", req.TransactionalID)
		return resp, nil
	}
	if !req.Commit && s.txn.empty(req.TransactionalID) && req.Version < 5 {
		s.txn.reset(req.TransactionalID)
		return resp, nil
	}
	id := req.TransactionalID
	req.TransactionalID = t.View.Prefix + id
	up, code := s.coordinator(ctx, upstream.Control, 0, req)
	if code != 0 {
		resp.ErrorCode = code
		return resp, nil
	}
	s.txn.reset(id)
	return up, nil
}
