package upstream

import (
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// described is a topic whose partitions have these leaders, at these epochs.
func described(name string, id byte, leaders map[int32][2]int32) kmsg.MetadataResponseTopic {
	t := kmsg.NewMetadataResponseTopic()
	t.Topic, t.TopicID = kmsg.StringPtr(name), [16]byte{id}
	for _, p := range slices.Sorted(maps.Keys(leaders)) {
		mp := kmsg.NewMetadataResponseTopicPartition()
		mp.Partition, mp.Leader, mp.LeaderEpoch, mp.Replicas, mp.ISR = p, leaders[p][0], leaders[p][1], []int32{3, 7}, []int32{leaders[p][0]}
		t.Partitions = append(t.Partitions, mp)
	}
	return t
}

func snapshotOf(old *Metadata, topics ...kmsg.MetadataResponseTopic) *Metadata {
	r := kmsg.NewPtrMetadataResponse()
	r.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 7, Host: "b"}, {NodeID: 3, Host: "a"}}
	r.Topics = topics
	return NewMetadata(r, old)
}

// The snapshot stays the same one while nothing has changed: what was derived from
// it stays good.
func TestMetadataStaysWhileNothingChanges(t *testing.T) {
	withStub(t, func(_ *Config, s *stub) {
		s.topics = []kmsg.MetadataResponseTopic{described("a", 1, map[int32][2]int32{0: {3, 5}})}
	}, func(t *testing.T, c *Cluster, s *stub) {
		refresh := func() *Metadata {
			if err := c.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			return c.Metadata()
		}
		first := c.Metadata()
		for range 3 {
			if refresh() != first {
				t.Fatal("another snapshot of the same")
			}
		}
		s.set(func() { s.topics = []kmsg.MetadataResponseTopic{described("a", 1, map[int32][2]int32{0: {7, 6}})} })
		moved := refresh()
		if moved == first || moved.Topic("a").Partitions[0].Leader != 7 || first.Topic("a").Partitions[0].Leader != 3 {
			t.Error("a moved leader is not in a snapshot of its own")
		}
		s.set(func() { s.ids = []int32{7} })
		if gone := refresh(); gone == moved || gone.Live(3) || !gone.Live(7) {
			t.Error("a broker that left is still there")
		}
		if _, err := c.Fresh(t.Context(), time.Hour); err != nil {
			t.Error(err)
		}
	})
}

