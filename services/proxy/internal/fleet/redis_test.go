package fleet

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate.internal/pkg/bundle"
	board "tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/pkg/testbed/redistest"
)

func TestAVirtualClusterIsLoadedForItsFirstClient(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.change(t, func(r int64) *bundle.Bundle { return virtualCluster("acme", r, "acme", "kafka.acme.example") })
	b.change(t, func(r int64) *bundle.Bundle { return upstreamCluster("home", r) })
	n := b.ready(t, t.TempDir())
	if got := n.gateway.revision("acme"); got != 0 {
		t.Errorf("loaded at revision %d before anybody came", got)
	}
	n.find(t, "nobody", "acme", 0)
	n.find(t, "kafka.acme.example", "acme", 1)
	n.find(t, "acme", "acme", 1)
	if err := n.Upstream(t.Context(), "home"); err != nil {
		t.Error(err)
	}
	if err := n.Upstream(t.Context(), "none"); err != nil {
		t.Error(err)
	}
	if err := n.Load(t.Context(), "none"); err != nil {
		t.Error(err)
	}
	if _, upstreams := n.gateway.Loaded(); upstreams["home"] != 2 || len(upstreams) != 1 {
		t.Errorf("upstream clusters: %v, want home at 2", upstreams)
	}
	if err := n.Problem(); err != nil {
		t.Errorf("Problem: %v", err)
	}
}

func TestChangesAreAppliedAtOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "acme")
	n := b.ready(t, t.TempDir())
	n.find(t, "acme", "acme", 1)
	var took []time.Duration
	for range 30 {
		began := time.Now()
		revision := b.set(t, "acme")
		n.applies(t, "acme", revision)
		took = append(took, time.Since(began))
		until(t, "it says so", func() bool { return n.Health().Applied == revision })
	}
	slices.Sort(took)
	t.Logf("from change to applied: median %v, longest %v", took[len(took)/2], took[len(took)-1])
	if median := took[len(took)/2]; median > 500*time.Millisecond {
		t.Errorf("a change takes %v", median)
	}
	b.remove(t, "acme")
	n.applies(t, "acme", 0)
	n.find(t, "acme", "acme", 0)
	revision := b.set(t, "acme") // again
	n.find(t, "acme", "acme", revision)
}

func TestAnAnnouncementOfWhatIsNotLoaded(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "acme")
	n := b.ready(t, t.TempDir())
	announced := func() int {
		n.gateway.mu.Lock()
		defer n.gateway.mu.Unlock()
		return n.gateway.announced
	}
	before := announced()
	b.set(t, "other")
	until(t, "the gateway is told", func() bool { return announced() > before })
	if got := n.gateway.revision("other"); got != 0 {
		t.Errorf("it is loaded at revision %d", got)
	}
}

func TestAHostThatMoves(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.change(t, func(r int64) *bundle.Bundle { return virtualCluster("a", r, "a", "shop.example") })
	b.change(t, func(r int64) *bundle.Bundle { return virtualCluster("b", r, "b") })
	state := t.TempDir()
	n := b.ready(t, state)
	n.find(t, "shop.example", "a", 1)
	n.stop()
	// While the node is away, the host goes to the other.
	b.change(t, func(r int64) *bundle.Bundle { return virtualCluster("a", r, "a") })
	b.change(t, func(r int64) *bundle.Bundle { return virtualCluster("b", r, "b", "shop.example") })
	n = b.ready(t, state)
	n.find(t, "shop.example", "a", 0)
	n.find(t, "shop.example", "b", 4)
	// A hint that is wrong leads nowhere.
	if err := b.redis.Client().HSet(t.Context(), "tollgate:eu:host:evil", "revision", 9, "data", "a").Err(); err != nil {
		t.Fatal(err)
	}
	n.find(t, "evil", "a", 0)
	// A hint that got lost is not missed where the bundle is on disk.
	if err := b.redis.Client().Del(t.Context(), "tollgate:eu:host:shop.example").Err(); err != nil {
		t.Fatal(err)
	}
	n.gateway.unload("b")
	n.find(t, "shop.example", "b", 4)
}

