package control

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/acl"
	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/resource"
)

// What no database takes is refused like anything else that is wrong, or is not there.
func TestTextsThatCannotBeStored(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.apply(base)
		for _, bad := range []string{"a\x00b", "\xff"} {
			odd := Actor{Name: bad, Kind: bad, Address: bad, Request: bad}
			for _, kind := range resource.Kinds {
				k := resource.Key{Kind: kind.Name, Name: bad}
				if kind.Scope != "" {
					k.Scope = bad
				}
				for what, err := range map[string]error{"get": second(b.Get(ctx, k)), "delete": second(b.Delete(ctx, alice, k, Options{}))} {
					if _, ok := errors.AsType[*NotFound](err); !ok {
						t.Errorf("%s %q: %v", what, k, err)
					}
				}
			}
			for what, err := range map[string]error{
				"list by scope":  second(b.List(ctx, Query{Kind: "Acl", Scope: bad})),
				"list by name":   second(b.List(ctx, Query{Kind: "Acl", Name: bad})),
				"list by tenant": second(b.List(ctx, Query{Kind: "Acl", Tenant: bad})),
				"list after":     second(b.List(ctx, Query{Kind: "Acl", After: cursor(bad, "a")})),
				"log":            second(b.Audit(ctx, AuditQuery{Actor: bad})),
				"issue":          second(b.IssueSecret(ctx, alice, key("ServiceAccount", "acme-prod", bad), time.Time{}, Options{})),
				"revoke":         second(b.RevokeSecret(ctx, alice, keyAccount, bad, Options{})),
				"token":          second(b.Authenticate(ctx, "tg_"+bad+"_x")),
				"revoke token":   b.RevokeToken(ctx, alice, bad),
				"acls":           second(b.ApplyACLs(ctx, alice, ACLChange{VirtualCluster: bad}, Options{})),
				"compile":        second(b.Compile(ctx, bundle.ID{Kind: bundle.VirtualCluster, Name: bad})),
			} {
				_, missing := errors.AsType[*NotFound](err)
				_, invalid := errors.AsType[*Invalid](err)
				_, stranger := errors.AsType[*Unauthenticated](err)
				if !missing && !invalid && !stranger {
					t.Errorf("%s %q: %v", what, bad, err)
				}
			}
			if _, _, err := b.CreateToken(ctx, alice, TokenRequest{Name: bad, Role: RoleOps}); err == nil {
				t.Errorf("a token of %q", bad)
			}
			if _, _, err := b.CreateToken(ctx, alice, TokenRequest{Name: "x", Role: RoleTenant, Tenant: bad}); err == nil {
				t.Errorf("a token of tenant %q", bad)
			}
			if _, err := b.ListTokens(ctx, bad); err != nil {
				t.Error(err)
			}
			// Whoever asks by an odd name is logged by one that can be read.
			if _, err := b.Put(ctx, odd, parse(t, doc("Tenant name: acme | displayName: x"+string(rune('a'+len(bad)))))[0], Options{}); err != nil {
				t.Error(err)
			}
			if e := b.log(AuditQuery{Limit: 1})[0]; !strings.Contains(e.Actor, "\ufffd") {
				t.Errorf("%+v", e)
			}
			binding := allow("User:"+bad, bad, kmsg.ACLOperationRead)
			if _, err := b.ApplyACLs(ctx, alice, ACLChange{VirtualCluster: "acme-prod", Create: []acl.Binding{binding}, Delete: []acl.Filter{filter(nil)}}, Options{}); err != nil {
				t.Errorf("%+v: %v", binding, err)
			}
		}
		for _, name := range []string{`a\0b`, strings.Repeat("x", 1025)} {
			problems := new(resource.Problems)
			objects := resource.Parse([]byte(doc(`ServiceAccount name: e, virtualCluster: acme-prod | type: external, externalNames: ["`+name+`"]`)), problems)
			_, err := b.Apply(ctx, alice, objects, Options{})
			if e, ok := errors.AsType[*Invalid](err); !ok || e.Problems[0].Field != "spec.externalNames[0]" {
				t.Errorf("%.20q: %v", name, err)
			}
		}
		b.apply(doc(`ServiceAccount name: e, virtualCluster: acme-prod | type: external, externalNames: ["` + strings.Repeat("x", 1024) + `"]`))
	})
}
