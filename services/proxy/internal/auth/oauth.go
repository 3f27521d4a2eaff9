package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
)

const (
	oauthBearer = "OAUTHBEARER"

	// maxTokenBytes is far above any token: they travel in HTTP headers too.
	maxTokenBytes = 64 << 10

	// tokenSkew is how far the clocks of issuer and node may differ.
	tokenSkew = 30 * time.Second

	// invalidToken is what a client gets for a token that is not good (RFC 7628,
	// section 3.2.2). Its answer is a single \x01; only then is it refused.
	invalidToken = `{"status":"invalid_token"}`
)

// tokenAlgorithms are the signatures believed. Neither "none" nor HMAC is here:
// a JWKS is public, and its bytes must never be good for a shared secret.
var tokenAlgorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// issuer is one of the issuers whose tokens a realm takes.
type issuer struct {
	name     string
	audience []string
	claim    string
	keys     *keySet
}

func (r *Realm) addIssuers(vc *resource.VirtualCluster) error {
	var problems []error
	for i, o := range vc.Spec.Authentication.OAuthBearer {
		bad := func(format string, args ...any) {
			problems = append(problems, vc.Metadata.Problem(fmt.Sprintf("spec.authentication.oauthbearer[%d]", i), format, args...))
		}
		if o.Issuer == "" || len(o.Audience) == 0 || slices.Contains(o.Audience, "") {
			bad("issuer and audience are needed: a token for somebody else is none for us")
			continue
		}
		if r.issuers[o.Issuer] != nil {
			bad("issuer %q stands here twice", o.Issuer)
			continue
		}
		keys, err := r.deps.keySetOf(o.Issuer, o.JWKSURL, &vc.Metadata)
		if err != nil {
			bad("%v", err)
			continue
		}
		claim := o.PrincipalClaim
		if claim == "" {
			claim = "sub"
		}
		r.issuers[o.Issuer] = &issuer{name: o.Issuer, audience: o.Audience, claim: claim, keys: keys}
	}
	return errors.Join(problems...)
}

// oauthExchange is the server's side of RFC 7628 as KIP-255 has it:
//
//	first --good token--> over
//	first --bad token--> told --anything--> over, refused
type oauthExchange struct {
	realm *Realm
	state oauthState
	bad   error // why the client was told invalid_token
	name  string
	id    Identity
}

type oauthState uint8

const (
	oauthFirst oauthState = iota
	oauthTold
	oauthOver
)

func (x *oauthExchange) Identity() Identity { return x.id }
func (x *oauthExchange) Claimed() string    { return x.name }

// Claims is "": what a token says is worth nothing before its signature is checked.
func (x *oauthExchange) Claims([]byte) string { return "" }

func (x *oauthExchange) Step(ctx context.Context, client []byte) ([]byte, bool, error) {
	state := x.state
	x.state = oauthOver
	switch state {
	case oauthFirst:
		authzid, token, err := parseBearer(client)
		if err != nil {
			return nil, false, refusal.SASLMalformed.Errorf("OAUTHBEARER: %w", err)
		}
		id, err := x.check(ctx, authzid, token)
		if Verdict(err) {
			x.state, x.bad = oauthTold, err
			return []byte(invalidToken), false, nil
		}
		if err != nil {
			return nil, false, err
		}
		x.id = id
		return []byte{}, true, nil
	case oauthTold:
		return nil, false, x.bad
	}
	return nil, false, refusal.SASLMalformed.Errorf("OAUTHBEARER: a message after the last")
}

