package client

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"tollgate.internal/pkg/resource"
)

// Result is what became of one object.
type Result struct {
	Key    resource.Key
	Change string  // created, replaced, unchanged, deleted
	Before *Object // nil: there was none
	After  *Object // nil: there is none
}

// The changes of a [Result].
const (
	Created   = "created"
	Replaced  = "replaced"
	Unchanged = "unchanged"
	Deleted   = "deleted"
)

// Applied is what became of many objects, all of them or none.
type Applied struct {
	Results  []Result
	Revision int64 // of the change
}

// Apply creates or replaces objects together. With prune, objects that the selector
// selects and that are not among them are deleted.
func (c *Client) Apply(ctx context.Context, objects []resource.Object, prune string, ch Change) (*Applied, error) {
	bodies := make([]json.RawMessage, len(objects))
	for i, o := range objects {
		body, err := resource.Marshal(o)
		if err != nil {
			return nil, err
		}
		bodies[i] = body
	}
	query := ch.query()
	if prune != "" {
		query.Set("prune", prune)
	}
	var answer struct {
		Revision int64 `json:"revision"`
		Results  []struct {
			Kind   string  `json:"kind"`
			Scope  string  `json:"scope"`
			Name   string  `json:"name"`
			Change string  `json:"change"`
			Before *Object `json:"before"`
			Object *Object `json:"object"`
		} `json:"results"`
	}
	err := c.do(ctx, request{method: http.MethodPost, path: "/v1/apply", query: query, body: bodies, wait: ch.Wait}, &answer)
	if err != nil && !IsLate(err) {
		return nil, err
	}
	applied := &Applied{Revision: answer.Revision}
	for _, r := range answer.Results {
		one := Result{Key: resource.Key{Kind: r.Kind, Scope: r.Scope, Name: r.Name}, Change: r.Change, Before: r.Before, After: r.Object}
		if r.Change == Deleted {
			one.Before, one.After = r.Object, nil
		}
		applied.Results = append(applied.Results, one)
	}
	return applied, err
}

// Secret is a secret of a service account. Only the answer to issuing one has its password.
type Secret struct {
	ID       string    `json:"id"`
	Username string    `json:"username,omitempty"`
	Password string    `json:"password,omitempty"`
	Created  time.Time `json:"created,omitzero"`
	Expires  time.Time `json:"expires,omitzero"`
	Imported bool      `json:"imported,omitempty"`
	Change   string    `json:"change,omitempty"` // by what was just done: created, unchanged
}

// NewSecret is what a secret is to be made of; without anything one is issued.
type NewSecret struct {
	Password  string              `json:"password,omitempty"`
	Verifiers []resource.Verifier `json:"verifiers,omitempty"`
	Expires   *time.Time          `json:"expires,omitempty"`
}

// AddSecret issues or imports a secret of a service account. Importing what is live
// already changes nothing.
func (c *Client) AddSecret(ctx context.Context, account resource.Key, s NewSecret, wait time.Duration) (*Secret, error) {
	secret := new(Secret)
	r := request{
		method: http.MethodPost, path: pathOf(account) + "/secrets", query: Change{Wait: wait}.query(), body: s, wait: wait,
		once: s.Password == "" && s.Verifiers == nil,
	}
	err := c.do(ctx, r, secret)
	if err != nil && !IsLate(err) {
		return nil, named(account, err)
	}
	return secret, err
}

// ExpireSecret ends a secret at a time.
func (c *Client) ExpireSecret(ctx context.Context, account resource.Key, id string, at time.Time, wait time.Duration) error {
	err := c.do(ctx, request{
		method: http.MethodPatch, path: pathOf(account) + "/secrets/" + url.PathEscape(id), query: Change{Wait: wait}.query(), wait: wait,
		body: map[string]any{"expires": at},
	}, nil)
	return namedPart("secret "+id, account, err)
}

