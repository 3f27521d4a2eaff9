package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
)

// The example of RFC 7677, with the keys as PostgreSQL stores them; and the same
// password under SHA-512, as Python derives it.
func TestVerifiers(t *testing.T) {
	like := []resource.Verifier{
		{Mechanism: "SCRAM-SHA-256", Iterations: 4096, Salt: "W22ZaJ0SNY7soEsUEjb6gQ=="},
		{Mechanism: "SCRAM-SHA-512", Iterations: 4096, Salt: "W22ZaJ0SNY7soEsUEjb6gQ=="},
	}
	got, err := verifiers("pencil", like)
	if err != nil {
		t.Fatal(err)
	}
	want := []resource.Verifier{
		{
			Mechanism: "SCRAM-SHA-256", Iterations: 4096, Salt: "W22ZaJ0SNY7soEsUEjb6gQ==",
			StoredKey: "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=", ServerKey: "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
		},
		{
			Mechanism: "SCRAM-SHA-512", Iterations: 4096, Salt: "W22ZaJ0SNY7soEsUEjb6gQ==",
			StoredKey: "6AAub3065EYRmyFpM2RNwqK+eGnrkYuEWbXn19LsEmBqzu8QaCXNc1FwpnX9NhH2hK/60dzj9DoO5DvVkOHbvg==", ServerKey: "jZHbYjC1aHh0/hKbxyBuGFjDrgjgKTT1esA7awWiKcRZ0o/0b1yWEebBeSVkkCFewf91nLDfKF24mvD5nmE6rA==",
		},
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
	if !verifies(got, "pencil") || verifies(got, "pencils") || !verifies(got[1:], "pencil") || verifies(nil, "pencil") {
		t.Error("verifies")
	}
}

// verifiersOf are what the fleet is told of the account.
func (b *bed) verifiersOf() []resource.Verifier {
	b.t.Helper()
	compiled, err := b.Compile(b.t.Context(), bundle.ID{Kind: bundle.VirtualCluster, Name: "acme-prod"})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, o := range compiled.Objects {
		if a, ok := o.(*resource.ServiceAccount); ok && a.Metadata.Name == "shipping" {
			return a.Spec.Verifiers
		}
	}
	b.t.Fatal("the bundle is without the account")
	return nil
}

// good tells which of some passwords clients can log in with.
func (b *bed) good(passwords ...secret.Secret) (all []bool) {
	b.t.Helper()
	byID := make(map[string][]resource.Verifier)
	for _, v := range b.verifiersOf() {
		if v.Live(b.now) {
			byID[v.ID] = append(byID[v.ID], v)
		}
	}
	for _, p := range passwords {
		ok := false
		for _, vs := range byID {
			ok = ok || verifies(vs, p.Reveal())
		}
		all = append(all, ok)
	}
	return all
}

func TestSecretsLiveAndEnd(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.apply(base)
		issue := func(expires time.Time) Issued {
			t.Helper()
			s, err := b.IssueSecret(ctx, alice, keyAccount, expires, Options{})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		check := func(what string, want []bool, passwords ...secret.Secret) {
			t.Helper()
			if got := b.good(passwords...); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: good are %v, want %v", what, got, want)
			}
			for _, v := range b.verifiersOf() {
				for _, o := range b.verifiersOf() {
					if v.Mechanism == o.Mechanism && v.Salt != o.Salt {
						t.Errorf("%s: two salts for %s: no SCRAM server can serve that", what, v.Mechanism)
					}
				}
			}
		}
		first := issue(time.Time{})
		if first.Username != "shipping" || len(first.Password.Reveal()) != 43 || first.Revision != 2 || first.Expires != (time.Time{}) {
			t.Errorf("issued: %+v", first)
		}
		if vs := b.verifiersOf(); len(vs) != 2 || vs[0].ID != first.ID {
			t.Errorf("verifiers: %+v", vs)
		}
		secondSecret := issue(b.now.Add(time.Hour))
		check("two", []bool{true, true}, first.Password, secondSecret.Password)
		_, err := b.IssueSecret(ctx, alice, keyAccount, time.Time{}, Options{})
		if e, ok := errors.AsType[*Refused](err); !ok || !strings.Contains(e.Text, first.ID) || !strings.Contains(e.Text, "expire or revoke one") {
			t.Errorf("a third: %v", err)
		}
		// The first is to end soon, and does.
		if s, revision, err := b.ExpireSecret(ctx, alice, keyAccount, first.ID, b.now.Add(time.Minute), Options{}); err != nil || revision != 4 || !s.Expires.Equal(b.now.Add(time.Minute)) {
			t.Errorf("ExpireSecret: %+v at %d, %v", s, revision, err)
		}
		if _, revision, err := b.ExpireSecret(ctx, alice, keyAccount, first.ID, b.now.Add(time.Minute), Options{}); err != nil || revision != 4 {
			t.Errorf("ExpireSecret again: at %d, %v, want no new revision", revision, err)
		}
		check("the first ends soon", []bool{true, true}, first.Password, secondSecret.Password)
		b.now = b.now.Add(time.Minute)
		check("the first has ended", []bool{false, true}, first.Password, secondSecret.Password)
		third := issue(time.Time{})
		check("a third in its place", []bool{false, true, true}, first.Password, secondSecret.Password, third.Password)
		// It cannot come back while there are two others.
		if list, err := b.ListSecrets(ctx, keyAccount, Options{}); err != nil || len(list) != 2 {
			t.Errorf("ListSecrets: %+v, %v: what expired is forgotten with the next one", list, err)
		}
		b.now = b.now.Add(time.Hour)
		if _, _, err := b.ExpireSecret(ctx, alice, keyAccount, secondSecret.ID, time.Time{}, Options{}); err != nil {
			t.Errorf("an expired secret is prolonged: %v", err)
		}
		check("prolonged", []bool{true, true}, secondSecret.Password, third.Password)
		if _, err := b.RevokeSecret(ctx, alice, keyAccount, third.ID, Options{}); err != nil {
			t.Error(err)
		}
		check("revoked", []bool{true, false}, secondSecret.Password, third.Password)
		if _, err := b.RevokeSecret(ctx, alice, keyAccount, third.ID, Options{}); fmt.Sprint(err) != "there is no secret "+third.ID+" of ServiceAccount shipping of acme-prod" {
			t.Errorf("revoked again: %v", err)
		}

		got, err := b.Get(ctx, keyAccount)
		if err != nil || len(got.Status.Secrets) != 1 || got.Status.Secrets[0].ID != secondSecret.ID {
			t.Errorf("status: %+v, %v", got.Status, err)
		}
		b.apply(doc("ServiceAccount name: aaa, virtualCluster: acme-prod | type: local"))
		if page, err := b.List(ctx, Query{Kind: resource.KindServiceAccount}); err != nil || len(page.Items) != 2 ||
			page.Items[0].Status.Secrets != nil || fmt.Sprint(page.Items[1].Status) != fmt.Sprint(got.Status) {
			t.Errorf("a list: %+v, %v", page, err)
		}
		if _, err := b.try(doc("ServiceAccount name: shipping, virtualCluster: acme-prod | type: external, externalNames: [x]")); err == nil || !strings.Contains(err.Error(), "revoke them first") {
			t.Errorf("an external account with secrets: %v", err)
		}
		if _, err := b.Delete(ctx, alice, keyAccount, Options{}); err != nil {
			t.Error(err)
		}
		b.apply(doc(docAccount))
		if vs := b.verifiersOf(); len(vs) != 0 {
			t.Errorf("an account made anew has the old one's secrets: %+v", vs)
		}
		b.apply(doc("ServiceAccount name: reports, virtualCluster: acme-prod | type: external, externalNames: [x]"))
		if _, err := b.IssueSecret(ctx, alice, key("ServiceAccount", "acme-prod", "reports"), time.Time{}, Options{}); err == nil {
			t.Error("an external account gets a secret")
		}
		if _, err := b.IssueSecret(ctx, alice, keyAccount, b.now, Options{}); err == nil {
			t.Error("a secret that was never good")
		}
		if _, err := b.IssueSecret(ctx, alice, keyTenant, time.Time{}, Options{}); err == nil {
			t.Error("a tenant gets a secret")
		}
	})
}

