package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	board "tollgate.internal/pkg/fleet"
	"tollgate.internal/services/proxy/internal/quota"
	"tollgate.internal/services/proxy/internal/quota/lease"
)

// checkQuotas warns: a node that cannot share quotas keeps to its part of them.
const checkQuotas = "quotas"

var (
	descQuotaNodes = prometheus.NewDesc("tollgate_proxy_quota_nodes",
		"Nodes that share quotas, as this one last knew.", nil, nil)
	descQuotaLeases = prometheus.NewDesc("tollgate_proxy_quota_leases",
		"Virtual clusters and service accounts of which this node has a share of the quotas.", nil, nil)
	descThrottled = prometheus.NewDesc("tollgate_proxy_throttle_seconds_total",
		"Time for which clients were delayed for a limit: told by throttle_time_ms, or not read.", []string{"virtual_cluster", "kind"}, nil)
	descQuotaFailures = prometheus.NewDesc("tollgate_proxy_quota_lease_failures_total",
		"Times that Redis did not answer when shares of quotas were to be renewed.", nil, nil)
)

// sharedQuotas are those of a fleet.
type sharedQuotas struct {
	client redis.UniversalClient
	keeper *lease.Keeper
	turns  *lease.Turns
	log    *slog.Logger
}

// newSharedQuotas returns nil where quotas are the node's own: when it serves files.
func newSharedQuotas(cfg *Config) (*sharedQuotas, error) {
	c := cfg.Control
	if c == nil || c.Redis == "" {
		return nil, nil
	}
	if err := os.MkdirAll(c.State, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	client, err := board.Open(c.Redis, c.RedisPassword)
	if err != nil {
		return nil, fmt.Errorf("Redis for quotas: %w", err)
	}
	keeper, err := lease.New(lease.Config{
		Node: c.Node, Store: lease.NewRedis(client, board.Deployment(c.Deployment).Key("quota", "")),
		File: filepath.Join(c.State, "quota-nodes"), Log: cfg.Log,
	})
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	away := func() error { return keeper.Stats().Away }
	turns := lease.NewTurns(client, board.Deployment(c.Deployment).Key("creating", ""), away, cfg.Log)
	return &sharedQuotas{client, keeper, turns, cfg.Log}, nil
}

func (s *sharedQuotas) run(ctx context.Context) {
	s.keeper.Run(ctx)
	s.turns.Close()
	if err := s.client.Close(); err != nil {
		s.log.Debug("connections for quotas not closed", "err", err)
	}
}

// fleet is who shares quotas; nil: the node is alone.
func (g *gateway) fleet() quota.Fleet {
	if g.quotas == nil {
		return nil
	}
	return g.quotas.keeper
}

func (g *gateway) collectQuotas(out chan<- prometheus.Metric) {
	for name, vc := range g.loaded() {
		for rate, kind := range quota.RateNames {
			if sum := vc.Quotas.Throttled.Sum(rate); sum > 0 {
				out <- prometheus.MustNewConstMetric(descThrottled, prometheus.CounterValue, sum.Seconds(), name, kind)
			}
		}
	}
	if g.quotas == nil {
		return
	}
	s := g.quotas.keeper.Stats()
	out <- prometheus.MustNewConstMetric(descQuotaNodes, prometheus.GaugeValue, float64(s.Nodes))
	out <- prometheus.MustNewConstMetric(descQuotaLeases, prometheus.GaugeValue, float64(s.Leased))
	out <- prometheus.MustNewConstMetric(descQuotaFailures, prometheus.CounterValue, float64(s.Failures))
}

func (g *gateway) checkQuotas() {
	if g.quotas != nil {
		g.checks.Warn(checkQuotas, g.quotas.keeper.Stats().Away)
	}
}
