package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/auth"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// vectorPatience is how long anything may take that must happen.
const vectorPatience = time.Minute

// The resources behind the vectors. The stub broker holds, beside others', what
// two tenants have there: see vectorTopics.
const vectorResources = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: ["127.0.0.1:1"]}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: standard, tenant: acme}, spec: {type: standard, host: standard, home: main,
  authentication: {AUTH: {}}, acls: {enabled: ACLS, superUsers: [SUPER]}}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: partner, tenant: acme}, spec: {type: partner, host: partner, home: main,
  authentication: {AUTH: {}}, acls: {enabled: true, superUsers: [SUPER]}}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: orders, tenant: acme}, spec: {cluster: main, topic: {name: shop.orders.v2}, access: read-write}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: prices, tenant: acme}, spec: {cluster: main, topic: {name: shop.prices}, access: read}}
`

// vectorSplit are a virtual cluster that has an alias on another cluster, which keeps
// its offsets: there are no stubs.
const vectorSplit = `
---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: far}, spec: {bootstrap: ["127.0.0.1:1"]}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: split, tenant: acme}, spec: {type: standard, host: split, home: main, clusters: [main, far], stubs: {disabled: true},
  authentication: {AUTH: {}}, acls: {enabled: ACLS, superUsers: [SUPER]}}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: away, tenant: acme}, spec: {cluster: far, topic: {name: shop.away}, access: read}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: away, virtualCluster: split}, spec: {cluster: far, topic: shop.away}}
