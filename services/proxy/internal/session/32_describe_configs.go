package session

import (
	"context"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// configOwner resolves a TOPIC or GROUP config resource to its name on home.
// Brokers, their loggers and client metrics are the provider's: refused.
func (s *Session) configOwner(ctx context.Context, rt kmsg.ConfigResourceType, name string, write bool) (physical string, why *refusalText) {
	t, err := s.table(ctx)
	if err != nil {
		return "", refuseWith(kerr.RequestTimedOut, "%s", kerr.RequestTimedOut.Description)
	}
	topicOp, refusal := kmsg.ACLOperationDescribeConfigs, "describe"
	if write {
		topicOp, refusal = kmsg.ACLOperationAlterConfigs, "alter"
	}
	switch rt {
	case kmsg.ConfigResourceTypeTopic:
		topic, code := s.topic(t, topicOp, name)
		if code != 0 {
			return "", &refusalText{code, *stockText(code)}
		}
		if topic.Alias && write {
			return "", refuseWith(kerr.TopicAuthorizationFailed, "the topic is an alias: its configs belong to the topic it stands for")
		}
		return topic.Physical.Name, nil
	case kmsg.ConfigResourceTypeGroupConfig:
		if !s.mayGroup(t, topicOp, name) {
			return "", &refusalText{kerr.GroupAuthorizationFailed.Code, *stockText(kerr.GroupAuthorizationFailed.Code)}
		}
		return group(t, name), nil
	}
	return "", refuseWith(kerr.ClusterAuthorizationFailed, "brokers belong to the provider: tenants cannot %s their configs", refusal)
}

// DescribeConfigs: versions 1 to 4.
func describeConfigs(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DescribeConfigsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
	forward := *req
	forward.Resources = nil
	var names []string
	refuse := func(rt kmsg.ConfigResourceType, name string, why *refusalText) {
		out := kmsg.NewDescribeConfigsResponseResource()
		out.ResourceType, out.ResourceName, out.ErrorCode, out.ErrorMessage = rt, name, why.code, kmsg.StringPtr(why.text)
		resp.Resources = append(resp.Resources, out)
	}
	for _, rr := range req.Resources {
		physical, why := s.configOwner(ctx, rr.ResourceType, rr.ResourceName, false)
		if why != nil {
			refuse(rr.ResourceType, rr.ResourceName, why)
			continue
		}
		names = append(names, rr.ResourceName)
		rr.ResourceName = physical
		forward.Resources = append(forward.Resources, rr)
	}
	if len(forward.Resources) == 0 {
		return resp, nil
	}
	up, err := s.request(ctx, upstream.Control, 0, &forward)
	if err != nil {
		for i, rr := range forward.Resources {
			refuse(rr.ResourceType, names[i], refuseWith(kerr.RequestTimedOut, "%s", kerr.RequestTimedOut.Description))
		}
		return resp, nil
	}
	answer := up.(*kmsg.DescribeConfigsResponse)
	for i := range answer.Resources {
		rr := &answer.Resources[i]
		found := false
		for k, fr := range forward.Resources {
			if fr.ResourceType == rr.ResourceType && fr.ResourceName == rr.ResourceName {
				rr.ResourceName, found = names[k], true
				break
			}
		}
		if !found {
			return nil, errForeign
		}
		if rr.ErrorCode != 0 {
			rr.ErrorMessage = stockText(rr.ErrorCode)
		}
		kept := rr.Configs[:0]
		for _, c := range rr.Configs {
			if !strings.HasSuffix(c.Name, ".replication.throttled.replicas") { // lists physical node ids
				kept = append(kept, c)
			}
		}
		rr.Configs = kept
	}
	answer.Resources = append(resp.Resources, answer.Resources...)
	return answer, nil
}
