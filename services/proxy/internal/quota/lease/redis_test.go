package lease

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

func newRedis(t *testing.T) (*miniredis.Miniredis, Store) {
	t.Helper()
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { client.Close() })
	return server, NewRedis(client, "tollgate:test:quota:")
}

// The script does what the store of the other tests does, whatever nodes ask.
func TestRedisIsAsTheStoreInMemory(t *testing.T) {
	server, s := newRedis(t)
	now := time.Unix(1_800_000_000, 0)
	server.SetTime(now)
	m := newMemory()
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 500 {
		now = now.Add(time.Duration(random.IntN(1000)) * time.Millisecond)
		server.SetTime(now)
		node := fmt.Sprintf("node-%d", random.IntN(4))
		c := Claim{Subject: []string{"vc:a", "vc:b"}[random.IntN(2)], Lasts: []time.Duration{0, lasts, lasts, restLasts}[random.IntN(4)]}
		for range 5 {
			c.Asks = append(c.Asks, Ask{1 << 20, random.Int64N(1 << 30), random.Int64N(1 << 20), random.Int64N(1 << 16)})
		}
		got, err := s.Exchange(t.Context(), node, []Claim{c})
		if err != nil {
			t.Fatal(err)
		}
		want := m.exchange(node, c, now)
		sorted := func(h []Held) []Held {
			slices.SortFunc(h, func(a, b Held) int { return strings.Compare(a.Node, b.Node) })
			return h
		}
		got[0].Others = sorted(got[0].Others)
		if !reflect.DeepEqual(got[0], want) {
			t.Fatalf("claim %d, %+v of %s: %+v, want %+v", i, c, node, got[0], want)
		}
	}
}

func TestRedisKeepsNothingForLong(t *testing.T) {
	server, s := newRedis(t)
	ask := []Ask{{Whole: 100, Demand: 10, Want: 50}}
	for node, lasts := range map[string]time.Duration{"a": time.Minute, "b": time.Second} {
		if _, err := s.Exchange(t.Context(), node, []Claim{{Subject: "vc:a", Lasts: lasts, Asks: ask}}); err != nil {
			t.Fatal(err)
		}
	}
	key := "tollgate:test:quota:vc:a"
	if ttl := server.TTL(key); ttl < 59*time.Second || ttl > time.Minute {
		t.Errorf("the key lives for %v, want a minute, as the longest lease", ttl)
	}
	for _, node := range []string{"a", "b"} {
		if _, err := s.Exchange(t.Context(), node, []Claim{{Subject: "vc:a"}}); err != nil {
			t.Fatal(err)
		}
	}
	if server.Exists(key) {
		t.Error("a key is left after all nodes have left")
	}
}

// A server that was restarted does not know the script any more.
func TestRedisForgetsTheScript(t *testing.T) {
	server, s := newRedis(t)
	claims := []Claim{{Subject: "vc:a", Lasts: time.Minute, Asks: []Ask{{Whole: 100, Want: 50}}}, {Subject: "vc:b", Lasts: time.Minute}}
	for range 2 {
		for range 2 {
			answers, err := s.Exchange(t.Context(), "a", claims)
			if err != nil || len(answers) != 2 || !slices.Equal(answers[0].Shares, []int64{50}) {
				t.Fatalf("%+v, %v", answers, err)
			}
		}
		server.FlushAll()
		if err := redis.NewClient(&redis.Options{Addr: server.Addr()}).ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := s.Exchange(ctx, "a", claims); err == nil || !strings.Contains(err.Error(), "share quotas through Redis: ") {
		t.Errorf("error of a server that is gone: %v", err)
	}
}

// What somebody else wrote into a key is no reason to stop.
func TestRedisHoldsNonsense(t *testing.T) {
	server, s := newRedis(t)
	server.HSet("tollgate:test:quota:vc:a", "b", "x y z", "c", "", "d", "99999999999999 1")
	answers, err := s.Exchange(t.Context(), "a", []Claim{{Subject: "vc:a", Lasts: time.Minute, Asks: []Ask{{Whole: 100, Want: 50}}}})
	if err != nil || !slices.Equal(answers[0].Shares, []int64{50}) {
		t.Fatalf("%+v, %v", answers, err)
	}
	if err := server.Set("tollgate:test:quota:vc:b", "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Exchange(t.Context(), "a", []Claim{{Subject: "vc:b", Lasts: time.Minute}}); err == nil {
		t.Error("a key of another type is taken for a hash")
	}
}
