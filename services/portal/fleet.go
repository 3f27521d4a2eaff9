package portal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
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
	control   *control.Control
	client    redis.UniversalClient // nil: there is none
	pace      *fleet.Pace
	publisher *fleet.Publisher
	loop      *publish.Loop
}

func newFleet(cfg *Config, c *control.Control, metrics prometheus.Registerer) (*nodes, error) {
	n := &nodes{control: c}
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
	n.pace = fleet.Watch(n.client)
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
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tollgate_portal_bundles_stuck", Help: "Bundles that cannot be made of what is stored: nodes serve what they last knew of them."},
			func() float64 { return float64(len(n.loop.Status().Stuck)) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tollgate_portal_fleet_slow", Help: "1 while Redis answers, and takes more than a second over it."},
			func() float64 { return yes(errors.Is(n.Problem(), api.ErrSlow)) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tollgate_portal_fleet_answer_seconds", Help: "The longest that was waited for an answer of Redis within ten seconds, or is being waited now."},
			func() float64 { return n.pace.Longest().Seconds() }),
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

// Problem is why nodes do not learn of changes, or learn of them late.
func (n *nodes) Problem() error {
	if n.loop == nil {
		return nil
	}
	if err := n.loop.Status().Problem(); err != nil {
		return err
	}
	if by, late := n.pace.Slow(); late {
		return fmt.Errorf("%w, after up to %v: changes are kept as always, and each comes to the nodes some such times later", api.ErrSlow, by)
	}
	return nil
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
	policies, err := n.passedOver(ctx, all)
	if err != nil {
		return nil, err
	}
	out := make([]api.Node, len(all))
	for i, one := range all {
		if policies && tooOld(one) {
			one.Problem = strings.Join(slices.DeleteFunc([]string{errTooOld.Error(), one.Problem}, func(s string) bool { return s == "" }), "; ")
		}
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

// errTooOld is what is wrong with a node that passes over policies.
var errTooOld = errors.New("it is too old to know that there are policies of all virtual clusters, and serves clients without them: update it, or drain it")

// tooOld reports whether a node passes over policies of all virtual clusters.
func tooOld(n fleet.Node) bool { return n.BundleFormat < bundle.FormatPolicies }

// passedOver reports whether there are policies that some of the nodes pass over.
func (n *nodes) passedOver(ctx context.Context, all []fleet.Node) (policies bool, err error) {
	if slices.ContainsFunc(all, tooOld) {
		_, policies, err = n.control.Everywhere(ctx)
	}
	return policies, err
}

// WaitApplied waits until every live node serves a revision, those included that a Redis
// which was emptied has yet to hear of again. What is not published is
// on no node, whatever revision those are at: they may have been told of higher ones by
// a database that this is an old copy of. A node that does not know of policies of all
// virtual clusters, where there are some, serves nothing as it is.
func (n *nodes) WaitApplied(ctx context.Context, revision int64) error {
	if n.client == nil {
		return nil
	}
	for {
		all, err := n.publisher.Expected(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		policies, err := n.passedOver(ctx, all)
		if err != nil {
			return err
		}
		behind := n.loop.Status().Lacks(revision)
		for _, one := range all {
			behind = behind || one.Applied < revision || policies && tooOld(one)
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

// sessionPatience is how long nodes have to answer.
const sessionPatience = time.Second

// Sessions asks the nodes for the clients that are connected to them.
func (n *nodes) Sessions(ctx context.Context, q api.SessionQuery) (found api.SessionsFound, err error) {
	if n.client == nil {
		return found, nil
	}
	all, err := n.publisher.Nodes(ctx)
	if err != nil {
		return found, err
	}
	c := fleet.Command{Action: fleet.TellSessions, Ask: &fleet.Ask{
		Session: q.ID, Tenant: q.Tenant, VirtualCluster: q.VirtualCluster, Principal: q.Principal, Limit: q.Limit,
	}}
	var asked []string
	for _, one := range all {
		if one.State == fleet.NodeGone || q.Node != "" && q.Node != one.ID {
			continue
		}
		asked = append(asked, one.ID)
		if q.Node != "" {
			c.Node, c.Started = one.ID, one.Started
		}
	}
	if len(asked) == 0 {
		return found, nil
	}
	answers, err := n.publisher.Ask(ctx, c, asked, sessionPatience)
	if err != nil {
		return found, err
	}
	for _, id := range asked {
		answer, said := answers[id]
		if !said {
			found.Missing = append(found.Missing, id)
			continue
		}
		found.Total += answer.Total
		for _, s := range answer.Sessions {
			found.Sessions = append(found.Sessions, api.Session{
				ID: s.ID, Tenant: s.Tenant, VirtualCluster: s.VirtualCluster, Principal: s.Principal, Mechanism: s.Mechanism, ClientID: s.ClientID,
				Software: s.Software, SoftwareVersion: s.SoftwareVersion, Address: s.Address, Node: id, Since: s.Since, LastRequest: s.LastRequest,
				Requests: s.Requests, BytesIn: s.BytesIn, BytesOut: s.BytesOut,
			})
		}
	}
	slices.Sort(found.Missing)
	slices.SortFunc(found.Sessions, func(a, b api.Session) int {
		return cmp.Or(cmp.Compare(a.VirtualCluster, b.VirtualCluster), cmp.Compare(a.Principal, b.Principal), a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
	found.Sessions = found.Sessions[:min(len(found.Sessions), q.Limit)]
	return found, nil
}

// CloseSession tells a node to close a session.
func (n *nodes) CloseSession(ctx context.Context, node, id string) (told bool, err error) {
	if n.client == nil {
		return false, api.ErrNoNode
	}
	all, err := n.publisher.Nodes(ctx)
	if err != nil {
		return false, err
	}
	for _, one := range all {
		if one.ID == node && one.State != fleet.NodeGone {
			c := fleet.Command{Action: fleet.CloseSession, Node: node, Started: one.Started, Ask: &fleet.Ask{Session: id}}
			answers, err := n.publisher.Ask(ctx, c, []string{node}, sessionPatience)
			return len(answers) > 0, err
		}
	}
	return false, api.ErrNoNode
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
