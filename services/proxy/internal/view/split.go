package view

import (
	"context"
	"slices"
	"sync"

	"tollgate.internal/services/proxy/internal/upstream"
)

// anchor follows the prefix in the name of a topic on home with one partition. A
// commit to it is a commit to home that says nothing: what home thinks of the group
// and the member is all that is wanted (PROTOCOL.md §B4-S2).
const anchor = hidden + "anchor"

// Anchor is the anchor topic; nil: home has none.
func (t *Table) Anchor() *upstream.Topic {
	a := t.Home.Meta.Topic(t.View.Prefix + anchor)
	if a == nil || len(a.Partitions) == 0 {
		return nil
	}
	return a
}

// SplitMembers are the clusters that keep the offsets of topics of their own.
func (t *Table) SplitMembers() []*Member {
	var members []*Member
	for _, topic := range t.Topics {
		if topic.Split != nil && !slices.Contains(members, topic.Member) {
			members = append(members, topic.Member)
		}
	}
	return members
}

// Splits is what a virtual cluster needs whose offsets are on several clusters: one
// session at a time changes those of a group, and the coordinators that other
// clusters have for it are remembered. Groups go by their names on the clusters.
type Splits struct {
	mu           sync.Mutex
	turns        map[string]*turn
	coordinators map[coordinated]int32
}

// turn is the right to change the offsets of a group.
type turn struct {
	free  chan struct{} // has one element while nobody has the right
	users int           // who has it or waits for it
}

type coordinated struct {
	cluster *upstream.Cluster
	group   string
}

// maxCoordinators is how many are remembered.
const maxCoordinators = 10_000

// Turn waits until nobody else changes offsets of the group, and returns what ends
// the turn; or it fails with ctx's error.
func (x *Splits) Turn(ctx context.Context, group string) (end func(), err error) {
	x.mu.Lock()
	t := x.turns[group]
	if t == nil {
		t = &turn{free: make(chan struct{}, 1)}
		t.free <- struct{}{}
		if x.turns == nil {
			x.turns = make(map[string]*turn)
		}
		x.turns[group] = t
	}
	t.users++
	x.mu.Unlock()
	leave := func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(x.turns, group)
		}
	}
	select {
	case <-t.free:
		return func() { t.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

// Coordinator is the node that coordinates the group on the cluster, as far as is
// known.
func (x *Splits) Coordinator(c *upstream.Cluster, group string) (node int32, known bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	node, known = x.coordinators[coordinated{c, group}]
	return node, known
}

// SetCoordinator remembers it; -1 forgets it.
func (x *Splits) SetCoordinator(c *upstream.Cluster, group string, node int32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if node < 0 {
		delete(x.coordinators, coordinated{c, group})
		return
	}
	if x.coordinators == nil || len(x.coordinators) >= maxCoordinators {
		x.coordinators = make(map[coordinated]int32)
	}
	x.coordinators[coordinated{c, group}] = node
}
