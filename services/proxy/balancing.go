package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"tollgate.internal/services/proxy/internal/balance"
	"tollgate.internal/services/proxy/internal/fleet"
	"tollgate.internal/services/proxy/internal/listener"
	"tollgate.internal/services/proxy/internal/view"
)

// Balancing says who spreads the clients over the nodes of a fleet.
type Balancing string

// With external balancing, the default, every node has the same names, and what stands
// before them (a TCP balancer, DNS) chooses one. With internal balancing the first
// connection of a client comes to any node, and the brokers that it is told of have
// names of the node that it is sent to: b<node>-<host>.<domain of the node>. Any node
// serves any broker all the same.
const (
	External Balancing = "external"
	Internal Balancing = "internal"
)

// Fleet is how the node shares the clients with others.
type Fleet struct {
	Balancing Balancing // External
	// Advertise is the node's own domain, and the port that clients reach it on, which
	// is that of the first listener by SNI if it is left out: n1.gw.example.com:9092. Every
	// name below it leads to this node, and its certificates cover *.<domain>.
	Advertise string
	// Members are the nodes; nil: those that the control plane knows.
	Members fleet.Membership
}

// address is Advertise in two parts; port 0: the listener's.
func (f *Fleet) address() (domain string, port uint16, err error) {
	domain = f.Advertise
	if host, digits, found := strings.Cut(f.Advertise, ":"); found {
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || n == 0 {
			return "", 0, fmt.Errorf("%q has no port after the colon", f.Advertise)
		}
		domain, port = host, uint16(n)
	} else if domain == "" {
		return "", 0, nil
	}
	if net.ParseIP(domain) != nil || strings.Trim(domain, ".") != domain || !strings.Contains(domain, ".") || strings.ToLower(domain) != domain {
		return "", 0, fmt.Errorf("%q is not a domain such as n1.gw.example.com, in lower case", domain)
	}
	return domain, port, nil
}

// Check reports what is wrong beside the domains and listeners of the node, and with
// which field: advertise or balancing.
func (f *Fleet) Check(domains []string, listeners []Listener) (field string, err error) {
	domain, _, err := f.address()
	if err != nil {
		return "advertise", err
	}
	switch f.Balancing {
	case "", External:
		return "", nil
	case Internal:
	default:
		return "balancing", fmt.Errorf("%q is neither internal nor external", f.Balancing)
	}
	switch {
	case domain == "":
		return "advertise", errors.New("required: internal balancing needs the node's own domain, such as n1.gw.example.com")
	case len(domains) == 0:
		return "balancing", errors.New("internal needs domains: clients come by them first")
	case slices.Contains(domains, domain):
		return "advertise", fmt.Errorf("%s is a domain of all nodes: the node needs one of its own", domain)
	case !slices.ContainsFunc(listeners, func(l Listener) bool { return l.Routing == BySNI }):
		return "balancing", errors.New("internal needs a listener by SNI")
	}
	return "", nil
}

// balancer knows which nodes clients are sent to. It exists with internal balancing only.
type balancer struct {
	common  string // the domain whose clients are balanced
	domain  string // of the node itself
	members fleet.Membership
	roster  atomic.Pointer[roster]
	nodes   sync.Map // the domains of all nodes that there are or were
}

// roster is a membership as far as clients may be sent there.
type roster struct {
	nodes balance.Roster
	to    []target // of each node
}

type target struct {
	domain string
	port   int32
}

func newBalancer(cfg *Config, redis *fleet.Redis) *balancer {
	domain, _, _ := cfg.Fleet.address() // which was checked
	b := &balancer{common: cfg.Domains[0], domain: domain, members: cfg.Fleet.Members}
	if b.members == nil {
		b.members = redis
	}
	members, _ := b.members.Members()
	b.set(members, false)
	return b
}

// allDomains are those below which virtual clusters have their names here.
func (c *Config) allDomains() []string {
	if c.Fleet.Balancing != Internal {
		return c.Domains
	}
	own, _, _ := c.Fleet.address()
	return append(slices.Clone(c.Domains), own)
}

// set makes the roster of who serves and can be reached. A node that drains knows so
// before its own heartbeat comes back to it.
func (b *balancer) set(members []fleet.Member, leaving bool) {
	r := new(roster)
	for _, m := range members {
		if m.Domain != "" {
			b.nodes.Store(m.Domain, true)
		}
		if m.State != fleet.Serving || m.Domain == "" || m.Port == 0 || leaving && m.Domain == b.domain {
			continue
		}
		r.nodes = append(r.nodes, balance.Node{ID: m.ID, Rack: m.Rack, Weight: m.Weight})
		r.to = append(r.to, target{m.Domain, m.Port})
	}
	if old := b.roster.Load(); old != nil && slices.Equal(old.nodes, r.nodes) && slices.Equal(old.to, r.to) {
		return // what was placed stays found
	}
	b.roster.Store(r)
}

// at is the node that clients of a table are sent to for a broker; nil: to any. That is
// so where there is no choice: of one broker's name, or one node's, a client that loses
// the node would know no other (PROTOCOL.md §H3).
func (b *balancer) at(t *view.Table, vNode int32) *target {
	r := b.roster.Load()
	if r == nil || t == nil || len(r.nodes) < 2 || len(t.Brokers) < 2 {
		return nil
	}
	if n, ok := t.Placed(&r.nodes)[vNode]; ok {
		return &r.to[n]
	}
	return nil
}

// followMembers keeps the roster as new as the membership, and as the node's own state.
func (g *gateway) followMembers(ctx context.Context) {
	b := g.balancer
	for {
		members, changed := b.members.Members()
		report, self := g.Report()
		b.set(members, report.State != fleet.Serving)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-self:
		}
	}
}

// answersFor reports whether those who come by a domain are balanced: by that of all, by
// the node's own, or by that of a node whose names lead here because it is gone.
func (b *balancer) answersFor(domain string) bool {
	_, node := b.nodes.Load(domain)
	return domain == b.common || domain == b.domain || node
}

// advertise is how a client is told of brokers. Those who came by a custom host or by
// another domain stay with it: its certificates and its network may be others.
func (g *gateway) advertise(c *listener.Conn, vc *view.VirtualCluster) func(vNode int32) (string, int32) {
	b := g.balancer
	if b == nil || c.Spec.Routing != listener.BySNI {
		return c.Advertise
	}
	label, domain, _ := strings.Cut(c.Host(), ".")
	if label != strings.ToLower(vc.View().Spec.Host) || !b.answersFor(domain) {
		return c.Advertise
	}
	return func(vNode int32) (string, int32) {
		if to := b.at(vc.Table(), vNode); to != nil {
			return listener.BrokerHost(label+"."+to.domain, vNode), to.port
		}
		return listener.BrokerHost(label+"."+b.common, vNode), c.Port()
	}
}
