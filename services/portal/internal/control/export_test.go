package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/store"
)

func (b *bed) take(c *Control, holder string, ttl time.Duration) Lease {
	b.t.Helper()
	l, err := c.TakeExport(b.t.Context(), holder, ttl, "")
	if err != nil {
		b.t.Fatal(err)
	}
	return l
}

// One of two portals has the lease; the other has it when the first gives it back, or
// is not heard of any more.
func TestOneExportsAtATime(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		other := b.another()
		if l := b.take(b.Control, "a", time.Hour); !l.Mine || l.At != (Position{}) {
			t.Fatalf("the first: %+v", l)
		}
		if l := b.take(other, "b", time.Hour); l.Mine || l.Holder != "a" {
			t.Fatalf("the second: %+v", l)
		}
		if mine, err := b.Exported(ctx, "a", Position{3, 1}); err != nil || !mine {
			t.Fatalf("the holder's word: %v, %v", mine, err)
		}
		if mine, err := other.Exported(ctx, "b", Position{9, 9}); err != nil || mine {
			t.Fatalf("somebody else's word: %v, %v", mine, err)
		}
		if err := other.LeaveExport(ctx, "b"); err != nil {
			t.Fatal(err)
		}
		if l, err := b.TakeExport(ctx, "a", time.Hour, "no brokers"); err != nil || !l.Mine || l.At != (Position{3, 1}) {
			t.Fatalf("prolonged: %+v, %v", l, err)
		}
		if l := b.take(other, "b", time.Hour); l.Mine || l.Problem != "no brokers" {
			t.Fatalf("what the second is told: %+v", l)
		}
		if err := b.LeaveExport(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		if l := b.take(other, "b", time.Nanosecond); !l.Mine || l.At != (Position{3, 1}) {
			t.Fatalf("after it was given back: %+v", l)
		}
		// The clock of a database may stand still for a moment.
		deadline := time.Now().Add(time.Minute)
		for !b.take(b.Control, "a", time.Hour).Mine {
			if time.Now().After(deadline) {
				t.Fatal("a lease that is over is not given to anybody")
			}
		}
		if mine, err := other.Exported(ctx, "b", Position{9, 9}); err != nil || mine {
			t.Errorf("who lost the lease: %v, %v", mine, err)
		}
	})
}

func TestWhatIsBehind(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.apply(base) // revision 1, eight entries
		b.now = b.now.Add(time.Hour)
		b.apply(doc("Tenant name: acme | displayName: Changed"))
		for _, tt := range []struct {
			at   Position
			want string
		}{
			{Position{}, "1.0 1.1 1.2 1.3 1.4 1.5 1.6 1.7 2.0"},
			{Position{1, 5}, "1.6 1.7 2.0"},
			{Position{1, 7}, "2.0"},
			{Position{2, 0}, ""},
		} {
			entries, err := b.Behind(ctx, tt.at, 100)
			var got []string
			for _, e := range entries {
				got = append(got, fmt.Sprintf("%d.%d", e.Revision, e.Seq))
			}
			if err != nil || strings.Join(got, " ") != tt.want {
				t.Errorf("behind %v: %v, %v, want %s", tt.at, got, err, tt.want)
			}
			lag, err := b.ExportLag(ctx, tt.at)
			if err != nil || lag.Entries != int64(len(got)) || lag.Oldest.IsZero() != (len(got) == 0) {
				t.Errorf("lag behind %v: %+v, %v", tt.at, lag, err)
			}
		}
		if lag, err := b.ExportLag(ctx, Position{1, 7}); err != nil || !lag.Oldest.Equal(b.now) {
			t.Errorf("the oldest is of %v, %v, want %v", lag.Oldest, err, b.now)
		}
		if some, err := b.Behind(ctx, Position{}, 3); err != nil || len(some) != 3 {
			t.Errorf("three of them: %d, %v", len(some), err)
		}
	})
}

// What is old goes; what is not exported stays while somebody exports.
func TestTheLogIsForgotten(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		start := b.now
		b.apply(base)
		b.now = start.Add(time.Hour)
		b.apply(doc("Tenant name: acme | displayName: Changed"))
		forget := func(before time.Time, exporting bool, want int64) {
			t.Helper()
			if n, err := b.ForgetAudit(ctx, before, exporting); err != nil || n != want {
				t.Fatalf("forgotten: %d, %v, want %d", n, err, want)
			}
		}
		head, err := b.Head(ctx)
		if err != nil {
			t.Fatal(err)
		}
		forget(start, false, 0)                // none is that old
		forget(start.Add(time.Hour), true, 0)  // it is to be exported, and nothing was yet
		b.take(b.Control, "a", time.Hour)      // somebody begins to
		forget(start.Add(time.Hour), false, 0) // also for a portal that knows nothing of it
		if _, err := b.Exported(ctx, "a", Position{1, 2}); err != nil {
			t.Fatal(err)
		}
		forget(start.Add(2*time.Hour), true, 3)
		forget(start.Add(2*time.Hour), false, 0)
		if err := b.store.Note(ctx, b.longAgo); err != nil { // nobody exports any more
			t.Fatal(err)
		}
		forget(start.Add(2*time.Hour), true, 0)
		forget(start.Add(time.Hour), false, 5)
		if left := b.log(AuditQuery{}); len(left) != 1 || left[0].Revision != 2 {
			t.Errorf("left: %+v", left)
		}
		if now, err := b.Head(ctx); err != nil || now != head {
			t.Errorf("revision %d, %v, want %d: forgetting is no change", now, err, head)
		}
	})
}

