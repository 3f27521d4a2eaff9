package acl

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/resource"
)

const (
	topic    = kmsg.ACLResourceTypeTopic
	group    = kmsg.ACLResourceTypeGroup
	cluster  = kmsg.ACLResourceTypeCluster
	txn      = kmsg.ACLResourceTypeTransactionalId
	anyType  = kmsg.ACLResourceTypeAny
	literal  = kmsg.ACLResourcePatternTypeLiteral
	prefixed = kmsg.ACLResourcePatternTypePrefixed

	opAll             = kmsg.ACLOperationAll
	opRead            = kmsg.ACLOperationRead
	opWrite           = kmsg.ACLOperationWrite
	opCreate          = kmsg.ACLOperationCreate
	opDelete          = kmsg.ACLOperationDelete
	opAlter           = kmsg.ACLOperationAlter
	opDescribe        = kmsg.ACLOperationDescribe
	opClusterAction   = kmsg.ACLOperationClusterAction
	opDescribeConfigs = kmsg.ACLOperationDescribeConfigs
	opAlterConfigs    = kmsg.ACLOperationAlterConfigs
	opIdempotentWrite = kmsg.ACLOperationIdempotentWrite

	alice = "User:alice"
	here  = "10.0.0.1"
)

// bind reads "ALLOW User:alice READ topic:orders* [from HOST]": a name that ends
// in "…" is a prefix.
func bind(t testing.TB, texts ...string) []Binding {
	t.Helper()
	var bindings []Binding
	for _, text := range texts {
		f := strings.Fields(text)
		rt, name, _ := strings.Cut(f[3], ":")
		r := &resource.ACL{Spec: resource.ACLSpec{
			Principal: f[1], Host: "*", Operation: f[2], Permission: f[0],
			Resource: resource.ACLResource{Type: rt, Name: name, Pattern: resource.Literal},
		}}
		if prefix, ok := strings.CutSuffix(name, "…"); ok {
			r.Spec.Resource.Name, r.Spec.Resource.Pattern = prefix, resource.Prefixed
		}
		if len(f) == 6 && f[4] == "from" {
			r.Spec.Host = f[5]
		}
		b, err := BindingOf(r)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		bindings = append(bindings, b)
	}
	return bindings
}

