package session

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// kmsg does not let topics be encoded one by one, so it is done here a second time:
// the same bytes in every version.
func TestTopicsAreEncodedAsKmsgEncodesThem(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	member := &view.Member{Name: "other", Slot: 7}
	nodes := func() []int32 {
		list := make([]int32, rnd.IntN(4))
		for i := range list {
			list[i] = rnd.Int32N(1 << 16)
		}
		return list
	}
	for version := range int16(14) {
		for range 200 {
			m := topicMetadata{code: int16(rnd.IntN(120) - 1), operations: int32(rnd.Uint32()), member: member}
			if rnd.IntN(5) > 0 {
				name := strings.Repeat("n", rnd.IntN(250))
				m.name = &name
			}
			binary.BigEndian.PutUint64(m.id[4:], rnd.Uint64())
			for range []int{0, 1, 10, 127, 128, 300}[rnd.IntN(6)] {
				m.partitions = append(m.partitions, upstream.Partition{
					ErrorCode: int16(rnd.IntN(10)), Leader: rnd.Int32N(5) - 1, LeaderEpoch: rnd.Int32N(9) - 1, Replicas: nodes(), ISR: nodes(), Offline: nodes(),
				})
			}
			resp := kmsg.NewPtrMetadataResponse()
			resp.Version, resp.ErrorCode, resp.AuthorizedOperations = version, 9, 0x01020304
			empty := resp.AppendTo(nil)
			resp.Topics = []kmsg.MetadataResponseTopic{kmsgTopic(&m)}

			end := len(empty) - endOfMetadata(version)
			begin := end - len(appendLength(nil, version >= 9, 0))
			got := appendLength(slices.Clone(empty[:begin]), version >= 9, 1)
			got = append(m.appendTo(got, version), empty[end:]...)
			if want := resp.AppendTo(nil); !bytes.Equal(got, want) {
				t.Fatalf("v%d: %+v is\n%x: want\n%x", version, m, got, want)
			}
		}
	}
}

// kmsgTopic is the topic as kmsg has it.
func kmsgTopic(m *topicMetadata) kmsg.MetadataResponseTopic {
	out := kmsg.NewMetadataResponseTopic()
	out.ErrorCode, out.Topic, out.TopicID, out.AuthorizedOperations = m.code, m.name, m.id, m.operations
	virtual := func(nodes []int32) (list []int32) {
		for _, n := range nodes {
			list = append(list, m.member.VirtualNode(n))
		}
		return list
	}
	for i, p := range m.partitions {
		rp := kmsg.NewMetadataResponseTopicPartition()
		rp.Partition, rp.ErrorCode, rp.Leader, rp.LeaderEpoch = int32(i), p.ErrorCode, m.member.VirtualNode(p.Leader), p.LeaderEpoch
		rp.Replicas, rp.ISR, rp.OfflineReplicas = virtual(p.Replicas), virtual(p.ISR), virtual(p.Offline)
		out.Partitions = append(out.Partitions, rp)
	}
	return out
}

// Topics that are kept encoded say to everyone what they say to someone who asks for
// one of them: in each version, whoever may see how many, in any order, and after the
// metadata has changed.
func TestAnswersAboutManyTopicsAreThoseAboutEach(t *testing.T) {
	b := newScriptedBroker(t)
	var names []string
	for i := range 36 {
		names = append(names, fmt.Sprintf("%c-%02d", "abc"[i%3], i))
		b.topics = append(b.topics, "standard."+names[i])
	}
	for _, acls := range [][]string{
		nil,
		{"ALLOW DESCRIBE topic prefixed a-"},
		{"ALLOW READ topic prefixed a-", "ALLOW WRITE topic prefixed c-", "DENY DESCRIBE topic a-03"},
		{"DENY ALL topic *"},
	} {
		vs := &vectorSession{ACLs: acls}
		vc := vectorCluster(t, vs, b)
		h := vs.open(t, vc)
		for version := range int16(14) {
			for _, operations := range []bool{false, true}[:1+min(version/8, 1)] {
				alone := make(map[string][]kmsg.MetadataResponseTopic)
				one := func(name string) []kmsg.MetadataResponseTopic {
					if alone[name] == nil {
						alone[name] = h.topics(t, version, operations, &name)
					}
					return alone[name]
				}
				var visible, each []kmsg.MetadataResponseTopic
				asked := append(slices.Clone(names), "nobodys", "bad name", "orders", "logs")
				rand.Shuffle(len(asked), func(i, j int) { asked[i], asked[j] = asked[j], asked[i] })
				var list []*string
				for i := range asked {
					list = append(list, &asked[i])
					each = append(each, one(asked[i])...)
				}
				for _, topic := range vc.Table().Topics {
					if topics := one(topic.Name); topics[0].ErrorCode == 0 {
						visible = append(visible, topics...)
					}
				}
				if got := h.topics(t, version, operations, append(list, list[5])...); !reflect.DeepEqual(got, each) {
					t.Errorf("%v v%d by name: %v: want %v", acls, version, got, each)
				}
				if got := h.topics(t, version, operations); !reflect.DeepEqual(got, visible) {
					t.Errorf("%v v%d all: %v: want %v", acls, version, got, visible)
				}
			}
		}
		before := len(h.topics(t, 12, false))
		b.mu.Lock()
		b.topics = append(b.topics, "standard.a-new")
		b.mu.Unlock()
		if err := vc.Home.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := before
		if acls == nil || strings.HasSuffix(acls[0], " a-") {
			want++
		}
		if got := len(h.topics(t, 12, false)); got != want {
			t.Errorf("%v: %d topics after one was made: want %d", acls, got, want)
		}
		b.forget()
		b.mu.Lock()
		for _, name := range names {
			b.topics = append(b.topics, "standard."+name)
		}
		b.mu.Unlock()
	}
}

