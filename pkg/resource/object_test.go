package resource

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var testNow = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// memory is a world of its own.
type memory map[Key]Object

func (m memory) Lookup(k Key) Object { return m[k] }

func (m memory) Holder(c Claim) (Key, bool) {
	for k, o := range m {
		if slices.Contains(Claims(o), c) {
			return k, true
		}
	}
	return Key{}, false
}

// put is what a store does with what somebody sends.
func (m memory) put(text string) Problems {
	var problems Problems
	objects := Parse([]byte(text), &problems)
	Validate(objects, m, testNow)
	if len(problems) == 0 {
		for _, o := range objects {
			m[KeyOf(o.Object)] = o.Object
		}
	}
	return problems
}

// everything is an object of each kind with as much in it as there can be.
const everything = base + `
apiVersion: tollgate/v1
kind: Tenant
metadata: {name: full, labels: {cost-centre: "4711", empty: ""}}
spec: {displayName: "A & B <GmbH>", contacts: [ops@acme.example], plan: standard, state: suspended}
---
apiVersion: tollgate/v1
kind: UpstreamCluster
metadata: {name: msk}
spec:
  bootstrap: ["b-1.west.example:9098"]
  tls: {caFile: /etc/ca.pem, certFile: /etc/c.pem, keyFile: "file:/etc/k.pem", serverName: x}
  sasl: {mechanism: AWS_MSK_IAM, region: eu-west-1, roleArn: "arn:aws:iam::111122223333:role/NAME", externalId: xy, accessKeyID: "env:A", secretAccessKey: "env:B"}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: full, tenant: full}
spec:
  type: partner
  host: full
  customHosts: [kafka.full.example]
  home: main
  clusters: [main, west]
  slots: {west: 7}
  stubs: {replicationFactor: 1, keepFor: 24h}
  transactions: [{prefix: w-, cluster: west}]
  authentication:
    plain: {}
    scram: {}
    oauthbearer: {issuer: "https://i.example", audience: [kafka]}
    mtls: {caFile: /etc/acme-ca.pem}
    maxReauthentication: 90s
  acls: {superUsers: ["User:admin"]}
  quotas: {produceBytesPerSecond: 1, connections: 2, connectionsPerSecond: 3, partitions: 4}
  topics: {maxTopics: 3}
---
apiVersion: tollgate/v1
kind: TopicGrant
metadata: {name: orders, tenant: full}
spec: {cluster: west, topic: {name: shop.orders}, access: read-write, until: 2027-06-30T00:00:00Z}
---
apiVersion: tollgate/v1
kind: AliasTopic
metadata: {name: orders, virtualCluster: full}
spec: {cluster: west, topic: shop.orders, identity: AAAAAAAAAAAAAAAAAAAAAA}
---
apiVersion: tollgate/v1
kind: ServiceAccount
metadata: {name: shipping, virtualCluster: full}
spec: {type: local, expires: 2027-06-30T00:00:00+02:00, quotas: {requestsPerSecond: 5}}
---
apiVersion: tollgate/v1
kind: ServiceAccount
metadata: {name: reports, virtualCluster: full}
spec: {type: external, externalNames: ["CN=reports,O=ACME"]}
---
apiVersion: tollgate/v1
kind: Acl
metadata: {name: one, virtualCluster: full}
spec: {principal: "User:shipping", resource: {type: topic, name: orders}, operation: read, permission: allow}
---
apiVersion: tollgate/v1
kind: Policy
metadata: {name: durable, virtualCluster: full}
spec:
  type: produce
  priority: -5
  scope: {principals: ["User:shipping"], accountLabels: {team: a}, topics: [{name: or, pattern: prefixed}], exceptTopics: [{name: orders}]}
  config: {acks: all, compression: [lz4, zstd], maxBatchBytes: 1000000, idempotent: true}
---
apiVersion: tollgate/v1
kind: PriceBook
metadata: {name: gold}
spec:
  from: 2027-01-01T00:00:00+01:00
  plan: gold
  currency: EUR
  entries:
    - {unit: GiB, price: "0.035"}
    - {unit: GiB, direction: produced, cluster: west, topic: {name: shop., pattern: prefixed}, price: "0.1"}
---
apiVersion: tollgate/v1
kind: Budget
metadata: {name: monthly, tenant: full}
spec: {period: month, amount: "5000.00", currency: EUR, notify: {emails: [ops@acme.example], webhooks: ["https://hooks.acme.example/x?y=z"]}}
---
apiVersion: tollgate/v1
kind: Budget
metadata: {name: traffic, tenant: full}
spec: {period: day, bytes: 1000000000000, thresholds: [50, 200], notify: {emails: [ops@acme.example]}}
`

