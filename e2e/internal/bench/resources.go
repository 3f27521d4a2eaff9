package bench

import (
	"fmt"
	"strings"
)

// The names on both sides of the gateway; the aliases and what is stored differ
// in length, so that frames are spliced and not patched only.
const (
	domain        = "gw.bench.test"
	bootstrapHost = single + "." + domain
	spanningHost  = spanning + "." + domain
	stubHost      = "stub." + domain
	aliasName     = "orders"
	physicalName  = "shop.orders.v2"
	secondAlias   = "parcels"
	secondName    = "depot.parcels.v1"
	groupPrefix   = "perf-"
	userName      = "shipping"
	userPassword  = "shipping-secret"
)

// The virtual clusters, and the clusters behind them: both have their home on
// main, and one spans.
const (
	single       = "acme"
	spanning     = "span"
	mainCluster  = "main"
	otherCluster = "other"
)

// virtualClusters are both of them, and how they are told apart in a table.
var virtualClusters = [][2]string{{single, ""}, {spanning, ", two clusters"}}

// A manifest is a file of resources.
type manifest struct{ strings.Builder }

func (m *manifest) add(kind, metadata, spec string) {
	fmt.Fprintf(m, "---\n{apiVersion: tollgate/v1, kind: %s, metadata: {%s}, spec: {%s}}\n", kind, metadata, spec)
}

// tenant begins a manifest with the clusters at these addresses.
func tenant(main, other string) *manifest {
	m := &manifest{}
	m.add("Tenant", "name: acme", "displayName: ACME")
	m.add("UpstreamCluster", "name: "+mainCluster, fmt.Sprintf("bootstrap: [%q]", main))
	if other != "" {
		m.add("UpstreamCluster", "name: "+otherCluster, fmt.Sprintf("bootstrap: [%q]", other))
	}
	return m
}

// cluster adds a virtual cluster with an account that may use its topics and its
// groups; more goes into its spec.
func (m *manifest) cluster(name, more string) {
	m.add("VirtualCluster", fmt.Sprintf("name: %s, tenant: acme", name), fmt.Sprintf("host: %s, home: %s, authentication: {plain: {}, scram: {}}, %s", name, mainCluster, more))
	m.add("ServiceAccount", fmt.Sprintf("name: %s, virtualCluster: %s", userName, name), `type: local, password: "file:password"`)
	m.allow(name, "group", groupPrefix, "prefixed")
}

func (m *manifest) allow(cluster, kind, name, pattern string) {
	m.add("Acl", fmt.Sprintf("name: %s-%s, virtualCluster: %s", kind, strings.TrimSuffix(name, "-"), cluster),
		fmt.Sprintf(`principal: "User:%s", resource: {type: %s, name: %s, pattern: %s}, operation: ALL, permission: ALLOW`, userName, kind, name, pattern))
}

// grant lends the tenant a topic.
func (m *manifest) grant(cluster, physical, pattern string) {
	m.add("TopicGrant", fmt.Sprintf("name: %s, tenant: acme", strings.Trim(strings.ReplaceAll(cluster+"-"+physical, ".", "-"), "-")),
		fmt.Sprintf("cluster: %s, topic: {name: %s, pattern: %s}, access: read-write", cluster, physical, pattern))
}

func (m *manifest) alias(virtual, name, cluster, physical string) {
	m.add("AliasTopic", fmt.Sprintf("name: %s, virtualCluster: %s", name, virtual), fmt.Sprintf("cluster: %s, topic: %s", cluster, physical))
}

// partnerResources are a partner's virtual cluster with one alias, as partners
// have it: ACLs on, and an account that may use its topic and its groups.
func partnerResources(main string) string {
	m := tenant(main, "")
	m.cluster(single, "type: partner")
	m.allow(single, "topic", aliasName, "literal")
	m.grant(mainCluster, physicalName, "literal")
	m.alias(single, aliasName, mainCluster, physicalName)
	return m.String()
}

// withStubs and withoutStubs go into the spec of a virtual cluster that spans: only
// groups need stub topics, and only real brokers make some.
const (
	withStubs    = "stubs: {replicationFactor: 1}"
	withoutStubs = "stubs: {disabled: true}"
)

// spanningResources are two virtual clusters with the same two topics: one has
// both on main, the other one of them on the other cluster.
func spanningResources(main, other, stubs string) string {
	m := tenant(main, other)
	m.grant(mainCluster, physicalName, "literal")
	for name, clusters := range map[string][]string{single: {mainCluster}, spanning: {mainCluster, otherCluster}} {
		m.cluster(name, fmt.Sprintf("type: partner, clusters: [%s], %s", strings.Join(clusters, ", "), stubs))
		m.allow(name, "topic", aliasName, "literal")
		m.allow(name, "topic", secondAlias, "literal")
		m.alias(name, aliasName, mainCluster, physicalName)
		second := clusters[len(clusters)-1]
		m.grant(second, secondName, "literal")
		m.alias(name, secondAlias, second, secondName)
	}
	return m.String()
}

// manyResources are a virtual cluster with topics of its own, and, when there is
// another cluster, with aliases for topics there.
func manyResources(main, other string, aliases []string) string {
	m := tenant(main, other)
	clusters := mainCluster
	if other != "" {
		clusters += ", " + otherCluster
	}
	m.cluster(single, fmt.Sprintf("type: standard, clusters: [%s], acls: {enabled: true}, %s", clusters, withoutStubs))
	m.allow(single, "topic", manyPrefix, "prefixed")
	if other != "" {
		m.grant(otherCluster, manyStored, "prefixed")
	}
	for _, name := range aliases {
		m.alias(single, name, otherCluster, manyStored+name)
	}
	return m.String()
}
