package export

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/pkg/credential"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/control"
)

// Store is where the log is, and how far it was passed on.
type Store interface {
	// Wait returns when there is a revision above after, or ctx ends.
	Wait(ctx context.Context, after int64) (head int64, err error)
	Behind(ctx context.Context, at control.Position, limit int) ([]control.Entry, error)
	ExportLag(ctx context.Context, at control.Position) (control.Lag, error)
	TakeExport(ctx context.Context, holder string, ttl time.Duration, problem string) (control.Lease, error)
	Exported(ctx context.Context, holder string, at control.Position) (mine bool, err error)
	LeaveExport(ctx context.Context, holder string) error
	Identity() string
}

// Options say where the log goes.
type Options struct {
	Topic      string
	Create     bool   // make the topic if it is not there
	Deployment string // of the fleet, in every event
	Holder     string // what this portal calls itself, unlike all others

	// Cluster reads how the brokers are reached. It is asked again and again: a change
	// is in force within seconds.
	Cluster func(context.Context) (*resource.UpstreamCluster, error)

	// Guard looks whether a tenant could read or write the topic, as of the newest
	// revision: then it is a [control.Reached], and nothing is sent. Nil: nobody could.
	Guard func(context.Context) error

	Log *slog.Logger

	// For tests.
	lease   time.Duration
	patient time.Duration
	kafka   []kgo.Opt
}

const (
	// leaseFor is how long a portal is waited for that is not heard of.
	leaseFor = 6 * time.Second
	// patience is how long brokers may take to acknowledge what they were sent.
	patience = 20 * time.Second
	// quiet is how long a problem lasts before the log tells of it.
	quiet = 5 * time.Second
	// atOnce is how many entries are read and sent at once.
	atOnce = 100
	// gather is how long entries are gathered, so that many changes are few batches.
	gather = 100 * time.Millisecond
	// tooLong is how old what is not exported may be until that is a problem.
	tooLong = time.Minute

	minPause = 250 * time.Millisecond
	maxPause = 15 * time.Second
)

// Loop exports until it is told to end.
type Loop struct {
	store   Store
	options Options
	events  events
	keeper  *credential.Keeper
	log     *slog.Logger

	mu     sync.Mutex // guards what follows
	status Status
	since  time.Time // when the problem began
	told   string    // the problem that was logged
}

// Status is how exporting goes.
type Status struct {
	Mine     bool // this portal exports, and not another one
	Lag      control.Lag
	Exported uint64 // events that were acknowledged to this portal
	Failures map[Cause]uint64
	Problem  string // why it gets no further, here or in the portal that exports; "": it does
}

// Late is how old the oldest entry is that was not exported.
func (s *Status) Late(now time.Time) time.Duration {
	if s.Lag.Oldest.IsZero() {
		return 0
	}
	return max(0, now.Sub(s.Lag.Oldest))
}

// New makes a loop, which exports as soon as it runs.
func New(store Store, options Options) *Loop {
	if options.lease == 0 {
		options.lease = leaseFor
	}
	if options.patient == 0 {
		options.patient = patience
	}
	return &Loop{
		store: store, options: options, events: newEvents(options.Deployment, store.Identity()), log: options.Log,
		status: Status{Failures: make(map[Cause]uint64)},
	}
}

// Status is the present one.
func (l *Loop) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.status
	s.Failures = make(map[Cause]uint64, len(Causes))
	for _, cause := range Causes {
		s.Failures[cause] = l.status.Failures[cause]
	}
	if s.Problem == "" && s.Late(time.Now()) > tooLong {
		s.Problem = "the portal that exports is slower than changes are made"
	}
	return s
}

// Run exports until ctx ends, whenever no other portal does.
func (l *Loop) Run(ctx context.Context) {
	l.keeper = credential.NewKeeper(l.log)
	defer l.keeper.Close()
	for {
		lease, err := l.store.TakeExport(ctx, l.options.Holder, l.options.lease, l.problem())
		if err == nil {
			l.look(ctx, lease)
		}
		if err == nil && lease.Mine {
			l.log.Info("this portal exports the audit log", "topic", l.options.Topic, "revision", lease.At.Revision)
			l.hold(ctx, lease.At)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(l.options.lease / 6):
		}
	}
}