// RevokeSecret ends a secret at once, and the sessions that live by it.
func (c *Client) RevokeSecret(ctx context.Context, account resource.Key, id string, wait time.Duration) error {
	err := c.do(ctx, request{method: http.MethodDelete, path: pathOf(account) + "/secrets/" + url.PathEscape(id), query: Change{Wait: wait}.query(), wait: wait}, nil)
	return namedPart("secret "+id, account, err)
}

func namedPart(what string, of resource.Key, err error) error {
	if IsNotFound(err) {
		return fmt.Errorf("%s of %s: %w", what, of, err)
	}
	return err
}

// GrantRequest is what a tenant asks to be lent, and what became of it. The fields are
// those of the API.
type GrantRequest struct {
	ID        string                 `json:"id"`
	Tenant    string                 `json:"tenant"`
	State     string                 `json:"state"` // open, approved, refused, withdrawn
	Topic     resource.TopicSelector `json:"topic"`
	Access    resource.Access        `json:"access"`
	Until     time.Time              `json:"until,omitzero"`
	Reason    string                 `json:"reason"`
	Asked     time.Time              `json:"asked"`
	AskedBy   string                 `json:"askedBy"`
	Decided   time.Time              `json:"decided,omitzero"`
	DecidedBy string                 `json:"decidedBy,omitempty"`
	Answer    string                 `json:"answer,omitempty"`
	Granted   *Granted               `json:"granted,omitempty"`
}

// Granted is what was lent.
type Granted struct {
	Name   string          `json:"name"` // of the TopicGrant
	Access resource.Access `json:"access"`
	Until  time.Time       `json:"until,omitzero"`
}

// NewGrantRequest is what is asked for.
type NewGrantRequest struct {
	Topic  resource.TopicSelector `json:"topic"`
	Access resource.Access        `json:"access"`
	Until  *time.Time             `json:"until,omitempty"`
	Reason string                 `json:"reason"`
}

// Approval is what is lent; what is empty is as it was asked for.
type Approval struct {
	Cluster string                  `json:"cluster"`
	Topic   *resource.TopicSelector `json:"topic,omitempty"`
	Access  resource.Access         `json:"access,omitempty"`
	Until   *time.Time              `json:"until,omitempty"`
	Name    string                  `json:"name,omitempty"`
}

func requestsPath(tenant string) string {
	return "/v1/tenants/" + url.PathEscape(tenant) + "/topic-grant-requests"
}

// GrantRequests lists requests, the oldest first. Empty strings select all.
func (c *Client) GrantRequests(ctx context.Context, tenant, state string) iter.Seq2[GrantRequest, error] {
	return pages[GrantRequest](ctx, c, "/v1/topic-grant-requests", listQuery("tenant", tenant, "state", state))
}

// RequestGrant asks to be lent a topic. The same again while it is open is that request.
func (c *Client) RequestGrant(ctx context.Context, tenant string, ask NewGrantRequest) (*GrantRequest, error) {
	r := new(GrantRequest)
	err := c.do(ctx, request{method: http.MethodPost, path: requestsPath(tenant), body: ask}, r)
	return r, named(resource.Key{Kind: resource.KindTenant, Name: tenant}, err)
}

// ApproveGrant makes a TopicGrant of a request.
func (c *Client) ApproveGrant(ctx context.Context, tenant, id string, a Approval, ch Change) (*GrantRequest, error) {
	return c.decide(ctx, tenant, id, "approve", a, ch)
}

// RefuseGrant says no to a request, and why.
func (c *Client) RefuseGrant(ctx context.Context, tenant, id, reason string) (*GrantRequest, error) {
	return c.decide(ctx, tenant, id, "refuse", map[string]string{"reason": reason}, Change{})
}

// WithdrawGrant takes a request back.
func (c *Client) WithdrawGrant(ctx context.Context, tenant, id string) (*GrantRequest, error) {
	return c.decide(ctx, tenant, id, "withdraw", nil, Change{})
}

