package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// Split offsets (PROTOCOL.md §B4-S2). Where home takes no stub for a topic of another
// cluster, that cluster keeps the offsets of the topic, in a group of the same name
// that nobody ever joins there: what is committed to it are simple commits. Members
// and generations are home's, so home is asked first whether the client may commit;
// that it still may when the other cluster takes the commit is not certain. A group's
// offsets are changed by one session of the node at a time, which leaves little room
// for a member that has just lost its partitions.

const (
	// awayLimit is how long clusters other than home may take: heartbeats wait behind
	// commits. It is also how long a session waits for its turn.
	awayLimit = 5 * time.Second
	// awayWait is how long the first time before asking again.
	awayWait = 50 * time.Millisecond
	// awayAtOnce is how many groups are asked for at the same time.
	awayAtOnce = 8
	// awayRetention keeps offsets from expiring. A cluster that does not know the
	// members of a group counts from each commit, and clients do not commit again
	// where they have read nothing.
	awayRetention = 10 * 365 * 24 * time.Hour
)

var errAwaySlow = errors.New("no answer in time")

// groupCode reports whether a code of one partition speaks of the whole group: the
// coordinator is another or not ready, the member or its generation is not the
// group's, or the group is not the client's.
func groupCode(code int16) bool {
	switch code {
	case kerr.CoordinatorLoadInProgress.Code, kerr.CoordinatorNotAvailable.Code, kerr.NotCoordinator.Code,
		kerr.IllegalGeneration.Code, kerr.UnknownMemberID.Code, kerr.RebalanceInProgress.Code, kerr.FencedInstanceID.Code,
		kerr.FencedMemberEpoch.Code, kerr.StaleMemberEpoch.Code,
		kerr.InvalidGroupID.Code, kerr.GroupIDNotFound.Code, kerr.GroupAuthorizationFailed.Code:
		return true
	}
	return false
}

// turn is the session's turn to change the offsets of a group that are on several
// clusters. It is never nil.
func (s *Session) turn(ctx context.Context, group string) (end func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, awayLimit, errAwaySlow)
	defer cancel()
	end, err = s.vc.Splits.Turn(ctx, group)
	if err != nil {
		return func() {}, refusal.OffsetsAway.Errorf("wait for the group's other members: %w", err)
	}
	return end, nil
}

// away asks the coordinator that a cluster other than home has for a group, by the
// name it has there, and asks again for as long as that may help: whatever is asked may
// be done twice, and some clients do not commit again by themselves. groupCode says what an answer says of the group. The error is the
// refusal to answer with.
func (s *Session) away(ctx context.Context, m *view.Member, group string, req kmsg.Request, groupCode func(kmsg.Response) int16) (kmsg.Response, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, awayLimit, errAwaySlow)
	defer cancel()
	var last error
	for wait := awayWait; ; wait = min(2*wait, 10*awayWait) {
		if last != nil {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return nil, refusal.OffsetsAway.Errorf("cluster %s: %w", m.Name, last)
			}
		}
		if state := m.Cluster.State(); state.Suspect {
			return nil, refusal.OffsetsAway.Errorf("cluster %s: %w", m.Name, state.Err)
		}
		node, err := s.awayCoordinator(ctx, m, group)
		if err != nil {
			if refusal.Of(err) != refusal.OffsetsAway {
				return nil, err
			}
			last = err
			continue
		}
		resp, err := m.Cluster.Request(ctx, node, upstream.Control, awayLimit, s.clientID(), req)
		if err != nil {
			s.vc.Splits.SetCoordinator(m.Cluster, group, -1)
			m.Cluster.MarkStale()
			_, _ = m.Cluster.Fresh(ctx, 0) // to learn whether it is the broker or the cluster
			last = err
			continue
		}
		switch code := groupCode(resp); code {
		case 0:
			return resp, nil
		case kerr.CoordinatorLoadInProgress.Code, kerr.CoordinatorNotAvailable.Code, kerr.NotCoordinator.Code:
			s.vc.Splits.SetCoordinator(m.Cluster, group, -1)
			last = kerr.ErrorForCode(code)
		default:
			return nil, refusal.OffsetsNotTaken.Errorf("cluster %s: %w", m.Name, kerr.ErrorForCode(code))
		}
	}
}

