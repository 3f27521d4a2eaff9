package session

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
)

// ListConfigResources: versions 0 to 1; a broker would list every topic there is.
// Version 0 asks for client metrics, of which a tenant has none.
func listConfigResources(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.ListConfigResourcesRequest)
	resp := req.ResponseKind().(*kmsg.ListConfigResourcesResponse)
	t, err := s.table(ctx)
	if err != nil {
		return nil, err
	}
	if !s.mayCluster(t, kmsg.ACLOperationDescribeConfigs) {
		resp.ErrorCode = s.refused(refusal.ClusterNotAuthorized)
		return resp, nil
	}
	topics := int8(kmsg.ConfigResourceTypeTopic)
	if req.Version >= 1 && (len(req.ResourceTypes) == 0 || slices.Contains(req.ResourceTypes, topics)) {
		for _, topic := range t.Topics {
			out := kmsg.NewListConfigResourcesResponseConfigResource()
			out.Name, out.Type = topic.Name, topics
			resp.ConfigResources = append(resp.ConfigResources, out)
		}
	}
	return resp, nil
}
