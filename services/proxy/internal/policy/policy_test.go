package policy

import (
	"encoding/binary"
	"errors"
	"testing"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
)

// batch is one of a size, with a codec and a producer's id.
func batch(size int, codec byte, producer int64) []byte {
	b := make([]byte, size)
	binary.BigEndian.PutUint32(b[lengthAt:], uint32(size-lengthEnd))
	b[attributes+1] = codec | 0x10 // of a transaction: other bits count for nothing
	binary.BigEndian.PutUint64(b[producerID:], uint64(producer))
	return b
}

func of(name string, spec resource.PolicySpec) *resource.Policy {
	spec.Type = resource.PolicyProduce
	return &resource.Policy{Metadata: resource.Metadata{Name: name, VirtualCluster: "shop"}, Spec: spec}
}

func asks(c resource.PolicyConfig) *resource.Policy {
	return of("p", resource.PolicySpec{Config: c})
}

func TestWhatIsAdmitted(t *testing.T) {
	broken := batch(100, 1, 1)
	binary.BigEndian.PutUint32(broken[lengthAt:], 1<<31-1)
	negative := batch(100, 1, 1)
	binary.BigEndian.PutUint32(negative[lengthAt:], 1<<32-12)
	two := append(batch(100, 4, 7), batch(100, 1, 7)...)
	for _, c := range []struct {
		name    string
		policy  *resource.Policy
		acks    int16
		records []byte
		want    *refusal.Refusal
	}{
		{"all of all", asks(resource.PolicyConfig{Acks: resource.AcksAll}), -1, batch(61, 0, -1), nil},
		{"one of all", asks(resource.PolicyConfig{Acks: resource.AcksAll}), 1, batch(61, 0, -1), refusal.PolicyAcks},
		{"none of all, and nothing to store", asks(resource.PolicyConfig{Acks: resource.AcksAll}), 0, nil, refusal.PolicyAcks},
		{"one of one", asks(resource.PolicyConfig{Acks: resource.AcksLeader}), 1, batch(61, 0, -1), nil},
		{"all of one", asks(resource.PolicyConfig{Acks: resource.AcksLeader}), -1, batch(61, 0, -1), nil},
		{"none of one", asks(resource.PolicyConfig{Acks: resource.AcksLeader}), 0, batch(61, 0, -1), refusal.PolicyAcks},
		{"a codec of the list", asks(resource.PolicyConfig{Compression: []string{"gzip", "zstd"}}), 0, batch(61, 4, -1), nil},
		{"no codec", asks(resource.PolicyConfig{Compression: []string{"gzip", "zstd"}}), 0, batch(61, 0, -1), refusal.PolicyCompression},
		{"a codec that nobody knows", asks(resource.PolicyConfig{Compression: []string{"none"}}), 0, batch(61, 7, -1), refusal.PolicyCompression},
		{"any codec", asks(resource.PolicyConfig{MaxBatchBytes: 62}), 0, batch(61, 3, -1), nil},
		{"as large as may be", asks(resource.PolicyConfig{MaxBatchBytes: 100}), 0, batch(100, 0, -1), nil},
		{"a byte more", asks(resource.PolicyConfig{MaxBatchBytes: 100}), 0, batch(101, 0, -1), refusal.PolicyBatchSize},
		{"an idempotent producer", asks(resource.PolicyConfig{Idempotent: true}), -1, batch(61, 0, 0), nil},
		{"a plain producer", asks(resource.PolicyConfig{Idempotent: true}), -1, batch(61, 0, -1), refusal.PolicyIdempotence},
		{"a second batch", asks(resource.PolicyConfig{Compression: []string{"zstd"}}), -1, two, refusal.PolicyCompression},
		{"batches of two, each small", asks(resource.PolicyConfig{MaxBatchBytes: 100}), -1, two, nil},
		{"what is no batch", asks(resource.PolicyConfig{Compression: []string{"zstd"}, Idempotent: true, MaxBatchBytes: 62}), -1, []byte("hello"), nil},
		{"a batch longer than the request", asks(resource.PolicyConfig{Compression: []string{"zstd"}}), -1, broken, nil},
		{"a batch of no length", asks(resource.PolicyConfig{Compression: []string{"zstd"}}), -1, negative, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := New([]*resource.Policy{c.policy}, nil)
			if err != nil {
				t.Fatal(err)
			}
			steps := p.Produce("User:x", "t")
			err = nil
			if why := steps.Refuse(c.acks, c.records); why != nil {
				err = why
				if why.Text == "" || why.Err == nil {
					t.Errorf("%v says %q of policy %v, want both", why, why.Text, why.Err)
				}
			}
			if refusal.Of(err) != c.want {
				t.Errorf("refused with %v, want %v", err, c.want)
			}
			if admits := steps.Admits(c.acks, c.records); admits != (c.want == nil) {
				t.Errorf("admits %v", admits)
			}
		})
	}
}

