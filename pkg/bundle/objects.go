package bundle

import (
	"encoding/json"
	"slices"

	"tollgate.internal/pkg/resource"
)

// Objects are what a bundle holds, in any order; encoded, they are in the order of
// their kinds and names.
type Objects []resource.Object

// encode is os in the order of their keys, each as the API writes it.
func (os Objects) encode() ([]json.RawMessage, error) {
	sorted := slices.Clone(os)
	slices.SortFunc(sorted, func(a, b resource.Object) int { return resource.KeyOf(a).Compare(resource.KeyOf(b)) })
	out := make([]json.RawMessage, 0, len(sorted))
	for _, o := range sorted {
		raw, err := resource.Marshal(o)
		if err != nil {
			return nil, refuse(Malformed, "%v", err)
		}
		out = append(out, raw)
	}
	return out, nil
}

// decode passes over kinds that it does not know.
func decode(raw []json.RawMessage) (Objects, error) {
	var out Objects
	for _, r := range raw {
		var head struct {
			Kind string `json:"kind"`
		}
		if err := json.Unmarshal(r, &head); err != nil {
			return nil, refuse(Malformed, "decode an object: %v", err)
		}
		if _, known := resource.KindOf(head.Kind); !known {
			continue
		}
		o, err := resource.Unmarshal(r)
		if err != nil {
			return nil, refuse(Malformed, "%v", err)
		}
		out = append(out, o)
	}
	return out, nil
}

// checkOf reports objects that are missing, doubled, or of somebody else.
func (os Objects) checkOf(id ID) error {
	strange := func(o resource.Object) error {
		return refuse(Malformed, "%v holds %v, which is none of its business", id, resource.KeyOf(o))
	}
	seen := make(map[resource.Key]bool, len(os))
	for _, o := range os {
		key := resource.KeyOf(o)
		if seen[key] {
			return refuse(Malformed, "%v holds %v twice", id, key)
		}
		seen[key] = true
	}
	if id.Kind == UpstreamCluster {
		if os.upstreamCluster(id.Name) == nil {
			return refuse(Malformed, "%v is not in its own bundle", id)
		}
		for _, o := range os {
			if c, ok := o.(*resource.UpstreamCluster); !ok || c.Metadata.Name != id.Name {
				return strange(o)
			}
		}
		return nil
	}
	if id.Kind == Policies {
		for _, o := range os {
			if p, ok := o.(*resource.Policy); !ok || p.Metadata.VirtualCluster != "" {
				return strange(o)
			}
		}
		return nil
	}
	vc := os.virtualCluster(id.Name)
	if vc == nil {
		return refuse(Malformed, "%v is not in its own bundle", id)
	}
	tenant := false
	for _, o := range os {
		mine := false
		switch o := o.(type) {
		case *resource.Tenant:
			mine = o.Metadata.Name == vc.Metadata.Tenant
			tenant = tenant || mine
		case *resource.VirtualCluster:
			mine = o == vc
		case *resource.TopicGrant:
			mine = o.Metadata.Tenant == vc.Metadata.Tenant
		case *resource.AliasTopic:
			mine = o.Metadata.VirtualCluster == id.Name
		case *resource.ServiceAccount:
			mine = o.Metadata.VirtualCluster == id.Name
		case *resource.ACL:
			mine = o.Metadata.VirtualCluster == id.Name
		case *resource.Policy:
			mine = o.Metadata.VirtualCluster == id.Name
		}
		if !mine {
			return strange(o)
		}
	}
	if !tenant {
		return refuse(Malformed, "%v is without its Tenant %s", id, vc.Metadata.Tenant)
	}
	return nil
}

func (os Objects) virtualCluster(name string) *resource.VirtualCluster {
	for _, o := range os {
		if vc, ok := o.(*resource.VirtualCluster); ok && vc.Metadata.Name == name {
			return vc
		}
	}
	return nil
}

func (os Objects) upstreamCluster(name string) *resource.UpstreamCluster {
	for _, o := range os {
		if c, ok := o.(*resource.UpstreamCluster); ok && c.Metadata.Name == name {
			return c
		}
	}
	return nil
}

func (os Objects) set() *resource.Set {
	s := &resource.Set{
		Tenants:          make(map[string]*resource.Tenant),
		UpstreamClusters: make(map[string]*resource.UpstreamCluster),
		VirtualClusters:  make(map[string]*resource.VirtualCluster),
	}
	for _, o := range os {
		switch o := o.(type) {
		case *resource.Tenant:
			s.Tenants[o.Metadata.Name] = o
		case *resource.UpstreamCluster:
			s.UpstreamClusters[o.Metadata.Name] = o
		case *resource.VirtualCluster:
			s.VirtualClusters[o.Metadata.Name] = o
		case *resource.TopicGrant:
			s.TopicGrants = append(s.TopicGrants, o)
		case *resource.AliasTopic:
			s.AliasTopics = append(s.AliasTopics, o)
		case *resource.ServiceAccount:
			s.ServiceAccounts = append(s.ServiceAccounts, o)
		case *resource.ACL:
			s.ACLs = append(s.ACLs, o)
		case *resource.Policy:
			s.Policies = append(s.Policies, o)
		}
	}
	return s
}
