package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"tollgate.internal/pkg/bundle"
	board "tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/secret"
)

// Options are what a node has to know to be one of a fleet.
type Options struct {
	Redis         string // a URL: see board.Open
	RedisPassword secret.Secret
	Keys          bundle.Keyring // of those who may sign
	State         string         // a directory of this node alone
	Deployment    string
	Node          board.Node // what never changes: ID, Host, Port, Domain, Rack, Version
	Preload       bool       // every virtual cluster is loaded at the start, and when it is new
	Log           *slog.Logger
}

// How the node looks at Redis.
const (
	askLimit   = 1500 * time.Millisecond // of what a client waits for: then what is on disk has to do
	askMost    = 3 * time.Second         // of each answer that a client waits for, of a slow Redis
	callLimit  = 10 * time.Second        // of one question, whose answers each have the client's own bound, connecting too
	leaveLimit = time.Second             // of the last word
	followFor  = 500 * time.Millisecond  // until the stream is asked again
	lookEvery  = time.Second             // at the head, and whether the stream is still the same
	allEvery   = 5 * time.Minute         // at everything that is loaded: nothing should be found then
	againEvery = 5 * time.Second         // at what could not be served: what was missing may be there
	batch      = 200
	largeBytes = 256 << 10 // a bundle that has more is opened with few others
	largeOnes  = 2
	appliers   = 4   // bundles that are put into service at the same time
	questions  = 128 // of clients that may be on their way to Redis
)

// Redis is a node's side of the fleet: the [Source] of what it serves, and the
// [Membership] it is in. A revision that was once served, or kept on disk, is never
// followed by a lower one, whatever Redis says, and of a Redis whose head is lower
// than the highest that was ever seen (it was lost, or brought back from a copy)
// nothing is taken that is not newer than what the node has.
type Redis struct {
	options Options
	log     *slog.Logger
	name    string // of the Redis
	client  redis.UniversalClient
	reader  *board.Reader
	pace    *board.Pace
	disk    *disk
	members *membership
	counts  counts

	locks locks
	large chan struct{} // has room for as many as may be opened at once
	into  Applier       // set before running is closed
	// running is closed when Run was called.
	running chan struct{}
	// woken has the heartbeat come early: a revision was applied.
	woken chan struct{}
	// questions are about sessions: who asks too much waits in vain.
	questions chan board.Command

	asking chan struct{}  // has room for as many questions as may be on their way
	asked  sync.WaitGroup // those
	life   context.Context
	end    context.CancelFunc

	heading sync.Mutex // held while a head is taken note of; before mu

	mu      sync.Mutex // guards those below
	link    link
	heads   heads
	seen    map[bundle.ID]int64  // the highest revision that was ever taken
	written map[bundle.ID]int64  // the revision on disk, where it is known
	refused map[bundle.ID]refuse // what could not be put into service
	// unwritten is why a bundle could not be kept on disk; the zero ID is the head.
	unwritten map[bundle.ID]error
	applied   int64
	commands  map[string]struct{} // that were obeyed, or not
}

// link is how the node gets on with Redis.
type link struct {
	tried bool
	err   error     // why it cannot be used
	since time.Time // that this is so
}

// heads are how far everything is published.
type heads struct {
	sealed  []byte // what stood in Redis last
	now     int64  // its revision; 0: none, or none that can be believed
	err     error  // why it cannot be believed
	highest int64  // that was ever seen
	// policies is the highest revision of bundle.Everywhere that a head named: nobody is
	// brought in before they are in service.
	policies int64
	top      []byte // sealed, the highest
	kept     []byte // sealed, on disk
	losses   int    // times that Redis was found to have forgotten something, or was not known yet
}

// old reports whether Redis has forgotten something.
func (h heads) old() bool { return h.now < h.highest }

// refuse is a bundle that could not be taken.
type refuse struct {
	revision int64
	err      error
}

