package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"tollgate.internal/e2e/internal/build"
)

// tailLines is how much of each broker's log a failed test prints, at most.
const tailLines = 20

// Start starts a cluster for one test, which ends it. A test that fails prints
// the end of the brokers' logs.
func Start(t testing.TB, options Options) *Cluster {
	t.Helper()
	c, err := StartCluster(t.Context(), t.TempDir(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	c.logIfFails(t)
	return c
}

// A Shared is one cluster for all tests of a package that ask for it. It is
// started by the first one and ended by [Main]. Tests that run once more, as with
// -count=2, get another: the first holds what they have made there.
type Shared struct {
	options Options

	mu    sync.Mutex
	start func() (*Cluster, error) // of the cluster of now
	users map[string]int           // how often tests have it; 0: the test has ended
}

var shared struct {
	sync.Mutex
	clusters []*Cluster
}

// Share describes a cluster for a package-level variable; the package's TestMain
// must be [Main].
func Share(options Options) *Shared {
	s := &Shared{options: options}
	s.renew()
	return s
}

// renew has the next one who asks start a cluster.
func (s *Shared) renew() {
	s.users = make(map[string]int)
	s.start = sync.OnceValues(func() (*Cluster, error) {
		c, err := StartCluster(context.Background(), "", s.options)
		if err == nil {
			shared.Lock()
			defer shared.Unlock()
			shared.clusters = append(shared.clusters, c)
		}
		return c, err
	})
}

// Get returns the cluster, and prints the end of the brokers' logs if t fails.
func (s *Shared) Get(t testing.TB) *Cluster {
	t.Helper()
	c, err := s.get(t)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// get is Get for any goroutine.
func (s *Shared) get(t testing.TB) (*Cluster, error) {
	s.mu.Lock()
	if uses, had := s.users[t.Name()]; had && uses == 0 {
		// All who had the cluster have ended: one run of the tests is over before the next.
		if c, err := s.start(); err == nil {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		s.renew()
	}
	start, users := s.start, s.users
	users[t.Name()]++
	s.mu.Unlock()
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		users[t.Name()]--
	})
	c, err := start()
	if err != nil {
		return nil, err
	}
	c.logIfFails(t)
	return c, nil
}

// Main is a TestMain for packages that share clusters:
//
//	func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	if err := errors.Join(CloseShared(), build.Remove()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// CloseShared ends the shared clusters, for a TestMain with more to do than [Main].
func CloseShared() error {
	shared.Lock()
	defer shared.Unlock()
	var errs []error
	for _, c := range shared.clusters {
		errs = append(errs, c.Close())
	}
	shared.clusters = nil
	return errors.Join(errs...)
}

// Client is a franz-go client on the PLAINTEXT listener that t closes.
func (c *Cluster) Client(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := c.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// logIfFails prints what the brokers log from here on, when t fails. What they logged
// before, in other tests, would only bury what failed.
func (c *Cluster) logIfFails(t testing.TB) {
	marks := make([]int64, len(c.brokers))
	for i, b := range c.brokers {
		marks[i] = b.logSize()
	}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for i, b := range c.brokers {
			if tail := b.logTail(marks[i], tailLines); tail != "" {
				t.Log(tail)
			}
		}
	})
}