// What is stored is sent again by whoever edits it: nothing may be changed by that.
func TestObjectsSurviveTheirJSON(t *testing.T) {
	world := make(memory)
	if problems := world.put(everything); len(problems) > 0 {
		t.Fatal(problems)
	}
	kinds := make(map[string]bool)
	for key, o := range world {
		kinds[key.Kind] = true
		first, err := Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		read, err := Unmarshal(first)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Marshal(read); err != nil || !bytes.Equal(first, again) {
			t.Errorf("%s: %s, read and written again: %s, %v", key, first, again, err)
		}
		if again, err := Marshal(Clone(o)); err != nil || !bytes.Equal(first, again) {
			t.Errorf("%s: %s, cloned: %s, %v", key, first, again, err)
		}
		if problems := world.put(string(first)); len(problems) > 0 {
			t.Errorf("%s: %s is refused: %v", key, first, problems)
		} else if again, _ := Marshal(world[key]); !bytes.Equal(first, again) {
			t.Errorf("%s: %s, put again: %s", key, first, again)
		}
	}
	if len(kinds) != len(Kinds) {
		t.Errorf("objects of %d kinds, want all %d", len(kinds), len(Kinds))
	}
}

func TestWhatIsReadAgainMayBeNewer(t *testing.T) {
	o, err := Unmarshal([]byte(`{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":{"name":"a","shoe":1},"spec":{"state":"active","size":{"x":[]}},"more":1}`))
	if err != nil || o.Meta().Name != "a" || o.(*Tenant).Spec.State != TenantActive {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range []string{``, `{}`, `[]`, `{"apiVersion":"tollgate/v2","kind":"Tenant","metadata":{},"spec":{}}`, `{"apiVersion":"tollgate/v1","kind":"Shoe"}`, `{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":{"name":1},"spec":{}}`} {
		if o, err := Unmarshal([]byte(bad)); err == nil {
			t.Errorf("%s is %+v", bad, o)
		}
	}
}

// An object that takes the place of another is judged by what it leaves to others.
func TestWhatIsValidBesideOthers(t *testing.T) {
	const head = "apiVersion: tollgate/v1\nkind: "
	vc := func(name, host string) string {
		return head + "VirtualCluster\nmetadata: {name: " + name + ", tenant: acme}\nspec: {type: standard, host: " + host + ", home: main, authentication: {plain: {}}}\n---\n"
	}
	alias := func(name, topic string) string {
		return head + "AliasTopic\nmetadata: {name: " + name + ", virtualCluster: shop}\nspec: {cluster: main, topic: " + topic + "}\n---\n"
	}
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{name: "nothing is put twice", text: base},
		{name: "a host of another", text: vc("other", "shop"), want: []string{`spec.host: "shop" is a host of VirtualCluster shop already`}},
		{name: "a host that is given up at once", text: vc("other", "shop") + vc("shop", "elsewhere")},
		{name: "a host of another beside", text: vc("x", "new") + vc("y", "new"), want: []string{`spec.host: "new" is a host of VirtualCluster x already`}},
		{name: "an owner that comes along", text: alias("a", "t") + vc("other", "other")},
		{name: "no such owner", text: strings.ReplaceAll(alias("a", "t"), "shop", "nobody"), want: []string{`metadata.virtualCluster: there is no VirtualCluster "nobody"`}},
		{name: "a topic that has an alias", text: alias("b", "taken"), want: []string{"spec.topic: taken of main has an alias in this virtual cluster already: AliasTopic there"}},
		{name: "aliases that change places", text: alias("there", "other") + alias("b", "taken")},
		{
			name: "a password", text: head + "ServiceAccount\nmetadata: {name: a, virtualCluster: shop}\nspec: {type: local, password: hunter2}\n",
			want: []string{"spec.password: secrets are issued, or brought along, one by one: POST …/service-accounts/a/secrets"},
		},
		{
			name: "a path of the sender's", text: head + "UpstreamCluster\nmetadata: {name: a}\nspec: {bootstrap: [\"a:1\"], tls: {caFile: ca.pem, certFile: c.pem, keyFile: \"file:k.pem\"}}\n",
			want: []string{"spec.tls.caFile: is a relative path", "spec.tls.certFile: is a relative path", "spec.tls.keyFile: is a relative path"},
		},
		{
			name: "labels that no selector could name", text: head + "Tenant\nmetadata: {name: a, labels: {\"a b\": c, d: \"e,f\"}}\nspec: {}\n",
			want: []string{"metadata.labels.a b: is not the name of a label", "metadata.labels.d: is not the value of a label"},
		},
		{name: "a status that was read", text: head + "Tenant\nmetadata: {name: a}\nspec: {}\nstatus: {anything: [1]}\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			world := make(memory)
			if problems := world.put(base + alias("there", "taken")); len(problems) > 0 {
				t.Fatal(problems)
			}
			got := world.put(tt.text)
			if len(got) != len(tt.want) {
				t.Fatalf("problems %q, want %q", got, tt.want)
			}
			for i, want := range tt.want {
				if !strings.Contains(got[i].Error(), want) {
					t.Errorf("%q, want %q", got[i], want)
				}
			}
		})
	}
}

