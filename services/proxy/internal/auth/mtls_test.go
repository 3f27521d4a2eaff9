package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
)

func TestPrincipalRules(t *testing.T) {
	const dn = "CN=kafka1.example,OU=Servers,O=Acme,C=DE"
	for _, c := range []struct {
		name, rules, dn, want string // want "": no rule matches
	}{
		{"no rules", "", dn, dn},
		{"DEFAULT", " DEFAULT ", dn, dn},
		{"the common name", "RULE:^CN=(.*?),.*$/$1/", dn, "kafka1.example"},
		{"upper case", "RULE:^CN=([^,]*),.*$/$1/U", dn, "KAFKA1.EXAMPLE"},
		{"lower case", "RULE:^CN=([^,]*),OU=([^,]*),.*$/$2@$1/L", dn, "servers@kafka1.example"},
		{"the first match wins", "RULE:^CN=x.*$/x/, RULE:^CN=(.*?),.*$/$1/L, DEFAULT", dn, "kafka1.example"},
		{"the first of two matches wins", "RULE:^(.*)$/one/,RULE:^(.*)$/two/", dn, "one"},
		{"a match of a part is none", "RULE:CN=([^,]*)/$1/", dn, ""},
		{"no match, then DEFAULT", "RULE:CN=([^,]*)/$1/,DEFAULT", dn, dn},
		{"empty rules are passed over", ",,RULE:^(.*)$/x/,", dn, "x"},
		{"a slash in the pattern", `RULE:^CN=a\/(.*)$/$1/`, "CN=a/b", "b"},
		{"a slash in the replacement", `RULE:^CN=(.*)$/x\/$1/`, "CN=b", "x/b"},
		{"a comma in the pattern", "RULE:^CN=(.{1,3})$/$1/", "CN=abc", "abc"},
		{"a group by name", "RULE:^CN=(?<who>.*)$/${who}!/", "CN=b", "b!"},
		{"the whole match", "RULE:^CN=(.*)$/<$0>/", "CN=b", "<CN=b>"},
		{"a group that is none loses digits", "RULE:^CN=(.)(.*)$/$12/", "CN=bcd", "b2"},
		{"a group that never was is text", "RULE:^CN=(.)$/$1@$2/", "CN=b", "b@$2"},
		{"an escaped dollar", `RULE:^CN=(.*)$/\$1/`, "CN=b", "$1"},
		{"a group that did not take part", "RULE:^CN=(a)|CN=(b)$/[$1$2]/", "CN=b", "[b]"},
		{"Java replaces the empty end once more", "RULE:.*/x/", "CN=b", "xx"},
		{"an anchored pattern is replaced once", "RULE:^.*/x/", "CN=b", "x"},
		{"ignoring case", "RULE:(?i)^cn=(.*)$/$1/", "CN=b", "b"},
		{"not ASCII", "RULE:^CN=(.*)$/$1/U", "CN=jürgen", "JÜRGEN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rules, err := parsePrincipalRules(c.rules)
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := rules.apply(c.dn); got != c.want || ok != (c.want != "") {
				t.Fatalf("%s of %s = %q, %v, want %q", c.rules, c.dn, got, ok, c.want)
			}
		})
	}
}

func TestPrincipalRulesRefused(t *testing.T) {
	for _, c := range []struct{ name, rules, says string }{
		{"look-ahead", "RULE:^CN=(?=x).*$/x/", "look-around"},
		{"look-behind", "RULE:^CN=(?<!x)y$/x/", "look-around"},
		{"an atomic group", "RULE:^(?>x)y$/x/", "atomic"},
		{"a back-reference", `RULE:^CN=(.)\1$/x/`, "back-reference"},
		{"a back-reference that looks octal", `RULE:^CN=(.)\12$/x/`, "back-reference"},
		{"a possessive quantifier", "RULE:^CN=a*+$/x/", "not supported"},
		{"an intersection", "RULE:^CN=[a-z&&[^b]]$/x/", "not supported"},
		{"a class within a class", "RULE:^CN=[a[b]]$/x/", "not supported"},
		{"a flag that means something else", "RULE:(?U)^CN=(.*)$/x/", "(?U)"},
		{"a Python group", "RULE:^CN=(?P<a>.)$/x/", "(?P"},
		{"a lower-case default", "default", "want RULE:"},
		{"something after DEFAULT", "DEFAULTS", "comma"},
		{"an unknown flag", "RULE:^(.*)$/$1/X", "comma"},
		{"both flags", "RULE:^(.*)$/$1/LU", "comma"},
		{"one slash", "RULE:^(.*)$/x", "two slashes"},
		{"a broken pattern", "RULE:^(.*$/x/", "missing closing"},
		{"a group of a pattern without groups", "RULE:^.*$/$1/", "no groups"},
		{"a bare dollar", "RULE:^(.*)$/$x/", "after $"},
		{"a dollar at the end", "RULE:^(.*)$/$/", "ends in $"},
		{"an unknown group name", "RULE:^(.*)$/${x}/", "names no group"},
		{"only commas", ",,", "only commas"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := parsePrincipalRules(c.rules); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("parsePrincipalRules(%q): %v, want a word about %q", c.rules, err, c.says)
			}
		})
	}
}

