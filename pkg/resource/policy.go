package resource

import (
	"maps"
	"slices"
	"strings"
)

// Policy is a step that requests go through beside ACLs and quotas: those of one virtual
// cluster or, where metadata names none, of all. Of several that a request is in the scope
// of, all have to admit it: none loosens another.
type Policy struct {
	Metadata Metadata   `yaml:"metadata" json:"metadata"`
	Spec     PolicySpec `yaml:"spec" json:"spec"`
}

// PolicyType is what a policy is about.
type PolicyType string

// PolicyProduce is about what clients produce, as far as Produce requests and the
// headers of record batches tell: records are not read.
const PolicyProduce PolicyType = "produce"

// PolicySpec says what is asked of whom.
type PolicySpec struct {
	Type     PolicyType   `yaml:"type" json:"type"`
	Priority int32        `yaml:"priority,omitempty" json:"priority,omitempty"` // the lowest is first; then those of all virtual clusters, and in the order of names
	Scope    PolicyScope  `yaml:"scope,omitempty" json:"scope,omitzero"`
	Config   PolicyConfig `yaml:"config" json:"config"`
}

// PolicyScope is whom and what a policy is about; empty fields are about everybody and
// everything. Principals and AccountLabels add up. The labels of virtual clusters are for
// policies of all of them.
type PolicyScope struct {
	VirtualClusterLabels       map[string]string `yaml:"virtualClusterLabels,omitempty" json:"virtualClusterLabels,omitempty"`             // only virtual clusters with all of them
	ExceptVirtualClusterLabels map[string]string `yaml:"exceptVirtualClusterLabels,omitempty" json:"exceptVirtualClusterLabels,omitempty"` // not those with all of these

	Principals    []string          `yaml:"principals,omitempty" json:"principals,omitempty"`       // such as User:alice
	AccountLabels map[string]string `yaml:"accountLabels,omitempty" json:"accountLabels,omitempty"` // of the service account, all of them
	Topics        []TopicSelector   `yaml:"topics,omitempty" json:"topics,omitempty"`               // as clients name them
	ExceptTopics  []TopicSelector   `yaml:"exceptTopics,omitempty" json:"exceptTopics,omitempty"`
}

// Acks is how many brokers must have a batch before it is acknowledged.
type Acks string

// The values of Acks. A leader alone is one, too.
const (
	AcksAll    Acks = "all"
	AcksLeader Acks = "leader" // or all: an answer of some kind
)

// PolicyConfig is what a policy of type produce asks for; at least one thing.
type PolicyConfig struct {
	Acks          Acks     `yaml:"acks,omitempty" json:"acks,omitempty"`
	Compression   []string `yaml:"compression,omitempty" json:"compression,omitempty"` // the codecs that are allowed
	MaxBatchBytes int32    `yaml:"maxBatchBytes,omitempty" json:"maxBatchBytes,omitempty"`
	Idempotent    bool     `yaml:"idempotent,omitempty" json:"idempotent,omitempty"`
}

// Codecs are how batches are compressed, in the order of Kafka's numbers for it.
func Codecs() []string { return []string{"none", "gzip", "snappy", "lz4", "zstd"} }

// Kind and Meta make each type an [Object].
func (p *Policy) Kind() string    { return KindPolicy }
func (p *Policy) Meta() *Metadata { return &p.Metadata }
func (p *Policy) spec() any       { return &p.Spec }

// Compare orders policies as requests go through them.
func (p *Policy) Compare(other *Policy) int {
	if p.Spec.Priority != other.Spec.Priority {
		if p.Spec.Priority < other.Spec.Priority {
			return -1
		}
		return 1
	}
	if d := strings.Compare(p.Metadata.VirtualCluster, other.Metadata.VirtualCluster); d != 0 {
		return d
	}
	return strings.Compare(p.Metadata.Name, other.Metadata.Name)
}

// IsIn reports whether a virtual cluster with these labels is in the scope.
func (s *PolicyScope) IsIn(labels map[string]string) bool {
	return hasAll(labels, s.VirtualClusterLabels) && (len(s.ExceptVirtualClusterLabels) == 0 || !hasAll(labels, s.ExceptVirtualClusterLabels))
}

func hasAll(have, want map[string]string) bool {
	for name, value := range want {
		if got, ok := have[name]; !ok || got != value {
			return false
		}
	}
	return true
}

// IsAbout reports whether a principal is in the scope, given the labels of its
// account; without an account it has none.
func (s *PolicyScope) IsAbout(principal string, labels map[string]string) bool {
	if len(s.Principals) == 0 && len(s.AccountLabels) == 0 {
		return true
	}
	if slices.Contains(s.Principals, principal) {
		return true
	}
	return len(s.AccountLabels) > 0 && hasAll(labels, s.AccountLabels)
}

