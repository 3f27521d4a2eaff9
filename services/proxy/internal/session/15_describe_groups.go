package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/view"
)

// DescribeGroups: versions 0 to 6. The member's host is the gateway's address as
// the coordinator sees it, so it is left empty.
func describeGroups(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DescribeGroupsRequest)
	withOperations := req.IncludeAuthorizedOperations
	req.IncludeAuthorizedOperations = false // the gateway's own rights are nobody's business
	return askCoordinator(s, ctx, req, &req.Groups,
		func(r *kmsg.DescribeGroupsResponse) *[]kmsg.DescribeGroupsResponseGroup { return &r.Groups },
		byGroup[string, kmsg.DescribeGroupsResponseGroup]{
			op: kmsg.ACLOperationDescribe, asked: itself,
			answered: func(a *kmsg.DescribeGroupsResponseGroup) *string { return &a.Group },
			refused: func(name string, code int16) kmsg.DescribeGroupsResponseGroup {
				g := kmsg.NewDescribeGroupsResponseGroup()
				g.Group, g.ErrorCode = name, code
				g.AuthorizedOperations = -2147483648
				return g
			},
			mapped: func(t *view.Table, g *kmsg.DescribeGroupsResponseGroup) int16 {
				if g.ErrorCode != 0 {
					g.ErrorMessage = ownText(g.ErrorCode, g.ErrorMessage)
				}
				g.AuthorizedOperations = s.operations(t, withOperations && g.ErrorCode == 0, kmsg.ACLResourceTypeGroup, g.Group)
				for i := range g.Members {
					m := &g.Members[i]
					m.ClientHost = ""
					if g.ProtocolType == consumerProtocol {
						m.ProtocolMetadata = subscription(m.ProtocolMetadata, false, t.TopicName)
						m.MemberAssignment = subscription(m.MemberAssignment, true, t.TopicName)
					}
				}
				return 0
			},
		})
}
