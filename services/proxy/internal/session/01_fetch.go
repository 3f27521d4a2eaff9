package session

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
	"tollgate.internal/services/proxy/internal/wire"
)

// Fetch (PROTOCOL.md §D3, §D4): versions 4 to 18; sessions from 7; flexible from
// 12; topics by id from 13; the replica id moves from the body to a tag in 15.
//
// A fetch session's id is the gateway's on the client's side and the broker's on
// the broker's side, and is good on the connection it was made on and nowhere
// else: a guessed id reads nothing. The broker's session can be used from any
// leased connection, so its epochs pass as they are.

// fetchSession is the client's fetch session on this connection, if it has one.
type fetchSession struct {
	client, broker int32        // its ids on either side; 0: none
	topics         *fetchTopics // nil before the first request
}

// fetchTopics are the topics that answers may name: those of the fetch session, or
// all that were asked for without one. An answer may name any of them, also after
// the metadata has moved on.
type fetchTopics struct {
	view *view.View // under which they were judged

	mu     sync.Mutex
	byName map[string]*topicAccess
	byID   map[[16]byte]*topicAccess
	growth int  // by how much every virtual name is longer than the physical one
	mixed  bool // the names differ in that
}

// add takes the topics of a request.
func (f *fetchTopics) add(edits []fetchEdit, flexible bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range edits {
		a := edits[i].access
		physical := a.topic.Physical
		if f.byID[physical.ID] == a && f.byName[physical.Name] == a {
			continue
		}
		growth := wire.StringSize(flexible, a.topic.Name) - wire.StringSize(flexible, physical.Name)
		f.mixed = f.mixed || len(f.byName) > 0 && growth != f.growth
		f.growth = growth
		f.byID[physical.ID], f.byName[physical.Name] = a, a
	}
}

func (f *fetchTopics) named(name []byte) *topicAccess {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byName[string(name)]
}

func (f *fetchTopics) identified(id []byte) *topicAccess {
	if len(id) != 16 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byID[[16]byte(id)]
}

// uniform reports whether all names grow by the same number of bytes, so that the
// size of an answer is known from the number of its topics.
func (f *fetchTopics) uniform() (growth int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.growth, !f.mixed
}

// fetchRequest is what an answer needs of its request.
type fetchRequest struct {
	table  *view.Table
	member *view.Member // the cluster it goes to
	topics *fetchTopics
	edits  []fetchEdit
	fresh  bool // asks for a new fetch session

	throttle int32

	// For the answer that a session gives itself when it drains: that of an incremental
	// fetch says nothing but the id of the fetch session, any other names every
	// partition that was asked for.
	session int32
	body    []byte // as the client sent it; empty: incremental, or too large to keep
}

// fetchEdit is where a request names a topic.
type fetchEdit struct {
	from, to int
	access   *topicAccess
}

var fetchRequests = sync.Pool{New: func() any { return new(fetchRequest) }}

func (f *fetchRequest) free() {
	clear(f.edits)
	*f = fetchRequest{edits: f.edits[:0], body: f.body[:0]}
	fetchRequests.Put(f)
}

// maxHeldAnswer is what a client gets at most of a Fetch whose answer must be held
// whole: names of different growth, or topics that were refused. A single batch
// may be larger (KIP-74).
const maxHeldAnswer = 1 << 20

// fetchHot forwards a frame; false: take the slow way, nothing was changed.
func (s *Session) fetchHot(ctx context.Context, h *header, frame []byte) (bool, error) {
	t := s.vc.Table()
	if t == nil || string(h.clientID) == adminClient {
		return false, nil
	}
	m, node := s.dialled(t)
	if m == nil {
		return false, nil
	}
	c := wire.Cursor{B: frame, Pos: h.body}
	replicaAt := -1
	if h.version <= 14 {
		replicaAt = c.Pos
		c.Skip(4)
	}
	maxWait := c.Int32()
	c.Skip(4)
	maxBytesAt := c.Pos
	maxBytes := c.Int32()
	c.Skip(1) // isolation
	var sessionAt int
	var id, epoch, brokerSession int32
	if h.version >= 7 {
		sessionAt = c.Pos
		id, epoch = c.Int32(), c.Int32()
	} else {
		epoch = -1
	}
	topics, brokerSession := s.fetchSession(t, id, epoch)
	if topics == nil {
		return false, nil
	}
	req := fetchRequests.Get().(*fetchRequest)
	req.table, req.member, req.topics, req.fresh, req.throttle = t, m, topics, epoch == 0, s.throttle
	if !s.parseFetch(&c, h, t, req) || c.Pos != len(frame) {
		req.free()
		if c.Err != nil {
			return false, fmt.Errorf("Fetch v%d: %w", h.version, c.Err)
		}
		return false, nil
	}
	conn, err := s.hold(ctx, m, node, upstream.Fetch)
	if err != nil {
		req.free()
		return false, s.unlessUnavailable(err)
	}
	if id != 0 && epoch > 0 {
		req.session = id
	} else if body := frame[h.body:]; len(body) <= maxParked {
		req.body = append(req.body, body...)
	}
	topics.add(req.edits, h.flexible)
	s.mu.Lock()
	if epoch == -1 {
		s.fetch.client, s.fetch.broker = 0, 0
	}
	s.fetch.topics = topics
	s.mu.Unlock()
	if replicaAt >= 0 {
		binary.BigEndian.PutUint32(frame[replicaAt:], 0xffffffff)
	}
	if most := s.fetchAtOnce(maxBytes); most < maxBytes {
		maxBytes = most
		binary.BigEndian.PutUint32(frame[maxBytesAt:], uint32(maxBytes))
	}
	if sessionAt > 0 {
		binary.BigEndian.PutUint32(frame[sessionAt:], uint32(brokerSession))
	}
	if h.version >= 13 {
		for i := range req.edits {
			copy(frame[req.edits[i].from:], req.edits[i].access.topic.Physical.ID[:])
		}
		s.up.Append(frame)
	} else {
		if _, ok := topics.uniform(); !ok {
			binary.BigEndian.PutUint32(frame[maxBytesAt:], uint32(min(maxBytes, maxHeldAnswer)))
		}
		s.up.Begin()
		from := 4
		for i := range req.edits {
			e := &req.edits[i]
			s.up.Append(frame[from:e.from])
			s.up.String(h.flexible, "", e.access.topic.Physical.Name)
			from = e.to
		}
		s.up.Append(frame[from:])
		s.up.End()
	}
	return true, s.send(conn, h, req, time.Duration(max(maxWait, 0))*time.Millisecond+grace)
}

