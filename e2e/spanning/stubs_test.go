// Package spanning tests where groups keep their offsets when a virtual cluster spans
// two Kafka clusters: by stub topics on home, or split where home takes none. What
// clients do there is tested with all else that they do, in package e2e.
package spanning

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/load"
)

// upstreams are single brokers, by version; pairs two clusters each, by the version of
// the one that is home.
var upstreams, pairs = kafkatest.ShareSingles(), kafkatest.SharePairs()

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }

// stubResources are a virtual cluster whose stubs outlive their aliases, and one
// whose stubs do not for long.
const stubResources = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: stubs, tenant: acme}
spec: {type: standard, host: stubs, home: main, clusters: [main, west], authentication: {plain: {}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: dev-stubs, virtualCluster: stubs}, spec: {type: local, password: "file:dev.secret"}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: brief, tenant: acme}
spec: {type: standard, host: brief, home: main, clusters: [main, west], stubs: {keepFor: 2s}, authentication: {plain: {}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: dev-brief, virtualCluster: brief}, spec: {type: local, password: "file:dev.secret"}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: main, tenant: acme}, spec: {cluster: main, topic: {name: stubbed., pattern: prefixed}, access: read-write}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: west, tenant: acme}, spec: {cluster: west, topic: {name: stubbed., pattern: prefixed}, access: read-write}}
`

// spanned is a virtual cluster over two clusters, before and behind the gateway.
type spanned struct {
	gateway    *gateway.Process
	vc         string
	opts       []kgo.Opt // of its clients
	client     *kgo.Client
	admin      *kadm.Client // of client
	main, west *kadm.Client // of the brokers
	home       *kafkatest.Cluster
	aliases    *aliasFile
}

// aliasFile is a resource file with the aliases of all tests of a gateway.
type aliasFile struct {
	mu    sync.Mutex
	specs map[string]string // by virtual cluster and alias
}

// upstreamsOf are resources for two clusters without security.
func upstreamsOf(main, west *kafkatest.Cluster) string {
	list := func(c *kafkatest.Cluster) string { return strings.Join(c.Seeds(kafkatest.PLAINTEXT), `", "`) }
	return fmt.Sprintf(`
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: ["%s"]}}
---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: west}, spec: {bootstrap: ["%s"]}}
`, list(main), list(west))
}

// before connects clients to a virtual cluster of p.
func (s *spanned) before(t *testing.T, p *gateway.Process, vc string) {
	t.Helper()
	opts, err := p.Target(t, vc, "PLAIN", "dev-"+vc, "dev-secret").KgoOpts()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	s.gateway, s.vc, s.opts, s.client, s.admin = p, vc, opts, client, kadm.NewClient(client)
}

// alias puts an alias in place, or with an empty spec takes it away.
func (s *spanned) alias(t *testing.T, name, spec string) {
	t.Helper()
	s.aliases.mu.Lock()
	defer s.aliases.mu.Unlock()
	s.aliases.specs[s.vc+"/"+name] = spec
	var b strings.Builder
	for key, spec := range s.aliases.specs {
		vc, alias, _ := strings.Cut(key, "/")
		if spec != "" {
			fmt.Fprintf(&b, "---\n{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: %s, virtualCluster: %s}, spec: {%s}}\n", alias, vc, spec)
		}
	}
	s.gateway.Write(t, "aliases.yaml", b.String())
}

// onWest is the spec of an alias of a topic there.
func onWest(topic string) string { return "cluster: west, topic: stubbed." + topic }

// create makes a physical topic and returns its id.
func (s *spanned) create(t *testing.T, cluster *kadm.Client, name string, partitions int32) [16]byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	made, err := cluster.CreateTopic(ctx, partitions, 1, nil, "stubbed."+name)
	if err != nil {
		t.Fatal(err)
	}
	return made.ID
}

// metadata is what the brokers behind client say of a topic; an unknown one has no
// partitions.
func metadata(ctx context.Context, broker interface {
	Request(context.Context, kmsg.Request) (kmsg.Response, error)
}, topic string,
) (id [16]byte, partitions int, err error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 12
	req.Topics = []kmsg.MetadataRequestTopic{{Topic: &topic}}
	resp, err := broker.Request(ctx, req)
	if err != nil {
		return id, 0, err
	}
	rt := resp.(*kmsg.MetadataResponse).Topics[0]
	if rt.ErrorCode != 0 && rt.ErrorCode != kerr.UnknownTopicOrPartition.Code {
		return id, 0, fmt.Errorf("metadata of %s: %w", topic, kerr.ErrorForCode(rt.ErrorCode))
	}
	return rt.TopicID, len(rt.Partitions), nil
}

// shows waits until the virtual cluster shows a topic with so many partitions, and
// returns its id.
func (s *spanned) shows(t *testing.T, topic string, partitions int) [16]byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	var id [16]byte
	err := load.Wait(ctx, func() error {
		got, n, err := metadata(ctx, s.client, topic)
		if err == nil && n != partitions {
			err = fmt.Errorf("%d partitions, want %d", n, partitions)
		}
		id = got
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v\n%s", topic, err, s.said(t))
	}
	return id
}

// said are the gateway's lines about stubs.
func (s *spanned) said(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(s.gateway.Log)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, "stub") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// stubOf is the name of a stub.
func (s *spanned) stubOf(alias string, identity [16]byte) string {
	return s.vc + ".__tg.stub." + alias + "." + base64.RawURLEncoding.EncodeToString(identity[:])
}

// commit commits the same offset for every partition, as a consumer without a group
// does.
func (s *spanned) commit(ctx context.Context, group, topic string, partitions int, offset int64) error {
	offsets := make(kadm.Offsets)
	for p := range partitions {
		offsets.AddOffset(topic, int32(p), offset, -1)
	}
	resp, err := s.admin.CommitOffsets(ctx, group, offsets)
	if err != nil {
		return err
	}
	return resp.Error()
}

// committed are the offsets of a group in a topic, by partition; -1: none.
func (s *spanned) committed(t *testing.T, cluster *kadm.Client, group, topic string, partitions int) []int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	resp, err := cluster.FetchOffsets(ctx, group)
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		t.Fatalf("offsets of %s: %v", group, err)
	}
	out := slices.Repeat([]int64{-1}, partitions)
	for p := range out {
		if o, ok := resp.Lookup(topic, int32(p)); ok {
			out[p] = o.At
		}
	}
	return out
}

// wantCommitted compares.
func (s *spanned) wantCommitted(t *testing.T, group, topic string, want ...int64) {
	t.Helper()
	if got := s.committed(t, s.admin, group, topic, len(want)); !slices.Equal(got, want) {
		t.Errorf("group %s has offsets %v of %s, want %v", group, got, topic, want)
	}
}

func TestStubTopics(t *testing.T) {
	t.Parallel()
	for _, version := range kafkatest.Versions() {
		t.Run("home on "+version, func(t *testing.T) {
			pair := pairs[version].Get(t)
			p := gateway.Start(t, nil, map[string]string{
				"clusters.yaml": upstreamsOf(pair.Main, pair.West), "tenant.yaml": stubResources, "aliases.yaml": "", "dev.secret": "dev-secret\n",
			})
			file := &aliasFile{specs: make(map[string]string)}
			on := func(vc string) *spanned {
				s := &spanned{home: pair.Main, aliases: file, main: kadm.NewClient(pair.Main.Client(t)), west: kadm.NewClient(pair.West.Client(t))}
				s.before(t, p, vc)
				return s
			}
			s := on("stubs")
			t.Run("come before their aliases", func(t *testing.T) { stubsComeFirst(t, s) })
			t.Run("grow before their aliases, under a classic group", func(t *testing.T) { stubsGrow(t, s, "classic") })
			if version == kafkatest.V4 {
				t.Run("grow before their aliases, under a consumer group", func(t *testing.T) { stubsGrow(t, s, "consumer") })
			}
			t.Run("are made again when somebody deletes them", func(t *testing.T) { stubsAreRepaired(t, s) })
			t.Run("keep offsets while their alias is away", func(t *testing.T) { stubsKeepOffsets(t, s) })
			t.Run("begin anew with a topic that was made again", func(t *testing.T) { stubsBeginAnew(t, s) })
			t.Run("stay with a topic that moves", func(t *testing.T) { stubsStay(t, s) })
			t.Run("go when their alias has been away for long", func(t *testing.T) { stubsGo(t, on("brief")) })
		})
	}
}

// Whoever sees an alias can commit offsets for it at once, whichever broker of home
// coordinates the group; and nobody sees the stub.
func stubsComeFirst(t *testing.T, s *spanned) {
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	for i := range 5 {
		name := fmt.Sprint("first-", i)
		id := s.create(t, s.west, name, 3)
		s.alias(t, name, onWest(name))
		s.shows(t, name, 3)
		client := s.home.Client(t)
		for _, b := range s.home.Brokers() {
			_, n, err := metadata(ctx, client.Broker(int(b.ID)), s.stubOf(name, id))
			if err != nil || n != 3 {
				t.Errorf("broker %d: the stub has %d partitions while its alias is shown: %v", b.ID, n, err)
			}
		}
		for j := range 4 { // on several coordinators
			if err := s.commit(ctx, fmt.Sprintf("%s-%d", name, j), name, 3, 7); err != nil {
				t.Errorf("commit at once: %v", err)
			}
		}
	}
	s.wantCommitted(t, "first-0-0", "first-0", 7, 7, 7)
	topics, err := s.admin.ListTopicsWithInternal(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for name := range topics {
		if strings.Contains(name, "__tg") {
			t.Errorf("a client sees %s", name)
		}
	}
	for _, name := range []string{"__tg.stub.first-0", strings.TrimPrefix(s.stubOf("first-0", [16]byte{}), "stubs.")} {
		if _, n, err := metadata(ctx, s.client, name); err == nil && n > 0 {
			t.Errorf("a client sees %s", name)
		}
	}
}

// reader is a member of a group.
type reader struct {
	client *kgo.Client
	stop   context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	count map[int32]int // records by partition
	err   error
}

// read joins a group as one more member.
func (s *spanned) read(t *testing.T, protocol, group, topic string) *reader {
	t.Helper()
	opts := append(slices.Clone(s.opts), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(200*time.Millisecond), kgo.MetadataMaxAge(time.Second), kgo.HeartbeatInterval(500*time.Millisecond), kgo.AutoCommitInterval(200*time.Millisecond))
	if protocol == "consumer" {
		opts = append(opts, kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer()))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &reader{client: client, stop: stop, done: make(chan struct{}), count: make(map[int32]int)}
	go func() {
		defer close(r.done)
		for ctx.Err() == nil {
			fetches := client.PollFetches(ctx)
			r.mu.Lock()
			for _, e := range fetches.Errors() {
				if lost := new(kgo.ErrGroupSession); !errors.As(e.Err, &lost) && !errors.Is(e.Err, context.Canceled) && r.err == nil {
					r.err = e.Err
				}
			}
			fetches.EachRecord(func(rec *kgo.Record) { r.count[rec.Partition]++ })
			r.mu.Unlock()
		}
	}()
	t.Cleanup(r.end)
	return r
}

func (r *reader) end() {
	r.stop()
	<-r.done
	r.client.CloseAllowingRebalance()
}

func (r *reader) saw() (map[int32]int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[int32]int, len(r.count))
	for p, n := range r.count {
		out[p] = n
	}
	return out, r.err
}

// produce writes n records to each of the partitions, straight to the cluster.
func produceTo(t *testing.T, c *kafkatest.Cluster, topic string, n int, partitions ...int32) {
	t.Helper()
	client := c.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	for _, p := range partitions {
		for i := range n {
			if err := client.ProduceSync(ctx, &kgo.Record{Topic: "stubbed." + topic, Partition: p, Value: fmt.Append(nil, i)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// wantRead waits until the members together have read so many records of each
// partition, at least.
func wantRead(t *testing.T, n int, partitions int, members ...*reader) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	err := load.Wait(ctx, func() error {
		total := make([]int, partitions)
		for _, m := range members {
			count, err := m.saw()
			if err != nil {
				t.Fatal(err)
			}
			for p, k := range count {
				total[p] += k
			}
		}
		if slices.Min(total) < n {
			return fmt.Errorf("records read by partition: %v, want %d each", total, n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// watched fails the test if a topic ever has fewer partitions than it had.
func (s *spanned) watched(t *testing.T, topic string) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for had := 0; ctx.Err() == nil; {
			_, n, err := metadata(ctx, s.client, topic)
			if ctx.Err() != nil {
				return
			}
			if err != nil || n < had {
				t.Errorf("%s has %d partitions, had %d: %v", topic, n, had, err)
			}
			had = n
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond): // between two looks
			}
		}
	}()
	return func() { cancel(); <-done }
}

// Partitions that a topic on another cluster gets are shared among the members of a
// running group, which commits their offsets.
func stubsGrow(t *testing.T, s *spanned, protocol string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*load.Patience)
	defer cancel()
	name := "grows-" + protocol
	id := s.create(t, s.west, name, 2)
	s.alias(t, name, onWest(name))
	s.shows(t, name, 2)
	defer s.watched(t, name)()
	members := []*reader{s.read(t, protocol, name, name), s.read(t, protocol, name, name)}
	west := pairs[s.home.Options.Version].Get(t).West
	produceTo(t, west, name, 3, 0, 1)
	wantRead(t, 3, 2, members...)
	if resp, err := s.west.CreatePartitions(ctx, 3, "stubbed."+name); err != nil || resp.Error() != nil {
		t.Fatal(err, resp)
	}
	s.shows(t, name, 5)
	produceTo(t, west, name, 3, 0, 1, 2, 3, 4)
	wantRead(t, 3, 5, members...)
	err := load.Wait(ctx, func() error {
		got := s.committed(t, s.main, "stubs."+name, s.stubOf(name, id), 5)
		if slices.Equal(got, []int64{6, 6, 3, 3, 3}) {
			return nil
		}
		return fmt.Errorf("committed on home: %v", got)
	})
	if err != nil {
		t.Error(err)
	}
	s.wantCommitted(t, name, name, 6, 6, 3, 3, 3)
	if got := s.committed(t, s.west, "stubs."+name, "stubbed."+name, 5); slices.Max(got) >= 0 {
		t.Errorf("committed on west: %v", got)
	}
}

// A stub that is deleted by hand is there again after some seconds; meanwhile the
// alias stays, and whoever reads it goes on.
func stubsAreRepaired(t *testing.T, s *spanned) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*load.Patience)
	defer cancel()
	id := s.create(t, s.west, "lost", 2)
	s.alias(t, "lost", onWest("lost"))
	s.shows(t, "lost", 2)
	defer s.watched(t, "lost")()
	member := s.read(t, "classic", "lost", "lost")
	west := pairs[s.home.Options.Version].Get(t).West
	produceTo(t, west, "lost", 3, 0, 1)
	wantRead(t, 3, 2, member)
	if err := s.commit(ctx, "lost-by-hand", "lost", 2, 1); err != nil {
		t.Fatal(err)
	}
	stub := s.stubOf("lost", id)
	client := s.home.Client(t)
	old, _, err := metadata(ctx, client, stub)
	if err != nil || old == ([16]byte{}) {
		t.Fatal("no stub:", err)
	}
	if resp, err := s.main.DeleteTopics(ctx, stub); err != nil || resp.Error() != nil {
		t.Fatal(err, resp)
	}
	err = load.Wait(ctx, func() error {
		now, n, err := metadata(ctx, client, stub)
		if err == nil && (n != 2 || now == old) {
			err = fmt.Errorf("id %x with %d partitions", now, n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = load.Wait(ctx, func() error { return s.commit(ctx, "lost-by-hand", "lost", 2, 2) })
	if err != nil {
		t.Fatal(err)
	}
	s.wantCommitted(t, "lost-by-hand", "lost", 2, 2)
	produceTo(t, west, "lost", 3, 0, 1)
	wantRead(t, 6, 2, member)
	err = load.Wait(ctx, func() error {
		if got := s.committed(t, s.admin, "lost", "lost", 2); !slices.Equal(got, []int64{6, 6}) {
			return fmt.Errorf("committed: %v", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if !strings.Contains(s.said(t), "TG-STUB-004") {
		t.Errorf("the gateway did not say that a stub was lost:\n%s", s.said(t))
	}
}

// An alias that was taken away by mistake comes back with its offsets, and with the
// same topic id.
func stubsKeepOffsets(t *testing.T, s *spanned) {
	s.create(t, s.west, "away", 2)
	s.alias(t, "away", onWest("away"))
	before := s.shows(t, "away", 2)
	if err := s.commit(t.Context(), "away", "away", 2, 7); err != nil {
		t.Fatal(err)
	}
	s.alias(t, "away", "")
	s.shows(t, "away", 0)
	s.alias(t, "away", onWest("away"))
	if now := s.shows(t, "away", 2); now != before {
		t.Errorf("topic id %x, was %x", now, before)
	}
	s.wantCommitted(t, "away", "away", 7, 7)
}

// A topic that was deleted on its cluster and made again is another one, as on a
// single cluster.
func stubsBeginAnew(t *testing.T, s *spanned) {
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	s.create(t, s.west, "anew", 2)
	s.alias(t, "anew", onWest("anew"))
	before := s.shows(t, "anew", 2)
	if err := s.commit(ctx, "anew", "anew", 2, 7); err != nil {
		t.Fatal(err)
	}
	if resp, err := s.west.DeleteTopics(ctx, "stubbed.anew"); err != nil || resp.Error() != nil {
		t.Fatal(err, resp)
	}
	s.shows(t, "anew", 0)
	s.create(t, s.west, "anew", 1)
	if now := s.shows(t, "anew", 1); now == before {
		t.Error("it has the id of the deleted one")
	}
	s.wantCommitted(t, "anew", "anew", -1, -1)
	if err := s.commit(ctx, "anew", "anew", 1, 3); err != nil {
		t.Fatal(err)
	}
	s.wantCommitted(t, "anew", "anew", 3)
}

// An alias that is pointed at a copy of its topic keeps offsets and topic id if the
// operator says that it is the same, wherever the copy is; else it is a new topic.
func stubsStay(t *testing.T, s *spanned) {
	identity := func(id [16]byte) string { return ", identity: " + base64.RawURLEncoding.EncodeToString(id[:]) }
	id := s.create(t, s.west, "moves", 2)
	s.create(t, s.west, "moves-2", 3)
	s.create(t, s.main, "moves-3", 3)
	s.alias(t, "moves", onWest("moves"))
	before := s.shows(t, "moves", 2)
	if err := s.commit(t.Context(), "moves", "moves", 2, 7); err != nil {
		t.Fatal(err)
	}
	same := func(spec string) {
		t.Helper()
		s.alias(t, "moves", spec+identity(id))
		if now := s.shows(t, "moves", 3); now != before {
			t.Errorf("topic id %x, was %x", now, before)
		}
		s.wantCommitted(t, "moves", "moves", 7, 7, -1)
	}
	same(onWest("moves-2"))
	same("cluster: main, topic: stubbed.moves-3")
	same(onWest("moves-2"))
	s.alias(t, "moves", onWest("moves-2"))
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	err := load.Wait(ctx, func() error {
		if now, n, err := metadata(ctx, s.client, "moves"); err != nil || n != 3 || now == before {
			return fmt.Errorf("%d partitions, id %x: %w", n, now, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.wantCommitted(t, "moves", "moves", -1, -1, -1)

	// From home to another cluster, its offsets stay with the topic on home.
	id = s.create(t, s.main, "leaves", 2)
	s.create(t, s.west, "leaves", 2)
	s.alias(t, "leaves", "cluster: main, topic: stubbed.leaves")
	before = s.shows(t, "leaves", 2)
	// Brokers learn of a topic of their own at different moments; no stub helps here.
	if err := load.Wait(ctx, func() error { return s.commit(ctx, "leaves", "leaves", 2, 7) }); err != nil {
		t.Fatal(err)
	}
	s.alias(t, "leaves", onWest("leaves")+identity(id))
	west := pairs[s.home.Options.Version].Get(t).West
	produceTo(t, west, "leaves", 1, 0)
	err = load.Wait(ctx, func() error {
		end, err := s.admin.ListEndOffsets(ctx, "leaves")
		if o, _ := end.Lookup("leaves", 0); err == nil && (o.Err != nil || o.Offset != 1) {
			err = fmt.Errorf("end offset %d: %w", o.Offset, o.Err)
		}
		return err
	})
	if err != nil {
		t.Fatal("the alias does not stand for the topic on west:", err)
	}
	if now := s.shows(t, "leaves", 2); now != before {
		t.Errorf("topic id %x, was %x", now, before)
	}
	s.wantCommitted(t, "leaves", "leaves", 7, 7)
}

// A stub is deleted when its alias has been away for longer than it is kept, and with
// it the offsets.
func stubsGo(t *testing.T, s *spanned) {
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	stays, goes := s.create(t, s.west, "stays", 1), s.create(t, s.west, "goes", 1)
	for _, name := range []string{"stays", "goes"} {
		s.alias(t, name, onWest(name))
		s.shows(t, name, 1)
		if err := s.commit(ctx, name, name, 1, 7); err != nil {
			t.Fatal(err)
		}
	}
	s.alias(t, "goes", "")
	client := s.home.Client(t)
	err := load.Wait(ctx, func() error {
		_, n, err := metadata(ctx, client, s.stubOf("goes", goes))
		if err == nil && n != 0 {
			err = errors.New("the stub is there still")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, n, err := metadata(ctx, client, s.stubOf("stays", stays)); err != nil || n != 1 {
		t.Errorf("the other stub has %d partitions: %v", n, err)
	}
	s.alias(t, "goes", onWest("goes"))
	s.shows(t, "goes", 1)
	s.wantCommitted(t, "goes", "goes", -1)
	s.wantCommitted(t, "stays", "stays", 7)
}