// Open takes the state directory, and connects when Run is called.
func Open(o Options) (*Redis, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	client, err := board.Open(o.Redis, o.RedisPassword)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	reader, err := board.NewReader(client, board.Deployment(o.Deployment), o.Keys)
	if err != nil {
		_ = client.Close()
		return nil, err
	}
	d, err := openDisk(o.State)
	if err != nil {
		_ = client.Close()
		return nil, err
	}
	o.Node.Started, o.Node.BundleFormat = time.Now().Round(0), bundle.Format
	life, end := context.WithCancel(context.Background())
	r := &Redis{
		pace: board.Watch(client), asking: make(chan struct{}, questions), life: life, end: end,
		options: o, log: o.Log, name: board.URLName(o.Redis), client: client, reader: reader, disk: d,
		large: make(chan struct{}, largeOnes), running: make(chan struct{}), woken: make(chan struct{}, 1), questions: make(chan board.Command, maxQuestions),
		seen: make(map[bundle.ID]int64), written: make(map[bundle.ID]int64), refused: make(map[bundle.ID]refuse), unwritten: make(map[bundle.ID]error), commands: make(map[string]struct{}),
		counts: newCounts(),
	}
	r.link.since, r.heads.losses = time.Now(), 1
	r.members = newMembership(o.Node.ID)
	sealed, err := d.read("head")
	if err == nil && sealed != nil {
		var h board.Head
		if h, err = board.OpenHead(o.Keys, board.Deployment(o.Deployment), sealed); err == nil {
			r.heads.highest, r.heads.policies, r.heads.top, r.heads.kept = h.Revision, h.Policies, sealed, sealed
		}
	}
	if err != nil {
		// Without it an old copy of Redis is only known by the bundles on disk.
		r.log.Warn("highest revision ever seen is not known any more", "err", err)
	}
	return r, nil
}

// Close gives everything back. Run and Join have returned before.
func (r *Redis) Close() {
	r.end()
	_ = r.client.Close() // what is under way ends with it
	r.asked.Wait()
	r.disk.close()
}

// errNotRunning is an answer to a question that came too early.
var errNotRunning = errors.New("the node has not begun to follow the fleet")

// Find loads the virtual cluster that claims a host.
func (r *Redis) Find(ctx context.Context, host string) error {
	if !r.isRunning() {
		return errNotRunning
	}
	name, err := r.hostOf(ctx, host)
	if name == "" {
		name = r.disk.host(host)
	}
	switch {
	case name != "":
		return r.load(ctx, bundle.ID{Kind: bundle.VirtualCluster, Name: name}, host)
	case err != nil:
		return fmt.Errorf("look for host %s: %w", host, err)
	}
	return nil
}

// hostOf asks Redis whom a host leads to. It may be wrong: the bundle says whether it
// is so. That it leads to nobody is an error unless Redis has everything it ever had.
func (r *Redis) hostOf(ctx context.Context, host string) (name string, err error) {
	if r.isDown() {
		return "", r.unusable()
	}
	return ask(ctx, r, r.patience(2), func(ctx context.Context) (string, error) {
		name, err := r.reader.Host(ctx, host)
		if err != nil || name != "" {
			return name, err
		}
		if err := r.look(ctx); err != nil {
			return "", err
		}
		if r.old() {
			return "", r.unusable()
		}
		return "", nil
	})
}

// patience is how long a client waits for so many answers of Redis, and one more for
// connecting, where the disk has nothing: longer than usual if answers come, and come late.
func (r *Redis) patience(answers int) time.Duration {
	each := min(r.pace.Answered()*3/2, askMost)
	return max(askLimit, time.Duration(1+answers)*each)
}

// ask has Redis asked, and returns what it says within a time. The question itself goes
// on when nobody waits for it any more: one that is given up takes its connection with
// it, and of a Redis that takes its time nobody would ever hear who has less of it, since
// connecting takes as long.
func ask[T any](ctx context.Context, r *Redis, wait time.Duration, question func(context.Context) (T, error)) (T, error) {
	type said struct {
		what T
		err  error
	}
	var nothing T
	select {
	case r.asking <- struct{}{}:
	default:
		return nothing, fmt.Errorf("%s has yet to answer %d questions", r.name, questions)
	}
	answer := make(chan said, 1)
	r.asked.Go(func() {
		defer func() { <-r.asking }()
		ctx, cancel := context.WithTimeout(r.life, callLimit)
		defer cancel()
		what, err := question(ctx)
		answer <- said{what, err}
	})
	over := time.NewTimer(wait)
	defer over.Stop()
	select {
	case a := <-answer:
		return a.what, a.err
	case <-over.C:
		return nothing, fmt.Errorf("%s has not answered within %v", r.name, wait)
	case <-ctx.Done():
		return nothing, context.Cause(ctx)
	}
}

// unusable is why Redis cannot be asked.
func (r *Redis) unusable() error {
	if err := r.Problem(); err != nil {
		return err
	}
	return fmt.Errorf("%s did not answer in time", r.name) // and does by now
}

