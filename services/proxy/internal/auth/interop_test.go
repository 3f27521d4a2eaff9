package auth

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"tollgate.internal/pkg/resource"
)

// converse lets a mechanism of franz-go, which nobody here wrote, log in.
func converse(t *testing.T, r *Realm, m sasl.Mechanism) (Identity, error) {
	t.Helper()
	x, err := r.Begin(m.Name())
	if err != nil {
		t.Fatalf("Begin(%s): %v", m.Name(), err)
	}
	client, msg, err := m.Authenticate(t.Context(), "host:9092")
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		server, done, err := x.Step(context.Background(), msg)
		if err != nil {
			return Identity{}, err
		}
		clientDone, next, err := client.Challenge(server)
		if err != nil {
			t.Fatalf("%s: the client does not believe %q: %v", m.Name(), server, err)
		}
		if done != clientDone {
			t.Fatalf("%s: the server is done: %v, the client: %v", m.Name(), done, clientDone)
		}
		if done {
			return x.Identity(), nil
		}
		msg = next
	}
	t.Fatalf("%s: no end", m.Name())
	return Identity{}, nil
}

func TestMechanismsOfFranzGo(t *testing.T) {
	f := newIssuer(t, "https://issuer.test", "k1")
	tokens, _ := f.realm(t, nil)
	r := mustRealm(t, mustDeps(), passwords(), withPassword(t, "al,i=ce", "pässword"))
	for _, c := range []struct {
		realm *Realm
		mech  sasl.Mechanism
		want  string
	}{
		{r, plain.Auth{User: "al,i=ce", Pass: "pässword"}.AsMechanism(), "User:al,i=ce"},
		{r, plain.Auth{Zid: "al,i=ce", User: "al,i=ce", Pass: "pässword"}.AsMechanism(), "User:al,i=ce"},
		{r, scram.Auth{User: "al,i=ce", Pass: "pässword"}.AsSha256Mechanism(), "User:al,i=ce"},
		{r, scram.Auth{User: "al,i=ce", Pass: "pässword"}.AsSha512Mechanism(), "User:al,i=ce"},
		{r, scram.Auth{User: "al,i=ce", Pass: "wrong"}.AsSha512Mechanism(), ""},
		{r, scram.Auth{User: "al,i=ce", Pass: "pässword", IsToken: true}.AsSha256Mechanism(), ""},
		{tokens, oauth.Auth{Token: f.token(t, "k1", nil), Extensions: map[string]string{"traceId": "1"}}.AsMechanism(), "User:shipping"},
	} {
		id, err := converse(t, c.realm, c.mech)
		if id.Principal != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s = %+v, %v, want %q", c.mech.Name(), id, err, c.want)
		}
	}
}

// Realms are shared by sessions, and the caches by realms: for the race detector.
func TestManyLoginsAtOnce(t *testing.T) {
	f := newIssuer(t, "https://issuer.test", "k1")
	c := &clock{testNow}
	d := NewDeps(Options{Now: c.now})
	d.http.Transport = f
	a := passwords()
	a.OAuthBearer = []resource.OAuthIssuer{{Issuer: f.url, Audience: []string{"kafka"}}}
	token := f.token(t, "k1", nil)
	r := mustRealm(t, d, a, withPassword(t, "alice", "secret"), externalAccount("shipping", "svc-1"))
	errs := make(chan error)
	for i := range 24 {
		go func() {
			x, err := r.Begin([]string{"PLAIN", "OAUTHBEARER", "SCRAM-SHA-256"}[i%3])
			if err == nil {
				_, _, err = x.Step(context.Background(), []byte([]string{
					"\x00alice\x00secret", "n,,\x01auth=Bearer " + token + "\x01\x01", "n,,n=alice,r=abc",
				}[i%3]))
			}
			errs <- err
		}()
	}
	for range 24 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if f.fetches != 1 {
		t.Errorf("%d fetches, want 1", f.fetches)
	}
}
