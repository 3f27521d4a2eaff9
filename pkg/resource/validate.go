package resource

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"tollgate.internal/pkg/strictyaml"
)

// World is what exists beside the objects that are validated. What it cannot look
// up because of trouble it answers as missing, and tells its owner afterwards.
type World interface {
	Lookup(Key) Object            // nil: there is none
	Holder(Claim) (_ Key, _ bool) // who has what only one can have
}

// Validate checks objects that are to be put into a world together, alone and beside
// what is there, fills in their defaults, and says everything that is wrong. They
// replace those of the world with the same keys. Of one key only the first is put in.
//
// Left open are a grant for each alias, and what the change does to objects that refer
// to those that are replaced.
func Validate(objects []*Written, world World, now time.Time) {
	newValidator(objects, world, now).validate()
}

// validator looks at objects together.
type validator struct {
	now     time.Time
	world   World // nil: empty
	objects []*Written
	unread  []string // texts that may hold what is not found

	byKey  map[Key]*Written
	claims map[Claim]*Written
}

func newValidator(objects []*Written, world World, now time.Time) *validator {
	return &validator{now: now, world: world, objects: objects, byKey: make(map[Key]*Written), claims: make(map[Claim]*Written)}
}

// validate reports names that are taken, then looks at each object.
func (l *validator) validate() {
	for _, o := range l.objects {
		if o.meta().Name == "" {
			continue
		}
		key := KeyOf(o.Object)
		if first, ok := l.byKey[key]; ok {
			o.Problem("metadata.name", "%s exists already%s", key, first.where())
			continue
		}
		l.byKey[key] = o
	}
	for _, o := range l.objects {
		l.one(o)
	}
}

// one checks one object, alone and beside the others, and fills in its defaults.
func (l *validator) one(o *Written) {
	l.validateMetadata(o)
	switch v := o.Object.(type) {
	case *Tenant:
		validateTenant(o, &v.Spec)
	case *UpstreamCluster:
		validateUpstreamCluster(o, &v.Spec)
	case *VirtualCluster:
		l.validateVirtualCluster(o, v)
	case *TopicGrant:
		l.validateTopicGrant(o, &v.Spec)
	case *AliasTopic:
		l.validateAliasTopic(o, v)
	case *ServiceAccount:
		l.validateServiceAccount(o, v)
	case *ACL:
		validateACL(o, &v.Spec)
	case *Policy:
		validatePolicy(o, v)
	case *PriceBook:
		l.validatePriceBook(o, &v.Spec)
	case *Budget:
		validateBudget(o, &v.Spec)
	}
}

func (l *validator) lookup(key Key) Object {
	if o := l.byKey[key]; o != nil {
		return o.Object
	}
	if l.world != nil {
		return l.world.Lookup(key)
	}
	return nil
}

// claim takes what only one object can have, or reports who has it. The text has a
// verb for the value, one for the holder and one for its place.
func (l *validator) claim(o *Written, c Claim, field, text string, value any) {
	if other, taken := l.claims[c]; taken {
		o.Problem(field, text, value, KeyOf(other.Object).title(), other.where())
		return
	}
	l.claims[c] = o
	if l.world == nil {
		return
	}
	// Whoever is being replaced has it no longer, or is the one that takes it.
	if holder, taken := l.world.Holder(c); taken && l.byKey[holder] == nil {
		o.Problem(field, text, value, holder.title(), "")
	}
}

// title is the key without its scope.
func (k Key) title() string { return k.Kind + " " + k.Name }