// hold exports for as long as the lease is this portal's, and gives it back at the end.
func (l *Loop) hold(ctx context.Context, at control.Position) {
	holding, lose := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { lose(l.prolong(holding)) })
	lose(l.export(holding, at))
	wg.Wait()
	l.mu.Lock()
	l.status.Mine = false
	l.mu.Unlock()
	if ctx.Err() == nil {
		l.log.Warn("this portal no longer exports the audit log", "err", context.Cause(holding))
		return
	}
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_ = l.store.LeaveExport(leaving, l.options.Holder) // else it ends by itself
}

// prolong keeps the lease until ctx ends, and returns when it is lost.
func (l *Loop) prolong(ctx context.Context) error {
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(l.options.lease / 3):
		}
		asked := time.Now()
		asking, cancel := context.WithDeadline(ctx, last.Add(l.options.lease))
		lease, err := l.store.TakeExport(asking, l.options.Holder, l.options.lease, l.problem())
		cancel()
		switch {
		case err == nil && !lease.Mine:
			return errLost
		case err == nil:
			last = asked
			l.look(ctx, lease)
		case time.Since(last) >= l.options.lease:
			return err
		}
	}
}

// look takes note of how far the export is.
func (l *Loop) look(ctx context.Context, lease control.Lease) {
	lag, err := l.store.ExportLag(ctx, lease.At)
	if err != nil {
		return // the database is away, and that is told elsewhere
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.Mine, l.status.Lag = lease.Mine, lag
	if !lease.Mine {
		l.status.Problem = lease.Problem
	}
}

func (l *Loop) problem() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.status.Mine {
		return ""
	}
	return l.status.Problem
}

// passing is where an export stands. What is to be done next follows from it:
//
//	reading --entries--> sending --all acknowledged--> noting
//	   '<------------------------------------------------'
//
// An error in one of them leaves it as it is, to be done again.
type passing struct {
	*Loop
	session *session // nil: there is none

	noted   control.Position // everything up to it is acknowledged, and the store knows
	read    control.Position // of the last entry that was read
	waiting []*event         // up to read, not acknowledged, in the order of the log
	most    int              // bytes to be sent at once

	some bool  // there may be entries behind read
	head int64 // the newest revision when that was looked at
}

var (
	errLost  = errors.New("another portal exports the audit log now")
	errAgain = errors.New("to be sent again in another form")
)

