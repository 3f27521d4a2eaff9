package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"tollgate.internal/pkg/bundle"
	board "tollgate.internal/pkg/fleet"
)

// follower is where Run stands in the stream.
type follower struct {
	*Redis

	position string        // of the entry that was read last; empty: none yet
	looked   time.Time     // at the head and the end of the stream
	took     time.Duration // the last such look
	all      time.Time     // at everything that is loaded
	again    time.Time     // at what could not be served
	settled  int           // of heads.losses, those after which everything was looked at
	wasRuled bool          // when that was looked at last: with Preload, what came before was left out
	rest     []bundle.ID   // not loaded, still to be looked at
	ready    func()
}

// Run follows the changes of what is loaded until ctx ends.
//
//	connecting --head, everything that is loaded--> following
//	     '<-------------------an error------------------'
//
// While it follows, it applies what the stream says, in the order of the stream. It
// looks at everything that is loaded when entries are missing, when the stream is
// another one, and when Redis knows again what it had forgotten.
//
// It is ready when it knows whether Redis can be used, and with [Options.Preload] when
// all that Redis, or else the disk, has is loaded.
func (r *Redis) Run(ctx context.Context, into Applier, ready func()) error {
	r.into = into
	close(r.running)
	f := &follower{Redis: r, ready: sync.OnceFunc(ready)}
	for pause := minPause; ctx.Err() == nil; {
		err := f.connect(ctx)
		if err == nil {
			pause = minPause
			err = f.follow(ctx)
		}
		if ctx.Err() != nil {
			break
		}
		r.linkIs(err)
		f.preloadDisk(ctx)
		f.ready()
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
	return context.Cause(ctx)
}

// How long Redis is left alone after an error.
const (
	minPause = 50 * time.Millisecond
	maxPause = time.Second
)

// linkIs takes note of how the node gets on with Redis.
func (r *Redis) linkIs(err error) {
	r.mu.Lock()
	before := r.link
	r.link.tried, r.link.err = true, err
	if !before.tried || (before.err == nil) != (err == nil) {
		r.link.since = time.Now()
	}
	r.mu.Unlock()
	switch {
	case err != nil && (before.err == nil || !before.tried):
		r.log.Error("redis cannot be used: the node serves what it last knew", "redis", r.name, "err", err)
	case err == nil && before.err != nil:
		r.log.Info("redis can be used again", "redis", r.name, "after", time.Since(before.since))
	}
}

// connect begins where the stream was left, or at its end the first time, and sees to
// it that everything which is loaded is as the head says.
func (f *follower) connect(ctx context.Context) error {
	if err := f.look(ctx); err != nil {
		return err
	}
	head := f.head()
	tail, err := f.tail(ctx)
	if err != nil {
		return err
	}
	// From here on clients may ask Redis: what they load is what there is.
	f.linkIs(nil)
	_ = f.rule(ctx) // else who comes in is told, and Problem says it
	f.wasRuled = f.ruled()
	if !f.options.Preload {
		f.ready()
	}
	if f.position == "" || board.Behind(tail, f.position) {
		f.position = tail
	}
	if err := f.everything(ctx); err != nil {
		return err
	}
	if f.position == tail {
		f.isApplied(head)
	}
	f.preloadDisk(ctx)
	f.ready()
	f.into.Announced()
	f.looked = time.Now()
	return nil
}

func (f *follower) tail(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return f.reader.Tail(ctx)
}

// head is the revision up to which everything is published, if it can be believed.
func (r *Redis) head() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.heads.old() {
		return 0
	}
	return r.heads.now
}

// follow reads the stream until an error.
func (f *follower) follow(ctx context.Context) error {
	for ctx.Err() == nil {
		wait := followFor
		if len(f.rest) > 0 {
			wait = time.Millisecond // 0 would be for ever
		}
		entries, err := f.reader.Follow(ctx, f.position, wait)
		if err != nil {
			return err
		}
		if err := f.take(ctx, entries); err != nil {
			return err
		}
		if len(f.rest) > 0 {
			if err := f.someOfTheRest(ctx); err != nil {
				return err
			}
		}
		// A slow Redis is mostly listened to: what it has to say must not wait for
		// answers that say nothing new.
		if time.Since(f.looked) >= max(lookEvery, 4*f.took) {
			began := time.Now()
			if err := f.check(ctx); err != nil {
				return err
			}
			f.took = time.Since(began)
		}
	}
	return nil
}

