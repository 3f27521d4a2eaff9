package portal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/fleet"
	"tollgate.internal/services/portal/internal/api"
	"tollgate.internal/services/portal/internal/control"
	"tollgate.internal/services/portal/internal/publish"
)

// nodes is the fleet as the API sees it, through Redis.
type nodes struct {
	client    redis.UniversalClient // nil: there is none
	publisher *fleet.Publisher
	loop      *publish.Loop
}

func newFleet(cfg *Config, c *control.Control, metrics prometheus.Registerer) (*nodes, error) {
	n := new(nodes)
	if cfg.Redis == "" {
		return n, nil
	}
	text, err := os.ReadFile(cfg.SigningKey)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	signer, err := bundle.ParseSigner(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.SigningKey, err)
	}
	trusted := make(bundle.Keyring)
	if cfg.TrustedKeys != "" {
		if text, err = os.ReadFile(cfg.TrustedKeys); err != nil {
			return nil, fmt.Errorf("trusted keys: %w", err)
		}
		if trusted, err = bundle.ParseKeyring(text); err != nil {
			return nil, fmt.Errorf("%s: %w", cfg.TrustedKeys, err)
		}
	}
	deployment := fleet.Deployment(cfg.Deployment)
	if n.client, err = fleet.Open(cfg.Redis, cfg.RedisPassword); err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	if n.publisher, err = fleet.NewPublisher(n.client, deployment, signer, trusted); err != nil {
		return nil, errors.Join(err, n.client.Close())
	}
	n.loop = publish.New(c, n.publisher, deployment, cfg.Log)
	status := func(name, help string, value func(publish.Status) float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return value(n.loop.Status()) })
	}
	metrics.MustRegister(
		status("tollgate_portal_bundles_published_total", "Bundles put up for the fleet.", func(s publish.Status) float64 { return float64(s.Published) }),
		status("tollgate_portal_bundles_restored_total", "Times that Redis lacked what it had before.", func(s publish.Status) float64 { return float64(s.Restored) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tollgate_portal_published_revision", Help: "Everything up to this revision is put up for the fleet."},
			func() float64 { return float64(n.loop.Status().Revision) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tollgate_portal_fleet_ahead_revisions", Help: "Revisions that the fleet was told of and the database does not have: above 0, it is an old copy, and nothing is published."},
			func() float64 { return float64(n.loop.Status().Ahead) }),
	)
	return n, nil
}

func (n *nodes) close() {
	if n.client != nil {
		_ = n.client.Close() // connections that nobody uses any more
	}
}

// run tells the fleet of every change until ctx ends.
func (n *nodes) run(ctx context.Context) {
	if n.loop != nil {
		n.loop.Run(ctx)
	}
}

// Problem is why nodes do not learn of changes.
func (n *nodes) Problem() error {
	if n.loop == nil {
		return nil
	}
	return n.loop.Status().Err
}

// Nodes are those that said lately how they are.
func (n *nodes) Nodes(ctx context.Context) ([]api.Node, error) {
	if n.client == nil {
		return nil, nil
	}
	all, err := n.publisher.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]api.Node, len(all))
	for i, one := range all {
		out[i] = api.Node{
			ID: one.ID, Host: one.Host, Port: one.Port, Domain: one.Domain, Rack: one.Rack, Version: one.Version, BundleFormat: one.BundleFormat,
			State: string(one.State), Sessions: one.Sessions, Load: one.Load, Applied: one.Applied, Problem: one.Problem,
			Started: one.Started, Heartbeat: one.Heartbeat,
		}
	}
	return out, nil
}

// appliedEvery is how often nodes are looked at while somebody waits for them. They
// tell more often than with each heartbeat when they applied something.
const appliedEvery = 50 * time.Millisecond

// WaitApplied waits until every live node serves a revision.
func (n *nodes) WaitApplied(ctx context.Context, revision int64) error {
	if n.client == nil {
		return nil
	}
	for {
		all, err := n.publisher.Nodes(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		behind := false
		for _, one := range all {
			behind = behind || one.State != fleet.NodeGone && one.Applied < revision
		}
		if !behind {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(appliedEvery):
		}
	}
}

// Drain tells a node to move its clients off.
func (n *nodes) Drain(ctx context.Context, id string, over time.Duration) error {
	return n.tell(ctx, id, fleet.Drain, over)
}

// Undrain tells a node to take clients again.
func (n *nodes) Undrain(ctx context.Context, id string) error {
	return n.tell(ctx, id, fleet.Undrain, 0)
}

func (n *nodes) tell(ctx context.Context, id string, action fleet.Action, over time.Duration) error {
	if n.client == nil {
		return api.ErrNoNode
	}
	all, err := n.publisher.Nodes(ctx)
	if err != nil {
		return err
	}
	for _, one := range all {
		if one.ID == id && one.State != fleet.NodeGone {
			return n.publisher.Send(ctx, fleet.Command{Node: id, Started: one.Started, Action: action, Over: over})
		}
	}
	return api.ErrNoNode
}