// awayCoordinator is the node of m that coordinates the group.
func (s *Session) awayCoordinator(ctx context.Context, m *view.Member, group string) (int32, error) {
	if node, known := s.vc.Splits.Coordinator(m.Cluster, group); known {
		return node, nil
	}
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.Version, req.CoordinatorKey = 3, group
	up, err := m.Cluster.RequestAny(ctx, -1, s.clientID(), req)
	if err != nil {
		m.Cluster.MarkStale()
		return -1, refusal.OffsetsAway.With(err)
	}
	resp := up.(*kmsg.FindCoordinatorResponse)
	switch code := resp.ErrorCode; code {
	case 0:
	case kerr.GroupAuthorizationFailed.Code:
		return -1, refusal.OffsetsNotTaken.Errorf("cluster %s: find coordinator: %w", m.Name, kerr.ErrorForCode(code))
	default:
		return -1, refusal.OffsetsAway.Errorf("find coordinator: %w", kerr.ErrorForCode(code))
	}
	s.vc.Splits.SetCoordinator(m.Cluster, group, resp.NodeID)
	return resp.NodeID, nil
}

// atOnce calls f for each of the parts, several at the same time.
func atOnce[T any](parts []T, f func(*T)) {
	if len(parts) == 1 {
		f(&parts[0])
		return
	}
	var wg sync.WaitGroup
	room := make(chan struct{}, awayAtOnce)
	for i := range parts {
		room <- struct{}{}
		wg.Go(func() {
			f(&parts[i])
			<-room
		})
	}
	wg.Wait()
}

// fence asks home whether the client may commit offsets of the group, which it has
// there under req.Group: 0, or what to answer.
func (s *Session) fence(ctx context.Context, t *view.Table, req *kmsg.OffsetCommitRequest) int16 {
	a := t.Anchor()
	if a == nil || req.Version >= 10 && a.ID == [16]byte{} {
		return s.fenceAlive(ctx, t, req)
	}
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic, rt.TopicID = a.Name, a.ID
	rp := kmsg.NewOffsetCommitRequestTopicPartition()
	rp.Metadata = kmsg.StringPtr("")
	rt.Partitions = append(rt.Partitions, rp)
	anchored := *req
	anchored.Topics = []kmsg.OffsetCommitRequestTopic{rt}
	up, code := s.coordinator(ctx, t, t.Home, upstream.Control, 0, &anchored)
	if code != 0 {
		return code
	}
	if passed, code := fenced(up.(*kmsg.OffsetCommitResponse)); passed || code != 0 {
		return code
	}
	return s.fenceAlive(ctx, t, req) // the anchor is gone, or is not the gateway's
}

// fenced reports what home's answer to a commit says of the group: passed, a code for
// all of it, or neither, when nothing of the request has reached the coordinator.
func fenced(answer *kmsg.OffsetCommitResponse) (passed bool, code int16) {
	for _, rt := range answer.Topics {
		for _, rp := range rt.Partitions {
			switch rp.ErrorCode {
			case 0, kerr.OffsetMetadataTooLarge.Code:
				passed = true
			case kerr.UnknownTopicOrPartition.Code, kerr.UnknownTopicID.Code, kerr.TopicAuthorizationFailed.Code:
			default:
				return false, rp.ErrorCode
			}
		}
	}
	return passed, 0
}

// fenceAlive is fence where home has no anchor, as well as can be told without a
// commit. A member's heartbeat says whether the member and its generation are the
// group's. REBALANCE_IN_PROGRESS is no refusal: that is said while members join, when
// a commit is still accepted. While they wait for the leader it says nothing, when a
// commit is not accepted yet: one then is of a member of the new generation, whose
// partitions nobody has been given yet.
func (s *Session) fenceAlive(ctx context.Context, t *view.Table, req *kmsg.OffsetCommitRequest) int16 {
	if req.Generation < 0 {
		g, code := s.describeAtHome(ctx, t, req.Group)
		switch {
		case code != 0:
			return code
		case len(g.Members) > 0:
			return kerr.UnknownMemberID.Code
		}
		return 0
	}
	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Version = 4
	beat.Group, beat.Generation, beat.MemberID, beat.InstanceID = req.Group, req.Generation, req.MemberID, req.InstanceID
	up, code := s.coordinator(ctx, t, t.Home, upstream.Control, 0, beat)
	if code == 0 {
		code = up.(*kmsg.HeartbeatResponse).ErrorCode
	}
	if code == kerr.RebalanceInProgress.Code {
		return 0
	}
	return code
}