func TestReservedTopics(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.apply(doc(tenantAcme, main, west))
		audit := Topic{Cluster: "main", Name: "tollgate.audit", For: "the audit log"}
		other := b.another() // which reserves nothing
		guard := b.Reserve(audit)
		free := func() {
			t.Helper()
			if err := guard.Check(ctx); err != nil {
				t.Errorf("the topic that nobody reaches: %v", err)
			}
		}
		reached := func(guard *Guard, by string) {
			t.Helper()
			err := guard.Check(ctx)
			if r, ok := errors.AsType[*Reached](err); !ok || !strings.Contains(err.Error(), by) {
				t.Errorf("the topic that is reached: %v, want it by %s", r, by)
			}
		}
		free()
		const authentication = "authentication: {plain: {}}"
		for _, tt := range []struct{ name, document, field string }{
			{"a standard virtual cluster of that prefix", "VirtualCluster name: tollgate, tenant: acme | type: standard, host: x, home: main, clusters: [main], " + authentication, "metadata.name"},
			{"a grant of it", "TopicGrant name: g, tenant: acme | cluster: main, topic: {name: tollgate.audit}, access: read", "spec.topic"},
			{"a grant that has ended", "TopicGrant name: g, tenant: acme | cluster: main, topic: {name: tollgate.audit}, access: read, until: 2000-01-01T00:00:00Z", "spec.topic"},
			{"a grant of a prefix", "TopicGrant name: g, tenant: acme | cluster: main, topic: {name: toll, pattern: prefixed}, access: read", "spec.topic"},
			{"the same elsewhere", "TopicGrant name: g, tenant: acme | cluster: west, topic: {name: toll, pattern: prefixed}, access: read", ""},
			{"a partner's virtual cluster, which sees aliases only", "VirtualCluster name: tollgate, tenant: acme | type: partner, host: x, home: main, clusters: [main], " + authentication, ""},
			{"what only begins alike", "VirtualCluster name: toll, tenant: acme | type: standard, host: y, home: main, clusters: [main], " + authentication, ""},
		} {
			_, err := b.try(doc(tt.document))
			text := fmt.Sprint(err)
			if tt.field == "" && err != nil || tt.field != "" && (!strings.Contains(text, tt.field) || !strings.Contains(text, "kept for the audit log")) {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		free()
		// A portal that does not know of the topic lets tenants reach it.
		behindIt := func(lines ...string) {
			t.Helper()
			if _, err := other.Apply(ctx, alice, parse(t, doc(lines...)), Options{}); err != nil {
				t.Fatal(err)
			}
		}
		remove := func(key resource.Key) {
			t.Helper()
			if _, err := b.Delete(ctx, alice, key, Options{}); err != nil {
				t.Fatal(err)
			}
		}
		behindIt("TopicGrant name: g, tenant: acme | cluster: main, topic: {name: toll, pattern: prefixed}, access: read",
			"VirtualCluster name: partner, tenant: acme | type: partner, host: p, home: main, clusters: [main], "+authentication)
		reached(guard, "TopicGrant g of acme puts")
		_, err := b.try(doc("AliasTopic name: all, virtualCluster: partner | cluster: main, topic: tollgate.audit"))
		if text := fmt.Sprint(err); !strings.Contains(text, "spec.topic") || !strings.Contains(text, "kept for the audit log") {
			t.Errorf("an alias of it: %v", err)
		}
		behindIt("TopicGrant name: h, tenant: acme | cluster: main, topic: {name: tollgate.audit}, access: read, until: 2000-01-01T00:00:00Z")
		reached(guard, "TopicGrant g of acme and 1 more put")
		reached(b.another().Reserve(audit), "TopicGrant g of acme and 1 more put") // for who has not looked before
		remove(key("TopicGrant", "acme", "g"))
		reached(guard, "TopicGrant h of acme puts")
		behindIt("TopicGrant name: h, tenant: acme | cluster: west, topic: {name: tollgate.audit}, access: read")
		free()
		remove(key("VirtualCluster", "", "tollgate"))
		behindIt("VirtualCluster name: tollgate, tenant: acme | type: standard, host: z, home: main, clusters: [main], " + authentication)
		reached(guard, "VirtualCluster tollgate puts")
		remove(key("VirtualCluster", "", "tollgate"))
		free()
	})
}

// longAgo makes the last who exported be heard of long ago.
func (b *bed) longAgo(tx *store.Tx) error {
	ctx := context.Background()
	e, _, err := tx.Export(ctx, auditExport)
	if err != nil {
		return err
	}
	e.Until = e.Until.Add(-2*time.Hour - exportMemory)
	return tx.PutExport(ctx, auditExport, e)
}
