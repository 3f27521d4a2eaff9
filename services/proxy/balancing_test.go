package proxy_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy"
	"tollgate.internal/services/proxy/internal/fleet"
)

// membership is what nodes know of each other.
type membership struct {
	mu      sync.Mutex
	members []fleet.Member
	changed chan struct{}
}

func (m *membership) Members() ([]fleet.Member, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.members, m.changed
}

func (m *membership) set(members ...fleet.Member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.members = members
	close(m.changed)
	m.changed = make(chan struct{})
}

// nodes are several gateways over the files and brokers of one, with internal balancing.
type nodes struct {
	all     []*gateway
	selves  []fleet.Self
	members *membership
}

func (n *nodes) member(i int) fleet.Member {
	_, port, _ := net.SplitHostPort(n.all[i].addr)
	m := fleet.Member{ID: fmt.Sprint("n", i+1), Domain: fmt.Sprintf("n%d.gw.test", i+1), State: fleet.Serving, Weight: 4}
	fmt.Sscan(port, &m.Port)
	return m
}

func startNodes(t *testing.T, count int, grace time.Duration) *nodes {
	t.Helper()
	first := start(t)
	n := &nodes{members: &membership{changed: make(chan struct{})}}
	dir := t.TempDir()
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("*.n%d.gw.test", i+1))
	}
	pair, roots := certificate(t, dir, append(names, "kafka.acme.test", "b0-kafka.acme.test", "b1-kafka.acme.test", "b2-kafka.acme.test")...)
	first.roots = roots
	first.replace(t, "all.yaml", "host: open,", "host: open, customHosts: [kafka.acme.test],")
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	var members []fleet.Member
	for i := range count {
		g := first
		if i > 0 {
			g = new(gateway)
			*g = *first
			t.Cleanup(func() {
				if err := g.stop(); err != nil {
					t.Errorf("Run: %v", err)
				}
			})
		}
		g.addr, g.admin = "", ""
		g.cfg.Listeners = []proxy.Listener{{Name: "sni", Address: "127.0.0.1:0", Routing: proxy.BySNI, Certificates: []proxy.KeyPair{pair}}}
		g.cfg.Fleet = proxy.Fleet{Balancing: proxy.Internal, Advertise: fmt.Sprintf("n%d.gw.test", i+1), Members: n.members}
		g.cfg.DrainGrace = grace
		g.cfg.Self(func(s fleet.Self) { n.selves = append(n.selves, s) })
		g.run(t)
		n.all = append(n.all, g)
		members = append(members, n.member(i))
	}
	n.members.set(members...)
	return n
}

// hosts are those that a client is told of the brokers, as host:port, by a node and for
// the host by which it came.
func (n *nodes) hosts(t *testing.T, node int, host string) (all []string) {
	t.Helper()
	c := n.all[node].raw(t, host)
	defer c.Close()
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 9
	for _, b := range c.ask(req).(*kmsg.MetadataResponse).Brokers {
		all = append(all, fmt.Sprintf("%s:%d", b.Host, b.Port))
	}
	d := kmsg.NewPtrDescribeClusterRequest()
	for i, b := range c.ask(d).(*kmsg.DescribeClusterResponse).Brokers {
		if got := fmt.Sprintf("%s:%d", b.Host, b.Port); got != all[i] {
			t.Errorf("DescribeCluster says %s, Metadata %s", got, all[i])
		}
	}
	f := kmsg.NewPtrFindCoordinatorRequest()
	f.Version, f.CoordinatorKeys = 4, []string{"g"}
	if g := c.ask(f).(*kmsg.FindCoordinatorResponse).Coordinators[0]; g.ErrorCode != 0 || fmt.Sprintf("%s:%d", g.Host, g.Port) != all[g.NodeID] {
		t.Errorf("the coordinator is at %s:%d (%d), the broker at %s", g.Host, g.Port, g.ErrorCode, all[g.NodeID])
	}
	return all
}

