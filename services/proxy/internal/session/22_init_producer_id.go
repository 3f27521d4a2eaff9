package session

import (
	"context"
	"errors"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/producerid"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
)

// InitProducerId: versions 0 to 5.
func initProducerID(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.InitProducerIDRequest)
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	t, err := s.table(ctx)
	if err != nil {
		resp.ErrorCode = s.refused(refusal.CoordinatorUnavailable.With(err))
		return resp, nil
	}
	send := func() (kmsg.Response, error) { return s.request(ctx, upstream.Control, 0, req) }
	if req.TransactionalID == nil {
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
		send = func() (kmsg.Response, error) { return s.vc.Home.RequestAny(ctx, s.target(), s.clientID(), req) }
	} else {
		if why := s.refuseTxn(t, kmsg.ACLOperationWrite, *req.TransactionalID); why != nil {
			resp.ErrorCode = s.refused(why, "transactional_id", *req.TransactionalID)
			return resp, nil
		}
		s.txn.reset(*req.TransactionalID)
		req.TransactionalID = kmsg.StringPtr(t.View.Prefix + *req.TransactionalID)
	}
	up, err := send()
	if err != nil {
		s.vc.Home.MarkStale()
		resp.ErrorCode = s.refused(refusal.CoordinatorUnavailable.With(err))
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

// transactions remembers which transactions of this connection had partitions
// refused and nothing forwarded: a broker knows nothing of them and would answer
// their abort with INVALID_TXN_STATE, which kills librdkafka and franz-go
// producers (PROTOCOL.md §C3).
type transactions struct {
	mu    sync.Mutex
	state map[string]txnState
}

// maxTransactions is how many are remembered for a connection. A producer has one.
const maxTransactions = 1000

type txnState struct{ refused, forwarded bool }

func (x *transactions) note(id string, refused bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.state == nil {
		x.state = make(map[string]txnState)
	}
	st, known := x.state[id]
	if !known && len(x.state) >= maxTransactions {
		clear(x.state) // nobody has so many; who makes them up gets a broker's answers
	}
	st.refused = st.refused || refused
	st.forwarded = st.forwarded || !refused
	x.state[id] = st
}

func (x *transactions) reset(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.state, id)
}

// empty reports whether everything of the transaction was refused.
func (x *transactions) empty(id string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.state[id].refused && !x.state[id].forwarded
}
