package proxy

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate.internal/services/proxy/internal/producerid"
)

// checkProducerIDs warns: who has a producer id, and who consumes, is served on.
const checkProducerIDs = "producer_ids"

var (
	descIDLeases = prometheus.NewDesc("tollgate_proxy_producer_id_leases_total",
		"Leases for producer ids that the node took.", nil, nil)
	descIDs = prometheus.NewDesc("tollgate_proxy_producer_ids_total",
		"Producer ids that the node gave.", nil, nil)
	descIDsWithout = prometheus.NewDesc("tollgate_proxy_producer_ids_without_lease_seconds_total",
		"Time in which the node could give no producer id, from its start until now.", nil, nil)
)

// newProducerIDs returns nil when none are configured.
func newProducerIDs(cfg *Config) (*producerid.Issuer, error) {
	c := cfg.ProducerIDs
	if c.Source == "" {
		return nil, nil
	}
	source, err := producerid.Open(c.Source, c.Password.Reveal(), c.Deployment)
	if err != nil {
		return nil, fmt.Errorf("source of producer ids: %w", err)
	}
	return producerid.NewIssuer(source, c.Deployment, cfg.Log), nil
}

func (g *gateway) collectProducerIDs(out chan<- prometheus.Metric) {
	if g.node.ProducerIDs == nil {
		return
	}
	s := g.node.ProducerIDs.Stats()
	for d, v := range map[*prometheus.Desc]float64{
		descIDLeases: float64(s.Leases), descIDs: float64(s.Issued), descIDsWithout: s.Without.Seconds(),
	} {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
}

func (g *gateway) checkProducerIDs() {
	if g.node.ProducerIDs != nil {
		g.checks.Warn(checkProducerIDs, g.node.ProducerIDs.Stats().Missing)
	}
}
