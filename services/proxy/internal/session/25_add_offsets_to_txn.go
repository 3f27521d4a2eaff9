package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// AddOffsetsToTxn: versions 0 to 4.
func addOffsetsToTxn(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.AddOffsetsToTxnRequest)
	resp := req.ResponseKind().(*kmsg.AddOffsetsToTxnResponse)
	t, why := s.tableFor(ctx, s.refuseTxn, kmsg.ACLOperationWrite, req.TransactionalID)
	if why != nil {
		resp.ErrorCode = s.refused(why, "transactional_id", req.TransactionalID)
		return resp, nil
	}
	if why := s.refuseGroup(t, kmsg.ACLOperationRead, req.Group); why != nil {
		s.vc.Transactions.Refuse(req.TransactionalID)
		resp.ErrorCode = s.refused(why, "group", req.Group)
		return resp, nil
	}
	if t.TransactionMember(req.TransactionalID) != t.Home {
		resp.ErrorCode = s.refused(s.refuseOffsets(req.TransactionalID, req.Version >= 4), "transactional_id", req.TransactionalID, "group", req.Group)
		return resp, nil
	}
	req.TransactionalID = t.View.Prefix + req.TransactionalID
	req.Group = group(t, req.Group)
	up, code := s.coordinator(ctx, t, t.Home, upstream.Control, 0, req)
	if code != 0 {
		resp.ErrorCode = code
		return resp, nil
	}
	return up, nil
}
