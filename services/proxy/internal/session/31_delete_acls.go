package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/acl"
	"tollgate.internal/pkg/nodeapi"
	"tollgate.internal/services/proxy/internal/refusal"
)

// DeleteAcls: versions 1 to 3; done by the portal, refused while the resources come
// from files.
func deleteACLs(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DeleteACLsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteACLsResponse)
	change := new(nodeapi.ACLChange)
	for _, f := range req.Filters {
		change.Delete = append(change.Delete, nodeapi.FilterOf(&acl.Filter{
			ResourceType: f.ResourceType, ResourceName: f.ResourceName, Pattern: f.ResourcePatternType,
			Principal: f.Principal, Host: f.Host, Operation: f.Operation, Permission: f.PermissionType,
		}))
	}
	done, why := s.changeACLs(ctx, change)
	for i := range req.Filters {
		out := kmsg.NewDeleteACLsResponseResult()
		switch {
		case why != nil:
			out.ErrorCode, out.ErrorMessage = s.refusedText(why)
		case done.Delete[i].Refused != "":
			out.ErrorCode, out.ErrorMessage = s.refusedText(refusal.ACLInvalid.Tell("%s", done.Delete[i].Refused))
		default:
			for _, b := range done.Delete[i].Deleted {
				m := kmsg.NewDeleteACLsResponseResultMatchingACL()
				m.Principal, m.Host, m.ResourceName = b.Principal, b.Host, b.ResourceName
				a := b.ACL()
				m.ResourceType, m.ResourcePatternType, m.Operation, m.PermissionType = a.ResourceType, a.Pattern, a.Operation, a.Permission
				out.MatchingACLs = append(out.MatchingACLs, m)
			}
		}
		resp.Results = append(resp.Results, out)
	}
	return resp, nil
}
