package session

import (
	"bytes"
	"encoding/binary"
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/netio"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
	"tollgate.internal/services/proxy/internal/wire"
)

// fuzzed is a session that is not run, with the table of a virtual cluster that has
// the topics orders and a.
type fuzzed struct {
	*Session
	table *view.Table
	sent  capture // what the client is sent
}

func newFuzzed(f *testing.F) *fuzzed {
	f.Helper()
	h := newHotSession(f, newHotBroker(f, "open.orders", longName))
	z := &fuzzed{table: h.table}
	client := *h.session.client
	client.Sock = netio.New(&z.sent)
	client.Net = client.Sock
	z.Session = New(h.session.node, &client, h.session.vc)
	z.principal = "User:ANONYMOUS"
	return z
}

// topics are the table's, and names and ids are theirs.
func (z *fuzzed) topics() []*view.Topic {
	return []*view.Topic{z.table.Topic("orders"), z.table.Topic("a")}
}

// capture is a connection that is only written to.
type capture struct {
	net.Conn
	bytes.Buffer
}

func (c *capture) Write(b []byte) (int, error) { return c.Buffer.Write(b) }
func (c *capture) Read([]byte) (int, error)    { return 0, net.ErrClosed }
func (c *capture) Close() error                { return nil }

// FuzzHeader: every request header is read as kmsg reads it, or not at all.
func FuzzHeader(f *testing.F) {
	for _, req := range []kmsg.Request{&kmsg.MetadataRequest{Version: 1}, &kmsg.MetadataRequest{Version: 12}, kmsg.NewPtrSASLHandshakeRequest()} {
		f.Add(frameOf(req, 7))
	}
	f.Add([]byte{0, 0, 0, 10, 0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, err := parseHeader(frame)
		if err != nil {
			return
		}
		if e := entryOf(h.key); e != nil {
			h.flexible = e.flexible >= 0 && h.version >= e.flexible
		}
		if err := h.rest(frame); err != nil {
			return
		}
		if h.body < 14 || h.body > len(frame) || len(h.clientID) > h.body-14 {
			t.Fatalf("%x: a client id of %d bytes and a body at %d of %d", frame, len(h.clientID), h.body, len(frame))
		}
		out := append([]byte(nil), frame[:12]...)
		if h.clientID == nil {
			out = append(out, frame[12:14]...) // any negative length
		} else {
			out = append(binary.BigEndian.AppendUint16(out, uint16(len(h.clientID))), h.clientID...)
		}
		if !h.flexible && !bytes.Equal(out, frame[:h.body]) || h.flexible && !bytes.HasPrefix(frame[:h.body], out) {
			t.Errorf("%x was read as %+v", frame, h)
		}
	})
}

// FuzzProduceRequest and FuzzFetchRequest: what is forwarded without decoding is a
// whole request by the schema, written in the one way there is to write it: what a
// broker reads is what was judged.
func FuzzProduceRequest(f *testing.F) {
	z := newFuzzed(f)
	for _, v := range []int16{3, 8, 9, 12, 13} {
		for _, topic := range z.topics() {
			f.Add(frameOf(produceOf(v, topic.Name, topic.ID, batch(200, 3)), 1))
		}
	}
	transactional := produceOf(9, "orders", [16]byte{}, batch(100, 1))
	transactional.TransactionID = kmsg.StringPtr("t")
	f.Add(frameOf(transactional, 1))
	for _, msg := range seeds(f, keyProduce, "client_request", z.table) {
		f.Add(frameOf(msg.(kmsg.Request), 1))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, ok := headerOf(frame, keyProduce)
		if !ok {
			return
		}
		c := wire.Cursor{B: frame, Pos: h.body}
		xid := c.String(h.flexible)
		acks := c.Int16()
		c.Int32()
		req := new(produceRequest)
		if !z.parseProduce(&c, &h, z.table, acks, xid != nil, req) || c.Pos != len(frame) {
			return
		}
		decoded := kmsg.NewPtrProduceRequest()
		wantWritten(t, &h, frame, decoded)
		var names []string
		var records int
		for _, rt := range decoded.Topics {
			topic := z.table.Topic(rt.Topic)
			if h.version >= 13 {
				topic = z.table.TopicByID(rt.TopicID)
			}
			names = append(names, topic.Name)
			for _, p := range rt.Partitions {
				records += len(p.Records)
				if xid == nil && p.Records[batchAttributes+1]&batchTransactional != 0 {
					t.Error("transactional records without a transactional id were let through")
				}
			}
		}
		for i, e := range req.edits {
			if e.topic.Name != names[i] {
				t.Errorf("topic %d was judged as %s and is %s", i, e.topic.Name, names[i])
			}
		}
		for _, p := range req.parts {
			records -= int(p.bytes)
		}
		if len(req.edits) != len(names) || records != 0 {
			t.Errorf("%d topics and %d bytes of records too many or few", len(names)-len(req.edits), records)
		}
	})
}

