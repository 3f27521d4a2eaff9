package control

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"tollgate.internal/pkg/resource"
)

func names(p Page) (all []string) {
	for _, s := range p.Items {
		all = append(all, s.Object.Meta().Name)
	}
	return all
}

func TestLists(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		var text []string
		for _, line := range []string{
			"a, labels: {plan: gold, stage: prod}", "b, labels: {plan: silver, stage: prod}", "c, labels: {plan: gold, trial: ''}", "d", "b-2, labels: {plan: ''}",
		} {
			text = append(text, "Tenant name: "+line+" | displayName: x")
		}
		text = append(text, main)
		for _, v := range []string{"a", "b"} {
			text = append(text, "VirtualCluster name: v"+v+", tenant: "+v+" | type: standard, host: h"+v+", home: main, authentication: {plain: {}}",
				"ServiceAccount name: x, virtualCluster: v"+v+" | type: local", "ServiceAccount name: y, virtualCluster: v"+v+" | type: local")
		}
		b.apply(doc(text...))
		for _, tt := range []struct {
			name     string
			query    Query
			selector string
			want     []string
		}{
			{name: "all, by their bytes", query: Query{Kind: "Tenant"}, want: []string{"a", "b", "b-2", "c", "d"}},
			{name: "name", query: Query{Kind: "Tenant", Name: "b"}, want: []string{"b", "b-2"}},
			{name: "name is no pattern", query: Query{Kind: "Tenant", Name: "%"}},
			{name: "tenant", query: Query{Kind: "VirtualCluster", Tenant: "a"}, want: []string{"va"}},
			{name: "tenant itself", query: Query{Kind: "Tenant", Tenant: "a"}, want: []string{"a"}},
			{name: "nobody's", query: Query{Kind: "UpstreamCluster", Tenant: "a"}},
			{name: "scope", query: Query{Kind: "ServiceAccount", Scope: "vb"}, want: []string{"x", "y"}},
			{name: "every scope", query: Query{Kind: "ServiceAccount"}, want: []string{"x", "y", "x", "y"}},
			{name: "equal", query: Query{Kind: "Tenant"}, selector: "plan=gold", want: []string{"a", "c"}},
			{name: "equal twice", query: Query{Kind: "Tenant"}, selector: "plan == gold , stage=prod", want: []string{"a"}},
			{name: "equal to nothing", query: Query{Kind: "Tenant"}, selector: "plan=", want: []string{"b-2"}},
			{name: "other", query: Query{Kind: "Tenant"}, selector: "plan!=gold", want: []string{"b", "b-2", "d"}},
			{name: "one of", query: Query{Kind: "Tenant"}, selector: "plan in (gold, silver),stage", want: []string{"a", "b"}},
			{name: "none of", query: Query{Kind: "Tenant"}, selector: "plan notin (gold,silver)", want: []string{"b-2", "d"}},
			{name: "there", query: Query{Kind: "Tenant"}, selector: "trial", want: []string{"c"}},
			{name: "not there", query: Query{Kind: "Tenant"}, selector: "!plan", want: []string{"d"}},
		} {
			selector, err := ParseSelector(tt.selector)
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			tt.query.Labels, tt.query.Count = selector, true
			page, err := b.List(ctx, tt.query)
			if got := names(page); err != nil || !slices.Equal(got, tt.want) || page.Total != int64(len(tt.want)) || page.Next != "" {
				t.Errorf("%s: %q of %d, %v, want %q", tt.name, got, page.Total, err, tt.want)
			}
		}
		_, err := b.List(ctx, Query{Kind: "ServiceAccount", Scope: "nowhere"})
		if e, ok := errors.AsType[*NotFound](err); !ok || e.Key != key("VirtualCluster", "", "nowhere") {
			t.Errorf("in a virtual cluster that is not there: %v", err)
		}
		for _, after := range []string{"x", "eA", "!", "eAB4AHg"} {
			if _, err := b.List(ctx, Query{Kind: "Tenant", After: after}); err == nil {
				t.Errorf("After %q is taken", after)
			}
		}
	})
}

func TestSelectorsAreRefused(t *testing.T) {
	for _, text := range []string{",", "a,", ",a", "a b", "a in", "a in (", "a in b", "a in (b c)", "=b", "!", "!=b", "a=b c", "a ( b )", "a in (b) c", "é=1", "a;b"} {
		if s, err := ParseSelector(text); err == nil {
			t.Errorf("%q is %+v", text, s)
		} else if _, ok := errors.AsType[*Invalid](err); !ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Whoever pages through a list sees everything that was there all the while, once.
func TestPagesAreStable(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		tenant := func(n int) string { return fmt.Sprintf("t%03d", n) }
		var text []string
		for n := 0; n < 60; n += 2 {
			text = append(text, "Tenant name: "+tenant(n)+" | displayName: x")
		}
		b.apply(doc(text...))
		seen := make(map[string]int)
		q := Query{Kind: "Tenant", Limit: 7}
		for n := 0; ; n++ {
			page, err := b.List(ctx, q)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names(page) {
				seen[name]++
			}
			if page.Next == "" {
				break
			}
			if len(page.Items) != 7 {
				t.Errorf("page %d has %d items", n, len(page.Items))
			}
			q.After = page.Next
			// One goes that was seen, one comes before, one is changed behind.
			last := page.Items[6].Object.Meta().Name
			if _, err := b.Delete(ctx, alice, key("Tenant", "", last), Options{}); err != nil {
				t.Fatal(err)
			}
			b.apply(doc("Tenant name: a"+tenant(n)+" | displayName: new", "Tenant name: "+tenant(58)+fmt.Sprintf(" | displayName: x%d", n)))
		}
		for n := 0; n < 60; n += 2 {
			if seen[tenant(n)] != 1 {
				t.Errorf("%s was seen %d times", tenant(n), seen[tenant(n)])
			}
		}
		if len(seen) != 30 {
			t.Errorf("saw %d", len(seen))
		}
	})
}

// What is read can be sent again, and changes nothing.
func TestWhatIsReadCanBeWritten(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		b.apply(base + doc(book2027, budgetAcme, policyAcme))
		for _, kind := range resource.Kinds {
			page, err := b.List(t.Context(), Query{Kind: kind.Name})
			if err != nil || len(page.Items) == 0 {
				t.Errorf("%s: %v, %v", kind.Name, page, err)
			}
			for _, s := range page.Items {
				text, err := resource.Marshal(s.Object)
				if err != nil {
					t.Fatal(err)
				}
				r, err := b.Put(t.Context(), alice, parse(t, string(text))[0], Options{})
				if err != nil || r.Change != Unchanged {
					t.Errorf("%s: %s, %v", text, r.Change, err)
				}
			}
		}
	})
}
