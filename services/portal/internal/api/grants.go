package api

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/control"
)

// NewGrantRequest is what a tenant asks to be lent.
type NewGrantRequest struct {
	Topic  resource.TopicSelector `json:"topic" doc:"The topic as the tenant was told of it, or what the names of several begin with. Nobody looks whether there is one."`
	Access string                 `json:"access" enum:"read,read-write"`
	Until  time.Time              `json:"until,omitzero" doc:"Missing: no end."`
	Reason string                 `json:"reason" minLength:"1" maxLength:"1000" doc:"For those who decide."`
}

// GrantRequest is a request, and what became of it.
type GrantRequest struct {
	ID        string                 `json:"id"`
	Tenant    string                 `json:"tenant"`
	State     string                 `json:"state" enum:"open,approved,refused,withdrawn" doc:"It is decided once."`
	Topic     resource.TopicSelector `json:"topic" doc:"As it was asked for: what is lent may have another name."`
	Access    string                 `json:"access" enum:"read,read-write"`
	Until     time.Time              `json:"until,omitzero" doc:"Missing: no end."`
	Reason    string                 `json:"reason"`
	Asked     time.Time              `json:"asked"`
	AskedBy   string                 `json:"askedBy" doc:"A token's name and id. To a token of a tenant: operator, unless it was one of the tenant's own."`
	Decided   time.Time              `json:"decided,omitzero" doc:"Missing: it is open."`
	DecidedBy string                 `json:"decidedBy,omitempty" doc:"As askedBy."`
	Answer    string                 `json:"answer,omitempty" doc:"Why it was refused."`
	Granted   *GrantedTopic          `json:"granted,omitempty" doc:"What was lent when it was approved: the TopicGrant may have changed or ended since."`
}

// GrantedTopic is what anybody may know of a TopicGrant.
type GrantedTopic struct {
	Name   string    `json:"name" doc:"Of the TopicGrant."`
	Access string    `json:"access" enum:"read,read-write"`
	Until  time.Time `json:"until,omitzero" doc:"Missing: no end."`
}

// GrantApproval is what is lent: what was asked for, or less.
type GrantApproval struct {
	Cluster string                  `json:"cluster" doc:"The UpstreamCluster that the topic is on."`
	Topic   *resource.TopicSelector `json:"topic,omitempty" doc:"As the brokers know it. Missing: as it was asked for."`
	Access  string                  `json:"access,omitempty" enum:"read,read-write" doc:"Missing: as it was asked for."`
	Until   time.Time               `json:"until,omitzero" doc:"Missing: as it was asked for."`
	Name    string                  `json:"name,omitempty" maxLength:"63" doc:"Of the TopicGrant, which the tenant sees. Missing: one with the request's id in it."`
}

// GrantRefusal is an answer to a tenant.
type GrantRefusal struct {
	Reason string `json:"reason" minLength:"1" maxLength:"1000" doc:"The tenant reads it."`
}

// request is a request as the caller may read it.
func (c *call) request(r control.GrantRequest) GrantRequest {
	r = r.For(c.caller.tenant())
	out := GrantRequest{
		ID: r.ID, Tenant: r.Tenant, State: string(r.State), Topic: r.Topic, Access: string(r.Access), Until: r.Until, Reason: r.Reason,
		Asked: r.Asked, AskedBy: r.AskedBy, Decided: r.Decided, DecidedBy: r.DecidedBy, Answer: r.Answer,
	}
	if g := r.Granted; g != nil {
		out.Granted = &GrantedTopic{Name: g.Name, Access: string(g.Access), Until: g.Until}
	}
	return out
}

// withoutDeciders is a request in the log as a tenant may read it.
func withoutDeciders(tenant string, document json.RawMessage) ([]byte, error) {
	var r control.GrantRequest
	if err := json.Unmarshal(document, &r); err != nil {
		return nil, err
	}
	return json.Marshal(r.For(tenant))
}

