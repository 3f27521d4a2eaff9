package session

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
)

// CreatePartitions: versions 0 to 3.
func createPartitions(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.CreatePartitionsRequest)
	resp := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
	refuse := func(name string, why error) {
		out := kmsg.NewCreatePartitionsResponseTopic()
		out.Topic = name
		out.ErrorCode, out.ErrorMessage = s.refusedText(why, "topic", name)
		resp.Topics = append(resp.Topics, out)
	}
	t, done, err := s.creating(ctx)
	defer done()
	var left *room
	if err == nil {
		left = roomOf(t)
	}
	forward := *req
	forward.Topics = nil
	for _, rt := range req.Topics {
		if err != nil {
			refuse(rt.Topic, refusal.TimedOut.With(err))
			continue
		}
		topic, why := s.lookUp(t, kmsg.ACLOperationAlter, rt.Topic)
		switch {
		case why != nil:
			refuse(rt.Topic, why)
		case topic.Alias:
			refuse(rt.Topic, refusal.AliasReadOnly.Tell("the topic is an alias: its partitions belong to the topic it stands for"))
		case len(rt.Assignment) > 0:
			refuse(rt.Topic, refusal.ReplicaAssignment.Tell("replica assignments are the provider's choice: give a partition count only"))
		case rt.Count > s.maxPartitions(t):
			refuse(rt.Topic, refusal.PartitionsOverLimit.Tell("%d partitions: at most %d are allowed for a topic", rt.Count, s.maxPartitions(t)))
		default:
			if why := left.take(0, max(int(rt.Count)-len(topic.Physical.Partitions), 0)); why != nil {
				refuse(rt.Topic, why)
				continue
			}
			rt.Topic = topic.Physical.Name
			forward.Topics = append(forward.Topics, rt)
		}
	}
	if len(forward.Topics) == 0 {
		return resp, nil
	}
	up, err := s.admin(ctx, adminLimit(req.TimeoutMillis), &forward)
	if err != nil {
		for _, rt := range forward.Topics {
			refuse(t.Home.Topic(rt.Topic).Name, refusal.TimedOut.With(err))
		}
		return resp, nil
	}
	answer := up.(*kmsg.CreatePartitionsResponse)
	s.vc.Home.MarkStale()
	if limited(t.View) && !req.ValidateOnly {
		s.awaitPartitions(ctx, forward.Topics, answer.Topics)
	}
	for i := range answer.Topics {
		rt := &answer.Topics[i]
		topic := t.Home.Topic(rt.Topic)
		if topic == nil {
			return nil, errForeign
		}
		rt.Topic = topic.Name
		if rt.ErrorCode != 0 {
			rt.ErrorMessage = ownText(rt.ErrorCode, rt.ErrorMessage)
		}
	}
	answer.Topics = append(resp.Topics, answer.Topics...)
	return answer, nil
}

// awaitPartitions refreshes metadata until the new partitions are in it, so that who
// creates some next counts them.
func (s *Session) awaitPartitions(ctx context.Context, asked []kmsg.CreatePartitionsRequestTopic, answered []kmsg.CreatePartitionsResponseTopic) {
	failed := make(map[string]bool)
	for _, rt := range answered {
		failed[rt.Topic] = rt.ErrorCode != 0
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		s.vc.Home.MarkStale()
		t, err := s.vc.Fresh(ctx, 0)
		if err == nil && !slices.ContainsFunc(asked, func(rt kmsg.CreatePartitionsRequestTopic) bool {
			topic := t.Home.Topic(rt.Topic)
			return !failed[rt.Topic] && topic != nil && len(topic.Physical.Partitions) < int(rt.Count)
		}) {
			return
		}
		if s.pause(ctx, wait) != nil {
			return
		}
	}
}
