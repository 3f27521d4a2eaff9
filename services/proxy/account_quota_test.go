package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

// limitAccount gives the account "dev" of acme-dev quotas, adds one "ops" without any,
// and waits until they are in force.
func (g *gateway) limitAccount(t *testing.T, quotas string) {
	t.Helper()
	g.replace(t, "all.yaml", `metadata: {name: dev, virtualCluster: acme-dev}, spec: {type: local,`, `metadata: {name: dev, virtualCluster: acme-dev}, spec: {type: local, quotas: {`+quotas+`},`)
	g.write(t, "ops.yaml", `{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: ops, virtualCluster: acme-dev}, spec: {type: local, password: "file:dev.secret"}}`)
	time.Sleep(5 * time.Second)
}

func loginAs(user string) kgo.Opt {
	return kgo.SASL(plain.Auth{User: user, Pass: "dev-secret"}.AsMechanism())
}

// The quotas of a service account hold back its clients, all of them together, and
// nobody else's.
func TestAccountsAreHeldBack(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		if err := g.upstream.CreateTopic("acme-dev.bulk", 1, nil); err != nil {
			t.Fatal(err)
		}
		opts := []kgo.Opt{kgo.DefaultProduceTopic("bulk"), kgo.ProducerBatchCompression(kgo.NoCompression())}
		h := new(throttles)
		before := g.client(t, "acme-dev.gw.test", append(opts, loginAs("dev"), kgo.WithHooks(h))...)
		if err := before.ProduceSync(t.Context(), kgo.StringRecord("logged in before there are quotas")).FirstErr(); err != nil {
			t.Fatal(err)
		}
		g.limitAccount(t, "produceBytesPerSecond: 100000")
		produce := func(cl *kgo.Client) time.Duration {
			began := time.Now()
			for range 25 {
				if err := cl.ProduceSync(t.Context(), kgo.SliceRecord(make([]byte, 20_000))).FirstErr(); err != nil {
					t.Error(err)
				}
			}
			return time.Since(began)
		}
		after := g.client(t, "acme-dev.gw.test", append(opts, loginAs("dev"))...)
		var wg sync.WaitGroup
		for _, cl := range []*kgo.Client{before, after} {
			wg.Go(func() {
				if took := produce(cl); took < 7*time.Second || took > 11*time.Second {
					t.Errorf("half of 1 MB at 100 kB a second, beside the other half, took %v", took)
				}
			})
		}
		wg.Wait()
		if h.sum() == 0 {
			t.Error("the client was told of no throttle time")
		}
		if took := produce(g.client(t, "acme-dev.gw.test", append(opts, loginAs("ops"))...)); took > time.Second {
			t.Errorf("an account without quotas took %v", took)
		}
		g.replace(t, "all.yaml", "quotas: {produceBytesPerSecond: 100000}, ", "")
		time.Sleep(5 * time.Second)
		if took := produce(before); took > time.Second {
			t.Errorf("without quotas again it took %v", took)
		}
	})
}

// A service account has its own number of connections. One too many is closed, not
// answered with an authentication error, after which clients would give up.
func TestConnectionsOfAnAccount(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		g.limitAccount(t, "connections: 2")
		var in []*raw
		for range 2 {
			r := g.raw(t, "acme-dev.gw.test")
			if code := r.login("dev", "dev-secret"); code != 0 {
				t.Fatalf("login: error %d", code)
			}
			in = append(in, r)
		}
		late := g.raw(t, "acme-dev.gw.test")
		late.ask(&kmsg.SASLHandshakeRequest{Version: 1, Mechanism: "PLAIN"})
		late.Write(kmsg.NewRequestFormatter().AppendRequest(nil, &kmsg.SASLAuthenticateRequest{SASLAuthBytes: []byte("\x00dev\x00dev-secret")}, 2))
		whenClosed(t, late)
		synctest.Wait()
		if lines := g.log.with("refusal=TG-LISTEN-021 ", "dev"); len(lines) == 0 {
			t.Error("no line with TG-LISTEN-021")
		}
		if code := g.raw(t, "acme-dev.gw.test").login("ops", "dev-secret"); code != 0 {
			t.Errorf("login of another account: error %d", code)
		}
		in[0].Close()
		synctest.Wait()
		if code := g.raw(t, "acme-dev.gw.test").login("dev", "dev-secret"); code != 0 {
			t.Errorf("login after another left: error %d", code)
		}
		in[1].ask(&kmsg.MetadataRequest{Version: 9})
	})
}

