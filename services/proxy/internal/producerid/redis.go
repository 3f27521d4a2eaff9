package producerid

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
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

// quiet keeps go-redis from writing to standard error in words of its own: what
// matters is in the errors that it returns.
var quiet = sync.OnceFunc(func() { redis.SetLogger(silence{}) })

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// isRedis reports whether ref is the URL of a Redis.
func isRedis(ref string) bool {
	scheme, _, found := strings.Cut(ref, "://")
	return found && (scheme == "redis" || scheme == "rediss" || scheme == "unix")
}

// openRedis connects when it is used. The URL is one of go-redis: with master_name
// it is of Sentinels, with addr and no master_name of a cluster.
func openRedis(ref, password string, deployment int) (*redisSource, error) {
	u, err := url.Parse(ref)
	if err != nil {
		return nil, errors.New("not a URL such as redis://user@host:6379/0") // its text has the URL, and so a password
	}
	quiet()
	s := &redisSource{key: redisKey(deployment), name: u.Scheme + "://" + u.Host + u.Path}
	query := u.Query()
	// A slow server is waited for until the context ends, not as long as go-redis thinks.
	switch {
	case query.Get("master_name") != "":
		o, err := redis.ParseFailoverURL(ref)
		if err != nil {
			return nil, err
		}
		if password != "" {
			o.Password = password
		}
		o.ContextTimeoutEnabled, o.PoolSize = true, 2
		s.client = redis.NewFailoverClient(o)
	case query.Has("addr"):
		o, err := redis.ParseClusterURL(ref)
		if err != nil {
			return nil, err
		}
		if password != "" {
			o.Password = password
		}
		o.ContextTimeoutEnabled, o.PoolSize = true, 2
		s.client = redis.NewClusterClient(o)
	default:
		o, err := redis.ParseURL(ref)
		if err != nil {
			return nil, err
		}
		if password != "" {
			o.Password = password
		}
		o.ContextTimeoutEnabled, o.PoolSize = true, 2
		s.client = redis.NewClient(o)
	}
	return s, nil
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
