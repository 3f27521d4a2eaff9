package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
)

// fakeIssuer answers over an http.RoundTripper: no socket, no goroutine.
type fakeIssuer struct {
	url string

	mu      sync.Mutex
	keys    map[string]crypto.Signer // by kid
	down    bool
	fetches int
	issuer  string // what discovery says, url when empty
}

func newIssuer(t *testing.T, url string, kids ...string) *fakeIssuer {
	t.Helper()
	f := &fakeIssuer{url: url, keys: make(map[string]crypto.Signer)}
	for _, kid := range kids {
		f.rotate(t, kid)
	}
	return f
}

func (f *fakeIssuer) rotate(t *testing.T, kid string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys[kid] = k
}

func (f *fakeIssuer) jwks() []byte {
	var set jose.JSONWebKeySet
	for kid, k := range f.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Public(), KeyID: kid, Use: "sig"})
	}
	b, err := json.Marshal(set)
	if err != nil {
		panic(err)
	}
	return b
}

func (f *fakeIssuer) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, errors.New("connection refused")
	}
	status, body := http.StatusOK, ""
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		issuer := f.issuer
		if issuer == "" {
			issuer = f.url
		}
		body = `{"issuer":"` + issuer + `","jwks_uri":"` + f.url + `/jwks"}`
	case "/jwks":
		f.fetches++
		body = string(f.jwks())
	default:
		status = http.StatusNotFound
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

type claims map[string]any

