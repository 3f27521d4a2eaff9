// Package view is a virtual cluster as its clients see it: names, ids, nodes and
// rights. A [View] comes from the resources, a [Table] from a view and the
// metadata of the physical clusters. Both are immutable and are swapped whole.
package view

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tollgate.internal/pkg/acl"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/auth"
	"tollgate.internal/services/proxy/internal/netio"
	"tollgate.internal/services/proxy/internal/quota"
	"tollgate.internal/services/proxy/internal/upstream"
)

// View is one virtual cluster as the resources describe it.
type View struct {
	Name, Tenant string
	Spec         resource.VirtualClusterSpec
	Prefix       string // of physical topics, groups and transactional ids on home
	ClusterID    string // what clients are told; constant for the virtual cluster's life
	ACL          *acl.Authorizer
	Realm        *auth.Realm
	Suspended    bool
	Changes      time.Time // when a grant ends and the view must be compiled again; zero: never

	aliases   map[string]alias
	ungranted map[string]bool // aliases that no grant covers
}

type alias struct {
	physical string
	write    bool
}

// Compile builds the view of one virtual cluster. Aliases without a covering
// grant at now are left out: to clients they do not exist.
func Compile(set *resource.Set, name string, now time.Time, deps *auth.Deps) (*View, error) {
	vc := set.VirtualClusters[name]
	if vc == nil {
		return nil, fmt.Errorf("no virtual cluster %q", name)
	}
	aliases, accounts, acls := set.OfVirtualCluster(name)
	sum := sha256.Sum256([]byte("tollgate cluster id\x00" + name))
	v := &View{
		Name: name, Tenant: vc.Metadata.Tenant, Spec: vc.Spec, Prefix: name + ".",
		ClusterID: base64.RawURLEncoding.EncodeToString(sum[:16]),
		aliases:   make(map[string]alias, len(aliases)),
		ungranted: make(map[string]bool),
	}
	if t := set.Tenants[v.Tenant]; t != nil && t.Spec.State != "" && t.Spec.State != resource.TenantActive {
		v.Suspended = true
	}
	realm, err := auth.NewRealm(vc, accounts, deps)
	if err != nil {
		return nil, err
	}
	v.Realm = realm
	v.ACL = acl.AllowAll()
	if vc.Spec.ACLs.Enabled || vc.Spec.Type == resource.Partner {
		bindings := make([]acl.Binding, 0, len(acls))
		for _, a := range acls {
			b, err := acl.BindingOf(a)
			if err != nil {
				return nil, err
			}
			bindings = append(bindings, b)
		}
		v.ACL = acl.New(bindings, vc.Spec.ACLs.SuperUsers, vc.Spec.ACLs.AllowEveryoneIfNoACL)
	}
	grants := set.GrantsOf(v.Tenant)
	for _, a := range aliases {
		if a.Spec.Cluster != vc.Spec.Home {
			continue // spanning comes with stub topics (PROTOCOL.md §B4)
		}
		entry, covered := alias{physical: a.Spec.Topic}, false
		for _, g := range grants {
			if !g.Covers(a.Spec.Cluster, a.Spec.Topic, now) {
				continue
			}
			covered = true
			entry.write = entry.write || g.Spec.Access == resource.ReadWrite
			if until := g.Spec.Until; !until.IsZero() && (v.Changes.IsZero() || until.Before(v.Changes)) {
				v.Changes = until
			}
		}
		if covered {
			v.aliases[a.Metadata.Name] = entry
		} else {
			v.ungranted[a.Metadata.Name] = true
		}
	}
	return v, nil
}

// Standard reports whether the virtual cluster owns topics of its own.
func (v *View) Standard() bool { return v.Spec.Type == resource.Standard }

// IsAlias reports whether name is an alias, whatever its topic's state.
func (v *View) IsAlias(name string) bool { _, ok := v.aliases[name]; return ok }

// Ungranted reports whether name is an alias that does not exist for clients
// because no grant covers it.
func (v *View) Ungranted(name string) bool { return v.ungranted[name] }

// hidden is the segment of names below the prefix that the gateway keeps for
// itself.
const hidden = "__tg."

// Table is what the clients of a virtual cluster see at one moment.
type Table struct {
	View   *View
	Meta   *upstream.Metadata
	Topics []*Topic // by virtual name

	byName   map[string]*Topic
	byID     map[[16]byte]*Topic
	byPhys   map[string]*Topic
	byPhysID map[[16]byte]*Topic
}

// Topic is a topic of a virtual cluster.
type Topic struct {
	Name     string   // virtual
	ID       [16]byte // virtual
	Alias    bool
	Writable bool // an alias's grant may be read-only
	Physical *upstream.Topic
}

// NewTable maps the metadata of home through v.
func NewTable(v *View, m *upstream.Metadata) *Table {
	t := &Table{
		View: v, Meta: m,
		byName: make(map[string]*Topic), byID: make(map[[16]byte]*Topic),
		byPhys: make(map[string]*Topic), byPhysID: make(map[[16]byte]*Topic),
	}
	for name, a := range v.aliases {
		if p := m.Topic(a.physical); p != nil {
			t.add(&Topic{Name: name, Alias: true, Writable: a.write, Physical: p})
		}
	}
	if v.Standard() {
		for _, p := range m.WithPrefix(v.Prefix) {
			name := p.Name[len(v.Prefix):]
			if name == "" || name == "." || name == ".." { // no names
				continue
			}
			if strings.HasPrefix(name, hidden) || v.IsAlias(name) || t.byPhys[p.Name] != nil {
				continue
			}
			t.add(&Topic{Name: name, Writable: true, Physical: p})
		}
	}
	slices.SortFunc(t.Topics, func(a, b *Topic) int { return strings.Compare(a.Name, b.Name) })
	return t
}

