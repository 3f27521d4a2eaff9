package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// DeleteGroups: versions 0 to 2.
func deleteGroups(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DeleteGroupsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteGroupsResponse)
	t, err := s.table(ctx)
	refuse := func(name string, code int16) {
		g := kmsg.NewDeleteGroupsResponseGroup()
		g.Group, g.ErrorCode = name, code
		resp.Groups = append(resp.Groups, g)
	}
	forward := *req
	forward.Groups = nil
	for _, name := range req.Groups {
		switch {
		case err != nil:
			refuse(name, kerr.CoordinatorNotAvailable.Code)
		case !s.mayGroup(t, kmsg.ACLOperationDelete, name):
			refuse(name, kerr.GroupAuthorizationFailed.Code)
		default:
			forward.Groups = append(forward.Groups, group(t, name))
		}
	}
	if len(forward.Groups) == 0 {
		return resp, nil
	}
	up, code := s.coordinator(ctx, upstream.Control, 0, &forward)
	if code != 0 {
		for _, name := range forward.Groups {
			virtual, _ := ungroup(t, name)
			refuse(virtual, code)
		}
		return resp, nil
	}
	answer := up.(*kmsg.DeleteGroupsResponse)
	for i := range answer.Groups {
		name, ok := ungroup(t, answer.Groups[i].Group)
		if !ok {
			return nil, errForeign
		}
		answer.Groups[i].Group = name
	}
	answer.Groups = append(resp.Groups, answer.Groups...)
	return answer, nil
}
