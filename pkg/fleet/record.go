package fleet

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"tollgate.internal/pkg/bundle"
)

// How long a node is believed to be there, and how often it says so.
const (
	HeartbeatEvery = time.Second
	NodeTTL        = 5 * time.Second
)

// NodeState is what a node does with clients.
type NodeState string

// The states. A node that is gone says so once, and is then forgotten.
const (
	NodeServing  NodeState = "serving"
	NodeDraining NodeState = "draining" // leaves the maps, moves its clients off
	NodeDrained  NodeState = "drained"  // has no clients left
	NodeGone     NodeState = "gone"
)

// Node is what a node says of itself with each heartbeat.
type Node struct {
	ID           string    `json:"id"`
	Host         string    `json:"host"` // where clients reach it, as its listener advertises
	Port         int32     `json:"port"`
	Domain       string    `json:"domain,omitempty"` // of its own, under which its broker hosts are; internal balancing
	Rack         string    `json:"rack,omitempty"`
	Version      string    `json:"version"`
	BundleFormat uint16    `json:"bundleFormat"` // the newest it reads
	State        NodeState `json:"state"`
	Sessions     int       `json:"sessions"`
	Load         float64   `json:"load"`              // share of its CPUs in use, 0 to 1
	Weight       int       `json:"weight,omitempty"`  // its share of the clients beside that of others
	Applied      int64     `json:"applied"`           // everything it serves is as of this revision, or newer
	Problem      string    `json:"problem,omitempty"` // why it serves by what it last knew
	Head         []byte    `json:"head,omitempty"`    // sealed: the highest that it ever saw
	Started      time.Time `json:"started"`           // tells one process from the next
	Heartbeat    time.Time `json:"heartbeat"`         // by its own clock

	// Lasts is for how long the record stays without another heartbeat: NodeTTL when 0.
	Lasts time.Duration `json:"-"`
}

// maxRecordBytes bounds a node's record.
const maxRecordBytes = 16 << 10

func decodeNode(id, text string) (Node, error) {
	var n Node
	if len(text) > maxRecordBytes {
		return n, fmt.Errorf("record of node %s: %d bytes", id, len(text))
	}
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		return n, fmt.Errorf("record of node %s: %w", id, err)
	}
	if n.ID != id {
		return n, fmt.Errorf("record of node %s is that of %q", id, n.ID)
	}
	return n, nil
}

// Head says how far everything is published.
type Head struct {
	Deployment Deployment `json:"deployment"`
	Revision   int64      `json:"revision"`
	// Policies is the revision of [bundle.Everywhere]: nobody is to be served without it, or
	// with an older one. 0: there never was one. It is all that tells a proxy which has none
	// whether there is one, and so stands here, where everything else is said to be there.
	Policies int64 `json:"policies,omitempty"`
}

// OpenHead reads a sealed head of a deployment.
func OpenHead(keys bundle.Keyring, d Deployment, sealed []byte) (Head, error) {
	var h Head
	body, err := keys.Unseal(bundle.ForHead, sealed)
	if err != nil {
		return h, fmt.Errorf("head: %w", err)
	}
	if err := json.Unmarshal(body, &h); err != nil || h.Revision < 0 || h.Policies < 0 {
		return Head{}, fmt.Errorf("head: %w", &bundle.Refusal{Reason: bundle.Malformed, Text: "signed, and makes no sense"})
	}
	if h.Deployment != d {
		return Head{}, fmt.Errorf("head: %w", &bundle.Refusal{Reason: bundle.Foreign, Text: fmt.Sprintf("of deployment %q, and this is %q", h.Deployment, d)})
	}
	return h, nil
}

// Action is what a node is told to do.
type Action string

// The actions.
const (
	Drain   Action = "drain"   // move clients off, over the time that the command says
	Undrain Action = "undrain" // take clients again

	TellSessions Action = "tell-sessions" // answer which there are, as Command.Ask says
	CloseSession Action = "close-session" // the one of Command.Ask, now
)

// Command is a word of the portal to one process, or to all nodes. Said again it changes
// nothing, and another process of the same node does not listen to it.
type Command struct {
	Deployment Deployment    `json:"deployment"`
	Node       string        `json:"node"`    // empty: all, for TellSessions alone
	Started    time.Time     `json:"started"` // of the process that is meant: Node.Started
	Action     Action        `json:"action"`
	Over       time.Duration `json:"over,omitempty"`
	Ask        *Ask          `json:"ask,omitempty"`
	ID         string        `json:"id"` // of its own
}

// OpenCommand reads a sealed command of a deployment.
func OpenCommand(keys bundle.Keyring, d Deployment, sealed []byte) (Command, error) {
	var c Command
	body, err := keys.Unseal(bundle.ForCommand, sealed)
	if err != nil {
		return c, fmt.Errorf("command: %w", err)
	}
	if err := json.Unmarshal(body, &c); err != nil || c.Over < 0 {
		return Command{}, fmt.Errorf("command: %w", &bundle.Refusal{Reason: bundle.Malformed, Text: "signed, and makes no sense"})
	}
	if c.Deployment != d {
		return Command{}, fmt.Errorf("command: %w", &bundle.Refusal{Reason: bundle.Foreign, Text: fmt.Sprintf("of deployment %q, and this is %q", c.Deployment, d)})
	}
	return c, nil
}

// Entry is one of the stream. Each names the one before it, so that a reader knows
// when some are missing between what it read and what it reads. One of Change, Head
// and Command is set; neither, in an entry of a later version.
type Entry struct {
	Position string // in the stream
	After    string // the position of the entry before; Start: none
	Change   *Change
	Head     []byte // sealed
	Command  []byte // sealed
}

// Start is the position before every entry.
const Start = "0-0"

// Change says that there is a bundle. It is not signed: the bundle is.
type Change struct {
	bundle.ID
	Revision int64
}

func decodeEntry(position string, values map[string]any) Entry {
	text := func(field string) string { s, _ := values[field].(string); return s }
	e := Entry{Position: position, After: text("after")}
	if s := text("head"); s != "" {
		e.Head = []byte(s)
	}
	if s := text("command"); s != "" {
		e.Command = []byte(s)
	}
	if name := text("name"); name != "" {
		if revision, err := strconv.ParseInt(text("revision"), 10, 64); err == nil {
			e.Change = &Change{bundle.ID{Kind: bundle.Kind(text("kind")), Name: name}, revision}
		}
	}
	return e
}

// Behind reports whether one position is before another.
func Behind(a, b string) bool {
	a1, a2 := splitPosition(a)
	b1, b2 := splitPosition(b)
	return a1 < b1 || a1 == b1 && a2 < b2
}

func splitPosition(p string) (ms, n uint64) {
	for i := range len(p) {
		if p[i] == '-' {
			ms, _ = strconv.ParseUint(p[:i], 10, 64)
			n, _ = strconv.ParseUint(p[i+1:], 10, 64)
			return ms, n
		}
	}
	return 0, 0
}
