package control

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tollgate.internal/pkg/bundle"
)

// What proxies would have to load is bounded, and the refusal says which field, how much
// there may be, and what raises it.
func TestLimits(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		limits := Limits{Aliases: 3, Accounts: 2, ACLs: 2, Grants: 2, Requests: 2, ObjectBytes: 1000, BundleBytes: 1 << 20}
		b.Limit(limits)
		b.apply(lines(
			"{kind: Tenant, metadata: {name: acme}, spec: {}}",
			"{kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: ['b:1']}}",
			"{kind: VirtualCluster, metadata: {name: shop, tenant: acme}, spec: {type: partner, host: shop, home: main, authentication: {plain: {}}}}",
			"{kind: TopicGrant, metadata: {name: all, tenant: acme}, spec: {cluster: main, topic: {name: t, pattern: prefixed}, access: read}}",
		))
		alias := func(i int) string {
			return fmt.Sprintf("{kind: AliasTopic, metadata: {name: a%d, virtualCluster: shop}, spec: {cluster: main, topic: t%d}}", i, i)
		}
		account := func(i int) string {
			return fmt.Sprintf("{kind: ServiceAccount, metadata: {name: u%d, virtualCluster: shop}, spec: {type: local}}", i)
		}
		rule := func(i int) string {
			return fmt.Sprintf("{kind: Acl, metadata: {name: r%d, virtualCluster: shop}, spec: {principal: 'User:u', resource: {type: topic, name: x%d, pattern: literal}, operation: read, permission: allow}}", i, i)
		}
		grant := func(i int) string {
			return fmt.Sprintf("{kind: TopicGrant, metadata: {name: g%d, tenant: acme}, spec: {cluster: main, topic: {name: g%d}, access: read}}", i, i)
		}
		refused := func(text, field string, parts ...string) {
			t.Helper()
			_, err := b.try(text)
			problems, ok := errors.AsType[*Invalid](err)
			if !ok || len(problems.Problems) != 1 || problems.Problems[0].Field != field {
				t.Fatalf("%v, want one problem with %s", err, field)
			}
			for _, part := range parts {
				if !strings.Contains(problems.Problems[0].Message, part) {
					t.Errorf("%s does not say %q", problems.Problems[0].Message, part)
				}
			}
		}
		b.apply(lines(alias(1), alias(2), alias(3), account(1), account(2), rule(1), rule(2), grant(1)))
		refused(lines(alias(4)), "metadata.virtualCluster", "shop would have 4 objects of kind AliasTopic, and 3 is the most", "TOLLGATE_PORTAL_MAX_ALIASES")
		refused(lines(account(3), account(4)), "metadata.virtualCluster", "4 objects of kind ServiceAccount, and 2", "TOLLGATE_PORTAL_MAX_ACCOUNTS")
		refused(lines(rule(3)), "metadata.virtualCluster", "3 objects of kind Acl, and 2", "TOLLGATE_PORTAL_MAX_ACLS")
		refused(lines(grant(2)), "metadata.tenant", "acme would have 3 objects of kind TopicGrant, and 2", "TOLLGATE_PORTAL_MAX_GRANTS")
		refused(lines(fmt.Sprintf("{kind: Tenant, metadata: {name: acme}, spec: {displayName: %q}}", strings.Repeat("x", 1000))), "spec", "1000 is the most", "TOLLGATE_PORTAL_MAX_OBJECT_BYTES")
		b.apply(lines(alias(3))) // as it was

		// By weight: what is there stays, and may become less.
		limits.BundleBytes = 1500
		b.Limit(limits)
		refused(lines("{kind: ServiceAccount, metadata: {name: u1, virtualCluster: shop}, spec: {type: local, expires: 2040-01-01T00:00:00Z}}"), "spec", "virtual cluster shop would have", "1500 is the most", "TOLLGATE_PORTAL_MAX_BUNDLE_BYTES")
		refused(lines("{kind: TopicGrant, metadata: {name: g1, tenant: acme}, spec: {cluster: main, topic: {name: g1}, access: read-write}}"), "spec", "virtual cluster shop would have")
		b.apply(lines("{kind: TopicGrant, metadata: {name: g1, tenant: acme}, spec: {cluster: main, topic: {name: g}, access: read}}"))
		_, err := b.IssueSecret(t.Context(), Actor{Name: "test"}, key("ServiceAccount", "shop", "u1"), time.Time{}, Options{})
		if problems, ok := errors.AsType[*Invalid](err); !ok || !strings.Contains(problems.Error(), "1500 is the most") {
			t.Errorf("IssueSecret: %v", err)
		}
	})
}

// lines are documents, one a line.
func lines(all ...string) string {
	var b strings.Builder
	for _, line := range all {
		fmt.Fprintf(&b, "---\n{apiVersion: tollgate/v1, %s\n", line[1:])
	}
	return b.String()
}

// What the portal takes, proxies can read.
func TestLimitsAreThoseOfProxies(t *testing.T) {
	l := DefaultLimits()
	if err := l.Check(); err != nil {
		t.Error(err)
	}
	l.BundleBytes = bundle.MaxPlainBytes
	if err := l.Check(); err == nil {
		t.Error("a bundle that proxies refuse is taken")
	}
	l.BundleBytes = 0
	if err := l.Check(); err == nil {
		t.Error("no limit is taken for one")
	}
}
