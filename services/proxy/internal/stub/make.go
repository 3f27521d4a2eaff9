package stub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
)

const (
	perRequest      = 200  // stubs
	perRequestParts = 2000 // partitions; KRaft refuses requests for more than 10,000
	perRound        = 5    // requests, then the brokers are looked at
	between         = 100 * time.Millisecond
	makeTimeout     = 10 * time.Second
	settleFor       = 5 * time.Second // until the brokers should have learned of it
	notMoreFor      = 30 * time.Second
)

// shape is how a stub is made. Leadership of a stub means nothing, so one replica
// is enough where home agrees, and the least that a topic can cost.
type shape struct {
	replicas int16 // -1: the default of home
	plain    bool  // without configuration
}

// settingsOf the stubs that are not plain. Home's min.insync.replicas would have
// stubs with one replica counted among what is in danger.
var settingsOf = [...]struct{ name, value string }{
	{"cleanup.policy", "delete"}, {"min.insync.replicas", "1"}, {"segment.index.bytes", "1024"},
}

// wantsMaking reports whether no broker had the stub a moment ago.
func (e *entry) wantsMaking() bool {
	return !e.missingAt.IsZero() && time.Since(e.missingAt) <= missingFor && e.want.Partitions > 0
}

// wantsExtending reports whether no broker shows as many partitions as wanted.
func (e *entry) wantsExtending() bool {
	return e.confirmed && e.missingAt.IsZero() && e.largest > 0 && e.largest < e.want.Partitions
}

// ready are the entries that want something done now, by name. The first time they
// wait a little: another node may be about to do the same.
func (k *Keeper) ready(wants func(*entry) bool) (ready []*entry) {
	now := time.Now()
	wait := now.Add(jitter(spread))
	for _, e := range k.entries {
		if !wants(e) || now.Before(e.after) {
			continue
		}
		if !e.spread {
			e.spread, e.after, e.missingAt, e.lookAt = true, wait, time.Time{}, wait
			continue
		}
		ready = append(ready, e)
	}
	slices.SortFunc(ready, func(a, b *entry) int { return strings.Compare(a.want.Name, b.want.Name) })
	return ready
}

// batches cuts what is ready into requests.
func batches(ready []*entry, parts func(*entry) int) (out [][]*entry) {
	var batch []*entry
	n := 0
	for _, e := range ready {
		if len(batch) == perRequest || len(batch) > 0 && n+parts(e) > perRequestParts {
			out, batch, n = append(out, batch), nil, 0
		}
		batch, n = append(batch, e), n+parts(e)
	}
	if len(batch) > 0 {
		out = append(out, batch)
	}
	return out[:min(len(out), perRound)]
}

// pace keeps requests that change home apart, as far as home asks for.
func (k *Keeper) pace(ctx context.Context) {
	t := time.NewTimer(time.Until(k.notBefore))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// paced notes the end of such a request.
func (k *Keeper) paced(throttle int32) {
	k.notBefore = time.Now().Add(max(between, min(time.Duration(throttle)*time.Millisecond, maxBackoff)))
}

// create makes the stubs that no broker has.
func (k *Keeper) create(ctx context.Context) {
	ready := slices.DeleteFunc(k.ready((*entry).wantsMaking), func(e *entry) bool { return !k.mayCreate(ctx, e) })
	for _, batch := range batches(ready, func(e *entry) int { return e.want.Partitions }) {
		k.pace(ctx)
		req := kmsg.NewPtrCreateTopicsRequest()
		req.Version = version(k.home, req, 4, 7) // 4: the default of replicas
		req.TimeoutMillis = int32(makeTimeout / time.Millisecond)
		for _, e := range batch {
			if !e.shaped {
				e.shape, e.shaped = k.good, true
			}
			t := kmsg.NewCreateTopicsRequestTopic()
			t.Topic, t.NumPartitions, t.ReplicationFactor = e.want.Name, int32(e.want.Partitions), e.shape.replicas
			if !e.shape.plain {
				for _, s := range settingsOf {
					t.Configs = append(t.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: s.name, Value: &s.value})
				}
			}
			req.Topics = append(req.Topics, t)
		}
		answers := make(map[string]answer, len(batch))
		resp, err := k.request(ctx, k.home.Controller(), makeTimeout+askLimit, req)
		throttle := int32(0)
		if err == nil {
			r := resp.(*kmsg.CreateTopicsResponse)
			throttle = r.ThrottleMillis
			for _, t := range r.Topics {
				answers[t.Topic] = answer{t.ErrorCode, t.ErrorMessage}
			}
		}
		k.paced(throttle)
		k.answered(ctx, "create", batch, answers, err)
		if ctx.Err() != nil || err != nil {
			return
		}
	}
}

