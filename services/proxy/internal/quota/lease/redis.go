package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisStore keeps a hash for each subject: node → "until demand share demand share …",
// until in milliseconds of the server's clock. Each script touches one key, so it is
// the same on one server, behind Sentinel and on a cluster.
type redisStore struct {
	client redis.UniversalClient
	prefix string
}

// NewRedis is a store in a Redis. Keys are the prefix and a subject.
func NewRedis(client redis.UniversalClient, prefix string) Store {
	return &redisStore{client, prefix}
}

// exchange is one claim. Its arguments are the node, how long the lease lasts, and for
// each kind of quota the whole, the demand, what is wanted and what is held. It
// answers what the node has from now on, and then each other node and what that has.
// The clock is the server's: those of the nodes may differ.
var exchange = redis.NewScript(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local node, lasts = ARGV[1], tonumber(ARGV[2])
local taken, last, reply = {}, now + lasts, {''}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local field = {}
  for n in string.gmatch(all[i + 1], '%S+') do
    field[#field + 1] = tonumber(n) or 0
  end
  if (field[1] or 0) <= now then
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] ~= node then
    last = math.max(last, field[1])
    for k = 3, #field, 2 do
      taken[k] = (taken[k] or 0) + field[k]
    end
    reply[#reply + 1] = all[i]
    reply[#reply + 1] = all[i + 1]
  end
end
if lasts == 0 then
  redis.call('HDEL', KEYS[1], node)
  return reply
end
local mine = {string.format('%.0f', now + lasts)}
for i = 3, #ARGV, 4 do
  local whole, demand, want, hold = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local share = math.max(math.min(want, whole - (taken[#mine + 2] or 0)), hold, 0)
  mine[#mine + 1] = string.format('%.0f', demand)
  mine[#mine + 1] = string.format('%.0f', share)
end
reply[1] = table.concat(mine, ' ')
redis.call('HSET', KEYS[1], node, reply[1])
redis.call('PEXPIRE', KEYS[1], last - now)
return reply
`)

// exchangeLimit is for an exchange that nobody waits for any more. Giving it up would cost
// its connection, and to connect takes a slow Redis longer than a Keeper waits: it would
// never get there. It ends with the client in any case.
const exchangeLimit = 10 * time.Second

func (r *redisStore) Exchange(ctx context.Context, node string, claims []Claim) ([]Answer, error) {
	type said struct {
		answers []Answer
		err     error
	}
	answer := make(chan said, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), exchangeLimit)
		defer cancel()
		answers, err := r.exchange(ctx, node, claims)
		answer <- said{answers, err}
	}()
	select {
	case a := <-answer:
		return a.answers, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("share quotas through Redis: no answer in time: %w", ctx.Err())
	}
}

func (r *redisStore) exchange(ctx context.Context, node string, claims []Claim) ([]Answer, error) {
	answers := make([]Answer, len(claims))
	replies, err := r.run(ctx, node, claims, exchange.EvalSha)
	if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") { // the server was restarted
		replies, err = r.run(ctx, node, claims, exchange.Eval)
	}
	if err != nil {
		return nil, fmt.Errorf("share quotas through Redis: %w", err)
	}
	for i, reply := range replies {
		list, err := reply.StringSlice()
		if err != nil || len(list)%2 == 0 {
			return nil, fmt.Errorf("share quotas through Redis, key %s%s: %w", r.prefix, claims[i].Subject, cmp.Or(err, errStore))
		}
		_, answers[i].Shares = record(list[0])
		for j := 1; j < len(list); j += 2 {
			demand, shares := record(list[j+1])
			answers[i].Others = append(answers[i].Others, Held{Node: list[j], Demand: demand, Shares: shares})
		}
	}
	return answers, nil
}

type eval func(ctx context.Context, c redis.Scripter, keys []string, args ...any) *redis.Cmd

// run sends all claims at once. The error is the first.
func (r *redisStore) run(ctx context.Context, node string, claims []Claim, how eval) ([]*redis.Cmd, error) {
	replies := make([]*redis.Cmd, len(claims))
	pipe := r.client.Pipeline()
	for i, c := range claims {
		args := make([]any, 0, 2+4*len(c.Asks))
		args = append(args, node, int64(c.Lasts/time.Millisecond))
		for _, a := range c.Asks {
			args = append(args, a.Whole, a.Demand, a.Want, a.Hold)
		}
		replies[i] = how(ctx, pipe, []string{r.prefix + c.Subject}, args...)
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	return replies, nil
}

// record reads what is kept of a node.
func record(text string) (demand, shares []int64) {
	fields := strings.Fields(text)
	for i := 1; i+1 < len(fields); i += 2 {
		d, _ := strconv.ParseInt(fields[i], 10, 64)
		s, _ := strconv.ParseInt(fields[i+1], 10, 64)
		demand, shares = append(demand, d), append(shares, s)
	}
	return demand, shares
}
