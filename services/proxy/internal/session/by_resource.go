package session

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
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
		name string // on home
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
	var forward []Q
	virtual := make(map[owned]string)
	for _, q := range *resources {
		rr := k.asked(&q)
		name, physical := *rr.name, ""
		var why error
		if err != nil {
			why = refusal.TimedOut.With(err)
		} else {
			physical, why = s.configOwner(t, rr.kind, name, k.changes != nil)
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
		virtual[owned{rr.kind, physical}] = name
		*rr.name = physical
		forward = append(forward, q)
	}
	resp := req.ResponseKind().(R)
	if len(forward) == 0 {
		*answers(resp) = refused
		return resp, nil
	}
	*resources = forward
	send := s.admin
	if k.changes == nil {
		send = func(ctx context.Context, limit time.Duration, req kmsg.Request) (kmsg.Response, error) {
			return s.request(ctx, upstream.Control, limit, req)
		}
	}
	up, err := send(ctx, 0, req)
	if err != nil {
		for _, q := range forward {
			rr := k.asked(&q)
			refuse(rr.kind, virtual[owned{rr.kind, *rr.name}], refusal.TimedOut.With(err))
		}
		*answers(resp) = refused
		return resp, nil
	}
	resp = up.(R)
	all := *answers(resp)
	for i := range all {
		rr := k.answered(&all[i])
		name, ok := virtual[owned{rr.kind, *rr.name}]
		if !ok {
			return nil, errForeign
		}
		*rr.name = name
		if *rr.code != 0 {
			*rr.message = ownText(*rr.code, *rr.message)
		}
		if k.mapped != nil {
			k.mapped(&all[i])
		}
	}
	*answers(resp) = append(refused, all...)
	return resp, nil
}

// configOwner resolves a TOPIC or GROUP config resource to its name on home.
// Brokers, their loggers and client metrics are the provider's: refused.
func (s *Session) configOwner(t *view.Table, kind kmsg.ConfigResourceType, name string, write bool) (physical string, why error) {
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
			return "", why.Errorf("%s on topic %q", op, name)
		}
		if topic.Alias && write {
			return "", refusal.AliasReadOnly.Tell("the topic is an alias: its configs belong to the topic it stands for")
		}
		return topic.Physical.Name, nil
	case kmsg.ConfigResourceTypeGroupConfig:
		return group(t, name), s.refuseGroup(t, op, name)
	case kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeBrokerLogger, kmsg.ConfigResourceTypeClientMetrics:
		return "", refusal.OperatorOnly.Tell("brokers belong to the provider: tenants cannot %s their configs", verb)
	}
	return "", refusal.Invalid.Errorf("config resources of type %d", kind)
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
