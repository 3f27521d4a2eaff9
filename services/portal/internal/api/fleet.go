package api

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Fleet is what the portal knows of the nodes that serve clients.
type Fleet interface {
	// Nodes are those that are alive, and those that said goodbye a moment ago.
	Nodes(ctx context.Context) ([]Node, error)
	// WaitApplied returns when every live node serves what is as of a revision, or
	// newer. The error of a context that ended is that context's.
	WaitApplied(ctx context.Context, revision int64) error
	// Drain tells a node to move its clients off, over a time. It is [ErrNoNode] for
	// one that is not there.
	Drain(ctx context.Context, id string, over time.Duration) error
	// Undrain tells a node to take clients again.
	Undrain(ctx context.Context, id string) error
	// Sessions asks the nodes for the clients that are connected to them.
	Sessions(ctx context.Context, q SessionQuery) (SessionsFound, error)
	// CloseSession tells a node to close a session. False: it has not answered. It is
	// [ErrNoNode] for a node that is not there.
	CloseSession(ctx context.Context, node, id string) (told bool, err error)
	// Problem is why nodes do not learn of changes, in words for operators; nil: they
	// do. It is [ErrSlow] if they do, and late.
	Problem() error
}

// ErrNoNode says that there is no such node.
var ErrNoNode = errors.New("there is no such node")

// ErrSlow says that nodes learn of changes later than they should.
var ErrSlow = errors.New("redis answers slowly")

// errNoFleet says that nobody knows how the nodes are.
var errNoFleet = errors.New("the state of the fleet is not known right now")

// Node is one of those that serve clients.
type Node struct {
	ID           string    `json:"id"`
	Host         string    `json:"host" doc:"Where clients reach it."`
	Port         int32     `json:"port"`
	Domain       string    `json:"domain,omitempty" doc:"Its own, under which its broker hosts are: internal balancing."`
	Rack         string    `json:"rack,omitempty"`
	Version      string    `json:"version"`
	BundleFormat uint16    `json:"bundleFormat" doc:"The newest it reads."`
	State        string    `json:"state" enum:"serving,draining,drained,gone"`
	Sessions     int       `json:"sessions"`
	Load         float64   `json:"load" doc:"Of what it can take, 0 to 1."`
	Applied      int64     `json:"applied" doc:"Everything it serves is as of this revision, or newer."`
	Problem      string    `json:"problem,omitempty" doc:"Why it serves by what it last knew."`
	Started      time.Time `json:"started"`
	Heartbeat    time.Time `json:"heartbeat"`
}

// noFleet is that of a portal without nodes.
type noFleet struct{}

func (noFleet) Nodes(context.Context) ([]Node, error)              { return nil, nil }
func (noFleet) WaitApplied(context.Context, int64) error           { return nil }
func (noFleet) Drain(context.Context, string, time.Duration) error { return ErrNoNode }
func (noFleet) Undrain(context.Context, string) error              { return ErrNoNode }
func (noFleet) Sessions(context.Context, SessionQuery) (SessionsFound, error) {
	return SessionsFound{}, nil
}

func (noFleet) CloseSession(context.Context, string, string) (bool, error) { return false, ErrNoNode }
func (noFleet) Problem() error                                             { return nil }

const (
	defaultWait  = 10 * time.Second
	maxWait      = 60 * time.Second
	maxDrainOver = time.Hour
)

// patience is how long a change waits for the fleet; 0: not at all.
func (w *Waiting) patience() (time.Duration, error) {
	if w.Wait == "" {
		if w.Timeout != "" {
			return 0, invalid(FieldError{Field: "query.timeout", Message: "has a meaning beside wait=applied only"})
		}
		return 0, nil
	}
	return duration("query.timeout", w.Timeout, defaultWait, maxWait)
}

func duration(field, text string, missing, most time.Duration) (time.Duration, error) {
	if text == "" {
		return missing, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > most {
		return 0, invalid(FieldError{Field: field, Message: fmt.Sprintf("must be a duration with its unit, such as 10s, of %v at most", most)})
	}
	return d, nil
}

// waited is the status of a change that is kept: 202 where it was waited for and not
// every node serves it.
func (a *API) waited(ctx context.Context, c *call, status int, revision int64, wait time.Duration, dryRun bool) int {
	if wait > 0 && !dryRun && !a.applied(ctx, c, revision, wait) {
		return http.StatusAccepted
	}
	return status
}

// applied waits until every live node serves a revision, and says in a header how
// that ended. False: not yet, or nobody knows. The change is kept in any case, so
// this is no error.
func (a *API) applied(ctx context.Context, c *call, revision int64, patience time.Duration) bool {
	if revision == 0 { // nothing changed
		c.w.Header().Set("Tollgate-Applied", "yes")
		return true
	}
	if c.done != nil {
		c.done() // others need not wait for the fleet too
	}
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(patience + writePatience)) // tests' recorders have none
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- a.fleet.WaitApplied(ctx, revision) }()
	var err error
	select {
	case err = <-done:
	case <-a.stopping:
		cancel()
		err = errors.Join(errNoFleet, <-done)
	}
	outcome, text := "unknown", "unknown: "+errNoFleet.Error()
	switch {
	case err == nil:
		outcome, text = "applied", "yes"
	case errors.Is(err, context.DeadlineExceeded):
		outcome, text = "pending", fmt.Sprintf("pending: revision %d is not on every node after %v", c.view.shown(revision), patience)
	default:
		a.log.WarnContext(ctx, "cannot tell whether a change is applied", "revision", revision, "err", err)
	}
	a.metrics.waits.WithLabelValues(outcome).Inc()
	c.w.Header().Set("Tollgate-Applied", text)
	return err == nil
}