`

const vectorAliases = `
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: lent, virtualCluster: VC}, spec: {cluster: main, topic: shop.orders.v2}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: prices, virtualCluster: VC}, spec: {cluster: main, topic: shop.prices}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: ungranted, virtualCluster: VC}, spec: {cluster: main, topic: shop.secret}}
`

// vectorTopics is what the stub broker holds.
var vectorTopics = []string{
	"standard.orders", "standard.logs", "standard.__tg.stub.far", "other.orders",
	"shop.orders.v2", "shop.prices", "shop.secret", "__consumer_offsets", "orders", "split.orders",
}

// A scriptedBroker is two nodes, 3 and 7, at one address. It answers ApiVersions and
// Metadata by itself; every other request is reported and waits to be answered.
type scriptedBroker struct {
	net.Listener
	requests chan []byte // frames received
	answers  chan []byte // nil: hang up
	done     chan struct{}
	far      *scriptedBroker // of another cluster; nil: there is none
	fixed    []string        // topics that stay

	mu     sync.Mutex
	topics []string
	asked  map[string]bool // see again
}

func newScriptedBroker(t testing.TB) *scriptedBroker {
	t.Helper()
	return newScriptedBrokerOf(t, vectorTopics)
}

func newScriptedBrokerOf(t testing.TB, topics []string) *scriptedBroker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &scriptedBroker{
		Listener: l, requests: make(chan []byte, 64), answers: make(chan []byte), done: make(chan struct{}),
		fixed: topics, topics: slices.Clone(topics), asked: make(map[string]bool),
	}
	t.Cleanup(func() { close(b.done); l.Close() })
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

func (b *scriptedBroker) serve(c net.Conn) {
	defer c.Close()
	for {
		frame, err := readFrame(c)
		if err != nil {
			return
		}
		key, version := int16(binary.BigEndian.Uint16(frame[4:])), int16(binary.BigEndian.Uint16(frame[6:]))
		var out []byte
		switch kmsg.Key(key) {
		case kmsg.ApiVersions:
			out = responseFrame(b.apiVersions(version), 0)
		case kmsg.Metadata:
			out = responseFrame(b.metadata(version), 0)
		default:
			if b.again(frame) {
				<-b.done
				return
			}
			b.requests <- frame
			select {
			case out = <-b.answers:
			case <-b.done:
			}
			if out == nil {
				return
			}
		}
		copy(out[4:8], frame[8:12])
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// again reports whether a request has come before, of those that the gateway sends
// to another node when the first is slow to answer, as it is on a loaded machine.
func (b *scriptedBroker) again(frame []byte) bool {
	switch kmsg.Key(binary.BigEndian.Uint16(frame[4:])) {
	case kmsg.FindCoordinator, kmsg.InitProducerID:
	default:
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := b.asked[string(frame[12:])]
	b.asked[string(frame[12:])] = true
	return seen
}

func (b *scriptedBroker) apiVersions(version int16) kmsg.Response {
	r := kmsg.NewPtrApiVersionsResponse()
	r.Version = version
	for k := range int16(kmsg.MaxKey + 1) {
		if req := kmsg.RequestForKey(k); req != nil {
			r.ApiKeys = append(r.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: k, MaxVersion: req.MaxVersion()})
		}
	}
	for _, f := range []struct {
		name  string
		level int16
	}{{"eligible.leader.replicas.version", 1}, {"group.version", 1}, {"metadata.version", 29}, {"share.version", 1}, {"streams.version", 1}, {"transaction.version", 2}} {
		r.SupportedFeatures = append(r.SupportedFeatures, kmsg.ApiVersionsResponseSupportedFeature{Name: f.name, MinVersion: 0, MaxVersion: f.level})
		r.FinalizedFeatures = append(r.FinalizedFeatures, kmsg.ApiVersionsResponseFinalizedFeature{Name: f.name, MinVersionLevel: f.level, MaxVersionLevel: f.level})
	}
	r.FinalizedFeaturesEpoch = 4711
	return r
}

func (b *scriptedBroker) metadata(version int16) kmsg.Response {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := kmsg.NewPtrMetadataResponse()
	r.Version = version
	host, port, _ := net.SplitHostPort(b.Addr().String())
	n, _ := strconv.Atoi(port)
	for _, id := range []int32{3, 7} {
		r.Brokers = append(r.Brokers, kmsg.MetadataResponseBroker{NodeID: id, Host: host, Port: int32(n), Rack: kmsg.StringPtr(fmt.Sprintf("rack-%d", id))})
	}
	r.ClusterID, r.ControllerID = kmsg.StringPtr("physical-cluster-id"), 7
	for _, name := range b.topics {
		topic := kmsg.NewMetadataResponseTopic()
		topic.Topic, topic.TopicID = kmsg.StringPtr(name), topicIDOf(name)
		for i, leader := range []int32{3, 7} {
			p := kmsg.NewMetadataResponseTopicPartition()
			p.Partition, p.Leader, p.LeaderEpoch, p.Replicas, p.ISR = int32(i), leader, int32(40+i), []int32{3, 7}, []int32{leader}
			p.OfflineReplicas = []int32{}
			topic.Partitions = append(topic.Partitions, p)
		}
		r.Topics = append(r.Topics, topic)
	}
	return r
}

// has makes the topics that answer says were created.
func (b *scriptedBroker) has(answer any) {
	created, ok := answer.(*kmsg.CreateTopicsResponse)
	if !ok {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, rt := range created.Topics {
		if rt.ErrorCode == 0 && !slices.Contains(b.topics, rt.Topic) {
			b.topics = append(b.topics, rt.Topic)
		}
	}
}

// forget deletes created topics and reports whether there were any.
func (b *scriptedBroker) forget() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	created := len(b.topics) > len(b.fixed)
	b.topics = slices.Clone(b.fixed)
	clear(b.asked)
	return created
}

func readFrame(r io.Reader) ([]byte, error) {
	frame := make([]byte, 4)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, err
	}
	frame = append(frame, make([]byte, binary.BigEndian.Uint32(frame))...)
	_, err := io.ReadFull(r, frame[4:])
	return frame, err
}

// vectorCluster serves the virtual cluster of a vector from b.
func vectorCluster(t testing.TB, vs *vectorSession, b *scriptedBroker) *view.VirtualCluster {
	t.Helper()
	name := vs.Cluster
	if name == "" {
		name = "standard"
	}
	super, method := "", "anonymous"
	if vs.sasl() {
		method = "plain"
	}
	if vs.SuperUser {
		super = vs.principal()
	}
	resources := vectorResources
	if name == "split" {
		resources += vectorSplit
		b.far = newScriptedBrokerOf(t, []string{"shop.away", "shop.away2"})
	}
	yaml := strings.NewReplacer("ACLS", fmt.Sprint(vs.ACLs != nil), "SUPER", strconv.Quote(super), "AUTH", method).Replace(resources) +
		strings.ReplaceAll(vectorAliases, "VC", name)
	yaml = strings.ReplaceAll(yaml, `, superUsers: [""]`, "")
	dir := t.TempDir()
	if vs.sasl() {
		yaml += fmt.Sprintf(`
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: %s, virtualCluster: %s}, spec: {type: local, password: "file:secret"}}
`, strings.TrimPrefix(vs.principal(), "User:"), name)
		if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(vectorPassword), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, text := range vs.ACLs {
		f := strings.Fields(text)
		pattern := "literal"
		if len(f) == 5 && f[3] == "prefixed" {
			pattern = "prefixed"
		} else if len(f) != 4 {
			t.Fatalf("ACL %q", text)
		}
		yaml += fmt.Sprintf(`
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: acl-%d, virtualCluster: %s}, spec: {principal: %q, host: "*",
  resource: {type: %s, name: %q, pattern: %s}, operation: %s, permission: %s}}