// Load loads a virtual cluster.
func (r *Redis) Load(ctx context.Context, virtualCluster string) error {
	if !r.isRunning() {
		return errNotRunning
	}
	return r.load(ctx, bundle.ID{Kind: bundle.VirtualCluster, Name: virtualCluster}, "")
}

// Upstream loads an upstream cluster.
func (r *Redis) Upstream(ctx context.Context, name string) error {
	if !r.isRunning() {
		return errNotRunning
	}
	return r.load(ctx, bundle.ID{Kind: bundle.UpstreamCluster, Name: name}, "")
}

func (r *Redis) isRunning() bool {
	select {
	case <-r.running:
		return true
	default:
		return false
	}
}

func (r *Redis) isDown() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.link.tried && r.link.err != nil
}

func (r *Redis) old() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heads.old()
}

// losses are the times that Redis has forgotten something, and whether it still has.
func (r *Redis) losses() (n int, old bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heads.losses, r.heads.old()
}

// load puts the newest of what Redis and the disk have into service. With a host, it
// must claim that.
func (r *Redis) load(ctx context.Context, id bundle.ID, host string) error {
	defer r.locks.lock(id)()
	kept := r.kept(id)
	fresh, data, err := r.fetch(ctx, id, kept)
	if fresh != nil && kept != nil && fresh.Revision <= kept.Revision {
		fresh, err = nil, r.replayed(fresh, kept.Revision)
	}
	b := kept
	switch {
	case fresh != nil:
		b = fresh
	case kept != nil:
	case id == bundle.Everywhere && r.hadNone():
		return r.into.PutPolicies(nil, 0)
	case err != nil:
		return fmt.Errorf("load %v: %w", id, err)
	default:
		return nil // there is none
	}
	if b.Revision < r.lastSeen(id) {
		// The disk could not keep what was served, and Redis does not have it.
		return fmt.Errorf("load %v: revision %d is there, and %d was served before", id, b.Revision, r.lastSeen(id))
	}
	claims := host == "" || b.Claims(host)
	if b == fresh && (claims || kept != nil) {
		r.keep(b, data)
	}
	if !claims {
		return nil
	}
	if id.Kind == bundle.VirtualCluster && !b.Deleted { // as of the head that was looked at behind it
		if err := r.rule(ctx); err != nil {
			return fmt.Errorf("load %v: %w", id, err)
		}
	}
	if put := r.put(b); put != nil {
		return put
	}
	if reason, ok := bundle.ReasonOf(err); ok {
		r.refuse(id, b.Revision+1, fmt.Errorf("%s: %w", reason, err))
	}
	return nil
}

// refuse takes note of a bundle that cannot be taken though it is said to be newer.
func (r *Redis) refuse(id bundle.ID, revision int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused[id].revision <= revision {
		r.refused[id] = refuse{revision, err}
	}
}

// replayed is the error of a bundle that is said to be newer than it is.
func (r *Redis) replayed(b *bundle.Bundle, than int64) error {
	r.counts.refuse(olderReason)
	r.log.Error("bundle refused: it is older than it is said to be", "bundle", b.ID.String(), "from", r.name, "revision", b.Revision, "served", than)
	return &bundle.Refusal{Reason: olderReason, Text: fmt.Sprintf("the bundle in %s is of revision %d, and said to be newer than %d", r.name, b.Revision, than)}
}

// kept is the bundle on disk; nil if there is none that can be used.
func (r *Redis) kept(id bundle.ID) *bundle.Bundle {
	data, err := r.disk.bundle(id)
	if data == nil && err == nil {
		return nil
	}
	if err == nil {
		var b *bundle.Bundle
		if b, err = r.open(data, id); err == nil {
			r.took(b)
			r.wrote(b)
			return b
		}
	}
	r.log.Warn("bundle on disk is of no use", "bundle", id.String(), "err", err)
	return nil
}