// nodeRoutes are about the fleet.
func (a *API) nodeRoutes() {
	type nodes struct {
		Items   []Node `json:"items"`
		Next    string `json:"next,omitempty" doc:"For the next page, as ?after=. Missing: this was the last."`
		Problem string `json:"problem,omitempty" doc:"Why nodes do not learn of changes right now."`
	}
	type drain struct {
		Over string `json:"over,omitempty" example:"30s" doc:"The time over which its clients are moved off, 1h at most; 30s."`
	}
	register(a, route{
		method: http.MethodGet, path: "/v1/nodes", id: "listNodes", tag: "fleet", summary: "List the nodes", roles: forOps,
		answers: map[int]documented{200: {"Every live node.", a.schemas.registry.Schema(reflect.TypeFor[nodes](), true, "NodeList"), nil, nil}},
	}, func(ctx context.Context, _ *call, in *Paging) (*reply, error) {
		all, err := a.fleet.Nodes(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNoFleet, err)
		}
		var out nodes
		if out.Items, out.Next, err = pageOf(all, in, func(n Node) string { return n.ID }); err != nil {
			return nil, err
		}
		if err := a.fleet.Problem(); err != nil {
			out.Problem = err.Error()
		}
		return &reply{body: out}, nil
	})
	node := func(err error) (*reply, error) {
		switch {
		case errors.Is(err, ErrNoNode):
			return nil, notFound()
		case err != nil:
			return nil, fmt.Errorf("%w: %w", errNoFleet, err)
		}
		return &reply{status: http.StatusAccepted}, nil
	}
	told := map[int]documented{202: {"The node is told, and its state in the list says how far it is.", nil, nil, nil}}
	register(a, route{
		method: http.MethodPost, path: "/v1/nodes/{id}/drain", id: "drainNode", tag: "fleet", summary: "Move all clients off a node", roles: forOps, write: true,
		description: "It leaves the maps that clients get, finishes what is in flight and closes its connections one after the other. Without an error that a client's application would see.",
		body:        a.schemas.registry.Schema(reflect.TypeFor[drain](), true, "Drain"), optional: true,
		answers: told,
	}, func(ctx context.Context, c *call, _ *noParameters) (*reply, error) {
		var in drain
		if c.body.data != nil {
			if p := c.body.decode(&in); p != nil {
				return nil, p
			}
		}
		over, err := duration("over", in.Over, 30*time.Second, maxDrainOver)
		if err != nil {
			return nil, err
		}
		id, err := c.named("id")
		if err != nil {
			return nil, err
		}
		return node(a.fleet.Drain(ctx, id, over))
	})
	register(a, route{
		method: http.MethodPost, path: "/v1/nodes/{id}/undrain", id: "undrainNode", tag: "fleet", summary: "Let a node take clients again", roles: forOps, write: true,
		answers: told,
	}, func(ctx context.Context, c *call, _ *noParameters) (*reply, error) {
		id, err := c.named("id")
		if err != nil {
			return nil, err
		}
		return node(a.fleet.Undrain(ctx, id))
	})
}

// pageOf is a page of a list that is short enough to be read as a whole.
func pageOf[T any](all []T, in *Paging, id func(T) string) (items []T, next string, err error) {
	after := ""
	if in.After != "" {
		raw, err := base64.RawURLEncoding.DecodeString(in.After)
		if err != nil {
			return nil, "", invalid(FieldError{Field: "query.after", Message: "is not what the page before gave: leave it out to begin anew"})
		}
		after = string(raw)
	}
	all = slices.SortedFunc(slices.Values(all), func(a, b T) int { return strings.Compare(id(a), id(b)) })
	items = []T{}
	for _, one := range all {
		if after != "" && id(one) <= after {
			continue
		}
		if len(items) == in.limit() {
			return items, base64.RawURLEncoding.EncodeToString([]byte(id(items[len(items)-1]))), nil
		}
		items = append(items, one)
	}
	return items, "", nil
}
