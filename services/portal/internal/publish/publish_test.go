package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/services/portal/internal/control"
	"tollgate.internal/services/portal/internal/store"
)

const patience = 20 * time.Second

// bed is a store, a Redis, and what proxies see there.
type bed struct {
	*testing.T
	*control.Control
	redis  *miniredis.Miniredis // nil: a real one
	client redis.UniversalClient
	signer *bundle.Signer
	reader *fleet.Reader
}

func newBed(t *testing.T) *bed {
	t.Helper()
	mini := miniredis.RunT(t)
	b := newBedAt(t, "redis://"+mini.Addr())
	b.redis = mini
	return b
}

func newBedAt(t *testing.T, url string) *bed {
	t.Helper()
	s, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "tollgate.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // nothing is to be lost that a test still needs
	b := &bed{T: t, Control: control.New(s, nil)}
	if b.signer, err = bundle.NewSigner(); err != nil {
		t.Fatal(err)
	}
	if b.client, err = fleet.Open(url, secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.client.Close() })
	if b.reader, err = fleet.NewReader(b.client, "eu", b.signer.Keyring()); err != nil {
		t.Fatal(err)
	}
	return b
}

// publish starts a loop of the bed, until the test ends or stop is called.
func (b *bed) publish() (l *Loop, stop func()) {
	b.Helper()
	return b.publishFrom(b.Control, b.board())
}

func (b *bed) board() *fleet.Publisher {
	b.Helper()
	board, err := fleet.NewPublisher(b.client, "eu", b.signer, nil)
	if err != nil {
		b.Fatal(err)
	}
	return board
}

// publishFrom is publish with a store and a board that fail as a test wants.
func (b *bed) publishFrom(s Store, board Board) (l *Loop, stop func()) {
	l = New(s, board, "eu", slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { l.Run(ctx) })
	stop = func() { cancel(); wg.Wait() }
	b.Cleanup(stop)
	return l, stop
}

// put stores objects, and returns the revision of the last change.
func (b *bed) put(text string) int64 {
	b.Helper()
	var problems resource.Problems
	objects := resource.Parse([]byte(text), &problems)
	results, err := b.Apply(b.Context(), control.Actor{Name: "test", Kind: "system"}, objects, control.Options{})
	if err != nil || len(problems) > 0 {
		b.Fatal(err, problems)
	}
	var last int64
	for _, r := range results {
		last = max(last, r.Revision)
	}
	return last
}

// hashes are what stands in Redis, by key and field.
type hashes map[string]map[string]string

func (b *bed) copy() hashes {
	all := make(hashes)
	for _, key := range b.redis.Keys() {
		if fields, err := b.client.HGetAll(b.Context(), key).Result(); err == nil {
			all[key] = fields
		}
	}
	return all
}

// goBack makes Redis an old copy of itself.
func (b *bed) goBack(old hashes) {
	b.redis.FlushAll()
	for key, fields := range old {
		for field, value := range fields {
			b.redis.HSet(key, field, value)
		}
	}
}

// until waits for a condition.
func until(t *testing.T, l *Loop, within time.Duration, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s; status %+v", within, what, l.Status())
		}
	}
}

// head waits until the fleet is told of a revision.
func (b *bed) head(l *Loop, revision int64) {
	b.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		sealed, err := b.reader.SealedHead(b.Context())
		var h fleet.Head
		if err == nil && sealed != nil {
			h, err = fleet.OpenHead(b.signer.Keyring(), "eu", sealed)
		}
		if err == nil && h.Revision == revision {
			return
		}
		if time.Now().After(end) {
			b.Fatalf("the head is %+v (%v), want revision %d; %+v", h, err, revision, l.Status())
		}
	}
}

// bundle is what stands in Redis; nil: nothing.
func (b *bed) bundle(kind bundle.Kind, name string) *bundle.Bundle {
	b.Helper()
	id := bundle.ID{Kind: kind, Name: name}
	found, err := b.reader.Bundles(b.Context(), []fleet.Want{{ID: id}})
	if err != nil {
		b.Fatal(err)
	}
	if found[0].Data == nil {
		return nil
	}
	got, err := b.signer.Keyring().Open(found[0].Data, "eu", id)
	if err != nil {
		b.Fatal(err)
	}
	return got
}