// fetchSession finds what the topics of a request belong to, and the broker's id of
// the session; nil: there is no such session, or its topics were judged under
// other rights.
func (s *Session) fetchSession(t *view.Table, id, epoch int32) (topics *fetchTopics, broker int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	topics = s.fetch.topics
	if topics != nil && topics.view != t.View {
		topics = nil
	}
	switch {
	case id != 0 && id != s.fetch.client:
		return nil, 0
	case id != 0:
		return topics, s.fetch.broker
	case topics == nil, epoch == 0, s.fetch.client != 0:
		return &fetchTopics{
			view: t.View, byName: make(map[string]*topicAccess), byID: make(map[[16]byte]*topicAccess),
		}, 0
	}
	return topics, 0
}

// parseFetch walks the topics; false: something is to be refused or is unusual.
func (s *Session) parseFetch(c *wire.Cursor, h *header, t *view.Table, req *fetchRequest) bool {
	topicOf := func() *topicAccess {
		from := c.Pos
		var topic *view.Topic
		if h.version >= 13 {
			if b := c.Skip(16); b != nil {
				topic = t.TopicByID([16]byte(b))
			}
		} else {
			topic = t.TopicBytes(c.String(h.flexible))
		}
		if topic == nil || topic.Member != req.member {
			return nil
		}
		a := s.topicAccess(t, topic)
		s.countFetched(t, a)
		req.edits = append(req.edits, fetchEdit{from: from, to: c.Pos, access: a})
		return a
	}
	partition := 4 + 8 + 4 // index, offset, max bytes
	if h.version >= 5 {
		partition += 8
	}
	if h.version >= 9 {
		partition += 4
	}
	if h.version >= 12 {
		partition += 4
	}
	for range c.Array(h.flexible) {
		a := topicOf()
		if c.Err != nil || a == nil || !a.read {
			return false
		}
		for range c.Array(h.flexible) {
			c.Skip(partition)
			if h.flexible && c.Tags() {
				return false
			}
		}
		if h.flexible && c.Tags() {
			return false
		}
	}
	if h.version >= 7 {
		for range c.Array(h.flexible) {
			if topicOf() == nil {
				return false
			}
			c.Skip(4 * c.Array(h.flexible))
			if h.flexible && c.Tags() {
				return false
			}
		}
	}
	if h.version >= 11 && c.String(h.flexible) == nil { // the rack, which is empty and never null
		return false
	}
	if h.flexible && c.Tags() {
		return false
	}
	return c.Err == nil
}