var labelName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$`)

func (l *validator) validateMetadata(o *Written) {
	m, kind := o.meta(), o.kind()
	switch {
	case m.Name == "":
		o.Problem("metadata.name", "required")
	case kind == KindAliasTopic:
		if err := CheckTopicName(m.Name); err != nil {
			o.Problem("metadata.name", "%v", err)
		} else if strings.HasPrefix(m.Name, "__") {
			o.Problem("metadata.name", "must not begin with __: such topics are the brokers' own")
		}
	case !label(m.Name):
		o.Problem("metadata.name", "%q is not a DNS label: up to 63 of a-z, 0-9 and '-', with '-' neither first nor last", m.Name)
	}
	if m.Revision < 0 {
		o.Problem("metadata.revision", "must not be negative")
	}
	for _, name := range slices.Sorted(maps.Keys(m.Labels)) {
		field := "metadata.labels." + name
		if !labelName.MatchString(name) {
			o.Problem(field, "is not the name of a label: up to 63 letters, digits and any of ._/-, with a letter or digit first and last")
		}
		if value := m.Labels[name]; value != "" && !labelName.MatchString(value) {
			o.Problem(field, "is not the value of a label: up to 63 letters, digits and any of ._/-, with a letter or digit first and last")
		}
	}

	ownedByTenant := kind == KindVirtualCluster || kind == KindTopicGrant || kind == KindBudget
	switch {
	case ownedByTenant && m.Tenant == "":
		o.Problem("metadata.tenant", "required")
	case ownedByTenant:
		l.reference(o, "metadata.tenant", KindTenant, m.Tenant)
	case o.Written("metadata.tenant"):
		o.Problem("metadata.tenant", "has no meaning for a %s", kind)
	}
	k, _ := KindOf(kind)
	switch {
	case k.Everywhere() && m.VirtualCluster == "":
		if o.Written("metadata.virtualCluster") {
			o.Problem("metadata.virtualCluster", "must not be empty: leave it out for a %s of all virtual clusters", kind)
		}
	case k.Scope == KindVirtualCluster && m.VirtualCluster == "":
		o.Problem("metadata.virtualCluster", "required")
	case k.Scope == KindVirtualCluster:
		l.reference(o, "metadata.virtualCluster", KindVirtualCluster, m.VirtualCluster)
	case o.Written("metadata.virtualCluster"):
		o.Problem("metadata.virtualCluster", "has no meaning for a %s", kind)
	}
}

// reference reports a name that leads nowhere, unless what it means may stand
// in a file that could not be read to its end: that file is reported already.
func (l *validator) reference(o *Written, field, kind, name string) {
	if l.lookup(Key{Kind: kind, Name: name}) != nil || slices.ContainsFunc(l.unread, func(text string) bool { return strings.Contains(text, name) }) {
		return
	}
	o.Problem(field, "there is no %s %q", kind, name)
}

func (l *validator) upstream(o *Written, field, name string) {
	if name == "" {
		o.Problem(field, "required")
		return
	}
	l.reference(o, field, KindUpstreamCluster, name)
}

// oneOf checks a word of a closed set and puts value in the place of an empty
// one; an empty value means the word is required.
func oneOf[T ~string](o *Written, field string, word *T, value T, words ...T) {
	if *word == "" && !o.Written(field) && value != "" {
		*word = value
		return
	}
	if slices.Contains(words, *word) {
		return
	}
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = string(w)
	}
	if *word == "" {
		o.Problem(field, "required: one of %s", strings.Join(list, ", "))
		return
	}
	o.Problem(field, "unknown word %q: one of %s", string(*word), strings.Join(list, ", "))
}

func validateTenant(o *Written, s *TenantSpec) {
	oneOf(o, "spec.state", &s.State, TenantActive, TenantActive, TenantSuspended, TenantClosing)
	for i, contact := range s.Contacts {
		if contact == "" {
			o.Problem(index("spec.contacts", i), "must not be empty")
		}
	}
}

func index(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }

// path makes a path that an object names absolute.
func (o *Written) path(field string, path *string) {
	switch {
	case *path == "" || filepath.IsAbs(*path):
	case o.fromFile():
		*path = filepath.Join(o.baseDir, *path)
	default:
		o.Problem(field, "is a relative path: write an absolute one, which every proxy can read")
	}
}

const notAReference = "must be a reference and not the secret itself: write env:NAME or file:PATH"

var environmentName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// secret checks a reference. What stands in its place may be a secret, so no
// text shows it.
func (o *Written) secret(field string, r *Reference) {
	scheme, rest, found := strings.Cut(string(*r), ":")
	switch {
	case found && scheme == "env":
		if !environmentName.MatchString(rest) {
			o.Problem(field, "env: needs the name of an environment variable behind it")
		}
	case found && scheme == "file":
		if rest == "" {
			o.Problem(field, "file: needs a path behind it")
			return
		}
		o.path(field, &rest)
		*r = Reference("file:" + rest)
	case found && scheme == "aws-sm":
		o.Problem(field, "aws-sm: is not supported yet: write env:NAME or file:PATH")
	default:
		o.Problem(field, notAReference)
	}
}

func validateUpstreamCluster(o *Written, s *UpstreamClusterSpec) {
	if len(s.Bootstrap) == 0 {
		o.Problem("spec.bootstrap", "required: at least one host:port")
	}
	for i, address := range s.Bootstrap {
		host, port, err := net.SplitHostPort(address)
		n, errPort := strconv.ParseUint(port, 10, 16)
		if err != nil || errPort != nil || host == "" || n == 0 {
			o.Problem(index("spec.bootstrap", i), "%q is not host:port", address)
		}
	}
	if t := s.TLS; t != nil {
		validateCA(o, "spec.tls", t.CA, &t.CAFile)
		o.path("spec.tls.certFile", &t.CertFile)
		switch {
		case t.KeyFile != "" || o.Written("spec.tls.keyFile"):
			o.secret("spec.tls.keyFile", &t.KeyFile)
			if t.CertFile == "" {
				o.Problem("spec.tls.certFile", "required beside keyFile")
			}
		case t.CertFile != "":
			o.Problem("spec.tls.keyFile", "required beside certFile")
		}
	}
	if s.SASL != nil {
		validateUpstreamSASL(o, s)
	}
}

// validateCA is about certificates that stand in the object or in a file.
func validateCA(o *Written, at, ca string, file *string) {
	o.path(at+".caFile", file)
	if ca == "" {
		if o.Written(at + ".ca") {
			o.Problem(at+".ca", "must not be empty: leave it out instead")
		}
		return
	}
	if *file != "" {
		o.Problem(at+".caFile", "has no meaning beside ca: the certificates come from one of the two")
	}
	if _, err := Certificates([]byte(ca)); err != nil {
		o.Problem(at+".ca", "%v", err)
	}
}

// Certificates are those of a PEM text, at least one. Whatever else is in it is
// passed over.
func Certificates(text []byte) (certs []*x509.Certificate, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("holds no certificate in PEM form, which begins with -----BEGIN CERTIFICATE-----")
	}
	return certs, nil
}

func (l *validator) validateVirtualCluster(o *Written, v *VirtualCluster) {
	s := &v.Spec
	oneOf(o, "spec.type", &s.Type, "", Standard, Partner)

	switch {
	case s.Host == "":
		o.Problem("spec.host", "required")
	case !label(s.Host):
		o.Problem("spec.host", "%q is not a DNS label: up to 63 of a-z, 0-9 and '-', with '-' neither first nor last", s.Host)
	default:
		l.host(o, "spec.host", s.Host)
	}
	for i, host := range s.CustomHosts {
		field := index("spec.customHosts", i)
		if isAddress(host) {
			o.Problem(field, "%q is an IP address: clients that connect to one send no host name to route by", host)
			continue
		}
		if len(host) > 253 || slices.ContainsFunc(strings.Split(host, "."), func(part string) bool { return !label(part) }) {
			o.Problem(field, "%q is not a host name in lower case", host)
			continue
		}
		l.host(o, field, host)
	}

	l.upstream(o, "spec.home", s.Home)
	switch {
	case !o.Written("spec.clusters"):
		if s.Home != "" {
			s.Clusters = []string{s.Home}
		}
	case s.Home != "" && !slices.Contains(s.Clusters, s.Home):
		o.Problem("spec.clusters", "must contain home, %q", s.Home)
	}
	if o.Written("spec.clusters") {
		for i, name := range s.Clusters {
			field := index("spec.clusters", i)
			if slices.Contains(s.Clusters[:i], name) {
				o.Problem(field, "%q appears twice", name)
				continue
			}
			l.upstream(o, field, name)
		}
	}
	validateSpan(o, s)

	validateAuthentication(o, &s.Authentication)
	validateACLSettings(o, s)
	q := s.Quotas
	validateQuotas(o, AccountQuotas{q.ProduceBytesPerSecond, q.FetchBytesPerSecond, q.RequestsPerSecond, q.Connections, q.ConnectionsPerSecond})
	nonNegative(o, "spec.quotas.partitions", q.Partitions)
	validateTopicPolicy(o, &s.Topics)
	if s.Type == Partner && s.AutoCreateTopics {
		o.Problem("spec.autoCreateTopics", "a virtual cluster of type partner creates no topics")
	}
}

// validateSpan is about virtual clusters with several clusters.
func validateSpan(o *Written, s *VirtualClusterSpec) {
	taken := make(map[int32]string)
	for _, name := range slices.Sorted(maps.Keys(s.Slots)) { // also of clusters that were here once: their slots stay theirs
		slot := s.Slots[name]
		if slot < 0 || slot > MaxSlot {
			o.Problem("spec.slots."+name, "%d is not between 0 and %d", slot, MaxSlot)
		}
		if other, ok := taken[slot]; ok {
			o.Problem("spec.slots."+name, "%d is the slot of cluster %s already", slot, other)
		}
		taken[slot] = name
	}
	for _, name := range s.Clusters {
		if _, ok := s.Slots[name]; ok {
			continue
		}
		slot := s.Slot(name)
		if other, ok := taken[slot]; ok && other != name {
			o.Problem("spec.slots", "clusters %s and %s both have slot %d: write slots: {%s: N} with a number between 0 and %d that no cluster had before", other, name, slot, name, MaxSlot)
		}
		taken[slot] = name
	}
	for i, r := range s.Transactions {
		field := index("spec.transactions", i)
		if r.Prefix == "" {
			o.Problem(field+".prefix", "required: the beginning of transactional ids")
		}
		if slices.ContainsFunc(s.Transactions[:i], func(other TransactionRule) bool { return other.Prefix == r.Prefix }) {
			o.Problem(field+".prefix", "%q appears twice", r.Prefix)
		}
		if !slices.Contains(s.Clusters, r.Cluster) {
			o.Problem(field+".cluster", "%q is not among spec.clusters", r.Cluster)
		}
	}
	nonNegative(o, "spec.stubs.replicationFactor", s.Stubs.ReplicationFactor)
	if s.Stubs.KeepFor < 0 {
		o.Problem("spec.stubs.keepFor", "must not be negative")
	}
}

// brokerHost matches the first label of a virtual broker's host, and b12 too:
// beside b12-acme it is easily taken for one.
var brokerHost = regexp.MustCompile(`^b[0-9]+(-|$)`)

// isAddress reports whether clients take a host for an IP address: also the
// short forms of inet_aton, such as 127.1.
func isAddress(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	return last != "" && strings.Trim(last, "0123456789") == ""
}

// maxHostLabel leaves room for the "b2147483647-" in front of the host of a
// virtual broker, which is a DNS label too.
const maxHostLabel = 63 - 12

// host takes a host name. Labels and whole names share one space: a custom host
// may have a single label.
func (l *validator) host(o *Written, field, host string) {
	first, _, _ := strings.Cut(host, ".")
	if brokerHost.MatchString(first) {
		o.Problem(field, "%q looks like the host of a virtual broker: choose a name whose first label is neither b and digits nor begins so before a '-'", host)
		return
	}
	if len(first) > maxHostLabel {
		o.Problem(field, "%q is longer than %d characters: the hosts of virtual brokers put b<node id>- in front of it", first, maxHostLabel)
		return
	}
	l.claim(o, hostClaim(host), field, "%q is a host of %s already%s", host)
}

func nonNegative[N int | int16 | int32 | int64](o *Written, field string, n N) {
	if n < 0 {
		o.Problem(field, "must not be negative")
	}
}

// validateQuotas is about what virtual clusters and service accounts have alike.
func validateQuotas(o *Written, q AccountQuotas) {
	nonNegative(o, "spec.quotas.produceBytesPerSecond", q.ProduceBytesPerSecond)
	nonNegative(o, "spec.quotas.fetchBytesPerSecond", q.FetchBytesPerSecond)
	nonNegative(o, "spec.quotas.requestsPerSecond", q.RequestsPerSecond)
	nonNegative(o, "spec.quotas.connections", q.Connections)
	nonNegative(o, "spec.quotas.connectionsPerSecond", q.ConnectionsPerSecond)
}

func validateAuthentication(o *Written, a *Authentication) {
	const at = "spec.authentication"
	others := a.Plain != nil || a.SCRAM != nil || o.Written(at+".oauthbearer") || a.MTLS != nil
	switch {
	case a.Anonymous != nil && others:
		o.Problem(at+".anonymous", "stands alone: a client that may be anonymous never has to prove anything")
	case a.Anonymous == nil && !others:
		o.Problem(at, "needs at least one of plain, scram, oauthbearer, mtls, or anonymous alone")
	}
	if a.MaxReauthentication < 0 {
		o.Problem(at+".maxReauthentication", "must not be negative")
	}
	if o.Written(at+".oauthbearer") && len(a.OAuthBearer) == 0 {
		o.Problem(at+".oauthbearer", "needs at least one issuer")
	}
	seen := make(map[string]bool)
	for i := range a.OAuthBearer {
		issuer := &a.OAuthBearer[i]
		field := at + ".oauthbearer"
		if o.Written(index(field, i)) {
			field = index(field, i)
		}
		validateIssuer(o, field, issuer)
		if issuer.Issuer != "" && seen[issuer.Issuer] {
			o.Problem(field+".issuer", "%q appears twice: list its audiences together", issuer.Issuer)
		}
		seen[issuer.Issuer] = true
	}
	if a.MTLS != nil {
		if a.MTLS.CAFile == "" && a.MTLS.CA == "" {
			o.Problem(at+".mtls.caFile", "required: the CA of the clients' certificates, in a file or in ca")
		}
		validateCA(o, at+".mtls", a.MTLS.CA, &a.MTLS.CAFile)
	}
}

func validateIssuer(o *Written, field string, issuer *OAuthIssuer) {
	if issuer.Issuer == "" {
		o.Problem(field+".issuer", "required")
	}
	if len(issuer.Audience) == 0 {
		o.Problem(field+".audience", "required: a token for somebody else must not open this door")
	}
	for i, audience := range issuer.Audience {
		if audience == "" {
			o.Problem(index(field+".audience", i), "must not be empty")
		}
	}
	switch path, isFile := filePath(issuer.JWKSURL); {
	case isFile:
		if path == "" {
			o.Problem(field+".jwksURL", "file: needs a path behind it")
			break
		}
		o.path(field+".jwksURL", &path)
		issuer.JWKSURL = "file:" + path
	case issuer.JWKSURL != "":
		if !httpURL(issuer.JWKSURL) {
			o.Problem(field+".jwksURL", "%q is neither an http or https URL nor file:PATH", issuer.JWKSURL)
		}
	case issuer.Issuer != "" && !httpURL(issuer.Issuer):
		o.Problem(field+".issuer", "%q is no http or https URL, so there is no discovery document: set jwksURL", issuer.Issuer)
	}
	if issuer.PrincipalClaim == "" {
		issuer.PrincipalClaim = "sub"
	}
}

func httpURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != ""
}

func validateACLSettings(o *Written, s *VirtualClusterSpec) {
	if s.Type == Partner {
		if o.Written("spec.acls.enabled") && !s.ACLs.Enabled {
			o.Problem("spec.acls.enabled", "a virtual cluster of type partner always has ACLs: write true, or leave the field out")
		}
		s.ACLs.Enabled = true
	}
	for i, p := range s.ACLs.SuperUsers {
		principal(o, index("spec.acls.superUsers", i), p)
	}
}

// principal checks the spelling of a principal. Whether it exists is left open,
// so that an account can be taken away and its ACLs later.
func principal(o *Written, field, p string) {
	switch name, ok := strings.CutPrefix(p, "User:"); {
	case p == "":
		o.Problem(field, "required, such as User:alice")
	case !ok && !strings.Contains(p, ":"):
		o.Problem(field, "%q has no type: write User:%s", p, p)
	case !ok || name == "":
		o.Problem(field, "%q is no principal of a virtual cluster: write User: and the name of a service account", p)
	}
}

func validateTopicPolicy(o *Written, t *TopicPolicy) {
	const at = "spec.topics."
	nonNegative(o, at+"maxTopics", t.MaxTopics)
	nonNegative(o, at+"maxPartitions", t.MaxPartitions)
	nonNegative(o, at+"defaultPartitions", t.DefaultPartitions)
	nonNegative(o, at+"minReplicationFactor", t.MinReplicationFactor)
	nonNegative(o, at+"maxReplicationFactor", t.MaxReplicationFactor)
	nonNegative(o, at+"defaultReplicationFactor", t.DefaultReplicationFactor)
	if t.MaxPartitions == 0 {
		t.MaxPartitions = DefaultMaxPartitions
	}
	if t.MinReplicationFactor == 0 {
		t.MinReplicationFactor = DefaultMinReplicationFactor
	}
	if t.MaxReplicationFactor == 0 {
		t.MaxReplicationFactor = max(DefaultMaxReplicationFactor, t.MinReplicationFactor)
	}
	if t.ConfigKeys == nil {
		t.ConfigKeys = slices.Clone(DefaultConfigKeys)
	}
	if t.DefaultPartitions > t.MaxPartitions {
		o.Problem(at+"defaultPartitions", "is more than maxPartitions, %d", t.MaxPartitions)
	}
	if t.MinReplicationFactor > t.MaxReplicationFactor {
		o.Problem(at+"minReplicationFactor", "is more than maxReplicationFactor, %d", t.MaxReplicationFactor)
	}
	if d := t.DefaultReplicationFactor; d > t.MaxReplicationFactor {
		o.Problem(at+"defaultReplicationFactor", "is more than maxReplicationFactor, %d", t.MaxReplicationFactor)
	} else if d > 0 && d < t.MinReplicationFactor {
		o.Problem(at+"defaultReplicationFactor", "is less than minReplicationFactor, %d", t.MinReplicationFactor)
	}
	for i, k := range t.ConfigKeys {
		if k == "" {
			o.Problem(index(at+"configKeys", i), "must not be empty")
		}
	}
}

func (l *validator) validateTopicGrant(o *Written, s *TopicGrantSpec) {
	l.upstream(o, "spec.cluster", s.Cluster)
	oneOf(o, "spec.topic.pattern", &s.Topic.Pattern, Literal, Literal, Prefixed)
	oneOf(o, "spec.access", &s.Access, "", ReadOnly, ReadWrite)
	physicalTopic(o, "spec.topic.name", s.Topic.Name, s.Topic.Pattern == Prefixed)
}

func physicalTopic(o *Written, field, name string, prefix bool) {
	selector := TopicSelector{Name: name}
	if prefix {
		selector.Pattern = Prefixed
	}
	if name == "" {
		o.Problem(field, "required")
	} else if err := selector.Check(); err != nil {
		o.Problem(field, "%v", err)
	}
}

// Check says why topics of such a name cannot be lent. It knows nothing of any cluster.
func (t TopicSelector) Check() error {
	if t.Pattern == Prefixed && (t.Name == "." || t.Name == "..") {
		return nil // no topic, but topics may begin so
	}
	if err := CheckTopicName(t.Name); err != nil {
		return err
	}
	if IsInternalTopic(t.Name) {
		return fmt.Errorf("%q is the brokers' own topic, with the state of every tenant in it: it cannot be lent", t.Name)
	}
	return nil
}

func (l *validator) validateAliasTopic(o *Written, a *AliasTopic) {
	s := &a.Spec
	l.upstream(o, "spec.cluster", s.Cluster)
	physicalTopic(o, "spec.topic", s.Topic, false)
	if s.Identity != "" {
		if id, err := base64.RawURLEncoding.DecodeString(s.Identity); err != nil || len(id) != 16 {
			o.Problem("spec.identity", "%q is no topic id: write the 22 characters that kafka-topics --describe shows as TopicId", s.Identity)
		}
	}
	vc, _ := l.lookup(Key{Kind: KindVirtualCluster, Name: a.Metadata.VirtualCluster}).(*VirtualCluster)
	if vc == nil || s.Cluster == "" {
		return
	}
	if clusters := vc.Spec.Clusters; s.Cluster != vc.Spec.Home && !slices.Contains(clusters, s.Cluster) {
		o.Problem("spec.cluster", "%q is not among the clusters of VirtualCluster %s", s.Cluster, vc.Metadata.Name)
	}
	if s.Topic == "" {
		return
	}
	if own := vc.Metadata.Name + "."; vc.Spec.Type == Standard && s.Cluster == vc.Spec.Home && strings.HasPrefix(s.Topic, own) {
		o.Problem("spec.topic", "%q is a topic of VirtualCluster %s itself, which sees it as %q", s.Topic, vc.Metadata.Name, s.Topic[len(own):])
		return
	}
	l.claim(o, physicalClaim(vc.Metadata.Name, s.Cluster, s.Topic), "spec.topic", "%s has an alias in this virtual cluster already: %s%s", s.Topic+" of "+s.Cluster)
}

func (l *validator) validateServiceAccount(o *Written, a *ServiceAccount) {
	s := &a.Spec
	oneOf(o, "spec.type", &s.Type, "", Local, External)
	if !o.fromFile() {
		for _, field := range []string{"spec.password", "spec.verifiers"} {
			if o.Written(field) {
				o.Problem(field, "secrets are issued, or brought along, one by one: POST …/service-accounts/%s/secrets", a.Metadata.Name)
			}
		}
		s.Password, s.Verifiers = "", nil
	}
	if s.Password != "" || o.Written("spec.password") && o.fromFile() {
		o.secret("spec.password", &s.Password)
	}
	validateQuotas(o, s.Quotas)
	for i := range s.Verifiers {
		validateVerifier(o, index("spec.verifiers", i), &s.Verifiers[i])
	}
	switch s.Type {
	case Local:
		if o.Written("spec.externalNames") {
			o.Problem("spec.externalNames", "has no meaning for a local account")
		}
		if o.fromFile() && !o.Written("spec.password") && len(s.Verifiers) == 0 {
			o.Problem("spec", "a local account needs password or verifiers")
		}
		l.validateSecrets(o, s)
	case External:
		for _, field := range []string{"spec.password", "spec.verifiers"} {
			if o.Written(field) {
				o.Problem(field, "has no meaning for an external account: others vouch for it")
			}
		}
		if len(s.ExternalNames) == 0 {
			o.Problem("spec.externalNames", "required for an external account: a token's subject or a certificate's name")
		}
	}
	for i, name := range s.ExternalNames {
		field := index("spec.externalNames", i)
		if name == "" {
			o.Problem(field, "must not be empty")
			continue
		}
		l.claim(o, externalClaim(a.Metadata.VirtualCluster, name), field, "%q is a name of %s already%s", name)
	}
}

// validateSecrets counts secrets. One secret may have a verifier for each
// mechanism, held together by their id; verifiers without an id are one secret
// until a mechanism comes again.
func (l *validator) validateSecrets(o *Written, s *ServiceAccountSpec) {
	type kept struct{ id, mechanism string }
	seen := make(map[kept]bool)
	live := make(map[string]bool)
	nameless, most := make(map[string]int), 0
	for i := range s.Verifiers {
		v := &s.Verifiers[i]
		if v.ID != "" && seen[kept{v.ID, v.Mechanism}] {
			o.Problem(index("spec.verifiers", i)+".id", "secret %q has a verifier for %s already", v.ID, v.Mechanism)
		}
		seen[kept{v.ID, v.Mechanism}] = true
		if !v.Live(l.now) {
			continue
		}
		if v.ID != "" {
			live[v.ID] = true
			continue
		}
		nameless[v.Mechanism]++
		most = max(most, nameless[v.Mechanism])
	}
	count := len(live) + most
	if o.Written("spec.password") {
		count++
	}
	if count > 2 {
		o.Problem("spec.verifiers", "%d secrets are live, at most two may be: the old one and the new one", count)
	}
}

// The bounds of Kafka's scram.iterations (KIP-554).
const minIterations, maxIterations = 4096, 16384

// CheckVerifier says what is wrong with a verifier that stands for itself, in a field
// of this name.
func CheckVerifier(field string, v *Verifier) Problems {
	var problems Problems
	validateVerifier(&Written{Document: &strictyaml.Document{Problems: &problems}}, field, v)
	return problems
}

func validateVerifier(o *Written, field string, v *Verifier) {
	bytes := 0
	switch v.Mechanism {
	case "SCRAM-SHA-256":
		bytes = 32
	case "SCRAM-SHA-512":
		bytes = 64
	case "argon2id":
		for _, name := range []string{"iterations", "salt", "storedKey", "serverKey"} {
			if o.Written(field + "." + name) {
				o.Problem(field+"."+name, "has no meaning for argon2id: everything is in hash")
			}
		}
		if why := argon2id(v.Hash); why != "" {
			o.Problem(field+".hash", "%s", why)
		}
		return
	case "":
		o.Problem(field+".mechanism", "required: one of SCRAM-SHA-256, SCRAM-SHA-512, argon2id")
		return
	default:
		o.Problem(field+".mechanism", "unknown mechanism %q: one of SCRAM-SHA-256, SCRAM-SHA-512, argon2id", v.Mechanism)
		return
	}
	if o.Written(field + ".hash") {
		o.Problem(field+".hash", "has no meaning for %s", v.Mechanism)
	}
	if v.Iterations < minIterations || v.Iterations > maxIterations {
		o.Problem(field+".iterations", "must be from %d to %d", minIterations, maxIterations)
	}
	base64Field(o, field+".salt", v.Salt, 0)
	base64Field(o, field+".storedKey", v.StoredKey, bytes)
	base64Field(o, field+".serverKey", v.ServerKey, bytes)
}

func base64Field(o *Written, field, value string, bytes int) {
	raw, err := base64.StdEncoding.Strict().DecodeString(value)
	switch {
	case value == "":
		o.Problem(field, "required")
	case err != nil:
		o.Problem(field, "is not base64")
	case bytes > 0 && len(raw) != bytes:
		o.Problem(field, "must be %d bytes in base64, is %d", bytes, len(raw))
	}
}

var phc = regexp.MustCompile(`^\$argon2id\$v=19\$m=([0-9]{1,9}),t=([0-9]{1,9}),p=([0-9]{1,9})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$`)

// The most that a verifier may ask for: whoever knows the name of an account
// can make a node pay it.
const (
	maxArgonKiB     = 256 << 10
	maxArgonTime    = 16
	maxArgonThreads = 16
)

// argon2id says what is wrong with a PHC string.
func argon2id(hash string) string {
	if hash == "" {
		return "required for argon2id"
	}
	m := phc.FindStringSubmatch(hash)
	if m == nil {
		return "is no PHC string such as $argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>"
	}
	memory, _ := strconv.Atoi(m[1])
	passes, _ := strconv.Atoi(m[2])
	threads, _ := strconv.Atoi(m[3])
	if threads < 1 || threads > maxArgonThreads || passes < 1 || passes > maxArgonTime || memory < 8*threads || memory > maxArgonKiB {
		return "asks for too little or too much: m up to " + strconv.Itoa(maxArgonKiB) +
			" and at least 8 times p, t from 1 to " + strconv.Itoa(maxArgonTime) + ", p from 1 to " + strconv.Itoa(maxArgonThreads)
	}
	salt, errSalt := base64.RawStdEncoding.DecodeString(m[4])
	key, errKey := base64.RawStdEncoding.DecodeString(m[5])
	if errSalt != nil || errKey != nil || len(salt) < 8 || len(key) < 16 || len(key) > 64 {
		return "has a salt of less than 8 bytes, or a hash outside 16 to 64 bytes, or bad base64"
	}
	return ""
}

func validateACL(o *Written, s *ACLSpec) {
	principal(o, "spec.principal", s.Principal)
	switch {
	case s.Host == "" && !o.Written("spec.host"):
		s.Host = "*"
	case s.Host != "*":
		// Kafka compares a host with the client's address: a name never matches.
		if _, err := netip.ParseAddr(s.Host); err != nil {
			o.Problem("spec.host", "%q is neither * nor an IP address", s.Host)
		}
	}

	resourceType, known := canonical(s.Resource.Type, ACLResourceTypes())
	switch {
	case s.Resource.Type == "":
		o.Problem("spec.resource.type", "required: one of %s", strings.Join(ACLResourceTypes(), ", "))
	case !known:
		o.Problem("spec.resource.type", "unknown type %q: one of %s", s.Resource.Type, strings.Join(ACLResourceTypes(), ", "))
	default:
		s.Resource.Type = resourceType
	}
	switch {
	case s.Resource.Name == "":
		o.Problem("spec.resource.name", "required")
	case resourceType == "cluster" && s.Resource.Name != clusterName:
		o.Problem("spec.resource.name", "the only resource of type cluster is %s", clusterName)
	}
	s.Resource.Pattern = Pattern(strings.ToLower(string(s.Resource.Pattern)))
	oneOf(o, "spec.resource.pattern", &s.Resource.Pattern, Literal, Literal, Prefixed)

	all := allOperations()
	switch operation, exists := canonical(s.Operation, all); {
	case s.Operation == "":
		o.Problem("spec.operation", "required: one of %s", strings.Join(all, ", "))
	case !exists:
		o.Problem("spec.operation", "unknown operation %q: one of %s", s.Operation, strings.Join(all, ", "))
	case known && !slices.Contains(ACLOperations(resourceType), operation):
		o.Problem("spec.operation", "%s has no meaning for a resource of type %s: one of %s",
			operation, resourceType, strings.Join(ACLOperations(resourceType), ", "))
	default:
		s.Operation = operation
	}
	switch permission, ok := canonical(s.Permission, []string{"ALLOW", "DENY"}); {
	case s.Permission == "":
		o.Problem("spec.permission", "required: ALLOW or DENY")
	case !ok:
		o.Problem("spec.permission", "unknown permission %q: ALLOW or DENY", s.Permission)
	default:
		s.Permission = permission
	}
}

func allOperations() []string {
	all := []string{"ALL"}
	for _, w := range aclWords {
		for _, operation := range w.operations {
			if !slices.Contains(all, operation) {
				all = append(all, operation)
			}
		}
	}
	return all
}

// Live reports whether a verifier may still be used.
func (v *Verifier) Live(now time.Time) bool { return v.Expires.IsZero() || now.Before(v.Expires) }
