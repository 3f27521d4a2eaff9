package conformance

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/differential"
)

// shareProbes are of share groups (KIP-932).
func shareProbes() []probe {
	text := func(fields ...string) (rules []differential.Rule) {
		for _, f := range fields {
			rules = append(rules, differential.Rule{Field: f, As: differential.Text})
		}
		return rules
	}
	id := func(field string) differential.Rule {
		return differential.Rule{Field: field, As: differential.TopicID}
	}
	return []probe{
		{key: int16(kmsg.ShareGroupHeartbeat), run: probeShareGroupHeartbeat, rules: append(text("ErrorMessage"),
			id("Assignment.TopicPartitions[].TopicID"))},
		{key: int16(kmsg.ShareGroupDescribe), run: probeShareGroupDescribe, rules: append(text("Groups[].ErrorMessage"),
			id("Groups[].Members[].Assignment.TopicPartitions[].TopicID"))},
		{key: int16(kmsg.ShareFetch), run: probeShareFetch, rules: append(text(
			"ErrorMessage", "Topics[].Partitions[].ErrorMessage", "Topics[].Partitions[].AcknowledgeErrorMessage"), id("Topics[].TopicID"))},
		{key: int16(kmsg.ShareAcknowledge), run: probeShareAcknowledge, rules: append(text(
			"ErrorMessage", "Topics[].Partitions[].ErrorMessage"), id("Topics[].TopicID"))},
		{key: int16(kmsg.DescribeShareGroupOffsets), run: probeDescribeShareGroupOffsets, rules: append(text(
			"Groups[].ErrorMessage", "Groups[].Topics[].Partitions[].ErrorMessage"), id("Groups[].Topics[].TopicID"))},
		{key: int16(kmsg.AlterShareGroupOffsets), run: probeAlterShareGroupOffsets, rules: append(text(
			"ErrorMessage", "Topics[].Partitions[].ErrorMessage"), id("Topics[].TopicID"))},
		{key: int16(kmsg.DeleteShareGroupOffsets), run: probeDeleteShareGroupOffsets, rules: append(text(
			"ErrorMessage", "Topics[].ErrorMessage"), id("Topics[].TopicID"))},
	}
}

const sharer = "AAAAAAAAAAAAAAAAAAAAAw" // a member id as clients make them

func shareBeatOf(group, member string, epoch int32, topics ...string) *kmsg.ShareGroupHeartbeatRequest {
	req := kmsg.NewPtrShareGroupHeartbeatRequest()
	req.GroupID, req.MemberID, req.MemberEpoch, req.SubscribedTopicNames = group, member, epoch, topics
	return req
}

// sharing joins a share group that reads from the beginning, and beats until the
// member has its partitions.
func (x *trial) sharing(group, topic string) (epoch int32) {
	x.t.Helper()
	config := kmsg.NewPtrIncrementalAlterConfigsRequest()
	rr := kmsg.NewIncrementalAlterConfigsRequestResource()
	rr.ResourceType, rr.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	rc := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	rc.Name, rc.Op, rc.Value = "share.auto.offset.reset", kmsg.IncrementalAlterConfigOpSet, kmsg.StringPtr("earliest")
	rr.Configs = append(rr.Configs, rc)
	config.Resources = append(config.Resources, rr)
	if err := kerr.ErrorForCode(x.do(config).(*kmsg.IncrementalAlterConfigsResponse).Resources[0].ErrorCode); err != nil {
		x.t.Fatalf("configure %s: %v", group, err)
	}
	resp := x.do(shareBeatOf(group, sharer, 0, topic)).(*kmsg.ShareGroupHeartbeatResponse)
	x.until("member of share group "+group+" has an assignment", func() bool {
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			x.t.Fatalf("heartbeat in %s: %v", group, err)
		}
		if resp.Assignment != nil && len(resp.Assignment.TopicPartitions) > 0 {
			return true
		}
		resp = x.do(shareBeatOf(group, sharer, resp.MemberEpoch)).(*kmsg.ShareGroupHeartbeatResponse)
		return false
	})
	return resp.MemberEpoch
}

// unshare makes a share group empty.
func (x *trial) unshare(group string) {
	x.do(shareBeatOf(group, sharer, -1))
}

