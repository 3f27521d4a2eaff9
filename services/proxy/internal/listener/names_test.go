package listener

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"tollgate.internal/services/proxy/internal/refusal"
)

// Every route has one name in every family, and every name leads back to it.
func TestNamesAndRoutesAreInverse(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	label := func() string {
		b := make([]byte, 1+r.IntN(12))
		for i := range b {
			b[i] = letters[r.IntN(len(letters))]
			if i > 0 && i < len(b)-1 && r.IntN(4) == 0 {
				b[i] = '-'
			}
		}
		return string(b)
	}
	for range 200 {
		var clusters []Hosts
		seen := make(map[string]bool)
		for range 1 + r.IntN(8) {
			// Labels such as b1x-y and b-1 are close to the names of brokers.
			l := []string{label(), "b" + label(), "b1x-" + label(), "b-" + label()}[r.IntN(4)]
			if seen[l] || brokerLabel.MatchString(l) {
				continue
			}
			seen[l] = true
			clusters = append(clusters, Hosts{VirtualCluster: "vc-" + l, Label: l, Custom: []string{l + ".custom.test"}})
		}
		names, err := NewNames([]string{"gw.test", "node-1.gw.test"}, clusters)
		if err != nil {
			t.Fatal(err)
		}
		owner := make(map[string]Route)
		for _, c := range clusters {
			for _, bootstrap := range []string{c.Label + ".gw.test", c.Label + ".node-1.gw.test", c.Label + ".custom.test"} {
				for _, node := range []int32{Bootstrap, 0, 1, 65536, maxVNode, r.Int32N(maxVNode)} {
					name := bootstrap
					if node != Bootstrap {
						name = BrokerHost(bootstrap, node)
					}
					want := Route{c.VirtualCluster, node}
					if other, taken := owner[name]; taken && other != want {
						t.Fatalf("%s leads to %v and to %v", name, other, want)
					}
					owner[name] = want
					for _, spelling := range []string{name, strings.ToUpper(name), name + "."} {
						if got, ok := names.Host(spelling); !ok || got != want {
							t.Fatalf("Host(%q) = %v, %t, want %v", spelling, got, ok, want)
						}
					}
				}
			}
		}
		if some, all := names.Hosts(2); all != 3*len(clusters) || len(some) != min(2, all) {
			t.Fatalf("%d hosts for %d virtual clusters, such as %q", all, len(clusters), some)
		}
	}
}

func allHosts(n *Names) []string {
	_, all := n.Hosts(0)
	some, _ := n.Hosts(all)
	return some
}

// Names change hands while others stay as they are: when they are exchanged nobody is
// without one, and of two claims the newer one counts, whichever comes first.
func TestNamesChangeHands(t *testing.T) {
	names, err := NewNames([]string{"gw.test"}, []Hosts{{VirtualCluster: "a", Label: "one"}, {VirtualCluster: "b", Label: "two", Custom: []string{"kafka.b.test"}}})
	if err != nil {
		t.Fatal(err)
	}
	is := func(what, host, vc string) {
		t.Helper()
		if r, ok := names.Host(host); ok != (vc != "") || r.VirtualCluster != vc {
			t.Errorf("%s: %s leads to %q, want %q", what, host, r.VirtualCluster, vc)
		}
	}
	names.Put(Hosts{VirtualCluster: "a", Label: "two"}, Hosts{VirtualCluster: "b", Label: "one"})
	is("exchanged", "two.gw.test", "a")
	is("exchanged", "b7-one.gw.test", "b")
	is("given up", "kafka.b.test", "")
	if kept := names.Put(Hosts{VirtualCluster: "c", Label: "one", Revision: 7}); kept != nil {
		t.Errorf("%q are kept by who claimed them before", kept)
	}
	is("claimed later", "one.gw.test", "c")
	if kept := names.Put(Hosts{VirtualCluster: "b", Label: "one", Custom: []string{"kafka.b.test"}, Revision: 6}); len(kept) != 1 || kept[0] != "one.gw.test" {
		t.Errorf("%q are kept, want one.gw.test", kept)
	}
	is("claimed by an older one", "one.gw.test", "c")
	is("claimed by nobody else", "kafka.b.test", "b")
	names.Remove("b")
	is("the loser is gone", "one.gw.test", "c")
	is("the loser is gone", "kafka.b.test", "")
	names.Remove("c")
	is("the owner is gone", "one.gw.test", "")
	is("somebody else", "two.gw.test", "a")
}

