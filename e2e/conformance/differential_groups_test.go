package conformance

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/differential"
)

// groupProbes are of the keys that go to group coordinators.
func groupProbes() []probe {
	member := func(fields ...string) (rules []differential.Rule) {
		for _, f := range fields {
			rules = append(rules, differential.Rule{Field: f, As: differential.Set})
		}
		return rules
	}
	return []probe{
		{key: int16(kmsg.OffsetCommit), run: probeOffsetCommit, rules: []differential.Rule{
			{Field: "Topics[].TopicID", As: differential.TopicID},
		}},
		{key: int16(kmsg.OffsetFetch), run: probeOffsetFetch, rules: []differential.Rule{
			{Field: "Groups[].Topics[].TopicID", As: differential.TopicID},
		}},
		{key: int16(kmsg.FindCoordinator), run: probeFindCoordinator, rules: []differential.Rule{
			{Field: "ErrorMessage", As: differential.Text},
			{Field: "Coordinators[].ErrorMessage", As: differential.Text},
			{Field: "Host", As: differential.Host},
			{Field: "Port", As: differential.Set},
			{Field: "Coordinators[].Host", As: differential.Host},
			{Field: "Coordinators[].Port", As: differential.Set},
		}},
		{key: int16(kmsg.JoinGroup), run: probeJoinGroup, rules: member("MemberID", "LeaderID", "Members[].MemberID")},
		{key: int16(kmsg.Heartbeat), run: probeHeartbeat},
		{key: int16(kmsg.LeaveGroup), run: probeLeaveGroup, rules: member("Members[].MemberID")},
		{key: int16(kmsg.SyncGroup), run: probeSyncGroup},
		{key: int16(kmsg.DescribeGroups), run: probeDescribeGroups, rules: append(member("Groups[].Members[].MemberID"),
			differential.Rule{Field: "Groups[].ErrorMessage", As: differential.Text})},
		{key: int16(kmsg.ListGroups), run: probeListGroups, rules: []differential.Rule{{Field: "Groups[]", As: differential.Own}}},
		{key: int16(kmsg.DeleteGroups), run: probeDeleteGroups},
		{key: int16(kmsg.OffsetDelete), run: probeOffsetDelete},
		{key: int16(kmsg.ConsumerGroupHeartbeat), run: probeConsumerGroupHeartbeat, rules: append(member("MemberID"),
			differential.Rule{Field: "ErrorMessage", As: differential.Text},
			differential.Rule{Field: "Assignment.Topics[].TopicID", As: differential.TopicID})},
		{key: int16(kmsg.ConsumerGroupDescribe), run: probeConsumerGroupDescribe, rules: append(member("Groups[].Members[].MemberID"),
			differential.Rule{Field: "Groups[].ErrorMessage", As: differential.Text},
			differential.Rule{Field: "Groups[].Members[].Assignment.TopicPartitions[].TopicID", As: differential.TopicID},
			differential.Rule{Field: "Groups[].Members[].TargetAssignment.TopicPartitions[].TopicID", As: differential.TopicID})},
	}
}

// sessionMillis keeps members alive for as long as a trial may take.
const sessionMillis = 600_000

// subscribed is a consumer's JoinGroup metadata.
func subscribed(topics ...string) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	m.Version, m.Topics, m.UserData = 1, topics, []byte("user data")
	owned := kmsg.NewConsumerMemberMetadataOwnedPartition()
	owned.Topic, owned.Partitions = topics[0], []int32{0}
	m.OwnedPartitions = append(m.OwnedPartitions, owned)
	return m.AppendTo(nil)
}

// assigned is a consumer's SyncGroup assignment.
func assigned(topic string, partitions ...int32) []byte {
	a := kmsg.NewConsumerMemberAssignment()
	at := kmsg.NewConsumerMemberAssignmentTopic()
	at.Topic, at.Partitions = topic, partitions
	a.Topics = append(a.Topics, at)
	return a.AppendTo(nil)
}

func joinOf(group, member string) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.MemberID, req.ProtocolType = group, member, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = sessionMillis, 10_000
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name, p.Metadata = "range", subscribed(offsets)
	req.Protocols = append(req.Protocols, p)
	return req
}

