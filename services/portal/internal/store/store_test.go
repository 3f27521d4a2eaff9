package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate.internal/pkg/resource"
)

func row(kind, scope, name string) Row {
	return Row{Key: resource.Key{Kind: kind, Scope: scope, Name: name}, Document: "{}"}
}

func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"", "write sqlite:PATH or postgres://"},
		{"mysql://user:hunter2@host/db", "write sqlite:PATH or postgres://"},
		{"sqlite:", "needs the path of a file"},
		{"sqlite::memory:", "needs the path of a file"},
		{"sqlite:/no/such/directory/x.db", "no such file or directory"},
		{"postgres://user:hunter2@127.0.0.1:1/db?connect_timeout=2", "unavailable"},
		{"postgres://user:hunter2@127.0.0.1:x/db", "database: "},
	} {
		_, err := Open(t.Context(), tt.url)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Open(%q): %v, want %s", tt.url, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open(%q) shows the password: %v", tt.url, err)
		}
	}
}

func TestSQLiteIsForItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a%20b?c#d.db")
	s := open(t, "sqlite:"+path)
	if err := s.Write(t.Context(), func(tx *Tx) error { return tx.PutObject(t.Context(), row("Tenant", "", "a")) }); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the rights %v", info.Name(), info.Mode())
		}
	}
	for _, want := range []struct{ pragma, value string }{{"journal_mode", "wal"}, {"synchronous", "2"}, {"foreign_keys", "1"}} {
		var got string
		if err := s.write.QueryRow("PRAGMA " + want.pragma).Scan(&got); err != nil || got != want.value {
			t.Errorf("%s is %s, %v, want %s", want.pragma, got, err, want.value)
		}
	}
}

// Both databases end in the same schema, from the same files.
func TestSchemaIsTheSame(t *testing.T) {
	schemas := make(map[string][]string)
	each(t, func(t *testing.T, url string) {
		s := open(t, url)
		query := `SELECT m.name || '.' || p.name || CASE WHEN p."notnull" = 1 THEN ' required' ELSE '' END FROM sqlite_master m, pragma_table_info(m.name) p
			WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' AND m.name NOT LIKE 'goose%'
			UNION ALL SELECT 'index ' || name FROM sqlite_master WHERE type = 'index' AND name NOT LIKE 'sqlite%' AND name NOT LIKE 'goose%'`
		if s.postgres {
			query = `SELECT table_name || '.' || column_name || CASE WHEN is_nullable = 'NO' THEN ' required' ELSE '' END FROM information_schema.columns
				WHERE table_schema = 'public' AND table_name NOT LIKE 'goose%'
				UNION ALL SELECT 'index ' || indexname FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '%_pkey'`
		}
		rows, err := s.read.Query(query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var column string
			if err := rows.Scan(&column); err != nil {
				t.Fatal(err)
			}
			name := "sqlite"
			if s.postgres {
				name = "postgres"
			}
			schemas[name] = append(schemas[name], column)
		}
	})
	for _, columns := range schemas {
		slices.Sort(columns)
	}
	if len(schemas["sqlite"]) == 0 || !slices.Equal(schemas["sqlite"], schemas["postgres"]) {
		t.Errorf("SQLite: %q\nPostgreSQL: %q", schemas["sqlite"], schemas["postgres"])
	}
}

func TestOpenedAgainItIsTheSame(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		// Several at once: they wait for each other's migrations.
		var wg sync.WaitGroup
		names := make([]string, 4)
		for i := range names {
			wg.Go(func() {
				s, err := Open(t.Context(), url)
				if err != nil {
					t.Error(err)
					return
				}
				names[i] = s.Identity() + string(s.RevisionKey())
				if len(s.RevisionKey()) != 32 {
					t.Errorf("the key of its revisions has %d bytes", len(s.RevisionKey()))
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if names[0] == "" || len(slices.Compact(names)) != 1 {
			t.Errorf("deployment is called %q", names)
		}
	})
}

func TestANewerSchemaIsRefused(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		s := open(t, url)
		if _, err := s.write.Exec(s.rebind("INSERT INTO goose_db_version (version_id, is_applied) VALUES (?, ?)"), 9000, true); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), url)
		if err == nil || !strings.Contains(err.Error(), "a newer version wrote it") {
			t.Errorf("Open: %v", err)
		}
	})
}

