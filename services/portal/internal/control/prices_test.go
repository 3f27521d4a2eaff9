package control

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tollgate.internal/pkg/resource"
)

const (
	book2027   = `PriceBook name: standard-2027 | from: 2027-06-01T00:00:00Z, currency: EUR, entries: [{unit: GiB, cluster: main, price: "0.04"}]`
	policyAcme = `Policy name: durable, virtualCluster: acme-prod | type: produce, config: {acks: all}`
	budgetAcme = `Budget name: monthly, tenant: acme | period: month, amount: "5000", currency: EUR, notify: {emails: [ops@acme.example]}`
)

func aBook(name, from, more string) string {
	return doc("PriceBook name: " + name + " | from: " + from + ", currency: EUR, entries: [{unit: GiB, price: \"0.04\"}]" + more)
}

// What was counted keeps its price. The clock shows the beginning of 2027.
func TestPricesOfThePastStay(t *testing.T) {
	const past, later, future = "2026-01-01T00:00:00Z", "2026-07-01T00:00:00Z", "2027-06-01T00:00:00Z"
	for _, c := range []struct {
		name, there, change string
		want                string // empty: it is kept
	}{
		{"an empty store takes its past", "", aBook("a", past, "") + aBook("b", later, "") + aBook("g", later, ", plan: gold") + aBook("c", future, ""), ""},
		{"a book to come", aBook("a", past, ""), aBook("b", future, ""), ""},
		{"a book to come is changed", aBook("a", future, ""), aBook("a", "2028-01-01T00:00:00Z", ""), ""},
		{"a book of the past that is as it was", aBook("a", past, ""), aBook("a", past, ""), ""},
		{"the same moment in another zone", aBook("a", past, ""), aBook("a", "2026-01-01T01:00:00+01:00", ""), ""},
		{"another price", aBook("a", past, ""), strings.Replace(aBook("a", past, ""), "0.04", "0.05", 1), "spec: is in effect since 2026-01-01T00:00:00Z and stays as it is"},
		{"another time", aBook("a", past, ""), aBook("a", future, ""), "spec: is in effect since"},
		{"this very moment", aBook("a", "2027-01-01T00:00:00Z", ""), aBook("a", future, ""), "spec: is in effect since"},
		{"a book of the past behind another", aBook("a", past, ""), aBook("b", later, ""), "spec.from: is in the past, when PriceBook a was in effect"},
		{"a book to come moves into the past", aBook("a", past, "") + aBook("b", future, ""), aBook("b", later, ""), "spec.from: is in the past, when PriceBook a was in effect"},
		{"a book of the past before all others", aBook("a", later, ""), aBook("b", past, ""), ""},
		{"of another plan, which had these prices", aBook("a", past, ""), aBook("b", later, ", plan: gold"), "spec.from: is in the past, when PriceBook a was in effect"},
		{"of another plan, which had others by then", aBook("a", later, "") + aBook("g", later, ", plan: gold"), aBook("b", past, ", plan: gold"), ""},
		{"of another plan, without prices in common", aBook("a", past, ", plan: silver"), aBook("b", later, ", plan: gold"), ""},
		{"of a cluster that is not there", "", strings.Replace(aBook("a", future, ""), "unit: GiB", "unit: GiB, cluster: mars", 1), `spec.entries[0].cluster: there is no UpstreamCluster "mars"`},
		{"of a cluster that comes along", "", strings.Replace(aBook("a", future, ""), "unit: GiB", "unit: GiB, cluster: mars", 1) + doc(`UpstreamCluster name: mars | bootstrap: ["mars:9092"]`), ""},
		{"two books of one moment", aBook("a", future, ""), aBook("b", "2027-06-01T02:00:00+02:00", ""), "spec.from: plans without prices of their own begin at this time to pay by PriceBook a already"},
		{"two books that change places", aBook("a", future, "") + aBook("b", "2028-01-01T00:00:00Z", ""), aBook("b", future, "") + aBook("a", "2028-01-01T00:00:00Z", ""), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			each(t, func(t *testing.T, b *bed) {
				b.apply(base)
				if c.there != "" {
					b.apply(c.there)
				}
				before, err := b.Head(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				_, err = b.try(c.change)
				if c.want == "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				invalid, ok := errors.AsType[*Invalid](err)
				if !ok || len(invalid.Problems) != 1 || !strings.HasPrefix(invalid.Problems[0].Field+": "+invalid.Problems[0].Message, c.want) {
					t.Errorf("%v, want %s", err, c.want)
				}
				if after, err := b.Head(t.Context()); err != nil || after != before {
					t.Errorf("at %d, %v: something was kept", after, err)
				}
			})
		})
	}
}