// The vectors of StandardAuthorizer that need no broker to tell the answer.
func TestAllowed(t *testing.T) {
	type question struct {
		op   kmsg.ACLOperation
		rt   kmsg.ACLResourceType
		name string
		want bool
	}
	for _, c := range []struct {
		name         string
		acls         string // separated by ;
		superUsers   []string
		allowIfNoACL bool
		questions    []question
	}{
		{"1 a literal name allows itself", "ALLOW User:alice READ topic:orders", nil, false, []question{
			{opRead, topic, "orders", true},
			{opRead, topic, "orders2", false},
			{opRead, topic, "order", false},
			{opRead, group, "orders", false},
			{opWrite, topic, "orders", false},
		}},
		{"2 a prefix allows what begins with it", "ALLOW User:alice READ topic:shop.…", nil, false, []question{
			{opRead, topic, "shop.", true}, {opRead, topic, "shop.orders", true}, {opRead, topic, "shop", false}, {opRead, topic, "xshop.orders", false},
		}},
		{"3 the wildcard allows every name", "ALLOW User:alice READ topic:*", nil, false, []question{
			{opRead, topic, "orders", true}, {opRead, topic, "*", true}, {opRead, group, "orders", false},
		}},
		{"4 a prefix named * is no wildcard", "ALLOW User:alice READ topic:*…", nil, false, []question{
			{opRead, topic, "orders", false}, {opRead, topic, "*", true}, {opRead, topic, "*x", true},
		}},
		{"5 a denied prefix beats an allowed name", "ALLOW User:alice READ topic:shop.orders; DENY User:alice READ topic:shop.…", nil, false, []question{
			{opRead, topic, "shop.orders", false}, {opDescribe, topic, "shop.orders", true},
		}},
		{"6 what is denied to everyone is denied to each", "ALLOW User:alice READ topic:orders; DENY User:* READ topic:orders", nil, false, []question{
			{opRead, topic, "orders", false},
		}},
		{"7 another host is denied", "ALLOW User:alice READ topic:orders; DENY User:alice READ topic:orders from 10.9.9.9", nil, false, []question{
			{opRead, topic, "orders", true},
		}},
		{"7 this host is denied", "ALLOW User:alice READ topic:orders; DENY User:alice READ topic:orders from 10.0.0.1", nil, false, []question{
			{opRead, topic, "orders", false},
		}},
		{"7 only this host is allowed", "ALLOW User:alice READ topic:orders from 10.0.0.1; ALLOW User:alice WRITE topic:orders from 10.0.0.2", nil, false, []question{
			{opRead, topic, "orders", true}, {opWrite, topic, "orders", false},
		}},
		{"8 a super user is allowed what is denied", "DENY User:* ALL topic:*", []string{alice}, false, []question{
			{opRead, topic, "orders", true}, {opAlter, cluster, ClusterName, true},
		}},
		{"9 READ implies DESCRIBE", "ALLOW User:alice READ topic:t", nil, false, []question{{opDescribe, topic, "t", true}, {opDescribeConfigs, topic, "t", false}}},
		{"9 WRITE implies DESCRIBE", "ALLOW User:alice WRITE topic:t", nil, false, []question{{opDescribe, topic, "t", true}}},
		{"9 DELETE implies DESCRIBE", "ALLOW User:alice DELETE topic:t", nil, false, []question{{opDescribe, topic, "t", true}}},
		{"9 ALTER implies DESCRIBE", "ALLOW User:alice ALTER topic:t", nil, false, []question{{opDescribe, topic, "t", true}, {opAlterConfigs, topic, "t", false}}},
		{"9 ALTER_CONFIGS implies DESCRIBE_CONFIGS", "ALLOW User:alice ALTER_CONFIGS topic:t", nil, false, []question{{opDescribeConfigs, topic, "t", true}, {opDescribe, topic, "t", false}}},
		{"9 the rest implies nothing", "ALLOW User:alice CREATE topic:t; ALLOW User:alice CLUSTER_ACTION cluster:kafka-cluster; ALLOW User:alice IDEMPOTENT_WRITE cluster:kafka-cluster", nil, false, []question{
			{opDescribe, topic, "t", false}, {opDescribe, cluster, ClusterName, false}, {opClusterAction, cluster, ClusterName, true}, {opIdempotentWrite, cluster, ClusterName, true},
		}},
		{"10 DENY READ leaves DESCRIBE", "ALLOW User:alice WRITE topic:t; DENY User:alice READ topic:t", nil, false, []question{
			{opDescribe, topic, "t", true}, {opRead, topic, "t", false},
		}},
		{"10 DENY DESCRIBE beats what READ implies", "ALLOW User:alice READ topic:t; DENY User:alice DESCRIBE topic:t", nil, false, []question{
			{opDescribe, topic, "t", false}, {opRead, topic, "t", true},
		}},
		{"11 ALL allows each", "ALLOW User:alice ALL topic:t", nil, false, []question{
			{opRead, topic, "t", true}, {opAlterConfigs, topic, "t", true}, {opCreate, topic, "t", true},
		}},
		{"11 one operation is denied beside ALL", "ALLOW User:alice ALL topic:t; DENY User:alice WRITE topic:t", nil, false, []question{
			{opRead, topic, "t", true}, {opWrite, topic, "t", false},
		}},
		{"11 ALL denies each", "ALLOW User:alice READ topic:t; DENY User:alice ALL topic:t", nil, false, []question{
			{opRead, topic, "t", false}, {opDescribe, topic, "t", false},
		}},
		{"12 without an ACL the default denies", "", nil, false, []question{{opRead, topic, "t", false}}},
		{"12 without an ACL the setting allows", "ALLOW User:bob READ topic:other; ALLOW User:bob READ group:t", nil, true, []question{
			{opRead, topic, "t", true}, {opWrite, topic, "t", true}, {opRead, topic, "other", false}, {opRead, group, "t", false},
		}},
		{"12 anybody's prefix or wildcard ends the setting", "ALLOW User:bob READ topic:a…; ALLOW User:bob READ group:*", nil, true, []question{
			{opRead, topic, "ab", false}, {opRead, topic, "b", true}, {opRead, group, "g", false},
		}},
		{"28 the longest names", "ALLOW User:alice READ topic:" + strings.Repeat("a", 249) + "…", nil, false, []question{
			{opRead, topic, strings.Repeat("a", 249), true}, {opRead, topic, strings.Repeat("a", 250), true}, {opRead, topic, strings.Repeat("a", 248), false},
		}},
		{"28 dots and underscores differ", "ALLOW User:alice READ topic:a.b", nil, false, []question{{opRead, topic, "a_b", false}, {opRead, topic, "a.b", true}}},
		{"operations and types that are not concrete", "ALLOW User:* ALL topic:*", []string{alice}, true, []question{
			{kmsg.ACLOperationAny, topic, "t", false}, {kmsg.ACLOperationUnknown, topic, "t", false}, {opAll, topic, "t", false}, {16, topic, "t", false}, {-1, topic, "t", false},
		}},
	} {
		var bindings []Binding
		if c.acls != "" {
			bindings = bind(t, strings.Split(c.acls, ";")...)
		}
		a := New(bindings, c.superUsers, c.allowIfNoACL)
		for _, q := range c.questions {
			if got := a.Allowed(alice, here, q.op, q.rt, q.name); got != q.want {
				t.Errorf("%s: Allowed(%v, %v:%.20s) = %v, want %v", c.name, q.op, q.rt, q.name, got, q.want)
			}
		}
	}
	if New(nil, nil, true).Allowed(alice, here, opRead, 0, "t") || New(nil, nil, true).Allowed(alice, here, opRead, 99, "t") {
		t.Error("a resource type nobody knows is allowed")
	}
}

