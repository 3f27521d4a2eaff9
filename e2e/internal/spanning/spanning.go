// Package spanning has the resources of a tenant whose virtual clusters span a pair
// of Kafka clusters.
package spanning

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
)

// The two virtual clusters, with home on main, and their accounts. Transactions whose
// ids begin with "west-" are on west.
const (
	// Standard has topics of its own on main, besides its aliases.
	Standard     = "acme-dev"
	StandardUser = "dev"
	// Partner has nothing but aliases.
	Partner     = "acme-prod"
	PartnerUser = "shipping"
	// Password is that of both.
	Password = "dev-secret"
)

// An Alias is a topic that both virtual clusters see. Its physical name is
// shop.<Name>; [Lend] creates it.
type Alias struct {
	Name       string // with the rights of PartnerUser it begins with "lent-"
	Cluster    string // main or west
	Partitions int32
}

func (a Alias) physical() string { return "shop." + a.Name }

// Clusters is the content of the file clusters.yaml among [Files]: to be written
// again when a cluster has moved.
func Clusters(p *kafkatest.Pair) string {
	var b strings.Builder
	for name, c := range clusters(p) {
		fmt.Fprintf(&b, "---\n{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: %s}, spec: {bootstrap: [\"%s\"]}}\n",
			name, strings.Join(c.Seeds(kafkatest.PLAINTEXT), `", "`))
	}
	return b.String()
}

func clusters(p *kafkatest.Pair) map[string]*kafkatest.Cluster {
	return map[string]*kafkatest.Cluster{"main": p.Main, "west": p.West}
}

// Files are the resource files.
func Files(p *kafkatest.Pair, aliases ...Alias) map[string]string {
	return map[string]string{"clusters.yaml": Clusters(p), "tenant.yaml": tenant, "aliases.yaml": Aliases(aliases...), "dev.secret": Password + "\n"}
}

// Aliases is the content of the file aliases.yaml.
func Aliases(aliases ...Alias) string {
	var b strings.Builder
	for _, a := range aliases {
		for _, vc := range []string{Standard, Partner} {
			fmt.Fprintf(&b, "---\n{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: %s, virtualCluster: %s}, spec: {cluster: %s, topic: %s}}\n",
				a.Name, vc, a.Cluster, a.physical())
		}
	}
	return b.String()
}

const tenant = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: acme-dev, tenant: acme}
spec:
  type: standard
  host: acme-dev
  home: main
  clusters: [main, west]
  transactions: [{prefix: west-, cluster: west}]
  authentication: {plain: {}, scram: {}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: dev, virtualCluster: acme-dev}, spec: {type: local, password: "file:dev.secret"}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: acme-prod, tenant: acme}
spec:
  type: partner
  host: acme
  home: main
  clusters: [main, west]
  transactions: [{prefix: west-, cluster: west}]
  authentication: {plain: {}, scram: {}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: shipping, virtualCluster: acme-prod}, spec: {type: local, password: "file:dev.secret"}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: topics, virtualCluster: acme-prod}, spec: {principal: "User:shipping", resource: {type: topic, name: lent-, pattern: prefixed}, operation: ALL, permission: ALLOW}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: groups, virtualCluster: acme-prod}, spec: {principal: "User:shipping", resource: {type: group, name: group-, pattern: prefixed}, operation: ALL, permission: ALLOW}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: transactions, virtualCluster: acme-prod}, spec: {principal: "User:shipping", resource: {type: transactionalId, name: "*"}, operation: ALL, permission: ALLOW}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: main, tenant: acme}, spec: {cluster: main, topic: {name: shop., pattern: prefixed}, access: read-write}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: west, tenant: acme}, spec: {cluster: west, topic: {name: shop., pattern: prefixed}, access: read-write}}
`

// Lend creates the physical topics behind the aliases, as their owner would.
func Lend(t testing.TB, p *kafkatest.Pair, aliases ...Alias) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for name, c := range clusters(p) {
		admin := kadm.NewClient(c.Client(t))
		for _, a := range aliases {
			if a.Cluster != name {
				continue
			}
			if _, err := admin.CreateTopic(ctx, max(1, a.Partitions), -1, nil, a.physical()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Start lends the topics and runs a gateway with [Files] that sees them.
func Start(t testing.TB, p *kafkatest.Pair, aliases ...Alias) *Gateway {
	t.Helper()
	Lend(t, p, aliases...)
	g := &Gateway{gateway.Start(t, nil, Files(p, aliases...))}
	for _, target := range []drivers.Target{g.Standard(t), g.Partner(t)} {
		Await(t, target, aliases...)
	}
	return g
}

// Gateway is one with the two virtual clusters.
type Gateway struct{ *gateway.Process }

// Standard is where clients of that virtual cluster connect.
func (g *Gateway) Standard(t testing.TB) drivers.Target {
	t.Helper()
	return g.Target(t, Standard, "SCRAM-SHA-512", StandardUser, Password)
}

// Partner is where clients of that virtual cluster connect.
func (g *Gateway) Partner(t testing.TB) drivers.Target {
	t.Helper()
	return g.Target(t, Partner, "PLAIN", PartnerUser, Password)
}

// Await waits until a virtual cluster shows the aliases with all their partitions,
// which takes as long as the creation of stub topics.
func Await(t testing.TB, target drivers.Target, aliases ...Alias) {
	t.Helper()
	opts, err := target.KgoOpts()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	admin := kadm.NewClient(client)
	for {
		topics, err := admin.ListTopics(ctx)
		if err == nil {
			err = missing(topics, aliases)
		}
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within a minute: %v", target.User, err)
		case <-time.After(50 * time.Millisecond): // between two looks
		}
	}
}

func missing(topics kadm.TopicDetails, aliases []Alias) error {
	for _, a := range aliases {
		if want, got := max(1, int(a.Partitions)), len(topics[a.Name].Partitions); got != want {
			return fmt.Errorf("%s has %d partitions, want %d", a.Name, got, want)
		}
	}
	return nil
}
