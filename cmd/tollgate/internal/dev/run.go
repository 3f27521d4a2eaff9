package dev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/services/proxy"
)

// startTimeout is for everything to serve.
const startTimeout = 90 * time.Second

// Run serves until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	var err error
	if cfg.State, err = filepath.Abs(cfg.State); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.State, 0o700); err != nil {
		return err
	}
	unlock, err := lock(cfg.State)
	if err != nil {
		return err
	}
	defer unlock()
	// A run that was killed left its own behind.
	if err := os.Remove(filepath.Join(cfg.State, infoFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	r := &run{cfg: cfg, resources: cfg.Resources}
	defer func() {
		for _, c := range r.embedded {
			c.Close()
		}
	}()
	if err := r.startUpstreams(ctx); err != nil {
		return err
	}
	assembled := filepath.Join(cfg.State, "assembled")
	if err := assemble(assembled, r.resources, r.added); err != nil {
		return err
	}
	set, err := resource.LoadDir(assembled)
	if err != nil {
		return fmt.Errorf("load resources from %s: %w", r.resources, err)
	}
	if cfg.Resources == "" {
		if err := createTopics(ctx, r.upstreams[0], seededTopics); err != nil {
			return err
		}
	}
	if err := r.describe(ctx, set); err != nil {
		return err
	}

	serveCtx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { follow(serveCtx, cfg.Log, assembled, r.resources, r.added) })
	ready := make(chan struct{})
	served := make(chan error, 1)
	wg.Go(func() {
		served <- proxy.Run(serveCtx, proxy.Config{
			Resources: assembled, Domains: []string{cfg.Domain}, Listeners: r.listeners, Log: cfg.Log,
			Admin: r.admin(), DrainTimeout: 5 * time.Second, Ready: func(map[string]string) { close(ready) },
		})
	})
	defer stop() // before the wait
	select {
	case err := <-served:
		return err
	case <-ready:
	}
	verified := make(chan error, 1)
	wg.Go(func() { verified <- r.verify(serveCtx) })
	select {
	case err := <-served:
		return err
	case err := <-verified:
		if ctx.Err() != nil {
			break // stopped while it started
		}
		if err != nil {
			return err
		}
		admin := "http://" + r.admin() + "/metrics"
		if err := answers(serveCtx, admin); err != nil {
			return err
		}
		r.info.Nodes[0].Metrics = admin
		if err := r.announce(); err != nil {
			return err
		}
		defer os.Remove(filepath.Join(cfg.State, infoFile))
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	// Nobody new is to be led here while the sessions drain.
	removed := os.Remove(filepath.Join(cfg.State, infoFile))
	if errors.Is(removed, fs.ErrNotExist) {
		removed = nil
	}
	return errors.Join(<-served, removed)
}

// lock keeps a second run off the directory.
func lock(state string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(state, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: another tollgate dev runs on it: %w", state, err)
	}
	return func() { f.Close() }, nil
}

// run is what one run is made of.
type run struct {
	cfg       Config
	resources string
	embedded  []*kfake.Cluster
	upstreams []Upstream // the first is home of the seed
	added     []Upstream // those that no resource file defines

	info      Info
	listeners []proxy.Listener
	targets   []target
	hosts     []string
}

func (r *run) admin() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(r.cfg.PortBase+adminPort))
}

// answers says why nothing good comes from an address.
func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	// A spare connection would hold up the server's shutdown.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", url, response.Status)
	}
	return nil
}

// startUpstreams decides which physical clusters there are: those of --upstream,
// or embedded ones, which are left out where a resource file defines a cluster of
// the name.
func (r *run) startUpstreams(ctx context.Context) error {
	defined := make(map[string]bool)
	if r.resources == "" {
		r.resources = filepath.Join(r.cfg.State, "resources")
	} else {
		var err error
		if defined, err = definedClusters(r.resources); err != nil {
			return fmt.Errorf("--resources: %w", err)
		}
	}
	r.upstreams = r.cfg.Upstreams
	if len(r.upstreams) == 0 {
		for i, name := range []string{"main", "west"} {
			if defined[name] {
				continue
			}
			u, err := r.embed(name, r.cfg.PortBase+embeddedPorts+10*i)
			if err != nil {
				return err
			}
			r.upstreams = append(r.upstreams, u)
		}
	}
	for _, u := range r.upstreams {
		if !defined[u.Name] {
			r.added = append(r.added, u)
		}
	}
	if r.cfg.Resources == "" {
		return seed(r.resources, r.upstreams[0].Name)
	}
	return nil
}

// embed starts a cluster that keeps its data in the state directory.
func (r *run) embed(name string, port int) (Upstream, error) {
	c, err := kfake.NewCluster(
		kfake.ClusterID("tollgate-dev-"+name),
		kfake.Ports(port, port+1, port+2),
		kfake.DefaultNumPartitions(3),
		kfake.DataDir(filepath.Join(r.cfg.State, "kafka", name)),
	)
	if err != nil {
		return Upstream{}, fmt.Errorf("start the embedded cluster %s on ports %d to %d: %w", name, port, port+2, err)
	}
	r.embedded = append(r.embedded, c)
	return Upstream{Name: name, Bootstrap: c.ListenAddrs()}, nil
}