func FuzzFetchRequest(f *testing.F) {
	z := newFuzzed(f)
	for _, v := range []int16{4, 7, 11, 12, 13, 15, 18} {
		f.Add(frameOf(fetchOf(v, 0, -1, z.topics()...), 1))
		forget := fetchOf(v, 7, 3, z.topics()[0])
		forgotten := kmsg.NewFetchRequestForgottenTopic()
		forgotten.Topic, forgotten.TopicID, forgotten.Partitions = "a", z.topics()[1].ID, []int32{0}
		forget.ForgottenTopics = append(forget.ForgottenTopics, forgotten)
		f.Add(frameOf(forget, 1))
	}
	for _, msg := range seeds(f, keyFetch, "client_request", z.table) {
		f.Add(frameOf(msg.(kmsg.Request), 1))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, ok := headerOf(frame, keyFetch)
		if !ok {
			return
		}
		c := wire.Cursor{B: frame, Pos: h.body}
		if h.version <= 14 {
			c.Skip(4)
		}
		c.Skip(4 + 4 + 4 + 1)
		if h.version >= 7 {
			c.Skip(8)
		}
		req := new(fetchRequest)
		if !z.parseFetch(&c, &h, z.table, req) || c.Pos != len(frame) {
			return
		}
		decoded := kmsg.NewPtrFetchRequest()
		wantWritten(t, &h, frame, decoded)
		if len(req.edits) != len(decoded.Topics)+len(decoded.ForgottenTopics) {
			t.Errorf("%d topics were judged, the request has %d and forgets %d", len(req.edits), len(decoded.Topics), len(decoded.ForgottenTopics))
		}
		if decoded.ReplicaState.ID >= 0 {
			t.Errorf("a request of replica %d was let through", decoded.ReplicaState.ID)
		}
	})
}

// headerOf is the header of a request of the key and of a version that is served.
func headerOf(frame []byte, key int16) (h header, ok bool) {
	h, err := parseHeader(frame)
	e := entryOf(key)
	if err != nil || h.key != key || h.version < e.min || h.version > e.max {
		return h, false
	}
	h.flexible = h.version >= e.flexible
	return h, h.rest(frame) == nil
}

// wantWritten decodes a body, and wants it to be what an encoder would write.
func wantWritten(t *testing.T, h *header, frame []byte, req kmsg.Request) {
	t.Helper()
	req.SetVersion(h.version)
	if err := req.ReadFrom(frame[h.body:]); err != nil {
		t.Fatalf("%s v%d %x was let through: %v", kmsg.NameForKey(h.key), h.version, frame[h.body:], err)
	}
	if again := req.AppendTo(nil); !bytes.Equal(again, frame[h.body:]) {
		t.Errorf("%s v%d %x was let through, which is written %x", kmsg.NameForKey(h.key), h.version, frame[h.body:], again)
	}
}

// FuzzProduceAnswer and FuzzFetchAnswer: whatever a broker answers, the client gets
// what the decoded answer maps to, or its connection is closed.
func FuzzProduceAnswer(f *testing.F) {
	z := newFuzzed(f)
	for _, v := range []int16{3, 8, 9, 10, 13} {
		for _, code := range []int16{0, 3} {
			resp := kmsg.NewPtrProduceResponse()
			resp.Version = v
			for _, topic := range z.topics() {
				rt := kmsg.NewProduceResponseTopic()
				rt.Topic, rt.TopicID = topic.Physical.Name, topic.Physical.ID
				p := kmsg.NewProduceResponseTopicPartition()
				p.ErrorCode, p.BaseOffset = code, 17
				rt.Partitions = append(rt.Partitions, p)
				resp.Topics = append(resp.Topics, rt)
			}
			f.Add(v, answerFrame(resp))
		}
	}
	for _, msg := range seeds(f, keyProduce, "broker_response", z.table) {
		resp := msg.(kmsg.Response)
		f.Add(resp.GetVersion(), answerFrame(resp))
	}
	f.Fuzz(func(t *testing.T, version int16, frame []byte) {
		if version < 3 || version > 13 || !framed(frame) {
			return
		}
		want := kmsg.NewPtrProduceResponse()
		want.Version = version
		decodes := readAnswer(want, frame) == nil
		z.reset()
		req := new(produceRequest)
		req.table, req.member = z.table, z.table.Home
		p := upstream.Pending{Key: keyProduce, Version: version, Request: req}
		err := z.mapProduceAnswer(&p, req, bytes.Clone(frame))
		if err != nil {
			z.down.Reset()
			return
		}
		if !decodes {
			t.Fatalf("v%d %x passed, which cannot be decoded", version, frame)
		}
		got := kmsg.NewPtrProduceResponse()
		got.Version = version
		if err := z.received(got); err != nil {
			t.Fatalf("v%d %x: the client cannot read its answer: %v", version, frame, err)
		}
		if _, err := z.mapProduceResponse(z.table.Home, want); err != nil {
			t.Fatalf("v%d %x passed: %v", version, frame, err)
		}
		stripUnknownTags(want)
		got.ThrottleMillis, want.ThrottleMillis = max(got.ThrottleMillis, 0), max(want.ThrottleMillis, 0) // less is none
		if !reflect.DeepEqual(got.AppendTo(nil), want.AppendTo(nil)) {
			t.Errorf("v%d: the client got %+v, want %+v", version, got, want)
		}
	})
}

