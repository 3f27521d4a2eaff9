package session

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/view"
)

// configKeys are the topic configs that tenants may set.
func configKeys(t *view.Table) []string {
	if keys := t.View.Spec.Topics.ConfigKeys; len(keys) > 0 {
		return keys
	}
	return resource.DefaultConfigKeys
}

// groupConfigKeys are the configs of a group (GroupConfig of the brokers). All of
// them are the tenant's: the broker's own configs bound their values.
var groupConfigKeys = []string{
	"consumer.heartbeat.interval.ms", "consumer.session.timeout.ms",
	"share.auto.offset.reset", "share.delivery.count.limit", "share.heartbeat.interval.ms", "share.isolation.level",
	"share.partition.max.record.locks", "share.record.lock.duration.ms", "share.renew.acknowledge.enable", "share.session.timeout.ms",
}

// configResource is a config resource in a request or an answer.
type configResource struct {
	kind    kmsg.ConfigResourceType
	name    *string
	code    *int16 // nil in a request
	message **string
}

// byResource says how a request key lists config resources: Q is one of the
// request, A one of the answer.
type byResource[Q, A any] struct {
	asked    func(*Q) configResource
	answered func(*A) configResource
	refused  func(kind kmsg.ConfigResourceType, name string, code int16, text *string) A
	changes  func(Q) []string // the config keys that would change; nil: the request only describes
	mapped   func(*A)         // what else is to be rewritten in an answer; nil: nothing
}

// askOwner judges every config resource of req, sends those that pass, and answers
// with what was refused and what the broker said.
func askOwner[R kmsg.Response, Q, A any](s *Session, ctx context.Context, req kmsg.Request, resources *[]Q, answers func(R) *[]A, k byResource[Q, A]) (kmsg.Response, error) {
	t, err := s.table(ctx)
	type owned struct {
		kind kmsg.ConfigResourceType
		name string // on its cluster
	}
	var refused []A
	refuse := func(kind kmsg.ConfigResourceType, name string, why error) {
		code, text := s.refusedText(why, "resource_type", kind.String(), "resource", name)
		refused = append(refused, k.refused(kind, name, code, text))
	}
	asked := make(map[owned]int)
	for i := range *resources {
		rr := k.asked(&(*resources)[i])
		asked[owned{rr.kind, *rr.name}]++
	}
	forward := make(map[*view.Member][]Q)
	virtual := make(map[*view.Member]map[owned]string)
	for _, q := range *resources {
		rr := k.asked(&q)
		name, physical := *rr.name, ""
		var m *view.Member
		var why error
		if err != nil {
			why = refusal.TimedOut.With(err)
		} else {
			m, physical, why = s.configOwner(t, rr.kind, name, k.changes != nil)
		}
		if why == nil && k.changes != nil {
			why = mayChange(t, rr.kind, k.changes(q))
		}
		if k.changes != nil && asked[owned{rr.kind, name}] > 1 {
			// Asked for as it is here, AlterConfigs of Kafka 3.9 is never answered.
			why = refusal.Invalid.Tell("Each resource must appear at most once.")
		}
		if why != nil {
			refuse(rr.kind, name, why)
			continue
		}
		if virtual[m] == nil {
			virtual[m] = make(map[owned]string)
		}
		virtual[m][owned{rr.kind, physical}] = name
		*rr.name = physical
		forward[m] = append(forward[m], q)
	}
	resp := req.ResponseKind().(R)
	var all []A
	for m, qs := range forward {
		*resources = qs
		var up kmsg.Response
		var err error
		if k.changes != nil {
			up, err = s.admin(ctx, 0, req) // nothing can be changed but on home
		} else {
			up, err = m.Cluster.RequestAny(ctx, s.near(t, m), s.clientID(), req)
		}
		if err != nil {
			for _, q := range qs {
				rr := k.asked(&q)
				refuse(rr.kind, virtual[m][owned{rr.kind, *rr.name}], refusal.TimedOut.With(err))
			}
			continue
		}
		answered := *answers(up.(R))
		for i := range answered {
			rr := k.answered(&answered[i])
			name, ok := virtual[m][owned{rr.kind, *rr.name}]
			if !ok {
				return nil, errForeign
			}
			*rr.name = name
			if *rr.code != 0 {
				*rr.message = ownText(*rr.code, *rr.message)
			}
			if k.mapped != nil {
				k.mapped(&answered[i])
			}
		}
		all, resp = append(all, answered...), up.(R)
	}
	*answers(resp) = append(refused, all...)
	return resp, nil
}

// configOwner resolves a TOPIC or GROUP config resource to its cluster and its name
// there.
// Brokers, their loggers and client metrics are the provider's: refused.
func (s *Session) configOwner(t *view.Table, kind kmsg.ConfigResourceType, name string, write bool) (m *view.Member, physical string, why error) {
	op, verb := kmsg.ACLOperationDescribeConfigs, "describe"
	if write {
		op, verb = kmsg.ACLOperationAlterConfigs, "alter"
	}
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		topic, why := s.lookUp(t, op, name)
		if why == refusal.TopicUnknown && !legalTopic(name) {
			why = refusal.TopicNameInvalid
		}
		if why != nil {
			return nil, "", why.Errorf("%s on topic %q", op, name)
		}
		if topic.Alias && write {
			return nil, "", refusal.AliasReadOnly.Tell("the topic is an alias: its configs belong to the topic it stands for")
		}
		return topic.Member, topic.Physical.Name, nil
	case kmsg.ConfigResourceTypeGroupConfig:
		return t.Home, group(t, name), s.refuseGroup(t, op, name)
	case kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeBrokerLogger, kmsg.ConfigResourceTypeClientMetrics:
		return nil, "", refusal.OperatorOnly.Tell("brokers belong to the provider: tenants cannot %s their configs", verb)
	}
	return nil, "", refusal.Invalid.Errorf("config resources of type %d", kind)
}

// mayChange refuses config keys that the policy does not name.
func mayChange(t *view.Table, kind kmsg.ConfigResourceType, keys []string) error {
	allowed := configKeys(t)
	if kind == kmsg.ConfigResourceTypeGroupConfig {
		allowed = groupConfigKeys
	}
	for _, key := range keys {
		if !slices.Contains(allowed, key) {
			return refusal.ConfigKey.Tell("config '%s' cannot be set; these can: %v", key, allowed)
		}
	}
	return nil
}
