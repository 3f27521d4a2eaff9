package stub

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
)

const (
	lookEvery    = 30 * time.Second       // at everything, on every broker
	askLimit     = 2 * time.Second        // one broker's Metadata
	excuseAfter  = 15 * time.Second       // a broker that does not answer is waited for no longer
	excusedEvery = 10 * time.Second       // and asked again
	spread       = 200 * time.Millisecond // several nodes see what is missing at the same time: one is first
	refusedEvery = 5 * time.Minute        // what was refused for good is tried again
	doubtFor     = 10 * time.Minute       // what may pass is tried before it counts as refused
	maxBackoff   = 30 * time.Second
	keepFor      = 7 * 24 * time.Hour
)

// Config says for whom stubs are kept, and where.
type Config struct {
	Home           *upstream.Cluster
	VirtualCluster string
	Prefix         string // of the virtual cluster's physical names
	Log            *slog.Logger
	Settings
}

// Settings may change while stubs are kept.
type Settings struct {
	ReplicationFactor int16         // 1; what home asks for where it refuses this
	KeepFor           time.Duration // how long a stub outlives its alias; 168 h
	Disabled          bool          // no stubs are made, and none used
}

// Keeper keeps the stubs of one virtual cluster.
type Keeper struct {
	cfg    Config
	home   *upstream.Cluster
	log    *slog.Logger
	cancel context.CancelFunc
	wg     sync.WaitGroup
	kick   chan struct{} // there is something to do

	current atomic.Pointer[Snapshot]

	mu      sync.Mutex // guards what follows; current is replaced under it
	wishes  wishes
	holders map[*upstream.Cluster]*holder
	status  Status
	totals  Totals

	// What follows belongs to the goroutine of run.
	entries   map[string]*entry
	applied   int                // the revision of the wishes that entries are of
	checked   map[int32]bool     // brokers that have been asked for everything
	silent    map[int32]*silence // live brokers that do not answer
	orphans   map[string]*orphan // stubs that nobody wants
	lastFull  time.Time          // look at everything
	homeErr   error              // why home cannot be asked
	homeWait  time.Duration      // before it is asked again
	good      shape              // of the stubs that home took last
	notBefore time.Time          // the next request that changes home
}

// wishes are what the keeper was told last.
type wishes struct {
	revision int
	settings Settings
	wants    []Want // by name
	wanted   bool   // wants was set
	kept     map[string]bool
	keeping  bool // kept was set
	again    bool // what was refused is to be tried at once
}

// entry is one wanted stub.
type entry struct {
	want      Want
	stub      Stub
	confirmed bool // stub is usable

	largest   int       // partitions that some broker showed at the last look
	missed    bool      // some broker did not show it, since it was confirmed last
	missingAt time.Time // when no broker showed it; zero: some did, or nobody has looked
	lookAt    time.Time // look again: it is not as wanted; zero: it is
	looks     int

	made     bool      // home says that it is there
	after    time.Time // not to be made or extended before
	tries    int
	doubt    time.Time // since when home's answers have been doubtful
	shape    shape     // to be made so
	shaped   bool
	spread   bool  // it has waited for other nodes
	problem  error // why it is not made or extended
	asking   bool  // the foreign cluster has to be asked before it is made
	blocked  error // and cannot be
	repaired bool  // it was deleted: stub is shown as it was until there is one like it
}

type silence struct{ since, asked time.Time }

// small reports whether the stub has fewer partitions than wanted.
func (e *entry) small() bool { return e.stub.Partitions < e.want.Partitions }

// New starts keeping stubs. Close it.
func New(cfg Config) *Keeper {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &Keeper{
		cfg: cfg, home: cfg.Home, cancel: cancel, kick: make(chan struct{}, 1),
		log:     cfg.Log.With("virtual_cluster", cfg.VirtualCluster, "cluster", cfg.Home.Name()),
		holders: make(map[*upstream.Cluster]*holder),
		entries: make(map[string]*entry), checked: make(map[int32]bool), silent: make(map[int32]*silence), orphans: make(map[string]*orphan),
	}
	k.wishes.settings = cfg.Settings.defaults()
	k.good = shape{replicas: k.wishes.settings.ReplicationFactor}
	k.current.Store(&Snapshot{settled: true, superseded: make(chan struct{})})
	k.wg.Go(func() { k.run(ctx) })
	return k
}