func TestRedisIsKilled(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	b.set(t, "b")
	b.set(t, "never")
	state := t.TempDir()
	n := b.ready(t, state)
	n.find(t, "a", "a", 1)
	n.find(t, "b", "b", 2)
	b.redis.Kill(t)
	until(t, "the node notices", func() bool { return n.Health().Stale })
	if err := n.Problem(); err == nil || !strings.Contains(err.Error(), "cannot be used since") {
		t.Errorf("Problem: %v", err)
	}
	n.gateway.unload("b")
	n.find(t, "b", "b", 2) // from disk
	if err := n.Find(t.Context(), "never"); err == nil || !strings.Contains(err.Error(), "what it last knew") {
		t.Errorf("Find of what was never loaded: %v", err)
	}
	n.stop()
	// The node starts while Redis is away.
	n = b.node(t, state)
	n.find(t, "a", "a", 1)
	if err := n.Find(t.Context(), "never"); err == nil {
		t.Error("Find of what was never loaded: no error")
	}
	// Changes are made meanwhile. Redis comes back empty.
	b.keep(func(r int64) *bundle.Bundle { return virtualCluster("a", r, "a") })
	b.redis.Launch(t)
	until(t, "the node notices", func() bool { return n.Health().Connected })
	until(t, "the node knows that Redis was emptied", func() bool { return strings.Contains(fmt.Sprint(n.Problem()), "was emptied") })
	n.find(t, "a", "a", 1)
	n.gateway.unload("a")
	n.find(t, "a", "a", 1)
	if err := n.Find(t.Context(), "never"); err == nil {
		t.Error("Find while Redis is empty: no error")
	}
	b.publishAll(t)
	n.applies(t, "a", 4)
	n.follows(t)
	n.find(t, "never", "never", 3)
	if err := n.Problem(); err != nil {
		t.Errorf("Problem: %v", err)
	}
	// The new stream is followed.
	n.applies(t, "a", b.set(t, "a"))
}

func TestRedisIsFlushed(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for range 5 {
		b.set(t, "a")
	}
	n := b.ready(t, t.TempDir())
	n.find(t, "a", "a", 5)
	if err := b.redis.Client().FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	until(t, "the node notices", func() bool { return strings.Contains(fmt.Sprint(n.Problem()), "was emptied") })
	if h := n.Health(); !h.Stale || !h.Connected || h.Seen != 5 || h.Head != 0 || h.Applied != 5 {
		t.Errorf("Health = %+v", h)
	}
	n.find(t, "a", "a", 5)
	b.keep(func(r int64) *bundle.Bundle { return virtualCluster("a", r, "a") })
	b.publishAll(t)
	n.applies(t, "a", 6)
	n.follows(t)
	n.applies(t, "a", b.set(t, "a"))
}

