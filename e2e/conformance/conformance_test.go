package conformance

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/differential"
	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/rawkafka"
)

// A vector is a row of the table of authorisation (PROTOCOL.md §G3): ACLs, topics,
// and requests whose answers are those of a broker with StandardAuthorizer, on a
// standard and on a partner virtual cluster. Names of topics, groups,
// transactional ids and users begin with the vector's number.
type vector struct {
	number int
	name   string
	acls   []string // as binding reads them
	topics []string
	open   bool // allow.everyone.if.no.acl.found
	run    func(x *exam)
}

// binding reads an ACL: user, permission, operation, type, name, and perhaps
// "prefixed" and "from <host>".
func binding(text string) kmsg.CreateACLsRequestCreation {
	words := strings.Fields(text)
	c := kmsg.NewCreateACLsRequestCreation()
	c.Principal, c.Host, c.ResourceName = "User:"+words[0], "*", words[4]
	c.PermissionType, _ = kmsg.ParseACLPermissionType(words[1])
	c.Operation, _ = kmsg.ParseACLOperation(words[2])
	c.ResourceType, _ = kmsg.ParseACLResourceType(words[3])
	c.ResourcePatternType = kmsg.ACLResourcePatternTypeLiteral
	rest := words[5:]
	if len(rest) > 0 && rest[0] == "prefixed" {
		c.ResourcePatternType, rest = kmsg.ACLResourcePatternTypePrefixed, rest[1:]
	}
	if len(rest) == 2 && rest[0] == "from" {
		c.Host = rest[1]
	}
	return c
}

// aclResource writes the same ACL as a resource of a virtual cluster.
func aclResource(text, vc string, n int) string {
	b := binding(text)
	pattern := "literal"
	if b.ResourcePatternType == kmsg.ACLResourcePatternTypePrefixed {
		pattern = "prefixed"
	}
	return fmt.Sprintf("---\n{apiVersion: tollgate/v1, kind: Acl, metadata: {name: acl-%d, virtualCluster: %s}, spec: {principal: %q, host: %q, resource: {type: %s, name: %q, pattern: %s}, operation: %s, permission: %s}}\n",
		n, vc, b.Principal, b.Host, strings.Fields(text)[3], b.ResourceName, pattern, b.Operation, b.PermissionType)
}

// A party is who answers the vectors: a broker or a virtual cluster.
type party struct {
	t      *testing.T
	name   string // "broker", "standard" or "partner"
	target drivers.Target
	side   *differential.Side
	conns  map[string]*rawkafka.Conn
	ids    map[string][16]byte
	common map[int16]int16 // the newest version that all parties have
	acls   []string
	change func(acls []string) // makes these the ACLs
	twin   *party              // a virtual cluster beside it; of a broker: itself
}

// exam is a vector on one party.
type exam struct {
	*party
	answers map[string]differential.Answer
	order   []string
	excused map[string]string // why an answer is not a broker's
}

// except says what one party, or every "gateway", answers otherwise, and why.
type except struct{ party, codes, reason string }

func onStandard(codes, reason string) except { return except{"standard", codes, reason} }
func onPartner(codes, reason string) except  { return except{"partner", codes, reason} }
func onGateway(codes, reason string) except  { return except{"gateway", codes, reason} }

// closedCode stands for the codes of an answer that did not come.
const closedCode = "closed"

// secret is everybody's password.
const secret = "the-secret"

// conn is the connection of a user. "v1#2" is a second one of v1's, "v1 as x" one
// with the client id x.
func (p *party) conn(user string) *rawkafka.Conn {
	p.t.Helper()
	if p.conns[user] == nil {
		name, id, ok := strings.Cut(user, " as ")
		if !ok {
			id = "raw"
		}
		name, _, _ = strings.Cut(name, "#")
		target := p.target
		target.Mechanism, target.User, target.Password = "PLAIN", name, secret
		c, err := rawkafka.Dial(p.t.Context(), target, rawkafka.ClientID(id))
		if err != nil {
			p.t.Fatalf("%s: %v", p.name, err)
		}
		p.conns[user] = c
	}
	return p.conns[user]
}

func (p *party) hangUp() {
	for user, c := range p.conns {
		c.Close()
		delete(p.conns, user)
	}
}

// admin asks as the super user; it must be answered.
func (p *party) admin(req kmsg.Request) kmsg.Response {
	p.t.Helper()
	return p.must("admin", req)
}

// must asks for what is not compared.
func (p *party) must(user string, req kmsg.Request) kmsg.Response {
	p.t.Helper()
	if req.GetVersion() == 0 {
		req.SetVersion(p.common[req.Key()])
	}
	resp, err := p.conn(user).Ask(req)
	if err != nil {
		p.t.Fatalf("%s: %s v%d of %s: %v", p.name, kmsg.NameForKey(req.Key()), req.GetVersion(), user, err)
	}
	return resp
}