// 17: an idempotent producer needs WRITE on some topic.
func TestAllowedByType(t *testing.T) {
	for _, c := range []struct {
		name string
		acls string
		want bool
	}{
		{"nothing", "", false},
		{"a name", "ALLOW User:alice WRITE topic:t", true},
		{"a prefix", "ALLOW User:alice WRITE topic:t…", true},
		{"everyone's prefix", "ALLOW User:* WRITE topic:t…", true},
		{"ALL", "ALLOW User:alice ALL topic:t", true},
		{"somebody else's", "ALLOW User:bob WRITE topic:t", false},
		{"another operation", "ALLOW User:alice READ topic:t", false},
		{"another type", "ALLOW User:alice WRITE transactionalId:t", false},
		{"another host", "ALLOW User:alice WRITE topic:t from 10.9.9.9", false},
		{"a prefix below a denied prefix", "ALLOW User:alice WRITE topic:shop.a…; DENY User:alice WRITE topic:shop.…", false},
		{"a prefix that is denied itself", "ALLOW User:alice WRITE topic:shop.…; DENY User:* ALL topic:shop.…", false},
		{"a prefix above a denied prefix", "ALLOW User:alice WRITE topic:shop…; DENY User:alice WRITE topic:shop.…", true},
		{"a prefix with one name denied", "ALLOW User:alice WRITE topic:shop…; DENY User:alice WRITE topic:shop", true},
		{"a name that is denied", "ALLOW User:alice WRITE topic:t; DENY User:alice WRITE topic:t", false},
		{"a name below a denied prefix", "ALLOW User:alice WRITE topic:t; DENY User:alice WRITE topic:t…", false},
		{"one of two is left", "ALLOW User:alice WRITE topic:t; ALLOW User:alice WRITE topic:u; DENY User:alice WRITE topic:t…", true},
		{"a denial for another host", "ALLOW User:alice WRITE topic:t; DENY User:alice WRITE topic:t from 10.9.9.9", true},
		{"a denied wildcard", "ALLOW User:alice WRITE topic:t; DENY User:alice WRITE topic:*", false},
		{"an allowed wildcard, with denied prefixes", "ALLOW User:alice WRITE topic:*; DENY User:alice WRITE topic:h…", true},
	} {
		var bindings []Binding
		if c.acls != "" {
			bindings = bind(t, strings.Split(c.acls, ";")...)
		}
		if got := New(bindings, nil, false).AllowedByType(alice, here, opWrite, topic); got != c.want {
			t.Errorf("%s: AllowedByType(WRITE, topic) = %v, want %v", c.name, got, c.want)
		}
	}
	denied := bind(t, "DENY User:* ALL topic:*")
	if !New(denied, []string{alice}, false).AllowedByType(alice, here, opWrite, topic) {
		t.Error("a super user is denied WRITE on every topic")
	}
	if !New(nil, nil, true).AllowedByType(alice, here, opWrite, topic) {
		t.Error("allowIfNoACL without ACLs denies WRITE on every topic")
	}
	if New(nil, nil, true).AllowedByType(alice, here, opWrite, anyType) {
		t.Error("a resource type that is not concrete is allowed")
	}
}

