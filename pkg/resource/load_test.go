package resource

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// tenant, cluster and virtual are valid objects that others refer to.
const (
	tenant  = "apiVersion: tollgate/v1\nkind: Tenant\nmetadata: {name: acme}\nspec: {}\n"
	cluster = "apiVersion: tollgate/v1\nkind: UpstreamCluster\nmetadata: {name: main}\nspec: {bootstrap: [\"localhost:9092\"]}\n"
	west    = "apiVersion: tollgate/v1\nkind: UpstreamCluster\nmetadata: {name: west}\nspec: {bootstrap: [\"localhost:9093\"]}\n"
	virtual = "apiVersion: tollgate/v1\nkind: VirtualCluster\nmetadata: {name: shop, tenant: acme}\nspec: {type: standard, host: shop, home: main, authentication: {plain: {}}}\n"
	base    = tenant + "---\n" + cluster + "---\n" + west + "---\n" + virtual + "---\n"
)

// baseLines is the number of lines of base: line 1 of what is appended to base
// is line baseLines+1 of the file.
var baseLines = strings.Count(base, "\n")

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// load reads one file that stands in a directory of its own.
func load(t *testing.T, text string) (*Set, Problems) {
	t.Helper()
	set, err := LoadDir(write(t, map[string]string{"a.yaml": text}))
	var problems Problems
	if err != nil && !errors.As(err, &problems) {
		t.Fatalf("LoadDir: error is a %T, want Problems: %v", err, err)
	}
	if (set == nil) != (err != nil) {
		t.Fatalf("LoadDir = %v, %v: want a set or an error", set, err)
	}
	return set, problems
}