// check returns a verdict on a token that is no good, another error when that
// could not be found out.
func (x *oauthExchange) check(ctx context.Context, authzid, text string) (Identity, error) {
	r := x.realm
	token, err := jwt.ParseSigned(text, tokenAlgorithms)
	if err != nil {
		return Identity{}, refusal.TokenRefused.Errorf("read token: %w", err)
	}
	var claimed jwt.Claims
	if err := token.UnsafeClaimsWithoutVerification(&claimed); err != nil {
		return Identity{}, refusal.TokenRefused.Errorf("read claims: %w", err)
	}
	iss := r.issuers[claimed.Issuer]
	if iss == nil {
		return Identity{}, refusal.TokenRefused.Errorf("issuer %q is not among those of the virtual cluster", claimed.Issuer)
	}
	header := token.Headers[0] // compact form has exactly one
	candidates, err := iss.keys.find(ctx, header.KeyID, header.Algorithm)
	if err != nil {
		return Identity{}, fmt.Errorf("issuer %q: %w", iss.name, err)
	}
	var claims jwt.Claims
	all := make(map[string]any)
	verified := false
	for _, k := range candidates {
		if verified = token.Claims(k.Key, &claims, &all) == nil; verified {
			break
		}
	}
	if !verified {
		return Identity{}, refusal.TokenRefused.Errorf("none of %d keys of issuer %q with kid %q and algorithm %s verifies the token", len(candidates), iss.name, header.KeyID, header.Algorithm)
	}
	name, _ := all[iss.claim].(string)
	x.name = name
	now := r.deps.now()
	if claims.Expiry == nil {
		return Identity{}, refusal.TokenRefused.Errorf("token of %q has no exp: it would be good for ever", name)
	}
	if err := claims.ValidateWithLeeway(jwt.Expected{Issuer: iss.name, AnyAudience: iss.audience, Time: now}, tokenSkew); err != nil {
		return Identity{}, refusal.TokenRefused.Errorf("token of %q: %w", name, err)
	}
	if name == "" {
		return Identity{}, refusal.TokenRefused.Errorf("claim %q is not a name", iss.claim)
	}
	a := r.byToken(iss, name)
	if a == nil {
		return Identity{}, refusal.AccountUnknown.Errorf("%q is no external name of an account", r.externalName(iss, name))
	}
	if !a.live(now) {
		return Identity{}, refusal.AccountUnknown.Errorf("account %q expired", a.name)
	}
	if authzid != "" && authzid != name && authzid != a.name {
		return Identity{}, refusal.AuthorizationID.Errorf("%q asks to act as %q", name, authzid)
	}
	end := claims.Expiry.Time()
	if !now.Before(end) {
		end = end.Add(tokenSkew + time.Second) // taken thanks to the skew, so live by it
	}
	return Identity{
		Principal: "User:" + a.name, Account: a.name, Mechanism: oauthBearer,
		ExternalName: name, Issuer: iss.name, Expires: earliest(end, a.expires),
		audience: strings.Join(claims.Audience, "\x00") + "\x00", claim: iss.claim,
	}, nil
}

// takes reports whether one of the parts of a token's audience is the issuer's.
func (i *issuer) takes(audience string) bool {
	for part := range strings.SplitSeq(strings.TrimSuffix(audience, "\x00"), "\x00") {
		if slices.Contains(i.audience, part) {
			return true
		}
	}
	return false
}

// byToken finds the account of a token's name. Where several issuers are trusted,
// each has its own names: what one calls svc-1 is not what another does.
func (r *Realm) byToken(iss *issuer, name string) *account {
	if a := r.external[qualified(iss, name)]; a != nil {
		return a
	}
	if len(r.issuers) > 1 || strings.Contains(name, "#") {
		return nil
	}
	return r.external[name]
}

// externalName is what an account would list.
func (r *Realm) externalName(iss *issuer, name string) string {
	if len(r.issuers) > 1 {
		return qualified(iss, name)
	}
	return name
}

// qualified is ISSUER#NAME. The URL of an issuer has no fragment (OpenID Connect
// Discovery §3), so the first # ends it.
func qualified(iss *issuer, name string) string { return iss.name + "#" + name }

var (
	errBearerSyntax = errors.New("want n,[a=authzid],\\x01auth=Bearer <token>\\x01[name=value\\x01]…\\x01")
	errBearerTwice  = errors.New("auth is given twice")
)

// parseBearer reads a client's first message. Extensions (KIP-342) are checked
// for their form; nothing here asks for one.
func parseBearer(b []byte) (authzid, token string, err error) {
	if len(b) > maxTokenBytes {
		return "", "", errBearerSyntax
	}
	s, ok := strings.CutPrefix(string(b), "n,")
	if !ok {
		return "", "", errBearerSyntax
	}
	head, rest, ok := strings.Cut(s, ",\x01")
	if !ok {
		return "", "", errBearerSyntax
	}
	if head != "" {
		name, ok := strings.CutPrefix(head, "a=")
		if !ok || strings.Contains(name, ",") {
			return "", "", errBearerSyntax
		}
		if authzid, err = unescapeName(name); err != nil {
			return "", "", err
		}
	}
	pairs, ok := strings.CutSuffix(rest, "\x01\x01")
	if !ok {
		return "", "", errBearerSyntax
	}
	for pair := range strings.SplitSeq(pairs, "\x01") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || !letters(key) || !bearerValue(value) {
			return "", "", errBearerSyntax
		}
		if key != "auth" {
			continue
		}
		if token != "" {
			return "", "", errBearerTwice
		}
		scheme, t, ok := strings.Cut(value, " ")
		if t = strings.Trim(t, " "); !ok || !strings.EqualFold(scheme, "Bearer") || t == "" {
			return "", "", errBearerSyntax
		}
		token = t
	}
	if token == "" {
		return "", "", errBearerSyntax
	}
	return authzid, token, nil
}

func letters(s string) bool {
	for i := range len(s) {
		if c := s[i] | 0x20; c < 'a' || c > 'z' {
			return false
		}
	}
	return s != ""
}

func bearerValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 0x20 || c > 0x7e) && c != '\t' && c != '\r' && c != '\n' {
			return false
		}
	}
	return s != ""
}