// 21: the bitmaps of Metadata, DescribeGroups and DescribeCluster.
func TestAuthorizedOperations(t *testing.T) {
	bitmap := func(ops ...kmsg.ACLOperation) (m int32) {
		for _, op := range ops {
			m |= 1 << op
		}
		return m
	}
	a := New(bind(t, "ALLOW User:alice READ topic:t", "ALLOW User:alice ALL group:g", "DENY User:alice DELETE group:g",
		"ALLOW User:alice ALL cluster:kafka-cluster", "ALLOW User:alice ALL transactionalId:x"), nil, false)
	for _, c := range []struct {
		rt   kmsg.ACLResourceType
		name string
		want int32
	}{
		{topic, "t", bitmap(opRead, opDescribe)},
		{topic, "u", 0},
		{group, "g", bitmap(opRead, opDescribe, opDescribeConfigs, opAlterConfigs)},
		{cluster, ClusterName, bitmap(opCreate, opClusterAction, opDescribeConfigs, opAlterConfigs, opIdempotentWrite, opAlter, opDescribe)},
		{txn, "x", bitmap(opDescribe, opWrite, TwoPhaseCommit)},
		{anyType, "t", 0},
	} {
		if got := a.AuthorizedOperations(alice, here, c.rt, c.name); got != c.want {
			t.Errorf("AuthorizedOperations(%v:%s) = %v, want %v", c.rt, c.name, Operations(got), Operations(c.want))
		}
	}
	if got, want := AllowAll().AuthorizedOperations(alice, here, topic, "t"), bitmap(3, 4, 5, 6, 7, 8, 10, 11); got != want {
		t.Errorf("AuthorizedOperations without ACLs = %v, want %v", Operations(got), Operations(want))
	}
	if got := New(nil, []string{alice}, false).AuthorizedOperations(alice, here, topic, "t"); got != 0b1101_1111_1000 {
		t.Errorf("AuthorizedOperations of a super user = %b, want 110111111000", got)
	}
}

func TestAllowAll(t *testing.T) {
	a := AllowAll()
	if a.Enabled() || !New(nil, nil, false).Enabled() {
		t.Error("Enabled: want false for AllowAll and true for New")
	}
	if !a.Allowed(alice, here, opAlter, cluster, ClusterName) || !a.AllowedByType(alice, here, opWrite, topic) {
		t.Error("AllowAll denies something")
	}
	if got := a.Match(Filter{anyType, nil, kmsg.ACLResourcePatternTypeAny, nil, nil, kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny}); got != nil {
		t.Errorf("Match without ACLs = %v, want nothing", got)
	}
}

