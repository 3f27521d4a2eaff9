package auth

import (
	"context"
	"crypto/pbkdf2"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
)

func (m scramMechanism) clientKey(password string, salt []byte, iterations int) []byte {
	salted, err := pbkdf2.Key(m.hash(), password, salt, iterations, m.size())
	if err != nil {
		panic(err)
	}
	return m.hmac(salted, "Client Key")
}

// The example of RFC 7677, section 3, with its nonces.
func TestSCRAMVectorOfRFC7677(t *testing.T) {
	salt, _ := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	k := scramSHA256.derive("pencil", salt, 4096)
	x := &scramExchange{
		realm: mustRealm(t, mustDeps(), passwords()), mech: scramSHA256, state: scramFinal,
		user: "user", account: &account{name: "user"},
		keys:      []*verifier{{work: work{scram: scramSHA256, iterations: 4096}, keys: k}},
		gs2:       "n,,",
		firstBare: "n=user,r=rOprNGfwEbeRWgbNEkqO",
		nonce:     "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
		server:    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
	}
	final := "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	got, done, err := x.Step(context.Background(), []byte(final))
	want := "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
	if string(got) != want || !done || err != nil {
		t.Fatalf("Step = %q, %v, %v, want %q", got, done, err, want)
	}
}

func mustDeps() *Deps {
	d, _ := newTestDeps()
	return d
}

func TestSCRAMLogin(t *testing.T) {
	for _, m := range []scramMechanism{scramSHA256, scramSHA512} {
		t.Run(string(m), func(t *testing.T) {
			r := mustRealm(t, mustDeps(), passwords(),
				withPassword(t, "alice", "pa,ss=wörd"),
				withPassword(t, "odd,na=me", "x"),
				withVerifiers("bob",
					scramVerifier("old", m, "first", "bobs salt", 8192),
					scramVerifier("new", m, "second", "bobs salt", 8192)),
			)
			for _, c := range []struct {
				name   string
				client scramClient
				want   *refusal.Refusal // nil: success
			}{
				{"a password by reference", scramClient{user: "alice", password: "pa,ss=wörd"}, nil},
				{"a wrong password", scramClient{user: "alice", password: "other"}, refusal.BadCredentials},
				{"a name with comma and equals sign", scramClient{user: "odd,na=me", password: "x"}, nil},
				{"the first of two live secrets", scramClient{user: "bob", password: "first"}, nil},
				{"the second of two live secrets", scramClient{user: "bob", password: "second"}, nil},
				{"a user that does not exist", scramClient{user: "mallory", password: "x"}, refusal.BadCredentials},
				{"authzid equal to the user", scramClient{user: "alice", gs2: "n,a=alice,", password: "pa,ss=wörd"}, nil},
				{"authzid of somebody else", scramClient{user: "alice", gs2: "n,a=bob,", password: "pa,ss=wörd"}, refusal.AuthorizationID},
				{"a client that could bind channels", scramClient{user: "alice", gs2: "y,,", password: "pa,ss=wörd"}, nil},
				{"channel binding", scramClient{user: "alice", gs2: "p=tls-unique,,", password: "pa,ss=wörd"}, refusal.SASLMalformed},
				{"a delegation token", scramClient{user: "alice", extensions: ",tokenauth=true", password: "pa,ss=wörd"}, refusal.DelegationTokenLogin},
				{"tokenauth=false is no token", scramClient{user: "alice", extensions: ",tokenauth=false", password: "pa,ss=wörd"}, nil},
				// librdkafka before 2.6.1, kcat of Debian 12 among them.
				{"the client's nonce twice", scramClient{user: "alice", before: "clientnonce", password: "pa,ss=wörd"}, nil},
				{"another nonce before the right one", scramClient{user: "alice", before: "clientnoncf", password: "pa,ss=wörd"}, refusal.SASLMalformed},
				{"a mandatory extension", scramClient{user: "alice", extensions: ",m=x", password: "pa,ss=wörd"}, refusal.SASLMalformed},
			} {
				t.Run(c.name, func(t *testing.T) {
					c.client.mech = m
					id, err := c.client.login(t, r)
					if c.want != nil {
						wantRefusal(t, err, c.want)
						if id != (Identity{}) {
							t.Fatalf("refused, yet identity %+v", id)
						}
						return
					}
					if err != nil || id.Principal != "User:"+c.client.user || id.Account != c.client.user || id.Mechanism != string(m) || id.Credential == "" {
						t.Fatalf("login = %+v, %v", id, err)
					}
					if err := r.StillValid(id); err != nil {
						t.Fatalf("StillValid: %v", err)
					}
				})
			}
		})
	}
}