func (c *Client) decide(ctx context.Context, tenant, id, decision string, body any, ch Change) (*GrantRequest, error) {
	r := new(GrantRequest)
	err := c.do(ctx, request{method: http.MethodPost, path: requestsPath(tenant) + "/" + url.PathEscape(id) + "/" + decision, query: ch.query(), body: body, wait: ch.Wait}, r)
	if IsNotFound(err) {
		return nil, fmt.Errorf("request %s of %s: %w", id, tenant, err)
	}
	return r, err
}

// Token is an API token. Only the answer to creating one has the token itself.
type Token struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Role     string    `json:"role"` // ops, tenant, node
	Tenant   string    `json:"tenant,omitempty"`
	ReadOnly bool      `json:"readOnly,omitempty"`
	Token    string    `json:"token,omitempty"`
	Created  time.Time `json:"created,omitzero"`
	Expires  time.Time `json:"expires,omitzero"`
	Revoked  time.Time `json:"revoked,omitzero"`
	LastUsed time.Time `json:"lastUsed,omitzero"`
}

// NewToken is what a token is to be.
type NewToken struct {
	Name     string     `json:"name"`
	Role     string     `json:"role"`
	Tenant   string     `json:"tenant,omitempty"`
	ReadOnly bool       `json:"readOnly,omitempty"`
	Expires  *time.Time `json:"expires,omitempty"`
}

// CreateToken makes an API token.
func (c *Client) CreateToken(ctx context.Context, t NewToken) (*Token, error) {
	made := new(Token)
	return made, c.do(ctx, request{method: http.MethodPost, path: "/v1/tokens", body: t, once: true}, made)
}

// Tokens lists API tokens.
func (c *Client) Tokens(ctx context.Context) iter.Seq2[Token, error] {
	return pages[Token](ctx, c, "/v1/tokens", make(url.Values))
}

// RevokeToken ends an API token.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.do(ctx, request{method: http.MethodDelete, path: "/v1/tokens/" + url.PathEscape(id)}, nil)
}

// Node is a proxy of the fleet.
type Node struct {
	ID        string    `json:"id"`
	Host      string    `json:"host"`
	Port      int32     `json:"port"`
	Domain    string    `json:"domain,omitempty"` // of its own
	Rack      string    `json:"rack,omitempty"`
	Version   string    `json:"version"`
	State     string    `json:"state"`
	Sessions  int       `json:"sessions"`
	Load      float64   `json:"load"`
	Applied   int64     `json:"applied"`
	Problem   string    `json:"problem,omitempty"`
	Started   time.Time `json:"started,omitzero"`
	Heartbeat time.Time `json:"heartbeat,omitzero"`
}

// Nodes lists the nodes of the fleet, and says why they do not learn of changes, if
// they do not.
func (c *Client) Nodes(ctx context.Context) (nodes []Node, problem string, err error) {
	var answer struct {
		Items   []Node `json:"items"`
		Problem string `json:"problem"`
	}
	err = c.do(ctx, request{method: http.MethodGet, path: "/v1/nodes"}, &answer)
	return answer.Items, answer.Problem, err
}

// Drain tells a node to move its clients to others over a time.
func (c *Client) Drain(ctx context.Context, node string, over time.Duration) error {
	var body struct {
		Over string `json:"over,omitempty"`
	}
	if over > 0 {
		body.Over = over.String()
	}
	return c.node(ctx, node, "drain", body)
}

// Undrain tells a node to take clients again.
func (c *Client) Undrain(ctx context.Context, node string) error {
	return c.node(ctx, node, "undrain", nil)
}

func (c *Client) node(ctx context.Context, node, action string, body any) error {
	err := c.do(ctx, request{method: http.MethodPost, path: "/v1/nodes/" + url.PathEscape(node) + "/" + action, body: body}, nil)
	if IsNotFound(err) {
		return fmt.Errorf("node %s: %w", node, err)
	}
	return err
}