func TestSecretsAreBroughtAlong(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.apply(base)
		bring := func(i Import) (Secret, Change, error) {
			s, change, _, err := b.ImportSecret(ctx, alice, keyAccount, i, Options{})
			return s, change, err
		}
		password := secret.New("shipping secret")
		first, change, err := bring(Import{Password: password})
		if err != nil || change != Created || !first.Imported {
			t.Fatalf("%+v is %s, %v", first, change, err)
		}
		head, _ := b.Head(ctx)
		for range 2 {
			if s, change, err := bring(Import{Password: password}); err != nil || change != Unchanged || s.ID != first.ID {
				t.Errorf("again: %+v is %s, %v", s, change, err)
			}
		}
		if now, _ := b.Head(ctx); now != head {
			t.Errorf("revision %d, want %d", now, head)
		}
		if got := b.good(password); !got[0] {
			t.Error("it is not good")
		}
		// Verifiers of the account's salt are a second secret; of another, they cannot be.
		kept := b.verifiersOf()
		same, err := verifiers("other", kept)
		if err != nil {
			t.Fatal(err)
		}
		foreign, err := verifiers("foreign", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := bring(Import{Verifiers: foreign}); err == nil || !strings.Contains(err.Error(), "has another salt") {
			t.Errorf("another salt: %v", err)
		}
		for _, want := range []Change{Created, Unchanged} {
			if s, change, err := bring(Import{Verifiers: same}); err != nil || change != want {
				t.Errorf("%+v is %s, %v, want %s", s, change, err, want)
			}
		}
		if got := b.good(password, secret.New("other")); !got[0] || !got[1] {
			t.Errorf("good are %v", got)
		}
		if _, _, err := bring(Import{Password: secret.New("third")}); err == nil {
			t.Error("three secrets are live")
		}
		for name, i := range map[string]Import{
			"nothing":         {},
			"both":            {Password: password, Verifiers: same},
			"NUL":             {Password: secret.New("a\x00b")},
			"no UTF-8":        {Password: secret.New("\xff")},
			"long":            {Password: secret.New(strings.Repeat("x", 1025))},
			"past":            {Password: secret.New("fourth"), Expires: b.now},
			"bad verifier":    {Verifiers: []resource.Verifier{{Mechanism: "SCRAM-SHA-256", Iterations: 1, Salt: "x"}}},
			"verifier twice":  {Verifiers: append(same, same...)},
			"empty mechanism": {Verifiers: []resource.Verifier{{}}},
		} {
			if s, change, err := bring(i); err == nil {
				t.Errorf("%s: %+v is %s", name, s, change)
			}
		}
	})
}

