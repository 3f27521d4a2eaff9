package control

import (
	"context"
	"fmt"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/store"
)

// Limits bound what proxies load at once: a virtual cluster is as large for every node
// that serves it, and for the portals that compile it.
type Limits struct {
	Aliases, Accounts, ACLs int // of a virtual cluster
	Policies                int // of a virtual cluster, and of all together
	Grants                  int // of a tenant
	Requests                int // for grants, of a tenant, that nobody has decided
	ObjectBytes             int // of one object, as JSON
	BundleBytes             int // of a virtual cluster with everything in it, as JSON
}

// DefaultLimits are for a control plane of thousands of tenants.
func DefaultLimits() Limits {
	return Limits{Aliases: 10_000, Accounts: 10_000, ACLs: 50_000, Policies: 1000, Grants: 10_000, Requests: 20, ObjectBytes: 256 << 10, BundleBytes: 16 << 20}
}

// Check says what makes no sense: above all what proxies would refuse.
func (l Limits) Check() error {
	for _, n := range []int{l.Aliases, l.Accounts, l.ACLs, l.Policies, l.Grants, l.Requests, l.ObjectBytes, l.BundleBytes} {
		if n <= 0 {
			return fmt.Errorf("limits must be positive, and one is %d", n)
		}
	}
	// What is in a bundle beside the documents of its objects is little.
	if most := bundle.MaxPlainBytes / 4 * 3; l.BundleBytes > most {
		return fmt.Errorf("bundles of %d bytes are more than proxies read: %d is the most", l.BundleBytes, most)
	}
	return nil
}

// Limit takes other limits than the default ones. It is called before everything else.
func (c *Control) Limit(l Limits) { c.limits = l }

// limitOf is how many of a kind may be in one scope, what raises it, and what the scope
// is called; 0: any number.
func (l Limits) limitOf(kind string) (most int, setting, field string) {
	switch kind {
	case resource.KindAliasTopic:
		return l.Aliases, "TOLLGATE_PORTAL_MAX_ALIASES", "metadata.virtualCluster"
	case resource.KindServiceAccount:
		return l.Accounts, "TOLLGATE_PORTAL_MAX_ACCOUNTS", "metadata.virtualCluster"
	case resource.KindACL:
		return l.ACLs, "TOLLGATE_PORTAL_MAX_ACLS", "metadata.virtualCluster"
	case resource.KindPolicy:
		return l.Policies, "TOLLGATE_PORTAL_MAX_POLICIES", "metadata.virtualCluster"
	case resource.KindTopicGrant:
		return l.Grants, "TOLLGATE_PORTAL_MAX_GRANTS", "metadata.tenant"
	}
	return 0, "", ""
}

// bound reports what is too much, of what was stored in this change.
func (w *write) bound(ctx context.Context, puts []*put) error {
	type scope struct{ kind, name string }
	counted, weighed := make(map[scope]bool), make(map[string]bool)
	for _, p := range puts {
		if p.result.Change != Created && len(p.row.Document) <= len(p.before.Document) {
			continue // what was too large already may be made smaller
		}
		key := p.row.Key
		if n := len(p.row.Document); n > w.limits.ObjectBytes {
			p.written.Problem("spec", "the object has %d bytes as JSON, and %d is the most (TOLLGATE_PORTAL_MAX_OBJECT_BYTES): make it smaller, or several of it", n, w.limits.ObjectBytes)
		}
		most, setting, field := w.limits.limitOf(key.Kind)
		if in := (scope{key.Kind, key.Scope}); most > 0 && p.result.Change == Created && !counted[in] {
			counted[in] = true
			n, err := w.tx.CountObjects(ctx, store.Query{Kind: key.Kind, Scope: key.Scope, Everywhere: key.Scope == ""})
			if err != nil {
				return err
			}
			whose := key.Scope
			if whose == "" {
				field, whose = "metadata.name", "all virtual clusters together"
			}
			if n > int64(most) {
				p.written.Problem(field, "%s would have %d objects of kind %s, and %d is the most (%s): delete some first, or spread them over several", whose, n, key.Kind, most, setting)
			}
		}
		if key.Kind == resource.KindPolicy && key.Scope == "" && !counted[scope{}] {
			counted[scope{}] = true
			n, err := w.tx.WeightEverywhere(ctx, key.Kind)
			if err != nil {
				return err
			}
			if n > int64(w.limits.BundleBytes) {
				p.written.Problem("spec", "the policies of all virtual clusters would have %d bytes together, and %d is the most that proxies are given (TOLLGATE_PORTAL_MAX_BUNDLE_BYTES): delete what is not needed", n, w.limits.BundleBytes)
			}
		}
		clusters, tenant, err := w.within(ctx, p)
		if err != nil {
			return err
		}
		for _, vc := range clusters {
			if weighed[vc] {
				continue
			}
			weighed[vc] = true
			if problem, err := w.tooLarge(ctx, vc, tenant); err != nil {
				return err
			} else if problem != "" {
				p.written.Problem("spec", "%s", problem)
			}
		}
	}
	return nil
}

// within are the virtual clusters whose bundles an object is part of, and their tenant.
func (w *write) within(ctx context.Context, p *put) (clusters []string, tenant string, err error) {
	key := p.row.Key
	switch key.Kind {
	case resource.KindVirtualCluster:
		return []string{key.Name}, p.row.Tenant, nil
	case resource.KindAliasTopic, resource.KindServiceAccount, resource.KindACL, resource.KindPolicy:
		if key.Scope == "" {
			return nil, "", nil
		}
		return []string{key.Scope}, p.row.Tenant, nil
	case resource.KindTenant, resource.KindTopicGrant:
		rows, err := w.tx.Objects(ctx, store.Query{Kind: resource.KindVirtualCluster, Tenant: p.row.Tenant})
		for _, row := range rows {
			clusters = append(clusters, row.Key.Name)
		}
		return clusters, p.row.Tenant, err
	}
	return nil, "", nil
}

// tooLarge says that a virtual cluster is more than proxies are to load; empty: it is not.
func (w *write) tooLarge(ctx context.Context, virtualCluster, tenant string) (problem string, err error) {
	n, err := w.tx.Weight(ctx, virtualCluster, tenant)
	if err != nil || n <= int64(w.limits.BundleBytes) {
		return "", err
	}
	return fmt.Sprintf("virtual cluster %s would have %d bytes with everything in it, and %d is the most that proxies are given (TOLLGATE_PORTAL_MAX_BUNDLE_BYTES): delete what is not needed, or spread it over several", virtualCluster, n, w.limits.BundleBytes), nil
}
