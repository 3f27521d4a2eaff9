package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// Heartbeat: versions 0 to 4.
func heartbeat(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.HeartbeatRequest)
	resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
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
