package api

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestWhereRequestsComeFrom(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
	for _, c := range []struct {
		name, peer string
		forwarded  []string
		want       string
	}{
		{"a client without a proxy", "192.0.2.1:5", nil, "192.0.2.1"},
		{"a client that says it is another", "192.0.2.1:5", []string{"203.0.113.9"}, "192.0.2.1"},
		{"a proxy", "10.0.0.1:5", []string{"192.0.2.1"}, "192.0.2.1"},
		{"a proxy behind a proxy", "10.0.0.1:5", []string{"192.0.2.1, 10.9.9.9"}, "192.0.2.1"},
		{"several headers", "10.0.0.1:5", []string{"192.0.2.1", "10.9.9.9"}, "192.0.2.1"},
		{"a client that says it is another, to a proxy", "10.0.0.1:5", []string{"10.1.1.1, 203.0.113.9", "192.0.2.1"}, "192.0.2.1"},
		{"a client that says it is a proxy, to a proxy", "10.0.0.1:5", []string{"203.0.113.9, 10.1.1.1, 192.0.2.1"}, "192.0.2.1"},
		{"proxies only", "10.0.0.1:5", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"a proxy that says nothing", "10.0.0.1:5", nil, "10.0.0.1"},
		{"nonsense", "10.0.0.1:5", []string{"192.0.2.1, unknown"}, "10.0.0.1"},
		{"nonsense further left", "10.0.0.1:5", []string{"<script>, 192.0.2.1"}, "192.0.2.1"},
		{"ports", "10.0.0.1:5", []string{"192.0.2.1:4711"}, "192.0.2.1"},
		{"IPv6", "[2001:db8::1]:5", []string{"[2a00::1]:4711"}, "2a00::1"},
		{"IPv6 in brackets", "[2001:db8::1]:5", []string{"[2a00::1]"}, "2a00::1"},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:5", []string{"::ffff:192.0.2.1"}, "192.0.2.1"},
		{"a zone", "[fe80::1%eth0]:5", nil, "fe80::1"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = c.peer
		for _, value := range c.forwarded {
			r.Header.Add("X-Forwarded-For", value)
		}
		if got := addressOf(r, trusted); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if got, want := addressOf(r, nil), parsed(t, c.peer); got != want {
			t.Errorf("%s, and no proxy is trusted: %s, want %s", c.name, got, want)
		}
	}
}

func parsed(t *testing.T, peer string) string {
	t.Helper()
	a, err := netip.ParseAddrPort(peer)
	if err != nil {
		t.Fatal(err)
	}
	return a.Addr().Unmap().WithZone("").String()
}