// Nothing that is read, logged, refused or stored holds a password or a token; only
// bundles and the table of secrets hold verifiers.
func TestSecretsStayHidden(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.apply(base)
		issued, err := b.IssueSecret(ctx, alice, keyAccount, time.Time{}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		const brought = "brought-along-hunter2"
		if _, _, _, err := b.ImportSecret(ctx, alice, keyAccount, Import{Password: secret.New(brought)}, Options{}); err != nil {
			t.Fatal(err)
		}
		_, token, err := b.CreateToken(ctx, alice, TokenRequest{Name: "ci", Role: RoleOps})
		if err != nil {
			t.Fatal(err)
		}
		_, _, _, refusal := b.ImportSecret(ctx, alice, keyAccount, Import{Password: secret.New("refused-hunter3")}, Options{})
		_, wrong := b.Authenticate(ctx, token.Reveal()+"x")

		hidden := []string{issued.Password.Reveal(), brought, "refused-hunter3", token.Reveal(), strings.Split(token.Reveal(), "_")[2]}
		verifiers := b.verifiersOf()
		if len(verifiers) != 4 {
			t.Fatalf("%d verifiers", len(verifiers))
		}
		var keys []string
		for _, v := range verifiers {
			keys = append(keys, v.Salt, v.StoredKey, v.ServerKey)
		}
		look := func(what string, v any, unwanted ...string) {
			t.Helper()
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			all := string(text) + fmt.Sprintf("%+v", v)
			for _, u := range unwanted {
				if strings.Contains(all, u) {
					t.Errorf("%s shows %s", what, u)
				}
			}
		}
		everything := append(keys, hidden...)
		stored, err := b.Get(ctx, keyAccount)
		if err != nil {
			t.Fatal(err)
		}
		look("the object", stored, everything...)
		look("the log", b.log(AuditQuery{}), everything...)
		look("a refusal", refusal.Error(), everything...)
		look("a wrong token", wrong.Error(), everything...)
		look("what was issued, printed", issued, everything...)
		tokens, err := b.ListTokens(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		look("tokens", tokens, everything...)
		if path, ok := strings.CutPrefix(b.url, "sqlite:"); ok {
			for _, suffix := range []string{"", "-wal"} {
				raw, err := os.ReadFile(path + suffix)
				if err != nil {
					t.Fatal(err)
				}
				for _, u := range hidden {
					if strings.Contains(string(raw), u) {
						t.Errorf("the database holds %s", u)
					}
				}
			}
		}
	})
}