// describeAtHome describes a group by its name on home. A group that is not there has
// no members.
func (s *Session) describeAtHome(ctx context.Context, t *view.Table, group string) (g kmsg.DescribeGroupsResponseGroup, code int16) {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Version, req.Groups = 4, []string{group}
	up, code := s.coordinator(ctx, t, t.Home, upstream.Control, 0, req)
	if code != 0 {
		return g, code
	}
	groups := up.(*kmsg.DescribeGroupsResponse).Groups
	if len(groups) != 1 || groups[0].Group != group {
		return g, s.refused(refusal.AnswerInvalid.Errorf("%d groups described of one", len(groups)))
	}
	g = groups[0]
	if g.ErrorCode == kerr.GroupIDNotFound.Code {
		g.ErrorCode = 0
	}
	return g, g.ErrorCode
}

// awayCommit is what of a commit goes to one cluster other than home.
type awayCommit struct {
	member *view.Member
	topics []*view.Topic // in step with what is asked
	asked  []kmsg.OffsetCommitRequestTopic
	resp   *kmsg.OffsetCommitResponse
	err    error
}

// add puts a topic where it belongs.
func addAway(parts []awayCommit, topic *view.Topic, rt kmsg.OffsetCommitRequestTopic) []awayCommit {
	i := slices.IndexFunc(parts, func(p awayCommit) bool { return p.member == topic.Member })
	if i < 0 {
		i = len(parts)
		parts = append(parts, awayCommit{member: topic.Member})
	}
	rt.Topic, rt.TopicID = topic.Physical.Name, topic.Physical.ID
	parts[i].topics = append(parts[i].topics, topic)
	parts[i].asked = append(parts[i].asked, rt)
	return parts
}

// commitAway commits the parts of a request that home has accepted from the client.
// What they became is in resp and err.
func (s *Session) commitAway(ctx context.Context, req *kmsg.OffsetCommitRequest, parts []awayCommit) {
	atOnce(parts, func(p *awayCommit) {
		simple := kmsg.NewPtrOffsetCommitRequest()
		simple.Version = 4 // the last with a retention
		if v := p.member.Cluster.Versions(); v != nil {
			simple.Version = max(simple.Version, v.Ranges[simple.Key()].Min)
		}
		simple.Group, simple.Generation, simple.Topics = req.Group, -1, p.asked
		simple.RetentionTimeMillis = int64(awayRetention / time.Millisecond)
		if req.Version <= 4 && req.RetentionTimeMillis >= 0 {
			simple.RetentionTimeMillis = req.RetentionTimeMillis
		}
		resp, err := s.away(ctx, p.member, req.Group, simple, func(r kmsg.Response) int16 {
			for _, rt := range r.(*kmsg.OffsetCommitResponse).Topics {
				for _, rp := range rt.Partitions {
					if groupCode(rp.ErrorCode) {
						return rp.ErrorCode
					}
				}
			}
			return 0
		})
		if p.err = err; err == nil {
			p.resp = resp.(*kmsg.OffsetCommitResponse)
		}
	})
}

// answer lists a part in the client's names. A partition that is not in the cluster's
// answer was not committed.
func (p *awayCommit) answer(all int16) (out []kmsg.OffsetCommitResponseTopic) {
	for i, rt := range p.asked {
		ot := kmsg.NewOffsetCommitResponseTopic()
		ot.Topic, ot.TopicID = p.topics[i].Name, p.topics[i].ID
		for _, rp := range rt.Partitions {
			op := kmsg.NewOffsetCommitResponseTopicPartition()
			op.Partition, op.ErrorCode = rp.Partition, all
			if all == 0 {
				op.ErrorCode = p.code(rt, rp.Partition)
			}
			ot.Partitions = append(ot.Partitions, op)
		}
		out = append(out, ot)
	}
	return out
}

