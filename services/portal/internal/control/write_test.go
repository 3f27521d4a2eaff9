package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate.internal/pkg/resource"
)

func TestObjectsAreKept(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx, made := t.Context(), b.now
		results := b.apply(base)
		for i, r := range results {
			if r.Change != Created || r.Revision != 1 || r.Before != nil || r.Object.Meta().Revision != 1 {
				t.Errorf("result %d: %+v", i, r)
			}
		}
		b.now = b.now.Add(time.Hour)
		for i, r := range b.apply(base) {
			if r.Change != Unchanged || r.Revision != 1 || r.Before == nil {
				t.Errorf("applied again, result %d: %+v", i, r)
			}
		}
		if head, err := b.Head(ctx); head != 1 || err != nil {
			t.Errorf("Head: %d, %v, want 1: nothing was changed", head, err)
		}

		// One of several is changed: only that gets a revision.
		changed := b.apply(strings.ReplaceAll(base, "displayName: ACME", "displayName: New, state: suspended"))
		for _, r := range changed {
			want, revision := Unchanged, int64(1)
			if r.Object.Kind() == "Tenant" {
				want, revision = Replaced, 2
			}
			if r.Change != want || r.Revision != revision {
				t.Errorf("%s is %s at %d, want %s at %d", resource.KeyOf(r.Object), r.Change, r.Revision, want, revision)
			}
		}
		got, err := b.Get(ctx, keyTenant)
		if err != nil {
			t.Fatal(err)
		}
		tenant := got.Object.(*resource.Tenant)
		if tenant.Spec.DisplayName != "New" || tenant.Metadata.Revision != 2 || got.Tenant != "acme" ||
			!got.Status.Created.Equal(made) || !got.Status.Changed.Equal(b.now) {
			t.Errorf("Get: %+v, status %+v", tenant, got.Status)
		}
		for _, k := range []resource.Key{keyVC, keyGrant, keyAlias, keyAccount, keyACL} {
			if got, err := b.Get(ctx, k); err != nil || got.Tenant != "acme" || resource.KeyOf(got.Object) != k {
				t.Errorf("Get %s: %+v, %v", k, got, err)
			}
		}

		// From the last to the first nothing refers to what goes.
		for _, k := range []resource.Key{keyACL, keyAccount, keyAlias, keyGrant, keyVC, keyWest, keyMain, keyTenant} {
			if r, err := b.Delete(ctx, alice, k, Options{}); err != nil || r.Change != Deleted || resource.KeyOf(r.Before) != k {
				t.Errorf("Delete %s: %+v, %v", k, r, err)
			}
			for _, err := range []error{
				second(b.Get(ctx, k)),
				second(b.Delete(ctx, alice, k, Options{})),
			} {
				if e, ok := errors.AsType[*NotFound](err); !ok || e.Key != k {
					t.Errorf("%s is gone: %v", k, err)
				}
			}
		}
		// What was given up can be taken again.
		b.apply(base)
	})
}

func second[T any](_ T, err error) error { return err }

func TestAChangeIsForARevision(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.apply(base)
		put := func(text string, o Options) error {
			_, err := b.Put(ctx, alice, parse(t, text)[0], o)
			return err
		}
		const renamed = "Tenant name: acme | displayName: Other"
		for _, tt := range []struct {
			name string
			err  error
			want error
		}{
			{"another revision", put(doc(renamed), Options{IfRevision: 7}), &Conflict{keyTenant, 7, 1}},
			{"another revision in the document", put(doc("Tenant name: acme, revision: 7 | displayName: Other"), Options{}), &Conflict{keyTenant, 7, 1}},
			{"a revision of nothing", put(doc("Tenant name: nobody | displayName: x"), Options{IfRevision: 1}), &Conflict{key("Tenant", "", "nobody"), 1, 0}},
			{"it is there", put(doc(renamed), Options{IfAbsent: true}), &Exists{keyTenant, 1}},
			{"deleted at another revision", second(b.Delete(ctx, alice, keyACL, Options{IfRevision: 9})), &Conflict{keyACL, 9, 1}},
			{"the revision it has", put(doc(renamed), Options{IfRevision: 1}), nil},
			{"the revision it had", put(doc("Tenant name: acme | displayName: Third"), Options{IfRevision: 1}), &Conflict{keyTenant, 1, 2}},
			{"one that is not there", put(doc("Tenant name: new | displayName: x"), Options{IfAbsent: true}), nil},
			{"deleted at its revision", second(b.Delete(ctx, alice, keyACL, Options{IfRevision: 1})), nil},
		} {
			if fmt.Sprint(tt.err) != fmt.Sprint(tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, tt.err, tt.want)
			}
		}
	})
}

