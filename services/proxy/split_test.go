package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

const splitResources = `
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: east}, spec: {bootstrap: [%s]}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: split, tenant: acme}, spec: {type: standard, host: split, home: main, clusters: [main, east], stubs: {disabled: true}, authentication: {anonymous: {}}}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: far, tenant: acme}, spec: {cluster: east, topic: {name: shop.remote}, access: read-write}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: far, virtualCluster: split}, spec: {cluster: east, topic: shop.remote}}
`

// split is a gateway over two clusters that makes no stubs: the virtual cluster has a
// topic of its own, near, on main, and the alias far on east, which keeps its offsets.
type split struct {
	*gateway
	east *kfake.Cluster
	down atomic.Bool // east hangs up on whoever asks
}

// splitBubble runs f in a bubble, with and without an anchor topic on home.
func splitBubble(t *testing.T, f func(t *testing.T, g *split)) {
	t.Helper()
	for name, anchor := range map[string]bool{"an anchor": true, "no anchor": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := new(kfake.VirtualNetwork)
				east, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(2, "shop.remote", "secret"), kfake.ListenFn(network.Listen), kfake.Ports(39092, 39093))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(east.Close)
				seeded := []kfake.Opt{kfake.SeedTopics(2, "split.near")}
				if anchor {
					seeded = append(seeded, kfake.SeedTopics(1, "split.__tg.anchor"))
				}
				g := &split{gateway: startOn(t, network, seeded...), east: east}
				east.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
					east.KeepControl()
					if g.down.Load() {
						return nil, errors.New("down"), true
					}
					return nil, nil, false
				})
				g.write(t, "split.yaml", fmt.Sprintf(splitResources, strings.Join(quoted(east.ListenAddrs()), ",")))
				time.Sleep(5 * time.Second)
				f(t, g)
			})
		})
	}
}

// upstreamOffsets is what a cluster itself has of a group, by topic and partition.
func upstreamOffsets(t *testing.T, g *split, c *kfake.Cluster, group string) map[string]int64 {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.Dialer(g.dial))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	all, err := kadm.NewClient(cl).FetchOffsets(t.Context(), group)
	found := make(map[string]int64)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return found
	}
	if err != nil {
		t.Fatal(err)
	}
	all.Each(func(o kadm.OffsetResponse) {
		if !strings.HasSuffix(o.Topic, ".__tg.anchor") {
			found[fmt.Sprint(o.Topic, "/", o.Partition)] = o.At
		}
	})
	return found
}

// want compares what is committed with what should be.
func wantOffsets(t *testing.T, what string, got, want map[string]int64) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// member of a group that is asked by hand.
type splitMember struct {
	split *split
	*kgo.Client
	group      string
	node       int
	generation int32
	id         string
}

// ask sends a request to the group's coordinator, once.
func (m *splitMember) ask(t *testing.T, req kmsg.Request) kmsg.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	resp, err := m.Broker(m.node).Request(ctx, req)
	if err != nil {
		t.Fatalf("%s: %v", kmsg.NameForKey(req.Key()), err)
	}
	return resp
}

// versioned is a client that names topics, and asks for offsets at this version.
func (g *split) versioned(t *testing.T, fetch int16) *kgo.Client {
	t.Helper()
	v := kversion.Stable()
	for key, version := range map[kmsg.Key]int16{kmsg.JoinGroup: 3, kmsg.SyncGroup: 3, kmsg.LeaveGroup: 1, kmsg.OffsetCommit: 8, kmsg.OffsetFetch: fetch} {
		v.SetMaxKeyVersion(int16(key), version)
	}
	return g.client(t, "split.gw.test", kgo.MaxVersions(v))
}

func (g *split) splitMember(t *testing.T, group string) *splitMember {
	t.Helper()
	m := &splitMember{split: g, Client: g.versioned(t, 7), group: group, generation: -1}
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.CoordinatorKey = group
	found, err := find.RequestWith(t.Context(), m.Client)
	if err != nil || len(found.Coordinators) != 1 || found.Coordinators[0].ErrorCode != 0 {
		t.Fatalf("find coordinator: %+v, %v", found, err)
	}
	m.node = int(found.Coordinators[0].NodeID)
	return m
}