func probeShareGroupHeartbeat(x *trial) {
	group := x.vName("shares")
	resp := x.ask("the first member", shareBeatOf(group, sharer, 0, records))
	if resp == nil {
		return
	}
	epoch := resp.(*kmsg.ShareGroupHeartbeatResponse).MemberEpoch
	x.ask("a stranger", shareBeatOf(group, "AAAAAAAAAAAAAAAAAAAABA", 3))
	x.ask("an epoch to come", shareBeatOf(group, sharer, epoch+9))
	x.ask("a missing topic", shareBeatOf(x.vName("hopes"), sharer, 0, missing))
	x.ask("the group with an empty name", shareBeatOf("", sharer, 0, records))
	x.ask("a member without an id", shareBeatOf(x.vName("idle"), "", 0, records))
	x.ask("a first heartbeat without topics", shareBeatOf(x.vName("idle"), sharer, 0))
	x.ask("the member leaves", shareBeatOf(group, sharer, -1))
	classic := x.vName("classic")
	x.stable(classic)
	x.ask("a group of the classic protocol", shareBeatOf(classic, sharer, 0, records))
}

func probeShareGroupDescribe(x *trial) {
	group, classic := x.vName("shares"), x.vName("classic")
	x.sharing(group, records)
	x.stable(classic)
	of := func(groups ...string) *kmsg.ShareGroupDescribeRequest {
		req := kmsg.NewPtrShareGroupDescribeRequest()
		req.GroupIDs = groups
		return req
	}
	x.ask("a group", of(group))
	x.ask("a group that is not there, and a classic one", of(x.vName("nobody"), classic))
	x.ask("the group with an empty name", of(""))
	operations := of(group, x.vName("nobody"))
	operations.IncludeAuthorizedOperations = true
	x.ask("what may be done", operations)
	x.unshare(group)
}

// shareFetchOf opens a share session.
func (x *trial) shareFetchOf(group, topic string) *kmsg.ShareFetchRequest {
	req := kmsg.NewPtrShareFetchRequest()
	req.GroupID, req.MemberID = kmsg.StringPtr(group), kmsg.StringPtr(sharer)
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.MaxRecords, req.BatchSize = 10_000, 1, 1<<20, 100, 100
	rt := kmsg.NewShareFetchRequestTopic()
	rt.TopicID = x.idOr(topic)
	rt.Partitions = append(rt.Partitions, kmsg.NewShareFetchRequestTopicPartition())
	rt.Partitions[0].PartitionMaxBytes = 1 << 20
	req.Topics = append(req.Topics, rt)
	return req
}

func probeShareFetch(x *trial) {
	group := x.vName("shares")
	x.sharing(group, records)
	x.ask("records", x.shareFetchOf(group, records))
	again := x.shareFetchOf(group, records)
	again.ShareSessionEpoch, again.MaxWaitMillis = 1, 0
	accept := kmsg.NewShareFetchRequestTopicPartitionAcknowledgementBatch()
	accept.FirstOffset, accept.LastOffset, accept.AcknowledgeTypes = 0, 2, []int8{1}
	again.Topics[0].Partitions[0].AcknowledgementBatches = append(again.Topics[0].Partitions[0].AcknowledgementBatches, accept)
	x.ask("more, and some were accepted", again)
	wrong := x.shareFetchOf(group, records)
	wrong.ShareSessionEpoch, wrong.MaxWaitMillis = 9, 0
	x.ask("a wrong epoch of the session", wrong)
	end := x.shareFetchOf(group, records)
	end.ShareSessionEpoch, end.MaxWaitMillis, end.Topics = -1, 0, nil
	x.ask("the session ends", end)
	unknown := x.shareFetchOf(group, records)
	unknown.ShareSessionEpoch, unknown.MaxWaitMillis = 4, 0
	x.ask("a session that has ended", unknown)
	x.unshare(group)
}

