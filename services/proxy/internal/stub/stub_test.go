package stub

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

func TestNamesOfStubs(t *testing.T) {
	id := [16]byte{0xfb, 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}
	const inName = "-_8BAgMEBQYHCAkKCwwNDg"
	longPrefix := strings.Repeat("v", 63) + "."
	for _, tc := range []struct {
		name, prefix, alias string
		label, stub         string
	}{
		{"an alias", "acme.", "orders", "orders", "acme.__tg.stub.orders." + inName},
		{"an alias with dots", "acme.", "eu.orders.v2", "eu.orders.v2", "acme.__tg.stub.eu.orders.v2." + inName},
		{"an alias that looks like a stub", "acme.", "__tg.stub.x." + inName, "__tg.stub.x." + inName, "acme.__tg.stub.__tg.stub.x." + inName + "." + inName},
		{"the longest alias that fits", "acme.", strings.Repeat("a", 211), strings.Repeat("a", 211), "acme.__tg.stub." + strings.Repeat("a", 211) + "." + inName},
		{"one that is too long", "acme.", strings.Repeat("a", 212), "", ""},
		{"the longest alias there is under the longest prefix", longPrefix, strings.Repeat("a", 249), "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			label, stub := Label(tc.prefix, tc.alias), Name(tc.prefix, tc.alias, id)
			if tc.label != "" && (label != tc.label || stub != tc.stub) {
				t.Errorf("%q in %q, want %q in %q", label, stub, tc.label, tc.stub)
			}
			if tc.label == "" && (len(label) != len("sha256.")+43 || Label(tc.prefix, tc.alias+"b") == label) {
				t.Errorf("label %q is no hash of the alias", label)
			}
			if len(stub) > 249 {
				t.Errorf("%d characters", len(stub))
			}
			if got, identity, ok := Parse(tc.prefix, stub); !ok || got != label || identity != id {
				t.Errorf("parsed: %q, %x, %t", got, identity, ok)
			}
		})
	}
}

func TestWhatIsNoStub(t *testing.T) {
	for _, name := range []string{
		"", "acme.", "acme.orders", "acme.__tg.stub.", "acme.__tg.stub.orders", "acme.__tg.stubs.orders.-_8BAgMEBQYHCAkKCwwNDg",
		"acme.__tg.stub.-_8BAgMEBQYHCAkKCwwNDg",          // no alias
		"acme.__tg.stub..-_8BAgMEBQYHCAkKCwwNDg",         // an empty one
		"acme.__tg.stub.orders.-_8BAgMEBQYHCAkKCwwND",    // short
		"acme.__tg.stub.orders.-_8BAgMEBQYHCAkKCwwNDgA",  // long
		"acme.__tg.stub.orders.-_8BAgMEBQYHCAkKCwwNDh",   // bits that no identity has
		"acme.__tg.stub.orders.+/8BAgMEBQYHCAkKCwwNDg",   // another alphabet
		"acme-2.__tg.stub.orders.-_8BAgMEBQYHCAkKCwwNDg", // of another virtual cluster
		"orders.-_8BAgMEBQYHCAkKCwwNDg",
	} {
		if alias, id, ok := Parse("acme.", name); ok {
			t.Errorf("%q is taken for the stub of %q with %x", name, alias, id)
		}
	}
}

// What is known of a topic while its cluster has not been reached is in the names of
// the stubs it has.
func TestStubsOfAnAliasAreFound(t *testing.T) {
	one, two := [16]byte{1}, [16]byte{2}
	resp := kmsg.NewPtrMetadataResponse()
	long := strings.Repeat("l", 240)
	for name, parts := range map[string]int{
		Name("acme.", "orders", one): 3, Name("acme.", "orders", two): 4, Name("acme.", "orders.eu", one): 5,
		Name("acme.", "order", one): 6, Name("globex.", "orders", one): 7, Name("acme.", long, two): 8, "acme.orders": 9,
	} {
		rt := kmsg.NewMetadataResponseTopic()
		rt.Topic, rt.TopicID = &name, [16]byte{byte(parts)}
		for p := range parts {
			rt.Partitions = append(rt.Partitions, kmsg.MetadataResponseTopicPartition{Partition: int32(p)})
		}
		resp.Topics = append(resp.Topics, rt)
	}
	m := upstream.NewMetadata(resp, nil)
	check := func(alias string, want map[[16]byte]int) {
		t.Helper()
		found := Find(m, "acme.", alias)
		for _, f := range found {
			if n := want[f.Identity]; f.Partitions != n || f.ID != ([16]byte{byte(n)}) || f.Name != Name("acme.", alias, f.Identity) {
				t.Errorf("%.10s: %+v", alias, f)
			}
		}
		if len(found) != len(want) {
			t.Errorf("%.10s: %d found, want %d", alias, len(found), len(want))
		}
	}
	check("orders", map[[16]byte]int{one: 3, two: 4})
	check("orders.eu", map[[16]byte]int{one: 5})
	check(long, map[[16]byte]int{two: 8})
	check("ord", nil)
}
