package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// DescribeGroups: versions 0 to 6. The member's host is the gateway's address as
// the coordinator sees it, so it is left empty.
func describeGroups(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DescribeGroupsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
	t, err := s.table(ctx)
	refuse := func(name string, code int16) {
		g := kmsg.NewDescribeGroupsResponseGroup()
		g.Group, g.ErrorCode = name, code
		g.AuthorizedOperations = -2147483648
		resp.Groups = append(resp.Groups, g)
	}
	forward := *req
	forward.Groups = nil
	forward.IncludeAuthorizedOperations = false
	for _, name := range req.Groups {
		switch {
		case err != nil:
			refuse(name, kerr.CoordinatorNotAvailable.Code)
		case !s.mayGroup(t, kmsg.ACLOperationDescribe, name):
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
	answer := up.(*kmsg.DescribeGroupsResponse)
	for i := range answer.Groups {
		g := &answer.Groups[i]
		name, ok := ungroup(t, g.Group)
		if !ok {
			return nil, errForeign
		}
		g.Group = name
		if g.ErrorCode != 0 {
			g.ErrorMessage = stockText(g.ErrorCode)
		}
		g.AuthorizedOperations = s.operations(t, req.IncludeAuthorizedOperations, kmsg.ACLResourceTypeGroup, name)
		for j := range g.Members {
			m := &g.Members[j]
			m.ClientHost = ""
			if g.ProtocolType == consumerProtocol {
				m.ProtocolMetadata = subscription(m.ProtocolMetadata, false, toVirtual(t))
				m.MemberAssignment = subscription(m.MemberAssignment, true, toVirtual(t))
			}
		}
	}
	answer.Groups = append(resp.Groups, answer.Groups...)
	return answer, nil
}