// 22: the filters of DescribeAcls.
func TestMatch(t *testing.T) {
	all := bind(t, "ALLOW User:alice READ topic:ab", "ALLOW User:* READ topic:*", "DENY User:bob WRITE topic:a…",
		"ALLOW User:bob READ topic:ab…", "ALLOW User:bob READ topic:abc…", "ALLOW User:alice READ group:ab from 10.0.0.1", "ALLOW User:alice READ topic:ab")
	a := New(all, nil, false)
	str := func(s string) *string { return &s }
	anyOf := Filter{anyType, nil, kmsg.ACLResourcePatternTypeAny, nil, nil, kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny}
	for _, c := range []struct {
		name string
		edit func(*Filter)
		want []int // of all
	}{
		{"everything, each once", func(*Filter) {}, []int{0, 1, 2, 3, 4, 5}},
		{"a type", func(f *Filter) { f.ResourceType = group }, []int{5}},
		{"ANY: the exact name, any pattern", func(f *Filter) { f.ResourceName = str("ab") }, []int{0, 3, 5}},
		{"ANY: the wildcard is a name", func(f *Filter) { f.ResourceName = str("*") }, []int{1}},
		{"LITERAL", func(f *Filter) { f.ResourceName, f.Pattern = str("ab"), literal }, []int{0, 5}},
		{"LITERAL of any name", func(f *Filter) { f.Pattern = literal }, []int{0, 1, 5}},
		{"PREFIXED", func(f *Filter) { f.ResourceName, f.Pattern = str("ab"), prefixed }, []int{3}},
		{"PREFIXED of any name", func(f *Filter) { f.Pattern = prefixed }, []int{2, 3, 4}},
		{"MATCH: all that covers the name", func(f *Filter) { f.ResourceName, f.Pattern = str("ab"), kmsg.ACLResourcePatternTypeMatch }, []int{0, 1, 2, 3, 5}},
		{"MATCH of any name", func(f *Filter) { f.Pattern = kmsg.ACLResourcePatternTypeMatch }, []int{0, 1, 2, 3, 4, 5}},
		{"UNKNOWN pattern", func(f *Filter) { f.Pattern = kmsg.ACLResourcePatternTypeUnknown }, nil},
		{"a principal exactly", func(f *Filter) { f.Principal = str("User:alice") }, []int{0, 5}},
		{"everyone is a principal", func(f *Filter) { f.Principal = str("User:*") }, []int{1}},
		{"a host exactly", func(f *Filter) { f.Host = str("10.0.0.1") }, []int{5}},
		{"an operation exactly", func(f *Filter) { f.Operation = opWrite }, []int{2}},
		{"a permission", func(f *Filter) { f.Permission = kmsg.ACLPermissionTypeDeny }, []int{2}},
	} {
		f := anyOf
		c.edit(&f)
		var want []Binding
		for _, i := range c.want {
			want = append(want, all[i])
		}
		slices.SortFunc(want, compare)
		if got := a.Match(f); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: Match = %v, want %v", c.name, got, want)
		}
	}
}

func TestBindingOf(t *testing.T) {
	spec := resource.ACLSpec{Principal: alice, Resource: resource.ACLResource{Type: "transactional_id", Name: "t", Pattern: "PREFIXED"}, Operation: "DescribeConfigs", Permission: "deny"}
	got, err := BindingOf(&resource.ACL{Spec: spec})
	want := Binding{alice, "*", txn, "t", prefixed, opDescribeConfigs, kmsg.ACLPermissionTypeDeny}
	if err != nil || got != want {
		t.Errorf("BindingOf = %v, %v, want %v", got, err, want)
	}
	for name, edit := range map[string]func(*resource.ACLSpec){
		"no type":         func(s *resource.ACLSpec) { s.Resource.Type = "" },
		"ANY type":        func(s *resource.ACLSpec) { s.Resource.Type = "any" },
		"MATCH":           func(s *resource.ACLSpec) { s.Resource.Pattern = "match" },
		"no name":         func(s *resource.ACLSpec) { s.Resource.Name = "" },
		"another cluster": func(s *resource.ACLSpec) { s.Resource.Type = "cluster" },
		"ANY operation":   func(s *resource.ACLSpec) { s.Operation = "ANY" },
		"ANY permission":  func(s *resource.ACLSpec) { s.Permission = "ANY" },
		"no type of user": func(s *resource.ACLSpec) { s.Principal = "alice" },
	} {
		bad := spec
		edit(&bad)
		if got, err := BindingOf(&resource.ACL{Spec: bad}); err == nil {
			t.Errorf("%s: BindingOf = %v, want an error", name, got)
		}
	}
	for in, want := range map[string]string{"": "*", "*": "*", "10.0.0.1": "10.0.0.1", "0:0:0:0:0:0:0:1": "::1", "::ffff:10.0.0.1": "10.0.0.1"} {
		if got := CanonicalHost(in); got != want {
			t.Errorf("CanonicalHost(%s) = %s, want %s", in, got, want)
		}
	}
}