// New connections are paced: the first in excess wait, more of them are closed, of a
// virtual cluster before the TLS handshake and of an account after its login.
func TestConnectionsPerSecond(t *testing.T) {
	for _, c := range []struct {
		name, host, user, refusal string
		limit                     func(t *testing.T, g *gateway)
	}{
		{"of a virtual cluster", "open.gw.test", "", "TG-LISTEN-020", func(t *testing.T, g *gateway) {
			g.replace(t, "all.yaml", "host: open, home: main,", "host: open, home: main, quotas: {connectionsPerSecond: 10},")
			time.Sleep(5 * time.Second)
		}},
		{"of an account", "acme-dev.gw.test", "dev", "TG-LISTEN-022", func(t *testing.T, g *gateway) {
			g.limitAccount(t, "connectionsPerSecond: 10")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *gateway) {
				c.limit(t, g)
				come := func() error {
					opts := []kgo.Opt{kgo.RequestRetries(0), kgo.RetryTimeout(0)}
					if c.user != "" {
						opts = append(opts, loginAs(c.user))
					}
					cl := g.client(t, c.host, opts...)
					defer cl.Close()
					return cl.Ping(t.Context())
				}
				var mu sync.Mutex
				in := make(map[time.Duration]int) // by when
				began := time.Now()
				var wg sync.WaitGroup
				for range 60 {
					wg.Go(func() {
						if come() == nil {
							mu.Lock()
							in[time.Since(began).Truncate(time.Second)]++
							mu.Unlock()
						}
					})
				}
				wg.Wait()
				all := 0
				for when, n := range in {
					all += n
					if most := 10; when > 0 && n > most+1 {
						t.Errorf("%d came in from %v on, want %d in a second", n, when, most)
					}
				}
				// Ten at once, and twenty in the two seconds that others are kept waiting.
				if all < 29 || all > 31 {
					t.Errorf("%d of 60 came in within two seconds: %v, want 30", all, in)
				}
				if len(g.log.with("refusal="+c.refusal)) == 0 {
					t.Errorf("no line with %s", c.refusal)
				}
				time.Sleep(5 * time.Second)
				if err := come(); err != nil {
					t.Errorf("later: %v", err)
				}
			})
		})
	}
}

