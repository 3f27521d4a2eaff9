package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/rawkafka"
	"tollgate.internal/e2e/internal/spanning"
	"tollgate.internal/pkg/testbed/redistest"
)

// idClusters are virtual clusters by name, one on a cluster of each version.
var idClusters = map[string]string{"ids-old": kafkatest.V3, "ids-new": kafkatest.V4}

// idFleet are nodes over both clusters that share a source of producer ids.
func idFleet(t *testing.T, nodes int, source string) []*gateway.Proxy {
	t.Helper()
	var text strings.Builder
	text.WriteString("{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}\n")
	var names []string
	for vc, version := range idClusters {
		names = append(names, vc)
		fmt.Fprintf(&text, `---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: of-%[1]s}, spec: {bootstrap: [%[2]q]}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: %[1]s, tenant: acme}, spec: {type: standard, host: %[1]s, home: of-%[1]s, authentication: {anonymous: {}}}}
`, vc, upstreams[version].Get(t).Bootstrap())
	}
	var fleet []*gateway.Proxy
	for range nodes {
		fleet = append(fleet, gateway.StartProxy(t, map[string]string{"all.yaml": text.String()}, names, "--producer-ids", source, "--deployment", "77"))
	}
	return fleet
}

// idTopic creates a topic of one partition in a virtual cluster, at its broker.
func idTopic(t *testing.T, vc, topic string) {
	t.Helper()
	admin := kadm.NewClient(upstreams[idClusters[vc]].Get(t).Client(t))
	physical := vc + "." + topic
	retention := "-1"
	if _, err := admin.CreateTopic(t.Context(), 1, 1, map[string]*string{"retention.ms": &retention}, physical); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := admin.DeleteTopic(context.Background(), physical); err != nil {
			t.Error(err)
		}
	})
}

// producersAt are the ids that the broker knows of a topic's partition.
func producersAt(t *testing.T, vc, topic string) (ids []int64) {
	t.Helper()
	return producersOf(t, upstreams[idClusters[vc]].Get(t), vc+"."+topic)
}

func producersOf(t *testing.T, kafka *kafkatest.Cluster, topic string) (ids []int64) {
	t.Helper()
	req := kmsg.NewPtrDescribeProducersRequest()
	rt := kmsg.NewDescribeProducersRequestTopic()
	rt.Topic, rt.Partitions = topic, []int32{0}
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(t.Context(), kafka.Client(t))
	if err != nil {
		t.Fatal(err)
	}
	p := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		t.Fatal(err)
	}
	for _, producer := range p.ActiveProducers {
		ids = append(ids, producer.ProducerID)
	}
	return ids
}

// recordsAt is how many records the broker has of a topic's partition.
func recordsAt(t *testing.T, vc, topic string) int64 {
	t.Helper()
	physical := vc + "." + topic
	ends, err := kadm.NewClient(upstreams[idClusters[vc]].Get(t).Client(t)).ListEndOffsets(t.Context(), physical)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(physical, 0)
	return end.Offset
}

// idSet are ids of which none may come twice.
type idSet map[int64]string

func (s idSet) add(t *testing.T, id int64, whose string) {
	t.Helper()
	if before, again := s[id]; again {
		t.Errorf("id %#x of %s is that of %s", id, whose, before)
	}
	s[id] = whose
	const deployment = 77
	if id>>42 != 1<<10|deployment {
		t.Errorf("id %#x of %s is not one of the gateway's", id, whose)
	}
}

