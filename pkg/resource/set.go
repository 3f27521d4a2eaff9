package resource

import (
	"strings"
	"time"
)

// Object is one of *Tenant, *UpstreamCluster, *VirtualCluster, *TopicGrant,
// *AliasTopic, *ServiceAccount and *ACL.
type Object any

// Set holds objects that fit together: every reference leads somewhere and no
// two objects contradict each other.
type Set struct {
	Tenants          map[string]*Tenant
	UpstreamClusters map[string]*UpstreamCluster
	VirtualClusters  map[string]*VirtualCluster
	TopicGrants      []*TopicGrant
	AliasTopics      []*AliasTopic
	ServiceAccounts  []*ServiceAccount
	ACLs             []*ACL
}

func newSet() *Set {
	return &Set{
		Tenants:          make(map[string]*Tenant),
		UpstreamClusters: make(map[string]*UpstreamCluster),
		VirtualClusters:  make(map[string]*VirtualCluster),
	}
}

// OfVirtualCluster returns what belongs to one virtual cluster.
func (s *Set) OfVirtualCluster(name string) (aliases []*AliasTopic, accounts []*ServiceAccount, acls []*ACL) {
	for _, a := range s.AliasTopics {
		if a.Metadata.VirtualCluster == name {
			aliases = append(aliases, a)
		}
	}
	for _, a := range s.ServiceAccounts {
		if a.Metadata.VirtualCluster == name {
			accounts = append(accounts, a)
		}
	}
	for _, a := range s.ACLs {
		if a.Metadata.VirtualCluster == name {
			acls = append(acls, a)
		}
	}
	return aliases, accounts, acls
}

// GrantsOf returns what was lent to a tenant, expired grants included.
func (s *Set) GrantsOf(tenant string) []*TopicGrant {
	var grants []*TopicGrant
	for _, g := range s.TopicGrants {
		if g.Metadata.Tenant == tenant {
			grants = append(grants, g)
		}
	}
	return grants
}

// Covers reports whether g lends a physical topic at a time. It ends at Until:
// the interval is half-open.
func (g *TopicGrant) Covers(cluster, topic string, now time.Time) bool {
	if g.Spec.Cluster != cluster || !g.Spec.Until.IsZero() && !now.Before(g.Spec.Until) {
		return false
	}
	if g.Spec.Topic.Pattern == Prefixed {
		return strings.HasPrefix(topic, g.Spec.Topic.Name)
	}
	return topic == g.Spec.Topic.Name
}
