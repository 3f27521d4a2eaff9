package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
)

// ListPartitionReassignments: version 0. kafka-topics --describe asks for it;
// tenants see none.
func listPartitionReassignments(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	resp := r.ResponseKind().(*kmsg.ListPartitionReassignmentsResponse)
	t, err := s.table(ctx)
	if err != nil {
		return nil, err
	}
	if !s.mayCluster(t, kmsg.ACLOperationDescribe) {
		resp.ErrorCode = s.refused(refusal.ClusterNotAuthorized)
		resp.ErrorMessage = stockText(resp.ErrorCode)
	}
	return resp, nil
}
