package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/admin"
	"tollgate.internal/services/proxy/internal/meter"
	"tollgate.internal/services/proxy/internal/netio"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/session"
	"tollgate.internal/services/proxy/internal/stub"
)

// Labels come from closed sets: virtual clusters, upstream clusters and listeners
// of the configuration; directions, classes, request keys and refusals of the code.
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
	descLogins   = prometheus.NewDesc("tollgate_proxy_upstream_login_failures_total",
		"Times that an upstream cluster did not let the gateway in, or was not trusted.", []string{"cluster"}, nil)
	descCredential = prometheus.NewDesc("tollgate_proxy_upstream_credential_problem",
		"1 while a file of the cluster's credential cannot be used, or the last login failed.", []string{"cluster"}, nil)
	descDials    = prometheus.NewDesc("tollgate_proxy_upstream_dials_total", "Broker connections begun.", []string{"cluster"}, nil)
	descRenewals = prometheus.NewDesc("tollgate_proxy_upstream_reauthentications_total",
		"Logins renewed on broker connections before their lifetime ended.", []string{"cluster"}, nil)
	descMemory  = prometheus.NewDesc("tollgate_proxy_frame_memory_bytes", "Memory reserved for large frames that are held whole.", []string{"frame"}, nil)
	descWaiting = prometheus.NewDesc("tollgate_proxy_frame_memory_waiting", "Sessions that wait for such memory.", []string{"frame"}, nil)
	descLoaded  = prometheus.NewDesc("tollgate_proxy_virtual_clusters", "Virtual clusters in memory.", nil, nil)
	descLookups = prometheus.NewDesc("tollgate_proxy_host_lookups_total",
		"Look-ups of virtual clusters that were not in memory, by what came of them.", []string{"result"}, nil)
	descRefused = prometheus.NewDesc("tollgate_proxy_resources_refused",
		"1 while the resource files have a mistake and the previous ones are in service.", nil, nil)
	descReloads = prometheus.NewDesc("tollgate_proxy_resources_reload_failures_total",
		"Changes of the resource files that were not applied.", nil, nil)
	descConnections = prometheus.NewDesc("tollgate_proxy_connections_refused_total",
		"Connections closed before a session began, by entry of docs/errors.md.", []string{"refusal"}, nil)
	descRefusals = prometheus.NewDesc("tollgate_proxy_requests_refused_total",
		"Refusals in answers to clients, by entry of docs/errors.md.", []string{"refusal"}, nil)
	descClosed = prometheus.NewDesc("tollgate_proxy_sessions_closed_total",
		"Sessions that ended: by the client, or for a reason of docs/errors.md.", []string{"reason"}, nil)
	descExpiry = prometheus.NewDesc("tollgate_proxy_certificate_expiry_timestamp_seconds",
		"When the first of a listener's certificates expires, in Unix time.", []string{"listener"}, nil)
	descCertificates = prometheus.NewDesc("tollgate_proxy_certificate_reload_failures_total",
		"Changes of a listener's certificate files that were not applied.", []string{"listener"}, nil)
)

// counts is what the node counts itself.
type counts struct {
	connections, requests *refusal.Counts
	sessions              *refusal.Counts // ended for a reason
	left                  *atomic.Uint64  // sessions that the client ended
	reloads               *atomic.Uint64  // of resources, that failed
	durations             *durations
}

func newCounts() counts {
	return counts{
		connections: refusal.NewCounts(), requests: refusal.NewCounts(), sessions: refusal.NewCounts(),
		left: new(atomic.Uint64), reloads: new(atomic.Uint64), durations: newDurations(),
	}
}

func (c *counts) closed(err error) {
	if err == nil {
		c.left.Add(1)
		return
	}
	c.sessions.Add(refusal.Of(err))
}

// durations is a histogram of request durations whose series are found by index:
// an observation allocates nothing, except the first of a series.
type durations struct {
	vec    *prometheus.HistogramVec
	series [128][session.Outcomes]atomic.Pointer[prometheus.Observer] // by request key
}

func newDurations() *durations {
	return &durations{vec: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "tollgate_proxy_request_duration_seconds",
		Help:    "From a request being read to its answer being made, brokers included.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"request", "outcome"})}
}

func (d *durations) observe(key int16, outcome session.Outcome, took time.Duration) {
	at := &d.series[key][outcome]
	o := at.Load()
	if o == nil {
		found := d.vec.WithLabelValues(kmsg.NameForKey(key), outcome.String())
		o = &found
		at.Store(o)
	}
	(*o).Observe(took.Seconds())
}

// Describe and Collect make the gateway a collector: values are read when asked
// for, so counting costs the data path nothing more.
func (g *gateway) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descSessions, descBytes, descRecords, descRequests, descUpstream, descLeased, descLogins, descCredential, descDials, descRenewals, descMemory, descWaiting, descRefused,
		descReloads, descConnections, descRefusals, descClosed, descExpiry, descCertificates,
		descState, descInside, descLoad, descWeight,
		descIDLeases, descIDs, descIDsWithout, descSuspect, descStubs, descLoaded, descLookups,
		descQuotaNodes, descQuotaLeases, descQuotaFailures, descThrottled,
	} {
		out <- d
	}
	g.counts.durations.vec.Describe(out)
}