// join makes m the one member of its group, subscribed to these topics.
func (m *splitMember) join(t *testing.T, topics ...string) {
	t.Helper()
	meta := kmsg.NewConsumerMemberMetadata()
	meta.Topics = topics
	join := kmsg.NewPtrJoinGroupRequest()
	join.Group, join.ProtocolType, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = m.group, "consumer", 60_000, 60_000
	join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: meta.AppendTo(nil)}}
	joined := m.ask(t, join).(*kmsg.JoinGroupResponse)
	if joined.ErrorCode != 0 {
		t.Fatalf("join: %v", kerr.ErrorForCode(joined.ErrorCode))
	}
	var back kmsg.ConsumerMemberMetadata
	if err := back.ReadFrom(joined.Members[0].ProtocolMetadata); err != nil || !slices.Equal(back.Topics, topics) {
		t.Errorf("the leader is told of topics %q, %v, want %q", back.Topics, err, topics)
	}
	m.generation, m.id = joined.Generation, joined.MemberID
	assignment := kmsg.NewConsumerMemberAssignment()
	for _, topic := range topics {
		assignment.Topics = append(assignment.Topics, kmsg.ConsumerMemberAssignmentTopic{Topic: topic, Partitions: []int32{0, 1}})
	}
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.Generation, sync.MemberID = m.group, m.generation, m.id
	sync.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: m.id, MemberAssignment: assignment.AppendTo(nil)}}
	synced := m.ask(t, sync).(*kmsg.SyncGroupResponse)
	var mine kmsg.ConsumerMemberAssignment
	if err := mine.ReadFrom(synced.MemberAssignment); synced.ErrorCode != 0 || err != nil || len(mine.Topics) != len(topics) || mine.Topics[0].Topic != topics[0] {
		t.Fatalf("sync: %v, %v, %+v", kerr.ErrorForCode(synced.ErrorCode), err, mine)
	}
	groups, err := kadm.NewClient(m.Client).DescribeGroups(t.Context(), m.group)
	if err != nil || groups.Error() != nil {
		t.Fatalf("describe: %v, %v", err, groups.Error())
	}
	described := groups[m.group].Members[0]
	joinedAs, _ := described.Join.AsConsumer()
	assigned, _ := described.Assigned.AsConsumer()
	if joinedAs == nil || assigned == nil || !slices.Equal(joinedAs.Topics, topics) || len(assigned.Topics) != len(topics) || assigned.Topics[0].Topic != topics[0] {
		t.Errorf("the member is described with %+v and %+v, want topics %q", joinedAs, assigned, topics)
	}
}

func (m *splitMember) leave(t *testing.T) {
	t.Helper()
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group, leave.MemberID = m.group, m.id
	if resp := m.ask(t, leave).(*kmsg.LeaveGroupResponse); resp.ErrorCode != 0 {
		t.Fatalf("leave: %v", kerr.ErrorForCode(resp.ErrorCode))
	}
	m.generation, m.id = -1, ""
}

// commit commits an offset of partition 0 of each topic and returns the codes.
func (m *splitMember) commit(t *testing.T, at int64, topics ...string) map[string]int16 {
	t.Helper()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation, req.MemberID = m.group, m.generation, m.id
	for _, topic := range topics {
		rt, rp := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
		rt.Topic, rp.Offset, rp.Metadata = topic, at, kmsg.StringPtr("m")
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
	}
	codes := make(map[string]int16)
	for _, rt := range m.ask(t, req).(*kmsg.OffsetCommitResponse).Topics {
		for _, rp := range rt.Partitions {
			codes[rt.Topic] = rp.ErrorCode
		}
	}
	return codes
}

// fetch asks for the offsets of partition 0 of each topic, nil for all of all topics.
// An error is a negative number of a hundred and its code.
func (m *splitMember) fetch(t *testing.T, version int16, topics ...string) map[string]int64 {
	t.Helper()
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = m.group
	for _, topic := range topics {
		rt := kmsg.NewOffsetFetchRequestTopic()
		rt.Topic, rt.Partitions = topic, []int32{0}
		req.Topics = append(req.Topics, rt)
	}
	offsets := make(map[string]int64)
	asking := *m
	asking.Client = m.split.versioned(t, version)
	resp := asking.ask(t, req).(*kmsg.OffsetFetchResponse)
	asking.Close()
	if resp.ErrorCode != 0 {
		offsets["group"] = -100 - int64(resp.ErrorCode)
	}
	for _, rt := range resp.Topics {
		for _, rp := range rt.Partitions {
			offsets[fmt.Sprint(rt.Topic, "/", rp.Partition)] = rp.Offset
			if rp.ErrorCode != 0 {
				offsets[fmt.Sprint(rt.Topic, "/", rp.Partition)] = -100 - int64(rp.ErrorCode)
			}
		}
	}
	return offsets
}