func (a *API) grantRoutes() {
	const (
		path = "/v1/tenants/{tenant}/topic-grant-requests"
		one  = path + "/{id}"
	)
	both := forOps | forTenant
	grant, _ := resource.KindOf(resource.KindTopicGrant)
	reg := a.schemas.registry
	request := reg.Schema(reflect.TypeFor[GrantRequest](), true, "")
	list := map[int]documented{200: {"A page.", a.listSchema("GrantRequestList", request), nil, nil}}
	decided := documented{"The request as it is now; in a dry run, as it would be.", request, nil, nil}

	type listOf struct {
		State string `query:"state" enum:"open,approved,refused,withdrawn" doc:"Only those."`
		Paging
	}
	type listOfAll struct {
		State  string `query:"state" enum:"open,approved,refused,withdrawn" doc:"Only those."`
		Tenant string `query:"tenant" maxLength:"63" doc:"Only this tenant's."`
		Paging
	}
	register(a, route{
		method: http.MethodGet, path: "/v1/topic-grant-requests", id: "listAllGrantRequests", tag: "requests", summary: "List requests for TopicGrants everywhere", roles: both,
		description: "Those first that wait the longest.",
		answers:     list,
	}, func(ctx context.Context, c *call, in *listOfAll) (*reply, error) {
		tenant, ok := c.of(in.Tenant)
		if !ok {
			return &reply{body: grantRequests{Items: []GrantRequest{}}}, nil
		}
		return a.listGrantRequests(ctx, c, tenant, in.State, &in.Paging)
	})
	register(a, route{
		method: http.MethodGet, path: path, id: "listGrantRequests", tag: "requests", summary: "List a tenant's requests", roles: both,
		description: "Those first that wait the longest. Of those that were decided, the last hundred are kept; the log has all.",
		answers:     list,
	}, func(ctx context.Context, c *call, in *listOf) (*reply, error) {
		tenant, err := a.within(ctx, c, grant)
		if err != nil {
			return nil, err
		}
		return a.listGrantRequests(ctx, c, tenant, in.State, &in.Paging)
	})
	register(a, route{
		method: http.MethodGet, path: one, id: "getGrantRequest", tag: "requests", summary: "Read a request", roles: both,
		answers: map[int]documented{200: {"The request.", request, nil, nil}},
	}, func(ctx context.Context, c *call, _ *noParameters) (*reply, error) {
		tenant, id, err := c.grantRequest()
		if err != nil {
			return nil, err
		}
		r, err := a.control.GetGrantRequest(ctx, tenant, id, c.own(false))
		return &reply{body: c.request(r)}, err
	})
	register(a, route{
		method: http.MethodPost, path: path, id: "requestGrant", tag: "requests", summary: "Ask to be lent a topic", roles: both, write: true,
		description: "It is kept until those who run the gateway decide, whatever there is of that name. The same again while it is open is that request, 200. How many may be open is limited.",
		body:        reg.Schema(reflect.TypeFor[NewGrantRequest](), true, ""),
		answers: map[int]documented{
			200: {"It is open already; or this was a dry run.", request, nil, nil},
			201: {"It is open.", request, nil, []string{"Location"}},
		},
	}, func(ctx context.Context, c *call, in *DryRun) (*reply, error) {
		tenant, err := a.within(ctx, c, grant)
		if err != nil {
			return nil, err
		}
		if c.caller.ReadOnly {
			return nil, c.caller.forbidden()
		}
		var ask NewGrantRequest
		if p := c.body.decode(&ask); p != nil {
			return nil, p
		}
		r, change, err := a.control.AskGrant(ctx, c.caller.actor, tenant, control.GrantAsk{
			Topic: ask.Topic, Access: resource.Access(ask.Access), Until: ask.Until, Reason: ask.Reason,
		}, c.own(in.DryRun))
		if err != nil {
			return nil, err
		}
		if change == control.Unchanged || in.DryRun {
			return &reply{body: c.request(r)}, nil
		}
		c.w.Header().Set("Location", location(resource.Key{Kind: resource.KindTenant, Name: tenant})+"/topic-grant-requests/"+r.ID)
		return &reply{status: http.StatusCreated, body: c.request(r)}, nil
	})
	register(a, route{
		method: http.MethodPost, path: one + "/withdraw", id: "withdrawGrantRequest", tag: "requests", summary: "Take an open request back", roles: both, write: true,
		answers: map[int]documented{200: decided},
	}, func(ctx context.Context, c *call, in *DryRun) (*reply, error) {
		tenant, id, err := c.grantRequest()
		if err != nil {
			return nil, err
		}
		if c.caller.ReadOnly {
			if _, err := a.control.GetGrantRequest(ctx, tenant, id, c.own(false)); err != nil {
				return nil, err
			}
			return nil, c.caller.forbidden()
		}
		r, err := a.control.WithdrawGrant(ctx, c.caller.actor, tenant, id, c.own(in.DryRun))
		return &reply{body: c.request(r)}, err
	})
	register(a, route{
		method: http.MethodPost, path: one + "/refuse", id: "refuseGrantRequest", tag: "requests", summary: "Say no to a request, and why", roles: forOps, write: true,
		body:    reg.Schema(reflect.TypeFor[GrantRefusal](), true, ""),
		answers: map[int]documented{200: decided},
	}, func(ctx context.Context, c *call, in *DryRun) (*reply, error) {
		tenant, id, err := c.grantRequest()
		if err != nil {
			return nil, err
		}
		var refusal GrantRefusal
		if p := c.body.decode(&refusal); p != nil {
			return nil, p
		}
		r, err := a.control.RefuseGrant(ctx, c.caller.actor, tenant, id, refusal.Reason, c.own(in.DryRun))
		return &reply{body: c.request(r)}, err
	})
	type approveInput struct {
		DryRun
		Waiting
	}
	told := []string{"Tollgate-Applied"}
	register(a, route{
		method: http.MethodPost, path: one + "/approve", id: "approveGrantRequest", tag: "requests", summary: "Make a TopicGrant of a request", roles: forOps, write: true,
		description: "What is lent is what was asked for, or less; the TopicGrant is one like all others from then on.",
		body:        reg.Schema(reflect.TypeFor[GrantApproval](), true, ""),
		answers: map[int]documented{
			200: {decided.description, request, nil, told},
			202: {"The change is kept. Not every node serves it yet, which Tollgate-Applied says more about.", request, nil, told},
		},
	}, func(ctx context.Context, c *call, in *approveInput) (*reply, error) {
		wait, err := in.patience()
		if err != nil {
			return nil, err
		}
		tenant, id, err := c.grantRequest()
		if err != nil {
			return nil, err
		}
		var ask GrantApproval
		if p := c.body.decode(&ask); p != nil {
			return nil, p
		}
		approval := control.Approval{Name: ask.Name, Cluster: ask.Cluster, Access: resource.Access(ask.Access), Until: ask.Until}
		if ask.Topic != nil {
			approval.Topic = *ask.Topic
		}
		options := c.own(in.DryRun.DryRun)
		r, revision, err := a.control.ApproveGrant(ctx, c.caller.actor, tenant, id, approval, options)
		if err != nil {
			return nil, err
		}
		return &reply{status: a.waited(ctx, c, http.StatusOK, revision, wait, options.DryRun), body: c.request(r)}, nil
	})
}

// grantRequests is a page of them.
type grantRequests struct {
	Items []GrantRequest `json:"items"`
	Next  string         `json:"next,omitempty"`
}

func (a *API) listGrantRequests(ctx context.Context, c *call, tenant, state string, in *Paging) (*reply, error) {
	page, err := a.control.ListGrantRequests(ctx, control.GrantRequestQuery{Tenant: tenant, State: control.RequestState(state), Limit: in.limit(), After: in.After})
	if err != nil {
		return nil, inQuery(err)
	}
	out := grantRequests{Items: make([]GrantRequest, len(page.Items)), Next: page.Next}
	for i, r := range page.Items {
		out.Items[i] = c.request(r)
	}
	return &reply{body: out}, nil
}

// grantRequest is the request that the path names.
func (c *call) grantRequest() (tenant, id string, err error) {
	if tenant, err = c.named("tenant"); err == nil {
		id, err = c.named("id")
	}
	return tenant, id, err
}

// own are the options of a change that stays within what is the caller's.
func (c *call) own(dryRun bool) control.Options {
	return control.Options{DryRun: dryRun, Tenant: c.caller.tenant()}
}
