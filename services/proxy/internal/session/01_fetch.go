package session

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

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

// fetchSessions is the client's fetch session on this connection, if it has one.
type fetchSessions struct {
	client, broker int32
	view           *view.View // under which its topics were judged
	byName         map[string]*view.Topic
	byID           map[[16]byte]*view.Topic
}

type fetchRequest struct {
	table *view.Table
	edits []edit
	fresh bool // asks for a new fetch session
	known *fetchSessions
}

var fetchRequests = sync.Pool{New: func() any { return new(fetchRequest) }}

func (f *fetchRequest) free() {
	clear(f.edits)
	*f = fetchRequest{edits: f.edits[:0]}
	fetchRequests.Put(f)
}

// fetchHot forwards a frame; false: take the slow way, nothing was changed.
func (s *Session) fetchHot(ctx context.Context, h *header, frame []byte) (bool, error) {
	t := s.vc.Table()
	if t == nil || string(h.clientID) == adminClient {
		return false, nil
	}
	c := wire.Cursor{B: frame, Pos: h.body}
	replicaAt := -1
	if h.version <= 14 {
		replicaAt = c.Pos
		c.Skip(4)
	}
	maxWait := c.Int32()
	c.Skip(4 + 4 + 1) // min bytes, max bytes, isolation
	req := fetchRequests.Get().(*fetchRequest)
	req.table = t
	sessionAt := -1
	var brokerSession int32
	if h.version >= 7 {
		sessionAt = c.Pos
		id, epoch := c.Int32(), c.Int32()
		s.mu.Lock()
		if id != 0 && (id != s.fetch.client || s.fetch.view != t.View) {
			s.mu.Unlock()
			req.free()
			return false, nil
		}
		if id != 0 {
			brokerSession = s.fetch.broker
			if epoch == -1 {
				s.fetch = fetchSessions{}
			}
		}
		s.mu.Unlock()
		req.fresh = epoch == 0
	}
	if !s.parseFetch(&c, h, t, req) || c.Pos != len(frame) {
		req.free()
		if c.Err != nil {
			return false, fmt.Errorf("Fetch v%d: %w", h.version, c.Err)
		}
		return false, nil
	}
	conn, err := s.hold(ctx, upstream.Fetch)
	if err != nil {
		req.free()
		return false, s.unlessUnavailable(err)
	}
	if replicaAt >= 0 {
		binary.BigEndian.PutUint32(frame[replicaAt:], 0xffffffff)
	}
	if sessionAt >= 0 {
		binary.BigEndian.PutUint32(frame[sessionAt:], uint32(brokerSession))
		s.rememberTopics(t, req)
	}
	if h.version >= 13 {
		for i := range req.edits {
			copy(frame[req.edits[i].from:], req.edits[i].topic.Physical.ID[:])
		}
		s.up.Append(frame)
	} else {
		s.up.Begin()
		s.spliceTopics(&s.up, frame, 4, req.edits, h, true)
		s.up.End()
	}
	return true, s.send(conn, h, req, time.Duration(max(maxWait, 0))*time.Millisecond+grace)
}

// rememberTopics keeps the topics of a fetch session: its answers may name any of
// them, also after the metadata has moved on.
func (s *Session) rememberTopics(t *view.Table, req *fetchRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if req.fresh {
		s.fetch = fetchSessions{view: t.View}
	}
	if s.fetch.byName == nil {
		s.fetch.byName = make(map[string]*view.Topic)
		s.fetch.byID = make(map[[16]byte]*view.Topic)
	}
	for i := range req.edits {
		topic := req.edits[i].topic
		s.fetch.byName[topic.Physical.Name] = topic
		s.fetch.byID[topic.Physical.ID] = topic
	}
}

