package proxy_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy"
)

// again starts the proxy anew with another configuration.
func (g *gateway) again(t *testing.T, change func(cfg *proxy.Config)) {
	t.Helper()
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	change(&g.cfg)
	g.run(t)
}

// whenClosed is how long the gateway bears with a connection from now on. It says
// nothing meanwhile but what belongs to TLS.
func whenClosed(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	began := time.Now()
	c.SetReadDeadline(began.Add(2 * time.Hour))
	if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the connection is open after two hours")
	}
	return time.Since(began)
}

// Who is slow on purpose is cut off when the time for what it is doing is over,
// however steadily it goes on, and holds up nobody.
func TestWhoIsSlowIsCutOff(t *testing.T) {
	hello := func(c net.Conn) {
		tls.Client(c, &tls.Config{ServerName: "open.gw.test", InsecureSkipVerify: true}).Handshake()
	}
	balancer := func(cfg *proxy.Config) {
		cfg.Listeners[0].ProxyProtocol = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}
	for _, c := range []struct {
		name    string
		change  func(cfg *proxy.Config)
		attack  func(t *testing.T, g *gateway) net.Conn
		want    time.Duration
		refusal string
	}{
		{"nothing is sent", nil, func(t *testing.T, g *gateway) net.Conn { return g.tcp(t) }, 10 * time.Second, "TG-LISTEN-007"},
		{"a hello, a byte a second", nil, func(t *testing.T, g *gateway) net.Conn {
			d := &dribble{Conn: g.tcp(t)}
			d.slow.Store(true)
			go hello(d)
			return d.Conn
		}, 10 * time.Second, "TG-LISTEN-007"},
		{"no PROXY header", balancer, func(t *testing.T, g *gateway) net.Conn { return g.tcp(t) }, 10 * time.Second, "TG-LISTEN-007"},
		{"a PROXY header, a byte a second", balancer, func(t *testing.T, g *gateway) net.Conn {
			d := &dribble{Conn: g.tcp(t)}
			d.slow.Store(true)
			go d.Write([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x12\x34\x23\x84"))
			return d.Conn
		}, 10 * time.Second, "TG-LISTEN-007"},
		{"no login", nil, func(t *testing.T, g *gateway) net.Conn { return g.raw(t, "acme-dev.gw.test") }, 30 * time.Second, "TG-AUTH-017"},
		{"a login, a byte a second", nil, func(t *testing.T, g *gateway) net.Conn {
			r, d := g.rawOver(t, "acme-dev.gw.test")
			d.slow.Store(true)
			go r.Write(frame(17, 1, append([]byte{0, 5}, "PLAIN"...)...))
			return d.Conn
		}, 30 * time.Second, "TG-AUTH-017"},
		{"a frame that stops", nil, func(t *testing.T, g *gateway) net.Conn {
			r := g.raw(t, "open.gw.test")
			r.send([]byte{0, 0, 1, 0, 0, 3})
			return r
		}, time.Minute, "TG-FRAME-010"},
		{"a frame, a byte a second in records of their own", nil, func(t *testing.T, g *gateway) net.Conn {
			r := g.raw(t, "open.gw.test")
			go func() {
				for _, b := range append([]byte{0, 0, 1, 0}, make([]byte, 200)...) {
					if _, err := r.Write([]byte{b}); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			}()
			return r
		}, time.Minute, "TG-FRAME-010"},
		{"a TLS record, a byte a second", nil, func(t *testing.T, g *gateway) net.Conn {
			r, d := g.rawOver(t, "open.gw.test")
			d.slow.Store(true)
			go r.Write(make([]byte, 1000))
			return d.Conn
		}, time.Minute, "TG-FRAME-010"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *gateway) {
				if c.change != nil {
					g.again(t, c.change)
				}
				began := time.Now()
				conn := c.attack(t, g)
				whenClosed(t, conn)
				if took := time.Since(began); took < c.want || took > c.want+time.Second {
					t.Errorf("cut off after %v, want %v", took, c.want)
				}
				conn.Close()
				time.Sleep(2 * time.Second) // until who dribbles has noticed
				if lines := g.log.with("refusal=" + c.refusal + " "); len(lines) != 1 {
					t.Errorf("logged %q, want one line with %s", lines, c.refusal)
				}
			})
		})
	}
}

