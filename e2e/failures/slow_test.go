package failures

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/e2e/internal/site"
)

// The Redis between portal and nodes answers, and takes its time: clients do not notice,
// what is taken away is taken away as soon as it is told, and nobody is given up.
func TestRedisIsSlow(t *testing.T) {
	b := start(t, site.Options{Portals: 1, Nodes: 3, Link: true})
	b.Must(t, http.MethodPatch, "/v1/virtual-clusters/acme?wait=applied&timeout=30s",
		`{"spec": {"quotas": {"produceBytesPerSecond": 1000000000, "fetchBytesPerSecond": 1000000000, "requestsPerSecond": 1000000, "connections": 1000}}}`,
		"Content-Type: application/merge-patch+json")
	for _, name := range []string{"fresh300ms", "fresh2s"} {
		b.tenant(t, name)
	}
	r := b.prepare(t, 4)
	working := b.work(t, false)
	usual := b.produce(t)
	r.one(t)

	for _, delay := range []time.Duration{300 * time.Millisecond, 2 * time.Second} {
		b.Link.Delay(delay)
		ctx, cancel := context.WithCancel(t.Context())
		lost := make(chan error, 1)
		go func() { lost <- b.everybodyStays(ctx) }()
		working.goOn(t)
		if took := b.produce(t); took > max(20*usual, delay/3) {
			t.Errorf("a record takes %v where each answer of Redis takes %v, and %v otherwise", took, delay, usual)
		}
		began := time.Now()
		r.one(t)
		t.Logf("with %v, a revocation is in force and looked at after %v", delay, time.Since(began))
		// Nobody came to this one yet: who is told to come back does.
		name := "fresh" + delay.String()
		for _, n := range b.Nodes {
			site.Eventually(t, "a new client gets in on "+n.Name, func(ctx context.Context) error {
				is, err := site.Refused(ctx, n.Target(name, "PLAIN", dev, password))
				if is {
					t.Fatalf("%s refuses the client of %s", n.Name, name)
				}
				return err
			})
		}
		if delay > time.Second {
			for _, n := range b.Nodes {
				site.Eventually(t, "it is said", func(ctx context.Context) error {
					_, body, err := n.Get(ctx, "/readyz")
					if err == nil && (!strings.Contains(body, "answers slowly") || n.Metric(t, "tollgate_proxy_fleet_slow") != 1) {
						err = fmt.Errorf("%s says %s", n.Name, body)
					}
					return err
				})
			}
			site.Eventually(t, "the portal says it", func(ctx context.Context) error {
				_, body, err := b.Portals[0].Get(ctx, "/readyz")
				if err == nil && !(strings.Contains(body, `"fleet":"slow"`) && strings.Contains(body, "answers slowly")) {
					err = fmt.Errorf("it says %s", body)
				}
				return err
			})
		}
		working.goOn(t)
		cancel()
		if err := <-lost; err != nil {
			t.Error(err)
		}
	}

	// So slow that it is as good as away.
	b.Link.Delay(6 * time.Second)
	site.Eventually(t, "nodes say that Redis is away", func(context.Context) error {
		for _, n := range b.Nodes {
			if n.Metric(t, "tollgate_proxy_fleet_stale") != 1 || n.Metric(t, `tollgate_proxy_fleet_nodes{state="serving"}`) != 3 {
				return fmt.Errorf("%s does not", n.Name)
			}
		}
		return nil
	})
	if took := b.produce(t); took > max(20*usual, time.Second) {
		t.Errorf("a record takes %v without Redis, and %v otherwise", took, usual)
	}
	began := time.Now()
	path := accountPath(acme, "late")
	b.account(t, acme, "late")
	if a := b.Must(t, http.MethodGet, path, ""); a.Status != http.StatusOK {
		t.Errorf("GET %s: %d", path, a.Status)
	}
	t.Logf("changes are kept after %v", time.Since(began))
	r.hold(t)
	working.goOn(t)

	b.Link.Delay(0)
	working.goOn(t)
	r.one(t)
	working.end(t)
}

// produce produces some records, one after the other, and returns how long one takes as
// a rule.
func (b *bed) produce(t *testing.T) time.Duration {
	t.Helper()
	opts, err := b.Target(acme, "SCRAM-SHA-512", dev, password).KgoOpts()
	if err != nil {
		t.Fatal(err)
	}
	c, err := kgo.NewClient(append(opts, kgo.DefaultProduceTopic(java))...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var took []time.Duration
	for range 40 {
		began := time.Now()
		if err := c.ProduceSync(ctx, kgo.StringRecord("x")).FirstErr(); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// everybodyStays looks until ctx ends whether all nodes know one another, and the portal
// knows them.
func (b *bed) everybodyStays(ctx context.Context) error {
	for ctx.Err() == nil {
		for _, n := range b.Nodes {
			_, body, err := n.Get(ctx, "/metrics")
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				return err
			case !strings.Contains(body, "\ntollgate_proxy_fleet_nodes{state=\"serving\"} 3\n") || !strings.Contains(body, "\ntollgate_proxy_fleet_connected 1\n"):
				return fmt.Errorf("%s has given up Redis or another node", n.Name)
			}
		}
		a, err := b.Ask(ctx, b.Portals[0], http.MethodGet, "/v1/nodes", "")
		if ctx.Err() != nil {
			return nil
		}
		var list struct{ Items []struct{ ID string } }
		if err == nil && a.Status == http.StatusOK {
			err = json.Unmarshal([]byte(a.Body), &list)
		}
		if err != nil || len(list.Items) != len(b.Nodes) {
			return fmt.Errorf("the portal sees %d nodes: %d %s %w", len(list.Items), a.Status, a.Body, err)
		}
	}
	return nil
}