func (f *fakeIssuer) claims(change claims) claims {
	c := claims{"iss": f.url, "aud": "kafka", "sub": "svc-1", "exp": testNow.Add(time.Hour).Unix(), "iat": testNow.Unix()}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func sign(t *testing.T, alg jose.SignatureAlgorithm, key any, kid string, c claims) string {
	t.Helper()
	o := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		o = o.WithHeader("kid", kid)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(s).Claims(map[string]any(c)).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (f *fakeIssuer) token(t *testing.T, kid string, change claims) string {
	t.Helper()
	return sign(t, jose.ES256, f.keys[kid], kid, f.claims(change))
}

func (f *fakeIssuer) realm(t *testing.T, change func(*resource.OAuthIssuer)) (*Realm, *clock) {
	t.Helper()
	c := &clock{testNow}
	d := NewDeps(Options{Now: c.now, HTTP: &http.Client{Transport: f}})
	return f.realmOf(t, d, change), c
}

func (f *fakeIssuer) realmOf(t *testing.T, d *Deps, change func(*resource.OAuthIssuer)) *Realm {
	t.Helper()
	o := resource.OAuthIssuer{Issuer: f.url, Audience: []string{"other", "kafka"}}
	if change != nil {
		change(&o)
	}
	ended := externalAccount("ended", "svc-ended")
	ended.Spec.Expires = testNow
	return mustRealm(t, d, resource.Authentication{OAuthBearer: []resource.OAuthIssuer{o}},
		externalAccount("shipping", "svc-1", "svc-2"), ended,
		&resource.ServiceAccount{
			Metadata: resource.Metadata{Name: "localone"},
			Spec:     resource.ServiceAccountSpec{Type: resource.Local, ExternalNames: []string{"svc-local"}},
		})
}

// bearer runs one exchange; a refused token must be refused in the two steps of
// RFC 7628.
func bearer(t *testing.T, r *Realm, token string) (Identity, error) {
	t.Helper()
	x, err := r.Begin("OAUTHBEARER")
	if err != nil {
		t.Fatalf("Begin: %v", err)
	}
	out, done, err := x.Step(context.Background(), []byte("n,,\x01auth=Bearer "+token+"\x01\x01"))
	if err != nil || done {
		return x.Identity(), err
	}
	if string(out) != `{"status":"invalid_token"}` {
		t.Fatalf("server answers %q", out)
	}
	out, done, err = x.Step(context.Background(), []byte{1})
	if out != nil || done || err == nil || x.Identity() != (Identity{}) {
		t.Fatalf("after \\x01: %q, %v, %v", out, done, err)
	}
	if _, _, again := x.Step(context.Background(), []byte("n,,\x01auth=Bearer "+token+"\x01\x01")); again == nil {
		t.Fatal("a second try in one exchange")
	}
	return Identity{}, err
}

func TestOAUTHBEARER(t *testing.T) {
	f := newIssuer(t, "https://issuer.test", "k1", "k2")
	other := newIssuer(t, "https://other.test", "k1")
	r, _ := f.realm(t, nil)
	pub := f.keys["k1"].Public().(*ecdsa.PublicKey)
	point, err := pub.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." +
		strings.Split(f.token(t, "k1", nil), ".")[1] + "."
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, token string
		want        *refusal.Refusal
	}{
		{"a good token", f.token(t, "k1", nil), nil},
		{"another key of the issuer", f.token(t, "k2", nil), nil},
		{"no kid", sign(t, jose.ES256, f.keys["k2"], "", f.claims(nil)), nil},
		{"the account's other name", f.token(t, "k1", claims{"sub": "svc-2"}), nil},
		{"one audience of several", f.token(t, "k1", claims{"aud": []string{"x", "kafka"}}), nil},
		{"expired within the skew", f.token(t, "k1", claims{"exp": testNow.Add(-29 * time.Second).Unix()}), nil},
		{"expired", f.token(t, "k1", claims{"exp": testNow.Add(-31 * time.Second).Unix()}), refusal.TokenRefused},
		{"no end", f.token(t, "k1", claims{"exp": nil}), refusal.TokenRefused},
		{"not yet, within the skew", f.token(t, "k1", claims{"nbf": testNow.Add(29 * time.Second).Unix()}), nil},
		{"not yet", f.token(t, "k1", claims{"nbf": testNow.Add(31 * time.Second).Unix()}), refusal.TokenRefused},
		{"another audience", f.token(t, "k1", claims{"aud": "other-service"}), refusal.TokenRefused},
		{"no audience", f.token(t, "k1", claims{"aud": nil}), refusal.TokenRefused},
		{"an issuer nobody named", f.token(t, "k1", claims{"iss": "https://other.test"}), refusal.TokenRefused},
		{"signed by somebody else", other.token(t, "k1", claims{"iss": f.url}), refusal.TokenRefused},
		{"the right key under a wrong kid", sign(t, jose.ES256, f.keys["k1"], "k2", f.claims(nil)), refusal.TokenRefused},
		{"an RSA signature where the key is none", sign(t, jose.RS256, weak, "k1", f.claims(nil)), refusal.TokenRefused},
		{"no signature", none, refusal.TokenRefused},
		{"HMAC with the public key as its secret", sign(t, jose.HS256, point, "k1", f.claims(nil)), refusal.TokenRefused},
		{"a subject without an account", f.token(t, "k1", claims{"sub": "nobody"}), refusal.AccountUnknown},
		{"the name of an account is no external name", f.token(t, "k1", claims{"sub": "shipping"}), refusal.AccountUnknown},
		{"an external name of a local account", f.token(t, "k1", claims{"sub": "svc-local"}), refusal.AccountUnknown},
		{"an account that expired", f.token(t, "k1", claims{"sub": "svc-ended"}), refusal.AccountUnknown},
		{"no subject", f.token(t, "k1", claims{"sub": nil}), refusal.TokenRefused},
		{"a subject that is a number", f.token(t, "k1", claims{"sub": 7}), refusal.TokenRefused},
		{"no token at all", "abc", refusal.TokenRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, err := bearer(t, r, c.token)
			if c.want != nil {
				wantRefusal(t, err, c.want)
				return
			}
			if err != nil || id.Principal != "User:shipping" || id.Mechanism != "OAUTHBEARER" || id.Credential != "" || id.Issuer != f.url || !id.Expires.After(testNow) {
				t.Fatalf("login = %+v, %v", id, err)
			}
			if err := r.StillValid(id); err != nil {
				t.Fatalf("StillValid: %v", err)
			}
		})
	}
	if f.fetches != 1 {
		t.Fatalf("%d fetches, want 1", f.fetches)
	}
}

