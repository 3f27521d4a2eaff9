package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/acl"
	"tollgate.internal/services/proxy/internal/refusal"
)

// DescribeAcls: versions 1 to 3; answered from the virtual cluster's own bindings.
func describeACLs(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DescribeACLsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeACLsResponse)
	t, err := s.table(ctx)
	if err != nil {
		return nil, err
	}
	refuse := func(why error) (kmsg.Response, error) {
		resp.ErrorCode, resp.ErrorMessage = s.refusedText(why)
		return resp, nil
	}
	if !s.mayCluster(t, kmsg.ACLOperationDescribe) {
		return refuse(refusal.ClusterNotAuthorized)
	}
	if !t.View.ACL.Enabled() {
		return refuse(refusal.ACLsDisabled.Tell("No Authorizer is configured."))
	}
	resp.ErrorMessage = kmsg.StringPtr("") // as a broker has it beside the code 0
	for _, b := range t.View.ACL.Match(acl.Filter{
		ResourceType: req.ResourceType, ResourceName: req.ResourceName, Pattern: req.ResourcePatternType,
		Principal: req.Principal, Host: req.Host, Operation: req.Operation, Permission: req.PermissionType,
	}) {
		var out *kmsg.DescribeACLsResponseResource
		for i := range resp.Resources {
			rr := &resp.Resources[i]
			if rr.ResourceType == b.ResourceType && rr.ResourceName == b.ResourceName && rr.ResourcePatternType == b.Pattern {
				out = rr
			}
		}
		if out == nil {
			rr := kmsg.NewDescribeACLsResponseResource()
			rr.ResourceType, rr.ResourceName, rr.ResourcePatternType = b.ResourceType, b.ResourceName, b.Pattern
			resp.Resources = append(resp.Resources, rr)
			out = &resp.Resources[len(resp.Resources)-1]
		}
		a := kmsg.NewDescribeACLsResponseResourceACL()
		a.Principal, a.Host, a.Operation, a.PermissionType = b.Principal, b.Host, b.Operation, b.Permission
		out.ACLs = append(out.ACLs, a)
	}
	return resp, nil
}
