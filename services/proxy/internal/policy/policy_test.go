package policy

import (
	"encoding/binary"
	"errors"
	"strings"
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

var shop = &resource.VirtualCluster{Metadata: resource.Metadata{Name: "shop", Labels: map[string]string{"tier": "gold", "eu": ""}}}

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
			p, err := New([]*resource.Policy{c.policy}, nil, shop, nil)
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
		p, err := New([]*resource.Policy{scope(c.scope)}, nil, shop, accounts)
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
	}, nil, shop, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got string
	for _, s := range p.Produce("User:x", "t").steps {
		got += s.policy.Metadata.Name
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
		if _, err := New([]*resource.Policy{o}, nil, shop, nil); err == nil {
			t.Errorf("%+v is compiled", o.Spec)
		}
	}
	if p, err := New(nil, nil, shop, nil); p != nil || err != nil || p.Produce("User:x", "t") != nil {
		t.Errorf("no policies: %v, %v", p, err)
	}
}

func TestAdmittingAllocatesNothing(t *testing.T) {
	p, err := New([]*resource.Policy{asks(resource.PolicyConfig{Acks: resource.AcksAll, Compression: []string{"zstd"}, Idempotent: true, MaxBatchBytes: 100})}, nil, shop, nil)
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

func everywhere(name string, spec resource.PolicySpec) *resource.Policy {
	o := of(name, spec)
	o.Metadata.VirtualCluster = ""
	return o
}

// What is of all virtual clusters and what is of one add up, in one order; neither takes
// anything back that the other asks for.
func TestPoliciesOfAllVirtualClusters(t *testing.T) {
	scope := func(s resource.PolicyScope) resource.PolicySpec {
		return resource.PolicySpec{Scope: s, Config: resource.PolicyConfig{Acks: resource.AcksAll}}
	}
	priority := func(p int32) resource.PolicySpec {
		s := scope(resource.PolicyScope{})
		s.Priority = p
		return s
	}
	labels := func(pairs ...string) map[string]string {
		m := make(map[string]string)
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	own := []*resource.Policy{of("b", priority(1)), of("d", priority(-1))}
	for _, c := range []struct {
		name   string
		own    []*resource.Policy
		common []*resource.Policy
		want   string
	}{
		{"none", nil, nil, ""},
		{"its own alone", own, nil, "db"},
		{"those of all alone", nil, []*resource.Policy{everywhere("z", priority(2)), everywhere("y", priority(1))}, "yz"},
		{"both, by priority", own, []*resource.Policy{everywhere("y", priority(0)), everywhere("x", priority(2))}, "dybx"},
		{"of one priority those of all come first", own, []*resource.Policy{everywhere("y", priority(1)), everywhere("x", priority(-1))}, "xdyb"},
		{"of one name are both", []*resource.Policy{of("x", priority(0))}, []*resource.Policy{everywhere("x", priority(0))}, "xx"},
		{"of those with labels", own, []*resource.Policy{everywhere("y", scope(resource.PolicyScope{VirtualClusterLabels: labels("tier", "gold", "eu", "")}))}, "dyb"},
		{"of those with other labels", own, []*resource.Policy{everywhere("y", scope(resource.PolicyScope{VirtualClusterLabels: labels("tier", "gold", "us", "")}))}, "db"},
		{"not of those with labels", nil, []*resource.Policy{everywhere("y", scope(resource.PolicyScope{ExceptVirtualClusterLabels: labels("tier", "gold")}))}, ""},
		{"not of those with more labels than it has", nil, []*resource.Policy{everywhere("y", scope(resource.PolicyScope{ExceptVirtualClusterLabels: labels("tier", "gold", "us", "")}))}, "y"},
		{"of some, but not of these", nil, []*resource.Policy{everywhere("y", scope(resource.PolicyScope{VirtualClusterLabels: labels("eu", ""), ExceptVirtualClusterLabels: labels("tier", "gold")}))}, ""},
		{"about a group of accounts", nil, []*resource.Policy{everywhere("y", scope(resource.PolicyScope{AccountLabels: labels("team", "a")})), everywhere("z", scope(resource.PolicyScope{AccountLabels: labels("team", "b")}))}, "y"},
	} {
		t.Run(c.name, func(t *testing.T) {
			common, err := NewCommon(c.common)
			if err != nil {
				t.Fatal(err)
			}
			accounts := []*resource.ServiceAccount{{Metadata: resource.Metadata{Name: "x", Labels: labels("team", "a")}}}
			p, err := New(c.own, common, shop, accounts)
			if err != nil {
				t.Fatal(err)
			}
			bare, err := New(c.own, nil, shop, accounts)
			if err != nil {
				t.Fatal(err)
			}
			for how, p := range map[string]*Pipeline{"at once": p, "later": bare.Under(common, shop, accounts), "again": p.Under(common, shop, accounts)} {
				var got string
				if steps := p.Produce("User:x", "t"); steps != nil {
					for _, s := range steps.steps {
						got += s.policy.Metadata.Name
					}
				}
				if got != c.want {
					t.Errorf("%s: %q, want %q", how, got, c.want)
				}
			}
			if gone := p.Under(nil, shop, accounts); (gone == nil) != (len(c.own) == 0) || gone != nil && len(gone.produce) != len(c.own) {
				t.Errorf("without those of all: %+v, want its own", gone)
			}
		})
	}
}

// The operator's name for a policy of all virtual clusters is for the log.
func TestARefusalOfAllVirtualClustersNamesNobody(t *testing.T) {
	common, err := NewCommon([]*resource.Policy{everywhere("after-the-globex-incident", resource.PolicySpec{Config: resource.PolicyConfig{Acks: resource.AcksAll}})})
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(nil, common, shop, nil)
	if err != nil {
		t.Fatal(err)
	}
	why := p.Produce("User:x", "t").Refuse(1, nil)
	if want := "a policy of the operator wants acks=all, and this is acks=1"; why == nil || why.Text != want {
		t.Fatalf("the client is told %v, want %q", why, want)
	}
	if !strings.Contains(why.Err.Error(), "policy after-the-globex-incident of all virtual clusters") {
		t.Errorf("the log has %q", why.Err)
	}
	other := everywhere("x", resource.PolicySpec{})
	other.Spec.Type = "tap-dance"
	if _, err := NewCommon([]*resource.Policy{other}); err == nil || !strings.Contains(err.Error(), "Policy x of all virtual clusters") {
		t.Errorf("what is not known is passed over: %v", err)
	}
}
