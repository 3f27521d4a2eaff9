package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"strconv"
	"sync"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/control"
)

// SessionQuery selects sessions. Empty fields select all.
type SessionQuery struct {
	ID                                      string
	Tenant, VirtualCluster, Principal, Node string
	Limit                                   int
}

// SessionsFound is what the nodes say.
type SessionsFound struct {
	Sessions []Session // the first Limit of them, in the order of virtual cluster, principal, age
	Total    int       // that there are
	Missing  []string  // nodes that did not answer
}

// Session is one client connection.
type Session struct {
	ID              string    `json:"id"`
	Tenant          string    `json:"tenant"`
	VirtualCluster  string    `json:"virtualCluster"`
	Principal       string    `json:"principal,omitempty" doc:"Missing: it has not logged in yet."`
	Mechanism       string    `json:"mechanism,omitempty" doc:"PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, mTLS or anonymous."`
	ClientID        string    `json:"clientId,omitempty" doc:"As the client says."`
	Software        string    `json:"software,omitempty" doc:"The client's library, as it says (KIP-511)."`
	SoftwareVersion string    `json:"softwareVersion,omitempty"`
	Address         string    `json:"address" doc:"Where the client comes from."`
	Node            string    `json:"node,omitempty" doc:"Which it is connected to. Left out for tokens of a tenant."`
	Since           time.Time `json:"since"`
	LastRequest     time.Time `json:"lastRequest" doc:"When its last request came, to about a second."`
	Requests        uint64    `json:"requests"`
	BytesIn         uint64    `json:"bytesIn" doc:"From the client, as on the wire."`
	BytesOut        uint64    `json:"bytesOut"`
}

// asking bounds how often the nodes are asked: each answer costs every one of them a
// look at all its sessions. Operators have a measure, and each tenant one of its own:
// one for all of them would let each see how much the others ask.
type asking struct {
	now func() time.Time

	mu  sync.Mutex
	due map[string]time.Time // when the measure of somebody is whole again
}

const (
	askedAtOnce   = 30 // questions at once, and then one in each time below
	opsAskEvery   = 50 * time.Millisecond
	theyAskEvery  = 500 * time.Millisecond // one tenant
	maxAskers     = 10_000
	operatorAsker = ""
)

// ask counts a question. Wait is how long to wait before it may be asked; 0: now.
func (a *asking) ask(tenant string) (wait time.Duration) {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	every := theyAskEvery
	if tenant == operatorAsker {
		every = opsAskEvery
	}
	due := a.due[tenant]
	if due.Before(now) {
		due = now
	}
	if wait = due.Sub(now) - (askedAtOnce-1)*every; wait > 0 {
		return wait
	}
	if len(a.due) >= maxAskers {
		for name, due := range a.due {
			if due.Before(now) {
				delete(a.due, name)
			}
		}
	}
	a.due[tenant] = due.Add(every)
	return 0
}

