package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

// raw is a TLS connection to a virtual cluster that speaks bytes.
type raw struct {
	net.Conn
	t *testing.T
}

func (g *gateway) raw(t *testing.T, host string) *raw {
	t.Helper()
	r, _ := g.rawOver(t, host)
	return r
}

// rawOver also returns what is under the TLS connection.
func (g *gateway) rawOver(t *testing.T, host string) (*raw, *dribble) {
	t.Helper()
	d := &dribble{Conn: g.tcp(t)}
	c := tls.Client(d, &tls.Config{RootCAs: g.roots, ServerName: host})
	c.SetDeadline(time.Now().Add(5 * time.Minute))
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return &raw{c, t}, d
}

func (g *gateway) tcp(t *testing.T) net.Conn {
	t.Helper()
	c, err := g.dial(t.Context(), "tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// dribble is a connection that can be made to send a byte a second.
type dribble struct {
	net.Conn
	slow atomic.Bool
}

func (d *dribble) Write(p []byte) (n int, err error) {
	for d.slow.Load() && n < len(p) {
		if _, err := d.Conn.Write(p[n : n+1]); err != nil {
			return n, err
		}
		n++
		time.Sleep(time.Second)
	}
	m, err := d.Conn.Write(p[n:])
	return n + m, err
}

// closed expects the gateway to close the connection without a word.
func (r *raw) closed() {
	r.t.Helper()
	b, err := io.ReadAll(r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		r.t.Errorf("the connection stays open")
	} else if len(b) > 0 {
		r.t.Errorf("answered %x before it closed", b)
	}
}

func (r *raw) send(b []byte) {
	r.t.Helper()
	if _, err := r.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

// ask sends one request and returns the answer's body.
func (r *raw) ask(req kmsg.Request) kmsg.Response {
	r.t.Helper()
	r.send(kmsg.NewRequestFormatter(kmsg.FormatterClientID("raw")).AppendRequest(nil, req, 77))
	head := make([]byte, 8)
	if _, err := io.ReadFull(r, head); err != nil {
		r.t.Fatalf("%s: %v", kmsg.NameForKey(req.Key()), err)
	}
	if corr := binary.BigEndian.Uint32(head[4:]); corr != 77 {
		r.t.Fatalf("answer to request %d, want 77", corr)
	}
	body := make([]byte, binary.BigEndian.Uint32(head)-4)
	if _, err := io.ReadFull(r, body); err != nil {
		r.t.Fatal(err)
	}
	if req.IsFlexible() && req.Key() != 18 {
		body = body[1:]
	}
	resp := req.ResponseKind()
	if err := resp.ReadFrom(body); err != nil {
		r.t.Fatal(err)
	}
	return resp
}

func frame(key, version int16, rest ...byte) []byte {
	b := []byte{0, 0, 0, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = append(b, 0, 0, 0, 1, 0xff, 0xff)
	b = append(b, rest...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// Every bad frame costs its connection, with a line that says why, and costs
// nobody else anything. A goroutine that it leaves behind fails the bubble.
func TestBadFramesCloseTheConnectionAndNothingElse(t *testing.T) {
	for _, c := range []struct {
		name, host string
		bytes      []byte
		refusal    string
	}{
		{"garbage", "open.gw.test", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "TG-FRAME-002"},
		{"a negative length", "open.gw.test", []byte{0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0}, "TG-FRAME-001"},
		{"a length above the limit", "open.gw.test", []byte{0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0}, "TG-FRAME-002"},
		{"a length of zero", "open.gw.test", []byte{0, 0, 0, 0}, "TG-FRAME-001"},
		{"a frame shorter than a header", "open.gw.test", []byte{0, 0, 0, 4, 0, 3, 0, 0}, "TG-FRAME-001"},
		{"an unknown key", "open.gw.test", frame(9999, 0), "TG-FRAME-005"},
		{"a negative key", "open.gw.test", frame(-1, 0), "TG-FRAME-005"},
		{"LeaderAndIsr", "open.gw.test", frame(4, 0), "TG-FRAME-006"},
		{"WriteTxnMarkers", "open.gw.test", frame(27, 1, 0, 0, 0, 0), "TG-FRAME-006"},
		{"AddPartitionsToTxn between brokers", "open.gw.test", frame(24, 4), "TG-FRAME-007"},
		{"an unknown version", "open.gw.test", frame(3, 99), "TG-FRAME-007"},
		{"a negative version", "open.gw.test", frame(3, -1), "TG-FRAME-007"},
		{"a client id longer than the frame", "open.gw.test", []byte{0, 0, 0, 10, 0, 3, 0, 9, 0, 0, 0, 1, 0x7f, 0xff}, "TG-FRAME-004"},
		{"a negative length of a client id", "open.gw.test", []byte{0, 0, 0, 10, 0, 3, 0, 1, 0, 0, 0, 1, 0x80, 0x00}, "TG-FRAME-004"},
		{"an array longer than the frame", "open.gw.test", frame(3, 1, 0x7f, 0xff, 0xff, 0xff), "TG-FRAME-004"},
		{"an array of endless length", "open.gw.test", frame(3, 9, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), "TG-FRAME-004"},
		{"Produce cut short", "open.gw.test", frame(0, 7, 0xff, 0xff, 0, 1, 0, 0), "TG-FRAME-004"},
		{"Fetch cut short", "open.gw.test", frame(1, 4, 0, 0, 0, 0), "TG-FRAME-004"},
		{"half a frame, and gone", "open.gw.test", []byte{0, 0, 1, 0, 0, 3, 0, 9}, ""},
		{"Metadata before authentication", "acme-dev.gw.test", frame(3, 1, 0xff, 0xff, 0xff, 0xff), "TG-AUTH-011"},
		{"SaslAuthenticate before SaslHandshake", "acme-dev.gw.test", frame(36, 0, 0, 0, 0, 0), "TG-AUTH-011"},
		{"thousands of millions of tags before authentication", "acme-dev.gw.test", frame(18, 3, 0, 2, 'a', 2, '1', 0xff, 0xff, 0xff, 0xff, 0x0f), "TG-FRAME-004"},
		{"an unknown key before authentication", "acme-dev.gw.test", frame(9999, 0), "TG-FRAME-005"},
		{"more than 512 KiB before authentication", "acme-dev.gw.test", []byte{0, 0x10, 0, 0, 0, 18, 0, 0}, "TG-FRAME-003"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *gateway) {
				bystander := g.raw(t, "open.gw.test")
				r := g.raw(t, c.host)
				r.send(c.bytes)
				if c.refusal == "" {
					r.Close()
				} else {
					r.closed()
				}
				synctest.Wait()
				lines := g.log.with("session ended")
				switch {
				case c.refusal == "" && len(lines) > 0:
					t.Errorf("a client that left is logged: %q", lines)
				case c.refusal != "" && (len(lines) != 1 || !strings.Contains(lines[0], "refusal="+c.refusal+" ")):
					t.Errorf("logged %q, want one line with %s", lines, c.refusal)
				}
				req := kmsg.NewPtrMetadataRequest()
				req.Version = 9
				if got := bystander.ask(req).(*kmsg.MetadataResponse); len(got.Brokers) != 3 {
					t.Errorf("another session sees %d brokers after that, want 3", len(got.Brokers))
				}
			})
		})
	}
}

func TestApiVersionsOfAnUnknownVersionSaysWhichAreKnown(t *testing.T) {
	g := start(t)
	r := g.raw(t, "acme-dev.gw.test")
	r.send(frame(18, 99, 0))
	b := make([]byte, 4+4+2+4+6)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	want := []byte{0, 0, 0, 16, 0, 0, 0, 1, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4}
	if !bytes.Equal(b, want) {
		t.Errorf("answer %x, want %x", b, want)
	}
	if resp := r.ask(&kmsg.ApiVersionsRequest{Version: 3, ClientSoftwareName: "a", ClientSoftwareVersion: "1"}).(*kmsg.ApiVersionsResponse); resp.ErrorCode != 0 || len(resp.ApiKeys) < 30 {
		t.Errorf("then version 3: error %d, %d keys", resp.ErrorCode, len(resp.ApiKeys))
	}
}

func TestGuessedFetchSessionsReadNothing(t *testing.T) {
	g := start(t)
	r := g.raw(t, "open.gw.test")
	for _, id := range []int32{1, 2, 12345, 1<<31 - 1} {
		req := kmsg.NewPtrFetchRequest()
		req.Version, req.SessionID, req.SessionEpoch, req.MaxBytes = 12, id, 1, 1<<20
		resp := r.ask(req).(*kmsg.FetchResponse)
		if resp.ErrorCode != kerr.FetchSessionIDNotFound.Code || len(resp.Topics) != 0 {
			t.Errorf("session %d: error %d with %d topics, want %d with none", id, resp.ErrorCode, len(resp.Topics), kerr.FetchSessionIDNotFound.Code)
		}
	}
}

// Another tenant's topic, and one that nobody has, look the same.
func TestForeignTopicsAreUnknown(t *testing.T) {
	g := start(t)
	r := g.raw(t, "open.gw.test")
	for _, name := range []string{"other.secret", "shop.orders.v2", "nobodys", "acme-dev.things"} {
		req := kmsg.NewPtrMetadataRequest()
		req.Version = 12
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, topic)
		resp := r.ask(req).(*kmsg.MetadataResponse)
		got := resp.Topics[0]
		if got.ErrorCode != kerr.UnknownTopicOrPartition.Code || got.TopicID != ([16]byte{}) || len(got.Partitions) != 0 {
			t.Errorf("%s: %+v, want error %d and nothing else", name, got, kerr.UnknownTopicOrPartition.Code)
		}
	}
	all := kmsg.NewPtrMetadataRequest()
	all.Version, all.Topics = 12, nil
	if resp := r.ask(all).(*kmsg.MetadataResponse); len(resp.Topics) != 0 {
		t.Errorf("all topics: %+v, want none", resp.Topics)
	}
}

func TestTopicNamesAtTheLimits(t *testing.T) {
	g := start(t)
	r := g.raw(t, "open.gw.test")
	for _, c := range []struct {
		name string
		code int16
	}{
		{"", kerr.InvalidTopicException.Code},
		{".", kerr.InvalidTopicException.Code},
		{"__mine", kerr.InvalidTopicException.Code},
		{"a/b", kerr.InvalidTopicException.Code},
		{strings.Repeat("n", 250), kerr.InvalidTopicException.Code},
		{strings.Repeat("n", 249-len("open.")+1), kerr.InvalidTopicException.Code},
		{strings.Repeat("n", 249-len("open.")), 0},
	} {
		req := kmsg.NewPtrCreateTopicsRequest()
		req.Version, req.TimeoutMillis = 5, 5000
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = c.name, 1, 1
		req.Topics = append(req.Topics, topic)
		resp := r.ask(req).(*kmsg.CreateTopicsResponse)
		if got := resp.Topics[0]; got.ErrorCode != c.code || got.Topic != c.name {
			t.Errorf("%d bytes %.20q: error %d of %.20q, want %d", len(c.name), c.name, got.ErrorCode, got.Topic, c.code)
		}
	}
}

// The old password is good for nothing once it was changed, and the new one is.
func TestAChangedPasswordIsTheOnlyOne(t *testing.T) {
	g := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	login := func(password string) *kgo.Client {
		return g.client(t, "acme-dev.gw.test", kgo.SASL(plain.Auth{User: "dev", Pass: password}.AsMechanism()))
	}
	if err := login("dev-secret").Ping(ctx); err != nil {
		t.Fatal(err)
	}
	held := g.raw(t, "acme-dev.gw.test")
	if code := held.login("dev", "dev-secret"); code != 0 {
		t.Fatalf("login: error %d", code)
	}
	g.write(t, "dev.secret", "another-secret-now\n")
	held.closed()
	if err := login("dev-secret").Ping(ctx); err == nil {
		t.Error("the old password still works")
	}
	if err := login("another-secret-now").Ping(ctx); err != nil {
		t.Errorf("the new password: %v", err)
	}
}

func TestABadFileChangesNothing(t *testing.T) {
	g := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	g.write(t, "zz.yaml", "{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: NOT A LABEL}, spec: {nonsense: 1}}\n")
	cl := g.client(t, "open.gw.test")
	for range 8 {
		if err := cl.Ping(ctx); err != nil {
			t.Fatalf("after a bad file: %v", err)
		}
	}
	if err := os.Remove(filepath.Join(g.resources, "zz.yaml")); err != nil {
		t.Fatal(err)
	}
}

// A tenant's admin requests work on its own names, and only there.
func TestAdminStaysInsideTheVirtualCluster(t *testing.T) {
	g := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	admin := kadm.NewClient(g.client(t, "open.gw.test"))
	if _, err := admin.CreateTopic(ctx, 2, 1, map[string]*string{"retention.ms": kadm.StringPtr("60000")}, "things"); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreateTopic(ctx, 1, 1, map[string]*string{"follower.replication.throttled.replicas": kadm.StringPtr("*")}, "throttled"); !errors.Is(err, kerr.PolicyViolation) {
		t.Errorf("a config the policy does not name: %v, want POLICY_VIOLATION", err)
	}
	topics, err := admin.ListTopics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if names := topics.Names(); len(names) != 1 || names[0] != "things" {
		t.Errorf("topics %v, want only things", names)
	}
	configs, err := admin.DescribeTopicConfigs(ctx, "things", "other.secret")
	if err != nil {
		t.Fatal(err)
	}
	for _, rc := range configs {
		switch {
		case rc.Name == "things" && rc.Err != nil:
			t.Errorf("configs of things: %v", rc.Err)
		case rc.Name != "things" && !errors.Is(rc.Err, kerr.UnknownTopicOrPartition):
			t.Errorf("configs of %s: %v, want UNKNOWN_TOPIC_OR_PARTITION", rc.Name, rc.Err)
		}
	}
	if _, err := admin.DeleteTopics(ctx, "things"); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(g.upstreamTopics(ctx, t)); strings.Contains(got, "open.things") || !strings.Contains(got, "other.secret") {
		t.Errorf("upstream topics %v after the tenant deleted its own", got)
	}
}

func (g *gateway) upstreamTopics(ctx context.Context, t *testing.T) []string {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(g.upstream.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	topics, err := kadm.NewClient(cl).ListTopics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return topics.Names()
}