// Every client's idempotent producer works with an id of the gateway, on brokers of
// both versions and through both nodes, and no two have the same.
func TestIdempotentProducersHaveIDsOfTheGateway(t *testing.T) {
	fleet := idFleet(t, 2, "file:"+filepath.Join(t.TempDir(), "ids"))
	seen := make(idSet)
	for i, d := range drivers.Drivers() {
		for vc := range idClusters {
			topic := "of-" + drivers.Slug(d)
			idTopic(t, vc, topic)
			whose := d.Name() + " at " + vc
			node := fleet[(i+len(vc))%2]
			_, err := drivers.Do(t.Context(), d, node.Target(vc), drivers.Step{Do: drivers.Produce, Topic: topic, Count: 20, Idempotent: true})
			if err != nil {
				t.Errorf("%s: %v", whose, err)
				continue
			}
			if n := recordsAt(t, vc, topic); n != 20 {
				t.Errorf("%s: %d of 20 records", whose, n)
			}
			ids := producersAt(t, vc, topic)
			if len(ids) != 1 {
				t.Errorf("%s: the broker knows the producers %v, want one", whose, ids)
			}
			for _, id := range ids {
				seen.add(t, id, whose)
			}
		}
	}
	given := 0.0
	for _, node := range fleet {
		given += node.Metric(t, "tollgate_proxy_producer_ids_total")
	}
	if want := float64(len(seen)); given < want {
		t.Errorf("the nodes say that they gave %v ids, the brokers know %v", given, want)
	}
}

