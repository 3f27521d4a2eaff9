package fleet

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate.internal/pkg/bundle"
	board "tollgate.internal/pkg/fleet"
)

// Health is how the node gets on with the control plane.
type Health struct {
	Redis     string    `json:"redis"`     // without secrets
	Connected bool      `json:"connected"` // it answers
	Since     time.Time `json:"since"`     // that this is so
	Head      int64     `json:"head"`      // up to which everything is published in it; 0: nothing, or it cannot be believed
	Seen      int64     `json:"seen"`      // the highest head ever
	Applied   int64     `json:"applied"`   // everything that is served is as of this revision, or newer
	Stale     bool      `json:"stale"`     // Redis does not answer, or has forgotten something
	Slow      bool      `json:"slow"`      // it answers, and takes more than a second over it
	Answer    float64   `json:"answer"`    // seconds: the longest that was waited for an answer lately, or is now
	Problem   string    `json:"problem,omitempty"`
	// Refused are bundles, heads and commands that were not taken, by reason.
	Refused map[bundle.Reason]uint64 `json:"refused,omitempty"`
}

// Health is how it is now.
func (r *Redis) Health() Health {
	h := Health{Redis: r.name, Refused: make(map[bundle.Reason]uint64)}
	if err := r.Problem(); err != nil {
		h.Problem = err.Error()
	}
	for reason, n := range r.counts.refused {
		if n := n.Load(); n > 0 {
			h.Refused[reason] = n
		}
	}
	longest := r.pace.Longest()
	r.mu.Lock()
	defer r.mu.Unlock()
	h.Connected, h.Since = r.link.tried && r.link.err == nil, r.link.since.UTC()
	h.Head, h.Seen, h.Applied = r.heads.now, r.heads.highest, r.applied
	h.Answer, h.Slow = longest.Seconds(), h.Connected && longest >= board.SlowAfter
	h.Stale = !h.Connected || r.heads.old()
	return h
}

var (
	descConnected = prometheus.NewDesc("tollgate_proxy_fleet_connected",
		"1 while the Redis of the fleet answers.", nil, nil)
	descSince = prometheus.NewDesc("tollgate_proxy_fleet_connected_change_timestamp_seconds",
		"Since when it answers, or does not, in Unix time.", nil, nil)
	descHead = prometheus.NewDesc("tollgate_proxy_fleet_head_revision",
		"Up to which revision everything is published in Redis; 0: nothing, or what stands there is not from the portal.", nil, nil)
	descSeen = prometheus.NewDesc("tollgate_proxy_fleet_seen_revision",
		"The highest head that the node ever saw.", nil, nil)
	descApplied = prometheus.NewDesc("tollgate_proxy_fleet_applied_revision",
		"The revision as of which, or newer, everything is that the node serves.", nil, nil)
	descStale = prometheus.NewDesc("tollgate_proxy_fleet_stale",
		"1 while Redis does not answer or has forgotten something: the node serves what it last knew.", nil, nil)
	descSlow = prometheus.NewDesc("tollgate_proxy_fleet_slow",
		"1 while Redis answers, and takes more than a second over it.", nil, nil)
	descAnswer = prometheus.NewDesc("tollgate_proxy_fleet_answer_seconds",
		"The longest that was waited for an answer of Redis within ten seconds, or is being waited now.", nil, nil)
	descBundlesRefused = prometheus.NewDesc("tollgate_proxy_fleet_bundles_refused_total",
		"Bundles, heads and commands that were not taken.", []string{"reason"}, nil)
	descUnserved = prometheus.NewDesc("tollgate_proxy_fleet_bundles_unserved",
		"Bundles that cannot be served as they are now: only what they take away is in effect.", nil, nil)
	descChanges = prometheus.NewDesc("tollgate_proxy_fleet_changes_applied_total",
		"Changes that were put into service while clients were served.", nil, nil)
	descDisk = prometheus.NewDesc("tollgate_proxy_fleet_state_write_failures_total",
		"Writes to the state directory that failed.", nil, nil)
	descNodes = prometheus.NewDesc("tollgate_proxy_fleet_nodes",
		"Nodes of the fleet, as this one knows them.", []string{"state"}, nil)
)

// Describe makes Redis a collector of metrics.
func (r *Redis) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(r, ch) }

// Collect makes Redis a collector of metrics.
func (r *Redis) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	h := r.Health()
	gauge(descConnected, truth(h.Connected))
	gauge(descSince, float64(h.Since.UnixMilli())/1000)
	gauge(descHead, float64(h.Head))
	gauge(descSeen, float64(h.Seen))
	gauge(descApplied, float64(h.Applied))
	gauge(descStale, truth(h.Stale))
	gauge(descSlow, truth(h.Slow))
	gauge(descAnswer, h.Answer)
	for _, reason := range slices.Sorted(maps.Keys(r.counts.refused)) {
		counter(descBundlesRefused, r.counts.refused[reason].Load(), string(reason))
	}
	r.mu.Lock()
	unserved := len(r.refused)
	r.mu.Unlock()
	gauge(descUnserved, float64(unserved))
	counter(descChanges, r.counts.changes.Load())
	counter(descDisk, r.counts.disk.Load())
	states := map[State]int{Serving: 0, Draining: 0, Drained: 0}
	members, _ := r.Members()
	for _, m := range members {
		if _, is := states[m.State]; is {
			states[m.State]++
		}
	}
	for _, state := range slices.Sorted(maps.Keys(states)) {
		gauge(descNodes, float64(states[state]), string(state))
	}
}