func (p *party) id(topic string) [16]byte {
	p.t.Helper()
	if _, ok := p.ids[topic]; !ok {
		for _, t := range p.admin(kmsg.NewPtrMetadataRequest()).(*kmsg.MetadataResponse).Topics {
			p.ids[*t.Topic] = t.TopicID
		}
	}
	return p.ids[topic]
}

func (p *party) topicName(id [16]byte) (string, bool) {
	for range 2 {
		for name, known := range p.ids {
			if known == id {
				return name, true
			}
		}
		delete(p.ids, "")
		p.id("")
	}
	return "", false
}

// ask sends a request as user and keeps the answer under label. The codes are
// those of codesOf; exceptions say for one party what they are there.
func (x *exam) ask(user, label, codes string, req kmsg.Request, exceptions ...except) kmsg.Response {
	x.t.Helper()
	if req.GetVersion() == 0 {
		req.SetVersion(x.common[req.Key()])
	}
	resp, err := x.conn(user).Ask(req)
	got := closedCode
	answer := differential.Closed()
	if err == nil {
		got = codesOf(resp)
		answer = differential.Flatten(x.side, rulesOf(req.Key()), resp)
	} else {
		resp = nil
		x.conn(user).Close()
		delete(x.conns, user)
	}
	if _, twice := x.answers[label]; twice {
		x.t.Fatalf("%q is asked twice", label)
	}
	want := codes
	for _, e := range exceptions {
		if e.party == x.name || e.party == "gateway" && x.name != "broker" {
			want = e.codes
			x.excused[label] = e.reason
		}
	}
	if got != want {
		x.t.Errorf("%s: %s: codes %q, want %q (%s v%d as %s)", x.name, label, got, want, kmsg.NameForKey(req.Key()), req.GetVersion(), user)
	}
	x.answers[label] = answer
	x.order = append(x.order, label)
	return resp
}

// same asserts that two requests are answered by the same bytes, but for the name
// or id they ask for.
func (x *exam) same(user, label string, a kmsg.Request, nameA string, b kmsg.Request, nameB string) {
	x.t.Helper()
	ask := func(req kmsg.Request) string {
		req.SetVersion(x.common[req.Key()])
		frame, err := x.conn(user).Bytes(req)
		if err != nil {
			x.t.Fatalf("%s: %s: %v", x.name, label, err)
		}
		return string(frame)
	}
	if len(nameA) != len(nameB) {
		x.t.Fatalf("%q and %q are not of one length", nameA, nameB)
	}
	answerA, answerB := ask(a), ask(b)
	if !strings.Contains(answerA, nameA) || strings.ReplaceAll(answerA, nameA, nameB) != answerB {
		x.t.Errorf("%s: %s: for %q\n%q\nfor %q\n%q", x.name, label, nameA, answerA, nameB, answerB)
	}
}

// until asks until the answer has the codes; nothing of it is compared.
func (x *exam) until(user, codes string, req kmsg.Request) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), time.Minute)
	defer cancel()
	for {
		got := codesOf(x.must(user, req))
		if got == codes {
			return
		}
		select {
		case <-ctx.Done():
			x.t.Fatalf("%s: %s answers %q after a minute, want %q", x.name, kmsg.NameForKey(req.Key()), got, codes)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// revoke takes an ACL away.
func (x *exam) revoke(acl string) {
	x.t.Helper()
	at := slices.Index(x.acls, acl)
	if at < 0 {
		x.t.Fatalf("no ACL %q", acl)
	}
	x.acls = slices.Delete(slices.Clone(x.acls), at, at+1)
	x.change(x.acls)
}

func rulesOf(key int16) []differential.Rule {
	for _, p := range probes() {
		if p.key == key {
			return p.rules
		}
	}
	return nil
}

// codesOf are the error codes of an answer that are not 0, sorted; "0" when there are
// none.
func codesOf(resp kmsg.Response) string {
	var all []int
	var walk func(reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				walk(v.Elem())
			}
		case reflect.Slice:
			if k := v.Type().Elem().Kind(); k == reflect.Struct {
				for i := range v.Len() {
					walk(v.Index(i))
				}
			}
		case reflect.Struct:
			for i := range v.NumField() {
				if v.Type().Field(i).Name == "ErrorCode" {
					if code := int(v.Field(i).Int()); code != 0 {
						all = append(all, code)
					}
					continue
				}
				walk(v.Field(i))
			}
		}
	}
	walk(reflect.ValueOf(resp))
	if len(all) == 0 {
		return "0"
	}
	slices.Sort(all)
	var words []string
	for _, c := range all {
		words = append(words, strconv.Itoa(c))
	}
	return strings.Join(words, " ")
}

