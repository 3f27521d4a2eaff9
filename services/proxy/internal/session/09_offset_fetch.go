package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// OffsetFetch: versions 1 to 10; one group to 7, a list from 8; ids from 10; null
// topics mean all, of which those the client may not see are left out. What is not on
// home is asked for where it is when home has answered for the group (see split.go).
func offsetFetch(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.OffsetFetchRequest)
	resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
	one := req.Version <= 7
	groups := req.Groups
	if one {
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = req.Group
		if req.Topics != nil {
			g.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
			for _, rt := range req.Topics {
				gt := kmsg.NewOffsetFetchRequestGroupTopic()
				gt.Topic, gt.Partitions = rt.Topic, rt.Partitions
				g.Topics = append(g.Topics, gt)
			}
		}
		groups = []kmsg.OffsetFetchRequestGroup{g}
	}
	t, err := s.table(ctx)
	forward := *req
	forward.Groups, forward.Group, forward.Topics = nil, "", nil
	refused := make([]kmsg.OffsetFetchResponseGroup, len(groups))
	sent := make([]bool, len(groups))
	var away []awayFetch
	for i, g := range groups {
		refused[i] = kmsg.NewOffsetFetchResponseGroup()
		refused[i].Group = g.Group
		if err != nil {
			refused[i].ErrorCode = s.refused(refusal.CoordinatorUnavailable.With(err))
			continue
		}
		if why := s.refuseGroup(t, kmsg.ACLOperationDescribe, g.Group); why != nil {
			refused[i].ErrorCode = s.refused(why, "group", g.Group)
			continue
		}
		fg := g
		fg.Group = group(t, g.Group)
		if g.Topics != nil {
			fg.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
			for _, gt := range g.Topics {
				var topic *view.Topic
				var code int16
				if req.Version >= 10 {
					topic, code = s.topicByID(t, kmsg.ACLOperationDescribe, gt.TopicID)
				} else if found, why := s.lookUp(t, kmsg.ACLOperationDescribe, gt.Topic); why == refusal.TopicNotAuthorized {
					code = s.refusedTopic(why, kmsg.ACLOperationDescribe, gt.Topic)
				} else {
					topic = found // or none: a broker does not look whether the topic exists
				}
				if code == 0 && topic != nil && topic.Split != nil {
					away = addFetch(away, i, fg.Group, topic, gt.Partitions)
					continue
				}
				if code == 0 && topic != nil {
					gt.Topic, gt.TopicID = topic.Grouped.Name, topic.Grouped.ID
					fg.Topics = append(fg.Topics, gt)
					continue
				}
				rt := kmsg.NewOffsetFetchResponseGroupTopic()
				rt.Topic, rt.TopicID = gt.Topic, gt.TopicID
				for _, p := range gt.Partitions {
					rp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
					rp.Partition, rp.ErrorCode, rp.Offset, rp.LeaderEpoch = p, code, -1, -1
					rp.Metadata = kmsg.StringPtr("")
					rt.Partitions = append(rt.Partitions, rp)
				}
				refused[i].Topics = append(refused[i].Topics, rt)
			}
		} else {
			for _, m := range t.SplitMembers() {
				away = append(away, awayFetch{index: i, member: m, group: fg.Group, all: true})
			}
		}
		sent[i] = true
		forward.Groups = append(forward.Groups, fg)
	}
	if len(forward.Groups) > 0 {
		if one {
			g := forward.Groups[0]
			forward.Group, forward.Groups = g.Group, nil
			if g.Topics != nil {
				forward.Topics = []kmsg.OffsetFetchRequestTopic{}
			}
			for _, gt := range g.Topics {
				ft := kmsg.NewOffsetFetchRequestTopic()
				ft.Topic, ft.Partitions = gt.Topic, gt.Partitions
				forward.Topics = append(forward.Topics, ft)
			}
		}
		up, code := s.coordinator(ctx, t, t.Home, upstream.Control, 0, &forward)
		var answers []kmsg.OffsetFetchResponseGroup
		if code == 0 {
			answer := up.(*kmsg.OffsetFetchResponse)
			resp.ThrottleMillis = answer.ThrottleMillis
			answers = answer.Groups
			if one {
				answers = []kmsg.OffsetFetchResponseGroup{offsetFetchGroup(answer)}
			}
		}
		k := 0
		for i := range groups {
			if !sent[i] {
				continue
			}
			if code != 0 {
				refused[i].ErrorCode, refused[i].Topics = code, nil
				continue
			}
			if k >= len(answers) {
				return nil, errForeign
			}
			a := answers[k]
			k++
			refused[i].ErrorCode = a.ErrorCode
			for _, rt := range a.Topics {
				var topic *view.Topic
				if req.Version >= 10 {
					topic = t.GroupedByID(rt.TopicID)
				} else {
					topic = t.Grouped(rt.Topic)
				}
				if topic == nil || groups[i].Topics == nil && !s.mayTopic(t, kmsg.ACLOperationDescribe, topic.Name) {
					continue
				}
				rt.Topic, rt.TopicID = topic.Name, topic.ID
				refused[i].Topics = append(refused[i].Topics, rt)
			}
		}
	}
	s.fetchSplit(ctx, t, req, refused, away)
	if !one {
		resp.Groups = refused
		return resp, nil
	}
	return flatOffsetFetch(req, resp, refused[0]), nil
}

// offsetFetchGroup gives an answer of one group the shape of a list's.
func offsetFetchGroup(a *kmsg.OffsetFetchResponse) kmsg.OffsetFetchResponseGroup {
	g := kmsg.NewOffsetFetchResponseGroup()
	g.ErrorCode = a.ErrorCode
	for _, t := range a.Topics {
		gt := kmsg.NewOffsetFetchResponseGroupTopic()
		gt.Topic = t.Topic
		for _, p := range t.Partitions {
			gp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			gp.Partition, gp.Offset, gp.LeaderEpoch, gp.Metadata, gp.ErrorCode = p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode
			gt.Partitions = append(gt.Partitions, gp)
		}
		g.Topics = append(g.Topics, gt)
	}
	return g
}

// flatOffsetFetch is the reverse. Version 1 has no place for a group's error but
// the partitions.
func flatOffsetFetch(req *kmsg.OffsetFetchRequest, resp *kmsg.OffsetFetchResponse, g kmsg.OffsetFetchResponseGroup) *kmsg.OffsetFetchResponse {
	resp.ErrorCode = g.ErrorCode
	if g.ErrorCode != 0 && req.Version == 1 {
		for _, rt := range req.Topics {
			gt := kmsg.NewOffsetFetchResponseGroupTopic()
			gt.Topic = rt.Topic
			for _, p := range rt.Partitions {
				gp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
				gp.Partition, gp.Offset, gp.ErrorCode, gp.Metadata = p, -1, g.ErrorCode, kmsg.StringPtr("")
				gt.Partitions = append(gt.Partitions, gp)
			}
			g.Topics = append(g.Topics, gt)
		}
	}
	for _, gt := range g.Topics {
		rt := kmsg.NewOffsetFetchResponseTopic()
		rt.Topic = gt.Topic
		for _, p := range gt.Partitions {
			rp := kmsg.NewOffsetFetchResponseTopicPartition()
			rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata, rp.ErrorCode = p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}
