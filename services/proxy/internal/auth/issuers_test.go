package auth

import (
	"net/http"
	"testing"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
)

// byHost asks the issuer that a URL names.
type byHost map[string]*fakeIssuer

func (b byHost) RoundTrip(r *http.Request) (*http.Response, error) {
	return b["https://"+r.URL.Host].RoundTrip(r)
}

// The subject of one issuer is nobody to another: each would otherwise hand out
// the accounts of the other.
func TestTheSameSubjectOfTwoIssuersIsTwoPrincipals(t *testing.T) {
	one, two := newIssuer(t, "https://one.test", "k1"), newIssuer(t, "https://two.test", "k2")
	clk := &clock{testNow}
	d := NewDeps(Options{Now: clk.now, HTTP: &http.Client{Transport: byHost{one.url: one, two.url: two}}})
	both := resource.Authentication{OAuthBearer: []resource.OAuthIssuer{
		{Issuer: one.url, Audience: []string{"kafka"}}, {Issuer: two.url, Audience: []string{"kafka"}},
	}}
	alone := resource.Authentication{OAuthBearer: both.OAuthBearer[:1]}
	a := externalAccount("a", one.url+"#svc-1")
	b := externalAccount("b", two.url+"#svc-1")
	bare := externalAccount("bare", "svc-1")

	r := mustRealm(t, d, both, a, b, bare)
	first, err := bearer(t, r, one.token(t, "k1", nil))
	if err != nil || first.Principal != "User:a" {
		t.Fatalf("svc-1 of the first issuer is %+v, %v, want User:a", first, err)
	}
	if id, err := bearer(t, r, two.token(t, "k2", nil)); err != nil || id.Principal != "User:b" {
		t.Fatalf("svc-1 of the second issuer is %+v, %v, want User:b", id, err)
	}
	_, err = bearer(t, mustRealm(t, d, both, bare), one.token(t, "k1", nil))
	wantRefusal(t, err, refusal.AccountUnknown)
	_, err = bearer(t, mustRealm(t, d, both, a), two.token(t, "k2", nil))
	wantRefusal(t, err, refusal.AccountUnknown)

	// One issuer needs no qualifying, but may be qualified.
	for _, account := range []*resource.ServiceAccount{bare, a} {
		if _, err := bearer(t, mustRealm(t, d, alone, account), one.token(t, "k1", nil)); err != nil {
			t.Errorf("with one issuer, as %s: %v", account.Spec.ExternalNames, err)
		}
	}
	// A subject that looks like a qualified name of somebody else is still its own.
	_, err = bearer(t, mustRealm(t, d, alone, b), one.token(t, "k1", claims{"sub": two.url + "#svc-1"}))
	wantRefusal(t, err, refusal.AccountUnknown)
	// A second issuer takes nothing over from the first.
	wantRefusal(t, mustRealm(t, d, both, externalAccount("a", "svc-1")).StillValid(first), refusal.CredentialRevoked)
}

func TestATokenIsJudgedAnewWhenItsIssuerIsConfiguredAnew(t *testing.T) {
	f := newIssuer(t, "https://issuer.test", "k1")
	r, _ := f.realm(t, nil)
	id, err := bearer(t, r, f.token(t, "k1", claims{"aud": []string{"billing", "kafka"}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*resource.OAuthIssuer)
		want   *refusal.Refusal
	}{
		{"nothing changed", nil, nil},
		{"another audience of the token", func(o *resource.OAuthIssuer) { o.Audience = []string{"billing"} }, nil},
		{"none of the token's audiences", func(o *resource.OAuthIssuer) { o.Audience = []string{"other"} }, refusal.CredentialRevoked},
		{"another claim", func(o *resource.OAuthIssuer) { o.PrincipalClaim = "azp" }, refusal.CredentialRevoked},
		{"another issuer", func(o *resource.OAuthIssuer) { o.Issuer = "https://elsewhere.test" }, refusal.CredentialRevoked},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := f.realmOf(t, r.deps, c.change).StillValid(id); refusal.Of(err) != c.want {
				t.Errorf("StillValid: %v, want %v", err, c.want)
			}
		})
	}
}

func TestUntilIsTheFirstEnd(t *testing.T) {
	d, _ := newTestDeps()
	at := func(h int) time.Time { return testNow.Add(time.Duration(h) * time.Hour) }
	secret := func(id, password string, expires time.Time) resource.Verifier {
		v := scramVerifier(id, scramSHA256, password, "some salt", 4096)
		v.Expires = expires
		return v
	}
	account := func(expires time.Time, vs ...resource.Verifier) *resource.ServiceAccount {
		a := withVerifiers("bob", vs...)
		a.Spec.Expires = expires
		return a
	}
	for _, c := range []struct {
		name    string
		account *resource.ServiceAccount
		want    time.Time
	}{
		{"never", account(time.Time{}, secret("a", "x", time.Time{})), time.Time{}},
		{"the secret's", account(at(2), secret("a", "x", at(1))), at(1)},
		{"the account's", account(at(1), secret("a", "x", at(2))), at(1)},
		{"another secret's end is none", account(time.Time{}, secret("a", "x", at(2)), secret("b", "y", at(1))), at(2)},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := mustRealm(t, d, passwords(), c.account)
			id, err := plainLogin(t, r, "bob", "x")
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Until(id); !got.Equal(c.want) {
				t.Errorf("Until = %v, want %v", got, c.want)
			}
		})
	}
	// An end that comes into the files later counts for those who are in.
	id, err := plainLogin(t, mustRealm(t, d, passwords(), account(time.Time{}, secret("a", "x", time.Time{}))), "bob", "x")
	if err != nil {
		t.Fatal(err)
	}
	if got := mustRealm(t, d, passwords(), account(at(3), secret("a", "x", time.Time{}))).Until(id); !got.Equal(at(3)) {
		t.Errorf("Until = %v after the account got an end, want %v", got, at(3))
	}
}
