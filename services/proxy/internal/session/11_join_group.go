package session

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// consumerProtocol is the protocol type whose metadata the coordinator reads.
const consumerProtocol = "consumer"

// JoinGroup: versions 0 to 9. The answer waits for the other members, up to the
// rebalance timeout, on a connection of its own class. Subscribed topics are
// renamed inside the consumer protocol's metadata (PROTOCOL.md §B5).
func joinGroup(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.JoinGroupRequest)
	resp := req.ResponseKind().(*kmsg.JoinGroupResponse)
	resp.Generation, resp.MemberID = -1, req.MemberID
	t, why := s.tableFor(ctx, s.refuseMember, kmsg.ACLOperationRead, req.Group)
	if why != nil {
		resp.ErrorCode = s.refused(why, "group", req.Group)
		return resp, nil
	}
	req.Group = group(t, req.Group)
	consumer := req.ProtocolType == consumerProtocol
	if consumer {
		for i := range req.Protocols {
			req.Protocols[i].Metadata = subscription(req.Protocols[i].Metadata, false, toGrouped(t))
		}
	}
	wait := max(req.RebalanceTimeoutMillis, req.SessionTimeoutMillis)
	up, code := s.coordinator(ctx, t, t.Home, upstream.GroupWait, time.Duration(max(wait, 0))*time.Millisecond+grace, req)
	if code != 0 {
		resp.ErrorCode = code
		return resp, nil
	}
	answer := up.(*kmsg.JoinGroupResponse)
	if consumer {
		for i := range answer.Members {
			answer.Members[i].ProtocolMetadata = subscription(answer.Members[i].ProtocolMetadata, false, t.TopicName)
		}
	}
	return answer, nil
}