// topics asks for topics by name, or for all, and returns what is answered.
func (h *hotSession) topics(t *testing.T, version int16, operations bool, names ...*string) []kmsg.MetadataResponseTopic {
	t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	req.Version, req.IncludeTopicAuthorizedOperations = version, operations
	for _, name := range names {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = name
		req.Topics = append(req.Topics, rt)
	}
	resp := h.ask(t, req).(*kmsg.MetadataResponse)
	if len(resp.Brokers) != 2 || version > 0 && resp.ControllerID != 3 || version >= 2 && resp.ClusterID == nil {
		t.Fatalf("v%d: what is before the topics: %+v", version, resp)
	}
	return resp.Topics
}

func encodingsTable(t *testing.T, topics int) *view.Table {
	t.Helper()
	table := &view.Table{}
	for i := range topics {
		table.Topics = append(table.Topics, &view.Topic{
			Name: fmt.Sprintf("topic-%05d", i), Index: i, Member: &view.Member{}, Physical: &upstream.Topic{}, Partitions: make([]upstream.Partition, 10),
		})
	}
	return table
}

// The memory for encoded topics has a limit, those nobody asks for are forgotten, and
// an older table's make room for a newer one's.
func TestEncodedTopicsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := encodings{limit: 1 << 20}
		check := func(want int) {
			t.Helper()
			sum := 0
			for at := c.order.Front(); at != nil; at = at.Next() {
				sum += at.Value.(*encodedTopics).counted
			}
			if len(c.byKey) != want || c.order.Len() != want || c.bytes != sum || c.bytes > c.limit {
				t.Fatalf("%d keys, %d in order, %d bytes, which are %d: want %d of at most %d bytes", len(c.byKey), c.order.Len(), c.bytes, sum, want, c.limit)
			}
		}
		small := encodingsTable(t, 10)
		first := c.of("acme", small, 12)
		check(1)
		if c.of("acme", small, 12) != first {
			t.Error("the same table is encoded twice")
		}
		c.of("acme", small, 9)
		check(2)
		if again := c.of("acme", encodingsTable(t, 11), 12); again == first || len(again.ends) != 11 {
			t.Errorf("a new table has %d topics", len(again.ends))
		}
		check(2)

		time.Sleep(keptUnused + time.Second)
		c.of("other", small, 12)
		check(1)

		large := encodingsTable(t, 900)
		for i := range 30 {
			c.of(fmt.Sprintf("large-%d", i), large, 12)
			c.of("other", small, 12)
		}
		if n := c.order.Len(); n < 3 || n > 9 || c.byKey[encodedKey{"other", 12}] == nil {
			t.Errorf("%d are kept", n)
		}
		kept := c.order.Len()
		check(kept)
		if huge := c.of("huge", encodingsTable(t, 5000), 12); len(huge.ends) != 5000 || c.byKey[huge.key] != nil {
			t.Error("what is larger than all that may be kept is not given, or kept")
		}
		check(kept)
	})
}

// Sessions ask at the same time, some still for the table before.
func TestEncodedTopicsAreSharedBySessions(t *testing.T) {
	var c encodings
	tables := []*view.Table{encodingsTable(t, 10), encodingsTable(t, 20), encodingsTable(t, 30)}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 300 {
				table := tables[(i+n)%len(tables)]
				e := c.of("acme", table, int16(n%2+12))
				if len(e.ends) != len(table.Topics) || len(e.topics(0, len(e.ends))) != len(e.bytes) {
					t.Errorf("%d topics: want %d", len(e.ends), len(table.Topics))
				}
			}
		})
	}
	wg.Wait()
	sum := 0
	for at := c.order.Front(); at != nil; at = at.Next() {
		sum += at.Value.(*encodedTopics).counted
	}
	if c.order.Len() != 2 || len(c.byKey) != 2 || c.bytes != sum {
		t.Errorf("%d are kept, %d by key, in %d bytes: want 2 in %d", c.order.Len(), len(c.byKey), c.bytes, sum)
	}
}
