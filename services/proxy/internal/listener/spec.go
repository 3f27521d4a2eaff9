package listener

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// Routing is how a listener knows which virtual cluster a client means.
type Routing string

// SNI routing serves every virtual cluster on one address and goes by the host
// name of the TLS handshake. Port routing serves one virtual cluster: a port
// for the bootstrap and one for each virtual broker.
const (
	BySNI  Routing = "sni"
	ByPort Routing = "port"
)

// Protocol is Kafka's security protocol of a listener.
type Protocol string

// TLS is SSL or SASL_SSL as the authentication of the virtual cluster says. It
// is the default with SNI routing, which admits no plaintext.
const (
	TLS           Protocol = "TLS"
	SSL           Protocol = "SSL"
	SASLSSL       Protocol = "SASL_SSL"
	Plaintext     Protocol = "PLAINTEXT"
	SASLPlaintext Protocol = "SASL_PLAINTEXT"
)

// Encrypted reports whether connections begin with a TLS handshake.
func (p Protocol) Encrypted() bool { return p == TLS || p == SSL || p == SASLSSL }

// A KeyPair is a certificate chain and its private key, in PEM files.
type KeyPair struct{ CertFile, KeyFile string }

// A PortRange gives virtual brokers their ports:
//
//	port = First + (vNode - Lowest), for Lowest <= vNode < Lowest + Count
//
// That is a function of the configuration and the virtual node id alone, so all
// nodes agree on it and a restart changes nothing. A virtual node id is
// slot<<16 | broker id; the range of the cluster in slot s with broker ids from
// n on has Lowest s<<16 + n. A range only reserves numbers: a socket exists for
// the brokers that exist, so sparse broker ids cost nothing.
type PortRange struct {
	First  uint16
	Count  int
	Lowest int32
	// Advertised is what clients are told in place of First, behind a balancer
	// that listens elsewhere. 0 means First.
	Advertised uint16
}

// A Spec is one configured listener.
type Spec struct {
	Name    string
	Address string // host:port; with port routing that of the bootstrap
	Routing Routing
	// Protocol defaults to TLS with SNI routing; port routing must name one.
	Protocol Protocol
	// Certificates are chosen by the client's SNI; the first one serves clients
	// that sent none. They are read again when the files change.
	Certificates []KeyPair
	// AdvertisedPort is what SNI clients are told; 0 means the port of Address.
	AdvertisedPort uint16
	// ProxyProtocol lists the sources (balancers) whose connections begin with
	// a PROXY protocol v2 header. From there it is required, from elsewhere it
	// is not understood.
	ProxyProtocol []netip.Prefix

	// The rest is for port routing.

	VirtualCluster string
	AdvertisedHost string // defaults to the host of Address
	BrokerPorts    []PortRange
}

// brokerPort returns the port a virtual broker listens on and the one that is
// advertised for it.
func (s *Spec) brokerPort(vNode int32) (port, advertised uint16, ok bool) {
	for _, r := range s.BrokerPorts {
		if off := int64(vNode) - int64(r.Lowest); off >= 0 && off < int64(r.Count) {
			adv := r.Advertised
			if adv == 0 {
				adv = r.First
			}
			return r.First + uint16(off), adv + uint16(off), true
		}
	}
	return 0, 0, false
}

// normalise fills in the defaults and reports every problem.
func (s *Spec) normalise() error {
	var errs []error
	problem := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("listener %q: "+format, append([]any{s.Name}, args...)...))
	}
	host, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		problem("address: %w", err)
	}
	if s.Protocol == "" && s.Routing == BySNI {
		s.Protocol = TLS
	}
	switch s.Protocol {
	case TLS, SSL, SASLSSL:
		if len(s.Certificates) == 0 {
			problem("protocol %s needs a certificate", s.Protocol)
		}
	case Plaintext, SASLPlaintext:
		if s.Routing == BySNI {
			problem("sni routing needs TLS, not %s: without a handshake there is no host name to go by", s.Protocol)
		}
	default:
		problem("protocol %q is none of TLS, SSL, SASL_SSL, PLAINTEXT, SASL_PLAINTEXT", s.Protocol)
	}
	switch s.Routing {
	case BySNI:
		if s.VirtualCluster != "" || len(s.BrokerPorts) > 0 {
			problem("a virtual cluster and broker ports belong to port routing")
		}
	case ByPort:
		if s.VirtualCluster == "" {
			problem("port routing needs a virtual cluster")
		}
		if len(s.BrokerPorts) == 0 {
			problem("port routing needs broker ports")
		}
		if s.AdvertisedHost == "" {
			if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
				problem("address %s is no place to send clients to: set an advertised host", s.Address)
			}
			s.AdvertisedHost = host
		}
		bootstrap, _ := strconv.Atoi(port)
		for i, r := range s.BrokerPorts {
			end := int(r.First) + r.Count
			if r.First == 0 || r.Count <= 0 || end > 1<<16 || int(r.Advertised)+r.Count > 1<<16 {
				problem("broker ports %d: a first port, a positive count and a last port below 65536 are needed", i)
				continue
			}
			if r.Lowest < 0 || int64(r.Lowest)+int64(r.Count) > maxVNode+1 {
				problem("broker ports %d: node ids from %d on are out of range", i, r.Lowest)
			}
			if bootstrap >= int(r.First) && bootstrap < end {
				problem("broker ports %d: the bootstrap port %d is one of them", i, bootstrap)
			}
			for j, o := range s.BrokerPorts[:i] {
				if int(o.First) < end && int(r.First) < int(o.First)+o.Count {
					problem("broker ports %d and %d overlap", j, i)
				}
				if int64(o.Lowest) < int64(r.Lowest)+int64(r.Count) && int64(r.Lowest) < int64(o.Lowest)+int64(o.Count) {
					problem("broker ports %d and %d are for the same node ids", j, i)
				}
			}
		}
	default:
		problem("routing %q is neither sni nor port", s.Routing)
	}
	return errors.Join(errs...)
}

// trusts reports whether a peer speaks the PROXY protocol.
func (s *Spec) trusts(peer netip.Addr) bool {
	return slices.ContainsFunc(s.ProxyProtocol, func(p netip.Prefix) bool { return p.Contains(peer) })
}
