package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
)

// DeleteTopics: versions 1 to 6; by name, from 6 by name or id. Aliases stay: the
// topic behind one is somebody else's.
func deleteTopics(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DeleteTopicsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
	asked := req.Topics
	if req.Version <= 5 {
		asked = nil
		for _, name := range req.TopicNames {
			rt := kmsg.NewDeleteTopicsRequestTopic()
			rt.Topic = kmsg.StringPtr(name)
			asked = append(asked, rt)
		}
	}
	refuse := func(rt kmsg.DeleteTopicsRequestTopic, name *string, why error) {
		out := kmsg.NewDeleteTopicsResponseTopic()
		out.Topic, out.TopicID = name, rt.TopicID
		out.ErrorCode, out.ErrorMessage = s.refusedText(why)
		resp.Topics = append(resp.Topics, out)
	}
	t, err := s.vc.Fresh(ctx, metadataAge)
	forward := *req
	forward.Topics, forward.TopicNames = nil, nil
	for _, rt := range asked {
		if err != nil {
			refuse(rt, rt.Topic, refusal.TimedOut.With(err))
			continue
		}
		if rt.Topic != nil && rt.TopicID != ([16]byte{}) {
			refuse(rt, rt.Topic, refusal.Invalid.Tell("Topic name and topic ID can not both be specified."))
			continue
		}
		if rt.Topic == nil && rt.TopicID == ([16]byte{}) {
			refuse(rt, nil, refusal.Invalid.Tell("Neither topic name nor topic ID is specified."))
			continue
		}
		name := ""
		if rt.Topic != nil {
			name = *rt.Topic
		} else if topic := t.TopicByID(rt.TopicID); topic != nil {
			name = topic.Name
		} else {
			refuse(rt, nil, refusal.TopicIDUnknown)
			continue
		}
		topic := t.Topic(name)
		shown := kmsg.StringPtr(name)
		if rt.Topic == nil && !s.mayTopic(t, kmsg.ACLOperationDescribe, name) {
			shown = nil
		}
		switch {
		case !s.mayCluster(t, kmsg.ACLOperationDelete) && !s.mayTopic(t, kmsg.ACLOperationDelete, name):
			refuse(rt, shown, refusal.TopicNotAuthorized.Errorf("%s on topic %q", kmsg.ACLOperationDelete, name))
		case topic == nil:
			refuse(rt, shown, refusal.TopicUnknown.Errorf("topic %q", name))
		case topic.Alias:
			refuse(rt, shown, refusal.AliasReadOnly.Tell("the topic is an alias: it is removed in the portal, and what it stands for is not deleted"))
		default:
			ft := kmsg.NewDeleteTopicsRequestTopic()
			ft.Topic = kmsg.StringPtr(topic.Physical.Name)
			forward.Topics = append(forward.Topics, ft)
			forward.TopicNames = append(forward.TopicNames, topic.Physical.Name)
		}
	}
	if len(forward.TopicNames) == 0 {
		return resp, nil
	}
	up, err := s.admin(ctx, adminLimit(req.TimeoutMillis), &forward)
	if err != nil {
		for _, name := range forward.TopicNames {
			refuse(kmsg.DeleteTopicsRequestTopic{}, kmsg.StringPtr(t.Home.Topic(name).Name), refusal.TimedOut.With(err))
		}
		return resp, nil
	}
	s.vc.Home.MarkStale()
	answer := up.(*kmsg.DeleteTopicsResponse)
	for i := range answer.Topics {
		rt := &answer.Topics[i]
		if rt.Topic == nil || t.Home.Topic(*rt.Topic) == nil {
			return nil, errForeign
		}
		topic := t.Home.Topic(*rt.Topic)
		rt.Topic, rt.TopicID = kmsg.StringPtr(topic.Name), topic.ID
		if rt.ErrorCode != 0 {
			rt.ErrorMessage = ownText(rt.ErrorCode, rt.ErrorMessage)
		}
	}
	answer.Topics = append(resp.Topics, answer.Topics...)
	return answer, nil
}
