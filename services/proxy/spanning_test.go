package proxy_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"tollgate.internal/services/proxy"
)

const wideResources = `
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: west}, spec: {bootstrap: [%s]}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: wide, tenant: acme}, spec: {type: standard, host: wide, home: main, clusters: [main, west], authentication: {anonymous: {}}}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: far, tenant: acme}, spec: {cluster: west, topic: {name: shop.far, pattern: prefixed}, access: read-write}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: far, virtualCluster: wide}, spec: {cluster: west, topic: shop.far}}
`

// span is a gateway over two clusters: the virtual cluster wide has topics of its own
// on main and the alias far on west.
type span struct {
	*gateway
	west *kfake.Cluster
}

func spanning(t *testing.T, f func(t *testing.T, g *span), more ...kfake.Opt) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		network := new(kfake.VirtualNetwork)
		west, err := kfake.NewCluster(append([]kfake.Opt{
			kfake.NumBrokers(2), kfake.ClusterID(westID), kfake.SeedTopics(2, "shop.far", "shop.farther.away", "secret"), kfake.ListenFn(network.Listen), kfake.Ports(29092, 29093),
		}, more...)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(west.Close)
		g := startOn(t, network)
		if err := g.stop(); err != nil {
			t.Fatal(err)
		}
		g.cfg.ProducerIDs = proxy.ProducerIDs{Source: "file:" + filepath.Join(t.TempDir(), "ids")}
		g.run(t)
		g.write(t, "spanning.yaml", fmt.Sprintf(wideResources, strings.Join(quoted(west.ListenAddrs()), ",")))
		time.Sleep(time.Second) // the files are read
		cl := g.client(t, "wide.gw.test")
		if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), 3, 1, nil, "near"); err != nil {
			t.Fatal(err)
		}
		cl.Close()
		f(t, &span{g, west})
	})
}

func TestATenantSeesOneCluster(t *testing.T) {
	spanning(t, func(t *testing.T, g *span) {
		cl := g.client(t, "wide.gw.test", kgo.ConsumeTopics("near", "far"), kgo.ConsumerGroup("both"),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for i := range 20 {
			for _, topic := range []string{"near", "far"} {
				if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: fmt.Append(nil, i)}).FirstErr(); err != nil {
					t.Fatalf("%s: %v", topic, err)
				}
			}
		}
		admin := kadm.NewClient(cl)
		topics, err := admin.Metadata(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if names := topics.Topics.Names(); !slices.Equal(names, []string{"far", "near"}) {
			t.Errorf("topics %q, want far and near", names)
		}
		if n := len(topics.Brokers); n != 5 {
			t.Errorf("%d brokers, want those of both clusters", n)
		}
		seen := make(map[string]int)
		for seen["near"]+seen["far"] < 40 {
			fs := cl.PollFetches(ctx)
			if err := fs.Err(); err != nil {
				t.Fatalf("after %v: %v", seen, err)
			}
			fs.EachRecord(func(r *kgo.Record) { seen[r.Topic]++ })
		}
		if seen["near"] != 20 || seen["far"] != 20 {
			t.Errorf("read %v, want 20 of each", seen)
		}
		commit(t, cl)
		lag, err := admin.Lag(ctx, "both")
		if err != nil {
			t.Fatal(err)
		}
		if d := lag["both"]; d.Error() != nil || d.Lag.Total() != 0 || len(d.Lag["far"]) != 2 {
			t.Errorf("lag %+v: %v", d.Lag, d.Error())
		}
		if got := g.west.PartitionInfo("shop.far", 0).HighWatermark + g.west.PartitionInfo("shop.far", 1).HighWatermark; got != 20 {
			t.Errorf("%d records on the other cluster, want 20", got)
		}
	})
}

// append adds to a resource file.
func (g *span) append(t *testing.T, file, text string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.resources, file))
	if err != nil {
		t.Fatal(err)
	}
	g.write(t, file, string(b)+text)
}

