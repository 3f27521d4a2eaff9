package control

import (
	"context"
	"math"
	"time"

	"tollgate.internal/services/portal/internal/store"
)

// auditExport is the name of the one export that there is.
const auditExport = "audit"

// Position is a place in the audit log: behind an entry. The zero Position is its
// beginning.
type Position struct{ Revision, Seq int64 }

// Position is the place behind an entry.
func (e *Entry) Position() Position { return Position{e.Revision, e.Seq} }

// Lease is who passes the audit log on to somewhere else, and how far it is.
type Lease struct {
	At      Position // everything up to it was passed on
	Holder  string
	Mine    bool
	Problem string // why the holder gets no further; "": it does
}

// TakeExport asks for the lease, or prolongs it: for a time nobody else passes the
// log on. Whoever holds it and is not heard of for that long loses it.
func (c *Control) TakeExport(ctx context.Context, holder string, ttl time.Duration, problem string) (Lease, error) {
	var lease Lease
	// Those who wait for the holder to die are not to hold up changes.
	err := c.store.Read(ctx, func(tx *store.Tx) (err error) {
		lease, err = c.lease(ctx, tx, holder)
		return err
	})
	if err != nil || lease.Holder != "" && !lease.Mine {
		return lease, err
	}
	err = c.store.Note(ctx, func(tx *store.Tx) (err error) {
		if lease, err = c.lease(ctx, tx, holder); err != nil {
			return err
		}
		if lease.Holder != "" && !lease.Mine {
			return store.ErrDiscard
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		lease.Holder, lease.Mine, lease.Problem = holder, true, problem
		return tx.PutExport(ctx, auditExport, store.Export{
			Revision: lease.At.Revision, Seq: lease.At.Seq, Holder: holder, Until: now.Add(ttl), Problem: problem,
		})
	})
	return lease, err
}

// lease is as it is in a transaction. One that is over is nobody's.
func (c *Control) lease(ctx context.Context, tx *store.Tx, holder string) (Lease, error) {
	e, ok, err := tx.Export(ctx, auditExport)
	if err != nil || !ok {
		return Lease{}, err
	}
	now, err := tx.Now(ctx)
	l := Lease{At: Position{e.Revision, e.Seq}, Holder: e.Holder, Mine: e.Holder == holder, Problem: e.Problem}
	if !now.Before(e.Until) && !l.Mine {
		l.Holder = ""
	}
	return l, err
}

// Exported says that the log was passed on up to a position, and reports whether the
// lease is the holder's still: if not, nothing is noted, and somebody else goes on from
// where it was.
func (c *Control) Exported(ctx context.Context, holder string, at Position) (mine bool, err error) {
	err = c.store.Note(ctx, func(tx *store.Tx) error {
		e, ok, err := tx.Export(ctx, auditExport)
		if err != nil {
			return err
		}
		if mine = ok && e.Holder == holder; !mine {
			return store.ErrDiscard
		}
		e.Revision, e.Seq = at.Revision, at.Seq
		return tx.PutExport(ctx, auditExport, e)
	})
	return mine, err
}

// LeaveExport gives the lease back, if it is the holder's, for somebody else to take at once.
func (c *Control) LeaveExport(ctx context.Context, holder string) error {
	return c.store.Note(ctx, func(tx *store.Tx) error {
		e, ok, err := tx.Export(ctx, auditExport)
		if err != nil || !ok || e.Holder != holder {
			return err
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		e.Holder, e.Until = "", now
		return tx.PutExport(ctx, auditExport, e)
	})
}

// Behind reads the log behind a position, in its order.
func (c *Control) Behind(ctx context.Context, at Position, limit int) (entries []Entry, err error) {
	err = c.store.Read(ctx, func(tx *store.Tx) error {
		all, err := tx.Entries(ctx, store.EntryQuery{Revision: max(at.Revision, 1), Seq: seqOf(at), Limit: limit})
		entries = make([]Entry, len(all))
		for i, e := range all {
			entries[i] = entry(e)
		}
		return err
	})
	return entries, err
}

// seqOf is where the first revision begins, for the zero Position.
func seqOf(at Position) int64 {
	if at.Revision == 0 {
		return -1
	}
	return at.Seq
}

// Lag is what of the audit log is yet to be passed on.
type Lag struct {
	Entries int64     // LagMax if there are more
	Oldest  time.Time // when the first of them was written; zero: there is none
}

// LagMax is how far a [Lag] is counted.
const LagMax = 100_000

// ExportLag reads what the log has behind a position.
func (c *Control) ExportLag(ctx context.Context, at Position) (lag Lag, err error) {
	err = c.store.Read(ctx, func(tx *store.Tx) (err error) {
		lag.Entries, lag.Oldest, err = tx.EntriesBehind(ctx, at.Revision, seqOf(at), LagMax)
		return err
	})
	return lag, err
}

const (
	// exportMemory is how long an export counts as being in use after it was heard of:
	// a portal that knows nothing of it removes nothing that it has not passed on.
	exportMemory = time.Hour
	// forgotten is how many entries are removed in one transaction.
	forgotten = 1000
)

// ForgetAudit removes entries that were written before a time, and tells how many; it
// is asked again until there are none. While the log is being exported nothing goes
// that was not: exporting says that this portal does, whether or not it got to it.
func (c *Control) ForgetAudit(ctx context.Context, before time.Time, exporting bool) (n int64, err error) {
	err = c.store.Note(ctx, func(tx *store.Tx) error {
		e, _, err := tx.Export(ctx, auditExport)
		if err != nil {
			return err
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		if !exporting && !now.Before(e.Until.Add(exportMemory)) {
			e.Revision, e.Seq = math.MaxInt64, 0
		}
		if e.Revision == 0 {
			n = 0
			return store.ErrDiscard
		}
		if n, err = tx.RemoveEntries(ctx, e.Revision, e.Seq, before, forgotten); err == nil && n == 0 {
			return store.ErrDiscard
		}
		return err
	})
	return n, err
}