func TestExamplesOfTheDesignLoad(t *testing.T) {
	set, err := LoadDir("testdata/examples")
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs("testdata/examples")
	if err != nil {
		t.Fatal(err)
	}
	vc := set.VirtualClusters["acme-prod"]
	if vc == nil {
		t.Fatal("virtual cluster acme-prod is missing")
	}
	want := Authentication{
		Plain: &struct{}{}, SCRAM: &struct{}{},
		OAuthBearer: []OAuthIssuer{{Issuer: "https://…", Audience: []string{"kafka"}, PrincipalClaim: "sub"}},
		MTLS:        &MTLS{CAFile: filepath.Join(here, "acme-ca.pem"), PrincipalRules: "DEFAULT"},
	}
	if !reflect.DeepEqual(vc.Spec.Authentication, want) {
		t.Errorf("authentication = %+v, want %+v", vc.Spec.Authentication, want)
	}
	if got, want := vc.Spec.Quotas, (Quotas{10000000, 20000000, 5000, 1000, 0, 0}); got != want {
		t.Errorf("quotas = %+v, want %+v", got, want)
	}
	if tls := set.UpstreamClusters["west"].Spec.TLS; tls.CAFile != filepath.Join(here, "ca.pem") ||
		tls.CertFile != filepath.Join(here, "c.pem") || tls.KeyFile != Reference("file:"+filepath.Join(here, "k.pem")) {
		t.Errorf("upstream tls = %+v, want paths below %s", *tls, here)
	}
	aliases, accounts, acls := set.OfVirtualCluster("acme-prod")
	if len(aliases) != 1 || len(accounts) != 2 || len(acls) != 1 {
		t.Errorf("OfVirtualCluster = %d aliases, %d accounts, %d ACLs, want 1, 2, 1", len(aliases), len(accounts), len(acls))
	}
	grants := set.GrantsOf("acme")
	if len(grants) != 1 || !grants[0].Spec.Until.Equal(time.Date(2027, 6, 30, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("GrantsOf(acme) = %+v, want one until 2027-06-30", grants)
	}
	if got := accounts[0].Metadata.Source; got.File != filepath.Join("testdata", "examples", "acme.yaml") || got.Line != 22 {
		t.Errorf("source of the first account = %v, want testdata/examples/acme.yaml:22", got)
	}
	if a, b, c := set.OfVirtualCluster("nobody"); a != nil || b != nil || c != nil {
		t.Errorf("OfVirtualCluster(nobody) = %v, %v, %v, want nothing", a, b, c)
	}
}

func TestDefaults(t *testing.T) {
	set, problems := load(t, base+`
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: partner, tenant: acme}
spec: {type: partner, host: partner, home: main, authentication: {anonymous: {}, maxReauthentication: 90s}}
---
apiVersion: tollgate/v1
kind: Acl
metadata: {name: a, virtualCluster: shop}
spec: {principal: "User:x", resource: {type: Transactional_Id, name: t, pattern: PREFIXED}, operation: twoPhaseCommit, permission: deny}
---
apiVersion: tollgate/v1
kind: TopicGrant
metadata: {name: g, tenant: acme}
spec: {cluster: main, topic: {name: t}, access: read}
`)
	if problems != nil {
		t.Fatal(problems)
	}
	p := set.VirtualClusters["partner"].Spec
	if !p.ACLs.Enabled || !reflect.DeepEqual(p.Clusters, []string{"main"}) || p.Authentication.MaxReauthentication != Duration(90*time.Second) {
		t.Errorf("partner = %+v, want ACLs on, clusters [main], 90s", p)
	}
	if s := set.VirtualClusters["shop"].Spec; s.ACLs.Enabled || s.Topics.MaxPartitions != 100 || s.Topics.MinReplicationFactor != 1 ||
		s.Topics.MaxReplicationFactor != 3 || !reflect.DeepEqual(s.Topics.ConfigKeys, DefaultConfigKeys) {
		t.Errorf("shop = %+v, want ACLs off and the default topic policy", s)
	}
	want := ACLSpec{Principal: "User:x", Host: "*", Operation: "TWO_PHASE_COMMIT", Permission: "DENY", Resource: ACLResource{"transactionalId", "t", Prefixed}}
	if got := set.ACLs[0].Spec; got != want {
		t.Errorf("acl = %+v, want %+v", got, want)
	}
	if got := set.TopicGrants[0].Spec.Topic.Pattern; got != Literal {
		t.Errorf("pattern of a grant = %q, want literal", got)
	}
	if got := set.Tenants["acme"].Spec.State; got != TenantActive {
		t.Errorf("state of a tenant = %q, want active", got)
	}
}

// doc is an object in flow style, on one line.
func doc(kind, metadata, spec string) string {
	return "{apiVersion: tollgate/v1, kind: " + kind + ", metadata: {" + metadata + "}, spec: {" + spec + "}}\n"
}

func vc(spec string) string { return doc("VirtualCluster", "name: v, tenant: acme", spec) }

const good = "type: standard, host: v, home: main"

func account(spec string) string {
	return doc("ServiceAccount", "name: alice, virtualCluster: shop", spec)
}

func login(sasl string) string {
	return doc("UpstreamCluster", "name: c", "bootstrap: ['b:1'], sasl: {"+sasl+"}")
}

func loginTLS(sasl string) string {
	return doc("UpstreamCluster", "name: c", "bootstrap: ['b:1'], tls: {}, sasl: {"+sasl+"}")
}

func acl(spec string) string { return doc("Acl", "name: a, virtualCluster: shop", spec) }

const (
	key32 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	argon = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)

func scram(id, rest string) string {
	return "{id: " + id + ", mechanism: SCRAM-SHA-256, iterations: 4096, salt: c2FsdA==, storedKey: " + key32 + ", serverKey: " + key32 + rest + "}"
}

func TestWhatIsRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		text string // behind base
		want []string
	}{
		{"nothing wrong", "", nil},
		{"unknown kind", doc("Tennant", "name: x", ""), []string{`1: kind: unknown kind "Tennant"`}},
		{"kind missing", "{apiVersion: tollgate/v1}\n", []string{"1: kind: required"}},
		{"unknown version", "{apiVersion: tollgate/v2, kind: Tenant, metadata: {name: x}, spec: {}}\n", []string{`1: apiVersion: unknown version "tollgate/v2"`}},
		{"no metadata and no spec", "{apiVersion: tollgate/v1, kind: TopicGrant}\n", []string{"1: metadata: required", "1: spec: required"}},
		{"a document that is a list", "- a\n", []string{"1: must be a mapping"}},
		{
			"unknown field deep down", vc(good + ", authentication: {oauthbearer: [{issuer: a, audience: [b], jwksURL: 'file:c', audiences: x}]}"),
			[]string{"1: spec.authentication.oauthbearer[0].audiences: unknown field"},
		},
		{
			"required field of a list item", vc(good + ", authentication: {oauthbearer: [{issuer: 'https://a'}]}"),
			[]string{"1: spec.authentication.oauthbearer[0].audience: required"},
		},
		{
			"required field of a lone issuer", vc(good + ", authentication: {oauthbearer: {issuer: 'https://a'}}"),
			[]string{"1: spec.authentication.oauthbearer.audience: required"},
		},
		{"no issuer at all", vc(good + ", authentication: {oauthbearer: []}"), []string{"1: spec.authentication.oauthbearer: needs at least one"}},
		{
			"an issuer without discovery", vc(good + ", authentication: {oauthbearer: {issuer: me, audience: [k]}}"),
			[]string{"1: spec.authentication.oauthbearer.issuer: \"me\" is no http"},
		},
		{
			"an issuer twice", vc(good + ", authentication: {oauthbearer: [{issuer: 'http://a', audience: [k]}, {issuer: 'http://a', audience: [l]}]}"),
			[]string{"1: spec.authentication.oauthbearer[1].issuer: \"http://a\" appears twice"},
		},
		{
			"a JWKS of an unknown scheme", vc(good + ", authentication: {oauthbearer: {issuer: me, audience: [k], jwksURL: 'ftp://x'}}"),
			[]string{"1: spec.authentication.oauthbearer.jwksURL:"},
		},
		{"duplicate field", "apiVersion: tollgate/v1\nkind: Tenant\nmetadata: {name: x}\nspec:\n  plan: a\n  plan: b\n", []string{"6: spec.plan: appears twice, first in line "}},
		{"number for a string", doc("Tenant", "name: x", "plan: 7"), []string{"1: spec.plan: must be a string (put it in quotes), is a number"}},
		{"string for a list", doc("Tenant", "name: x", "contacts: a@b"), []string{"1: spec.contacts: must be a list, is a string"}},
		{
			"null for a mechanism", "apiVersion: tollgate/v1\nkind: VirtualCluster\nmetadata: {name: v, tenant: acme}\nspec:\n  type: standard\n  host: v\n  home: main\n  authentication:\n    plain:\n",
			[]string{"9: spec.authentication.plain: must be an empty mapping: write {}, is empty"},
		},
		{"float for an integer", vc(good + ", authentication: {plain: {}}, quotas: {connections: 1.5}"), []string{"1: spec.quotas.connections: must be a whole number"}},
		{"octal numbers", doc("Tenant", "name: x, revision: 010", "") + "---\n" + doc("Tenant", "name: y, revision: -08", "") + "---\n" + doc("Tenant", "name: z, revision: 0_7", ""), []string{"1: metadata.revision: begins with 0", "3: metadata.revision: begins with 0", "5: metadata.revision: begins with 0"}},
		{"zero", doc("Tenant", "name: x, revision: 0", ""), nil},
		{"number too large", vc(good + ", authentication: {plain: {}}, topics: {maxPartitions: 3000000000}"), []string{"1: spec.topics.maxPartitions: number is too large"}},
		{"word for a boolean", vc(good + ", authentication: {plain: {}}, autoCreateTopics: yes"), []string{"1: spec.autoCreateTopics: must be true or false"}},
		{"time without a zone", doc("TopicGrant", "name: g, tenant: acme", "cluster: main, topic: {name: t}, access: read, until: 2027-06-30"), []string{"1: spec.until: must be a time"}},
		{"duration without a unit", vc(good + ", authentication: {plain: {}, maxReauthentication: 30}"), []string{"1: spec.authentication.maxReauthentication: must be a duration"}},
		{"negative duration", vc(good + ", authentication: {plain: {}, maxReauthentication: -1s}"), []string{"1: spec.authentication.maxReauthentication: must not be negative"}},
		{"an alias of YAML", "apiVersion: tollgate/v1\nkind: Tenant\nmetadata: {name: &n x}\nspec: {plan: *n}\n", []string{"4: spec.plan: anchors and aliases"}},
		{"a merge key", "apiVersion: tollgate/v1\nkind: Tenant\nmetadata: {name: x, labels: &l {a: b}}\nspec: {<<: *l}\n", []string{"4: spec: has a key that is no plain name"}},
		{"not YAML", "a: [\n", []string{"not YAML"}},

		{"name is no label", doc("Tenant", "name: Big_Co", ""), []string{`1: metadata.name: "Big_Co" is not a DNS label`}},
		{"a virtual cluster's name with a dot", doc("VirtualCluster", "name: shop.eu, tenant: acme", good+", authentication: {plain: {}}"), []string{`1: metadata.name: "shop.eu" is not a DNS label`}},
		{"name is too long", doc("Tenant", "name: "+strings.Repeat("a", 64), ""), []string{"1: metadata.name:"}},
		{
			"name is missing, and more", doc("Tenant", "revision: -1", "state: gone"),
			[]string{"1: metadata.name: required", "1: metadata.revision: must not be negative", `1: spec.state: unknown word "gone": one of active, suspended, closing`},
		},
		{"a tenant of a tenant", doc("Tenant", "name: x, tenant: acme", ""), []string{"1: metadata.tenant: has no meaning for a Tenant"}},
		{"a virtual cluster of a tenant", doc("Tenant", "name: x, virtualCluster: shop", ""), []string{"1: metadata.virtualCluster: has no meaning for a Tenant"}},
		{"the same name twice", doc("Tenant", "name: acme", ""), []string{"1: metadata.name: Tenant acme exists already, in "}},
		{"the same name in one scope", account("type: local, password: 'env:A'") + "---\n" + account("type: local, password: 'env:A'"), []string{"3: metadata.name: ServiceAccount alice of shop exists already"}},

		{"a bootstrap list is missing", doc("UpstreamCluster", "name: c", ""), []string{"1: spec.bootstrap: required"}},
		{
			"a bootstrap address without a port", doc("UpstreamCluster", "name: c", "bootstrap: [a, 'b:1', 'c:0', 'd:70000', ':1']"),
			[]string{"1: spec.bootstrap[0]:", "1: spec.bootstrap[2]:", "1: spec.bootstrap[3]:", "1: spec.bootstrap[4]:"},
		},
		{"a certificate without its key", doc("UpstreamCluster", "name: c", "bootstrap: ['b:1'], tls: {certFile: c.pem}"), []string{"1: spec.tls.keyFile: required beside certFile"}},
		{"a key without its certificate", doc("UpstreamCluster", "name: c", "bootstrap: ['b:1'], tls: {keyFile: 'file:k.pem'}"), []string{"1: spec.tls.certFile: required beside keyFile"}},
		{"a key by its bare path", doc("UpstreamCluster", "name: c", "bootstrap: ['b:1'], tls: {certFile: c, keyFile: k.pem}"), []string{"1: spec.tls.keyFile: must be a reference and not the secret itself: write env:NAME or file:PATH"}},
		{"a login with a field of another mechanism", login("mechanism: PLAIN, username: u, password: 'env:A', region: eu-west-1"), []string{"1: spec.sasl.region: has no meaning for PLAIN: its fields are username, password"}},
		{
			"a login with fields of several others", login("mechanism: GSSAPI, keytab: 'file:k', principal: g@R, username: u, clientSecret: 'env:A', caFile: x"),
			[]string{"1: spec.sasl.username: has no meaning for GSSAPI", "1: spec.sasl.caFile: has", "1: spec.sasl.clientSecret: has"},
		},
		{"an unknown field of a login", login("mechanism: PLAIN, username: u, password: 'env:A', tokenEndpoint: x"), []string{"1: spec.sasl.tokenEndpoint: unknown field"}},
		{
			"secrets in the place of references", loginTLS("mechanism: AWS_MSK_IAM, region: eu-west-1, accessKeyID: AKIA, secretAccessKey: hunter2, sessionToken: 'aws-sm:x'"),
			[]string{"1: spec.sasl.accessKeyID: must be a reference", "1: spec.sasl.secretAccessKey: must be a reference", "1: spec.sasl.sessionToken: aws-sm: is not supported yet"},
		},
		{"a secret of no mechanism", login("password: hunter2"), []string{"1: spec.sasl.mechanism: required", "1: spec.sasl.password: must be a reference"}},
		{
			"tokens from nowhere", login("mechanism: OAUTHBEARER"),
			[]string{"1: spec.sasl.tokenURL: required for OAUTHBEARER", "1: spec.sasl.clientID: required", "1: spec.sasl.clientSecret: required for OAUTHBEARER: write env:NAME or file:PATH"},
		},
		{
			"tokens from what is no endpoint", login("mechanism: OAUTHBEARER, tokenURL: 'ftp://u:hunter2@x', clientID: c, clientSecret: 'env:A', caFile: ca.pem"),
			[]string{"1: spec.sasl.tokenURL: is not an http or https URL", "1: spec.sasl.caFile: has no meaning for a token endpoint without https"},
		},
		{"a secret in a URL", login("mechanism: OAUTHBEARER, tokenURL: 'https://c:hunter2@x/token', clientID: c, clientSecret: 'env:A'"), []string{"1: spec.sasl.tokenURL: must not hold a user or a password"}},
		{
			"scopes and extensions that cannot be sent", login("mechanism: OAUTHBEARER, tokenURL: 'https://x', clientID: c, clientSecret: 'env:A', scopes: [a b, c], extensions: {auth: x, a-b: x, pool: ''}"),
			[]string{`1: spec.sasl.scopes[0]: "a b" is not one scope`, "1: spec.sasl.extensions.auth: auth is where", "1: spec.sasl.extensions.a-b: the name of an extension", "1: spec.sasl.extensions.pool: must be printable"},
		},
		{"Kerberos without a key", login("mechanism: GSSAPI"), []string{"1: spec.sasl.keytab: required for GSSAPI", "1: spec.sasl.principal: required"}},
		{
			"Kerberos with what it cannot use", login("mechanism: GSSAPI, keytab: 'env:KEYTAB', principal: 'a b', serviceName: kafka/x, krb5Conf: ''"),
			[]string{"1: spec.sasl.keytab: a keytab is not text", `1: spec.sasl.principal: "a b" is not a principal`, `1: spec.sasl.serviceName: "kafka/x" is not`, "1: spec.sasl.krb5Conf: must not be empty"},
		},
		{"MSK without TLS and region", login("mechanism: AWS_MSK_IAM"), []string{"1: spec.sasl.region: required for AWS_MSK_IAM", "1: spec.tls: required for AWS_MSK_IAM"}},
		{
			"MSK with half a key", loginTLS("mechanism: AWS_MSK_IAM, region: eu-west-1, accessKeyID: 'env:A'") + "---\n" + doc("UpstreamCluster", "name: d", "bootstrap: ['b:1'], tls: {}, sasl: {mechanism: AWS_MSK_IAM, region: eu-west-1, sessionToken: 'env:A'}"),
			[]string{"1: spec.sasl.secretAccessKey: required beside accessKeyID", "3: spec.sasl.sessionToken: has no meaning without accessKeyID"},
		},
		{
			"MSK with what belongs to a role", loginTLS("mechanism: AWS_MSK_IAM, region: eu-west-1, externalId: 'x y', stsEndpoint: sts, profile: p, accessKeyID: 'env:A', secretAccessKey: 'env:A'"),
			[]string{"1: spec.sasl.externalId: has no meaning without roleArn", "1: spec.sasl.externalId: is not an external id", "1: spec.sasl.stsEndpoint: has no meaning without roleArn", "1: spec.sasl.stsEndpoint: is not an http", "1: spec.sasl.profile: has no meaning beside accessKeyID"},
		},
		{
			"MSK with words that are not AWS's", loginTLS("mechanism: AWS_MSK_IAM, region: Ireland, roleArn: 'arn:aws:iam::1:user/x'"),
			[]string{`1: spec.sasl.region: "Ireland" is not an AWS region`, `1: spec.sasl.roleArn: "arn:aws:iam::1:user/x" is not the ARN of a role`},
		},
		{"a mechanism nobody knows", doc("UpstreamCluster", "name: c", "bootstrap: ['b:1'], sasl: {mechanism: MD5}"), []string{`1: spec.sasl.mechanism: unknown mechanism "MD5"`}},
		{"a login without credentials", doc("UpstreamCluster", "name: c", "bootstrap: ['b:1'], sasl: {mechanism: PLAIN}"), []string{"1: spec.sasl.username: required for PLAIN", "1: spec.sasl.password: required for PLAIN: write env:NAME or file:PATH"}},

		{
			"everything a virtual cluster needs", doc("VirtualCluster", "name: v", ""),
			[]string{"1: metadata.tenant: required", "1: spec.type: required", "1: spec.host: required", "1: spec.home: required", "1: spec.authentication: needs at least one"},
		},
		{
			"references that lead nowhere", doc("VirtualCluster", "name: v, tenant: t", "type: standard, host: v, home: h, clusters: [h, c], authentication: {plain: {}}"),
			[]string{`1: metadata.tenant: there is no Tenant "t"`, `1: spec.home: there is no UpstreamCluster "h"`, `1: spec.clusters[0]: there is no`, `1: spec.clusters[1]: there is no UpstreamCluster "c"`},
		},
		{"home outside the clusters", vc("type: standard, host: v, home: main, clusters: [west], authentication: {plain: {}}"), []string{`1: spec.clusters: must contain home, "main"`}},
		{"a cluster twice", vc("type: standard, host: v, home: main, clusters: [main, main], authentication: {plain: {}}"), []string{`1: spec.clusters[1]: "main" appears twice`}},
		{"the host of a virtual broker", vc("type: standard, host: b12-x, home: main, authentication: {plain: {}}"), []string{`1: spec.host: "b12-x" looks like the host of a virtual broker`}},
		{"a host like the start of a virtual broker's", vc("type: standard, host: b12, home: main, authentication: {plain: {}}"), []string{`1: spec.host: "b12" looks like the host of a virtual broker`}},
		{"hosts that only begin like a broker's", vc("type: standard, host: b12x, home: main, customHosts: [b, b-1, bb1-x, x.b1], authentication: {plain: {}}"), nil},
		{
			"custom hosts of virtual brokers", vc(good + ", customHosts: [b1.example, b007, b1-2.example], authentication: {plain: {}}"),
			[]string{"1: spec.customHosts[0]:", "1: spec.customHosts[1]:", "1: spec.customHosts[2]:"},
		},
		{
			"custom hosts that are addresses", vc(good + ", customHosts: [10.0.0.1, '2001:db8::1', '127.1', k.1example], authentication: {plain: {}}"),
			[]string{`1: spec.customHosts[0]: "10.0.0.1" is an IP address`, `1: spec.customHosts[1]: "2001:db8::1" is an IP address`, `1: spec.customHosts[2]: "127.1" is an IP address`},
		},
		{"a host without room for its brokers", vc("type: standard, host: " + strings.Repeat("h", 52) + ", home: main, authentication: {plain: {}}"), []string{"1: spec.host:"}},
		{"a host that is taken", vc("type: standard, host: shop, home: main, authentication: {plain: {}}"), []string{`1: spec.host: "shop" is a host of VirtualCluster shop already, in `}},
		{
			"a custom host twice", vc(good + ", customHosts: [k.example, k.example, K.example, b1-k.example], authentication: {plain: {}}"),
			[]string{"1: spec.customHosts[1]:", "1: spec.customHosts[2]:", "1: spec.customHosts[3]:"},
		},
		{"anonymous and something else", vc(good + ", authentication: {anonymous: {}, scram: {}}"), []string{"1: spec.authentication.anonymous: stands alone"}},
		{"no mechanism", vc(good + ", authentication: {}"), []string{"1: spec.authentication: needs at least one"}},
		{"mTLS without a CA", vc(good + ", authentication: {mtls: {}}"), []string{"1: spec.authentication.mtls.caFile: required"}},
		{"a partner without ACLs", vc("type: partner, host: v, home: main, authentication: {plain: {}}, acls: {enabled: false}"), []string{"1: spec.acls.enabled: a virtual cluster of type partner always has ACLs"}},
		{"a partner that creates topics", vc("type: partner, host: v, home: main, authentication: {plain: {}}, autoCreateTopics: true"), []string{"1: spec.autoCreateTopics:"}},
		{
			"a super user without a type", vc(good + ", authentication: {plain: {}}, acls: {superUsers: [admin, 'Group:x', 'User:']}"),
			[]string{"1: spec.acls.superUsers[0]: \"admin\" has no type: write User:admin", "1: spec.acls.superUsers[1]:", "1: spec.acls.superUsers[2]:"},
		},
		{
			"negative quotas", vc(good + ", authentication: {plain: {}}, quotas: {produceBytesPerSecond: -1, fetchBytesPerSecond: -1, requestsPerSecond: -1, connections: -1, connectionsPerSecond: -1, partitions: -1}"),
			[]string{"1: spec.quotas.produceBytesPerSecond:", "1: spec.quotas.fetchBytesPerSecond:", "1: spec.quotas.requestsPerSecond:", "1: spec.quotas.connections: must not be negative", "1: spec.quotas.connectionsPerSecond:", "1: spec.quotas.partitions:"},
		},
		{
			"a topic policy that contradicts itself", vc(good + ", authentication: {plain: {}}, topics: {maxPartitions: 3, defaultPartitions: 4, minReplicationFactor: 3, maxReplicationFactor: 2, defaultReplicationFactor: 1, configKeys: ['']}"),
			[]string{"1: spec.topics.defaultPartitions:", "1: spec.topics.minReplicationFactor:", "1: spec.topics.defaultReplicationFactor:", "1: spec.topics.configKeys[0]:"},
		},

		{
			"a grant of nothing", doc("TopicGrant", "name: g, tenant: acme", "topic: {pattern: regex}"),
			[]string{"1: spec.cluster: required", `1: spec.topic.pattern: unknown word "regex": one of literal, prefixed`, "1: spec.access: required: one of read, read-write", "1: spec.topic.name: required"},
		},
		{"a grant of no topic's name", doc("TopicGrant", "name: g, tenant: acme", "cluster: main, topic: {name: 'a b'}, access: read"), []string{"1: spec.topic.name:"}},

		{
			"alias names that are no topics", doc("AliasTopic", "name: 'a b', virtualCluster: shop", "cluster: main, topic: t") + "---\n" +
				doc("AliasTopic", "name: '..', virtualCluster: shop", "cluster: main, topic: u") + "---\n" +
				doc("AliasTopic", "name: __x, virtualCluster: shop", "cluster: main, topic: v") + "---\n" +
				doc("AliasTopic", "name: "+strings.Repeat("a", 250)+", virtualCluster: shop", "cluster: main, topic: w"),
			[]string{"1: metadata.name:", "3: metadata.name:", "5: metadata.name: must not begin with __", "7: metadata.name: topic name has 250"},
		},
		{"alias names at the edge, without a grant", doc("AliasTopic", "name: "+strings.Repeat("A", 249)+", virtualCluster: shop", "cluster: main, topic: t") + "---\n" +
			doc("AliasTopic", "name: _a.B-9, virtualCluster: shop", "cluster: main, topic: u"), nil},
		{"a slot twice", vc("type: standard, host: v, home: main, clusters: [main, west], slots: {main: 3, west: 3}, authentication: {plain: {}}"), []string{`1: spec.slots.west: 3 is the slot of cluster main already`}},
		{"a slot of home's", vc("type: standard, host: v, home: main, clusters: [main, west], slots: {west: 0}, authentication: {plain: {}}"), []string{`1: spec.slots: clusters west and main both have slot 0: write slots: {main: N} with a number between 0 and 16383`}},
		{"a slot out of range", vc("type: standard, host: v, home: main, slots: {main: 16384}, authentication: {plain: {}}"), []string{`1: spec.slots.main: 16384 is not between 0 and 16383`}},
		{
			"transactions on a cluster that is not spanned", vc("type: standard, host: v, home: main, transactions: [{prefix: a, cluster: west}, {prefix: a, cluster: main}, {cluster: main}], authentication: {plain: {}}"),
			[]string{`1: spec.transactions[0].cluster: "west" is not among spec.clusters`, `1: spec.transactions[1].prefix: "a" appears twice`, `1: spec.transactions[2].prefix: required`},
		},
		{"stubs kept for less than no time", vc("type: standard, host: v, home: main, stubs: {keepFor: -1s, replicationFactor: -1}, authentication: {plain: {}}"), []string{`1: spec.stubs.replicationFactor: must not be negative`, `1: spec.stubs.keepFor: must not be negative`}},
		{"an identity that is none", doc("AliasTopic", "name: a, virtualCluster: shop", "cluster: main, topic: t, identity: orders"), []string{`1: spec.identity: "orders" is no topic id`}},
		{"an alias on a cluster that is not spanned", doc("AliasTopic", "name: a, virtualCluster: shop", "cluster: west, topic: t"), []string{`1: spec.cluster: "west" is not among the clusters of VirtualCluster shop`}},
		{
			"two aliases of one physical topic", doc("AliasTopic", "name: a, virtualCluster: shop", "cluster: main, topic: t") + "---\n" + doc("AliasTopic", "name: b, virtualCluster: shop", "cluster: main, topic: t"),
			[]string{"3: spec.topic: t of main has an alias in this virtual cluster already: AliasTopic a"},
		},
		{"an alias of the virtual cluster's own topic", doc("AliasTopic", "name: a, virtualCluster: shop", "cluster: main, topic: shop.t"), []string{`1: spec.topic: "shop.t" is a topic of VirtualCluster shop itself`}},
		{
			"aliases beside the virtual cluster's own topics", vc("type: partner, host: v, home: main, clusters: [main, west], authentication: {plain: {}}") + "---\n" +
				doc("AliasTopic", "name: a, virtualCluster: v", "cluster: main, topic: v.t") + "---\n" +
				doc("AliasTopic", "name: b, virtualCluster: shop", "cluster: main, topic: shopping"),
			nil,
		},
		{
			"the prefix on another cluster", doc("VirtualCluster", "name: v, tenant: acme", "type: standard, host: v, home: main, clusters: [main, west], authentication: {plain: {}}") + "---\n" +
				doc("AliasTopic", "name: a, virtualCluster: v", "cluster: west, topic: v.t"),
			nil,
		},
		{
			"aliases of the brokers' own topics", doc("AliasTopic", "name: a, virtualCluster: shop", "cluster: main, topic: __consumer_offsets") + "---\n" +
				doc("AliasTopic", "name: b, virtualCluster: shop", "cluster: main, topic: __transaction_state") + "---\n" +
				doc("AliasTopic", "name: c, virtualCluster: shop", "cluster: main, topic: __consumer_offsets_copy"),
			[]string{`1: spec.topic: "__consumer_offsets" is`, `3: spec.topic: "__transaction_state" is`},
		},
		{
			"grants of the brokers' own topics", doc("TopicGrant", "name: g, tenant: acme", "cluster: main, topic: {name: __share_group_state}, access: read") + "---\n" +
				doc("TopicGrant", "name: h, tenant: acme", "cluster: main, topic: {name: __cluster_metadata, pattern: prefixed}, access: read") + "---\n" +
				doc("TopicGrant", "name: i, tenant: acme", "cluster: main, topic: {name: _, pattern: prefixed}, access: read"),
			[]string{`1: spec.topic.name: "__share_group_state" is`, `3: spec.topic.name: "__cluster_metadata" is`},
		},
		{"an alias of nothing, nowhere", doc("AliasTopic", "name: a, virtualCluster: nowhere", ""), []string{`1: metadata.virtualCluster: there is no VirtualCluster "nowhere"`, "1: spec.cluster: required", "1: spec.topic: required"}},

		{"a password in the file", account("type: local, password: hunter2"), []string{"1: spec.password: must be a reference and not the secret itself: write env:NAME or file:PATH"}},
		{"a password of digits", account("type: local, password: 123456"), []string{"1: spec.password: must be a reference and not the secret itself: write env:NAME or file:PATH"}},
		{"an empty password", account("type: local, password: ''"), []string{"1: spec.password: must be a reference"}},
		{"references to nothing", account("type: local, password: 'env:'"), []string{"1: spec.password: env: needs"}},
		{"a secrets manager", account("type: local, password: 'aws-sm:x'"), []string{"1: spec.password: aws-sm: is not supported yet"}},
		{"a local account that cannot prove anything", account("type: local"), []string{"1: spec: a local account needs password or verifiers"}},
		{
			"negative quotas of an account", account("type: local, password: 'env:A', quotas: {produceBytesPerSecond: -1, fetchBytesPerSecond: -1, requestsPerSecond: -1, connections: -1, connectionsPerSecond: -1}"),
			[]string{"1: spec.quotas.produceBytesPerSecond:", "1: spec.quotas.fetchBytesPerSecond:", "1: spec.quotas.requestsPerSecond:", "1: spec.quotas.connections: must not be negative", "1: spec.quotas.connectionsPerSecond:"},
		},
		{"partitions of an account", account("type: local, password: 'env:A', quotas: {partitions: 1}"), []string{"1: spec.quotas.partitions: unknown field"}},
		{"an external account nobody names", account("type: external"), []string{"1: spec.externalNames: required"}},
		{
			"fields of the other type", account("type: local, password: 'env:A', externalNames: [x]") + "---\n" + doc("ServiceAccount", "name: bob, virtualCluster: shop", "type: external, externalNames: [y], password: 'env:A', verifiers: []"),
			[]string{"1: spec.externalNames: has no meaning", "3: spec.password: has no meaning", "3: spec.verifiers: has no meaning"},
		},
		{
			"an external name twice", account("type: external, externalNames: [x, y, x]") + "---\n" + doc("ServiceAccount", "name: bob, virtualCluster: shop", "type: external, externalNames: [y]"),
			[]string{`1: spec.externalNames[2]: "x" is a name of ServiceAccount alice already`, `3: spec.externalNames[0]: "y" is a name of ServiceAccount alice already`},
		},
		{"two live secrets, and a dead one", account("type: local, verifiers: [" + scram("a", "") + ", " + scram("b", "") + ", " + scram("c", ", expires: 2020-01-01T00:00:00Z") + "]"), nil},
		{"three live secrets", account("type: local, verifiers: [" + scram("a", "") + ", " + scram("b", "") + ", " + scram("c", ", expires: 2999-01-01T00:00:00Z") + "]"), []string{"1: spec.verifiers: 3 secrets are live"}},
		{"a password and two verifiers", account("type: local, password: 'env:A', verifiers: [" + scram("a", "") + ", " + scram("b", "") + "]"), []string{"1: spec.verifiers: 3 secrets are live"}},
		{"one secret by two mechanisms, twice", account("type: local, verifiers: [" + scram("a", "") + ", {id: a, mechanism: argon2id, hash: '" + argon + "'}, " + scram("b", "") + ", {id: b, mechanism: argon2id, hash: '" + argon + "'}]"), nil},
		{"one secret twice by one mechanism", account("type: local, verifiers: [" + scram("a", "") + ", " + scram("a", "") + "]"), []string{"1: spec.verifiers[1].id:"}},
		{
			"a broken SCRAM verifier", account("type: local, verifiers: [{mechanism: SCRAM-SHA-512, iterations: 4095, storedKey: " + key32 + ", serverKey: '?', hash: x}]"),
			[]string{"1: spec.verifiers[0].hash: has no meaning", "1: spec.verifiers[0].iterations: must be from 4096 to 16384", "1: spec.verifiers[0].salt: required", "1: spec.verifiers[0].storedKey: must be 64 bytes in base64, is 32", "1: spec.verifiers[0].serverKey: is not base64"},
		},
		{"too many iterations", account("type: local, verifiers: [" + strings.Replace(scram("a", ""), "4096", "16385", 1) + "]"), []string{"1: spec.verifiers[0].iterations:"}},
		{
			"a broken argon2id verifier", account("type: local, verifiers: [{mechanism: argon2id, hash: x, salt: x}, {mechanism: argon2id}]"),
			[]string{"1: spec.verifiers[0].salt: has no meaning", "1: spec.verifiers[0].hash: is no PHC string", "1: spec.verifiers[1].hash: required"},
		},
		{"argon2id as a weapon", account("type: local, verifiers: [{mechanism: argon2id, hash: '" + strings.Replace(argon, "m=19456", "m=4194304", 1) + "'}]"), []string{"1: spec.verifiers[0].hash: asks for too little or too much"}},
		{"a mechanism for verifiers nobody knows", account("type: local, verifiers: [{mechanism: bcrypt}, {}]"), []string{"1: spec.verifiers[0].mechanism: unknown", "1: spec.verifiers[1].mechanism: required"}},

		{"an empty ACL", acl(""), []string{"1: spec.principal: required", "1: spec.resource.type: required", "1: spec.resource.name: required", "1: spec.operation: required", "1: spec.permission: required"}},
		{
			"words that are not Kafka's", acl("principal: alice, host: example.com, resource: {type: queue, name: x, pattern: match}, operation: PUBLISH, permission: MAYBE"),
			[]string{"1: spec.principal:", "1: spec.host:", "1: spec.resource.type:", "1: spec.resource.pattern:", "1: spec.operation:", "1: spec.permission:"},
		},
		{"an operation of another type", acl("principal: 'User:*', resource: {type: group, name: x}, operation: WRITE, permission: ALLOW"), []string{"1: spec.operation: WRITE has no meaning for a resource of type group: one of ALL, READ"}},
		{"another name for the cluster", acl("principal: 'User:*', resource: {type: cluster, name: main}, operation: ALTER, permission: ALLOW"), []string{"1: spec.resource.name: the only resource of type cluster is kafka-cluster"}},
		{"ALL, and words in any case", acl("principal: 'User:gone', host: '2001:db8::1', resource: {type: TOPIC, name: '*'}, operation: All, permission: Allow"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, problems := load(t, base+c.text)
			var got []string
			for _, p := range problems {
				if p.Line <= baseLines && p.Line != 0 {
					t.Errorf("problem in the valid part: %v", p)
				}
				p.Line -= baseLines
				got = append(got, strings.TrimPrefix(p.String(), p.File+":"))
			}
			matched := make([]bool, len(got))
		next:
			for _, want := range c.want {
				for i, g := range got {
					if !matched[i] && strings.Contains(g, want) {
						matched[i] = true
						continue next
					}
				}
				t.Errorf("no problem %q", want)
			}
			for i, g := range got {
				if !matched[i] {
					t.Errorf("unexpected problem %q", g)
				}
			}
			if all := problems.Error(); strings.Contains(all, "hunter2") {
				t.Errorf("a secret is shown: %s", all)
			}
		})
	}
}

