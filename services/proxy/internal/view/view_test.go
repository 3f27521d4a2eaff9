package view

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/auth"
	"tollgate.internal/services/proxy/internal/upstream"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

const base = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: other}, spec: {displayName: Other}}
---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: ["127.0.0.1:1"]}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: prod, tenant: acme}, spec: {type: standard, host: prod, home: main, authentication: {anonymous: {}}}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: shop, tenant: acme}, spec: {type: partner, host: shop, home: main, authentication: {anonymous: {}}}}
`

func grant(name, tenant, topic, rest string) string {
	return fmt.Sprintf("---\n{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: %s, tenant: %s}, spec: {cluster: main, topic: %s, %s}}\n", name, tenant, topic, rest)
}

func aliasOf(name, vc, topic string) string {
	return fmt.Sprintf("---\n{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: %s, virtualCluster: %s}, spec: {cluster: main, topic: %s}}\n", name, vc, topic)
}

func compile(t *testing.T, name string, at time.Time, docs ...string) *View {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(base+strings.Join(docs, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := resource.LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Compile(set, name, at, auth.NewDeps(auth.Options{SaltKey: make([]byte, 32)}), nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// metadata has these topics, each with an id that follows from its name and salt.
func metadata(t *testing.T, salt byte, names ...string) *upstream.Metadata {
	t.Helper()
	resp := kmsg.NewPtrMetadataResponse()
	resp.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 3, Host: "kafka-3"}, {NodeID: 1, Host: "kafka-1"}}
	for _, name := range names {
		topic := kmsg.NewMetadataResponseTopic()
		topic.Topic = kmsg.StringPtr(name)
		if salt != 0 {
			topic.TopicID = [16]byte{salt}
			copy(topic.TopicID[1:], name)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	return upstream.NewMetadata(resp, nil)
}

func names(t *Table) (names []string) {
	for _, topic := range t.Topics {
		names = append(names, topic.Name)
	}
	return names
}

// An alias exists as long as a grant covers it, and no longer; that it will end is
// known.
func TestAliasesNeedACoveringGrant(t *testing.T) {
	tomorrow := now.Add(24 * time.Hour)
	until := func(at time.Time) string { return "access: read-write, until: " + at.Format(time.RFC3339) }
	m := metadata(t, 1, "lent.orders", "lent.orders.v2", "lent")
	for _, tt := range []struct {
		name     string
		grants   []string
		at       time.Time
		visible  bool
		writable bool
		changes  time.Time
	}{
		{name: "without a grant", at: now},
		{name: "literal", grants: []string{grant("g", "acme", "{name: lent.orders}", "access: read-write")}, at: now, visible: true, writable: true},
		{name: "read only", grants: []string{grant("g", "acme", "{name: lent.orders}", "access: read")}, at: now, visible: true},
		{name: "prefix", grants: []string{grant("g", "acme", "{name: lent., pattern: prefixed}", "access: read")}, at: now, visible: true},
		{name: "a literal grant of a prefix", grants: []string{grant("g", "acme", "{name: lent.}", "access: read")}, at: now},
		{name: "of a longer name", grants: []string{grant("g", "acme", "{name: lent.orders.v2}", "access: read")}, at: now},
		{name: "of another tenant", grants: []string{grant("g", "other", "{name: lent.orders}", "access: read")}, at: now},
		{name: "before its end", grants: []string{grant("g", "acme", "{name: lent.orders}", until(tomorrow))}, at: tomorrow.Add(-time.Second), visible: true, writable: true, changes: tomorrow},
		{name: "at its end", grants: []string{grant("g", "acme", "{name: lent.orders}", until(tomorrow))}, at: tomorrow},
		{name: "the widest counts, the first to end is when it changes", grants: []string{
			grant("a", "acme", "{name: lent.orders}", until(tomorrow)), grant("b", "acme", "{name: lent., pattern: prefixed}", "access: read"),
		}, at: now, visible: true, writable: true, changes: tomorrow},
		{name: "the first of two ends", grants: []string{
			grant("a", "acme", "{name: lent.orders}", until(tomorrow)), grant("b", "acme", "{name: lent.orders}", until(tomorrow.Add(time.Hour))),
		}, at: now, visible: true, writable: true, changes: tomorrow},
		{name: "in whatever order", grants: []string{
			grant("a", "acme", "{name: lent.orders}", until(tomorrow.Add(time.Hour))), grant("b", "acme", "{name: lent.orders}", until(tomorrow)),
		}, at: now, visible: true, writable: true, changes: tomorrow},
		{name: "the rest when one has ended", grants: []string{
			grant("a", "acme", "{name: lent.orders}", until(tomorrow)), grant("b", "acme", "{name: lent., pattern: prefixed}", "access: read"),
		}, at: tomorrow, visible: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, vc := range []string{"prod", "shop"} {
				v := compile(t, vc, tt.at, append(tt.grants, aliasOf("orders", vc, "lent.orders"))...)
				topic := tableOf(v, m).Topic("orders")
				if (topic != nil) != tt.visible || v.IsAlias("orders") != tt.visible || v.Ungranted("orders") == tt.visible {
					t.Fatalf("%s: visible %v, alias %v, ungranted %v, want visible %v", vc, topic != nil, v.IsAlias("orders"), v.Ungranted("orders"), tt.visible)
				}
				if topic != nil && (topic.Writable != tt.writable || !topic.Alias || topic.Physical.Name != "lent.orders") {
					t.Errorf("%s: %+v, want writable %v", vc, topic, tt.writable)
				}
				if !v.Changes.Equal(tt.changes) {
					t.Errorf("%s: changes at %v, want %v", vc, v.Changes, tt.changes)
				}
			}
		})
	}
}

// A client sees what is below the prefix and its aliases: nothing of others', not
// the gateway's own, nothing twice.
func TestTablesShowWhatIsTheClients(t *testing.T) {
	m := metadata(t, 1, "prod.orders", "prod.__tg.stub.far", "prod.", "prod..", "prod", "produce", "prod2.orders", "other.orders", "orders", "__consumer_offsets", "lent.orders", "prod.lent", "prod.own", "Prod.x")
	all := []string{
		grant("g", "acme", "{name: lent.orders}", "access: read"), grant("h", "acme", "{name: prod.own}", "access: read"),
	}
	for _, tt := range []struct {
		vc   string
		want []string
	}{
		{"prod", []string{"lent", "orders", "own"}}, // the alias lent hides prod.lent
		{"shop", []string{"lent", "owned"}},
	} {
		docs := append(slices.Clone(all), aliasOf("lent", tt.vc, "lent.orders"))
		if tt.vc == "shop" {
			docs = append(docs, aliasOf("owned", tt.vc, "prod.own"))
		}
		v := compile(t, tt.vc, now, docs...)
		table := tableOf(v, m)
		if got := names(table); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.vc, got, tt.want)
		}
		for _, topic := range table.Topics {
			if table.Topic(topic.Name) != topic || table.TopicBytes([]byte(topic.Name)) != topic || table.TopicByID(topic.ID) != topic ||
				table.Home.Topic(topic.Physical.Name) != topic || table.Home.TopicBytes([]byte(topic.Physical.Name)) != topic || table.Home.TopicByID(topic.Physical.ID) != topic ||
				table.Grouped(topic.Physical.Name) != topic || table.GroupedByID(topic.Physical.ID) != topic {
				t.Errorf("%s: %s is not found in every way", tt.vc, topic.Name)
			}
		}
		for _, physical := range []string{"other.orders", "prod.__tg.stub.far", "orders", "prod2.orders"} {
			if table.Home.Topic(physical) != nil || table.Home.TopicByID(m.Topic(physical).ID) != nil {
				t.Errorf("%s: %s is shown", tt.vc, physical)
			}
		}
		for _, name := range []string{"__tg.stub.far", "other.orders", "prod.orders", "missing"} {
			if table.Topic(name) != nil {
				t.Errorf("%s: %s is there", tt.vc, name)
			}
		}
	}
}

// Virtual ids are the same on every node and at every time, differ between virtual
// clusters and names, follow the physical topic's life, and are never reserved.
func TestTopicIDs(t *testing.T) {
	v := compile(t, "prod", now)
	ids := make(map[[16]byte]string)
	var all []string
	for i := range 300 {
		all = append(all, fmt.Sprint("prod.t", i))
	}
	first := tableOf(v, metadata(t, 1, all...))
	again := tableOf(compile(t, "prod", now.Add(time.Hour)), metadata(t, 1, append(slices.Clone(all), "prod.more")...))
	remade := tableOf(v, metadata(t, 2, all...))
	nameless := tableOf(v, metadata(t, 0, all...)) // a cluster without topic ids
	for _, topic := range first.Topics {
		if other := ids[topic.ID]; other != "" {
			t.Errorf("%s and %s have one id", topic.Name, other)
		}
		ids[topic.ID] = topic.Name
		if again.Topic(topic.Name).ID != topic.ID {
			t.Errorf("%s has another id elsewhere", topic.Name)
		}
		if remade.Topic(topic.Name).ID == topic.ID {
			t.Errorf("%s was made again and has its old id", topic.Name)
		}
		if topic.ID == topic.Physical.ID || topic.ID[6]>>4 != 4 || topic.ID[8]>>6 != 2 {
			t.Errorf("%s has id %x, which is physical or no random UUID", topic.Name, topic.ID)
		}
		if id := nameless.Topic(topic.Name).ID; id == [16]byte{} || nameless.TopicByID(id) == nil || nameless.Home.TopicByID([16]byte{}) != nil {
			t.Errorf("%s has no id of its own without a physical one", topic.Name)
		}
	}
	lent := grant("g", "acme", "{name: lent}", "access: read")
	m := metadata(t, 1, "lent")
	a := tableOf(compile(t, "prod", now, lent, aliasOf("x", "prod", "lent")), m).Topic("x").ID
	b := tableOf(compile(t, "shop", now, lent, aliasOf("x", "shop", "lent")), m).Topic("x").ID
	c := tableOf(compile(t, "prod", now, lent, aliasOf("y", "prod", "lent")), m).Topic("y").ID
	if a == b || a == c {
		t.Errorf("ids %x, %x, %x of one topic in two virtual clusters and by two names", a, b, c)
	}
}

func TestNodes(t *testing.T) {
	v := compile(t, "prod", now)
	v.Spec.Clusters, v.Spec.Slots = []string{"main", "west"}, map[string]int32{"west": resource.MaxSlot}
	west := &Member{Name: "west", Slot: v.Spec.Slot("west"), Meta: metadata(t, 1)}
	table := newTable(v, []*Member{{Name: "main", Meta: metadata(t, 1)}, west}, noStubs, nil)
	for _, m := range table.Members {
		for _, node := range []int32{0, 3, 1<<16 - 1} {
			vnode := m.VirtualNode(node)
			if vnode >= 1<<30 { // Java adds to it
				t.Errorf("node %d of %s is %d", node, m.Name, vnode)
			}
			if at, back := table.Node(vnode); at != m || back != node {
				t.Errorf("node %d of %s comes back as %d", node, m.Name, back)
			}
		}
		if m.VirtualNode(-1) != -1 {
			t.Errorf("no node of %s is %d", m.Name, m.VirtualNode(-1))
		}
	}
	for _, vnode := range []int32{-1, -2, 1 << 16, 1<<31 - 1} {
		if m, node := table.Node(vnode); m != nil {
			t.Errorf("virtual node %d is node %d of %s", vnode, node, m.Name)
		}
	}
	if table.Controller() != 1 {
		t.Errorf("the controller is %d, want 1", table.Controller())
	}
	if len(table.Brokers) != len(table.Home.Meta.Brokers) {
		t.Errorf("%d brokers are shown, want those of home: the other cluster has no topic", len(table.Brokers))
	}
	if empty := tableOf(compile(t, "prod", now), upstream.NewMetadata(kmsg.NewPtrMetadataResponse(), nil)); empty.Controller() != -1 {
		t.Errorf("without brokers the controller is %d", empty.Controller())
	}
}

// tableOf is the table of a virtual cluster that has home alone.
func tableOf(v *View, m *upstream.Metadata) *Table {
	return newTable(v, []*Member{{Name: v.Spec.Home, Meta: m}}, noStubs, nil)
}

// A virtual cluster has one id for its life, of the length that Kafka's have.
func TestClusterIDs(t *testing.T) {
	a, b := compile(t, "prod", now), compile(t, "shop", now)
	if a.ClusterID != compile(t, "prod", now.Add(time.Hour)).ClusterID || a.ClusterID == b.ClusterID || len(a.ClusterID) != 22 {
		t.Errorf("cluster ids %q and %q", a.ClusterID, b.ClusterID)
	}
}
