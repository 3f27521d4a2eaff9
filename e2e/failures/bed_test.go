// Package failures kills what makes up a fleet, and takes rights away, while clients
// work. Nothing that was acknowledged may be lost, half done or forgotten, and no client
// may notice more than a disconnect.
package failures

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/load"
	"tollgate.internal/e2e/internal/site"
	"tollgate.internal/pkg/testbed/postgres"
)

// upstream is the one cluster behind all fleets.
var upstream = kafkatest.Share(kafkatest.Options{})

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }

const (
	partitions = 3
	// patience is for something to happen again after a fault.
	patience = 90 * time.Second
	// promised is within what a change is in effect on every node, when all is well.
	promised = time.Second
	dev      = "dev" // the super user of every virtual cluster
	password = "dev-secret"
)

// bed is a fleet before a cluster. Tenant acme has a virtual cluster with aliases of two
// topics that belong to this test alone.
type bed struct {
	*site.Site
	postgres *postgres.Server // nil: SQLite
	disk     string           // where SQLite's database is
	kafka    *kafkatest.Cluster
	admin    *kadm.Client    // of the cluster
	topics   [2]string       // physical
	lent     map[string]bool // physical topics, too
}

const (
	numbers, java = "numbers", "java" // the aliases
	acme          = "acme"            // tenant, virtual cluster and host label
)

// onPostgres is a fleet with two portals.
func onPostgres(t *testing.T, nodes int) *bed {
	t.Helper()
	s := postgres.Start(t)
	b := start(t, site.Options{Database: s.Database(t), Portals: 2, Nodes: nodes})
	b.postgres = s
	return b
}

// onSQLite is a fleet with one.
func onSQLite(t *testing.T, nodes int) *bed {
	t.Helper()
	disk := t.TempDir()
	b := start(t, site.Options{Database: "sqlite:" + disk + "/tollgate.db", Portals: 1, Nodes: nodes})
	b.disk = disk
	return b
}

func start(t *testing.T, o site.Options) *bed {
	t.Helper()
	b := &bed{kafka: upstream.Get(t)}
	b.admin = kadm.NewClient(b.kafka.Client(t))
	for i, alias := range []string{numbers, java} {
		b.topics[i] = strings.ToLower(strings.ReplaceAll(t.Name(), "/", ".")) + "." + alias
		if _, err := b.admin.CreateTopic(t.Context(), partitions, 1, nil, b.topics[i]); err != nil {
			t.Fatal(err)
		}
	}
	b.Site = site.Start(t, o)
	b.Apply(t, fmt.Sprintf("{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: [%q]}}", b.kafka.Bootstrap()))
	b.tenant(t, acme)
	documents := ""
	for i, alias := range []string{numbers, java} {
		documents += fmt.Sprintf(`---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: %[1]s, tenant: acme}, spec: {cluster: main, topic: {name: %[2]s, pattern: literal}, access: read-write}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: %[1]s, virtualCluster: acme}, spec: {cluster: main, topic: %[2]s}}
`, alias, b.topics[i])
	}
	b.Apply(t, documents)
	return b
}

// tenant makes a tenant with a virtual cluster and a super user.
func (b *bed) tenant(t *testing.T, name string) {
	t.Helper()
	b.Apply(t, fmt.Sprintf(`
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: %[1]s}, spec: {displayName: %[1]s}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: %[1]s, tenant: %[1]s}
spec: {type: partner, host: %[1]s, home: main, clusters: [main], authentication: {plain: {}, scram: {}}, acls: {enabled: true, superUsers: ["User:%[2]s"]}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: %[2]s, virtualCluster: %[1]s}, spec: {type: local}}
`, name, dev))
	b.Secret(t, name, dev, password)
}

// account makes a service account with a secret, and returns the secret's path.
func (b *bed) account(t *testing.T, vc, name string) (secret string) {
	t.Helper()
	b.Must(t, http.MethodPut, accountPath(vc, name), fmt.Sprintf(`{"apiVersion": "tollgate/v1", "kind": "ServiceAccount", "metadata": {"name": %q, "virtualCluster": %q}, "spec": {"type": "local"}}`, name, vc))
	return b.Secret(t, vc, name, password)
}

func accountPath(vc, name string) string {
	return "/v1/virtual-clusters/" + vc + "/service-accounts/" + name
}

// open opens a session as an account on each node.
func (b *bed) open(t *testing.T, vc, account string) (all []*site.Session) {
	t.Helper()
	for _, n := range b.Nodes {
		all = append(all, site.Open(t, vc+"/"+account+" on "+n.Name, n.Target(vc, "PLAIN", account, password)))
	}
	return all
}

// clients work in the virtual cluster of acme until they are checked.
type clients struct{ *load.Crew }

