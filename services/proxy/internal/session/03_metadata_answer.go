package session

import (
	"bytes"
	"cmp"
	"container/list"
	"encoding/binary"
	"net"
	"sync"
	"time"
	"weak"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/netio"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// metadataAnswer is an answer to Metadata whose topics are bytes already: there may
// be thousands, with many partitions each, and clients by the hundred ask for all of
// them.
type metadataAnswer struct {
	*kmsg.MetadataResponse // all but the topics
	count                  int

	// The topics are a run of those that are kept encoded, or bytes of this answer.
	kept     *encodedTopics
	from, to int
	own      []byte
	borrowed *netio.Buffer // what own began in
}

// add adds a topic that is kept encoded.
func (m *metadataAnswer) add(e *encodedTopics, i int) {
	switch {
	case m.count == 0:
		m.kept, m.from, m.to = e, i, i+1
	case m.kept != nil && m.to == i:
		m.to++
	default:
		m.spill(len(e.bytes))
		m.own = append(m.own, e.topic(i)...)
	}
	m.count++
}

// encode adds a topic that is not.
func (m *metadataAnswer) encode(topic *topicMetadata, version int16) {
	m.spill(0)
	m.own = topic.appendTo(m.own, version)
	m.count++
}

// spill makes the topics so far bytes of this answer, in room for about so many.
func (m *metadataAnswer) spill(room int) {
	if m.own == nil && room > netio.BaseSize {
		m.borrowed = netio.Get(room)
		m.own = m.borrowed.B[:0]
	}
	if m.kept != nil {
		m.own = append(m.own, m.kept.topics(m.from, m.to)...)
		m.kept = nil
	}
}

func (m *metadataAnswer) topics() []byte {
	if m.kept != nil {
		return m.kept.topics(m.from, m.to)
	}
	return m.own
}

// noOperations is what authorized operations are when nobody asked for them.
const noOperations = -2147483648

// topicMetadata is a topic in an answer to Metadata.
type topicMetadata struct {
	code       int16
	name       *string
	id         [16]byte
	operations int32
	member     *view.Member // of the partitions' nodes
	partitions []upstream.Partition
}

// metadataOf is a topic that the client may see.
func metadataOf(topic *view.Topic) topicMetadata {
	return topicMetadata{
		code: topic.Physical.ErrorCode, name: &topic.Name, id: topic.ID, operations: noOperations,
		member: topic.Member, partitions: topic.Partitions,
	}
}

// appendTo encodes the topic as kmsg.MetadataResponse encodes its topics, which it
// does not let others do one by one.
func (m *topicMetadata) appendTo(b []byte, version int16) []byte {
	flexible := version >= 9
	b = binary.BigEndian.AppendUint16(b, uint16(m.code))
	switch {
	case m.name != nil && flexible:
		b = binary.AppendUvarint(b, uint64(len(*m.name))+1)
		b = append(b, *m.name...)
	case m.name != nil:
		b = binary.BigEndian.AppendUint16(b, uint16(len(*m.name)))
		b = append(b, *m.name...)
	case version >= 12:
		b = append(b, 0)
	case flexible:
		b = append(b, 1) // no null before version 12
	default:
		b = append(b, 0, 0)
	}
	if version >= 10 {
		b = append(b, m.id[:]...)
	}
	if version >= 1 {
		b = append(b, 0) // nothing internal is shown
	}
	b = appendLength(b, flexible, len(m.partitions))
	for i := range m.partitions {
		p := &m.partitions[i]
		b = binary.BigEndian.AppendUint16(b, uint16(p.ErrorCode))
		b = binary.BigEndian.AppendUint32(b, uint32(i))
		b = binary.BigEndian.AppendUint32(b, uint32(m.member.VirtualNode(p.Leader)))
		if version >= 7 {
			b = binary.BigEndian.AppendUint32(b, uint32(p.LeaderEpoch))
		}
		b = m.appendNodes(b, flexible, p.Replicas)
		b = m.appendNodes(b, flexible, p.ISR)
		if version >= 5 {
			b = m.appendNodes(b, flexible, p.Offline)
		}
		if flexible {
			b = append(b, 0)
		}
	}
	return appendOperations(b, version, m.operations)
}

func (m *topicMetadata) appendNodes(b []byte, flexible bool, nodes []int32) []byte {
	b = appendLength(b, flexible, len(nodes))
	for _, n := range nodes {
		b = binary.BigEndian.AppendUint32(b, uint32(m.member.VirtualNode(n)))
	}
	return b
}

func appendLength(b []byte, flexible bool, n int) []byte {
	if flexible {
		return binary.AppendUvarint(b, uint64(n)+1)
	}
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// appendOperations ends a topic: it is all of it that depends on who asks.
func appendOperations(b []byte, version int16, operations int32) []byte {
	if version >= 8 {
		b = binary.BigEndian.AppendUint32(b, uint32(operations))
	}
	if version >= 9 {
		b = append(b, 0)
	}
	return b
}

// endOfMetadata is how many bytes of an answer come after its topics.
func endOfMetadata(version int16) int {
	n := 0
	if version >= 8 && version <= 10 {
		n += 4 // what may be done with the cluster
	}
	if version >= 13 {
		n += 2 // an error code
	}
	if version >= 9 {
		n++ // tags
	}
	return n
}

// answerMetadata writes the answer.
func (s *Session) answerMetadata(h *header, m *metadataAnswer) error {
	defer m.borrowed.Release()
	m.SetVersion(h.version)
	b := m.AppendTo(s.beginAnswer(h)) // with no topics
	end := len(b) - endOfMetadata(h.version)
	none := len(appendLength(nil, h.flexible, 0))
	var rest [8]byte
	tail := rest[:copy(rest[:], b[end:])]
	b = appendLength(b[:end-none], h.flexible, m.count)
	topics := m.topics()
	if len(b)+len(topics)+len(tail) <= netio.BaseSize {
		return s.finishAnswer(append(append(b, topics...), tail...))
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)+len(topics)+len(tail)-4))
	return s.WriteBuffers(&net.Buffers{b, topics, tail})
}

