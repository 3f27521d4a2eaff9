package spanning

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/load"
)

// splitHomes do not let the gateway create anything.
var splitHomes, splitOthers = map[string]*kafkatest.Shared{}, map[string]*kafkatest.Shared{}

func init() {
	for _, version := range kafkatest.Versions() {
		splitHomes[version] = kafkatest.Share(kafkatest.Options{Version: version, SASL: true, Authorizer: true})
		splitOthers[version] = kafkatest.Share(kafkatest.Options{Version: otherVersion(version)})
	}
}

func otherVersion(version string) string {
	if version == kafkatest.V3 {
		return kafkatest.V4
	}
	return kafkatest.V3
}

// Two virtual clusters without stubs: home refuses those of refused, and anchored is
// not to have any, but somebody has made an anchor.
const splitResources = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: [%q], tls: {caFile: main.pem}, sasl: {mechanism: SCRAM-SHA-512, username: gateway, password: "file:main.secret"}}}
---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: west}, spec: {bootstrap: [%q]}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: refused, tenant: acme}, spec: {type: standard, host: refused, home: main, clusters: [main, west], authentication: {plain: {}}}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: anchored, tenant: acme}, spec: {type: standard, host: anchored, home: main, clusters: [main, west], stubs: {disabled: true}, authentication: {plain: {}}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: dev, virtualCluster: refused}, spec: {type: local, password: "file:dev.secret"}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: dev, virtualCluster: anchored}, spec: {type: local, password: "file:dev.secret"}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: far, tenant: acme}, spec: {cluster: west, topic: {name: shop., pattern: prefixed}, access: read-write}}
`

// splitting is two clusters behind a gateway that may make no stubs on the first.
type splitting struct {
	main, west *kafkatest.Cluster
	gateway    *gateway.Process
}

var splitVirtual = []string{"refused", "anchored"}

// split starts one with topics near-NAME on main and far-NAME on west.
func split(t *testing.T, main, west *kafkatest.Cluster, partitions int32, names ...string) *splitting {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	home, other := kadm.NewClient(main.Client(t)), kadm.NewClient(west.Client(t))
	topics := kadm.NewACLs().Topics("refused.", "anchored.").ResourcePatternType(kadm.ACLPatternPrefixed).
		Operations(kadm.OpRead, kadm.OpWrite, kadm.OpDescribe).Allow("User:gateway").AllowHosts()
	groups := kadm.NewACLs().Groups("refused.", "anchored.").ResourcePatternType(kadm.ACLPatternPrefixed).
		Operations(kadm.OpRead, kadm.OpDescribe, kadm.OpDelete).Allow("User:gateway").AllowHosts()
	for _, acl := range []*kadm.ACLBuilder{topics, groups} {
		results, err := home.CreateACLs(ctx, acl)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	create := func(admin *kadm.Client, partitions int32, name string) {
		t.Helper()
		if _, err := admin.CreateTopic(ctx, partitions, 1, nil, name); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			t.Fatal(err)
		}
	}
	create(home, 1, "anchored.__tg.anchor")
	all := fmt.Sprintf(splitResources, main.BootstrapOn(kafkatest.SASL), west.Bootstrap())
	for _, name := range names {
		for _, vc := range splitVirtual {
			create(home, partitions, vc+".near-"+name)
			create(other, partitions, "shop."+vc+"."+name)
			all += fmt.Sprintf("---\n{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: far-%s, virtualCluster: %s}, spec: {cluster: west, topic: shop.%s.%s}}\n", name, vc, vc, name)
		}
	}
	ca, err := os.ReadFile(main.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	p := gateway.Start(t, map[string]string{"main": main.Bootstrap(), "west": west.Bootstrap()}, map[string]string{
		"all.yaml": all, "main.pem": string(ca), "main.secret": main.Password("gateway") + "\n", "dev.secret": "dev-secret\n",
	})
	s := &splitting{main, west, p}
	for _, vc := range splitVirtual {
		admin := kadm.NewClient(drivers.Client(t, s.target(t, vc)))
		err := load.Wait(ctx, func() error { // the stubs have been refused
			seen, err := admin.ListTopics(ctx)
			if err == nil && len(seen) < 2*len(names) {
				err = fmt.Errorf("topics %v", seen.Names())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	stubs, err := home.ListTopics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range stubs.Names() {
		if strings.Contains(name, "__tg.stub.") {
			t.Errorf("home has %s", name)
		}
	}
	return s
}

func (s *splitting) target(t *testing.T, vc string) drivers.Target {
	t.Helper()
	return s.gateway.Target(t, vc, "PLAIN", "dev", "dev-secret")
}

// committed are what a cluster has of a group: the sum of the offsets of each topic.
func committed(t *testing.T, kafka *kafkatest.Cluster, group string) map[string]int64 {
	t.Helper()
	cl, err := kafka.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	all, err := kadm.NewClient(cl).FetchOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	sums := make(map[string]int64)
	all.Each(func(o kadm.OffsetResponse) {
		if !strings.HasSuffix(o.Topic, ".__tg.anchor") {
			sums[o.Topic] += o.At
		}
	})
	return sums
}

// Every client's group over topics of both clusters goes on where it was when it is
// started again, and each cluster has the offsets of its own topics.
func TestGroupsOverTwoClustersWithoutStubs(t *testing.T) {
	t.Parallel()
	for _, version := range kafkatest.Versions() {
		t.Run("home is Kafka "+version, func(t *testing.T) {
			var names []string
			for _, d := range drivers.Drivers() {
				names = append(names, drivers.Slug(d))
			}
			s := split(t, splitHomes[version].Get(t), splitOthers[version].Get(t), 2, names...)
			for _, vc := range splitVirtual {
				for _, d := range drivers.Drivers() {
					t.Run(vc+"/"+d.Name(), func(t *testing.T) {
						t.Parallel()
						s.resumes(t, d, vc)
					})
				}
			}
		})
	}
}

func (s *splitting) resumes(t *testing.T, d drivers.Driver, vc string) {
	near, far, group := "near-"+drivers.Slug(d), "far-"+drivers.Slug(d), "group-"+drivers.Slug(d)
	target := s.target(t, vc)
	const n = 8
	for _, round := range []string{"a-", "b-", "c-"} {
		outcomes, err := drivers.Do(t.Context(), d, target,
			drivers.Step{Do: drivers.Produce, Topic: near, Count: n, Prefix: round + "near-", Idempotent: true},
			drivers.Step{Do: drivers.Produce, Topic: far, Count: n, Prefix: round + "far-", Idempotent: true},
			drivers.Step{Do: drivers.Consume, Topic: near, Also: []string{far}, Group: group, Count: 2 * n, Seconds: 60},
		)
		if err != nil {
			if len(outcomes) == 3 {
				t.Errorf("round %s: read %q", round, outcomes[2].Values())
			}
			t.Fatalf("round %s: %v; home has %v, the other cluster %v", round, err, committed(t, s.main, vc+"."+group), committed(t, s.west, vc+"."+group))
		}
		var want []string
		for i := range n {
			want = append(want, fmt.Sprintf("%sfar-v%d", round, i), fmt.Sprintf("%snear-v%d", round, i))
		}
		slices.Sort(want)
		if got := slices.Sorted(slices.Values(outcomes[2].Values())); !slices.Equal(got, want) {
			t.Errorf("round %s: read %q, want %q", round, got, want)
		}
	}
	physical := vc + "." + group
	if got, want := committed(t, s.main, physical), map[string]int64{vc + "." + near: 3 * n}; !maps.Equal(got, want) {
		t.Errorf("home has %v, want %v", got, want)
	}
	if got, want := committed(t, s.west, physical), map[string]int64{"shop." + vc + "." + drivers.Slug(d): 3 * n}; !maps.Equal(got, want) {
		t.Errorf("the other cluster has %v, want %v", got, want)
	}

	// What the tenant's own tools see and do.
	admin := kadm.NewClient(drivers.Client(t, target))
	all, err := admin.FetchOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	sums := make(map[string]int64)
	all.Each(func(o kadm.OffsetResponse) { sums[o.Topic] += o.At })
	if want := map[string]int64{near: 3 * n, far: 3 * n}; !maps.Equal(sums, want) {
		t.Errorf("the group has offsets %v, want %v", sums, want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	err = load.Wait(ctx, func() error { // clients that do not leave are members for a while
		deleted, err := admin.DeleteGroups(ctx, group)
		if err == nil {
			err = deleted.Error()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, kafka := range map[string]*kafkatest.Cluster{"home": s.main, "the other cluster": s.west} {
		if got := committed(t, kafka, physical); len(got) != 0 {
			t.Errorf("%s has %v of a group that was deleted", name, got)
		}
	}
}

// splitReader is a group's member that commits what it has read before it gives a
// partition away.
type splitReader struct {
	cl   *kgo.Client
	stop context.CancelFunc
	done chan struct{}
}

// readings are what the members of a group have read, by topic, partition and offset.
type readings struct {
	mu    sync.Mutex
	times map[string]int
	errs  []error
}

func (r *readings) again() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, times := range r.times {
		n += times - 1
	}
	return n
}

func (s *splitting) reader(t *testing.T, vc, group string, into *readings, topics ...string) *splitReader {
	t.Helper()
	cl := drivers.Client(t, s.target(t, vc), append(
		load.ConsumerOpts(), kgo.ConsumeTopics(topics...), kgo.ConsumerGroup(group),
		kgo.BlockRebalanceOnPoll(), kgo.DisableAutoCommit(), kgo.SessionTimeout(10*time.Second), kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.OnPartitionsRevoked(func(ctx context.Context, cl *kgo.Client, _ map[string][]int32) {
			if err := cl.CommitUncommittedOffsets(ctx); err != nil {
				into.mu.Lock()
				defer into.mu.Unlock()
				into.errs = append(into.errs, fmt.Errorf("commit before partitions are given away: %w", err))
			}
		}))...)
	ctx, cancel := context.WithCancel(context.Background())
	r := &splitReader{cl, cancel, make(chan struct{})}
	go func() {
		defer close(r.done)
		for ctx.Err() == nil {
			fs := cl.PollRecords(ctx, 50)
			into.mu.Lock()
			for _, e := range fs.Errors() {
				if lost := new(kgo.ErrGroupSession); !errors.As(e.Err, &lost) && !errors.Is(e.Err, context.Canceled) {
					into.errs = append(into.errs, e.Err)
				}
			}
			fs.EachRecord(func(r *kgo.Record) { into.times[fmt.Sprint(r.Topic, "/", r.Partition, "/", r.Offset)]++ })
			into.mu.Unlock()
			// One that fails is made up for by the next.
			_ = cl.CommitUncommittedOffsets(context.Background())
			cl.AllowRebalance()
		}
	}()
	return r
}

// leave ends a member.
func (r *splitReader) leave() {
	r.stop()
	<-r.done
	r.cl.CloseAllowingRebalance()
}

// Members come and go while records are written: each is read, and none twice, since
// every member commits what it has read before others take over.
func TestMembersComeAndGoWithoutStubs(t *testing.T) {
	t.Parallel()
	for _, version := range kafkatest.Versions() {
		t.Run("home is Kafka "+version, func(t *testing.T) {
			s := split(t, splitHomes[version].Get(t), splitOthers[version].Get(t), 4, "moves")
			for _, vc := range splitVirtual {
				t.Run(vc, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), 2*load.Patience)
					defer cancel()
					near := load.Produce(drivers.Client(t, s.target(t, vc), load.ProducerOpts()...), "near-moves", 4)
					far := load.Produce(drivers.Client(t, s.target(t, vc), load.ProducerOpts()...), "far-moves", 4)
					read := &readings{times: make(map[string]int)}
					join := func() *splitReader { return s.reader(t, vc, "moves", read, "near-moves", "far-moves") }
					members := []*splitReader{join()}
					more := func() {
						t.Helper()
						if err := errors.Join(near.WaitMore(ctx, 50), far.WaitMore(ctx, 50)); err != nil {
							t.Fatal(err)
						}
					}
					for range 3 {
						members = append(members, join(), join())
						more()
						members[0].leave()
						more()
						members[1].leave()
						members = members[2:]
						more()
					}
					nearCounts, err := near.Stop(ctx)
					if err != nil {
						t.Fatal(err)
					}
					farCounts, err := far.Stop(ctx)
					if err != nil {
						t.Fatal(err)
					}
					all := make(map[string]int64)
					for i := range 4 {
						all["near-moves"] += nearCounts[i]
						all["far-moves"] += farCounts[i]
					}
					err = load.Wait(ctx, func() error {
						read.mu.Lock()
						defer read.mu.Unlock()
						if n := int64(len(read.times)); n < all["near-moves"]+all["far-moves"] {
							return fmt.Errorf("%d of %v records read", n, all)
						}
						return nil
					})
					for _, m := range members {
						m.leave()
					}
					if err != nil {
						t.Fatal(err)
					}
					for _, err := range read.errs {
						t.Error(err)
					}
					if n := read.again(); n > 0 {
						t.Errorf("%d of %v records were read again", n, all)
					}
					if got := committed(t, s.main, vc+".moves"); got[vc+".near-moves"] != all["near-moves"] {
						t.Errorf("home has %v, want %d", got, all["near-moves"])
					}
					if got := committed(t, s.west, vc+".moves"); got["shop."+vc+".moves"] != all["far-moves"] {
						t.Errorf("the other cluster has %v, want %d", got, all["far-moves"])
					}
				})
			}
		})
	}
}

// The other cluster dies under a group and comes back: its topic is read on from
// where it was, also by a client that is started while the cluster is away, and home's
// topic all the while.
func TestTheClusterThatKeepsOffsetsDies(t *testing.T) {
	t.Parallel()
	for _, version := range kafkatest.Versions() {
		t.Run("home is Kafka "+version, func(t *testing.T) {
			west := kafkatest.Start(t, kafkatest.Options{Version: otherVersion(version)})
			java := drivers.Java(kafkatest.V4)
			s := split(t, splitHomes[version].Get(t), west, 2, "outage", "restart-franz", "restart-java", "restart-rdkafka")
			vc := "refused"
			ctx, cancel := context.WithTimeout(t.Context(), 4*load.Patience)
			defer cancel()
			target := s.target(t, vc)
			restarted := map[string]drivers.Driver{"restart-franz": drivers.FranzGo(), "restart-java": java, "restart-rdkafka": drivers.ConfluentKafka()}
			for name, d := range restarted {
				_, err := drivers.Do(ctx, d, target,
					drivers.Step{Do: drivers.Produce, Topic: "near-" + name, Count: 5, Prefix: "a-", Idempotent: true},
					drivers.Step{Do: drivers.Produce, Topic: "far-" + name, Count: 5, Prefix: "a-", Idempotent: true},
					drivers.Step{Do: drivers.Consume, Topic: "near-" + name, Also: []string{"far-" + name}, Group: name, Count: 10, Seconds: 60},
					drivers.Step{Do: drivers.Produce, Topic: "near-" + name, Count: 5, Prefix: "b-near-", Idempotent: true},
					drivers.Step{Do: drivers.Produce, Topic: "far-" + name, Count: 5, Prefix: "b-far-", Idempotent: true},
				)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			near := load.Produce(drivers.Client(t, target, load.ProducerOpts()...), "near-outage", 2)
			far := load.Produce(drivers.Client(t, target, load.ProducerOpts()...), "far-outage", 2)
			nearReader := load.Consume(drivers.Client(t, target, append(load.ConsumerOpts(), kgo.ConsumeTopics("near-outage"), kgo.ConsumerGroup("outage-near"))...))
			read := &readings{times: make(map[string]int)}
			member := s.reader(t, vc, "outage", read, "near-outage", "far-outage")
			if err := errors.Join(near.WaitMore(ctx, 50), far.WaitMore(ctx, 50)); err != nil {
				t.Fatal(err)
			}
			broker := west.Brokers()[0]
			if err := broker.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := near.WaitMore(ctx, 200); err != nil {
				t.Fatal(err)
			}
			if err := nearReader.WaitFor(ctx, near.Counts()); err != nil {
				t.Errorf("home's topic while the other cluster is down: %v", err)
			}
			type result struct {
				name     string
				outcomes []drivers.Outcome
				err      error
			}
			results := make(chan result)
			for name, d := range restarted {
				go func() {
					outcomes, err := drivers.Do(ctx, d, target, drivers.Step{Do: drivers.Consume, Topic: "near-" + name, Also: []string{"far-" + name}, Group: name, Count: 10, Seconds: 150})
					results <- result{name, outcomes, err}
				}()
			}
			// All of them ask for offsets, and ask again.
			const unreadable = `tollgate_proxy_requests_refused_total{refusal="TG-SPAN-010"}`
			for began := s.gateway.Metric(t, unreadable); s.gateway.Metric(t, unreadable) < began+float64(3*len(restarted)); {
				select {
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
					t.Fatal("the clients that were started meanwhile do not ask for their offsets again")
				}
			}
			if err := broker.Restart(ctx); err != nil {
				t.Fatal(err)
			}
			var want []string
			for i := range 5 {
				want = append(want, fmt.Sprintf("b-far-v%d", i), fmt.Sprintf("b-near-v%d", i))
			}
			slices.Sort(want)
			for range restarted {
				r := <-results
				if r.err != nil {
					t.Errorf("%s: %v", r.name, r.err)
				} else if got := slices.Sorted(slices.Values(r.outcomes[0].Values())); !slices.Equal(got, want) {
					t.Errorf("%s: read %q, want %q", r.name, got, want)
				}
			}
			if err := far.WaitMore(ctx, 50); err != nil {
				t.Fatal(err)
			}
			nearCounts, err := near.Stop(ctx)
			if err != nil {
				t.Fatal(err)
			}
			farCounts, err := far.Stop(ctx)
			if err != nil {
				t.Fatal(err)
			}
			err = load.Wait(ctx, func() error {
				read.mu.Lock()
				defer read.mu.Unlock()
				for topic, counts := range map[string][]int64{"near-outage": nearCounts, "far-outage": farCounts} {
					for partition, n := range counts {
						for offset := range n {
							if read.times[fmt.Sprint(topic, "/", partition, "/", offset)] == 0 {
								return fmt.Errorf("offset %d of partition %d of %s was not read; ends %v", offset, partition, topic, n)
							}
						}
					}
				}
				return nil
			})
			member.leave()
			if err != nil {
				t.Error(err)
			}
			if n := read.again(); n > 0 {
				t.Errorf("%d records were read again by a member that never ended", n)
			}
			if err := nearReader.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// The cluster that keeps offsets does not know the members of a group. What it would
// let expire of a group without members stays, also when its broker was started again.
func TestSplitOffsetsDoNotExpire(t *testing.T) {
	t.Parallel()
	for _, version := range kafkatest.Versions() {
		t.Run("on Kafka "+version, func(t *testing.T) {
			west := kafkatest.Start(t, kafkatest.Options{Version: version, Properties: map[string]string{
				"offsets.retention.minutes": "1", "offsets.retention.check.interval.ms": "500",
			}})
			s := split(t, splitHomes[otherVersion(version)].Get(t), west, 1, "expiry")
			ctx, cancel := context.WithTimeout(t.Context(), 3*load.Patience)
			defer cancel()
			commit := func(cl *kgo.Client, group, topic string) {
				t.Helper()
				at := kadm.Offsets{topic: {0: {Topic: topic, At: 1, LeaderEpoch: -1}}}
				if err := kadm.NewClient(cl).CommitAllOffsets(ctx, group, at); err != nil {
					t.Fatal(err)
				}
			}
			tenant := drivers.Client(t, s.target(t, "refused"))
			commit(tenant, "expiry", "far-expiry")
			commit(west.Client(t), "control", "shop.refused.expiry")
			if err := west.Brokers()[0].Kill(); err != nil {
				t.Fatal(err)
			}
			if err := west.Brokers()[0].Restart(ctx); err != nil {
				t.Fatal(err)
			}
			err := load.Wait(ctx, func() error {
				if left := committed(t, west, "control"); len(left) > 0 {
					return fmt.Errorf("the cluster still has %v", left)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := committed(t, west, "refused.expiry"), map[string]int64{"shop.refused.expiry": 1}; !maps.Equal(got, want) {
				t.Errorf("the cluster has %v, want %v", got, want)
			}
			all, err := kadm.NewClient(tenant).FetchOffsets(ctx, "expiry")
			if err != nil {
				t.Fatal(err)
			}
			if at, ok := all.Lookup("far-expiry", 0); !ok || at.At != 1 || at.Err != nil {
				t.Errorf("the tenant is told %+v", at)
			}
		})
	}
}