// work starts clients; a Java client costs seconds of CPU.
func (b *bed) work(t *testing.T, withJava bool) clients {
	t.Helper()
	target := b.Target(acme, "SCRAM-SHA-512", dev, password)
	crew, err := load.NewCrew(target, numbers, "readers-"+b.topics[0], partitions, []kgo.Opt{kgo.SeedBrokers(b.kafka.Seeds(kafkatest.PLAINTEXT)...)}, b.topics[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(crew.Close)
	if withJava {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		writer, err := load.VerifiableProducer(ctx, kafkatest.V4, target, java)
		if err != nil {
			t.Fatal(err)
		}
		crew.Others = append(crew.Others, load.Other{Name: "Java", Topic: b.topics[1], Writer: writer})
	}
	c := clients{crew}
	c.goOn(t)
	return c
}

// goOn waits until every client has done more work.
func (c clients) goOn(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.GoOn(ctx); err != nil {
		t.Fatal(err)
	}
}

// end stops the clients, and compares what the brokers hold with what was acknowledged.
func (c clients) end(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := c.End(ctx); err != nil {
		t.Error(err)
	}
}

// changes are made all the time: number n is a change of two objects at once, which are
// seen together or not at all, by whoever asks the portals or a node, and never go back.
type changes struct {
	bed   *bed
	stop  context.CancelFunc
	wg    sync.WaitGroup
	tried atomic.Int64
	acked atomic.Int64
	nodes []atomic.Int64 // the number that each was seen with last

	mu     sync.Mutex // guards those below
	broken []string   // promises
}

// The two objects have their number in their names as nodes show them.
var pairName = [2]string{"left", "right"}

func pair(n int64) (documents string) {
	for _, name := range pairName {
		documents += fmt.Sprintf("---\n{apiVersion: tollgate/v1, kind: Acl, metadata: {name: %s, virtualCluster: acme}, spec: {principal: \"User:nobody\", resource: {type: topic, name: %s-%d}, operation: READ, permission: ALLOW}}\n", name, name, n)
	}
	return documents
}

func (b *bed) change(t *testing.T) *changes {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	c := &changes{bed: b, stop: stop, nodes: make([]atomic.Int64, len(b.Nodes))}
	b.Apply(t, pair(0))
	c.wg.Go(func() { c.write(ctx) })
	c.wg.Go(func() { c.read(ctx) })
	for i := range b.Nodes {
		c.wg.Go(func() { c.watch(ctx, i) })
	}
	t.Cleanup(func() { stop(); c.wg.Wait() })
	c.goOn(t)
	return c
}

func (c *changes) breaks(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.broken) < 10 {
		c.broken = append(c.broken, fmt.Sprintf(format, args...))
	}
}

func (c *changes) write(ctx context.Context) {
	for n := int64(1); ctx.Err() == nil; n++ {
		c.tried.Store(n)
		a, err := c.bed.Do(ctx, http.MethodPost, "/v1/apply", pair(n))
		switch {
		case err != nil:
			return // the end of the test
		case a.Status != http.StatusOK:
			c.breaks("change %d: %d %s", n, a.Status, a.Body)
			return
		}
		c.acked.Store(n)
		wait(ctx)
	}
}

// every is how often everybody is asked what they see.
const every = 20 * time.Millisecond

func (c *changes) read(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		least := c.acked.Load()
		p := c.bed.Portals[i%len(c.bed.Portals)]
		a, err := c.bed.Ask(ctx, p, http.MethodGet, "/v1/virtual-clusters/acme/acls?limit=1000", "")
		if err == nil && a.Status == http.StatusOK {
			c.judge(p.Name, least, strings.FieldsFunc(a.Body, func(r rune) bool { return r == '"' }))
		}
		wait(ctx)
	}
}

// wait is the pause of somebody who asks, or writes, for good.
func wait(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(every):
	}
}

func (c *changes) watch(ctx context.Context, i int) {
	node := c.bed.Nodes[i]
	asker := node.Asker(acme, dev, password)
	defer asker.Close()
	for ctx.Err() == nil {
		req := kmsg.NewPtrDescribeACLsRequest()
		req.Version, req.ResourceType, req.ResourcePatternType = 2, kmsg.ACLResourceTypeTopic, kmsg.ACLResourcePatternTypeAny
		req.Operation, req.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
		least := c.nodes[i].Load()
		if resp, err := asker.Ask(ctx, req); err == nil {
			var names []string
			acls := resp.(*kmsg.DescribeACLsResponse)
			if acls.ErrorCode != 0 {
				c.breaks("%s answers %d", node.Name, acls.ErrorCode)
			}
			for _, r := range acls.Resources {
				names = append(names, r.ResourceName)
			}
			if n, ok := c.judge(node.Name, least, names); ok {
				c.nodes[i].Store(n)
			}
		}
		wait(ctx)
	}
}

// judge looks at what somebody sees, who has seen, or was told of, number least before.
func (c *changes) judge(who string, least int64, names []string) (n int64, ok bool) {
	var seen [2]int64
	for i, prefix := range pairName {
		seen[i] = -1
		for _, name := range names {
			if text, is := strings.CutPrefix(name, prefix+"-"); is {
				if n, err := strconv.ParseInt(text, 10, 64); err == nil {
					seen[i] = n
				}
			}
		}
	}
	most := c.tried.Load()
	if seen[0] != seen[1] || seen[0] < least || seen[0] > most {
		c.breaks("%s shows %v, which is to be the same number twice, from %d to %d", who, seen, least, most)
		return 0, false
	}
	return seen[0], true
}

// goOn waits until more changes are acknowledged, and are on every node.
func (c *changes) goOn(t *testing.T) {
	t.Helper()
	from := c.acked.Load()
	site.Eventually(t, "changes go on", func(context.Context) error {
		if got := c.acked.Load(); got < from+3 {
			return fmt.Errorf("%d acknowledged, and %d before", got, from)
		}
		return c.err()
	})
	due := c.acked.Load()
	site.Eventually(t, "changes come to the nodes", func(context.Context) error {
		for i := range c.nodes {
			if got := c.nodes[i].Load(); got < due {
				return fmt.Errorf("%s has %d of %d", c.bed.Nodes[i].Name, got, due)
			}
		}
		return c.err()
	})
}

func (c *changes) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.broken) == 0 {
		return nil
	}
	return errors.New(strings.Join(c.broken, "\n"))
}

// end stops changing, and reports promises that were broken.
func (c *changes) end(t *testing.T) {
	t.Helper()
	c.stop()
	c.wg.Wait()
	if err := c.err(); err != nil {
		t.Error(err)
	}
}
