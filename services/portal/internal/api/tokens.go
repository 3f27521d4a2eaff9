package api

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"time"

	"tollgate.internal/services/portal/internal/control"
)

// NewToken is what a token is to be.
type NewToken struct {
	Name     string    `json:"name" minLength:"1" maxLength:"100" doc:"Who has it, or what for."`
	Role     string    `json:"role" enum:"ops,tenant,node" doc:"ops sees and changes everything; tenant what belongs to one tenant; node is for proxies."`
	Tenant   string    `json:"tenant,omitempty" doc:"Of a token of role tenant."`
	ReadOnly bool      `json:"readOnly,omitempty" doc:"It changes nothing."`
	Expires  time.Time `json:"expires,omitzero" doc:"Missing: never."`
}

// Token is what may be known of a token.
type Token struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Role      string    `json:"role" enum:"ops,tenant,node"`
	Tenant    string    `json:"tenant,omitempty"`
	ReadOnly  bool      `json:"readOnly,omitempty"`
	Token     string    `json:"token,omitempty" doc:"The token itself: told when it is made and never again."`
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"createdBy,omitempty"`
	Expires   time.Time `json:"expires,omitzero" doc:"Missing: never."`
	Revoked   time.Time `json:"revoked,omitzero" doc:"Missing: it was not."`
	LastUsed  time.Time `json:"lastUsed,omitzero" doc:"To the minute. Missing: never."`
}

func tokenOf(t control.Token) Token {
	return Token{
		ID: t.ID, Name: t.Name, Role: string(t.Role), Tenant: t.Tenant, ReadOnly: t.ReadOnly,
		Created: t.Created, CreatedBy: t.CreatedBy, Expires: t.Expires, Revoked: t.Revoked, LastUsed: t.LastUsed,
	}
}

func (a *API) tokenRoutes() {
	reg := a.schemas.registry
	token := reg.Schema(reflect.TypeFor[Token](), true, "")
	register(a, route{
		method: http.MethodGet, path: "/v1/tokens", id: "listTokens", tag: "tokens", summary: "List tokens", roles: forOps,
		answers: map[int]documented{200: {"In the order of their ids, ended ones too.", a.listSchema("TokenList", token), nil, nil}},
	}, func(ctx context.Context, _ *call, in *Paging) (*reply, error) {
		all, err := a.control.ListTokens(ctx, "")
		if err != nil {
			return nil, err
		}
		some, next, err := pageOf(all, in, func(t control.Token) string { return t.ID })
		if err != nil {
			return nil, err
		}
		out := struct {
			Items []Token `json:"items"`
			Next  string  `json:"next,omitempty"`
		}{make([]Token, len(some)), next}
		for i, t := range some {
			out.Items[i] = tokenOf(t)
		}
		return &reply{body: out}, nil
	})
	register(a, route{
		method: http.MethodPost, path: "/v1/tokens", id: "createToken", tag: "tokens", summary: "Make a token", roles: forOps, write: true,
		body:    reg.Schema(reflect.TypeFor[NewToken](), true, ""),
		answers: map[int]documented{201: {"The token, told once.", token, nil, nil}},
	}, func(ctx context.Context, c *call, _ *noParameters) (*reply, error) {
		var ask NewToken
		if p := c.body.decode(&ask); p != nil {
			return nil, p
		}
		made, shown, err := a.control.CreateToken(ctx, c.caller.actor, control.TokenRequest{
			Name: ask.Name, Role: control.Role(ask.Role), Tenant: ask.Tenant, ReadOnly: ask.ReadOnly, Expires: ask.Expires,
		})
		if missing, ok := errors.AsType[*control.NotFound](err); ok {
			return nil, invalid(FieldError{Field: "tenant", Message: missing.Error()})
		}
		if wrong, ok := errors.AsType[*control.Invalid](err); ok {
			out := fieldErrors(wrong.Problems, false)
			for i := range out {
				if out[i].Field == "scope" { // as the CLI writes role and tenant together
					out[i] = FieldError{Field: "role", Message: "required: one of ops, tenant, node"}
				}
			}
			return nil, invalid(out...)
		}
		if err != nil {
			return nil, err
		}
		out := tokenOf(made)
		out.Token = shown.Reveal()
		return &reply{status: http.StatusCreated, body: out}, nil
	})
	register(a, route{
		method: http.MethodDelete, path: "/v1/tokens/{id}", id: "revokeToken", tag: "tokens", summary: "End a token", roles: forOps, write: true,
		answers: map[int]documented{204: {"It is good for nothing any more. It stays in the list.", nil, nil, nil}},
	}, func(ctx context.Context, c *call, _ *noParameters) (*reply, error) {
		id, err := c.named("id")
		if err != nil {
			return nil, err
		}
		if err := a.control.RevokeToken(ctx, c.caller.actor, id); err != nil {
			return nil, err
		}
		return &reply{status: http.StatusNoContent}, nil
	})
}