// While strangers use up what strangers may have, those who are in go on, and
// when the flood is over others get in again.
func TestAFloodOfStrangersLeavesOthersAlone(t *testing.T) {
	metadata := &kmsg.MetadataRequest{Version: 9}
	for _, c := range []struct {
		name    string
		change  func(cfg *proxy.Config)
		n       int
		flood   func(t *testing.T, g *gateway) net.Conn
		refusal string
	}{
		{
			"silent connections", func(cfg *proxy.Config) { cfg.Limits.UnauthenticatedConnections = 20 }, 20,
			func(t *testing.T, g *gateway) net.Conn { return g.tcp(t) }, "TG-LISTEN-012",
		},
		{
			"handshakes without a login", func(cfg *proxy.Config) { cfg.Limits.UnauthenticatedConnections = 20 }, 20,
			func(t *testing.T, g *gateway) net.Conn { return g.raw(t, "acme-dev.gw.test") }, "TG-LISTEN-012",
		},
		{
			"of one address", func(cfg *proxy.Config) { cfg.Limits.UnauthenticatedConnectionsPerAddress = 20 }, 20,
			func(t *testing.T, g *gateway) net.Conn { return g.tcp(t) }, "TG-LISTEN-013",
		},
		{
			"connections of one address", func(cfg *proxy.Config) { cfg.Limits.ConnectionsPerAddress = 20 }, 19,
			func(t *testing.T, g *gateway) net.Conn { return g.raw(t, "open.gw.test") }, "TG-LISTEN-014",
		},
		{
			"connections of the node", func(cfg *proxy.Config) { cfg.Limits.Connections = 20 }, 19,
			func(t *testing.T, g *gateway) net.Conn { return g.raw(t, "open.gw.test") }, "TG-LISTEN-011",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *gateway) {
				g.again(t, c.change)
				bystander := g.raw(t, "acme-dev.gw.test")
				if code := bystander.login("dev", "dev-secret"); code != 0 {
					t.Fatalf("login: error %d", code)
				}
				var flood []net.Conn
				for range c.n {
					flood = append(flood, c.flood(t, g))
				}
				synctest.Wait()
				more := g.tcp(t)
				if took := whenClosed(t, more); took != 0 {
					t.Errorf("one more was closed after %v, want at once", took)
				}
				synctest.Wait()
				if lines := g.log.with("refusal=" + c.refusal + " "); len(lines) != 1 {
					t.Errorf("logged %q, want one line with %s", lines, c.refusal)
				}
				bystander.ask(metadata)
				for _, f := range flood {
					f.Close()
				}
				synctest.Wait()
				g.raw(t, "open.gw.test").ask(metadata)
				bystander.ask(metadata)
			})
		})
	}
}

