package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// groupConfig sets a config of a group through the gateway.
func groupConfig(t *testing.T, cl *kgo.Client, group, key, value string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	rr := kmsg.NewIncrementalAlterConfigsRequestResource()
	rr.ResourceType, rr.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	c.Name, c.Value = key, kmsg.StringPtr(value)
	rr.Configs = append(rr.Configs, c)
	req.Resources = append(req.Resources, rr)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Resources[0].ResourceName != group {
		t.Errorf("config of group %q answered for %q", group, resp.Resources[0].ResourceName)
	}
	return kerr.ErrorForCode(resp.Resources[0].ErrorCode)
}

// shared is a topic of the virtual cluster "open" with n records, and a share group
// that reads it from the beginning.
func shared(t *testing.T, g *gateway, n int, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cl := g.client(t, "open.gw.test", append(opts, kgo.DefaultProduceTopic("work"))...)
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 3, 1, nil, "work"); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := cl.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(i))).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := groupConfig(t, cl, "workers", "share.auto.offset.reset", "earliest"); err != nil {
		t.Fatal(err)
	}
	return cl
}

func TestShareGroupConsumes(t *testing.T) {
	g := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	const n = 60
	admin := shared(t, g, n)
	consumer := g.client(t, "open.gw.test", kgo.ShareGroup("workers"), kgo.ConsumeTopics("work"))
	seen := make(map[string]int)
	for len(seen) < n {
		fs := consumer.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatalf("after %d records: %v", len(seen), err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			if r.Topic != "work" {
				t.Errorf("record of topic %q, want work", r.Topic)
			}
			seen[string(r.Value)]++
		})
	}

	describe := kmsg.NewPtrShareGroupDescribeRequest()
	describe.GroupIDs, describe.IncludeAuthorizedOperations = []string{"workers", "open.workers"}, true
	described, err := describe.RequestWith(ctx, admin)
	if err != nil {
		t.Fatal(err)
	}
	id := topicID(t, admin, "work")
	for _, dg := range described.Groups {
		if dg.GroupID == "open.workers" {
			if dg.ErrorCode != kerr.GroupIDNotFound.Code {
				t.Errorf("the group's name on home answers %v, want GROUP_ID_NOT_FOUND", kerr.ErrorForCode(dg.ErrorCode))
			}
			continue
		}
		if dg.ErrorCode != 0 || len(dg.Members) != 1 || dg.AuthorizedOperations == -2147483648 {
			t.Fatalf("group %+v, want one member and operations", dg)
		}
		m := dg.Members[0]
		if len(m.SubscribedTopicNames) != 1 || m.SubscribedTopicNames[0] != "work" || m.ClientHost != "" {
			t.Errorf("member subscribes to %v from %q, want work from nowhere", m.SubscribedTopicNames, m.ClientHost)
		}
		for _, tp := range m.Assignment.TopicPartitions {
			if tp.Topic != "work" || tp.TopicID != id {
				t.Errorf("assigned %s %x, want work %x", tp.Topic, tp.TopicID, id)
			}
		}
	}

	consumer.MarkAcks(kgo.AckAccept)
	if err := consumer.FlushAcks(ctx); err != nil {
		t.Fatal(err)
	}
	offsets := kmsg.NewPtrDescribeShareGroupOffsetsRequest()
	og := kmsg.NewDescribeShareGroupOffsetsRequestGroup()
	og.GroupID = "workers"
	offsets.Groups = append(offsets.Groups, og)
	got, err := offsets.RequestWith(ctx, admin)
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, rt := range got.Groups[0].Topics {
		if rt.Topic != "work" || rt.TopicID != id {
			t.Errorf("offsets of %s %x, want work %x", rt.Topic, rt.TopicID, id)
		}
		for _, p := range rt.Partitions {
			sum += p.StartOffset
		}
	}
	if got.Groups[0].GroupID != "workers" || sum != n {
		t.Errorf("group %s stands at %d records in all, want workers at %d", got.Groups[0].GroupID, sum, n)
	}
}

func topicID(t *testing.T, cl *kgo.Client, name string) [16]byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	topics, err := kadm.NewClient(cl).ListTopics(ctx, name)
	if err != nil || !topics.Has(name) {
		t.Fatalf("topic %s: %v", name, err)
	}
	return topics[name].ID
}

