package listener

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
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
	// Revision says who has a name that two claim: the higher one. What a node knows
	// of two virtual clusters may be of different age.
	Revision int64
}

// Names maps host names to routes. What a change costs does not depend on how many
// names there are. It is safe for concurrent use.
//
//	<label>.<domain>             the bootstrap of a virtual cluster
//	b<vNode>-<label>.<domain>    one of its virtual brokers
//	<first>.<rest>               a custom host; its brokers are b<vNode>-<first>.<rest>
//
// The prefix stays inside the first label, so a wildcard certificate for
// *.<domain> covers all of them. No label may look like the name of a broker;
// that is what makes the mapping reversible.
type Names struct {
	domains []string

	mu     sync.RWMutex
	owners map[string]owner    // by bootstrap host
	hosts  map[string][]string // by virtual cluster; some may have gone to another since
}

type owner struct {
	virtualCluster string
	revision       int64
}

var (
	brokerLabel = regexp.MustCompile(`^b[0-9]+-`)
	dnsLabel    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
)

// longestPrefix is the longest "b<vNode>-": a first label leaves room for it.
const longestPrefix = len("b1073741823-")

// NewNames checks the names of virtual clusters and maps them.
func NewNames(domains []string, clusters []Hosts) (*Names, error) {
	n := &Names{domains: domains, owners: make(map[string]owner), hosts: make(map[string][]string)}
	err := n.Check(clusters...)
	if err == nil {
		n.Put(clusters...)
	}
	return n, err
}

// of are the bootstrap hosts of a virtual cluster.
func (n *Names) of(c Hosts) []string {
	hosts := make([]string, 0, len(n.domains)+len(c.Custom))
	if c.Label != "" {
		for _, d := range n.domains {
			hosts = append(hosts, normaliseHost(c.Label+"."+d))
		}
	}
	for _, h := range c.Custom {
		hosts = append(hosts, normaliseHost(h))
	}
	return hosts
}

// Check reports what cannot be a name, and names that several of the virtual
// clusters claim.
func (n *Names) Check(clusters ...Hosts) error {
	var errs []error
	taken := make(map[string]string, len(clusters))
	for _, c := range clusters {
		for _, host := range n.of(c) {
			if err := checkHost(host); err != nil {
				errs = append(errs, fmt.Errorf("virtual cluster %s: host %q: %w", c.VirtualCluster, host, err))
				continue
			}
			if other, double := taken[host]; double {
				errs = append(errs, fmt.Errorf("virtual cluster %s: host %q is taken by %s", c.VirtualCluster, host, other))
				continue
			}
			taken[host] = c.VirtualCluster
		}
	}
	return errors.Join(errs...)
}

// Put gives virtual clusters these names, which were checked, in place of those they
// had, all at once. It returns the names that others keep, whose revision is higher.
func (n *Names) Put(clusters ...Hosts) (kept []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range clusters {
		n.release(c.VirtualCluster)
	}
	for _, c := range clusters {
		hosts := n.of(c)
		for _, host := range hosts {
			if has, taken := n.owners[host]; taken && has.revision > c.Revision {
				kept = append(kept, host)
				continue
			}
			n.owners[host] = owner{c.VirtualCluster, c.Revision}
		}
		n.hosts[c.VirtualCluster] = hosts
	}
	return kept
}

// Remove takes a virtual cluster's names away.
func (n *Names) Remove(vc string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.release(vc)
}

func (n *Names) release(vc string) {
	for _, host := range n.hosts[vc] {
		if n.owners[host].virtualCluster == vc {
			delete(n.owners, host)
		}
	}
	delete(n.hosts, vc)
}

// Claims are the names by which documents may claim a host: its label, when it is
// right below one of the domains, and the host itself. There are none when it cannot
// be the name of a virtual cluster or of one of its brokers.
func (n *Names) Claims(name string) (bootstrap string, claims []string) {
	bootstrap = normaliseHost(name)
	if _, of, ok := splitBroker(bootstrap); ok {
		bootstrap = of
	}
	if checkHost(bootstrap) != nil {
		return "", nil
	}
	label, domain, _ := strings.Cut(bootstrap, ".")
	if slices.ContainsFunc(n.domains, func(d string) bool { return normaliseHost(d) == domain }) {
		claims = append(claims, label)
	}
	return bootstrap, append(claims, bootstrap)
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
	n.mu.RLock()
	defer n.mu.RUnlock()
	if o, ok := n.owners[name]; ok {
		return Route{o.virtualCluster, Bootstrap}, true
	}
	vNode, bootstrap, ok := splitBroker(name)
	if !ok {
		return Route{}, false
	}
	o, ok := n.owners[bootstrap]
	if !ok {
		return Route{}, false
	}
	return Route{o.virtualCluster, vNode}, true
}

// manyHosts is how many names are sorted for a log line. Of more, any will do.
const manyHosts = 100

// Hosts returns some of the bootstrap names, sorted, and how many there are.
func (n *Names) Hosts(most int) (some []string, all int) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	all = len(n.owners)
	for host := range n.owners {
		if some = append(some, host); all > manyHosts && len(some) == most {
			break
		}
	}
	slices.Sort(some)
	return some[:min(len(some), most)], all
}

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