func probeShareAcknowledge(x *trial) {
	group := x.vName("shares")
	x.sharing(group, records)
	fetched := x.do(x.shareFetchOf(group, records)).(*kmsg.ShareFetchResponse)
	if len(fetched.Topics) != 1 || len(fetched.Topics[0].Partitions[0].AcquiredRecords) == 0 {
		x.t.Fatalf("nothing is shared: %+v", fetched)
	}
	of := func(epoch int32, topic string, first, last int64, kind int8) *kmsg.ShareAcknowledgeRequest {
		req := kmsg.NewPtrShareAcknowledgeRequest()
		req.GroupID, req.MemberID, req.ShareSessionEpoch = kmsg.StringPtr(group), kmsg.StringPtr(sharer), epoch
		rt := kmsg.NewShareAcknowledgeRequestTopic()
		rt.TopicID = x.idOr(topic)
		rp := kmsg.NewShareAcknowledgeRequestTopicPartition()
		b := kmsg.NewShareAcknowledgeRequestTopicPartitionAcknowledgementBatch()
		b.FirstOffset, b.LastOffset, b.AcknowledgeTypes = first, last, []int8{kind}
		rp.AcknowledgementBatches = append(rp.AcknowledgementBatches, b)
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		return req
	}
	x.ask("accepted", of(1, records, 0, 2, 1))
	x.ask("accepted again", of(2, records, 0, 2, 1))
	x.ask("released", of(3, records, 3, 3, 2))
	x.ask("behind the end", of(4, records, 50, 60, 1))
	x.ask("a missing topic", of(5, missing, 0, 0, 1))
	x.ask("a wrong epoch of the session", of(40, records, 0, 0, 1))
	end := of(-1, records, 0, 0, 1)
	end.Topics = nil
	x.ask("the session ends", end)
	x.ask("a session that has ended", of(7, records, 0, 0, 1))
	x.unshare(group)
}

// settled makes a share group with offsets and no member.
func (x *trial) settled(group string) {
	x.t.Helper()
	x.sharing(group, records)
	x.unshare(group)
	x.alterShareOffset(group, 2)
}

func alterShareOf(group, topic string, partition int32, offset int64) *kmsg.AlterShareGroupOffsetsRequest {
	req := kmsg.NewPtrAlterShareGroupOffsetsRequest()
	req.GroupID = group
	rt := kmsg.NewAlterShareGroupOffsetsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewAlterShareGroupOffsetsRequestTopicPartition()
	rp.Partition, rp.StartOffset = partition, offset
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

func (x *trial) alterShareOffset(group string, offset int64) {
	x.t.Helper()
	resp := x.do(alterShareOf(group, records, 0, offset)).(*kmsg.AlterShareGroupOffsetsResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		x.t.Fatalf("alter offsets of %s: %v", group, err)
	}
}

func probeDescribeShareGroupOffsets(x *trial) {
	group := x.vName("shares")
	x.settled(group)
	of := func(group string, topics ...string) *kmsg.DescribeShareGroupOffsetsRequest {
		req := kmsg.NewPtrDescribeShareGroupOffsetsRequest()
		g := kmsg.NewDescribeShareGroupOffsetsRequestGroup()
		g.GroupID = group
		for _, topic := range topics {
			rt := kmsg.NewDescribeShareGroupOffsetsRequestGroupTopic()
			rt.Topic, rt.Partitions = topic, []int32{0}
			g.Topics = append(g.Topics, rt)
		}
		req.Groups = append(req.Groups, g)
		return req
	}
	x.ask("a topic", of(group, records))
	x.ask("all topics", of(group))
	x.ask("a topic that the group does not read, and a missing one", of(group, offsets, missing))
	x.ask("a group that is not there", of(x.vName("nobody"), records))
	x.ask("the group with an empty name", of("", records))
}

func probeAlterShareGroupOffsets(x *trial) {
	group, busy := x.vName("shares"), x.vName("busy")
	x.settled(group)
	x.ask("an offset", alterShareOf(group, records, 0, 4))
	x.ask("a missing topic", alterShareOf(group, missing, 0, 4))
	x.ask("a missing partition", alterShareOf(group, records, 9, 4))
	x.ask("a group that is not there", alterShareOf(x.vName("nobody"), records, 0, 4))
	x.ask("the group with an empty name", alterShareOf("", records, 0, 4))
	x.sharing(busy, records)
	x.ask("a group with a member", alterShareOf(busy, records, 0, 4))
	x.unshare(busy)
}

func probeDeleteShareGroupOffsets(x *trial) {
	group := x.vName("shares")
	x.settled(group)
	of := func(group string, topics ...string) *kmsg.DeleteShareGroupOffsetsRequest {
		req := kmsg.NewPtrDeleteShareGroupOffsetsRequest()
		req.GroupID = group
		for _, topic := range topics {
			rt := kmsg.NewDeleteShareGroupOffsetsRequestTopic()
			rt.Topic = topic
			req.Topics = append(req.Topics, rt)
		}
		return req
	}
	x.ask("a missing topic", of(group, missing))
	x.ask("a topic", of(group, records))
	x.ask("the topic again", of(group, records))
	x.ask("a group that is not there", of(x.vName("nobody"), records))
	x.ask("the group with an empty name", of("", records))
}