// Collect reads all values.
func (g *gateway) Collect(out chan<- prometheus.Metric) {
	g.collectNode(out)
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	sessions := make(map[string]int)
	for name := range g.loaded() {
		sessions[name] = 0
	}
	for _, s := range g.allSessions() {
		sessions[s.VirtualCluster().Name]++
	}
	for vc, n := range sessions {
		gauge(descSessions, float64(n), vc)
	}
	gauge(descLoaded, float64(len(g.loaded())))
	if g.finder != nil {
		for i, result := range findings {
			out <- prometheus.MustNewConstMetric(descLookups, prometheus.CounterValue, float64(g.finder.counts[i].Load()), result)
		}
	}
	type series struct {
		vc string
		d  meter.Direction
	}
	sums := make(map[series]meter.Usage)
	for k, u := range g.node.Meter.All() {
		at := series{k.VirtualCluster, k.Direction}
		sum := sums[at]
		sums[at] = meter.Usage{Bytes: sum.Bytes + u.Bytes, Records: sum.Records + u.Records, Requests: sum.Requests + u.Requests}
	}
	for at, u := range sums {
		for d, v := range map[*prometheus.Desc]uint64{descBytes: u.Bytes, descRecords: u.Records, descRequests: u.Requests} {
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), at.vc, at.d.String())
		}
	}
	g.mu.RLock()
	clusters := make(map[string]*runningCluster, len(g.clusters))
	for name, c := range g.clusters {
		clusters[name] = c
	}
	problems := g.credentialProblems()
	g.mu.RUnlock()
	for vc, st := range g.stubs() {
		for state, n := range st.Counts {
			gauge(descStubs, float64(n), vc, stub.State(state).String())
		}
		gauge(descStubs, float64(len(st.Orphans)), vc, "orphaned")
	}
	for name, c := range clusters {
		suspect := 0.0
		if c.cluster.State().Suspect {
			suspect = 1
		}
		gauge(descSuspect, suspect, name)
		open, leased := c.cluster.Connections()
		gauge(descUpstream, float64(open), name)
		for class, n := range leased {
			gauge(descLeased, float64(n), name, class)
		}
		failed, _ := c.cluster.Logins()
		out <- prometheus.MustNewConstMetric(descLogins, prometheus.CounterValue, float64(failed), name)
		problem := 0.0
		if problems[name] != nil {
			problem = 1
		}
		gauge(descCredential, problem, name)
		begun, renewed := c.cluster.Dials()
		out <- prometheus.MustNewConstMetric(descDials, prometheus.CounterValue, float64(begun), name)
		out <- prometheus.MustNewConstMetric(descRenewals, prometheus.CounterValue, float64(renewed), name)
	}
	for frame, b := range map[string]*netio.Budget{"request": g.node.Requests, "answer": g.node.Answers} {
		used, waiting := b.Used()
		gauge(descMemory, float64(used), frame)
		gauge(descWaiting, float64(waiting), frame)
	}
	refused := 0.0
	if g.problem.Load() != nil {
		refused = 1
	}
	gauge(descRefused, refused)
	g.collectCounts(out)
	g.collectProducerIDs(out)
	g.collectQuotas(out)
	for name, c := range g.listener.Certificates() {
		gauge(descExpiry, float64(c.Expiry.Unix()), name)
		out <- prometheus.MustNewConstMetric(descCertificates, prometheus.CounterValue, float64(c.ReloadFailures), name)
	}
}

func (g *gateway) collectCounts(out chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for d, c := range map[*prometheus.Desc]*refusal.Counts{
		descConnections: g.counts.connections, descRefusals: g.counts.requests, descClosed: g.counts.sessions,
	} {
		c.Each(func(r *refusal.Refusal, n uint64) { counter(d, n, r.ID) })
	}
	counter(descClosed, g.counts.left.Load(), "client")
	counter(descReloads, g.counts.reloads.Load())
	g.counts.durations.vec.Collect(out)
}

// adminHandler serves the node's health, metrics, profiles and status.
func (g *gateway) adminHandler() (http.Handler, error) {
	reg := admin.NewRegistry("")
	if err := reg.Register(g); err != nil {
		return nil, err
	}
	if g.redis != nil {
		if err := reg.Register(g.redis); err != nil {
			return nil, err
		}
	}
	return admin.Handler(reg, g.checks, http.HandlerFunc(g.serveStatus), g.cfg.Log)
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
	switch p := g.problem.Load(); {
	case p != nil:
		g.checks.Warn(checkResources, *p)
	case g.cfg.source != nil:
		g.checks.Warn(checkResources, g.cfg.source.Problem())
	default:
		g.checks.Set(checkResources, nil)
	}
	g.checkProducerIDs()
	g.checkQuotas()
	g.mu.RLock()
	var missing []error
	reached := len(g.clusters) == 0
	for name, c := range g.clusters {
		if c.cluster.Metadata() == nil {
			missing = append(missing, fmt.Errorf("cluster %s was never reached", name))
		} else {
			reached = true
		}
	}
	for _, err := range g.credentialProblems() {
		missing = append(missing, err)
	}
	g.mu.RUnlock()
	slices.SortFunc(missing, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	// One cluster that is down must not take the node out of service for the
	// others: those that are loaded, or that the next client loads.
	if reached || g.cfg.source != nil {
		g.checks.Warn(checkUpstream, errors.Join(missing...))
	} else {
		g.checks.Set(checkUpstream, errors.Join(missing...))
	}
}
