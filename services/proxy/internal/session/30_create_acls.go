package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/acl"
	"tollgate.internal/pkg/nodeapi"
	"tollgate.internal/services/proxy/internal/refusal"
)

// CreateAcls: versions 1 to 3; made by the portal, refused while the resources come
// from files.
func createACLs(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.CreateACLsRequest)
	resp := req.ResponseKind().(*kmsg.CreateACLsResponse)
	change := new(nodeapi.ACLChange)
	for _, c := range req.Creations {
		change.Create = append(change.Create, nodeapi.BindingOf(&acl.Binding{
			Principal: c.Principal, Host: acl.CanonicalHost(c.Host), ResourceType: c.ResourceType, ResourceName: c.ResourceName,
			Pattern: c.ResourcePatternType, Operation: c.Operation, Permission: c.PermissionType,
		}))
	}
	done, why := s.changeACLs(ctx, change)
	for i := range req.Creations {
		out := kmsg.NewCreateACLsResponseResult()
		switch {
		case why != nil:
			out.ErrorCode, out.ErrorMessage = s.refusedText(why)
		case done.Create[i].Refused != "":
			out.ErrorCode, out.ErrorMessage = s.refusedText(refusal.ACLInvalid.Tell("%s", done.Create[i].Refused))
		}
		resp.Results = append(resp.Results, out)
	}
	return resp, nil
}
