package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// ConsumerGroupDescribe: versions 0 to 1. A topic without DESCRIBE fails the whole
// group, as on a broker.
func consumerGroupDescribe(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.ConsumerGroupDescribeRequest)
	resp := req.ResponseKind().(*kmsg.ConsumerGroupDescribeResponse)
	t, err := s.table(ctx)
	refuse := func(name string, code int16) {
		g := kmsg.NewConsumerGroupDescribeResponseGroup()
		g.Group, g.ErrorCode, g.ErrorMessage, g.AuthorizedOperations = name, code, stockText(code), -2147483648
		resp.Groups = append(resp.Groups, g)
	}
	forward := *req
	forward.Groups, forward.IncludeAuthorizedOperations = nil, false
	for _, name := range req.Groups {
		switch {
		case err != nil:
			refuse(name, kerr.CoordinatorNotAvailable.Code)
		case !s.mayGroup(t, kmsg.ACLOperationDescribe, name):
			refuse(name, kerr.GroupAuthorizationFailed.Code)
		default:
			forward.Groups = append(forward.Groups, group(t, name))
		}
	}
	if len(forward.Groups) == 0 {
		return resp, nil
	}
	up, code := s.coordinator(ctx, upstream.Control, 0, &forward)
	if code != 0 {
		for _, name := range forward.Groups {
			virtual, _ := ungroup(t, name)
			refuse(virtual, code)
		}
		return resp, nil
	}
	for _, g := range up.(*kmsg.ConsumerGroupDescribeResponse).Groups {
		name, ok := ungroup(t, g.Group)
		if !ok {
			return nil, errForeign
		}
		g.Group = name
		g.AuthorizedOperations = s.operations(t, req.IncludeAuthorizedOperations, kmsg.ACLResourceTypeGroup, name)
		if g.ErrorCode != 0 {
			g.ErrorMessage = stockText(g.ErrorCode)
		}
		seen := true
		for i := range g.Members {
			m := &g.Members[i]
			m.ClientHost = ""
			m.SubscribedTopicRegex = nil
			names := m.SubscribedTopics[:0]
			for _, physical := range m.SubscribedTopics {
				if virtual, ok := toVirtual(t)(physical); ok {
					names = append(names, virtual)
				}
			}
			m.SubscribedTopics = names
			m.Assignment.TopicPartitions = s.describedPartitions(t, m.Assignment.TopicPartitions, &seen)
			m.TargetAssignment.TopicPartitions = s.describedPartitions(t, m.TargetAssignment.TopicPartitions, &seen)
		}
		if !seen {
			refuse(name, kerr.TopicAuthorizationFailed.Code)
			continue
		}
		resp.Groups = append(resp.Groups, g)
	}
	return resp, nil
}

func (s *Session) describedPartitions(t *view.Table, in []kmsg.AssignmentTopicPartition, seen *bool) []kmsg.AssignmentTopicPartition {
	out := in[:0]
	for _, tp := range in {
		topic := t.VirtualByID(tp.TopicID)
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