// fetch is the slow way: without a fetch session, refusals merged with what the
// broker answers.
func fetch(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.FetchRequest)
	resp := req.ResponseKind().(*kmsg.FetchResponse)
	if req.SessionID != 0 && req.SessionEpoch > 0 {
		// Unknown, someone else's, or made under other rights: the client
		// answers with a full fetch, which is judged anew.
		s.mu.Lock()
		s.fetch = fetchSession{}
		s.mu.Unlock()
		resp.ErrorCode = s.refused(refusal.FetchSessionUnknown)
		return resp, nil
	}
	t, err := s.vc.Fresh(ctx, time.Minute)
	var m *view.Member
	if err == nil {
		t = s.having(ctx, t, func(t *view.Table) bool {
			return !slices.ContainsFunc(req.Topics, func(rt kmsg.FetchRequestTopic) bool { return !has(t, req.Version >= 13, rt.Topic, rt.TopicID) })
		})
		m, _ = s.dialled(t)
	}
	forward := *req
	forward.ReplicaID = -1
	forward.ReplicaState = kmsg.NewFetchRequestReplicaState()
	forward.ClusterID = nil
	forward.SessionID, forward.SessionEpoch, forward.ForgottenTopics = 0, -1, nil
	forward.Topics = nil
	forward.MaxBytes = s.fetchAtOnce(min(req.MaxBytes, maxHeldAnswer))
	for _, rt := range req.Topics {
		var topic *view.Topic
		var code int16
		if err != nil {
			code = s.refused(refusal.BrokerUnavailable.With(err))
		} else {
			topic, code = s.nameOrID(t, kmsg.ACLOperationRead, req.Version >= 13, rt.Topic, rt.TopicID)
			if code == 0 && topic.Member != m {
				code = s.refused(refusal.TopicElsewhere, "topic", topic.Name)
			}
		}
		if code != 0 {
			resp.Topics = append(resp.Topics, refusedFetch(rt, code))
			continue
		}
		ft := rt
		ft.Topic, ft.TopicID = topic.Physical.Name, topic.Physical.ID
		ft.Partitions = append([]kmsg.FetchRequestTopicPartition(nil), rt.Partitions...)
		for i := range ft.Partitions {
			ft.Partitions[i].ReplicaDirectoryID = [16]byte{}
			ft.Partitions[i].HighWatermark = 1<<63 - 1
		}
		forward.Topics = append(forward.Topics, ft)
	}
	if len(forward.Topics) == 0 {
		return resp, nil
	}
	waiting, stop := s.untilLeaving(ctx)
	up, err := s.request(waiting, t, upstream.Fetch, time.Duration(max(req.MaxWaitMillis, 0))*time.Millisecond+grace, &forward)
	stop()
	if err != nil && errors.Is(context.Cause(waiting), errParked) {
		for _, ft := range forward.Topics {
			topic := m.Topic(ft.Topic)
			ft.Topic, ft.TopicID = topic.Name, topic.ID
			resp.Topics = append(resp.Topics, refusedFetch(ft, 0))
		}
		return resp, nil
	}
	if err != nil {
		for _, ft := range forward.Topics {
			topic := m.Topic(ft.Topic)
			ft.Topic, ft.TopicID = topic.Name, topic.ID
			resp.Topics = append(resp.Topics, refusedFetch(ft, s.refused(refusal.BrokerUnavailable.With(err))))
		}
		return resp, nil
	}
	answer := up.(*kmsg.FetchResponse)
	if err := s.mapFetchResponse(t, m, answer); err != nil {
		return nil, err
	}
	answer.Topics = append(resp.Topics, answer.Topics...)
	answer.SessionID = 0
	return answer, nil
}

func refusedFetch(rt kmsg.FetchRequestTopic, code int16) kmsg.FetchResponseTopic {
	out := kmsg.NewFetchResponseTopic()
	out.Topic, out.TopicID = rt.Topic, rt.TopicID
	for _, p := range rt.Partitions {
		rp := kmsg.NewFetchResponseTopicPartition()
		rp.Partition, rp.ErrorCode = p.Partition, code
		rp.HighWatermark, rp.LastStableOffset, rp.LogStartOffset = -1, -1, -1
		rp.RecordBatches = []byte{}
		rp.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
		out.Partitions = append(out.Partitions, rp)
	}
	return out
}

// mapFetchResponse turns physical names, ids and nodes into the client's and counts
// what it is sent.
func (s *Session) mapFetchResponse(t *view.Table, m *view.Member, resp *kmsg.FetchResponse) error {
	for i := range resp.Topics {
		rt := &resp.Topics[i]
		topic := m.Topic(rt.Topic)
		if resp.Version >= 13 {
			topic = m.TopicByID(rt.TopicID)
		}
		if topic == nil {
			return errForeign
		}
		rt.Topic, rt.TopicID = topic.Name, topic.ID
		var bytes, records int64
		for j := range rt.Partitions {
			p := &rt.Partitions[j]
			bytes += int64(len(p.RecordBatches))
			records += wire.Batches(p.RecordBatches)
			p.CurrentLeader.LeaderID = m.VirtualNode(p.CurrentLeader.LeaderID)
			if p.PreferredReadReplica >= 0 {
				p.PreferredReadReplica = m.VirtualNode(p.PreferredReadReplica)
			}
			s.noteError(p.ErrorCode)
		}
		if bytes > 0 {
			s.chargeFetched(bytes)
			a := s.topicAccess(t, topic)
			s.countFetched(t, a)
			a.fetched.Add(uint64(bytes), uint64(records))
			a.fetched.Request()
		}
	}
	for i := range resp.Brokers {
		b := &resp.Brokers[i]
		b.NodeID = m.VirtualNode(b.NodeID)
		b.Host, b.Port = s.client.Advertise(b.NodeID)
	}
	return nil
}
