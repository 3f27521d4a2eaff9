package session

import (
	"context"
	"regexp"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
)

// ConsumerGroupHeartbeat (KIP-848, PROTOCOL.md §B6): versions 0 to 1. A regular
// expression would be matched against every topic of the cluster, so it is
// matched here and the names are sent; they are sent anew when they change.
func consumerGroupHeartbeat(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.ConsumerGroupHeartbeatRequest)
	resp := req.ResponseKind().(*kmsg.ConsumerGroupHeartbeatResponse)
	refuse := func(why error, args ...any) (kmsg.Response, error) {
		resp.ErrorCode, resp.ErrorMessage = s.refusedText(why, args...)
		return resp, nil
	}
	t, err := s.table(ctx)
	if err != nil {
		return refuse(refusal.CoordinatorUnavailable.With(err))
	}
	if why := s.refuseMember(t, kmsg.ACLOperationRead, req.Group); why != nil {
		return refuse(why, "group", req.Group)
	}
	key := req.Group + "\x00" + req.MemberID
	if req.SubscribedTopicRegex != nil {
		s.regex.forget(key)
		if *req.SubscribedTopicRegex != "" {
			re, err := regexp.Compile("^(?:" + *req.SubscribedTopicRegex + ")$")
			if err != nil {
				return refuse(refusal.RegexInvalid.With(err))
			}
			s.regex.set(key, re)
		}
		req.SubscribedTopicRegex = nil
	}
	for i, name := range req.SubscribedTopicNames {
		if !s.mayTopic(t, kmsg.ACLOperationDescribe, name) {
			return refuse(refusal.TopicNotAuthorized, "topic", name)
		}
		req.SubscribedTopicNames[i], _ = toPhysical(t)(name)
	}
	if sub := s.regex.get(key); sub != nil {
		var names []string
		for _, topic := range t.Topics {
			if sub.re.MatchString(topic.Name) && s.mayTopic(t, kmsg.ACLOperationDescribe, topic.Name) {
				names = append(names, topic.Physical.Name)
			}
		}
		if sub.changed(names) || req.MemberEpoch == 0 {
			req.SubscribedTopicNames = append([]string{}, append(req.SubscribedTopicNames, names...)...)
		}
	}
	if req.MemberEpoch < 0 {
		s.regex.forget(key)
	}
	kept := req.Topics[:0]
	for _, rt := range req.Topics {
		if topic := t.TopicByID(rt.TopicID); topic != nil {
			rt.TopicID = topic.Physical.ID
			kept = append(kept, rt)
		}
	}
	if req.Topics != nil {
		req.Topics = kept
	}
	req.Group = group(t, req.Group)
	up, code := s.coordinator(ctx, upstream.Control, 0, req)
	if code != 0 {
		resp.ErrorCode = code
		return resp, nil
	}
	answer := up.(*kmsg.ConsumerGroupHeartbeatResponse)
	if answer.ErrorCode != 0 {
		answer.ErrorMessage = stockText(answer.ErrorCode)
	}
	if answer.Assignment != nil {
		topics := answer.Assignment.Topics[:0]
		for _, at := range answer.Assignment.Topics {
			topic := s.assigned(ctx, t, at.TopicID)
			if topic != nil {
				at.TopicID = topic.ID
				topics = append(topics, at)
			}
		}
		answer.Assignment.Topics = topics
	}
	return answer, nil
}

// regexSubscriptions are the patterns of the members on this connection.
type regexSubscriptions map[string]*regexSubscription

type regexSubscription struct {
	re    *regexp.Regexp
	names []string
}

func (m *regexSubscriptions) set(key string, re *regexp.Regexp) {
	if *m == nil {
		*m = make(regexSubscriptions)
	}
	(*m)[key] = &regexSubscription{re: re}
}

func (m regexSubscriptions) get(key string) *regexSubscription { return m[key] }

func (m regexSubscriptions) forget(key string) { delete(m, key) }

// changed reports whether names differ from those sent last, and remembers them.
func (r *regexSubscription) changed(names []string) bool {
	same := len(names) == len(r.names) && r.names != nil
	for i := range names {
		same = same && names[i] == r.names[i]
	}
	r.names = append([]string{}, names...)
	return !same
}