// A tenant's own limit counts those who are in, and only its own.
func TestAVirtualClusterHasItsOwnLimit(t *testing.T) {
	metadata := &kmsg.MetadataRequest{Version: 9}
	bubble(t, func(t *testing.T, g *gateway) {
		g.replace(t, "all.yaml", "  host: acme-dev\n", "  host: acme-dev\n  quotas: {connections: 3}\n")
		time.Sleep(time.Second) // until the files were looked at
		strangers := []*raw{g.raw(t, "acme-dev.gw.test"), g.raw(t, "acme-dev.gw.test"), g.raw(t, "acme-dev.gw.test")}
		synctest.Wait() // until the gateway too is through with their handshakes
		var in []*raw
		for range 3 {
			r := g.raw(t, "acme-dev.gw.test")
			if code := r.login("dev", "dev-secret"); code != 0 {
				t.Fatalf("login beside strangers: error %d", code)
			}
			in = append(in, r)
		}
		// Those who came before the limit was reached find it when they log in.
		strangers[0].ask(&kmsg.SASLHandshakeRequest{Version: 1, Mechanism: "PLAIN"})
		strangers[0].Write(kmsg.NewRequestFormatter().AppendRequest(nil, &kmsg.SASLAuthenticateRequest{SASLAuthBytes: []byte("\x00dev\x00dev-secret")}, 2))
		whenClosed(t, strangers[0])
		c := tls.Client(g.tcp(t), &tls.Config{RootCAs: g.roots, ServerName: "acme-dev.gw.test"})
		c.Handshake()
		if took := whenClosed(t, c); took != 0 {
			t.Errorf("one more was closed after %v, want at once", took)
		}
		synctest.Wait()
		if lines := g.log.with("refusal=TG-LISTEN-015 "); len(lines) == 0 {
			t.Error("no line with TG-LISTEN-015")
		}
		for _, r := range in {
			r.ask(metadata)
		}
		g.raw(t, "open.gw.test").ask(metadata) // another virtual cluster has its own
		in[0].Close()
		synctest.Wait()
		if code := g.raw(t, "acme-dev.gw.test").login("dev", "dev-secret"); code != 0 {
			t.Errorf("login after one has left: error %d", code)
		}
	})
}

// A request of many empty names takes far more memory than it has bytes. What it
// may take is bounded for the whole node, and those beyond are refused unread.
func TestARequestThatUnfoldsIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		g.again(t, func(cfg *proxy.Config) { cfg.MaxFrameBytes, cfg.RequestMemory = 1<<20, 1<<20 })
		r := g.raw(t, "open.gw.test")
		find := kmsg.NewPtrFindCoordinatorRequest()
		find.Version, find.CoordinatorKeys = 4, make([]string, 1000)
		if got := r.ask(find).(*kmsg.FindCoordinatorResponse); len(got.Coordinators) != 1000 {
			t.Errorf("%d coordinators of 1000 empty names", len(got.Coordinators))
		}
		find.CoordinatorKeys = make([]string, 30_000)
		if got := r.ask(find).(*kmsg.FindCoordinatorResponse); len(got.Coordinators) != 30_000 {
			t.Errorf("%d coordinators of 30000 empty names", len(got.Coordinators))
		}
		find.CoordinatorKeys = make([]string, 40_000) // a 32nd of the memory is 32 KiB
		r.Write(kmsg.NewRequestFormatter().AppendRequest(nil, find, 1))
		r.closed()
		synctest.Wait()
		if lines := g.log.with("session ended", " refusal=TG-FRAME-002 "); len(lines) != 1 {
			t.Errorf("logged %q, want one line with TG-FRAME-002", g.log.with("session ended"))
		}
		produce := kmsg.NewPtrProduceRequest() // which no 32nd bounds
		produce.Version, produce.Acks, produce.TimeoutMillis = 9, 1, 1000
		topic := kmsg.NewProduceRequestTopic()
		topic.Topic = "nobodys"
		partition := kmsg.NewProduceRequestTopicPartition()
		partition.Records = make([]byte, 500<<10)
		topic.Partitions = append(topic.Partitions, partition)
		produce.Topics = append(produce.Topics, topic)
		if got := g.raw(t, "open.gw.test").ask(produce).(*kmsg.ProduceResponse); got.Topics[0].Partitions[0].ErrorCode != kerr.UnknownTopicOrPartition.Code {
			t.Errorf("a large Produce to a topic that is not there: %+v", got.Topics)
		}
	})
}

