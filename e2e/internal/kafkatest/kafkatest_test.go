package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

func TestAClusterAcceptsRecordsAtEveryListener(t *testing.T) {
	for _, version := range Versions() {
		t.Run(version, func(t *testing.T) {
			c := Start(t, Options{Version: version, SASL: true, MTLS: true})
			createTopic(t, c, "events", 1)
			login := func(m sasl.Mechanism) []kgo.Opt {
				return []kgo.Opt{kgo.SeedBrokers(c.Broker(1).Addr(SASL)), kgo.DialTLSConfig(c.TLS()), kgo.SASL(m)}
			}
			for name, opts := range map[string][]kgo.Opt{
				"plaintext": {kgo.SeedBrokers(c.Broker(1).Addr(PLAINTEXT))},
				"mTLS":      {kgo.SeedBrokers(c.Broker(1).Addr(MTLS)), kgo.DialTLSConfig(c.MTLS())},
				"PLAIN":     login(plain.Auth{User: "alice", Pass: c.Password("alice")}.AsMechanism()),
				"SCRAM-256": login(scram.Auth{User: "bob", Pass: c.Password("bob")}.AsSha256Mechanism()),
				"SCRAM-512": login(scram.Auth{User: "bob", Pass: c.Password("bob")}.AsSha512Mechanism()),
			} {
				if err := produce(t.Context(), "events", opts...); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			wrong := login(plain.Auth{User: "alice", Pass: "wrong"}.AsMechanism())
			if err := ping(t, wrong...); !errors.Is(err, kerr.SaslAuthenticationFailed) {
				t.Errorf("a wrong password got %v, want %v", err, kerr.SaslAuthenticationFailed)
			}
			if err := ping(t, kgo.SeedBrokers(c.Broker(1).Addr(MTLS)), kgo.DialTLSConfig(c.TLS())); err == nil {
				t.Error("a client without a certificate was accepted")
			}
		})
	}
}

func TestTheAuthorizerKnowsOnlySuperUsers(t *testing.T) {
	c := Start(t, Options{SASL: true, Authorizer: true})
	createTopic(t, c, "events", 1)
	as := func(user string) error {
		return produce(t.Context(), "events", kgo.SeedBrokers(c.BootstrapOn(SASL)), kgo.DialTLSConfig(c.TLS()),
			kgo.SASL(plain.Auth{User: user, Pass: c.Password(user)}.AsMechanism()))
	}
	if err := as("admin"); err != nil {
		t.Errorf("admin: %v", err)
	}
	if err := as("alice"); err == nil {
		t.Error("alice produced without an ACL")
	}
}

func TestABrokerComesBackOnItsPortsAndData(t *testing.T) {
	for _, version := range Versions() {
		t.Run(version, func(t *testing.T) {
			c := Start(t, Options{Version: version, NodeIDs: []int32{7, 101, 305}})
			createTopic(t, c, "events", 3)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			b := c.Broker(101)
			addr := b.Addr(PLAINTEXT)
			stop := func() error { return b.Stop(ctx) }
			for name, end := range map[string]func() error{"killed": b.Kill, "stopped": stop} {
				if err := end(); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if b.Running() {
					t.Errorf("%s: the broker still runs", name)
				}
				if err := b.Restart(ctx); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if got := b.Addr(PLAINTEXT); got != addr || !b.Running() {
					t.Errorf("%s: came back at %s, running %t, want %s", name, got, b.Running(), addr)
				}
				if err := produce(ctx, "events", kgo.SeedBrokers(addr)); err != nil {
					t.Errorf("%s: produce after the restart: %v", name, err)
				}
			}
			if err := c.WaitInSync(ctx); err != nil {
				t.Errorf("WaitInSync: %v", err)
			}
		})
	}
}

func TestASharedClusterIsStartedOnce(t *testing.T) {
	s := Share(Options{})
	t.Cleanup(func() {
		if err := CloseShared(); err != nil {
			t.Error(err)
		}
	})
	first, second := s.Get(t), s.Get(t)
	if first != second {
		t.Errorf("Get returned two clusters: %s and %s", first.ID, second.ID)
	}
}

// named is a test under another's name.
type named struct {
	testing.TB
	name string
}

func (n named) Name() string { return n.name }

func TestATestThatRunsOnceMoreGetsAnotherCluster(t *testing.T) {
	s := Share(Options{})
	t.Cleanup(func() {
		if err := CloseShared(); err != nil {
			t.Error(err)
		}
	})
	var got []*Cluster
	for _, name := range []string{"one", "two", "one"} {
		t.Run(name, func(t *testing.T) { got = append(got, s.Get(named{t, name})) })
	}
	if got[0] != got[1] || got[1] == got[2] {
		t.Errorf("the clusters are %s, %s and, when a test runs again, %s", got[0].ID, got[1].ID, got[2].ID)
	}
	if got[0].Broker(1).Running() || !got[2].Broker(1).Running() {
		t.Error("the old broker runs, or the new one does not")
	}
}

func TestAPausedBrokerAnswersAgainWhenResumed(t *testing.T) {
	c := Start(t, Options{})
	createTopic(t, c, "events", 1)
	b := c.Broker(1)
	if err := b.Pause(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := produce(short, "events", kgo.SeedBrokers(b.Addr(PLAINTEXT))); err == nil {
		t.Error("a paused broker answered")
	}
	if err := b.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := produce(t.Context(), "events", kgo.SeedBrokers(b.Addr(PLAINTEXT))); err != nil {
		t.Errorf("produce after Resume: %v", err)
	}
}

func TestABadConfigurationFailsWithTheBrokersLog(t *testing.T) {
	_, err := StartCluster(t.Context(), t.TempDir(), Options{Properties: map[string]string{"log.retention.bytes": "many"}})
	if err == nil || !strings.Contains(err.Error(), "Invalid value many for configuration log.retention.bytes") {
		t.Errorf("start with log.retention.bytes=many: %v, want what the broker says about it", err)
	}
}

func createTopic(t *testing.T, c *Cluster, topic string, partitions int32) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Seeds(PLAINTEXT)...), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), partitions, -1, nil, topic); err != nil {
		t.Fatalf("create topic %s: %v", topic, err)
	}
}