// fetch asks Redis for a bundle that is newer than the one on disk; nil if there is
// none. A Redis that has forgotten something is only believed where the node knows
// that the bundle is newer than what it has.
func (r *Redis) fetch(ctx context.Context, id bundle.ID, kept *bundle.Bundle) (*bundle.Bundle, []byte, error) {
	if r.isDown() {
		return nil, nil, r.unusable()
	}
	above, wait := int64(0), r.patience(2)
	if kept != nil {
		above, wait = kept.Revision, askLimit
	}
	found, err := ask(ctx, r, wait, func(ctx context.Context) ([]board.Found, error) {
		found, err := r.reader.Bundles(ctx, []board.Want{{ID: id, Above: above}})
		if err != nil {
			return nil, err
		}
		// The head is looked at behind the bundle: a Redis that became an old one between
		// the two is known by it.
		return found, r.look(ctx)
	})
	if err != nil {
		return nil, nil, err
	}
	if r.old() && kept == nil {
		return nil, nil, r.unusable()
	}
	if found[0].Large {
		r.counts.refuse(bundle.TooLarge)
		return nil, nil, errTooLarge
	}
	if found[0].Data == nil {
		return nil, nil, nil
	}
	b, err := r.open(found[0].Data, id)
	if err != nil {
		r.log.Error("bundle refused", "bundle", id.String(), "from", r.name, "err", err)
		return nil, nil, err
	}
	return b, found[0].Data, nil
}

// open opens a bundle, and counts what it refuses. Only few large ones are opened at the
// same time: each takes many times its size for a moment.
func (r *Redis) open(data []byte, id bundle.ID) (*bundle.Bundle, error) {
	if len(data) > largeBytes {
		r.large <- struct{}{}
		defer func() { <-r.large }()
	}
	b, err := r.options.Keys.Open(data, r.options.Deployment, id)
	if err != nil {
		reason, _ := bundle.ReasonOf(err)
		r.counts.refuse(reason)
	}
	return b, err
}

// lastSeen is the highest revision of a bundle that this process ever took.
func (r *Redis) lastSeen(id bundle.ID) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[id]
}

func (r *Redis) took(b *bundle.Bundle) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[b.ID] = max(r.seen[b.ID], b.Revision)
}

func (r *Redis) wrote(b *bundle.Bundle) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written[b.ID] = b.Revision
}

// keep writes a bundle to disk. What cannot be written is served all the same.
func (r *Redis) keep(b *bundle.Bundle, data []byte) {
	r.took(b)
	r.mu.Lock()
	there := r.written[b.ID] == b.Revision
	delete(r.written, b.ID)
	r.mu.Unlock()
	if there {
		r.wrote(b)
		return
	}
	err := r.disk.keep(b.ID, data)
	if err == nil {
		r.wrote(b)
	}
	for _, host := range b.Hosts() {
		if err == nil {
			err = r.disk.keepHost(host, b.Name)
		}
	}
	r.diskDid(b.ID, err)
}

// diskDid takes note of whether something could be written. That one file can says
// nothing of another.
func (r *Redis) diskDid(id bundle.ID, err error) {
	r.mu.Lock()
	before := len(r.unwritten)
	if err != nil {
		r.unwritten[id] = err
	} else {
		delete(r.unwritten, id)
	}
	after := len(r.unwritten)
	r.mu.Unlock()
	if err != nil {
		r.counts.disk.Add(1)
	}
	switch {
	case before == 0 && after > 0:
		r.log.Error("state directory cannot be written: what is loaded is not there after a restart without redis", "err", err)
	case before > 0 && after == 0:
		r.log.Info("state directory can be written again, and all is there")
	}
}

// put puts a bundle into service, or takes what it is the tombstone of out of it. The
// lock of its id is held.
func (r *Redis) put(b *bundle.Bundle) error {
	var err error
	switch {
	case b.Deleted && b.Kind == bundle.UpstreamCluster:
		err = r.into.RemoveUpstream(b.Name, b.Revision)
	case b.ID == bundle.Everywhere:
		err = r.into.PutPolicies(b.Set().PoliciesOf(""), b.Revision)
	case b.Deleted:
		err = r.into.Remove(b.Name, b.Revision)
	case b.Kind == bundle.UpstreamCluster:
		err = r.into.PutUpstream(b.Upstream(), b.Revision)
	default:
		err = r.into.Put(b.Name, b.Set(), b.Revision)
	}
	if errors.Is(err, ErrOlder) {
		r.counts.refuse(olderReason)
		r.log.Warn("bundle is older than what is served", "bundle", b.ID.String(), "revision", b.Revision, "err", err)
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		if r.refused[b.ID].revision <= b.Revision {
			delete(r.refused, b.ID)
		}
		return nil
	}
	r.counts.refuse(unusableReason)
	before := r.refused[b.ID]
	if before.revision <= b.Revision {
		r.refused[b.ID] = refuse{b.Revision, err} // the sessions of before go on
	}
	if before.revision != b.Revision || before.err.Error() != err.Error() { // once, however often clients ask
		text := "bundle cannot be served, what was served before is"
		if errors.Is(err, ErrNarrowed) {
			text = "bundle cannot be served as it is: what it takes away is taken away"
		}
		r.log.Error(text, "bundle", b.ID.String(), "revision", b.Revision, "err", err)
	}
	return fmt.Errorf("serve %v at revision %d: %w", b.ID, b.Revision, err)
}

