package dev

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// seededTopics are the physical topics that the seeded aliases stand for: on home,
// and on the other cluster.
var seededTopics = [2][]string{{"shop.orders.v2"}, {"logistics.shipments.v1"}}

const acme = `# Tenant acme: one virtual cluster of either type; the topics of acme-prod are on two clusters. Yours to change: it is written only when absent.
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME GmbH, contacts: [ops@acme.example]}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: acme-prod, tenant: acme}
spec:
  type: partner
  host: acme
  home: HOME
  clusters: [CLUSTERS]
  authentication: {plain: {}, scram: {}}
  acls: {superUsers: ["User:admin"]}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: orders, tenant: acme}, spec: {cluster: HOME, topic: {name: shop.orders.v2}, access: read-write}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: orders, virtualCluster: acme-prod}, spec: {cluster: HOME, topic: shop.orders.v2}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: shipments, tenant: acme}, spec: {cluster: OTHER, topic: {name: logistics.shipments.v1}, access: read-write}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: shipments, virtualCluster: acme-prod}, spec: {cluster: OTHER, topic: logistics.shipments.v1}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: admin, virtualCluster: acme-prod}, spec: {type: local, password: "file:secrets/acme-prod-admin"}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: shipping, virtualCluster: acme-prod}, spec: {type: local, password: "file:secrets/acme-prod-shipping"}}
---
apiVersion: tollgate/v1
kind: Acl
metadata: {name: shipping-reads-orders, virtualCluster: acme-prod}
spec: {principal: "User:shipping", resource: {type: topic, name: orders}, operation: READ, permission: ALLOW}
---
apiVersion: tollgate/v1
kind: Acl
metadata: {name: shipping-writes-orders, virtualCluster: acme-prod}
spec: {principal: "User:shipping", resource: {type: topic, name: orders}, operation: WRITE, permission: ALLOW}
---
apiVersion: tollgate/v1
kind: Acl
metadata: {name: shipping-reads-shipments, virtualCluster: acme-prod}
spec: {principal: "User:shipping", resource: {type: topic, name: shipments}, operation: READ, permission: ALLOW}
---
apiVersion: tollgate/v1
kind: Acl
metadata: {name: shipping-writes-shipments, virtualCluster: acme-prod}
spec: {principal: "User:shipping", resource: {type: topic, name: shipments}, operation: WRITE, permission: ALLOW}
---
apiVersion: tollgate/v1
kind: Acl
metadata: {name: shipping-groups, virtualCluster: acme-prod}
spec: {principal: "User:shipping", resource: {type: group, name: shipping, pattern: prefixed}, operation: READ, permission: ALLOW}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: acme-dev, tenant: acme}
spec:
  type: standard
  host: acme-dev
  home: HOME
  autoCreateTopics: true
  authentication: {plain: {}, scram: {}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: dev, virtualCluster: acme-dev}, spec: {type: local, password: "file:secrets/acme-dev-dev"}}
`

const globex = `# Tenant globex: a virtual cluster with topics of its own. Yours to change: it is written only when absent.
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: globex}, spec: {displayName: Globex Corporation}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: globex, tenant: globex}
spec:
  type: standard
  host: globex
  home: HOME
  autoCreateTopics: true
  authentication: {plain: {}, scram: {}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: app, virtualCluster: globex}, spec: {type: local, password: "file:secrets/globex-app"}}
`

// seed writes the tenants that are absent from dir, and their secrets. The first
// cluster is their home; acme has topics on the second too, if there is one.
func seed(dir string, upstreams []Upstream) error {
	home, other := upstreams[0].Name, upstreams[min(1, len(upstreams)-1)].Name
	clusters := home
	if other != home {
		clusters += ", " + other
	}
	names := strings.NewReplacer("HOME", home, "CLUSTERS", clusters, "OTHER", other)
	if err := os.MkdirAll(filepath.Join(dir, "secrets"), 0o700); err != nil {
		return err
	}
	files := map[string]string{
		"acme.yaml":   names.Replace(acme),
		"globex.yaml": names.Replace(globex),
	}
	for _, account := range []string{"acme-prod-admin", "acme-prod-shipping", "acme-dev-dev", "globex-app"} {
		files["secrets/"+account] = rand.Text() + "\n"
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		switch _, err := os.Stat(path); {
		case err == nil:
			continue
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		if err := WriteFile(path, []byte(content), 0o600); err != nil {
			return fmt.Errorf("seed: %w", err)
		}
	}
	return nil
}
