// Package view is a virtual cluster as its clients see it: names, ids, nodes and
// rights. A [View] comes from the resources, a [Table] from a view and the
// metadata of the physical clusters. Both are immutable and are swapped whole.
package view

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tollgate.internal/pkg/acl"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/auth"
	"tollgate.internal/services/proxy/internal/policy"
	"tollgate.internal/services/proxy/internal/upstream"
)

// View is one virtual cluster as the resources describe it.
type View struct {
	Name, Tenant string
	Spec         resource.VirtualClusterSpec
	Prefix       string // of physical topics, groups and transactional ids on home
	ClusterID    string // what clients are told; constant for the virtual cluster's life
	ACL          *acl.Authorizer
	Policies     *policy.Pipeline // nil: there are none
	Realm        *auth.Realm
	Suspended    bool
	Changes      time.Time // when a grant ends and the view must be compiled again; zero: never

	// Accounts are the quotas of every service account, by name.
	Accounts map[string]resource.AccountQuotas

	aliases   map[string]alias
	ungranted map[string]bool // aliases that no grant covers
}

type alias struct {
	cluster  string
	physical string
	identity [16]byte // zero: that of the physical topic
	write    bool
}

// Compile builds the view of one virtual cluster, with the policies of all of them. Aliases
// without a covering grant at now are left out: to clients they do not exist.
func Compile(set *resource.Set, name string, now time.Time, deps *auth.Deps, common *policy.Common) (*View, error) {
	return viewOf(set, name, now, deps, common, nil)
}

// Narrow is Compile without what it has problems with, and so takes at least as much from
// clients as the resources say: an account, an issuer or an ACL that cannot be made out
// gives no right, client certificates are taken as before or not at all, an ACL which
// may deny something that cannot be made out leaves rights to super users alone, and where a
// policy cannot be made out the virtual cluster's own are those of before.
func Narrow(set *resource.Set, name string, now time.Time, deps *auth.Deps, common *policy.Common, before *View) (*View, error) {
	return viewOf(set, name, now, deps, common, before)
}

// viewOf is Narrow if there is a view before.
func viewOf(set *resource.Set, name string, now time.Time, deps *auth.Deps, common *policy.Common, before *View) (v *View, err error) {
	vc := set.VirtualClusters[name]
	if vc == nil {
		return nil, fmt.Errorf("no virtual cluster %q", name)
	}
	_, accounts, acls := set.OfVirtualCluster(name)
	sum := sha256.Sum256([]byte("tollgate cluster id\x00" + name))
	v = &View{
		Name: name, Tenant: vc.Metadata.Tenant, Spec: vc.Spec, Prefix: name + ".",
		ClusterID: base64.RawURLEncoding.EncodeToString(sum[:16]),
	}
	if t := set.Tenants[v.Tenant]; t != nil && t.Spec.State != "" && t.Spec.State != resource.TenantActive {
		v.Suspended = true
	}
	var problems []error
	doubt := false
	if before == nil {
		if v.Realm, err = auth.NewRealm(vc, accounts, deps); err != nil {
			problems = append(problems, err)
		}
	} else {
		v.Realm = auth.Narrow(vc, accounts, deps, before.Realm)
	}
	v.ACL = acl.AllowAll()
	if vc.Spec.ACLs.Enabled || vc.Spec.Type == resource.Partner {
		superUsers, everyone := vc.Spec.ACLs.SuperUsers, vc.Spec.ACLs.AllowEveryoneIfNoACL
		bindings := make([]acl.Binding, 0, len(acls))
		for _, a := range acls {
			b, err := acl.BindingOf(a)
			if err != nil {
				problems = append(problems, err)
				doubt = doubt || !strings.EqualFold(a.Spec.Permission, "allow")
				continue
			}
			bindings = append(bindings, b)
		}
		if len(problems) > 0 {
			everyone = false // what there is an ACL for is not known
		}
		if doubt {
			bindings = nil // nobody knows what it denies
		}
		v.ACL = acl.New(bindings, superUsers, everyone)
	}
	if before == nil {
		if err := errors.Join(problems...); err != nil {
			return nil, err
		}
	}
	switch v.Policies, err = policy.New(set.PoliciesOf(name), common, vc, accounts); {
	case err != nil && before == nil:
		return nil, err
	case err != nil:
		v.Policies = before.Policies.Under(common, vc, accounts)
	}
	v.Accounts = make(map[string]resource.AccountQuotas, len(accounts))
	for _, a := range accounts {
		v.Accounts[a.Metadata.Name] = a.Spec.Quotas
	}
	v.lend(set, now)
	return v, nil
}