// mine are the identities of what vectors name, the one broker among them.
var mine = regexp.MustCompile(`^((id of )?v[0-9]+-|1 |d1ff|x{250}$|\.|v28/)`)

// conformanceResources are four virtual clusters: the two that are examined, and a
// twin of each, which has no topics.
func conformanceResources(bootstrap string, topics, acls, users []string, open bool) map[string]string {
	files := map[string]string{"secret": secret + "\n"}
	var b strings.Builder
	fmt.Fprintf(&b, "{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {}}\n---\n{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: [%q]}}\n", bootstrap)
	b.WriteString("---\n{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: shop, tenant: acme}, spec: {cluster: main, topic: {name: shop., pattern: prefixed}, access: read-write}}\n")
	for _, vc := range []string{"standard", "partner", "standard-twin", "partner-twin"} {
		kind, _, _ := strings.Cut(vc, "-")
		fmt.Fprintf(&b, "---\n{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: %s, tenant: acme}, spec: {type: %s, host: %s, home: main, authentication: {plain: {}}, acls: {enabled: true, superUsers: [\"User:admin\"], allowEveryoneIfNoAclFound: %v}}}\n", vc, kind, vc, open)
		for _, user := range users {
			fmt.Fprintf(&b, "---\n{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: %s, virtualCluster: %s}, spec: {type: local, password: \"file:secret\"}}\n", user, vc)
		}
		files["acls-"+vc+".yaml"] = aclResources(vc, acls)
	}
	for _, name := range topics {
		fmt.Fprintf(&b, "---\n{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: %q, virtualCluster: partner}, spec: {cluster: main, topic: %q}}\n", name, "shop."+name)
	}
	files["all.yaml"] = b.String()
	return files
}

func aclResources(vc string, acls []string) string {
	var b strings.Builder
	for i, a := range acls {
		b.WriteString(aclResource(a, vc, i))
	}
	return b.String()
}

// parties starts what answers the vectors of one setting: a broker with
// StandardAuthorizer and two virtual clusters before it.
func parties(t *testing.T, vectors []vector, open bool) []*party {
	t.Helper()
	users := map[string]string{"admin": secret}
	var acls, topics []string
	for _, v := range vectors {
		acls = append(acls, v.acls...)
		topics = append(topics, v.topics...)
		for _, a := range v.acls {
			if user := strings.Fields(a)[0]; user != "*" {
				users[user] = secret
			}
		}
		users[fmt.Sprintf("v%d", v.number)] = secret
	}
	kafka := kafkatest.Start(t, kafkatest.Options{SASL: true, Authorizer: true, AllowEveryoneIfNoACL: open, Users: users})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	owner := kadm.NewClient(kafka.Client(t))
	var physical []string
	for _, name := range topics {
		physical = append(physical, "standard."+name, "shop."+name)
		if !strings.HasPrefix(name, "v25-") { // the vector of what only the virtual clusters have
			physical = append(physical, name)
		}
	}
	if len(physical) > 0 {
		created, err := owner.CreateTopics(ctx, 1, 1, map[string]*string{"retention.ms": kadm.StringPtr("-1")}, append(physical, "standard.__tg.v13-keep")...)
		if err == nil {
			err = created.Error()
		}
		if err != nil {
			t.Fatal(err)
		}
	}

	files := conformanceResources(kafka.Bootstrap(), topics, acls, slices.Sorted(maps.Keys(users)), open)
	process := gateway.Start(t, map[string]string{"main": kafka.Bootstrap()}, files)

	newParty := func(name string, target drivers.Target) *party {
		p := &party{
			t: t, name: name, target: target, side: &differential.Side{}, conns: make(map[string]*rawkafka.Conn),
			ids: make(map[string][16]byte), acls: acls,
		}
		p.side.TopicName = p.topicName
		t.Cleanup(p.hangUp)
		return p
	}
	broker := newParty("broker", drivers.Target{Bootstrap: kafka.BootstrapOn(kafkatest.SASL), CAFile: kafka.CAFile})
	broker.twin = broker
	broker.side.Own = mine.MatchString
	super := kafka.Client(t)
	broker.change = func(left []string) {
		req := kmsg.NewPtrDeleteACLsRequest()
		for _, a := range acls {
			if slices.Contains(left, a) {
				continue
			}
			c := binding(a)
			f := kmsg.NewDeleteACLsRequestFilter()
			f.ResourceType, f.ResourceName, f.ResourcePatternType = c.ResourceType, &c.ResourceName, c.ResourcePatternType
			f.Principal, f.Host, f.Operation, f.PermissionType = &c.Principal, &c.Host, c.Operation, c.PermissionType
			req.Filters = append(req.Filters, f)
		}
		if _, err := req.RequestWith(t.Context(), super); err != nil {
			t.Fatal(err)
		}
	}
	create := kmsg.NewPtrCreateACLsRequest()
	for _, a := range acls {
		create.Creations = append(create.Creations, binding(a))
	}
	made, err := create.RequestWith(ctx, super)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range made.Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			t.Fatalf("ACL %q: %v", acls[i], err)
		}
	}
	all := []*party{broker}
	for _, vc := range []string{"standard", "partner"} {
		p := newParty(vc, process.Target(t, vc, "", "", ""))
		p.twin = newParty(vc, process.Target(t, vc+"-twin", "", "", ""))
		p.change = func(left []string) { process.Write(t, "acls-"+vc+".yaml", aclResources(vc, left)) }
		all = append(all, p)
	}

	meet(t, broker, all[1], all[2], all[1].twin, all[2].twin)
	// The broker's first block of producer ids.
	(&exam{party: broker}).until("admin", "0", initOf(nil))
	for _, p := range all {
		var there []string
		for _, name := range topics {
			if p != broker || !strings.HasPrefix(name, "v25-") {
				there = append(there, name)
			}
		}
		(&exam{party: p}).until("admin", "0", askListOffsets(there...))
		p.untilACLs(len(acls))
	}
	return all
}

