// Package portal is the control plane: the only writer of the resources, the HTTP API
// to them, and what tells the proxies of every change.
//
// [Run] serves until its context ends. What is changed is in the store, in one
// transaction with its audit entry, before it is acknowledged; a portal that is
// killed at any moment forgets nothing and has nothing half done. Several may run on
// one PostgreSQL. Without Redis changes are still kept, and proxies learn of them
// once it is back.
package portal

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tollgate.internal/services/portal/internal/api"
	"tollgate.internal/services/portal/internal/control"
	"tollgate.internal/services/portal/internal/store"
)

// The names of the addresses that Config.Ready is told.
const (
	APIAddress   = "api"
	AdminAddress = "admin"
)

// Run serves until ctx ends, then takes no more requests, and lets those that have
// begun finish for Config.DrainTimeout at most. A mistake in the configuration is
// returned at once, every problem in it.
func Run(ctx context.Context, cfg Config) (err error) {
	certificate, err := cfg.check()
	if err != nil {
		return err
	}
	log := cfg.Log
	s, err := store.Open(ctx, cfg.Database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	c := control.New(s, nil)
	c.Limit(cfg.Limits)
	if cfg.FirstToken != "" {
		if err := firstToken(ctx, c, cfg.FirstToken, log); err != nil {
			return err
		}
	}
	if cfg.RestoredAt > 0 {
		revision, err := c.Restored(ctx, control.Actor{Name: "portal", Kind: "system"}, cfg.RestoredAt)
		if err != nil {
			return fmt.Errorf("go on with a restored database: %w", err)
		}
		if revision > 0 {
			log.WarnContext(ctx, "the database is an older copy and goes on above what the fleet was told of: what was changed behind the copy is forgotten, revocations too", "told", cfg.RestoredAt, "revision", revision)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)

	registry := newRegistry(cfg.Version)
	fleet, err := newFleet(&cfg, c, registry)
	if err != nil {
		return err
	}
	defer fleet.close()
	running.Go(func() { fleet.run(ctx) })
	audit, err := newAudit(&cfg, c, registry)
	if err != nil {
		return err
	}
	running.Go(func() { audit.run(ctx) })
	a := api.New(api.Config{Control: c, Fleet: fleet, Audit: audit.health(), Log: log, Metrics: registry, Version: cfg.Version, TrustedProxies: cfg.TrustedProxies, Stopping: ctx.Done()})
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tollgate_portal_store_reachable", Help: "1 while the database answers.",
	}, func() float64 { return yes(a.Health(context.Background()).Store == "ok") }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tollgate_portal_fleet_reachable", Help: "1 while nodes can learn of changes.",
	}, func() float64 { err := fleet.Problem(); return yes(err == nil || errors.Is(err, api.ErrSlow)) }))

	addresses := make(map[string]string)
	var servers []*server
	listen := func(name, address string, handler http.Handler, certificate *keyPair) error {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		addresses[name] = l.Addr().String()
		if certificate != nil {
			l = tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate.get, NextProtos: []string{"h2", "http/1.1"}})
		}
		servers = append(servers, newServer(l, handler, log.With("listener", name)))
		return nil
	}
	defer func() {
		for _, one := range servers {
			one.listener.Close()
		}
	}()
	if err := listen(APIAddress, cfg.Listen, a, certificate); err != nil {
		return err
	}
	if cfg.Admin != "" {
		if err := listen(AdminAddress, cfg.Admin, adminHandler(registry, a, fleet, audit), nil); err != nil {
			return err
		}
	}
	for _, one := range servers {
		running.Go(func() {
			if err := one.Serve(one.listener); !errors.Is(err, http.ErrServerClosed) {
				cancel(err)
			}
		})
	}
	log.InfoContext(ctx, "portal serves", "api", addresses[APIAddress], "admin", addresses[AdminAddress], "database", s.Where())
	if cfg.Ready != nil {
		cfg.Ready(addresses)
	}
	<-ctx.Done()
	log.Info("portal stops")
	drain, done := context.WithTimeout(context.Background(), cfg.DrainTimeout)
	defer done()
	for _, one := range servers {
		if err := one.Shutdown(drain); err != nil {
			log.Warn("requests were cut off", "err", err)
			_ = one.Close() // what is left of it
		}
	}
	if why := context.Cause(ctx); !errors.Is(why, context.Canceled) && !errors.Is(why, context.DeadlineExceeded) {
		return why
	}
	return nil
}

func yes(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// server is one listener and what answers on it.
type server struct {
	*http.Server
	listener net.Listener
}

// newServer bounds everything that clients can take their time with. Bodies and
// answers have bounds of their own in package api.
func newServer(l net.Listener, handler http.Handler, log *slog.Logger) *server {
	return &server{listener: l, Server: &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // handshakes that failed, and the like
	}}
}

// operatorsHealth is what only operators are told of the portal's health: causes name
// clusters and topics.
type operatorsHealth struct {
	api.Health
	Problems map[string]string `json:"problems,omitempty"`
}

// adminHandler serves what machines of operators ask for. None of it is authenticated.
func adminHandler(registry *prometheus.Registry, a *api.API, fleet *nodes, audit *audit) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", a)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		h := operatorsHealth{Health: a.Health(r.Context()), Problems: make(map[string]string)}
		for part, err := range map[string]error{"fleet": fleet.Problem(), "audit": audit.Problem()} {
			if err != nil {
				h.Problems[part] = err.Error()
			}
		}
		w.Header().Set("Content-Type", "application/json")
		if h.Status == "unavailable" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(h)
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry, Timeout: 10 * time.Second, MaxRequestsInFlight: 4}))
	return http.TimeoutHandler(mux, time.Minute, // a profile takes half of that
		"the answer took too long\n")
}
