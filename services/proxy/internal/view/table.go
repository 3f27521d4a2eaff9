package view

import (
	"crypto/sha256"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"tollgate.internal/services/proxy/internal/balance"
	"tollgate.internal/services/proxy/internal/stub"
	"tollgate.internal/services/proxy/internal/upstream"
)

// hidden is what names below the prefix begin with that the gateway keeps for
// itself.
const hidden = "__tg."

// Table is what the clients of a virtual cluster see at one moment.
type Table struct {
	View    *View
	Home    *Member
	Members []*Member // home first, then by name
	Topics  []*Topic  // by virtual name
	Brokers []Broker  // by virtual node id; those of clusters that have nothing to show are left out

	byName    map[string]*Topic
	byID      map[[16]byte]*Topic
	grouped   map[string]*Topic // by the name home's group coordinators know
	groupedID map[[16]byte]*Topic

	keeper *stub.Keeper
	stubs  *stub.Snapshot
	wants  []stub.Want
	placed atomic.Pointer[placed]
}

// Member is a physical cluster of a virtual cluster.
type Member struct {
	Name    string
	Slot    int32
	Cluster *upstream.Cluster
	Meta    *upstream.Metadata // nil: the cluster was never reached

	byName map[string]*Topic // by physical name
	byID   map[[16]byte]*Topic
}

// Broker is one that clients are told of.
type Broker struct {
	Node int32 // virtual
	Rack *string
}

// Topic is a topic of a virtual cluster.
type Topic struct {
	Name       string   // virtual
	ID         [16]byte // virtual
	Index      int      // in Table.Topics
	Alias      bool
	Writable   bool // an alias's grant may be read-only
	Member     *Member
	Physical   *upstream.Topic
	Partitions []upstream.Partition // those that clients see

	// What the group coordinators of home know the topic by: itself, or its stub
	// (PROTOCOL.md §B4-S1).
	Grouped Grouped
	// Why there is no stub: offsets are then kept on the topic's own cluster
	// (§B4-S2), and Grouped is empty. nil: there is one, or none is needed.
	Split error
}

// Grouped is a topic of home.
type Grouped struct {
	Name string
	ID   [16]byte
}

// newTable maps the metadata of the members, of which home was reached, through v.
// What was shown before stays shown while the cluster behind it, or its stub, cannot
// be looked at (rule 9 of PROTOCOL.md).
func newTable(v *View, members []*Member, stubs *stub.Snapshot, before *Table) *Table {
	t := &Table{
		View: v, Home: members[0], Members: members, stubs: stubs,
		byName: make(map[string]*Topic), byID: make(map[[16]byte]*Topic),
		grouped: make(map[string]*Topic), groupedID: make(map[[16]byte]*Topic),
	}
	for _, m := range members {
		m.byName, m.byID = make(map[string]*Topic), make(map[[16]byte]*Topic)
	}
	for _, name := range slices.Sorted(maps.Keys(v.aliases)) {
		a := v.aliases[name]
		m := t.Member(a.cluster)
		if m == nil {
			continue
		}
		var old *Topic
		if before != nil {
			old = before.byName[name]
		}
		if topic := t.alias(name, a, m, old); topic != nil {
			t.add(topic)
		}
	}
	if t.Split() {
		t.wants = append(t.wants, stub.Want{Alias: anchor, Name: v.Prefix + anchor, Partitions: 1, Always: true})
	}
	if v.Standard() {
		for _, p := range t.Home.Meta.WithPrefix(v.Prefix) {
			name := p.Name[len(v.Prefix):]
			if name == "" || name == "." || name == ".." { // no names
				continue
			}
			if strings.HasPrefix(name, hidden) || v.IsAlias(name) || t.Home.byName[p.Name] != nil {
				continue
			}
			topic := &Topic{Name: name, Writable: true, Member: t.Home, Physical: p, Partitions: p.Partitions, Grouped: Grouped{p.Name, p.ID}}
			topic.ID = topicID(v.Name, topic, p.ID)
			t.add(topic)
		}
	}
	slices.SortFunc(t.Topics, func(a, b *Topic) int { return strings.Compare(a.Name, b.Name) })
	for i, topic := range t.Topics {
		topic.Index = i
	}
	for _, m := range members {
		if m.Meta == nil || m != t.Home && len(m.byName) == 0 {
			continue
		}
		for _, b := range m.Meta.Brokers {
			t.Brokers = append(t.Brokers, Broker{m.VirtualNode(b.ID), b.Rack})
		}
	}
	slices.SortFunc(t.Brokers, func(a, b Broker) int { return int(a.Node - b.Node) })
	return t
}

