package session

import (
	"context"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// Subscriptions by regular expression (KIP-848, PROTOCOL.md §B6). A broker would
// match the expression against every topic of the cluster, so it is matched here
// and the names are sent, anew whenever they change.
//
// A client says its expression once and then only that it still lives, on whatever
// connection and to whatever node of the gateway. So the expression is kept where
// the member is: the broker holds it in a form that matches no topic, and a session
// that meets a member for the first time asks for it.

// keptPattern is how a broker holds an expression: no topic's name has a colon.
const keptPattern = "tollgate:"

func keep(expression string) *string {
	return kmsg.StringPtr(keptPattern + base64.RawURLEncoding.EncodeToString([]byte(expression)))
}

// kept is the expression in a broker's description of a member; false: none.
func kept(held *string) (string, bool) {
	if held == nil {
		return "", false
	}
	text, ok := strings.CutPrefix(*held, keptPattern)
	if !ok {
		return "", false
	}
	expression, err := base64.RawURLEncoding.DecodeString(text)
	return string(expression), err == nil
}

// maxMembers bounds what is remembered for a connection; all but one member on it
// is unusual.
const maxMembers = 256

type groupMember struct{ group, id string }

// patterns are those of the members met on this connection; nil for one without.
type patterns map[groupMember]*pattern

type pattern struct {
	re    *regexp.Regexp
	named []string // physical topics that the client names beside it
	sent  []string // physical topics the broker was sent last; nil: not known
}

// newPattern compiles an expression that has to match a whole name. Kafka's engine
// and Go's are of one family (RE2).
func newPattern(expression string) (*pattern, error) {
	re, err := regexp.Compile("^(?:" + expression + ")$")
	if err != nil {
		return nil, refusal.RegexInvalid.With(err)
	}
	return &pattern{re: re}, nil
}

// subscribe puts what a broker is to be sent into a heartbeat whose names are
// physical ones by now.
func (s *Session) subscribe(ctx context.Context, t *view.Table, req *kmsg.ConsumerGroupHeartbeatRequest) error {
	if s.patterns == nil || len(s.patterns) >= maxMembers {
		s.patterns = make(patterns)
	}
	m := groupMember{req.Group, req.MemberID}
	p, met := s.patterns[m]
	switch {
	case req.MemberEpoch < 0: // it leaves
		delete(s.patterns, m)
		return nil
	case req.SubscribedTopicRegex != nil && *req.SubscribedTopicRegex == "":
		if p != nil && req.SubscribedTopicNames == nil {
			req.SubscribedTopicNames = append([]string{}, p.named...)
		}
		p = nil
	case req.SubscribedTopicRegex != nil:
		next, err := newPattern(*req.SubscribedTopicRegex)
		if err != nil {
			return err
		}
		if p != nil {
			next.named = p.named
		}
		p, req.SubscribedTopicRegex = next, keep(*req.SubscribedTopicRegex)
	case met || req.MemberEpoch == 0:
	default:
		var err error
		if p, err = s.recall(ctx, t, m); err != nil {
			// The broker is asked the same again in a moment.
			s.log.Debug("subscription of a group member not found", "err", err)
			return nil
		}
	}
	s.patterns[m] = p
	if p == nil {
		return nil
	}
	if req.SubscribedTopicNames != nil {
		p.named = append([]string{}, req.SubscribedTopicNames...)
	}
	names := append([]string{}, p.named...)
	for _, topic := range t.Topics {
		name := topic.Grouped.Name
		if name != "" && p.re.MatchString(topic.Name) && s.mayTopic(t, kmsg.ACLOperationDescribe, topic.Name) && !slices.Contains(p.named, name) {
			names = append(names, name)
		}
	}
	if p.sent == nil || req.MemberEpoch == 0 || req.SubscribedTopicNames != nil || !slices.Equal(names, p.sent) {
		req.SubscribedTopicNames, p.sent = names, names
	}
	return nil
}

// recall asks the coordinator what a member has subscribed to; nil: it has no
// pattern.
func (s *Session) recall(ctx context.Context, t *view.Table, m groupMember) (*pattern, error) {
	req := kmsg.NewPtrConsumerGroupDescribeRequest()
	req.Groups = []string{group(t, m.group)}
	resp, err := s.request(ctx, t, upstream.Control, 0, req)
	if err != nil {
		return nil, err
	}
	for _, g := range resp.(*kmsg.ConsumerGroupDescribeResponse).Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
			return nil, err
		}
		for _, d := range g.Members {
			if d.MemberID != m.id {
				continue
			}
			expression, ok := kept(d.SubscribedTopicRegex)
			if !ok {
				return nil, nil
			}
			p, err := newPattern(expression)
			if err != nil {
				return nil, err
			}
			p.named, p.sent = p.beside(t, d.SubscribedTopics), slices.Clone(d.SubscribedTopics)
			return p, nil
		}
	}
	return nil, nil
}

// beside are those of the physical topics that the pattern does not match.
func (p *pattern) beside(t *view.Table, physical []string) []string {
	var named []string
	for _, name := range physical {
		if virtual, ok := t.TopicName(name); !ok || !p.re.MatchString(virtual) {
			named = append(named, name)
		}
	}
	return named
}
