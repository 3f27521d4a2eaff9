package stub

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
)

// orphan is a stub that nobody wants: its alias is gone, or stands for another topic.
type orphan struct {
	since   time.Time
	after   time.Time // not to be deleted before, whatever its age
	problem error
}

func (o *orphan) due(keepFor time.Duration) time.Time {
	due := o.since.Add(keepFor)
	if due.Before(o.after) {
		return o.after
	}
	return due
}

// sweep counts the time of stubs that nobody wants, and deletes those whose time is
// up. With them go the offsets that groups have committed for the alias.
func (k *Keeper) sweep(ctx context.Context, m *upstream.Metadata, w wishes) {
	if !w.wanted || !w.keeping {
		return
	}
	current := make(map[string]bool) // labels with a stub in use
	for name, e := range k.entries {
		if label, _, ok := Parse(k.cfg.Prefix, name); ok && e.confirmed {
			current[label] = true
		}
	}
	now := time.Now()
	there := make(map[string]*orphan)
	var expired []*upstream.Topic
	for _, t := range m.WithPrefix(k.cfg.Prefix + Segment) {
		label, _, ok := Parse(k.cfg.Prefix, t.Name)
		if !ok || k.entries[t.Name] != nil || w.kept[label] && !current[label] {
			continue
		}
		o := k.orphans[t.Name]
		if o == nil {
			o = &orphan{since: now}
		}
		there[t.Name] = o
		if !now.Before(o.due(w.settings.KeepFor)) {
			expired = append(expired, t)
		}
	}
	k.orphans = there
	if len(expired) > 0 {
		k.remove(ctx, expired[:min(len(expired), perRequest)])
	}
}

// remove deletes stubs, by id where home knows ids: what has been made again since
// under the same name is another stub.
func (k *Keeper) remove(ctx context.Context, expired []*upstream.Topic) {
	k.mu.Lock()
	stale := k.wishes.revision != k.applied
	k.mu.Unlock()
	if stale {
		return // somebody may want them again
	}
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.Version = version(k.home, req, 1, 6)
	req.TimeoutMillis = int32(makeTimeout / time.Millisecond)
	names := make(map[[16]byte]string)
	for _, t := range expired {
		rt := kmsg.NewDeleteTopicsRequestTopic()
		if req.Version >= 6 && t.ID != ([16]byte{}) {
			rt.TopicID = t.ID
			names[t.ID] = t.Name
		} else {
			rt.Topic = &t.Name
		}
		req.Topics = append(req.Topics, rt)
		req.TopicNames = append(req.TopicNames, t.Name)
	}
	now := time.Now()
	resp, err := k.request(ctx, k.home.Controller(), makeTimeout+askLimit, req)
	if ctx.Err() != nil {
		return
	}
	failed := make(map[string]error)
	if err != nil {
		k.home.MarkStale()
		for _, t := range expired {
			failed[t.Name] = err
		}
	} else {
		for _, t := range resp.(*kmsg.DeleteTopicsResponse).Topics {
			name := names[t.TopicID]
			if t.Topic != nil {
				name = *t.Topic
			}
			switch t.ErrorCode {
			case 0, kerr.UnknownTopicOrPartition.Code, kerr.UnknownTopicID.Code:
			default:
				failed[name] = answer{t.ErrorCode, t.ErrorMessage}.err()
			}
		}
	}
	var deleted []string
	told := false
	for _, t := range expired {
		o := k.orphans[t.Name]
		err := failed[t.Name]
		if err == nil {
			deleted = append(deleted, t.Name)
			o.problem = nil
			o.after = now.Add(lookEvery) // until metadata no longer has it
			continue
		}
		if o.problem == nil && !told {
			told = true
			refusal.Log(ctx, k.log, slog.LevelWarn, "stubs not deleted", refusal.StubNotDeleted.Errorf("topic %s: %w", t.Name, err), "stubs", len(failed))
		}
		o.problem = refusal.StubNotDeleted.With(err)
		o.after = now.Add(refusedEvery + jitter(refusedEvery/5))
		if kerr.IsRetriable(err) {
			o.after = now.Add(maxBackoff)
		}
	}
	if len(deleted) > 0 {
		slices.Sort(deleted)
		k.count(func(t *Totals) { t.Deleted += len(deleted) })
		k.log.InfoContext(ctx, "stubs deleted whose aliases are gone", "stubs", len(deleted), "first", deleted[0])
		k.home.MarkStale()
	}
}