// ping makes one attempt to open a connection.
func ping(t *testing.T, opts ...kgo.Opt) error {
	t.Helper()
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return cl.Ping(ctx)
}

func produce(ctx context.Context, topic string, opts ...kgo.Opt) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(append(opts, kgo.MetadataMinAge(100*time.Millisecond))...)
	if err != nil {
		return fmt.Errorf("new client: %w", err)
	}
	defer cl.Close()
	return cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr()
}

// Records, ids and the cluster id are there again, and none of the ports.
func TestAClusterMovesToOtherPortsWithItsData(t *testing.T) {
	for _, version := range Versions() {
		t.Run(version, func(t *testing.T) {
			c := Start(t, Options{Version: version, NodeIDs: []int32{2, 7, 1004}})
			createTopic(t, c, "events", 3)
			if err := produce(t.Context(), "events", kgo.SeedBrokers(c.Seeds(PLAINTEXT)...)); err != nil {
				t.Fatal(err)
			}
			old := c.Seeds(PLAINTEXT)
			if err := c.Move(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i, addr := range c.Seeds(PLAINTEXT) {
				if slices.Contains(old, addr) {
					t.Errorf("broker %d listens on %s, which one had before", c.Options.NodeIDs[i], addr)
				}
			}
			admin := kadm.NewClient(c.Client(t))
			meta, err := admin.Metadata(t.Context(), "events")
			if err != nil {
				t.Fatal(err)
			}
			if ids := meta.Brokers.NodeIDs(); meta.Cluster != c.ID || !slices.Equal(ids, []int32{2, 7, 1004}) {
				t.Errorf("cluster %s has the brokers %v, want %s with 2, 7 and 1004", meta.Cluster, ids, c.ID)
			}
			ends, err := admin.ListEndOffsets(t.Context(), "events")
			if err != nil {
				t.Fatal(err)
			}
			var n int64
			ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
			if n != 1 {
				t.Errorf("%d records after the move, want 1", n)
			}
		})
	}
}

// Metadata of before a move names every id, and no address that is good.
func TestABrokerIsListedWhereItIs(t *testing.T) {
	b := &Broker{ID: 7, ports: map[Listener]int{PLAINTEXT: 9092}, cluster: new(Cluster)}
	at := func(id, port int32) kmsg.MetadataResponseBroker {
		return kmsg.MetadataResponseBroker{NodeID: id, Host: "127.0.0.1", Port: port}
	}
	for _, tt := range []struct {
		name   string
		listed []kmsg.MetadataResponseBroker
		want   string
	}{
		{"where it is", []kmsg.MetadataResponseBroker{at(1, 9093), at(7, 9092)}, ""},
		{"where it was", []kmsg.MetadataResponseBroker{at(1, 9092), at(7, 9093)}, "still listed at 127.0.0.1:9093"},
		{"nowhere", []kmsg.MetadataResponseBroker{at(1, 9092)}, "not listed yet"},
	} {
		err := b.listedIn(&kmsg.MetadataResponse{Brokers: tt.listed})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestAPairIsOfBothVersionsAndSharesAnID(t *testing.T) {
	for _, version := range Versions() {
		main, west := PairOptions(version)
		if main.Version == west.Version || main.Version != version {
			t.Errorf("versions %s and %s", main.Version, west.Version)
		}
		if !slices.Contains(main.NodeIDs, west.NodeIDs[0]) {
			t.Errorf("node ids %v and %v do not overlap", main.NodeIDs, west.NodeIDs)
		}
	}
}
