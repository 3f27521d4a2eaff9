// Package policy holds the steps that requests go through beside ACLs and quotas.
//
// [New] compiles the policies of a virtual cluster, in their order, and
// [Pipeline.Produce] picks those that a principal and a topic are in the scope of:
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

// Pipeline is the policies of one virtual cluster, compiled. It is immutable; nil has
// no policies.
type Pipeline struct {
	produce []*step
	labels  map[string]map[string]string // of service accounts, by principal
}

// step is one policy of type produce.
type step struct {
	name  string
	scope resource.PolicyScope

	all, some  bool // what acks has to be
	codecs     [8]bool
	allowed    string // the codecs, for people
	maxBytes   int
	idempotent bool
}

// New compiles policies. One of a type that is not known, by a node older than the
// portal, say, is an error: to pass over it would be to admit what it refuses.
func New(policies []*resource.Policy, accounts []*resource.ServiceAccount) (*Pipeline, error) {
	if len(policies) == 0 {
		return nil, nil
	}
	p := &Pipeline{labels: make(map[string]map[string]string, len(accounts))}
	for _, a := range accounts {
		p.labels["User:"+a.Metadata.Name] = a.Metadata.Labels
	}
	sorted := slices.Clone(policies)
	slices.SortFunc(sorted, (*resource.Policy).Compare)
	for _, o := range sorted {
		s, err := compile(o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", resource.KeyOf(o), err)
		}
		p.produce = append(p.produce, s)
	}
	return p, nil
}

func compile(o *resource.Policy) (*step, error) {
	if o.Spec.Type != resource.PolicyProduce {
		return nil, fmt.Errorf("unknown type %q", o.Spec.Type)
	}
	c := &o.Spec.Config
	s := &step{
		name: o.Metadata.Name, scope: o.Spec.Scope, maxBytes: int(c.MaxBatchBytes), idempotent: c.Idempotent,
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
// policy, which is its tenant's.
func (p *Produce) Refuse(acks int16, records []byte) *refusal.Error {
	s, why, batch := p.first(acks, records)
	if why == none {
		return nil
	}
	by := fmt.Sprintf("policy %q ", s.name)
	cause := errors.New("policy " + s.name)
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
