// Package faults tests that clients live through what happens to brokers, to whole
// clusters and to the gateway: no acknowledged record is lost, repeated or reordered.
package faults

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/load"
)

// three is a cluster that survives the loss of a broker: three replicas, two of
// them in sync to acknowledge anything.
var three = kafkatest.Share(kafkatest.Options{Nodes: 3})

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }

const faultResources = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: busy, tenant: acme}
spec: {type: standard, host: busy, home: main, authentication: {scram: {}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: dev, virtualCluster: busy}, spec: {type: local, password: "file:dev.secret"}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: steady, tenant: acme}
spec: {type: standard, host: steady, home: main, authentication: {plain: {}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: dev, virtualCluster: steady}, spec: {type: local, password: "file:dev.secret"}}
`

// loaded is a cluster behind a gateway with clients at work: each of them goes
// through all faults in one life.
type loaded struct {
	*load.Crew
	kafka   *kafkatest.Cluster
	gateway *gateway.Process
	admin   *kadm.Client // of the brokers
	topics  []string     // physical
	steady  drivers.Target
}

func startLoad(t *testing.T, kafka *kafkatest.Cluster, partitions int) *loaded {
	t.Helper()
	return startLoadOver(t, kafka, partitions, map[string]string{"all.yaml": faultResources, "dev.secret": "dev-secret\n"})
}

// startLoadOver is startLoad with other resources.
func startLoadOver(t *testing.T, kafka *kafkatest.Cluster, partitions int, files map[string]string) *loaded {
	t.Helper()
	l := &loaded{
		kafka:   kafka,
		gateway: gateway.Start(t, map[string]string{"main": kafka.Bootstrap()}, files),
		admin:   kadm.NewClient(kafka.Client(t)),
		topics:  []string{"busy.numbers", "busy.java", "busy.moved"},
	}
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	if _, err := l.admin.CreateTopics(ctx, int32(partitions), -1, nil, l.topics...); err != nil {
		t.Fatal(err)
	}
	busy := l.gateway.Target(t, "busy", "SCRAM-SHA-512", "dev", "dev-secret")
	l.steady = l.gateway.Target(t, "steady", "PLAIN", "dev", "dev-secret")
	brokers := []kgo.Opt{kgo.SeedBrokers(kafka.Seeds(kafkatest.PLAINTEXT)...)}
	var err error
	if l.Crew, err = load.NewCrew(busy, "numbers", "readers", partitions, brokers, l.topics[0]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	opts, err := busy.KgoOpts()
	if err != nil {
		t.Fatal(err)
	}
	session, err := kgo.NewGroupTransactSession(append(
		append(append(opts, load.ProducerOpts()...), load.ConsumerOpts()...),
		kgo.ConsumerGroup("movers"), kgo.ConsumeTopics("numbers"),
		kgo.TransactionalID("mover"), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	l.Mover, l.Moved = load.Transform(session, "moved", partitions), l.topics[2]
	java := load.Other{Name: "Java", Topic: l.topics[1]}
	// It goes on to another partition whenever it has written so many bytes.
	if java.Writer, err = load.VerifiableProducer(ctx, kafkatest.V4, busy, "java", "batch.size=1024"); err != nil {
		t.Fatal(err)
	}
	if java.Reader, err = load.VerifiableConsumer(ctx, kafkatest.V4, busy, "java", "java-readers"); err != nil {
		t.Fatal(err)
	}
	l.Others = []load.Other{java}
	if err := java.Writer.WaitEverywhere(ctx, partitions); err != nil {
		t.Fatal(err)
	}
	l.goesOn(t)
	return l
}

// goesOn waits until every client has done more work.
func (l *loaded) goesOn(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	if err := l.GoOn(ctx); err != nil {
		t.Fatal(err)
	}
}

// ledElsewhere are the partitions of the numbers that other brokers lead.
func (l *loaded) ledElsewhere(t *testing.T, broker int32) []int32 {
	t.Helper()
	found, err := l.admin.ListTopics(t.Context(), l.topics[0])
	if err != nil {
		t.Fatal(err)
	}
	var others []int32
	for _, p := range found[l.topics[0]].Partitions.Sorted() {
		if p.Leader != broker {
			others = append(others, p.Partition)
		}
	}
	if len(others) == 0 {
		t.Fatalf("broker %d leads everything", broker)
	}
	return others
}

// end stops the clients and compares what the brokers hold with what was acknowledged.
func (l *loaded) end(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	acked, err := l.End(ctx)
	if err != nil {
		t.Error(err)
	}
	t.Logf("acknowledged by partition: %v", acked)
}

// proceeds lets a new client of another virtual cluster work on a topic whose
// only replica is on this broker, whatever another broker does meanwhile.
func (l *loaded) proceeds(t *testing.T, broker int32, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	steps := []drivers.Step{{Do: drivers.Produce, Topic: fmt.Sprintf("on-%d", broker), Count: 20, Prefix: name, Idempotent: true, Seconds: 60}}
	if _, err := drivers.Do(ctx, drivers.FranzGo(), l.steady, steps...); err != nil {
		t.Errorf("a client of other brokers: %v", err)
	}
}

// place creates a topic of the steady virtual cluster with one replica on each
// broker, and waits until every broker knows them: one that does not yet may have
// to wait for a new controller to hear of them.
func (l *loaded) place(t *testing.T) {
	t.Helper()
	for _, b := range l.kafka.Brokers() {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = fmt.Sprintf("steady.on-%d", b.ID), -1, -1
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = 0, []int32{b.ID}
		topic.ReplicaAssignment = append(topic.ReplicaAssignment, a)
		config := kmsg.NewCreateTopicsRequestTopicConfig()
		config.Name, config.Value = "min.insync.replicas", kmsg.StringPtr("1")
		topic.Configs = append(topic.Configs, config)
		req := kmsg.NewPtrCreateTopicsRequest()
		req.Topics, req.TimeoutMillis = append(req.Topics, topic), 30000
		resp, err := req.RequestWith(t.Context(), l.kafka.Client(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := kerr.ErrorForCode(resp.Topics[0].ErrorCode); err != nil {
			t.Fatalf("create %s: %v", topic.Topic, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	for _, b := range l.kafka.Brokers() {
		broker := l.kafka.Client(t, kgo.SeedBrokers(b.Addr(kafkatest.PLAINTEXT))).SeedBrokers()[0]
		err := load.Wait(ctx, func() error {
			resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, broker)
			if err != nil {
				return err
			}
			known := 0
			for _, topic := range resp.Topics {
				if strings.HasPrefix(*topic.Topic, "steady.on-") && len(topic.Partitions) == 1 && topic.Partitions[0].ErrorCode == 0 {
					known++
				}
			}
			if known < len(l.kafka.Brokers()) {
				return fmt.Errorf("broker %d knows %d of the topics", b.ID, known)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestClientsLiveThroughTheFaultsOfAThreeNodeCluster(t *testing.T) {
	t.Parallel()
	kafka := three.Get(t)
	l := startLoad(t, kafka, 6)
	l.place(t)
	inSync := func(t *testing.T) {
		t.Helper()
		if err := kafka.WaitInSync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	restart := func(t *testing.T, b *kafkatest.Broker) {
		t.Helper()
		if err := b.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		inSync(t)
	}
	// The gateway asks the lowest broker first, so its loss hurts most.
	lowest, middle, other := kafka.Brokers()[0], kafka.Brokers()[1], kafka.Brokers()[2]

	t.Run("a broker is killed and started again", func(t *testing.T) {
		if err := lowest.Kill(); err != nil {
			t.Fatal(err)
		}
		l.proceeds(t, other.ID, "killed")
		l.goesOn(t)
		restart(t, lowest)
		l.goesOn(t)
	})
	t.Run("a broker is frozen until it has been fenced", func(t *testing.T) {
		others := l.ledElsewhere(t, lowest.ID)
		if err := lowest.Pause(); err != nil {
			t.Fatal(err)
		}
		defer lowest.Resume()
		l.proceeds(t, other.ID, "frozen")
		ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
		defer cancel()
		if err := l.Producer.WaitMore(ctx, 200, others...); err != nil {
			t.Fatalf("partitions of other brokers: %v", err)
		}
		if err := lowest.Resume(); err != nil {
			t.Fatal(err)
		}
		l.goesOn(t)
		inSync(t)
		l.goesOn(t)
	})
	t.Run("a broker is shut down and started again", func(t *testing.T) {
		if err := middle.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.proceeds(t, other.ID, "stopped")
		l.goesOn(t)
		restart(t, middle)
		l.goesOn(t)
	})
	t.Run("every partition gets another leader", func(t *testing.T) {
		for range 2 {
			if err := kafka.MoveLeaders(t.Context(), l.topics...); err != nil {
				t.Fatal(err)
			}
			inSync(t)
			l.goesOn(t)
		}
	})
	t.Run("the gateway is killed and started again", func(t *testing.T) {
		l.gateway.Kill(t)
		l.gateway.Launch(t)
		l.goesOn(t)
	})
	l.end(t)
}

func TestClientsLiveThroughTheLossOfTheOnlyBroker(t *testing.T) {
	t.Parallel()
	kafka := kafkatest.Start(t, kafkatest.Options{Version: kafkatest.V3})
	l := startLoad(t, kafka, 3)
	for range 2 {
		if err := kafka.Brokers()[0].Kill(); err != nil {
			t.Fatal(err)
		}
		if err := kafka.Brokers()[0].Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.goesOn(t)
	}
	l.end(t)
}
