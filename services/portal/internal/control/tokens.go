package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/services/portal/internal/store"
)

// Role is what a token is for.
type Role string

// The roles.
const (
	RoleOps    Role = "ops"    // everything
	RoleTenant Role = "tenant" // what belongs to one tenant
	RoleNode   Role = "node"   // what proxies ask for
)

// Token is what may be known of an API token.
type Token struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"` // for people
	Role      Role      `json:"role"`
	Tenant    string    `json:"tenant,omitempty"` // of RoleTenant
	ReadOnly  bool      `json:"readOnly,omitempty"`
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"createdBy,omitempty"`
	Expires   time.Time `json:"expires,omitzero"`  // zero: never
	Revoked   time.Time `json:"revoked,omitzero"`  // zero: it was not
	LastUsed  time.Time `json:"lastUsed,omitzero"` // to the minute; zero: never
}

func tokenOf(k store.Token) Token {
	return Token{
		ID: k.ID, Name: k.Name, Role: Role(k.Role), Tenant: k.Tenant, ReadOnly: k.ReadOnly,
		Created: k.CreatedAt, CreatedBy: k.CreatedBy, Expires: k.ExpiresAt, Revoked: k.RevokedAt, LastUsed: k.LastUsedAt,
	}
}

// Scope is the role, and the tenant: ops, node, tenant:acme.
func (t *Token) Scope() string {
	if t.Role == RoleTenant {
		return string(t.Role) + ":" + t.Tenant
	}
	return string(t.Role)
}

// ParseScope reads what Scope writes.
func ParseScope(scope string) (Role, string, error) {
	role, tenant, named := strings.Cut(scope, ":")
	switch r := Role(role); {
	case (r == RoleOps || r == RoleNode) && !named:
		return r, "", nil
	case r == RoleTenant && tenant != "":
		return r, tenant, nil
	}
	return "", "", invalid("scope", "unknown scope %q: one of ops, node, tenant:NAME", scope)
}

// TokenRequest is what a token is to be.
type TokenRequest struct {
	Name     string
	Role     Role
	Tenant   string // of RoleTenant
	ReadOnly bool
	Expires  time.Time // zero: never
}

const (
	tokenPrefix  = "tg_"
	tokenIDChars = 12
	maxTokenName = 100
)

// CreateToken makes a token, tg_<id>_<secret>, which is told now and never again.
func (c *Control) CreateToken(ctx context.Context, actor Actor, request TokenRequest) (Token, secret.Secret, error) {
	id, random := strings.ToLower(rand.Text()[:tokenIDChars]), strings.ToLower(rand.Text()+rand.Text())
	var made Token
	err := c.write(ctx, actor, false, func(w *write) error {
		if err := request.check(w.now); err != nil {
			return err
		}
		if request.Role == RoleTenant {
			key := resource.Key{Kind: resource.KindTenant, Name: request.Tenant}
			if !storableKey(key) {
				return &NotFound{Key: key}
			}
			if ok, err := w.tx.Exists(ctx, key); err != nil {
				return err
			} else if !ok {
				return &NotFound{Key: key}
			}
		}
		k := store.Token{
			ID: id, Hash: tokenHash(random), Name: request.Name, Role: string(request.Role), Tenant: request.Tenant, ReadOnly: request.ReadOnly,
			CreatedAt: w.now, CreatedBy: shown(actor.Name), ExpiresAt: zeroOr(micro(request.Expires)),
		}
		made = tokenOf(k)
		if err := w.tx.AddToken(ctx, k); err != nil {
			return err
		}
		return w.auditToken(ctx, ActionCreateToken, nil, &made)
	})
	if err != nil {
		return Token{}, secret.Secret{}, err
	}
	return made, secret.New(tokenPrefix + id + "_" + random), nil
}

func (r *TokenRequest) check(now time.Time) error {
	var problems resource.Problems
	report := func(field, message string) {
		problems = append(problems, resource.Problem{Field: field, Message: message})
	}
	if r.Name == "" || len(r.Name) > maxTokenName || !storable(r.Name) {
		report("name", "required, up to 100 characters without NUL: who has the token, or what for")
	}
	switch {
	case r.Role == RoleTenant && r.Tenant == "":
		report("tenant", "required for a token of a tenant")
	case r.Role != RoleTenant && r.Tenant != "":
		report("tenant", "has a meaning for a token of a tenant only")
	}
	switch r.Role {
	case RoleOps, RoleTenant, RoleNode:
	default:
		report("scope", "required: one of ops, node, tenant:NAME")
	}
	if !r.Expires.IsZero() && !now.Before(r.Expires) {
		report("expires", "is past: the token would never be good")
	}
	if len(problems) > 0 {
		return &Invalid{problems}
	}
	return nil
}

// tokenHash needs no salt and no work: the secret is random.
func tokenHash(random string) string {
	sum := sha256.Sum256([]byte(random))
	return hex.EncodeToString(sum[:])
}

// KindToken stands for tokens in the log. There is no such resource.
const KindToken = "Token"

func (w *write) auditToken(ctx context.Context, action Action, before, after *Token) error {
	text := func(t *Token) string {
		if t == nil {
			return ""
		}
		raw, _ := json.Marshal(t) // strings, times and a bool
		return string(raw)
	}
	about := before
	if about == nil {
		about = after
	}
	return w.audit(ctx, string(action), resource.Key{Kind: KindToken, Name: about.ID}, about.Tenant, about.Name, text(before), text(after))
}

// ListTokens lists tokens, the oldest first, ended ones too; with a tenant, only
// those of that tenant.
func (c *Control) ListTokens(ctx context.Context, tenant string) (all []Token, err error) {
	if !storable(tenant) {
		return nil, nil
	}
	err = c.store.Read(ctx, func(tx *store.Tx) error {
		kept, err := tx.Tokens(ctx, tenant)
		all = make([]Token, len(kept))
		for i, k := range kept {
			all[i] = tokenOf(k)
		}
		return err
	})
	return all, err
}

// RevokeToken ends a token. It stays in the list; ending it again changes nothing.
func (c *Control) RevokeToken(ctx context.Context, actor Actor, id string) error {
	if !storable(id) {
		return &NotFound{What: "token of that id"}
	}
	return c.write(ctx, actor, false, func(w *write) error {
		k, ok, err := w.tx.Token(ctx, id)
		if err != nil {
			return err
		}
		if !ok {
			return &NotFound{What: "token " + id}
		}
		if !k.RevokedAt.IsZero() {
			return nil
		}
		if err := w.tx.RevokeToken(ctx, id, w.now); err != nil {
			return err
		}
		before, after := tokenOf(k), tokenOf(k)
		after.Revoked = w.now
		return w.auditToken(ctx, ActionRevokeToken, &before, &after)
	})
}

// How exactly the last use of a token is kept, and how long that may take.
const (
	usedEvery    = time.Minute
	usedPatience = 50 * time.Millisecond
)

// Authenticate finds the token that somebody shows.
func (c *Control) Authenticate(ctx context.Context, text string) (Token, error) {
	id, random, ok := strings.Cut(strings.TrimPrefix(text, tokenPrefix), "_")
	if !ok || !strings.HasPrefix(text, tokenPrefix) || len(text) > 256 || !storable(text) {
		return Token{}, &Unauthenticated{"it is not of the form tg_<id>_<secret>"}
	}
	var k store.Token
	var found bool
	if err := c.store.Read(ctx, func(tx *store.Tx) (err error) {
		k, found, err = tx.Token(ctx, id)
		return err
	}); err != nil {
		return Token{}, err
	}
	now := c.now()
	same := subtle.ConstantTimeCompare([]byte(tokenHash(random)), []byte(k.Hash)) == 1
	switch {
	case !found:
		return Token{}, &Unauthenticated{"there is no token " + printable(id)}
	case !same:
		return Token{}, &Unauthenticated{"token " + id + " has another secret"}
	case !k.RevokedAt.IsZero():
		return Token{}, &Unauthenticated{"token " + id + " was revoked"}
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return Token{}, &Unauthenticated{"token " + id + " expired"}
	}
	if now.Sub(k.LastUsedAt) >= usedEvery {
		// Whoever has a good token is not made to wait, or refused, for this.
		ctx, cancel := context.WithTimeout(ctx, usedPatience)
		defer cancel()
		_ = c.store.Note(ctx, func(tx *store.Tx) error { return tx.TokenUsed(ctx, id, now) })
	}
	return tokenOf(k), nil
}

// printable shows no more of what somebody sent than an id could be.
func printable(id string) string {
	if len(id) > tokenIDChars || strings.ContainsFunc(id, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
		return "of that id"
	}
	return id
}