func TestADryRunKeepsNothing(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		dry := Options{DryRun: true}
		results, err := b.Apply(ctx, alice, parse(t, base), dry)
		if err != nil || len(results) != 8 || results[0].Change != Created || results[0].Revision != 0 {
			t.Fatalf("%+v, %v", results, err)
		}
		if head, _ := b.Head(ctx); head != 0 {
			t.Errorf("revision %d after a dry run", head)
		}
		b.apply(base)
		r, err := b.Put(ctx, alice, parse(t, doc("Tenant name: acme | displayName: Other"))[0], dry)
		if err != nil || r.Change != Replaced || r.Revision != 1 || r.Object.(*resource.Tenant).Spec.DisplayName != "Other" {
			t.Errorf("Put: %+v, %v", r, err)
		}
		if r, err := b.Delete(ctx, alice, keyACL, dry); err != nil || r.Change != Deleted || r.Revision != 1 {
			t.Errorf("Delete: %+v, %v", r, err)
		}
		if _, err := b.Put(ctx, alice, parse(t, doc("AliasTopic name: x, virtualCluster: acme-prod | cluster: west, topic: secret"))[0], dry); err == nil {
			t.Error("a dry run does not say what is wrong")
		}
		if page, _ := b.Audit(ctx, AuditQuery{}); len(page.Entries) != 8 {
			t.Errorf("%d entries in the log, want 8", len(page.Entries))
		}
	})
}

// Problems of every document come at once, those of parsing included; nothing is
// kept of the good ones.
func TestEveryProblemAtOnce(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		problems := new(resource.Problems)
		objects := resource.Parse([]byte(doc(tenantAcme, main,
			"VirtualCluster name: v, tenant: nobody | type: partner, host: b1-x, home: main, shoe: 1, authentication: {plain: {}}",
			"AliasTopic name: a, virtualCluster: nowhere | cluster: main, topic: t",
			"ServiceAccount name: s, virtualCluster: v | type: local, password: hunter2",
			"VirtualCluster name: fine, tenant: acme | type: partner, host: fine, home: main, authentication: {plain: {}}",
			"AliasTopic name: bare, virtualCluster: fine | cluster: main, topic: t",
		)), problems)
		_, err := b.Apply(t.Context(), alice, objects, Options{})
		invalid, ok := errors.AsType[*Invalid](err)
		if !ok {
			t.Fatal(err)
		}
		for _, want := range []string{"spec.shoe", "metadata.tenant", "spec.host", "metadata.virtualCluster", "spec.password", "spec.topic"} {
			if !slices.ContainsFunc(invalid.Problems, func(p resource.Problem) bool { return p.Field == want }) {
				t.Errorf("nothing of %s in %v", want, err)
			}
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the password is shown: %v", err)
		}
		if _, err := b.Get(t.Context(), keyTenant); err == nil {
			t.Error("half of it was kept")
		}
	})
}

func TestWhatOthersNeedStays(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		b.apply(base)
		for _, tt := range []struct {
			key resource.Key
			by  []resource.Key
		}{
			{keyTenant, []resource.Key{keyGrant, keyVC}},
			{keyMain, []resource.Key{keyVC}},
			{keyWest, []resource.Key{keyAlias, keyGrant, keyVC}},
			{keyVC, []resource.Key{keyACL, keyAlias, keyAccount}},
			{keyGrant, []resource.Key{keyAlias}},
		} {
			_, err := b.Delete(t.Context(), alice, tt.key, Options{})
			e, ok := errors.AsType[*Referenced](err)
			if !ok || !slices.Equal(e.By, tt.by) || e.Total != int64(len(tt.by)) {
				t.Errorf("Delete %s: %v, want it needed by %v", tt.key, err, tt.by)
			}
		}
		if head, _ := b.Head(t.Context()); head != 1 {
			t.Errorf("revision %d, want 1", head)
		}
	})
}

