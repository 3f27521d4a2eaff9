package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
)

// bed is a Redis with a portal and a proxy at it.
type bed struct {
	redis     *miniredis.Miniredis
	client    redis.UniversalClient
	signer    *bundle.Signer
	publisher *Publisher
	reader    *Reader
}

const eu Deployment = "eu"

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{redis: miniredis.RunT(t)}
	var err error
	if b.signer, err = bundle.NewSigner(); err != nil {
		t.Fatal(err)
	}
	if b.client, err = Open("redis://"+b.redis.Addr(), secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.client.Close() })
	b.publisher = b.portal(t, b.signer, nil)
	if b.reader, err = NewReader(b.client, eu, b.signer.Keyring()); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bed) portal(t *testing.T, signer *bundle.Signer, trusted bundle.Keyring) *Publisher {
	t.Helper()
	p, err := NewPublisher(b.client, eu, signer, trusted)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// of is a virtual cluster that claims hosts.
func of(name string, revision int64, hosts ...string) *bundle.Bundle {
	spec := resource.VirtualClusterSpec{Host: hosts[0], CustomHosts: hosts[1:], Home: "home"}
	return &bundle.Bundle{
		Deployment: string(eu), ID: bundle.ID{Kind: bundle.VirtualCluster, Name: name}, Revision: revision,
		Objects: bundle.Objects{
			&resource.Tenant{Metadata: resource.Metadata{Name: "acme"}},
			&resource.VirtualCluster{Metadata: resource.Metadata{Name: name, Tenant: "acme"}, Spec: spec},
		},
	}
}

func vc(name string) bundle.ID { return bundle.ID{Kind: bundle.VirtualCluster, Name: name} }

// revision is that of the bundle that Redis has, opened.
func (b *bed) revision(t *testing.T, id bundle.ID) int64 {
	t.Helper()
	found, err := b.reader.Bundles(t.Context(), []Want{{id, 0}})
	if err != nil {
		t.Fatal(err)
	}
	if !found[0].There {
		return 0
	}
	opened, err := b.reader.keys.Open(found[0].Data, string(eu), id)
	if err != nil {
		t.Fatalf("%v: %v", id, err)
	}
	return opened.Revision
}

func (b *bed) put(t *testing.T, bundles ...*bundle.Bundle) {
	t.Helper()
	if err := b.publisher.Put(t.Context(), bundles...); err != nil {
		t.Fatal(err)
	}
}

func (b *bed) leads(t *testing.T, host, want string) {
	t.Helper()
	if got, err := b.reader.Host(t.Context(), host); err != nil || got != want {
		t.Errorf("host %s leads to %q, %v, want %q", host, got, err, want)
	}
}

func TestWhatIsNewerStays(t *testing.T) {
	b := newBed(t)
	b.put(t, of("a", 10, "a"))
	b.put(t, of("a", 9, "old"))
	if got := b.revision(t, vc("a")); got != 10 {
		t.Errorf("revision %d after one of 9 was put, want 10", got)
	}
	b.leads(t, "old", "")
	b.put(t, of("a", 11, "a"))
	if got := b.revision(t, vc("a")); got != 11 {
		t.Errorf("revision %d, want 11", got)
	}
	found, err := b.reader.Bundles(t.Context(), []Want{{vc("a"), 11}, {vc("none"), 0}, {vc("a"), 10}})
	if err != nil || !found[0].There || found[0].Data != nil || found[1].There || found[1].Data != nil || found[2].Data == nil {
		t.Errorf("Bundles = %v, %v: want nothing newer, nothing, and one", found, err)
	}
}

func TestManyAtOnce(t *testing.T) {
	b := newBed(t)
	var bundles []*bundle.Bundle
	var changes []Change
	for i := range 2*batch + 7 {
		name := fmt.Sprintf("vc-%d", i)
		bundles = append(bundles, of(name, int64(i+1), name))
		changes = append(changes, Change{vc(name), int64(i + 1)})
	}
	b.put(t, bundles...)
	if err := b.publisher.Announce(t.Context(), changes...); err != nil {
		t.Fatal(err)
	}
	for _, one := range bundles {
		b.leads(t, one.Name, one.Name)
	}
	after, n := Start, 0
	for {
		entries, err := b.reader.Follow(t.Context(), after, time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			if e.After != after || e.Change == nil || *e.Change != changes[n] {
				t.Fatalf("entry %d is %+v, want %+v after %s", n, e, changes[n], after)
			}
			after = e.Position
			n++
		}
	}
	if n != len(changes) {
		t.Errorf("%d entries, want %d", n, len(changes))
	}
}

func TestHostsGoWhereTheBundlesGo(t *testing.T) {
	b := newBed(t)
	b.put(t, of("a", 1, "a", "kafka.a.example"), of("b", 2, "b"))
	b.leads(t, "a", "a")
	b.leads(t, "kafka.a.example", "a")
	b.leads(t, "b", "b")
	// One gives a host up and the other takes it, in one batch, whatever the order.
	b.put(t, of("b", 4, "b", "kafka.a.example"), of("a", 3, "a2"))
	b.leads(t, "a", "")
	b.leads(t, "a2", "a")
	b.leads(t, "kafka.a.example", "b")
	// An old change of the first, late.
	b.put(t, of("a", 1, "a", "kafka.a.example"))
	b.leads(t, "kafka.a.example", "b")
	// It goes.
	b.put(t, &bundle.Bundle{Deployment: string(eu), ID: vc("b"), Revision: 5, Deleted: true})
	b.leads(t, "b", "")
	b.leads(t, "kafka.a.example", "")
	b.leads(t, "a2", "a")
}

// Whoever can write to Redis can do harm to it, and the next look of a portal mends it.
func TestWhatIsNotOursIsReplaced(t *testing.T) {
	b := newBed(t)
	b.put(t, of("a", 10, "a"))
	other, err := bundle.NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := other.SealBundle(of("a", 99, "a"))
	if err != nil {
		t.Fatal(err)
	}
	older, err := b.signer.SealBundle(of("a", 3, "a"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{"forged": string(theirs), "older": string(older), "cut": string(older[:50]), "nothing": "", "words": "x"} {
		for _, revision := range []string{"99", "900719925474099", "x", ""} {
			b.redis.HSet(eu.bundle(vc("a")), "revision", revision, "data", data)
			b.put(t, of("a", 10, "a"))
			if got := b.revision(t, vc("a")); got != 10 {
				t.Errorf("%s bundle, said to be of revision %q: %d is there, want 10", name, revision, got)
			}
			b.redis.HSet(eu.head(), "revision", revision, "data", data)
			if err := b.publisher.SetHead(t.Context(), 10); err != nil {
				t.Fatal(err)
			}
			if h, err := b.publisher.Head(t.Context()); err != nil || h.Revision != 10 {
				t.Errorf("%s head, said to be of revision %q: %v, %v, want 10", name, revision, h, err)
			}
		}
	}
	// A host that is said to be of somebody who does not claim it, later than ours.
	b.put(t, of("b", 11, "b"))
	for _, name := range []string{"b", "none"} {
		b.redis.HSet(eu.host("a"), "revision", "900", "data", name)
		b.put(t, of("a", 10, "a"))
		b.leads(t, "a", "a")
	}
}

func TestAHeadThatIsNone(t *testing.T) {
	b := newBed(t)
	if h, err := b.publisher.Head(t.Context()); err != nil || h.Revision != 0 {
		t.Errorf("Head of an empty Redis = %v, %v", h, err)
	}
	us, err := NewPublisher(b.client, "us", b.signer, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := us.SetHead(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	data := b.redis.HGet(Deployment("us").head(), "data")
	b.redis.HSet(eu.head(), "revision", "5", "data", data)
	if _, err := b.publisher.Head(t.Context()); !errors.Is(err, bundle.Foreign) {
		t.Errorf("Head of another deployment: %v", err)
	}
	b.redis.HSet(eu.head(), "data", data[:20])
	if _, err := b.publisher.Head(t.Context()); !errors.Is(err, bundle.Truncated) {
		t.Errorf("half a head: %v", err)
	}
}

func TestTheHeadOnlyRises(t *testing.T) {
	b := newBed(t)
	for _, r := range []int64{7, 5, 7, 9} {
		if err := b.publisher.SetHead(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := b.reader.Follow(t.Context(), Start, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	var heads []int64
	for _, e := range entries {
		h, err := OpenHead(b.reader.keys, eu, e.Head)
		if err != nil {
			t.Fatal(err)
		}
		heads = append(heads, h.Revision)
	}
	if !slices.Equal(heads, []int64{7, 9}) {
		t.Errorf("heads announced: %v, want 7 and 9", heads)
	}
}

// Redis is emptied, or brought back from a copy, between the look of a portal at the
// head and its setting of it: the head must not stand above what is not there.
func TestAHeadIsNotSetOnWhatWasLost(t *testing.T) {
	b := newBed(t)
	advance := func(from, to int64, want error, head int64) {
		t.Helper()
		if err := b.publisher.Advance(t.Context(), from, Head{Revision: to}); !errors.Is(err, want) {
			t.Errorf("Advance(%d, %d): %v, want %v", from, to, err, want)
		}
		if h, err := b.publisher.Head(t.Context()); err != nil || h.Revision != head {
			t.Errorf("head is %v, %v after Advance(%d, %d), want %d", h, err, from, to, head)
		}
	}
	advance(0, 5, nil, 5)
	advance(5, 6, nil, 6)
	advance(5, 6, nil, 6) // the other portal was first
	old := b.redis.HGet(eu.head(), "data")
	advance(6, 9, nil, 9)
	b.redis.FlushAll()
	advance(9, 10, ErrForgot, 0)
	advance(0, 10, nil, 10)
	b.redis.HSet(eu.head(), "revision", "6", "data", old)
	advance(10, 11, ErrForgot, 6)
	advance(6, 11, nil, 11)
	// Somebody has written into it what is not so.
	b.redis.HSet(eu.head(), "revision", "3")
	advance(11, 12, nil, 12)
	b.redis.HSet(eu.head(), "revision", "x")
	advance(12, 13, nil, 13)
}

// Both portals publish the same changes at once, as when one is being replaced: with
// keys of their own, that each knows of.
func TestTwoPortals(t *testing.T) {
	b := newBed(t)
	second, err := bundle.NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	b.reader.keys = b.signer.Keyring()
	for id, key := range second.Keyring() {
		b.reader.keys[id] = key
	}
	var wg sync.WaitGroup
	for _, s := range []*bundle.Signer{b.signer, second} {
		p := b.portal(t, s, b.reader.keys)
		wg.Go(func() {
			for r := int64(1); r <= 30; r++ {
				err := errors.Join(
					p.Put(t.Context(), of("a", r, fmt.Sprintf("a%d", r))),
					p.Announce(t.Context(), Change{vc("a"), r}),
					p.SetHead(t.Context(), r),
				)
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := b.revision(t, vc("a")); got != 30 {
		t.Errorf("revision %d, want 30", got)
	}
	if h, err := b.publisher.Head(t.Context()); h.Revision != 30 && err == nil {
		t.Errorf("head %v, want 30", h)
	}
	b.leads(t, "a30", "a")
	entries, err := b.reader.Follow(t.Context(), Start, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	after := Start
	for i, e := range entries {
		if e.After != after {
			t.Errorf("entry %d comes after %s, and says after %s", i, after, e.After)
		}
		after = e.Position
	}
}

func TestCommands(t *testing.T) {
	b := newBed(t)
	started := time.Now()
	want := Command{Deployment: eu, Node: "n1", Started: started, Action: Drain, Over: time.Minute}
	if err := b.publisher.Send(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	entries, err := b.reader.Follow(t.Context(), Start, time.Millisecond)
	if err != nil || len(entries) != 1 {
		t.Fatalf("Follow = %v, %v", entries, err)
	}
	got, err := OpenCommand(b.reader.keys, eu, entries[0].Command)
	if err != nil || got.Node != "n1" || !got.Started.Equal(started) || got.Action != Drain || got.Over != time.Minute || got.ID == "" {
		t.Errorf("OpenCommand = %+v, %v, want %+v", got, err, want)
	}
	if _, err := OpenCommand(b.reader.keys, "us", entries[0].Command); !errors.Is(err, bundle.Foreign) {
		t.Errorf("a command of another deployment: %v", err)
	}
	if _, err := OpenHead(b.reader.keys, eu, entries[0].Command); !errors.Is(err, bundle.Forged) {
		t.Errorf("a command in the place of a head: %v", err)
	}
}

func TestNodes(t *testing.T) {
	b := newBed(t)
	node := func(id string) Node {
		return Node{ID: id, Host: "10.0.0.1", Port: 9092, State: NodeServing, Started: time.Now(), Heartbeat: time.Now()}
	}
	beat := func(n Node, owner string) *Node {
		t.Helper()
		rival, err := b.reader.Heartbeat(t.Context(), n, owner)
		if err != nil {
			t.Fatal(err)
		}
		return rival
	}
	ids := func() string {
		t.Helper()
		nodes, err := b.publisher.Nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, n := range nodes {
			list = append(list, n.ID+" "+string(n.State))
		}
		slices.Sort(list)
		return strings.Join(list, ", ")
	}
	if got := ids(); got != "" {
		t.Errorf("nodes: %s", got)
	}
	beat(node("n1"), "p")
	beat(node("n2"), "q")
	impostor := node("n1")
	impostor.Host = "10.0.0.2"
	if rival := beat(impostor, "r"); rival == nil || rival.Host != "10.0.0.1" {
		t.Errorf("another process of n1: %v, want to be told of the first", rival)
	}
	if got := ids(); got != "n1 serving, n2 serving" {
		t.Errorf("nodes: %s", got)
	}
	// What is no record is nobody's, and does not hide the others.
	b.redis.HSet(eu.node("n3"), "record", "{")
	b.redis.ZAdd(eu.nodes(), 1, "n3")
	b.redis.HSet(eu.node("n4"), "record", `{"id":"n1","host":"evil"}`)
	b.redis.ZAdd(eu.nodes(), 1, "n4")
	if got := ids(); got != "n1 serving, n2 serving" {
		t.Errorf("nodes: %s", got)
	}
	if err := b.reader.Leave(t.Context(), node("n1"), "r"); err != nil {
		t.Fatal(err)
	}
	if err := b.reader.Leave(t.Context(), node("n2"), "q"); err != nil {
		t.Fatal(err)
	}
	if got := ids(); got != "n1 serving, n2 gone" {
		t.Errorf("after n2 left, and an impostor of n1: %s", got)
	}
	if rival := beat(node("n2"), "s"); rival != nil {
		t.Errorf("n2 left, and another process is told of %v", rival)
	}
	b.redis.FastForward(NodeTTL - time.Second)
	beat(node("n2"), "s")
	b.redis.FastForward(2 * time.Second)
	if got := ids(); got != "n2 serving" {
		t.Errorf("n1 is silent: %s", got)
	}
	if rival := beat(impostor, "r"); rival != nil {
		t.Errorf("n1 is silent for long, and another process is told of %v", rival)
	}
	b.redis.ZAdd(eu.nodes(), float64(time.Now().Add(-2*forgetAfter).UnixMilli()), "n5")
	ids()
	if known, err := b.redis.ZMembers(eu.nodes()); err != nil || slices.Contains(known, "n5") {
		t.Error("n5 was silent for hours, and is not forgotten")
	}
}

func TestPositions(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{Start, "1-0", true},
		{"1-0", "1-1", true},
		{"9-5", "10-0", true},
		{"1-0", "1-0", false},
		{"10-0", "9-9", false},
		{"", "1-0", true},
		{"1-0", "", false},
	} {
		if got := Behind(c.a, c.b); got != c.want {
			t.Errorf("Behind(%s, %s) = %v", c.a, c.b, got)
		}
	}
}

func TestDeploymentsHaveNames(t *testing.T) {
	for d, ok := range map[Deployment]bool{"eu": true, "EU-1_b": true, "0": true, "": false, "a:b": false, "a{b}": false, "ä": false, Deployment(strings.Repeat("a", 64)): false} {
		if err := d.Check(); (err == nil) != ok {
			t.Errorf("Check(%q) = %v", d, err)
		}
	}
}

func TestURLs(t *testing.T) {
	for ref, want := range map[string]string{
		"redis://h:1/2":                                  "*redis.Client",
		"rediss://u:p@h:1":                               "*redis.Client",
		"unix:///run/redis.sock?db=3":                    "*redis.Client",
		"redis://h:1?master_name=m&addr=i:2&addr=j:3":    "*redis.Client", // that asks the Sentinels
		"rediss://u:p@h:1?addr=i:2&read_timeout=7s":      "*redis.ClusterClient",
		"redis://h:1?addr=h:1":                           "*redis.ClusterClient",
		"redis://user:hunter2@h:1?colour=red":            "",
		"redis://user:hunter2@h:x":                       "",
		"redis://user:hunter2@h:1?master_name=m&db=zero": "",
		"http://user:hunter2@h":                          "",
		"hunter2":                                        "",
		"":                                               "",
	} {
		c, err := Open(ref, secret.New("other"))
		if err != nil {
			if want != "" || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("Open(%s): %v", ref, err)
			}
			continue
		}
		if got := fmt.Sprintf("%T", c); got != want {
			t.Errorf("Open(%s) = %s, want %s", ref, got, want)
		}
		c.Close()
	}
	for ref, want := range map[string]string{
		"redis://user:hunter2@h:1/2":                            "redis://h:1/2",
		"unix://user:hunter2@/run/redis.sock":                   "unix:///run/redis.sock",
		"redis://h:1?master_name=m&username=u&password=hunter2": "redis://h:1",
		"redis://user:hunter2@h:\x00":                           "redis",
	} {
		if got := URLName(ref); got != want {
			t.Errorf("URLName(%q) = %s, want %s", ref, got, want)
		}
	}
}

// A password beside the URL counts more than the one in it.
func TestPassword(t *testing.T) {
	r := miniredis.RunT(t)
	r.RequireAuth("s3cret")
	for _, c := range []struct {
		ref, password string
		ok            bool
	}{{"redis://:wrong@", "s3cret", true}, {"redis://:s3cret@", "", true}, {"redis://:s3cret@", "wrong", false}, {"redis://", "", false}} {
		client, err := Open(c.ref+r.Addr(), secret.New(c.password))
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Ping(t.Context()).Err(); (err == nil) != c.ok {
			t.Errorf("%s beside %q: %v", c.ref, c.password, err)
		}
		client.Close()
	}
}

func TestRedisThatIsAway(t *testing.T) {
	b := newBed(t)
	b.put(t, of("a", 1, "a"))
	b.redis.SetError("LOADING Redis is loading the dataset in memory")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for what, err := range map[string]error{
		"Put":      b.publisher.Put(ctx, of("a", 2, "a")),
		"Announce": b.publisher.Announce(ctx, Change{vc("a"), 2}),
		"SetHead":  b.publisher.SetHead(ctx, 2),
		"Send":     b.publisher.Send(ctx, Command{}),
		"Head":     second(b.publisher.Head(ctx)),
		"Nodes":    second(b.publisher.Nodes(ctx)),
		"Bundles":  second(b.reader.Bundles(ctx, []Want{{vc("a"), 0}})),
		"Host":     second(b.reader.Host(ctx, "a")),
		"Tail":     second(b.reader.Tail(ctx)),
		"Follow":   second(b.reader.Follow(ctx, Start, time.Millisecond)),
		"Beat":     second(b.reader.Heartbeat(ctx, Node{ID: "n"}, "o")),
		"Leave":    b.reader.Leave(ctx, Node{ID: "n"}, "o"),
	} {
		if err == nil || !strings.Contains(err.Error(), "LOADING") || !strings.Contains(err.Error(), "tollgate:eu:") {
			t.Errorf("%s: %v, want the key and what Redis says", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
