package session

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// byTopic says how a request key that clients send to partition leaders lists
// topics by name: Q is one topic of the request, A one of the answer.
type byTopic[Q, A any] struct {
	judge    func(*view.Table, string) (*view.Topic, int16)
	asked    func(*Q) *string // where a request has the topic's name
	answered func(*A) *string // where an answer has it
	refused  func(Q, int16) A // what a topic is answered that is not forwarded
	mapped   func(*A)         // what else is to be rewritten in an answer; nil: nothing
	limit    time.Duration    // how long the broker may take; 0: as usual
}

// askLeader judges every topic of req, forwards those that pass to the broker the
// client dialled, and answers with what was refused and what the broker said. A
// topic of the answer that is not the virtual cluster's ends the session.
//
// Partitions whose leader is another broker come back from this one with
// NOT_LEADER_OR_FOLLOWER, as they would to any client (rule 2 of PROTOCOL.md).
func askLeader[R kmsg.Response, Q, A any](s *Session, ctx context.Context, req kmsg.Request, topics *[]Q, answers func(R) *[]A, k byTopic[Q, A]) (kmsg.Response, error) {
	t, err := s.table(ctx)
	var m *view.Member
	if err == nil {
		t = s.having(ctx, t, func(t *view.Table) bool {
			return !slices.ContainsFunc(*topics, func(q Q) bool { return t.Topic(*k.asked(&q)) == nil })
		})
		m, _ = s.dialled(t)
	}
	var refused []A
	var accepted, forward []Q
	for _, q := range *topics {
		var topic *view.Topic
		var code int16
		if err != nil {
			code = s.refused(refusal.BrokerUnavailable.With(err))
		} else {
			if topic, code = k.judge(t, *k.asked(&q)); code == 0 && topic.Member != m {
				code = s.refused(refusal.TopicElsewhere, "topic", topic.Name)
			}
		}
		if code != 0 {
			refused = append(refused, k.refused(q, code))
			continue
		}
		accepted = append(accepted, q)
		*k.asked(&q) = topic.Physical.Name
		forward = append(forward, q)
	}
	resp := req.ResponseKind().(R)
	if len(forward) == 0 {
		*answers(resp) = refused
		return resp, nil
	}
	*topics = forward
	up, err := s.request(ctx, t, upstream.Control, k.limit, req)
	if err != nil {
		code := s.refused(refusal.BrokerUnavailable.With(err))
		for _, q := range accepted {
			refused = append(refused, k.refused(q, code))
		}
		*answers(resp) = refused
		return resp, nil
	}
	resp = up.(R)
	all := *answers(resp)
	for i := range all {
		topic := m.Topic(*k.answered(&all[i]))
		if topic == nil {
			return nil, errForeign
		}
		*k.answered(&all[i]) = topic.Name
		if k.mapped != nil {
			k.mapped(&all[i])
		}
	}
	*answers(resp) = append(refused, all...)
	return resp, nil
}
