package stub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
)

// How long an answer of a foreign cluster is good for.
const (
	heldFor  = time.Minute
	freeFor  = 10 * time.Second
	troubled = 2 * time.Second
)

// holder is what is known of a foreign cluster: whether groups of the virtual
// cluster have offsets there, which a stub would hide from them.
type holder struct {
	asking bool
	until  time.Time // good
	group  string    // one of them; "": none
	err    error
}

// mayCreate reports whether a stub that is not there may be made. One that was there
// before may: nothing but its deletion has happened. The cluster of the topic is asked
// beside the rounds, which it cannot hold up.
func (k *Keeper) mayCreate(ctx context.Context, e *entry) bool {
	e.asking, e.blocked = false, nil
	if e.confirmed || e.want.Always {
		return true
	}
	e.asking = true
	c := e.want.Foreign
	if c == nil {
		e.blocked = errNotAsked
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.holders[c]
	if h == nil {
		h = new(holder)
		k.holders[c] = h
	}
	if time.Now().Before(h.until) && !h.asking {
		switch {
		case h.err != nil:
			e.blocked = fmt.Errorf("ask cluster %s for groups: %w", c.Name(), h.err)
		case h.group != "":
			err := refusal.StubHeld.Errorf("topic %s: cluster %s has offsets of group %s", e.want.Name, c.Name(), h.group)
			k.refuse(ctx, e, err)
		default:
			e.asking = false
			return true
		}
		return false
	}
	if !h.asking {
		h.asking = true
		k.wg.Go(func() {
			group, err := groupsOn(ctx, c, k.cfg.Prefix)
			k.mu.Lock()
			defer k.mu.Unlock()
			h.asking, h.group, h.err = false, group, err
			switch now := time.Now(); {
			case err != nil:
				h.until = now.Add(troubled)
			case group != "":
				h.until = now.Add(heldFor)
			default:
				h.until = now.Add(freeFor)
			}
			k.wake()
		})
	}
	if h.err != nil {
		e.blocked = fmt.Errorf("ask cluster %s for groups: %w", c.Name(), h.err)
	}
	return false
}

// forgetHolders drops what is known of clusters that no stub is wanted for.
func (k *Keeper) forgetHolders() {
	used := make(map[*upstream.Cluster]bool)
	for _, e := range k.entries {
		used[e.want.Foreign] = true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.holders, func(c *upstream.Cluster, h *holder) bool { return !used[c] && !h.asking })
}

// holderDue is when the cluster may be asked again.
func (k *Keeper) holderDue(c *upstream.Cluster) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.holders[c]; h != nil && !h.asking {
		return h.until
	}
	return time.Now().Add(lookEvery) // the answer wakes the keeper
}

// groupsOn returns a group of c whose name begins with prefix, "" when there is none.
// Each broker knows the groups that it coordinates, so all of them have to answer.
func groupsOn(ctx context.Context, c *upstream.Cluster, prefix string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*askLimit, errNoAnswer)
	defer cancel()
	m, err := c.Fresh(ctx, askLimit)
	if err != nil {
		return "", err
	}
	if state := c.State(); state.Suspect {
		return "", state.Err
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		found string
		errs  []error
	)
	for _, b := range m.Brokers {
		wg.Go(func() {
			req := kmsg.NewPtrListGroupsRequest()
			req.Version = version(c, req, 0, 4)
			resp, err := c.Request(ctx, b.ID, upstream.Control, askLimit, upstream.OwnClientID, req)
			if err == nil {
				err = kerr.ErrorForCode(resp.(*kmsg.ListGroupsResponse).ErrorCode)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("node %d: %w", b.ID, err))
				return
			}
			for _, g := range resp.(*kmsg.ListGroupsResponse).Groups {
				if strings.HasPrefix(g.Group, prefix) && (found == "" || g.Group < found) {
					found = g.Group
				}
			}
		})
	}
	wg.Wait()
	if found != "" {
		return found, nil
	}
	return "", errors.Join(errs...)
}