// sessions asks the nodes, for what the caller may see. Which nodes they are is for
// operators alone.
func (a *API) sessions(ctx context.Context, c *call, q SessionQuery) (SessionsFound, error) {
	if wait := a.asking.ask(c.caller.tenant()); wait > 0 {
		return SessionsFound{}, problem(http.StatusTooManyRequests, "sessions are asked for too often: every node looks for each answer").
			with("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
	found, err := a.fleet.Sessions(ctx, q)
	if err != nil {
		return SessionsFound{}, fmt.Errorf("%w: %w", errNoFleet, err)
	}
	if c.caller.Role == control.RoleOps {
		return found, nil
	}
	// What nodes say is nobody's word: whose a virtual cluster is, the store knows.
	seen := make(map[string]bool)
	kept := found.Sessions[:0]
	for _, s := range found.Sessions {
		visible, known := seen[s.VirtualCluster]
		if !known {
			if visible, err = a.seesCluster(ctx, c, s.VirtualCluster); err != nil {
				return SessionsFound{}, err
			}
			seen[s.VirtualCluster] = visible
		}
		if !visible {
			found.Total--
			continue
		}
		kept = append(kept, s)
	}
	found.Sessions = kept
	return found, nil
}

func (a *API) seesCluster(ctx context.Context, c *call, name string) (bool, error) {
	_, err := a.visible(ctx, c, resource.Key{Kind: resource.KindVirtualCluster, Name: name})
	if err == nil {
		return true, nil
	}
	if p, ok := errors.AsType[*Problem](a.fail(ctx, err)); ok && p.Status == http.StatusNotFound {
		return false, nil
	}
	return false, err
}

func (a *API) sessionRoutes() {
	type list struct {
		Items      []Session `json:"items"`
		Total      int       `json:"total" doc:"How many there are; items has the first of them."`
		Incomplete bool      `json:"incomplete,omitempty" doc:"Not every node has answered in a second: there may be more."`
		Missing    []string  `json:"missing,omitempty" doc:"The nodes that have not. Left out for tokens of a tenant."`
	}
	type input struct {
		Tenant         string `query:"tenant" maxLength:"63" doc:"Only what is this tenant's."`
		VirtualCluster string `query:"virtualCluster" maxLength:"249" doc:"Only those of this one."`
		Principal      string `query:"principal" maxLength:"300" example:"User:billing" doc:"Only those of this one."`
		Node           string `query:"node" maxLength:"249" doc:"Only those on this node. For a token of a tenant there are none."`
		Limit          int    `query:"limit" minimum:"1" maximum:"1000" doc:"The most that are told of; 100."`
	}
	register(a, route{
		method: http.MethodGet, path: "/v1/sessions", id: "listSessions", tag: "fleet", summary: "List the clients that are connected", roles: forOps | forTenant,
		description: "As they are now: the nodes are asked, and have a second to answer. Sorted by virtual cluster, principal and age.",
		answers:     map[int]documented{200: {"The sessions.", a.schemas.registry.Schema(reflect.TypeFor[list](), true, "SessionList"), nil, nil}},
	}, func(ctx context.Context, c *call, in *input) (*reply, error) {
		out := list{Items: []Session{}}
		tenant, some := c.of(in.Tenant)
		some = some && (in.Node == "" || c.caller.Role == control.RoleOps)
		if some && in.VirtualCluster != "" && c.caller.Role != control.RoleOps {
			var err error
			if some, err = a.seesCluster(ctx, c, in.VirtualCluster); err != nil {
				return nil, err
			}
		}
		if !some {
			return &reply{body: out}, nil
		}
		limit := in.Limit
		if limit == 0 {
			limit = 100
		}
		found, err := a.sessions(ctx, c, SessionQuery{Tenant: tenant, VirtualCluster: in.VirtualCluster, Principal: in.Principal, Node: in.Node, Limit: limit})
		if err != nil {
			return nil, err
		}
		out.Items, out.Total, out.Incomplete, out.Missing = append(out.Items, found.Sessions...), found.Total, len(found.Missing) > 0, found.Missing
		if c.caller.Role != control.RoleOps {
			out.Missing = nil
			for i := range out.Items {
				out.Items[i].Node = ""
			}
		}
		return &reply{body: out}, nil
	})
	register(a, route{
		method: http.MethodDelete, path: "/v1/sessions/{id}", id: "closeSession", tag: "fleet", summary: "Close a client's connection", roles: forOps | forTenant, write: true,
		description: "Now, whatever is in flight. The client may come back: what keeps it away is to revoke its secret.",
		answers:     map[int]documented{204: {"It is closed.", nil, nil, nil}},
	}, func(ctx context.Context, c *call, _ *noParameters) (*reply, error) {
		id, err := c.named("id")
		if err != nil {
			return nil, err
		}
		found, err := a.sessions(ctx, c, SessionQuery{ID: id, Tenant: c.caller.tenant(), Limit: 1})
		if err != nil {
			return nil, err
		}
		if len(found.Sessions) == 0 {
			if len(found.Missing) > 0 {
				return nil, problem(http.StatusServiceUnavailable, "not every node has answered, and none of the others has a session of that id: try again").with("Retry-After", "2")
			}
			return nil, notFound()
		}
		if c.caller.ReadOnly {
			return nil, c.caller.forbidden()
		}
		s := found.Sessions[0]
		detail := fmt.Sprintf("session %s of %s from %s", s.ID, s.Principal, s.Address)
		if s.Principal == "" {
			detail = fmt.Sprintf("session %s, which had not logged in, from %s", s.ID, s.Address)
		}
		if err := a.control.ClosesSession(ctx, c.caller.actor, s.VirtualCluster, detail); err != nil {
			return nil, err
		}
		switch told, err := a.fleet.CloseSession(ctx, s.Node, s.ID); {
		case errors.Is(err, ErrNoNode): // it has ended, and the session with it
		case err != nil:
			return nil, fmt.Errorf("%w: %w", errNoFleet, err)
		case !told:
			return nil, problem(http.StatusServiceUnavailable, "the node has not answered, and may not have closed it: try again").with("Retry-After", "2")
		}
		return &reply{status: http.StatusNoContent}, nil
	})
}
