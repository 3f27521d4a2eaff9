package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// askJava compiles the oracle and asks it all questions in one run. A machine
// without a JDK fails here by name: nothing else says what Kafka would print.
func askJava(t *testing.T, questions []string) []string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("javac", "-d", dir, "testdata/java/Oracle.java").CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, out)
	}
	java := exec.Command("java", "-Xshare:auto", "-cp", dir, "Oracle")
	java.Stdin = strings.NewReader(strings.Join(questions, "\n") + "\n")
	var stderr bytes.Buffer
	java.Stderr = &stderr
	out, err := java.Output()
	if err != nil {
		t.Fatalf("java: %v\n%s", err, stderr.Bytes())
	}
	answers := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(answers) != len(questions) {
		t.Fatalf("%d answers to %d questions", len(answers), len(questions))
	}
	for i, a := range answers {
		b, err := hex.DecodeString(a)
		if err != nil {
			t.Fatal(err)
		}
		answers[i] = string(b)
	}
	return answers
}

func TestJavaAgreesOnRandomNames(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2253, 4514)) // the same names in every run
	oids := []asn1.ObjectIdentifier{
		{2, 5, 4, 3},
		{2, 5, 4, 6},
		{2, 5, 4, 7},
		{2, 5, 4, 8},
		{2, 5, 4, 10},
		{2, 5, 4, 11},
		{2, 5, 4, 9},
		{0, 9, 2342, 19200300, 100, 1, 25},
		{0, 9, 2342, 19200300, 100, 1, 1},
		{1, 2, 840, 113549, 1, 9, 1},
		{2, 5, 4, 5},
		{2, 5, 4, 4},
		{2, 5, 4, 12},
		{1, 2, 3},
		{2, 999, 1},
	}
	tags := []int{12, 12, 12, 12, 19, 20, 22, 27, 30, 28, 18, 26, 3, 4, 2}
	texts := []string{
		"a", "B", "0", " ", "  ", "\r", "\n", "\t", "#", ",", "=", "+", "<", ">", ";", `"`, `\`, "\x00",
		"ü", "日", "😀", "\u0301", "/", ":", "?", "'", "\x7f",
	}
	// Starts and middles of characters, in UTF-8 and where it ends.
	broken := []byte{0x80, 0xbf, 0xc0, 0xc2, 0xe0, 0xa0, 0xed, 0x9f, 0xaf, 0xf0, 0x90, 0xf4, 0x8f, 0xf5, 0xff, 'A', 0xe3, 0xf1}
	tlv := func(class, tag int, compound bool, b []byte) []byte {
		out, err := asn1.Marshal(asn1.RawValue{Class: class, Tag: tag, IsCompound: compound, Bytes: b})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	var ders [][]byte
	var questions []string
	for range 5000 {
		var names []byte
		for range rnd.IntN(4) {
			var set []byte
			for range 1 + rnd.IntN(3)*rnd.IntN(2) {
				var value []byte
				for range rnd.IntN(7) {
					if rnd.IntN(6) > 0 {
						value = append(value, texts[rnd.IntN(len(texts))]...)
						continue
					}
					for range 1 + rnd.IntN(4) {
						value = append(value, broken[rnd.IntN(len(broken))])
					}
				}
				oid, err := asn1.Marshal(oids[rnd.IntN(len(oids))])
				if err != nil {
					t.Fatal(err)
				}
				pair := append(oid, tlv(asn1.ClassUniversal, tags[rnd.IntN(len(tags))], false, value)...)
				set = append(set, tlv(asn1.ClassUniversal, asn1.TagSequence, true, pair)...)
			}
			names = append(names, tlv(asn1.ClassUniversal, asn1.TagSet, true, set)...)
		}
		der := tlv(asn1.ClassUniversal, asn1.TagSequence, true, names)
		ders = append(ders, der)
		questions = append(questions, "name "+hex.EncodeToString(der))
	}
	for i, want := range askJava(t, questions) {
		if got, err := distinguishedName(ders[i]); got != want || err != nil {
			t.Errorf("distinguishedName(%x) = %q, %v, want %q", ders[i], got, err, want)
		}
	}
}

func TestJavaAgreesOnCertificates(t *testing.T) {
	subjects := []pkix.Name{
		{},
		{CommonName: "reports", Organization: []string{"ACME"}},
		{CommonName: "a,b+c", Organization: []string{" padded "}, OrganizationalUnit: []string{"#1", "Zwei"}, Country: []string{"DE"}},
		{
			CommonName: "Jürgen \"日本\" <x>", Locality: []string{"Köln"}, Province: []string{"NRW"}, StreetAddress: []string{"Am Dom 1"},
			SerialNumber: "4711", PostalCode: []string{"50667"},
			ExtraNames: []pkix.AttributeTypeAndValue{
				{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, Value: "ops@acme.example"},
				{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, Value: "acme"},
				{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, Value: "u1"},
				{Type: asn1.ObjectIdentifier{1, 2, 3}, Value: "private"},
			},
		},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var certs []*x509.Certificate
	var questions []string
	for i, s := range subjects {
		template := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), Subject: s, NotBefore: testNow, NotAfter: testNow.Add(time.Hour)}
		parent := &x509.Certificate{Subject: pkix.Name{CommonName: "issuer"}}
		der, err := x509.CreateCertificate(crand.Reader, template, parent, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, c)
		questions = append(questions, "certificate "+hex.EncodeToString(der))
	}
	for i, want := range askJava(t, questions) {
		if got, err := distinguishedName(certs[i].RawSubject); got != want || err != nil {
			t.Errorf("distinguishedName of %s = %q, %v, want %q", certs[i].Subject, got, err, want)
		}
	}
}

func TestJavaAgreesOnRules(t *testing.T) {
	patterns := []string{
		`^CN=(.*?),OU=ServiceUsers.*$`, `^CN=(.*?), *OU=(.*?),.*$`, `CN=([^,]+)(,.*)?`, `.*`, `(.*)`, `.*?`, `a|ab`, `(a|ab)(c|bcd)?`,
		`^.*[Cc][Nn]=([a-zA-Z0-9.]*).*$`, `x*`, `(x)*y?`, `(?i)cn=(.*)`, `[^,]*`, `\w+=\w+(,\w+=\w+)*`, `(?s).*`, `(?<name>[A-Z]+)=(.*)`, `CN=(.*?)\\,(.*)`,
	}
	replacements := []string{`$1`, `x`, ``, `$0!`, `$1-$1`, `\$1`, `<$1>\/`, `$01`}
	// No capital sigma: Java decides by its own word boundaries which small one
	// ends a word, where Go follows Unicode.
	names := []string{
		"", "a", "ab", "abc", "abcd", "xxy", "CN=kafka,OU=ServiceUsers,O=ACME,C=DE", "CN=Jürgen STRASSE,O=Köln", "cn=lower", "CN=a\\,b,O=c",
		"CN=İ", "CN=straße", "CN=ﬁ", "CN=a\rb", "CN=a\u2028b", "CN=a\u0085b", "CN=a\nb", "CN=\u212aelvin",
	}
	type question struct {
		rule, name string
		rules      principalRules
	}
	var asked []question
	var questions []string
	for _, p := range patterns {
		for _, r := range replacements {
			for _, fold := range []string{"", "L", "U"} {
				rule := "RULE:" + p + "/" + r + "/" + fold
				rules, err := parsePrincipalRules(rule)
				if err != nil {
					continue // refused at load: TestPrincipalRulesRefused
				}
				for _, n := range names {
					asked = append(asked, question{rule, n, rules})
					questions = append(questions, fmt.Sprintf("rule %x %x %s %x", p, r, fold, n))
				}
			}
		}
	}
	for i, want := range askJava(t, questions) {
		got, ok := asked[i].rules.apply(asked[i].name)
		if !ok {
			got = "no match"
		}
		if got != want {
			t.Errorf("%q of %q = %q, want %q", asked[i].rule, asked[i].name, got, want)
		}
	}
}
