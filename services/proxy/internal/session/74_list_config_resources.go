package session

import (
	"context"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/view"
)

// ListConfigResources: versions 0 to 1. A broker would list every topic and group
// there is, so topics and brokers come from the view, and of the groups that have
// configs the tenant's are kept. Version 0 asks for client metrics, of which a
// tenant has none.
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
	if req.Version == 0 {
		return resp, nil
	}
	kinds := req.ResourceTypes
	if len(kinds) == 0 {
		kinds = configKinds
	}
	for _, kind := range kinds {
		var names []string
		switch kmsg.ConfigResourceType(kind) {
		case kmsg.ConfigResourceTypeTopic:
			for _, topic := range t.Topics {
				names = append(names, topic.Name)
			}
		case kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeBrokerLogger:
			for _, b := range t.Brokers {
				names = append(names, strconv.Itoa(int(b.Node)))
			}
		case kmsg.ConfigResourceTypeGroupConfig:
			if names, err = s.groupsWithConfigs(ctx, t); err != nil {
				resp.ErrorCode, resp.ConfigResources = s.refused(refusal.TimedOut.With(err)), nil
				return resp, nil
			}
		}
		if !slices.Contains(configKinds, kind) {
			resp.ErrorCode, resp.ConfigResources = kerr.UnsupportedVersion.Code, nil // as a broker answers
			return resp, nil
		}
		for _, name := range names {
			out := kmsg.NewListConfigResourcesResponseConfigResource()
			out.Name, out.Type = name, kind
			resp.ConfigResources = append(resp.ConfigResources, out)
		}
	}
	return resp, nil
}

// configKinds are what version 1 can ask for, and what it means by none.
var configKinds = []int8{
	int8(kmsg.ConfigResourceTypeTopic), int8(kmsg.ConfigResourceTypeBroker), int8(kmsg.ConfigResourceTypeBrokerLogger),
	int8(kmsg.ConfigResourceTypeClientMetrics), int8(kmsg.ConfigResourceTypeGroupConfig),
}

// groupsWithConfigs asks home; brokers before 4.1 have no such request.
func (s *Session) groupsWithConfigs(ctx context.Context, t *view.Table) (names []string, err error) {
	req := kmsg.NewPtrListConfigResourcesRequest()
	req.Version, req.ResourceTypes = 1, []int8{int8(kmsg.ConfigResourceTypeGroupConfig)}
	if v := s.vc.Home.Versions(); v == nil || v.Ranges[req.Key()].Max < req.Version {
		return nil, nil
	}
	up, err := t.Home.Cluster.RequestAny(ctx, s.near(t, t.Home), s.clientID(), req)
	if err != nil {
		return nil, err
	}
	answer := up.(*kmsg.ListConfigResourcesResponse)
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return nil, err
	}
	for _, cr := range answer.ConfigResources {
		if name, ok := ungroup(t, cr.Name); ok && cr.Type == req.ResourceTypes[0] {
			names = append(names, name)
		}
	}
	return names, nil
}