func TestTokens(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.apply(base)
		make := func(r TokenRequest) (Token, string) {
			t.Helper()
			k, shown, err := b.CreateToken(ctx, alice, r)
			if err != nil {
				t.Fatal(err)
			}
			return k, shown.Reveal()
		}
		ops, opsText := make(TokenRequest{Name: "ops", Role: RoleOps})
		acme, acmeText := make(TokenRequest{Name: "acme", Role: RoleTenant, Tenant: "acme", ReadOnly: true, Expires: b.now.Add(time.Hour)})
		for _, tt := range []struct {
			text string
			want Token
		}{{opsText, ops}, {acmeText, acme}} {
			got, err := b.Authenticate(ctx, tt.text)
			if err != nil || got != tt.want {
				t.Errorf("Authenticate: %+v, %v, want %+v", got, err, tt.want)
			}
		}
		if !strings.HasPrefix(acmeText, "tg_"+acme.ID+"_") || acme.Scope() != "tenant:acme" || ops.Scope() != "ops" {
			t.Errorf("%s, %s, %s", acmeText, acme.Scope(), ops.Scope())
		}
		for _, bad := range []string{
			"", "tg_", "tg_x", opsText[3:], opsText + "x", opsText[:len(opsText)-1], strings.ToUpper(opsText), "tg_" + acme.ID + "_" + strings.Split(opsText, "_")[2],
			"tg_nobody_x", "tg__", "tg_'_x", strings.Repeat("tg_a_", 1000), "Bearer " + opsText,
		} {
			if k, err := b.Authenticate(ctx, bad); err == nil {
				t.Errorf("%q is %+v", bad, k)
			} else if _, ok := errors.AsType[*Unauthenticated](err); !ok {
				t.Errorf("%q: %v", bad, err)
			}
		}
		for name, bad := range map[string]TokenRequest{
			"no name": {Role: RoleOps}, "no role": {Name: "x"}, "no such role": {Name: "x", Role: "king"}, "tenant without one": {Name: "x", Role: RoleTenant},
			"ops with a tenant": {Name: "x", Role: RoleOps, Tenant: "acme"}, "no such tenant": {Name: "x", Role: RoleTenant, Tenant: "nobody"}, "past": {Name: "x", Role: RoleOps, Expires: b.now},
		} {
			if k, _, err := b.CreateToken(ctx, alice, bad); err == nil {
				t.Errorf("%s: %+v", name, k)
			}
		}
		list := func(tenant string) (names []string) {
			all, err := b.ListTokens(ctx, tenant)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range all {
				names = append(names, fmt.Sprintf("%s used=%v revoked=%v", k.Name, k.LastUsed.Equal(b.now), !k.Revoked.IsZero()))
			}
			return names
		}
		if got := list(""); len(got) != 2 || !slices.Contains(got, "acme used=true revoked=false") || !slices.Contains(got, "ops used=true revoked=false") {
			t.Errorf("tokens: %q", got)
		}
		if got := fmt.Sprint(list("acme")); got != "[acme used=true revoked=false]" {
			t.Errorf("tokens of a tenant: %s", got)
		}
		b.now = b.now.Add(time.Hour)
		if _, err := b.Authenticate(ctx, acmeText); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("an expired token: %v", err)
		}
		for range 2 {
			if err := b.RevokeToken(ctx, alice, ops.ID); err != nil {
				t.Error(err)
			}
		}
		if _, err := b.Authenticate(ctx, opsText); err == nil || !strings.Contains(err.Error(), "revoked") {
			t.Errorf("a revoked token: %v", err)
		}
		if err := b.RevokeToken(ctx, alice, "nobody"); fmt.Sprint(err) != "there is no token nobody" {
			t.Errorf("%v", err)
		}
		if got := len(b.log(AuditQuery{Kind: KindToken})); got != 3 {
			t.Errorf("%d entries in the log of tokens, want 3", got)
		}
		// The tokens of a tenant go with it.
		b.apply(doc("Tenant name: short | displayName: x"))
		_, shortText := make(TokenRequest{Name: "short", Role: RoleTenant, Tenant: "short"})
		if _, err := b.Delete(ctx, alice, key("Tenant", "", "short"), Options{}); err != nil {
			t.Fatal(err)
		}
		b.apply(doc("Tenant name: short | displayName: x"))
		if k, err := b.Authenticate(ctx, shortText); err == nil {
			t.Errorf("%+v outlives its tenant", k)
		}
	})
}

func TestScopes(t *testing.T) {
	for _, text := range []string{"ops", "node", "tenant:acme"} {
		role, tenant, err := ParseScope(text)
		k := Token{Role: role, Tenant: tenant}
		if err != nil || k.Scope() != text {
			t.Errorf("%s is %s, %v", text, k.Scope(), err)
		}
	}
	for _, text := range []string{"", "tenant", "tenant:", "ops:acme", "king"} {
		if role, tenant, err := ParseScope(text); err == nil {
			t.Errorf("%q is %s of %s", text, role, tenant)
		}
	}
}
