package view

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/auth"
)

// An ACL that a node cannot make out gives nothing, and where it may take something away,
// nobody but a super user has a right.
func TestACLsThatCannotBeMadeOut(t *testing.T) {
	rule := func(principal, operation, permission string) *resource.ACL {
		return &resource.ACL{
			Metadata: resource.Metadata{Name: principal + operation, VirtualCluster: "shop"},
			Spec: resource.ACLSpec{
				Principal: principal, Host: "*", Operation: operation, Permission: permission,
				Resource: resource.ACLResource{Type: "Topic", Name: "orders", Pattern: resource.Literal},
			},
		}
	}
	set := func(acls ...*resource.ACL) *resource.Set {
		s := resource.NewSet(
			&resource.Tenant{Metadata: resource.Metadata{Name: "acme"}},
			&resource.VirtualCluster{
				Metadata: resource.Metadata{Name: "shop", Tenant: "acme"},
				Spec: resource.VirtualClusterSpec{
					Type: resource.Partner, Home: "main", Clusters: []string{"main"}, Authentication: resource.Authentication{Anonymous: &struct{}{}},
					ACLs: resource.ACLSettings{SuperUsers: []string{"User:boss"}, AllowEveryoneIfNoACL: true},
				},
			})
		s.ACLs = acls
		return s
	}
	deps := auth.NewDeps(auth.Options{SaltKey: make([]byte, 32)})
	before, err := Compile(set(rule("User:a", "Read", "Allow")), "shop", time.Now(), deps, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !before.ACL.Allowed("User:a", "10.0.0.1", kmsg.ACLOperationRead, kmsg.ACLResourceTypeTopic, "else") {
		t.Error("what there is no ACL for is not allowed to everybody, as the virtual cluster has it")
	}
	for _, c := range []struct {
		name    string
		acls    []*resource.ACL
		allowed bool // a may read
	}{
		{"nothing is wrong", []*resource.ACL{rule("User:a", "Read", "Allow")}, true},
		{"a right was taken", []*resource.ACL{rule("User:b", "Read", "Allow")}, false},
		{"a right of tomorrow", []*resource.ACL{rule("User:a", "Read", "Allow"), rule("User:b", "Teleport", "Allow")}, true},
		{"a right of tomorrow alone", []*resource.ACL{rule("User:a", "Teleport", "Allow")}, false},
		{"a denial of tomorrow", []*resource.ACL{rule("User:a", "Read", "Allow"), rule("User:a", "Teleport", "Deny")}, false},
		{"a permission of tomorrow", []*resource.ACL{rule("User:a", "Read", "Allow"), rule("User:a", "Read", "Perhaps")}, false},
	} {
		v, err := Narrow(set(c.acls...), "shop", time.Now(), deps, nil, before)
		if err != nil {
			t.Fatal(err)
		}
		reads := func(principal string) bool {
			return v.ACL.Allowed(principal, "10.0.0.1", kmsg.ACLOperationRead, kmsg.ACLResourceTypeTopic, "orders")
		}
		if got := reads("User:a"); got != c.allowed {
			t.Errorf("%s: a may read: %t, want %t", c.name, got, c.allowed)
		}
		if !reads("User:boss") {
			t.Errorf("%s: a super user may not read", c.name)
		}
		if c.name != "nothing is wrong" && v.ACL.Allowed("User:a", "10.0.0.1", kmsg.ACLOperationRead, kmsg.ACLResourceTypeTopic, "else") && len(c.acls) > 1 {
			t.Errorf("%s: what there is no ACL for is allowed to everybody, and nobody knows what there is one for", c.name)
		}
	}
}