func FuzzPrincipalRules(f *testing.F) {
	f.Add("RULE:^CN=(.*?),.*$/$1/L,DEFAULT", "CN=a,O=b")
	f.Add(`RULE:.*|\b/${1}\$$12/U`, "é")
	f.Fuzz(func(t *testing.T, text, dn string) {
		rules, err := parsePrincipalRules(text)
		if (err == nil) != (len(rules) > 0) {
			t.Fatalf("%d rules, %v", len(rules), err)
		}
		rules.apply(dn)
	})
}

// testCA issues certificates that are good for a day around testNow.
type testCA struct {
	cert *x509.Certificate
	priv *ecdsa.PrivateKey
}

func newCA(t *testing.T, name string) *testCA {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &testCA{priv: priv}
	ca.cert = ca.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return ca
}

func (ca *testCA) issue(t *testing.T, c *x509.Certificate) *x509.Certificate {
	t.Helper()
	c.SerialNumber = big.NewInt(1)
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = testNow.Add(-time.Hour), testNow.Add(24*time.Hour)
	}
	parent := ca.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, ca.priv.Public(), ca.priv)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (ca *testCA) client(t *testing.T, cn string) *x509.Certificate {
	t.Helper()
	return ca.issue(t, &x509.Certificate{
		Subject:     pkix.Name{CommonName: cn, Organization: []string{"Acme"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// mtlsCluster trusts cas; its paths are relative to a directory of its own.
func mtlsCluster(t *testing.T, rules string, cas ...*testCA) *resource.VirtualCluster {
	t.Helper()
	dir := t.TempDir()
	var text []byte
	for _, ca := range cas {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})...)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	vc := cluster(resource.Authentication{MTLS: &resource.MTLS{CAFile: "ca.pem", PrincipalRules: rules}})
	vc.Metadata.Source.File = filepath.Join(dir, "vc.yaml")
	return vc
}

func TestFromCertificate(t *testing.T) {
	ca, stranger := newCA(t, "ca"), newCA(t, "ca")
	d, clk := newTestDeps()
	ended := externalAccount("ended")
	ended.Spec.Expires = testNow
	local := withVerifiers("local", argonVerifier("", "x"))
	const rules = "RULE:^CN=([^,]*),O=Acme$/$1/L"
	accounts := []*resource.ServiceAccount{
		externalAccount("shipping", "ship-1"), externalAccount("billing", "CN=Bill,O=Acme"), ended, local,
	}
	vc := mtlsCluster(t, rules, ca)
	r, err := NewRealm(vc, accounts, d)
	if err != nil {
		t.Fatal(err)
	}
	if r.ClientCAs() == nil || len(r.Mechanisms()) != 0 {
		t.Fatalf("ClientCAs %v, Mechanisms %v", r.ClientCAs(), r.Mechanisms())
	}
	server := ca.issue(t, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "ship-1", Organization: []string{"Acme"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	for _, c := range []struct {
		name  string
		chain []*x509.Certificate
		want  string // account
		why   *refusal.Refusal
	}{
		{"an external name", []*x509.Certificate{ca.client(t, "SHIP-1")}, "shipping", nil},
		{"the name of an external account", []*x509.Certificate{ca.client(t, "shipping")}, "shipping", nil},
		{"the full name", []*x509.Certificate{ca.client(t, "Bill")}, "billing", nil},
		{"the root comes along", []*x509.Certificate{ca.client(t, "shipping"), ca.cert}, "shipping", nil},
		{"a local account has a password instead", []*x509.Certificate{ca.client(t, "local")}, "", refusal.AccountUnknown},
		{"nobody's name", []*x509.Certificate{ca.client(t, "nobody")}, "", refusal.AccountUnknown},
		{"no rule matches", []*x509.Certificate{ca.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "shipping"}})}, "", refusal.CertificateNotMapped},
		{"another root of the same name", []*x509.Certificate{stranger.client(t, "shipping"), stranger.cert}, "", refusal.ClientCertificateRefused},
		{"a server's certificate", []*x509.Certificate{server}, "", refusal.ClientCertificateRefused},
		{"no certificate", nil, "", refusal.CertificateMissing},
		{"an account that expired", []*x509.Certificate{ca.client(t, "ended")}, "", refusal.AccountUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, err := r.FromCertificate(c.chain)
			if c.why != nil {
				wantRefusal(t, err, c.why)
				return
			}
			if err != nil || id.Principal != "User:"+c.want || id.Account != c.want || id.Mechanism != MTLS || !id.Expires.Equal(testNow.Add(24*time.Hour)) {
				t.Fatalf("FromCertificate = %+v, %v", id, err)
			}
			if err := r.StillValid(id); err != nil {
				t.Fatalf("StillValid: %v", err)
			}
		})
	}

	id, err := r.FromCertificate([]*x509.Certificate{ca.client(t, "ship-1")})
	if err != nil {
		t.Fatal(err)
	}
	reload := func(vc *resource.VirtualCluster, accounts ...*resource.ServiceAccount) error {
		t.Helper()
		r, err := NewRealm(vc, accounts, d)
		if err != nil {
			t.Fatal(err)
		}
		return r.StillValid(id)
	}
	if err := reload(mtlsCluster(t, rules, stranger, ca), accounts...); err != nil {
		t.Fatalf("one more root: %v", err)
	}
	wantRefusal(t, reload(mtlsCluster(t, rules, stranger), accounts...), refusal.CredentialRevoked)
	wantRefusal(t, reload(mtlsCluster(t, "DEFAULT", ca), accounts...), refusal.CredentialRevoked)
	wantRefusal(t, reload(vc, externalAccount("shipping", "ship-2")), refusal.CredentialRevoked)
	wantRefusal(t, reload(vc), refusal.CredentialRevoked)
	wantRefusal(t, reload(cluster(passwords()), accounts...), refusal.CredentialRevoked)
	clk.advance(24 * time.Hour)
	wantRefusal(t, r.StillValid(id), refusal.CredentialRevoked)
	_, err = r.FromCertificate([]*x509.Certificate{ca.client(t, "ship-1")})
	if err == nil {
		clk.advance(time.Second) // NotAfter itself is still good
		_, err = r.FromCertificate([]*x509.Certificate{ca.client(t, "ship-1")})
	}
	wantRefusal(t, err, refusal.ClientCertificateRefused)
}

func TestFromCertificateWhereNoneAreTaken(t *testing.T) {
	r := mustRealm(t, mustDeps(), passwords())
	_, err := r.FromCertificate([]*x509.Certificate{newCA(t, "ca").cert})
	wantRefusal(t, err, refusal.ClientCertificateRefused)
	if r.ClientCAs() != nil {
		t.Fatal("ClientCAs without mTLS")
	}
}

func TestMTLSProblems(t *testing.T) {
	vc := mtlsCluster(t, "RULE:(", newCA(t, "ca"))
	vc.Spec.Authentication.MTLS.CAFile = "missing.pem"
	if _, err := NewRealm(vc, nil, mustDeps()); err == nil || !strings.Contains(err.Error(), "principalRules") || !strings.Contains(err.Error(), "missing.pem") {
		t.Fatalf("NewRealm: %v, want both problems", err)
	}
	if _, err := NewRealm(mtlsCluster(t, ""), nil, mustDeps()); err == nil || !strings.Contains(err.Error(), "no certificate") {
		t.Fatalf("NewRealm with an empty caFile: %v", err)
	}
}

// Where the resources come from a control plane, the certificates are in them.
func TestCertificatesOfTheResource(t *testing.T) {
	ca := newCA(t, "ca")
	d, _ := newTestDeps()
	vc := cluster(resource.Authentication{MTLS: &resource.MTLS{CA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}))}})
	r, err := NewRealm(vc, []*resource.ServiceAccount{externalAccount("shipping", "CN=ship-1,O=Acme")}, d)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := r.FromCertificate([]*x509.Certificate{ca.client(t, "ship-1")}); err != nil || id.Account != "shipping" {
		t.Errorf("FromCertificate = %+v, %v", id, err)
	}
	if id, err := r.FromCertificate([]*x509.Certificate{newCA(t, "ca").client(t, "ship-1")}); err == nil {
		t.Errorf("FromCertificate = %+v of another authority", id)
	}
}

