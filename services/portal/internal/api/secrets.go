package api

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/services/portal/internal/control"
)

// NewSecret is what a secret is to be made of. Without password and verifiers one
// is made here.
type NewSecret struct {
	Password  string              `json:"password,omitempty" maxLength:"1024" doc:"A password that clients have already."`
	Verifiers []resource.Verifier `json:"verifiers,omitempty" doc:"What verifies a password that clients have already, one for each mechanism."`
	Expires   time.Time           `json:"expires,omitzero" doc:"Missing: never."`
}

// AddedSecret is a secret that was issued or imported.
type AddedSecret struct {
	SecretStatus
	Username string `json:"username" doc:"What clients log in as."`
	Password string `json:"password,omitempty" doc:"Of a secret that was made here: told now and never again."`
	Change   string `json:"change" enum:"created,unchanged" doc:"unchanged: the account has the secret already, live."`
}

// SecretPatch changes when a secret ends.
type SecretPatch struct {
	Expires *time.Time `json:"expires" doc:"A time that is past, or now, ends it at once. null: never."`
}

func (a *API) secretRoutes() {
	const (
		path = "/v1/virtual-clusters/{virtualCluster}/service-accounts/{name}/secrets"
		one  = path + "/{id}"
	)
	both := forOps | forTenant
	reg := a.schemas.registry
	added := reg.Schema(reflect.TypeFor[AddedSecret](), true, "")
	known := reg.Schema(reflect.TypeFor[SecretStatus](), true, "")
	told := []string{"Tollgate-Applied"}
	const kept = "The change is kept. Not every node serves it yet, which Tollgate-Applied says more about."
	type input struct {
		DryRun
		Waiting
	}

	register(a, route{
		method: http.MethodGet, path: path, id: "listSecrets", tag: "secrets", summary: "List the secrets of a service account", roles: both,
		answers: map[int]documented{200: {"The oldest first, ended ones too.", a.listSchema("SecretList", known), nil, nil}},
	}, func(ctx context.Context, c *call, in *Paging) (*reply, error) {
		key, err := a.account(ctx, c, false)
		if err != nil {
			return nil, err
		}
		all, err := a.control.ListSecrets(ctx, key, c.own(false))
		if err != nil {
			return nil, err
		}
		out := struct {
			Items []SecretStatus `json:"items"`
		}{make([]SecretStatus, len(all))}
		for i, s := range all { // two are live and the rest is swept: there is one page
			out.Items[i] = secretOf(s)
		}
		return &reply{body: out}, nil
	})
	register(a, route{
		method: http.MethodPost, path: path, id: "addSecret", tag: "secrets", summary: "Issue or import a secret", roles: both, write: true,
		description: "Without a body, or with expires only, a secret is made and told once. With password or verifiers one is imported; one that is live already is left as it is. Two secrets may be live: the old one and the new one.",
		body:        reg.Schema(reflect.TypeFor[NewSecret](), true, ""), optional: true,
		answers: map[int]documented{
			200: {"The account has it already; or this was a dry run.", added, nil, told},
			201: {"It is made.", added, nil, told},
			202: {kept, added, nil, told},
		},
	}, func(ctx context.Context, c *call, in *input) (*reply, error) {
		wait, err := in.patience()
		if err != nil {
			return nil, err
		}
		key, err := a.account(ctx, c, true)
		if err != nil {
			return nil, err
		}
		var ask NewSecret
		if c.body.data != nil {
			if p := c.body.decode(&ask); p != nil {
				return nil, p
			}
		}
		options := c.own(in.DryRun.DryRun)
		out := AddedSecret{Username: key.Name, Change: string(control.Created)}
		var revision int64
		if ask.Password == "" && ask.Verifiers == nil {
			issued, err := a.control.IssueSecret(ctx, c.caller.actor, key, ask.Expires, options)
			if err != nil {
				return nil, err
			}
			out.SecretStatus, revision = secretOf(issued.Secret), issued.Revision
			if !options.DryRun { // what was not kept is no password
				out.Password = issued.Password.Reveal()
			}
		} else {
			s, change, at, err := a.control.ImportSecret(ctx, c.caller.actor, key, control.Import{
				Password: secret.New(ask.Password), Verifiers: ask.Verifiers, Expires: ask.Expires,
			}, options)
			if err != nil {
				return nil, err
			}
			out.SecretStatus, out.Change, revision = secretOf(s), string(change), at
		}
		status := http.StatusCreated
		if out.Change == string(control.Unchanged) || options.DryRun {
			status = http.StatusOK
		}
		return &reply{status: a.waited(ctx, c, status, revision, wait, options.DryRun), body: out}, nil
	})
	register(a, route{
		method: http.MethodPatch, path: one, id: "expireSecret", tag: "secrets", summary: "Set when a secret ends", roles: both, write: true,
		body: reg.Schema(reflect.TypeFor[SecretPatch](), true, ""), types: []string{typeMerge, typeJSON},
		answers: map[int]documented{200: {"The secret as it is now.", known, nil, told}, 202: {kept, known, nil, told}},
	}, func(ctx context.Context, c *call, in *input) (*reply, error) {
		wait, err := in.patience()
		if err != nil {
			return nil, err
		}
		key, err := a.account(ctx, c, true)
		if err != nil {
			return nil, err
		}
		id, err := c.named("id")
		if err != nil {
			return nil, err
		}
		ask := SecretPatch{Expires: new(time.Time)}
		if p := c.body.decode(&ask); p != nil {
			return nil, p
		}
		var expires time.Time
		switch {
		case ask.Expires == nil: // null
		case ask.Expires.IsZero():
			return nil, invalid(FieldError{Field: "expires", Message: "required: a time, or null for never"})
		default:
			expires = *ask.Expires
		}
		options := c.own(in.DryRun.DryRun)
		s, revision, err := a.control.ExpireSecret(ctx, c.caller.actor, key, id, expires, options)
		if err != nil {
			return nil, err
		}
		return &reply{status: a.waited(ctx, c, http.StatusOK, revision, wait, options.DryRun), body: secretOf(s)}, nil
	})
	register(a, route{
		method: http.MethodDelete, path: one, id: "revokeSecret", tag: "secrets", summary: "End a secret, and the sessions that live by it", roles: both, write: true,
		answers: map[int]documented{202: {kept, nil, nil, told}, 204: {"It is no more.", nil, nil, told}},
	}, func(ctx context.Context, c *call, in *input) (*reply, error) {
		wait, err := in.patience()
		if err != nil {
			return nil, err
		}
		key, err := a.account(ctx, c, true)
		if err != nil {
			return nil, err
		}
		id, err := c.named("id")
		if err != nil {
			return nil, err
		}
		options := c.own(in.DryRun.DryRun)
		revision, err := a.control.RevokeSecret(ctx, c.caller.actor, key, id, options)
		if err != nil {
			return nil, err
		}
		return &reply{status: a.waited(ctx, c, http.StatusNoContent, revision, wait, options.DryRun)}, nil
	})
}

// account is the service account that the path names, if it is there for the caller.
func (a *API) account(ctx context.Context, c *call, change bool) (resource.Key, error) {
	kind, _ := resource.KindOf(resource.KindServiceAccount)
	key, err := c.key(kind)
	if err != nil {
		return key, err
	}
	if _, err := a.visible(ctx, c, key); err != nil {
		return key, err
	}
	if change && !c.caller.mayWrite(kind.Name) {
		return key, c.caller.forbidden()
	}
	return key, nil
}
