// Package acl decides as Kafka's StandardAuthorizer decides.
//
// An [Authorizer] is one virtual cluster's bindings, indexed when it is made and
// never changed: a new set of bindings is a new Authorizer. It speaks of virtual
// names only. A decision allocates nothing and costs a few map look-ups,
// whatever the number of bindings: one for the name, one for "*", and one for
// each distinct length among the prefixes.
//
// The package does no I/O, reads no clock and starts no goroutine.
package acl

import (
	"cmp"
	"math/bits"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// ClusterName is the only name a resource of type CLUSTER has.
	ClusterName = "kafka-cluster"

	// TwoPhaseCommit (KIP-939) is an operation that kmsg has no name for yet.
	TwoPhaseCommit kmsg.ACLOperation = 15

	wildcard              = "*"
	everyone              = "User:*"
	everything       mask = 1<<32 - 1
	describers            = 1<<kmsg.ACLOperationRead | 1<<kmsg.ACLOperationWrite | 1<<kmsg.ACLOperationDelete | 1<<kmsg.ACLOperationAlter
	firstOp               = kmsg.ACLOperationRead // what is below stands for several operations or none
	lastOp                = TwoPhaseCommit
	firstType             = kmsg.ACLResourceTypeTopic
	lastType              = kmsg.ACLResourceTypeUser
	configDescribers      = 1 << kmsg.ACLOperationAlterConfigs
)

// Binding is one ACL.
type Binding struct {
	Principal    string // "User:alice", "User:*"
	Host         string // "*" or an address as netip.Addr prints it
	ResourceType kmsg.ACLResourceType
	ResourceName string
	Pattern      kmsg.ACLResourcePatternType // LITERAL or PREFIXED
	Operation    kmsg.ACLOperation
	Permission   kmsg.ACLPermissionType
}

// mask is a set of operations: bit n is the operation with code n.
type mask uint32

func (m mask) has(op kmsg.ACLOperation) bool { return m&bit(op) != 0 }

func bit(op kmsg.ACLOperation) mask {
	if op < 0 || op > 31 {
		return 0
	}
	return 1 << op
}

// rights is what a resource pattern says to one principal on one host.
type rights struct{ allow, deny mask }

func (r *rights) add(b *Binding) {
	operations := bit(b.Operation)
	if b.Operation == kmsg.ACLOperationAll {
		operations = everything
	}
	switch b.Permission {
	case kmsg.ACLPermissionTypeDeny:
		r.deny |= operations
	case kmsg.ACLPermissionTypeAllow:
		// Only ALLOW implies: DENY READ leaves DESCRIBE as it was.
		if operations&describers != 0 {
			operations |= bit(kmsg.ACLOperationDescribe)
		}
		if operations&configDescribers != 0 {
			operations |= bit(kmsg.ACLOperationDescribeConfigs)
		}
		r.allow |= operations
	}
}

// grants is what a resource pattern says to one principal.
type grants struct {
	anyHost rights
	hosts   map[string]rights
}

func (g *grants) on(host string) rights {
	if g == nil {
		return rights{}
	}
	r := g.anyHost
	if len(g.hosts) > 0 {
		h := g.hosts[host]
		r.allow |= h.allow
		r.deny |= h.deny
	}
	return r
}

// entry holds all bindings of one resource pattern, by principal.
type entry map[string]*grants

func (e entry) on(principal, host string) rights {
	r := e[principal].on(host)
	if principal != everyone {
		all := e[everyone].on(host)
		r.allow |= all.allow
		r.deny |= all.deny
	}
	return r
}

// index holds the resource patterns of one resource type.
type index struct {
	literal  map[string]entry
	prefixed map[string]entry
	lengths  []int // of the prefixes, ascending, each once
}

// Authorizer decides for one virtual cluster. It is immutable and may be used
// by any number of goroutines.
type Authorizer struct {
	enabled      bool
	allowIfNoACL bool
	superUsers   map[string]struct{}
	bindings     []Binding // sorted, each once
	byType       [lastType + 1]index
	byPrincipal  map[string][]Binding
}

