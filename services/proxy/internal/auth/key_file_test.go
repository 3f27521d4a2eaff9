package auth

import (
	"os"
	"path/filepath"
	"testing"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
)

// The clock of the realm stands still here: only the file says it is another.
func TestAReplacedKeyFileIsReadAtOnce(t *testing.T) {
	old, young := newIssuer(t, "urn:issuer", "old"), newIssuer(t, "urn:issuer", "young")
	path := filepath.Join(t.TempDir(), "keys.json")
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(path+".new", b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write(old.jwks())
	vc := cluster(resource.Authentication{OAuthBearer: []resource.OAuthIssuer{{
		Issuer: old.url, Audience: []string{"kafka"}, JWKSURL: "file:" + path,
	}}})
	r, err := NewRealm(vc, []*resource.ServiceAccount{externalAccount("shipping", "svc-1")}, mustDeps())
	if err != nil {
		t.Fatal(err)
	}
	byOld, byYoung := old.token(t, "old", claims{"iss": old.url, "sub": "svc-1"}), young.token(t, "young", claims{"iss": old.url, "sub": "svc-1"})
	good := func(when, token string) {
		t.Helper()
		if _, err := bearer(t, r, token); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	good("at first", byOld)

	write(young.jwks())
	good("replaced", byYoung)
	_, err = bearer(t, r, byOld)
	wantRefusal(t, err, refusal.TokenRefused)

	write([]byte("{half a fi"))
	good("broken", byYoung)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	good("gone", byYoung)

	write(append(old.jwks(), '\n'))
	good("back", byOld)
}
