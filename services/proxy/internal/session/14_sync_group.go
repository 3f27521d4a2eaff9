package session

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// groupWait is how long a SyncGroup may wait for the leader: the longest
// rebalance timeout clients use by default (max.poll.interval.ms).
const groupWait = 5 * time.Minute

// SyncGroup: versions 0 to 5. The leader's assignments name topics as home knows
// them (PROTOCOL.md §B5). The protocol type is in the request only from 5; before,
// an assignment that reads as the consumer protocol's is taken for one.
func syncGroup(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.SyncGroupRequest)
	resp := req.ResponseKind().(*kmsg.SyncGroupResponse)
	t, why := s.tableFor(ctx, s.refuseMember, kmsg.ACLOperationRead, req.Group)
	if why != nil {
		resp.ErrorCode = s.refused(why, "group", req.Group)
		return resp, nil
	}
	req.Group = group(t, req.Group)
	consumer := req.ProtocolType == nil || *req.ProtocolType == consumerProtocol
	if consumer {
		for i := range req.GroupAssignment {
			req.GroupAssignment[i].MemberAssignment = subscription(req.GroupAssignment[i].MemberAssignment, true, toGrouped(t))
		}
	}
	up, code := s.coordinator(ctx, t, t.Home, upstream.GroupWait, groupWait, req)
	if code != 0 {
		resp.ErrorCode = code
		return resp, nil
	}
	answer := up.(*kmsg.SyncGroupResponse)
	if consumer {
		answer.MemberAssignment = subscription(answer.MemberAssignment, true, t.TopicName)
	}
	return answer, nil
}
