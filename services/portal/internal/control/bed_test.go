package control

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/testbed/postgres"
	"tollgate.internal/services/portal/internal/store"
)

// One PostgreSQL serves every test of the package: each has a database of its own.
var (
	server  = sync.OnceValues(postgres.New)
	started bool
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		os.Exit(child())
	}
	code := m.Run()
	if started {
		if s, err := server(); err == nil {
			if err := s.Close(); err != nil {
				code = 1
			}
		}
	}
	os.Exit(code)
}

// bed is one database and what a test does with it.
type bed struct {
	*Control

	t   *testing.T
	url string
	now time.Time // what the Control's clock shows
}

// each runs a test on both databases.
func each(t *testing.T, test func(t *testing.T, b *bed)) {
	t.Run("sqlite", func(t *testing.T) {
		test(t, newBed(t, "sqlite:"+filepath.Join(t.TempDir(), "tollgate.db")))
	})
	t.Run("postgres", func(t *testing.T) { test(t, newBed(t, emptyPostgres(t))) })
}

func emptyPostgres(t *testing.T) string {
	started = true
	s, err := server()
	if err != nil {
		t.Fatal(err)
	}
	return s.Database(t)
}

func newBed(t *testing.T, url string) *bed {
	b := &bed{t: t, url: url, now: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)}
	b.Control = b.another()
	return b
}

// another is a second portal on the same database.
func (b *bed) another() *Control {
	b.t.Helper()
	s, err := store.Open(b.t.Context(), b.url)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.t.Error(err)
		}
	})
	return New(s, func() time.Time { return b.now })
}

var alice = Actor{Name: "alice", Kind: "user", Address: "192.0.2.1", Request: "r1"}

// parse reads documents that are well-formed.
func parse(t testing.TB, text string) []*resource.Written {
	t.Helper()
	problems := new(resource.Problems)
	objects := resource.Parse([]byte(text), problems)
	if len(*problems) > 0 {
		t.Fatalf("%s: %v", text, *problems)
	}
	return objects
}

// try applies documents, all or nothing.
func (b *bed) try(text string) ([]Result, error) {
	b.t.Helper()
	return b.Apply(b.t.Context(), alice, parse(b.t, text), Options{})
}

// apply applies documents that are good.
func (b *bed) apply(text string) []Result {
	b.t.Helper()
	results, err := b.try(text)
	if err != nil {
		b.t.Fatal(err)
	}
	return results
}

// doc writes documents shortly: kind, metadata and spec, one a line.
func doc(lines ...string) string {
	var b strings.Builder
	for _, line := range lines {
		kind, rest, _ := strings.Cut(line, " ")
		metadata, spec, _ := strings.Cut(rest, " | ")
		fmt.Fprintf(&b, "---\napiVersion: tollgate/v1\nkind: %s\nmetadata: {%s}\nspec: {%s}\n", kind, metadata, spec)
	}
	return b.String()
}

const (
	tenantAcme = "Tenant name: acme | displayName: ACME"
	main       = `UpstreamCluster name: main | bootstrap: ["main:9092"]`
	west       = `UpstreamCluster name: west | bootstrap: ["west:9092"]`
	vcAcme     = "VirtualCluster name: acme-prod, tenant: acme | type: partner, host: acme, home: main, clusters: [main, west], authentication: {plain: {}, scram: {}}"
	docGrant   = "TopicGrant name: orders, tenant: acme | cluster: west, topic: {name: shop.orders}, access: read-write"
	docAlias   = "AliasTopic name: orders, virtualCluster: acme-prod | cluster: west, topic: shop.orders"
	docAccount = "ServiceAccount name: shipping, virtualCluster: acme-prod | type: local"
	aclReads   = `Acl name: reads, virtualCluster: acme-prod | principal: "User:shipping", resource: {type: topic, name: orders}, operation: READ, permission: ALLOW`
)

// base is a tenant with one object of each kind that clients notice.
var base = doc(tenantAcme, main, west, vcAcme, docGrant, docAlias, docAccount, aclReads)

func key(kind, scope, name string) resource.Key {
	return resource.Key{Kind: kind, Scope: scope, Name: name}
}

var (
	keyTenant  = key("Tenant", "", "acme")
	keyMain    = key("UpstreamCluster", "", "main")
	keyWest    = key("UpstreamCluster", "", "west")
	keyVC      = key("VirtualCluster", "", "acme-prod")
	keyGrant   = key("TopicGrant", "acme", "orders")
	keyAlias   = key("AliasTopic", "acme-prod", "orders")
	keyAccount = key("ServiceAccount", "acme-prod", "shipping")
	keyACL     = key("Acl", "acme-prod", "reads")
)