// AllowAll returns an Authorizer for a virtual cluster without ACLs.
func AllowAll() *Authorizer { return &Authorizer{} }

// New returns an Authorizer of the bindings. Super users are allowed everything,
// even what is denied. allowIfNoACL is Kafka's allow.everyone.if.no.acl.found.
func New(bindings []Binding, superUsers []string, allowIfNoACL bool) *Authorizer {
	a := &Authorizer{
		enabled:      true,
		allowIfNoACL: allowIfNoACL,
		superUsers:   make(map[string]struct{}, len(superUsers)),
		bindings:     slices.Clone(bindings),
		byPrincipal:  make(map[string][]Binding),
	}
	for _, s := range superUsers {
		a.superUsers[s] = struct{}{}
	}
	slices.SortFunc(a.bindings, compare)
	a.bindings = slices.Compact(a.bindings)
	for i := range a.bindings {
		b := &a.bindings[i]
		a.byPrincipal[b.Principal] = append(a.byPrincipal[b.Principal], *b)
		if x := a.index(b.ResourceType); x != nil {
			x.add(b)
		}
	}
	for i := range a.byType {
		x := &a.byType[i]
		for prefix := range x.prefixed {
			x.lengths = append(x.lengths, len(prefix))
		}
		slices.Sort(x.lengths)
		x.lengths = slices.Compact(x.lengths)
	}
	return a
}

func compare(a, b Binding) int {
	return cmp.Or(
		cmp.Compare(a.ResourceType, b.ResourceType),
		cmp.Compare(a.ResourceName, b.ResourceName),
		cmp.Compare(a.Pattern, b.Pattern),
		cmp.Compare(a.Principal, b.Principal),
		cmp.Compare(a.Host, b.Host),
		cmp.Compare(a.Operation, b.Operation),
		cmp.Compare(a.Permission, b.Permission),
	)
}

func (a *Authorizer) index(rt kmsg.ACLResourceType) *index {
	if rt < firstType || rt > lastType {
		return nil
	}
	return &a.byType[rt]
}

func (x *index) add(b *Binding) {
	var patterns *map[string]entry
	switch b.Pattern {
	case kmsg.ACLResourcePatternTypeLiteral:
		patterns = &x.literal
	case kmsg.ACLResourcePatternTypePrefixed:
		patterns = &x.prefixed
	default:
		return
	}
	if *patterns == nil {
		*patterns = make(map[string]entry)
	}
	e := (*patterns)[b.ResourceName]
	if e == nil {
		e = make(entry)
		(*patterns)[b.ResourceName] = e
	}
	g := e[b.Principal]
	if g == nil {
		g = &grants{}
		e[b.Principal] = g
	}
	if b.Host == wildcard {
		g.anyHost.add(b)
		return
	}
	if g.hosts == nil {
		g.hosts = make(map[string]rights)
	}
	r := g.hosts[b.Host]
	r.add(b)
	g.hosts[b.Host] = r
}

// Enabled reports whether there are ACLs at all: false for [AllowAll].
func (a *Authorizer) Enabled() bool { return a.enabled }

// rights gathers what every pattern that covers name says. covered reports
// whether there is such a pattern, whomever it speaks of.
func (x *index) rights(principal, host, name string) (r rights, covered bool) {
	if e, ok := x.literal[name]; ok {
		covered = true
		r = e.on(principal, host)
	}
	if e, ok := x.literal[wildcard]; ok && name != wildcard {
		covered = true
		all := e.on(principal, host)
		r.allow |= all.allow
		r.deny |= all.deny
	}
	for _, n := range x.lengths {
		if n > len(name) {
			break
		}
		if e, ok := x.prefixed[name[:n]]; ok {
			covered = true
			p := e.on(principal, host)
			r.allow |= p.allow
			r.deny |= p.deny
		}
	}
	return r, covered
}