`, i, name, vs.principal(), f[2], f[len(f)-1], pattern, f[1], f[0])
	}
	for _, text := range vs.Policies {
		policy, spec, _ := strings.Cut(text, ": ")
		yaml += fmt.Sprintf("\n---\n{apiVersion: tollgate/v1, kind: Policy, metadata: {name: %s, virtualCluster: %s}, spec: {type: produce, %s}}\n", policy, name, spec)
	}
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := resource.LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := view.Compile(set, name, time.Now(), auth.NewDeps(auth.Options{SaltKey: make([]byte, 32)}), nil)
	if err != nil {
		t.Fatal(err)
	}
	home := upstream.New(upstream.Config{Name: "main", Bootstrap: []string{b.Addr().String()}, MetadataAge: time.Hour})
	t.Cleanup(home.Close)
	clusters := map[string]*upstream.Cluster{v.Spec.Home: home}
	if b.far != nil {
		far := upstream.New(upstream.Config{Name: "far", Bootstrap: []string{b.far.Addr().String()}, MetadataAge: time.Hour})
		t.Cleanup(far.Close)
		clusters["far"] = far
	}
	vc := view.NewVirtualCluster(v, clusters, nil, slog.New(slog.DiscardHandler))
	t.Cleanup(vc.Close)
	vc.FeaturesEpoch = 1
	if _, err := vc.Fresh(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	// Both nodes are known to speak the same versions before anybody asks.
	for _, cluster := range clusters {
		for _, node := range []int32{3, 7} {
			c, err := cluster.Lease(t.Context(), node, upstream.Control)
			if err != nil {
				t.Fatal(err)
			}
			c.Release()
		}
	}
	if b.far == nil {
		return vc
	}
	for end := time.Now().Add(vectorPatience); vc.Table() == nil || vc.Table().Topic("away") == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the other cluster's topic is not shown")
		}
	}
	return vc
}

// vectorPassword is that of the one account there is, if there is one.
const vectorPassword = "correct-horse-battery-staple"

func (vs *vectorSession) sasl() bool { return vs.Login || vs.Principal != "" }

func (vs *vectorSession) principal() string {
	switch {
	case vs.Principal != "":
		return vs.Principal
	case vs.Login:
		return "User:alice"
	}
	return "User:ANONYMOUS"
}

// open starts a session of the client that vs describes.
func (vs *vectorSession) open(t *testing.T, vc *view.VirtualCluster) *hotSession {
	t.Helper()
	h := startSession(t, vc, func(s *Session) {
		s.client.SASL = vs.sasl()
		if vs.Node != nil {
			s.client.Node = *vs.Node
		}
		if vs.Portal != nil {
			s.node.ACLs = vs.Portal
		}
	})
	if vs.sasl() && !vs.Login {
		handshake := kmsg.NewPtrSASLHandshakeRequest()
		handshake.Version, handshake.Mechanism = 1, "PLAIN"
		login := kmsg.NewPtrSASLAuthenticateRequest()
		login.Version = 2
		login.SASLAuthBytes = []byte("\x00" + strings.TrimPrefix(vs.Principal, "User:") + "\x00" + vectorPassword)
		h.ask(t, handshake)
		if code := h.ask(t, login).(*kmsg.SASLAuthenticateResponse).ErrorCode; code != 0 {
			t.Fatalf("login: %d", code)
		}
	}
	return h
}

// frame is a request as the client of vs sends it.
func (vs *vectorSession) frame(req kmsg.Request, correlationID int32) []byte {
	id := "vector"
	if vs.ClientID != nil {
		id = *vs.ClientID
	}
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID(id)).AppendRequest(nil, req, correlationID)
	if len(vs.HeaderTags) == 0 {
		return frame
	}
	at := 14 + len(id)
	tags := binary.AppendUvarint(nil, uint64(len(vs.HeaderTags)))
	for _, tag := range sortedKeys(vs.HeaderTags) {
		n, _ := strconv.Atoi(tag)
		tags = binary.AppendUvarint(tags, uint64(n))
		tags = binary.AppendUvarint(tags, uint64(len(vs.HeaderTags[tag])))
		tags = append(tags, vs.HeaderTags[tag]...)
	}
	frame = slices.Replace(frame, at, at+1, tags...)
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	return frame
}

// What a client sends reaches the broker, and what the broker answers reaches the
// client, byte for byte as the vectors say.
func TestVectors(t *testing.T) {
	for _, v := range loadVectors(t) {
		name, _ := strings.CutPrefix(filepath.ToSlash(v.path), "testdata/")
		t.Run(strings.TrimSuffix(name, ".txtar"), func(t *testing.T) {
			t.Parallel()
			v.run(t)
		})
	}
}

func (v *vector) run(t *testing.T) {
	b := newScriptedBroker(t)
	if v.session.Anchor {
		b.fixed = append(slices.Clone(b.fixed), "split.__tg.anchor")
		b.forget()
	}
	vc := vectorCluster(t, &v.session, b)
	for version := v.low; version <= v.high; version++ {
		if max := kmsg.RequestForKey(v.key).MaxVersion(); version > max {
			t.Fatalf("kmsg knows %s up to version %d", kmsg.NameForKey(v.key), max)
		}
		ok := t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			if b.forget() {
				if err := vc.Home.Refresh(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			vc.Splits = view.Splits{} // a coordinator is looked for again
			if b.far != nil {
				b.far.forget()
			}
			p := &player{T: t, v: v, version: version, broker: b, hotSession: v.session.open(t, vc)}
			p.env.virtual = func(name string) ([16]byte, bool) {
				if topic := vc.Table().Topic(name); topic != nil {
					return topic.ID, true
				}
				return [16]byte{}, false
			}
			defer func() {
				for _, b := range p.brokers() {
					select { // a request that nobody expected
					case b.answers <- nil:
					default:
					}
				}
			}()
			for i := range v.events {
				p.play(&v.events[i])
			}
			p.end()
		})
		if !ok {
			return // one version is enough to look at
		}
	}
}

// Every version of every key there is has a vector, or is refused: the connection is
// closed, as a broker does for what it does not have, and no broker hears of it.
func TestEveryVersionHasAVectorOrIsRefused(t *testing.T) {
	covered := make(map[[2]int16]bool)
	for _, v := range loadVectors(t) {
		for version := v.low; version <= v.high; version++ {
			covered[[2]int16{v.key, version}] = true
		}
	}
	b := newScriptedBroker(t)
	vs := &vectorSession{}
	vc := vectorCluster(t, vs, b)
	for key := int16(-1); key <= kmsg.MaxKey+1; key++ {
		last := int16(3) // of a key that kmsg does not know
		req := kmsg.RequestForKey(key)
		if req != nil {
			last = req.MaxVersion()
		}
		for version := int16(-1); version <= last+2; version++ {
			if covered[[2]int16{key, version}] {
				continue
			}
			if e := entryOf(key); e != nil && e.min <= version && version <= e.max {
				t.Errorf("%s v%d is served and has no vector", e.name, version)
				continue
			}
			frame := binary.BigEndian.AppendUint16(make([]byte, 4), uint16(key))
			frame = binary.BigEndian.AppendUint16(frame, uint16(version))
			frame = append(frame, 0, 0, 0, 9, 0, 1, 'c')
			if req != nil && version >= 0 && version <= last {
				req.SetVersion(version)
				if req.IsFlexible() {
					frame = append(frame, 0)
				}
				frame = req.AppendTo(frame)
			} else {
				frame = append(frame, make([]byte, 64)...)
			}
			binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
			h := vs.open(t, vc)
			if _, err := h.Write(frame); err != nil {
				t.Fatal(err)
			}
			h.SetReadDeadline(time.Now().Add(vectorPatience))
			answer, err := readFrame(h)
			if kmsg.Key(key) == kmsg.ApiVersions {
				wantVersionsUnsupported(t, version, answer, err)
				continue
			}
			if !errors.Is(err, io.EOF) && !isReset(err) {
				t.Errorf("%s (%d) v%d: answered %x, %v", kmsg.NameForKey(key), key, version, answer, err)
				continue
			}
			if err := h.reason(); err == nil {
				t.Errorf("%s (%d) v%d: closed without a reason", kmsg.NameForKey(key), key, version)
			}
			select {
			case frame := <-b.requests:
				t.Fatalf("%s (%d) v%d: the broker got %x", kmsg.NameForKey(key), key, version, frame)
			default:
			}
		}
	}
}

// wantVersionsUnsupported: ApiVersions alone tells what it has, in the layout of
// version 0 (KIP-511).
func wantVersionsUnsupported(t *testing.T, version int16, answer []byte, err error) {
	t.Helper()
	want := kmsg.NewPtrApiVersionsResponse()
	want.ErrorCode = kerr.UnsupportedVersion.Code
	want.ApiKeys = []kmsg.ApiVersionsResponseApiKey{{ApiKey: keyApiVersions, MinVersion: 0, MaxVersion: 4}}
	if err != nil || !bytes.Equal(answer, responseFrame(want, 9)) {
		t.Errorf("ApiVersions v%d: %x, %v, want %x", version, answer, err, responseFrame(want, 9))
	}
}

// What waits behind a request that was lost is lost too: sent on, it would overtake
// what the client sends again (PROTOCOL.md §H2).
func TestNothingIsForwardedAfterALostRequest(t *testing.T) {
	b := newScriptedBroker(t)
	vs := &vectorSession{}
	h := startSession(t, vectorCluster(t, vs, b), func(s *Session) { s.node.MaxInFlight = 1 })
	var both []byte
	for i := range int32(2) {
		both = append(both, frameOf(produceOf(9, "orders", [16]byte{}, batch(100, 1)), i)...)
	}
	if _, err := h.Write(both); err != nil {
		t.Fatal(err)
	}
	first := <-b.requests
	b.answers <- nil
	select {
	case second := <-b.requests:
		t.Errorf("the broker hung up at %x and was sent %x", first, second)
		b.answers <- nil
	case <-h.ended:
	}
	if err := h.reason(); err == nil {
		t.Error("the session ended without a reason")
	}
}

// player plays one vector at one version.
type player struct {
	*testing.T
	*hotSession
	v       *vector
	version int16
	broker  *scriptedBroker
	env     vectorEnv

	asked      kmsg.Request // by the client, last
	forwarded  kmsg.Request // to the broker, last
	correlated int32
	closed     bool
}

func (p *player) play(e *vectorEvent) {
	p.Helper()
	if e.what == "closed" {
		p.wantClosed(strings.TrimSpace(string(e.body)))
		return
	}
	msg := func() any {
		msg, err := p.v.message(e, p.version, &p.env)
		if err != nil {
			p.Fatal(err)
		}
		return msg
	}
	switch e.what {
	case "client_request":
		p.asked = msg().(kmsg.Request)
		p.correlated++
		if _, err := p.Write(p.v.session.frame(p.asked, p.correlated)); err != nil {
			p.Fatal(err)
		}
	case "broker_request", "far_request":
		p.forwarded = msg().(kmsg.Request)
		p.wantForwarded(p.brokerOf(e), p.forwarded)
		if e.hangs {
			p.answer(p.brokerOf(e), nil)
		}
	case "broker_response", "far_response":
		answer := msg().(kmsg.Response)
		b := p.brokerOf(e)
		b.has(answer)
		p.answer(b, responseFrame(answer, 0))
	case "client_response":
		p.wantAnswer(e, msg)
	}
}

// brokers are those of all clusters.
func (p *player) brokers() []*scriptedBroker {
	if p.broker.far == nil {
		return []*scriptedBroker{p.broker}
	}
	return []*scriptedBroker{p.broker, p.broker.far}
}

func (p *player) brokerOf(e *vectorEvent) *scriptedBroker {
	if strings.HasPrefix(e.what, "far_") {
		return p.broker.far
	}
	return p.broker
}

func (p *player) answer(b *scriptedBroker, frame []byte) {
	p.Helper()
	select {
	case b.answers <- frame:
	case <-time.After(vectorPatience):
		p.Fatal("the broker was asked nothing")
	}
}

func (p *player) wantForwarded(b *scriptedBroker, want kmsg.Request) {
	p.Helper()
	answered := make(chan error, 1)
	var frame []byte
	p.SetReadDeadline(time.Now().Add(vectorPatience))
	go func() { // an answer in its place is worth showing
		_, err := io.ReadFull(p.hotSession, p.buf[:1])
		answered <- err
	}()
	stop := func() error { p.SetReadDeadline(time.Unix(1, 0)); return <-answered }
	select {
	case frame = <-b.requests:
		if err := stop(); err == nil {
			p.Fatal("the client was answered before the broker")
		}
	case err := <-answered:
		if err != nil {
			p.Fatalf("nothing was forwarded: %v (session: %v)", err, p.reason())
		}
		rest, err := p.readRest()
		p.Fatalf("nothing was forwarded; the client was answered\n %s %v", p.decoded(rest), err)
	}
	if key, version := int16(binary.BigEndian.Uint16(frame[4:])), int16(binary.BigEndian.Uint16(frame[6:])); key != want.Key() || version != want.GetVersion() {
		p.Fatalf("forwarded %s v%d, want %s v%d", kmsg.NameForKey(key), version, kmsg.NameForKey(want.Key()), want.GetVersion())
	}
	got, err := requestBody(frame, want.IsFlexible())
	if err != nil {
		p.Fatal(err)
	}
	if wantBody := want.AppendTo(nil); !bytes.Equal(got, wantBody) {
		decoded := kmsg.RequestForKey(want.Key())
		decoded.SetVersion(want.GetVersion())
		err := decoded.ReadFrom(got)
		p.Errorf("forwarded\n got  %s %v\n want %s\n got  %x\n want %x", describe(decoded), err, describe(want), got, wantBody)
	}
}

// readRest reads what follows the first byte of an answer, which is in p.buf.
func (p *player) readRest() ([]byte, error) {
	p.SetReadDeadline(time.Now().Add(vectorPatience))
	return readFrame(io.MultiReader(bytes.NewReader(bytes.Clone(p.buf[:1])), p.hotSession))
}

func (p *player) decoded(frame []byte) string {
	resp := p.asked.ResponseKind()
	resp.SetVersion(p.asked.GetVersion())
	body := frame[min(8, len(frame)):]
	if resp.IsFlexible() && kmsg.Key(resp.Key()) != kmsg.ApiVersions {
		body = body[min(1, len(body)):]
	}
	if err := resp.ReadFrom(body); err != nil {
		return fmt.Sprintf("%x: %v", frame, err)
	}
	return describe(resp)
}

func (p *player) wantAnswer(e *vectorEvent, msg func() any) {
	p.Helper()
	p.SetReadDeadline(time.Now().Add(vectorPatience))
	got, err := readFrame(p.hotSession)
	if err != nil {
		p.Fatalf("no answer: %v (session: %v)", err, p.reason())
	}
	p.learnSession(got)
	resp := msg().(kmsg.Response)
	if want := responseFrame(resp, uint32(p.correlated)); !bytes.Equal(got, want) {
		p.Errorf("answer\n got  %s\n want %s\n got  %x\n want %x", p.decoded(got), describe(resp), got, want)
	}
	p.wantQuiet()
}

// learnSession takes the fetch session that the gateway has issued from an answer:
// it is random, and never the broker's.
func (p *player) learnSession(frame []byte) {
	fetch, ok := p.asked.(*kmsg.FetchRequest)
	if !ok || fetch.Version < 7 {
		return
	}
	resp := fetch.ResponseKind().(*kmsg.FetchResponse)
	body := frame[8:]
	if resp.IsFlexible() {
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil || resp.SessionID == 0 {
		return
	}
	if resp.SessionID == 4711 || resp.SessionID < 0 || p.env.session != 0 && p.env.session != resp.SessionID {
		p.Errorf("fetch session %d after %d", resp.SessionID, p.env.session)
	}
	p.env.session = resp.SessionID
}

func (p *player) wantQuiet() {
	p.Helper()
	for _, b := range p.brokers() {
		select {
		case frame := <-b.requests:
			p.Errorf("the broker was also asked %s: %x", kmsg.NameForKey(int16(binary.BigEndian.Uint16(frame[4:]))), frame)
			p.answer(b, nil)
		default:
		}
	}
}

// wantClosed waits for the session's end without an answer.
func (p *player) wantClosed(reason string) {
	p.Helper()
	p.closed = true
	p.SetReadDeadline(time.Now().Add(vectorPatience))
	if frame, err := readFrame(p.hotSession); !errors.Is(err, io.EOF) && !isReset(err) {
		p.Fatalf("not closed: %v, %x", err, frame)
	}
	if err := p.reason(); reason != "" && (err == nil || !strings.Contains(err.Error(), reason)) {
		p.Errorf("closed because of %v, want %q", err, reason)
	}
	p.wantQuiet()
}

// end shows that nothing follows.
func (p *player) end() {
	p.Helper()
	if p.closed || p.Failed() {
		return
	}
	p.Conn.(*net.TCPConn).CloseWrite()
	p.SetReadDeadline(time.Now().Add(vectorPatience))
	if rest, err := io.ReadAll(p.hotSession); err != nil || len(rest) > 0 {
		p.Errorf("afterwards the client got %x, %v", rest, err)
	}
	p.wantQuiet()
}

func isReset(err error) bool { return err != nil && strings.Contains(err.Error(), "connection reset") }
