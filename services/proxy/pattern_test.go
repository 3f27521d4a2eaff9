package proxy_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A client says its pattern once. The gateway must match it also on a connection
// that has never heard it.
func TestAPatternOutlivesTheConnectionItWasSaidOn(t *testing.T) {
	g := start(t)
	// kfake takes a member's pattern and does not describe it, as brokers do.
	var mu sync.Mutex
	var last kmsg.ConsumerGroupHeartbeatRequest
	var pattern *string
	names := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return last.SubscribedTopicNames
	}
	g.upstream.ControlKey(int16(kmsg.ConsumerGroupHeartbeat), func(r kmsg.Request) (kmsg.Response, error, bool) {
		g.upstream.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		last = *r.(*kmsg.ConsumerGroupHeartbeatRequest)
		if last.SubscribedTopicRegex != nil {
			pattern = last.SubscribedTopicRegex
		}
		return nil, nil, false
	})
	g.upstream.ControlKey(int16(kmsg.ConsumerGroupDescribe), func(r kmsg.Request) (kmsg.Response, error, bool) {
		g.upstream.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		resp := r.ResponseKind().(*kmsg.ConsumerGroupDescribeResponse)
		group, member := kmsg.NewConsumerGroupDescribeResponseGroup(), kmsg.NewConsumerGroupDescribeResponseGroupMember()
		group.Group = r.(*kmsg.ConsumerGroupDescribeRequest).Groups[0]
		member.MemberID, member.SubscribedTopics, member.SubscribedTopicRegex = "m-1", []string{"acme-dev.events-1", "acme-dev.other"}, pattern
		group.Members = append(group.Members, member)
		resp.Groups = append(resp.Groups, group)
		return resp, nil, true
	})
	create := func(cl *kgo.Client, topics ...string) {
		t.Helper()
		if _, err := kadm.NewClient(cl).CreateTopics(t.Context(), 1, 1, nil, topics...); err != nil {
			t.Fatal(err)
		}
	}
	beat := func(cl *kgo.Client, epoch int32, change func(*kmsg.ConsumerGroupHeartbeatRequest)) int32 {
		t.Helper()
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Group, req.MemberID, req.MemberEpoch, req.RebalanceTimeoutMillis = "readers", "m-1", epoch, -1
		if change != nil {
			change(req)
		}
		resp, err := req.RequestWith(t.Context(), cl)
		if err != nil {
			t.Fatal(err)
		}
		if resp.ErrorCode != 0 {
			t.Fatalf("heartbeat: error %d", resp.ErrorCode)
		}
		return resp.MemberEpoch
	}
	expect := func(when string, want ...string) {
		t.Helper()
		if got := names(); !slices.Equal(got, want) {
			t.Errorf("%s the broker was sent %q, want %q", when, got, want)
		}
	}

	one := g.client(t, "acme-dev.gw.test", loginDev)
	create(one, "events-1", "other")
	epoch := beat(one, 0, func(r *kmsg.ConsumerGroupHeartbeatRequest) {
		r.RebalanceTimeoutMillis, r.SubscribedTopicNames, r.Topics = 60000, []string{"other"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		r.SubscribedTopicRegex = kmsg.StringPtr("events-.*")
	})
	expect("at first", "acme-dev.other", "acme-dev.events-1")
	epoch = beat(one, epoch, nil)
	expect("when nothing has changed")
	create(one, "events-2")
	epoch = beat(one, epoch, nil)
	expect("after a topic was created", "acme-dev.other", "acme-dev.events-1", "acme-dev.events-2")

	two := g.client(t, "acme-dev.gw.test", loginDev)
	create(two, "events-3")
	epoch = beat(two, epoch, nil)
	expect("on another connection", "acme-dev.other", "acme-dev.events-1", "acme-dev.events-2", "acme-dev.events-3")
	epoch = beat(two, epoch, nil)
	expect("when nothing has changed")
	described, err := kadm.NewClient(two).DescribeConsumerGroups(t.Context(), "readers")
	if err != nil {
		t.Fatal(err)
	}
	if m := described["readers"].Members; len(m) != 1 || m[0].SubscribedTopicRegex == nil || *m[0].SubscribedTopicRegex != "events-.*" || !slices.Equal(m[0].SubscribedTopics, []string{"other"}) {
		t.Errorf("described as %+v, want the pattern and the one topic beside it", m)
	}
	beat(two, epoch, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicRegex = kmsg.StringPtr("") })
	expect("without the pattern", "acme-dev.other")
}
