package session

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// mayAlter refuses config keys that the policy does not name.
func (s *Session) mayAlter(ctx context.Context, rt kmsg.ConfigResourceType, keys []string) *refusalText {
	t, err := s.table(ctx)
	if err != nil || rt != kmsg.ConfigResourceTypeTopic {
		return nil
	}
	for _, key := range keys {
		if !slices.Contains(configKeys(t), key) {
			return refuseWith(kerr.PolicyViolation, "config '%s' cannot be set; these can: %v", key, configKeys(t))
		}
	}
	return nil
}

// AlterConfigs: versions 0 to 2.
func alterConfigs(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.AlterConfigsRequest)
	resp := req.ResponseKind().(*kmsg.AlterConfigsResponse)
	forward := *req
	forward.Resources = nil
	var names []string
	refuse := func(rt kmsg.ConfigResourceType, name string, why *refusalText) {
		out := kmsg.NewAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName, out.ErrorCode, out.ErrorMessage = rt, name, why.code, kmsg.StringPtr(why.text)
		resp.Resources = append(resp.Resources, out)
	}
	for _, rr := range req.Resources {
		physical, why := s.configOwner(ctx, rr.ResourceType, rr.ResourceName, true)
		var keys []string
		for _, c := range rr.Configs {
			keys = append(keys, c.Name)
		}
		if why == nil {
			why = s.mayAlter(ctx, rr.ResourceType, keys)
		}
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
	up, err := s.admin(ctx, 0, &forward)
	if err != nil {
		for i, rr := range forward.Resources {
			refuse(rr.ResourceType, names[i], refuseWith(kerr.RequestTimedOut, "%s", kerr.RequestTimedOut.Description))
		}
		return resp, nil
	}
	answer := up.(*kmsg.AlterConfigsResponse)
	for i := range answer.Resources {
		rr := &answer.Resources[i]
		for k, fr := range forward.Resources {
			if fr.ResourceType == rr.ResourceType && fr.ResourceName == rr.ResourceName {
				rr.ResourceName = names[k]
				break
			}
		}
		if rr.ErrorCode != 0 {
			rr.ErrorMessage = stockText(rr.ErrorCode)
		}
	}
	answer.Resources = append(resp.Resources, answer.Resources...)
	return answer, nil
}