// The files accept exactly the operations that have a meaning here.
func TestWordsOfFilesAreUnderstood(t *testing.T) {
	if got, want := len(resource.ACLResourceTypes()), len(resourceTypes); got != want {
		t.Errorf("files know %d resource types, want %d", got, want)
	}
	for _, name := range resource.ACLResourceTypes() {
		rt, ok := resourceTypes[word(name)]
		if !ok {
			t.Errorf("resource type %s is unknown", name)
		}
		var got mask
		for _, name := range resource.ACLOperations(name) {
			op, ok := operations[word(name)]
			if !ok || !Supports(rt, op) {
				t.Errorf("operation %s is unknown for %v", name, rt)
			}
			got |= bit(op)
		}
		if want := supported[rt] | bit(opAll); got != want {
			t.Errorf("files accept %v for %v, want %v", Operations(int32(got)), rt, Operations(int32(want)))
		}
	}
}

// reference decides as §G of the protocol notes reads, one binding at a time.
type reference struct {
	bindings     []Binding
	superUsers   []string
	allowIfNoACL bool
}

func (r *reference) allowed(principal, host string, op kmsg.ACLOperation, rt kmsg.ACLResourceType, name string) bool {
	if slices.Contains(r.superUsers, principal) {
		return true
	}
	var covered, allow, deny bool
	for _, b := range r.bindings {
		if b.ResourceType != rt {
			continue
		}
		switch b.Pattern {
		case literal:
			if b.ResourceName != name && b.ResourceName != "*" {
				continue
			}
		case prefixed:
			if !strings.HasPrefix(name, b.ResourceName) {
				continue
			}
		}
		covered = true
		if b.Principal != principal && b.Principal != "User:*" || b.Host != host && b.Host != "*" {
			continue
		}
		matches := b.Operation == op || b.Operation == opAll
		if b.Permission == kmsg.ACLPermissionTypeDeny {
			deny = deny || matches
			continue
		}
		switch op {
		case opDescribe:
			matches = matches || slices.Contains([]kmsg.ACLOperation{opRead, opWrite, opDelete, opAlter}, b.Operation)
		case opDescribeConfigs:
			matches = matches || b.Operation == opAlterConfigs
		}
		allow = allow || matches
	}
	switch {
	case deny:
		return false
	case allow:
		return true
	case !covered:
		return r.allowIfNoACL
	}
	return false
}

// byType follows Kafka's Authorizer.authorizeByResourceType line by line.
func (r *reference) byType(principal, host string, op kmsg.ACLOperation, rt kmsg.ACLResourceType) bool {
	if r.allowed(principal, host, op, rt, "hardcode") {
		return true
	}
	allow := map[kmsg.ACLResourcePatternType]map[string]bool{literal: {}, prefixed: {}}
	deny := map[kmsg.ACLResourcePatternType]map[string]bool{literal: {}, prefixed: {}}
	wildcardAllowed := false
	for _, b := range r.bindings {
		if b.ResourceType != rt || b.Host != host && b.Host != "*" || b.Principal != principal && b.Principal != "User:*" || b.Operation != op && b.Operation != opAll {
			continue
		}
		isWildcard := b.Pattern == literal && b.ResourceName == "*"
		switch {
		case b.Permission == kmsg.ACLPermissionTypeDeny && isWildcard:
			return false
		case b.Permission == kmsg.ACLPermissionTypeDeny:
			deny[b.Pattern][b.ResourceName] = true
		case isWildcard:
			wildcardAllowed = true
		default:
			allow[b.Pattern][b.ResourceName] = true
		}
	}
	if wildcardAllowed {
		return true
	}
	for pattern, names := range allow {
	next:
		for name := range names {
			if pattern == literal && deny[literal][name] {
				continue
			}
			for n := 1; n <= len(name); n++ {
				if deny[prefixed][name[:n]] {
					continue next
				}
			}
			return true
		}
	}
	return false
}

