package session

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
)

// ListTransactions: versions 0 to 2. The pattern of version 2 (KIP-1152) is matched
// here, against the ids the client knows. Each broker lists the transactions it
// coordinates; one of a cluster that has none lists none.
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
	m, _ := s.dialled(t)
	if m != nil && m != t.Home && !slices.ContainsFunc(t.View.Spec.Transactions, func(r resource.TransactionRule) bool { return r.Cluster == m.Name }) {
		return resp, nil
	}
	up, err := s.request(ctx, t, upstream.Control, 0, req)
	if err != nil {
		resp.ErrorCode = s.refused(refusal.CoordinatorUnavailable.With(err))
		return resp, nil
	}
	answer := up.(*kmsg.ListTransactionsResponse)
	kept := answer.TransactionStates[:0]
	for _, st := range answer.TransactionStates {
		id, ok := strings.CutPrefix(st.TransactionalID, t.View.Prefix)
		if !ok || t.TransactionMember(id) != m || !s.mayTxn(t, kmsg.ACLOperationDescribe, id) || pattern != nil && !pattern.MatchString(id) {
			continue
		}
		st.TransactionalID = id
		kept = append(kept, st)
	}
	answer.TransactionStates = kept
	return answer, nil
}
