package auth

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
)

func TestPLAIN(t *testing.T) {
	expired := scramVerifier("old", scramSHA256, "old", "some salt", 4096)
	expired.Expires = testNow
	ending := scramVerifier("ending", scramSHA256, "ending", "some salt", 4096)
	ending.Expires = testNow.Add(time.Hour)
	ended := withPassword(t, "ended", "x")
	ended.Spec.Expires = testNow
	r := mustRealm(t, mustDeps(), passwords(),
		withPassword(t, "alice", "secret"),
		withVerifiers("bob", expired, ending, argonVerifier("a", "hashed")),
		withVerifiers("carol", scramVerifier("", scramSHA512, "x", "some salt", 4096)),
		ended, externalAccount("ext", "sub"))
	for _, c := range []struct {
		name, message string
		want          *refusal.Refusal
		expires       time.Time
	}{
		{"a password by reference", "\x00alice\x00secret", nil, time.Time{}},
		{"authzid equal to the user", "alice\x00alice\x00secret", nil, time.Time{}},
		{"authzid of somebody else", "bob\x00alice\x00secret", refusal.AuthorizationID, time.Time{}},
		{"a wrong password", "\x00alice\x00Secret", refusal.BadCredentials, time.Time{}},
		{"no such user", "\x00nobody\x00secret", refusal.BadCredentials, time.Time{}},
		{"a verifier that ends within the hour", "\x00bob\x00ending", nil, testNow.Add(time.Hour)},
		{"an expired secret", "\x00bob\x00old", refusal.BadCredentials, time.Time{}},
		{"an argon2id verifier", "\x00bob\x00hashed", nil, time.Time{}},
		{"a SHA-512 verifier", "\x00carol\x00x", nil, time.Time{}},
		{"an expired account", "\x00ended\x00x", refusal.BadCredentials, time.Time{}},
		{"an external account has no password", "\x00ext\x00x", refusal.BadCredentials, time.Time{}},
		{"an empty password", "\x00alice\x00", refusal.SASLMalformed, time.Time{}},
		{"an empty user", "\x00\x00secret", refusal.SASLMalformed, time.Time{}},
		{"two parts", "alice\x00secret", refusal.SASLMalformed, time.Time{}},
		{"four parts", "\x00alice\x00secret\x00", refusal.SASLMalformed, time.Time{}},
		{"no UTF-8", "\x00alice\x00\xff", refusal.SASLMalformed, time.Time{}},
		{"nothing", "", refusal.SASLMalformed, time.Time{}},
		{"too much", "\x00alice\x00" + strings.Repeat("x", maxCredentialBytes), refusal.SASLMalformed, time.Time{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x, err := r.Begin("PLAIN")
			if err != nil {
				t.Fatal(err)
			}
			out, done, err := x.Step(context.Background(), []byte(c.message))
			if c.want != nil {
				wantRefusal(t, err, c.want)
				if done || out != nil || x.Identity() != (Identity{}) {
					t.Fatalf("refused with %q, done %v, identity %+v", out, done, x.Identity())
				}
				return
			}
			id := x.Identity()
			if err != nil || !done || id.Principal != "User:"+id.Account || x.Claimed() != id.Account || !id.Expires.Equal(c.expires) {
				t.Fatalf("Step: done %v, error %v, identity %+v", done, err, id)
			}
			if _, _, err := x.Step(context.Background(), []byte(c.message)); err == nil {
				t.Fatal("a second message in one exchange")
			}
		})
	}
}

// Users were once told apart from the time a refusal took.
func TestPLAINFailuresCostTheSame(t *testing.T) {
	d := mustDeps()
	expired := scramVerifier("c", scramSHA256, "x", "some salt", 4096)
	expired.Expires = testNow
	r := mustRealm(t, d, passwords(),
		withPassword(t, "alice", "secret"),
		withVerifiers("bob", scramVerifier("a", scramSHA256, "x", "some salt", 4096), scramVerifier("b", scramSHA256, "y", "some salt", 4096)),
		withVerifiers("carol", argonVerifier("a", "x"), expired),
		externalAccount("ext", "sub"))
	var want int64
	for i, user := range []string{"nobody", "alice", "bob", "carol", "ext", "alice"} {
		before := d.Derivations()
		if _, err := plainLogin(t, r, user, "wrong"); err == nil {
			t.Fatalf("%s is let in by a wrong password", user)
		}
		got := d.Derivations() - before
		if i == 0 {
			want = got
		}
		if got != want || got != 3 {
			t.Fatalf("a failure of %q cost %d derivations, one of nobody %d, want 3 (two SCRAM, one argon2id)", user, got, want)
		}
	}
}

func TestPLAINRemembersTheLastSuccess(t *testing.T) {
	d := mustDeps()
	r := mustRealm(t, d, passwords(), withPassword(t, "alice", "secret"))
	login := func(password string, want int64) {
		t.Helper()
		before := d.Derivations()
		_, err := plainLogin(t, r, "alice", password)
		if (err == nil) != (password == "secret") {
			t.Fatalf("login with %q: %v", password, err)
		}
		if got := d.Derivations() - before; got != want {
			t.Fatalf("login with %q cost %d derivations, want %d", password, got, want)
		}
	}
	login("secret", 1)
	login("secret", 0)
	login("wrong", 1)
	login("secret", 0)
}

func TestPLAINWaitsForASlotNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mustDeps()
		r := mustRealm(t, d, passwords())
		for range cap(d.work) {
			d.work <- struct{}{}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		x, _ := r.Begin("PLAIN")
		if _, _, err := x.Step(ctx, []byte("\x00a\x00b")); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Step: %v, want the context's end and no verdict", err)
		}
	})
}