// Writers of several stores on one database wait for each other: revisions have no
// gaps, and what is read at a revision is all there is up to it.
func TestRevisionsAreInOrder(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		ctx := t.Context()
		stores := []*Store{open(t, url), open(t, url)}
		const writers, each = 8, 10
		var wg sync.WaitGroup
		for n := range writers {
			wg.Go(func() {
				s := stores[n%len(stores)]
				for i := range each {
					if err := s.Write(ctx, func(tx *Tx) error {
						if err := tx.PutObject(ctx, Row{Key: resource.Key{Kind: "Tenant", Name: fmt.Sprintf("t%d-%d", n, i)}, Revision: tx.Revision, Document: "{}"}); err != nil {
							return err
						}
						return tx.AddEntry(ctx, Entry{})
					}); err != nil {
						t.Error(err)
					}
					if err := s.Write(ctx, func(tx *Tx) error {
						if err := tx.PutObject(ctx, row("Tenant", "", "never")); err != nil {
							return err
						}
						return ErrDiscard
					}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		readers, stop := context.WithCancel(ctx)
		var reading sync.WaitGroup
		reading.Go(func() {
			for readers.Err() == nil {
				err := stores[0].Read(ctx, func(tx *Tx) error {
					rows, err := tx.Objects(ctx, Query{Kind: "Tenant"})
					if err == nil && int64(len(rows)) != tx.Revision {
						t.Errorf("%d objects at revision %d", len(rows), tx.Revision)
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
		wg.Wait()
		stop()
		reading.Wait()
		if err := stores[0].Read(ctx, func(tx *Tx) error {
			entries, err := tx.Entries(ctx, EntryQuery{})
			if err != nil {
				return err
			}
			if len(entries) != writers*each || tx.Revision != writers*each {
				t.Errorf("%d entries at revision %d, want %d", len(entries), tx.Revision, writers*each)
			}
			for i, e := range entries {
				if e.Revision != int64(i+1) {
					t.Errorf("entry %d has revision %d", i, e.Revision)
				}
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
}

func TestAFailedChangeLeavesNothing(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		ctx := t.Context()
		s := open(t, url)
		trouble := errors.New("trouble")
		if err := s.Write(ctx, func(tx *Tx) error {
			if err := tx.PutObject(ctx, row("Tenant", "", "a")); err != nil {
				return err
			}
			return trouble
		}); !errors.Is(err, trouble) {
			t.Errorf("Write: %v", err)
		}
		canceled, cancel := context.WithCancel(ctx)
		if err := s.Write(canceled, func(tx *Tx) error {
			err := tx.PutObject(ctx, row("Tenant", "", "a"))
			cancel()
			return err
		}); err == nil {
			t.Error("a change is kept although nobody waits for it")
		}
		if head, err := s.Head(ctx); err != nil || head != 0 {
			t.Errorf("Head: %d, %v, want 0", head, err)
		}
		if err := s.Write(ctx, func(tx *Tx) error {
			if ok, err := tx.Exists(ctx, resource.Key{Kind: "Tenant", Name: "a"}); ok || err != nil {
				t.Errorf("Exists: %v, %v", ok, err)
			}
			return nil
		}); err != nil {
			t.Errorf("a change after failed ones: %v", err)
		}
	})
}

// Notes and changes that touch the same bundles, each in its own order, do not wait
// for each other in a circle: PostgreSQL takes a second to find that out.
func TestNotesAndChangesStandInLine(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		ctx := t.Context()
		stores := []*Store{open(t, url), open(t, url)}
		names := []string{"a", "b", "c"}
		mark := func(tx *Tx) error {
			for _, name := range names {
				if err := tx.MarkBundle(ctx, "VirtualCluster", name, false); err != nil {
					return err
				}
			}
			return nil
		}
		if err := stores[0].Write(ctx, mark); err != nil {
			t.Fatal(err)
		}
		var published atomic.Int64
		var wg sync.WaitGroup
		for _, s := range stores {
			tries := 0
			wg.Go(func() {
				for range 50 {
					if err := s.Write(ctx, func(tx *Tx) error { tries++; return mark(tx) }); err != nil {
						t.Error(err)
					}
				}
				if tries != 50 {
					t.Errorf("50 changes were tried %d times", tries)
				}
			})
			wg.Go(func() {
				for range 50 {
					if err := s.Note(ctx, func(tx *Tx) error {
						for _, name := range slices.Backward(names) {
							if err := tx.BundlePublished(ctx, "VirtualCluster", name, published.Add(1)); err != nil {
								return err
							}
						}
						return nil
					}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
}

// What can be read only by looking at every object gets slow with the tenth
// thousandth tenant.
func TestQueriesUseIndexes(t *testing.T) {
	ctx := t.Context()
	s := open(t, "sqlite:"+filepath.Join(t.TempDir(), "x.db"))
	labelled := Query{Kind: "Tenant", Labels: []Requirement{{Label: "a", Operator: In, Values: []string{"b"}}, {Label: "a", Operator: NotIn, Values: []string{"b"}}, {Label: "a", Operator: Exists}, {Label: "a", Operator: NotExists}}}
	// Pages by label and by tenant, the second and those behind: they begin where the page
	// before ended, and what is left out is not read.
	page := func(q Query) string {
		q.AfterScope, q.AfterName, q.Limit = "x", "x", 10
		query, _ := q.rows(false)
		return query
	}
	mine := labelled
	mine.Tenant = "acme"
	byLabel, byTenant := page(Query{Kind: "Tenant", Labels: labelled.Labels[:1]}), page(Query{Kind: "AliasTopic", Tenant: "acme"})
	begins := map[string]string{
		byLabel:  "SEARCH d USING COVERING INDEX labels_by_value (kind=? AND label=? AND value=? AND (scope,name)>(?,?))",
		byTenant: "SEARCH objects USING INDEX objects_of_tenant (tenant=? AND kind=? AND (scope,name)>(?,?))",
	}
	for _, query := range []string{
		byLabel, byTenant, page(labelled), page(mine),
		"SELECT 1 FROM objects WHERE kind = ? AND scope = ? AND name = ?",
		"SELECT 1 FROM objects WHERE kind = ? AND tenant = ? AND (scope, name) > (?, ?) ORDER BY scope, name LIMIT 10",
		"SELECT 1 FROM objects WHERE kind = ? AND scope = ? AND (scope, name) > (?, ?) ORDER BY scope, name LIMIT 10",
		"SELECT 1 FROM claims WHERE space = ? AND scope = ? AND value = ?",
		"DELETE FROM claims WHERE kind = ? AND object_scope = ? AND object_name = ?",
		"DELETE FROM refs WHERE kind = ? AND scope = ? AND name = ?",
		"SELECT count(*) FROM (SELECT DISTINCT kind, scope, name FROM refs WHERE to_kind = ? AND to_scope = ? AND to_name = ?) r",
		"SELECT 1 FROM secrets WHERE virtual_cluster = ? AND account = ?",
		"SELECT 1 FROM bundles WHERE published < revision ORDER BY revision, kind, name LIMIT 10",
		"SELECT 1 FROM bundles WHERE (kind, name) > (?, ?) ORDER BY kind, name LIMIT 10",
		"SELECT 1 FROM audit WHERE 1 = 1 AND tenant = ? AND (revision, seq) < (?, ?) ORDER BY revision DESC, seq DESC LIMIT 10",
		"SELECT 1 FROM audit WHERE 1 = 1 AND (revision, seq) > (?, ?) ORDER BY revision, seq LIMIT 10",
		"SELECT 1 FROM audit WHERE (revision, seq) > (?, ?) LIMIT 10",
	} {
		rows, err := s.read.QueryContext(ctx, "EXPLAIN QUERY PLAN "+query, slices.Repeat([]any{"x"}, strings.Count(query, "?"))...)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			if want, ok := begins[query]; ok && want != "" {
				if begins[query] = ""; detail != want {
					t.Errorf("%s: begins by %s, want %s", query, detail, want)
				}
			}
			if strings.Contains(detail, "TEMP B-TREE") && strings.Contains(query, "objects.kind") {
				t.Errorf("%s: %s: what is not on the page is sorted", query, detail)
			}
			if strings.HasPrefix(detail, "SEARCH l ") && !strings.Contains(detail, "scope=? AND name=?") {
				t.Errorf("%s: %s: not by the object", query, detail)
			}
			if strings.HasPrefix(detail, "SCAN") && detail != "SCAN r" && !strings.Contains(detail, "bundles_pending") {
				t.Errorf("%s: %s", query, detail)
			}
		}
		rows.Close()
	}
}

// What a transaction asks again is answered as it is by then, and one that begins
// later is not answered from an earlier one.
func TestWhatIsAskedAgainIsAnsweredAnew(t *testing.T) {
	each(t, func(t *testing.T, fresh string) {
		s := open(t, fresh)
		key := resource.Key{Kind: resource.KindTenant, Name: "acme"}
		for range 3 {
			if err := s.Write(t.Context(), func(tx *Tx) error {
				for i := range 5 {
					document := fmt.Sprintf(`{"n":%d,"revision":%d}`, i, tx.Revision)
					if err := tx.PutObject(t.Context(), Row{Key: key, Revision: tx.Revision, Document: document}); err != nil {
						return err
					}
					row, ok, err := tx.Object(t.Context(), key)
					if err != nil || !ok || row.Document != document {
						return fmt.Errorf("the object reads %q, %v, %w: want %q", row.Document, ok, err, document)
					}
					if exists, err := tx.Exists(t.Context(), resource.Key{Kind: key.Kind, Name: fmt.Sprint(i)}); exists || err != nil {
						return fmt.Errorf("there is a tenant %d: %v, %w", i, exists, err)
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		cancelled, cancel := context.WithCancel(t.Context())
		err := s.Write(t.Context(), func(tx *Tx) error {
			for range 3 {
				if _, err := tx.Exists(t.Context(), key); err != nil {
					return err
				}
			}
			cancel()
			if _, err := tx.Exists(cancelled, key); err == nil {
				return errors.New("asked with a context that has ended, and answered")
			}
			return ErrDiscard
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// What is behind an entry is counted, and what is before one goes when it is old.
func TestTheLogIsPassedOnAndForgotten(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		ctx := t.Context()
		s := open(t, url)
		start := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
		for i := range 5 { // revisions 1 to 5, two entries each
			if err := s.Write(ctx, func(tx *Tx) error {
				return errors.Join(tx.AddEntry(ctx, Entry{At: start.Add(time.Duration(i) * time.Hour)}), tx.AddEntry(ctx, Entry{At: start.Add(time.Duration(i) * time.Hour)}))
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Note(ctx, func(tx *Tx) error {
			if _, ok, err := tx.Export(ctx, "audit"); ok || err != nil {
				t.Errorf("an export that never was: %v, %v", ok, err)
			}
			now, err := tx.Now(ctx)
			if err != nil || time.Since(now).Abs() > time.Hour {
				t.Errorf("the database says it is %v, %v", now, err)
			}
			for _, want := range []Export{{1, 2, "a", now, "no brokers"}, {3, 4, "", time.Time{}, ""}} {
				if err := tx.PutExport(ctx, "audit", want); err != nil {
					return err
				}
				if got, ok, err := tx.Export(ctx, "audit"); got != want || !ok || err != nil {
					t.Errorf("export %+v, %v, %v, want %+v", got, ok, err, want)
				}
			}
			for _, tt := range []struct {
				revision, seq int64
				limit         int
				n             int64
				oldest        time.Time
			}{
				{1, -1, 100, 10, start},
				{1, 1, 100, 8, start.Add(time.Hour)},
				{1, 1, 3, 3, start.Add(time.Hour)},
				{5, 0, 100, 1, start.Add(4 * time.Hour)},
				{5, 1, 100, 0, time.Time{}},
			} {
				if n, oldest, err := tx.EntriesBehind(ctx, tt.revision, tt.seq, tt.limit); n != tt.n || !oldest.Equal(tt.oldest) || err != nil {
					t.Errorf("behind %d.%d: %d, %v, %v, want %d, %v", tt.revision, tt.seq, n, oldest, err, tt.n, tt.oldest)
				}
			}
			for _, tt := range []struct {
				revision, seq int64
				before        time.Time
				limit         int
				n             int64
			}{
				{9, 0, start, 100, 0},                    // none is older
				{2, 0, start.Add(2 * time.Hour), 100, 3}, // not what is behind
				{9, 0, start.Add(9 * time.Hour), 2, 2},   // no more than that
				{9, 0, start.Add(4 * time.Hour), 100, 3},
			} {
				if n, err := tx.RemoveEntries(ctx, tt.revision, tt.seq, tt.before, tt.limit); n != tt.n || err != nil {
					t.Errorf("removed before %v up to %d.%d: %d, %v, want %d", tt.before, tt.revision, tt.seq, n, err, tt.n)
				}
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
}