func syncOf(group, member string, generation int32) *kmsg.SyncGroupRequest {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Group, req.MemberID, req.Generation = group, member, generation
	req.ProtocolType, req.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
	a := kmsg.NewSyncGroupRequestGroupAssignment()
	a.MemberID, a.MemberAssignment = member, assigned(offsets, 0, 1)
	req.GroupAssignment = append(req.GroupAssignment, a)
	return req
}

// join makes the first member of a group, with assignments still to come.
func (x *trial) join(group string) (member string, generation int32) {
	x.t.Helper()
	resp := x.do(joinOf(group, "")).(*kmsg.JoinGroupResponse)
	if resp.ErrorCode == kerr.MemberIDRequired.Code {
		resp = x.do(joinOf(group, resp.MemberID)).(*kmsg.JoinGroupResponse)
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		x.t.Fatalf("join %s: %v", group, err)
	}
	return resp.MemberID, resp.Generation
}

// stable makes a group with one member that has its assignment.
func (x *trial) stable(group string) (member string, generation int32) {
	x.t.Helper()
	member, generation = x.join(group)
	resp := x.do(syncOf(group, member, generation)).(*kmsg.SyncGroupResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		x.t.Fatalf("sync %s: %v", group, err)
	}
	return member, generation
}

// committed makes an empty group with one offset.
func (x *trial) committed(group string) {
	x.t.Helper()
	resp := x.do(x.commitOf(group, offsets, 0, 3)).(*kmsg.OffsetCommitResponse)
	if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
		x.t.Fatalf("commit in %s: %v", group, err)
	}
}

func (x *trial) commitOf(group, topic string, partition int32, offset int64) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = group, -1
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic, rt.TopicID = topic, x.idOr(topic)
	rp := kmsg.NewOffsetCommitRequestTopicPartition()
	rp.Partition, rp.Offset, rp.Metadata = partition, offset, kmsg.StringPtr("a note")
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

func probeOffsetCommit(x *trial) {
	group := x.vName("commits")
	x.ask("an offset", x.commitOf(group, offsets, 0, 3))
	x.ask("a missing topic", x.commitOf(group, missing, 0, 3))
	x.ask("a missing partition", x.commitOf(group, offsets, 9, 3))
	both := x.commitOf(group, offsets, 1, 4)
	both.Topics = append(both.Topics, x.commitOf(group, missing, 0, 3).Topics...)
	x.ask("two topics, one of them missing", both)
	long := x.commitOf(group, offsets, 0, 3)
	note := make([]byte, 5000)
	for i := range note {
		note[i] = 'x'
	}
	long.Topics[0].Partitions[0].Metadata = kmsg.StringPtr(string(note))
	x.ask("too long a note", long)
	nobody := x.commitOf(x.vName("nobody"), offsets, 0, 3)
	nobody.Generation, nobody.MemberID = 4, "nobody"
	x.ask("a generation of a group that is not there", nobody)
	x.ask("the group with an empty name", x.commitOf("", offsets, 0, 3))
	nothing := x.commitOf(group, offsets, 0, 3)
	nothing.Topics = nil
	x.ask("nothing", nothing)

	lively := x.vName("lively")
	member, generation := x.stable(lively)
	of := func(member string, generation int32) *kmsg.OffsetCommitRequest {
		req := x.commitOf(lively, offsets, 1, 8)
		req.MemberID, req.Generation = member, generation
		return req
	}
	x.ask("of a member", of(member, generation))
	x.ask("of a member's old generation", of(member, generation-1))
	x.ask("of a stranger", of("stranger", generation))
	x.ask("of nobody, while there are members", of("", -1))
}

func (x *trial) offsetFetchOf(group string, topics ...string) *kmsg.OffsetFetchRequest {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = group
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	for _, topic := range topics {
		rt := kmsg.NewOffsetFetchRequestTopic()
		rt.Topic, rt.Partitions = topic, []int32{0, 1}
		req.Topics = append(req.Topics, rt)
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		gt.Topic, gt.TopicID, gt.Partitions = topic, x.idOr(topic), []int32{0, 1}
		g.Topics = append(g.Topics, gt)
	}
	req.Groups = append(req.Groups, g)
	return req
}

