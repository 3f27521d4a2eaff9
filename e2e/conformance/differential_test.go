// Package conformance tests that the gateway answers as a broker does: the same
// requests to both, of every key in every version and under every right, compared
// field by field.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/differential"
	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/rawkafka"
)

// Every name that a trial uses begins with own, so that what else is on the
// brokers can be told apart.
const own = "d."

// The virtual clusters of the trials: one without a login, on a listener without
// TLS as the bare broker's is, and one for the requests that log in.
const differentialResources = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {}}
---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: [%q]}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: twin, tenant: acme}
spec: {type: standard, host: twin, home: main, authentication: {anonymous: {}}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: login, tenant: acme}
spec: {type: standard, host: login, home: main, authentication: {plain: {}, scram: {}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: alice, virtualCluster: login}, spec: {type: local, password: "file:alice.secret"}}
`

var upstreams = kafkatest.ShareSingles()

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }

// A probe asks one key in one version: what works, and what typically does not.
// It runs once on each side, and must ask the same both times.
type probe struct {
	key   int16
	rules []differential.Rule
	run   func(x *trial)
}

// probes are all of them; a key that is offered and is not here fails the test.
func probes() []probe {
	return slices.Concat(dataProbes(), groupProbes(), transactionProbes(), adminProbes(), shareProbes(), viewProbes(), loginProbes())
}

// A trial is one side on one version of Kafka.
type trial struct {
	t      *testing.T
	kafka  string
	side   *differential.Side
	target drivers.Target     // without login
	login  drivers.Target     // for the listener that wants one
	common map[int16]versions // both sides have them
	conn   *rawkafka.Conn
	ids    map[[16]byte]string

	key     int16
	version int16
	rules   []differential.Rule
	answers map[question]differential.Answer
	order   []question
}

type versions struct{ min, max int16 }

type question struct {
	key, version int16
	name         string
}

// compared is what one version of Kafka and the gateway before it offer, and how
// their answers compare.
type compared struct {
	kafka         string
	bare, offered map[int16]versions
	comparisons   []differential.Comparison
}

// compareAll runs every probe on both sides of one version of Kafka.
func compareAll(t *testing.T, version string) compared {
	t.Helper()
	kafka := upstreams[version].Get(t)
	p := gateway.Start(t, map[string]string{"main": kafka.Bootstrap()}, map[string]string{
		"all.yaml": fmt.Sprintf(differentialResources, kafka.Bootstrap()), "alice.secret": kafka.Password("alice"),
	})
	bare := newTrial(t, version, drivers.Target{Bootstrap: kafka.Bootstrap()})
	bare.login = drivers.Target{
		Bootstrap: kafka.BootstrapOn(kafkatest.SASL), CAFile: kafka.CAFile, User: "alice", Password: kafka.Password("alice"),
	}
	bare.side.Own = func(name string) bool {
		return slices.ContainsFunc([]string{own, `""`, "d/slash", "..", fmt.Sprintf("%x", unknownID), "1 "}, func(known string) bool {
			return strings.HasPrefix(name, known)
		})
	}
	var through *trial
	for _, vc := range p.VirtualClusters {
		if vc.Name == "twin" {
			through = newTrial(t, version, drivers.Target{Bootstrap: vc.PortBootstrap})
		}
	}
	through.login = p.Target(t, "login", "", "alice", kafka.Password("alice"))
	out := compared{kafka: version, bare: bare.offers(), offered: through.offers()}
	common := make(map[int16]versions)
	for key, r := range out.offered {
		common[key] = versions{max(r.min, out.bare[key].min), min(r.max, out.bare[key].max)}
	}
	bare.common, through.common = common, common
	for _, x := range []*trial{bare, through} {
		x.identify()
		x.prepare()
		for _, p := range probes() {
			r, ok := out.offered[p.key]
			if !ok {
				continue
			}
			x.key, x.rules = p.key, p.rules
			for v := r.min; v <= r.max; v++ {
				x.version = v
				p.run(x)
			}
		}
		x.hangUp()
	}
	for _, q := range bare.order {
		other, ok := through.answers[q]
		if !ok {
			t.Errorf("%+v was not asked through the gateway", q)
		}
		out.comparisons = append(out.comparisons, differential.Comparison{
			Kafka: version, Key: q.key, Version: q.version, Case: q.name,
			Findings: differential.Compare(bare.answers[q], other),
		})
	}
	if len(through.answers) != len(bare.answers) {
		t.Errorf("%d questions to the broker, %d through the gateway", len(bare.answers), len(through.answers))
	}
	for key, r := range out.offered {
		for v := r.min; v <= r.max; v++ {
			if !slices.ContainsFunc(bare.order, func(q question) bool { return q.key == key && q.version == v }) {
				t.Errorf("Kafka %s: %s v%d is offered and compared nowhere", version, kmsg.NameForKey(key), v)
			}
		}
	}
	return out
}

func newTrial(t *testing.T, kafka string, target drivers.Target) *trial {
	x := &trial{
		t: t, kafka: kafka, target: target, side: &differential.Side{},
		ids: make(map[[16]byte]string), answers: make(map[question]differential.Answer),
	}
	x.side.TopicName = x.topicName
	t.Cleanup(x.hangUp)
	return x
}

func (x *trial) hangUp() {
	if x.conn != nil {
		x.conn.Close()
		x.conn = nil
	}
}

// connected is the trial's connection; it is made anew when one was closed.
func (x *trial) connected() *rawkafka.Conn {
	x.t.Helper()
	if x.conn == nil {
		conn, err := rawkafka.Dial(x.t.Context(), x.target)
		if err != nil {
			x.t.Fatal(err)
		}
		x.conn = conn
	}
	return x.conn
}

// offers asks for ApiVersions as clients do.
func (x *trial) offers() map[int16]versions {
	x.t.Helper()
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = 3, "raw", "1"
	resp, err := x.connected().Ask(req)
	if err != nil {
		x.t.Fatal(err)
	}
	all := make(map[int16]versions)
	for _, k := range resp.(*kmsg.ApiVersionsResponse).ApiKeys {
		all[k.ApiKey] = versions{k.MinVersion, k.MaxVersion}
	}
	return all
}

// identify learns what the side calls itself.
func (x *trial) identify() {
	meta := x.do(kmsg.NewPtrMetadataRequest()).(*kmsg.MetadataResponse)
	x.side.ClusterID, x.side.Hosts = *meta.ClusterID, make(map[string]bool)
	for _, b := range meta.Brokers {
		x.side.Hosts[b.Host] = true
	}
}

// do sends a request that prepares something, in the highest version that both
// sides have; it must be answered.
func (x *trial) do(req kmsg.Request) kmsg.Response {
	x.t.Helper()
	r, ok := x.common[req.Key()]
	if !ok {
		x.t.Fatalf("%s is not offered", kmsg.NameForKey(req.Key()))
	}
	req.SetVersion(r.max)
	resp, err := x.connected().Ask(req)
	if err != nil {
		x.t.Fatalf("%s v%d: %v", kmsg.NameForKey(req.Key()), r.max, err)
	}
	return resp
}

// ask sends a request in the version on trial, and keeps the answer under name.
// It returns nil when the connection was closed instead.
func (x *trial) ask(name string, req kmsg.Request) kmsg.Response {
	x.t.Helper()
	req.SetVersion(x.version)
	if req.Key() != x.key {
		x.t.Fatalf("%s in the probe of %s", kmsg.NameForKey(req.Key()), kmsg.NameForKey(x.key))
	}
	resp, err := x.connected().Ask(req)
	x.keep(name, resp, err)
	return resp
}

// keep keeps an answer of the version on trial under name.
func (x *trial) keep(name string, resp kmsg.Response, err error) {
	x.t.Helper()
	q := question{x.key, x.version, name}
	if _, ok := x.answers[q]; ok {
		x.t.Fatalf("%+v is asked twice", q)
	}
	x.order = append(x.order, q)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET):
		x.hangUp()
		x.answers[q] = differential.Closed()
	case err != nil:
		x.t.Fatalf("%+v: %v", q, err)
	default:
		x.answers[q] = differential.Flatten(x.side, x.rules, resp)
	}
}

// topicName finds the name of a topic id, by asking when it is new.
func (x *trial) topicName(id [16]byte) (string, bool) {
	if name, ok := x.ids[id]; ok {
		return name, name != ""
	}
	meta := x.do(kmsg.NewPtrMetadataRequest()).(*kmsg.MetadataResponse)
	for _, t := range meta.Topics {
		x.ids[t.TopicID] = *t.Topic
	}
	name := x.ids[id]
	x.ids[id] = name // remember also that nobody knows it
	return name, name != ""
}

// id is a topic's id.
func (x *trial) id(topic string) (id [16]byte) {
	x.t.Helper()
	find := func() bool {
		for i, name := range x.ids {
			if name == topic {
				id = i
				return true
			}
		}
		return false
	}
	if find() {
		return id
	}
	x.topicName([16]byte{})
	delete(x.ids, [16]byte{})
	if !find() {
		x.t.Fatalf("no topic %s", topic)
	}
	return id
}

// unknownID is an id that no topic has.
var unknownID = [16]byte{0xd1, 0xff, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 1}

// idOr is a topic's id, or one that no topic has.
func (x *trial) idOr(topic string) [16]byte {
	if topic == missing {
		return unknownID
	}
	return x.id(topic)
}

// vName makes a name that no other key and version uses.
func (x *trial) vName(what string) string {
	return fmt.Sprintf("%s%s-%d-%d", own, what, x.key, x.version)
}

// The topics every trial finds. Their records never age.
const (
	records  = own + "records"  // two partitions; six records in the first, none in the second
	produced = own + "produced" // two partitions, which nothing reads
	offsets  = own + "offsets"  // two partitions, which groups commit offsets of
	missing  = own + "missing"  // does not exist
)

// prepare makes what the probes read.
func (x *trial) prepare() {
	x.t.Helper()
	x.createTopics(map[string]int32{records: 2, produced: 2, offsets: 2})
	for _, values := range [][]string{{"a", "b", "c"}, {"d"}, {"e", "f"}} {
		x.produce(records, 0, rawkafka.Batch{Values: values})
	}
	x.producer(own + "first") // the broker's first block of producer ids
}

// createTopics creates topics and waits until they can be used.
func (x *trial) createTopics(partitions map[string]int32) {
	x.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 30_000
	for _, name := range slices.Sorted(maps.Keys(partitions)) {
		req.Topics = append(req.Topics, newTopic(name, partitions[name]))
	}
	for _, rt := range x.do(req).(*kmsg.CreateTopicsResponse).Topics {
		if err := kerr.ErrorForCode(rt.ErrorCode); err != nil {
			x.t.Fatalf("create %s: %v", rt.Topic, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(partitions)) {
		// Metadata lists a topic a moment before its leaders lead.
		x.until("the leaders of "+name+" answer", func() bool {
			req := listOffsetsOf(name, 0, -1)
			for i := int32(1); i < partitions[name]; i++ {
				req.Topics[0].Partitions = append(req.Topics[0].Partitions, listOffsetsOf(name, i, -1).Topics[0].Partitions...)
			}
			for _, p := range x.do(req).(*kmsg.ListOffsetsResponse).Topics[0].Partitions {
				if p.ErrorCode != 0 {
					return false
				}
			}
			return true
		})
	}
}

// until waits for a condition that a request shows.
func (x *trial) until(what string, holds func() bool) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), time.Minute)
	defer cancel()
	for !holds() {
		select {
		case <-ctx.Done():
			x.t.Fatalf("Kafka %s, a minute later not: %s", x.kafka, what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (x *trial) produce(topic string, partition int32, batches ...rawkafka.Batch) {
	x.t.Helper()
	for _, b := range batches {
		req := x.produceOf(topic, partition, b.Bytes())
		resp := x.do(req).(*kmsg.ProduceResponse)
		if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
			x.t.Fatalf("produce to %s: %v", topic, err)
		}
	}
}

func newTopic(name string, partitions int32) kmsg.CreateTopicsRequestTopic {
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = name, partitions, 1
	forever := kmsg.NewCreateTopicsRequestTopicConfig()
	forever.Name, forever.Value = "retention.ms", kmsg.StringPtr("-1")
	rt.Configs = append(rt.Configs, forever)
	return rt
}

func TestTheGatewayAnswersAsABrokerDoes(t *testing.T) {
	t.Parallel()
	found := make([]compared, len(kafkatest.Versions()))
	t.Run("", func(t *testing.T) {
		for i, version := range kafkatest.Versions() {
			t.Run("Kafka "+version, func(t *testing.T) {
				t.Parallel()
				found[i] = compareAll(t, version)
			})
		}
	})
	if t.Failed() {
		return
	}
	var all []differential.Comparison
	for _, c := range found {
		all = append(all, c.comparisons...)
	}
	unlisted, stale := differential.Judge(all, differences)
	for _, u := range unlisted {
		t.Errorf("not listed: %s", u)
	}
	for _, s := range stale {
		t.Errorf("listed: %s", s)
	}
	checkCompatibility(t, found, differences)
}
