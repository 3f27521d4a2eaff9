package stub

import "time"

// State is how far a wanted stub has come.
type State uint8

// The states.
const (
	Pending   State = iota // being made, extended, repaired or confirmed
	Confirmed              // every live broker of home shows it
	Refused                // home does not take it, or it must not be made
	Waiting                // the topic's own cluster has to be asked first and cannot be
	states
)

func (s State) String() string {
	return [states]string{"pending", "confirmed", "refused", "waiting"}[s]
}

// Status is for operators.
type Status struct {
	Home    error // why home cannot be asked; nil: it can
	Stubs   []StubStatus
	Orphans []Orphan
	Counts  [states]int // of Stubs, by State
	Totals  Totals
}

// StubStatus is one wanted stub.
type StubStatus struct {
	Name, Alias string
	State       State
	Wanted      int   // partitions
	Partitions  int   // confirmed
	Problem     error // why it is refused, waits, or is not extended
}

// Orphan is a stub that nobody wants any more.
type Orphan struct {
	Name    string
	Since   time.Time // that this process knows of
	Problem error     // why it could not be deleted
}

// Totals count what a keeper has done.
type Totals struct{ Created, Extended, Repaired, Deleted int }

// Status is how things stand.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}

func (k *Keeper) count(f func(*Totals)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&k.totals)
}