// What a client holds goes to others as soon as its connection ends: the broker
// ties it to the connection behind the gateway. Without that it would be locked
// for 30 s.
func TestDisconnectReleasesSharedRecords(t *testing.T) {
	g := start(t)
	const n = 10
	id := topicID(t, shared(t, g, n), "work")
	for p := range int32(3) {
		if err := g.upstream.MoveTopicPartition("open.work", p, 0); err != nil {
			t.Fatal(err)
		}
	}
	acquired := func(resp *kmsg.ShareFetchResponse) (records int64) {
		for _, rt := range resp.Topics {
			for _, p := range rt.Partitions {
				for _, a := range p.AcquiredRecords {
					records += a.LastOffset - a.FirstOffset + 1
				}
			}
		}
		return records
	}
	first := g.raw(t, "b0-open.gw.test")
	var held int64
	for epoch := int32(0); held < n; epoch++ {
		req := shareFetch("workers", epoch)
		if epoch == 0 {
			req = shareFetch("workers", epoch, id)
		}
		resp := first.ask(req).(*kmsg.ShareFetchResponse)
		if resp.ErrorCode != 0 {
			t.Fatalf("epoch %d: %v", epoch, kerr.ErrorForCode(resp.ErrorCode))
		}
		held += acquired(resp)
	}
	second := g.raw(t, "b0-open.gw.test")
	epoch := int32(-1)
	next := func() int64 {
		epoch++
		req := shareFetch("workers", epoch)
		if epoch == 0 {
			req = shareFetch("workers", epoch, id)
		}
		req.MemberID = kmsg.StringPtr("AAAAAAAAAAAAAAAAAAAAAg")
		return acquired(second.ask(req).(*kmsg.ShareFetchResponse))
	}
	if got := next(); got != 0 {
		t.Fatalf("another member gets %d records while the first holds all", got)
	}
	began := time.Now()
	first.Close()
	var again int64
	eventually(t, "the records to be released", func() bool {
		again += next()
		return again == n
	})
	if lock := 30 * time.Second; time.Since(began) > lock {
		t.Errorf("the records came after %v: the lock ran out", time.Since(began))
	}
}

