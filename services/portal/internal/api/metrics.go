package api

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics have labels of closed sets: methods, routes and statuses of the code.
type metrics struct {
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	inFlight  prometheus.Gauge
	streams   prometheus.Gauge
	logins    *prometheus.CounterVec
	waits     *prometheus.CounterVec
}

func newMetrics(into prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tollgate_portal_requests_total", Help: "Requests answered.",
		}, []string{"method", "route", "status"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tollgate_portal_request_duration_seconds", Help: "From a request's head to the end of its answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60},
		}, []string{"method", "route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tollgate_portal_requests_in_flight", Help: "Requests that are being answered, streams included.",
		}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tollgate_portal_event_streams", Help: "Clients that follow /v1/events.",
		}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tollgate_portal_authentication_failures_total", Help: "Requests without a token that is good.",
		}, []string{"reason"}),
		waits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tollgate_portal_applied_waits_total", Help: "Changes that waited for the fleet, and how that ended.",
		}, []string{"outcome"}),
	}
	if into != nil {
		into.MustRegister(m.requests, m.durations, m.inFlight, m.streams, m.logins, m.waits)
	}
	return m
}