// allowed returns the set of operations that are allowed on a resource.
func (a *Authorizer) allowed(principal, host string, rt kmsg.ACLResourceType, name string) mask {
	if !a.enabled {
		return everything
	}
	if _, ok := a.superUsers[principal]; ok {
		return everything
	}
	x := a.index(rt)
	if x == nil {
		return 0
	}
	r, covered := x.rights(principal, host, name)
	if !covered && a.allowIfNoACL {
		return everything
	}
	return r.allow &^ r.deny
}

// Allowed decides: a super user is allowed; else any matching DENY denies; else
// any matching ALLOW allows; else a resource that no binding covers, whoever
// the binding speaks of, is as allowIfNoACL says; else it is denied.
func (a *Authorizer) Allowed(principal, host string, op kmsg.ACLOperation, rt kmsg.ACLResourceType, name string) bool {
	if op < firstOp || op > lastOp {
		return !a.enabled
	}
	return a.allowed(principal, host, rt, name).has(op)
}

// AllowedByType reports whether op is allowed on some resource of a type: what
// an idempotent InitProducerId asks of WRITE on TOPIC. It follows Kafka's
// Authorizer.authorizeByResourceType to the letter, also in that no operation
// implies another there, and in the name "hardcode", which it asks for first so
// that super users and allow.everyone.if.no.acl.found count.
func (a *Authorizer) AllowedByType(principal, host string, op kmsg.ACLOperation, rt kmsg.ACLResourceType) bool {
	if a.Allowed(principal, host, op, rt, "hardcode") {
		return true
	}
	x := a.index(rt)
	if x == nil || !a.enabled {
		return false
	}
	if x.literal[wildcard].on(principal, host).deny.has(op) {
		return false
	}
	if a.allowsSome(x, a.byPrincipal[principal], principal, host, op, rt) {
		return true
	}
	return principal != everyone && a.allowsSome(x, a.byPrincipal[everyone], principal, host, op, rt)
}

// allowsSome reports whether one of bindings allows op on a pattern that no
// DENY swallows whole.
func (a *Authorizer) allowsSome(x *index, bindings []Binding, principal, host string, op kmsg.ACLOperation, rt kmsg.ACLResourceType) bool {
	for i := range bindings {
		b := &bindings[i]
		if b.ResourceType != rt || b.Permission != kmsg.ACLPermissionTypeAllow ||
			b.Host != wildcard && b.Host != host ||
			b.Operation != op && b.Operation != kmsg.ACLOperationAll {
			continue
		}
		literal := b.Pattern == kmsg.ACLResourcePatternTypeLiteral
		if literal && b.ResourceName == wildcard {
			return true // Kafka asks no further, although prefixes may be denied
		}
		if literal && x.literal[b.ResourceName].on(principal, host).deny.has(op) {
			continue
		}
		if !x.prefixDenies(b.ResourceName, principal, host, op) {
			return true
		}
	}
	return false
}

func (x *index) prefixDenies(name, principal, host string, op kmsg.ACLOperation) bool {
	for _, n := range x.lengths {
		if n > len(name) {
			break
		}
		if x.prefixed[name[:n]].on(principal, host).deny.has(op) {
			return true
		}
	}
	return false
}

// supported says which operations Kafka reports for each resource type.
var supported = [lastType + 1]mask{
	kmsg.ACLResourceTypeTopic: 1<<kmsg.ACLOperationRead | 1<<kmsg.ACLOperationWrite | 1<<kmsg.ACLOperationCreate |
		1<<kmsg.ACLOperationDescribe | 1<<kmsg.ACLOperationDelete | 1<<kmsg.ACLOperationAlter |
		1<<kmsg.ACLOperationDescribeConfigs | 1<<kmsg.ACLOperationAlterConfigs,
	kmsg.ACLResourceTypeGroup: 1<<kmsg.ACLOperationRead | 1<<kmsg.ACLOperationDescribe | 1<<kmsg.ACLOperationDelete |
		1<<kmsg.ACLOperationDescribeConfigs | 1<<kmsg.ACLOperationAlterConfigs,
	kmsg.ACLResourceTypeCluster: 1<<kmsg.ACLOperationCreate | 1<<kmsg.ACLOperationClusterAction |
		1<<kmsg.ACLOperationDescribeConfigs | 1<<kmsg.ACLOperationAlterConfigs |
		1<<kmsg.ACLOperationIdempotentWrite | 1<<kmsg.ACLOperationAlter | 1<<kmsg.ACLOperationDescribe,
	kmsg.ACLResourceTypeTransactionalId: 1<<kmsg.ACLOperationDescribe | 1<<kmsg.ACLOperationWrite | 1<<TwoPhaseCommit,
	kmsg.ACLResourceTypeDelegationToken: 1 << kmsg.ACLOperationDescribe,
	kmsg.ACLResourceTypeUser:            1<<kmsg.ACLOperationCreateTokens | 1<<kmsg.ACLOperationDescribeTokens,
}

