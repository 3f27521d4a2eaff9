// Package policy holds the steps that requests go through beside ACLs and quotas.
//
// [New] compiles the policies of a virtual cluster, with those of all virtual clusters
// ([Common]), in their order, and [Pipeline.Produce] picks those that a principal and a topic are in the scope of:
// once for each session and topic, not for each request. Where none is, it is nil,
// and a request costs a comparison with nil.
//
// Records are never decoded: policies see what a request and the headers of its
// record batches say. The package does no I/O, reads no clock and starts no goroutine.
package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
)

// Pipeline is what clients of one virtual cluster go through, compiled. It is immutable;
// nil has no policies.
type Pipeline struct {
	own     []*step                      // of the virtual cluster itself
	produce []*step                      // with those of all
	labels  map[string]map[string]string // of service accounts, by principal
}

// Common are the policies of all virtual clusters, compiled once for all of them. It is
// immutable; nil has none.
type Common struct{ steps []*step }

// step is one policy of type produce.
type step struct {
	policy *resource.Policy
	scope  resource.PolicyScope

	all, some  bool // what acks has to be
	codecs     [8]bool
	allowed    string // the codecs, for people
	maxBytes   int
	idempotent bool
}

// NewCommon compiles policies of all virtual clusters.
func NewCommon(policies []*resource.Policy) (*Common, error) {
	steps, err := compileAll(policies)
	if err != nil || len(steps) == 0 {
		return nil, err
	}
	return &Common{steps}, nil
}

// New compiles the policies of a virtual cluster, and puts those of all beside them. One of
// a type that is not known, by a node older than the portal, say, is an error: to pass over
// it would be to admit what it refuses.
func New(policies []*resource.Policy, common *Common, vc *resource.VirtualCluster, accounts []*resource.ServiceAccount) (*Pipeline, error) {
	own, err := compileAll(policies)
	if err != nil {
		return nil, err
	}
	return (&Pipeline{own: own}).Under(common, vc, accounts), nil
}

// Under is p with other policies of all virtual clusters. Its own stay as they are.
func (p *Pipeline) Under(common *Common, vc *resource.VirtualCluster, accounts []*resource.ServiceAccount) *Pipeline {
	next := new(Pipeline)
	if p != nil {
		next.own = p.own
	}
	next.produce = next.own
	if common != nil {
		out := func(s *step) bool { return !s.scope.IsIn(vc.Metadata.Labels) }
		steps := common.steps
		if slices.ContainsFunc(steps, out) {
			steps = slices.DeleteFunc(slices.Clone(steps), out)
		}
		next.produce = steps // the same for most
		if len(next.own) > 0 {
			next.produce = slices.Concat(steps, next.own)
			slices.SortFunc(next.produce, func(a, b *step) int { return a.policy.Compare(b.policy) })
		}
	}
	if len(next.produce) == 0 {
		return nil
	}
	if slices.ContainsFunc(next.produce, func(s *step) bool { return len(s.scope.AccountLabels) > 0 }) {
		next.labels = make(map[string]map[string]string, len(accounts))
		for _, a := range accounts {
			next.labels["User:"+a.Metadata.Name] = a.Metadata.Labels
		}
	}
	return next
}

// compileAll compiles policies in their order.
func compileAll(policies []*resource.Policy) (steps []*step, err error) {
	for _, o := range slices.SortedFunc(slices.Values(policies), (*resource.Policy).Compare) {
		s, err := compile(o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", resource.KeyOf(o), err)
		}
		steps = append(steps, s)
	}
	return steps, nil
}

func compile(o *resource.Policy) (*step, error) {
	if o.Spec.Type != resource.PolicyProduce {
		return nil, fmt.Errorf("unknown type %q", o.Spec.Type)
	}
	c := &o.Spec.Config
	s := &step{
		policy: o, scope: o.Spec.Scope, maxBytes: int(c.MaxBatchBytes), idempotent: c.Idempotent,
		allowed: strings.Join(c.Compression, ", "),
	}
	switch c.Acks {
	case resource.AcksAll:
		s.all, s.some = true, true
	case resource.AcksLeader:
		s.some = true
	case "":
	default:
		return nil, fmt.Errorf("unknown acks %q", c.Acks)
	}
	for _, codec := range c.Compression {
		n := slices.Index(resource.Codecs(), codec)
		if n < 0 {
			return nil, fmt.Errorf("unknown codec %q", codec)
		}
		s.codecs[n] = true
	}
	if len(c.Compression) == 0 {
		s.codecs = [8]bool{true, true, true, true, true, true, true, true}
	}
	return s, nil
}