func TestEqualsTheReference(t *testing.T) {
	principals := []string{alice, "User:bob", "User:*"}
	hosts := []string{"*", here, "10.0.0.2"}
	names := []string{"*", "a", "ab", "abc", "b", "h", "hardcode", "ba"}
	pick := func(r *rand.Rand, s []string) string { return s[r.IntN(len(s))] }
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		ref := reference{allowIfNoACL: r.IntN(2) == 0}
		if r.IntN(8) == 0 {
			ref.superUsers = []string{pick(r, principals[:2])}
		}
		for range r.IntN(12) {
			ref.bindings = append(ref.bindings, Binding{
				pick(r, principals), pick(r, hosts), topic + kmsg.ACLResourceType(r.IntN(2)), pick(r, names),
				literal + kmsg.ACLResourcePatternType(r.IntN(2)), opAll + kmsg.ACLOperation(r.IntN(10)),
				kmsg.ACLPermissionTypeDeny + kmsg.ACLPermissionType(r.IntN(2)),
			})
		}
		a := New(ref.bindings, ref.superUsers, ref.allowIfNoACL)
		for _, principal := range principals {
			for _, host := range hosts[1:] {
				for op := firstOp; op <= lastOp; op++ {
					for _, rt := range []kmsg.ACLResourceType{topic, group} {
						for _, name := range names {
							if got, want := a.Allowed(principal, host, op, rt, name), ref.allowed(principal, host, op, rt, name); got != want {
								t.Fatalf("seed %d: Allowed(%s, %s, %v, %v:%s) = %v, want %v\n%+v", seed, principal, host, op, rt, name, got, want, ref)
							}
						}
						if got, want := a.AllowedByType(principal, host, op, rt), ref.byType(principal, host, op, rt); got != want {
							t.Fatalf("seed %d: AllowedByType(%s, %s, %v, %v) = %v, want %v\n%+v", seed, principal, host, op, rt, got, want, ref)
						}
					}
				}
			}
		}
	}
}

// many is a virtual cluster with 10,000 bindings: names and prefixes of teams.
func many() []Binding {
	bindings := make([]Binding, 0, 10_000)
	for i := range cap(bindings) {
		b := Binding{
			Principal: fmt.Sprintf("User:u%d", i%500), Host: "*", ResourceType: topic, ResourceName: fmt.Sprintf("team%d.topic%d", i%100, i),
			Pattern: literal, Operation: opRead, Permission: kmsg.ACLPermissionTypeAllow,
		}
		if i%4 == 0 {
			b.Pattern, b.ResourceName = prefixed, fmt.Sprintf("team%d.%0*d", i%100, 1+i%24, i)
		}
		bindings = append(bindings, b)
	}
	return append(bindings, Binding{alice, here, topic, "team7.", prefixed, opWrite, kmsg.ACLPermissionTypeAllow})
}

func TestDecisionsAllocateNothing(t *testing.T) {
	a := New(many(), []string{"User:admin"}, false)
	name := "team7.topic" + strings.Repeat("7", 60)
	if !a.Allowed(alice, here, opWrite, topic, name) {
		t.Fatal("alice may not write below team7.")
	}
	for what, decide := range map[string]func(){
		"Allowed":              func() { a.Allowed(alice, here, opWrite, topic, name) },
		"AllowedByType":        func() { a.AllowedByType(alice, here, opWrite, topic) },
		"AuthorizedOperations": func() { a.AuthorizedOperations(alice, here, topic, name) },
	} {
		if got := testing.AllocsPerRun(1000, decide); got != 0 {
			t.Errorf("%s allocates %v times, want 0", what, got)
		}
	}
}

func BenchmarkAllowed(b *testing.B) {
	a := New(many(), nil, false)
	for name, topicName := range map[string]string{"prefix": "team7.topic123456", "literal": "team1.topic1", "unknown": "nobody"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				a.Allowed(alice, here, opWrite, topic, topicName)
			}
		})
	}
}

func BenchmarkNew(b *testing.B) {
	bindings := many()
	b.ReportAllocs()
	for b.Loop() {
		New(bindings, nil, false)
	}
}
