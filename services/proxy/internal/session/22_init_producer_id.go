package session

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/producerid"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// InitProducerId: versions 0 to 5. Without a transactional id nothing is answered
// with COORDINATOR_NOT_AVAILABLE: Java would look for the coordinator of null, in a
// request that is garbled, and kafka-python waits for ever. COORDINATOR_LOAD_IN_PROGRESS,
// which a broker without ids answers, lets every client ask again.
func initProducerID(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.InitProducerIDRequest)
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	t, err := s.table(ctx)
	if err != nil {
		why := refusal.CoordinatorUnavailable
		if req.TransactionalID == nil {
			why = refusal.ProducerIDUnavailable
		}
		resp.ErrorCode = s.refused(why.With(err))
		return resp, nil
	}
	if req.TransactionalID != nil {
		return s.initTransactions(ctx, t, req)
	}
	if !s.mayCluster(t, kmsg.ACLOperationIdempotentWrite) &&
		!t.View.ACL.AllowedByType(s.principal, s.host, kmsg.ACLOperationWrite, kmsg.ACLResourceTypeTopic) {
		resp.ErrorCode = s.refused(refusal.ProducerIDNotAuthorized)
		return resp, nil
	}
	if s.node.ProducerIDs != nil || t.View.Spec.Spans() {
		resp.ProducerID, resp.ProducerEpoch, err = s.issueProducerID()
		if err != nil {
			resp.ErrorCode = s.refused(err)
		}
		return resp, nil
	}
	// The id of the only cluster there is: unique there.
	up, err := t.Home.Cluster.RequestAny(ctx, s.near(t, t.Home), s.clientID(), req)
	if err != nil {
		t.Home.Cluster.MarkStale()
		resp.ErrorCode = s.refused(refusal.ProducerIDUnavailable.With(err))
		return resp, nil
	}
	return up, nil
}

// issueProducerID answers as a broker does when there is no transactional id: with
// a new id and epoch 0, whatever id the producer had (PROTOCOL.md §C1).
func (s *Session) issueProducerID() (id int64, epoch int16, err error) {
	if s.node.ProducerIDs == nil {
		return -1, -1, refusal.ProducerIDsNotConfigured
	}
	id, err = s.node.ProducerIDs.Issue(s.vc.Name)
	switch {
	case errors.Is(err, producerid.ErrTooFast):
		return -1, -1, refusal.ProducerIDsTooFast.With(err)
	case err != nil:
		return -1, -1, refusal.ProducerIDsWithoutLease.With(err)
	}
	return id, 0, nil
}

// initTransactions asks the coordinator of the transactional id.
func (s *Session) initTransactions(ctx context.Context, t *view.Table, req *kmsg.InitProducerIDRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	id := *req.TransactionalID
	if why := s.refuseTxn(t, kmsg.ACLOperationWrite, id); why != nil {
		resp.ErrorCode = s.refused(why, "transactional_id", id)
		return resp, nil
	}
	s.vc.Transactions.End(id)
	req.TransactionalID = kmsg.StringPtr(t.View.Prefix + id)
	if m, _ := s.dialled(t); m != t.TransactionMember(id) {
		resp.ErrorCode = s.refused(refusal.CoordinatorElsewhere, "transactional_id", id)
		return resp, nil
	}
	up, err := s.request(ctx, t, upstream.Control, 0, req)
	if err != nil {
		resp.ErrorCode = s.refused(refusal.CoordinatorUnavailable.With(err))
		return resp, nil
	}
	return up, nil
}
