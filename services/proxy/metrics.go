package proxy

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate.internal/services/proxy/internal/admin"
	"tollgate.internal/services/proxy/internal/meter"
)

// Labels come from closed sets: virtual clusters and upstream clusters of the
// resources, directions and classes of the code.
var (
	descSessions = prometheus.NewDesc("tollgate_proxy_sessions", "Client connections.", []string{"virtual_cluster"}, nil)
	descBytes    = prometheus.NewDesc("tollgate_proxy_records_bytes_total",
		"Bytes of record batches that brokers accepted or clients were sent.", []string{"virtual_cluster", "direction"}, nil)
	descRecords = prometheus.NewDesc("tollgate_proxy_records_total",
		"Records that brokers accepted or clients were sent.", []string{"virtual_cluster", "direction"}, nil)
	descRequests = prometheus.NewDesc("tollgate_proxy_record_requests_total",
		"Requests that carried records, counted once for each topic.", []string{"virtual_cluster", "direction"}, nil)
	descUpstream = prometheus.NewDesc("tollgate_proxy_upstream_connections", "Open broker connections.", []string{"cluster"}, nil)
	descLeased   = prometheus.NewDesc("tollgate_proxy_upstream_leases", "Broker connections in use.", []string{"cluster", "class"}, nil)
	descMemory   = prometheus.NewDesc("tollgate_proxy_request_memory_bytes", "Memory reserved for large request frames.", nil, nil)
	descWaiting  = prometheus.NewDesc("tollgate_proxy_request_memory_waiting", "Sessions that wait for request memory.", nil, nil)
	descRefused  = prometheus.NewDesc("tollgate_proxy_resources_refused",
		"1 while the resource files have a mistake and the previous ones are in service.", nil, nil)
)

// Describe and Collect make the gateway a collector: values are read when asked
// for, so counting costs the data path nothing more.
func (g *gateway) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descSessions, descBytes, descRecords, descRequests, descUpstream, descLeased, descMemory, descWaiting, descRefused,
	} {
		out <- d
	}
}

// Collect reads all values.
func (g *gateway) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	sessions := make(map[string]int)
	for name := range g.serving.Load().clusters {
		sessions[name] = 0
	}
	for _, s := range g.allSessions() {
		sessions[s.VirtualCluster().Name]++
	}
	for vc, n := range sessions {
		gauge(descSessions, float64(n), vc)
	}
	type series struct {
		vc string
		d  meter.Direction
	}
	sums := make(map[series]meter.Usage)
	g.node.Meter.Each(func(k meter.Key, u meter.Usage) {
		at := series{k.VirtualCluster, k.Direction}
		sum := sums[at]
		sums[at] = meter.Usage{Bytes: sum.Bytes + u.Bytes, Records: sum.Records + u.Records, Requests: sum.Requests + u.Requests}
	})
	for at, u := range sums {
		for d, v := range map[*prometheus.Desc]uint64{descBytes: u.Bytes, descRecords: u.Records, descRequests: u.Requests} {
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), at.vc, at.d.String())
		}
	}
	g.mu.Lock()
	clusters := make(map[string]*runningCluster, len(g.clusters))
	for name, c := range g.clusters {
		clusters[name] = c
	}
	g.mu.Unlock()
	for name, c := range clusters {
		open, leased := c.cluster.Connections()
		gauge(descUpstream, float64(open), name)
		for class, n := range leased {
			gauge(descLeased, float64(n), name, class)
		}
	}
	used, waiting := g.node.Requests.Used()
	gauge(descMemory, float64(used))
	gauge(descWaiting, float64(waiting))
	refused := 0.0
	if g.problem.Load() != nil {
		refused = 1
	}
	gauge(descRefused, refused)
}

// adminHandler serves the node's health, metrics and profiles.
func (g *gateway) adminHandler() (http.Handler, error) {
	reg := admin.NewRegistry("")
	if err := reg.Register(g); err != nil {
		return nil, err
	}
	return admin.Handler(reg, g.checks, g.cfg.Log)
}

// The names of the readiness checks.
const (
	checkListeners = "listeners"
	checkResources = "resources"
	checkUpstream  = "upstream"
)

// check brings the readiness detail up to date. A mistake in the files is a
// warning: the node serves on with what it has.
func (g *gateway) check() {
	if p := g.problem.Load(); p != nil {
		g.checks.Warn(checkResources, *p)
	} else {
		g.checks.Set(checkResources, nil)
	}
	g.mu.Lock()
	var missing []error
	reached := len(g.clusters) == 0
	for name, c := range g.clusters {
		if c.cluster.Metadata() == nil {
			missing = append(missing, fmt.Errorf("cluster %s was never reached", name))
		} else {
			reached = true
		}
	}
	g.mu.Unlock()
	// One cluster that is down must not take the node out of service for the
	// others.
	if reached {
		g.checks.Warn(checkUpstream, errors.Join(missing...))
	} else {
		g.checks.Set(checkUpstream, errors.Join(missing...))
	}
}
