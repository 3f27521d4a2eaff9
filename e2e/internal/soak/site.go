package soak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"tollgate.internal/e2e/internal/balancer"
	"tollgate.internal/e2e/internal/build"
	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/ports"
	"tollgate.internal/e2e/internal/testpki"
)

// The names of the resources begin unlike anything that clients may see.
const (
	home, west   = "home", "west"
	cluster      = "tenant-seven" // the virtual cluster's
	westPhysical = "phys-west."
	domain       = "gw.soak.test"
	label        = "soak" // of the virtual cluster's host
	host         = label + "." + domain
	user         = "worker"
	password     = "worker-secret"
	nodeCount    = 2 // of the gateway
)

// A topic is known to clients by its name.
type topic struct {
	name          string
	cluster       string // home or west
	partitions    int
	transactional bool
}

// The topics. Those on west are aliases, those on home the tenant's own.
var (
	numbers = []topic{{"numbers-a", home, 3, false}, {"numbers-b", west, 3, false}}
	javas   = []topic{{"java-a", home, 2, false}, {"java-b", west, 2, false}}
	txs     = []topic{{"tx-a", home, 3, true}, {"tx-b", west, 3, true}}
	movedTo = topic{"moved", home, 3, true}
)

func allTopics() []topic {
	var all []topic
	all = append(all, numbers...)
	all = append(all, javas...)
	all = append(all, txs...)
	return append(all, movedTo)
}

func (t topic) physical() string {
	if t.cluster == west {
		return westPhysical + t.name
	}
	return cluster + "." + t.name
}

func (t topic) places() []place {
	var all []place
	for p := range t.partitions {
		all = append(all, place{t.name, int32(p)})
	}
	return all
}

const resourceFile = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: %[1]s, virtualCluster: %[2]s}, spec: {type: local%[6]s}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: lent, tenant: acme}, spec: {cluster: %[3]s, topic: {name: %[4]s, pattern: prefixed}, access: read-write}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: %[2]s, tenant: acme}, spec: {type: standard, host: soak, home: home, %[5]s authentication: {scram: {}}}}
`

const nodeFile = `
resources: %[1]s
domains: [%[2]s]
saltKey: file:salt.key
producerIDs: {source: file:producer-ids}
admin: %[3]s
log: {level: info}
drainGrace: 0s
drainSpread: 0s
drainTimeout: 1s
listeners:
  - {name: sni, address: "%[4]s", routing: sni, advertisedPort: %[5]d, certificates: [{certFile: %[6]q, keyFile: %[7]q}]}
