package fleet

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"tollgate.internal/pkg/bundle"
)

// traffic counts what goes to Redis.
type traffic struct{ trips, fetched atomic.Int64 }

func (c *traffic) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *traffic) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.count(cmd)
		return next(ctx, cmd)
	}
}

func (c *traffic) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.count(cmds...)
		return next(ctx, cmds)
	}
}

func (c *traffic) count(cmds ...redis.Cmder) {
	c.trips.Add(1)
	for _, cmd := range cmds {
		if args := cmd.Args(); cmd.Name() == "eval" && args[1] == getScript || cmd.Name() == "hmget" {
			c.fetched.Add(1)
		}
	}
}

// The portal looks at all bundles again and again. Opening one costs a hundred times
// what comparing its checksum does, and a Redis may take its time over each question.
func TestWhatIsKnownToBeThereIsNotFetched(t *testing.T) {
	b := newBed(t)
	const n = 300
	var bundles []*bundle.Bundle
	var changes []Change
	for i := range n {
		v := of(fmt.Sprintf("v%d", i), 7, fmt.Sprintf("h%d", i))
		bundles, changes = append(bundles, v), append(changes, Change{v.ID, v.Revision})
	}
	b.put(t, bundles...)
	c := new(traffic)
	b.client.AddHook(c)
	look := func(p *Publisher, lacking int, fetched, trips int64) {
		t.Helper()
		c.fetched.Store(0)
		c.trips.Store(0)
		got, err := p.Lacking(t.Context(), changes...)
		if err != nil || len(got) != lacking {
			t.Errorf("%d are lacking, %v, want %d", len(got), err, lacking)
		}
		if c.fetched.Load() != fetched || c.trips.Load() > trips {
			t.Errorf("%d bundles were fetched, and Redis was asked %d times: want %d, and at most %d times", c.fetched.Load(), c.trips.Load(), fetched, trips)
		}
	}
	look(b.publisher, 0, 0, 2)
	// Another portal opens each, once.
	other := b.portal(t, b.signer, nil)
	look(other, 0, n, 4)
	look(other, 0, 0, 2)
	// What somebody wrote over is fetched, and is lacking until it is put again.
	b.redis.HSet("tollgate:eu:vc:v5", "data", "hello")
	look(b.publisher, 1, 1, 3)
	look(b.publisher, 1, 1, 3)
	b.put(t, bundles[5])
	look(b.publisher, 0, 0, 2)
}
