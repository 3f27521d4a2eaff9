package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
)

// ShareAcknowledge (KIP-932, PROTOCOL.md §B7): versions 1 to 2; on the broker
// connection of the share session. READ on the group, READ on each topic.
func shareAcknowledge(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.ShareAcknowledgeRequest)
	resp := req.ResponseKind().(*kmsg.ShareAcknowledgeResponse)
	refuse := func(why error, args ...any) (kmsg.Response, error) {
		resp.ErrorCode, resp.ErrorMessage = s.refusedText(why, args...)
		return resp, nil
	}
	if req.GroupID == nil || req.MemberID == nil {
		return refuse(refusal.ShareRequestInvalid)
	}
	t, err := s.table(ctx)
	if err != nil {
		return nil, err
	}
	if why := s.refuseGroup(t, kmsg.ACLOperationRead, *req.GroupID); why != nil {
		return refuse(why, "group", *req.GroupID)
	}
	if s.share.key != shareKey(*req.GroupID, *req.MemberID) {
		return refuse(refusal.ShareSessionUnknown, "group", *req.GroupID)
	}
	forward := *req
	forward.GroupID = kmsg.StringPtr(group(t, *req.GroupID))
	forward.Topics = nil
	for _, rt := range req.Topics {
		topic, code := s.topicByID(t, kmsg.ACLOperationRead, rt.TopicID)
		if code != 0 {
			out := kmsg.NewShareAcknowledgeResponseTopic()
			out.TopicID = rt.TopicID
			for _, p := range rt.Partitions {
				rp := kmsg.NewShareAcknowledgeResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p.Partition, code
				out.Partitions = append(out.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, out)
			continue
		}
		rt.TopicID = topic.Physical.ID
		forward.Topics = append(forward.Topics, rt)
	}
	up, err := s.shareRequest(ctx, t, grace, &forward)
	if err != nil {
		return nil, err
	}
	answer := up.(*kmsg.ShareAcknowledgeResponse)
	answer.ErrorMessage = ownText(answer.ErrorCode, answer.ErrorMessage)
	for i := range answer.Topics {
		rt := &answer.Topics[i]
		id, _, ok := s.share.virtualID(t, rt.TopicID)
		if !ok {
			return nil, errForeign
		}
		rt.TopicID = id
		for j := range rt.Partitions {
			p := &rt.Partitions[j]
			p.ErrorMessage = ownText(p.ErrorCode, p.ErrorMessage)
			p.CurrentLeader.LeaderID = t.Home.VirtualNode(p.CurrentLeader.LeaderID)
			s.noteError(p.ErrorCode)
		}
	}
	for i := range answer.NodeEndpoints {
		n := &answer.NodeEndpoints[i]
		n.NodeID = t.Home.VirtualNode(n.NodeID)
		n.Host, n.Port = s.client.Advertise(n.NodeID)
	}
	answer.Topics = append(answer.Topics, resp.Topics...)
	if req.ShareSessionEpoch == -1 || shareSessionLost(answer.ErrorCode) {
		s.share.forget()
	}
	return answer, nil
}