// Consumers of both clusters' topics commit, are started again, and go on exactly
// where they were. Each cluster has the offsets of its own topics.
func TestOffsetsStayWithTheirClusterWithoutStubs(t *testing.T) {
	splitBubble(t, func(t *testing.T, g *split) {
		producer := g.client(t, "split.gw.test", kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DisableIdempotentWrite())
		next := 0
		produce := func() {
			t.Helper()
			for range 10 {
				for _, topic := range []string{"near", "far"} {
					r := &kgo.Record{Topic: topic, Partition: int32(next % 2), Value: fmt.Append(nil, next)}
					if err := producer.ProduceSync(t.Context(), r).FirstErr(); err != nil {
						t.Fatal(err)
					}
				}
				next++
			}
		}
		for round := range 3 {
			produce()
			cl := g.client(t, "split.gw.test", kgo.ConsumeTopics("near", "far"), kgo.ConsumerGroup("both"),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
			seen := make(map[string]int)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			for n := 0; n < 20; {
				fs := cl.PollFetches(ctx)
				if err := fs.Err(); err != nil {
					t.Fatal(err)
				}
				fs.EachRecord(func(r *kgo.Record) { seen[r.Topic+" "+string(r.Value)]++; n++ })
			}
			cancel()
			for i := 10 * round; i < 10*round+10; i++ {
				for _, topic := range []string{"near ", "far "} {
					if seen[topic+fmt.Sprint(i)] != 1 {
						t.Errorf("round %d: record %d of %sread %d times", round, i, topic, seen[topic+fmt.Sprint(i)])
					}
				}
			}
			commit(t, cl)
			cl.Close()
		}
		wantOffsets(t, "home", upstreamOffsets(t, g, g.upstream, "split.both"), map[string]int64{"split.near/0": 15, "split.near/1": 15})
		wantOffsets(t, "the other cluster", upstreamOffsets(t, g, g.east, "split.both"), map[string]int64{"shop.remote/0": 15, "shop.remote/1": 15})
		m := g.splitMember(t, "both")
		wantOffsets(t, "all", m.fetch(t, 7), map[string]int64{"near/0": 15, "near/1": 15, "far/0": 15, "far/1": 15})

		groups, err := kadm.NewClient(producer).ListGroups(t.Context())
		if err != nil || !slices.Equal(groups.Groups(), []string{"both"}) {
			t.Errorf("groups %v, %v, want the one", groups.Groups(), err)
		}
	})
}

// Without stubs home cannot assign the partitions of the other cluster, so groups of
// the consumer protocol are not offered.
func TestConsumerProtocolIsNotOfferedWithoutStubs(t *testing.T) {
	splitBubble(t, func(t *testing.T, g *split) {
		cl := g.client(t, "split.gw.test")
		resp, err := kmsg.NewPtrApiVersionsRequest().RequestWith(t.Context(), cl)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range resp.ApiKeys {
			if key := kmsg.Key(k.ApiKey); key == kmsg.ConsumerGroupHeartbeat || key == kmsg.ConsumerGroupDescribe {
				t.Errorf("%s is offered", key.Name())
			}
		}
		for _, f := range resp.FinalizedFeatures {
			if f.Name == "group.version" {
				t.Errorf("group.version is finalized at %d", f.MaxVersionLevel)
			}
		}
	})
}

// Home says who may commit, also when there is nothing for it in a commit. The other
// cluster hears nothing of a commit that home refuses.
func TestHomeFencesCommitsToTheOtherCluster(t *testing.T) {
	splitBubble(t, func(t *testing.T, g *split) {
		m := g.splitMember(t, "fenced")
		zombie := *m
		want := func(what string, codes map[string]int16, code int16, near, far int64) {
			t.Helper()
			for topic, got := range codes {
				if got != code {
					t.Errorf("%s: %s is answered %d, want %d", what, topic, got, code)
				}
			}
			home := make(map[string]int64)
			if near >= 0 {
				home["split.near/0"] = near
			}
			wantOffsets(t, what+": home", upstreamOffsets(t, g, g.upstream, "split.fenced"), home)
			wantOffsets(t, what+": the other cluster", upstreamOffsets(t, g, g.east, "split.fenced"), map[string]int64{"shop.remote/0": far})
		}
		want("nobody has joined", m.commit(t, 1, "far"), 0, -1, 1)
		want("nobody has joined, both", m.commit(t, 2, "far", "near"), 0, 2, 2)
		m.join(t, "far", "near")
		want("a member", m.commit(t, 3, "far"), 0, 2, 3)
		want("a member, both", m.commit(t, 4, "near", "far"), 0, 4, 4)
		for _, topics := range [][]string{{"far"}, {"near", "far"}} {
			what := fmt.Sprint(topics)
			zombie.generation, zombie.id = -1, ""
			want("no member "+what, zombie.commit(t, 9, topics...), kerr.UnknownMemberID.Code, 4, 4)
			zombie.generation, zombie.id = m.generation, "somebody"
			want("another member "+what, zombie.commit(t, 9, topics...), kerr.UnknownMemberID.Code, 4, 4)
			zombie.generation, zombie.id = m.generation-1, m.id
			want("an earlier generation "+what, zombie.commit(t, 9, topics...), kerr.IllegalGeneration.Code, 4, 4)
		}
		// Home knows nothing of a topic that has just been deleted there: who commits it
		// beside the other's is still judged.
		unknown := kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.UnknownTopicOrPartition, Count: 1, When: func(r kmsg.Request) bool {
			return r.(*kmsg.OffsetCommitRequest).Topics[0].Topic == "split.near"
		}}
		g.upstream.Fault(unknown)
		codes := zombie.commit(t, 9, "near", "far")
		if codes["near"] != kerr.UnknownTopicOrPartition.Code || codes["far"] != kerr.IllegalGeneration.Code {
			t.Errorf("with a topic unknown on home, an earlier generation is answered %v", codes)
		}
		g.upstream.Fault(unknown)
		codes = m.commit(t, 5, "near", "far")
		if codes["near"] != kerr.UnknownTopicOrPartition.Code || codes["far"] != 0 {
			t.Errorf("with a topic unknown on home, a member is answered %v", codes)
		}
		want("in the end", nil, 0, 4, 5)
		m.leave(t)
		want("when it has left", m.commit(t, 6, "far"), 0, 4, 6)
		zombie.generation, zombie.id = 1, "somebody"
		for topic, code := range zombie.commit(t, 9, "far") {
			if code == 0 {
				t.Errorf("a member of a group that has none has committed %s", topic)
			}
		}
		want("still", nil, 0, 4, 6)
	})
}

