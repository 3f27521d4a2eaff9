package portal

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/control"
	"tollgate.internal/services/portal/internal/export"
)

// audit is what becomes of the log of changes: it is exported, and old entries go.
type audit struct {
	cfg     Audit
	control *control.Control
	log     *slog.Logger
	loop    *export.Loop // nil: it is not exported

	removed atomic.Uint64
}

func newAudit(cfg *Config, c *control.Control, metrics prometheus.Registerer) (*audit, error) {
	a := &audit{cfg: cfg.Audit, control: c, log: cfg.Log}
	metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "tollgate_portal_audit_removed_total", Help: "Entries of the audit log that this portal removed because of their age.",
	}, func() float64 { return float64(a.removed.Load()) }))
	if a.cfg.Topic == "" {
		return a, nil
	}
	name := a.cfg.Cluster
	if name == "" {
		u, err := readCluster(a.cfg.ClusterFile)
		if err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
		name = u.Metadata.Name
	}
	guard := c.Reserve(control.Topic{Cluster: name, Name: a.cfg.Topic, For: "the audit log"})
	host, err := os.Hostname()
	if err != nil {
		host = "portal"
	}
	a.loop = export.New(c, export.Options{
		Topic: a.cfg.Topic, Create: a.cfg.Create, Deployment: cfg.Deployment, Holder: host + " " + rand.Text(), Cluster: a.cluster, Guard: guard.Check, Log: cfg.Log,
	})
	a.measure(metrics)
	return a, nil
}

func (a *audit) measure(metrics prometheus.Registerer) {
	gauge := func(name, help string, value func(export.Status) float64) {
		metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(a.loop.Status()) }))
	}
	gauge("tollgate_portal_audit_exporting", "1 while this portal exports the audit log, and not another one.", func(s export.Status) float64 { return yes(s.Mine) })
	gauge("tollgate_portal_audit_healthy", "1 while nothing is known to be wrong with exporting, here or in the portal that does it.", func(s export.Status) float64 { return yes(s.Problem == "") })
	gauge("tollgate_portal_audit_lag_entries", fmt.Sprintf("Entries that are not exported yet, counted up to %d.", control.LagMax), func(s export.Status) float64 { return float64(s.Lag.Entries) })
	gauge("tollgate_portal_audit_lag_seconds", "Age of the oldest entry that is not exported yet.", func(s export.Status) float64 { return s.Late(time.Now()).Seconds() })
	metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "tollgate_portal_audit_exported_total", Help: "Events of the audit log that all replicas acknowledged to this portal.",
	}, func() float64 { return float64(a.loop.Status().Exported) }))
	for _, cause := range export.Causes {
		metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "tollgate_portal_audit_failures_total", Help: "Attempts of this portal to export that failed, by cause.", ConstLabels: prometheus.Labels{"cause": string(cause)},
		}, func() float64 { return float64(a.loop.Status().Failures[cause]) }))
	}
}

// cluster is where the topic is, as of now.
func (a *audit) cluster(ctx context.Context) (*resource.UpstreamCluster, error) {
	if a.cfg.ClusterFile != "" {
		return readCluster(a.cfg.ClusterFile)
	}
	s, err := a.control.Get(ctx, resource.Key{Kind: resource.KindUpstreamCluster, Name: a.cfg.Cluster})
	if _, missing := errors.AsType[*control.NotFound](err); missing {
		return nil, &export.NoClusterError{Name: a.cfg.Cluster}
	}
	if err != nil {
		return nil, err
	}
	return s.Object.(*resource.UpstreamCluster), nil
}

// readCluster reads the UpstreamCluster in a file.
func readCluster(path string) (*resource.UpstreamCluster, error) {
	problems := new(resource.Problems)
	objects := resource.Read(path, problems)
	if len(*problems) == 0 {
		resource.Validate(objects, nil, time.Now())
	}
	if len(*problems) > 0 {
		return nil, *problems
	}
	if len(objects) == 1 {
		if u, ok := objects[0].Object.(*resource.UpstreamCluster); ok {
			return u, nil
		}
	}
	return nil, fmt.Errorf("%s: write one UpstreamCluster, and nothing else", path)
}

// run exports, and removes what is old, until ctx ends.
func (a *audit) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	if a.loop != nil {
		wg.Go(func() { a.loop.Run(ctx) })
	}
	if a.cfg.Retention > 0 {
		wg.Go(func() { a.forget(ctx) })
	}
}

// forget removes what is older than it is to be kept.
func (a *audit) forget(ctx context.Context) {
	every := min(time.Minute, max(a.cfg.Retention/10, time.Second))
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every/2 + mathrand.N(every)): // several portals do so
		}
		for ctx.Err() == nil {
			n, err := a.control.ForgetAudit(ctx, time.Now().Add(-a.cfg.Retention), a.loop != nil)
			a.removed.Add(uint64(n))
			if err != nil && ctx.Err() == nil {
				a.log.Warn("old entries of the audit log are not removed", "err", err)
			}
			if err != nil || n == 0 {
				break
			}
		}
	}
}

// health asks for the problem; nil where nothing is exported.
func (a *audit) health() func() error {
	if a.loop == nil {
		return nil
	}
	return a.Problem
}

// Problem is why the log is not exported, and how much waits for it.
func (a *audit) Problem() error {
	if a.loop == nil {
		return nil
	}
	s := a.loop.Status()
	if s.Problem == "" {
		return nil
	}
	return fmt.Errorf("%s: %d entries wait, the oldest for %v", s.Problem, s.Lag.Entries, s.Late(time.Now()).Round(time.Second))
}
