package view

import (
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"tollgate.internal/services/proxy/internal/upstream"
)

// An Offer is what clients are told that can be done. It is the same for every broker
// of the virtual cluster, because clients take what one of them can for what all can
// (PROTOCOL.md §A2).
type Offer struct {
	Ranges    map[int16]upstream.Range // what every cluster has
	Finalized map[string]int16         // features, by name
	Supported map[string]upstream.Range
	Epoch     int64 // of the features: it grows whenever they change
	Groups    bool  // the consumer protocol (KIP-848)
	Shares    bool  // share groups (KIP-932)

	view  *View
	of    []*upstream.Versions // of each cluster; nil: not known
	split bool
}

// Offer is the present one; nil while home's versions are not known.
func (vc *VirtualCluster) Offer() *Offer {
	st := vc.state.Load()
	t := vc.table.Load()
	split := t != nil && t.Split()
	if o := vc.offer.Load(); o != nil && o.current(st, split) {
		return o
	}
	vc.mu.Lock()
	defer vc.mu.Unlock()
	before := vc.offer.Load()
	if before != nil && before.current(st, split) {
		return before
	}
	o := newOffer(st, split)
	if o == nil {
		return nil
	}
	switch {
	case before == nil:
		o.Epoch = vc.FeaturesEpoch
	case maps.Equal(before.Finalized, o.Finalized):
		o.Epoch = before.Epoch
	default:
		o.Epoch = max(before.Epoch+1, time.Now().Unix())
	}
	vc.offer.Store(o)
	return o
}

func (o *Offer) current(st *state, split bool) bool {
	if o.view != st.view || o.split != split || len(o.of) != len(st.members) {
		return false
	}
	for i := range st.members {
		if st.members[i].Cluster.Versions() != o.of[i] {
			return false
		}
	}
	return true
}

// features are those that clients are told of. eligible.leader.replicas.version and
// others change nothing for them.
var features = []string{"group.version", "metadata.version", "share.version", "transaction.version"}

// ofHome are keys that no other cluster is ever asked. Kafka 3.9 has them in version
// 0, which no client takes for the consumer protocol.
var ofHome = []int16{int16(kmsg.ConsumerGroupHeartbeat), int16(kmsg.ConsumerGroupDescribe)}

// unseen is what a cluster is taken for that was never reached: the oldest Kafka there
// is a promise for. Taken for less, clients of other nodes, which know better, would
// find requests gone that they use; taken for more, they would be promised what
// nobody keeps.
var unseen = func() *upstream.Versions {
	v := &upstream.Versions{Ranges: make(map[int16]upstream.Range)}
	kversion.V3_9_0().EachMaxKeyVersion(func(key, most int16) { v.Ranges[key] = upstream.Range{Max: most} })
	return v
}()

func newOffer(st *state, split bool) *Offer {
	o := &Offer{view: st.view, split: split, Finalized: make(map[string]int16), Supported: make(map[string]upstream.Range)}
	var all *upstream.Versions
	for i := range st.members {
		v := st.members[i].Cluster.Versions()
		o.of = append(o.of, v)
		if v == nil && i > 0 {
			v = unseen
		}
		all = all.Intersect(v)
	}
	home := o.of[0]
	if home == nil {
		return nil
	}
	o.Ranges = maps.Clone(all.Ranges)
	for _, key := range ofHome {
		if r, ok := home.Ranges[key]; ok {
			o.Ranges[key] = r
		}
	}
	spans := st.view.Spec.Spans()
	for _, name := range features {
		level := home.Finalized[name]
		switch {
		case name == "share.version" && spans:
			continue // the state of a share partition is on its leader's cluster (§B7)
		case name == "group.version" && split:
			continue // partitions are assigned by home, which has no such topics (§B6)
		case name == "group.version" && o.Ranges[int16(kmsg.OffsetCommit)].Max < 9:
			continue // members could not commit: a cluster is older than Kafka 3.7
		case name == "transaction.version" && spans:
			level = min(level, 1) // a leader elsewhere would ask its own coordinator (§C4)
		}
		if level <= 0 {
			continue
		}
		o.Finalized[name] = level
		o.Supported[name] = upstream.Range{Min: home.Supported[name].Min, Max: level}
	}
	o.Groups, o.Shares = o.Finalized["group.version"] >= 1, o.Finalized["share.version"] >= 1
	return o
}