// extend adds the partitions that no broker shows.
func (k *Keeper) extend(ctx context.Context) {
	for _, batch := range batches(k.ready((*entry).wantsExtending), func(e *entry) int { return e.want.Partitions - e.largest }) {
		k.pace(ctx)
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.Version = version(k.home, req, 0, 3)
		req.TimeoutMillis = int32(makeTimeout / time.Millisecond)
		for _, e := range batch {
			t := kmsg.NewCreatePartitionsRequestTopic()
			t.Topic, t.Count = e.want.Name, int32(e.want.Partitions)
			req.Topics = append(req.Topics, t)
		}
		answers := make(map[string]answer, len(batch))
		resp, err := k.request(ctx, k.home.Controller(), makeTimeout+askLimit, req)
		throttle := int32(0)
		if err == nil {
			r := resp.(*kmsg.CreatePartitionsResponse)
			throttle = r.ThrottleMillis
			for _, t := range r.Topics {
				answers[t.Topic] = answer{t.ErrorCode, t.ErrorMessage}
			}
		}
		k.paced(throttle)
		k.answered(ctx, "extend", batch, answers, err)
		if ctx.Err() != nil || err != nil {
			return
		}
	}
}

// answer is what home said about one stub.
type answer struct {
	code int16
	text *string
}

func (a answer) err() error {
	err := kerr.ErrorForCode(a.code)
	if a.text != nil && *a.text != "" {
		return fmt.Errorf("%w: %s", err, *a.text)
	}
	return err
}

// verdict is what an answer means.
type verdict uint8

const (
	done      verdict = iota // or somebody else has done it
	later                    // home is busy or changing
	doubtful                 // it may pass; when it does not, it is final
	unshapely                // another shape may do
	final                    // refused
)

// verdictOn the answer to "create" or "extend".
func verdictOn(code int16) verdict {
	switch code {
	case 0, kerr.TopicAlreadyExists.Code:
		return done
	case kerr.RequestTimedOut.Code, kerr.NotController.Code, kerr.ThrottlingQuotaExceeded.Code, kerr.ReassignmentInProgress.Code, kerr.UnknownTopicOrPartition.Code,
		kerr.LeaderNotAvailable.Code, kerr.BrokerNotAvailable.Code, kerr.CoordinatorNotAvailable.Code, kerr.NetworkException.Code, kerr.KafkaStorageError.Code:
		return later
	case kerr.InvalidReplicationFactor.Code, kerr.InvalidConfig.Code, kerr.PolicyViolation.Code:
		return unshapely
	case kerr.UnknownServerError.Code:
		return doubtful
	}
	return final
}