func TestOAUTHBEARERFirstMessage(t *testing.T) {
	f := newIssuer(t, "https://issuer.test", "k1")
	r, _ := f.realm(t, nil)
	token := f.token(t, "k1", nil)
	for _, c := range []struct {
		name, message string
		admitted      bool
		malformed     bool
	}{
		{"plain", "n,,\x01auth=Bearer " + token + "\x01\x01", true, false},
		{"the scheme in other letters", "n,,\x01auth=bEaReR " + token + "\x01\x01", true, false},
		{"with extensions", "n,,\x01auth=Bearer " + token + "\x01logicalCluster=lkc-1\x01poolId=2\x01\x01", true, false},
		{"authzid is the subject", "n,a=svc-1,\x01auth=Bearer " + token + "\x01\x01", true, false},
		{"authzid is the account", "n,a=shipping,\x01auth=Bearer " + token + "\x01\x01", true, false},
		{"authzid is somebody else", "n,a=admin,\x01auth=Bearer " + token + "\x01\x01", false, false},
		{"auth twice", "n,,\x01auth=Bearer " + token + "\x01auth=Bearer " + token + "\x01\x01", false, true},
		{"no auth", "n,,\x01a=b\x01\x01", false, true},
		{"another scheme", "n,,\x01auth=Basic " + token + "\x01\x01", false, true},
		{"one end mark", "n,,\x01auth=Bearer " + token + "\x01", false, true},
		{"channel binding", "p=x,,\x01auth=Bearer " + token + "\x01\x01", false, true},
		{"an extension with a digit in its name", "n,,\x01auth=Bearer " + token + "\x01x1=y\x01\x01", false, true},
		{"too long", "n,,\x01auth=Bearer " + strings.Repeat("x", maxTokenBytes) + "\x01\x01", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			x, err := r.Begin("OAUTHBEARER")
			if err != nil {
				t.Fatal(err)
			}
			_, done, err := x.Step(context.Background(), []byte(c.message))
			if c.malformed {
				wantRefusal(t, err, refusal.SASLMalformed)
			} else if done != c.admitted || err != nil {
				t.Fatalf("Step: done %v, %v", done, err)
			}
		})
	}
}

func TestOAUTHBEARERKeysRotate(t *testing.T) {
	f := newIssuer(t, "https://issuer.test", "old")
	r, clk := f.realm(t, func(o *resource.OAuthIssuer) { o.JWKSURL = f.url + "/jwks" })
	login := func(kid string) error {
		_, err := bearer(t, r, f.token(t, kid, claims{"exp": testNow.Add(time.Hour).Unix()}))
		return err
	}
	if err := login("old"); err != nil {
		t.Fatal(err)
	}
	f.rotate(t, "new")
	wantRefusal(t, login("new"), refusal.TokenRefused) // asked a moment ago
	clk.advance(keysMinInterval)
	if err := login("new"); err != nil {
		t.Fatalf("after the key rotated: %v", err)
	}
	stranger := newIssuer(t, f.url, "made up")
	clk.advance(keysMinInterval)
	for range 20 {
		_, err := bearer(t, r, stranger.token(t, "made up", nil))
		wantRefusal(t, err, refusal.TokenRefused)
	}
	if f.fetches != 3 {
		t.Fatalf("%d fetches, want 3: the first, the rotation, one for all made-up ids", f.fetches)
	}

	f.down = true
	clk.advance(keysMaxAge)
	if err := login("old"); err != nil {
		t.Fatalf("a known key while the issuer is down: %v", err)
	}
	_, err := bearer(t, r, stranger.token(t, "made up", nil))
	if Verdict(err) || refusal.Of(err) != refusal.TokenKeysUnavailable {
		t.Fatalf("an unknown key while the issuer is down: %v, want no verdict", err)
	}

	f.down = false
	old := f.token(t, "old", nil)
	delete(f.keys, "old")
	clk.advance(keysMaxAge)
	_, err = bearer(t, r, old)
	wantRefusal(t, err, refusal.TokenRefused)
}

