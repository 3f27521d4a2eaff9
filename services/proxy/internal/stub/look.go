package stub

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
)

// perLook is how many stubs one request asks for.
const perLook = 500

// missingFor is how long nobody has to look again for what no broker had.
const missingFor = 5 * time.Second

// wantsLook reports whether the entry may have become what is wanted.
func (e *entry) wantsLook(now time.Time) bool {
	return !e.lookAt.IsZero() && (e.missingAt.IsZero() || e.made || now.Sub(e.missingAt) > missingFor)
}

// look asks the live brokers of home for what may not be as wanted: what was not so
// far, what metadata contradicts and, from time to time and when there is a broker
// that has not been asked, everything.
func (k *Keeper) look(ctx context.Context, m *upstream.Metadata) {
	now := time.Now()
	full := now.Sub(k.lastFull) >= lookEvery || k.homeErr != nil
	nodes := k.nodes(m, now)
	for _, id := range nodes {
		full = full || !k.checked[id]
	}
	var names []string
	for name, e := range k.entries {
		t := m.Topic(name)
		if e.confirmed && e.lookAt.IsZero() && (t == nil || t.ID != e.stub.ID) {
			e.lookAt = now
		}
		if full || e.wantsLook(now) && !now.Before(e.lookAt) {
			names = append(names, name)
		}
	}
	if full {
		k.lastFull = now.Add(-jitter(lookEvery / 5)) // nodes that start together look at different times
	}
	if len(names) == 0 {
		k.unreachable(ctx, nil)
		if full {
			for _, id := range nodes {
				k.checked[id] = true
			}
		}
		return
	}
	slices.Sort(names)
	shown, errs := k.ask(ctx, nodes, names)
	if ctx.Err() != nil {
		return
	}
	var failed []error
	for i, id := range nodes {
		if errs[i] != nil {
			failed = append(failed, errs[i])
			delete(k.checked, id)
			if s := k.silent[id]; s != nil {
				s.asked = time.Now()
			} else {
				k.silent[id] = &silence{since: now, asked: time.Now()}
			}
			continue
		}
		delete(k.silent, id)
		if full {
			k.checked[id] = true
		}
	}
	if len(failed) == len(nodes) {
		clear(k.silent) // it is not one of them
		k.unreachable(ctx, errors.Join(failed...))
		return
	}
	k.unreachable(ctx, nil)
	waiting := false // for a live broker
	for id, s := range k.silent {
		if !m.Live(id) {
			delete(k.silent, id)
			continue
		}
		waiting = waiting || time.Since(s.since) < excuseAfter
	}
	var lost []*entry
	for i, name := range names {
		var views []view
		for j := range nodes {
			if errs[j] == nil {
				views = append(views, shown[j][i])
			}
		}
		e := k.entries[name]
		was := e.repaired
		k.judge(ctx, e, name, views, waiting)
		if e.repaired && !was {
			lost = append(lost, e)
		}
	}
	if len(lost) > 0 {
		refusal.Log(ctx, k.log, slog.LevelWarn, "stubs have to be made again", refusal.StubLost.Errorf("topic %s", lost[0].stub.Name), "stubs", len(lost))
	}
}

// nodes are the live brokers to ask. One that has been silent for long is asked
// only now and then, so that the others' answers need not wait for it.
func (k *Keeper) nodes(m *upstream.Metadata, now time.Time) []int32 {
	var nodes []int32
	for _, b := range m.Brokers {
		if s := k.silent[b.ID]; s != nil && now.Sub(s.since) >= excuseAfter && now.Sub(s.asked) < excusedEvery {
			continue
		}
		nodes = append(nodes, b.ID)
	}
	for id := range k.checked {
		if !m.Live(id) {
			delete(k.checked, id)
		}
	}
	if len(nodes) == 0 { // better late than never
		for _, b := range m.Brokers {
			nodes = append(nodes, b.ID)
		}
	}
	return nodes
}

// view is what one broker shows of one topic.
type view struct {
	code       int16
	id         [16]byte
	partitions int
}

// ask asks each of the nodes for all the names, at the same time.
func (k *Keeper) ask(ctx context.Context, nodes []int32, names []string) (shown [][]view, errs []error) {
	shown, errs = make([][]view, len(nodes)), make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, id := range nodes {
		wg.Go(func() { shown[i], errs[i] = k.askOne(ctx, id, names) })
	}
	wg.Wait()
	return shown, errs
}

