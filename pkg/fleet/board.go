package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"tollgate.internal/pkg/bundle"
)

// board is what both sides have in common.
type board struct {
	client     redis.UniversalClient
	deployment Deployment
	keys       bundle.Keyring
}

// stored is a hash {revision, data}.
type stored struct {
	Revision string
	Data     []byte
}

// explain says what was attempted where.
func explain(doing, key string, err error) error {
	return fmt.Errorf("%s %s: %w", doing, key, err)
}

// answer reads the answer of a script.
func answer(cmd *redis.Cmd, n int) ([]string, error) {
	list, err := cmd.StringSlice()
	if err != nil {
		return nil, err
	}
	if len(list) < n {
		return nil, fmt.Errorf("the answer has %d parts, not %d", len(list), n)
	}
	return list, nil
}

// Nodes are those whose records have not expired, those that are gone included.
func (b *board) Nodes(ctx context.Context) ([]Node, error) {
	ids, err := b.client.ZRangeWithScores(ctx, b.deployment.nodes(), 0, -1).Result()
	if err != nil {
		return nil, explain("list", b.deployment.nodes(), err)
	}
	pipe := b.client.Pipeline()
	records := make([]*redis.StringCmd, len(ids))
	for i, z := range ids {
		records[i] = pipe.HGet(ctx, b.deployment.node(fmt.Sprint(z.Member)), "record")
	}
	if len(ids) > 0 {
		if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
			return nil, explain("read", b.deployment.node("*"), err)
		}
	}
	var nodes []Node
	for i, z := range ids {
		id := fmt.Sprint(z.Member)
		text, err := records[i].Result()
		switch {
		case errors.Is(err, redis.Nil):
			if forgotten := time.Now().Add(-forgetAfter).UnixMilli(); int64(z.Score) < forgotten {
				b.client.ZRem(ctx, b.deployment.nodes(), id)
			}
			continue
		case err != nil:
			return nil, explain("read", b.deployment.node(id), err)
		}
		// What is not a record is nobody's; the rest of the fleet is as it is.
		if n, err := decodeNode(id, text); err == nil {
			nodes = append(nodes, n)
		}
	}
	return nodes, nil
}

// forgetAfter is when the id of a node that does not come back is forgotten.
const forgetAfter = time.Hour

// Head is how far everything is published: zero if Redis is empty, or what stands
// there is not of a key that is trusted; that is the error then.
func (b *board) Head(ctx context.Context) (Head, error) {
	s, err := b.stored(ctx, b.deployment.head())
	if err != nil || s.Data == nil {
		return Head{}, err
	}
	return OpenHead(b.keys, b.deployment, s.Data)
}

func (b *board) stored(ctx context.Context, key string) (stored, error) {
	values, err := b.client.HMGet(ctx, key, "revision", "data").Result()
	if err != nil {
		return stored{}, explain("read", key, err)
	}
	var s stored
	if revision, ok := values[0].(string); ok {
		s.Revision = revision
	}
	if data, ok := values[1].(string); ok {
		s.Data = []byte(data)
	}
	return s, nil
}

// seal signs what is encoded as JSON.
func seal(signer *bundle.Signer, purpose bundle.Purpose, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", purpose, err)
	}
	return signer.Seal(purpose, body)
}

func revisionText(n int64) string { return strconv.FormatInt(n, 10) }