// At is v at another time. Nothing but the grants depends on it, so this cannot fail: a
// grant that ends does, whatever else is wrong. The set is what v was compiled from.
func (v *View) At(set *resource.Set, now time.Time) *View {
	next := *v
	next.lend(set, now)
	return &next
}

// Under is v with other policies of all virtual clusters; v itself, if that makes no
// difference to it. The set is what v was compiled from.
func (v *View) Under(set *resource.Set, common *policy.Common) *View {
	_, accounts, _ := set.OfVirtualCluster(v.Name)
	policies := v.Policies.Under(common, set.VirtualClusters[v.Name], accounts)
	if policies == nil && v.Policies == nil {
		return v
	}
	next := *v
	next.Policies = policies
	return &next
}

// Missing are the clusters of which a topic is wanted that their metadata do not have.
// It may have been made a moment ago.
func (v *View) Missing(clusters map[string]*upstream.Cluster) (missing []*upstream.Cluster) {
	for _, a := range v.aliases {
		c := clusters[a.cluster]
		if c == nil || slices.Contains(missing, c) {
			continue
		}
		if m := c.Metadata(); m != nil && m.Topic(a.physical) == nil {
			missing = append(missing, c)
		}
	}
	return missing
}

// lend maps the aliases that a grant covers.
func (v *View) lend(set *resource.Set, now time.Time) {
	aliases, _, _ := set.OfVirtualCluster(v.Name)
	v.aliases, v.ungranted, v.Changes = make(map[string]alias, len(aliases)), make(map[string]bool), time.Time{}
	grants := set.GrantsOf(v.Tenant)
	for _, a := range aliases {
		entry, covered := alias{cluster: a.Spec.Cluster, physical: a.Spec.Topic}, false
		if id, err := base64.RawURLEncoding.DecodeString(a.Spec.Identity); err == nil {
			copy(entry.identity[:], id)
		}
		for _, g := range grants {
			if !g.Covers(a.Spec.Cluster, a.Spec.Topic, now) {
				continue
			}
			covered = true
			entry.write = entry.write || g.Spec.Access == resource.ReadWrite
			if until := g.Spec.Until; !until.IsZero() && (v.Changes.IsZero() || until.Before(v.Changes)) {
				v.Changes = until
			}
		}
		if covered {
			v.aliases[a.Metadata.Name] = entry
		} else {
			v.ungranted[a.Metadata.Name] = true
		}
	}
}

// Standard reports whether the virtual cluster owns topics of its own.
func (v *View) Standard() bool { return v.Spec.Type == resource.Standard }

// IsAlias reports whether name is an alias, whatever its topic's state.
func (v *View) IsAlias(name string) bool { _, ok := v.aliases[name]; return ok }

// Aliases are the names of all aliases, granted or not.
func (v *View) Aliases() []string {
	return slices.Concat(slices.Collect(maps.Keys(v.aliases)), slices.Collect(maps.Keys(v.ungranted)))
}

// Ungranted reports whether name is an alias that does not exist for clients
// because no grant covers it.
func (v *View) Ungranted(name string) bool { return v.ungranted[name] }

// Follows is why v cannot take the place of another view of its virtual cluster under
// live sessions; nil: it can. Clients keep node ids for as long as they live, so none
// may come to mean a broker of another cluster.
func (v *View) Follows(before *View) error {
	for _, was := range before.Spec.Clusters {
		for _, is := range v.Spec.Clusters {
			if is != was && v.Spec.Slot(is) == before.Spec.Slot(was) {
				return fmt.Errorf("cluster %s would have slot %d, which is that of cluster %s so far: write slots: {%s: N} with a number that no cluster had before", is, v.Spec.Slot(is), was, is)
			}
		}
	}
	return nil
}
