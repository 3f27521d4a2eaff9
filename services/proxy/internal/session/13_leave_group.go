package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// LeaveGroup: versions 0 to 5; several members from 3.
func leaveGroup(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.LeaveGroupRequest)
	resp := req.ResponseKind().(*kmsg.LeaveGroupResponse)
	t, why := s.tableFor(ctx, s.refuseMember, kmsg.ACLOperationRead, req.Group)
	if why != nil {
		resp.ErrorCode = s.refused(why, "group", req.Group)
		return resp, nil
	}
	req.Group = group(t, req.Group)
	up, code := s.coordinator(ctx, t, t.Home, upstream.Control, 0, req)
	if code != 0 {
		resp.ErrorCode = code
		return resp, nil
	}
	return up, nil
}