// All nodes send the clients of a virtual cluster to the same nodes, and every node
// serves whoever comes, by the common domain or its own.
func TestClientsAreSentToNodesOfTheirOwn(t *testing.T) {
	n := startNodes(t, 3, time.Second)
	var want []string
	eventually(t, "all nodes send clients to the same nodes", func() bool {
		want = n.hosts(t, 0, "open.gw.test")
		domains := make(map[string]bool)
		for v, h := range want {
			host, port, _ := strings.Cut(h, ":")
			label, domain, _ := strings.Cut(host, ".")
			if label != fmt.Sprintf("b%d-open", v) || !strings.HasPrefix(domain, "n") {
				return false
			}
			if node := n.member(int(domain[1] - '1')); fmt.Sprint(node.Port) != port {
				t.Errorf("broker %d is at %s, the node at port %d", v, h, node.Port)
			}
			domains[domain] = true
		}
		for node := range n.all {
			for _, host := range []string{"open.gw.test", fmt.Sprintf("open.n%d.gw.test", node+1), fmt.Sprintf("b1-open.n%d.gw.test", node+1), "b2-open.gw.test"} {
				if got := n.hosts(t, node, host); fmt.Sprint(got) != fmt.Sprint(want) {
					return false
				}
			}
		}
		return len(want) == 3 && len(domains) >= 2
	})
	// A name of another node's leads nowhere: DNS was wrong, or is late.
	c, err := net.Dial("tcp", n.all[0].addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := tls.Client(c, &tls.Config{RootCAs: n.all[0].roots, ServerName: "open.n2.gw.test"}).Handshake(); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("the name of another node: %v", err)
	}
	// A host of the virtual cluster's own is nobody's but its own.
	for v, h := range n.hosts(t, 1, "kafka.acme.test") {
		if !strings.HasPrefix(h, fmt.Sprintf("b%d-kafka.acme.test:", v)) {
			t.Errorf("by a custom host broker %d is at %s", v, h)
		}
	}
	// One that drains is out of the maps, its own first; of one node that is left the
	// names are those of all.
	n.selves[0].Drain(time.Hour)
	eventually(t, "the node that drains sends nobody to itself", func() bool {
		for _, h := range n.hosts(t, 0, "open.gw.test") {
			if strings.Contains(h, ".n1.") {
				return false
			}
		}
		return true
	})
}

// The names of a node may lead to another when it is gone, if that one has its domain
// among its own: who comes so is sent on as everybody is.
func TestANodeAnswersForOneThatIsGone(t *testing.T) {
	n := startNodes(t, 3, 100*time.Millisecond)
	g := n.all[0]
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	g.addr, g.admin = "", ""
	g.cfg.Domains = append(slices.Clone(g.cfg.Domains), "n2.gw.test")
	g.run(t)
	for _, members := range [][]fleet.Member{{n.member(0), n.member(1), n.member(2)}, {n.member(0), n.member(2)}} {
		n.members.set(members...)
		var got, want []string
		eventually(t, "who comes by another node's name is sent on as everybody", func() bool {
			got, want = n.hosts(t, 0, "b1-open.n2.gw.test"), n.hosts(t, 0, "open.gw.test")
			return slices.Equal(got, want) && strings.Contains(want[0], ".n") && (len(members) == 3 || !strings.Contains(strings.Join(want, " "), ".n2."))
		})
	}
}

// A client that loses the node it was sent to finds another.
func TestClientsAreSentWhereTheyAreServed(t *testing.T) {
	n := startNodes(t, 3, 100*time.Millisecond)
	everywhere := func(what string, good func(hosts []string) bool, nodes ...int) {
		t.Helper()
		eventually(t, what, func() bool {
			for _, i := range nodes {
				if !good(n.hosts(t, i, "open.gw.test")) {
					return false
				}
			}
			return true
		})
	}
	none := func(domains ...string) func(hosts []string) bool {
		return func(hosts []string) bool {
			for _, d := range domains {
				if strings.Contains(strings.Join(hosts, " "), d) {
					return false
				}
			}
			return true
		}
	}
	everywhere("clients are sent to nodes", none("-open.gw.test"), 0, 1, 2)
	draining := n.member(2)
	draining.State = fleet.Draining
	n.members.set(n.member(0), n.member(1), draining)
	everywhere("nobody is sent to the one that drains", none(".n3.", "-open.gw.test"), 0, 1, 2)
	unreachable := n.member(1)
	unreachable.Domain = ""
	n.members.set(n.member(0), unreachable, n.member(2))
	everywhere("nobody is sent to the one without a domain", none(".n2.", "-open.gw.test"), 0, 1, 2)
	n.members.set(n.member(0))
	everywhere("of one node the names are those of all", none(".n1.", ".n2.", ".n3."), 0, 1, 2)
	n.members.set()
	everywhere("so they are of none", none(".n1.", ".n2.", ".n3."), 0, 1, 2)
}

