package control

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"tollgate.internal/pkg/resource"
)

// What is applied and what goes because of it are one change: whatever order of
// both would be wrong on the way, only its end counts.
func TestApplyAndPrune(t *testing.T) {
	labelled := strings.NewReplacer(", tenant: acme |", ", tenant: acme, labels: {from: git} |", ", virtualCluster: acme-prod |", ", virtualCluster: acme-prod, labels: {from: git} |",
		"name: acme |", "name: acme, labels: {from: git} |", "name: main |", "name: main, labels: {from: git} |", "name: west |", "name: west, labels: {from: git} |")
	all := []string{tenantAcme, main, west, vcAcme, docGrant, docAlias, docAccount, aclReads}
	for i := range all {
		all[i] = labelled.Replace(all[i])
	}
	without := func(more []string, gone ...int) (lines []string) {
		for i, line := range all {
			if !slices.Contains(gone, i) {
				lines = append(lines, line)
			}
		}
		return append(lines, more...)
	}
	const tenant, _, theWest, vc, theGrant, theAlias, theAccount, theACL = 0, 1, 2, 3, 4, 5, 6, 7
	other := func(n int, replace ...string) string { return strings.NewReplacer(replace...).Replace(all[n]) }
	for _, tt := range []struct {
		name    string
		lines   []string
		deleted int
		want    string // in the refusal
	}{
		{"nothing", without(nil), 0, ""},
		{"one", without(nil, theACL), 1, ""},
		{"what others name", without(nil, vc), 0, `line 24: metadata.virtualCluster: there is no VirtualCluster "acme-prod"`},
		{"an alias and its grant", without(nil, theAlias, theGrant), 2, ""},
		{"a grant alone", without(nil, theGrant), 0, "TopicGrant orders of acme is needed by AliasTopic orders of acme-prod"},
		{"a grant that lends something else by then, and its alias", without([]string{other(theGrant, "shop.orders", "shop.x")}, theGrant, theAlias), 1, ""},
		{"a cluster that others are off by then", without([]string{other(vc, "[main, west]", "[main]")}, theWest, vc, theGrant, theAlias), 3, ""},
		{"a virtual cluster whose host goes to another", without([]string{other(vc, "acme-prod", "acme-new")}, vc, theAlias, theAccount, theACL), 4, ""},
		{"everything else", []string{all[tenant]}, 7, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, func(t *testing.T, b *bed) {
				b.apply(doc(all...))
				b.apply(doc("Tenant name: not-from-git | displayName: x"))
				selector, err := ParseSelector("from=git")
				if err != nil {
					t.Fatal(err)
				}
				for _, dryRun := range []bool{true, false} {
					results, err := b.ApplyAndPrune(t.Context(), alice, parse(t, doc(tt.lines...)), Prune{Labels: selector}, Options{DryRun: dryRun})
					if tt.want != "" {
						if err == nil || !strings.Contains(err.Error(), tt.want) {
							t.Errorf("%v, want %s", err, tt.want)
						}
						continue
					}
					deleted := slices.DeleteFunc(slices.Clone(results), func(r Result) bool { return r.Change != Deleted })
					if err != nil || len(deleted) != tt.deleted || len(results) != len(tt.lines)+tt.deleted {
						t.Errorf("%d results, %d deleted, %v, want %d deleted", len(results), len(deleted), err, tt.deleted)
					}
				}
				if _, err := b.Get(t.Context(), key("Tenant", "", "not-from-git")); err != nil {
					t.Error(err)
				}
				if tt.want != "" {
					if head, _ := b.Head(t.Context()); head != 2 {
						t.Errorf("something was kept, at %d", head)
					}
					return
				}
				count := 0
				for _, kind := range resource.Kinds {
					page, err := b.List(t.Context(), Query{Kind: kind.Name, Labels: selector})
					if err != nil {
						t.Fatal(err)
					}
					count += len(page.Items)
				}
				if count != len(tt.lines) {
					t.Errorf("%d objects are there, want %d", count, len(tt.lines))
				}
			})
		})
	}
	each(t, func(t *testing.T, b *bed) {
		_, err := b.ApplyAndPrune(t.Context(), alice, nil, Prune{}, Options{})
		if _, ok := errors.AsType[*Invalid](err); !ok {
			t.Errorf("without a condition: %v", err)
		}
	})
}