func (p *awayCommit) code(asked kmsg.OffsetCommitRequestTopic, partition int32) int16 {
	for _, rt := range p.resp.Topics {
		if rt.Topic != asked.Topic && (p.resp.Version < 10 || rt.TopicID != asked.TopicID) {
			continue
		}
		for _, rp := range rt.Partitions {
			if rp.Partition == partition {
				return rp.ErrorCode
			}
		}
	}
	return kerr.CoordinatorLoadInProgress.Code
}

// awayFetch is a look at the offsets of one group on one cluster other than home.
type awayFetch struct {
	index  int // of the group in the request
	member *view.Member
	group  string        // its name on the clusters
	all    bool          // of all topics
	topics []*view.Topic // else of these, in step with what is asked
	asked  []kmsg.OffsetFetchRequestTopic
	resp   *kmsg.OffsetFetchResponse // nil: the cluster has no such group
	err    error
}

func addFetch(parts []awayFetch, index int, group string, topic *view.Topic, partitions []int32) []awayFetch {
	i := slices.IndexFunc(parts, func(p awayFetch) bool { return p.index == index && p.member == topic.Member })
	if i < 0 {
		i = len(parts)
		parts = append(parts, awayFetch{index: index, member: topic.Member, group: group})
	}
	rt := kmsg.NewOffsetFetchRequestTopic()
	rt.Topic, rt.Partitions = topic.Physical.Name, partitions
	parts[i].topics = append(parts[i].topics, topic)
	parts[i].asked = append(parts[i].asked, rt)
	return parts
}

// fetchSplit adds to the answer of each group what other clusters than home have of
// it. What cannot be had is answered with a code that makes clients ask again: from
// version 7 each partition has one, before only the group.
func (s *Session) fetchSplit(ctx context.Context, t *view.Table, req *kmsg.OffsetFetchRequest, groups []kmsg.OffsetFetchResponseGroup, parts []awayFetch) {
	parts = slices.DeleteFunc(parts, func(p awayFetch) bool { return groups[p.index].ErrorCode != 0 })
	if len(parts) == 0 {
		return
	}
	s.fetchAway(ctx, req.RequireStable, parts)
	for i := range parts {
		p := &parts[i]
		g := &groups[p.index]
		var code int16
		if p.err != nil && req.Version < 7 {
			g.ErrorCode, g.Topics = s.refused(p.err, "group", g.Group), nil
		} else if p.err != nil {
			code = s.refused(refusal.OffsetsUnreadable.With(p.err), "group", g.Group)
		}
		if g.ErrorCode == 0 {
			g.Topics = append(g.Topics, s.fetchedAway(t, p, code)...)
		}
	}
}

// fetchAway looks. What came of it is in resp and err.
func (s *Session) fetchAway(ctx context.Context, requireStable bool, parts []awayFetch) {
	atOnce(parts, func(p *awayFetch) {
		req := kmsg.NewPtrOffsetFetchRequest()
		req.Version = 7 // the last of one group, and the first with RequireStable
		req.Group, req.RequireStable = p.group, requireStable
		if !p.all {
			req.Topics = p.asked
		}
		resp, err := s.away(ctx, p.member, p.group, req, func(r kmsg.Response) int16 {
			return exceptNone(r.(*kmsg.OffsetFetchResponse).ErrorCode)
		})
		if p.err = err; err == nil {
			if r := resp.(*kmsg.OffsetFetchResponse); r.ErrorCode == 0 {
				p.resp = r
			}
		}
	})
}