// An attacker who asks twice, or asks another node, learns nothing from a salt.
func TestSCRAMUnknownUserLooksLikeAKnownOne(t *testing.T) {
	salts := make(map[string]string)
	for range 2 {
		r := mustRealm(t, mustDeps(), passwords(),
			withVerifiers("bob", scramVerifier("", scramSHA256, "x", "twelve bytes", 8192)),
			withVerifiers("eve", scramVerifier("", scramSHA256, "x", "twelve BYTES", 8192)),
			withPassword(t, "alice", "x"))
		for _, user := range []string{"mallory", "trent"} {
			c := scramClient{mech: scramSHA256, user: user, password: "x"}
			_, err := c.login(t, r)
			wantRefusal(t, err, refusal.BadCredentials)
			if len(c.salt) != 12 || c.iterations != 8192 {
				t.Fatalf("salt of %d bytes, %d iterations; accounts here have 12 and 8192", len(c.salt), c.iterations)
			}
			if before, ok := salts[user]; ok && before != c.salt {
				t.Fatalf("salt of %s changed", user)
			}
			salts[user] = c.salt
		}
	}
	if salts["mallory"] == salts["trent"] {
		t.Fatal("two users have one salt")
	}
}

func TestSCRAMSecretsWithDifferentSalts(t *testing.T) {
	bob := withVerifiers("bob",
		scramVerifier("old", scramSHA256, "first", "salt one", 4096),
		scramVerifier("new", scramSHA256, "second", "salt two", 4096))
	_, err := NewRealm(cluster(passwords()), []*resource.ServiceAccount{bob}, mustDeps())
	if err == nil || !strings.Contains(err.Error(), `"bob"`) || !strings.Contains(err.Error(), "same salt") {
		t.Fatalf("NewRealm: %v, want a word about bob's salts", err)
	}
	// Without SCRAM nothing stands in the way.
	r := mustRealm(t, mustDeps(), resource.Authentication{Plain: &struct{}{}}, bob)
	for _, pw := range []string{"first", "second"} {
		if _, err := plainLogin(t, r, "bob", pw); err != nil {
			t.Fatalf("PLAIN with %s: %v", pw, err)
		}
	}
}

func TestSCRAMSecretExpiresDuringTheExchange(t *testing.T) {
	d, c := newTestDeps()
	v := scramVerifier("", scramSHA256, "x", "some salt", 4096)
	v.Expires = testNow.Add(time.Minute)
	r := mustRealm(t, d, passwords(), withVerifiers("bob", v))
	x, err := r.Begin("SCRAM-SHA-256")
	if err != nil {
		t.Fatal(err)
	}
	cl := scramClient{mech: scramSHA256, gs2: "n,,", salt: "some salt", iterations: 4096}
	server, _, err := x.Step(context.Background(), []byte("n,,n=bob,r=abc"))
	if err != nil {
		t.Fatal(err)
	}
	nonce, _, _ := strings.Cut(strings.TrimPrefix(string(server), "r="), ",")
	proof, _ := cl.prove("x", "n=bob,r=abc", string(server), nonce)
	c.advance(time.Minute)
	_, _, err = x.Step(context.Background(), fmt.Appendf(nil, "c=biws,r=%s,p=%s", nonce, base64.StdEncoding.EncodeToString(proof)))
	wantRefusal(t, err, refusal.BadCredentials)
}

