package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/control"
)

// caller is who sent a request, by its token.
type caller struct {
	control.Token
	actor control.Actor
}

// role is what the caller's token is for.
func (c *caller) role() role {
	switch c.Role {
	case control.RoleOps:
		return forOps
	case control.RoleTenant:
		return forTenant
	case control.RoleNode:
		return forNode
	}
	return 0
}

// tenant is the only one whose things the caller sees; empty: everybody's.
func (c *caller) tenant() string {
	if c.Role == control.RoleTenant {
		return c.Tenant
	}
	return ""
}

// sees reports whether what belongs to a tenant, or to nobody, is there for the caller.
func (c *caller) sees(tenant string) bool {
	return c.Role == control.RoleOps || c.Role == control.RoleTenant && tenant != "" && tenant == c.Tenant
}

// tenantsOwn are the kinds that a token of a tenant may change.
var tenantsOwn = []string{resource.KindServiceAccount, resource.KindACL, resource.KindBudget}

// mayWrite reports whether the caller may change objects of a kind that it sees.
func (c *caller) mayWrite(kind string) bool {
	switch {
	case c.ReadOnly:
		return false
	case c.Role == control.RoleOps:
		return true
	}
	return c.Role == control.RoleTenant && slices.Contains(tenantsOwn, kind)
}

// forbidden is for what the caller sees and may not change.
func (c *caller) forbidden() *Problem {
	if c.ReadOnly {
		return problem(http.StatusForbidden, "this token is read-only: use another one to change things")
	}
	return problem(http.StatusForbidden, "a token of a tenant changes ServiceAccounts, their secrets, Acls and Budgets, and asks for TopicGrants: the rest is changed by those who run the gateway")
}

// guard stands before every operation: it finds out who calls, and reads what was
// sent as strictly as it can be read.
func (a *API) guard(ctx huma.Context, next func(huma.Context)) {
	rt := ctx.Operation().Metadata["route"].(*route)
	r, w := humago.Unwrap(ctx)
	c := &call{r: r, w: w}
	if rt.roles != 0 {
		var p *Problem
		if c.caller, p = a.authenticate(r); p != nil {
			p.write(w)
			return
		}
		if c.caller.role()&rt.roles == 0 {
			notFound().write(w)
			return
		}
		if rt.write && c.caller.ReadOnly && rt.roles&forTenant == 0 {
			c.caller.forbidden().write(w)
			return
		}
		if c.caller.role()&(forOps|forTenant) != 0 { // nobody else sees anything
			c.view = a.viewOf(&c.caller)
		}
	}
	query, p := strictQuery(r.URL.RawQuery)
	if p != nil {
		p.write(w)
		return
	}
	r.URL.RawQuery = query
	if rt.body != nil && !(rt.optional && r.ContentLength == 0) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readPatience)) // tests' recorders have none
		if c.body, p = readBody(w, r, rt.limit, rt.types); p != nil {
			p.write(w)
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		if len(c.body.data) > largeBody {
			select {
			case a.large <- struct{}{}:
				c.done = sync.OnceFunc(func() { <-a.large })
				defer c.done()
			case <-r.Context().Done():
				return
			case <-a.stopping:
				problem(http.StatusServiceUnavailable, "the portal stops").write(w)
				return
			}
		}
		r.Body = io.NopCloser(bytes.NewReader(c.body.data)) // huma looks whether there is one
	} else if rt.body == nil && r.ContentLength > 0 {
		problem(http.StatusBadRequest, "this takes no body: send none").write(w)
		return
	}
	next(huma.WithValue(ctx, callKey{}, c))
}

// readPatience is how long a body may take to arrive.
const readPatience = 30 * time.Second

// authenticate finds out who calls.
func (a *API) authenticate(r *http.Request) (caller, *Problem) {
	about := requestOf(r.Context())
	refuse := func(reason, challenge, text string) (caller, *Problem) {
		a.metrics.logins.WithLabelValues(reason).Inc()
		if wait := a.limiter.failed(about.address); wait > 0 {
			seconds := strconv.Itoa(int(math.Ceil(wait.Seconds())))
			return caller{}, problem(http.StatusTooManyRequests, "too many requests without a good token came from this address").with("Retry-After", seconds)
		}
		return caller{}, problem(http.StatusUnauthorized, "%s", text).with("WWW-Authenticate", challenge)
	}
	const realm = `Bearer realm="tollgate"`
	header := r.Header.Values("Authorization")
	if len(header) == 0 {
		return refuse("missing", realm, "a token is needed: send Authorization: Bearer tg_…")
	}
	scheme, shown, _ := strings.Cut(header[0], " ")
	if len(header) > 1 || !strings.EqualFold(scheme, "Bearer") || shown == "" {
		return refuse("malformed", realm+`, error="invalid_request"`, "send the token as Authorization: Bearer tg_…, once")
	}
	token, err := a.control.Authenticate(r.Context(), strings.TrimSpace(shown))
	if why, ok := errors.AsType[*control.Unauthenticated](err); ok {
		a.log.WarnContext(r.Context(), "token refused", "request", about.id, "address", about.address, "err", why)
		return refuse("refused", realm+`, error="invalid_token"`, "the token is not good: it is unknown, ended or revoked")
	}
	if err != nil {
		p, _ := errors.AsType[*Problem](a.fail(r.Context(), err))
		return caller{}, p
	}
	about.caller = token.Name + " (" + token.ID + ")"
	return caller{token, control.Actor{Name: about.caller, Tenant: token.Tenant, Kind: "token", Address: about.address, Request: about.id}}, nil
}

// strictQuery reads parameters and writes them in the one form that cannot be
// misread: dryRun that is not seen is a change nobody wanted.
func strictQuery(raw string) (string, *Problem) {
	if raw == "" {
		return "", nil
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return "", problem(http.StatusBadRequest, "the query is not well-formed: percent-encode what is in it")
	}
	var errors []FieldError
	for name, list := range values {
		field := "query." + strings.ToValidUTF8(name, "?")
		switch value := list[0]; {
		case len(list) > 1:
			errors = append(errors, FieldError{Field: field, Message: "appears twice"})
		case value == "":
			errors = append(errors, FieldError{Field: field, Message: "has no value: leave it out, or write " + strings.ToValidUTF8(name, "?") + "=VALUE"})
		case !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl):
			errors = append(errors, FieldError{Field: field, Message: "has a character that is no text"})
		}
	}
	if len(errors) > 0 {
		slices.SortFunc(errors, func(a, b FieldError) int { return strings.Compare(a.Field, b.Field) })
		return "", invalid(errors...)
	}
	return values.Encode(), nil
}

// named is a name in the path. What cannot be one is the name of nothing.
func (c *call) named(parameter string) (string, error) {
	name := c.r.PathValue(parameter)
	if len(name) == 0 || len(name) > 249 || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
	}) {
		return "", notFound()
	}
	return name, nil
}

// visible reads an object, if it is there for the caller.
func (a *API) visible(ctx context.Context, c *call, key resource.Key) (control.Stored, error) {
	s, err := c.view.get(ctx, key)
	if err != nil {
		return control.Stored{}, err
	}
	if !c.caller.sees(s.Tenant) {
		return control.Stored{}, notFound()
	}
	return s, nil
}
