package auth

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
)

var testNow = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// clock is a clock that tests move.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

func newTestDeps() (*Deps, *clock) {
	c := &clock{testNow}
	return NewDeps(Options{Now: c.now, SaltKey: []byte("test")}), c
}

func passwords() resource.Authentication {
	return resource.Authentication{Plain: &struct{}{}, SCRAM: &struct{}{}}
}

func cluster(a resource.Authentication) *resource.VirtualCluster {
	return &resource.VirtualCluster{
		Metadata: resource.Metadata{Name: "acme"},
		Spec:     resource.VirtualClusterSpec{Authentication: a},
	}
}

// withPassword is a local account whose password stands in the environment.
func withPassword(t *testing.T, name, password string) *resource.ServiceAccount {
	t.Helper()
	env := "AUTH_TEST_" + strings.ToUpper(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r
		}
		return '_'
	}, name))
	t.Setenv(env, password)
	return &resource.ServiceAccount{
		Metadata: resource.Metadata{Name: name, VirtualCluster: "acme"},
		Spec:     resource.ServiceAccountSpec{Type: resource.Local, Password: resource.Reference("env:" + env)},
	}
}

func withVerifiers(name string, vs ...resource.Verifier) *resource.ServiceAccount {
	return &resource.ServiceAccount{
		Metadata: resource.Metadata{Name: name, VirtualCluster: "acme"},
		Spec:     resource.ServiceAccountSpec{Type: resource.Local, Verifiers: vs},
	}
}

func externalAccount(name string, names ...string) *resource.ServiceAccount {
	return &resource.ServiceAccount{
		Metadata: resource.Metadata{Name: name, VirtualCluster: "acme"},
		Spec:     resource.ServiceAccountSpec{Type: resource.External, ExternalNames: names},
	}
}

func scramVerifier(id string, m scramMechanism, password, salt string, iterations int) resource.Verifier {
	k := m.derive(password, []byte(salt), iterations)
	b64 := base64.StdEncoding.EncodeToString
	return resource.Verifier{ID: id, Mechanism: string(m), Iterations: iterations, Salt: b64(k.salt), StoredKey: b64(k.stored), ServerKey: b64(k.server)}
}

func argonVerifier(id, password string) resource.Verifier {
	salt := []byte("0123456789abcdef")
	h := argon2.IDKey([]byte(password), salt, 1, 64, 1, 32)
	b64 := base64.RawStdEncoding.EncodeToString
	return resource.Verifier{ID: id, Mechanism: "argon2id", Hash: "$argon2id$v=19$m=64,t=1,p=1$" + b64(salt) + "$" + b64(h)}
}

func mustRealm(t *testing.T, d *Deps, a resource.Authentication, accounts ...*resource.ServiceAccount) *Realm {
	t.Helper()
	r, err := NewRealm(cluster(a), accounts, d)
	if err != nil {
		t.Fatalf("NewRealm: %v", err)
	}
	return r
}

func plainLogin(t *testing.T, r *Realm, user, password string) (Identity, error) {
	t.Helper()
	x, err := r.Begin("PLAIN")
	if err != nil {
		t.Fatalf("Begin(PLAIN): %v", err)
	}
	_, done, err := x.Step(context.Background(), []byte("\x00"+user+"\x00"+password))
	if done != (err == nil) {
		t.Fatalf("PLAIN of %q: done %v, error %v", user, done, err)
	}
	return x.Identity(), err
}

// scramClient is a client written for these tests; scramFirst is "n,,n=…".
type scramClient struct {
	mech       scramMechanism
	user, gs2  string
	extensions string
	password   string
	salt       string // as the server sent it
	iterations int
	before     string // what the client puts before the nonce of its final message
}

func (c *scramClient) login(t *testing.T, r *Realm) (Identity, error) {
	t.Helper()
	x, err := r.Begin(string(c.mech))
	if err != nil {
		t.Fatalf("Begin(%s): %v", c.mech, err)
	}
	if c.gs2 == "" {
		c.gs2 = "n,,"
	}
	bare := "n=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(c.user) + ",r=clientnonce" + c.extensions
	server, done, err := x.Step(context.Background(), []byte(c.gs2+bare))
	if err != nil {
		return Identity{}, err
	}
	if done {
		t.Fatalf("%s is done after one message", c.mech)
	}
	f := strings.Split(string(server), ",")
	nonce := strings.TrimPrefix(f[0], "r=")
	if !strings.HasPrefix(nonce, "clientnonce") || len(nonce) < len("clientnonce")+16 {
		t.Fatalf("server nonce %q", nonce)
	}
	salt, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(f[1], "s="))
	if err != nil {
		t.Fatalf("salt: %v", err)
	}
	c.salt = string(salt)
	c.iterations, _ = strconv.Atoi(strings.TrimPrefix(f[2], "i="))
	nonce = c.before + nonce
	proof, signature := c.prove(c.password, bare, string(server), nonce)
	final := "c=" + base64.StdEncoding.EncodeToString([]byte(c.gs2)) + ",r=" + nonce + ",p=" + base64.StdEncoding.EncodeToString(proof)
	server, done, err = x.Step(context.Background(), []byte(final))
	if err != nil {
		if _, _, again := x.Step(context.Background(), []byte(final)); again == nil {
			t.Fatalf("%s: a second try in one exchange", c.mech)
		}
		return x.Identity(), err
	}
	if want := "v=" + base64.StdEncoding.EncodeToString(signature); !done || string(server) != want {
		t.Fatalf("%s: server-final %q, done %v, want %q", c.mech, server, done, want)
	}
	return x.Identity(), nil
}

func (c *scramClient) prove(password, bare, server, nonce string) (proof, signature []byte) {
	k := c.mech.derive(password, []byte(c.salt), c.iterations)
	msg := bare + "," + server + ",c=" + base64.StdEncoding.EncodeToString([]byte(c.gs2)) + ",r=" + nonce
	// The client key is derived again, the way the RFC does.
	clientKey := c.mech.clientKey(password, []byte(c.salt), c.iterations)
	proof = c.mech.hmac(k.stored, msg)
	for i := range proof {
		proof[i] ^= clientKey[i]
	}
	return proof, c.mech.hmac(k.server, msg)
}

func wantRefusal(t *testing.T, err error, want *refusal.Refusal) {
	t.Helper()
	if refusal.Of(err) != want {
		t.Fatalf("error %v, want %v", err, want)
	}
}
