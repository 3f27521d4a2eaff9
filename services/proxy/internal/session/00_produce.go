package session

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/netio"
	"tollgate.internal/services/proxy/internal/policy"
	"tollgate.internal/services/proxy/internal/producerid"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
	"tollgate.internal/services/proxy/internal/wire"
)

// Produce (PROTOCOL.md §D2, §C): versions 3 to 13; topics by name to 12, by id
// from 13; flexible from 9; CurrentLeader and NodeEndpoints tags from 10.
//
// The hot way patches ids in place or splices names around the records. A
// request with anything to refuse, and an answer with any error, takes the slow
// way through kmsg.

// produceRequest is what an answer needs of its request.
type produceRequest struct {
	table   *view.Table
	member  *view.Member // the cluster it goes to
	edits   []edit
	parts   []produced
	swallow bool // acks=0: the client expects no answer (§C2)

	throttle int32
}

type produced struct {
	access         *topicAccess
	partition      int32
	bytes, records int64
}

// edit is a topic's name in a frame, from its length to its end, or its id.
type edit struct {
	from, to int
	topic    *view.Topic
}

var produceRequests = sync.Pool{New: func() any { return new(produceRequest) }}

func (p *produceRequest) free() {
	clear(p.edits)
	clear(p.parts)
	*p = produceRequest{edits: p.edits[:0], parts: p.parts[:0]}
	produceRequests.Put(p)
}

// adminClient is a client id that lets Produce write to internal topics
// (KafkaApis.handleProduceRequest); no tenant is that.
const adminClient = "__admin_client"

const (
	batchAttributes    = 21
	batchTransactional = 0x10
	batchProducerID    = 43
	batchHeader        = 61
)

// produceHot forwards a frame; false: take the slow way, nothing was changed.
func (s *Session) produceHot(ctx context.Context, h *header, frame []byte) (bool, error) {
	t := s.vc.Table()
	if t == nil || string(h.clientID) == adminClient {
		return false, nil
	}
	m, node := s.dialled(t)
	if m == nil {
		return false, nil
	}
	c := wire.Cursor{B: frame, Pos: h.body}
	xFrom := c.Pos
	xid := c.String(h.flexible)
	xTo := c.Pos
	if xid != nil && (len(t.View.Prefix)+len(xid) > maxString || !s.mayTxn(t, kmsg.ACLOperationWrite, string(xid)) || t.TransactionMember(string(xid)) != m) {
		return false, nil
	}
	acksAt := c.Pos
	acks := c.Int16()
	timeout := c.Int32()
	req := produceRequests.Get().(*produceRequest)
	req.table, req.member, req.swallow, req.throttle = t, m, acks == 0, s.throttle
	if !s.parseProduce(&c, h, t, acks, xid != nil, req) || c.Pos != len(frame) {
		req.free()
		if c.Err != nil {
			return false, fmt.Errorf("Produce v%d: %w", h.version, c.Err)
		}
		return false, nil
	}
	if s.mayOvertake() {
		req.free()
		return false, nil
	}
	conn, err := s.hold(ctx, m, node, upstream.Produce)
	if err != nil {
		req.free()
		return false, s.unlessUnavailable(err)
	}
	if acks == 0 {
		frame[acksAt], frame[acksAt+1] = 0, 1
	}
	if h.version >= 13 && xid == nil {
		for i := range req.edits {
			copy(frame[req.edits[i].from:], req.edits[i].topic.Physical.ID[:])
		}
		s.up.Append(frame)
	} else {
		s.up.Begin()
		s.up.Append(frame[4:xFrom])
		if xid != nil {
			s.up.StringOf(h.flexible, t.View.Prefix, xid)
		} else {
			s.up.Copy(frame[xFrom:xTo])
		}
		s.spliceTopics(&s.up, frame, xTo, req.edits, h, true)
		s.up.End()
	}
	return true, s.send(conn, h, req, time.Duration(max(timeout, 0))*time.Millisecond+grace)
}