func TestWhoIsInTheScope(t *testing.T) {
	scope := func(s resource.PolicyScope) *resource.Policy {
		return of("p", resource.PolicySpec{Scope: s, Config: resource.PolicyConfig{Idempotent: true}})
	}
	accounts := []*resource.ServiceAccount{
		{Metadata: resource.Metadata{Name: "ada", Labels: map[string]string{"team": "a", "tier": "1"}}},
		{Metadata: resource.Metadata{Name: "bob", Labels: map[string]string{"team": "b", "empty": ""}}},
	}
	name := func(name string, pattern resource.Pattern) []resource.TopicSelector {
		return []resource.TopicSelector{{Name: name, Pattern: pattern}}
	}
	for _, c := range []struct {
		name             string
		scope            resource.PolicyScope
		principal, topic string
		want             bool
	}{
		{"everybody", resource.PolicyScope{}, "User:ada", "t", true},
		{"a principal", resource.PolicyScope{Principals: []string{"User:ada"}}, "User:ada", "t", true},
		{"another principal", resource.PolicyScope{Principals: []string{"User:ada"}}, "User:bob", "t", false},
		{"a group", resource.PolicyScope{AccountLabels: map[string]string{"team": "a"}}, "User:ada", "t", true},
		{"all labels of a group", resource.PolicyScope{AccountLabels: map[string]string{"team": "a", "tier": "2"}}, "User:ada", "t", false},
		{"a label without a value", resource.PolicyScope{AccountLabels: map[string]string{"empty": ""}}, "User:bob", "t", true},
		{"a label that is not there", resource.PolicyScope{AccountLabels: map[string]string{"empty": ""}}, "User:ada", "t", false},
		{"nobody's account", resource.PolicyScope{AccountLabels: map[string]string{"team": "a"}}, "User:ANONYMOUS", "t", false},
		{"a principal beside a group", resource.PolicyScope{Principals: []string{"User:bob"}, AccountLabels: map[string]string{"team": "a"}}, "User:bob", "t", true},
		{"a group beside a principal", resource.PolicyScope{Principals: []string{"User:bob"}, AccountLabels: map[string]string{"team": "a"}}, "User:ada", "t", true},
		{"a topic", resource.PolicyScope{Topics: name("t", resource.Literal)}, "User:ada", "t", true},
		{"another topic", resource.PolicyScope{Topics: name("t", resource.Literal)}, "User:ada", "tt", false},
		{"topics that begin so", resource.PolicyScope{Topics: name("t", resource.Prefixed)}, "User:ada", "tt", true},
		{"all but these", resource.PolicyScope{ExceptTopics: name("t", resource.Prefixed)}, "User:ada", "tt", false},
		{"all but others", resource.PolicyScope{ExceptTopics: name("t", resource.Literal)}, "User:ada", "tt", true},
		{"these but one", resource.PolicyScope{Topics: name("t", resource.Prefixed), ExceptTopics: name("tt", resource.Literal)}, "User:ada", "tt", false},
	} {
		p, err := New([]*resource.Policy{scope(c.scope)}, accounts)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Produce(c.principal, c.topic) != nil; got != c.want {
			t.Errorf("%s: in the scope %v, want %v", c.name, got, c.want)
		}
	}
}

func TestPoliciesHaveAnOrder(t *testing.T) {
	acks := resource.PolicyConfig{Acks: resource.AcksAll}
	p, err := New([]*resource.Policy{
		of("b", resource.PolicySpec{Priority: 1, Config: acks}), of("c", resource.PolicySpec{Priority: -1, Config: acks}),
		of("a", resource.PolicySpec{Priority: 1, Config: acks}), of("d", resource.PolicySpec{Config: acks}),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got string
	for _, s := range p.Produce("User:x", "t").steps {
		got += s.name
	}
	if got != "cdab" {
		t.Errorf("in the order %s, want cdab", got)
	}
}

// What is not known is not passed over.
func TestPoliciesThatAreNotKnown(t *testing.T) {
	other := asks(resource.PolicyConfig{Idempotent: true})
	other.Spec.Type = "tap-dance"
	for _, o := range []*resource.Policy{other, asks(resource.PolicyConfig{Acks: "most"}), asks(resource.PolicyConfig{Compression: []string{"brotli"}})} {
		if _, err := New([]*resource.Policy{o}, nil); err == nil {
			t.Errorf("%+v is compiled", o.Spec)
		}
	}
	if p, err := New(nil, nil); p != nil || err != nil || p.Produce("User:x", "t") != nil {
		t.Errorf("no policies: %v, %v", p, err)
	}
}

func TestAdmittingAllocatesNothing(t *testing.T) {
	p, err := New([]*resource.Policy{asks(resource.PolicyConfig{Acks: resource.AcksAll, Compression: []string{"zstd"}, Idempotent: true, MaxBatchBytes: 100})}, nil)
	if err != nil {
		t.Fatal(err)
	}
	steps, records := p.Produce("User:x", "t"), batch(100, 4, 1)
	if n := testing.AllocsPerRun(100, func() {
		if !steps.Admits(-1, records) {
			t.Error(errors.New("refused"))
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
