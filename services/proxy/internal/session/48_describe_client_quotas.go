package session

import (
	"context"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/view"
)

// DescribeClientQuotas (KIP-546): versions 0 to 1. The quotas of the virtual cluster
// are shown as those of the default user, though they hold not for each user apart but
// for all together; those of a service account as those of the user of its name. Some
// are no quotas of Kafka's, which has none of requests (its request_percentage is of
// threads), connections of a user, topics and partitions.
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
	if why := checkQuotaFilter(req.Components); why != nil {
		resp.ErrorCode, resp.ErrorMessage = s.refusedText(why)
		return resp, nil
	}
	resp.ErrorMessage, resp.Entries = kmsg.StringPtr(""), []kmsg.DescribeClientQuotasResponseEntry{}
	show := func(user *string, values []kmsg.DescribeClientQuotasResponseEntryValue) {
		if len(values) == 0 || !matchesUser(req, user) {
			return
		}
		entry := kmsg.NewDescribeClientQuotasResponseEntry()
		entry.Entity = []kmsg.DescribeClientQuotasResponseEntryEntity{{Type: entityUser, Name: user}}
		entry.Values = values
		resp.Entries = append(resp.Entries, entry)
	}
	show(nil, quotasOfAll(t.View))
	for _, name := range slices.Sorted(maps.Keys(t.View.Accounts)) {
		show(&name, quotasOfAccount(t.View.Accounts[name]))
	}
	return resp, nil
}

// The entity types that quotas of Kafka are for.
const (
	entityUser     = "user"
	entityClientID = "client-id"
	entityIP       = "ip"
)

// checkQuotaFilter refuses what a broker refuses (ClientQuotasImage.describe).
func checkQuotaFilter(components []kmsg.DescribeClientQuotasRequestComponent) error {
	seen := make(map[string]bool)
	for _, c := range components {
		switch {
		case c.EntityType == "":
			return refusal.Invalid.Tell("Invalid empty entity type.")
		case seen[c.EntityType]:
			return refusal.Invalid.Tell("Entity type %s cannot appear more than once in the filter.", c.EntityType)
		case c.EntityType != entityUser && c.EntityType != entityClientID && c.EntityType != entityIP:
			return refusal.QuotaEntityUnknown.Tell("Unsupported entity type %s", c.EntityType)
		}
		seen[c.EntityType] = true
		switch c.MatchType {
		case kmsg.QuotasMatchTypeExact:
			if c.Match == nil {
				return refusal.Invalid.Tell("Request specified MATCH_TYPE_EXACT, but set match string to null.")
			}
		case kmsg.QuotasMatchTypeDefault, kmsg.QuotasMatchTypeAny:
			if c.Match != nil {
				return refusal.Invalid.Tell("Request specified a match type for no name, but also specified a match string.")
			}
		default:
			return refusal.Invalid.Tell("Unknown match type %d", c.MatchType)
		}
	}
	if seen[entityIP] && len(seen) > 1 {
		return refusal.Invalid.Tell("Invalid entity filter component combination. IP filter component should not be used with user or clientId filter component.")
	}
	return nil
}

// matchesUser reports whether a filter covers the quotas of a user; nil: the default
// one. There are none of users with a client id: each component must be about the user,
// and a strict filter must have one.
func matchesUser(req *kmsg.DescribeClientQuotasRequest, user *string) bool {
	for _, c := range req.Components {
		switch {
		case c.EntityType != entityUser:
			return false
		case c.MatchType == kmsg.QuotasMatchTypeExact && (user == nil || *user != *c.Match):
			return false
		case c.MatchType == kmsg.QuotasMatchTypeDefault && user != nil:
			return false
		}
	}
	return !req.Strict || len(req.Components) == 1
}

func quotasOfAll(v *view.View) []kmsg.DescribeClientQuotasResponseEntryValue {
	q := v.Spec.Quotas
	return quotaValues([]quotaValue{
		{"producer_byte_rate", q.ProduceBytesPerSecond},
		{"consumer_byte_rate", q.FetchBytesPerSecond},
		{"requests_per_second", q.RequestsPerSecond},
		{"connections", int64(q.Connections)},
		{"connection_creation_rate", q.ConnectionsPerSecond},
		{"topics", int64(v.Spec.Topics.MaxTopics)},
		{"partitions", int64(q.Partitions)},
	})
}

func quotasOfAccount(q resource.AccountQuotas) []kmsg.DescribeClientQuotasResponseEntryValue {
	return quotaValues([]quotaValue{
		{"producer_byte_rate", q.ProduceBytesPerSecond},
		{"consumer_byte_rate", q.FetchBytesPerSecond},
		{"requests_per_second", q.RequestsPerSecond},
		{"connections", int64(q.Connections)},
		{"connection_creation_rate", q.ConnectionsPerSecond},
	})
}

type quotaValue struct {
	key   string
	value int64
}

func quotaValues(all []quotaValue) (values []kmsg.DescribeClientQuotasResponseEntryValue) {
	for _, v := range all {
		if v.value > 0 {
			values = append(values, kmsg.DescribeClientQuotasResponseEntryValue{Key: v.key, Value: float64(v.value)})
		}
	}
	return values
}