// untilACLs waits until there are n ACLs: a broker applies them after it has
// answered, a gateway after it has read the file.
func (p *party) untilACLs(n int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	for {
		req := kmsg.NewPtrDescribeACLsRequest()
		req.ResourceType, req.ResourcePatternType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny
		req.Operation, req.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
		have := 0
		for _, r := range p.admin(req).(*kmsg.DescribeACLsResponse).Resources {
			have += len(r.ACLs)
		}
		if have == n {
			return
		}
		select {
		case <-ctx.Done():
			p.t.Fatalf("%s has %d ACLs after a minute, want %d", p.name, have, n)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// meet settles in which versions the parties are asked, and learns what each calls
// itself.
func meet(t *testing.T, everybody ...*party) {
	t.Helper()
	newest := make(map[int16]int16)
	for _, p := range everybody {
		req := kmsg.NewPtrApiVersionsRequest()
		req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = 3, "raw", "1"
		resp, err := p.conn("admin").Ask(req)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range resp.(*kmsg.ApiVersionsResponse).ApiKeys {
			if v, ok := newest[k.ApiKey]; !ok || k.MaxVersion < v {
				newest[k.ApiKey] = k.MaxVersion
			}
		}
	}
	for _, p := range everybody {
		p.common = newest
		meta := p.admin(kmsg.NewPtrMetadataRequest()).(*kmsg.MetadataResponse)
		p.side.ClusterID, p.side.Hosts = *meta.ClusterID, make(map[string]bool)
		for _, b := range meta.Brokers {
			p.side.Hosts[b.Host] = true
		}
	}
}

func TestAuthorisationIsKafkas(t *testing.T) {
	t.Parallel()
	seen := make(map[int]bool)
	for _, open := range []bool{false, true} {
		var rows []vector
		for _, v := range vectors() {
			if v.open == open {
				rows = append(rows, v)
				seen[v.number] = true
			}
		}
		all := parties(t, rows, open)
		for _, v := range rows {
			t.Run(fmt.Sprintf("%d %s", v.number, v.name), func(t *testing.T) {
				var exams []*exam
				for _, p := range all {
					p.t, p.twin.t = t, t
					x := &exam{party: p, answers: make(map[string]differential.Answer), excused: make(map[string]string)}
					v.run(x)
					exams = append(exams, x)
				}
				compareExams(t, exams)
			})
		}
		for _, p := range all { // what clean-up does is not of a vector
			p.hangUp()
			p.twin.hangUp()
		}
	}
	for n := 1; n <= 30; n++ {
		if !seen[n] {
			t.Errorf("vector %d of PROTOCOL.md §G3 is missing", n)
		}
	}
}

// compareExams holds every answer through the gateway against the broker's. An
// answer that is excused must differ.
func compareExams(t *testing.T, exams []*exam) {
	t.Helper()
	broker := exams[0]
	for _, x := range exams[1:] {
		if !slices.Equal(x.order, broker.order) {
			t.Errorf("%s was asked %q, the broker %q", x.name, x.order, broker.order)
		}
		for _, label := range broker.order {
			findings := differential.Compare(broker.answers[label], x.answers[label])
			reason, excused := x.excused[label]
			switch {
			case excused && len(findings) == 0:
				t.Errorf("%s: %s: equal, though %q", x.name, label, reason)
			case !excused:
				for _, f := range findings {
					t.Errorf("%s: %s: %s: %s, through the gateway %s", x.name, label, f.Path, f.Bare, f.Gateway)
				}
			}
		}
	}
}