// alias is the topic behind an alias; nil: there is none, or its stub is not there
// yet.
func (t *Table) alias(name string, a alias, m *Member, old *Topic) *Topic {
	topic := &Topic{Name: name, Alias: true, Writable: a.write, Member: m}
	identity := a.identity
	switch {
	case m.Meta != nil:
		topic.Physical = m.Meta.Topic(a.physical)
		if topic.Physical == nil {
			if identity != ([16]byte{}) { // it may be there in a moment, and its stub has to be known then
				t.wants = append(t.wants, stub.Want{Alias: name, Name: stub.Name(t.View.Prefix, name, identity), Foreign: m.Cluster})
			}
			return nil
		}
		if identity == ([16]byte{}) {
			identity = topic.Physical.ID
		}
	case identity == ([16]byte{}):
		// The cluster was never reached since the gateway started. Its stub tells
		// what there is.
		found := stub.Find(t.Home.Meta, t.View.Prefix, name)
		if len(found) != 1 {
			return nil
		}
		identity = found[0].Identity
		topic.Physical = &upstream.Topic{Name: a.physical, ID: identity}
	default:
		topic.Physical = &upstream.Topic{Name: a.physical}
	}
	topic.ID = topicID(t.View.Name, topic, identity)
	topic.Partitions = topic.Physical.Partitions
	same := old != nil && old.ID == topic.ID
	if m == t.Home && identity == topic.Physical.ID {
		topic.Grouped = Grouped{topic.Physical.Name, topic.Physical.ID}
		return topic
	}

	confirmed := -1
	if p := t.Home.Meta.TopicByID(a.identity); p != nil {
		// It stood for a topic of home: offsets stay with that.
		topic.Grouped, confirmed = Grouped{p.Name, p.ID}, len(p.Partitions)
	} else {
		want := stub.Want{Alias: name, Name: stub.Name(t.View.Prefix, name, identity), Partitions: len(topic.Physical.Partitions), Foreign: m.Cluster}
		t.wants = append(t.wants, want)
		if s, ok := t.stubs.Stub(want.Name); ok {
			topic.Grouped, confirmed = Grouped{s.Name, s.ID}, s.Partitions
		} else if refused := t.stubs.Refused(want.Name); refused != nil {
			if m == t.Home {
				topic.Grouped = Grouped{topic.Physical.Name, topic.Physical.ID} // home has it, at least
			} else {
				topic.Split = refused
			}
			return topic
		}
	}
	show := min(len(topic.Physical.Partitions), confirmed)
	if m.Meta == nil {
		show = confirmed
	}
	if same {
		show = max(show, len(old.Partitions))
		if confirmed < 0 {
			topic.Grouped = old.Grouped
		}
	}
	if show < 0 {
		return nil
	}
	if show > len(topic.Partitions) {
		topic.Partitions = slices.Clone(topic.Partitions)
		for len(topic.Partitions) < show {
			topic.Partitions = append(topic.Partitions, upstream.Leaderless)
		}
	}
	topic.Partitions = topic.Partitions[:show]
	return topic
}

func (t *Table) add(topic *Topic) {
	t.Topics = append(t.Topics, topic)
	t.byName[topic.Name] = topic
	t.byID[topic.ID] = topic
	topic.Member.byName[topic.Physical.Name] = topic
	if topic.Physical.ID != ([16]byte{}) {
		topic.Member.byID[topic.Physical.ID] = topic
	}
	if topic.Grouped.Name != "" {
		t.grouped[topic.Grouped.Name] = topic
		if topic.Grouped.ID != ([16]byte{}) {
			t.groupedID[topic.Grouped.ID] = topic
		}
	}
}

