package failures

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"tollgate.internal/e2e/internal/site"
)

// revocations are secrets that were taken away; every node has to refuse them for ever.
type revocations struct {
	bed     *bed
	secrets map[string]string // paths, by account
	gone    []string          // accounts
}

// prepare makes accounts whose secrets are going to be revoked, and has every node know
// them to be good.
func (b *bed) prepare(t *testing.T, n int) *revocations {
	t.Helper()
	r := &revocations{bed: b, secrets: make(map[string]string)}
	for i := range n {
		name := fmt.Sprintf("leaver%d", i)
		r.secrets[name] = b.account(t, acme, name)
	}
	return r
}

// one revokes the next secret, and waits until that is in force in the sessions of the
// account, and everywhere.
func (r *revocations) one(t *testing.T) {
	t.Helper()
	name := fmt.Sprintf("leaver%d", len(r.gone))
	sessions := r.bed.open(t, acme, name)
	r.bed.Must(t, http.MethodDelete, r.secrets[name], "")
	r.gone = append(r.gone, name)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, s := range sessions {
		if _, err := s.Ended(ctx); err != nil {
			t.Fatal(err)
		}
	}
	r.hold(t)
}

// hold asks every node for every secret that was revoked.
func (r *revocations) hold(t *testing.T) {
	t.Helper()
	for _, n := range r.bed.Nodes {
		for _, name := range r.gone {
			site.Eventually(t, "a login is answered", func(ctx context.Context) error {
				is, err := site.Refused(ctx, n.Target(acme, "PLAIN", name, password))
				if err == nil && !is {
					t.Fatalf("%s has forgotten that %s was revoked", n.Name, name)
				}
				return err
			})
		}
	}
}

// Proxies, portals, Redis and PostgreSQL are killed in turn and together, while clients
// work and changes are made.
func TestEverythingIsKilled(t *testing.T) {
	b := onPostgres(t, 3)
	r := b.prepare(t, 7)
	working, changing := b.work(t, true), b.change(t)
	after := func(what string) {
		t.Helper()
		working.goOn(t)
		changing.goOn(t)
		r.one(t)
		t.Logf("%s: goes on at change %d", what, changing.acked.Load())
	}
	after("nothing")

	for _, n := range b.Nodes {
		n.Kill(t)
		working.goOn(t)
		n.Launch(t)
	}
	after("each node")

	for _, p := range b.Portals {
		p.Kill(t)
		changing.goOn(t) // by the other
		p.Launch(t)
	}
	after("each portal")

	b.Redis.Kill(t)
	working.goOn(t)
	stored := changing.acked.Load()
	site.Eventually(t, "changes are stored without Redis", func(context.Context) error {
		if changing.acked.Load() < stored+3 {
			return fmt.Errorf("%d, and %d before", changing.acked.Load(), stored)
		}
		return nil
	})
	r.hold(t)
	b.Redis.Launch(t)
	after("Redis")

	b.postgres.Kill()
	working.goOn(t)
	r.hold(t)
	if err := b.postgres.Launch(); err != nil {
		t.Fatal(err)
	}
	after("PostgreSQL")

	b.killAll(t)
	b.Redis.Launch(t)
	if err := b.postgres.Launch(); err != nil {
		t.Fatal(err)
	}
	for _, p := range b.Portals {
		p.Launch(t)
	}
	for _, n := range b.Nodes {
		n.Launch(t)
	}
	after("everything")

	// What nodes know without anybody to ask.
	r.bed.Redis.Kill(t)
	b.postgres.Kill()
	for _, p := range b.Portals {
		p.Kill(t)
	}
	for _, n := range b.Nodes {
		n.Kill(t)
		n.Launch(t)
		working.goOn(t)
	}
	r.hold(t)
	b.Redis.Launch(t)
	if err := b.postgres.Launch(); err != nil {
		t.Fatal(err)
	}
	for _, p := range b.Portals {
		p.Launch(t)
	}
	after("everything but nodes")
	changing.end(t)
	working.end(t)
}

