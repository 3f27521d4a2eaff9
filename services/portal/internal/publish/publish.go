// Package publish tells the fleet what is stored: it compiles what changed into
// bundles and puts them up in Redis, where the proxies look.
//
// Nothing that is stored depends on Redis. When it is away, everything waits; when it
// comes back empty, or as an older copy of itself, what it lacks is put up again. Several
// portals on one store may publish at the same time: what is older never takes the place
// of what is newer, and equal bundles have equal bytes.
package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/fleet"
	"tollgate.internal/services/portal/internal/control"
)

// Store is where the resources are.
type Store interface {
	// Head is the revision of the last change.
	Head(ctx context.Context) (int64, error)
	// Wait returns when there is a revision above after, or ctx ends.
	Wait(ctx context.Context, after int64) (head int64, err error)
	Pending(ctx context.Context, limit int) ([]control.Mark, error)
	All(ctx context.Context, after bundle.ID, limit int) ([]control.Mark, error)
	Compile(ctx context.Context, id bundle.ID) (*bundle.Bundle, error)
	Published(ctx context.Context, marks ...control.Mark) error
	// Everywhere is the revision at which the fleet was told of the policies of all virtual
	// clusters; 0: never.
	Everywhere(ctx context.Context) (told int64, some bool, err error)
}

// Board is where the proxies look. Its methods are those of [fleet.Publisher].
type Board interface {
	Head(ctx context.Context) (fleet.Head, error)
	Seal(b *bundle.Bundle) (*fleet.Sealed, error)
	PutSealed(ctx context.Context, bundles ...*fleet.Sealed) error
	Announce(ctx context.Context, changes ...fleet.Change) error
	Advance(ctx context.Context, from int64, to fleet.Head) error
	Lacking(ctx context.Context, changes ...fleet.Change) ([]fleet.Change, error)
	Seen(ctx context.Context) (revision int64, node string, err error)
}

const (
	// every is how often Redis is looked at, and the store for what other portals
	// have stored.
	every = 250 * time.Millisecond
	// page is how many bundles are listed at once.
	page = 200
	// atOnce is how many bytes of bundles are put up at once, or little more: what each of
	// the compilers was at comes on top.
	atOnce = 4 << 20
	// compilers is how many bundles are held whole at the same moment, at most. One as
	// large as a bundle may be takes a hundred megabytes.
	compilers = 4
	// askEvery is how often nodes are looked at: what they were told of.
	askEvery = time.Second
	// proveEvery is how often a page of bundles is looked at in Redis: whether each
	// still is what was put up.
	proveEvery = time.Second
)

// AheadError says that the fleet has been told of changes that the store does not
// have: the store is an old copy. Publishing would take them back, a revocation among
// them, so nothing is until somebody says so who knows what they do.
type AheadError struct {
	Store, Fleet int64  // revisions
	Node         string // which saw it; empty: it stands in Redis
}

func (e *AheadError) Error() string {
	by := "Redis"
	if e.Node != "" {
		by = "node " + e.Node
	}
	return fmt.Sprintf("the fleet was told of revision %d, says %s, and the database has only %d: it is an old copy, or another one's, and nodes serve what they last knew. "+
		"Restore a newer copy; or, to go on with this one: apply and revoke again what was changed since, then start the portals with TOLLGATE_PORTAL_RESTORED_AT=%d", e.Fleet, by, e.Store, e.Fleet)
}

// StuckError says that one bundle cannot be made of what is stored. Nodes serve what they
// last knew of it, and everything else as it is.
type StuckError struct {
	bundle.ID
	Revision  int64 // of its last change
	Published int64 // the last one that the fleet was told of; 0: none
	Err       error
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("%v cannot be published as of revision %d, and nodes serve what they last knew of it: %v", e.ID, e.Revision, e.Err)
}

func (e *StuckError) Unwrap() error { return e.Err }

// stuck is a bundle that cannot be made, and when that was last tried.
type stuck struct {
	*StuckError
	tried pause
}

// Loop publishes until it is told to end.
type Loop struct {
	store      Store
	board      Board
	deployment fleet.Deployment
	log        *slog.Logger
	atOnce     int // bytes; for tests

	told   int64     // the highest revision that stood in Redis, as far as this process knows
	seen   int64     // the highest revision that a node proved it was told of
	seer   string    // that node
	asked  pause     // since nodes were last asked
	proven bundle.ID // the last bundle that was looked at
	looked pause     // since that was
	walked bool      // every bundle was looked at since the start
	stuck  map[bundle.ID]stuck

	mu     sync.Mutex
	status Status
}

