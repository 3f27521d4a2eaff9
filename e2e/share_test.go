package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
)

const shareResources = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: sharing}, spec: {displayName: Sharing}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: sharing, tenant: sharing}
spec: {type: standard, host: sharing, home: main, authentication: {scram: {}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: dev, virtualCluster: sharing}, spec: {type: local, password: "file:dev.secret"}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: sharing-partner, tenant: sharing}
spec: {type: partner, host: sharing-partner, home: main, authentication: {plain: {}}, acls: {superUsers: ["User:admin"]}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: admin, virtualCluster: sharing-partner}, spec: {type: local, password: "file:dev.secret"}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: worker, virtualCluster: sharing-partner}, spec: {type: local, password: "file:dev.secret"}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: reads, virtualCluster: sharing-partner}, spec: {principal: "User:worker", resource: {type: topic, name: jobs}, operation: READ, permission: ALLOW}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: group, virtualCluster: sharing-partner}, spec: {principal: "User:worker", resource: {type: group, name: workers}, operation: READ, permission: ALLOW}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: jobs, tenant: sharing}, spec: {cluster: main, topic: {name: shop.jobs}, access: read-write}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: jobs, virtualCluster: sharing-partner}, spec: {cluster: main, topic: shop.jobs}}
`

// shareRuns are the life of a share group: set up, consumed, looked at, moved back,
// consumed again with acknowledgements, deleted.
var shareRuns = []toolRun{
	{tool: "topics", args: "--create --topic work --partitions 3", says: []string{"Created topic work."}},
	{tool: "configs", args: "--alter --entity-type groups --entity-name crew --add-config share.auto.offset.reset=earliest", says: []string{"Completed updating config for group crew"}},
	{tool: "configs", args: "--describe --entity-type groups --entity-name crew", says: []string{"share.auto.offset.reset=earliest"}},
	{tool: "verifiable-producer", args: "--topic work --max-messages 40", says: []string{`"acked":40`}},
	{tool: "console-share-consumer", args: "--topic work --group crew --max-messages 40 --timeout-ms 60000", says: []string{"0\n", "39\n"}},
	{tool: "share-groups", args: "--list", says: []string{"crew"}, not: []string{"sharing"}},
	{tool: "share-groups", args: "--describe --group crew", says: []string{"crew", "work"}, not: []string{"sharing"}},
	{tool: "share-groups", args: "--describe --group crew --state", says: []string{"crew", "Empty"}},
	{tool: "share-groups", args: "--reset-offsets --to-earliest --group crew --topic work --execute", says: []string{"crew", "work"}},
	{tool: "verifiable-share-consumer", args: "--topic work --group-id crew --max-messages 40 --acknowledgement-mode sync", says: []string{`"name":"offsets_acknowledged"`, "shutdown_complete"}},
	{tool: "share-groups", args: "--delete-offsets --group crew --topic work", says: []string{"work"}},
	{tool: "share-groups", args: "--delete --group crew", says: []string{"crew"}},
	{tool: "share-groups", args: "--list", not: []string{"crew"}},
	{tool: "configs", args: "--alter --entity-type groups --entity-name crew --add-config streams.num.standby.replicas=1", fails: true, says: []string{"PolicyViolationException"}},
}

func TestShareGroupsOfKafka(t *testing.T) {
	t.Parallel()
	kafka := upstreams[kafkatest.V4].Get(t)
	create(t, kafka, []string{"jobs"})
	p := gateway.Start(t, map[string]string{"main": kafka.Bootstrap()}, map[string]string{"all.yaml": shareResources, "dev.secret": "dev-secret\n"})
	standard := p.Target(t, "sharing", "SCRAM-SHA-512", "dev", "dev-secret")
	admin := p.Target(t, "sharing-partner", "PLAIN", "admin", "dev-secret")
	worker := p.Target(t, "sharing-partner", "PLAIN", "worker", "dev-secret")
	t.Run("the tools on a standard virtual cluster", func(t *testing.T) {
		runTools(t, kafkatest.V4, standard, shareRuns...)
	})
	t.Run("an alias with READ on topic and group", func(t *testing.T) {
		runTools(
			t, kafkatest.V4, admin,
			toolRun{tool: "configs", args: "--alter --entity-type groups --entity-name workers --add-config share.auto.offset.reset=earliest"},
			toolRun{tool: "console-producer", args: "--topic jobs", stdin: "one\ntwo\n"},
		)
		runTools(
			t, kafkatest.V4, worker,
			toolRun{tool: "console-share-consumer", args: "--topic jobs --group workers --max-messages 2 --timeout-ms 60000", says: []string{"one\n", "two\n"}},
			toolRun{tool: "share-groups", args: "--describe --group workers", says: []string{"jobs"}, not: []string{"shop"}},
		)
	})
	t.Run("a disconnect releases what was acquired", func(t *testing.T) { releasedByDisconnect(t, standard) })
}

// releasedByDisconnect lets one consumer acquire records and drop off the network;
// another one gets them although nobody has waited for their lock to run out.
func releasedByDisconnect(t *testing.T, target drivers.Target) {
	const n = 20
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	admin := drivers.Client(t, target, kgo.DefaultProduceTopic("drop"))
	if _, err := kadm.NewClient(admin).CreateTopic(ctx, 1, 1, nil, "drop"); err != nil {
		t.Fatal(err)
	}
	runTools(t, kafkatest.V4, target, toolRun{
		tool: "configs",
		args: "--alter --entity-type groups --entity-name drop --add-config share.auto.offset.reset=earliest,share.record.lock.duration.ms=60000",
	})
	for i := range n {
		if err := admin.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(i))).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	line := &line{target: target}
	first := drivers.Client(t, target, kgo.Dialer(line.dial), kgo.ShareGroup("drop"), kgo.ConsumeTopics("drop"))
	held := 0
	for held < n {
		fs := first.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) { held++ })
	}
	line.cut()
	began := time.Now()
	second := drivers.Client(t, target, kgo.ShareGroup("drop"), kgo.ConsumeTopics("drop"))
	var again []string
	for len(again) < n {
		fs := second.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatalf("after %d of %d records: %v", len(again), n, err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			if r.DeliveryCount() != 2 {
				t.Errorf("record %s is delivered for time %d, want 2", r.Value, r.DeliveryCount())
			}
			again = append(again, string(r.Value))
		})
	}
	if lock := time.Minute; time.Since(began) > lock {
		t.Errorf("the records came after %v: their lock ran out", time.Since(began))
	}
	slices.Sort(again)
	if len(slices.Compact(again)) != n {
		t.Errorf("records %v, want %d different ones", again, n)
	}
}

// line is a way to the gateway that can be cut.
type line struct {
	target drivers.Target
	mu     sync.Mutex
	conns  []net.Conn
	gone   bool
}

func (l *line) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := l.target.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		c.Close()
		return nil, errors.New("the line is cut")
	}
	l.conns = append(l.conns, c)
	return c, nil
}

func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	for _, c := range l.conns {
		c.Close()
	}
}

func TestShareGroupsAreOfferedWhereKafkaHasThem(t *testing.T) {
	for version, want := range map[string]int{kafkatest.V3: 0, kafkatest.V4: 7} {
		t.Run("Kafka "+version, func(t *testing.T) {
			kafka := upstreams[version].Get(t)
			p := gateway.Start(t, map[string]string{"main": kafka.Bootstrap()}, map[string]string{"all.yaml": shareResources, "dev.secret": "dev-secret\n"})
			cl := drivers.Client(t, p.Target(t, "sharing", "SCRAM-SHA-512", "dev", "dev-secret"))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			req := kmsg.NewPtrApiVersionsRequest()
			req.ClientSoftwareName, req.ClientSoftwareVersion = "test", "1"
			resp, err := req.RequestWith(ctx, cl)
			if err != nil {
				t.Fatal(err)
			}
			var keys []int16
			for _, k := range resp.ApiKeys {
				if slices.Contains([]int16{76, 77, 78, 79, 90, 91, 92}, k.ApiKey) {
					keys = append(keys, k.ApiKey)
				}
			}
			feature := slices.ContainsFunc(resp.FinalizedFeatures, func(f kmsg.ApiVersionsResponseFinalizedFeature) bool { return f.Name == "share.version" })
			if len(keys) != want || feature != (want > 0) {
				t.Errorf("keys %v, share.version %v: want %d keys", keys, feature, want)
			}
		})
	}
}