// A book that is in effect stays, whoever wants it gone; labels and clusters are
// nothing that was counted.
func TestAPriceBookInEffectIsNotDeleted(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		b.apply(base + doc(book2027, `UpstreamCluster name: mars | bootstrap: ["mars:9092"]`) +
			strings.Replace(aBook("a", "2026-01-01T00:00:00Z", ""), "unit: GiB", "unit: GiB, cluster: mars", 1))
		if _, err := b.Delete(t.Context(), alice, key("UpstreamCluster", "", "mars"), Options{}); err != nil {
			t.Errorf("the cluster of a price book: %v", err)
		}
		labelled := strings.Replace(aBook("a", "2026-01-01T00:00:00Z", ""), "{name: a}", "{name: a, labels: {x: y}}", 1)
		b.apply(strings.Replace(labelled, "unit: GiB", "unit: GiB, cluster: mars", 1))

		ops := key("PriceBook", "", "a")
		_, err := b.Delete(t.Context(), alice, ops, Options{})
		if refused, ok := errors.AsType[*Refused](err); !ok || !strings.Contains(refused.Text, "is in effect since 2026-01-01T00:00:00Z and stays") || !strings.Contains(refused.Text, "write another PriceBook of the same plan with a later from") {
			t.Errorf("deleted: %v", err)
		}
		selector, err := ParseSelector("x=y")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.ApplyAndPrune(t.Context(), alice, nil, Prune{Labels: selector}, Options{}); err == nil {
			t.Error("pruned")
		}
		if _, err := b.Get(t.Context(), ops); err != nil {
			t.Error(err)
		}

		// One that is yet to come goes; once it came, it stays.
		coming := key("PriceBook", "", "standard-2027")
		if _, err := b.Delete(t.Context(), alice, coming, Options{}); err != nil {
			t.Error(err)
		}
		b.apply(doc(book2027))
		b.now = time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC)
		if _, err := b.Delete(t.Context(), alice, coming, Options{}); err == nil {
			t.Error("deleted at the moment it came")
		}
	})
}

// The fleet is told of no prices, and a tenant goes with its budgets only after them.
func TestPricesAndBudgetsAreNoBundles(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		b.apply(base)
		before, err := b.Pending(t.Context(), 100)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Published(t.Context(), before...); err != nil {
			t.Fatal(err)
		}
		b.apply(doc(book2027, budgetAcme))
		if pending, err := b.Pending(t.Context(), 100); err != nil || len(pending) != 0 {
			t.Errorf("pending %v, %v", pending, err)
		}
		budget := key("Budget", "acme", "monthly")
		s, err := b.Get(t.Context(), budget)
		if err != nil || s.Tenant != "acme" {
			t.Errorf("of %q, %v", s.Tenant, err)
		}
		b.apply(doc("Tenant name: bare"))
		b.apply(strings.ReplaceAll(doc(budgetAcme), "tenant: acme", "tenant: bare"))
		_, err = b.Delete(t.Context(), alice, key("Tenant", "", "bare"), Options{})
		if referenced, ok := errors.AsType[*Referenced](err); !ok || referenced.By[0] != (resource.Key{Kind: "Budget", Scope: "bare", Name: "monthly"}) {
			t.Errorf("the tenant of a budget: %v", err)
		}
		entries, err := b.Audit(t.Context(), AuditQuery{Kind: "Budget"})
		if err != nil || len(entries.Entries) != 2 || !strings.Contains(string(entries.Entries[1].After), "5000") {
			t.Errorf("log %v, %v", entries, err)
		}
		// What somebody else's tenant may write is their own.
		_, err = b.Apply(t.Context(), alice, parse(t, doc(budgetAcme)), Options{Tenant: "bare"})
		if _, ok := errors.AsType[*NotFound](err); !ok {
			t.Errorf("another tenant's budget: %v", err)
		}
	})
}
