package producerid

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/redis/go-redis/v9"

	"tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/secret"
)

// redisSource keeps the leases in a Redis, for the nodes of a fleet: one string
// per deployment in which SETBIT marks a lease and tells, in the same step,
// whether somebody had it before. It needs no script and one key only, so it is
// the same on one server, behind Sentinel and on a cluster.
//
// An answer that got lost costs a lease: the bit is set, and nobody uses it.
type redisSource struct {
	client redis.UniversalClient
	key    string
	name   string
}

// redisKey has the deployment in it, so that several may share a Redis.
func redisKey(deployment int) string {
	return fmt.Sprintf("tollgate:producer-id-leases:%d", deployment)
}

// openRedis connects when it is used.
func openRedis(ref, password string, deployment int) (*redisSource, error) {
	client, err := fleet.Open(ref, secret.New(password))
	if err != nil {
		return nil, err
	}
	return &redisSource{client: client, key: redisKey(deployment), name: fleet.URLName(ref)}, nil
}

func (s *redisSource) String() string { return s.name }

func (s *redisSource) Close() error { return s.client.Close() }

func (s *redisSource) Take(ctx context.Context) (Lease, error) {
	for range 8 {
		l := Lease(random(Leases))
		if free, err := s.mark(ctx, l); err != nil || free {
			return l, err
		}
	}
	// So many in a row are taken: the set is dense, and worth fetching.
	for {
		raw, err := s.client.Get(ctx, s.key).Bytes()
		if err != nil && !errors.Is(err, redis.Nil) {
			return 0, s.explain(err)
		}
		l, err := leaseSet(raw).draw()
		if err != nil {
			return 0, err
		}
		if free, err := s.mark(ctx, l); err != nil || free {
			return l, err
		}
	}
}

func (s *redisSource) Confirm(ctx context.Context, leases []Lease) (forgotten int, err error) {
	for _, l := range leases {
		free, err := s.mark(ctx, l)
		if err != nil {
			return forgotten, err
		}
		if free {
			forgotten++
		}
	}
	return forgotten, nil
}

// mark sets a lease's bit and reports whether it was not set before.
func (s *redisSource) mark(ctx context.Context, l Lease) (free bool, err error) {
	before, err := s.client.SetBit(ctx, s.key, int64(l), 1).Result()
	if err != nil {
		return false, s.explain(err)
	}
	return before == 0, nil
}

func (s *redisSource) explain(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = context.DeadlineExceeded // as when the context is looked at, and not the socket
	}
	return fmt.Errorf("mark a lease in %s, key %s: %w", s.name, s.key, err)
}