func (t *Table) add(topic *Topic) {
	topic.ID = topicID(t.View.Name, topic)
	t.Topics = append(t.Topics, topic)
	t.byName[topic.Name] = topic
	t.byID[topic.ID] = topic
	t.byPhys[topic.Physical.Name] = topic
	if topic.Physical.ID != ([16]byte{}) {
		t.byPhysID[topic.Physical.ID] = topic
	}
}

// topicID is the id clients see: it follows from names and the physical id, so
// every node shows the same, and a topic that was deleted and made again gets a
// new one (PROTOCOL.md §B3).
func topicID(vc string, t *Topic) [16]byte {
	h := sha256.New()
	h.Write([]byte("tollgate topic id\x00" + vc + "\x00" + t.Name + "\x00"))
	if t.Physical.ID != ([16]byte{}) {
		h.Write(t.Physical.ID[:])
	} else {
		h.Write([]byte(t.Physical.Name))
	}
	var id [16]byte
	copy(id[:], h.Sum(nil))
	id[6] = id[6]&0x0f | 0x40 // a random UUID: never one of the reserved ids
	id[8] = id[8]&0x3f | 0x80
	return id
}

// Topic finds a topic by virtual name.
func (t *Table) Topic(name string) *Topic { return t.byName[name] }

// TopicBytes is Topic of a name that lies in a frame; it does not allocate.
func (t *Table) TopicBytes(name []byte) *Topic { return t.byName[string(name)] }

// TopicByID finds a topic by virtual id.
func (t *Table) TopicByID(id [16]byte) *Topic { return t.byID[id] }

// Virtual finds a topic by physical name.
func (t *Table) Virtual(physical string) *Topic { return t.byPhys[physical] }

// VirtualBytes is Virtual of a name that lies in a frame.
func (t *Table) VirtualBytes(physical []byte) *Topic { return t.byPhys[string(physical)] }

// VirtualByID finds a topic by physical id.
func (t *Table) VirtualByID(id [16]byte) *Topic { return t.byPhysID[id] }

// VirtualNode maps a physical node id of home: slot<<16 | node (PROTOCOL.md §B1).
// Home has slot 0. Negative ids (none) stay.
func (t *Table) VirtualNode(node int32) int32 { return node }

// VirtualNodes maps a list.
func (t *Table) VirtualNodes(nodes []int32) []int32 {
	out := make([]int32, len(nodes))
	for i, n := range nodes {
		out[i] = t.VirtualNode(n)
	}
	return out
}

// PhysicalNode maps a virtual node id back; false for one that is of no cluster.
func (t *Table) PhysicalNode(vnode int32) (int32, bool) {
	return vnode, vnode >= 0 && vnode < 1<<16
}

// Controller is the broker clients are sent to for changes: the lowest live one,
// so that it stays the same while it lives.
func (t *Table) Controller() int32 {
	if len(t.Meta.Brokers) == 0 {
		return -1
	}
	return t.VirtualNode(t.Meta.Brokers[0].ID)
}

// VirtualCluster is a virtual cluster that is being served: its current view and
// the cluster behind it.
type VirtualCluster struct {
	Name   string
	Home   *upstream.Cluster
	Quotas *quota.Quotas // shared by all sessions of the node

	// Its shares of the node's memory for large frames; nil: all of it.
	Requests, Answers *netio.Budget

	view  atomic.Pointer[View]
	table atomic.Pointer[Table]
	mu    sync.Mutex // builds tables one at a time
}

// NewVirtualCluster serves v from home.
func NewVirtualCluster(v *View, home *upstream.Cluster) *VirtualCluster {
	vc := &VirtualCluster{Name: v.Name, Home: home, Quotas: quota.New()}
	vc.Swap(v)
	return vc
}

// View is the current view.
func (vc *VirtualCluster) View() *View { return vc.view.Load() }

// Swap puts a new view under the live sessions.
func (vc *VirtualCluster) Swap(v *View) {
	q := v.Spec.Quotas
	vc.Quotas.Set(q.ProduceBytesPerSecond, q.FetchBytesPerSecond, q.RequestsPerSecond)
	vc.view.Store(v)
}

// Table is the current table over the metadata at hand; nil before the first
// metadata of the cluster.
func (vc *VirtualCluster) Table() *Table {
	m, v := vc.Home.Metadata(), vc.view.Load()
	if m == nil {
		return nil
	}
	if t := vc.table.Load(); t != nil && t.View == v && t.Meta == m {
		return t
	}
	vc.mu.Lock()
	defer vc.mu.Unlock()
	if t := vc.table.Load(); t != nil && t.View == v && t.Meta == m {
		return t
	}
	t := NewTable(v, m)
	vc.table.Store(t)
	return t
}

// Fresh is Table over metadata not older than age, if the cluster answers.
func (vc *VirtualCluster) Fresh(ctx context.Context, age time.Duration) (*Table, error) {
	if _, err := vc.Home.Fresh(ctx, age); err != nil {
		return nil, err
	}
	return vc.Table(), nil
}