// Names at and beyond what Kafka allows get what a broker would answer, and none
// is made to look like another by the prefix before it.
func TestGroupsAndTransactionsAtTheLimits(t *testing.T) {
	g := start(t)
	r := g.raw(t, "open.gw.test")
	const prefix = len("open.")
	for _, c := range []struct {
		name    string
		id      string
		refused bool
	}{
		{"empty", "", true},
		{"249 bytes", strings.Repeat("g", 249), false},
		{"250 bytes", strings.Repeat("g", 250), false},
		{"as long as a string can be, with the prefix", strings.Repeat("g", 1<<15-1-prefix), false},
		{"one byte more", strings.Repeat("g", 1<<15-prefix), true},
		{"as long as a string can be", strings.Repeat("g", 1<<15-1), true},
		{"longer than a string can be", strings.Repeat("g", 1<<16+3-prefix), true},
	} {
		// The broker that is asked may be another than the coordinator.
		check := func(request string, got, refusal int16, accepted ...int16) {
			t.Helper()
			if c.refused && got != refusal || !c.refused && !slices.Contains(append(accepted, kerr.NotCoordinator.Code), got) {
				t.Errorf("%s: %s answers %d, want refused %t with %d", c.name, request, got, c.refused, refusal)
			}
		}
		join := kmsg.NewPtrJoinGroupRequest()
		join.Version, join.Group, join.SessionTimeoutMillis, join.ProtocolType = 7, c.id, 10000, "consumer"
		join.RebalanceTimeoutMillis = 10000
		protocol := kmsg.NewJoinGroupRequestProtocol()
		protocol.Name, protocol.Metadata = "range", []byte{0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}
		join.Protocols = append(join.Protocols, protocol)
		check("JoinGroup", r.ask(join).(*kmsg.JoinGroupResponse).ErrorCode, kerr.InvalidGroupID.Code, kerr.MemberIDRequired.Code)
		init := kmsg.NewPtrInitProducerIDRequest()
		init.Version, init.TransactionalID, init.TransactionTimeoutMillis = 4, kmsg.StringPtr(c.id), 10000
		check("InitProducerId", r.ask(init).(*kmsg.InitProducerIDResponse).ErrorCode, kerr.InvalidRequest.Code, 0)
		find := kmsg.NewPtrFindCoordinatorRequest()
		find.Version, find.CoordinatorKeys = 4, []string{c.id}
		want := int16(0)
		if len(c.id)+prefix > 1<<15-1 {
			want = kerr.InvalidRequest.Code
			member := kmsg.StringPtr("m")
			for _, req := range []kmsg.Request{
				&kmsg.ConsumerGroupHeartbeatRequest{Version: 1, Group: c.id},
				&kmsg.ShareGroupHeartbeatRequest{Version: 1, GroupID: c.id},
				&kmsg.ShareFetchRequest{Version: 1, GroupID: &c.id, MemberID: member},
				&kmsg.ShareAcknowledgeRequest{Version: 1, GroupID: &c.id, MemberID: member},
				&kmsg.AlterShareGroupOffsetsRequest{GroupID: c.id},
				&kmsg.DeleteShareGroupOffsetsRequest{GroupID: c.id},
			} {
				code := reflect.ValueOf(r.ask(req)).Elem().FieldByName("ErrorCode").Int()
				check(kmsg.NameForKey(req.Key()), int16(code), kerr.InvalidGroupID.Code)
			}
			configs := kmsg.NewPtrDescribeConfigsRequest()
			configs.Version, configs.Resources = 4, []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeGroupConfig, ResourceName: c.id}}
			check("DescribeConfigs", r.ask(configs).(*kmsg.DescribeConfigsResponse).Resources[0].ErrorCode, kerr.InvalidGroupID.Code)
		}
		if got := r.ask(find).(*kmsg.FindCoordinatorResponse).Coordinators[0].ErrorCode; got != want {
			t.Errorf("%s: FindCoordinator answers %d, want %d", c.name, got, want)
		}
	}
}
