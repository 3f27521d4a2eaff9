package failures

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tollgate.internal/e2e/internal/site"
)

// A databaseCopy is of a moment at which no portal ran.
type databaseCopy struct {
	bed   *bed
	files map[string][]byte // of SQLite
}

// copied is the name of the copy that PostgreSQL keeps beside the first database.
const copied, original = "copied", "t1"

// stopped does something while no portal runs.
func (b *bed) stopped(t *testing.T, do func()) {
	t.Helper()
	for _, p := range b.Portals {
		p.Stop(t)
	}
	do()
	for _, p := range b.Portals {
		p.Launch(t)
	}
}

func (b *bed) sql(t *testing.T, statement string) {
	t.Helper()
	if _, err := b.postgres.Query("postgres", statement); err != nil {
		t.Fatal(err)
	}
}

// copyDatabase takes a copy of the database.
func (b *bed) copyDatabase(t *testing.T) *databaseCopy {
	t.Helper()
	c := &databaseCopy{bed: b, files: make(map[string][]byte)}
	b.stopped(t, func() {
		if b.postgres != nil {
			b.sql(t, "CREATE DATABASE "+copied+" TEMPLATE "+original)
			return
		}
		for _, path := range b.sqliteFiles(t) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			c.files[path] = text
		}
		if len(c.files) == 0 {
			t.Fatal("there is no database")
		}
	})
	return c
}

func (b *bed) sqliteFiles(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(b.disk, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// restore puts the copy in the place of the database, and starts the portals.
func (c *databaseCopy) restore(t *testing.T) {
	t.Helper()
	c.bed.stopped(t, func() {
		if c.bed.postgres != nil {
			c.bed.sql(t, "DROP DATABASE "+original)
			c.bed.sql(t, "CREATE DATABASE "+original+" TEMPLATE "+copied)
			return
		}
		for _, path := range c.bed.sqliteFiles(t) {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
		for path, text := range c.files {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	})
}

var told = regexp.MustCompile(`TOLLGATE_PORTAL_RESTORED_AT=(\d+)`)

// ahead waits until every portal says that the fleet knows more than the database, and
// which number to go on with.
func (b *bed) ahead(t *testing.T) (number string) {
	t.Helper()
	for _, p := range b.Portals {
		site.Eventually(t, p.Name+" says that the database is old", func(ctx context.Context) error {
			_, body, err := p.Get(ctx, "/readyz")
			m := told.FindStringSubmatch(body)
			if err != nil || m == nil || !strings.Contains(body, `"status":"degraded"`) {
				return fmt.Errorf("%s, %w", body, err)
			}
			number = m[1]
			return nil
		})
		if !strings.Contains(p.Said(t), "TOLLGATE_PORTAL_RESTORED_AT="+number) {
			t.Errorf("%s does not say in its log which number to set", p.Name)
		}
		if p.Metric(t, "tollgate_portal_fleet_ahead_revisions") <= 0 {
			t.Errorf("%s does not count how much the fleet is ahead", p.Name)
		}
	}
	return number
}

// A copy of the database takes nothing back: portals publish none of it until they are
// told to go on, and say so; clients notice neither.
func TestTheDatabaseIsRestored(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { restored(t, onSQLite(t, 2)) })
	t.Run("postgres", func(t *testing.T) { restored(t, onPostgres(t, 2)) })
}

func restored(t *testing.T, b *bed) {
	r := b.prepare(t, 3)
	b.tenant(t, "globex")
	bystanders := append(b.open(t, acme, dev), b.open(t, "globex", dev)...)
	working := b.work(t, false)
	r.one(t)
	old := b.copyDatabase(t)

	r.one(t)
	b.account(t, acme, "newcomer")
	b.tenant(t, "late")
	newcomer, late := b.open(t, acme, "newcomer"), b.open(t, "late", dev)
	old.restore(t)
	number := b.ahead(t)

	// What is done meanwhile is kept, and on no node; and nothing that they know is taken back.
	applied := make([]float64, len(b.Nodes))
	for i, n := range b.Nodes {
		applied[i] = n.Metric(t, "tollgate_proxy_fleet_applied_revision")
	}
	a := b.Must(t, http.MethodPost, "/v1/apply?wait=applied&timeout=2s", pair(1))
	if said := a.Header.Get("Tollgate-Applied"); !strings.HasPrefix(said, "pending") {
		t.Errorf("a change that is not published is on the nodes, they say: %d %q", a.Status, said)
	}
	working.goOn(t)
	r.hold(t)
	if b.postgres == nil {
		if err := b.Redis.Client().FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		working.goOn(t)
		if again := b.ahead(t); again != number {
			t.Errorf("after Redis was emptied it is %s that the fleet was told of, and %s before", again, number)
		}
	}
	for i, n := range b.Nodes {
		if now := n.Metric(t, "tollgate_proxy_fleet_applied_revision"); now != applied[i] {
			t.Errorf("%s applied revision %v, and %v when the copy was put in", n.Name, now, applied[i])
		}
	}
	for _, p := range b.Portals {
		if n := p.Metric(t, "tollgate_portal_bundles_published_total"); n != 0 {
			t.Errorf("%s published %v bundles of the copy", p.Name, n)
		}
	}
	for _, s := range append(newcomer, late...) {
		if err := s.StillOpen(); err != nil {
			t.Error(err)
		}
	}

	// As the manual says: the copy is brought up to date, and then goes on.
	for _, name := range r.gone[1:] {
		b.Must(t, http.MethodDelete, r.secrets[name], "")
	}
	b.stopped(t, func() {
		for _, p := range b.Portals {
			p.Set("TOLLGATE_PORTAL_RESTORED_AT=" + number)
		}
	})
	b.wellAgain(t)
	b.Apply(t, pair(2))
	r.hold(t)
	working.goOn(t)
	// The copy never had the account; the nodes have the virtual cluster that it never had.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, s := range newcomer {
		if _, err := s.Ended(ctx); err != nil {
			t.Error(err)
		}
	}
	b.account(t, acme, "newcomer")
	b.open(t, acme, "newcomer")
	r.one(t)
	b.stopped(t, func() {}) // with the number still set
	b.wellAgain(t)
	r.hold(t)
	working.end(t)
	var log struct{ Items []struct{ Actor string } }
	if b.Must(t, http.MethodGet, "/v1/audit?action=restore", "").Into(t, &log); len(log.Items) != 1 || log.Items[0].Actor != "portal" {
		t.Errorf("the log has %+v, want that the portal went on once", log.Items)
	}
	for _, s := range append(bystanders, late...) {
		if err := s.StillOpen(); err != nil {
			t.Error(err)
		}
	}
}

// wellAgain waits until everything is published, and on every node.
func (b *bed) wellAgain(t *testing.T) {
	t.Helper()
	for _, p := range b.Portals {
		site.Eventually(t, p.Name+" publishes", func(ctx context.Context) error {
			_, body, err := p.Get(ctx, "/readyz")
			var health struct{ Status string }
			if err := errors.Join(err, json.Unmarshal([]byte(body), &health)); err != nil || health.Status != "ok" {
				return fmt.Errorf("%s, %w", body, err)
			}
			head := p.Metric(t, "tollgate_portal_published_revision")
			for _, n := range b.Nodes {
				if now := n.Metric(t, "tollgate_proxy_fleet_applied_revision"); head == 0 || now < head {
					return fmt.Errorf("%s has %v of %v", n.Name, now, head)
				}
			}
			return nil
		})
	}
}