// pause is the time until something is done again that is to be done every so often. A
// Redis that takes its time over it is left alone for longer: changes are to wait for
// nothing that is not about them.
type pause struct {
	since time.Time
	took  time.Duration
}

func (p *pause) over(every time.Duration) bool { return time.Since(p.since) >= max(every, 4*p.took) }

// begin counts from now on, after what was begun at a time.
func (p *pause) begin(began time.Time) { p.since, p.took = time.Now(), time.Since(began) }

// Status is how publishing goes.
type Status struct {
	Revision  int64     // everything up to it is put up
	Published uint64    // bundles, since the start
	Restored  uint64    // times that Redis lacked what it had before
	Ahead     int64     // revisions that the fleet was told of and the store does not have
	Err       error     // why it does not go; nil: it does
	Since     time.Time // when it began to go, or not to

	// Stuck are bundles that cannot be made, by their names: Revision is true of all others.
	Stuck []*StuckError
}

// Lacks reports whether the fleet was not told of everything up to a revision: what is
// stuck counts only for changes that it may be about.
func (s Status) Lacks(revision int64) bool {
	return s.Err != nil || s.Revision < revision || slices.ContainsFunc(s.Stuck, func(e *StuckError) bool { return e.Published < revision && revision <= e.Revision })
}

// Problem is why nodes do not learn of changes, or of some; nil: they do.
func (s Status) Problem() error {
	switch {
	case s.Err != nil || len(s.Stuck) == 0:
		return s.Err
	case len(s.Stuck) > 1:
		return fmt.Errorf("%d bundles cannot be published; %w", len(s.Stuck), s.Stuck[0])
	}
	return s.Stuck[0]
}

// New makes a loop that publishes under the name of a deployment, which is the
// board's too.
func New(store Store, board Board, deployment fleet.Deployment, log *slog.Logger) *Loop {
	return &Loop{store: store, board: board, deployment: deployment, log: log, atOnce: atOnce, stuck: make(map[bundle.ID]stuck), status: Status{Err: errors.New("nothing published yet"), Since: time.Now()}}
}

// Status is the present one.
func (l *Loop) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Run publishes until ctx ends.
func (l *Loop) Run(ctx context.Context) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		head, published, restored, err := l.round(ctx)
		l.note(head, published, restored, err)
		if err == nil {
			waiting, cancel := context.WithTimeout(ctx, every)
			_, err = l.store.Wait(waiting, head)
			cancel()
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			continue // something is new, or it is time to look at Redis
		}
		// Something is away.
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// note keeps the outcome of a round, and logs it when it is another than before.
func (l *Loop) note(revision int64, published int, restored bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.Published += uint64(published)
	if restored {
		l.status.Restored++
	}
	was := l.status.Err
	l.status.Stuck = nil
	for _, id := range slices.SortedFunc(maps.Keys(l.stuck), func(a, b bundle.ID) int { return strings.Compare(a.String(), b.String()) }) {
		l.status.Stuck = append(l.status.Stuck, l.stuck[id].StuckError)
	}
	l.status.Ahead = 0
	if ahead, ok := errors.AsType[*AheadError](err); ok {
		l.status.Ahead = ahead.Fleet - ahead.Store
	}
	switch {
	case errors.Is(err, context.Canceled):
		return
	case err != nil && was != nil && err.Error() == was.Error():
		return
	case err != nil:
		l.log.Error("changes are stored and not published: the fleet serves what it last knew", "err", err)
		l.status.Err, l.status.Since = err, time.Now()
	default:
		l.status.Revision = revision
		if was != nil {
			l.log.Info("changes are published", "revision", revision)
			l.status.Err, l.status.Since = nil, time.Now()
		}
	}
}

