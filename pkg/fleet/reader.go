package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"tollgate.internal/pkg/bundle"
)

// Reader is a proxy's side. It hands on what stands in Redis; the caller opens it.
type Reader struct{ board }

// NewReader reads what is signed by one of keys.
func NewReader(client redis.UniversalClient, d Deployment, keys bundle.Keyring) (*Reader, error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, errors.New("no public keys: without one nothing that the portal says is believed")
	}
	return &Reader{board{client, d, keys}}, nil
}

// SealedHead is the head as it stands in Redis; nil if there is none.
func (r *Reader) SealedHead(ctx context.Context) ([]byte, error) {
	s, err := r.stored(ctx, r.deployment.head())
	return s.Data, err
}

// Tail is the position of the last entry of the stream; [Start] if there is none.
func (r *Reader) Tail(ctx context.Context) (string, error) {
	last, err := r.client.XRevRangeN(ctx, r.deployment.changes(), "+", "-", 1).Result()
	if err != nil {
		return "", explain("read", r.deployment.changes(), err)
	}
	if len(last) == 0 {
		return Start, nil
	}
	return last[0].ID, nil
}

// slack is how much later than asked for a server answers that does not hang, on a new
// connection too.
const slack = 2 * ioTimeout

// Follow waits for entries behind a position, and returns none after wait.
func (r *Reader) Follow(ctx context.Context, after string, wait time.Duration) ([]Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+slack)
	defer cancel()
	streams, err := r.client.XRead(ctx, &redis.XReadArgs{
		Streams: []string{r.deployment.changes(), after}, Count: 1000, Block: wait,
	}).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, nil
	case err != nil:
		return nil, explain("follow", r.deployment.changes(), err)
	}
	var entries []Entry
	for _, s := range streams {
		for _, m := range s.Messages {
			entries = append(entries, decodeEntry(m.ID, m.Values))
		}
	}
	return entries, nil
}

// Host is the virtual cluster that a host is said to lead to; empty: none.
func (r *Reader) Host(ctx context.Context, host string) (string, error) {
	name, err := r.client.HGet(ctx, r.deployment.host(host), "data").Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", explain("read", r.deployment.host(host), err)
	}
	return name, nil
}

// Want is a bundle that is wanted if its revision is above one.
type Want struct {
	bundle.ID
	Above int64
}

// Found is what Redis has of a Want. Data is sealed; nil if there is nothing newer, and
// if it is Large.
type Found struct {
	Want
	There bool // at some revision
	// Large: there is something newer that does not come together with others; if it was
	// asked for alone, it is more than anybody signs.
	Large bool
	Data  []byte
}

// largeBytes is more than bundles have as a rule: what has more does not come together
// with others, so that what a reader holds of them at once is bounded.
const largeBytes = 256 << 10

// Bundles fetches bundles.
func (r *Reader) Bundles(ctx context.Context, wants []Want) ([]Found, error) {
	pipe := r.client.Pipeline()
	most := largeBytes
	if len(wants) == 1 {
		most = bundle.MaxBytes // what has more is nobody's
	}
	answers := make([]*redis.Cmd, len(wants))
	for i, w := range wants {
		answers[i] = pipe.Eval(ctx, getScript, []string{r.deployment.bundle(w.ID)}, w.Above, most)
	}
	_, _ = pipe.Exec(ctx) // each has its own error
	found := make([]Found, len(wants))
	for i, w := range wants {
		got, err := answer(answers[i], 2)
		if err != nil {
			return nil, explain("read", r.deployment.bundle(w.ID), err)
		}
		found[i] = Found{Want: w, There: got[0] != "none"}
		switch got[0] {
		case "new":
			found[i].Data = []byte(got[1])
		case "large":
			found[i].Large = true
		}
	}
	return found, nil
}

// Heartbeat writes a node's record. Owner is what its processes have and nobody
// else's do. A node of that id which another owner holds is returned, and the record
// stays that one's.
func (r *Reader) Heartbeat(ctx context.Context, n Node, owner string) (rival *Node, err error) {
	record, err := json.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("encode record of node %s: %w", n.ID, err)
	}
	key := r.deployment.node(n.ID)
	// Together: a heartbeat that takes its time twice comes half as often.
	pipe := r.client.Pipeline()
	beat := pipe.Eval(ctx, heartbeatScript, []string{key}, owner, record, cmp.Or(n.Lasts, NodeTTL).Milliseconds())
	listed := pipe.ZAdd(ctx, r.deployment.nodes(), redis.Z{Score: float64(n.Heartbeat.UnixMilli()), Member: n.ID})
	_, _ = pipe.Exec(ctx) // each has its own error
	text, err := beat.Text()
	if err != nil {
		return nil, explain("write", key, err)
	}
	if err := listed.Err(); err != nil {
		return nil, explain("write", r.deployment.nodes(), err)
	}
	if text == "" {
		return nil, nil
	}
	other, err := decodeNode(n.ID, text)
	if err != nil {
		return nil, err
	}
	return &other, nil
}

// Leave is the last heartbeat of a node. Its id is free then.
func (r *Reader) Leave(ctx context.Context, n Node, owner string) error {
	n.State = NodeGone
	record, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode record of node %s: %w", n.ID, err)
	}
	key := r.deployment.node(n.ID)
	if err := r.client.Eval(ctx, leaveScript, []string{key}, owner, record, NodeTTL.Milliseconds()).Err(); err != nil {
		return explain("write", key, err)
	}
	return nil
}

// VirtualClusters are the names of all virtual clusters there are, or were, in no
// order and perhaps more than once. It takes long where there are many.
func (r *Reader) VirtualClusters(ctx context.Context) ([]string, error) {
	var mu sync.Mutex // a cluster's servers are asked at the same time
	var names []string
	scan := func(ctx context.Context, c redis.Cmdable) error {
		for cursor := uint64(0); ; {
			keys, next, err := c.Scan(ctx, cursor, r.deployment.virtualClusters(), 1000).Result()
			if err != nil {
				return explain("list", r.deployment.virtualClusters(), err)
			}
			mu.Lock()
			for _, key := range keys {
				names = append(names, strings.TrimPrefix(key, r.deployment.Key("vc", "")))
			}
			mu.Unlock()
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	}
	if cluster, ok := r.client.(*redis.ClusterClient); ok {
		err := cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error { return scan(ctx, c) })
		return names, err
	}
	err := scan(ctx, r.client)
	return names, err
}