const acme = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {}}
---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: ["localhost:9092"]}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: shop, tenant: acme}, spec: {type: standard, host: shop, home: main, authentication: {plain: {}}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: alice, virtualCluster: shop}, spec: {type: external, externalNames: [alice]}}
`

func suspended(yes bool) string {
	state := resource.TenantActive
	if yes {
		state = resource.TenantSuspended
	}
	return fmt.Sprintf("{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {state: %s}}", state)
}

func state(b *bundle.Bundle) resource.TenantState {
	if b == nil {
		return "no bundle"
	}
	return b.Set().Tenants["acme"].Spec.State
}

func TestChangesArePublished(t *testing.T) {
	b := newBed(t)
	l, _ := b.publish()
	b.head(l, b.put(acme))
	got := b.bundle(bundle.VirtualCluster, "shop")
	if got == nil || len(got.Set().ServiceAccounts) != 1 || state(got) != resource.TenantActive || b.bundle(bundle.UpstreamCluster, "main") == nil {
		t.Fatalf("published: %+v", got)
	}
	if vc, err := b.reader.Host(t.Context(), "shop"); err != nil || vc != "shop" {
		t.Errorf("host shop leads to %q, %v", vc, err)
	}
	b.head(l, b.put(suspended(true)))
	if got := state(b.bundle(bundle.VirtualCluster, "shop")); got != resource.TenantSuspended {
		t.Errorf("the tenant is %s", got)
	}
	for _, key := range []resource.Key{{Kind: resource.KindServiceAccount, Scope: "shop", Name: "alice"}, {Kind: resource.KindVirtualCluster, Name: "shop"}} {
		r, err := b.Delete(t.Context(), control.Actor{Name: "test", Kind: "system"}, key, control.Options{})
		if err != nil {
			t.Fatal(err)
		}
		b.head(l, r.Revision)
	}
	if got := b.bundle(bundle.VirtualCluster, "shop"); got == nil || !got.Deleted {
		t.Errorf("after the end: %+v", got)
	}
	if s := l.Status(); s.Err != nil || s.Restored != 0 {
		t.Errorf("status %+v", s)
	}
}

// Whatever Redis loses, it gets again: everything, or what an old copy lacks.
func TestWhatRedisLosesItGetsAgain(t *testing.T) {
	for _, tt := range []struct {
		name string
		lose func(b *bed, old hashes)
	}{
		{"flushed", func(b *bed, _ hashes) { b.redis.FlushAll() }},
		{"an old copy", func(b *bed, old hashes) { b.goBack(old) }},
		{"a head that is nobody's", func(b *bed, _ hashes) {
			b.redis.FlushAll()
			b.redis.HSet("tollgate:eu:head", "revision", "999999", "data", "rubbish")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t)
			l, _ := b.publish()
			b.head(l, b.put(acme))
			old := b.copy()
			last := b.put(suspended(true))
			b.head(l, last)
			tt.lose(b, old)
			b.head(l, last)
			if got := state(b.bundle(bundle.VirtualCluster, "shop")); got != resource.TenantSuspended {
				t.Errorf("the tenant is %s again", got)
			}
			if b.bundle(bundle.UpstreamCluster, "main") == nil {
				t.Error("the upstream cluster is not there")
			}
			if vc, err := b.reader.Host(t.Context(), "shop"); err != nil || vc != "shop" {
				t.Errorf("host shop leads to %q, %v", vc, err)
			}
		})
	}
}

// forgetful is a Redis that is emptied in the middle of a change's publication.
type forgetful struct {
	*fleet.Publisher
	empty chan func() // before the head is set
}

func (f forgetful) Advance(ctx context.Context, from int64, to fleet.Head) error {
	select {
	case empty := <-f.empty:
		empty()
	default:
	}
	return f.Publisher.Advance(ctx, from, to)
}

// The head must not stand above what was lost since it was looked at: no portal and no
// proxy would ever miss it.
func TestRedisIsEmptiedWhileAChangeIsPublished(t *testing.T) {
	b := newBed(t)
	f := forgetful{b.board(), make(chan func(), 1)}
	l, _ := b.publishFrom(b.Control, f)
	b.head(l, b.put(acme))
	f.empty <- b.redis.FlushAll
	b.head(l, b.put(suspended(true)))
	if b.bundle(bundle.UpstreamCluster, "main") == nil || state(b.bundle(bundle.VirtualCluster, "shop")) != resource.TenantSuspended {
		t.Error("the head stands above what is not there")
	}
}

func TestARedisThatIsAwayLosesNoChange(t *testing.T) {
	b := newBed(t)
	l, _ := b.publish()
	b.head(l, b.put(acme))
	b.redis.Close()
	last := b.put(suspended(true))
	until(t, l, patience, "the status says so", func() bool { return l.Status().Err != nil })
	if err := b.redis.Restart(); err != nil {
		t.Fatal(err)
	}
	b.head(l, last)
	if got := state(b.bundle(bundle.VirtualCluster, "shop")); got != resource.TenantSuspended {
		t.Errorf("the tenant is %s", got)
	}
	until(t, l, patience, "nothing is wrong any more", func() bool { return l.Status().Err == nil })
}

// A database that was restored from an old backup must not take back what the fleet
// knows, a revocation for one.
func TestAnOldDatabaseTakesNothingBack(t *testing.T) {
	b := newBed(t)
	l, stop := b.publish()
	b.head(l, b.put(acme))
	last := b.put(suspended(true))
	b.head(l, last)
	stop()
	old := newBed(t)
	old.client, old.signer, old.reader, old.redis = b.client, b.signer, b.reader, b.redis
	first := old.put(acme)
	if first >= last {
		t.Fatalf("the old database is at revision %d, the new at %d", first, last)
	}
	l, _ = old.publish()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, ahead := errors.AsType[*AheadError](l.Status().Err); ahead {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("status %+v", l.Status())
		}
	}
	b.head(l, last)
	if got := state(b.bundle(bundle.VirtualCluster, "shop")); got != resource.TenantSuspended {
		t.Errorf("the tenant is %s", got)
	}
	s := l.Status()
	if text := s.Err.Error(); !strings.Contains(text, "old copy") || !strings.Contains(text, fmt.Sprintf("TOLLGATE_PORTAL_RESTORED_AT=%d", last)) || s.Ahead != last-first {
		t.Errorf("the status is %+v", s)
	}
	// Somebody decides to go on with it.
	old.restored(last)
	from, err := old.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old.head(l, from)
	if got := old.bundle(bundle.VirtualCluster, "shop"); got == nil || got.Revision != from || state(got) != resource.TenantActive {
		t.Errorf("published: %+v, want what the database has at revision %d", got, from)
	}
	until(t, l, patience, "it goes on", func() bool { return l.Status().Err == nil && l.Status().Ahead == 0 })
	old.head(l, old.put(suspended(true)))
}

// restored has the database go on above a revision, which is logged, and once only.
func (b *bed) restored(told int64) {
	b.Helper()
	actor := control.Actor{Name: "portal", Kind: "system"}
	revision, err := b.Restored(b.Context(), actor, told)
	if err != nil || revision <= told {
		b.Fatalf("Restored(%d) = %d, %v", told, revision, err)
	}
	if again, err := b.Restored(b.Context(), actor, told); err != nil || again != 0 {
		b.Errorf("Restored(%d) again = %d, %v", told, again, err)
	}
	page, err := b.Audit(b.Context(), control.AuditQuery{Action: control.ActionRestore})
	if err != nil || len(page.Entries) != 1 || page.Entries[0].Revision != revision || !strings.Contains(page.Entries[0].Detail, fmt.Sprint(told)) {
		b.Errorf("the log has %+v, %v", page.Entries, err)
	}
}

// node is what a node says of itself that has seen a head.
func (b *bed) node(head []byte) {
	b.Helper()
	n := fleet.Node{ID: "n1", State: fleet.NodeServing, Head: head, Heartbeat: time.Now(), Started: time.Now()}
	if rival, err := b.reader.Heartbeat(b.Context(), n, "owner"); err != nil || rival != nil {
		b.Fatal(rival, err)
	}
}

// Redis was emptied and the database restored from an old backup, at once: only nodes
// know how far the fleet was told. What they have no proof of does not count.
func TestRedisAndTheDatabaseForgetAtOnce(t *testing.T) {
	b := newBed(t)
	l, stop := b.publish()
	b.head(l, b.put(acme))
	last := b.put(suspended(true))
	b.head(l, last)
	seen, err := b.reader.SealedHead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stop()
	old := newBed(t)
	old.client, old.signer, old.reader, old.redis = b.client, b.signer, b.reader, b.redis
	first := old.put(acme)
	b.redis.FlushAll()
	other, err := bundle.NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := other.Seal(bundle.ForHead, []byte(`{"deployment":"eu","revision":999999}`))
	if err != nil {
		t.Fatal(err)
	}
	old.node(theirs)
	l, stop = old.publish()
	old.head(l, first)
	stop()
	b.redis.FlushAll()
	old.node(seen)
	l, _ = old.publish()
	ahead := new(AheadError)
	until(t, l, patience, "the status says so", func() bool { return errors.As(l.Status().Err, &ahead) })
	if ahead.Fleet != last || ahead.Node != "n1" || !strings.Contains(ahead.Error(), "says node n1") {
		t.Errorf("it says %v", ahead)
	}
	if got := old.bundle(bundle.VirtualCluster, "shop"); got != nil {
		t.Errorf("what the database forgot is taken back: %+v", got)
	}
	old.restored(last)
	from, err := old.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old.head(l, from)
	if got := old.bundle(bundle.VirtualCluster, "shop"); got == nil || got.Revision != from || got.Revision <= last {
		t.Errorf("published: %+v, want it above revision %d", got, last)
	}
	if got := old.bundle(bundle.UpstreamCluster, "main"); got == nil || got.Revision != from {
		t.Errorf("published: %+v, want it above revision %d", got, last)
	}
}

// Two portals on one store publish everything, and nothing that is older last.
func TestSeveralPublishAtOnce(t *testing.T) {
	b := newBed(t)
	l, _ := b.publish()
	b.publish()
	b.publish()
	last := b.put(acme)
	for i := range 40 {
		last = max(last, b.put(suspended(i%2 == 0)))
		if i%10 == 5 {
			b.redis.FlushAll()
		}
	}
	b.head(l, last)
	got := b.bundle(bundle.VirtualCluster, "shop")
	if state(got) != resource.TenantActive || got.Revision != last {
		t.Errorf("the tenant is %s at revision %d, want it active at %d", state(got), got.Revision, last)
	}
}

// Somebody else writes into Redis, and leaves the head alone.
func TestWhatSomebodyElseWrote(t *testing.T) {
	b := newBed(t)
	l, _ := b.publish()
	b.head(l, b.put(`{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: ["a:1"]}}`))
	old := b.redis.HGet("tollgate:eu:upstream:main", "data")
	last := b.put(`{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: ["b:1"]}}`)
	b.head(l, last)
	good := b.redis.HGet("tollgate:eu:upstream:main", "data")
	for what, write := range map[string]func(){
		"words":            func() { b.redis.HSet("tollgate:eu:upstream:main", "data", "hello") },
		"an old one":       func() { b.redis.HSet("tollgate:eu:upstream:main", "data", old) },
		"a high revision":  func() { b.redis.HSet("tollgate:eu:upstream:main", "revision", "900", "data", old) },
		"a low revision":   func() { b.redis.HSet("tollgate:eu:upstream:main", "revision", "0") },
		"nothing any more": func() { b.redis.Del("tollgate:eu:upstream:main") },
	} {
		restored := l.Status().Restored
		write()
		until(t, l, patience, what+" is put right", func() bool {
			return b.redis.HGet("tollgate:eu:upstream:main", "data") == good && b.redis.HGet("tollgate:eu:upstream:main", "revision") == fmt.Sprint(last)
		})
		until(t, l, patience, what+" is counted", func() bool { return l.Status().Restored != restored })
	}
}
