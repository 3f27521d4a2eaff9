package control

import (
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
