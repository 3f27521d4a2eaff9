package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
)

// The kinds of endpoints that DescribeCluster can ask for (KIP-919).
const (
	brokerEndpoints     = 1
	controllerEndpoints = 2
)

// DescribeCluster: versions 0 to 2; endpoint type 2 (controllers) is not for
// tenants.
func describeCluster(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DescribeClusterRequest)
	resp := req.ResponseKind().(*kmsg.DescribeClusterResponse)
	t, err := s.vc.Fresh(ctx, metadataAge)
	if err != nil {
		return nil, err
	}
	if req.Version >= 1 && req.EndpointType != brokerEndpoints {
		why := refusal.EndpointType
		if req.EndpointType != controllerEndpoints {
			why = refusal.EndpointTypeUnknown
		}
		resp.ErrorCode, resp.ErrorMessage = s.refusedText(why)
		return resp, nil
	}
	resp.ClusterID, resp.ControllerID = t.View.ClusterID, t.Controller()
	for _, b := range t.Brokers {
		out := kmsg.NewDescribeClusterResponseBroker()
		out.NodeID = b.Node
		out.Host, out.Port = s.client.Advertise(out.NodeID)
		out.Rack = b.Rack
		resp.Brokers = append(resp.Brokers, out)
	}
	resp.ClusterAuthorizedOperations = -2147483648
	if req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = 0
		if s.mayCluster(t, kmsg.ACLOperationDescribe) {
			resp.ClusterAuthorizedOperations = s.operations(t, true, kmsg.ACLResourceTypeCluster, clusterName)
		}
	}
	return resp, nil
}
