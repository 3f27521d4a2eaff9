// Package admin serves what operators and their machines ask of a node:
//
//	/healthz       the process runs and answers; nothing else is looked at
//	/readyz        whether to send clients here: 200 or 503, with every check in JSON
//	/status        how the upstream and virtual clusters are, in JSON
//	/metrics       Prometheus
//	/debug/pprof/  profiles of the running process
//
// None of it is authenticated, and profiles show what is in memory: the address
// belongs to a loopback interface or a network of operators.
package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	build "tollgate.internal/pkg/version"
)

// shutdownTime is what a scrape that has begun gets to end. Profiles take as
// long as they were asked to and are cut off.
const shutdownTime = 2 * time.Second

// NewRegistry returns a registry with the metrics of the process, the Go
// runtime and the build. An empty version is read from the binary.
func NewRegistry(version string) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(cmp.Or(version, build.String()), build.Commit()),
	)
	return reg
}

func buildInfo(version, revision string) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "tollgate_build_info",
		Help:        "What is running; always 1.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": runtime.Version()},
	})
	g.Set(1)
	return g
}

// Handler serves every route of the package; status is what answers /status. It registers the checks in reg.
func Handler(reg *prometheus.Registry, checks *Checks, status http.Handler, log *slog.Logger) (http.Handler, error) {
	if err := reg.Register(checks); err != nil {
		return nil, fmt.Errorf("register checks: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", checks.serveReady)
	mux.Handle("GET /status", status)
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		Registry:          reg,
		ErrorLog:          promLog{log},
		ErrorHandling:     promhttp.ContinueOnError, // one broken collector does not blind us to the rest
		EnableOpenMetrics: true,
	}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "/healthz\n/readyz\n/status\n/metrics\n/debug/pprof/\n")
	})
	return mux, nil
}

type promLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (p promLog) Println(v ...any) { p.log.Error("metrics are incomplete", "err", fmt.Sprint(v...)) }

// Serve answers on ln until ctx ends. It closes ln; requests under way get
// shutdownTime to end and are then cut off.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve admin: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		_ = srv.Close() // the rest is cut off
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve admin: %w", err)
	}
	return nil
}
