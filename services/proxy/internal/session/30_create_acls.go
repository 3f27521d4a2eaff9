package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/view"
)

// CreateAcls: versions 1 to 3; read-only while the resources come from files.
func createACLs(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.CreateACLsRequest)
	resp := req.ResponseKind().(*kmsg.CreateACLsResponse)
	t, err := s.table(ctx)
	if err != nil {
		return nil, err
	}
	code, text := s.refusedText(s.aclChange(t))
	for range req.Creations {
		out := kmsg.NewCreateACLsResponseResult()
		out.ErrorCode, out.ErrorMessage = code, text
		resp.Results = append(resp.Results, out)
	}
	return resp, nil
}

// aclChange is why ACLs are not changed.
func (s *Session) aclChange(t *view.Table) error {
	switch {
	case !s.mayCluster(t, kmsg.ACLOperationAlter):
		return refusal.ClusterNotAuthorized
	case !t.View.ACL.Enabled():
		return refusal.ACLsDisabled.Tell("No Authorizer is configured.")
	}
	return refusal.ACLsReadOnly.Tell(readOnlyACLs)
}
