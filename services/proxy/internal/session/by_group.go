package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// byGroup says how a request key lists groups: Q is one group of the request, A
// one of the answer.
type byGroup[Q, A any] struct {
	named    bool                        // an empty name is refused: no such group can be made
	op       kmsg.ACLOperation           // what the client must be allowed on each group
	asked    func(*Q) *string            // where a request has the group's name
	answered func(*A) *string            // where an answer has it
	refused  func(Q, int16) A            // what a group is answered that is not forwarded
	forward  func(*view.Table, *Q)       // what else is to be rewritten in a request; nil: nothing
	mapped   func(*view.Table, *A) int16 // what else is to be rewritten in an answer; a code refuses it. nil: nothing
}

// askCoordinator judges every group of req, forwards those that pass to the
// coordinator the client dialled, and answers with what was refused and what the
// coordinator said.
func askCoordinator[R kmsg.Response, Q, A any](s *Session, ctx context.Context, req kmsg.Request, groups *[]Q, answers func(R) *[]A, k byGroup[Q, A]) (kmsg.Response, error) {
	t, err := s.table(ctx)
	var refused []A
	var forward []Q
	accepted := make(map[string]Q) // by the name on home
	for _, q := range *groups {
		name := *k.asked(&q)
		if err != nil {
			refused = append(refused, k.refused(q, s.refused(refusal.CoordinatorUnavailable.With(err))))
			continue
		}
		if why := s.refuseGroup(t, k.op, name); why != nil {
			refused = append(refused, k.refused(q, s.refused(why, "group", name)))
			continue
		}
		if k.named && name == "" {
			refused = append(refused, k.refused(q, s.refused(refusal.GroupInvalid)))
			continue
		}
		accepted[group(t, name)] = q
		*k.asked(&q) = group(t, name)
		if k.forward != nil {
			k.forward(t, &q)
		}
		forward = append(forward, q)
	}
	resp := req.ResponseKind().(R)
	if len(forward) == 0 {
		*answers(resp) = refused
		return resp, nil
	}
	*groups = forward
	up, code := s.coordinator(ctx, t, t.Home, upstream.Control, 0, req)
	if code != 0 {
		for _, q := range forward {
			refused = append(refused, k.refused(accepted[*k.asked(&q)], code))
		}
		*answers(resp) = refused
		return resp, nil
	}
	resp = up.(R)
	all := *answers(resp)
	for i := range all {
		a := &all[i]
		q, ok := accepted[*k.answered(a)]
		if !ok {
			return nil, errForeign
		}
		*k.answered(a) = *k.asked(&q)
		if k.mapped == nil {
			continue
		}
		if code := k.mapped(t, a); code != 0 {
			*a = k.refused(q, code)
		}
	}
	*answers(resp) = append(refused, all...)
	return resp, nil
}

// itself is asked for requests that list bare names.
func itself(name *string) *string { return name }
