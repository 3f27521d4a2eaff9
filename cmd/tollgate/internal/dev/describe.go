package dev

import (
	"context"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy"
)

// description is what follows from one set of resources.
type description struct {
	info    Info
	targets []target
	hosts   []string // that clients have to resolve
	names   []string // for the certificate
}

// address is where clients on this machine reach the listeners.
func (r *run) address() string {
	host, _, _ := net.SplitHostPort(r.cfg.Listen)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return "127.0.0.1"
	}
	return host
}

// describe derives names and logins from the resources.
func (r *run) describe(ctx context.Context, set *resource.Set) (*description, error) {
	_, listenPort, err := net.SplitHostPort(r.cfg.Listen)
	if err != nil {
		return nil, err
	}
	d := &description{names: []string{"*." + r.cfg.Domain, r.cfg.Domain}}
	for _, domain := range r.nodeDomains() {
		d.names = append(d.names, "*."+domain)
	}
	d.info = Info{
		Listen: r.cfg.Listen, Domain: r.cfg.Domain,
		CAFile: caFile(r.cfg.State), HostsFile: filepath.Join(r.cfg.State, "hosts"),
		Upstreams:       []UpstreamInfo{},
		VirtualClusters: []VirtualCluster{},
		API:             r.plane.api, APIToken: r.plane.opsToken,
	}
	r.note(d)
	var order []string // as on the command line, and then by name
	for _, u := range r.upstreams {
		order = append(order, u.Name)
	}
	for _, name := range sortedKeys(set.UpstreamClusters) {
		if !slices.Contains(order, name) {
			order = append(order, name)
		}
	}
	for _, name := range order {
		if u := set.UpstreamClusters[name]; u != nil {
			d.info.Upstreams = append(d.info.Upstreams, UpstreamInfo{name, strings.Join(u.Spec.Bootstrap, ",")})
		}
	}
	nodes, err := r.brokers(ctx, set)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	passwords := r.files.passwords
	r.mu.Unlock()
	for _, name := range sortedKeys(set.VirtualClusters) {
		vc := set.VirtualClusters[name]
		info := VirtualCluster{
			Name: name, Tenant: vc.Metadata.Tenant, Type: string(vc.Spec.Type),
			Topics: []Topic{}, ServiceAccounts: []ServiceAccount{},
		}
		bootstraps := append([]string{vc.Spec.Host + "." + r.cfg.Domain}, vc.Spec.CustomHosts...)
		info.Bootstrap = net.JoinHostPort(bootstraps[0], listenPort)
		for _, host := range bootstraps {
			d.hosts = append(d.hosts, host)
			for _, cluster := range vc.Spec.Clusters {
				for _, id := range nodes[cluster] {
					d.hosts = append(d.hosts, brokerHost(vc.Spec.Slot(cluster)<<16|id, host))
				}
			}
		}
		for _, host := range vc.Spec.CustomHosts {
			_, rest, _ := strings.Cut(host, ".")
			d.names = append(d.names, host, "*."+rest)
		}
		aliases, accounts, _ := set.OfVirtualCluster(name)
		for _, a := range aliases {
			info.Topics = append(info.Topics, Topic{a.Metadata.Name, a.Spec.Cluster, a.Spec.Topic})
		}
		var mechanisms []string
		if vc.Spec.Authentication.Plain != nil {
			mechanisms = append(mechanisms, "PLAIN")
		}
		if vc.Spec.Authentication.SCRAM != nil {
			mechanisms = append(mechanisms, "SCRAM-SHA-256", "SCRAM-SHA-512")
		}
		for _, a := range accounts {
			if a.Spec.Type != resource.Local || len(mechanisms) == 0 {
				continue
			}
			info.ServiceAccounts = append(info.ServiceAccounts, ServiceAccount{
				Name: a.Metadata.Name, Username: a.Metadata.Name, Mechanisms: mechanisms, Password: passwords[resource.KeyOf(a)],
			})
		}
		first := nodeConfig{State: r.cfg.State, PortBase: r.cfg.PortBase, Host: r.address()}
		if l, ok, err := first.portsOf(vc); err != nil {
			return nil, err
		} else if ok {
			info.PortBootstrap = l.Address
		}
		d.info.VirtualClusters = append(d.info.VirtualClusters, info)
		d.targets = append(d.targets, targetsOf(vc, &info, bootstraps)...)
	}
	slices.Sort(d.names)
	d.names = slices.Compact(d.names)
	return d, nil
}

// brokerHost is the name of a virtual broker beside a bootstrap host.
func brokerHost(vNode int32, bootstrap string) string { return fmt.Sprintf("b%d-%s", vNode, bootstrap) }

// furnish writes the files that clients need: the certificate, when its names have
// changed, and the hosts file.
func (r *run) furnish(d *description) error {
	if !slices.Equal(r.names, d.names) {
		if err := certificates(r.cfg.State, d.names); err != nil {
			return err
		}
		r.names = d.names
	}
	slices.Sort(d.hosts)
	d.hosts = slices.Compact(d.hosts)
	return WriteFile(d.info.HostsFile, []byte(r.hosts(d.hosts)), 0o644)
}