// topicID is the id clients see: it follows from names and the topic's identity, so
// every node shows the same, and a topic that was deleted and made again gets a
// new one (PROTOCOL.md §B3).
func topicID(vc string, t *Topic, identity [16]byte) [16]byte {
	h := sha256.New()
	h.Write([]byte("tollgate topic id\x00" + vc + "\x00" + t.Name + "\x00"))
	if identity != ([16]byte{}) {
		h.Write(identity[:])
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

// Grouped finds a topic by the name that home's group coordinators know.
func (t *Table) Grouped(name string) *Topic { return t.grouped[name] }

// GroupedByID is Grouped for an id.
func (t *Table) GroupedByID(id [16]byte) *Topic { return t.groupedID[id] }

// GroupName is what home's group coordinators are told for a topic of that name. One
// that clients cannot see keeps its name below the prefix: it is nobody's, and comes
// back unchanged.
func (t *Table) GroupName(name string) string {
	if topic := t.byName[name]; topic != nil && topic.Grouped.Name != "" {
		return topic.Grouped.Name
	}
	if strings.HasPrefix(name, hidden) {
		name = hidden + "no." + name // stubs are not for clients to name
	}
	return t.View.Prefix + name
}

// TopicName is the reverse; false: it is not the virtual cluster's.
func (t *Table) TopicName(grouped string) (string, bool) {
	if topic := t.grouped[grouped]; topic != nil {
		return topic.Name, true
	}
	if alias, _, ok := stub.Parse(t.View.Prefix, grouped); ok {
		return alias, true // it was removed, or is another topic now
	}
	name, ok := strings.CutPrefix(grouped, t.View.Prefix)
	return strings.TrimPrefix(name, hidden+"no."), ok
}

// Member finds a cluster by name; nil: it is not the virtual cluster's.
func (t *Table) Member(name string) *Member {
	for _, m := range t.Members {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// Node finds a broker by its virtual node id: its cluster, nil if there is none, and
// its id there.
func (t *Table) Node(vnode int32) (*Member, int32) {
	for _, m := range t.Members {
		if vnode >= 0 && m.Slot == vnode>>16 {
			return m, vnode & 0xffff
		}
	}
	return nil, -1
}

// TransactionMember is the cluster that the transactions of an id live on.
func (t *Table) TransactionMember(id string) *Member {
	if len(t.View.Spec.Transactions) > 0 {
		if m := t.Member(t.View.Spec.TransactionCluster(id)); m != nil {
			return m
		}
	}
	return t.Home
}

// Split reports whether some topic's offsets are kept on its own cluster.
func (t *Table) Split() bool {
	return slices.ContainsFunc(t.Topics, func(topic *Topic) bool { return topic.Split != nil })
}

// Controller is the broker clients are sent to for changes: the lowest live one of
// home, so that it stays the same while it lives.
func (t *Table) Controller() int32 {
	if len(t.Home.Meta.Brokers) == 0 {
		return -1
	}
	return t.Home.VirtualNode(t.Home.Meta.Brokers[0].ID)
}

// placed is where the brokers of a table are on the nodes of a fleet.
type placed struct {
	on *balance.Roster
	at map[int32]int
}

// Placed says which node clients are sent to for each broker, by virtual node id and as
// an index into on, which the caller changes no more. It is found once for each roster.
func (t *Table) Placed(on *balance.Roster) map[int32]int {
	if p := t.placed.Load(); p != nil && p.on == on {
		return p.at
	}
	brokers := make([]balance.Broker, len(t.Brokers))
	for i, b := range t.Brokers {
		brokers[i].VNode = b.Node
		if b.Rack != nil {
			brokers[i].Rack = *b.Rack
		}
	}
	p := &placed{on: on, at: make(map[int32]int, len(brokers))}
	for i, n := range balance.Place(t.View.Name, *on, brokers) {
		p.at[brokers[i].VNode] = n
	}
	t.placed.Store(p)
	return p.at
}

// MarkStale says that the metadata of every cluster is in doubt.
func (t *Table) MarkStale() {
	for _, m := range t.Members {
		m.Cluster.MarkStale()
	}
}

// Topic finds a topic by physical name.
func (m *Member) Topic(physical string) *Topic { return m.byName[physical] }

// TopicBytes is Topic of a name that lies in a frame.
func (m *Member) TopicBytes(physical []byte) *Topic { return m.byName[string(physical)] }

// TopicByID finds a topic by physical id.
func (m *Member) TopicByID(id [16]byte) *Topic { return m.byID[id] }

// VirtualNode maps a physical node id: slot<<16 | node (PROTOCOL.md §B1). Negative
// ids (none) stay.
func (m *Member) VirtualNode(node int32) int32 {
	if node < 0 {
		return node
	}
	return m.Slot<<16 | node
}

// VirtualNodes maps a list.
func (m *Member) VirtualNodes(nodes []int32) []int32 {
	out := make([]int32, len(nodes))
	for i, n := range nodes {
		out[i] = m.VirtualNode(n)
	}
	return out
}
