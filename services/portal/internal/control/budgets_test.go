package control

import (
	"errors"
	"strings"
	"testing"

	"tollgate.internal/pkg/resource"
)

// What those who run the gateway set as a limit is not the tenant's to move; what a
// tenant sets for itself is.
func TestABudgetIsWhoseWroteIt(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		b.apply(base)
		const limit = `period: month, amount: "5000", currency: EUR, notify: {emails: [ops@acme.example]}`
		budget := func(name, more string) string {
			return doc("Budget name: " + name + ", tenant: acme | " + limit + more)
		}
		tenants := func(text string, options Options) error {
			options.Tenant = "acme"
			_, err := b.Apply(t.Context(), partner, parse(t, text), options)
			return err
		}
		owner := func(name string) resource.Owner {
			t.Helper()
			s, err := b.Get(t.Context(), key("Budget", "acme", name))
			if err != nil {
				t.Fatal(err)
			}
			return s.Object.(*resource.Budget).Spec.Owner
		}
		forbidden := func(what string, err error) {
			t.Helper()
			if no, ok := errors.AsType[*Forbidden](err); !ok || !strings.Contains(no.Text, "was written by those who run the gateway") || !strings.Contains(no.Text, "write a Budget of another name") {
				t.Errorf("%s: %v, want that it is forbidden", what, err)
			}
		}

		b.apply(budget("ours", ""))
		if err := tenants(budget("theirs", ""), Options{}); err != nil {
			t.Fatal(err)
		}
		if o, p := owner("ours"), owner("theirs"); o != resource.OwnerOperator || p != resource.OwnerTenant {
			t.Errorf("owners %s and %s", o, p)
		}
		before := b.head()
		for _, options := range []Options{{}, {DryRun: true}, {IfRevision: 1}, {IfAbsent: true}} {
			for _, more := range []string{"", ", owner: tenant", ", owner: operator", ", thresholds: [1]"} {
				forbidden("put"+more, tenants(budget("ours", more), options))
			}
			options.Tenant = "acme"
			_, err := b.Delete(t.Context(), partner, key("Budget", "acme", "ours"), options)
			forbidden("delete", err)
		}
		forbidden("among others", tenants(budget("theirs", ", thresholds: [9]")+budget("ours", ""), Options{}))
		if err := tenants(budget("theirs", ", owner: operator"), Options{}); err == nil || !strings.Contains(err.Error(), "spec.owner: is for those who run the gateway") {
			t.Errorf("a tenant makes its budget the gateway's: %v", err)
		}
		if err := tenants(budget("new", ", owner: operator"), Options{}); err == nil || !strings.Contains(err.Error(), "spec.owner: is for those who run the gateway") {
			t.Errorf("a tenant makes a budget of the gateway's: %v", err)
		}
		if b.head() != before {
			t.Error("something is kept")
		}
		if err := tenants(budget("theirs", ", thresholds: [9]"), Options{}); err != nil {
			t.Errorf("its own: %v", err)
		}

		// Whoever runs the gateway takes a name by writing it as it is, and leaves a budget
		// the tenant's by saying so.
		b.apply(budget("theirs", ", thresholds: [9], owner: tenant"))
		if o := owner("theirs"); o != resource.OwnerTenant {
			t.Errorf("left as it is, it is %s's", o)
		}
		b.apply(budget("theirs", ", thresholds: [9]"))
		forbidden("what was taken", tenants(budget("theirs", ", thresholds: [9]"), Options{}))

		// A tenant prunes what is its own.
		labelled := strings.ReplaceAll(budget("ours", "")+budget("own", ""), "tenant: acme}", "tenant: acme, labels: {x: y}}")
		b.apply(strings.Replace(labelled, "EUR, notify", "EUR, owner: operator, notify", 1))
		if err := tenants(strings.ReplaceAll(budget("mine", ""), "tenant: acme}", "tenant: acme, labels: {x: y}}"), Options{}); err != nil {
			t.Fatal(err)
		}
		selector, err := ParseSelector("x=y")
		if err != nil {
			t.Fatal(err)
		}
		gone, err := b.ApplyAndPrune(t.Context(), partner, nil, Prune{Labels: selector}, asAcme)
		if err != nil || len(gone) != 1 || gone[0].Object.Meta().Name != "mine" {
			t.Errorf("pruned %v, %v", gone, err)
		}
	})
}