// Produce is what a principal that produces to a topic goes through; nil: nothing.
func (p *Pipeline) Produce(principal, topic string) *Produce {
	if p == nil {
		return nil
	}
	var steps []*step
	for _, s := range p.produce {
		if s.scope.IsAbout(principal, p.labels[principal]) && s.scope.HasTopic(topic) {
			steps = append(steps, s)
		}
	}
	if steps == nil {
		return nil
	}
	return &Produce{steps}
}

// Produce is the policies that produce to one topic goes through.
type Produce struct{ steps []*step }

// What is looked at in the header of a record batch (PROTOCOL.md §D): its length
// behind the first twelve bytes, its attributes, and the id of its producer.
const (
	header     = 61
	lengthAt   = 8
	lengthEnd  = 12
	attributes = 21
	producerID = 43
	codecBits  = 0x07
)

// breach is what a step does not admit.
type breach uint8

const (
	none breach = iota
	acksOfAll
	acksOfSome
	codec
	size
	idempotence
)

// Admits reports whether records of one partition, sent with acks, pass every policy.
// What is no record batch passes: brokers refuse that.
func (p *Produce) Admits(acks int16, records []byte) bool {
	_, why, _ := p.first(acks, records)
	return why == none
}

// first is the first step that does not admit something, and the batch.
func (p *Produce) first(acks int16, records []byte) (*step, breach, []byte) {
	for _, s := range p.steps {
		switch {
		case s.all && acks != -1:
			return s, acksOfAll, nil
		case s.some && acks == 0:
			return s, acksOfSome, nil
		}
		for rest := records; len(rest) >= header; {
			length := int64(lengthEnd) + int64(int32(binary.BigEndian.Uint32(rest[lengthAt:])))
			if length < header || length > int64(len(rest)) {
				break
			}
			batch := rest[:length]
			switch {
			case !s.codecs[batch[attributes+1]&codecBits]:
				return s, codec, batch
			case s.idempotent && int64(binary.BigEndian.Uint64(batch[producerID:])) < 0:
				return s, idempotence, batch
			case s.maxBytes > 0 && len(batch) > s.maxBytes:
				return s, size, batch
			}
			rest = rest[length:]
		}
	}
	return nil, none, nil
}

// Refuse is why records do not pass; nil: they do. The text for the client names the
// policy if it is its tenant's: what those of all virtual clusters are called is for those
// who run the gateway, and stands in the log alone.
func (p *Produce) Refuse(acks int16, records []byte) *refusal.Error {
	s, why, batch := p.first(acks, records)
	if why == none {
		return nil
	}
	name := s.policy.Metadata.Name
	by, cause := fmt.Sprintf("policy %q ", name), errors.New("policy "+name)
	if s.policy.Metadata.VirtualCluster == "" {
		by, cause = "a policy of the operator ", errors.New("policy "+name+" of all virtual clusters")
	}
	tell := func(r *refusal.Refusal, format string, args ...any) *refusal.Error {
		e := r.With(cause)
		e.Text = by + fmt.Sprintf(format, args...)
		return e
	}
	switch why {
	case acksOfAll:
		return tell(refusal.PolicyAcks, "wants acks=all, and this is acks=%d", acks)
	case acksOfSome:
		return tell(refusal.PolicyAcks, "wants acks=1 or acks=all, and this is acks=0")
	case codec:
		used := "unknown"
		if n := int(batch[attributes+1] & codecBits); n < len(resource.Codecs()) {
			used = resource.Codecs()[n]
		}
		return tell(refusal.PolicyCompression, "does not allow compression.type=%s, but %s", used, s.allowed)
	case size:
		return tell(refusal.PolicyBatchSize, "allows batches of up to %d bytes, and this one has %d", s.maxBytes, len(batch))
	default:
		return tell(refusal.PolicyIdempotence, "wants producers with enable.idempotence=true")
	}
}