// HasTopic reports whether a topic is in the scope.
func (s *PolicyScope) HasTopic(name string) bool {
	selects := func(t TopicSelector) bool { return t.selects(name) }
	return (len(s.Topics) == 0 || slices.ContainsFunc(s.Topics, selects)) && !slices.ContainsFunc(s.ExceptTopics, selects)
}

func (t TopicSelector) selects(name string) bool {
	if t.Pattern == Prefixed {
		return strings.HasPrefix(name, t.Name)
	}
	return name == t.Name
}

func validatePolicy(o *Written, p *Policy) {
	s := &p.Spec
	oneOf(o, "spec.type", &s.Type, "", PolicyProduce)
	for i, p := range s.Scope.Principals {
		principal(o, index("spec.scope.principals", i), p)
	}
	labels := func(field, kind string, labels map[string]string) {
		for _, name := range slices.Sorted(maps.Keys(labels)) {
			if value := labels[name]; !labelName.MatchString(name) || value != "" && !labelName.MatchString(value) {
				o.Problem(field+"."+name, "is no label that a %s can have", kind)
			}
		}
	}
	labels("spec.scope.accountLabels", KindServiceAccount, s.Scope.AccountLabels)
	for _, list := range []struct {
		field  string
		labels map[string]string
	}{{"spec.scope.virtualClusterLabels", s.Scope.VirtualClusterLabels}, {"spec.scope.exceptVirtualClusterLabels", s.Scope.ExceptVirtualClusterLabels}} {
		labels(list.field, KindVirtualCluster, list.labels)
		switch {
		case p.Metadata.VirtualCluster != "" && o.Written(list.field):
			o.Problem(list.field, "has no meaning for a Policy of one virtual cluster: leave it out, or metadata.virtualCluster")
		case len(list.labels) == 0 && o.Written(list.field):
			o.Problem(list.field, "must not be empty: leave it out instead")
		}
	}
	for field, topics := range map[string][]TopicSelector{"spec.scope.topics": s.Scope.Topics, "spec.scope.exceptTopics": s.Scope.ExceptTopics} {
		for i := range topics {
			t, at := &topics[i], index(field, i)
			oneOf(o, at+".pattern", &t.Pattern, Literal, Literal, Prefixed)
			if t.Name == "" {
				o.Problem(at+".name", "required")
			} else if err := CheckTopicName(t.Name); err != nil && (t.Pattern != Prefixed || t.Name != "." && t.Name != "..") {
				o.Problem(at+".name", "%v", err)
			}
		}
	}
	for _, list := range []string{"principals", "accountLabels", "topics"} {
		field := "spec.scope." + list
		empty := map[string]bool{
			"principals": len(s.Scope.Principals) == 0, "accountLabels": len(s.Scope.AccountLabels) == 0, "topics": len(s.Scope.Topics) == 0,
		}[list]
		if o.Written(field) && empty {
			o.Problem(field, "must not be empty: it would be about everybody, which leaving it out says")
		}
	}
	c := &s.Config
	if o.Written("spec.config.acks") {
		oneOf(o, "spec.config.acks", &c.Acks, "", AcksAll, AcksLeader)
	}
	if o.Written("spec.config.compression") && len(c.Compression) == 0 {
		o.Problem("spec.config.compression", "needs at least one of %s: leave it out to allow all", strings.Join(Codecs(), ", "))
	}
	for i, codec := range c.Compression {
		field := index("spec.config.compression", i)
		oneOf(o, field, &codec, "", Codecs()...)
		if slices.Contains(c.Compression[:i], codec) {
			o.Problem(field, "%q appears twice", codec)
		}
	}
	if o.Written("spec.config.maxBatchBytes") && c.MaxBatchBytes <= minBatchBytes {
		o.Problem("spec.config.maxBatchBytes", "must be more than %d, which a batch takes without a record in it", minBatchBytes)
	}
	if !o.Written("spec.config.acks") && !o.Written("spec.config.compression") && !o.Written("spec.config.maxBatchBytes") && !c.Idempotent {
		o.Problem("spec.config", "asks for nothing: write at least one of acks, compression, maxBatchBytes and idempotent: true")
	}
	if c.Idempotent && c.Acks == AcksLeader {
		o.Problem("spec.config.acks", "contradicts idempotent, which needs the acknowledgement of all: leave it out")
	}
}

// minBatchBytes is the header of a record batch.
const minBatchBytes = 61