`

// kafka is the cluster that topics of home or of west lie on.
func (s *soak) kafka(name string) *kafkatest.Cluster {
	if c := s.clusters[name]; c != nil {
		return c
	}
	return s.clusters[home]
}

func (s *soak) startClusters(ctx context.Context) error {
	var mu sync.Mutex
	starts, ctx := errgroup.WithContext(ctx)
	for name, o := range s.options.Clusters {
		starts.Go(func() error {
			dir := filepath.Join(s.dir, name)
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			c, err := kafkatest.StartCluster(ctx, dir, o)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			s.clusters[name] = c
			s.onClose(c.Close)
			return nil
		})
	}
	return starts.Wait()
}

func (s *soak) createTopics(ctx context.Context) error {
	for name, c := range s.clusters {
		client, err := c.NewClient()
		if err != nil {
			return err
		}
		s.onClose(func() error { client.Close(); return nil })
		s.brokers[c], s.admins[name] = client, kadm.NewClient(client)
		s.watch.add("the id of cluster "+name, []byte(c.ID))
	}
	for _, t := range allTopics() {
		made, err := s.admin(t.cluster).CreateTopic(ctx, int32(t.partitions), -1, nil, t.physical())
		if err = errors.Join(err, made.Err); err != nil {
			return fmt.Errorf("create %s: %w", t.physical(), err)
		}
		s.watch.add("the physical id of "+t.name, made.ID[:])
	}
	s.watch.add("a physical name", []byte(cluster))
	s.watch.add("a physical name", []byte(westPhysical))
	s.watch.add("the name of a stub", []byte("__tg"))
	return nil
}

func (s *soak) admin(name string) *kadm.Client {
	if a := s.admins[name]; a != nil {
		return a
	}
	return s.admins[home]
}

func (s *soak) startGateway(ctx context.Context) error {
	if s.options.Fleet != nil {
		return s.useFleet(ctx)
	}
	bin, err := build.Command("services/proxy/cmd/proxy", "")
	if err != nil {
		return err
	}
	ca, err := testpki.New("soak")
	if err != nil {
		return err
	}
	pair, err := ca.Server("*." + domain)
	if err != nil {
		return err
	}
	certFile, keyFile, err := pair.Write(s.dir, "server")
	if err != nil {
		return err
	}
	caFile, err := ca.Write(s.dir, "ca")
	if err != nil {
		return err
	}
	lease, err := ports.Reserve(1 + 2*nodeCount)
	if err != nil {
		return err
	}
	s.onClose(func() error { lease.Release(); return nil })
	resources := filepath.Join(s.dir, "resources")
	if err := os.MkdirAll(resources, 0o700); err != nil {
		return err
	}
	files := map[string]string{
		"resources/all.yaml": s.resources(),
		"resources/password": password,
		"salt.key":           "a salt for all of the nodes",
	}
	loopback := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	var addresses []string
	var nodes []*fileNode
	for i := range nodeCount {
		name := fmt.Sprintf("node-%d", i)
		listen, admin := loopback(lease.Ports[1+2*i]), loopback(lease.Ports[2+2*i])
		files[name+".yaml"] = fmt.Sprintf(nodeFile, resources, domain, admin, listen, lease.Ports[0], certFile, keyFile)
		addresses = append(addresses, listen)
		n := &fileNode{
			name: name, bin: bin, config: filepath.Join(s.dir, name+".yaml"),
			log: filepath.Join(s.dir, name+".log"), admin: admin,
		}
		nodes = append(nodes, n)
		s.nodes = append(s.nodes, n)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		if err := n.start(ctx); err != nil {
			return err
		}
		s.onClose(n.close)
	}
	b, err := balancer.Start(loopback(lease.Ports[0]))
	if err != nil {
		return err
	}
	s.onClose(func() error { b.Close(); return nil })
	for _, a := range addresses {
		b.Add(a, nil) // a node that was killed does not accept
	}
	s.target = drivers.Target{
		Bootstrap: fmt.Sprintf("%s:%d", host, lease.Ports[0]), CAFile: caFile,
		Mechanism: "SCRAM-SHA-512", User: user, Password: password, Hosts: s.hosts(),
	}
	return nil
}

// slots are what the node ids of each cluster's brokers begin with.
var slots = map[string]int32{home: 0, west: 1}

func (s *soak) hosts() drivers.Hosts {
	hosts := drivers.Hosts{host: {"127.0.0.1"}}
	for _, name := range s.brokerHosts(host) {
		hosts[name] = hosts[host]
	}
	return hosts
}

// brokerHosts are the names of the brokers beside a bootstrap host.
func (s *soak) brokerHosts(host string) (names []string) {
	for name, c := range s.clusters {
		for _, b := range c.Brokers() {
			names = append(names, fmt.Sprintf("b%d-%s", slots[name]<<16|b.ID, host))
		}
	}
	return names
}

func (s *soak) resources() string {
	on, spanning := home, ""
	if len(s.clusters) > 1 {
		on, spanning = west, "clusters: [home, west], slots: {home: 0, west: 1}, transactions: [{prefix: west-, cluster: west}],"
	}
	var b strings.Builder
	secret := `, password: "file:password"`
	if s.options.Fleet != nil { // the portal is told by itself
		secret = ""
	}
	fmt.Fprintf(&b, resourceFile, user, cluster, on, westPhysical, spanning, secret)
	for name, c := range s.clusters {
		fmt.Fprintf(&b, "---\n{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: %s}, spec: {bootstrap: [%s]}}\n", name, c.Bootstrap())
	}
	for _, t := range allTopics() {
		if t.cluster == west {
			fmt.Fprintf(&b, "---\n{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: %s, virtualCluster: %s}, spec: {cluster: %s, topic: %s}}\n",
				t.name, cluster, on, t.physical())
		}
	}
	return b.String()
}

// opts connect a client of the gateway, by this name. A node that is killed closes
// connections that it has just accepted for the balancer: AlwaysRetryEOF is what
// franz-go has for those behind one.
func (s *soak) opts(name string, more ...kgo.Opt) ([]kgo.Opt, error) {
	base, err := s.target.KgoOpts()
	if err != nil {
		return nil, err
	}
	base = append(base, kgo.ClientID(name), kgo.Dialer(s.watch.dialer(name, s.target.Dial)), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.AlwaysRetryEOF())
	return append(base, more...), nil
}

// inject does one fault, from its beginning to its cure.
func (s *soak) inject(ctx context.Context, f fault) error {
	if err := pause(ctx, f.after); err != nil {
		return err
	}
	s.event("begin: %v", f)
	if err := s.breakIt(ctx, f); err != nil {
		return fmt.Errorf("%v: %w", f, err)
	}
	s.event("end: %v", f)
	return nil
}

func (s *soak) breakIt(ctx context.Context, f fault) error {
	if s.options.Fleet != nil && (f.site == controlSite || f.kind == drainNode) {
		return s.breakFleet(ctx, f)
	}
	if f.site == gatewaySite {
		n := s.nodes[f.node]
		if err := n.kill(); err != nil {
			return err
		}
		if err := pause(ctx, f.length); err != nil {
			return err
		}
		s.event("start %v again", n)
		return n.start(ctx)
	}
	kafka := s.clusters[f.site]
	brokers := kafka.Brokers()[f.node : f.node+1]
	switch f.kind {
	case moveLeaders:
		var topics []string
		for _, t := range allTopics() {
			if s.kafka(t.cluster) == kafka {
				topics = append(topics, t.physical())
			}
		}
		if err := kafka.MoveLeaders(ctx, topics...); err != nil {
			return err
		}
		return kafka.WaitInSync(ctx)
	case outage:
		brokers = kafka.Brokers()
	case pauseBroker:
		if err := brokers[0].Pause(); err != nil {
			return err
		}
		err := pause(ctx, f.length)
		s.event("continue broker %d of %s", brokers[0].ID, f.site)
		s.mu.Lock()
		s.thawed = time.Now()
		s.mu.Unlock()
		if err := errors.Join(brokers[0].Resume(), err); err != nil {
			return err
		}
		return kafka.WaitInSync(ctx)
	}
	for _, b := range brokers {
		stop := b.Kill
		if f.kind == stopBroker {
			stop = func() error { return b.Stop(ctx) }
		}
		if err := stop(); err != nil {
			return err
		}
	}
	if err := s.unharmed(ctx, f); err != nil {
		return err
	}
	if err := pause(ctx, f.length); err != nil {
		return err
	}
	s.event("start brokers of %s again", f.site)
	starts, startCtx := errgroup.WithContext(ctx)
	for _, b := range brokers {
		starts.Go(func() error { return b.Restart(startCtx) })
	}
	if err := starts.Wait(); err != nil {
		return err
	}
	return kafka.WaitInSync(ctx)
}

// pause is how long a fault lasts; nothing is waited for by it.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
