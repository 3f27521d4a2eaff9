// Package balance says which node of a fleet serves which virtual broker, where clients
// are sent to a node of their own (DESIGN.md §5, internal balancing).
//
// [Place] is a function of what it is given: nodes that know of the same members place
// every broker alike. A broker is on a node of its own rack where there is room, no node
// has many more of a virtual cluster's brokers than others, and never all of them; a
// node that comes or goes moves about as few brokers as could be. [Weigher] turns the
// load of a node into its weight, slowly enough that clients are not sent to and fro.
//
// The package does no I/O, reads no clock and starts no goroutine.
package balance

import (
	"cmp"
	"slices"
	"time"
)

// A Node can be sent clients.
type Node struct {
	ID     string // no two have the same
	Rack   string // empty: unknown
	Weight int    // 1 to Full; what is below or above counts as that
}

// A Roster is the nodes that clients are sent to at one moment.
type Roster []Node

// A Broker is a virtual broker of a virtual cluster.
type Broker struct {
	VNode int32  // no two have the same
	Rack  string // empty: unknown
}

// Bound is how many of so many brokers a node has at most: a quarter more than the
// average, rounded up, and not all of them. Who loses a node then still knows another,
// to ask where its brokers are now.
func Bound(brokers, nodes int) int {
	most := (5*brokers + 4*nodes - 1) / (4 * nodes)
	if nodes > 1 && brokers > 1 {
		most = min(most, brokers-1)
	}
	return most
}

// Place returns the node of each broker, as an index into nodes; nil when there are none.
// The order of either list means nothing.
//
// Every pair of a broker and a node has a score that nobody else changes, and the pairs
// come in the order of their scores, those in one rack before all others: a pair is
// made unless its broker has a node by then, or its node as many brokers as the bound
// allows. So when a node comes, and the bound stays, every broker that moves does so
// because it is better off; when one goes, because it has to.
func Place(virtualCluster string, nodes []Node, brokers []Broker) []int {
	if len(nodes) == 0 {
		return nil
	}
	type pair struct {
		elsewhere    bool // in another rack
		score        uint64
		broker, node int
	}
	pairs := make([]pair, 0, len(nodes)*len(brokers))
	for n := range nodes {
		for b := range brokers {
			pairs = append(pairs, pair{
				elsewhere: brokers[b].Rack == "" || brokers[b].Rack != nodes[n].Rack,
				score:     score(virtualCluster, brokers[b].VNode, &nodes[n]), broker: b, node: n,
			})
		}
	}
	slices.SortFunc(pairs, func(x, y pair) int {
		switch {
		case x.elsewhere != y.elsewhere && x.elsewhere:
			return 1
		case x.elsewhere != y.elsewhere:
			return -1
		}
		return cmp.Or(cmp.Compare(y.score, x.score), cmp.Compare(brokers[x.broker].VNode, brokers[y.broker].VNode), cmp.Compare(nodes[x.node].ID, nodes[y.node].ID))
	})
	at, has := make([]int, len(brokers)), make([]int, len(nodes))
	for b := range at {
		at[b] = -1
	}
	bound := Bound(len(brokers), len(nodes))
	for _, p := range pairs {
		if at[p.broker] < 0 && has[p.node] < bound {
			at[p.broker] = p.node
			has[p.node]++
		}
	}
	return at
}

// score is the best of as many draws as the node has weight: so a node of half the weight
// has half the chance, and loses brokers, and no other changes hands, when its weight falls.
func score(virtualCluster string, vNode int32, n *Node) uint64 {
	const offset = 14695981039346656037
	h := text(text(offset, virtualCluster), n.ID)
	h = mixed(h ^ uint64(uint32(vNode)))
	best := uint64(0)
	for draw := range uint64(min(max(n.Weight, 1), Full)) {
		best = max(best, mixed(h+draw*0x9e3779b97f4a7c15))
	}
	return best
}

// text is FNV-1a of h and s, and of where s ends.
func text(h uint64, s string) uint64 {
	const prime = 1099511628211
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * prime
	}
	return (h ^ 0xff) * prime // no name has this byte
}

// mixed spreads every bit over all of them, as SplitMix64 does.
func mixed(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// Full is the weight of a node that is not overloaded.
const Full = 4

// When a node's weight moves.
const (
	overloaded = 0.85        // the load at which a node sends clients away,
	overFor    = time.Minute // when it stays there
	roomy      = 0.70        // the load that it may have with more of them,
	roomyFor   = 5 * time.Minute
)

// A Weigher is the weight of one node over time. It falls by one when the node was
// overloaded for a minute, and rises by one when the load, grown as the weight would,
// leaves room, for five minutes.
type Weigher struct {
	lost         int       // of Full
	above, below time.Time // since when the load is so; zero: it is not
}

// Weigh returns the weight at a load, 0 to 1, which was measured now.
func (w *Weigher) Weigh(now time.Time, load float64) int {
	weight := float64(Full - w.lost)
	since(&w.above, now, load >= overloaded)
	since(&w.below, now, load*(weight+1)/weight <= roomy)
	switch {
	case !w.above.IsZero() && now.Sub(w.above) >= overFor && w.lost < Full-1:
		w.lost++
		w.above, w.below = time.Time{}, time.Time{}
	case !w.below.IsZero() && now.Sub(w.below) >= roomyFor && w.lost > 0:
		w.lost--
		w.above, w.below = time.Time{}, time.Time{}
	}
	return Full - w.lost
}

func since(at *time.Time, now time.Time, so bool) {
	switch {
	case !so:
		*at = time.Time{}
	case at.IsZero():
		*at = now
	}
}