// round puts up what the fleet lacks, and says up to which revision it lacks nothing.
func (l *Loop) round(ctx context.Context) (head int64, published int, restored bool, err error) {
	told, err := l.board.Head(ctx)
	if _, worthless := errors.AsType[*bundle.Refusal](err); err != nil && !worthless {
		return 0, 0, false, err
	}
	// What stands there and is nobody's counts as nothing: it is written over.
	if l.asked.over(askEvery) {
		began := time.Now()
		seen, node, err := l.board.Seen(ctx)
		if err != nil {
			return 0, 0, false, err
		}
		l.asked.begin(began)
		if seen > l.seen {
			l.seen, l.seer = seen, node
		}
	}
	// Behind those: what they know was in the store before.
	head, err = l.store.Head(ctx)
	switch {
	case err != nil:
		return 0, 0, false, err
	case told.Revision > head:
		return 0, 0, false, &AheadError{Store: head, Fleet: max(told.Revision, l.seen)}
	case l.seen > head:
		return 0, 0, false, &AheadError{Store: head, Fleet: l.seen, Node: l.seer}
	}
	n, complete, err := l.pending(ctx, head)
	published += n
	if err != nil {
		return 0, published, false, err
	}
	if told.Revision < complete {
		// It stood there once, or another portal is about to say so.
		restored = told.Revision < l.told
		n, err = l.restore(ctx, told.Revision)
		published += n
		if restored && n > 0 {
			l.log.Warn("Redis lacked what it had: put up again", "bundles", n, "above", told.Revision)
		}
		if err != nil {
			return 0, published, restored, err
		}
	}
	// Behind what is pending: it is put up as of this revision.
	policies, _, err := l.store.Everywhere(ctx)
	if err != nil {
		return 0, published, restored, err
	}
	if told.Revision < head || told.Policies < policies {
		// Not on what was lost since it was looked at: the next round finds that.
		if err := l.board.Advance(ctx, told.Revision, fleet.Head{Revision: head, Policies: policies}); err != nil {
			return 0, published, restored, err
		}
	}
	l.told = max(l.told, head)
	n, err = l.prove(ctx)
	return head, published + n, restored || n > 0, err
}

// prove looks at the next page of bundles, and puts up again what is not there as it
// was. Of all else the head tells; of what somebody else wrote into Redis it does not, nor
// of what a later version put up in a format that this one's proxies cannot read: that is
// found by looking at everything once, soon after the start.
func (l *Loop) prove(ctx context.Context) (n int, err error) {
	if l.walked && !l.looked.over(proveEvery) {
		return 0, nil
	}
	defer l.looked.begin(time.Now())
	marks, err := l.store.All(ctx, l.proven, page)
	if err != nil {
		return 0, err
	}
	l.proven, l.walked = bundle.ID{}, l.walked || len(marks) < page
	if len(marks) == page {
		l.proven = marks[page-1].ID
	}
	// Those that are yet to be put up are none of this.
	marks = slices.DeleteFunc(marks, func(m control.Mark) bool { return m.Published < m.Revision })
	changes := make([]fleet.Change, len(marks))
	for i, m := range marks {
		changes[i] = fleet.Change{ID: m.ID, Revision: m.Revision}
	}
	lacking, err := l.board.Lacking(ctx, changes...)
	if err != nil {
		return 0, err
	}
	for _, c := range changes {
		if !slices.Contains(lacking, c) {
			l.unstick(c.ID)
		}
	}
	if len(lacking) == 0 {
		return 0, nil
	}
	l.log.Warn("bundles in Redis are not as they were put up: somebody else writes there", "bundles", len(lacking), "first", lacking[0].ID.String())
	marks = slices.DeleteFunc(marks, func(m control.Mark) bool {
		return !slices.Contains(lacking, fleet.Change{ID: m.ID, Revision: m.Revision})
	})
	done, err := l.put(ctx, marks)
	return len(done), err
}

// pending publishes what the store knows is not. Everything up to complete was
// published before.
func (l *Loop) pending(ctx context.Context, head int64) (n int, complete int64, err error) {
	complete = head
	passed := make(map[bundle.ID]bool) // stuck, and not tried again in this round
	for {
		marks, err := l.store.Pending(ctx, page+len(passed))
		if err != nil {
			return n, complete, err
		}
		marks = slices.DeleteFunc(marks, func(m control.Mark) bool {
			if s, is := l.stuck[m.ID]; is && s.Revision == m.Revision && !s.tried.over(every) {
				passed[m.ID] = true
			}
			return passed[m.ID]
		})
		if len(marks) == 0 {
			for id, s := range l.stuck {
				if s.Published < s.Revision && !passed[id] {
					l.unstick(id) // another portal could
				}
			}
			return n, complete, nil
		}
		done, err := l.put(ctx, marks)
		n += len(done)
		if len(done) > 0 {
			err = errors.Join(err, l.store.Published(ctx, done...))
		}
		if err != nil {
			return n, complete, err
		}
		for _, m := range marks {
			if _, is := l.stuck[m.ID]; is {
				passed[m.ID] = true
			} else {
				complete = min(complete, m.Revision-1)
			}
		}
	}
}

