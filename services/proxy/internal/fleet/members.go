package fleet

import (
	"time"

	board "tollgate.internal/pkg/fleet"
)

// A Membership knows the nodes of the fleet.
type Membership interface {
	// Members are the live nodes by id, this one among them, as they were last known:
	// a node that cannot ask keeps what it knew. The channel is closed when they have
	// changed in anything that is in [Member]. The caller changes neither.
	Members() (members []Member, changed <-chan struct{})
}

// A Member is a node, as its own heartbeats say.
type Member struct {
	ID     string
	Domain string // of its own, where clients find it below b<node>-<host>; empty: they cannot be sent to it
	Port   int32  // beside Domain
	Rack   string // empty: unknown
	State  State
	// Weight is its share of the clients beside that of others. It moves in few steps and
	// rarely, since clients move when it does.
	Weight int
}

// State is how far a node has come in leaving:
//
//	serving --Drain--> draining --nobody is left--> drained
//	    '<-----------------Undrain----'----------------'
//
// Only a node that is serving is sent clients. One that ends drains before, and is a
// member no longer when it has ended.
type State string

// The states of a node.
const (
	Serving  State = "serving"
	Draining State = "draining"
	Drained  State = "drained"
)

// Report is what a node says of itself in its heartbeats, besides what never changes.
type Report struct {
	State    State
	Sessions int     // clients that are connected
	Load     float64 // share of its CPUs in use, 0 to 1, over the last seconds
	Weight   int     // as in Member
}

// Self is the node to those who speak for it: they ask for its report at each heartbeat
// and soon after changed was closed, and hand it the commands that are meant for it. A
// command is for the process that runs when it is given: one that was started later
// serves, whatever its predecessor was told.
type Self interface {
	Report() (r Report, changed <-chan struct{})
	// Drain makes the node leave, spread over so much time; 0: over the time in its own
	// configuration. It returns at once. A node that drains or is drained already goes on
	// with that.
	Drain(over time.Duration)
	// Undrain makes it serve again, also when it has not yet drained. A node that
	// is about to end ends all the same.
	Undrain()
	// Sessions are those that are asked about: the first ask.Limit of them in the order
	// of board.CompareSessions, and how many there are. It holds up nobody.
	Sessions(ask board.Ask) (some []board.Session, all int)
	// CloseSession ends one at once; false: there is none of that id.
	CloseSession(id string) bool
}
