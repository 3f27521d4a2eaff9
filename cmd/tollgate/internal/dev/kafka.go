package dev

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"tollgate.internal/pkg/resource"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// portSlots gives each virtual cluster its block of ports for good: others come
// and go without moving it.
func portSlots(state string, names []string) (map[string]int, error) {
	unlock, err := lockFile(filepath.Join(state, "ports.lock"), syscall.LOCK_EX) // other nodes do the same
	if err != nil {
		return nil, err
	}
	defer unlock()
	path := filepath.Join(state, "ports.json")
	slots := make(map[string]int)
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &slots)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	next := 0
	for _, slot := range slots {
		next = max(next, slot+1)
	}
	for _, name := range names {
		if _, ok := slots[name]; !ok {
			slots[name] = next
			next++
		}
	}
	if data, err = json.Marshal(slots); err != nil {
		return nil, err
	}
	return slots, WriteFile(path, data, 0o600)
}

// direct connects to a physical cluster.
func direct(u Upstream) (*kadm.Client, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(u.Bootstrap...), kgo.RetryTimeout(30*time.Second))
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", u.Name, err)
	}
	return kadm.NewClient(cl), nil
}

// brokers returns the ids of each cluster's brokers, sorted. A cluster that does not
// answer has those that it had when it last did; one that was never seen is a
// mistake if a virtual cluster calls it home, and may come later if not. Those that
// ask for TLS or a login are left to [run.verify].
func (r *run) brokers(ctx context.Context, set *resource.Set) (map[string][]int32, error) {
	nodes, err := readNodes(r.cfg.State)
	if err != nil {
		return nil, err
	}
	home := make(map[string]bool)
	for _, vc := range set.VirtualClusters {
		home[vc.Spec.Home] = true
	}
	for _, name := range sortedKeys(set.UpstreamClusters) {
		u := set.UpstreamClusters[name]
		if u.Spec.TLS != nil || u.Spec.SASL != nil {
			continue
		}
		patience := 30 * time.Second
		if nodes[name] != nil || !home[name] {
			patience = 3 * time.Second
		}
		ids, err := brokersOf(ctx, Upstream{name, u.Spec.Bootstrap}, patience)
		switch {
		case err == nil:
			nodes[name] = ids
		case ctx.Err() != nil, nodes[name] == nil && home[name]:
			return nil, err
		default:
			r.cfg.Log.Warn("cluster does not answer; its brokers are taken to be those it had", "err", err)
		}
	}
	return nodes, writeNodes(r.cfg.State, nodes)
}

// nodesFile remembers the ids of each cluster's brokers.
const nodesFile = "nodes.json"

func readNodes(state string) (map[string][]int32, error) {
	nodes := make(map[string][]int32)
	data, err := os.ReadFile(filepath.Join(state, nodesFile))
	if err == nil {
		err = json.Unmarshal(data, &nodes)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read %s: %w", nodesFile, err)
	}
	return nodes, nil
}

func writeNodes(state string, nodes map[string][]int32) error {
	data, err := json.Marshal(nodes)
	if err != nil {
		return err
	}
	return WriteFile(filepath.Join(state, nodesFile), data, 0o600)
}

// brokersOf asks one cluster.
func brokersOf(ctx context.Context, u Upstream, patience time.Duration) ([]int32, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	adm, err := direct(u)
	if err != nil {
		return nil, err
	}
	defer adm.Close()
	m, err := adm.BrokerMetadata(ctx)
	if err != nil {
		return nil, fmt.Errorf("upstream %s at %s: %w", u.Name, strings.Join(u.Bootstrap, ","), err)
	}
	ids := m.Brokers.NodeIDs()
	slices.Sort(ids)
	return ids, nil
}

// createTopics makes the physical topics that are absent.
func createTopics(ctx context.Context, u Upstream, topics []string) error {
	adm, err := direct(u)
	if err != nil {
		return err
	}
	defer adm.Close()
	created, err := adm.CreateTopics(ctx, 3, -1, nil, topics...)
	if err != nil {
		return fmt.Errorf("create topics on %s: %w", u.Name, err)
	}
	for _, t := range created.Sorted() {
		if t.Err != nil && !errors.Is(t.Err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("create topic %s on %s: %w", t.Topic, u.Name, t.Err)
		}
	}
	return nil
}

// A target is a way in that has to work before dev.json says so.
type target struct {
	bootstrap string
	tls       bool
	hosts     []string         // beside which its brokers are
	slots     map[string]int32 // of its clusters
	login     bool             // with the options below; without one the handshake has to do
	options   []kgo.Opt
}