// What others depend on stands before them in Kinds, and is what Validate asks for.
func TestDependenciesAreWhatHasToExist(t *testing.T) {
	world := make(memory)
	if problems := world.put(everything); len(problems) > 0 {
		t.Fatal(problems)
	}
	for key, o := range world {
		for _, d := range Dependencies(o) {
			if world[d.On] == nil {
				t.Errorf("%s: %s leads to %s, which is not there", key, d.Field, d.On)
				continue
			}
			if key.Compare(d.On) <= 0 {
				t.Errorf("%s is not behind %s", key, d.On)
			}
			without := maps.Clone(world)
			delete(without, d.On)
			delete(without, key)
			text, err := Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			problems := without.put(string(text))
			if want := fmt.Sprintf("there is no %s %q", d.On.Kind, d.On.Name); !slices.ContainsFunc(problems, func(p Problem) bool { return p.Message == want }) {
				t.Errorf("%s without %s: %v, want %s", key, d.On, problems, want)
			}
		}
	}
}

func TestKeys(t *testing.T) {
	world := make(memory)
	if problems := world.put(everything); len(problems) > 0 {
		t.Fatal(problems)
	}
	keys := slices.SortedFunc(maps.Keys(world), Key.Compare)
	var got []string
	for _, k := range keys {
		got = append(got, k.String())
	}
	want := []string{
		"Tenant acme", "Tenant full", "UpstreamCluster main", "UpstreamCluster msk", "UpstreamCluster west", "VirtualCluster full", "VirtualCluster shop",
		"TopicGrant orders of full", "AliasTopic orders of full", "ServiceAccount reports of full", "ServiceAccount shipping of full", "Acl one of full",
		"Policy durable of full", "PriceBook gold", "Budget monthly of full", "Budget traffic of full",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("keys in order: %q, want %q", got, want)
	}
}
