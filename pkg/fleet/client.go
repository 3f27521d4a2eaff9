package fleet

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"tollgate.internal/pkg/secret"
)

// The bounds of one command, where the URL has no others: a Redis that takes longer
// over an answer is away. A context that ends earlier costs the connection, and so a
// Redis that takes almost as long is never heard by who has less patience: such a caller
// has the question go on without it.
const (
	dialTimeout = time.Second
	ioTimeout   = 3 * time.Second
)

// quiet keeps go-redis from writing to standard error in words of its own: what
// matters is in the errors that it returns.
var quiet = sync.OnceFunc(func() { redis.SetLogger(silence{}) })

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// IsURL reports whether ref looks like the URL of a Redis.
func IsURL(ref string) bool {
	scheme, _, found := strings.Cut(ref, "://")
	return found && (scheme == "redis" || scheme == "rediss" || scheme == "unix")
}

// URLName is a URL without what may be a secret: what it is called in logs.
func URLName(ref string) string {
	u, err := url.Parse(ref)
	if err != nil {
		return "redis"
	}
	return u.Scheme + "://" + u.Host + u.Path
}

// Open makes a client, which connects when it is used. The URL is one of go-redis,
// with its parameters (dial_timeout=2s, pool_size=5, …):
//
//	redis://user:password@host:6379/0                a server
//	rediss://host:6379                               a server with TLS; skip_verify=true
//	unix://user:password@/run/redis.sock?db=0        a server on this machine
//	redis://host:26379?master_name=ours&addr=h2:26379&addr=h3:26379
//	                                                 Sentinels, that know the server
//	rediss://host:6379?addr=h2:6379&addr=h3:6379     a cluster, by any of its servers
//
// So a cluster of which one server is named is told by an addr, the same one again.
// A password that is not empty takes the place of the URL's. What is wrong with the
// URL is said without repeating it.
func Open(ref string, password secret.Secret) (redis.UniversalClient, error) {
	if !IsURL(ref) {
		return nil, errors.New("must be redis://HOST:PORT; also rediss:// and unix://") // ref may hold a password
	}
	u, err := url.Parse(ref)
	if err != nil {
		return nil, errors.New("not a URL such as redis://user@host:6379/0") // its text has the URL, and so a password
	}
	quiet()
	query := u.Query()
	common := commonOptions{dialTimeout, ioTimeout, ioTimeout, 16, 1, 1, password.Reveal()}
	switch {
	case query.Get("master_name") != "":
		o, err := redis.ParseFailoverURL(ref)
		if err != nil {
			return nil, hide(err, ref)
		}
		common.fill(&o.DialTimeout, &o.ReadTimeout, &o.WriteTimeout, &o.PoolSize, &o.MaxRetries, &o.DialerRetries, &o.Password, &o.ContextTimeoutEnabled, &o.DisableIdentity, new(*maintnotifications.Config))
		return redis.NewFailoverClient(o), nil
	case query.Has("addr"):
		o, err := redis.ParseClusterURL(ref)
		if err != nil {
			return nil, hide(err, ref)
		}
		common.fill(&o.DialTimeout, &o.ReadTimeout, &o.WriteTimeout, &o.PoolSize, &o.MaxRetries, &o.DialerRetries, &o.Password, &o.ContextTimeoutEnabled, &o.DisableIdentity, &o.MaintNotificationsConfig)
		return redis.NewClusterClient(o), nil
	}
	o, err := redis.ParseURL(ref)
	if err != nil {
		return nil, hide(err, ref)
	}
	common.fill(&o.DialTimeout, &o.ReadTimeout, &o.WriteTimeout, &o.PoolSize, &o.MaxRetries, &o.DialerRetries, &o.Password, &o.ContextTimeoutEnabled, &o.DisableIdentity, &o.MaintNotificationsConfig)
	return redis.NewClient(o), nil
}

// commonOptions are what the three kinds of clients have in common: bounds, where the
// URL says nothing, and a password in place of the URL's, if there is one.
type commonOptions struct {
	dial, read, write      time.Duration
	pool, retries, redials int
	password               string
}

func (c commonOptions) fill(dial, read, write *time.Duration, pool, retries, redials *int, password *string, contexts, anonymous *bool, notices **maintnotifications.Config) {
	*contexts = true
	// A connection begins with one question: each more would take as long again where
	// Redis takes its time, and nobody needs the answers.
	*anonymous, *notices = true, &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	if c.password != "" {
		*password = c.password
	}
	for _, d := range []struct {
		into *time.Duration
		or   time.Duration
	}{{dial, c.dial}, {read, c.read}, {write, c.write}} {
		if *d.into == 0 {
			*d.into = d.or
		}
	}
	for _, n := range []struct {
		into *int
		or   int
	}{{pool, c.pool}, {retries, c.retries}, {redials, c.redials}} {
		if *n.into == 0 {
			*n.into = n.or
		}
	}
}

// hide keeps an error that quotes the URL from showing the password in it.
func hide(err error, ref string) error {
	if u, parse := url.Parse(ref); parse == nil {
		if p, ok := u.User.Password(); ok && p != "" && strings.Contains(err.Error(), p) || strings.Contains(err.Error(), ref) {
			return errors.New("not a URL of Redis as go-redis reads them: see the parameters behind its question mark")
		}
	}
	return err
}
