package quota

import (
	"context"
	"sync"
	"time"
)

// patience is how long a connection waits for the other nodes to give back places
// that they have spare, before it is refused.
const patience = 1500 * time.Millisecond

// Seats are the connections there may be. They are counted also without a limit, so
// that one may be set at any time.
type Seats struct {
	of *Quotas

	mu      sync.Mutex
	limit   int64   // of the fleet; 0: none
	granted int64   // of it, to this node
	part    float64 // that granted follows from; 0: the fleet said
	full    bool    // there is no more to be had
	open    int64
	waiting int64
	changed chan struct{} // closed, and another made, when there may be more room
}

// set puts a limit in force. Connections beyond it stay.
func (s *Seats) set(limit int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit == s.limit {
		return
	}
	s.limit = limit
	if s.part > 0 {
		s.granted = portion(limit, s.part)
	} else {
		s.granted, s.full = min(s.granted, limit), false
	}
	s.moved()
	if limit > 0 && s.open > 0 {
		s.of.use()
	}
}

// portion is a node's part of a limit when nobody says more: at least one, or some
// clients would find no room on any node they know of.
func portion(limit int64, part float64) int64 {
	return max(int64(float64(limit)*part), 1)
}

// unlease is for when nobody can be asked.
func (s *Seats) unlease(part float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.part, s.granted, s.full = part, portion(s.limit, part), true
	s.moved()
}

// grant is what the node has of the fleet's; full: and what is not its is not free.
func (s *Seats) grant(n int64, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.part, s.granted, s.full = 0, n, full
	s.moved()
}

// rest leaves the node what it has in use.
func (s *Seats) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.part, s.granted, s.full = 0, s.open, false
	s.moved()
}

func (s *Seats) moved() {
	if s.waiting > 0 {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// Full reports that Enter would refuse. It never waits.
func (s *Seats) Full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limit > 0 && s.open >= s.granted && s.full
}

// Enter counts a connection, or refuses it: false. Where other nodes may have room
// to spare, it waits a moment for them.
func (s *Seats) Enter(ctx context.Context) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	var late <-chan time.Time
	for s.limit > 0 && s.open >= s.granted {
		if s.full {
			return false
		}
		if late == nil {
			t := time.NewTimer(patience)
			defer t.Stop()
			late = t.C
		}
		s.waiting++
		changed := s.changed
		s.mu.Unlock()
		s.of.fleet.Join(s.of)
		out := false
		select {
		case <-changed:
		case <-late:
			out = true
		case <-ctx.Done():
			out = true
		}
		s.mu.Lock()
		s.waiting--
		if out {
			return false
		}
	}
	s.open++
	if s.limit > 0 {
		s.of.use()
	}
	return true
}

// Leave takes a connection that entered out again.
func (s *Seats) Leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if s.limit > 0 {
		s.of.use()
	}
}
