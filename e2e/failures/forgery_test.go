package failures

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"tollgate.internal/e2e/internal/site"
	"tollgate.internal/pkg/bundle"
	board "tollgate.internal/pkg/fleet"
)

const deployment = board.DefaultDeployment

// Somebody who can write to Redis puts bundles and heads there that are not from the
// portal, or no longer: no client notices, it is counted, and the portal puts it right.
func TestForgedBundles(t *testing.T) {
	b := onSQLite(t, 2)
	b.tenant(t, "globex")
	working, changing := b.work(t, false), b.change(t)
	sessions := b.open(t, acme, dev)
	client, key := b.Redis.Client(), deployment.Key("vc", acme)
	read := func() string {
		t.Helper()
		data, err := client.HGet(t.Context(), key, "data").Result()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	older := read()
	changing.goOn(t)
	changing.end(t) // so that nothing but the portal's own attention puts it right
	latest := read()
	id := bundle.ID{Kind: bundle.VirtualCluster, Name: acme}
	good, err := b.Keyring.Open([]byte(latest), string(deployment), id)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := client.HGet(t.Context(), deployment.Key("vc", "globex"), "data").Result()
	if err != nil {
		t.Fatal(err)
	}
	other, err := bundle.NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	body, err := b.Keyring.Unseal(bundle.ForBundle, []byte(older))
	if err != nil {
		t.Fatal(err)
	}
	forged, err := other.Seal(bundle.ForBundle, body)
	if err != nil {
		t.Fatal(err)
	}
	flipped := []byte(latest)
	flipped[len(flipped)-1] ^= 1
	for what, c := range map[string]struct{ data, reason string }{
		"signed by another":         {string(forged), "unknown_key"},
		"changed":                   {string(flipped), "forged"},
		"cut":                       {latest[:len(latest)/2], "truncated"},
		"an old one":                {older, "older"},
		"another virtual cluster's": {foreign, "misplaced"},
		"words":                     {"hello", "not_sealed"},
	} {
		series := fmt.Sprintf("tollgate_proxy_fleet_bundles_refused_total{reason=%q}", c.reason)
		before := make([]float64, len(b.Nodes))
		for i, n := range b.Nodes {
			before[i] = n.Metric(t, series)
		}
		site.Eventually(t, what+" is counted", func(ctx context.Context) error {
			// Again and again: the portal may be the first to see it.
			if err := b.meddle(ctx, c.data); err != nil {
				return err
			}
			for i, n := range b.Nodes {
				if n.Metric(t, series) <= before[i] {
					return fmt.Errorf("%s counts nothing as %s", n.Name, c.reason)
				}
			}
			return nil
		})
		site.Eventually(t, what+" is put right", func(ctx context.Context) error {
			data, err := client.HGet(ctx, key, "data").Result()
			if err != nil {
				return err
			}
			there, err := b.Keyring.Open([]byte(data), string(deployment), id)
			if err == nil && there.Revision < good.Revision {
				err = fmt.Errorf("revision %d stands there, and %d did", there.Revision, good.Revision)
			}
			if err != nil {
				return err
			}
			for _, n := range b.Nodes {
				if _, body, err := n.Get(ctx, "/readyz"); err != nil || strings.Contains(body, "cannot be served") {
					return fmt.Errorf("%s: %s, %w", n.Name, body, err)
				}
			}
			return nil
		})
		working.goOn(t)
	}
	head := deployment.Key("head")
	for _, data := range []string{"hello", ""} {
		if err := client.HSet(t.Context(), head, "revision", 1<<40, "data", data).Err(); err != nil {
			t.Fatal(err)
		}
		site.Eventually(t, "the head is put right", func(ctx context.Context) error {
			text, err := client.HGet(ctx, head, "data").Result()
			if err == nil {
				_, err = board.OpenHead(b.Keyring, deployment, []byte(text))
			}
			return err
		})
		working.goOn(t)
	}
	for _, s := range sessions {
		if err := s.StillOpen(); err != nil {
			t.Error(err)
		}
	}
	working.end(t)
}

// meddle puts something in the place of acme's bundle, and announces it.
func (b *bed) meddle(ctx context.Context, data string) error {
	const high = 1 << 40
	client, stream := b.Redis.Client(), deployment.Key("changes")
	last, err := client.XRevRangeN(ctx, stream, "+", "-", 1).Result()
	if err != nil {
		return err
	}
	if len(last) == 0 {
		return errors.New("the stream of changes is empty")
	}
	_, err = client.TxPipelined(ctx, func(tx redis.Pipeliner) error {
		tx.HSet(ctx, deployment.Key("vc", acme), "revision", high, "data", data)
		tx.XAdd(ctx, &redis.XAddArgs{
			Stream: stream, Values: []any{"after", last[0].ID, "kind", string(bundle.VirtualCluster), "name", acme, "revision", high},
		})
		return nil
	})
	return err
}