func (k *Keeper) askOne(ctx context.Context, node int32, names []string) ([]view, error) {
	out := make([]view, 0, len(names))
	for chunk := range slices.Chunk(names, perLook) {
		req := kmsg.NewPtrMetadataRequest()
		req.Version = version(k.home, req, 4, 12) // 4: AllowAutoTopicCreation
		for _, name := range chunk {
			req.Topics = append(req.Topics, kmsg.MetadataRequestTopic{Topic: &name})
		}
		resp, err := k.request(ctx, node, askLimit, req)
		if err != nil {
			return nil, err
		}
		byName := make(map[string]view, len(chunk))
		for _, t := range resp.(*kmsg.MetadataResponse).Topics {
			if t.Topic != nil {
				byName[*t.Topic] = view{t.ErrorCode, t.TopicID, len(t.Partitions)}
			}
		}
		for _, name := range chunk {
			v, ok := byName[name]
			if !ok {
				v.code = kerr.UnknownTopicOrPartition.Code
			}
			out = append(out, v)
		}
	}
	return out, nil
}

func (k *Keeper) request(ctx context.Context, node int32, limit time.Duration, req kmsg.Request) (kmsg.Response, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errNoAnswer)
	defer cancel()
	return k.home.Request(ctx, node, upstream.Control, limit, upstream.OwnClientID, req)
}

// version is the one to send req in: want, or the highest that every broker knows.
func version(c *upstream.Cluster, req kmsg.Request, least, want int16) int16 {
	if v := c.Versions(); v != nil {
		if r, ok := v.Ranges[req.Key()]; ok {
			want = min(want, r.Max)
		}
	}
	return max(least, want)
}

// judge says what the views of the brokers that answered mean; waiting that another
// live broker has not. Such a one matters for what is new: it would have shown long
// since what was there before.
func (k *Keeper) judge(ctx context.Context, e *entry, name string, views []view, waiting bool) {
	now := time.Now()
	absent, least, largest, same := 0, 0, 0, true
	var other int16
	for _, v := range views {
		switch v.code {
		case 0:
		case kerr.UnknownTopicOrPartition.Code, kerr.UnknownTopicID.Code:
			absent++
			continue
		default:
			other = v.code
			continue
		}
		if largest == 0 || v.partitions < least {
			least = v.partitions
		}
		largest = max(largest, v.partitions)
		same = same && v.id == views[0].id && views[0].code == 0
	}
	e.largest, e.missingAt = largest, time.Time{}
	switch {
	case other == kerr.TopicAuthorizationFailed.Code || other == kerr.InvalidTopicException.Code:
		k.refuse(ctx, e, refusal.StubRefused.Errorf("describe topic %s: %w", name, kerr.ErrorForCode(other)))
	case other != 0:
	case absent == len(views):
		e.missingAt, e.missed = now, true
		e.repaired = e.confirmed
	case absent > 0:
		e.missed = true
	case !same || largest == 0 || waiting && (e.missed || e.confirmed && least > e.stub.Partitions):
	case e.confirmed && views[0].id != e.stub.ID && least < min(e.stub.Partitions, e.want.Partitions):
		e.repaired = true // somebody else has made it again, but smaller
	default:
		k.confirm(e, Stub{name, views[0].id, least})
	}
	if e.confirmed && e.missingAt.IsZero() && !e.small() {
		e.lookAt, e.looks = time.Time{}, 0
		return
	}
	e.lookAt = now.Add(min(50*time.Millisecond<<min(e.looks, 5), time.Second))
	e.looks++
	if e.problem != nil {
		e.lookAt = e.after
	}
}

// confirm takes a stub that all show. One that stayed the same has not become smaller:
// a broker that says so is behind.
func (k *Keeper) confirm(e *entry, s Stub) {
	if e.confirmed && e.stub.ID == s.ID {
		s.Partitions = max(s.Partitions, e.stub.Partitions)
	}
	if e.repaired {
		k.count(func(t *Totals) { t.Repaired++ })
	}
	moved := !e.confirmed || e.repaired || s != e.stub
	e.stub, e.confirmed, e.repaired, e.missed, e.made, e.asking, e.blocked = s, true, false, false, false, false, nil
	if moved {
		k.home.MarkStale() // its metadata does not have it yet
	}
	if moved || !e.small() {
		e.problem, e.tries, e.doubt, e.after, e.spread = nil, 0, time.Time{}, time.Time{}, false
	}
}