func FuzzFetchAnswer(f *testing.F) {
	z := newFuzzed(f)
	for _, v := range []int16{4, 7, 11, 12, 13, 16, 18} {
		resp := fetchAnswerOf(v, z.topics()...)
		resp.Topics[0].Partitions[0].RecordBatches = batch(300, 2)
		resp.Topics[1].Partitions[0].CurrentLeader.LeaderID = 3
		f.Add(v, answerFrame(resp))
	}
	for _, msg := range seeds(f, keyFetch, "broker_response", z.table) {
		resp := msg.(kmsg.Response)
		f.Add(resp.GetVersion(), answerFrame(resp))
	}
	f.Fuzz(func(t *testing.T, version int16, frame []byte) {
		if version < 4 || version > 18 || !framed(frame) {
			return
		}
		z.reset()
		topics := &fetchTopics{view: z.table.View, byName: make(map[string]*topicAccess), byID: make(map[[16]byte]*topicAccess)}
		req := &fetchRequest{table: z.table, member: z.table.Home, topics: topics, fresh: true}
		for _, topic := range z.topics() {
			access := z.topicAccess(z.table, topic)
			z.countFetched(z.table, access)
			req.edits = append(req.edits, fetchEdit{access: access})
		}
		topics.add(req.edits, version >= 12)

		ours, theirs := net.Pipe()
		go func() {
			theirs.Write(frame)
			theirs.Close()
		}()
		r := netio.NewReader(netio.New(ours), nil)
		defer func() { ours.Close(); r.Close() }()
		p := upstream.Pending{Key: keyFetch, Version: version, Request: req}
		if err := z.fetchAnswer(new(upstream.Conn), r, len(frame), &p); err != nil {
			z.down.Reset()
			z.sent.Reset()
			return
		}
		got := kmsg.NewPtrFetchResponse()
		got.Version = version
		if err := z.received(got); err != nil {
			t.Fatalf("v%d %x: the client cannot read its answer: %v", version, frame, err)
		}
		want := kmsg.NewPtrFetchResponse()
		want.Version = version
		if err := readAnswer(want, frame); err != nil {
			t.Fatalf("v%d %x passed, which cannot be decoded: %v", version, frame, err)
		}
		if len(got.Topics) != len(want.Topics) {
			t.Fatalf("v%d: %d topics, want %d", version, len(got.Topics), len(want.Topics))
		}
		for i := range got.Topics {
			g, w := got.Topics[i], want.Topics[i]
			topic := z.table.Home.Topic(w.Topic)
			if version >= 13 {
				topic = z.table.Home.TopicByID(w.TopicID)
			}
			if version >= 13 && g.TopicID != topic.ID || version < 13 && g.Topic != topic.Name || len(g.Partitions) != len(w.Partitions) {
				t.Fatalf("v%d: topic %+v, want %s", version, g, topic.Name)
			}
			for j := range g.Partitions {
				if g, w := g.Partitions[j], w.Partitions[j]; g.Partition != w.Partition || g.ErrorCode != w.ErrorCode || g.HighWatermark != w.HighWatermark || !bytes.Equal(g.RecordBatches, w.RecordBatches) {
					t.Errorf("v%d: partition %+v, want %+v", version, g, w)
				}
			}
		}
		for _, b := range got.Brokers {
			if !strings.HasSuffix(b.Host, "-open.gw.test") {
				t.Errorf("v%d: the client is shown broker %s", version, b.Host)
			}
		}
	})
}

func (z *fuzzed) reset() {
	z.down.Reset()
	z.sent.Reset()
	z.Session.sent = z.Session.sent[:0]
	z.broken = nil // by an answer before
}

// received reads what the client was sent: one answer.
func (z *fuzzed) received(resp kmsg.Response) error {
	if z.down.Len() > 0 {
		if err := z.down.Write(z.Session); err != nil {
			return err
		}
	}
	frame := z.sent.Bytes()
	if !framed(frame) {
		return wire.ErrShort
	}
	return readAnswer(resp, frame)
}

func framed(frame []byte) bool {
	return len(frame) >= 9 && int(binary.BigEndian.Uint32(frame)) == len(frame)-4
}

func readAnswer(resp kmsg.Response, frame []byte) error {
	body := frame[8:]
	if resp.IsFlexible() {
		if body[0] != 0 {
			return wire.ErrShort // tags in the header
		}
		body = body[1:]
	}
	return resp.ReadFrom(body)
}

func answerFrame(resp kmsg.Response) []byte {
	out := make([]byte, 8)
	if resp.IsFlexible() {
		out = append(out, 0)
	}
	out = resp.AppendTo(out)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out
}