// Members may commit while the others join.
func TestCommitsToTheOtherClusterWhileMembersJoin(t *testing.T) {
	splitBubble(t, func(t *testing.T, g *split) {
		m := g.splitMember(t, "joining")
		m.join(t, "far")
		other := g.splitMember(t, "joining")
		var wg sync.WaitGroup
		wg.Go(func() { other.joinAfter(t) })
		synctest.Wait()
		if codes := m.commit(t, 3, "far"); codes["far"] != 0 {
			t.Errorf("while another joins, a commit is answered %v", codes)
		}
		m.leave(t)
		wg.Wait()
		wantOffsets(t, "the other cluster", upstreamOffsets(t, g, g.east, "split.joining"), map[string]int64{"shop.remote/0": 3})
	})
}

// joinAfter joins a group that has to be balanced for it.
func (m *splitMember) joinAfter(t *testing.T) {
	meta := kmsg.NewConsumerMemberMetadata()
	meta.Topics = []string{"far"}
	join := kmsg.NewPtrJoinGroupRequest()
	join.Group, join.ProtocolType, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = m.group, "consumer", 60_000, 60_000
	join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: meta.AppendTo(nil)}}
	if resp, err := m.Broker(m.node).Request(t.Context(), join); err != nil || resp.(*kmsg.JoinGroupResponse).ErrorCode != 0 {
		t.Errorf("join: %+v, %v", resp, err)
	}
}