func targetsOf(vc *resource.VirtualCluster, info *VirtualCluster, hosts []string) []target {
	t := target{bootstrap: info.Bootstrap, tls: true, hosts: hosts, slots: make(map[string]int32)}
	for _, cluster := range vc.Spec.Clusters {
		t.slots[cluster] = vc.Spec.Slot(cluster)
	}
	a := vc.Spec.Authentication
	for _, account := range info.ServiceAccounts {
		if account.Password == "" || t.login {
			continue
		}
		t.login = true
		if a.SCRAM != nil {
			t.options = []kgo.Opt{kgo.SASL(scram.Auth{User: account.Username, Pass: account.Password}.AsSha256Mechanism())}
		} else {
			t.options = []kgo.Opt{kgo.SASL(plain.Auth{User: account.Username, Pass: account.Password}.AsMechanism())}
		}
	}
	t.login = t.login || a.Anonymous != nil
	targets := []target{t}
	if t.login && info.PortBootstrap != "" {
		targets = append(targets, target{bootstrap: info.PortBootstrap, slots: t.slots, login: true, options: t.options})
	}
	return targets
}

// verify returns once every way in works, up to a login on each virtual broker. It
// adds the hosts of brokers that it sees: [run.brokers] cannot ask every cluster.
func (r *run) verify(ctx context.Context, d *description) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	dialer, err := Dialer(&d.info, d.info.CAFile)
	if err != nil {
		return err
	}
	nodes, err := readNodes(r.cfg.State)
	if err != nil {
		return err
	}
	for _, t := range d.targets {
		seen, err := t.verify(ctx, dialer)
		if err != nil {
			return fmt.Errorf("log in on %s: %w", t.bootstrap, err)
		}
		for _, vNode := range seen {
			for _, host := range t.hosts {
				d.hosts = append(d.hosts, brokerHost(vNode, host))
			}
			for cluster, slot := range t.slots {
				if id := vNode & 0xffff; vNode>>16 == slot && !slices.Contains(nodes[cluster], id) {
					nodes[cluster] = append(nodes[cluster], id)
					slices.Sort(nodes[cluster])
				}
			}
		}
	}
	return writeNodes(r.cfg.State, nodes)
}

func (t *target) verify(ctx context.Context, dialTLS func(context.Context, string, string) (net.Conn, error)) (vNodes []int32, err error) {
	if !t.login {
		// A client without a certificate may be refused after the handshake,
		// but not before the server has shown who it is.
		c, err := dialTLS(ctx, "tcp", t.bootstrap)
		if err == nil {
			err = c.Close()
		}
		return nil, err
	}
	options := append([]kgo.Opt{kgo.SeedBrokers(t.bootstrap)}, t.options...)
	if t.tls {
		options = append(options, kgo.Dialer(dialTLS))
	}
	cl, err := kgo.NewClient(options...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	// The gateway serves before it has reached its clusters, and sockets by port open
	// when the brokers are first known, so the first attempts may come too early.
	retry := time.NewTicker(100 * time.Millisecond)
	defer retry.Stop()
	var m kadm.Metadata
	for {
		if m, err = kadm.NewClient(cl).BrokerMetadata(ctx); err == nil && len(m.Brokers) == 0 {
			err = errors.New("no brokers")
		}
		if err == nil {
			break
		}
		if errors.Is(err, kerr.SaslAuthenticationFailed) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-retry.C:
		}
	}
	for _, b := range m.Brokers {
		for {
			_, err := cl.Broker(int(b.NodeID)).Request(ctx, kmsg.NewPtrMetadataRequest())
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("broker %d at %s:%d: %w", b.NodeID, b.Host, b.Port, err)
			case <-retry.C:
			}
		}
	}
	return m.Brokers.NodeIDs(), nil
}

// Dialer connects with TLS to the host names of what runs, which need not
// resolve on this machine; caFile says whom to trust.
func Dialer(i *Info, caFile string) (func(ctx context.Context, network, address string) (net.Conn, error), error) {
	pool, err := Roots(caFile)
	if err != nil {
		return nil, err
	}
	listenHost, _, err := net.SplitHostPort(i.Listen)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(listenHost); listenHost == "" || ip != nil && ip.IsUnspecified() {
		listenHost = "127.0.0.1"
	}
	ours, err := hostAddresses(i.HostsFile)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		d := &tls.Dialer{Config: &tls.Config{RootCAs: pool, ServerName: host, MinVersion: tls.VersionTLS12}}
		addresses := ours[host]
		switch {
		case addresses != nil:
		case strings.HasSuffix(host, "."+i.Domain):
			addresses = []string{listenHost}
		default:
			addresses = []string{host}
		}
		var errs []error
		for _, a := range addresses { // one node after the other, as clients do
			c, err := d.DialContext(ctx, network, net.JoinHostPort(a, port))
			if err == nil {
				return c, nil
			}
			errs = append(errs, err)
		}
		return nil, errors.Join(errs...)
	}, nil
}

// hostAddresses are the addresses of each name in a hosts file.
func hostAddresses(file string) (map[string][]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	addresses := make(map[string][]string)
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 2 {
			addresses[f[1]] = append(addresses[f[1]], f[0])
		}
	}
	return addresses, nil
}