// answered notes what home said to a request about a batch of entries.
func (k *Keeper) answered(ctx context.Context, what string, batch []*entry, answers map[string]answer, err error) {
	now := time.Now()
	var refused []*entry
	stale := err != nil
	for _, e := range batch {
		e.missingAt, e.made = time.Time{}, false // look before anything else is done
		e.lookAt, e.looks = now, 0
		a, ok := answers[e.want.Name]
		if err == nil && !ok {
			a.code = kerr.UnknownServerError.Code
		}
		why := err
		v := later
		if err == nil {
			why, v = a.err(), verdictOn(a.code)
		}
		if what == "extend" {
			switch {
			case a.code == kerr.InvalidPartitions.Code:
				v = e.notMore(a, now)
			case v == unshapely && a.code != kerr.PolicyViolation.Code:
				v = doubtful // too few brokers are there
			case v == unshapely:
				v = final
			}
		}
		if v == unshapely {
			if next, ok := e.shape.next(a); ok {
				e.shape, e.after = next, now
				continue
			}
			v = final
			if a.code == kerr.InvalidReplicationFactor.Code {
				v = doubtful // too few brokers are there
			}
		}
		if v == doubtful {
			if e.doubt.IsZero() {
				e.doubt = now
			}
			if now.Sub(e.doubt) >= doubtFor {
				v = final
			} else {
				v = later
			}
		}
		switch v {
		case done:
			e.made, e.tries, e.doubt, e.after = true, 0, time.Time{}, now.Add(settleFor)
			if what == "create" && a.code == 0 {
				k.good = e.shape
				k.count(func(t *Totals) { t.Created++ })
			} else if what == "extend" && a.code == 0 {
				k.count(func(t *Totals) { t.Extended++ })
			}
		case later:
			if e.tries++; e.tries == 5 {
				k.log.WarnContext(ctx, "stub not ready yet", "stub", e.want.Name, "operation", what, "err", why)
			}
			wait := min(250*time.Millisecond<<min(e.tries, 10), maxBackoff)
			e.after = now.Add(wait/2 + jitter(wait/2))
		case final:
			e.problem = refusal.StubRefused.Errorf("%s topic %s with %d partitions: %w", what, e.want.Name, e.want.Partitions, why)
			refused = append(refused, e)
		}
		stale = stale || a.code == kerr.NotController.Code
	}
	for _, e := range refused {
		e.refused(now)
	}
	if len(refused) > 0 {
		refusal.Log(ctx, k.log, slog.LevelWarn, "stubs refused", refused[0].problem, "stubs", len(refused))
	}
	if stale && ctx.Err() == nil {
		k.home.MarkStale()
		_, _ = k.home.Fresh(ctx, 0) // to learn the controller; the next round tells what came of it
	}
}

// notMore is what INVALID_PARTITIONS means to "extend": another node was first and the
// brokers that were looked at are behind, or home refuses the number. Kafka's words
// tell the first, and otherwise time does.
func (e *entry) notMore(a answer, now time.Time) verdict {
	if a.text != nil && (strings.Contains(*a.text, "already has") || strings.Contains(*a.text, "currently has")) {
		return done
	}
	if e.doubt.IsZero() {
		e.doubt = now
	}
	if now.Sub(e.doubt) < notMoreFor {
		return later
	}
	return final
}

// next is the shape to try after a was said to s.
func (s shape) next(a answer) (shape, bool) {
	replicas := a.code == kerr.InvalidReplicationFactor.Code || a.text != nil && strings.Contains(strings.ToLower(*a.text), "replica")
	switch {
	case replicas && s.replicas != -1:
		s.replicas = -1
	case a.code != kerr.InvalidReplicationFactor.Code && !s.plain:
		s.plain = true
	case a.code == kerr.PolicyViolation.Code && s.replicas != -1:
		s.replicas = -1
	default:
		return s, false
	}
	return s, true
}

// refuse notes a problem that was found without asking for anything to be made.
func (k *Keeper) refuse(ctx context.Context, e *entry, err error) {
	if e.problem == nil {
		refusal.Log(ctx, k.log, slog.LevelWarn, "stubs refused", err, "stubs", 1)
	}
	e.problem = err
	e.refused(time.Now())
}

// refused says what becomes of an entry that has a problem: it is tried again much
// later. A stub that was lost and may not be made again is no stub any more.
func (e *entry) refused(now time.Time) {
	e.after = now.Add(refusedEvery + jitter(refusedEvery/5))
	e.lookAt = e.after
	e.tries, e.doubt, e.shaped, e.asking, e.blocked = 0, time.Time{}, false, false, nil
	if e.repaired {
		e.confirmed, e.repaired = false, false
	}
}

var errNotAsked = errors.New("the cluster has not been asked yet")
