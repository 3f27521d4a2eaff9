package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Turns has one node of the fleet at a time do something about a subject that can only be
// counted when nobody else does it: creating topics within a limit. A turn is a key that
// expires, so that one of a node that died is over after turnLasts.
type Turns struct {
	client redis.UniversalClient
	prefix string
	away   func() error // why Redis is known not to answer; nil: it may
	log    *slog.Logger

	life context.Context
	end  context.CancelFunc
	wg   sync.WaitGroup
}

const (
	turnLasts = 10 * time.Second
	turnRenew = turnLasts / 4
	turnAsk   = time.Second   // for Redis to answer
	turnWait  = 2 * turnLasts // for the others: longer than a dead one has it
	turnLook  = 20 * time.Millisecond
)

// ErrTurn is that others had the turn for as long as anybody waits.
var ErrTurn = errors.New("other nodes are creating topics in the virtual cluster")

// NewTurns keeps turns in a Redis, under a prefix and their subjects. Close it before the
// client.
func NewTurns(client redis.UniversalClient, prefix string, away func() error, log *slog.Logger) *Turns {
	t := &Turns{client: client, prefix: prefix, away: away, log: log}
	t.life, t.end = context.WithCancel(context.Background())
	return t
}

// Close ends what is kept up in the background. Nobody takes a turn any more.
func (t *Turns) Close() {
	t.end()
	t.wg.Wait()
}

// Take waits for the turn, and done ends it; it holds up nobody. Without Redis everybody
// has it: done does nothing then. The error is [ErrTurn], or the end of ctx.
func (t *Turns) Take(ctx context.Context, subject string) (done func(), err error) {
	key, mine := t.prefix+subject, rand.Text()
	for began := time.Now(); ; {
		if t.away() != nil {
			return func() {}, nil
		}
		got, err := t.try(ctx, key, mine)
		switch {
		case ctx.Err() != nil:
			t.release(key, mine) // it may have got there
			return nil, context.Cause(ctx)
		case err != nil:
			t.release(key, mine)
			t.log.Warn("redis does not say whose turn it is to create topics: limits of topics and partitions are kept by each node", "err", err)
			return func() {}, nil
		case got:
			return t.hold(key, mine), nil
		case time.Since(began) > turnWait:
			return nil, fmt.Errorf("%w, for more than %v", ErrTurn, turnWait)
		}
		pause := time.NewTimer(turnLook/2 + mathrand.N(turnLook))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

func (t *Turns) try(ctx context.Context, key, mine string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, turnAsk)
	defer cancel()
	err := t.client.SetArgs(ctx, key, mine, redis.SetArgs{Mode: "NX", TTL: turnLasts}).Err()
	if errors.Is(err, redis.Nil) {
		// The one whose answer got lost on a connection that broke may be our own.
		var owner string
		if owner, err = t.client.Get(ctx, key).Result(); errors.Is(err, redis.Nil) {
			return false, nil
		}
		return err == nil && owner == mine, err
	}
	return err == nil, err
}

// hold keeps the turn until done.
func (t *Turns) hold(key, mine string) (done func()) {
	over := make(chan struct{})
	t.wg.Go(func() {
		tick := time.NewTicker(turnRenew)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				ctx, cancel := context.WithTimeout(t.life, turnRenew)
				_ = renewTurn.Eval(ctx, t.client, []string{key}, mine, turnLasts.Milliseconds()).Err() // it lasts for some more
				cancel()
				continue
			case <-over:
			case <-t.life.Done():
			}
			t.giveBack(key, mine)
			return
		}
	})
	return sync.OnceFunc(func() { close(over) })
}

// release gives a turn back that this node may have without knowing.
func (t *Turns) release(key, mine string) {
	if t.life.Err() == nil {
		t.wg.Go(func() { t.giveBack(key, mine) })
	}
}

func (t *Turns) giveBack(key, mine string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.life), timeout)
	defer cancel()
	_ = endTurn.Eval(ctx, t.client, []string{key}, mine).Err() // it expires
}

var (
	renewTurn = redis.NewScript(`if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0`)
	endTurn = redis.NewScript(`if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`)
)
