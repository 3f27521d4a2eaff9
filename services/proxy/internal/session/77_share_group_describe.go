package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/view"
)

// ShareGroupDescribe (KIP-932): version 1. A topic without DESCRIBE fails the whole
// group, as on a broker.
func shareGroupDescribe(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.ShareGroupDescribeRequest)
	withOperations := req.IncludeAuthorizedOperations
	req.IncludeAuthorizedOperations = false
	return askCoordinator(s, ctx, req, &req.GroupIDs,
		func(r *kmsg.ShareGroupDescribeResponse) *[]kmsg.ShareGroupDescribeResponseGroup { return &r.Groups },
		byGroup[string, kmsg.ShareGroupDescribeResponseGroup]{
			named: true, op: kmsg.ACLOperationDescribe, asked: itself,
			answered: func(a *kmsg.ShareGroupDescribeResponseGroup) *string { return &a.GroupID },
			refused: func(name string, code int16) kmsg.ShareGroupDescribeResponseGroup {
				g := kmsg.NewShareGroupDescribeResponseGroup()
				g.GroupID, g.ErrorCode, g.AuthorizedOperations = name, code, -2147483648
				if code == kerr.TopicAuthorizationFailed.Code { // the one code a broker explains
					g.ErrorMessage = stockText(code)
				}
				return g
			},
			mapped: func(t *view.Table, g *kmsg.ShareGroupDescribeResponseGroup) int16 {
				g.AuthorizedOperations = s.operations(t, withOperations && g.ErrorCode == 0, kmsg.ACLResourceTypeGroup, g.GroupID)
				g.ErrorMessage = ownText(g.ErrorCode, g.ErrorMessage)
				for i := range g.Members {
					m := &g.Members[i]
					m.ClientHost = ""
					m.SubscribedTopicNames = virtualNames(t, m.SubscribedTopicNames)
					kept := m.Assignment.TopicPartitions[:0]
					for _, tp := range m.Assignment.TopicPartitions {
						topic := t.GroupedByID(tp.TopicID)
						if topic == nil {
							continue
						}
						if !s.mayTopic(t, kmsg.ACLOperationDescribe, topic.Name) {
							return s.refused(refusal.TopicNotAuthorized, "group", g.GroupID)
						}
						tp.TopicID, tp.Topic = topic.ID, topic.Name
						kept = append(kept, tp)
					}
					m.Assignment.TopicPartitions = kept
				}
				return 0
			},
		})
}
