package session

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/auth"
	"tollgate.internal/services/proxy/internal/meter"
	"tollgate.internal/services/proxy/internal/netio"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// hotBroker is a broker that answers Produce and Fetch with prepared frames and
// allocates nothing while it does.
type hotBroker struct {
	net.Listener
	topics []string
	mu     sync.Mutex
	answer map[int16][]byte // by key, from the size prefix on
	got    map[int16][]byte // the last request, likewise
	chunk  int              // bytes of an answer to a write; 0: all
	sentN  atomic.Int64     // bytes of answers written
}

func topicIDOf(name string) (id [16]byte) {
	copy(id[:], name+"................")
	return id
}

func newHotBroker(t testing.TB, topics ...string) *hotBroker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &hotBroker{Listener: l, topics: topics, answer: make(map[int16][]byte), got: make(map[int16][]byte)}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go b.serve(c)
		}
	}()
	return b
}

func (b *hotBroker) serve(c net.Conn) {
	defer c.Close()
	frame := make([]byte, 1<<20)
	for {
		if _, err := io.ReadFull(c, frame[:4]); err != nil {
			return
		}
		size := 4 + int(binary.BigEndian.Uint32(frame))
		if _, err := io.ReadFull(c, frame[4:size]); err != nil {
			return
		}
		key, version := int16(binary.BigEndian.Uint16(frame[4:])), int16(binary.BigEndian.Uint16(frame[6:]))
		var resp kmsg.Response
		switch kmsg.Key(key) {
		case kmsg.ApiVersions:
			r := kmsg.NewPtrApiVersionsResponse()
			for k := range int16(kmsg.MaxKey + 1) {
				if req := kmsg.RequestForKey(k); req != nil {
					r.ApiKeys = append(r.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: k, MaxVersion: req.MaxVersion()})
				}
			}
			resp = r
		case kmsg.Metadata:
			r := kmsg.NewPtrMetadataResponse()
			host, port, _ := net.SplitHostPort(b.Addr().String())
			n, _ := strconv.Atoi(port)
			r.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 3, Host: host, Port: int32(n)}}
			r.ControllerID = 3
			for _, name := range b.topics {
				topic := kmsg.NewMetadataResponseTopic()
				topic.Topic, topic.TopicID = kmsg.StringPtr(name), topicIDOf(name)
				p := kmsg.NewMetadataResponseTopicPartition()
				p.Leader, p.Replicas, p.ISR = 3, []int32{3}, []int32{3}
				topic.Partitions = append(topic.Partitions, p)
				r.Topics = append(r.Topics, topic)
			}
			resp = r
		default:
			b.mu.Lock()
			b.got[key] = append(b.got[key][:0], frame[:size]...)
			out, chunk := b.answer[key], b.chunk
			b.mu.Unlock()
			if len(out) == 0 {
				continue // it answers nothing
			}
			copy(out[4:8], frame[8:12])
			for len(out) > 0 {
				k := len(out)
				if chunk > 0 {
					k = min(k, chunk)
				}
				n, err := c.Write(out[:k])
				b.sentN.Add(int64(n))
				if err != nil {
					return
				}
				out = out[n:]
			}
			continue
		}
		resp.SetVersion(version)
		out := make([]byte, 8, 4096)
		if resp.IsFlexible() && kmsg.Key(key) != kmsg.ApiVersions {
			out = append(out, 0)
		}
		out = resp.AppendTo(out)
		binary.BigEndian.PutUint32(out, uint32(len(out)-4))
		copy(out[4:8], frame[8:12])
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// set prepares the answer to resp's key.
func (b *hotBroker) set(resp kmsg.Response) {
	out := make([]byte, 8, 4096)
	if resp.IsFlexible() {
		out = append(out, 0)
	}
	out = resp.AppendTo(out)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	b.mu.Lock()
	b.answer[resp.Key()] = out
	b.mu.Unlock()
}