// describe derives listeners, names and logins from the resources.
func (r *run) describe(ctx context.Context, set *resource.Set) error {
	listenHost, listenPort, err := net.SplitHostPort(r.cfg.Listen)
	if err != nil {
		return err
	}
	address := listenHost
	if ip := net.ParseIP(listenHost); listenHost == "" || ip != nil && ip.IsUnspecified() {
		address = "127.0.0.1"
	}
	r.info = Info{
		Listen: r.cfg.Listen, Domain: r.cfg.Domain,
		HostsFile:       filepath.Join(r.cfg.State, "hosts"),
		Upstreams:       []UpstreamInfo{},
		VirtualClusters: []VirtualCluster{},
		Nodes:           []Node{{ID: "node-1", PID: os.Getpid(), Listen: r.cfg.Listen}},
	}
	nodes := make(map[string][]int32) // broker ids of each cluster
	for _, u := range r.upstreams {
		r.info.Upstreams = append(r.info.Upstreams, UpstreamInfo{u.Name, strings.Join(u.Bootstrap, ",")})
		if nodes[u.Name], err = brokers(ctx, u); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(set.UpstreamClusters) {
		if _, known := nodes[name]; known {
			continue
		}
		u := set.UpstreamClusters[name]
		r.info.Upstreams = append(r.info.Upstreams, UpstreamInfo{name, strings.Join(u.Spec.Bootstrap, ",")})
		if u.Spec.TLS == nil && u.Spec.SASL == nil {
			if nodes[name], err = brokers(ctx, Upstream{name, u.Spec.Bootstrap}); err != nil {
				return err
			}
		}
	}

	names := []string{"*." + r.cfg.Domain, r.cfg.Domain}
	slots, err := portSlots(r.cfg.State, sortedKeys(set.VirtualClusters))
	if err != nil {
		return err
	}
	var ports []proxy.Listener
	for _, name := range sortedKeys(set.VirtualClusters) {
		vc := set.VirtualClusters[name]
		info := VirtualCluster{
			Name: name, Tenant: vc.Metadata.Tenant, Type: string(vc.Spec.Type),
			Topics: []Topic{}, ServiceAccounts: []ServiceAccount{},
		}
		bootstraps := append([]string{vc.Spec.Host + "." + r.cfg.Domain}, vc.Spec.CustomHosts...)
		info.Bootstrap = net.JoinHostPort(bootstraps[0], listenPort)
		for _, host := range bootstraps {
			r.hosts = append(r.hosts, host)
			for _, id := range nodes[vc.Spec.Home] {
				r.hosts = append(r.hosts, fmt.Sprintf("b%d-%s", id, host))
			}
		}
		for _, host := range vc.Spec.CustomHosts {
			_, rest, _ := strings.Cut(host, ".")
			names = append(names, host, "*."+rest)
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
			account := ServiceAccount{Name: a.Metadata.Name, Username: a.Metadata.Name, Mechanisms: mechanisms}
			if a.Spec.Password != "" {
				password, err := secret.Resolve(string(a.Spec.Password), a.Metadata.BaseDir())
				if err != nil {
					return fmt.Errorf("ServiceAccount %s: spec.password: %w", account.Name, err)
				}
				account.Password = password.Reveal()
			}
			info.ServiceAccounts = append(info.ServiceAccounts, account)
		}
		first := r.cfg.PortBase + clientPorts + portsPerVC*slots[name]
		if l, ok := portListener(vc, address, first, nodes[vc.Spec.Home]); ok {
			if first+portsPerVC > 1<<16 {
				return fmt.Errorf("no port below 65536 is left for %s: choose a lower --port-base", name)
			}
			ports = append(ports, l)
			info.PortBootstrap = l.Address
		}
		r.info.VirtualClusters = append(r.info.VirtualClusters, info)
		r.targets = append(r.targets, targetsOf(vc, &info)...)
	}
	caFile, pair, err := certificates(r.cfg.State, names)
	if err != nil {
		return err
	}
	r.info.CAFile = caFile
	r.listeners = append([]proxy.Listener{{
		Name: "sni", Address: r.cfg.Listen, Routing: proxy.BySNI, Certificates: []proxy.KeyPair{pair},
	}}, ports...)

	slices.Sort(r.hosts)
	var b strings.Builder
	for _, h := range slices.Compact(r.hosts) {
		fmt.Fprintf(&b, "%s %s\n", address, h)
	}
	return WriteFile(r.info.HostsFile, []byte(b.String()), 0o644)
}

// portListener is the listener by port of a virtual cluster; one that lets
// clients in by certificate alone has none.
func portListener(vc *resource.VirtualCluster, host string, first int, nodes []int32) (proxy.Listener, bool) {
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
	const count = portsPerVC - 1
	if len(nodes) == 0 || slices.Max(nodes) < count {
		l.BrokerPorts = []proxy.PortRange{{First: uint16(first + 1), Count: count}}
		return l, true
	}
	for i, id := range nodes[:min(count, len(nodes))] { // sparse ids
		l.BrokerPorts = append(l.BrokerPorts, proxy.PortRange{First: uint16(first + 1 + i), Count: 1, Lowest: id})
	}
	return l, true
}

// announce tells programs, then people, that everything serves.
func (r *run) announce() error {
	if err := r.info.write(r.cfg.State); err != nil {
		return err
	}
	fmt.Fprintf(r.cfg.Out, "Tollgate serves on %s. CA: %s\n", r.info.Listen, r.info.CAFile)
	for _, vc := range r.info.VirtualClusters {
		fmt.Fprintf(r.cfg.Out, "  %-12s %-8s %s", vc.Name, vc.Type, vc.Bootstrap)
		if vc.PortBootstrap != "" {
			fmt.Fprintf(r.cfg.Out, ", without TLS %s", vc.PortBootstrap)
		}
		fmt.Fprintln(r.cfg.Out)
	}
	fmt.Fprintf(r.cfg.Out, "Logins and everything else: %s\nInterrupt to stop.\n", filepath.Join(r.cfg.State, infoFile))
	return nil
}