// Supports reports whether Kafka gives op a meaning on a resource type. ALL has
// one everywhere.
func Supports(rt kmsg.ACLResourceType, op kmsg.ACLOperation) bool {
	if rt < firstType || rt > lastType {
		return false
	}
	return op == kmsg.ACLOperationAll || supported[rt].has(op)
}

// AuthorizedOperations is the bitmap of operations that Metadata, DescribeGroups
// and DescribeCluster answer with: bit n stands for the operation with code n.
func (a *Authorizer) AuthorizedOperations(principal, host string, rt kmsg.ACLResourceType, name string) int32 {
	if rt < firstType || rt > lastType {
		return 0
	}
	return int32(a.allowed(principal, host, rt, name) & supported[rt])
}

// Operations lists the operations of a bitmap, for logs and for the portal.
func Operations(bitmap int32) []kmsg.ACLOperation {
	var ops []kmsg.ACLOperation
	for m := uint32(bitmap); m != 0; m &= m - 1 {
		ops = append(ops, kmsg.ACLOperation(bits.TrailingZeros32(m)))
	}
	return ops
}

// Filter selects bindings as DescribeAcls and DeleteAcls do. A nil string and
// the value ANY select all.
type Filter struct {
	ResourceType kmsg.ACLResourceType
	ResourceName *string
	// Pattern LITERAL and PREFIXED ask for that pattern with exactly this name,
	// ANY for either; MATCH asks for every pattern that covers the name.
	Pattern    kmsg.ACLResourcePatternType
	Principal  *string
	Host       *string
	Operation  kmsg.ACLOperation
	Permission kmsg.ACLPermissionType
}

// Matches reports whether the filter selects b.
func (f *Filter) Matches(b *Binding) bool {
	return (f.ResourceType == kmsg.ACLResourceTypeAny || f.ResourceType == b.ResourceType) &&
		f.matchesName(b) &&
		(f.Principal == nil || *f.Principal == b.Principal) &&
		(f.Host == nil || *f.Host == b.Host) &&
		(f.Operation == kmsg.ACLOperationAny || f.Operation == b.Operation) &&
		(f.Permission == kmsg.ACLPermissionTypeAny || f.Permission == b.Permission)
}

func (f *Filter) matchesName(b *Binding) bool {
	switch f.Pattern {
	case kmsg.ACLResourcePatternTypeAny, b.Pattern:
		return f.ResourceName == nil || *f.ResourceName == b.ResourceName
	case kmsg.ACLResourcePatternTypeMatch:
		if f.ResourceName == nil {
			return true
		}
		if b.Pattern == kmsg.ACLResourcePatternTypePrefixed {
			return strings.HasPrefix(*f.ResourceName, b.ResourceName)
		}
		return b.ResourceName == *f.ResourceName || b.ResourceName == wildcard
	}
	return false
}

// Match returns the bindings that f selects, in a fixed order.
func (a *Authorizer) Match(f Filter) []Binding {
	var found []Binding
	for i := range a.bindings {
		if f.Matches(&a.bindings[i]) {
			found = append(found, a.bindings[i])
		}
	}
	return found
}