// look looks how far everything is published.
func (r *Redis) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	sealed, err := r.reader.SealedHead(ctx)
	if err != nil {
		return err
	}
	r.sight(sealed)
	return nil
}

// sight takes note of the head that stands in Redis.
func (r *Redis) sight(sealed []byte) {
	r.heading.Lock()
	defer r.heading.Unlock()
	r.mu.Lock()
	if r.heads.sealed != nil && slices.Equal(sealed, r.heads.sealed) {
		r.mu.Unlock()
		r.keepHead() // if it could not be kept before
		return
	}
	r.mu.Unlock()
	var h board.Head
	var err error
	if sealed != nil {
		h, err = board.OpenHead(r.options.Keys, board.Deployment(r.options.Deployment), sealed)
		if reason, ok := bundle.ReasonOf(err); ok {
			r.counts.refuse(reason)
		}
	}
	r.headIs(sealed, h, err)
}

// announced takes note of a head of the stream. It may have been overtaken, and then
// says nothing of what stands in Redis.
func (r *Redis) announced(sealed []byte, h board.Head) {
	r.heading.Lock()
	defer r.heading.Unlock()
	r.mu.Lock()
	news := h.Revision > r.heads.highest || h.Revision == r.heads.highest && h.Policies > r.heads.policies
	r.mu.Unlock()
	if news {
		r.headIs(sealed, h, nil)
	}
}

// headIs takes note of a head, on disk before anything is done about it: whoever is
// killed in between must know an old copy of Redis when it meets one. heading is held.
func (r *Redis) headIs(sealed []byte, h board.Head, err error) {
	revision := h.Revision
	r.mu.Lock()
	if revision > 0 && revision >= r.heads.highest { // the same one may be signed anew
		r.heads.top = sealed
	}
	r.mu.Unlock()
	r.keepHead()
	r.mu.Lock()
	wasOld := r.heads.old()
	r.heads.sealed, r.heads.now, r.heads.err = sealed, revision, err
	r.heads.highest, r.heads.policies = max(r.heads.highest, revision), max(r.heads.policies, h.Policies)
	isOld := r.heads.old()
	if isOld && !wasOld {
		r.heads.losses++
	}
	heads := r.heads
	r.mu.Unlock()
	switch {
	case isOld && !wasOld:
		r.log.Error("redis has forgotten what it knew: nothing is taken from it that is not newer, until the portal has published again", "head", heads.now, "seen", heads.highest, "err", err)
	case wasOld && !isOld:
		r.log.Info("redis knows again what it knew", "head", heads.now)
	}
}

// keepHead writes the highest head to disk, unless it is there. heading is held.
func (r *Redis) keepHead() {
	r.mu.Lock()
	top, kept := r.heads.top, r.heads.kept
	r.mu.Unlock()
	if top == nil || slices.Equal(top, kept) {
		return
	}
	err := r.disk.write("head", top)
	r.diskDid(bundle.ID{}, err)
	if err == nil {
		r.mu.Lock()
		r.heads.kept = top
		r.mu.Unlock()
	}
}

