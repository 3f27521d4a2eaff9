package control

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/resource"
)

var (
	bundleVC    = bundle.ID{Kind: bundle.VirtualCluster, Name: "acme-prod"}
	bundleOther = bundle.ID{Kind: bundle.VirtualCluster, Name: "other"}
	bundleMain  = bundle.ID{Kind: bundle.UpstreamCluster, Name: "main"}
	bundleWest  = bundle.ID{Kind: bundle.UpstreamCluster, Name: "west"}
)

// publish tells the fleet everything there is to tell, and says what that was.
func (b *bed) publish() (told []string) {
	b.t.Helper()
	marks, err := b.Pending(b.t.Context(), 100)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, m := range marks {
		told = append(told, fmt.Sprintf("%s %d after %d", m.ID, m.Revision, m.Published))
		if err := b.Published(b.t.Context(), m); err != nil {
			b.t.Fatal(err)
		}
	}
	return told
}

// Every change marks the bundles that it is in, and no others.
func TestChangesMarkTheirBundles(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		var issued Issued
		remove := func(k resource.Key) func() error {
			return func() error { _, err := b.Delete(ctx, alice, k, Options{}); return err }
		}
		put := func(lines ...string) func() error {
			return func() error { _, err := b.try(doc(lines...)); return err }
		}
		// Each step takes the next revision; 1 is base, 2 another tenant.
		b.apply(base)
		b.apply(doc("Tenant name: other | displayName: x", "VirtualCluster name: other, tenant: other | type: standard, host: other, home: main, authentication: {plain: {}}"))
		want := []string{"UpstreamCluster main 1 after 0", "UpstreamCluster west 1 after 0", "VirtualCluster acme-prod 1 after 0", "VirtualCluster other 2 after 0"}
		if got := b.publish(); !slices.Equal(got, want) {
			t.Errorf("at first: %q, want %q", got, want)
		}
		published := map[bundle.ID]int64{bundleVC: 1, bundleOther: 2, bundleMain: 1, bundleWest: 1}
		revision := int64(2)
		for _, step := range []struct {
			name   string
			change func() error
			marks  []bundle.ID // nil: nothing is changed
		}{
			{"nothing", put(vcAcme), nil},
			{"tenant", put("Tenant name: acme | displayName: New"), []bundle.ID{bundleVC}},
			{"tenant without virtual clusters", put("Tenant name: new | displayName: New"), []bundle.ID{}},
			{"upstream", put(`UpstreamCluster name: main | bootstrap: ["other:9092"]`), []bundle.ID{bundleMain}},
			{"virtual cluster", put(strings.Replace(vcAcme, "host: acme", "host: acme2", 1)), []bundle.ID{bundleVC}},
			{"grant", put(docGrant + ", until: 2030-01-01T00:00:00Z"), []bundle.ID{bundleVC}},
			{"alias", put(docAlias + ", identity: AAAAAAAAAAAAAAAAAAAAAA"), []bundle.ID{bundleVC}},
			{"account", put(docAccount + ", expires: 2030-01-01T00:00:00Z"), []bundle.ID{bundleVC}},
			{"acl", put(strings.Replace(aclReads, "READ", "WRITE", 1)), []bundle.ID{bundleVC}},
			{"label", put("Tenant name: acme, labels: {a: b} | displayName: New"), []bundle.ID{bundleVC}},
			{"secret", func() (err error) {
				issued, err = b.IssueSecret(ctx, alice, keyAccount, time.Time{}, Options{})
				return err
			}, []bundle.ID{bundleVC}},
			{"secret's end", func() error {
				_, _, err := b.ExpireSecret(ctx, alice, keyAccount, issued.ID, b.now.Add(time.Hour), Options{})
				return err
			}, []bundle.ID{bundleVC}},
			{"secret revoked", func() error {
				_, err := b.RevokeSecret(ctx, alice, keyAccount, issued.ID, Options{})
				return err
			}, []bundle.ID{bundleVC}},
			{"token", func() error {
				_, _, err := b.CreateToken(ctx, alice, TokenRequest{Name: "x", Role: RoleOps})
				return err
			}, []bundle.ID{}},
			{"several", put("Tenant name: acme | displayName: Both", "Tenant name: other | displayName: Both"), []bundle.ID{bundleVC, bundleOther}},
			{"acl removed", remove(keyACL), []bundle.ID{bundleVC}},
			{"account removed", remove(keyAccount), []bundle.ID{bundleVC}},
			{"alias removed", remove(keyAlias), []bundle.ID{bundleVC}},
			{"grant removed", remove(keyGrant), []bundle.ID{bundleVC}},
			{"virtual cluster removed", remove(keyVC), []bundle.ID{bundleVC}},
			{"upstream removed", remove(keyWest), []bundle.ID{bundleWest}},
			{"tenant removed", remove(keyTenant), []bundle.ID{}},
			{"all again", put(tenantAcme, west, vcAcme), []bundle.ID{bundleWest, bundleVC}},
		} {
			if err := step.change(); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			if step.marks != nil {
				revision++
			}
			var want []string
			for _, id := range step.marks {
				want = append(want, fmt.Sprintf("%s %d after %d", id, revision, published[id]))
				published[id] = revision
			}
			if got := b.publish(); !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", step.name, got, want)
			}
		}
	})
}