// A virtual cluster has no more topics and partitions than it may, however they are
// asked for: one by one, many in a request, by many sessions at once, by a client's
// Metadata request, or as partitions of a topic that is there.
func TestTopicsAndPartitionsOfAVirtualCluster(t *testing.T) {
	g := start(t)
	g.replace(t, "all.yaml", "  host: acme-dev\n", "  host: acme-dev\n  quotas: {partitions: 20}\n  topics: {maxTopics: 8}\n")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	admin := kadm.NewClient(g.client(t, "acme-dev.gw.test", loginDev))
	eventually(t, "the limits to be in force", func() bool {
		described, err := admin.DescribeClientQuotas(ctx, false, nil)
		return err == nil && len(described) == 1 && len(described[0].Values) == 2
	})
	count := func() (topics, partitions int) {
		t.Helper()
		all, err := admin.ListTopics(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, topic := range all {
			partitions += len(topic.Partitions)
		}
		return len(all), partitions
	}
	// One request for too many partitions: as many of its topics as there is room for.
	made, err := admin.CreateTopics(ctx, 6, 1, nil, "t-a", "t-b", "t-c", "t-d")
	if err != nil {
		t.Fatal(err)
	}
	var refused []string
	for _, m := range made.Sorted() {
		if errors.Is(m.Err, kerr.PolicyViolation) && strings.Contains(m.ErrMessage, "6 partitions more: the virtual cluster has 18 of at most 20") {
			refused = append(refused, m.Topic)
		} else if m.Err != nil {
			t.Errorf("%s: %v %s", m.Topic, m.Err, m.ErrMessage)
		}
	}
	if len(refused) != 1 {
		t.Errorf("refused %v, want one of four topics", refused)
	}
	// The cluster's own default of partitions counts as what it is: kfake's is 10.
	if one, err := admin.CreateTopic(ctx, -1, 1, nil, "t-default"); !errors.Is(err, kerr.PolicyViolation) || !strings.Contains(one.ErrMessage, "10 partitions more") {
		t.Errorf("a topic of ten partitions beside 18 of 20: %v %s", err, one.ErrMessage)
	}
	first := slices.Sorted(maps.Keys(made))[0]
	if slices.Contains(refused, first) {
		first = slices.Sorted(maps.Keys(made))[1]
	}
	more, err := admin.UpdatePartitions(ctx, 9, first)
	if err != nil || !errors.Is(more[first].Err, kerr.PolicyViolation) {
		t.Errorf("three more partitions of 20, beside 18: %v, %v", err, more[first].Err)
	}
	if more, err = admin.UpdatePartitions(ctx, 7, first); err != nil || more[first].Err != nil {
		t.Errorf("one more partition of 20, beside 18: %v, %v", err, more[first].Err)
	}
	if _, err := admin.DeleteTopics(ctx, slices.Sorted(maps.Keys(made))...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the topics to be gone", func() bool { n, _ := count(); return n == 0 })
	// Many at once, each on a connection of its own.
	var wg sync.WaitGroup
	var mu sync.Mutex
	in := 0
	for i := range 12 {
		cl := kadm.NewClient(g.client(t, "acme-dev.gw.test", loginDev))
		wg.Go(func() {
			if _, err := cl.CreateTopic(ctx, 2, 1, nil, fmt.Sprintf("t-%d", i)); err == nil {
				mu.Lock()
				in++
				mu.Unlock()
			} else if !errors.Is(err, kerr.PolicyViolation) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if in != 8 {
		t.Errorf("%d of 12 were made, want 8", in)
	}
	eventually(t, "eight topics to be seen", func() bool {
		topics, partitions := count()
		return topics == 8 && partitions == 16
	})
	auto := g.client(t, "acme-dev.gw.test", loginDev, kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(1), kgo.RecordDeliveryTimeout(5*time.Second))
	if err := auto.ProduceSync(ctx, &kgo.Record{Topic: "t-auto", Value: []byte("x")}).FirstErr(); err == nil {
		t.Error("a ninth topic was made by asking for it")
	}
}

// Users of Kafka's own tools see the quotas of the virtual cluster as those of the
// default user, and those of each account as its own.
func TestQuotasOfAccountsAreShown(t *testing.T) {
	g := start(t)
	g.replace(t, "all.yaml", "  host: acme-dev\n", "  host: acme-dev\n  quotas: {fetchBytesPerSecond: 5, connections: 6, connectionsPerSecond: 7, partitions: 8}\n")
	g.replace(t, "all.yaml", `metadata: {name: dev, virtualCluster: acme-dev}, spec: {type: local,`, `metadata: {name: dev, virtualCluster: acme-dev}, spec: {type: local, quotas: {produceBytesPerSecond: 1, fetchBytesPerSecond: 2, requestsPerSecond: 1000, connections: 30, connectionsPerSecond: 40},`)
	g.write(t, "ops.yaml", `{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: ops, virtualCluster: acme-dev}, spec: {type: local, password: "file:dev.secret"}}`)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	admin := kadm.NewClient(g.client(t, "acme-dev.gw.test", loginDev))
	describe := func(strict bool, filter ...kadm.DescribeClientQuotaComponent) map[string]string {
		t.Helper()
		described, err := admin.DescribeClientQuotas(ctx, strict, filter)
		if err != nil {
			t.Fatal(err)
		}
		shown := make(map[string]string)
		for _, d := range described {
			name := "default"
			if n := d.Entity[0].Name; n != nil {
				name = *n
			}
			var values []string
			for _, v := range d.Values {
				values = append(values, fmt.Sprintf("%s=%v", v.Key, v.Value))
			}
			shown[name] = strings.Join(values, " ")
		}
		return shown
	}
	all := map[string]string{
		"default": "consumer_byte_rate=5 connections=6 connection_creation_rate=7 partitions=8",
		"dev":     "producer_byte_rate=1 consumer_byte_rate=2 requests_per_second=1000 connections=30 connection_creation_rate=40",
	}
	eventually(t, "the quotas to be shown", func() bool { return maps.Equal(describe(false), all) })
	dev, nobody := "dev", "nobody"
	is := func(entity string, match kmsg.QuotasMatchType, name *string) kadm.DescribeClientQuotaComponent {
		return kadm.DescribeClientQuotaComponent{Type: entity, MatchType: match, MatchName: name}
	}
	client := is("client-id", kmsg.QuotasMatchTypeAny, nil)
	for _, c := range []struct {
		name   string
		strict bool
		filter []kadm.DescribeClientQuotaComponent
		want   []string
	}{
		{"one user", false, []kadm.DescribeClientQuotaComponent{is("user", kmsg.QuotasMatchTypeExact, &dev)}, []string{"dev"}},
		{"one user and nothing else", true, []kadm.DescribeClientQuotaComponent{is("user", kmsg.QuotasMatchTypeExact, &dev)}, []string{"dev"}},
		{"a user that is not there", false, []kadm.DescribeClientQuotaComponent{is("user", kmsg.QuotasMatchTypeExact, &nobody)}, nil},
		{"the default user", true, []kadm.DescribeClientQuotaComponent{is("user", kmsg.QuotasMatchTypeDefault, nil)}, []string{"default"}},
		{"any user", true, []kadm.DescribeClientQuotaComponent{is("user", kmsg.QuotasMatchTypeAny, nil)}, []string{"default", "dev"}},
		{"any user with any client id", false, []kadm.DescribeClientQuotaComponent{is("user", kmsg.QuotasMatchTypeAny, nil), client}, nil},
		{"client ids", false, []kadm.DescribeClientQuotaComponent{client}, nil},
		{"nothing, strictly", true, nil, nil},
	} {
		if got := slices.Sorted(maps.Keys(describe(c.strict, c.filter...))); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