func TestStillValid(t *testing.T) {
	d, clk := newTestDeps()
	alice := withPassword(t, "alice", "secret")
	r := mustRealm(t, d, passwords(), alice)
	id, err := plainLogin(t, r, "alice", "secret")
	if err != nil {
		t.Fatal(err)
	}
	viaSCRAM, err := (&scramClient{mech: scramSHA512, user: "alice", password: "secret"}).login(t, r)
	if err != nil || viaSCRAM.Credential != id.Credential {
		t.Fatalf("SCRAM: %+v, %v, want credential %s", viaSCRAM, err, id.Credential)
	}

	before := d.Derivations()
	same := mustRealm(t, d, passwords(), alice, withVerifiers("new", argonVerifier("", "x")))
	if err := same.StillValid(id); err != nil {
		t.Fatalf("after a reload that did not touch alice: %v", err)
	}
	if n := d.Derivations() - before; n != 0 {
		t.Fatalf("the reload derived %d times", n)
	}
	wantRefusal(t, mustRealm(t, d, passwords()).StillValid(id), refusal.CredentialRevoked)
	wantRefusal(t, mustRealm(t, d, resource.Authentication{SCRAM: &struct{}{}}, alice).StillValid(id), refusal.CredentialRevoked)
	wantRefusal(t, mustRealm(t, d, passwords(), externalAccount("alice", "sub")).StillValid(id), refusal.CredentialRevoked)
	wantRefusal(t, mustRealm(t, d, passwords(), withPassword(t, "alice", "changed")).StillValid(id), refusal.CredentialRevoked)

	t.Setenv("AUTH_TEST_ALICE", "secret")
	ending := *alice
	ending.Spec.Expires = testNow.Add(time.Hour)
	shortened := mustRealm(t, d, passwords(), &ending)
	if err := shortened.StillValid(id); err != nil {
		t.Fatalf("before the end: %v", err)
	}
	clk.advance(time.Hour)
	wantRefusal(t, shortened.StillValid(id), refusal.CredentialRevoked)

	anonymous := mustRealm(t, d, resource.Authentication{Anonymous: &struct{}{}})
	nobody, ok := anonymous.Anonymous()
	if !ok || nobody.Principal != "User:ANONYMOUS" || anonymous.StillValid(nobody) != nil {
		t.Fatalf("Anonymous = %+v, %v", nobody, ok)
	}
	wantRefusal(t, r.StillValid(nobody), refusal.CredentialRevoked)
	if _, ok := r.Anonymous(); ok {
		t.Fatal("anonymous where only passwords are accepted")
	}
}

func TestMechanisms(t *testing.T) {
	r := mustRealm(t, mustDeps(), passwords())
	if got := strings.Join(r.Mechanisms(), " "); got != "PLAIN SCRAM-SHA-256 SCRAM-SHA-512" {
		t.Fatalf("Mechanisms() = %s", got)
	}
	_, err := mustRealm(t, mustDeps(), resource.Authentication{Plain: &struct{}{}}).Begin("SCRAM-SHA-256")
	wantRefusal(t, err, refusal.MechanismNotOffered)
	_, err = r.Begin("GSSAPI")
	wantRefusal(t, err, refusal.MechanismNotOffered)
}

func TestNewRealmReportsEveryProblem(t *testing.T) {
	bad := func(change func(*resource.Verifier)) resource.Verifier {
		v := scramVerifier("", scramSHA256, "x", "some salt", 4096)
		change(&v)
		return v
	}
	missing := withPassword(t, "missing", "x")
	missing.Spec.Password = "env:AUTH_TEST_NOT_SET"
	accounts := []*resource.ServiceAccount{
		missing,
		withVerifiers("a", bad(func(v *resource.Verifier) { v.Iterations = 1000 })),
		withVerifiers("b", bad(func(v *resource.Verifier) { v.StoredKey = "AAAA" })),
		withVerifiers("c", bad(func(v *resource.Verifier) { v.Salt = "?" })),
		withVerifiers("d", bad(func(v *resource.Verifier) { v.Mechanism = "MD5" })),
		withVerifiers("e", resource.Verifier{Mechanism: "argon2id", Hash: "$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"}),
		withVerifiers("f", resource.Verifier{Mechanism: "argon2id", Hash: "$argon2id$v=19$m=99999999,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"}),
		withVerifiers("g"), withVerifiers("g"),
	}
	_, err := NewRealm(cluster(passwords()), accounts, mustDeps())
	if err == nil {
		t.Fatal("NewRealm took them all")
	}
	if got := len(strings.Split(err.Error(), "\n")); got != len(accounts)-1 {
		t.Fatalf("%d problems, want %d:\n%v", got, len(accounts)-1, err)
	}
}

func FuzzPlain(f *testing.F) {
	f.Add([]byte("\x00alice\x00secret"))
	f.Add([]byte("a\x00b\x00c\x00d"))
	f.Fuzz(func(t *testing.T, b []byte) {
		z, u, p, err := parsePlain(b)
		if err == nil && (u == "" || p == "" || z+"\x00"+u+"\x00"+p != string(b)) {
			t.Fatalf("parsePlain(%q) = %q %q %q", b, z, u, p)
		}
	})
}

func FuzzPHC(f *testing.F) {
	f.Add(argonVerifier("", "x").Hash)
	f.Add("$argon2id$v=19$m=1,t=1,p=1$$")
	f.Fuzz(func(t *testing.T, s string) {
		var v verifier
		if err := v.parsePHC(s); err == nil && (v.memory > maxArgonMemoryKiB || v.time < 1 || v.threads < 1 || len(v.salt) == 0 || len(v.hash) < 16) {
			t.Fatalf("parsePHC(%q) = %+v", s, v)
		}
	})
}