// fetchedAway lists what was looked for, in the client's names. There is an answer for
// each partition that was asked for: a client takes one that is not mentioned for one
// without a committed offset, and may begin anew.
func (s *Session) fetchedAway(t *view.Table, p *awayFetch, code int16) (out []kmsg.OffsetFetchResponseGroupTopic) {
	add := func(topic *view.Topic, partitions []int32) {
		ot := kmsg.NewOffsetFetchResponseGroupTopic()
		ot.Topic, ot.TopicID = topic.Name, topic.ID
		for _, partition := range partitions {
			op := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			op.Partition, op.Offset, op.LeaderEpoch, op.Metadata, op.ErrorCode = partition, -1, -1, kmsg.StringPtr(""), code
			if found := p.found(topic.Physical.Name, partition); found != nil {
				op.Offset, op.LeaderEpoch, op.Metadata, op.ErrorCode = found.Offset, found.LeaderEpoch, found.Metadata, found.ErrorCode
			} else if p.resp != nil && !p.all {
				op.ErrorCode = kerr.UnstableOffsetCommit.Code
			}
			ot.Partitions = append(ot.Partitions, op)
		}
		if len(partitions) > 0 {
			out = append(out, ot)
		}
	}
	switch {
	case !p.all:
		for i, rt := range p.asked {
			add(p.topics[i], rt.Partitions)
		}
	case p.err != nil:
		for _, topic := range t.Topics {
			if topic.Split == nil || topic.Member != p.member || !s.mayTopic(t, kmsg.ACLOperationDescribe, topic.Name) {
				continue
			}
			partitions := make([]int32, len(topic.Partitions))
			for i := range partitions {
				partitions[i] = int32(i)
			}
			add(topic, partitions)
		}
	case p.resp != nil:
		for _, rt := range p.resp.Topics {
			topic := p.member.Topic(rt.Topic)
			if topic == nil || topic.Split == nil || !s.mayTopic(t, kmsg.ACLOperationDescribe, topic.Name) {
				continue
			}
			var partitions []int32
			for _, rp := range rt.Partitions {
				partitions = append(partitions, rp.Partition)
			}
			add(topic, partitions)
		}
	}
	return out
}

func (p *awayFetch) found(topic string, partition int32) *kmsg.OffsetFetchResponseTopicPartition {
	if p.resp == nil {
		return nil
	}
	for i := range p.resp.Topics {
		rt := &p.resp.Topics[i]
		if rt.Topic != topic {
			continue
		}
		for k := range rt.Partitions {
			if rt.Partitions[k].Partition == partition {
				return &rt.Partitions[k]
			}
		}
	}
	return nil
}

// subscribes reports whether a member of a group on home reads the topic, or may: in
// a group that is being balanced nobody is told who does.
func subscribes(t *view.Table, g *kmsg.DescribeGroupsResponseGroup, topic *view.Topic) bool {
	name := t.GroupName(topic.Name)
	for _, m := range g.Members {
		var meta kmsg.ConsumerMemberMetadata
		if g.State != "Stable" || meta.ReadFrom(m.ProtocolMetadata) != nil || slices.Contains(meta.Topics, name) {
			return true
		}
	}
	return false
}

// awayDelete is what of a deletion of offsets goes to one cluster other than home.
type awayDelete struct {
	member *view.Member
	topics []*view.Topic // in step with what is asked
	asked  []kmsg.OffsetDeleteRequestTopic
	resp   *kmsg.OffsetDeleteResponse
	err    error
}

func addDelete(parts []awayDelete, topic *view.Topic, rt kmsg.OffsetDeleteRequestTopic) []awayDelete {
	i := slices.IndexFunc(parts, func(p awayDelete) bool { return p.member == topic.Member })
	if i < 0 {
		i = len(parts)
		parts = append(parts, awayDelete{member: topic.Member})
	}
	rt.Topic = topic.Physical.Name
	parts[i].topics = append(parts[i].topics, topic)
	parts[i].asked = append(parts[i].asked, rt)
	return parts
}

