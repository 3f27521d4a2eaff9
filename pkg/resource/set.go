package resource

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Set holds objects that fit together: every reference leads somewhere and no
// two objects contradict each other. Its lists must not change any more once it
// was asked what belongs to whom; asking is safe from several goroutines.
type Set struct {
	Tenants          map[string]*Tenant
	UpstreamClusters map[string]*UpstreamCluster
	VirtualClusters  map[string]*VirtualCluster
	TopicGrants      []*TopicGrant
	AliasTopics      []*AliasTopic
	ServiceAccounts  []*ServiceAccount
	ACLs             []*ACL
	Policies         []*Policy

	once   sync.Once // guards the index below
	owned  map[string]owned
	grants map[string][]*TopicGrant
}

// NewSet makes a set of objects that are known to fit together.
func NewSet(objects ...Object) *Set {
	s := &Set{
		Tenants:          make(map[string]*Tenant),
		UpstreamClusters: make(map[string]*UpstreamCluster),
		VirtualClusters:  make(map[string]*VirtualCluster),
	}
	for _, o := range objects {
		s.add(o)
	}
	return s
}

func (s *Set) add(o Object) {
	switch o := o.(type) {
	case *Tenant:
		s.Tenants[o.Metadata.Name] = o
	case *UpstreamCluster:
		s.UpstreamClusters[o.Metadata.Name] = o
	case *VirtualCluster:
		s.VirtualClusters[o.Metadata.Name] = o
	case *TopicGrant:
		s.TopicGrants = append(s.TopicGrants, o)
	case *AliasTopic:
		s.AliasTopics = append(s.AliasTopics, o)
	case *ServiceAccount:
		s.ServiceAccounts = append(s.ServiceAccounts, o)
	case *ACL:
		s.ACLs = append(s.ACLs, o)
	case *Policy:
		s.Policies = append(s.Policies, o)
	}
}

// owned is what belongs to one virtual cluster.
type owned struct {
	aliases  []*AliasTopic
	accounts []*ServiceAccount
	acls     []*ACL
	policies []*Policy
}

// index sorts objects by their owners, once: a reload asks for every virtual
// cluster in turn.
func (s *Set) index() {
	s.owned = make(map[string]owned, len(s.VirtualClusters))
	s.grants = make(map[string][]*TopicGrant, len(s.Tenants))
	for _, a := range s.AliasTopics {
		of := s.owned[a.Metadata.VirtualCluster]
		of.aliases = append(of.aliases, a)
		s.owned[a.Metadata.VirtualCluster] = of
	}
	for _, a := range s.ServiceAccounts {
		of := s.owned[a.Metadata.VirtualCluster]
		of.accounts = append(of.accounts, a)
		s.owned[a.Metadata.VirtualCluster] = of
	}
	for _, a := range s.ACLs {
		of := s.owned[a.Metadata.VirtualCluster]
		of.acls = append(of.acls, a)
		s.owned[a.Metadata.VirtualCluster] = of
	}
	for _, p := range s.Policies {
		of := s.owned[p.Metadata.VirtualCluster]
		of.policies = append(of.policies, p)
		s.owned[p.Metadata.VirtualCluster] = of
	}
	for vc := range s.owned {
		slices.SortFunc(s.owned[vc].policies, (*Policy).Compare)
	}
	for _, g := range s.TopicGrants {
		s.grants[g.Metadata.Tenant] = append(s.grants[g.Metadata.Tenant], g)
	}
}

// OfVirtualCluster returns what belongs to one virtual cluster.
func (s *Set) OfVirtualCluster(name string) (aliases []*AliasTopic, accounts []*ServiceAccount, acls []*ACL) {
	s.once.Do(s.index)
	of := s.owned[name]
	return slices.Clip(of.aliases), slices.Clip(of.accounts), slices.Clip(of.acls)
}

// PoliciesOf returns the policies of one virtual cluster, in the order in which
// requests go through them.
func (s *Set) PoliciesOf(name string) []*Policy {
	s.once.Do(s.index)
	return slices.Clip(s.owned[name].policies)
}

// GrantsOf returns what was lent to a tenant, expired grants included.
func (s *Set) GrantsOf(tenant string) []*TopicGrant {
	s.once.Do(s.index)
	return slices.Clip(s.grants[tenant])
}

// Covers reports whether g lends a physical topic at a time. It ends at Until:
// the interval is half-open. No grant lends the brokers' own topics.
func (g *TopicGrant) Covers(cluster, topic string, now time.Time) bool {
	if IsInternalTopic(topic) || g.Spec.Cluster != cluster || !g.Spec.Until.IsZero() && !now.Before(g.Spec.Until) {
		return false
	}
	if g.Spec.Topic.Pattern == Prefixed {
		return strings.HasPrefix(topic, g.Spec.Topic.Name)
	}
	return topic == g.Spec.Topic.Name
}