func TestOAUTHBEARERReloadKeepsKeys(t *testing.T) {
	f := newIssuer(t, "https://issuer.test", "k1")
	r, clk := f.realm(t, nil)
	id, err := bearer(t, r, f.token(t, "k1", nil))
	if err != nil {
		t.Fatal(err)
	}
	again := f.realmOf(t, r.deps, nil)
	if _, err := bearer(t, again, f.token(t, "k1", nil)); err != nil || f.fetches != 1 {
		t.Fatalf("after a reload: %v, %d fetches, want 1", err, f.fetches)
	}
	if err := again.StillValid(id); err != nil {
		t.Fatalf("StillValid: %v", err)
	}
	oauth := again.settings
	wantRefusal(t, mustRealm(t, r.deps, oauth, externalAccount("shipping", "renamed")).StillValid(id), refusal.CredentialRevoked)
	wantRefusal(t, mustRealm(t, r.deps, oauth, externalAccount("other", "svc-1")).StillValid(id), refusal.CredentialRevoked)
	elsewhere := f.realmOf(t, r.deps, func(o *resource.OAuthIssuer) { o.Issuer = "https://elsewhere.test" })
	wantRefusal(t, elsewhere.StillValid(id), refusal.CredentialRevoked)
	clk.advance(time.Hour)
	wantRefusal(t, r.StillValid(id), refusal.CredentialRevoked)
}

func TestOAUTHBEARERDiscoveryOfAnotherIssuer(t *testing.T) {
	f := newIssuer(t, "https://issuer.test", "k1")
	f.issuer = "https://evil.test"
	r, _ := f.realm(t, nil)
	if _, err := bearer(t, r, f.token(t, "k1", nil)); refusal.Of(err) != refusal.TokenKeysUnavailable {
		t.Fatalf("login: %v, want the keys to be unavailable", err)
	}
}

func TestOAUTHBEARERKeysInAFile(t *testing.T) {
	f := newIssuer(t, "urn:issuer", "k1")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "keys.json"), f.jwks(), 0o600); err != nil {
		t.Fatal(err)
	}
	vc := cluster(resource.Authentication{OAuthBearer: []resource.OAuthIssuer{{
		Issuer: f.url, Audience: []string{"kafka"}, JWKSURL: "file:keys.json", PrincipalClaim: "azp",
	}}})
	vc.Metadata.Source.File = filepath.Join(dir, "vc.yaml")
	r, err := NewRealm(vc, []*resource.ServiceAccount{externalAccount("shipping", "svc-1")}, mustDeps())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bearer(t, r, f.token(t, "k1", claims{"sub": "x", "azp": "svc-1"})); err != nil {
		t.Fatal(err)
	}
	vc.Spec.Authentication.OAuthBearer[0].JWKSURL = "file:missing.json"
	vc.Spec.Authentication.OAuthBearer = append(vc.Spec.Authentication.OAuthBearer,
		resource.OAuthIssuer{Issuer: "urn:x", Audience: []string{"kafka"}}, resource.OAuthIssuer{Issuer: "https://x.test"})
	if _, err := NewRealm(vc, nil, mustDeps()); err == nil || len(strings.Split(err.Error(), "\n")) != 3 {
		t.Fatalf("NewRealm: %v, want three problems", err)
	}
}

func TestExternalNameOfTwoAccounts(t *testing.T) {
	_, err := NewRealm(cluster(passwords()), []*resource.ServiceAccount{externalAccount("a", "x"), externalAccount("b", "x")}, mustDeps())
	if err == nil || !strings.Contains(err.Error(), `"x" of service account "b" is also one of "a"`) {
		t.Fatalf("NewRealm: %v", err)
	}
}

func FuzzBearer(f *testing.F) {
	f.Add([]byte("n,a=x=2C,\x01auth=Bearer abc.def.ghi\x01k=v\x01\x01"))
	f.Add([]byte("n,,\x01\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, token, err := parseBearer(b); (err == nil) != (token != "") {
			t.Fatalf("parseBearer(%q) = %q, %v", b, token, err)
		}
	})
}

func FuzzJWKS(f *testing.F) {
	f.Add(`{"keys":[{"kty":"oct","k":"AAAA"}]}`)
	f.Add(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`)
	f.Fuzz(func(t *testing.T, s string) {
		keys, err := parseJWKS(strings.NewReader(s))
		if (err == nil) != (len(keys) > 0) {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		for _, k := range keys {
			if !k.IsPublic() {
				t.Fatalf("took %T", k.Key)
			}
		}
	})
}
