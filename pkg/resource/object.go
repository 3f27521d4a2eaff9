package resource

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// The kinds of objects.
const (
	KindTenant          = "Tenant"
	KindUpstreamCluster = "UpstreamCluster"
	KindVirtualCluster  = "VirtualCluster"
	KindTopicGrant      = "TopicGrant"
	KindAliasTopic      = "AliasTopic"
	KindServiceAccount  = "ServiceAccount"
	KindACL             = "Acl" // the model is Kafka's, the spelling ours
	KindPolicy          = "Policy"
	KindPriceBook       = "PriceBook"
	KindBudget          = "Budget"
)

// Object is one of *Tenant, *UpstreamCluster, *VirtualCluster, *TopicGrant,
// *AliasTopic, *ServiceAccount, *ACL, *Policy, *PriceBook and
// *Budget.
type Object interface {
	Kind() string
	Meta() *Metadata
	spec() any // a pointer
}

// Kind and Meta make each type an [Object].
func (t *Tenant) Kind() string    { return KindTenant }
func (t *Tenant) Meta() *Metadata { return &t.Metadata }
func (t *Tenant) spec() any       { return &t.Spec }

// Kind and Meta make each type an [Object].
func (c *UpstreamCluster) Kind() string    { return KindUpstreamCluster }
func (c *UpstreamCluster) Meta() *Metadata { return &c.Metadata }
func (c *UpstreamCluster) spec() any       { return &c.Spec }

// Kind and Meta make each type an [Object].
func (v *VirtualCluster) Kind() string    { return KindVirtualCluster }
func (v *VirtualCluster) Meta() *Metadata { return &v.Metadata }
func (v *VirtualCluster) spec() any       { return &v.Spec }

// Kind and Meta make each type an [Object].
func (g *TopicGrant) Kind() string    { return KindTopicGrant }
func (g *TopicGrant) Meta() *Metadata { return &g.Metadata }
func (g *TopicGrant) spec() any       { return &g.Spec }

// Kind and Meta make each type an [Object].
func (a *AliasTopic) Kind() string    { return KindAliasTopic }
func (a *AliasTopic) Meta() *Metadata { return &a.Metadata }
func (a *AliasTopic) spec() any       { return &a.Spec }

// Kind and Meta make each type an [Object].
func (a *ServiceAccount) Kind() string    { return KindServiceAccount }
func (a *ServiceAccount) Meta() *Metadata { return &a.Metadata }
func (a *ServiceAccount) spec() any       { return &a.Spec }

// Kind and Meta make each type an [Object].
func (a *ACL) Kind() string    { return KindACL }
func (a *ACL) Meta() *Metadata { return &a.Metadata }
func (a *ACL) spec() any       { return &a.Spec }

// Kind is what is known of one kind.
type Kind struct {
	Name   string
	Plural string // as in paths of the API: alias-topics
	Scope  string // the kind in which names are unique: Tenant, VirtualCluster; empty: everywhere
	New    func() Object
}

// Everywhere reports whether objects of a kind with a scope may be without one, too: they
// are about all there is then, and no tenant's.
func (k Kind) Everywhere() bool { return k.Name == KindPolicy }

// Kinds are all kinds, those first that others refer to: made in this order, and
// removed in the opposite one, nothing ever refers to what is not there.
var Kinds = []Kind{
	{KindTenant, "tenants", "", func() Object { return new(Tenant) }},
	{KindUpstreamCluster, "upstream-clusters", "", func() Object { return new(UpstreamCluster) }},
	{KindVirtualCluster, "virtual-clusters", "", func() Object { return new(VirtualCluster) }},
	{KindTopicGrant, "topic-grants", KindTenant, func() Object { return new(TopicGrant) }},
	{KindAliasTopic, "alias-topics", KindVirtualCluster, func() Object { return new(AliasTopic) }},
	{KindServiceAccount, "service-accounts", KindVirtualCluster, func() Object { return new(ServiceAccount) }},
	{KindACL, "acls", KindVirtualCluster, func() Object { return new(ACL) }},
	{KindPolicy, "policies", KindVirtualCluster, func() Object { return new(Policy) }},
	{KindPriceBook, "price-books", "", func() Object { return new(PriceBook) }},
	{KindBudget, "budgets", KindTenant, func() Object { return new(Budget) }},
}

// KindOf finds a kind by its name.
func KindOf(name string) (Kind, bool) {
	i := slices.IndexFunc(Kinds, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return Kind{}, false
	}
	return Kinds[i], true
}