// While the other cluster is down its offsets can neither be committed nor read, and
// clients are told to try again; home's can. What was committed is still there after.
func TestOffsetsWhileTheOtherClusterIsDown(t *testing.T) {
	splitBubble(t, func(t *testing.T, g *split) {
		m := g.splitMember(t, "lasting")
		m.join(t, "near", "far")
		both := func(what string, codes map[string]int16, far int16) {
			t.Helper()
			if codes["near"] != 0 || codes["far"] != far || len(codes) != 2 {
				t.Errorf("%s: answered %v, want near 0 and far %d", what, codes, far)
			}
		}
		const loading, unstable = -114, -188
		both("up", m.commit(t, 1, "near", "far"), 0)
		g.down.Store(true)
		for i := range int64(5) {
			began := time.Now()
			both("down", m.commit(t, 2+i, "near", "far"), kerr.CoordinatorLoadInProgress.Code)
			wantOffsets(t, "down", m.fetch(t, 7, "near", "far"), map[string]int64{"near/0": 2 + i, "far/0": unstable})
			wantOffsets(t, "down, all", m.fetch(t, 7), map[string]int64{"near/0": 2 + i, "far/0": unstable, "far/1": unstable})
			wantOffsets(t, "down, before partitions had retriable codes", m.fetch(t, 5, "near", "far"), map[string]int64{"group": loading})
			wantOffsets(t, "down, home's alone", m.fetch(t, 5, "near"), map[string]int64{"near/0": 2 + i})
			if took := time.Since(began); i > 0 && took > 100*time.Millisecond {
				t.Errorf("five requests take %v when the cluster is known to be down", took)
			}
			time.Sleep(5 * time.Second)
		}
		g.down.Store(false)
		time.Sleep(10 * time.Second)
		wantOffsets(t, "back", m.fetch(t, 7, "near", "far"), map[string]int64{"near/0": 6, "far/0": 1})
		both("back", m.commit(t, 10, "near", "far"), 0)
		wantOffsets(t, "in the end", m.fetch(t, 5), map[string]int64{"near/0": 10, "far/0": 10})
	})
}

// The other cluster's coordinator moves, or is not ready.
func TestTheOtherClustersCoordinatorMoves(t *testing.T) {
	splitBubble(t, func(t *testing.T, g *split) {
		m := g.splitMember(t, "moving")
		if codes := m.commit(t, 1, "near", "far"); codes["far"] != 0 {
			t.Fatalf("commit: %v", codes)
		}
		east := func(err *kerr.Error, count int, top bool, keys ...kmsg.Key) (heal func()) {
			h := g.east.Fault(kfake.Fault{Keys: keys, Err: err, Count: count, TopLevel: top})
			return h.Remove
		}
		const loading = 14
		for name, fault := range map[string]*kerr.Error{"moved": kerr.NotCoordinator, "loading": kerr.CoordinatorLoadInProgress, "gone": kerr.CoordinatorNotAvailable} {
			heal := east(fault, 1, false, kmsg.OffsetCommit)
			if codes := m.commit(t, 2, "far"); codes["far"] != 0 {
				t.Errorf("%s: commit: %v", name, codes)
			}
			heal()
			heal = east(fault, 1, true, kmsg.OffsetFetch)
			wantOffsets(t, name, m.fetch(t, 7, "far"), map[string]int64{"far/0": 2})
			heal()
			heal = east(fault, -1, false, kmsg.OffsetCommit)
			if codes := m.commit(t, 3, "far"); codes["far"] != loading {
				t.Errorf("%s for longer: commit: %v", name, codes)
			}
			heal()
			heal = east(kerr.CoordinatorNotAvailable, -1, false, kmsg.FindCoordinator)
			if codes := m.commit(t, 3, "far"); codes["far"] != loading {
				t.Errorf("%s, and nobody knows where: commit: %v", name, codes)
			}
			heal()
			if codes := m.commit(t, 2, "far"); codes["far"] != 0 {
				t.Errorf("%s: commit after: %v", name, codes)
			}
		}
		// Somebody who is not a member of home's group has joined there: what the
		// clients are told does not end them.
		heal := east(kerr.UnknownMemberID, -1, false, kmsg.OffsetCommit)
		if codes := m.commit(t, 4, "far"); codes["far"] != loading {
			t.Errorf("commit: %v", codes)
		}
		heal()
		if lines := g.log.with("TG-SPAN-011", "cluster east"); len(lines) != 1 {
			t.Errorf("said %q about it", lines)
		}
		// What is said of a partition is the partition's.
		heal = east(kerr.UnknownTopicOrPartition, 1, false, kmsg.OffsetCommit)
		if codes := m.commit(t, 4, "far"); codes["far"] != kerr.UnknownTopicOrPartition.Code {
			t.Errorf("commit: %v", codes)
		}
		heal()
	})
}

