package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
)

// DescribeClientQuotas (KIP-546): versions 0 to 1. The quotas of the virtual cluster
// are shown as those of the default user, the one entity there is: they hold for
// every user, though not for each apart but for all together on a node.
// requests_per_second is no quota of Kafka's, whose request_percentage is of
// threads.
func describeClientQuotas(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DescribeClientQuotasRequest)
	resp := req.ResponseKind().(*kmsg.DescribeClientQuotasResponse)
	t, err := s.table(ctx)
	if err != nil {
		return nil, err
	}
	if !s.mayCluster(t, kmsg.ACLOperationDescribeConfigs) {
		resp.ErrorCode, resp.ErrorMessage = s.refusedText(refusal.ClusterNotAuthorized)
		return resp, nil
	}
	matches, why := matchesDefaultUser(req)
	if why != nil {
		resp.ErrorCode, resp.ErrorMessage = s.refusedText(why)
		return resp, nil
	}
	resp.ErrorMessage, resp.Entries = kmsg.StringPtr(""), []kmsg.DescribeClientQuotasResponseEntry{}
	if values := quotaValues(t.View.Spec.Quotas); matches && len(values) > 0 {
		entry := kmsg.NewDescribeClientQuotasResponseEntry()
		entry.Entity = []kmsg.DescribeClientQuotasResponseEntryEntity{{Type: entityUser}}
		entry.Values = values
		resp.Entries = append(resp.Entries, entry)
	}
	return resp, nil
}

// The entity types that quotas of Kafka are for.
const (
	entityUser     = "user"
	entityClientID = "client-id"
	entityIP       = "ip"
)

// matchesDefaultUser reports whether a filter covers the default user. It refuses
// what a broker refuses (ClientQuotasImage.describe).
func matchesDefaultUser(req *kmsg.DescribeClientQuotasRequest) (bool, error) {
	seen := make(map[string]bool)
	matches := true
	for _, c := range req.Components {
		switch {
		case c.EntityType == "":
			return false, refusal.Invalid.Tell("Invalid empty entity type.")
		case seen[c.EntityType]:
			return false, refusal.Invalid.Tell("Entity type %s cannot appear more than once in the filter.", c.EntityType)
		case c.EntityType != entityUser && c.EntityType != entityClientID && c.EntityType != entityIP:
			return false, refusal.QuotaEntityUnknown.Tell("Unsupported entity type %s", c.EntityType)
		}
		seen[c.EntityType] = true
		switch c.MatchType {
		case kmsg.QuotasMatchTypeExact:
			if c.Match == nil {
				return false, refusal.Invalid.Tell("Request specified MATCH_TYPE_EXACT, but set match string to null.")
			}
			matches = false // nobody has quotas of their own
		case kmsg.QuotasMatchTypeDefault, kmsg.QuotasMatchTypeAny:
			if c.Match != nil {
				return false, refusal.Invalid.Tell("Request specified a match type for no name, but also specified a match string.")
			}
		default:
			return false, refusal.Invalid.Tell("Unknown match type %d", c.MatchType)
		}
		matches = matches && c.EntityType == entityUser
	}
	if seen[entityIP] && len(seen) > 1 {
		return false, refusal.Invalid.Tell("Invalid entity filter component combination. IP filter component should not be used with user or clientId filter component.")
	}
	if req.Strict && len(req.Components) != 1 {
		matches = false
	}
	return matches, nil
}

func quotaValues(q resource.Quotas) (values []kmsg.DescribeClientQuotasResponseEntryValue) {
	for _, v := range []struct {
		key   string
		value int64
	}{
		{"producer_byte_rate", q.ProduceBytesPerSecond},
		{"consumer_byte_rate", q.FetchBytesPerSecond},
		{"requests_per_second", q.RequestsPerSecond},
	} {
		if v.value > 0 {
			values = append(values, kmsg.DescribeClientQuotasResponseEntryValue{Key: v.key, Value: float64(v.value)})
		}
	}
	return values
}