func probeOffsetFetch(x *trial) {
	group := x.vName("reads")
	x.committed(group)
	x.ask("a topic", x.offsetFetchOf(group, offsets))
	x.ask("two topics, one of them missing", x.offsetFetchOf(group, offsets, missing))
	x.ask("a group that is not there", x.offsetFetchOf(x.vName("nobody"), offsets))
	if x.version >= 2 {
		x.ask("all topics", x.offsetFetchOf(group))
		x.ask("all topics of a group that is not there", x.offsetFetchOf(x.vName("nobody")))
	}
	if x.version >= 7 {
		stable := x.offsetFetchOf(group, offsets)
		stable.RequireStable = true
		x.ask("stable offsets", stable)
	}
	if x.version >= 8 {
		other := x.vName("reads-too")
		x.committed(other)
		several := x.offsetFetchOf(group, offsets)
		several.Groups = append(several.Groups, x.offsetFetchOf(other).Groups...)
		several.Groups = append(several.Groups, x.offsetFetchOf(x.vName("nobody"), offsets).Groups...)
		x.ask("several groups", several)
	}
	if x.version >= 9 {
		stranger := x.offsetFetchOf(group, offsets)
		stranger.Groups[0].MemberID, stranger.Groups[0].MemberEpoch = kmsg.StringPtr("stranger"), 3
		x.ask("of a stranger", stranger)
	}
}

func probeFindCoordinator(x *trial) {
	of := func(kind int8, keys ...string) *kmsg.FindCoordinatorRequest {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorType, req.CoordinatorKey, req.CoordinatorKeys = kind, keys[0], keys
		return req
	}
	x.ask("of a group", of(0, own+"group"))
	x.ask("of the group with an empty name", of(0, ""))
	if x.version >= 1 {
		x.ask("of a transactional id", of(1, own+"transaction"))
		x.ask("of a kind that does not exist", of(9, own+"thing"))
		x.ask("of a share group's partition", of(2, own+"group:AAAAAAAAAAAAAAAAAAAAAQ:0"))
	}
	if x.version >= 4 {
		x.ask("of two groups", of(0, own+"group", own+"other"))
		none := of(0, "")
		none.CoordinatorKeys = nil
		x.ask("of none", none)
	}
}

func probeJoinGroup(x *trial) {
	group := x.vName("joins")
	resp := x.ask("the first member", joinOf(group, ""))
	if resp == nil {
		return
	}
	if joined := resp.(*kmsg.JoinGroupResponse); joined.ErrorCode == kerr.MemberIDRequired.Code {
		x.ask("the first member with its id", joinOf(group, joined.MemberID))
	}
	x.ask("a stranger", joinOf(group, "stranger"))
	short := joinOf(group, "")
	short.SessionTimeoutMillis = 1
	x.ask("too short a session", short)
	x.ask("the group with an empty name", joinOf("", ""))
	odd := joinOf(x.vName("joins"), "")
	odd.ProtocolType = "connect"
	x.ask("another protocol type", odd)
	none := joinOf(x.vName("empty"), "")
	none.Protocols = nil
	x.ask("no protocols", none)
	connect := joinOf(x.vName("connect"), "")
	connect.ProtocolType = "connect"
	connect.Protocols[0].Metadata = []byte("anything")
	if resp := x.ask("a protocol of its own", connect); resp != nil {
		if joined := resp.(*kmsg.JoinGroupResponse); joined.ErrorCode == kerr.MemberIDRequired.Code {
			connect.MemberID = joined.MemberID
			x.ask("a protocol of its own, with the id", connect)
		}
	}
	if x.version >= 5 {
		static := joinOf(x.vName("static"), "")
		static.InstanceID = kmsg.StringPtr("instance")
		x.ask("a static member", static)
	}
}

func probeHeartbeat(x *trial) {
	group := x.vName("beats")
	member, generation := x.stable(group)
	of := func(group, member string, generation int32) *kmsg.HeartbeatRequest {
		req := kmsg.NewPtrHeartbeatRequest()
		req.Group, req.MemberID, req.Generation = group, member, generation
		return req
	}
	x.ask("of a member", of(group, member, generation))
	x.ask("of an old generation", of(group, member, generation-1))
	x.ask("of a stranger", of(group, "stranger", generation))
	x.ask("in a group that is not there", of(x.vName("nobody"), member, generation))
	x.ask("in the group with an empty name", of("", member, generation))
	if x.version >= 3 {
		static := of(group, member, generation)
		static.InstanceID = kmsg.StringPtr("instance")
		x.ask("of an instance that is not there", static)
	}
}