func TestBundlesAreCompiled(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.apply(base)
		b.apply(doc("Tenant name: other | displayName: x", "VirtualCluster name: other, tenant: other | type: standard, host: other, home: main, authentication: {plain: {}}",
			"ServiceAccount name: shipping, virtualCluster: other | type: local", "TopicGrant name: g, tenant: other | cluster: main, topic: {name: t}, access: read"))
		if _, err := b.IssueSecret(ctx, alice, keyAccount, b.now.Add(time.Hour), Options{}); err != nil {
			t.Fatal(err)
		}
		compiled, err := b.Compile(ctx, bundleVC)
		if err != nil {
			t.Fatal(err)
		}
		var keys []resource.Key
		for _, o := range compiled.Objects {
			keys = append(keys, resource.KeyOf(o))
		}
		slices.SortFunc(keys, resource.Key.Compare)
		if want := []resource.Key{keyTenant, keyVC, keyGrant, keyAlias, keyAccount, keyACL}; !slices.Equal(keys, want) {
			t.Errorf("bundle of %v, want %v", keys, want)
		}
		if compiled.Revision != 3 || compiled.Deployment != "" || compiled.Deleted {
			t.Errorf("%+v", compiled)
		}
		if vs := b.verifiersOf(); len(vs) != 2 || !vs[0].Expires.Equal(b.now.Add(time.Hour)) {
			t.Errorf("verifiers: %+v", vs)
		}
		// What is compiled can be sealed: nothing in it is somebody else's.
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := bundle.ParseSigner(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []bundle.ID{bundleVC, bundleOther, bundleMain, bundleWest} {
			compiled, err := b.Compile(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			compiled.Deployment = "eu"
			if _, err := signer.SealBundle(compiled); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}

		for _, k := range []resource.Key{keyACL, keyAccount, keyAlias, keyVC} {
			if _, err := b.Delete(ctx, alice, k, Options{}); err != nil {
				t.Fatal(err)
			}
		}
		if compiled, err := b.Compile(ctx, bundleVC); err != nil || !compiled.Deleted || compiled.Objects != nil || compiled.Revision != 7 {
			t.Errorf("a tombstone: %+v, %v", compiled, err)
		} else {
			compiled.Deployment = "eu"
			if _, err := signer.SealBundle(compiled); err != nil {
				t.Error(err)
			}
		}
		if _, err := b.Compile(ctx, bundle.ID{Kind: bundle.VirtualCluster, Name: "nobody"}); err == nil {
			t.Error("a bundle of nothing")
		} else if _, ok := errors.AsType[*NotFound](err); !ok {
			t.Error(err)
		}
		var all []string
		for after := (bundle.ID{}); ; {
			marks, err := b.All(ctx, after, 3)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range marks {
				all, after = append(all, fmt.Sprint(m.ID, m.Deleted)), m.ID
			}
			if len(marks) < 3 {
				break
			}
		}
		if want := []string{"UpstreamCluster main false", "UpstreamCluster west false", "VirtualCluster acme-prod true", "VirtualCluster other false"}; fmt.Sprint(all) != fmt.Sprint(want) {
			t.Errorf("all: %q, want %q", all, want)
		}
	})
}

// What changes while the fleet is told stays pending.
func TestNothingIsTakenForTold(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.apply(base)
		old, err := b.Compile(ctx, bundleVC)
		if err != nil {
			t.Fatal(err)
		}
		b.apply(doc("Tenant name: acme | displayName: New"))
		if err := b.Published(ctx, Mark{ID: bundleVC, Revision: old.Revision}); err != nil {
			t.Fatal(err)
		}
		marks, err := b.Pending(ctx, 100)
		if err != nil || !slices.Contains(marks, Mark{ID: bundleVC, Revision: 2, Published: 1}) {
			t.Errorf("pending: %+v, %v", marks, err)
		}
		for _, revision := range []int64{2, 1} { // another portal was slower
			if err := b.Published(ctx, Mark{ID: bundleVC, Revision: revision}); err != nil {
				t.Fatal(err)
			}
		}
		if marks, _ := b.Pending(ctx, 100); slices.ContainsFunc(marks, func(m Mark) bool { return m.ID == bundleVC }) {
			t.Errorf("pending: %+v", marks)
		}
	})
}

// Telling the fleet does not get in the way of changes, nor they in its way.
func TestPublishingBesideChanges(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.apply(base)
		other := b.another()
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range 20 {
				object := parse(t, doc(fmt.Sprintf("Tenant name: acme | displayName: x%d", i)))[0]
				if _, err := b.Put(ctx, alice, object, Options{}); err != nil {
					t.Error(err)
				}
			}
		})
		for range 2 {
			wg.Go(func() {
				for after := int64(0); after < 21; {
					head, err := other.Wait(ctx, after)
					if err != nil {
						t.Error(err)
						return
					}
					after = head
					marks, err := other.Pending(ctx, 100)
					if err != nil {
						t.Error(err)
					}
					for _, m := range marks {
						compiled, err := other.Compile(ctx, m.ID)
						if err != nil || compiled.Revision < m.Revision {
							t.Errorf("%+v, %v", compiled, err)
							return
						}
						if err := other.Published(ctx, Mark{ID: m.ID, Revision: compiled.Revision}); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
		if marks, err := b.Pending(ctx, 100); len(marks) != 0 || err != nil {
			t.Errorf("pending: %+v, %v", marks, err)
		}
	})
}
