package control

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"tollgate.internal/services/portal/internal/store"
)

func (b *bed) log(q AuditQuery) []Entry {
	b.t.Helper()
	page, err := b.Audit(b.t.Context(), q)
	if err != nil {
		b.t.Fatal(err)
	}
	return page.Entries
}

func TestChangesAreLogged(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.apply(base)
		b.now = b.now.Add(time.Hour)
		b.apply(doc("Tenant name: acme | displayName: Changed"))
		b.now = b.now.Add(time.Hour)
		bob := Actor{Name: "bob", Kind: "token"}
		if _, err := b.Delete(ctx, bob, keyACL, Options{}); err != nil {
			t.Fatal(err)
		}
		all := b.log(AuditQuery{})
		if len(all) != 10 || all[0].Revision != 3 || all[9].Revision != 1 || all[9].Seq != 0 {
			t.Fatalf("log, newest first: %+v", all)
		}
		if e := all[0]; e.Action != ActionDelete || e.Key() != keyACL || e.Actor != "bob" || e.ActorKind != "token" || e.Tenant != "acme" ||
			!e.Time.Equal(b.now) || e.After != nil || !strings.Contains(string(e.Before), `"operation":"READ"`) {
			t.Errorf("entry of the deletion: %+v", e)
		}
		if e := all[1]; e.Action != ActionReplace || e.Key() != keyTenant || e.Actor != "alice" || e.Address != "192.0.2.1" || e.Request != "r1" ||
			!strings.Contains(string(e.Before), "ACME") || !strings.Contains(string(e.After), "Changed") {
			t.Errorf("entry of the change: %+v", e)
		}
		for _, tt := range []struct {
			name  string
			query AuditQuery
			want  int
		}{
			{"kind", AuditQuery{Kind: "Tenant"}, 2},
			{"object", AuditQuery{Kind: "Acl", Scope: "acme-prod", Name: "reads"}, 2},
			{"tenant", AuditQuery{Tenant: "acme"}, 8},
			{"actor", AuditQuery{Actor: "bob"}, 1},
			{"action", AuditQuery{Action: ActionCreate}, 8},
			{"from", AuditQuery{From: b.now.Add(-time.Hour)}, 2},
			{"to", AuditQuery{To: b.now.Add(-time.Hour)}, 8},
		} {
			if got := b.log(tt.query); len(got) != tt.want {
				t.Errorf("%s: %d entries, want %d", tt.name, len(got), tt.want)
			}
		}
		for _, oldest := range []bool{false, true} {
			var paged []Entry
			for q := (AuditQuery{Limit: 3, Oldest: oldest}); ; {
				page, err := b.Audit(ctx, q)
				if err != nil {
					t.Fatal(err)
				}
				paged = append(paged, page.Entries...)
				if q.After = page.Next; q.After == "" {
					break
				}
			}
			whole := b.log(AuditQuery{Oldest: oldest})
			for i := range whole {
				if len(paged) != len(whole) || paged[i].Revision != whole[i].Revision || paged[i].Seq != whole[i].Seq {
					t.Fatalf("in pages: %+v, in one: %+v", paged, whole)
				}
			}
		}
	})
}

// A change that cannot be logged is none.
func TestWithoutTheLogNothingIsKept(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		b.apply(base)
		driver, dsn := "pgx", b.url
		if path, ok := strings.CutPrefix(b.url, "sqlite:"); ok {
			driver, dsn = "sqlite", path
		}
		db, err := sql.Open(driver, dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec("ALTER TABLE audit RENAME TO elsewhere"); err != nil {
			t.Fatal(err)
		}
		if _, err := b.try(doc("Tenant name: new | displayName: x")); err == nil {
			t.Error("a change is kept that is not in the log")
		}
		if _, err := b.Delete(t.Context(), alice, keyACL, Options{}); err == nil {
			t.Error("a deletion is kept that is not in the log")
		}
		if _, err := b.IssueSecret(t.Context(), alice, keyAccount, time.Time{}, Options{}); err == nil {
			t.Error("a secret is kept that is not in the log")
		}
		if _, err := db.Exec("ALTER TABLE elsewhere RENAME TO audit"); err != nil {
			t.Fatal(err)
		}
		if head, err := b.Head(t.Context()); head != 1 || err != nil {
			t.Errorf("revision %d, %v, want 1", head, err)
		}
		if s, err := b.Get(t.Context(), keyAccount); err != nil || len(s.Status.Secrets) != 0 {
			t.Errorf("%+v, %v", s, err)
		}
		if _, err := b.Get(t.Context(), keyACL); err != nil {
			t.Error(err)
		}
	})
}

// Whoever follows sees every change in its order, of every portal, while the
// changes are made.
// Whoever gets a name that somebody had before gets nothing of what they left behind.
func TestATenantOfTheSameNameIsAnother(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		tenant := func(action string) {
			t.Helper()
			if _, err := b.Apply(ctx, Actor{Name: "theirs", Kind: "token", Tenant: "acme"}, parse(t, doc("Tenant name: acme | plan: "+action)), Options{}); err != nil {
				t.Fatal(err)
			}
		}
		tenant("first")
		tenant("second")
		if _, err := b.Delete(ctx, alice, keyTenant, Options{}); err != nil {
			t.Fatal(err)
		}
		tenant("third")
		page, err := b.Audit(ctx, AuditQuery{For: "acme"})
		if err != nil || len(page.Entries) != 1 || page.Entries[0].Action != ActionCreate || page.Entries[0].ActorTenant != "acme" {
			t.Errorf("its log: %+v, %v, want that it was made", page.Entries, err)
		}
		if page, err = b.Audit(ctx, AuditQuery{Tenant: "acme"}); err != nil || len(page.Entries) != 4 {
			t.Errorf("the log of both: %+v, %v", page.Entries, err)
		}
		for actor, want := range map[string]int{"theirs": 1, Operator: 0, alice.Name: 0} {
			if page, err := b.Audit(ctx, AuditQuery{For: "acme", Actor: actor}); err != nil || len(page.Entries) != want {
				t.Errorf("what %s did: %+v, %v, want %d entries", actor, page.Entries, err, want)
			}
		}
		reader, cancel := context.WithCancel(ctx)
		defer cancel()
		if e := <-b.Events(reader, "acme", 0); e.Revision != 4 {
			t.Errorf("its first event is of revision %d, want 4", e.Revision)
		}
	})
}

func TestEvents(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		b.apply(base)
		other := New(mustOpen(t, b.url), nil)
		events := other.Events(t.Context(), "", 0)
		for i := range 8 {
			e := <-events
			if e.Revision != 1 || e.Seq != int64(i) {
				t.Fatalf("event %d: %+v", i, e)
			}
		}
		for i := range 5 {
			b.apply(doc("Tenant name: x | displayName: " + strings.Repeat("x", i+1)))
			if e := <-events; e.Revision != int64(i+2) || e.Name != "x" {
				t.Fatalf("%+v", e)
			}
		}
		if e := <-other.Events(t.Context(), "", 5); e.Revision != 6 {
			t.Errorf("behind revision 5: %+v", e)
		}
	})
}

func mustOpen(t testing.TB, url string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
