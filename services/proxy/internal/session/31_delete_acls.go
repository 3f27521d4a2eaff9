package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteAcls: versions 1 to 3; read-only while the resources come from files.
func deleteACLs(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DeleteACLsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteACLsResponse)
	t, err := s.table(ctx)
	if err != nil {
		return nil, err
	}
	code, text := s.refusedText(s.aclChange(t))
	for range req.Filters {
		out := kmsg.NewDeleteACLsResponseResult()
		out.ErrorCode, out.ErrorMessage = code, text
		resp.Results = append(resp.Results, out)
	}
	return resp, nil
}