// parseProduce walks the topics; false: something is to be refused or is unusual.
func (s *Session) parseProduce(c *wire.Cursor, h *header, t *view.Table, acks int16, transactional bool, req *produceRequest) bool {
	topics := c.Array(h.flexible)
	for range topics {
		from := c.Pos
		var topic *view.Topic
		if h.version >= 13 {
			if b := c.Skip(16); b != nil {
				topic = t.TopicByID([16]byte(b))
			}
		} else {
			topic = t.TopicBytes(c.String(h.flexible))
		}
		if c.Err != nil || topic == nil || topic.Member != req.member {
			return false
		}
		access := s.topicAccess(t, topic)
		if !access.write {
			return false
		}
		s.countProduced(t, access)
		req.edits = append(req.edits, edit{from: from, to: c.Pos, topic: topic})
		partitions := c.Array(h.flexible)
		for range partitions {
			p := produced{access: access, partition: c.Int32()}
			records := c.Records(h.flexible)
			if c.Err != nil || len(records) < batchHeader {
				return false
			}
			if !transactional && records[batchAttributes+1]&batchTransactional != 0 || topic.Member != t.Home && producerOfHome(records) {
				return false
			}
			if access.policy != nil && !access.policy.Admits(acks, records) {
				return false
			}
			p.bytes, p.records = int64(len(records)), wire.Batches(records)
			req.parts = append(req.parts, p)
			if h.flexible && c.Tags() {
				return false
			}
		}
		if h.flexible && c.Tags() {
			return false
		}
	}
	if h.flexible && c.Tags() {
		return false
	}
	return c.Err == nil && topics > 0
}

// spliceTopics appends frame[from:] with the names or ids of edits replaced.
func (s *Session) spliceTopics(out *wire.Splice, frame []byte, from int, edits []edit, h *header, toBroker bool) {
	byID := h.key == keyProduce && h.version >= 13 || h.key == keyFetch && h.version >= 13
	for i := range edits {
		e := &edits[i]
		out.Append(frame[from:e.from])
		switch {
		case byID && toBroker:
			out.Copy(e.topic.Physical.ID[:])
		case byID:
			out.Copy(e.topic.ID[:])
		case toBroker:
			out.String(h.flexible, "", e.topic.Physical.Name)
		default:
			out.String(h.flexible, "", e.topic.Name)
		}
		from = e.to
	}
	out.Append(frame[from:])
}

// gatherLimit is how much is gathered before it is written although more input
// waits.
const gatherLimit = 64 << 10

// send announces the gathered frame and writes it when enough is gathered.
func (s *Session) send(conn *upstream.Conn, h *header, request any, limit time.Duration) error {
	if err := s.expect(conn, h, request, limit); err != nil {
		// The connection died since it was leased. Nothing of this request left.
		s.up.Reset()
		s.settle(1)
		return refusal.BrokerUnavailable.With(err)
	}
	if s.up.Len() >= gatherLimit {
		return s.sendUp()
	}
	return nil
}

// unlessUnavailable lets the slow way answer that no broker can be had.
func (s *Session) unlessUnavailable(err error) error {
	if _, ok := errors.AsType[*upstream.UnavailableError](err); ok {
		return nil
	}
	return err
}

// maxProduceAnswer bounds an answer to Produce, which is held whole: a few dozen
// bytes for each partition.
const maxProduceAnswer = 16 << 20

// produceAnswer maps a broker's answer and counts what was accepted.
func (s *Session) produceAnswer(conn *upstream.Conn, r *netio.Reader, size int, p *upstream.Pending) error {
	req := p.Request.(*produceRequest)
	defer req.free()
	frame, err := r.Frame(maxProduceAnswer)
	if err != nil {
		return err
	}
	if err := s.mapProduceAnswer(p, req, frame); err != nil {
		return err
	}
	if s.down.References() {
		s.writeDown(conn) // before the frame's memory is gone
	}
	r.Discard(size)
	return nil
}