// hosts is the hosts file: every name leads to every node, that of a node to itself first.
func (r *run) hosts(names []string) string {
	var b strings.Builder
	nodes, gone := max(1, r.cfg.Nodes), r.gone()
	lines := func(name string, first int) {
		for i := range nodes {
			if at := (first + i) % nodes; !slices.Contains(gone, nodeID(at)) {
				fmt.Fprintf(&b, "%s %s\n", r.nodeHost(at), name)
			}
		}
	}
	for _, name := range names {
		lines(name, 0)
		if label, found := strings.CutSuffix(name, "."+r.cfg.Domain); found {
			for i, domain := range r.nodeDomains() {
				lines(label+"."+domain, i)
			}
		}
	}
	return b.String()
}

// note says which nodes there are.
func (r *run) note(d *description) {
	d.info.Nodes = []Node{}
	gone := r.gone()
	for _, n := range r.running {
		if slices.Contains(gone, n.ID) {
			continue
		}
		d.info.Nodes = append(d.info.Nodes, Node{ID: n.ID, PID: n.pid, Listen: n.Listen, Metrics: "http://" + n.Admin + "/metrics"})
	}
}

// update follows what is stored: dev.json names a virtual cluster once it serves, and
// no longer when it is gone. The same holds for nodes.
func (r *run) update(ctx context.Context, last *description, seen int64) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	lost := 0 // nodes that dev.json is without
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		gone := len(r.gone())
		now, err := r.plane.revision(ctx)
		if err == nil && now == seen && gone == lost {
			continue
		}
		var d *description
		if err == nil {
			d, seen, err = r.follow(ctx, last)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.cfg.Log.Error("dev.json not brought up to date", "err", err)
			continue
		}
		for _, vc := range d.info.VirtualClusters {
			if !slices.ContainsFunc(last.info.VirtualClusters, func(o VirtualCluster) bool { return o.Name == vc.Name }) {
				fmt.Fprintln(r.cfg.Out, vc.summary())
			}
		}
		last, lost = d, gone
	}
}

// follow describes what is stored now.
func (r *run) follow(ctx context.Context, last *description) (d *description, seen int64, err error) {
	seen, set, err := r.plane.resources(ctx)
	if err != nil {
		return nil, 0, err
	}
	if d, err = r.describe(ctx, set); err != nil {
		return nil, seen, err
	}
	if err := r.furnish(d); err != nil {
		return nil, seen, err
	}
	// What served before is not to be proved again.
	fresh := *d
	fresh.targets = slices.DeleteFunc(slices.Clone(d.targets), func(t target) bool {
		return slices.ContainsFunc(last.targets, func(o target) bool {
			return o.bootstrap == t.bootstrap && maps.Equal(o.slots, t.slots)
		})
	})
	if err := r.verify(ctx, &fresh); err != nil {
		return nil, seen, err
	}
	d.hosts = fresh.hosts
	if err := r.furnish(d); err != nil { // what was seen on the way
		return nil, seen, err
	}
	return d, seen, r.write(d)
}

// write puts dev.json in place, unless the run has ended.
func (r *run) write(d *description) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return nil
	}
	return d.info.write(r.cfg.State)
}

// portListener is the listener by port of a virtual cluster; one that lets
// clients in by certificate alone has none.
func portListener(vc *resource.VirtualCluster, host string, first int, nodes map[string][]int32) (proxy.Listener, bool) {
	l := proxy.Listener{
		Name: "port-" + vc.Metadata.Name, Address: net.JoinHostPort(host, strconv.Itoa(first)),
		Routing: proxy.ByPort, VirtualCluster: vc.Metadata.Name, Protocol: proxy.SASLPlaintext,
	}
	a := vc.Spec.Authentication
	switch {
	case a.Anonymous != nil:
		l.Protocol = proxy.Plaintext
	case a.Plain == nil && a.SCRAM == nil && a.OAuthBearer == nil:
		return l, false
	}
	// Home's come first, so that its brokers keep their ports when clusters come and go.
	clusters := append([]string{vc.Spec.Home}, slices.DeleteFunc(slices.Clone(vc.Spec.Clusters), func(name string) bool {
		return name == vc.Spec.Home
	})...)
	each := (portsPerVC - 1) / len(clusters)
	next := first + 1
	for _, cluster := range clusters {
		l.BrokerPorts = append(l.BrokerPorts, portRanges(vc.Spec.Slot(cluster)<<16, nodes[cluster], next, each)...)
		next += each
	}
	return l, len(l.BrokerPorts) > 0
}

// portRanges gives the brokers of one cluster, whose virtual node ids begin at base,
// a number of ports.
func portRanges(base int32, ids []int32, first, count int) (ranges []proxy.PortRange) {
	if count == 0 {
		return nil
	}
	if len(ids) == 0 || slices.Max(ids) < int32(count) {
		return []proxy.PortRange{{First: uint16(first), Count: count, Lowest: base}}
	}
	for i, id := range ids[:min(count, len(ids))] { // sparse ids
		ranges = append(ranges, proxy.PortRange{First: uint16(first + i), Count: 1, Lowest: base + id})
	}
	return ranges
}