// keptLimit bounds the memory for encoded topics in the whole node. A thousand topics
// with ten partitions each are half of a megabyte in each version that is asked for.
const keptLimit = 64 << 20

// keptUnused is how long encoded topics are kept that nobody asks for.
const keptUnused = time.Minute

// encodings are the topics of virtual clusters, encoded for Metadata: those asked for
// last. What is in them everybody is told who may see the topic at all.
type encodings struct {
	limit int // of bytes; 0: keptLimit
	mu    sync.Mutex
	order list.List // of *encodedTopics, the one used last in front
	byKey map[encodedKey]*list.Element
	bytes int // of all that are in order and encoded
}

type encodedKey struct {
	virtualCluster string
	version        int16
}

// encodedTopics are all topics of a table, as one version has them.
type encodedTopics struct {
	key   encodedKey
	table weak.Pointer[view.Table] // which is not kept for this
	once  sync.Once
	bytes []byte
	ends  []uint32 // of each topic of the table

	used    time.Time // guarded by encodings.mu, as is the next
	counted int       // bytes in encodings.bytes
}

func (e *encodedTopics) topics(from, to int) []byte {
	begin := uint32(0)
	if from > 0 {
		begin = e.ends[from-1]
	}
	return e.bytes[begin:e.ends[to-1]:e.ends[to-1]]
}

func (e *encodedTopics) topic(i int) []byte { return e.topics(i, i+1) }

// of returns the topics of t, the table of that virtual cluster, which are encoded
// once for all that ask at the same time.
func (c *encodings) of(name string, t *view.Table, version int16) *encodedTopics {
	key, table, now := encodedKey{name, version}, weak.Make(t), time.Now()
	c.mu.Lock()
	at := c.byKey[key]
	if at != nil && at.Value.(*encodedTopics).table != table {
		c.drop(at)
		at = nil
	}
	if at == nil {
		for last := c.order.Back(); last != nil && now.Sub(last.Value.(*encodedTopics).used) > keptUnused; last = c.order.Back() {
			c.drop(last)
		}
		if c.byKey == nil {
			c.byKey = make(map[encodedKey]*list.Element)
		}
		at = c.order.PushFront(&encodedTopics{key: key, table: table})
		c.byKey[key] = at
	}
	e := at.Value.(*encodedTopics)
	e.used = now
	c.order.MoveToFront(at)
	c.mu.Unlock()

	e.once.Do(func() {
		e.encode(t)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.byKey[key] != at {
			return // there is a newer table already
		}
		e.counted = cap(e.bytes) + 4*cap(e.ends)
		c.bytes += e.counted
		limit := cmp.Or(c.limit, keptLimit)
		if e.counted > limit/4 { // not at the cost of so many others
			c.drop(at)
		}
		for c.bytes > limit {
			c.drop(c.order.Back())
		}
	})
	return e
}

// drop forgets one; those who have it may go on with it.
func (c *encodings) drop(at *list.Element) {
	e := c.order.Remove(at).(*encodedTopics)
	delete(c.byKey, e.key)
	c.bytes -= e.counted
}

func (e *encodedTopics) encode(t *view.Table) {
	room := 0
	for _, topic := range t.Topics {
		room += 64 + len(topic.Name) + 64*len(topic.Partitions)
	}
	draft := netio.Get(room)
	defer draft.Release()
	b := draft.B[:0]
	e.ends = make([]uint32, len(t.Topics))
	for i, topic := range t.Topics {
		m := metadataOf(topic)
		b = m.appendTo(b, e.key.version)
		e.ends[i] = uint32(len(b))
	}
	e.bytes = bytes.Clone(b)
}