// idConn is a connection to the virtual node that leads every topic.
func idConn(t *testing.T, node *gateway.Proxy, vc string) *rawkafka.Conn {
	t.Helper()
	conn, err := rawkafka.Dial(t.Context(), node.NodeTarget(t, vc, 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// initID asks for an id, until there is one: a node that has just started may have
// no lease yet.
func initID(t *testing.T, conn *rawkafka.Conn, change func(*kmsg.InitProducerIDRequest)) int64 {
	t.Helper()
	req := kmsg.NewPtrInitProducerIDRequest()
	req.Version, req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = 4, 1000, -1, -1
	if change != nil {
		change(req)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		answer, err := conn.Ask(req)
		if err != nil {
			t.Fatal(err)
		}
		resp := answer.(*kmsg.InitProducerIDResponse)
		if resp.ErrorCode == kerr.CoordinatorLoadInProgress.Code && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond) // as clients do
			continue
		}
		if resp.ErrorCode != 0 || resp.ProducerEpoch != 0 {
			t.Fatalf("InitProducerId: %v, epoch %d", kerr.ErrorForCode(resp.ErrorCode), resp.ProducerEpoch)
		}
		return resp.ProducerID
	}
}

// awaitLeader asks for the topic, as clients do, until it has a leader.
func awaitLeader(t *testing.T, conn *rawkafka.Conn, topic string) {
	t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &topic
	req.Version, req.Topics = 9, append(req.Topics, rt)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		answer, err := conn.Ask(req)
		if err != nil {
			t.Fatal(err)
		}
		found := answer.(*kmsg.MetadataResponse).Topics[0]
		if found.ErrorCode == 0 && len(found.Partitions) == 1 && found.Partitions[0].Leader >= 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("topic %s: %v", topic, kerr.ErrorForCode(found.ErrorCode))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// idProduce sends one batch and returns what became of it.
func idProduce(t *testing.T, conn *rawkafka.Conn, topic string, id int64, epoch int16, sequence int32, values ...string) (offset int64, err error) {
	t.Helper()
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = 9, -1, 10000
	rt, rp := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	rp.Records = rawkafka.Batch{Values: values, Idempotent: true, ProducerID: id, ProducerEpoch: epoch, Sequence: sequence}.Bytes()
	rt.Topic, rt.Partitions = topic, append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	answer, err := conn.Ask(req)
	if err != nil {
		t.Fatal(err)
	}
	p := answer.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	return p.BaseOffset, kerr.ErrorForCode(p.ErrorCode)
}

// A broker treats an id of the gateway as its own: repetitions are acknowledged with
// their old offset and stored once, gaps and old epochs are refused; and it goes on
// so through another node, and after the node that gave the id was killed, whose next
// ids are new ones.
func TestAnIDIsGoodThroughEveryNodeAndAfterIt(t *testing.T) {
	for name, source := range map[string]func(t *testing.T) string{
		"file":  func(t *testing.T) string { return "file:" + filepath.Join(t.TempDir(), "ids") },
		"redis": func(t *testing.T) string { return redistest.Start(t).URL },
	} {
		t.Run(name, func(t *testing.T) {
			fleet := idFleet(t, 2, source(t))
			seen := make(idSet)
			giver := idConn(t, fleet[0], "ids-old")
			id := initID(t, giver, nil)
			seen.add(t, id, "the producer")

			// One id, on both clusters: that is what it is for.
			type batch struct {
				epoch    int16
				sequence int32
				values   []string
				offset   int64
				err      error
			}
			expect := func(t *testing.T, node *gateway.Proxy, vc, topic string, batches ...batch) {
				t.Helper()
				conn := idConn(t, node, vc)
				awaitLeader(t, conn, topic)
				for _, b := range batches {
					offset, err := idProduce(t, conn, topic, id, b.epoch, b.sequence, b.values...)
					if !errors.Is(err, b.err) || err == nil && offset != b.offset {
						t.Errorf("%s: epoch %d, sequence %d: offset %d, %v, want %d, %v", vc, b.epoch, b.sequence, offset, err, b.offset, b.err)
					}
				}
			}
			topic := "one-id-" + name
			first := []batch{
				{0, 0, []string{"a", "b"}, 0, nil},
				{0, 0, []string{"a", "b"}, 0, nil}, // again: stored once
				{0, 5, []string{"x"}, 0, kerr.OutOfOrderSequenceNumber},
				{0, 2, []string{"c"}, 2, nil},
				{0, 0, []string{"a", "b"}, 0, nil},
			}
			second := []batch{
				{0, 2, []string{"c"}, 2, nil},
				{0, 4, []string{"x"}, 0, kerr.OutOfOrderSequenceNumber},
				{0, 3, []string{"d"}, 3, nil},
			}
			third := []batch{
				{0, 3, []string{"d"}, 3, nil},
				{1, 7, []string{"x"}, 0, kerr.OutOfOrderSequenceNumber}, // a bump begins at 0
				{1, 0, []string{"e"}, 4, nil},
				{0, 4, []string{"x"}, 0, kerr.InvalidProducerEpoch},
				{1, 0, []string{"e"}, 4, nil},
			}
			for vc := range idClusters {
				idTopic(t, vc, topic)
				expect(t, fleet[0], vc, topic, first...)
				expect(t, fleet[1], vc, topic, second...)
			}
			for round := range 3 {
				fleet[round%2].Kill(t)
				fleet[round%2].Launch(t)
				for vc := range idClusters {
					for n, node := range fleet {
						conn := idConn(t, node, vc)
						for range 20 {
							// The id that a producer has, or makes up, says nothing without a transactional id.
							next := initID(t, conn, func(r *kmsg.InitProducerIDRequest) { r.ProducerID, r.ProducerEpoch = id, 3 })
							seen.add(t, next, fmt.Sprintf("node %d in round %d at %s", n, round, vc))
						}
					}
				}
			}
			for vc := range idClusters {
				expect(t, fleet[0], vc, topic, third...)
				if ids := producersAt(t, vc, topic); len(ids) != 1 || ids[0] != id {
					t.Errorf("%s: the broker knows the producers %v, want %d", vc, ids, id)
				}
			}
		})
	}
}

// One producer has one id on both clusters of a virtual cluster, and keeps it when the
// gateway is killed: its records are stored once and in order.
func TestOneProducerHasOneIDOnBothClusters(t *testing.T) {
	pair := pairs[kafkatest.V3].Get(t)
	run := strconv.FormatInt(time.Now().UnixNano(), 36) // the pair stays, and so do the topics
	aliases := []spanning.Alias{{Name: "lent-ids-main-" + run, Cluster: "main"}, {Name: "lent-ids-west-" + run, Cluster: "west"}}
	g := spanning.Start(t, pair, aliases...)
	opts, err := g.Standard(t).KgoOpts()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const rounds, each = 3, 50
	for round := range rounds {
		var waiting sync.WaitGroup
		for i := range each {
			for _, a := range aliases {
				waiting.Add(1)
				client.Produce(t.Context(), &kgo.Record{Topic: a.Name, Value: fmt.Append(nil, round*each+i)}, func(_ *kgo.Record, err error) {
					defer waiting.Done()
					if err != nil {
						t.Errorf("round %d: %v", round, err)
					}
				})
			}
		}
		if round > 0 { // while they are under way
			g.Kill(t)
			g.Launch(t)
		}
		waiting.Wait()
	}
	known := make(map[int64]bool)
	for i, kafka := range []*kafkatest.Cluster{pair.Main, pair.West} {
		topic := "shop." + aliases[i].Name
		for _, id := range producersOf(t, kafka, topic) {
			known[id] = true
			if id>>42 != 1<<10 {
				t.Errorf("id %#x is not one of the gateway's", id)
			}
		}
		reader := kafka.Client(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for got := 0; got < rounds*each; {
			fetches := reader.PollFetches(ctx)
			if err := fetches.Err(); err != nil {
				t.Fatalf("%s: %v after %d records", topic, err, got)
			}
			fetches.EachRecord(func(r *kgo.Record) {
				if string(r.Value) != fmt.Sprint(got) || r.Offset != int64(got) {
					t.Errorf("%s: record %s at offset %d, want %d", topic, r.Value, r.Offset, got)
				}
				got++
			})
		}
		ends, err := kadm.NewClient(reader).ListEndOffsets(ctx, topic)
		if err != nil {
			t.Fatal(err)
		}
		if end, _ := ends.Lookup(topic, 0); end.Offset != rounds*each {
			t.Errorf("%s has %d records, want %d", topic, end.Offset, rounds*each)
		}
	}
	if len(known) != 1 {
		t.Errorf("the brokers know the producers %v, want one", known)
	}
}

// Without a lease a node gives no id and says why; every client waits, and goes on
// when there is one.
func TestProducersWaitForALease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ids")
	if err := os.WriteFile(path, []byte("not a file of leases"), 0o600); err != nil {
		t.Fatal(err)
	}
	node := idFleet(t, 1, "file:"+path)[0]
	if ready := node.Ready(t); !strings.Contains(ready, `"name": "producer_ids"`) || !strings.Contains(ready, path+" has 20 bytes instead of 524350") {
		t.Errorf("/readyz does not say what is missing:\n%s", ready)
	}
	const refused = `tollgate_proxy_requests_refused_total{refusal="TG-TXN-009"}`
	const vc = "ids-new"
	var wg sync.WaitGroup
	defer wg.Wait()
	// Sarama asks 50 times in 5 s and gives up, so it comes last.
	clients := slices.DeleteFunc(drivers.Drivers(), func(d drivers.Driver) bool { return d.Name() == drivers.Sarama().Name() })
	clients = append(clients, drivers.Sarama())
	for _, d := range clients {
		topic := "waits-" + drivers.Slug(d)
		idTopic(t, vc, topic)
		before := node.Metric(t, refused)
		done := make(chan struct{})
		wg.Go(func() {
			defer close(done)
			if _, err := drivers.Do(t.Context(), d, node.Target(vc), drivers.Step{Do: drivers.Produce, Topic: topic, Count: 5, Idempotent: true, Seconds: 100}); err != nil {
				t.Errorf("%s: %v", d.Name(), err)
			}
		})
		// Until it was refused, and asked again.
		deadline := time.After(60 * time.Second)
		for node.Metric(t, refused) < before+2 {
			select {
			case <-done:
				t.Errorf("%s: ended without an id", d.Name())
			case <-deadline:
				t.Errorf("%s: was not refused twice in a minute", d.Name())
			case <-time.After(50 * time.Millisecond):
				continue
			}
			break
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if got := node.Metric(t, "tollgate_proxy_producer_ids_total"); got < float64(len(clients)) {
		t.Errorf("%v ids given to %d producers", got, len(clients))
	}
	if ready := node.Ready(t); strings.Contains(ready, "instead of") {
		t.Errorf("/readyz:\n%s", ready)
	}
	if without := node.Metric(t, "tollgate_proxy_producer_ids_without_lease_seconds_total"); without <= 0 {
		t.Errorf("%v seconds without a lease", without)
	}
}