func (s Settings) defaults() Settings {
	if s.ReplicationFactor == 0 {
		s.ReplicationFactor = 1
	}
	if s.KeepFor == 0 {
		s.KeepFor = keepFor
	}
	return s
}

// Close ends what the keeper does and waits for it. The stubs stay.
func (k *Keeper) Close() {
	k.cancel()
	k.wg.Wait()
}

// Set changes the settings. What home has refused is tried again.
func (k *Keeper) Set(s Settings) {
	s = s.defaults()
	k.mu.Lock()
	defer k.mu.Unlock()
	if s == k.wishes.settings {
		return
	}
	k.wishes.settings, k.wishes.again = s, true
	k.wish()
}

// Want replaces the list of wanted stubs. It costs little when nothing has changed.
func (k *Keeper) Want(ws []Want) {
	byName := func(a, b Want) int { return strings.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(ws, byName) {
		ws = slices.Clone(ws)
		slices.SortFunc(ws, byName)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.wishes.wanted && slices.Equal(ws, k.wishes.wants) {
		return
	}
	k.wishes.wants, k.wishes.wanted = slices.Clone(ws), true
	k.wish()
}

// Keep names the aliases there are, whether or not a stub is wanted for them now.
// The stubs of others are deleted some time later; nothing is before Keep and Want
// have been called. Of an alias that is kept, those of former identities are, once
// that of the present one is confirmed.
func (k *Keeper) Keep(aliases []string) {
	kept := make(map[string]bool, len(aliases))
	for _, a := range aliases {
		kept[Label(k.cfg.Prefix, a)] = true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.wishes.keeping && maps.Equal(kept, k.wishes.kept) {
		return
	}
	k.wishes.kept, k.wishes.keeping = kept, true
	k.wish()
}

// wish makes the changed wishes known. k.mu is held.
func (k *Keeper) wish() {
	k.wishes.revision++
	if s := k.current.Load(); s.settled {
		k.replace(&Snapshot{stubs: s.stubs, refused: s.refused})
	}
	k.wake()
}

func (k *Keeper) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Current is the latest snapshot. The same pointer means that nothing has changed.
func (k *Keeper) Current() *Snapshot { return k.current.Load() }

// Changed is closed when there is a newer snapshot than that of the time of the call.
func (k *Keeper) Changed() <-chan struct{} { return k.current.Load().superseded }

// Wait returns when the present wishes are settled, or with ctx's error.
func (k *Keeper) Wait(ctx context.Context) error {
	for {
		s := k.Current()
		if s.settled {
			return nil
		}
		select {
		case <-s.superseded:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// replace makes s the current snapshot. k.mu is held.
func (k *Keeper) replace(s *Snapshot) {
	s.superseded = make(chan struct{})
	close(k.current.Swap(s).superseded)
}

// run does one round after the other until ctx ends.
func (k *Keeper) run(ctx context.Context) {
	next := time.NewTimer(0)
	defer next.Stop()
	changed := k.home.Changed()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.kick:
		case <-next.C:
		case <-changed:
		}
		changed = k.home.Changed()
		next.Reset(k.round(ctx))
	}
}

// round looks at what may not be as wanted, makes or extends what is not, and
// returns when the next round is due.
func (k *Keeper) round(ctx context.Context) time.Duration {
	w := k.accept()
	if w.settings.Disabled {
		for _, e := range k.entries {
			e.confirmed, e.problem = false, refusal.StubsOff
		}
		k.publish(w)
		return time.Hour
	}
	m := k.metadata(ctx)
	if m == nil {
		k.publish(w)
		return k.homeWait
	}
	k.look(ctx, m)
	k.publish(w)
	if k.homeErr != nil {
		return k.homeWait
	}
	k.create(ctx)
	k.extend(ctx)
	k.sweep(ctx, m, w)
	k.publish(w)
	return k.due(w)
}

// accept takes over the wishes there are now.
func (k *Keeper) accept() wishes {
	k.mu.Lock()
	w := k.wishes
	k.wishes.again = false
	k.mu.Unlock()
	if w.revision == k.applied {
		return w
	}
	k.applied = w.revision
	next := make(map[string]*entry, len(w.wants))
	for _, want := range w.wants {
		e := k.entries[want.Name]
		if e == nil {
			e = new(entry)
		} else if want.Partitions > e.want.Partitions && e.confirmed {
			e.again() // a larger count may be refused for another reason, or not at all
		}
		e.want = want
		next[want.Name] = e
		if !e.confirmed || e.small() {
			e.lookAt, e.looks = time.Now(), 0
		}
		if w.again {
			e.again()
		}
	}
	k.entries = next
	k.forgetHolders()
	if w.again {
		k.good = shape{replicas: w.settings.ReplicationFactor}
	}
	return w
}

// again forgets what home has said.
func (e *entry) again() {
	e.after, e.tries, e.doubt, e.problem, e.shaped = time.Time{}, 0, time.Time{}, nil, false
	e.lookAt, e.looks = time.Now(), 0
}

// metadata is home's; nil when it does not answer.
func (k *Keeper) metadata(ctx context.Context) *upstream.Metadata {
	_ = k.home.Tried(ctx) // its error is in the state, too
	if ctx.Err() != nil {
		return nil
	}
	m, state := k.home.Metadata(), k.home.State()
	if m == nil || state.Suspect {
		k.unreachable(ctx, cmp.Or(state.Err, errNoAnswer))
		return nil
	}
	return m
}

var errNoAnswer = errors.New("no answer in time")

// unreachable notes that home cannot be asked, or with nil that it can.
func (k *Keeper) unreachable(ctx context.Context, err error) {
	if err == nil {
		if k.homeErr != nil {
			k.log.InfoContext(ctx, "home can be asked for stubs again")
		}
		k.homeErr, k.homeWait = nil, 0
		return
	}
	err = refusal.StubHomeUnreachable.With(err)
	if k.homeErr == nil {
		refusal.Log(ctx, k.log, slog.LevelWarn, "stubs cannot be looked at", err)
	}
	k.homeErr = err
	k.homeWait = min(max(2*k.homeWait, 500*time.Millisecond), 10*time.Second)
}

// due is when the next round has to be.
func (k *Keeper) due(w wishes) time.Duration {
	now := time.Now()
	next := k.lastFull.Add(lookEvery)
	sooner := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	for _, e := range k.entries {
		switch {
		case e.wantsLook(now):
			sooner(e.lookAt)
		case e.asking:
			sooner(k.holderDue(e.want.Foreign))
		case e.wantsMaking(), e.wantsExtending():
			sooner(e.after)
		}
	}
	for _, o := range k.orphans {
		sooner(o.due(w.settings.KeepFor))
	}
	return max(next.Sub(now), time.Millisecond)
}

// publish makes what is known now the current snapshot, if anything is new in it.
func (k *Keeper) publish(w wishes) {
	s := &Snapshot{stubs: make(map[string]Stub), refused: make(map[string]error), settled: true}
	status := Status{Home: k.homeErr}
	for name, e := range k.entries {
		one := StubStatus{Name: name, Alias: e.want.Alias, Wanted: e.want.Partitions, Problem: e.problem}
		switch {
		case e.confirmed:
			s.stubs[name] = e.stub
			one.State, one.Partitions = Confirmed, e.stub.Partitions
			if e.small() && e.problem == nil || e.repaired {
				one.State = Pending
				s.settled = s.settled && k.homeErr != nil
			}
		case e.problem != nil:
			s.refused[name] = e.problem
			one.State = Refused
		case e.blocked != nil, e.want.Partitions == 0 && !e.missingAt.IsZero():
			one.State, one.Problem = Waiting, e.blocked
		default:
			one.State = Pending
			s.settled = s.settled && k.homeErr != nil
		}
		status.Counts[one.State]++
		status.Stubs = append(status.Stubs, one)
	}
	for name, o := range k.orphans {
		status.Orphans = append(status.Orphans, Orphan{Name: name, Since: o.since, Problem: o.problem})
	}
	slices.SortFunc(status.Stubs, func(a, b StubStatus) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(status.Orphans, func(a, b Orphan) int { return strings.Compare(a.Name, b.Name) })

	k.mu.Lock()
	defer k.mu.Unlock()
	status.Totals = k.totals
	k.status = status
	s.settled = s.settled && w.revision == k.wishes.revision
	old := k.current.Load()
	same := func(a, b error) bool { return a.Error() == b.Error() }
	if s.settled == old.settled && maps.Equal(s.stubs, old.stubs) && maps.EqualFunc(s.refused, old.refused, same) {
		return
	}
	k.replace(s)
}

// jitter is a moment within d.
func jitter(d time.Duration) time.Duration { return rand.N(d) }
