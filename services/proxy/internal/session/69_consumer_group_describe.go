package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/view"
)

// ConsumerGroupDescribe: versions 0 to 1. A topic without DESCRIBE fails the whole
// group, as on a broker.
func consumerGroupDescribe(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.ConsumerGroupDescribeRequest)
	withOperations := req.IncludeAuthorizedOperations
	req.IncludeAuthorizedOperations = false
	return askCoordinator(s, ctx, req, &req.Groups,
		func(r *kmsg.ConsumerGroupDescribeResponse) *[]kmsg.ConsumerGroupDescribeResponseGroup {
			return &r.Groups
		},
		byGroup[string, kmsg.ConsumerGroupDescribeResponseGroup]{
			named: true, op: kmsg.ACLOperationDescribe, asked: itself,
			answered: func(a *kmsg.ConsumerGroupDescribeResponseGroup) *string { return &a.Group },
			refused: func(name string, code int16) kmsg.ConsumerGroupDescribeResponseGroup {
				g := kmsg.NewConsumerGroupDescribeResponseGroup()
				g.Group, g.ErrorCode, g.AuthorizedOperations = name, code, -2147483648
				if code == kerr.TopicAuthorizationFailed.Code { // the one code a broker explains
					g.ErrorMessage = stockText(code)
				}
				return g
			},
			mapped: func(t *view.Table, g *kmsg.ConsumerGroupDescribeResponseGroup) int16 {
				g.AuthorizedOperations = s.operations(t, withOperations && g.ErrorCode == 0, kmsg.ACLResourceTypeGroup, g.Group)
				g.ErrorMessage = ownText(g.ErrorCode, g.ErrorMessage)
				seen := true
				for i := range g.Members {
					m := &g.Members[i]
					m.ClientHost = ""
					s.describedSubscription(t, m)
					m.Assignment.TopicPartitions = s.describedPartitions(t, m.Assignment.TopicPartitions, &seen)
					m.TargetAssignment.TopicPartitions = s.describedPartitions(t, m.TargetAssignment.TopicPartitions, &seen)
				}
				if !seen {
					return s.refused(refusal.TopicNotAuthorized, "group", g.Group)
				}
				return 0
			},
		})
}

// describedSubscription shows a member's pattern as the client gave it, and of the
// topics only those it named beside it.
func (s *Session) describedSubscription(t *view.Table, m *kmsg.ConsumerGroupDescribeResponseGroupMember) {
	expression, ok := kept(m.SubscribedTopicRegex)
	if m.SubscribedTopicRegex != nil {
		m.SubscribedTopicRegex = kmsg.StringPtr("") // none, as a broker says it
	}
	if ok {
		if p, err := newPattern(expression); err == nil {
			m.SubscribedTopicRegex, m.SubscribedTopics = &expression, p.beside(t, m.SubscribedTopics)
		}
	}
	m.SubscribedTopics = virtualNames(t, m.SubscribedTopics)
}

// virtualNames maps what a member has subscribed to back.
func virtualNames(t *view.Table, physical []string) []string {
	names := physical[:0]
	for _, p := range physical {
		if name, ok := t.TopicName(p); ok {
			names = append(names, name)
		}
	}
	return names
}

func (s *Session) describedPartitions(t *view.Table, in []kmsg.AssignmentTopicPartition, seen *bool) []kmsg.AssignmentTopicPartition {
	out := in[:0]
	for _, tp := range in {
		topic := t.GroupedByID(tp.TopicID)
		if topic == nil {
			continue
		}
		if !s.mayTopic(t, kmsg.ACLOperationDescribe, topic.Name) {
			*seen = false
		}
		tp.TopicID, tp.Topic = topic.ID, topic.Name
		out = append(out, tp)
	}
	return out
}
