package listener

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Bootstrap is the Node of a Route that names no virtual broker.
const Bootstrap int32 = -1

// maxVNode keeps Integer.MAX_VALUE - id, which the Java client uses as the node
// id of its coordinator connection, apart from every node id.
const maxVNode = 1<<30 - 1

// A Route is where a connection leads: to a virtual cluster, and to one of its
// virtual brokers unless it is a bootstrap connection.
type Route struct {
	VirtualCluster string
	Node           int32
}

// Hosts are the names of one virtual cluster: a label under each domain, and
// host names of its own.
type Hosts struct {
	VirtualCluster string
	Label          string
	Custom         []string
}

// Names maps host names to routes. It is immutable.
//
//	<label>.<domain>             the bootstrap of a virtual cluster
//	b<vNode>-<label>.<domain>    one of its virtual brokers
//	<first>.<rest>               a custom host; its brokers are b<vNode>-<first>.<rest>
//
// The prefix stays inside the first label, so a wildcard certificate for
// *.<domain> covers all of them. No label may look like the name of a broker;
// that is what makes the mapping reversible.
type Names struct {
	routes     map[string]string // bootstrap host → virtual cluster
	bootstraps []string
}

var (
	brokerLabel = regexp.MustCompile(`^b[0-9]+-`)
	dnsLabel    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
)

// longestPrefix is the longest "b<vNode>-": a first label leaves room for it.
const longestPrefix = len("b1073741823-")

// NewNames checks and indexes the names of all virtual clusters.
func NewNames(domains []string, clusters []Hosts) (*Names, error) {
	n := &Names{routes: make(map[string]string, len(domains)*len(clusters))}
	var errs []error
	add := func(vc, host string) {
		host = normaliseHost(host)
		if err := checkHost(host); err != nil {
			errs = append(errs, fmt.Errorf("virtual cluster %s: host %q: %w", vc, host, err))
			return
		}
		if other, taken := n.routes[host]; taken {
			errs = append(errs, fmt.Errorf("virtual cluster %s: host %q is taken by %s", vc, host, other))
			return
		}
		n.routes[host] = vc
		n.bootstraps = append(n.bootstraps, host)
	}
	for _, c := range clusters {
		if c.Label != "" {
			for _, d := range domains {
				add(c.VirtualCluster, c.Label+"."+d)
			}
		}
		for _, h := range c.Custom {
			add(c.VirtualCluster, h)
		}
	}
	slices.Sort(n.bootstraps)
	return n, errors.Join(errs...)
}

func checkHost(host string) error {
	first, rest, _ := strings.Cut(host, ".")
	switch {
	case rest == "":
		return errors.New("a single label: Java clients send no SNI for it")
	case len(host)+longestPrefix > 253:
		return errors.New("too long")
	case len(first)+longestPrefix > 63:
		return fmt.Errorf("its first label has more than %d bytes, which leaves no room for b<node>-", 63-longestPrefix)
	case brokerLabel.MatchString(first):
		return errors.New("begins like the name of a virtual broker (b<digits>-)")
	}
	for label := range strings.SplitSeq(host, ".") {
		if len(label) > 63 || !dnsLabel.MatchString(label) {
			return fmt.Errorf("%q is not a DNS label", label)
		}
	}
	return nil
}

// normaliseHost folds ASCII alone: to Unicode, the Kelvin sign is a k.
func normaliseHost(name string) string {
	name = strings.TrimSuffix(name, ".")
	if strings.IndexFunc(name, func(r rune) bool { return 'A' <= r && r <= 'Z' }) < 0 {
		return name
	}
	b := []byte(name)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// Host returns what a host name leads to.
func (n *Names) Host(name string) (Route, bool) {
	name = normaliseHost(name)
	if vc, ok := n.routes[name]; ok {
		return Route{vc, Bootstrap}, true
	}
	vNode, bootstrap, ok := splitBroker(name)
	if !ok {
		return Route{}, false
	}
	vc, ok := n.routes[bootstrap]
	if !ok {
		return Route{}, false
	}
	return Route{vc, vNode}, true
}

// Hosts returns the bootstrap names, sorted. The caller must not change them.
func (n *Names) Hosts() []string { return n.bootstraps }

// BrokerHost is the name of a virtual broker beside the bootstrap host.
func BrokerHost(bootstrap string, vNode int32) string {
	return "b" + strconv.FormatInt(int64(vNode), 10) + "-" + bootstrap
}

// splitBroker takes the name of a virtual broker apart. Only the spelling that
// BrokerHost produces counts: b07- is nobody.
func splitBroker(name string) (vNode int32, bootstrap string, ok bool) {
	digits, bootstrap, found := strings.Cut(name, "-")
	if !found || len(digits) < 2 || digits[0] != 'b' || strings.Contains(digits, ".") {
		return 0, "", false
	}
	digits = digits[1:]
	v, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || v > maxVNode || digits[0] == '0' && digits != "0" {
		return 0, "", false
	}
	return int32(v), bootstrap, true
}