// export passes on what is behind a position, and what comes, until ctx ends or the
// lease is lost.
func (l *Loop) export(ctx context.Context, at control.Position) error {
	p := &passing{Loop: l, noted: at, read: at, most: batchBytes, some: true}
	defer p.hangUp()
	for pause := minPause; ctx.Err() == nil; {
		err := p.step(ctx)
		switch {
		case errors.Is(err, errLost):
			return err
		case ctx.Err() != nil:
		case errors.Is(err, errAgain):
			p.hangUp()
		case err != nil:
			p.hangUp()
			l.note(err)
			if r, ok := errors.AsType[*control.Reached](err); ok {
				l.awaitChange(ctx, r.At)
				continue
			}
			sleep(ctx, pause/2+rand.N(pause/2))
			pause = min(2*pause, maxPause)
		default:
			pause = minPause
			l.note(nil)
		}
	}
	return context.Cause(ctx)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// awaitChange waits until something may be otherwise than at a revision.
func (l *Loop) awaitChange(ctx context.Context, at int64) {
	waiting, cancel := context.WithTimeout(ctx, maxPause)
	defer cancel()
	if _, err := l.store.Wait(waiting, at); err != nil {
		sleep(waiting, minPause) // the store is away
	}
}

func (p *passing) hangUp() {
	if p.session != nil {
		p.session.close()
		p.session = nil
	}
}

func (p *passing) step(ctx context.Context) (err error) {
	if len(p.waiting) == 0 && p.read != p.noted {
		mine, err := p.store.Exported(ctx, p.options.Holder, p.read)
		if err == nil && !mine {
			err = errLost
		}
		if err == nil {
			p.noted = p.read
		}
		return err
	}
	if p.options.Guard != nil && (p.session == nil || len(p.waiting) > 0) { // before a topic is made, and before anything is sent
		if err := p.options.Guard(ctx); err != nil {
			return err
		}
	}
	if p.session != nil && p.session.outdated(ctx) {
		p.hangUp()
	}
	if p.session == nil { // also when there is nothing to send: mistakes are to be known early
		if p.session, err = p.open(ctx); err != nil {
			return err
		}
	}
	switch {
	case len(p.waiting) > 0:
		return p.send(ctx)
	case p.some:
		return p.more(ctx)
	}
	waiting, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	head, err := p.store.Wait(waiting, max(p.read.Revision, p.head))
	if errors.Is(err, context.DeadlineExceeded) && waiting.Err() != nil {
		return nil
	}
	if err == nil {
		p.head, p.some = head, true
		sleep(ctx, gather)
	}
	return err
}

// more reads what comes next.
func (p *passing) more(ctx context.Context) error {
	entries, err := p.store.Behind(ctx, p.read, atOnce)
	if err != nil {
		return err
	}
	made := make([]*event, len(entries))
	for i, e := range entries {
		if made[i], err = p.events.of(e); err != nil {
			return err
		}
		if made[i].size() > batchBytes {
			if err := p.shorten(made[i]); err != nil {
				return err
			}
		}
	}
	p.waiting, p.some = made, len(entries) == atOnce
	if len(entries) > 0 {
		p.read = entries[len(entries)-1].Position()
	}
	return nil
}

func (p *passing) shorten(e *event) error {
	p.log.Warn("an entry of the audit log is too large for a record: exported without what the object was and is",
		"revision", e.entry.Revision, "seq", e.entry.Seq, "topic", p.options.Topic)
	return p.events.shorten(e)
}

// send sends what waits, as much as one batch holds. What is acknowledged is not sent
// again.
func (p *passing) send(ctx context.Context) error {
	n := fitting(p.waiting, p.most)
	sent := p.waiting[:n]
	refused, err := p.session.send(ctx, sent)
	p.acknowledged(n - len(refused))
	p.waiting = slices.Concat(refused, p.waiting[n:])
	switch {
	case len(refused) == 0:
		p.most = min(2*p.most, batchBytes)
		return nil
	case !errors.Is(err, kerr.MessageTooLarge):
		return err
	case n > 1: // the topic takes less than batches usually may have
		p.most = sizeOf(sent) / 2
		return errAgain
	case !sent[0].short:
		if err := p.shorten(sent[0]); err != nil {
			return err
		}
		return errAgain
	}
	return err
}

// fitting is how many events are sent at once: so many that all of them would be one
// batch if they were of one partition. So no partition ever has a second batch under
// way, which could arrive without the first.
func fitting(waiting []*event, most int) int {
	for i := range waiting {
		if i > 0 && sizeOf(waiting[:i+1]) > most {
			return i
		}
	}
	return len(waiting)
}

func sizeOf(all []*event) (bytes int) {
	for _, e := range all {
		bytes += e.size()
	}
	return bytes
}

func (l *Loop) acknowledged(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.Exported += uint64(n)
}

// note takes note of how exporting goes. What does not last is not logged.
func (l *Loop) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		if l.told != "" {
			l.log.Info("the audit log is exported again", "topic", l.options.Topic)
		}
		l.status.Problem, l.told, l.since = "", "", time.Time{}
		return
	}
	cause, text := l.explain(err)
	l.status.Problem = text
	l.status.Failures[cause]++
	if l.since.IsZero() {
		l.since = time.Now()
	}
	lasts := cause == CauseReached || time.Since(l.since) >= quiet
	if lasts && l.told != text {
		l.told = text
		l.log.Error("the audit log is not exported: entries are kept until it is", "topic", l.options.Topic, "cause", string(cause), "err", text)
	}
}