// parseFetch walks the topics; false: something is to be refused or is unusual.
func (s *Session) parseFetch(c *wire.Cursor, h *header, t *view.Table, req *fetchRequest) bool {
	topicOf := func() *view.Topic {
		from := c.Pos
		var topic *view.Topic
		if h.version >= 13 {
			if b := c.Skip(16); b != nil {
				topic = t.TopicByID([16]byte(b))
			}
		} else {
			topic = t.TopicBytes(c.String(h.flexible))
		}
		if topic != nil {
			req.edits = append(req.edits, edit{from: from, to: c.Pos, topic: topic})
		}
		return topic
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
	for range c.Len(h.flexible) {
		topic := topicOf()
		if c.Err != nil || topic == nil || !s.topicAccess(t, topic).read {
			return false
		}
		for range c.Len(h.flexible) {
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
		for range c.Len(h.flexible) {
			if topicOf() == nil {
				return false
			}
			c.Skip(4 * c.Len(h.flexible))
			if h.flexible && c.Tags() {
				return false
			}
		}
	}
	if h.version >= 11 {
		c.String(h.flexible)
	}
	if h.flexible && c.Tags() {
		return false
	}
	return c.Err == nil
}

// fetchAnswer maps a broker's answer and counts what the client is sent.
func (s *Session) fetchAnswer(p *upstream.Pending, frame []byte) error {
	req := p.Request.(*fetchRequest)
	defer req.free()
	h := header{key: p.Key, version: p.Version, flexible: p.Version >= 12}
	req.edits = req.edits[:0]
	c := wire.Cursor{B: frame, Pos: 8}
	if h.flexible && c.Tags() {
		return errors.New("tags in the header")
	}
	c.Skip(4) // throttle
	if h.version >= 7 {
		code := c.Int16()
		at := c.Pos
		id := c.Int32()
		if c.Err != nil {
			return c.Err
		}
		binary.BigEndian.PutUint32(frame[at:], uint32(s.clientSession(req, code, id)))
	}
	plain, err := s.parseFetchAnswer(&c, &h, req)
	if err != nil {
		return err
	}
	if c.Err != nil {
		return c.Err
	}
	if !plain {
		return s.fetchAnswerSlow(&h, req, frame)
	}
	if h.version >= 13 {
		for i := range req.edits {
			copy(frame[req.edits[i].from:], req.edits[i].topic.ID[:])
		}
		s.down.Append(frame)
		return nil
	}
	s.down.Begin()
	s.spliceTopics(&s.down, frame, 4, req.edits, &h, false)
	s.down.End()
	return nil
}

// clientSession is the id the client knows the broker's session by.
func (s *Session) clientSession(req *fetchRequest, code int16, id int32) int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if code != 0 || id == 0 {
		if code != 0 || req.fresh {
			s.fetch.client, s.fetch.broker = 0, 0
		}
		return 0
	}
	if s.fetch.broker != id {
		s.fetch.broker = id
		s.fetch.client = 1 + rand.Int32N(1<<31-1)
	}
	return s.fetch.client
}

// fetched finds the topic of an answer.
func (s *Session) fetched(t *view.Table, byID bool, name []byte, id [16]byte) *view.Topic {
	var topic *view.Topic
	if byID {
		topic = t.VirtualByID(id)
	} else {
		topic = t.VirtualBytes(name)
	}
	if topic != nil {
		return topic
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if byID {
		return s.fetch.byID[id]
	}
	return s.fetch.byName[string(name)]
}

// parseFetchAnswer walks an answer; false: it has a tag, which takes the slow way.
func (s *Session) parseFetchAnswer(c *wire.Cursor, h *header, req *fetchRequest) (bool, error) {
	for range c.Len(h.flexible) {
		from := c.Pos
		var topic *view.Topic
		if h.version >= 13 {
			if b := c.Skip(16); b != nil {
				topic = s.fetched(req.table, true, nil, [16]byte(b))
			}
		} else {
			topic = s.fetched(req.table, false, c.String(h.flexible), [16]byte{})
		}
		if c.Err != nil {
			return false, c.Err
		}
		if topic == nil {
			return false, errors.New("answer names a topic that was not asked for")
		}
		req.edits = append(req.edits, edit{from: from, to: c.Pos, topic: topic})
		var bytes, records int64
		for range c.Len(h.flexible) {
			c.Skip(4)
			if code := c.Int16(); code != 0 {
				s.noteError(code)
			}
			c.Skip(16) // high watermark, last stable offset
			if h.version >= 5 {
				c.Skip(8)
			}
			for range c.Len(h.flexible) {
				c.Skip(16)
				if h.flexible && c.Tags() {
					return false, nil
				}
			}
			if h.version >= 11 {
				at := c.Pos
				node := c.Int32()
				if c.Err == nil && node >= 0 {
					binary.BigEndian.PutUint32(c.B[at:], uint32(req.table.VirtualNode(node)))
				}
			}
			b := c.Records(h.flexible)
			bytes += int64(len(b))
			records += wire.Batches(b)
			if h.flexible && c.Tags() {
				return false, nil
			}
		}
		if h.flexible && c.Tags() {
			return false, nil
		}
		last := &req.edits[len(req.edits)-1]
		last.bytes, last.records = bytes, records
	}
	if h.flexible && c.Tags() {
		return false, nil
	}
	if c.Err == nil {
		for i := range req.edits {
			s.countFetched(req.table, req.edits[i].topic, req.edits[i].bytes, req.edits[i].records)
		}
	}
	return true, nil
}

func (s *Session) fetchAnswerSlow(h *header, req *fetchRequest, frame []byte) error {
	kreq := kmsg.NewPtrFetchRequest()
	kreq.Version = h.version
	resp := kreq.ResponseKind().(*kmsg.FetchResponse)
	body := frame[8:]
	if h.flexible {
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		return err
	}
	if err := s.mapFetchResponse(req.table, resp); err != nil {
		return err
	}
	stripUnknownTags(resp)
	s.down.Begin()
	s.down.Copy(frame[4:8])
	if h.flexible {
		s.down.Copy([]byte{0})
	}
	s.down.Copy(resp.AppendTo(nil))
	s.down.End()
	return nil
}

func (s *Session) mapFetchResponse(t *view.Table, resp *kmsg.FetchResponse) error {
	for i := range resp.Topics {
		rt := &resp.Topics[i]
		topic := s.fetched(t, resp.Version >= 13, []byte(rt.Topic), rt.TopicID)
		if topic == nil {
			return errors.New("answer names a topic that was not asked for")
		}
		rt.Topic, rt.TopicID = topic.Name, topic.ID
		var bytes, records int64
		for j := range rt.Partitions {
			p := &rt.Partitions[j]
			bytes += int64(len(p.RecordBatches))
			records += wire.Batches(p.RecordBatches)
			p.CurrentLeader.LeaderID = t.VirtualNode(p.CurrentLeader.LeaderID)
			if p.PreferredReadReplica >= 0 {
				p.PreferredReadReplica = t.VirtualNode(p.PreferredReadReplica)
			}
			s.noteError(p.ErrorCode)
		}
		s.countFetched(t, topic, bytes, records)
	}
	for i := range resp.Brokers {
		b := &resp.Brokers[i]
		b.NodeID = t.VirtualNode(b.NodeID)
		b.Host, b.Port = s.client.Advertise(b.NodeID)
	}
	return nil
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
		s.fetch = fetchSessions{}
		s.mu.Unlock()
		resp.ErrorCode = kerr.FetchSessionIDNotFound.Code
		return resp, nil
	}
	t, err := s.vc.Fresh(ctx, time.Minute)
	forward := *req
	forward.ReplicaID = -1
	forward.ReplicaState = kmsg.NewFetchRequestReplicaState()
	forward.ClusterID = nil
	forward.SessionID, forward.SessionEpoch, forward.ForgottenTopics = 0, -1, nil
	forward.Topics = nil
	for _, rt := range req.Topics {
		var topic *view.Topic
		code := kerr.NotLeaderForPartition.Code
		if err == nil {
			topic, code = s.nameOrID(t, kmsg.ACLOperationRead, req.Version >= 13, rt.Topic, rt.TopicID)
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
	up, err := s.request(ctx, upstream.Fetch, time.Duration(max(req.MaxWaitMillis, 0))*time.Millisecond+grace, &forward)
	if err != nil {
		s.vc.Home.MarkStale()
		for _, ft := range forward.Topics {
			topic := t.Virtual(ft.Topic)
			ft.Topic, ft.TopicID = topic.Name, topic.ID
			resp.Topics = append(resp.Topics, refusedFetch(ft, kerr.NotLeaderForPartition.Code))
		}
		return resp, nil
	}
	answer := up.(*kmsg.FetchResponse)
	if err := s.mapFetchResponse(t, answer); err != nil {
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
		out.Partitions = append(out.Partitions, rp)
	}
	return out
}