func probeLeaveGroup(x *trial) {
	group := x.vName("leaves")
	member, _ := x.stable(group)
	of := func(group string, members ...string) *kmsg.LeaveGroupRequest {
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Group, req.MemberID = group, members[0]
		for _, m := range members {
			rm := kmsg.NewLeaveGroupRequestMember()
			rm.MemberID = m
			req.Members = append(req.Members, rm)
		}
		return req
	}
	x.ask("a stranger", of(group, "stranger"))
	x.ask("a member and a stranger", of(group, member, "stranger"))
	x.ask("a member that has left", of(group, member))
	x.ask("a group that is not there", of(x.vName("nobody"), member))
	x.ask("the group with an empty name", of("", member))
}

func probeSyncGroup(x *trial) {
	group := x.vName("syncs")
	member, generation := x.join(group)
	x.ask("an old generation", syncOf(group, member, generation-1))
	x.ask("a stranger", syncOf(group, "stranger", generation))
	if x.version >= 5 {
		odd := syncOf(group, member, generation)
		odd.ProtocolType = kmsg.StringPtr("connect")
		x.ask("another protocol type", odd)
	}
	x.ask("the leader", syncOf(group, member, generation))
	again := syncOf(group, member, generation)
	again.GroupAssignment = nil
	x.ask("the leader again", again)
	x.ask("a group that is not there", syncOf(x.vName("nobody"), member, generation))
	x.ask("the group with an empty name", syncOf("", member, generation))
}

func probeDescribeGroups(x *trial) {
	stable, empty := x.vName("stable"), x.vName("empty")
	x.stable(stable)
	x.committed(empty)
	of := func(groups ...string) *kmsg.DescribeGroupsRequest {
		req := kmsg.NewPtrDescribeGroupsRequest()
		req.Groups = groups
		return req
	}
	x.ask("a group with a member", of(stable))
	x.ask("an empty group, and one that is not there", of(empty, x.vName("nobody")))
	x.ask("the group with an empty name", of(""))
	x.ask("none", of())
	if x.version >= 3 {
		operations := of(stable, x.vName("nobody"))
		operations.IncludeAuthorizedOperations = true
		x.ask("what may be done", operations)
	}
}

func probeListGroups(x *trial) {
	x.stable(x.vName("stable"))
	x.committed(x.vName("empty"))
	x.ask("all", kmsg.NewPtrListGroupsRequest())
	if x.version >= 4 {
		req := kmsg.NewPtrListGroupsRequest()
		req.StatesFilter = []string{"Stable"}
		x.ask("stable ones", req)
		odd := kmsg.NewPtrListGroupsRequest()
		odd.StatesFilter = []string{"Odd"}
		x.ask("of a state that does not exist", odd)
	}
	if x.version >= 5 {
		req := kmsg.NewPtrListGroupsRequest()
		req.TypesFilter = []string{"consumer"}
		x.ask("consumer groups", req)
		odd := kmsg.NewPtrListGroupsRequest()
		odd.TypesFilter = []string{"odd"}
		x.ask("of a type that does not exist", odd)
	}
}

func probeDeleteGroups(x *trial) {
	stable, empty := x.vName("stable"), x.vName("empty")
	x.stable(stable)
	x.committed(empty)
	of := func(groups ...string) *kmsg.DeleteGroupsRequest {
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Groups = groups
		return req
	}
	x.ask("an empty group", of(empty))
	x.ask("the same group again", of(empty))
	x.ask("a group with a member, and one that is not there", of(stable, x.vName("nobody")))
	x.ask("the group with an empty name", of(""))
	x.ask("none", of())
}

func probeOffsetDelete(x *trial) {
	stable, empty := x.vName("stable"), x.vName("empty")
	x.stable(stable)
	x.committed(empty)
	of := func(group string, topics ...string) *kmsg.OffsetDeleteRequest {
		req := kmsg.NewPtrOffsetDeleteRequest()
		req.Group = group
		for _, topic := range topics {
			rt := kmsg.NewOffsetDeleteRequestTopic()
			rt.Topic = topic
			rt.Partitions = append(rt.Partitions, kmsg.NewOffsetDeleteRequestTopicPartition())
			req.Topics = append(req.Topics, rt)
		}
		return req
	}
	x.ask("two topics, one of them missing", of(empty, offsets, missing))
	x.ask("a topic that the group reads", of(stable, offsets))
	x.ask("a group that is not there", of(x.vName("nobody"), offsets))
	x.ask("nothing of a group that is not there", of(x.vName("nobody")))
}

