package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
)

// ListGroups: versions 0 to 5. Clients ask every broker; each answers for the
// groups it coordinates. Groups of others and groups without DESCRIBE are left
// out.
func listGroups(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.ListGroupsRequest)
	resp := req.ResponseKind().(*kmsg.ListGroupsResponse)
	t, err := s.table(ctx)
	if err != nil {
		resp.ErrorCode = s.refused(refusal.CoordinatorUnavailable.With(err))
		return resp, nil
	}
	if m, _ := s.dialled(t); m != t.Home {
		return resp, nil // all groups are on home, and each is to be listed once
	}
	up, err := s.request(ctx, t, upstream.Control, 0, req)
	if err != nil {
		resp.ErrorCode = s.refused(refusal.CoordinatorUnavailable.With(err))
		return resp, nil
	}
	answer := up.(*kmsg.ListGroupsResponse)
	all := s.mayCluster(t, kmsg.ACLOperationDescribe)
	kept := answer.Groups[:0]
	for _, g := range answer.Groups {
		name, ok := ungroup(t, g.Group)
		if !ok || !all && !s.mayGroup(t, kmsg.ACLOperationDescribe, name) {
			continue
		}
		g.Group = name
		kept = append(kept, g)
	}
	answer.Groups = kept
	return answer, nil
}