// A client that has heard of a new topic from one node writes and reads it at another,
// which has not looked since.
func TestATopicThatAnotherNodeHasShownIsThere(t *testing.T) {
	for name, code := range map[string]func(r *raw) int16{
		"Produce": func(r *raw) int16 {
			req := kmsg.NewPtrProduceRequest()
			req.Version, req.Acks, req.TimeoutMillis = 9, 1, 1000
			req.Topics = []kmsg.ProduceRequestTopic{{Topic: "new", Partitions: []kmsg.ProduceRequestTopicPartition{{Records: oneRecord(t)}}}}
			return r.ask(req).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
		},
		"Fetch": func(r *raw) int16 {
			req := kmsg.NewPtrFetchRequest()
			req.Version, req.MaxBytes, req.SessionEpoch = 12, 1<<20, -1
			req.Topics = []kmsg.FetchRequestTopic{{Topic: "new", Partitions: []kmsg.FetchRequestTopicPartition{kmsg.NewFetchRequestTopicPartition()}}}
			return r.ask(req).(*kmsg.FetchResponse).Topics[0].Partitions[0].ErrorCode
		},
		"ListOffsets": func(r *raw) int16 {
			req := kmsg.NewPtrListOffsetsRequest()
			req.Version = 7
			req.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "new", Partitions: []kmsg.ListOffsetsRequestTopicPartition{kmsg.NewListOffsetsRequestTopicPartition()}}}
			return r.ask(req).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].ErrorCode
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *gateway) {
				r := g.raw(t, "b0-open.gw.test")
				r.ask(&kmsg.MetadataRequest{Version: 9})
				if err := g.upstream.CreateTopic("open.new", 1, nil); err != nil {
					t.Fatal(err)
				}
				if err := g.upstream.MoveTopicPartition("open.new", 0, 0); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				if code := code(r); code != 0 {
					t.Error(kerr.ErrorForCode(code))
				}
			})
		})
	}
}

// A client goes along when the map changes under it, and is served while it does not
// know yet.
func TestAClientFollowsTheNodes(t *testing.T) {
	n := startNodes(t, 3, 100*time.Millisecond)
	if err := n.all[0].upstream.CreateTopic("open.things", 6, nil); err != nil {
		t.Fatal(err)
	}
	by := make(map[string][]string) // addresses, by domain
	for i, g := range n.all {
		by[fmt.Sprintf("n%d.gw.test", i+1)] = []string{g.addr}
		by["gw.test"] = append(by["gw.test"], g.addr) // as a balancer, or DNS, has it
	}
	var mu sync.Mutex
	dialled := make(map[string]int)
	cl, err := kgo.NewClient(kgo.SeedBrokers("open.gw.test:9092"), kgo.DefaultProduceTopic("things"), kgo.MetadataMinAge(50*time.Millisecond), kgo.MetadataMaxAge(500*time.Millisecond),
		kgo.Dialer(func(ctx context.Context, _, hostport string) (net.Conn, error) {
			name, _, _ := net.SplitHostPort(hostport)
			_, domain, _ := strings.Cut(name, ".")
			mu.Lock()
			dialled[domain]++
			mu.Unlock()
			err := fmt.Errorf("%s leads nowhere", name)
			for _, addr := range by[domain] {
				var c net.Conn
				if c, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr); err == nil {
					return tls.Client(c, &tls.Config{RootCAs: n.all[0].roots, ServerName: name}), nil
				}
			}
			return nil, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, gone := range []int{0, 1, 2} {
		var members []fleet.Member
		for j := range n.all {
			m := n.member(j)
			if j == gone {
				m.State = fleet.Draining
			}
			members = append(members, m)
		}
		n.members.set(members...)
		n.selves[gone].Drain(200 * time.Millisecond)
		for range 40 {
			produceN(t, cl, 25)
		}
		reach(t, n.selves[gone], fleet.Drained)
		n.selves[gone].Undrain()
		reach(t, n.selves[gone], fleet.Serving)
	}
	mu.Lock()
	defer mu.Unlock()
	t.Logf("dialled %v", dialled)
	if len(dialled) < 3 {
		t.Errorf("the client was at %v only", dialled)
	}
}
