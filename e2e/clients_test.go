// Package e2e tests the product from outside: real brokers behind it, foreign
// clients before it.
package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/load"
	"tollgate.internal/e2e/internal/scenario"
	"tollgate.internal/e2e/internal/spanning"
)

// upstreams are single brokers, by version; pairs two clusters each, by the version of
// the one that is home.
var upstreams, pairs = kafkatest.ShareSingles(), kafkatest.SharePairs()

// three is a cluster that survives the loss of a broker: three replicas, two of
// them in sync to acknowledge anything.
var three = kafkatest.Share(kafkatest.Options{Nodes: 3})

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }

// resources are one tenant with a standard and a partner virtual cluster; the
// partner has two aliases for each client.
func resources(bootstrap string, aliases []string) map[string]string {
	var b strings.Builder
	fmt.Fprintf(&b, `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: [%q]}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: acme-dev, tenant: acme}
spec: {type: standard, host: acme-dev, home: main, authentication: {plain: {}, scram: {}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: dev, virtualCluster: acme-dev}, spec: {type: local, password: "file:dev.secret"}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: acme-prod, tenant: acme}
spec: {type: partner, host: acme, home: main, authentication: {plain: {}, scram: {}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: shipping, virtualCluster: acme-prod}, spec: {type: local, password: "file:dev.secret"}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: topics, virtualCluster: acme-prod}, spec: {principal: "User:shipping", resource: {type: topic, name: orders, pattern: prefixed}, operation: ALL, permission: ALLOW}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: groups, virtualCluster: acme-prod}, spec: {principal: "User:shipping", resource: {type: group, name: group-, pattern: prefixed}, operation: ALL, permission: ALLOW}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: transactions, virtualCluster: acme-prod}, spec: {principal: "User:shipping", resource: {type: transactionalId, name: t-, pattern: prefixed}, operation: ALL, permission: ALLOW}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: orders, tenant: acme}, spec: {cluster: main, topic: {name: shop., pattern: prefixed}, access: read-write}}
`, bootstrap)
	for _, a := range aliases {
		fmt.Fprintf(&b, "---\n{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: orders-%s, virtualCluster: acme-prod}, spec: {cluster: main, topic: shop.%s}}\n", a, a)
	}
	return map[string]string{"all.yaml": b.String(), "dev.secret": "dev-secret\n"}
}

func TestEveryClientThroughTheGateway(t *testing.T) {
	t.Parallel()
	for _, version := range kafkatest.Versions() {
		t.Run("Kafka "+version, func(t *testing.T) {
			kafka := upstreams[version].Get(t)
			var aliases []string
			for _, d := range drivers.Drivers() {
				aliases = append(aliases, drivers.Slug(d), drivers.Slug(d)+"-to")
			}
			create(t, kafka, aliases)
			p := gateway.Start(t, map[string]string{"main": kafka.Bootstrap()}, resources(kafka.Bootstrap(), aliases))
			for _, d := range drivers.Drivers() {
				t.Run(d.Name()+"/standard", func(t *testing.T) {
					t.Parallel()
					scenario.Standard(t, d, p.Target(t, "acme-dev", "SCRAM-SHA-512", "dev", "dev-secret"), drivers.Slug(d))
				})
				t.Run(d.Name()+"/partner", func(t *testing.T) {
					t.Parallel()
					scenario.Alias(t, d, p.Target(t, "acme-prod", "PLAIN", "shipping", "dev-secret"), "orders-"+drivers.Slug(d), "orders-"+drivers.Slug(d)+"-to", drivers.Slug(d))
				})
			}
		})
	}
}

// create makes the physical topics behind the aliases, as their owner would.
func create(t *testing.T, kafka *kafkatest.Cluster, names []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	admin := kadm.NewClient(kafka.Client(t, kgo.MetadataMinAge(100*time.Millisecond)))
	for _, name := range names {
		if _, err := admin.CreateTopic(ctx, 2, 1, nil, "shop."+name); err != nil {
			t.Fatal(err)
		}
	}
}

// What a client does with topics of two clusters is what it does with topics of one
// broker.
func TestEveryClientThroughASpanningVirtualCluster(t *testing.T) {
	t.Parallel()
	for _, version := range kafkatest.Versions() {
		t.Run("home on Kafka "+version, func(t *testing.T) {
			pair := pairs[version].Get(t)
			var aliases []spanning.Alias
			for _, d := range drivers.Drivers() {
				name := "lent-" + drivers.Slug(d)
				aliases = append(aliases,
					spanning.Alias{Name: name + "-own", Cluster: "west", Partitions: 2}, // of the standard one
					spanning.Alias{Name: name, Cluster: "main", Partitions: 2},
					spanning.Alias{Name: name + "-to", Cluster: "main"},
					spanning.Alias{Name: name + "-west", Cluster: "west", Partitions: 2})
			}
			g := spanning.Start(t, pair, aliases...)
			bare := drivers.Target{Bootstrap: pair.West.Bootstrap()}
			t.Run("", func(t *testing.T) { // ends when all have
				for _, d := range drivers.Drivers() {
					name := drivers.Slug(d)
					t.Run(d.Name()+"/broker of Kafka "+pair.West.Options.Version, func(t *testing.T) {
						t.Parallel()
						if _, err := drivers.Do(t.Context(), drivers.FranzGo(), bare, drivers.Step{Do: drivers.CreateTopic, Topic: "bare-west-" + name, Partitions: 2}); err != nil {
							t.Fatal(err)
						}
						scenario.BothClusters(t, d, bare, scenario.Two{
							From: "bare-from-" + name, West: "bare-west-" + name, To: "bare-to-" + name, Name: "bare-" + name, Owned: true, Bare: true,
						})
					})
					t.Run(d.Name()+"/standard", func(t *testing.T) {
						t.Parallel()
						scenario.BothClusters(t, d, g.Standard(t), scenario.Two{
							From: "from-" + name, West: "lent-" + name + "-own", To: "to-" + name, Name: name, Owned: true,
						})
					})
					t.Run(d.Name()+"/partner", func(t *testing.T) {
						t.Parallel()
						scenario.BothClusters(t, d, g.Partner(t), scenario.Two{
							From: "lent-" + name, West: "lent-" + name + "-west", To: "lent-" + name + "-to", Name: name,
						})
					})
				}
			})
			// Of transactions on main nothing has come to west.
			for _, a := range aliases {
				if a.Cluster != "west" {
					continue
				}
				opts := []kgo.Opt{kgo.SeedBrokers(pair.West.Seeds(kafkatest.PLAINTEXT)...)}
				err := load.Each(t.Context(), opts, "shop."+a.Name, func(r *kgo.Record) {
					if string(r.Value) == "refused" {
						t.Errorf("%s holds a record of a transaction that was refused", a.Name)
					}
				})
				if err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