func TestRedisIsRestoredFromAnOldCopy(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	b.set(t, "b")
	b.set(t, "c")
	old := b.redis.Copy(t)
	state := t.TempDir()
	n := b.ready(t, state)
	n.find(t, "a", "a", 1)
	// What the copy does not know: a change, a removal, and a revocation of what the
	// node has not loaded.
	b.set(t, "a")
	b.remove(t, "b")
	b.set(t, "c")
	n.applies(t, "a", 4)
	n.find(t, "b", "b", 0)
	for _, restarted := range []bool{false, true} {
		served := b.store[idOf("a")].Revision
		b.redis.Restore(t, old)
		if restarted {
			n.stop()
			n = b.node(t, state)
		}
		until(t, "the node notices", func() bool { return strings.Contains(fmt.Sprint(n.Problem()), "from a copy of revision 3") })
		n.find(t, "a", "a", served)
		n.gateway.unload("a")
		n.find(t, "a", "a", served)
		for _, name := range []string{"b", "c"} {
			if err := n.Find(t.Context(), name); err == nil || n.gateway.revision(name) != 0 {
				t.Errorf("%s, which was never loaded, is taken from an old copy, at revision %d", name, n.gateway.revision(name))
			}
		}
		// A change that is published into the old copy is newer all the same.
		if !restarted {
			n.applies(t, "a", b.set(t, "a"))
			b.redis.Restore(t, old)
			until(t, "the node notices again", func() bool { return strings.Contains(fmt.Sprint(n.Problem()), "from a copy of revision 3") })
		}
		b.publishAll(t)
		n.follows(t)
		n.find(t, "a", "a", 7)
		n.find(t, "b", "b", 0)
		n.find(t, "c", "c", 6)
		n.gateway.unload("c")
		for _, name := range []string{"b", "c"} {
			if err := os.Remove(filepath.Join(state, "vc", name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
			delete(n.disk.known, idOf(name))
		}
	}
}

func TestRedisHangs(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	b.set(t, "never")
	n := b.ready(t, t.TempDir())
	n.find(t, "a", "a", 1)
	n.gateway.unload("a")
	b.redis.Freeze(t)
	for _, when := range []string{"at first", "when it is known"} {
		began := time.Now()
		n.find(t, "a", "a", 1)
		err := n.Find(t.Context(), "never")
		if err == nil {
			t.Error("Find of what was never loaded: no error")
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s, two look-ups take %v: the bound of each is 3 s", when, took)
		}
		n.gateway.unload("a")
		until(t, "the node notices", func() bool { return n.Health().Stale })
	}
	b.redis.Thaw(t)
	n.follows(t)
	n.find(t, "never", "never", 2)
	n.find(t, "a", "a", 1)
	n.applies(t, "a", b.set(t, "a"))
}

// What somebody writes who has no key is refused, and what is served stays.
func TestWhatIsNotThePortals(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	older, err := b.signer.SealBundle(virtualCluster("a", 1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	b.set(t, "a")
	b.set(t, "fresh")
	state := t.TempDir()
	n := b.ready(t, state)
	n.find(t, "a", "a", 2)
	other, err := bundle.NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := other.SealBundle(virtualCluster("a", 99, "a"))
	if err != nil {
		t.Fatal(err)
	}
	others, err := b.signer.SealBundle(virtualCluster("fresh", 99, "a"))
	if err != nil {
		t.Fatal(err)
	}
	foreign := virtualCluster("a", 99, "a")
	foreign.Deployment = "us"
	us, err := b.signer.SealBundle(foreign)
	if err != nil {
		t.Fatal(err)
	}
	forged := slices.Clone(older)
	forged[len(forged)-1] ^= 1
	for reason, data := range map[bundle.Reason][]byte{
		bundle.UnknownKey: theirs, bundle.Misplaced: others, bundle.Foreign: us, bundle.Forged: forged,
		bundle.Truncated: older[:90], bundle.NotSealed: []byte("hello, this is Redis"), olderReason: older,
	} {
		before := n.Health().Refused[reason]
		for _, name := range []string{"a", "fresh"} {
			if err := b.redis.Client().HSet(t.Context(), "tollgate:eu:vc:"+name, "revision", 1000, "data", data).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.publisher.Announce(t.Context(), board.Change{ID: idOf("a"), Revision: 1000}); err != nil {
			t.Fatal(err)
		}
		until(t, "it is refused as "+string(reason), func() bool { return n.Health().Refused[reason] > before })
		if reason != olderReason && reason != bundle.Misplaced { // it is newer than nothing, or of fresh
			if err := n.Find(t.Context(), "fresh"); err == nil {
				t.Errorf("%s bundle of what is not loaded: no error", reason)
			}
		}
		n.gateway.unload("a")
		n.find(t, "a", "a", 2)
		if err := n.Problem(); err == nil || !strings.Contains(err.Error(), "VirtualCluster a") {
			t.Errorf("Problem with a %s bundle: %v", reason, err)
		}
		b.publishAll(t) // heals it
		if err := b.publisher.Announce(t.Context(), board.Change{ID: idOf("a"), Revision: 2}); err != nil {
			t.Fatal(err)
		}
		until(t, "the "+string(reason)+" bundle is forgotten", func() bool { return n.Problem() == nil })
	}
	n.applies(t, "a", b.set(t, "a"))
	n.follows(t)
	if err := n.Problem(); err != nil {
		t.Errorf("Problem: %v", err)
	}
	// Nor is what stands on disk believed for standing there.
	n.stop()
	b.redis.Kill(t)
	if err := os.WriteFile(filepath.Join(state, "vc", "a"), theirs, 0o600); err != nil {
		t.Fatal(err)
	}
	n = b.node(t, state)
	if err := n.Find(t.Context(), "a"); err == nil || n.gateway.revision("a") != 0 {
		t.Errorf("a forged file is served: %v", err)
	}
}

// The key that signs is replaced: nodes that know both notice nothing, and one that
// knows the old one only takes nothing that is new.
func TestTheKeyIsReplaced(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	next, err := bundle.NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	both := next.Keyring()
	maps.Copy(both, b.signer.Keyring())
	state := t.TempDir()
	n := b.ready(t, state, func(o *Options) { o.Keys = both })
	left := b.ready(t, t.TempDir())
	n.find(t, "a", "a", 1)
	left.find(t, "a", "a", 1)
	client, err := board.Open(b.url, secret.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if b.publisher, err = board.NewPublisher(client, eu, next, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.publisher.Head(t.Context()); !errors.Is(err, bundle.UnknownKey) {
		t.Errorf("the head of before, to the new portal: %v", err)
	}
	b.publishAll(t)
	n.applies(t, "a", b.set(t, "a"))
	n.follows(t)
	until(t, "the other refuses it", func() bool { return left.Health().Refused[bundle.UnknownKey] > 0 && left.Health().Stale })
	if got := left.gateway.revision("a"); got != 1 {
		t.Errorf("the other serves revision %d, want 1", got)
	}
	n.stop()
	// The old key is taken away, and what is on disk is of the new one by now.
	b.redis.Kill(t)
	n = b.node(t, state, func(o *Options) { o.Keys = next.Keyring() })
	n.find(t, "a", "a", 2)
	if got := n.Health().Seen; got != 2 {
		t.Errorf("the highest revision ever seen is %d, want 2", got)
	}
}

// What was revoked while its virtual cluster was not loaded does not come back from
// the disk when Redis is away.
func TestARevocationOfWhatIsOnDiskOnly(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	b.set(t, "b")
	state := t.TempDir()
	n := b.ready(t, state)
	n.find(t, "a", "a", 1)
	n.find(t, "b", "b", 2)
	n.gateway.unload("a")
	n.gateway.unload("b")
	b.set(t, "a")
	n.follows(t)
	n.stop()
	gone := b.remove(t, "b") // while the node is away
	n = b.ready(t, state)
	until(t, "it has looked at what is on disk only", func() bool { return n.lastSeen(idOf("b")) == gone })
	b.redis.Kill(t)
	until(t, "the node notices", func() bool { return n.Health().Stale })
	n.find(t, "a", "a", 3)
	n.find(t, "b", "b", 0)
}

// A change is announced while a client's load is on its way with what was before.
func TestAChangeOvertakesALoad(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	n := b.ready(t, t.TempDir())
	loading, on := make(chan struct{}), make(chan struct{})
	var once sync.Once
	n.gateway.put = func(string) {
		once.Do(func() {
			close(loading)
			<-on
		})
	}
	found := make(chan error)
	go func() { found <- n.Find(t.Context(), "a") }()
	<-loading
	b.set(t, "a")
	applied := n.Health().Applied
	time.AfterFunc(200*time.Millisecond, func() { close(on) }) // the announcement is there by now, or comes later: both are right
	if err := <-found; err != nil {
		t.Error(err)
	}
	n.applies(t, "a", 2)
	until(t, "it says so", func() bool { return n.Health().Applied == 2 })
	if applied == 2 {
		t.Error("revision 2 was said to be applied before it was")
	}
}

// The stream was cut while the node was away: it looks at everything.
func TestEntriesAreMissing(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	n := b.ready(t, t.TempDir())
	n.find(t, "a", "a", 1)
	b.redis.Freeze(t) // the node reads nothing
	until(t, "the node notices", func() bool { return n.Health().Stale })
	pipe := b.redis.Client().TxPipeline() // one step, before the node reads again
	data, err := b.signer.SealBundle(virtualCluster("a", 2, "a"))
	if err != nil {
		t.Fatal(err)
	}
	b.revision = 2
	b.store[idOf("a")] = virtualCluster("a", 2, "a")
	pipe.HSet(t.Context(), "tollgate:eu:vc:a", "revision", 2, "data", data)
	pipe.XTrimMaxLen(t.Context(), "tollgate:eu:changes", 0)
	done := make(chan error)
	go func() {
		_, err := pipe.Exec(within(t, patience))
		done <- err
	}()
	b.redis.Thaw(t)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := b.publisher.SetHead(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	n.applies(t, "a", 2)
	n.follows(t)
}

// What the gateway cannot serve is not said to be applied, and the next change mends it.
func TestABundleThatCannotBeServed(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	b.set(t, "b")
	n := b.ready(t, t.TempDir())
	n.find(t, "a", "a", 1)
	n.find(t, "b", "b", 2)
	n.gateway.refuses("a", errors.New("its mTLS CA cannot be read"))
	b.set(t, "a")
	b.set(t, "b")
	n.applies(t, "b", 4)
	until(t, "it is said", func() bool { return strings.Contains(fmt.Sprint(n.Problem()), "its mTLS CA cannot be read") })
	if h := n.Health(); h.Applied != 2 {
		t.Errorf("applied revision %d, want 2: the change of 3 is not", h.Applied)
	}
	// What was missing is there: nobody has to change the virtual cluster again.
	n.gateway.refuses("a", nil)
	n.applies(t, "a", 3)
	n.follows(t)
	if err := n.Problem(); err != nil {
		t.Errorf("Problem: %v", err)
	}
	// What is not served any more holds nothing up.
	n.gateway.refuses("a", errors.New("no"))
	b.set(t, "a")
	until(t, "it is said", func() bool { return n.Problem() != nil })
	n.gateway.unload("a")
	n.follows(t)
}

func TestEverythingIsLoadedBeforehand(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	b.set(t, "b")
	b.remove(t, "b")
	state := t.TempDir()
	preload := func(o *Options) { o.Preload = true }
	loaded := func(n *node, want map[string]int64) {
		t.Helper()
		if got, _ := n.gateway.Loaded(); !maps.Equal(got, want) {
			t.Errorf("loaded when it is ready: %v, want %v", got, want)
		}
	}
	n := b.node(t, state, preload)
	loaded(n, map[string]int64{"a": 1})
	n.applies(t, "c", b.set(t, "c"))
	n.stop()
	// From disk what is there, from Redis what is new.
	b.set(t, "d")
	n = b.node(t, state, preload)
	loaded(n, map[string]int64{"a": 1, "c": 4, "d": 5})
	n.stop()
	b.redis.Kill(t)
	n = b.node(t, state, preload)
	loaded(n, map[string]int64{"a": 1, "c": 4, "d": 5})
	b.redis.Launch(t)
	b.set(t, "e")
	n.applies(t, "e", 6)
	n.stop()
	b.redis.Freeze(t)
	began := time.Now()
	n = b.node(t, state, preload)
	loaded(n, map[string]int64{"a": 1, "c": 4, "d": 5, "e": 6})
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it takes %v while Redis hangs", took)
	}
}

// A disk that takes nothing any more: what is served is, and what was revoked does not
// come back from the file of before.
func TestTheDiskIsFull(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	state := t.TempDir()
	n := b.ready(t, state)
	n.find(t, "a", "a", 1)
	// A directory that takes no new file, also from root: there is none of that name.
	moved := filepath.Join(state, "moved")
	full := func() {
		if err := os.Rename(filepath.Join(state, "vc"), moved); err != nil {
			t.Fatal(err)
		}
	}
	full()
	n.applies(t, "a", b.set(t, "a"))
	n.follows(t) // and has written the head, elsewhere
	until(t, "it is said", func() bool { return strings.Contains(fmt.Sprint(n.Problem()), "state directory") })
	if err := os.Rename(moved, filepath.Join(state, "vc")); err != nil {
		t.Fatal(err)
	}
	// What could not be written is without another change.
	until(t, "it is over", func() bool { return n.Problem() == nil })
	n.stop()
	b.redis.Kill(t)
	n = b.node(t, state)
	n.find(t, "a", "a", 2)
}

func TestAStateDirectoryIsOfOneProcess(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	state := t.TempDir()
	b.node(t, state)
	_, err := Open(Options{Redis: b.redis.URL, Keys: b.signer.Keyring(), State: state, Deployment: eu})
	if err == nil || !strings.Contains(err.Error(), "each node has one of its own") {
		t.Errorf("Open: %v", err)
	}
	for what, o := range map[string]Options{
		"deployment": {Redis: b.redis.URL, Keys: b.signer.Keyring(), State: t.TempDir(), Deployment: "a:b"},
		"public":     {Redis: b.redis.URL, State: t.TempDir(), Deployment: eu},
		"redis":      {Redis: "hunter2", Keys: b.signer.Keyring(), State: t.TempDir(), Deployment: eu},
		"state":      {Redis: b.redis.URL, Keys: b.signer.Keyring(), State: filepath.Join(state, "lock", "x"), Deployment: eu},
	} {
		if _, err := Open(o); err == nil || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open with a bad %s: %v", what, err)
		}
	}
}

// A cluster of Redis is as good as one server: no operation has two keys.
func TestAClusterOfRedis(t *testing.T) {
	t.Parallel()
	url, servers := redistest.StartCluster(t)
	b := newBedAt(t, url)
	names := make(map[string]int64)
	for i := range 30 {
		name := fmt.Sprintf("vc-%d", i)
		names[name] = b.set(t, name)
	}
	n, all := b.ready(t, t.TempDir()), b.ready(t, t.TempDir(), func(o *Options) { o.Preload = true })
	if got, _ := all.gateway.Loaded(); !maps.Equal(got, names) {
		t.Errorf("loaded beforehand: %v, want all of %v", got, names)
	}
	n.join(t)
	n.wants(t, "n1 serving")
	for name, revision := range names {
		n.find(t, name, name, revision)
	}
	for name := range names {
		revision := b.set(t, name)
		n.applies(t, name, revision)
		all.applies(t, name, revision)
	}
	for _, s := range servers {
		if err := s.Client().FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the node notices", func() bool { return n.Health().Stale })
	b.publishAll(t)
	n.follows(t)
	n.applies(t, "vc-0", b.set(t, "vc-0"))
}

// A Redis that dies is followed to its replica. If that one did not hear of a change,
// the change is not taken back, and comes when the portal has published it again.
func TestAFailoverOfRedis(t *testing.T) {
	t.Parallel()
	url, master, replica := redistest.StartSentinel(t)
	b := newBedAt(t, url)
	b.set(t, "a")
	b.set(t, "b")
	n := b.ready(t, t.TempDir())
	n.find(t, "a", "a", 1)
	until(t, "the replica has it all", func() bool {
		return replica.Client().HGet(t.Context(), "tollgate:eu:head", "revision").Val() == "2"
	})
	replica.Freeze(t)
	n.applies(t, "a", b.set(t, "a")) // the replica hears of it late, or not at all
	master.Kill(t)
	replica.Thaw(t)
	until(t, "the node notices", func() bool { return n.Health().Stale })
	until(t, "the node is at the replica", func() bool { return n.Health().Connected })
	n.find(t, "a", "a", 3)
	if err := n.Find(t.Context(), "b"); err == nil && n.Health().Stale {
		t.Error("what was never loaded is taken from a Redis that has forgotten something")
	}
	b.publishAll(t)
	n.follows(t)
	n.find(t, "b", "b", 2)
	n.applies(t, "a", b.set(t, "a"))
}

func TestNothingIsAskedBeforeRun(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	r, err := Open(Options{Redis: b.redis.URL, Keys: b.signer.Keyring(), State: t.TempDir(), Deployment: eu})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, err := range []error{r.Find(t.Context(), "a"), r.Load(t.Context(), "a"), r.Upstream(t.Context(), "a")} {
		if !errors.Is(err, errNotRunning) {
			t.Errorf("%v, want %v", err, errNotRunning)
		}
	}
}

func TestNamesOfFiles(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"acme-prod": "acme-prod", "kafka.acme.example": "kafka.acme.example", "..": "%2e.", ".new-1": "%2enew-1",
		"a/b": "a%2fb", "A": "%41", "%41": "%2541", "ä": "%c3%a4", "a\x00": "a%00",
	} {
		got, ok := safeName(name)
		if !ok || got != want {
			t.Errorf("safeName(%q) = %q, %v, want %q", name, got, ok, want)
		}
		if back, ok := unsafeName(got); !ok || back != name {
			t.Errorf("unsafeName(%q) = %q, %v, want %q", got, back, ok, name)
		}
	}
	for _, name := range []string{"", strings.Repeat("a", 201)} {
		if _, ok := safeName(name); ok {
			t.Errorf("safeName(%q) is ok", name)
		}
	}
	for _, file := range []string{"%4", "%zz", "A", "%61", "%", ""} {
		if name, ok := unsafeName(file); ok {
			t.Errorf("unsafeName(%q) = %q", file, name)
		}
	}
}
