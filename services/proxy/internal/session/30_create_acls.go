package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// CreateAcls: versions 1 to 3; read-only while the resources come from files.
func createACLs(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.CreateACLsRequest)
	resp := req.ResponseKind().(*kmsg.CreateACLsResponse)
	t, err := s.table(ctx)
	if err != nil {
		return nil, err
	}
	code, text := s.aclChange(s.mayCluster(t, kmsg.ACLOperationAlter), t.View.ACL.Enabled())
	for range req.Creations {
		out := kmsg.NewCreateACLsResponseResult()
		out.ErrorCode, out.ErrorMessage = code, kmsg.StringPtr(text)
		resp.Results = append(resp.Results, out)
	}
	return resp, nil
}

func (s *Session) aclChange(may, enabled bool) (int16, string) {
	switch {
	case !may:
		return kerr.ClusterAuthorizationFailed.Code, kerr.ClusterAuthorizationFailed.Description
	case !enabled:
		return kerr.SecurityDisabled.Code, "No Authorizer is configured."
	}
	return kerr.PolicyViolation.Code, readOnlyACLs
}