// deleteOffsetsAway completes resp, home's answer for its own part of a request.
func (s *Session) deleteOffsetsAway(ctx context.Context, t *view.Table, forward *kmsg.OffsetDeleteRequest, resp *kmsg.OffsetDeleteResponse, parts []awayDelete) *kmsg.OffsetDeleteResponse {
	g, code := s.describeAtHome(ctx, t, forward.Group)
	if code == 0 && len(g.Members) > 0 && g.ProtocolType != consumerProtocol {
		code = kerr.NonEmptyGroup.Code
	}
	if code != 0 {
		resp.ErrorCode, resp.Topics = code, nil
		return resp
	}
	had := resp.ErrorCode == 0 && (len(forward.Topics) > 0 || g.State != "Dead")
	add := func(name string, asked []kmsg.OffsetDeleteRequestTopicPartition, code func(int32) int16) {
		ot := kmsg.NewOffsetDeleteResponseTopic()
		ot.Topic = name
		for _, rp := range asked {
			op := kmsg.NewOffsetDeleteResponseTopicPartition()
			op.Partition, op.ErrorCode = rp.Partition, code(rp.Partition)
			ot.Partitions = append(ot.Partitions, op)
		}
		resp.Topics = append(resp.Topics, ot)
	}
	same := func(code int16) func(int32) int16 { return func(int32) int16 { return code } }
	if resp.ErrorCode != 0 { // there is no such group on home: nothing of it is left there
		for _, rt := range forward.Topics {
			add(t.Grouped(rt.Topic).Name, rt.Partitions, same(0))
		}
	}
	for i := range parts {
		p := &parts[i]
		topics, asked := p.topics, p.asked
		p.topics, p.asked = nil, nil
		for k, topic := range topics {
			if subscribes(t, &g, topic) {
				add(topic.Name, asked[k].Partitions, same(kerr.GroupSubscribedToTopic.Code))
				continue
			}
			p.topics, p.asked = append(p.topics, topic), append(p.asked, asked[k])
		}
	}
	parts = slices.DeleteFunc(parts, func(p awayDelete) bool { return len(p.asked) == 0 })
	atOnce(parts, func(p *awayDelete) {
		req := kmsg.NewPtrOffsetDeleteRequest()
		req.Group, req.Topics = forward.Group, p.asked
		resp, err := s.away(ctx, p.member, forward.Group, req, func(r kmsg.Response) int16 {
			return exceptNone(r.(*kmsg.OffsetDeleteResponse).ErrorCode)
		})
		if p.err = err; err == nil {
			p.resp = resp.(*kmsg.OffsetDeleteResponse)
		}
	})
	for i := range parts {
		p := &parts[i]
		var all int16
		if p.err != nil {
			all = s.refused(p.err, "group", forward.Group)
		}
		had = had || p.err != nil || p.resp.ErrorCode == 0
		for k, topic := range p.topics {
			add(topic.Name, p.asked[k].Partitions, func(partition int32) int16 {
				if p.err != nil || p.resp.ErrorCode != 0 { // lost, or no such group there
					return all
				}
				return p.code(topic.Physical.Name, partition)
			})
		}
	}
	resp.ErrorCode = 0
	if !had {
		resp.ErrorCode, resp.Topics = kerr.GroupIDNotFound.Code, nil
	}
	return resp
}

func (p *awayDelete) code(topic string, partition int32) int16 {
	for _, rt := range p.resp.Topics {
		if rt.Topic != topic {
			continue
		}
		for _, rp := range rt.Partitions {
			if rp.Partition == partition {
				return rp.ErrorCode
			}
		}
	}
	return kerr.CoordinatorLoadInProgress.Code
}

// exceptNone is a code but for that of a group that is not there.
func exceptNone(code int16) int16 {
	if code == kerr.GroupIDNotFound.Code {
		return 0
	}
	return code
}

// forgetAway deletes a group that home has deleted, or has never had, from the
// clusters that keep offsets of their own, and reports whether one of them had it.
func (s *Session) forgetAway(ctx context.Context, t *view.Table, group string) (had bool, err error) {
	type part struct {
		member *view.Member
		had    bool
		err    error
	}
	var parts []part
	for _, m := range t.SplitMembers() {
		parts = append(parts, part{member: m})
	}
	atOnce(parts, func(p *part) {
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Version, req.Groups = 2, []string{group}
		codeOf := func(r kmsg.Response) int16 {
			if groups := r.(*kmsg.DeleteGroupsResponse).Groups; len(groups) == 1 {
				return groups[0].ErrorCode
			}
			return kerr.UnknownServerError.Code
		}
		resp, err := s.away(ctx, p.member, group, req, func(r kmsg.Response) int16 {
			return exceptNone(codeOf(r))
		})
		p.err = err
		p.had = err == nil && codeOf(resp) == 0
	})
	for _, p := range parts {
		had = had || p.had
		if err == nil {
			err = p.err
		}
	}
	return had, err
}