// member is a group's consumer of both topics that counts how often partitions are
// taken from it.
type member struct {
	*kgo.Client
	seen  map[string]int
	taken atomic.Int32
}

func (g *span) member(t *testing.T, opts ...kgo.Opt) *member {
	t.Helper()
	m := &member{seen: make(map[string]int)}
	took := func(context.Context, *kgo.Client, map[string][]int32) { m.taken.Add(1) }
	m.Client = g.client(t, "wide.gw.test", append([]kgo.Opt{
		kgo.ConsumeTopics("near", "far"), kgo.ConsumerGroup("both"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.OnPartitionsRevoked(took), kgo.OnPartitionsLost(took), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()),
		kgo.MetadataMinAge(100 * time.Millisecond), kgo.MetadataMaxAge(10 * time.Second),
	}, opts...)...)
	return m
}

// read reads until it has so many records of each topic.
func (m *member) read(t *testing.T, near, far int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for m.seen["near"] < near || m.seen["far"] < far {
		fs := m.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %v, want %d and %d", m.seen, near, far)
		}
		fs.EachRecord(func(r *kgo.Record) { m.seen[r.Topic]++ })
	}
	if m.seen["near"] != near || m.seen["far"] != far {
		t.Errorf("read %v, want %d and %d", m.seen, near, far)
	}
}

// write produces to a topic and returns how long that took.
func (m *member) write(t *testing.T, topic string, n int) time.Duration {
	t.Helper()
	began := time.Now()
	for range n {
		if err := m.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatalf("%s: %v", topic, err)
		}
	}
	return time.Since(began)
}

// While the other cluster is away its topics keep their place and nobody else waits:
// there is no delay, no error and no rebalance.
func TestOneClusterAwayHarmsNobodyElse(t *testing.T) {
	for name, away := range map[string]func(*span) (back func()){
		"down":   func(g *span) func() { g.brokers.kill("29"); return g.brokers.revive },
		"frozen": func(g *span) func() { return g.brokers.freeze("29") },
		"flapping": func(g *span) func() {
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					g.brokers.kill("29")
					select {
					case <-stop:
						g.brokers.revive()
						return
					case <-time.After(1500 * time.Millisecond):
					}
					g.brokers.revive()
					select {
					case <-stop:
						return
					case <-time.After(300 * time.Millisecond):
					}
				}
			})
			return func() { close(stop); wg.Wait() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			spanning(t, func(t *testing.T, g *span) {
				m := g.member(t)
				m.write(t, "near", 10)
				m.write(t, "far", 10)
				m.read(t, 10, 10)
				commit(t, m.Client)
				back := away(g)
				for i := range 30 {
					if took := m.write(t, "near", 1); took > 100*time.Millisecond {
						t.Errorf("a record of the other topic takes %v, %d seconds after", took, i)
					}
					m.read(t, 11+i, 10)
					commit(t, m.Client)
					began := time.Now()
					resp, err := kmsg.NewPtrMetadataRequest().RequestWith(t.Context(), m.Client)
					if err != nil {
						t.Fatal(err)
					}
					// The first to ask a cluster that has just fallen silent waits for a moment.
					if took := time.Since(began); took > 100*time.Millisecond && i > 3 && name != "flapping" {
						t.Errorf("metadata takes %v, %d seconds after", took, i)
					}
					for _, topic := range resp.Topics {
						if *topic.Topic == "far" && len(topic.Partitions) != 2 {
							t.Errorf("far has %d partitions, want 2", len(topic.Partitions))
						}
					}
					if len(resp.Topics) != 2 {
						t.Errorf("%d topics", len(resp.Topics))
					}
					time.Sleep(time.Second)
				}
				back()
				m.write(t, "far", 10)
				m.read(t, 40, 20)
				commit(t, m.Client)
				if n := m.taken.Load(); n != 0 {
					t.Errorf("partitions were taken away %d times", n)
				}
			})
		})
	}
}