// Where home takes an anchor but no stubs, because offsets are kept elsewhere already,
// the gateway makes one.
func TestTheGatewayMakesAnAnchor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(kfake.VirtualNetwork)
		east, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(2, "shop.remote"), kfake.ListenFn(network.Listen), kfake.Ports(39092, 39093))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(east.Close)
		g := &split{gateway: startOn(t, network), east: east}
		cl, err := kgo.NewClient(kgo.SeedBrokers(east.ListenAddrs()...), kgo.Dialer(g.dial))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		kept := kadm.Offsets{"shop.remote": {0: {Topic: "shop.remote", At: 7, LeaderEpoch: -1}}}
		if err := kadm.NewClient(cl).CommitAllOffsets(t.Context(), "split.kept", kept); err != nil {
			t.Fatal(err)
		}
		all := strings.Replace(splitResources, ", stubs: {disabled: true}", "", 1)
		g.write(t, "split.yaml", fmt.Sprintf(all, strings.Join(quoted(east.ListenAddrs()), ",")))
		time.Sleep(10 * time.Second)
		m := g.splitMember(t, "kept")
		m.join(t, "far")
		wantOffsets(t, "what was kept", m.fetch(t, 7), map[string]int64{"far/0": 7})
		if codes := m.commit(t, 8, "far"); codes["far"] != 0 {
			t.Errorf("commit: %v", codes)
		}
		wantOffsets(t, "the other cluster", upstreamOffsets(t, g, g.east, "split.kept"), map[string]int64{"shop.remote/0": 8})
		home, err := kgo.NewClient(kgo.SeedBrokers(g.upstream.ListenAddrs()...), kgo.Dialer(g.dial))
		if err != nil {
			t.Fatal(err)
		}
		defer home.Close()
		topics, err := kadm.NewClient(home).ListTopics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var own []string
		for _, name := range topics.Names() {
			if strings.HasPrefix(name, "split.") {
				own = append(own, name)
			}
		}
		if !slices.Equal(own, []string{"split.__tg.anchor"}) {
			t.Errorf("home has %q, want the anchor alone", own)
		}
	})
}

// An alias of a topic of home that stands for another one has no stub either, and needs
// none: home has the topic.
func TestOffsetsOfHomesTopicsStayThereWithoutStubs(t *testing.T) {
	splitBubble(t, func(t *testing.T, g *split) {
		const moved = `---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: moved, tenant: acme}, spec: {cluster: main, topic: {name: shop.orders.v2}, access: read}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: moved, virtualCluster: split}, spec: {cluster: main, topic: shop.orders.v2, identity: AAAAAAAAAAAAAAAAAAAAAg}}
`
		g.write(t, "moved.yaml", moved)
		time.Sleep(5 * time.Second)
		m := g.splitMember(t, "stays")
		m.join(t, "far", "moved")
		if codes := m.commit(t, 9, "far", "moved"); codes["moved"] != 0 || codes["far"] != 0 || len(codes) != 2 {
			t.Errorf("commit: %v", codes)
		}
		wantOffsets(t, "both", m.fetch(t, 7), map[string]int64{"far/0": 9, "moved/0": 9})
		wantOffsets(t, "home", upstreamOffsets(t, g, g.upstream, "split.stays"), map[string]int64{"shop.orders.v2/0": 9})
	})
}

