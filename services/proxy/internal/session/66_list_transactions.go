package session

import (
	"context"
	"regexp"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
)

// ListTransactions: versions 0 to 2. The pattern of version 2 (KIP-1152) is matched
// here, against the ids the client knows.
func listTransactions(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.ListTransactionsRequest)
	resp := req.ResponseKind().(*kmsg.ListTransactionsResponse)
	t, err := s.table(ctx)
	if err != nil {
		resp.ErrorCode = s.refused(refusal.CoordinatorUnavailable.With(err))
		return resp, nil
	}
	var pattern *regexp.Regexp
	if p := req.TransactionalIDPattern; p != nil && *p != "" {
		if pattern, err = regexp.Compile("^(?:" + *p + ")$"); err != nil {
			resp.ErrorCode = s.refused(refusal.RegexInvalid.With(err))
			return resp, nil
		}
	}
	req.TransactionalIDPattern = nil
	up, err := s.request(ctx, upstream.Control, 0, req)
	if err != nil {
		s.vc.Home.MarkStale()
		resp.ErrorCode = s.refused(refusal.CoordinatorUnavailable.With(err))
		return resp, nil
	}
	answer := up.(*kmsg.ListTransactionsResponse)
	kept := answer.TransactionStates[:0]
	for _, st := range answer.TransactionStates {
		id, ok := strings.CutPrefix(st.TransactionalID, t.View.Prefix)
		if !ok || !s.mayTxn(t, kmsg.ACLOperationDescribe, id) || pattern != nil && !pattern.MatchString(id) {
			continue
		}
		st.TransactionalID = id
		kept = append(kept, st)
	}
	answer.TransactionStates = kept
	return answer, nil
}
