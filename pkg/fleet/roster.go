package fleet

import (
	"sync"
	"time"
)

// roster remembers nodes that Redis may have forgotten while they serve: it was emptied,
// or came back without their records, and they have not said anew that they are there.
// Whoever asks whether every node serves a change must not take that for yes.
type roster struct {
	mu    sync.Mutex
	read  time.Time // when the last list was asked for
	nodes map[string]*listed
}

// listed is a node as it was listed last.
type listed struct {
	Node
	until   time.Time // when it would be missed by its last heartbeat
	missing bool      // from the last list
}

// rosterGap is a time between two lists after which nobody knows what was in between.
const rosterGap = 3 * time.Second

// note takes a list, which was asked for at a time, and returns those that are not in it
// and are presumed to be there: for [NodeTTL] after their last heartbeat, or, if Redis
// could not be asked meanwhile, after it can be. Nodes that said that they go are not
// among them.
func (r *roster) note(asked time.Time, list []Node) (presumed []Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.nodes == nil {
		r.nodes = make(map[string]*listed)
	}
	gap := asked.Sub(r.read) > rosterGap
	if asked.After(r.read) {
		r.read = asked
	}
	there := make(map[string]bool, len(list))
	for _, n := range list {
		there[n.ID] = true
		known := r.nodes[n.ID]
		switch {
		case n.State == NodeGone:
			delete(r.nodes, n.ID)
		case known == nil || !known.Heartbeat.Equal(n.Heartbeat) || !known.Started.Equal(n.Started):
			r.nodes[n.ID] = &listed{Node: n, until: asked.Add(NodeTTL)}
		default:
			known.Node, known.missing = n, false
		}
	}
	for id, known := range r.nodes {
		if there[id] {
			continue
		}
		if gap && !known.missing {
			known.until = asked.Add(NodeTTL)
		}
		known.missing = true
		if asked.After(known.until) {
			delete(r.nodes, id)
			continue
		}
		presumed = append(presumed, known.Node)
	}
	return presumed
}
