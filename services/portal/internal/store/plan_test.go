package store

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"tollgate.internal/pkg/resource"
)

// Whatever a tenant asks for, no row of others is read for it: how long that would
// take tells how many they have.
func TestATenantsRowsAreFoundByTheTenant(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		s := open(t, url)
		const count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
		for _, query := range []string{
			count + `INSERT INTO objects SELECT 'Acl', 'globex-prod', 'a-' || i, 'globex', i, i, i, i, '{}' FROM n`,
			`INSERT INTO objects VALUES ('Acl', 'acme-prod', 'a', 'acme', 1, 1, 1, 1, '{}'), ('Acl', 'zacme-prod', 'a', 'acme', 1, 1, 1, 1, '{}')`,
			count + `INSERT INTO audit (revision, seq, at, actor, actor_kind, address, request, action, kind, scope, name, tenant, detail, before, after)
				SELECT i, 0, i, 'x', 'token', '', '', 'create', 'Acl', 'globex-prod', 'a-' || i, 'globex', '', '', '' FROM n`,
			`INSERT INTO audit (revision, seq, at, actor, actor_kind, address, request, action, kind, scope, name, tenant, detail, before, after)
				VALUES (7, 1, 1, 'x', 'token', '', '', 'create', 'Acl', 'acme-prod', 'a', 'acme', '', '', '')`,
			count + `INSERT INTO grant_requests SELECT 'globex', 'r-' || i, 'open', i, i % 2 * i, '{}' FROM n`,
			`INSERT INTO grant_requests VALUES ('acme', 'a', 'open', 1, 0, '{}'), ('acme', 'b', 'refused', 2, 3, '{}')`,
			"ANALYZE",
		} {
			if _, err := s.write.ExecContext(t.Context(), query); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
		}
		labels := []Requirement{{Label: "x", Operator: In, Values: []string{"y"}}}
		for name, ask := range map[string]func(ctx context.Context, tx *Tx) error{
			"an object": func(ctx context.Context, tx *Tx) error {
				_, _, err := tx.ObjectOf(ctx, "acme", resource.Key{Kind: "Acl", Scope: "globex-prod", Name: "a-1"})
				return err
			},
			"a page": func(ctx context.Context, tx *Tx) error {
				_, err := tx.Objects(ctx, Query{Kind: "Acl", Tenant: "acme", Limit: 101})
				return err
			},
			"the next page": func(ctx context.Context, tx *Tx) error {
				_, err := tx.Objects(ctx, Query{Kind: "Acl", Tenant: "acme", AfterScope: "globex-prod", AfterName: "a-1", Limit: 101})
				return err
			},
			"a page by label and name": func(ctx context.Context, tx *Tx) error {
				_, err := tx.Objects(ctx, Query{Kind: "Acl", Tenant: "acme", Labels: labels, Name: "a", Limit: 101})
				return err
			},
			"a request": func(ctx context.Context, tx *Tx) error {
				_, _, err := tx.GrantRequest(ctx, "acme", "a")
				return err
			},
			"a page of requests": func(ctx context.Context, tx *Tx) error {
				_, err := tx.GrantRequests(ctx, RequestQuery{Tenant: "acme", Limit: 101})
				return err
			},
			"the next page of requests of a state": func(ctx context.Context, tx *Tx) error {
				_, err := tx.GrantRequests(ctx, RequestQuery{Tenant: "acme", State: "open", AfterAsked: time.UnixMicro(1), AfterID: "a", Limit: 101})
				return err
			},
			"a page of the log": func(ctx context.Context, tx *Tx) error {
				_, err := tx.Entries(ctx, EntryQuery{Tenant: "acme", Newest: true, Since: 3, Limit: 101})
				return err
			},
			"the log of somebody's": func(ctx context.Context, tx *Tx) error {
				_, err := tx.Entries(ctx, EntryQuery{Tenant: "acme", Key: resource.Key{Kind: "Acl", Scope: "globex-prod", Name: "a-1"}, Limit: 101})
				return err
			},
			"what somebody did": func(ctx context.Context, tx *Tx) error {
				_, err := tx.Entries(ctx, EntryQuery{Tenant: "acme", Actor: "x", By: ByTenant, Action: "create", Revision: 4, Limit: 101})
				return err
			},
		} {
			var plan string
			if err := s.Read(t.Context(), func(tx *Tx) error {
				var query string
				var args []any
				tx.watch = func(q string, a []any) { query, args = q, a }
				if err := ask(t.Context(), tx); err != nil {
					return err
				}
				tx.watch = nil
				explain := "EXPLAIN QUERY PLAN "
				if s.postgres {
					explain = "EXPLAIN "
				}
				plan = ""
				rows, err := tx.tx.QueryContext(t.Context(), explain+s.rebind(query), args...)
				if err != nil {
					return err
				}
				defer rows.Close()
				for rows.Next() {
					var id, parent, unused int
					var line string
					into := []any{&id, &parent, &unused, &line}
					if s.postgres {
						into = into[3:]
					}
					if err := rows.Scan(into...); err != nil {
						return err
					}
					plan += line + "\n"
				}
				return rows.Err()
			}); err != nil {
				t.Fatal(err)
			}
			found := regexp.MustCompile(`INDEX \w+ \(+tenant[=,]`) // SQLite's words
			if s.postgres {
				found = regexp.MustCompile(`Index Cond: .*(\(tenant\)::text = |ROW\(\(tenant\)::text)`)
			}
			if !found.MatchString(plan) || strings.Contains(plan, "Seq Scan on objects") || strings.Contains(plan, "Seq Scan on audit") || strings.Contains(plan, "Seq Scan on grant_requests") {
				t.Errorf("%s is found by\n%s", name, plan)
			}
		}
	})
}