// restore puts up what changed after a revision.
func (l *Loop) restore(ctx context.Context, above int64) (n int, err error) {
	var after bundle.ID
	for {
		marks, err := l.store.All(ctx, after, page)
		if err != nil || len(marks) == 0 {
			return n, err
		}
		after = marks[len(marks)-1].ID
		marks = slices.DeleteFunc(marks, func(m control.Mark) bool { return m.Revision <= above })
		done, err := l.put(ctx, marks)
		n += len(done)
		if err != nil {
			return n, err
		}
	}
}

// put compiles bundles and puts them up, in their order, and returns at which revisions.
// One may have changed since it was listed. Those that cannot be made are stuck, and
// keep nobody else's back.
func (l *Loop) put(ctx context.Context, marks []control.Mark) (done []control.Mark, err error) {
	for len(marks) > 0 {
		some, err := l.seal(ctx, marks)
		if err != nil {
			return done, err
		}
		var ready []*fleet.Sealed
		var changes []fleet.Change
		var as []control.Mark
		for i, s := range some {
			if s.err != nil {
				l.stick(marks[i], s)
				continue
			}
			ready = append(ready, s.Sealed)
			changes = append(changes, fleet.Change{ID: s.ID, Revision: s.Revision})
			as = append(as, control.Mark{ID: s.ID, Revision: s.Revision, Published: s.Revision, Deleted: s.deleted})
		}
		if err := l.board.PutSealed(ctx, ready...); err != nil {
			return done, err
		}
		if err := l.board.Announce(ctx, changes...); err != nil {
			return done, err
		}
		for _, m := range as {
			l.unstick(m.ID)
		}
		done, marks = append(done, as...), marks[len(some):]
	}
	return done, nil
}

// stick takes note of a bundle that cannot be made.
func (l *Loop) stick(m control.Mark, s sealed) {
	now := stuck{StuckError: &StuckError{ID: m.ID, Revision: m.Revision, Published: m.Published, Err: s.err}}
	now.tried.begin(s.began)
	if was, is := l.stuck[m.ID]; !is || was.Error() != now.Error() {
		l.log.Error("a bundle cannot be published, others are", "bundle", m.ID.String(), "revision", m.Revision, "err", s.err)
	}
	l.stuck[m.ID] = now
}

// unstick takes note of one that is put up.
func (l *Loop) unstick(id bundle.ID) {
	if _, was := l.stuck[id]; was {
		l.log.Info("the bundle is published", "bundle", id.String())
		delete(l.stuck, id)
	}
}

// sealed is what became of a bundle that was to be made.
type sealed struct {
	*fleet.Sealed
	deleted bool
	began   time.Time
	err     error // of this bundle alone
}

// seal compiles the first of the bundles, as many as are put up at once, several at a
// time. All that is held of one that is done is what is to be put up.
func (l *Loop) seal(ctx context.Context, marks []control.Mark) ([]sealed, error) {
	all := make([]sealed, len(marks))
	var begun, bytes atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), compilers, len(marks)) {
		wg.Go(func() {
			for bytes.Load() < int64(l.atOnce) {
				i := int(begun.Add(1)) - 1
				if i >= len(marks) {
					return
				}
				all[i] = l.sealOne(ctx, marks[i].ID)
				if all[i].err == nil {
					bytes.Add(int64(all[i].Size()))
				}
			}
		})
	}
	wg.Wait()
	return all[:min(int(begun.Load()), len(marks))], ctx.Err()
}

func (l *Loop) sealOne(ctx context.Context, id bundle.ID) sealed {
	s := sealed{began: time.Now()}
	var b *bundle.Bundle
	if b, s.err = l.store.Compile(ctx, id); s.err != nil {
		return s
	}
	b.Deployment = string(l.deployment)
	s.deleted = b.Deleted
	s.Sealed, s.err = l.board.Seal(b)
	return s
}
