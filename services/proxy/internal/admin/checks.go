package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// state is what a check came to:
//
//	failed  --Set(nil)-->  ok
//	ok      --Warn(err)--> warning   serving on with what was good before
//	any     --Set(err)-->  failed    not ready
//
// Each call replaces what the one before said.
type state string

const (
	stateOK      state = "ok"
	stateWarning state = "warning"
	stateFailed  state = "failed"
)

type check struct {
	state state
	err   string
	since time.Time // of the state, not of the text
}

// Checks are the named conditions behind /readyz and their metric. Names come
// from a closed set.
type Checks struct {
	mu     sync.Mutex
	checks map[string]check
}

var errPending = errors.New("not done yet")

// NewChecks returns checks that are not ready before each of the required
// names was set once.
func NewChecks(required ...string) *Checks {
	c := &Checks{checks: make(map[string]check)}
	for _, name := range required {
		c.Set(name, errPending)
	}
	return c
}

// Set says whether a condition for serving holds: without it, with a reason in
// err, the node is not ready.
func (c *Checks) Set(name string, err error) { c.put(name, stateFailed, err) }

// Warn says whether something needs an operator while the node serves on: a
// file that could not be reloaded, say. The node stays ready.
func (c *Checks) Warn(name string, err error) { c.put(name, stateWarning, err) }

func (c *Checks) put(name string, bad state, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := check{state: stateOK, since: time.Now()}
	if err != nil {
		now.state, now.err = bad, err.Error()
	}
	if before, ok := c.checks[name]; ok && before.state == now.state {
		now.since = before.since
	}
	c.checks[name] = now
}

// Ready reports whether no check has failed.
func (c *Checks) Ready() bool { return c.report().Ready }

// report is the body of /readyz.
type report struct {
	Ready  bool     `json:"ready"`
	Checks []result `json:"checks"`
}

type result struct {
	Name  string    `json:"name"`
	State state     `json:"state"`
	Error string    `json:"error,omitempty"`
	Since time.Time `json:"since"`
}

func (c *Checks) report() report {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := report{Ready: true, Checks: make([]result, 0, len(c.checks))}
	for name, ch := range c.checks {
		r.Checks = append(r.Checks, result{name, ch.state, ch.err, ch.since.UTC()})
		r.Ready = r.Ready && ch.state != stateFailed
	}
	slices.SortFunc(r.Checks, func(a, b result) int { return strings.Compare(a.Name, b.Name) })
	return r
}

func (c *Checks) serveReady(w http.ResponseWriter, _ *http.Request) {
	r := c.report()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !r.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(r) // the client went away; there is nobody to tell
}

var (
	readyDesc = prometheus.NewDesc("tollgate_proxy_ready", "Whether the node is ready, as /readyz says.", nil, nil)
	checkDesc = prometheus.NewDesc("tollgate_proxy_check_healthy",
		"Whether a check of /readyz is ok. A check that only warns is 0 here and leaves the node ready.", []string{"check"}, nil)
)

// Describe implements prometheus.Collector.
func (c *Checks) Describe(out chan<- *prometheus.Desc) {
	out <- readyDesc
	out <- checkDesc
}

// Collect implements prometheus.Collector.
func (c *Checks) Collect(out chan<- prometheus.Metric) {
	r := c.report()
	out <- prometheus.MustNewConstMetric(readyDesc, prometheus.GaugeValue, number(r.Ready))
	for _, ch := range r.Checks {
		out <- prometheus.MustNewConstMetric(checkDesc, prometheus.GaugeValue, number(ch.State == stateOK), ch.Name)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
