package session

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/resource"
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
	refused  func(kind kmsg.ConfigResourceType, name string, why *refusalText) A
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
	var forward []Q
	virtual := make(map[owned]string)
	for _, q := range *resources {
		rr := k.asked(&q)
		name, physical := *rr.name, ""
		why := refuseWith(kerr.RequestTimedOut, "%s", kerr.RequestTimedOut.Description)
		if err == nil {
			physical, why = s.configOwner(t, rr.kind, name, k.changes != nil)
		}
		if why == nil && k.changes != nil {
			why = mayChange(t, rr.kind, k.changes(q))
		}
		if why != nil {
			refused = append(refused, k.refused(rr.kind, name, why))
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
			refused = append(refused, k.refused(rr.kind, virtual[owned{rr.kind, *rr.name}], refuseWith(kerr.RequestTimedOut, "%s", kerr.RequestTimedOut.Description)))
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
			*rr.message = stockText(*rr.code)
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
func (s *Session) configOwner(t *view.Table, kind kmsg.ConfigResourceType, name string, write bool) (physical string, why *refusalText) {
	op, verb := kmsg.ACLOperationDescribeConfigs, "describe"
	if write {
		op, verb = kmsg.ACLOperationAlterConfigs, "alter"
	}
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		topic, code := s.topic(t, op, name)
		if code != 0 {
			return "", &refusalText{code, *stockText(code)}
		}
		if topic.Alias && write {
			return "", refuseWith(kerr.TopicAuthorizationFailed, "the topic is an alias: its configs belong to the topic it stands for")
		}
		return topic.Physical.Name, nil
	case kmsg.ConfigResourceTypeGroupConfig:
		if !s.mayGroup(t, op, name) {
			return "", &refusalText{kerr.GroupAuthorizationFailed.Code, *stockText(kerr.GroupAuthorizationFailed.Code)}
		}
		return group(t, name), nil
	}
	return "", refuseWith(kerr.ClusterAuthorizationFailed, "brokers belong to the provider: tenants cannot %s their configs", verb)
}

// mayChange refuses config keys that the policy does not name.
func mayChange(t *view.Table, kind kmsg.ConfigResourceType, keys []string) *refusalText {
	allowed := configKeys(t)
	if kind == kmsg.ConfigResourceTypeGroupConfig {
		allowed = groupConfigKeys
	}
	for _, key := range keys {
		if !slices.Contains(allowed, key) {
			return refuseWith(kerr.PolicyViolation, "config '%s' cannot be set; these can: %v", key, allowed)
		}
	}
	return nil
}