// Those who ask at the same time share one request; who asks when it has been
// marked as stale waits for another.
func TestRefreshesAreShared(t *testing.T) {
	withStub(t, nil, func(t *testing.T, c *Cluster, s *stub) {
		before := s.asked
		s.set(func() { s.slow = 500 * time.Millisecond })
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if err := c.Refresh(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := s.asked - before; n != 1 {
			t.Errorf("%d requests for 50 who asked together", n)
		}
		c.Fresh(t.Context(), time.Hour)
		if n := s.asked - before; n != 1 {
			t.Errorf("%d requests although the snapshot is fresh", n)
		}
		c.MarkStale()
		c.Fresh(t.Context(), time.Hour)
		if n := s.asked - before; n != 2 {
			t.Errorf("%d requests after it was marked as stale, want 2", n)
		}
	})
}

// What clients have seen does not go back (rule 9 of PROTOCOL.md).
func TestMetadataDoesNotGoBack(t *testing.T) {
	first := snapshotOf(nil, described("a", 1, map[int32][2]int32{0: {3, 5}, 1: {7, 6}, 2: {3, 7}}))
	for _, tt := range []struct {
		name string
		next kmsg.MetadataResponseTopic
		want map[int]Partition
		n    int
	}{
		{"an older epoch is not believed", described("a", 1, map[int32][2]int32{0: {7, 4}, 1: {7, 6}, 2: {3, 7}}), map[int]Partition{0: {Leader: 3, LeaderEpoch: 5}}, 3},
		{"a newer one is", described("a", 1, map[int32][2]int32{0: {7, 6}, 1: {7, 6}, 2: {3, 7}}), map[int]Partition{0: {Leader: 7, LeaderEpoch: 6}}, 3},
		{"partitions that are missing have no leader", described("a", 1, map[int32][2]int32{0: {3, 5}}), map[int]Partition{1: {ErrorCode: 5, Leader: -1, LeaderEpoch: 6}, 2: {ErrorCode: 5, Leader: -1, LeaderEpoch: 7}}, 3},
		{"a gap has no leader", described("a", 1, map[int32][2]int32{0: {3, 5}, 1: {7, 6}, 2: {3, 7}, 4: {3, 1}}), map[int]Partition{3: {ErrorCode: 5, Leader: -1, LeaderEpoch: -1}, 4: {Leader: 3, LeaderEpoch: 1}}, 5},
		{"a topic that was made again begins anew", described("a", 2, map[int32][2]int32{0: {7, 0}}), map[int]Partition{0: {Leader: 7, LeaderEpoch: 0}}, 1},
		{"no epoch is an epoch", described("a", 1, map[int32][2]int32{0: {-1, -1}, 1: {7, 6}, 2: {3, 7}}), map[int]Partition{0: {Leader: -1, LeaderEpoch: -1}}, 3},
	} {
		got := snapshotOf(first, tt.next).Topic("a").Partitions
		if len(got) != tt.n {
			t.Errorf("%s: %d partitions, want %d", tt.name, len(got), tt.n)
		}
		for p, want := range tt.want {
			if g := got[p]; g.Leader != want.Leader || g.LeaderEpoch != want.LeaderEpoch || g.ErrorCode != want.ErrorCode {
				t.Errorf("%s: partition %d is %+v, want %+v", tt.name, p, g, want)
			}
		}
	}
}

func TestMetadataIsFound(t *testing.T) {
	m := snapshotOf(nil, described("acme.b", 2, nil), described("acme", 5, nil), described("acme.a", 1, nil), described("acmf", 3, nil), described("acme.", 4, nil))
	var names []string
	for _, topic := range m.WithPrefix("acme.") {
		names = append(names, topic.Name)
	}
	if want := []string{"acme.", "acme.a", "acme.b"}; !slices.Equal(names, want) {
		t.Errorf("below acme. are %v, want %v", names, want)
	}
	if len(m.WithPrefix("x")) != 0 || m.Topic("x") != nil || m.TopicByID([16]byte{9}) != nil {
		t.Error("what is not there was found")
	}
	if m.TopicByID([16]byte{2}).Name != "acme.b" || m.Brokers[0].ID != 3 || m.Live(4) {
		t.Error("found wrong")
	}
}

// Versions are what all brokers have: a key that one lacks is not there, nor one
// whose ranges do not meet.
func TestVersionsAreWhatAllBrokersHave(t *testing.T) {
	withStub(t, func(_ *Config, s *stub) {
		s.versions[addrOf(3)] = versionsOf(map[int16]int16{0: 13, 1: 18, 3: 13, 68: 1}, map[string]int16{"group.version": 1, "metadata.version": 30, "share.version": 1})
		s.versions[addrOf(7)] = versionsOf(map[int16]int16{0: 11, 1: 18, 3: 13}, map[string]int16{"group.version": 1, "metadata.version": 29})
		old := kmsg.ApiVersionsResponseApiKey{ApiKey: 1, MinVersion: 3, MaxVersion: 17}
		s.versions[addrOf(7)].ApiKeys = append(slices.DeleteFunc(s.versions[addrOf(7)].ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool { return k.ApiKey == 1 }), old)
		s.versions[bootstrap] = s.versions[addrOf(3)]
	}, func(t *testing.T, c *Cluster, s *stub) {
		got := c.Versions()
		want := map[int16]Range{0: {0, 11}, 1: {3, 17}, 3: {0, 13}}
		if !maps.Equal(got.Ranges, want) {
			t.Errorf("ranges %v, want %v", got.Ranges, want)
		}
		if want := map[string]int16{"group.version": 1, "metadata.version": 29}; !maps.Equal(got.Finalized, want) {
			t.Errorf("features %v, want %v", got.Finalized, want)
		}
	})
	a := &Versions{Ranges: map[int16]Range{0: {0, 2}}, Finalized: map[string]int16{}, Supported: map[string]Range{"f": {0, 5}}}
	b := &Versions{Ranges: map[int16]Range{0: {3, 9}}, Finalized: map[string]int16{}, Supported: map[string]Range{"f": {1, 3}}}
	if got := a.Intersect(b); len(got.Ranges) != 0 || got.Supported["f"] != (Range{1, 3}) {
		t.Errorf("ranges that do not meet: %+v", got)
	}
}