// An alias needs a grant, and nothing may take the last one from it but time.
func TestAliasesAreCovered(t *testing.T) {
	const (
		prefix = "TopicGrant name: all, tenant: acme | cluster: west, topic: {name: shop., pattern: prefixed}, access: read"
		more   = "AliasTopic name: more, virtualCluster: acme-prod | cluster: west, topic: shop.more"
	)
	for _, tt := range []struct {
		name  string
		first []string
		then  string
		gone  resource.Key // to be deleted, where then is empty
		want  string       // in the refusal; empty: it is accepted
	}{
		{name: "no grant", then: doc(more), want: "spec.topic: no TopicGrant of acme lends shop.more of west: create one first"},
		{name: "a grant of a prefix", first: []string{prefix}, then: doc(more)},
		{name: "a grant of another cluster", first: []string{strings.Replace(prefix, "cluster: west", "cluster: main", 1)}, then: doc(more), want: "no TopicGrant"},
		{name: "a grant that comes along", then: doc(more, prefix)},
		{name: "a grant that has ended", first: []string{prefix + ", until: 2026-12-31T00:00:00Z"}, then: doc(more), want: "TopicGrant all of acme lent shop.more of west until 2026-12-31T00:00:00Z: prolong it first"},
		{name: "another topic for an alias", then: doc("AliasTopic name: orders, virtualCluster: acme-prod | cluster: west, topic: shop.x"), want: "no TopicGrant"},
		{name: "labels of an alias whose grant ended", first: []string{docGrant + ", until: 2026-01-01T00:00:00Z"}, then: doc("AliasTopic name: orders, virtualCluster: acme-prod, labels: {a: b} | cluster: west, topic: shop.orders")},
		{name: "a grant ends", then: doc(docGrant + ", until: 2026-01-01T00:00:00Z")},
		{name: "a grant lends less", then: doc(strings.Replace(docGrant, "read-write", "read", 1))},
		{name: "a grant lends something else", then: doc("TopicGrant name: orders, tenant: acme | cluster: west, topic: {name: shop.x}, access: read"), want: "spec.topic: would leave AliasTopic orders of acme-prod without a grant"},
		{name: "a grant lends something else, and another grant this", first: []string{prefix}, then: doc("TopicGrant name: orders, tenant: acme | cluster: west, topic: {name: shop.x}, access: read")},
		{name: "a grant is replaced by another at once", then: doc("TopicGrant name: orders, tenant: acme | cluster: west, topic: {name: shop.x}, access: read", prefix)},
		{name: "a grant goes that another doubles", first: []string{prefix}, gone: keyGrant},
		{name: "a grant goes that has ended", first: []string{docGrant + ", until: 2026-01-01T00:00:00Z"}, gone: keyGrant},
		{name: "a grant goes that is doubled by an ended one", first: []string{prefix + ", until: 2026-01-01T00:00:00Z"}, gone: keyGrant, want: "is needed by AliasTopic orders of acme-prod"},
		{name: "a cluster goes that an alias is on", then: doc(strings.Replace(vcAcme, "[main, west]", "[main]", 1)), want: `spec.clusters: does not fit what is in the virtual cluster: AliasTopic orders ("west" is not among the clusters of VirtualCluster acme-prod)`},
		{name: "home moves", then: doc(strings.Replace(vcAcme, "home: main", "home: west", 1))},
		{
			name: "a topic becomes the cluster's own", first: []string{"TopicGrant name: own, tenant: acme | cluster: main, topic: {name: acme-prod.x}, access: read", "AliasTopic name: own, virtualCluster: acme-prod | cluster: main, topic: acme-prod.x"},
			then: doc(strings.Replace(vcAcme, "partner", "standard", 1)), want: "AliasTopic own (",
		},
		{name: "it is given to another tenant", first: []string{"Tenant name: other | displayName: x"}, then: doc(strings.Replace(vcAcme, "tenant: acme", "tenant: other", 1)), want: "metadata.tenant: the virtual cluster is tenant acme's and stays theirs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, func(t *testing.T, b *bed) {
				b.apply(base)
				if len(tt.first) > 0 {
					b.apply(doc(tt.first...))
				}
				before, _ := b.Head(t.Context())
				var err error
				if tt.then != "" {
					_, err = b.try(tt.then)
				} else {
					_, err = b.Delete(t.Context(), alice, tt.gone, Options{})
				}
				if tt.want == "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, want %s", err, tt.want)
				}
				if head, _ := b.Head(t.Context()); head != before {
					t.Error("something was kept")
				}
			})
		})
	}
}

// Two objects of one change may swap what only one can have.
func TestClaimsChangeHands(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		vc := func(name, host string) string {
			return "VirtualCluster name: " + name + ", tenant: acme | type: standard, host: " + host + ", home: main, authentication: {plain: {}}"
		}
		b.apply(doc(tenantAcme, main, vc("a", "one"), vc("b", "two")))
		if _, err := b.try(doc(vc("a", "two"))); err == nil || !strings.Contains(err.Error(), `"two" is a host of VirtualCluster b already`) {
			t.Errorf("a host that is taken: %v", err)
		}
		for _, r := range b.apply(doc(vc("a", "two"), vc("b", "one"))) {
			if r.Change != Replaced {
				t.Errorf("%+v", r)
			}
		}
		b.apply(doc(vc("c", "three")))
		if _, err := b.try(doc(vc("c", "two"))); err == nil {
			t.Error("a host that changed hands is free")
		}
	})
}