// While home is away the other cluster's topics can be written, and read without a
// group.
func TestHomeAwayLeavesTheOthers(t *testing.T) {
	for name, away := range map[string]func(*span) (back func()){
		"down":   func(g *span) func() { g.brokers.kill("19"); return g.brokers.revive },
		"frozen": func(g *span) func() { return g.brokers.freeze("19") },
	} {
		t.Run(name, func(t *testing.T) {
			spanning(t, func(t *testing.T, g *span) {
				m := g.member(t)
				m.write(t, "near", 10)
				m.write(t, "far", 10)
				m.read(t, 10, 10)
				direct := g.client(t, "wide.gw.test", kgo.ConsumeTopics("far"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
				back := away(g)
				time.Sleep(5 * time.Second)
				if took := m.write(t, "far", 10); took > time.Second {
					t.Errorf("ten records of the other topic take %v", took)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for n := 0; n < 20; {
					fs := direct.PollFetches(ctx)
					if err := fs.Err(); err != nil {
						t.Fatalf("after %d records: %v", n, err)
					}
					n += fs.NumRecords()
				}
				back()
				m.write(t, "near", 10)
				m.read(t, 20, 20)
				commit(t, m.Client)
			})
		})
	}
}

// A tenant's topic on the other cluster grows, is deleted and made again, and its
// alias comes to mean another topic: as the same, or as a new one.
func TestATopicElsewhereLivesItsLife(t *testing.T) {
	spanning(t, func(t *testing.T, g *span) {
		m := g.member(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		west, err := kgo.NewClient(kgo.SeedBrokers(g.west.ListenAddrs()...), kgo.Dialer(g.dial))
		if err != nil {
			t.Fatal(err)
		}
		defer west.Close()
		upstream, admin := kadm.NewClient(west), kadm.NewClient(m.Client)
		far := func() kadm.TopicDetail {
			t.Helper()
			topics, err := admin.ListTopics(t.Context(), "far")
			if err != nil {
				t.Fatal(err)
			}
			return topics["far"]
		}
		await := func(what string, ok func() bool) {
			t.Helper()
			for end := time.Now().Add(time.Minute); !ok(); time.Sleep(100 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("not within a minute: %s", what)
				}
			}
		}
		id := far().ID
		m.write(t, "near", 1)
		m.write(t, "far", 5)
		m.read(t, 1, 5)
		commit(t, m.Client)

		if _, err := upstream.UpdatePartitions(t.Context(), 4, "shop.far"); err != nil {
			t.Fatal(err)
		}
		await("four partitions", func() bool { return len(far().Partitions) == 4 })
		time.Sleep(15 * time.Second) // the client looks for itself
		if err := m.ProduceSync(t.Context(), &kgo.Record{Topic: "far", Partition: 3}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		m.read(t, 1, 6)
		commit(t, m.Client)
		if far().ID != id {
			t.Error("the topic has another id since it has grown")
		}

		if _, err := upstream.DeleteTopic(t.Context(), "shop.far"); err != nil {
			t.Fatal(err)
		}
		await("the topic is gone", func() bool { return errors.Is(far().Err, kerr.UnknownTopicOrPartition) })
		if _, err := upstream.CreateTopic(t.Context(), 3, 1, nil, "shop.far"); err != nil {
			t.Fatal(err)
		}
		await("it is back", func() bool { return len(far().Partitions) == 3 })
		second := far().ID
		if second == id {
			t.Error("a topic that was made anew has the old one's id")
		}
		offsets, err := admin.FetchOffsetsForTopics(t.Context(), "both", "far")
		if err != nil {
			t.Fatal(err)
		}
		if at, _ := offsets.Lookup("far", 0); at.At != -1 {
			t.Errorf("offset %d of the old topic is the new one's", at.At)
		}

		// As the same topic: with its identity. Clients that knew the topic before it was
		// made anew would have to be told.
		m.Close()
		m = g.member(t, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ConsumerGroup("others"))
		admin = kadm.NewClient(m.Client)
		commitAt := kadm.Offsets{"far": {0: {Topic: "far", Partition: 0, At: 7, LeaderEpoch: -1}}}
		if err := admin.CommitAllOffsets(t.Context(), "simple", commitAt); err != nil {
			t.Fatal(err)
		}
		details, err := upstream.ListTopics(t.Context(), "shop.far")
		if err != nil {
			t.Fatal(err)
		}
		identity := details["shop.far"].ID
		if _, err := upstream.CreateTopic(t.Context(), 3, 1, nil, "shop.farther"); err != nil {
			t.Fatal(err)
		}
		g.replace(t, "spanning.yaml", "topic: shop.far}", "topic: shop.farther, identity: "+base64.RawURLEncoding.EncodeToString(identity[:])+"}")
		time.Sleep(2 * time.Second)
		if now := far(); now.ID != second || len(now.Partitions) != 3 {
			t.Errorf("the topic has id %v and %d partitions, want its old id", now.ID, len(now.Partitions))
		}
		if err := m.ProduceSync(t.Context(), &kgo.Record{Topic: "far", Partition: 1}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if n := g.west.PartitionInfo("shop.farther", 1).HighWatermark; n != 1 {
			t.Errorf("%d records in the topic that it stands for now, want 1", n)
		}
		if offsets, err = admin.FetchOffsetsForTopics(t.Context(), "simple", "far"); err != nil {
			t.Fatal(err)
		}
		if at, _ := offsets.Lookup("far", 0); at.At != 7 {
			t.Errorf("the committed offset is %d, want 7", at.At)
		}

		// As a new one.
		g.replace(t, "spanning.yaml", ", identity: "+base64.RawURLEncoding.EncodeToString(identity[:]), "")
		await("another id", func() bool { now := far(); return now.Err == nil && now.ID != second })
		if offsets, err = admin.FetchOffsetsForTopics(t.Context(), "simple", "far"); err != nil {
			t.Fatal(err)
		}
		if at, _ := offsets.Lookup("far", 0); at.At != -1 {
			t.Errorf("the committed offset is %d, want none", at.At)
		}
	})
}

// Clusters come and go under live clients.
func TestClustersComeAndGoUnderClients(t *testing.T) {
	spanning(t, func(t *testing.T, g *span) {
		m := g.member(t)
		m.write(t, "near", 3)
		m.write(t, "far", 3)
		m.read(t, 3, 3)
		commit(t, m.Client)
		alias := "{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: far, virtualCluster: wide}, spec: {cluster: west, topic: shop.far}}"
		g.replace(t, "spanning.yaml", alias, "")
		g.replace(t, "spanning.yaml", "clusters: [main, west]", "clusters: [main]")
		time.Sleep(time.Second)
		resp, err := kmsg.NewPtrMetadataRequest().RequestWith(t.Context(), m.Client)
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.Topics) != 1 || len(resp.Brokers) != 3 {
			t.Errorf("%d topics and %d brokers are left, want 1 and 3", len(resp.Topics), len(resp.Brokers))
		}
		m.write(t, "near", 3)
		m.read(t, 6, 3)
		commit(t, m.Client)
		g.replace(t, "spanning.yaml", "clusters: [main]", "clusters: [main, west]")
		g.append(t, "spanning.yaml", "---\n"+alias+"\n")
		time.Sleep(15 * time.Second) // the client looks for it
		m.write(t, "far", 3)
		m.write(t, "near", 3)
		m.read(t, 9, 6) // where it left off
		if lines := g.log.with("session ended"); len(lines) > 0 {
			t.Errorf("sessions ended: %q", lines)
		}
	})
}

// A gateway that starts while the other cluster is away knows its topics all the same:
// a group would be balanced anew if they were missing.
func TestAGatewayStartsWhileAClusterIsAway(t *testing.T) {
	spanning(t, func(t *testing.T, g *span) {
		m := g.member(t)
		m.write(t, "near", 5)
		m.write(t, "far", 5)
		m.read(t, 5, 5)
		commit(t, m.Client)
		before := g.topics(t)
		if err := g.stop(); err != nil {
			t.Fatal(err)
		}
		g.brokers.kill("29")
		g.run(t)
		versions, err := kmsg.NewPtrApiVersionsRequest().RequestWith(t.Context(), g.client(t, "wide.gw.test"))
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range versions.ApiKeys {
			if most, _ := kversion.V3_9_0().LookupMaxKeyVersion(k.ApiKey); k.ApiKey == int16(kmsg.Fetch) && k.MaxVersion != most {
				t.Errorf("Fetch is offered up to version %d, which the cluster that is away may not have", k.MaxVersion)
			}
		}
		m.write(t, "near", 5)
		m.read(t, 10, 5)
		commit(t, m.Client)
		if after := g.topics(t); !maps.Equal(after, before) {
			t.Errorf("topics are %v since the start, were %v", after, before)
		}
		g.brokers.revive()
		m.write(t, "far", 5)
		m.read(t, 10, 10)
	})
}

// topics are the ids and partition counts that a new client is told.
func (g *span) topics(t *testing.T) map[string]string {
	t.Helper()
	cl := g.client(t, "wide.gw.test")
	defer cl.Close()
	resp, err := kmsg.NewPtrMetadataRequest().RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	topics := make(map[string]string)
	for _, topic := range resp.Topics {
		topics[*topic.Topic] = fmt.Sprintf("%x with %d", topic.TopicID, len(topic.Partitions))
	}
	return topics
}

// A transaction with a topic of another cluster is refused so that the producer can
// abort and commit its next one; one with topics of its cluster commits, and offsets
// of topics of every cluster are in it.
func TestTransactionsStayOnOneCluster(t *testing.T) {
	spanning(t, func(t *testing.T, g *span) {
		g.replace(t, "spanning.yaml", "clusters: [main, west]", `clusters: [main, west], transactions: [{prefix: "west-", cluster: west}]`)
		time.Sleep(time.Second)
		for _, c := range []struct{ id, home, elsewhere string }{{"pay", "near", "far"}, {"west-pay", "far", "near"}} {
			cl := g.client(t, "wide.gw.test", kgo.TransactionalID(c.id))
			transact := func(topics ...string) error {
				if err := cl.BeginTransaction(); err != nil {
					t.Fatal(err)
				}
				var records []*kgo.Record
				for _, topic := range topics {
					records = append(records, &kgo.Record{Topic: topic, Value: []byte(c.id)})
				}
				err := cl.ProduceSync(t.Context(), records...).FirstErr()
				if err := cl.EndTransaction(t.Context(), kgo.TransactionEndTry(err == nil)); err != nil {
					t.Fatalf("%s %v: end: %v", c.id, topics, err)
				}
				return err
			}
			for round := range 3 {
				if err := transact(c.home, c.home); err != nil {
					t.Errorf("%s, round %d: %v", c.id, round, err)
				}
				if err := transact(c.elsewhere); !errors.Is(err, kerr.TransactionAbortable) {
					t.Errorf("%s, a topic elsewhere: %v, want %v", c.id, err, kerr.TransactionAbortable)
				}
				if err := transact(c.home, c.elsewhere); !errors.Is(err, kerr.TransactionAbortable) {
					t.Errorf("%s, topics here and elsewhere: %v, want %v", c.id, err, kerr.TransactionAbortable)
				}
			}
		}
		reader := g.member(t, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
		reader.read(t, 6, 6)
	})
}

// The group protocol of KIP-848 assigns partitions of both clusters, also to those who
// subscribe by a pattern, and whatever the cluster that is not home knows of it; with
// one before Kafka 3.7, whose OffsetCommit is not for its members, groups are classic.
func TestConsumerProtocolGroupsSpan(t *testing.T) {
	for name, opts := range map[string][]kgo.Opt{"names": nil, "pattern": {kgo.ConsumeRegex(), kgo.ConsumeTopics("^(near|f.*)$")}} {
		for other, west := range map[string][]kfake.Opt{
			"as home is": nil, "with version 0": {kfake.MaxVersions(kversion.V3_9_0())}, "before 3.7": {kfake.MaxVersions(kversion.V3_6_0())},
		} {
			t.Run(name+", the other cluster "+other, func(t *testing.T) {
				spanning(t, func(t *testing.T, g *span) {
					ctx := context.WithValue(t.Context(), "opt_in_kafka_next_gen_balancer_beta", true) //nolint:staticcheck // kgo's own key
					m := g.member(t, append([]kgo.Opt{kgo.WithContext(ctx)}, opts...)...)
					m.write(t, "near", 5)
					m.write(t, "far", 5)
					m.read(t, 5, 5)
					commit(t, m.Client)
					admin := kadm.NewClient(m.Client)
					if other == "before 3.7" {
						groups, err := admin.DescribeGroups(t.Context(), "both")
						if err != nil {
							t.Fatal(err)
						}
						if d := groups["both"]; d.Err != nil || len(d.Members) != 1 {
							t.Errorf("described as %+v", d)
						}
						return
					}
					groups, err := admin.DescribeConsumerGroups(t.Context(), "both")
					if err != nil {
						t.Fatal(err)
					}
					if d := groups["both"]; d.Err != nil || len(d.Members) != 1 || len(d.Members[0].Assignment.Topics()) != 2 {
						t.Errorf("described as %+v", d)
					}
				}, west...)
			})
		}
	}
}

// Two tenants with the same names on the same clusters see nothing of each other, by
// whatever request (PROTOCOL.md §G3, vector 25).
func TestTenantsOnTheSameClustersDoNotMeet(t *testing.T) {
	spanning(t, func(t *testing.T, g *span) {
		g.write(t, "other.yaml", `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: globex}, spec: {displayName: Globex}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: wider, tenant: globex}, spec: {type: standard, host: wider, home: main, clusters: [main, west], authentication: {anonymous: {}}}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: far, tenant: globex}, spec: {cluster: west, topic: {name: shop.farther.away}, access: read-write}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: far, virtualCluster: wider}, spec: {cluster: west, topic: shop.farther.away}}
`)
		time.Sleep(time.Second)
		ctx := t.Context()
		mine := g.member(t, kgo.TransactionalID("pay"))
		if _, err := kadm.NewClient(mine.Client).CreateTopic(ctx, 1, 1, nil, "only-mine"); err != nil {
			t.Fatal(err)
		}
		if err := mine.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		mine.write(t, "near", 7)
		if err := mine.EndTransaction(ctx, kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
		mine.read(t, 7, 0)
		commit(t, mine.Client)
		only := kadm.Offsets{"far": {0: {Topic: "far", At: 3, LeaderEpoch: -1}}}
		if err := kadm.NewClient(mine.Client).CommitAllOffsets(ctx, "only-mine", only); err != nil {
			t.Fatal(err)
		}

		theirs := g.client(t, "wider.gw.test", kgo.ConsumeTopics("far"), kgo.ConsumerGroup("both"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		admin := kadm.NewClient(theirs)
		if err := theirs.ProduceSync(ctx, &kgo.Record{Topic: "far", Value: []byte("theirs")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if fs := theirs.PollFetches(ctx); fs.NumRecords() != 1 || string(fs.Records()[0].Value) != "theirs" {
			t.Errorf("the other tenant reads %v", fs.Records())
		}
		topics, err := admin.ListTopics(ctx)
		if err != nil || !slices.Equal(topics.Names(), []string{"far"}) {
			t.Errorf("topics %q: %v", topics.Names(), err)
		}
		groups, err := admin.ListGroups(ctx)
		if err != nil || !slices.Equal(groups.Groups(), []string{"both"}) {
			t.Errorf("groups %q: %v", groups.Groups(), err)
		}
		described, err := admin.DescribeGroups(ctx, "both", "only-mine")
		if err != nil || len(described["both"].Members) != 1 || len(described["only-mine"].Members) != 0 || described["only-mine"].State != "Dead" {
			t.Errorf("groups described as %+v: %v", described, err)
		}
		offsets, err := admin.FetchOffsets(ctx, "only-mine")
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) || len(offsets) != 0 {
			t.Errorf("offsets of the group that is not theirs: %v: %v", offsets, err)
		}
		transactions, err := admin.ListTransactions(ctx, nil, nil)
		if err != nil || len(transactions) != 0 {
			t.Errorf("transactions %v: %v", transactions, err)
		}
		if mineTxn, err := kadm.NewClient(mine.Client).ListTransactions(ctx, nil, nil); err != nil || len(mineTxn) != 1 {
			t.Errorf("transactions of the one who has made one: %v: %v", mineTxn, err)
		}
		if d, err := admin.DescribeTransactions(ctx, "pay"); err == nil && d["pay"].Err == nil {
			t.Errorf("the other's transaction is described as %+v", d)
		}
		configs, err := admin.DescribeTopicConfigs(ctx, "far", "near")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range configs {
			if (c.Name == "far") != (c.Err == nil) {
				t.Errorf("configs of %s: %v", c.Name, c.Err)
			}
		}
		lag, err := admin.Lag(ctx, "both")
		if err != nil || lag["both"].Lag.Total() < 0 || len(lag["both"].Lag["near"]) != 0 {
			t.Errorf("lag %+v: %v", lag, err)
		}
	})
}

// Who loses READ on a topic of the other cluster gets nothing more of it: not on the
// fetch session that is open, not as a member of a group (PROTOCOL.md §G3, vectors 23
// and 24).
func TestRevokedRightsHoldOnEveryCluster(t *testing.T) {
	for name, opts := range map[string][]kgo.Opt{"a fetch session": {kgo.ConsumeTopics("far")}, "a group": {kgo.ConsumeTopics("far"), kgo.ConsumerGroup("readers")}} {
		t.Run(name, func(t *testing.T) {
			spanning(t, func(t *testing.T, g *span) {
				acl := "{apiVersion: tollgate/v1, kind: Acl, metadata: {name: %s, virtualCluster: wide}, spec: {principal: \"User:ANONYMOUS\", resource: {type: %s, name: \"*\"}, operation: %s, permission: ALLOW}}\n---\n"
				g.replace(t, "spanning.yaml", "authentication:", "acls: {enabled: true}, authentication:")
				g.write(t, "acls.yaml", fmt.Sprintf(acl, "write", "topic", "WRITE")+fmt.Sprintf(acl, "group", "group", "READ"))
				g.write(t, "read.yaml", strings.TrimSuffix(fmt.Sprintf(acl, "read", "topic", "READ"), "---\n"))
				time.Sleep(time.Second)
				producer := g.client(t, "wide.gw.test", kgo.DefaultProduceTopic("far"))
				consumer := g.client(t, "wide.gw.test", append(opts, kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepRetryableFetchErrors())...)
				produceN(t, producer, 1)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				if fs := consumer.PollFetches(ctx); fs.NumRecords() != 1 {
					t.Fatalf("read %d records: %v", fs.NumRecords(), fs.Err())
				}
				if err := os.Remove(filepath.Join(g.resources, "read.yaml")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second) // a poll that was judged before may still bring records, as on a broker
				produceN(t, producer, 3)
				for ctx.Err() == nil {
					fs := consumer.PollFetches(ctx)
					if fs.NumRecords() > 0 {
						t.Fatalf("read %d records after the right was taken", fs.NumRecords())
					}
					if errors.Is(fs.Err(), kerr.TopicAuthorizationFailed) {
						return
					}
				}
				t.Error("the consumer was never told")
			})
		})
	}
}