func TestEveryProblemOfEveryFileComesAtOnce(t *testing.T) {
	dir := write(t, map[string]string{
		"b.yml":          "a: [\n",
		"a.yaml":         "\n# first\n---\n" + doc("Tenant", "name: A", "") + "---\n" + doc("Tenant", "name: ok, x: y", ""),
		"deep/c.yaml":    vc(good + ", authentication: {}"),
		"notes.txt":      "not: [yaml",
		".git/d.yaml":    "not: [yaml",
		"deep/.swp.yaml": "not: [yaml",
	})
	_, err := LoadDir(dir)
	problems, _ := errors.AsType[Problems](err)
	var got []string
	for _, p := range problems {
		rel, _ := filepath.Rel(dir, p.File)
		p.File = rel
		p.Message = ""
		got = append(got, p.String())
	}
	want := []string{
		"a.yaml:4: metadata.name: ", "a.yaml:6: metadata.x: ", "b.yml:1: ",
		"deep/c.yaml:1: metadata.tenant: ", "deep/c.yaml:1: spec.home: ", "deep/c.yaml:1: spec.authentication: ",
	}
	// YAML's own line numbers of syntax errors are approximate.
	for i := range got {
		if strings.HasPrefix(got[i], "b.yml:") {
			got[i] = "b.yml:1: "
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("problems = %q, want %q\n%v", got, want, err)
	}
}

// A mount of Kubernetes holds each file twice: in a directory that begins with
// two dots, and as a link to it.
func TestLinkedFilesAreReadOnce(t *testing.T) {
	dir := write(t, map[string]string{"..2026/tenant.yaml": tenant})
	if err := os.Symlink("..2026", filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..data/tenant.yaml", filepath.Join(dir, "tenant.yaml")); err != nil {
		t.Fatal(err)
	}
	set, err := LoadDir(dir)
	if err != nil || len(set.Tenants) != 1 {
		t.Errorf("LoadDir = %v, %v, want one tenant", set, err)
	}
}

func TestDirectoriesThatCannotBeRead(t *testing.T) {
	if set, err := LoadDir(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Errorf("LoadDir of no directory = %v, want an error", set)
	}
	dir := write(t, map[string]string{"a.yaml": tenant})
	if err := os.Symlink("nowhere", filepath.Join(dir, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	if set, err := LoadDir(dir); err == nil {
		t.Errorf("LoadDir with a dangling link = %v, want an error", set)
	}
}

// What looks like the end of every tenant is far more often a volume that is not
// mounted.
func TestADirectoryWithoutObjectsIsRefused(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"empty":              nil,
		"other files":        {"notes.txt": tenant, ".hidden.yaml": tenant},
		"no documents":       {"a.yaml": "# nothing\n---\n"},
		"empty subdirectory": {".keep": "", "sub/.keep": ""},
	} {
		dir := write(t, files)
		set, err := LoadDir(dir)
		problems, _ := errors.AsType[Problems](err)
		if set != nil || len(problems) != 1 || problems[0].File != dir || !strings.Contains(problems[0].Message, "no objects") {
			t.Errorf("%s: LoadDir = %v, %v, want no set and one problem of the directory", name, set, err)
		}
	}
}

func TestLinksToDirectoriesAreFollowed(t *testing.T) {
	link := func(target, path string) {
		t.Helper()
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	const secret = "---\napiVersion: tollgate/v1\nkind: UpstreamCluster\nmetadata: {name: tls}\nspec: {bootstrap: ['b:1'], tls: {caFile: ca.pem}}\n"
	dir := write(t, map[string]string{"real/a.yaml": tenant + secret, "..2026/sub/b.yaml": cluster, "other/.keep": ""})
	root := filepath.Join(dir, "root")
	link("real", root)
	link(filepath.Join("..", "..2026"), filepath.Join(dir, "real", "..data"))
	link(filepath.Join("..data", "sub"), filepath.Join(dir, "real", "sub"))
	set, err := LoadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	if set.Tenants["acme"] == nil || set.UpstreamClusters["main"] == nil || len(set.UpstreamClusters) != 2 {
		t.Fatalf("LoadDir of a link = %+v, want the tenant and two clusters", set)
	}
	if got, want := set.UpstreamClusters["main"].Metadata.Source.File, filepath.Join(root, "sub", "b.yaml"); got != want {
		t.Errorf("source below a link = %s, want %s", got, want)
	}
	if got, want := set.UpstreamClusters["tls"].Spec.TLS.CAFile, filepath.Join(root, "ca.pem"); got != want {
		t.Errorf("caFile below a link = %s, want %s", got, want)
	}

	back := filepath.Join(dir, "real", "sub", "back")
	link(filepath.Join(dir, "..2026"), back)
	link("nowhere", filepath.Join(dir, "real", "gone"))
	_, err = LoadDir(root)
	problems, _ := errors.AsType[Problems](err)
	if len(problems) != 2 || problems[0].File != filepath.Join(root, "gone") ||
		problems[1].File != filepath.Join(root, "sub", "back", "sub") || !strings.Contains(problems[1].Message, "leads back") {
		t.Errorf("LoadDir with a circle and a dangling link: %v, want a problem of each", err)
	}
}

func TestWhatBelongsToWhom(t *testing.T) {
	set, problems := load(t, base+account("type: local, password: 'env:A'")+"---\n"+
		doc("ServiceAccount", "name: bob, virtualCluster: shop", "type: local, password: 'env:A'")+"---\n"+
		doc("TopicGrant", "name: g, tenant: acme", "cluster: main, topic: {name: t}, access: read"))
	if problems != nil {
		t.Fatal(problems)
	}
	_, first, _ := set.OfVirtualCluster("shop")
	if len(first) != 2 || first[0].Metadata.Name != "alice" || first[1].Metadata.Name != "bob" {
		t.Errorf("accounts of shop = %v, want alice and bob in the order of the file", first)
	}
	// Every reload asks for every virtual cluster: asking must not search again.
	if n := testing.AllocsPerRun(10, func() { set.OfVirtualCluster("shop"); set.GrantsOf("acme") }); n != 0 {
		t.Errorf("asking again allocates %v times, want 0", n)
	}
	// What a caller appends is the caller's alone.
	if one, two := append(first, nil), append(first, first[0]); one[2] != nil || two[2] != first[0] {
		t.Error("two callers share the room behind the accounts")
	}
	if got := new(Set).GrantsOf("acme"); got != nil {
		t.Errorf("grants in an empty set = %v, want none", got)
	}
}

// The directory of a file that stands behind a syntax error is not blamed for
// what it may have held.
func TestASyntaxErrorHasNoEchoes(t *testing.T) {
	_, err := LoadDir(write(t, map[string]string{
		"a.yaml": strings.Replace(tenant, "spec: {}", "spec: {", 1),
		"b.yaml": cluster + "---\n" + virtual,
	}))
	if problems, _ := errors.AsType[Problems](err); len(problems) != 1 {
		t.Errorf("LoadDir: %v, want the syntax error alone", err)
	}
}

func TestGrantCovers(t *testing.T) {
	end := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	grant := func(name string, p Pattern, until time.Time) *TopicGrant {
		return &TopicGrant{Spec: TopicGrantSpec{Cluster: "main", Topic: TopicSelector{Name: name, Pattern: p}, Until: until}}
	}
	for _, c := range []struct {
		name           string
		grant          *TopicGrant
		cluster, topic string
		now            time.Time
		want           bool
	}{
		{"the topic itself", grant("a", Literal, time.Time{}), "main", "a", end, true},
		{"an empty pattern is literal", grant("a", "", time.Time{}), "main", "ab", end, false},
		{"a longer name", grant("a", Literal, time.Time{}), "main", "ab", end, false},
		{"the brokers' own topic", grant("_", Prefixed, time.Time{}), "main", "__consumer_offsets", end, false},
		{"another cluster", grant("a", Literal, time.Time{}), "west", "a", end, false},
		{"the prefix alone", grant("a.", Prefixed, time.Time{}), "main", "a.", end, true},
		{"below the prefix", grant("a.", Prefixed, time.Time{}), "main", "a.b", end, true},
		{"shorter than the prefix", grant("a.", Prefixed, time.Time{}), "main", "a", end, false},
		{"before the end", grant("a", Literal, end), "main", "a", end.Add(-1), true},
		{"at the end", grant("a", Literal, end), "main", "a", end, false},
	} {
		if got := c.grant.Covers(c.cluster, c.topic, c.now); got != c.want {
			t.Errorf("%s: Covers(%s, %s) = %v, want %v", c.name, c.cluster, c.topic, got, c.want)
		}
	}
}

// Whatever a file holds, reading it neither panics nor blames a line the file
// does not have, and what is accepted is accepted again.
func FuzzLoad(f *testing.F) {
	examples, err := os.ReadFile("testdata/examples/acme.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(examples)
	f.Add([]byte(base))
	f.Add([]byte(base + account("type: local, verifiers: ["+scram("a", "")+"]")))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("? [x]\n: y\n--- !!binary aa\n"))
	f.Add([]byte(base + vc(good+", authentication: {oauthbearer: {issuer: 1}}")))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, data []byte) {
		read := func() (*Set, Problems) {
			var problems Problems
			l := &loader{now: now, problems: &problems}
			l.add("a.yaml", "/etc/tollgate", data)
			set, err := l.finish()
			if (set == nil) != (err != nil) {
				t.Fatalf("set %v, error %v: want one of them", set, err)
			}
			return set, problems
		}
		set, problems := read()
		lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") +
			strings.Count(string(data), "\u0085") + strings.Count(string(data), "\u2028") + strings.Count(string(data), "\u2029") + 2
		for _, p := range problems {
			if p.File != "a.yaml" || p.Line < 0 || p.Line > lines || p.Message == "" {
				t.Errorf("problem %+v of a file with %d lines", p, lines)
			}
		}
		again, _ := read()
		if !reflect.DeepEqual(set, again) {
			t.Errorf("read twice: %+v, then %+v", set, again)
		}
	})
}

// The slot of a cluster is the same on every node, and whatever else is there.
// Every mechanism loads with no more than it needs, and with everything it has.
func TestLoginsOfTheGateway(t *testing.T) {
	for i, c := range []string{
		"mechanism: PLAIN, username: u, password: 'env:A'",
		"mechanism: SCRAM-SHA-256, username: u, password: 'file:p'",
		"mechanism: SCRAM-SHA-512, username: u, password: 'file:p'",
		"mechanism: OAUTHBEARER, tokenURL: 'http://127.0.0.1:80/token', clientID: c, clientSecret: 'env:A'",
		"mechanism: OAUTHBEARER, tokenURL: 'https://x/token?a=b', clientID: c, clientSecret: 'env:A', scopes: ['api://kafka/.default', b], extensions: {logicalCluster: lkc-1}, caFile: ca.pem",
		"mechanism: GSSAPI, keytab: 'file:gateway.keytab', principal: tollgate",
		"mechanism: GSSAPI, keytab: 'file:gateway.keytab', principal: tollgate/host.example@EXAMPLE, krb5Conf: krb5.conf, serviceName: broker",
		"mechanism: AWS_MSK_IAM, region: eu-west-1",
		"mechanism: AWS_MSK_IAM, region: us-gov-west-1, profile: ops",
		"mechanism: AWS_MSK_IAM, region: eu-west-1, accessKeyID: 'env:A', secretAccessKey: 'file:b', sessionToken: 'file:c', roleArn: 'arn:aws-cn:iam::111122223333:role/a/b+c', externalId: 'acme:1', stsEndpoint: 'https://sts.internal'",
	} {
		dir := write(t, map[string]string{"a.yaml": loginTLS(c)})
		set, err := LoadDir(dir)
		if err != nil {
			t.Errorf("%d: %v", i, err)
			continue
		}
		s := set.UpstreamClusters["c"].Spec.SASL
		for name, path := range map[string]string{"keytab": strings.TrimPrefix(string(s.Keytab), "file:"), "krb5Conf": s.Krb5Conf, "caFile": s.CAFile} {
			if path != "" && !filepath.IsAbs(path) {
				t.Errorf("%d: %s is %q, want an absolute path", i, name, path)
			}
		}
		if s.Mechanism == SASLGSSAPI && (s.ServiceName == "" || s.Krb5Conf == "") {
			t.Errorf("%d: %+v, want the defaults", i, s)
		}
	}
}

func TestTheSlotOfAClusterIsItsOwn(t *testing.T) {
	s := VirtualClusterSpec{Home: "main", Clusters: []string{"main", "west"}}
	west := s.Slot("west")
	if s.Slot("main") != 0 || west < 1 || west > MaxSlot {
		t.Fatalf("slots %d and %d", s.Slot("main"), west)
	}
	s.Clusters = []string{"east", "west", "main"}
	if s.Slot("west") != west || s.Slot("east") == west {
		t.Error("another cluster changes the slot")
	}
	s.Slots = map[string]int32{"west": 7}
	if s.Slot("west") != 7 {
		t.Error("a written slot is not used")
	}
}

func TestTransactionsGoToTheClusterOfTheLongestPrefix(t *testing.T) {
	s := VirtualClusterSpec{Home: "main", Transactions: []TransactionRule{{"a", "west"}, {"ab", "main"}, {"abc", "east"}}}
	for id, want := range map[string]string{"": "main", "b": "main", "a": "west", "ax": "west", "abx": "main", "abcd": "east"} {
		if got := s.TransactionCluster(id); got != want {
			t.Errorf("%q is on %s, want %s", id, got, want)
		}
	}
}

func TestASignatureChangesWithEveryFile(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	write := func(path, content string) func(t *testing.T) {
		return func(t *testing.T) {
			t.Helper()
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	link := func(to, from string) func(t *testing.T) {
		return func(t *testing.T) {
			t.Helper()
			if err := os.Symlink(to, from); err != nil {
				t.Fatal(err)
			}
		}
	}
	seen := map[uint64]string{Signature(dir): "at the beginning"}
	for _, c := range []struct {
		name   string
		change func(t *testing.T)
	}{
		{"a file comes", write(filepath.Join(dir, "a.yaml"), "one")},
		{"a file grows", write(filepath.Join(dir, "a.yaml"), "one and more")},
		{"a secret comes", write(filepath.Join(dir, "secret"), "s")},
		{"a directory is linked", link(elsewhere, filepath.Join(dir, "linked"))},
		{"a file comes behind the link", write(filepath.Join(elsewhere, "b.yaml"), "two")},
		{"a file behind the link grows", write(filepath.Join(elsewhere, "b.yaml"), "two and more")},
		{"a link leads nowhere", link(filepath.Join(dir, "nothing"), filepath.Join(dir, "broken"))},
		{"a link leads back", link(dir, filepath.Join(dir, "back"))},
	} {
		c.change(t)
		now := Signature(dir)
		if when, same := seen[now]; same && c.name != "a directory is linked" { // it is empty
			t.Errorf("%s: the signature is that of %s", c.name, when)
		}
		if again := Signature(dir); again != now {
			t.Errorf("%s: two signatures of the same files differ", c.name)
		}
		seen[now] = "when " + c.name
	}
}
