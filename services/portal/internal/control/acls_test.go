package control

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/acl"
	"tollgate.internal/pkg/resource"
)

func allow(principal, topic string, op kmsg.ACLOperation) acl.Binding {
	return acl.Binding{
		Principal: principal, Host: "*", ResourceType: kmsg.ACLResourceTypeTopic, ResourceName: topic,
		Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Permission: kmsg.ACLPermissionTypeAllow,
	}
}

func filter(principal *string) acl.Filter {
	return acl.Filter{
		ResourceType: kmsg.ACLResourceTypeAny, Pattern: kmsg.ACLResourcePatternTypeAny, Principal: principal,
		Operation: kmsg.ACLOperationAny, Permission: kmsg.ACLPermissionTypeAny,
	}
}

// What a super user does by Kafka's admin API is what the API shows, and the other
// way round; and it is answered as a broker answers.
func TestACLsByKafka(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.apply(base)
		change := func(c ACLChange) ACLResult {
			t.Helper()
			c.VirtualCluster = "acme-prod"
			r, err := b.ApplyACLs(ctx, Actor{Name: "User:admin", Kind: "kafka"}, c, Options{})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		count := func() int {
			t.Helper()
			page, err := b.List(ctx, Query{Kind: resource.KindACL, Scope: "acme-prod"})
			if err != nil {
				t.Fatal(err)
			}
			return len(page.Items)
		}
		const read, write = kmsg.ACLOperationRead, kmsg.ACLOperationWrite
		bad := allow("User:bob", "", read)
		stranger := allow("Group:x", "orders", read)
		six := allow("User:bob", "orders", kmsg.ACLOperationDescribeConfigs)
		six.Host = "0:0:0:0:0:0:0:1"
		asked := []acl.Binding{allow("User:bob", "orders", write), bad, allow("User:shipping", "orders", read), stranger, six, allow("User:bob", "orders", write)}
		for round, revision := range []int64{2, 0} {
			r := change(ACLChange{Create: asked})
			for i, refused := range []bool{false, true, false, true, false, false} {
				if (r.Created[i] != nil) != refused {
					t.Errorf("round %d, binding %d: %v", round, i, r.Created[i])
				}
				if _, ok := errors.AsType[*Invalid](r.Created[i]); refused && !ok {
					t.Errorf("binding %d: %v", i, r.Created[i])
				}
			}
			if r.Revision != revision || count() != 3 {
				t.Errorf("round %d: revision %d with %d ACLs, want %d with 3", round, r.Revision, count(), revision)
			}
		}
		all := b.log(AuditQuery{Kind: resource.KindACL, Actor: "User:admin"})
		if len(all) != 2 || all[0].ActorKind != "kafka" || !strings.HasPrefix(all[0].Name, "kafka-") {
			t.Errorf("log: %+v", all)
		}
		// What was created comes back word for word, and its address as the gateway writes it.
		got, err := b.Get(ctx, all[0].Key())
		if err != nil {
			t.Fatal(err)
		}
		if spec := got.Object.(*resource.ACL).Spec; spec.Host != "::1" || spec.Operation != "DESCRIBE_CONFIGS" || spec.Resource.Type != "topic" || spec.Resource.Pattern != "literal" || spec.Permission != "ALLOW" {
			t.Errorf("%+v", spec)
		}
		// Somebody gives the name to another binding: then it is created under another.
		stolen := all[1].Name
		b.apply(doc(strings.Replace(aclReads, "name: reads", "name: "+stolen, 1)))
		if r := change(ACLChange{Create: asked[:1]}); r.Created[0] != nil || r.Revision != 4 || count() != 4 {
			t.Errorf("%+v, %d ACLs", r, count())
		}
		// Filters answer with all they select, what others selected too; twins once.
		bob, shipping, nobody := "User:bob", "User:shipping", "User:nobody"
		r := change(ACLChange{Delete: []acl.Filter{filter(&bob), filter(&shipping), filter(nil), filter(&nobody)}})
		if got := fmt.Sprint(len(r.Deleted[0]), len(r.Deleted[1]), len(r.Deleted[2]), len(r.Deleted[3])); got != "2 1 3 0" || r.Revision != 5 || count() != 0 {
			t.Errorf("deleted %s at %d, %d are left", got, r.Revision, count())
		}
		if r := change(ACLChange{Delete: []acl.Filter{filter(nil)}}); r.Revision != 0 || len(r.Deleted) != 1 || len(r.Deleted[0]) != 0 {
			t.Errorf("deleted again: %+v", r)
		}
	})
}

// Every binding that the words of Kafka allow survives its resource.
func TestBindingsSurviveTheirResource(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		b.apply(base)
		if _, err := b.Delete(t.Context(), alice, keyACL, Options{}); err != nil {
			t.Fatal(err)
		}
		var asked []acl.Binding
		for rt := kmsg.ACLResourceTypeTopic; rt <= kmsg.ACLResourceTypeUser; rt++ {
			for op := kmsg.ACLOperationAll; op <= acl.TwoPhaseCommit; op++ {
				for _, permission := range []kmsg.ACLPermissionType{kmsg.ACLPermissionTypeAllow, kmsg.ACLPermissionTypeDeny} {
					binding := acl.Binding{Principal: "User:*", Host: "*", ResourceType: rt, ResourceName: "x", Pattern: kmsg.ACLResourcePatternTypePrefixed, Operation: op, Permission: permission}
					if rt == kmsg.ACLResourceTypeCluster {
						binding.ResourceName, binding.Pattern = acl.ClusterName, kmsg.ACLResourcePatternTypeLiteral
					}
					asked = append(asked, binding)
				}
			}
		}
		r, err := b.ApplyACLs(t.Context(), alice, ACLChange{VirtualCluster: "acme-prod", Create: asked}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		created := make(map[acl.Binding]bool)
		for i, refused := range r.Created {
			if refused == nil {
				created[asked[i]] = true
			} else if !strings.Contains(refused.Error(), "has no meaning for a resource of type") {
				t.Errorf("%+v: %v", asked[i], refused)
			}
		}
		r, err = b.ApplyACLs(t.Context(), alice, ACLChange{VirtualCluster: "acme-prod", Delete: []acl.Filter{filter(nil)}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Deleted[0]) != len(created) || len(created) < 50 {
			t.Errorf("%d come back of %d", len(r.Deleted[0]), len(created))
		}
		for _, binding := range r.Deleted[0] {
			if !created[binding] {
				t.Errorf("%+v was not created", binding)
			}
		}
	})
}