// shareFetch is a raw ShareFetch of all partitions of topics.
func shareFetch(group string, epoch int32, topics ...[16]byte) *kmsg.ShareFetchRequest {
	req := kmsg.NewPtrShareFetchRequest()
	req.Version = 1
	req.GroupID, req.MemberID, req.ShareSessionEpoch = kmsg.StringPtr(group), kmsg.StringPtr("AAAAAAAAAAAAAAAAAAAAAQ"), epoch
	req.MaxWaitMillis, req.MaxBytes, req.MaxRecords, req.BatchSize = 100, 1<<20, 500, 500
	for _, id := range topics {
		rt := kmsg.NewShareFetchRequestTopic()
		rt.TopicID = id
		for p := range int32(3) {
			rp := kmsg.NewShareFetchRequestTopicPartition()
			rp.Partition = p
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	}
	return req
}

func TestShareSessionBelongsToItsConnection(t *testing.T) {
	g := start(t)
	admin := shared(t, g, 1)
	id := topicID(t, admin, "work")
	c := g.raw(t, "b0-open.gw.test")
	resp := c.ask(shareFetch("workers", 0, id)).(*kmsg.ShareFetchResponse)
	if resp.ErrorCode != 0 {
		t.Fatalf("opening a share session: %v", kerr.ErrorForCode(resp.ErrorCode))
	}
	other := g.raw(t, "b0-open.gw.test")
	for name, req := range map[string]kmsg.Request{
		"fetching on another connection's session": shareFetch("workers", 1),
		"closing another connection's session":     shareFetch("workers", -1),
		"acknowledging on another connection's session": &kmsg.ShareAcknowledgeRequest{
			Version: 1, GroupID: kmsg.StringPtr("workers"), MemberID: kmsg.StringPtr("AAAAAAAAAAAAAAAAAAAAAQ"), ShareSessionEpoch: 1,
		},
	} {
		var code int16
		switch resp := other.ask(req).(type) {
		case *kmsg.ShareFetchResponse:
			code = resp.ErrorCode
		case *kmsg.ShareAcknowledgeResponse:
			code = resp.ErrorCode
		}
		if code != kerr.ShareSessionNotFound.Code {
			t.Errorf("%s: %v, want SHARE_SESSION_NOT_FOUND", name, kerr.ErrorForCode(code))
		}
	}
	if resp := c.ask(shareFetch("workers", 1)).(*kmsg.ShareFetchResponse); resp.ErrorCode != 0 {
		t.Errorf("the session's own connection: %v, want no error", kerr.ErrorForCode(resp.ErrorCode))
	}
}

const shareACLs = `
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: group, virtualCluster: acme-prod}, spec: {principal: "User:reader", resource: {type: group, name: workers}, operation: READ, permission: ALLOW}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: orders, virtualCluster: acme-prod}, spec: {principal: "User:reader", resource: {type: topic, name: orders}, operation: %s, permission: ALLOW}}
`

// shareCodes are the codes of a fetch by partition; "": the answer does not name one.
func shareCodes(resp *kmsg.ShareFetchResponse) string {
	var codes []string
	for _, rt := range resp.Topics {
		for _, p := range rt.Partitions {
			codes = append(codes, fmt.Sprint(p.ErrorCode))
		}
	}
	return strings.Join(codes, " ")
}

func TestRightsAreJudgedAtEachShareFetch(t *testing.T) {
	g := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	rights := func(operation string) { g.write(t, "share.yaml", fmt.Sprintf(shareACLs, operation)) }
	rights("READ")
	g.upstream.SetGroupConfigs("acme-prod.workers", map[string]string{"share.auto.offset.reset": "earliest"})
	owner, err := kgo.NewClient(kgo.SeedBrokers(g.upstream.ListenAddrs()...), kgo.DefaultProduceTopic("shop.orders.v2"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	for p := range int32(3) {
		if err := g.upstream.MoveTopicPartition("shop.orders.v2", p, 0); err != nil {
			t.Fatal(err)
		}
	}
	reader := g.raw(t, "b0-acme.gw.test")
	if code := reader.login("reader", "dev-secret"); code != 0 {
		t.Fatal(kerr.ErrorForCode(code))
	}
	admin := g.raw(t, "acme.gw.test")
	if code := admin.login("admin", "dev-secret"); code != 0 {
		t.Fatal(kerr.ErrorForCode(code))
	}
	meta := kmsg.NewPtrMetadataRequest()
	meta.Version = 12
	id := admin.ask(meta).(*kmsg.MetadataResponse).Topics[0].TopicID

	eventually(t, "the ACLs to apply", func() bool {
		resp := reader.ask(shareFetch("workers", 0, id)).(*kmsg.ShareFetchResponse)
		return resp.ErrorCode == 0 && !strings.Contains(shareCodes(resp), "29")
	})
	epoch := int32(0)
	next := func() *kmsg.ShareFetchResponse {
		epoch++
		resp := reader.ask(shareFetch("workers", epoch)).(*kmsg.ShareFetchResponse)
		if resp.ErrorCode != 0 {
			t.Fatalf("epoch %d: %v", epoch, kerr.ErrorForCode(resp.ErrorCode))
		}
		return resp
	}
	rights("DESCRIBE")
	eventually(t, "the session's topic to be refused", func() bool { return shareCodes(next()) == "29 29 29" })
	for p := range int32(3) {
		if err := owner.ProduceSync(ctx, &kgo.Record{Partition: p, Value: []byte("secret")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	resp := next()
	if got := shareCodes(resp); got != "29 29 29" {
		t.Errorf("partitions %s without READ, want 29 for each", got)
	}
	for _, rt := range resp.Topics {
		for _, p := range rt.Partitions {
			if len(p.Records) > 0 || rt.TopicID != id {
				t.Errorf("topic %x partition %d brought %d bytes without READ", rt.TopicID, p.Partition, len(p.Records))
			}
		}
	}
	rights("READ")
	bytes := 0
	eventually(t, "the records once READ is back", func() bool {
		for _, rt := range next().Topics {
			for _, p := range rt.Partitions {
				bytes += len(p.Records)
			}
		}
		return bytes > 0
	})
}

func TestWhatShareGroupsMayNot(t *testing.T) {
	g := start(t)
	g.write(t, "share.yaml", fmt.Sprintf(shareACLs, "READ"))
	c := g.raw(t, "acme.gw.test")
	if code := c.login("reader", "dev-secret"); code != 0 {
		t.Fatal(kerr.ErrorForCode(code))
	}
	eventually(t, "the ACLs to apply", func() bool {
		return c.ask(&kmsg.ShareGroupDescribeRequest{Version: 1, GroupIDs: []string{"workers"}}).(*kmsg.ShareGroupDescribeResponse).Groups[0].ErrorCode != kerr.GroupAuthorizationFailed.Code
	})
	code := func(resp kmsg.Response) int16 {
		switch r := resp.(type) {
		case *kmsg.ShareFetchResponse:
			return r.ErrorCode
		case *kmsg.ShareAcknowledgeResponse:
			return r.ErrorCode
		case *kmsg.ShareGroupHeartbeatResponse:
			return r.ErrorCode
		case *kmsg.ShareGroupDescribeResponse:
			return r.Groups[0].ErrorCode
		case *kmsg.DescribeShareGroupOffsetsResponse:
			if len(r.Groups[0].Topics) > 0 {
				return r.Groups[0].Topics[0].Partitions[0].ErrorCode
			}
			return r.Groups[0].ErrorCode
		case *kmsg.AlterShareGroupOffsetsResponse:
			if len(r.Topics) > 0 {
				return r.Topics[0].Partitions[0].ErrorCode
			}
			return r.ErrorCode
		case *kmsg.DeleteShareGroupOffsetsResponse:
			return r.ErrorCode
		case *kmsg.FindCoordinatorResponse:
			return r.Coordinators[0].ErrorCode
		}
		t.Fatalf("%T", resp)
		return 0
	}
	heartbeat := func(group string, topics ...string) kmsg.Request {
		return &kmsg.ShareGroupHeartbeatRequest{Version: 1, GroupID: group, MemberID: "AAAAAAAAAAAAAAAAAAAAAQ", SubscribedTopicNames: topics}
	}
	offsets := func(group, topic string) kmsg.Request {
		return &kmsg.DescribeShareGroupOffsetsRequest{Groups: []kmsg.DescribeShareGroupOffsetsRequestGroup{{
			GroupID: group, Topics: []kmsg.DescribeShareGroupOffsetsRequestGroupTopic{{Topic: topic, Partitions: []int32{0}}},
		}}}
	}
	alter := func(group, topic string) kmsg.Request {
		return &kmsg.AlterShareGroupOffsetsRequest{GroupID: group, Topics: []kmsg.AlterShareGroupOffsetsRequestTopic{{
			Topic: topic, Partitions: []kmsg.AlterShareGroupOffsetsRequestTopicPartition{{}},
		}}}
	}
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.Version, find.CoordinatorType, find.CoordinatorKeys = 6, 2, []string{"workers:AAAAAAAAAAAAAAAAAAAAAQ:0"}
	for _, v := range []struct {
		name string
		req  kmsg.Request
		want *kerr.Error
	}{
		{"a heartbeat in another group", heartbeat("others", "orders"), kerr.GroupAuthorizationFailed},
		{"a heartbeat that names a topic without DESCRIBE", heartbeat("workers", "orders", "hidden"), kerr.TopicAuthorizationFailed},
		{"a fetch in another group", shareFetch("others", 0), kerr.GroupAuthorizationFailed},
		{"an acknowledgement in another group", &kmsg.ShareAcknowledgeRequest{
			Version: 1, GroupID: kmsg.StringPtr("others"), MemberID: kmsg.StringPtr("AAAAAAAAAAAAAAAAAAAAAQ"), ShareSessionEpoch: 1,
		}, kerr.GroupAuthorizationFailed},
		{"describing another group", &kmsg.ShareGroupDescribeRequest{Version: 1, GroupIDs: []string{"others"}}, kerr.GroupAuthorizationFailed},
		{"another group's offsets", offsets("others", "orders"), kerr.GroupAuthorizationFailed},
		{"offsets of a topic without DESCRIBE", offsets("workers", "hidden"), kerr.TopicAuthorizationFailed},
		{"moving another group", alter("others", "orders"), kerr.GroupAuthorizationFailed},
		{"moving a group on a topic without READ", alter("workers", "hidden"), kerr.TopicAuthorizationFailed},
		{"deleting offsets with READ on the group only", &kmsg.DeleteShareGroupOffsetsRequest{
			GroupID: "workers", Topics: []kmsg.DeleteShareGroupOffsetsRequestTopic{{Topic: "orders"}},
		}, kerr.GroupAuthorizationFailed},
		{"the coordinator of share state, which brokers ask for", find, kerr.InvalidRequest},
	} {
		t.Run(v.name, func(t *testing.T) {
			if got := code(c.ask(v.req)); got != v.want.Code {
				t.Errorf("%v, want %v", kerr.ErrorForCode(got), v.want)
			}
		})
	}
}

func TestShareGroupsAreOfferedWithTheFeature(t *testing.T) {
	versions := func(r *raw) (keys []int16, feature bool) {
		req := kmsg.NewPtrApiVersionsRequest()
		req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = 4, "test", "1"
		resp := r.ask(req).(*kmsg.ApiVersionsResponse)
		for _, k := range resp.ApiKeys {
			switch k.ApiKey {
			case 76, 77, 78, 79, 90, 91, 92:
				keys = append(keys, k.ApiKey)
			}
		}
		for _, f := range resp.FinalizedFeatures {
			feature = feature || f.Name == "share.version"
		}
		return keys, feature
	}
	g := start(t)
	if keys, feature := versions(g.raw(t, "open.gw.test")); len(keys) != 7 || !feature {
		t.Errorf("share keys %v, share.version %v, want all seven and the feature", keys, feature)
	}
	without := start(t, kfake.MaxVersions(kversion.V3_9_0()))
	if keys, feature := versions(without.raw(t, "open.gw.test")); len(keys) != 0 || feature {
		t.Errorf("share keys %v, share.version %v of brokers without the feature, want none", keys, feature)
	}
	r := without.raw(t, "open.gw.test")
	r.send(kmsg.NewRequestFormatter().AppendRequest(nil, shareFetch("workers", 0), 1))
	r.closed()
}

// A share session that is lost with its broker connection takes the client's
// connection with it: the client could not tell otherwise that others get what it
// holds.
func TestLostShareSessionEndsTheConnection(t *testing.T) {
	g := start(t)
	id := topicID(t, shared(t, g, 1), "work")
	c := g.raw(t, "b0-open.gw.test")
	if resp := c.ask(shareFetch("workers", 0, id)).(*kmsg.ShareFetchResponse); resp.ErrorCode != 0 {
		t.Fatal(kerr.ErrorForCode(resp.ErrorCode))
	}
	g.upstream.ControlKey(int16(kmsg.ShareFetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		return nil, errors.New("lost"), true
	})
	c.send(kmsg.NewRequestFormatter().AppendRequest(nil, shareFetch("workers", 1), 1))
	c.closed()
	// The next connection begins anew.
	again := g.raw(t, "b0-open.gw.test")
	if resp := again.ask(shareFetch("workers", 1)).(*kmsg.ShareFetchResponse); resp.ErrorCode != kerr.ShareSessionNotFound.Code {
		t.Errorf("going on with the lost session: %v, want SHARE_SESSION_NOT_FOUND", kerr.ErrorForCode(resp.ErrorCode))
	}
	if resp := again.ask(shareFetch("workers", 0, id)).(*kmsg.ShareFetchResponse); resp.ErrorCode != 0 {
		t.Errorf("a new session: %v", kerr.ErrorForCode(resp.ErrorCode))
	}
}

// A group config is the tenant's to set, within a list; nothing else is.
func TestGroupConfigsWithinTheList(t *testing.T) {
	g := start(t)
	cl := g.client(t, "open.gw.test")
	for key, want := range map[string]error{
		"share.auto.offset.reset":     nil,
		"consumer.session.timeout.ms": nil,
		"streams.session.timeout.ms":  kerr.PolicyViolation,
		"no.such.config":              kerr.PolicyViolation,
	} {
		value := "50000"
		if key == "share.auto.offset.reset" {
			value = "earliest"
		}
		if err := groupConfig(t, cl, "workers", key, value); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", key, err, want)
		}
	}
}