// What cannot be made out is nobody's way in; certificates that are to be taken as before
// are, although their file has gone.
func TestNarrow(t *testing.T) {
	d, _ := newTestDeps()
	ca := newCA(t, "ca")
	accounts := []*resource.ServiceAccount{externalAccount("shipping", "CN=ship-1,O=Acme"), externalAccount("billing", "CN=Bill,O=Acme")}
	vc := mtlsCluster(t, "", ca)
	before, err := NewRealm(vc, accounts, d)
	if err != nil {
		t.Fatal(err)
	}
	logsIn := func(r *Realm, name string) bool {
		_, err := r.FromCertificate([]*x509.Certificate{ca.client(t, name)})
		return err == nil
	}
	if err := os.Remove(vc.Metadata.Path("ca.pem")); err != nil {
		t.Fatal(err)
	}
	gone := externalAccount("gone", "CN=Bill,O=Acme") // a name that is of two accounts is nobody's
	r := Narrow(vc, append(accounts, gone), d, before)
	if !logsIn(r, "ship-1") || logsIn(r, "Bill") {
		t.Error("as before but for Bill: that is not so")
	}
	if r := Narrow(vc, accounts[1:], d, before); logsIn(r, "ship-1") || !logsIn(r, "Bill") {
		t.Error("an account that was removed logs in")
	}
	// Other certificates than before, and nobody knows which.
	vc.Spec.Authentication.MTLS = &resource.MTLS{CAFile: "other.pem"}
	if r := Narrow(vc, accounts, d, before); r.ClientCAs() != nil || logsIn(r, "ship-1") {
		t.Error("certificates of an authority that is trusted no more are taken")
	}
}