// beatOf is a heartbeat of the consumer protocol: the first when epoch is 0.
func beatOf(group, member string, epoch int32, topics ...string) *kmsg.ConsumerGroupHeartbeatRequest {
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Group, req.MemberID, req.MemberEpoch, req.RebalanceTimeoutMillis = group, member, epoch, -1
	if epoch == 0 {
		req.RebalanceTimeoutMillis = 60_000
		req.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	}
	req.SubscribedTopicNames = topics
	return req
}

// firstMember is a member id as clients make them; before version 1 the
// coordinator does.
func (x *trial) firstMember() string {
	if x.key == int16(kmsg.ConsumerGroupHeartbeat) && x.version == 0 {
		return ""
	}
	return "AAAAAAAAAAAAAAAAAAAAAg"
}

// assignedBy joins a group of the consumer protocol and beats until there is an
// assignment; it asks in the version that both sides have.
func (x *trial) assignedBy(group string, topics ...string) (member string, epoch int32) {
	x.t.Helper()
	resp := x.do(beatOf(group, "AAAAAAAAAAAAAAAAAAAAAg", 0, topics...)).(*kmsg.ConsumerGroupHeartbeatResponse)
	x.until("member of "+group+" has an assignment", func() bool {
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			x.t.Fatalf("heartbeat in %s: %v", group, err)
		}
		if resp.Assignment != nil && len(resp.Assignment.Topics) > 0 {
			return true
		}
		resp = x.do(beatOf(group, *resp.MemberID, resp.MemberEpoch)).(*kmsg.ConsumerGroupHeartbeatResponse)
		return false
	})
	return *resp.MemberID, resp.MemberEpoch
}

func probeConsumerGroupHeartbeat(x *trial) {
	group := x.vName("beats")
	resp := x.ask("the first member", beatOf(group, x.firstMember(), 0, offsets))
	if resp == nil {
		return
	}
	joined := resp.(*kmsg.ConsumerGroupHeartbeatResponse)
	if joined.MemberID == nil {
		return
	}
	x.ask("it goes on", beatOf(group, *joined.MemberID, joined.MemberEpoch))
	x.ask("a stranger", beatOf(group, "stranger", 3))
	x.ask("an epoch to come", beatOf(group, *joined.MemberID, joined.MemberEpoch+9))
	x.ask("a missing topic", beatOf(x.vName("hopes"), x.firstMember(), 0, missing))
	x.ask("the group with an empty name", beatOf("", x.firstMember(), 0, offsets))
	x.ask("a first heartbeat without topics", beatOf(x.vName("idle"), x.firstMember(), 0))
	odd := beatOf(x.vName("odd"), x.firstMember(), 0, offsets)
	odd.ServerAssignor = kmsg.StringPtr("odd")
	x.ask("an assignor that does not exist", odd)
	if x.version >= 1 {
		regex := beatOf(x.vName("regex"), x.firstMember(), 0)
		regex.SubscribedTopicRegex = kmsg.StringPtr("(")
		x.ask("a wrong regular expression", regex)
		x.ask("a first heartbeat without a member id", beatOf(x.vName("idle"), "", 0, offsets))
	}
	x.ask("the member leaves", beatOf(group, *joined.MemberID, -1))
	classic := x.vName("classic")
	x.stable(classic)
	x.ask("a group of the classic protocol", beatOf(classic, x.firstMember(), 0, offsets))
}

func probeConsumerGroupDescribe(x *trial) {
	group, classic := x.vName("group"), x.vName("classic")
	x.assignedBy(group, offsets)
	x.stable(classic)
	of := func(groups ...string) *kmsg.ConsumerGroupDescribeRequest {
		req := kmsg.NewPtrConsumerGroupDescribeRequest()
		req.Groups = groups
		return req
	}
	x.ask("a group", of(group))
	x.ask("a group that is not there, and a classic one", of(x.vName("nobody"), classic))
	x.ask("the group with an empty name", of(""))
	operations := of(group, x.vName("nobody"))
	operations.IncludeAuthorizedOperations = true
	x.ask("what may be done", operations)
	x.do(beatOf(group, "AAAAAAAAAAAAAAAAAAAAAg", -1))
	x.ask("a group that its member has left", of(group))
}
