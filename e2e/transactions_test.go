package e2e

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/load"
)

// guarded are clusters on which alice may write to one topic and see another, with
// either version of Kafka's transaction protocol (KIP-890).
var guarded = map[string]*kafkatest.Shared{
	"transaction.version 1": kafkatest.Share(kafkatest.Options{SASL: true, Authorizer: true, Features: map[string]int{"transaction.version": 1}}),
	"transaction.version 2": kafkatest.Share(kafkatest.Options{SASL: true, Authorizer: true}),
}

// guardedResources are a partner with the same rights on aliases of the same names.
const guardedResources = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: guarded, tenant: acme}, spec: {type: partner, host: guarded, home: main, authentication: {scram: {}}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: alice, virtualCluster: guarded}, spec: {type: local, password: "file:alice.secret"}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: shop, tenant: acme}, spec: {cluster: main, topic: {name: shop., pattern: prefixed}, access: read-write}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: open, virtualCluster: guarded}, spec: {cluster: main, topic: shop.open}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: closed, virtualCluster: guarded}, spec: {cluster: main, topic: shop.closed}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: open, virtualCluster: guarded}, spec: {principal: "User:alice", resource: {type: topic, name: open}, operation: WRITE, permission: ALLOW}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: closed, virtualCluster: guarded}, spec: {principal: "User:alice", resource: {type: topic, name: closed}, operation: DESCRIBE, permission: ALLOW}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: ids, virtualCluster: guarded}, spec: {principal: "User:alice", resource: {type: transactionalId, name: "*"}, operation: WRITE, permission: ALLOW}}
`

// A producer whose transaction touches a topic it may not write to can abort it,
// and its next transaction commits: through the gateway with every client that can
// do so on a bare broker, and with some that cannot there.
func TestProducersGoOnAfterARefusedTransaction(t *testing.T) {
	t.Parallel()
	for version, shared := range guarded {
		t.Run(version, func(t *testing.T) {
			kafka := shared.Get(t)
			admin := kadm.NewClient(kafka.Client(t))
			if _, err := admin.CreateTopics(t.Context(), 1, 1, nil, "open", "closed", "shop.open", "shop.closed"); err != nil {
				t.Fatal(err)
			}
			for _, acl := range []*kadm.ACLBuilder{
				kadm.NewACLs().Topics("open").Operations(kadm.OpWrite),
				kadm.NewACLs().Topics("closed").Operations(kadm.OpDescribe),
				kadm.NewACLs().TransactionalIDs("*").Operations(kadm.OpWrite),
			} {
				created, err := admin.CreateACLs(t.Context(), acl.Allow("User:alice").AllowHosts("*").ResourcePatternType(kadm.ACLPatternLiteral))
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range created {
					if c.Err != nil {
						t.Fatal(c.Err)
					}
				}
			}
			p := gateway.Start(t, map[string]string{"main": kafka.Bootstrap()}, map[string]string{
				"all.yaml": guardedResources, "alice.secret": kafka.Password("alice") + "\n",
			})
			through := p.Target(t, "guarded", "SCRAM-SHA-512", "alice", kafka.Password("alice"))
			bare := drivers.Target{
				Bootstrap: kafka.BootstrapOn(kafkatest.SASL), CAFile: kafka.CAFile,
				Mechanism: "SCRAM-SHA-512", User: "alice", Password: kafka.Password("alice"),
			}
			var want []string
			for _, d := range drivers.Drivers() {
				if !d.Supports(drivers.AfterRefusal) {
					continue
				}
				t.Run(d.Name(), func(t *testing.T) {
					for _, mixed := range []bool{false, true} {
						name := fmt.Sprint(drivers.Slug(d), "-mixed-", mixed)
						step := drivers.Step{
							Do: drivers.AfterRefusal, Topic: "open", To: "closed", TransactionalID: name,
							Count: 3, Prefix: name + "-", Seconds: 20, Mixed: mixed,
						}
						there, err := d.Run(t.Context(), bare, step)
						if err != nil {
							t.Fatal(err)
						}
						here, err := d.Run(t.Context(), through, step)
						if err != nil {
							t.Fatal(err)
						}
						for _, o := range []drivers.Outcome{there[0], here[0]} {
							if refused := o.Of("refused"); len(refused) != 1 || refused[0].Code != int(kerr.TopicAuthorizationFailed.Code) {
								t.Errorf("%s: refused with %+v, want one TOPIC_AUTHORIZATION_FAILED", name, refused)
							}
						}
						// franz-go takes that error of AddPartitionsToTxn for the end of
						// the producer, wherever it comes from.
						if dies := d.Name() == "franz-go" && version == "transaction.version 1"; dies {
							if here[0].Err == nil || there[0].Err == nil {
								t.Errorf("%s: through: %v, bare: %v: it lives on, so let it be tested", name, here[0].Err, there[0].Err)
							}
							continue
						}
						if here[0].Err != nil {
							t.Errorf("%s: %v; on a bare broker: %v", name, here[0].Err, there[0].Err)
						}
						// librdkafka aborts what the broker has never heard of, and dies of the answer.
						if there[0].Err != nil && (d.Name() != "confluent-kafka" || mixed) {
							t.Errorf("%s: on a bare broker: %v", name, there[0].Err)
						}
						for n := range step.Count {
							want = append(want, fmt.Sprint(step.Prefix, "v", n))
						}
					}
				})
			}
			var got []string
			opts := []kgo.Opt{kgo.SeedBrokers(kafka.Seeds(kafkatest.PLAINTEXT)...), kgo.FetchIsolationLevel(kgo.ReadCommitted())}
			if err := load.Each(t.Context(), opts, "shop.open", func(r *kgo.Record) { got = append(got, string(r.Value)) }); err != nil {
				t.Fatal(err)
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("committed %v, want %v", got, want)
			}
		})
	}
}