func FuzzClientFirst(f *testing.F) {
	for _, s := range []string{"n,,n=user,r=abc", "n,a=x,n=a=2Cb=3D,r=abc,tokenauth=true", "p=tls-unique,,n=u,r=x", "y,,m=x,n=u,r=x", "n,,n==,r=", ",,,", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseClientFirst(b)
		if err == nil && (m.user == "" || m.nonce == "" || m.gs2+m.bare != string(b)) {
			t.Fatalf("parseClientFirst(%q) = %+v", b, m)
		}
	})
}

func FuzzClientFinal(f *testing.F) {
	f.Add([]byte("c=biws,r=abc,p=" + base64.StdEncoding.EncodeToString(make([]byte, 32))))
	f.Add([]byte("c=,r=,p="))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseClientFinal(b, 32)
		if err == nil && (len(m.proof) != 32 || !strings.HasPrefix(string(b), m.withoutProof+",p=")) {
			t.Fatalf("parseClientFinal(%q) = %+v", b, m)
		}
	})
}

// Whoever guesses learns from no answer, and from no amount of work, which names
// there are: the bytes differ only in what is random or the client's own.
func TestSCRAMFailuresLookAndCostTheSame(t *testing.T) {
	d, _ := newTestDeps()
	expired := scramVerifier("old", scramSHA256, "x", "some salt 16 by.", 4096)
	expired.Expires = testNow
	r := mustRealm(t, d, passwords(),
		withPassword(t, "alice", "secret"),
		withVerifiers("bob", scramVerifier("a", scramSHA256, "x", "bobs salt 16 by.", 4096), scramVerifier("b", scramSHA256, "y", "bobs salt 16 by.", 4096)),
		withVerifiers("carol", expired),
		externalAccount("ext", "sub"))
	type look struct {
		saltBytes, iterations int
		proofs, derivations   int64
		refusal               *refusal.Refusal
	}
	var want look
	for i, user := range []string{"nobody", "alice", "bob", "carol", "ext"} {
		proofs, derivations := d.Proofs(), d.Derivations()
		c := scramClient{mech: scramSHA256, user: user, password: "wrong"}
		_, err := c.login(t, r)
		got := look{len(c.salt), c.iterations, d.Proofs() - proofs, d.Derivations() - derivations, refusal.Of(err)}
		if i == 0 {
			want = got
		}
		if got != want || got.proofs != 2 || got.derivations != 0 || got.refusal != refusal.BadCredentials {
			t.Errorf("a failure of %s: %+v; of nobody: %+v; want 2 proofs, no derivation, %s", user, got, want, refusal.BadCredentials.ID)
		}
	}
}

func TestTheClaimedNameIsKnownBeforeTheProof(t *testing.T) {
	r := mustRealm(t, mustDeps(), passwords(), withPassword(t, "alice", "secret"))
	for _, c := range []struct{ mechanism, message, want string }{
		{"PLAIN", "\x00alice\x00guess", "alice"},
		{"PLAIN", "nonsense", ""},
		{"SCRAM-SHA-256", "n,,n=alice,r=abc", "alice"},
		{"SCRAM-SHA-512", "n,,n=a=2Cb,r=abc", "a,b"},
		{"SCRAM-SHA-512", "nonsense", ""},
	} {
		x, err := r.Begin(c.mechanism)
		if err != nil {
			t.Fatal(err)
		}
		if got := x.Claims([]byte(c.message)); got != c.want || x.Claimed() != "" {
			t.Errorf("%s %q claims %q, and Claimed() is %q; want %q and nothing yet", c.mechanism, c.message, got, x.Claimed(), c.want)
		}
	}
}