// take applies entries of the stream.
func (f *follower) take(ctx context.Context, entries []board.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	if entries[0].After != f.position {
		f.log.Warn("entries of the stream of changes are missing: looking at everything that is loaded", "after", f.position, "next", entries[0].Position)
		if err := f.everything(ctx); err != nil {
			return err
		}
		f.into.Announced()
	}
	changed := make(map[bundle.ID]int64)
	var sealed []byte
	var head board.Head
	for _, e := range entries {
		switch {
		case e.Change != nil:
			changed[e.Change.ID] = max(changed[e.Change.ID], e.Change.Revision)
		case e.Head != nil:
			if h, err := board.OpenHead(f.options.Keys, board.Deployment(f.options.Deployment), e.Head); err == nil && h.Revision > head.Revision {
				sealed, head = e.Head, h
			}
		case e.Command != nil:
			f.obey(e.Command)
		}
	}
	if err := f.changes(ctx, changed); err != nil {
		return err
	}
	if sealed != nil { // what it is about was announced before it, and is applied
		f.announced(sealed, head)
		f.isApplied(head.Revision)
	}
	f.position = entries[len(entries)-1].Position
	return nil
}

// check looks whether Redis still is what it was.
func (f *follower) check(ctx context.Context) error {
	if err := f.look(ctx); err != nil {
		return err
	}
	head := f.head()
	_ = f.rule(ctx) // if they did not come as they were announced
	lacked := !f.wasRuled && f.ruled()
	f.wasRuled = f.ruled()
	tail, err := f.tail(ctx)
	if err != nil {
		return err
	}
	losses, isOld := f.losses()
	again := board.Behind(tail, f.position) || !isOld && f.settled != losses || lacked
	if board.Behind(tail, f.position) {
		f.log.Warn("the stream of changes is another one: looking at everything that is loaded", "position", f.position, "end", tail)
		f.position = tail
	}
	if again {
		if err := f.everything(ctx); err != nil {
			return err
		}
		if lacked {
			f.preloadDisk(ctx)
		}
		f.into.Announced()
	} else if time.Since(f.all) >= allEvery {
		if _, err := f.allLoaded(ctx); err != nil {
			return err
		}
	} else if time.Since(f.again) >= againEvery {
		if err := f.tryAgain(ctx); err != nil {
			return err
		}
	}
	if f.position == tail {
		f.isApplied(head)
	}
	f.looked = time.Now()
	return nil
}

