package upstream

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// freezer dials; what comes from frozen addresses is held back, as a stopped
// process holds it back: connections are accepted, and nothing answers.
type freezer struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)

	mu     sync.Mutex
	thawed map[string]chan struct{} // by frozen address
}

func (f *freezer) freeze(addr string) (thaw func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ch := make(chan struct{})
	f.thawed[addr] = ch
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.thawed, addr)
		close(ch)
	}
}

func (f *freezer) frozen(addr string) chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.thawed[addr]
}

func (f *freezer) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := f.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &freezable{Conn: c, of: f, addr: addr, closed: make(chan struct{})}, nil
}

type freezable struct {
	net.Conn
	of     *freezer
	addr   string
	once   sync.Once
	closed chan struct{}
}

func (c *freezable) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *freezable) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if ch := c.of.frozen(c.addr); ch != nil {
		select {
		case <-ch:
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	return n, err
}

// inBubble runs f with a cluster of three brokers on a clock of its own, and with
// the addresses of the brokers by id.
func inBubble(t *testing.T, f func(t *testing.T, c *Cluster, fake *kfake.Cluster, freeze *freezer, addrs []string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		network := new(kfake.VirtualNetwork)
		fake, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(3, "events"), kfake.ListenFn(network.Listen), kfake.Ports(19092, 19093, 19094))
		if err != nil {
			t.Fatal(err)
		}
		defer fake.Close()
		freeze := &freezer{dial: network.DialContext, thawed: make(map[string]chan struct{})}
		c := New(Config{Name: "main", Bootstrap: fake.ListenAddrs(), Dial: freeze.Dial, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		defer c.Close()
		if err := c.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		var addrs []string
		for _, b := range c.Metadata().Brokers {
			addrs = append(addrs, fmt.Sprintf("%s:%d", b.Host, b.Port))
		}
		f(t, c, fake, freeze, addrs)
	})
}

func took(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

// A frozen broker costs the metadata of the cluster a moment, once. Leaders move
// while it is frozen, and clients must hear of it.
func TestMetadataComesFromBrokersThatAnswer(t *testing.T) {
	for id := range 3 {
		t.Run(fmt.Sprint("broker ", id, " is frozen"), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *Cluster, _ *kfake.Cluster, freeze *freezer, addrs []string) {
				thaw := freeze.freeze(addrs[id])
				refresh := func() {
					if err := c.Refresh(t.Context()); err != nil {
						t.Error(err)
					}
				}
				if d := took(refresh); d > patience {
					t.Errorf("the first refresh took %v, want %v at most", d, patience)
				}
				for range 5 {
					if d := took(refresh); d > 0 {
						t.Errorf("a later refresh took %v, want none", d)
					}
				}
				thaw()
			})
		})
	}
}

// What any broker can answer is answered although the one that was asked is frozen
// or gone.
func TestAnotherBrokerIsAskedForWhatAnyCanAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, c *Cluster, _ *kfake.Cluster, freeze *freezer, addrs []string) {
		find := func(node int32) {
			t.Helper()
			req := kmsg.NewPtrFindCoordinatorRequest()
			req.Version, req.CoordinatorKey = 3, "readers"
			resp, err := c.RequestAny(t.Context(), node, OwnClientID, req)
			if err != nil {
				t.Errorf("node %d: %v", node, err)
				return
			}
			if code := resp.(*kmsg.FindCoordinatorResponse).ErrorCode; code != 0 {
				t.Errorf("node %d: %v", node, kerr.ErrorForCode(code))
			}
		}
		for node := range int32(3) {
			thaw := freeze.freeze(addrs[node])
			if d := took(func() { find(node) }); d > patience {
				t.Errorf("with node %d frozen it took %v, want %v at most", node, d, patience)
			}
			thaw()
		}
		for range 20 {
			thaw := freeze.freeze(addrs[1])
			if d := took(func() { find(-1) }); d > patience {
				t.Errorf("any node, one frozen: it took %v, want %v at most", d, patience)
			}
			thaw()
		}
		find(7) // a node that is no more
	})
}

// All brokers frozen: who asks any of them waits for a moment, once that is known.
func TestASuspectClusterIsAskedForAMoment(t *testing.T) {
	inBubble(t, func(t *testing.T, c *Cluster, _ *kfake.Cluster, freeze *freezer, addrs []string) {
		for _, addr := range addrs {
			defer freeze.freeze(addr)()
		}
		time.Sleep(time.Minute)
		if !c.State().Suspect {
			t.Fatal("not suspect")
		}
		for node := range int32(4) {
			req := kmsg.NewPtrFindCoordinatorRequest()
			req.Version, req.CoordinatorKey = 3, "readers"
			if d := took(func() {
				if _, err := c.RequestAny(t.Context(), node-1, OwnClientID, req); err == nil {
					t.Error("answered")
				}
			}); d > patience {
				t.Errorf("node %d: waited %v, want %v at most", node-1, d, patience)
			}
		}
	})
}

// All brokers gone: everyone was asked, and the error says what each of them did.
func TestNoBrokerAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T, c *Cluster, fake *kfake.Cluster, _ *freezer, _ []string) {
		fake.Close()
		if err := c.Refresh(t.Context()); err == nil {
			t.Error("metadata without brokers")
		}
		if c.Metadata() == nil {
			t.Error("what was known is forgotten")
		}
		if _, err := c.RequestAny(t.Context(), -1, OwnClientID, kmsg.NewPtrFindCoordinatorRequest()); err == nil {
			t.Error("an answer without brokers")
		}
	})
}