// Session is a client's connection. The fields are those of the API.
type Session struct {
	ID              string    `json:"id"`
	Tenant          string    `json:"tenant"`
	VirtualCluster  string    `json:"virtualCluster"`
	Principal       string    `json:"principal,omitempty"`
	Mechanism       string    `json:"mechanism,omitempty"`
	ClientID        string    `json:"clientId,omitempty"`
	Software        string    `json:"software,omitempty"`
	SoftwareVersion string    `json:"softwareVersion,omitempty"`
	Address         string    `json:"address"`
	Node            string    `json:"node,omitempty"`
	Since           time.Time `json:"since"`
	LastRequest     time.Time `json:"lastRequest"`
	Requests        uint64    `json:"requests"`
	BytesIn         uint64    `json:"bytesIn"`
	BytesOut        uint64    `json:"bytesOut"`
}

// SessionQuery selects sessions. Empty fields select all.
type SessionQuery struct {
	Tenant, VirtualCluster, Principal, Node string
	Limit                                   int
}

// Sessions are those that the nodes tell of.
type Sessions struct {
	Items      []Session `json:"items"`
	Total      int       `json:"total"`
	Incomplete bool      `json:"incomplete,omitempty"`
	Missing    []string  `json:"missing,omitempty"` // nodes that have not answered
}

// Sessions lists the clients that are connected.
func (c *Client) Sessions(ctx context.Context, q SessionQuery) (*Sessions, error) {
	query := listQuery("tenant", q.Tenant, "virtualCluster", q.VirtualCluster, "principal", q.Principal, "node", q.Node)
	if q.Limit > 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	answer := new(Sessions)
	return answer, c.do(ctx, request{method: http.MethodGet, path: "/v1/sessions", query: query}, answer)
}

// CloseSession closes a client's connection.
func (c *Client) CloseSession(ctx context.Context, id string) error {
	err := c.do(ctx, request{method: http.MethodDelete, path: "/v1/sessions/" + url.PathEscape(id)}, nil)
	if IsNotFound(err) {
		return fmt.Errorf("session %s: %w", id, err)
	}
	return err
}

// Entry is one line of the audit log.
type Entry struct {
	Revision  int64           `json:"revision"`
	Seq       int64           `json:"seq"`
	Time      time.Time       `json:"time"`
	Actor     string          `json:"actor"`
	ActorKind string          `json:"actorKind"`
	Address   string          `json:"address"`
	Action    string          `json:"action"`
	Kind      string          `json:"kind"`
	Scope     string          `json:"scope"`
	Name      string          `json:"name"`
	Tenant    string          `json:"tenant"`
	Detail    string          `json:"detail"`
	Before    json.RawMessage `json:"before"`
	After     json.RawMessage `json:"after"`

	Raw json.RawMessage `json:"-"`
}

// UnmarshalJSON keeps the line as it came, too.
func (e *Entry) UnmarshalJSON(data []byte) error {
	type plain Entry
	if err := json.Unmarshal(data, (*plain)(e)); err != nil {
		return err
	}
	e.Raw = append(json.RawMessage(nil), data...)
	return nil
}

// AuditQuery selects from the log. Empty fields select all.
type AuditQuery struct {
	Key      resource.Key // every field for itself
	Tenant   string
	Actor    string
	Action   string
	From, To time.Time
	Oldest   bool // oldest first; otherwise newest first
	PageSize int
}

// Audit reads the log.
func (c *Client) Audit(ctx context.Context, q AuditQuery) iter.Seq2[*Entry, error] {
	query := listQuery("kind", q.Key.Kind, "scope", q.Key.Scope, "name", q.Key.Name, "tenant", q.Tenant, "actor", q.Actor, "action", q.Action)
	if !q.From.IsZero() {
		query.Set("from", q.From.Format(time.RFC3339))
	}
	if !q.To.IsZero() {
		query.Set("to", q.To.Format(time.RFC3339))
	}
	if q.Oldest {
		query.Set("order", "oldest")
	}
	if q.PageSize > 0 {
		query.Set("limit", strconv.Itoa(q.PageSize))
	}
	return pages[*Entry](ctx, c, "/v1/audit", query)
}
