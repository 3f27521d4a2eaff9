package upstream

import (
	"cmp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Metadata is what a cluster looked like at one moment. It is immutable; the
// cluster keeps the same pointer for as long as nothing has changed.
type Metadata struct {
	ClusterID string
	Brokers   []BrokerInfo // by id
	Topics    []*Topic     // by name
	byName    map[string]*Topic
	byID      map[[16]byte]*Topic
}

// BrokerInfo is a live broker.
type BrokerInfo struct {
	ID   int32
	Host string
	Port int32
	Rack *string
}

// Topic is a physical topic.
type Topic struct {
	Name       string
	ID         [16]byte // zero when the cluster has no topic ids
	Internal   bool
	ErrorCode  int16
	Partitions []Partition // by index, without gaps
}

// Partition is as kmsg.MetadataResponse has it.
type Partition struct {
	ErrorCode   int16
	Leader      int32
	LeaderEpoch int32
	Replicas    []int32
	ISR         []int32
	Offline     []int32
}

// Leaderless is a partition of which nothing is known but that it exists.
var Leaderless = Partition{ErrorCode: 5, Leader: -1, LeaderEpoch: -1}

// Topic finds a topic by name.
func (m *Metadata) Topic(name string) *Topic { return m.byName[name] }

// TopicByID finds a topic by its physical id.
func (m *Metadata) TopicByID(id [16]byte) *Topic { return m.byID[id] }

// WithPrefix returns the topics whose names begin with prefix, by name.
func (m *Metadata) WithPrefix(prefix string) []*Topic {
	byName := func(t *Topic, name string) int { return cmp.Compare(t.Name, name) }
	from, _ := slices.BinarySearchFunc(m.Topics, prefix, byName)
	to := from
	for to < len(m.Topics) && len(m.Topics[to].Name) >= len(prefix) && m.Topics[to].Name[:len(prefix)] == prefix {
		to++
	}
	return m.Topics[from:to]
}

// Live reports whether a broker is in the snapshot.
func (m *Metadata) Live(id int32) bool {
	_, ok := slices.BinarySearchFunc(m.Brokers, id, func(b BrokerInfo, id int32) int { return cmp.Compare(b.ID, id) })
	return ok
}

// NewMetadata builds a snapshot. What old knew better is kept: a leader epoch
// never goes back and a partition count never shrinks while the topic is the
// same (rule 9 of PROTOCOL.md).
func NewMetadata(resp *kmsg.MetadataResponse, old *Metadata) *Metadata {
	m := &Metadata{
		byName: make(map[string]*Topic, len(resp.Topics)),
		byID:   make(map[[16]byte]*Topic, len(resp.Topics)),
	}
	if resp.ClusterID != nil {
		m.ClusterID = *resp.ClusterID
	}
	for _, b := range resp.Brokers {
		m.Brokers = append(m.Brokers, BrokerInfo{ID: b.NodeID, Host: b.Host, Port: b.Port, Rack: b.Rack})
	}
	slices.SortFunc(m.Brokers, func(a, b BrokerInfo) int { return cmp.Compare(a.ID, b.ID) })
	for i := range resp.Topics {
		rt := &resp.Topics[i]
		if rt.Topic == nil {
			continue
		}
		t := &Topic{Name: *rt.Topic, ID: rt.TopicID, Internal: rt.IsInternal, ErrorCode: rt.ErrorCode}
		var before *Topic
		if old != nil {
			if b := old.byName[t.Name]; b != nil && b.ID == t.ID {
				before = b
			}
		}
		n := 0
		for _, p := range rt.Partitions {
			n = max(n, int(p.Partition)+1)
		}
		if before != nil {
			n = max(n, len(before.Partitions))
		}
		t.Partitions = make([]Partition, n)
		for p := range t.Partitions {
			t.Partitions[p] = Leaderless
			if before != nil && p < len(before.Partitions) {
				t.Partitions[p] = before.Partitions[p].leaderless()
			}
		}
		for _, p := range rt.Partitions {
			if before != nil && int(p.Partition) < len(before.Partitions) && before.Partitions[p.Partition].LeaderEpoch > p.LeaderEpoch && p.LeaderEpoch >= 0 {
				t.Partitions[p.Partition] = before.Partitions[p.Partition]
				continue
			}
			t.Partitions[p.Partition] = Partition{
				ErrorCode: p.ErrorCode, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch,
				Replicas: p.Replicas, ISR: p.ISR, Offline: p.OfflineReplicas,
			}
		}
		m.Topics = append(m.Topics, t)
		m.byName[t.Name] = t
		if t.ID != ([16]byte{}) {
			m.byID[t.ID] = t
		}
	}
	slices.SortFunc(m.Topics, func(a, b *Topic) int { return cmp.Compare(a.Name, b.Name) })
	return m
}

// equal compares what clients can see.
func (m *Metadata) equal(o *Metadata) bool {
	return m.ClusterID == o.ClusterID &&
		slices.EqualFunc(m.Brokers, o.Brokers, func(a, b BrokerInfo) bool {
			return a.ID == b.ID && a.Host == b.Host && a.Port == b.Port && str(a.Rack) == str(b.Rack)
		}) &&
		slices.EqualFunc(m.Topics, o.Topics, func(a, b *Topic) bool {
			return a.Name == b.Name && a.ID == b.ID && a.ErrorCode == b.ErrorCode &&
				slices.EqualFunc(a.Partitions, b.Partitions, func(p, q Partition) bool {
					return p.ErrorCode == q.ErrorCode && p.Leader == q.Leader && p.LeaderEpoch == q.LeaderEpoch &&
						slices.Equal(p.Replicas, q.Replicas) && slices.Equal(p.ISR, q.ISR) && slices.Equal(p.Offline, q.Offline)
				})
		})
}

func str(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// leaderless is the snapshot of a cluster that does not answer: everything is there,
// and nothing of it can be reached. A topic that went missing, or shrank, would make
// consumer groups reassign all they have (PROTOCOL.md §B2).
func (m *Metadata) leaderless() *Metadata {
	out := &Metadata{
		ClusterID: m.ClusterID, Brokers: m.Brokers,
		Topics: make([]*Topic, len(m.Topics)),
		byName: make(map[string]*Topic, len(m.byName)),
		byID:   make(map[[16]byte]*Topic, len(m.byID)),
	}
	for i, t := range m.Topics {
		lost := *t
		lost.Partitions = make([]Partition, len(t.Partitions))
		for p, known := range t.Partitions {
			lost.Partitions[p] = known.leaderless()
		}
		out.Topics[i] = &lost
		out.byName[t.Name] = &lost
		if t.ID != ([16]byte{}) {
			out.byID[t.ID] = &lost
		}
	}
	return out
}

func (p Partition) leaderless() Partition {
	return Partition{ErrorCode: 5, Leader: -1, LeaderEpoch: p.LeaderEpoch, Replicas: p.Replicas, ISR: p.ISR, Offline: p.Replicas}
}

// snapshot is a Metadata with the moment it was last confirmed.
type snapshot struct {
	*Metadata
	known *Metadata // what the cluster said last: the same, or what this was made from
	at    time.Time
}