// Of several portals that write the same object, one wins and the others are told.
func TestWritersCompete(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.apply(base)
		portals := []*Control{b.Control, b.another()}
		const rounds, writers = 5, 6
		revision := int64(1)
		for round := range rounds {
			var wg sync.WaitGroup
			errs, won := make([]error, writers), make([]int64, writers)
			for n := range writers {
				object := parse(t, doc(fmt.Sprintf("Tenant name: acme | displayName: %d of %d", n, round)))[0]
				wg.Go(func() {
					var r Result
					r, errs[n] = portals[n%2].Put(ctx, alice, object, Options{IfRevision: revision})
					won[n] = r.Revision
				})
			}
			wg.Wait()
			winners := 0
			for n, err := range errs {
				if err == nil {
					winners++
					revision = won[n]
					continue
				}
				if _, ok := errors.AsType[*Conflict](err); !ok {
					t.Errorf("round %d: %v", round, err)
				}
			}
			if winners != 1 {
				t.Fatalf("round %d has %d winners", round, winners)
			}
		}
	})
}

// A host, a physical topic and an external name go to one, whoever is quick.
func TestClaimsAreTakenOnce(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.apply(base)
		portals := []*Control{b.Control, b.another()}
		const rivals = 6
		b.apply(doc("TopicGrant name: all, tenant: acme | cluster: west, topic: {name: rival, pattern: prefixed}, access: read"))
		for n := range rivals {
			b.apply(doc(fmt.Sprintf("Tenant name: t%d | displayName: x", n)))
		}
		for what, object := range map[string]func(n int) string{
			"host": func(n int) string {
				return fmt.Sprintf("VirtualCluster name: v%d, tenant: t%d | type: standard, host: rival, home: main, authentication: {plain: {}}", n, n)
			},
			"physical topic": func(n int) string {
				return fmt.Sprintf("AliasTopic name: a%d, virtualCluster: acme-prod | cluster: west, topic: rival", n)
			},
			"external name": func(n int) string {
				return fmt.Sprintf("ServiceAccount name: e%d, virtualCluster: acme-prod | type: external, externalNames: [rival]", n)
			},
		} {
			var wg sync.WaitGroup
			errs := make([]error, rivals)
			for n := range rivals {
				o := parse(t, doc(object(n)))[0]
				wg.Go(func() { _, errs[n] = portals[n%2].Put(ctx, alice, o, Options{}) })
			}
			wg.Wait()
			winners := 0
			for _, err := range errs {
				if err == nil {
					winners++
				} else if _, ok := errors.AsType[*Invalid](err); !ok || !strings.Contains(err.Error(), "already") {
					t.Errorf("%s: %v", what, err)
				}
			}
			if winners != 1 {
				t.Errorf("%s went to %d", what, winners)
			}
		}
	})
}

// A tenant's token gets to what is the tenant's. All else is not found, as if it
// was not there.
func TestATenantStaysWithin(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.apply(base)
		b.apply(doc("Tenant name: other | displayName: x", "VirtualCluster name: other, tenant: other | type: standard, host: other, home: main, authentication: {plain: {}}"))
		within := Options{Tenant: "other"}
		text := func(err error) string { return strings.ReplaceAll(fmt.Sprint(err), "acme-prod", "nowhere") }
		put := func(vc string) error {
			_, err := b.Put(ctx, alice, parse(t, doc("ServiceAccount name: shipping, virtualCluster: "+vc+" | type: local"))[0], within)
			return err
		}
		if err := put("other"); err != nil {
			t.Error(err)
		}
		for name, errs := range map[string][2]error{
			"put":    {put("acme-prod"), put("nowhere")},
			"delete": {second(b.Delete(ctx, alice, keyAccount, within)), second(b.Delete(ctx, alice, key("ServiceAccount", "nowhere", "shipping"), within))},
			"issue": {
				second(b.IssueSecret(ctx, alice, keyAccount, time.Time{}, within)),
				second(b.IssueSecret(ctx, alice, key("ServiceAccount", "nowhere", "shipping"), time.Time{}, within)),
			},
			"acls": {
				second(b.ApplyACLs(ctx, alice, ACLChange{VirtualCluster: "acme-prod"}, within)),
				second(b.ApplyACLs(ctx, alice, ACLChange{VirtualCluster: "nowhere"}, within)),
			},
		} {
			if _, ok := errors.AsType[*NotFound](errs[0]); !ok || text(errs[0]) != text(errs[1]) {
				t.Errorf("%s: %v, and of nothing: %v", name, errs[0], errs[1])
			}
		}
	})
}
