package stub

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

const prefix = "acme."

// bed is home, of three brokers, and a foreign cluster, in a bubble with a clock of
// its own.
type bed struct {
	t             *testing.T
	network       *kfake.VirtualNetwork
	home, foreign *kfake.Cluster
	homeUp        *upstream.Cluster
	foreignUp     *upstream.Cluster
	lines         *lines
}

// withBed runs f in a bubble.
func withBed(t *testing.T, f func(t *testing.T, b *bed), opts ...kfake.Opt) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bed{t: t, network: new(kfake.VirtualNetwork), lines: new(lines)}
		b.home = b.cluster([]int{19092, 19093, 19094}, opts...)
		b.foreign = b.cluster([]int{29092, 29093})
		b.homeUp = b.upstream("main", b.home)
		b.foreignUp = b.upstream("west", b.foreign)
		for _, c := range []*upstream.Cluster{b.homeUp, b.foreignUp} {
			if err := c.Tried(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		f(t, b)
	})
}

func (b *bed) cluster(ports []int, opts ...kfake.Opt) *kfake.Cluster {
	b.t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(len(ports)), kfake.Ports(ports...), kfake.ListenFn(b.network.Listen)}, opts...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(c.Close)
	return c
}

func (b *bed) upstream(name string, c *kfake.Cluster) *upstream.Cluster {
	up := upstream.New(upstream.Config{Name: name, Bootstrap: c.ListenAddrs(), Dial: b.network.DialContext})
	b.t.Cleanup(up.Close)
	return up
}

// keeper starts a keeper that ends with the test.
func (b *bed) keeper(settings Settings) *Keeper {
	log := slog.New(slog.NewTextHandler(io.MultiWriter(b.t.Output(), b.lines), &slog.HandlerOptions{Level: slog.LevelDebug}))
	k := New(Config{Home: b.homeUp, VirtualCluster: "acme", Prefix: prefix, Log: log, Settings: settings})
	b.t.Cleanup(k.Close)
	return k
}

// want is a stub for an alias of the foreign cluster.
func (b *bed) want(alias string, partitions int) Want {
	return Want{Alias: alias, Name: nameOf(alias), Partitions: partitions, Foreign: b.foreignUp}
}

func nameOf(alias string) string { return Name(prefix, alias, identityOf(alias)) }

func identityOf(alias string) (id [16]byte) {
	copy(id[:], alias)
	return id
}

// settle waits until everything is settled, for at most d of the bubble's time.
func settle(t *testing.T, k *Keeper, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := k.Wait(ctx); err != nil {
		t.Fatalf("not settled after %v: %+v", d, k.Status())
	}
}

// until waits until ok says so, and fails after d.
func until(t *testing.T, k *Keeper, d time.Duration, what string, ok func(s *Snapshot) bool) {
	t.Helper()
	timeout := time.NewTimer(d)
	defer timeout.Stop()
	for {
		s := k.Current()
		if ok(s) {
			return
		}
		select {
		case <-s.Changed():
		case <-timeout.C:
			t.Fatalf("%s: not within %v: %+v", what, d, k.Status())
		}
	}
}

// confirmed wants stubs of these partitions, by alias, and nothing refused.
func confirmed(t *testing.T, b *bed, k *Keeper, want map[string]int) {
	t.Helper()
	s := k.Current()
	for alias, n := range want {
		st, ok := s.Stub(nameOf(alias))
		info := b.home.TopicInfo(nameOf(alias))
		switch {
		case !ok || st.Partitions != n || st.Name != nameOf(alias):
			t.Errorf("stub of %s: %+v, %t, want %d partitions", alias, st, ok, n)
		case info == nil || info.TopicID != st.ID:
			t.Errorf("stub of %s has id %x, home has %+v", alias, st.ID, info)
		}
		if err := s.Refused(nameOf(alias)); err != nil {
			t.Errorf("stub of %s: refused: %v", alias, err)
		}
	}
}

// counter counts requests of a kind, without taking any.
type counter struct {
	mu sync.Mutex
	n  map[kmsg.Key]int
}

func count(c *kfake.Cluster, keys ...kmsg.Key) *counter {
	k := &counter{n: make(map[kmsg.Key]int)}
	for _, key := range keys {
		c.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.n[key]++
			return nil, nil, false
		})
	}
	return k
}

// lines is a log that can be searched.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// answerCreate answers CreateTopics in home's place for as long as f takes a topic: a
// code of 0 leaves the request to home.
func (b *bed) answerCreate(f func(t *kmsg.CreateTopicsRequestTopic) (code int16, text string)) {
	b.home.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
		b.home.KeepControl()
		r := req.(*kmsg.CreateTopicsRequest)
		resp := r.ResponseKind().(*kmsg.CreateTopicsResponse)
		for i := range r.Topics {
			code, text := f(&r.Topics[i])
			if code == 0 {
				return nil, nil, false
			}
			t := kmsg.NewCreateTopicsResponseTopic()
			t.Topic, t.ErrorCode, t.ErrorMessage = r.Topics[i].Topic, code, &text
			resp.Topics = append(resp.Topics, t)
		}
		return resp, nil, true
	})
}

// mute makes node of c answer no request of a kind, for as long as it is muted.
func mute(c *kfake.Cluster, node int32, key kmsg.Key, muted func() bool) {
	c.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
		if c.CurrentNode() != node || !muted() {
			return nil, nil, false
		}
		c.KeepControl()
		return nil, nil, true
	})
}

// commitOn makes a simple group on c that has an offset of a topic there.
func (b *bed) commitOn(t *testing.T, c *upstream.Cluster, group string) {
	t.Helper()
	if b.foreign.TopicInfo("shop.orders") == nil {
		if err := b.foreign.CreateTopic("shop.orders", 1, nil); err != nil {
			t.Fatal(err)
		}
	}
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = group, -1
	req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "shop.orders", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 7, LeaderEpoch: -1}}}}
	req.SetVersion(8)
	resp, err := c.Request(t.Context(), b.foreign.CoordinatorFor(group), upstream.Control, 0, "test", req)
	if err != nil {
		t.Fatal(err)
	}
	if code := resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode; code != 0 {
		t.Fatalf("commit: code %d", code)
	}
}

func (k *counter) total() (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, one := range k.n {
		n += one
	}
	return n
}

// delete deletes a stub by hand, once everybody knows it.
func (b *bed) delete(t *testing.T, alias string) {
	t.Helper()
	for begun := time.Now(); b.homeUp.Metadata().Topic(nameOf(alias)) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > 2*time.Second {
			t.Fatal("nobody has noticed the stub")
		}
	}
	if err := b.home.DeleteTopic(nameOf(alias)); err != nil {
		t.Fatal(err)
	}
}
