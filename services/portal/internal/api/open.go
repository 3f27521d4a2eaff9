package api

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Health is how the portal is.
type Health struct {
	Status  string `json:"status" enum:"ok,degraded,unavailable" doc:"degraded: changes are kept, and nodes, or the topic of the audit log, learn of them later."`
	Version string `json:"version,omitempty" doc:"Of the program that answers."`
	Store   string `json:"store,omitempty" enum:"ok,unavailable"`
	Fleet   string `json:"fleet,omitempty" enum:"ok,slow,unavailable" doc:"slow: the Redis between portal and nodes takes its time, and so do changes on their way."`
	Audit   string `json:"audit,omitempty" enum:"ok,unavailable" doc:"Whether the audit log comes to where it is exported to; left out where that is nowhere."`
}

// openRoutes need no token: they tell nothing of anybody.
func (a *API) openRoutes() {
	health := a.schemas.registry.Schema(reflect.TypeFor[Health](), true, "")
	register(a, route{
		method: http.MethodGet, path: "/openapi.json", id: "openAPI", tag: "open", summary: "This document",
		answers: map[int]documented{200: {"OpenAPI 3.1.", &huma.Schema{Type: huma.TypeObject}, nil, nil}},
	}, func(_ context.Context, c *call, _ *noParameters) (*reply, error) {
		return &reply{stream: func() {
			c.w.Header().Set("Content-Type", typeJSON)
			c.w.Header().Set("Cache-Control", "no-cache")
			_, _ = c.w.Write(a.document)
		}}, nil
	})
	register(a, route{
		method: http.MethodGet, path: "/docs", id: "docs", tag: "open", summary: "This document, for people",
		answers: map[int]documented{200: {"A page.", &huma.Schema{Type: huma.TypeString}, []string{"text/html"}, nil}},
	}, func(_ context.Context, c *call, _ *noParameters) (*reply, error) {
		return &reply{stream: func() { a.docs.write(c.w) }}, nil
	})
	register(a, route{
		method: http.MethodGet, path: "/healthz", id: "healthz", tag: "open", summary: "Whether the process answers",
		answers: map[int]documented{200: {"It does.", health, nil, nil}},
	}, func(context.Context, *call, *noParameters) (*reply, error) {
		return &reply{body: Health{Status: "ok", Version: a.version}}, nil
	})
	register(a, route{
		method: http.MethodGet, path: "/readyz", id: "readyz", tag: "open", summary: "Whether requests are best sent here",
		answers: map[int]documented{200: {"They are.", health, nil, nil}, 503: {"The store does not answer, or the portal stops.", health, nil, nil}},
	}, func(ctx context.Context, _ *call, _ *noParameters) (*reply, error) {
		h := a.Health(ctx)
		if h.Status == "unavailable" {
			return &reply{status: http.StatusServiceUnavailable, body: h}, nil
		}
		return &reply{body: h}, nil
	})
}

// Health looks how the portal is.
func (a *API) Health(ctx context.Context) Health {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	h := Health{Status: "ok", Store: "ok", Fleet: "ok"}
	switch err := a.fleet.Problem(); {
	case errors.Is(err, ErrSlow):
		h.Status, h.Fleet = "degraded", "slow"
	case err != nil:
		h.Status, h.Fleet = "degraded", "unavailable"
	}
	if a.audit != nil {
		h.Audit = "ok"
		if a.audit() != nil {
			h.Status, h.Audit = "degraded", "unavailable"
		}
	}
	if _, err := a.control.Head(ctx); err != nil {
		h.Status, h.Store = "unavailable", "unavailable"
	}
	select {
	case <-a.stopping:
		h.Status = "unavailable"
	default:
	}
	return h
}