func kindNames() string {
	names := make([]string, len(Kinds))
	for i, k := range Kinds {
		names[i] = k.Name
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// Key is what tells an object from all others.
type Key struct {
	Kind  string
	Scope string // the name of the tenant or virtual cluster, where names are unique in one only
	Name  string
}

// KeyOf is the key of an object.
func KeyOf(o Object) Key {
	key, m := Key{Kind: o.Kind(), Name: o.Meta().Name}, o.Meta()
	switch k, _ := KindOf(key.Kind); k.Scope {
	case KindTenant:
		key.Scope = m.Tenant
	case KindVirtualCluster:
		key.Scope = m.VirtualCluster
	}
	return key
}

// String is such as "AliasTopic orders of acme-prod".
func (k Key) String() string {
	if k.Scope != "" {
		return k.Kind + " " + k.Name + " of " + k.Scope
	}
	if kind, _ := KindOf(k.Kind); kind.Everywhere() {
		return k.Kind + " " + k.Name + " of all virtual clusters"
	}
	return k.Kind + " " + k.Name
}

// Compare orders keys by kind, as in [Kinds], then scope and name.
func (k Key) Compare(other Key) int {
	rank := func(kind string) int { return slices.IndexFunc(Kinds, func(k Kind) bool { return k.Name == kind }) }
	if d := rank(k.Kind) - rank(other.Kind); d != 0 {
		return d
	}
	if d := strings.Compare(k.Scope, other.Scope); d != 0 {
		return d
	}
	return strings.Compare(k.Name, other.Name)
}

// Dependency is a field that names another object, which has to exist.
type Dependency struct {
	Field string
	On    Key
}

// Dependencies are what an object refers to, its owner included.
func Dependencies(o Object) []Dependency {
	m := o.Meta()
	tenant := Dependency{"metadata.tenant", Key{Kind: KindTenant, Name: m.Tenant}}
	vc := Dependency{"metadata.virtualCluster", Key{Kind: KindVirtualCluster, Name: m.VirtualCluster}}
	upstream := func(field, name string) Dependency {
		return Dependency{field, Key{Kind: KindUpstreamCluster, Name: name}}
	}
	switch o := o.(type) {
	case *VirtualCluster:
		refs := []Dependency{tenant, upstream("spec.home", o.Spec.Home)}
		for i, name := range o.Spec.Clusters {
			refs = append(refs, upstream(index("spec.clusters", i), name))
		}
		return refs
	case *TopicGrant:
		return []Dependency{tenant, upstream("spec.cluster", o.Spec.Cluster)}
	case *AliasTopic:
		return []Dependency{vc, upstream("spec.cluster", o.Spec.Cluster)}
	case *ServiceAccount, *ACL:
		return []Dependency{vc}
	case *Policy:
		if m.VirtualCluster != "" {
			return []Dependency{vc}
		}
	case *Budget:
		return []Dependency{tenant}
	}
	return nil
}

// Claim is something that only one object can have.
type Claim struct {
	What  string // host, physical topic, external name, price book
	Scope string // the virtual cluster in which there is one only; empty: everywhere
	Value string
}

func hostClaim(host string) Claim { return Claim{What: "host", Value: host} }

func physicalClaim(vc, cluster, topic string) Claim {
	return Claim{What: "physical topic", Scope: vc, Value: cluster + "/" + topic}
}

func externalClaim(vc, name string) Claim {
	return Claim{What: "external name", Scope: vc, Value: name}
}

// Claims are what an object has that no other may have.
func Claims(o Object) (claims []Claim) {
	switch o := o.(type) {
	case *VirtualCluster:
		for _, host := range append([]string{o.Spec.Host}, o.Spec.CustomHosts...) {
			claims = append(claims, hostClaim(host))
		}
	case *AliasTopic:
		claims = append(claims, physicalClaim(o.Metadata.VirtualCluster, o.Spec.Cluster, o.Spec.Topic))
	case *ServiceAccount:
		for _, name := range o.Spec.ExternalNames {
			claims = append(claims, externalClaim(o.Metadata.VirtualCluster, name))
		}
	case *PriceBook:
		claims = append(claims, priceBookClaim(&o.Spec))
	}
	return claims
}

// Marshal is an object as JSON, in the shape that files and the API have. Equal
// objects give equal bytes.
func Marshal(o Object) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(struct {
		APIVersion string    `json:"apiVersion"`
		Kind       string    `json:"kind"`
		Metadata   *Metadata `json:"metadata"`
		Spec       any       `json:"spec"`
	}{APIVersion, o.Kind(), o.Meta(), o.spec()}); err != nil {
		return nil, fmt.Errorf("encode %s: %w", KeyOf(o), err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Unmarshal reads what [Marshal] wrote, also a later version of this package: fields
// that are not known are passed over. What people write is for [Parse].
func Unmarshal(data []byte) (Object, error) {
	var head struct {
		APIVersion string          `json:"apiVersion"`
		Kind       string          `json:"kind"`
		Metadata   json.RawMessage `json:"metadata"`
		Spec       json.RawMessage `json:"spec"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("decode an object: %w", err)
	}
	kind, known := KindOf(head.Kind)
	if !known || head.APIVersion != APIVersion {
		return nil, fmt.Errorf("decode an object: unknown kind %q of %q", head.Kind, head.APIVersion)
	}
	o := kind.New()
	if err := json.Unmarshal(head.Metadata, o.Meta()); err != nil {
		return nil, fmt.Errorf("decode metadata of a %s: %w", kind.Name, err)
	}
	if err := json.Unmarshal(head.Spec, o.spec()); err != nil {
		return nil, fmt.Errorf("decode spec of %s: %w", KeyOf(o), err)
	}
	return o, nil
}

// Clone is a copy that shares nothing with o but where it was read.
func Clone(o Object) Object {
	data, err := Marshal(o)
	if err == nil {
		var c Object
		if c, err = Unmarshal(data); err == nil {
			c.Meta().Source = o.Meta().Source
			return c
		}
	}
	panic("resource: " + err.Error()) // the types encode whatever they hold
}