// Problem is why the node serves by what it last knew.
func (r *Redis) Problem() error {
	r.forgetUnloaded()
	rival, ruled := r.members.takenBy(), r.ruled()
	by, late := r.pace.Slow()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch h := r.heads; {
	case !r.link.tried:
		return fmt.Errorf("%s was not reached yet", r.name)
	case r.link.err != nil:
		return fmt.Errorf("%s cannot be used since %s, the node serves what it last knew: %w", r.name, r.link.since.UTC().Format(time.RFC3339), r.link.err)
	case h.err != nil:
		return fmt.Errorf("what stands in %s is not from the portal, the node serves what it last knew: %w", r.name, h.err)
	case h.old() && h.now == 0:
		return fmt.Errorf("%s was emptied, and the portal has not published again: the node serves what it last knew, up to revision %d", r.name, h.highest)
	case h.old():
		return fmt.Errorf("%s was brought back from a copy of revision %d, and the portal has not published again: the node serves what it last knew, up to revision %d", r.name, h.now, h.highest)
	case h.now == 0:
		return fmt.Errorf("the portal has published nothing in %s yet", r.name)
	case !ruled:
		const text = "the policies of all virtual clusters, of revision %d, are not in force: virtual clusters that are not loaded are not served"
		if refused, ok := r.refused[bundle.Everywhere]; ok {
			return fmt.Errorf(text+": %w", r.heads.policies, refused.err)
		}
		return fmt.Errorf(text+", until the portal has put them up again", r.heads.policies)
	case rival != nil:
		return fmt.Errorf("node id %s is taken by a process at %s:%d: clients are not sent here", r.options.Node.ID, rival.Host, rival.Port)
	case r.members.beatErr() != nil:
		return fmt.Errorf("the others are not told that the node is here: %w", r.members.beatErr())
	case late:
		return fmt.Errorf("%s answers slowly, after up to %v: changes come to this node, and word of it to the others, that much later, and it keeps to its part of the quotas", r.name, by)
	case len(r.refused) > 0:
		ids := slices.SortedFunc(maps.Keys(r.refused), func(a, b bundle.ID) int {
			return int(r.refused[a].revision - r.refused[b].revision)
		})
		return fmt.Errorf("%d bundles cannot be served as they are now; %v: %w", len(ids), ids[0], r.refused[ids[0]].err)
	case len(r.unwritten) > 0:
		for _, err := range r.unwritten {
			return fmt.Errorf("state directory: %w", err)
		}
	}
	return nil
}

// forgetUnloaded forgets refusals of what is not served: the client was told.
func (r *Redis) forgetUnloaded() {
	r.mu.Lock()
	ids := slices.Collect(maps.Keys(r.refused))
	r.mu.Unlock()
	for _, id := range ids { // the gateway is asked without the lock: it may ask, too
		if _, served := r.into.Revision(id); !served && id != bundle.Everywhere {
			r.mu.Lock()
			delete(r.refused, id)
			r.mu.Unlock()
		}
	}
}

// loaded are the revisions of what is served.
func (r *Redis) loaded() map[bundle.ID]int64 {
	vcs, upstreams := r.into.Loaded()
	all := make(map[bundle.ID]int64, len(vcs)+len(upstreams))
	for name, revision := range vcs {
		all[bundle.ID{Kind: bundle.VirtualCluster, Name: name}] = revision
	}
	for name, revision := range upstreams {
		all[bundle.ID{Kind: bundle.UpstreamCluster, Name: name}] = revision
	}
	if revision, known := r.into.Revision(bundle.Everywhere); known {
		all[bundle.Everywhere] = revision
	}
	return all
}

// locks has one lock for each bundle that is being taken.
type locks struct {
	mu   sync.Mutex
	held map[bundle.ID]*lock
}

type lock struct {
	sync.Mutex
	wanted int
}

// ids are the bundles that are being taken now.
func (l *locks) ids() map[bundle.ID]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := make(map[bundle.ID]bool, len(l.held))
	for id := range l.held {
		ids[id] = true
	}
	return ids
}

func (l *locks) lock(id bundle.ID) (unlock func()) {
	l.mu.Lock()
	if l.held == nil {
		l.held = make(map[bundle.ID]*lock)
	}
	one := l.held[id]
	if one == nil {
		one = new(lock)
		l.held[id] = one
	}
	one.wanted++
	l.mu.Unlock()
	one.Lock()
	return func() {
		one.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if one.wanted--; one.wanted == 0 {
			delete(l.held, id)
		}
	}
}

// The reasons of refusals that are not about the bundle by itself.
const (
	olderReason    bundle.Reason = "older"    // than what is served
	unusableReason bundle.Reason = "unusable" // the gateway cannot serve it
)

// counts is what is counted.
type counts struct {
	refused map[bundle.Reason]*atomic.Uint64
	disk    *atomic.Uint64 // writes that failed
	changes *atomic.Uint64 // put into service
}

func newCounts() counts {
	c := counts{refused: make(map[bundle.Reason]*atomic.Uint64), disk: new(atomic.Uint64), changes: new(atomic.Uint64)}
	for _, reason := range bundle.Reasons() {
		c.refused[reason] = new(atomic.Uint64)
	}
	c.refused[olderReason], c.refused[unusableReason] = new(atomic.Uint64), new(atomic.Uint64)
	return c
}

func (c counts) refuse(reason bundle.Reason) {
	if n := c.refused[reason]; n != nil {
		n.Add(1)
	}
}

var (
	_ Source     = (*Redis)(nil)
	_ Membership = (*Redis)(nil)
)