// request is the last request of req's kind, read into req.
func (b *hotBroker) request(t *testing.T, req kmsg.Request) {
	t.Helper()
	b.mu.Lock()
	frame := append([]byte(nil), b.got[req.Key()]...)
	b.mu.Unlock()
	h, err := parseHeader(frame)
	if err != nil {
		t.Fatal(err)
	}
	h.flexible = req.IsFlexible()
	if err := h.rest(frame); err != nil {
		t.Fatal(err)
	}
	if err := req.ReadFrom(frame[h.body:]); err != nil {
		t.Fatal(err)
	}
}

// hotSession is a session of an anonymous client with the virtual cluster that yaml
// describes, whose home is b.
type hotSession struct {
	net.Conn // the client's end
	session  *Session
	meter    *meter.Meter
	table    *view.Table
	buf      []byte
	ended    chan struct{}
	err      error // of Run, once it has ended
}

const openCluster = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: ["127.0.0.1:1"]}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: open, tenant: acme}, spec: {type: standard, host: open, home: main, authentication: {anonymous: {}}}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: long, tenant: acme}, spec: {cluster: main, topic: {name: shop.orders.with.a.long.name}, access: read-write}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: a, virtualCluster: open}, spec: {cluster: main, topic: shop.orders.with.a.long.name}}
`

// more are further objects of the virtual cluster open.
func newHotSession(t testing.TB, b *hotBroker, more ...string) *hotSession {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(strings.Join(append([]string{openCluster}, more...), "\n---\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := resource.LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := view.Compile(set, "open", time.Now(), auth.NewDeps(auth.Options{SaltKey: make([]byte, 32)}), nil)
	if err != nil {
		t.Fatal(err)
	}
	home := upstream.New(upstream.Config{Name: "main", Bootstrap: []string{b.Addr().String()}})
	t.Cleanup(home.Close)
	vc := view.NewVirtualCluster(v, map[string]*upstream.Cluster{v.Spec.Home: home}, nil, slog.New(slog.DiscardHandler))
	h := startSession(t, vc, func(*Session) {})
	if h.table, err = vc.Fresh(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	return h
}

// startSession serves a client of vc, over loopback, that dialled node 3.
func startSession(t testing.TB, vc *view.VirtualCluster, prepare func(*Session)) *hotSession {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	sock := netio.New(server)
	node := &Node{
		Log: slog.New(slog.DiscardHandler), Refusals: refusal.NewNotes(slog.New(slog.DiscardHandler)), Meter: meter.New(), Backoff: auth.NewBackoff(time.Now),
		Requests: netio.NewBudget(1 << 30), Answers: netio.NewBudget(1 << 30), MaxFrameBytes: 100 << 20, MaxInFlight: 64,
		Observe: func(int16, Outcome, time.Duration) {},
	}
	s := New(node, &Client{
		Net: sock, Sock: sock, Remote: netip.MustParseAddr("127.0.0.1"), Node: 3, Authenticated: func(context.Context) {},
		Advertise: func(vnode int32) (string, int32) { return fmt.Sprintf("b%d-%s.gw.test", vnode, vc.Name), 9092 },
	}, vc)
	prepare(s)
	h := &hotSession{Conn: client, session: s, meter: node.Meter, buf: make([]byte, 1<<20), ended: make(chan struct{})}
	go func() { h.err = s.Run(context.Background()); close(h.ended) }()
	t.Cleanup(func() { client.Close(); <-h.ended })
	return h
}

// reason is why the session ended, once it has.
func (h *hotSession) reason() error {
	<-h.ended
	return h.err
}

// frameOf is a request as a client sends it.
func frameOf(req kmsg.Request, correlationID int32) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("hot")).AppendRequest(nil, req, correlationID)
}

// roundTrip sends a frame and returns the answer's.
func (h *hotSession) roundTrip(frame []byte) ([]byte, error) {
	if _, err := h.Write(frame); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(h, h.buf[:4]); err != nil {
		return nil, err
	}
	size := 4 + int(binary.BigEndian.Uint32(h.buf))
	if size > len(h.buf) {
		h.buf = append(make([]byte, 0, size), h.buf[:4]...)[:size]
	}
	_, err := io.ReadFull(h, h.buf[4:size])
	return h.buf[:size], err
}

// ask sends req and decodes the answer.
func (h *hotSession) ask(t *testing.T, req kmsg.Request) kmsg.Response {
	t.Helper()
	frame, err := h.roundTrip(frameOf(req, 77))
	if err != nil {
		t.Fatal(err)
	}
	if got := binary.BigEndian.Uint32(frame[4:]); got != 77 {
		t.Fatalf("answer %d to request 77", got)
	}
	body := frame[8:]
	if req.IsFlexible() {
		body = body[1:]
	}
	resp := req.ResponseKind()
	if err := resp.ReadFrom(body); err != nil {
		t.Fatalf("%T v%d: %v", req, req.GetVersion(), err)
	}
	return resp
}

// batch is a record batch v2 of size bytes that says it holds n records.
func batch(size int, n uint32) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i * 7)
	}
	binary.BigEndian.PutUint32(b[8:], uint32(size-12))
	b[16] = 2
	b[21], b[22] = 0, 0
	binary.BigEndian.PutUint32(b[57:], n)
	return b
}

func produceOf(version int16, name string, id [16]byte, records []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = version, -1, 30000
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.TopicID = name, id
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = records
	topic.Partitions = append(topic.Partitions, p)
	req.Topics = append(req.Topics, topic)
	return req
}

func fetchOf(version int16, sessionID, sessionEpoch int32, topics ...*view.Topic) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = version, 500, 1, 50<<20
	req.SessionID, req.SessionEpoch = sessionID, sessionEpoch
	for _, topic := range topics {
		ft := kmsg.NewFetchRequestTopic()
		ft.Topic, ft.TopicID = topic.Name, topic.ID
		p := kmsg.NewFetchRequestTopicPartition()
		p.PartitionMaxBytes = 1 << 20
		ft.Partitions = append(ft.Partitions, p)
		req.Topics = append(req.Topics, ft)
	}
	return req
}

// fetchAnswerOf is a broker's answer with an empty partition of each topic.
func fetchAnswerOf(version int16, topics ...*view.Topic) *kmsg.FetchResponse {
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = version
	for _, topic := range topics {
		rt := kmsg.NewFetchResponseTopic()
		rt.Topic, rt.TopicID = topic.Physical.Name, topic.Physical.ID
		p := kmsg.NewFetchResponseTopicPartition()
		p.HighWatermark, p.LastStableOffset, p.LogStartOffset, p.PreferredReadReplica = 100, 90, 80, -1
		p.RecordBatches = []byte{}
		rt.Partitions = append(rt.Partitions, p)
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

// A client that sends more requests than may be in flight is not read until the
// broker has answered those that are.
func TestRequestsInFlightAreBounded(t *testing.T) {
	b := newHotBroker(t, "open.orders") // answers nothing to Produce
	h := newHotSession(t, b)
	h.session.node.MaxInFlight = 3
	defer h.session.vc.Home.Close() // nobody waits for the answers
	topic := h.table.Topic("orders")
	for i := range int32(10) {
		if _, err := h.Write(frameOf(produceOf(9, topic.Name, topic.ID, batch(100, 1)), i)); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(time.Minute); ; runtime.Gosched() {
		h.session.mu.Lock()
		waiting, inFlight := h.session.waiting, h.session.inFlight
		h.session.mu.Unlock()
		if inFlight > 3 {
			t.Fatalf("%d requests in flight, want 3 at most", inFlight)
		}
		if waiting && inFlight == 3 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d requests in flight, want 3", inFlight)
		}
	}
	h.session.vc.Home.Close() // the session waits for its answers
}
