package control

import (
	"errors"
	"strings"
	"testing"

	"tollgate.internal/pkg/bundle"
)

// A policy reaches the proxies in the bundle of its virtual cluster, and leaves with it.
func TestPoliciesAreInTheirBundle(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		id := bundle.ID{Kind: bundle.VirtualCluster, Name: "acme-prod"}
		keyPolicy := key("Policy", "acme-prod", "durable")
		b.apply(base)
		for _, step := range []struct {
			change func() (Result, error)
			want   int
		}{
			{func() (Result, error) { return b.Put(t.Context(), alice, parse(t, doc(policyAcme))[0], Options{}) }, 1},
			{func() (Result, error) { return b.Delete(t.Context(), alice, keyPolicy, Options{}) }, 0},
		} {
			before, err := b.Pending(t.Context(), 100)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Published(t.Context(), before...); err != nil {
				t.Fatal(err)
			}
			r, err := step.change()
			if err != nil {
				t.Fatal(err)
			}
			pending, err := b.Pending(t.Context(), 100)
			if err != nil || len(pending) != 1 || pending[0].ID != id || pending[0].Revision != r.Revision {
				t.Errorf("pending %v, %v, want %v at %d", pending, err, id, r.Revision)
			}
			compiled, err := b.Compile(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if got := compiled.Set().PoliciesOf("acme-prod"); len(got) != step.want {
				t.Errorf("policies %v, want %d", got, step.want)
			}
		}
		b.apply(doc(policyAcme))
		if _, err := b.Delete(t.Context(), alice, keyVC, Options{}); err == nil {
			t.Error("a virtual cluster was deleted beside its policies")
		}
	})
}

// Policies of all virtual clusters are one bundle, whatever there is of anything else, and
// stay one when the last of them has gone.
func TestPoliciesOfAllAreABundleOfTheirOwn(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		const policyAll = "{kind: Policy, metadata: {name: durable, labels: {by: ops}}, spec: {type: produce, config: {acks: all}}}"
		b.apply(base + doc(policyAcme))
		if told, some, err := b.Everywhere(t.Context()); told != 0 || some || err != nil {
			t.Errorf("before there is one: %d, %v, %v", told, some, err)
		}
		published := func() {
			t.Helper()
			marks, err := b.Pending(t.Context(), 100)
			if err == nil {
				err = b.Published(t.Context(), marks...)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		everywhere := key("Policy", "", "durable")
		for _, step := range []struct {
			change func() (Result, error)
			want   int
		}{
			{func() (Result, error) { return b.Put(t.Context(), alice, parse(t, lines(policyAll))[0], Options{}) }, 1},
			{func() (Result, error) { return b.Delete(t.Context(), alice, everywhere, Options{}) }, 0},
		} {
			published()
			r, err := step.change()
			if err != nil {
				t.Fatal(err)
			}
			pending, err := b.Pending(t.Context(), 100)
			if err != nil || len(pending) != 1 || pending[0].ID != bundle.Everywhere || pending[0].Revision != r.Revision || pending[0].Deleted {
				t.Errorf("pending %v, %v, want %v at %d", pending, err, bundle.Everywhere, r.Revision)
			}
			published()
			compiled, err := b.Compile(t.Context(), bundle.Everywhere)
			if err != nil {
				t.Fatal(err)
			}
			if got := compiled.Set().PoliciesOf(""); len(got) != step.want || len(compiled.Objects) != step.want {
				t.Errorf("policies %v, want %d", compiled.Objects, step.want)
			}
			if told, some, err := b.Everywhere(t.Context()); told != r.Revision || some != (step.want > 0) || err != nil {
				t.Errorf("told %d, %v, %v, want %d", told, some, err, r.Revision)
			}
		}
		if _, err := b.Get(t.Context(), key("Policy", "acme-prod", "durable")); err != nil {
			t.Errorf("that of a virtual cluster, of the same name: %v", err)
		}
		// A tenant neither finds nor makes one, whatever it says that it is.
		b.apply(lines(policyAll))
		if _, err := b.GetOf(t.Context(), "acme", everywhere); !isNotFound(err) {
			t.Errorf("a tenant reads it: %v", err)
		}
		if _, err := b.Delete(t.Context(), alice, everywhere, Options{Tenant: "acme"}); !isNotFound(err) {
			t.Errorf("a tenant deletes it: %v", err)
		}
		for _, text := range []string{policyAll, "{kind: Policy, metadata: {name: own, tenant: acme}, spec: {type: produce, config: {acks: all}}}"} {
			if _, err := b.Apply(t.Context(), alice, parse(t, lines(text)), Options{Tenant: "acme"}); !isNotFound(err) {
				t.Errorf("a tenant makes one: %v", err)
			}
		}
		page, err := b.List(t.Context(), Query{Kind: "Policy", Tenant: "acme"})
		if err != nil || len(page.Items) != 1 {
			t.Errorf("a tenant lists %v, %v, want its own", page.Items, err)
		}
		limits := DefaultLimits()
		limits.Policies = 1
		b.Limit(limits)
		if _, err := b.Apply(t.Context(), alice, parse(t, lines("{kind: Policy, metadata: {name: more}, spec: {type: produce, config: {acks: all}}}")), Options{}); err == nil || !strings.Contains(err.Error(), "TOLLGATE_PORTAL_MAX_POLICIES") {
			t.Errorf("more than may be: %v", err)
		}
		// A database that was restored has what nodes are to have, if it is nothing.
		if _, err := b.Restored(t.Context(), alice, 1000); err != nil {
			t.Fatal(err)
		}
		published()
		if told, _, err := b.Everywhere(t.Context()); told < 1000 || err != nil {
			t.Errorf("restored: told %d, %v", told, err)
		}
	})
}

func isNotFound(err error) bool {
	_, ok := errors.AsType[*NotFound](err)
	return ok
}