// What documents are asked about for a name that is not known: nothing for what cannot
// be a name.
func TestWhatMayClaimAName(t *testing.T) {
	names, err := NewNames([]string{"gw.test", "eu.gw.test"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"acme.gw.test": "acme.gw.test: acme acme.gw.test", "B12-Acme.gw.test.": "acme.gw.test: acme acme.gw.test",
		"acme.eu.gw.test": "acme.eu.gw.test: acme acme.eu.gw.test", "kafka.acme.test": "kafka.acme.test: kafka.acme.test",
		"acme": ": ", "b07-acme.gw.test": ": ", "a_b.gw.test": ": ", "": ": ", strings.Repeat("a.", 150) + "test": ": ",
	} {
		if host, claims := names.Claims(name); host+": "+strings.Join(claims, " ") != want {
			t.Errorf("Claims(%q) = %q, %q, want %s", name, host, claims, want)
		}
	}
}

func TestNamesThatCannotBe(t *testing.T) {
	for _, tc := range []struct {
		hosts Hosts
		want  string
	}{
		{Hosts{Label: "b1-acme"}, "name of a virtual broker"},
		{Hosts{Label: strings.Repeat("a", 52)}, "leaves no room"},
		{Hosts{Custom: []string{"kafka"}}, "single label"},
		{Hosts{Custom: []string{"kafka..test"}}, "not a DNS label"},
		{Hosts{Label: "käse"}, "not a DNS label"},
		{Hosts{Label: "-a"}, "not a DNS label"},
		{Hosts{Label: "acme", Custom: []string{"ACME.gw.test"}}, "is taken"},
	} {
		if _, err := NewNames([]string{"gw.test"}, []Hosts{tc.hosts}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("NewNames(%v) = %v, want %q", tc.hosts, err, tc.want)
		}
	}
}

// Ports are a function of the configuration and the node alone.
func TestPortsAndNodesAreInverse(t *testing.T) {
	s := Spec{BrokerPorts: []PortRange{{First: 9502, Count: 50}, {First: 20000, Count: 10, Lowest: 1<<16 + 1001}}}
	nodes := make(map[uint16]int32)
	for node := range int32(1<<17 + 10) {
		port, _, ok := s.brokerPort(node)
		if !ok {
			continue
		}
		if other, taken := nodes[port]; taken {
			t.Fatalf("port %d is that of %d and %d", port, other, node)
		}
		nodes[port] = node
	}
	if len(nodes) != 60 || nodes[9502] != 0 || nodes[20009] != 1<<16+1010 {
		t.Errorf("%d ports; 9502 is %d, 20009 is %d", len(nodes), nodes[9502], nodes[20009])
	}
}

func TestHostNamesFoldASCIIAlone(t *testing.T) {
	if got := normaliseHost("\u212Aafka.ACME.test."); got != "\u212Aafka.acme.test" {
		t.Errorf("%q", got)
	}
}

func FuzzProxyHeader(f *testing.F) {
	f.Add(proxyHeader(1, 0x11, []byte{203, 0, 113, 9, 10, 0, 0, 1, 0, 1, 0, 2}))
	f.Add(proxyHeader(1, 0x21, make([]byte, 36)))
	f.Add(proxyHeader(0, 0, nil))
	f.Add(withCRC(make([]byte, 12), 0))
	f.Add([]byte("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		addr, err := readProxyHeader(r)
		switch {
		case err != nil:
			if !errors.Is(err, refusal.ProxyHeaderInvalid) && !(len(in) == 0 && errors.Is(err, refusal.ClientGone)) {
				t.Errorf("an error of no kind: %v", err)
			}
			if addr != (netip.Addr{}) {
				t.Errorf("an address with an error: %v", addr)
			}
		case len(in)-r.Len() != proxyFixed+int(in[14])<<8+int(in[15]):
			t.Errorf("took %d of %d bytes", len(in)-r.Len(), len(in))
		}
	})
}

// Whatever name a client sends, it leads where the name of a virtual broker or a
// bootstrap leads, or nowhere; and no name leads to two places.
func FuzzHost(f *testing.F) {
	f.Add("acme", "kafka.acme.example", "b1-acme.gw.test")
	f.Add("acme-dev", "", "B0-ACME-dev.gw.test.")
	f.Add("b1-acme", "b2-x.y", "b01-acme.gw.test")
	f.Add("a", "a.gw.test", "b1073741823-a.gw.test")
	f.Fuzz(func(t *testing.T, label, custom, asked string) {
		hosts := Hosts{VirtualCluster: "vc", Label: label}
		if custom != "" {
			hosts.Custom = []string{custom}
		}
		names, err := NewNames([]string{"gw.test"}, []Hosts{hosts, {VirtualCluster: "other", Label: "other"}})
		if err != nil {
			return
		}
		for _, bootstrap := range allHosts(names) {
			if r, ok := names.Host(bootstrap); !ok || r.Node != Bootstrap {
				t.Errorf("%q leads to %+v, %t", bootstrap, r, ok)
			}
			for _, node := range []int32{0, 7, 1 << 16, maxVNode} {
				broker := BrokerHost(bootstrap, node)
				if r, ok := names.Host(broker); !ok || r.Node != node || len(broker) > 253 {
					t.Errorf("%q leads to %+v, %t; want node %d", broker, r, ok, node)
				}
			}
		}
		r, ok := names.Host(asked)
		if !ok {
			return
		}
		known := false
		for _, bootstrap := range allHosts(names) {
			host := bootstrap
			if r.Node != Bootstrap {
				host = BrokerHost(bootstrap, r.Node)
			}
			known = known || strings.EqualFold(strings.TrimSuffix(asked, "."), host)
		}
		if !known {
			t.Errorf("%q leads to %+v, which has no such name", asked, r)
		}
	})
}