func (s *Session) mapProduceAnswer(p *upstream.Pending, req *produceRequest, frame []byte) error {
	h := header{key: p.Key, version: p.Version, flexible: p.Version >= 9}
	req.edits = req.edits[:0]
	c := wire.Cursor{B: frame, Pos: 8}
	if h.flexible && c.Tags() {
		return errors.New("tags in the header")
	}
	plain := s.parseProduceAnswer(&c, &h, req)
	if c.Err != nil {
		return c.Err
	}
	if !plain {
		return s.produceAnswerSlow(&h, req, frame)
	}
	if req.swallow {
		return nil
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

// parseProduceAnswer walks an answer; false: it has an error or a tag.
func (s *Session) parseProduceAnswer(c *wire.Cursor, h *header, req *produceRequest) bool {
	for range c.Len(h.flexible) {
		from := c.Pos
		var topic *view.Topic
		if h.version >= 13 {
			if b := c.Skip(16); b != nil {
				topic = req.member.TopicByID([16]byte(b))
			}
		} else {
			topic = req.member.TopicBytes(c.String(h.flexible))
		}
		if topic == nil {
			return false
		}
		req.edits = append(req.edits, edit{from: from, to: c.Pos, topic: topic})
		for range c.Len(h.flexible) {
			c.Skip(4) // partition
			if c.Int16() != 0 {
				return false
			}
			c.Skip(16) // base offset, log append time
			if h.version >= 5 {
				c.Skip(8)
			}
			if h.version >= 8 && (c.Len(h.flexible) > 0 || c.String(h.flexible) != nil) {
				return false
			}
			if h.flexible && c.Tags() {
				return false
			}
		}
		if h.flexible && c.Tags() {
			return false
		}
	}
	raise(c.Skip(4), req.throttle)
	if h.flexible && c.Tags() {
		return false
	}
	if c.Err == nil {
		for i := range req.parts {
			part := &req.parts[i]
			part.access.produced.Add(uint64(part.bytes), uint64(part.records))
			if i == 0 || req.parts[i-1].access != part.access {
				part.access.produced.Request()
			}
		}
	}
	return true
}

func (s *Session) produceAnswerSlow(h *header, req *produceRequest, frame []byte) error {
	kreq := kmsg.NewPtrProduceRequest()
	kreq.Version = h.version
	resp := kreq.ResponseKind().(*kmsg.ProduceResponse)
	body := frame[8:]
	if h.flexible {
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		return err
	}
	failed, err := s.mapProduceResponse(req.member, resp)
	if err != nil {
		return err
	}
	resp.ThrottleMillis = max(resp.ThrottleMillis, req.throttle)
	for i := range req.parts {
		part := &req.parts[i]
		if !failed[produceKey{part.access.topic, part.partition}] {
			part.access.produced.Add(uint64(part.bytes), uint64(part.records))
		}
	}
	if req.swallow {
		s.fail(refusal.RefusedWithoutAcks)
		return nil
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

type produceKey struct {
	topic     *view.Topic
	partition int32
}

// mapProduceResponse turns physical names, ids, nodes and texts into the client's.
func (s *Session) mapProduceResponse(m *view.Member, resp *kmsg.ProduceResponse) (map[produceKey]bool, error) {
	failed := make(map[produceKey]bool)
	for i := range resp.Topics {
		rt := &resp.Topics[i]
		var topic *view.Topic
		if resp.Version >= 13 {
			topic = m.TopicByID(rt.TopicID)
		} else {
			topic = m.Topic(rt.Topic)
		}
		if topic == nil {
			return nil, errForeign
		}
		rt.Topic, rt.TopicID = topic.Name, topic.ID
		for j := range rt.Partitions {
			p := &rt.Partitions[j]
			p.CurrentLeader.LeaderID = m.VirtualNode(p.CurrentLeader.LeaderID)
			if p.ErrorCode == 0 {
				continue
			}
			failed[produceKey{topic, p.Partition}] = true
			p.ErrorMessage = ownText(p.ErrorCode, p.ErrorMessage)
			for k := range p.ErrorRecords {
				p.ErrorRecords[k].ErrorMessage = ownText(p.ErrorCode, p.ErrorRecords[k].ErrorMessage)
			}
			s.noteError(p.ErrorCode)
		}
	}
	for i := range resp.Brokers {
		b := &resp.Brokers[i]
		b.NodeID = m.VirtualNode(b.NodeID)
		b.Host, b.Port = s.client.Advertise(b.NodeID)
	}
	return failed, nil
}

// ownText replaces a broker's words, which can hold physical names, hosts and
// principals, by those of the code; where it says nothing, nothing is said.
func ownText(code int16, said *string) *string {
	if said == nil || *said == "" {
		return said
	}
	return stockText(code)
}

// stockText is what Kafka says about a code in general.
func stockText(code int16) *string {
	if err := kerr.TypedErrorForCode(code); err != nil {
		return kmsg.StringPtr(err.Description)
	}
	return nil
}

// noteError refreshes metadata when an answer shows that it has changed.
func (s *Session) noteError(code int16) {
	switch code {
	case kerr.UnknownTopicOrPartition.Code, kerr.LeaderNotAvailable.Code, kerr.NotLeaderForPartition.Code, kerr.UnknownTopicID.Code,
		kerr.InconsistentTopicID.Code, kerr.FencedLeaderEpoch.Code, kerr.UnknownLeaderEpoch.Code, kerr.ReplicaNotAvailable.Code, kerr.KafkaStorageError.Code:
		s.markStale()
	}
}

// produce is the slow way: it refuses what is to be refused and forwards the rest.
func produce(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.ProduceRequest)
	resp := req.ResponseKind().(*kmsg.ProduceResponse)
	swallow := req.Acks == 0
	t, err := s.vc.Fresh(ctx, time.Minute)
	if err != nil {
		return s.produceRefuseAll(req, resp, s.refused(refusal.BrokerUnavailable.With(err)), swallow)
	}
	t = s.having(ctx, t, func(t *view.Table) bool {
		return !slices.ContainsFunc(req.Topics, func(rt kmsg.ProduceRequestTopic) bool { return !has(t, req.Version >= 13, rt.Topic, rt.TopicID) })
	})
	if code := s.produceTxnCode(t, req); code != 0 {
		return s.produceRefuseAll(req, resp, code, swallow)
	}
	m, _ := s.dialled(t)
	forward := *req
	forward.Topics = nil
	if req.TransactionID != nil {
		forward.TransactionID = kmsg.StringPtr(t.View.Prefix + *req.TransactionID)
	}
	if swallow {
		forward.Acks = 1
	}
	var accepted []kmsg.ProduceRequestTopic
	var barred []kmsg.ProduceResponseTopic
	for _, rt := range req.Topics {
		topic, code := s.nameOrID(t, kmsg.ACLOperationWrite, req.Version >= 13, rt.Topic, rt.TopicID)
		if code != 0 {
			resp.Topics = append(resp.Topics, refusedProduce(rt, code, nil))
			continue
		}
		if why := s.misplaced(t, m, topic, req, &rt); why != nil {
			code, text := s.refusedText(why, "topic", topic.Name)
			resp.Topics = append(resp.Topics, refusedProduce(rt, code, text))
			continue
		}
		if steps := s.topicAccess(t, topic).policy; steps != nil {
			if out := s.bar(steps, req.Acks, topic, &rt); len(out.Partitions) > 0 {
				barred = append(barred, out)
			}
			if len(rt.Partitions) == 0 {
				continue
			}
		}
		accepted = append(accepted, rt)
		rt.Topic, rt.TopicID = topic.Physical.Name, topic.Physical.ID
		forward.Topics = append(forward.Topics, rt)
	}
	if len(forward.Topics) > 0 {
		var up kmsg.Response
		err := errOvertakes
		if !s.mayOvertake() {
			up, err = s.request(ctx, t, upstream.Produce, time.Duration(max(req.TimeoutMillis, 0))*time.Millisecond+grace, &forward)
			if err := s.unlessUnavailable(err); err != nil {
				return nil, err
			}
			if err != nil {
				s.turnedAway = time.Now()
			}
		}
		if err != nil {
			code := s.refused(refusal.BrokerUnavailable.With(err))
			for _, rt := range accepted {
				resp.Topics = append(resp.Topics, refusedProduce(rt, code, nil))
			}
		} else {
			answer := up.(*kmsg.ProduceResponse)
			failed, err := s.mapProduceResponse(m, answer)
			if err != nil {
				return nil, err
			}
			resp.Topics = append(resp.Topics, answer.Topics...)
			resp.Brokers, resp.ThrottleMillis = answer.Brokers, answer.ThrottleMillis
			for _, ft := range forward.Topics {
				topic := m.Topic(ft.Topic)
				access := s.topicAccess(t, topic)
				s.countProduced(t, access)
				for _, p := range ft.Partitions {
					if !failed[produceKey{topic, p.Partition}] {
						access.produced.Add(uint64(len(p.Records)), uint64(wire.Batches(p.Records)))
					}
				}
				access.produced.Request()
			}
		}
	}
	for _, b := range barred { // beside its other partitions: some clients take a topic's last entry only
		i := slices.IndexFunc(resp.Topics, func(t kmsg.ProduceResponseTopic) bool { return t.Topic == b.Topic && t.TopicID == b.TopicID })
		if i < 0 {
			resp.Topics = append(resp.Topics, b)
			continue
		}
		resp.Topics[i].Partitions = append(resp.Topics[i].Partitions, b.Partitions...)
	}
	if swallow {
		return nil, s.refusedWithoutAcks(resp)
	}
	return resp, nil
}

// bar takes those partitions from rt whose records a policy refuses, and answers them.
func (s *Session) bar(steps *policy.Produce, acks int16, topic *view.Topic, rt *kmsg.ProduceRequestTopic) kmsg.ProduceResponseTopic {
	out := kmsg.NewProduceResponseTopic()
	out.Topic, out.TopicID = topic.Name, topic.ID
	var rest []kmsg.ProduceRequestTopicPartition
	for _, p := range rt.Partitions {
		why := steps.Refuse(acks, p.Records)
		if why == nil {
			rest = append(rest, p)
			continue
		}
		code, text := s.refusedText(why, "topic", topic.Name, "partition", p.Partition)
		one := refusedProduce(kmsg.ProduceRequestTopic{Partitions: []kmsg.ProduceRequestTopicPartition{p}}, code, text)
		out.Partitions = append(out.Partitions, one.Partitions...)
	}
	rt.Partitions = rest
	return out
}

// misplaced is why a topic that the client may write is not written through m, the
// cluster of the broker it dialled; nil: it is.
func (s *Session) misplaced(t *view.Table, m *view.Member, topic *view.Topic, req *kmsg.ProduceRequest, rt *kmsg.ProduceRequestTopic) error {
	if id := req.TransactionID; id != nil && topic.Member != t.TransactionMember(*id) && transactional(rt) {
		return s.refuseElsewhere(*id, topic.Name, req.Version >= 11)
	}
	switch {
	case topic.Member != m:
		return refusal.TopicElsewhere
	case m != t.Home && slices.ContainsFunc(rt.Partitions, func(p kmsg.ProduceRequestTopicPartition) bool {
		return len(p.Records) >= batchHeader && producerOfHome(p.Records)
	}):
		return refusal.ProducerOfHome.Tell("the producer got its id before the virtual cluster had several clusters: start it anew")
	}
	return nil
}

func transactional(rt *kmsg.ProduceRequestTopic) bool {
	return slices.ContainsFunc(rt.Partitions, func(p kmsg.ProduceRequestTopicPartition) bool {
		return len(p.Records) >= batchHeader && p.Records[batchAttributes+1]&batchTransactional != 0
	})
}

// producerOfHome reports whether a batch has the id of an idempotent producer that
// home gave out: on another cluster it is somebody else's (PROTOCOL.md §C1).
func producerOfHome(records []byte) bool {
	id := int64(binary.BigEndian.Uint64(records[batchProducerID:]))
	return id >= 0 && id < producerid.First && records[batchAttributes+1]&batchTransactional == 0
}

// overtaking is for how long after a Produce could not be sent others are not
// either. What comes so soon was sent before the client heard of it, and its broker,
// back at this very moment, might take it: before what the client is to send again
// (PROTOCOL.md §H2). It is less than any client waits before it does
// (retry.backoff.ms, 100 with a jitter of a fifth).
const overtaking = 50 * time.Millisecond

var errOvertakes = errors.New("the request before it could not be sent a moment ago")

func (s *Session) mayOvertake() bool {
	return !s.turnedAway.IsZero() && time.Since(s.turnedAway) < overtaking
}

// produceTxnCode is a refusal of the whole request (§C3).
func (s *Session) produceTxnCode(t *view.Table, req *kmsg.ProduceRequest) int16 {
	if id := req.TransactionID; id != nil && len(t.View.Prefix)+len(*id) > maxString {
		return s.refused(refusal.Invalid.Errorf("a transactional id of %d bytes", len(*id)))
	}
	for _, rt := range req.Topics {
		for _, p := range rt.Partitions {
			if len(p.Records) >= batchHeader && p.Records[batchAttributes+1]&batchTransactional != 0 {
				if req.TransactionID == nil {
					return s.refused(refusal.IDMissing)
				}
				if why := s.refuseTxn(t, kmsg.ACLOperationWrite, *req.TransactionID); why != nil {
					return s.refused(why, "transactional_id", *req.TransactionID)
				}
			}
		}
	}
	return 0
}

func refusedProduce(rt kmsg.ProduceRequestTopic, code int16, text *string) kmsg.ProduceResponseTopic {
	out := kmsg.NewProduceResponseTopic()
	out.Topic, out.TopicID = rt.Topic, rt.TopicID
	for _, p := range rt.Partitions {
		rp := kmsg.NewProduceResponseTopicPartition()
		rp.Partition, rp.ErrorCode, rp.BaseOffset, rp.LogAppendTime, rp.LogStartOffset = p.Partition, code, -1, -1, -1
		rp.ErrorMessage = text
		out.Partitions = append(out.Partitions, rp)
	}
	return out
}

func (s *Session) produceRefuseAll(req *kmsg.ProduceRequest, resp *kmsg.ProduceResponse, code int16, swallow bool) (kmsg.Response, error) {
	for _, rt := range req.Topics {
		resp.Topics = append(resp.Topics, refusedProduce(rt, code, nil))
	}
	if swallow {
		return nil, s.refusedWithoutAcks(resp)
	}
	return resp, nil
}

// refusedWithoutAcks closes the connection when anything failed: with acks=0 there
// is no other way to say so, and a broker does the same.
func (s *Session) refusedWithoutAcks(resp *kmsg.ProduceResponse) error {
	for _, rt := range resp.Topics {
		for _, p := range rt.Partitions {
			if p.ErrorCode != 0 {
				return refusal.RefusedWithoutAcks.With(kerr.ErrorForCode(p.ErrorCode))
			}
		}
	}
	return nil
}