// Groups and offsets are deleted on both clusters, and on the other only when home
// says that nobody uses them.
func TestGroupsAreDeletedOnBothClusters(t *testing.T) {
	splitBubble(t, func(t *testing.T, g *split) {
		m := g.splitMember(t, "doomed")
		deleteGroup := func() int16 {
			t.Helper()
			req := kmsg.NewPtrDeleteGroupsRequest()
			req.Groups = []string{"doomed"}
			groups := m.ask(t, req).(*kmsg.DeleteGroupsResponse).Groups
			if len(groups) != 1 || groups[0].Group != "doomed" {
				t.Fatalf("groups %+v", groups)
			}
			return groups[0].ErrorCode
		}
		deleteOffsets := func(topics ...string) map[string]int16 {
			t.Helper()
			req := kmsg.NewPtrOffsetDeleteRequest()
			req.Group = "doomed"
			for _, topic := range topics {
				rt := kmsg.NewOffsetDeleteRequestTopic()
				rt.Topic = topic
				rt.Partitions = []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}}
				req.Topics = append(req.Topics, rt)
			}
			resp := m.ask(t, req).(*kmsg.OffsetDeleteResponse)
			codes := make(map[string]int16)
			if resp.ErrorCode != 0 {
				codes["group"] = resp.ErrorCode
			}
			for _, rt := range resp.Topics {
				codes[rt.Topic] = rt.Partitions[0].ErrorCode
			}
			return codes
		}
		wantCodes := func(what string, got, want map[string]int16) {
			t.Helper()
			if !maps.Equal(got, want) {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		far := func(at int64) map[string]int64 { return map[string]int64{"shop.remote/0": at} }
		none := map[string]int64{}
		onEast := func() map[string]int64 { return upstreamOffsets(t, g, g.east, "split.doomed") }

		if code := deleteGroup(); code != kerr.GroupIDNotFound.Code {
			t.Errorf("a group that is not there: %d", code)
		}
		wantCodes("offsets of a group that is not there", deleteOffsets("near", "far"), map[string]int16{"group": kerr.GroupIDNotFound.Code})
		m.join(t, "far", "near")
		m.commit(t, 5, "near", "far")
		if code := deleteGroup(); code != kerr.NonEmptyGroup.Code {
			t.Errorf("a group with members: %d", code)
		}
		subscribed := kerr.GroupSubscribedToTopic.Code
		wantCodes("offsets that a member uses", deleteOffsets("far"), map[string]int16{"far": subscribed})
		wantCodes("both that a member uses", deleteOffsets("near", "far"), map[string]int16{"near": subscribed, "far": subscribed})
		wantOffsets(t, "with members", onEast(), far(5))
		m.leave(t)

		m.join(t, "near")
		wantCodes("offsets that no member uses", deleteOffsets("near", "far"), map[string]int16{"near": subscribed, "far": 0})
		wantOffsets(t, "deleted offsets", onEast(), none)
		m.commit(t, 5, "near", "far")
		m.leave(t)
		wantCodes("offsets without members", deleteOffsets("near", "far"), map[string]int16{"near": 0, "far": 0})
		wantOffsets(t, "deleted offsets", onEast(), none)

		m.commit(t, 6, "near", "far")
		g.down.Store(true)
		time.Sleep(5 * time.Second)
		wantCodes("while it is down", deleteOffsets("near", "far"), map[string]int16{"near": 0, "far": kerr.CoordinatorLoadInProgress.Code})
		if code := deleteGroup(); code != kerr.CoordinatorLoadInProgress.Code {
			t.Errorf("while the other cluster is down: %d", code)
		}
		g.down.Store(false)
		time.Sleep(10 * time.Second)
		wantOffsets(t, "not deleted yet", onEast(), far(6))
		if code := deleteGroup(); code != 0 {
			t.Errorf("a group that home has no more: %d", code)
		}
		wantOffsets(t, "deleted", onEast(), none)
		if code := deleteGroup(); code != kerr.GroupIDNotFound.Code {
			t.Errorf("again: %d", code)
		}

		m.commit(t, 7, "far")
		wantCodes("offsets of which home has none", deleteOffsets("near", "far"), map[string]int16{"near": 0, "far": 0})
		m.commit(t, 7, "far")
		if code := deleteGroup(); code != 0 {
			t.Errorf("a group of the other cluster: %d", code)
		}
		wantOffsets(t, "deleted", onEast(), none)
	})
}