// tryAgain looks at a batch of what could not be served: not because of what it says, but
// because of a file, say, that this node does not have.
func (f *follower) tryAgain(ctx context.Context) error {
	f.again = time.Now()
	f.forgetUnloaded()
	if err := f.writeAgain(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	ids := slices.Collect(maps.Keys(f.refused)) // in no order: all have their turn
	f.mu.Unlock()
	var wants []board.Want
	for _, id := range ids[:min(batch, len(ids))] {
		if revision, is := f.into.Revision(id); is {
			wants = append(wants, board.Want{ID: id, Above: revision})
		}
	}
	return f.refresh(ctx, wants)
}

// writeAgain writes a batch of what could not be kept on disk.
func (f *follower) writeAgain(ctx context.Context) error {
	f.mu.Lock()
	ids := slices.Collect(maps.Keys(f.unwritten))
	f.mu.Unlock()
	var wants []board.Want
	for _, id := range ids[:min(batch, len(ids))] {
		_, served := f.into.Revision(id)
		switch {
		case id == bundle.ID{}: // the head is written with each look at it
		case served, f.disk.has(id):
			wants = append(wants, board.Want{ID: id, Above: f.lastSeen(id) - 1})
		default:
			f.diskDid(id, nil)
		}
	}
	if len(wants) == 0 {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	found, err := f.reader.Bundles(limited, wants)
	if err != nil {
		return fmt.Errorf("fetch bundles: %w", err)
	}
	for _, one := range found {
		if one.Data == nil {
			continue
		}
		b, err := f.open(one.Data, one.ID)
		if err != nil {
			continue // as it was when it was taken: the log has it
		}
		unlock := f.locks.lock(one.ID)
		if b.Revision == f.lastSeen(one.ID) {
			f.keep(b, one.Data)
		}
		unlock()
	}
	return nil
}

// isApplied takes note that everything up to a revision was looked at.
func (r *Redis) isApplied(revision int64) {
	r.forgetUnloaded()
	ruled := r.ruled()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, refused := range r.refused {
		revision = min(revision, refused.revision-1)
	}
	// Nobody is to take a policy for applied that is not, or would be forgotten.
	if _, forgotten := r.unwritten[bundle.Everywhere]; !ruled || forgotten {
		revision = min(revision, r.heads.policies-1)
	}
	if revision <= r.applied {
		return
	}
	r.applied = revision
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// changes applies bundles that were announced.
func (f *follower) changes(ctx context.Context, changed map[bundle.ID]int64) error {
	if len(changed) == 0 {
		return nil
	}
	// In this order: what a client brings meanwhile is among the one or the other, or
	// it is brought as it was announced.
	coming := f.locks.ids()
	var wants []board.Want
	others := false
	for id, revision := range changed {
		have, is := f.into.Revision(id)
		switch {
		case is && have >= revision:
			if f.isRefused(id) { // and is put right now
				wants = append(wants, board.Want{ID: id, Above: have})
			}
		case is:
			wants = append(wants, board.Want{ID: id, Above: have})
		default:
			others = others || id.Kind == bundle.VirtualCluster
			if id == bundle.Everywhere || coming[id] || f.disk.has(id) || f.options.Preload && id.Kind == bundle.VirtualCluster {
				wants = append(wants, board.Want{ID: id, Above: f.lastSeen(id)})
			}
		}
	}
	err := f.refresh(ctx, wants)
	if others {
		f.into.Announced()
	}
	return err
}

func (r *Redis) isRefused(id bundle.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, is := r.refused[id]
	return is
}

// everything looks at all that is loaded, and has the rest looked at.
func (f *follower) everything(ctx context.Context) error {
	losses, old := f.losses()
	loaded, err := f.allLoaded(ctx)
	if err != nil {
		return err
	}
	// What was revoked must not come back from the disk either.
	f.rest = f.rest[:0]
	known := make(map[bundle.ID]bool)
	for _, id := range f.disk.ids() {
		if _, is := loaded[id]; !is {
			f.rest, known[id] = append(f.rest, id), true
		}
	}
	if !old {
		f.settled = losses
	}
	if !f.options.Preload {
		return nil
	}
	if !old {
		names, err := f.reader.VirtualClusters(ctx)
		if err != nil {
			return err
		}
		for _, name := range names {
			id := bundle.ID{Kind: bundle.VirtualCluster, Name: name}
			if _, is := loaded[id]; !is && !known[id] {
				f.rest, known[id] = append(f.rest, id), true
			}
		}
	}
	for len(f.rest) > 0 {
		if err := f.someOfTheRest(ctx); err != nil {
			return err
		}
	}
	return nil
}

// allLoaded looks at all that is loaded, or about to be.
func (f *follower) allLoaded(ctx context.Context) (loaded map[bundle.ID]int64, err error) {
	coming, loaded := f.locks.ids(), f.loaded()
	wants := make([]board.Want, 0, len(loaded)+len(coming))
	for id, revision := range loaded {
		wants = append(wants, board.Want{ID: id, Above: revision})
	}
	for id := range coming {
		if _, is := loaded[id]; !is {
			wants = append(wants, board.Want{ID: id, Above: f.lastSeen(id)})
		}
	}
	f.all = time.Now()
	return loaded, f.refresh(ctx, wants)
}

// someOfTheRest looks at a batch of what is not loaded: so few that a change which is
// announced meanwhile does not wait.
func (f *follower) someOfTheRest(ctx context.Context) error {
	some := f.rest[:min(batch, len(f.rest))]
	wants := make([]board.Want, len(some))
	for i, id := range some {
		if f.lastSeen(id) == 0 && f.disk.has(id) {
			unlock := f.locks.lock(id)
			f.kept(id)
			unlock()
		}
		wants[i] = board.Want{ID: id, Above: f.lastSeen(id)}
	}
	if err := f.refresh(ctx, wants); err != nil {
		return err
	}
	f.rest = f.rest[len(some):]
	return nil
}

// preloadDisk serves what is on disk and not yet served, if everything is to be loaded:
// Redis may be away, or have nothing newer.
func (f *follower) preloadDisk(ctx context.Context) {
	if !f.options.Preload {
		return
	}
	loaded := f.loaded()
	for _, id := range f.disk.ids() {
		if _, is := loaded[id]; !is && id.Kind == bundle.VirtualCluster && ctx.Err() == nil {
			_ = f.load(ctx, id, "") // the log has it, and clients are told
		}
	}
}

// refresh fetches bundles that are newer than what the node has, and puts those into
// service that are loaded. An error is that of Redis; a bundle that is of no use is
// noted, and the one of before stays.
func (f *follower) refresh(ctx context.Context, wants []board.Want) error {
	for size := batch; len(wants) > 0; {
		some := wants[:min(size, len(wants))]
		limited, cancel := context.WithTimeout(ctx, callLimit)
		found, err := f.reader.Bundles(limited, some)
		cancel()
		if err != nil {
			if len(some) == 1 || !isTimeout(err) || ctx.Err() != nil {
				return fmt.Errorf("fetch bundles: %w", err)
			}
			size = (size + 3) / 4 // large ones, over a thin line
			continue
		}
		wants = wants[len(some):]
		f.takeAll(found)
		for _, one := range found {
			if !one.Large {
				continue
			}
			if len(some) > 1 {
				if err := f.refresh(ctx, []board.Want{one.Want}); err != nil {
					return err
				}
				continue
			}
			f.counts.refuse(bundle.TooLarge)
			f.log.Error("bundle refused, what was served before is", "bundle", one.ID.String(), "from", f.name, "err", errTooLarge)
			f.refuse(one.ID, one.Above+1, errTooLarge)
		}
	}
	return nil
}

// isTimeout reports whether an answer did not come, or not as a whole, in time.
func isTimeout(err error) bool {
	timeout, is := errors.AsType[net.Error](err)
	return is && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

var errTooLarge = &bundle.Refusal{Reason: bundle.TooLarge, Text: fmt.Sprintf("more than %d bytes, which nobody signs", bundle.MaxBytes)}

// takeAll takes several bundles at the same time, first the policies of all virtual clusters,
// then upstream clusters.
func (f *follower) takeAll(found []board.Found) {
	for _, kind := range []bundle.Kind{bundle.Policies, bundle.UpstreamCluster, bundle.VirtualCluster} {
		work := make(chan board.Found)
		var wg sync.WaitGroup
		for range min(appliers, len(found)) {
			wg.Go(func() {
				for one := range work {
					f.takeOne(one)
				}
			})
		}
		for _, one := range found {
			if one.Kind == kind {
				work <- one
			}
		}
		close(work)
		wg.Wait()
	}
}

func (f *follower) takeOne(found board.Found) {
	id := found.ID
	if found.Data == nil {
		if found.There && !found.Large {
			// Nothing is newer than what is served: what was refused is gone.
			f.mu.Lock()
			delete(f.refused, id)
			f.mu.Unlock()
		}
		return
	}
	b, err := f.open(found.Data, id)
	if err == nil && b.Revision <= found.Above {
		err = f.replayed(b, found.Above)
	} else if err != nil {
		f.log.Error("bundle refused, what was served before is", "bundle", id.String(), "from", f.name, "err", err)
	}
	if err != nil {
		f.refuse(id, found.Above+1, err)
		return
	}
	defer f.locks.lock(id)()
	if b.Revision < f.lastSeen(id) {
		return // a client has brought a newer one meanwhile
	}
	loaded, is := f.into.Revision(id)
	if is && loaded >= b.Revision {
		return
	}
	always := id == bundle.Everywhere
	if is || always || f.options.Preload || f.disk.has(id) {
		f.keep(b, found.Data)
	}
	if is || always || f.options.Preload && id.Kind == bundle.VirtualCluster && f.ruled() {
		if f.put(b) == nil {
			f.counts.changes.Add(1)
		}
	}
}

// obey does what a command says, if it is for this process.
func (f *follower) obey(sealed []byte) {
	c, err := board.OpenCommand(f.options.Keys, board.Deployment(f.options.Deployment), sealed)
	if err != nil {
		if reason, ok := bundle.ReasonOf(err); ok {
			f.counts.refuse(reason)
		}
		f.log.Error("command refused", "err", err)
		return
	}
	everybody := c.Node == "" && c.Action == board.TellSessions
	if !everybody && (c.Node != f.options.Node.ID || !c.Started.Equal(f.options.Node.Started)) {
		return
	}
	if c.Action == board.TellSessions || c.Action == board.CloseSession {
		select {
		case f.questions <- c:
		default:
		}
		return
	}
	f.mu.Lock()
	_, done := f.commands[c.ID]
	f.commands[c.ID] = struct{}{}
	f.mu.Unlock()
	if done {
		return
	}
	f.log.Info("told by the portal", "action", string(c.Action), "over", c.Over)
	f.members.obey(c)
}