// killAll kills all at the same moment.
func (b *bed) killAll(t *testing.T) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() { b.Redis.Kill(t) })
	wg.Go(b.postgres.Kill)
	for _, p := range b.Portals {
		wg.Go(func() { p.Kill(t) })
	}
	for _, n := range b.Nodes {
		wg.Go(func() { n.Kill(t) })
	}
	wg.Wait()
}

// Redis hangs, is emptied, and is brought back from a copy of before rights were taken
// away: with portals, and with nobody there who could put it right.
func TestRedisForgets(t *testing.T) {
	b := onSQLite(t, 3)
	r := b.prepare(t, 5)
	working := b.work(t, false)
	changing := b.change(t)
	// A session on each node, so that each has the virtual cluster when it is copied.
	r.one(t)
	old := b.Redis.Copy(t)
	r.one(t)
	goesOn := func() {
		t.Helper()
		working.goOn(t)
		changing.goOn(t)
		r.hold(t)
	}

	b.Redis.Freeze(t)
	working.goOn(t)
	r.hold(t)
	b.Redis.Thaw(t)
	goesOn()

	if err := b.Redis.Client().FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	goesOn()
	r.one(t)

	b.Redis.Restore(t, old)
	goesOn()
	r.one(t)

	for _, p := range b.Portals {
		p.Kill(t)
	}
	b.Redis.Restore(t, old)
	site.Eventually(t, "nodes say that Redis is old", func(ctx context.Context) error {
		for _, n := range b.Nodes {
			if n.Metric(t, "tollgate_proxy_fleet_stale") != 1 {
				return fmt.Errorf("%s does not", n.Name)
			}
		}
		return nil
	})
	r.hold(t)
	for _, n := range b.Nodes {
		n.Kill(t)
		n.Launch(t)
		working.goOn(t)
		if n.Metric(t, "tollgate_proxy_fleet_stale") != 1 {
			t.Errorf("%s believes the old copy after a restart", n.Name)
		}
	}
	r.hold(t)
	for _, p := range b.Portals {
		p.Launch(t)
	}
	goesOn()
	r.one(t)
	changing.end(t)
	working.end(t)
}

// Two write the same object at once, each at a portal of its own: one wins, and the
// other is told.
func TestTwoPortalsOneObject(t *testing.T) {
	b := onPostgres(t, 1)
	const path = "/v1/virtual-clusters/acme/acls/contended"
	body := func(n, by int) string {
		return fmt.Sprintf(`{"apiVersion": "tollgate/v1", "kind": "Acl", "metadata": {"name": "contended", "virtualCluster": "acme"}, "spec": {"principal": "User:p%d", "resource": {"type": "topic", "name": "t%d", "pattern": "literal"}, "operation": "READ", "permission": "ALLOW"}}`, by, n)
	}
	tag := ""
	for n := range 30 {
		condition := "If-None-Match: *"
		if n > 0 {
			condition = "If-Match: " + tag
		}
		answers, errs := make([]site.Answer, 2), make([]error, 2)
		var wg sync.WaitGroup
		for by, p := range b.Portals {
			wg.Go(func() { answers[by], errs[by] = b.Ask(t.Context(), p, http.MethodPut, path, body(n, by), condition) })
		}
		wg.Wait()
		won := -1
		for by, a := range answers {
			switch {
			case errs[by] != nil:
				t.Fatal(errs[by])
			case a.Status < 300 && won < 0:
				won = by
			case a.Status != http.StatusPreconditionFailed && a.Status != http.StatusConflict:
				t.Fatalf("round %d: %v", n, answers)
			}
		}
		if won < 0 {
			t.Fatalf("round %d: nobody won: %v", n, answers)
		}
		tag = answers[won].Header.Get("ETag")
		for _, p := range b.Portals {
			a, err := b.Ask(t.Context(), p, http.MethodGet, path, "")
			if err != nil || a.Header.Get("ETag") != tag {
				t.Fatalf("round %d: %s shows %v, %v, want %s of portal %d", n, p.Name, a, err, tag, won+1)
			}
		}
	}
}
