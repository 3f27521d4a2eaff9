package credential

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"

	"tollgate.internal/pkg/resource"
)

// roundTrip answers requests in the place of a network.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (f roundTrip) Do(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), Body: io.NopCloser(strings.NewReader(body)),
		Header: http.Header{"Content-Type": {map[bool]string{true: "application/json", false: "text/xml"}[strings.HasPrefix(body, "{")]}},
	}
}

// cluster is a resource with this login, in a directory of its own.
func cluster(t *testing.T, s resource.UpstreamSASL) (u *resource.UpstreamCluster, write func(name, content string)) {
	t.Helper()
	dir := t.TempDir()
	u = &resource.UpstreamCluster{Spec: resource.UpstreamClusterSpec{Bootstrap: []string{"b:1"}, SASL: &s}}
	u.Metadata.Name, u.Metadata.Source.File = "west", filepath.Join(dir, "west.yaml")
	return u, func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// first is what a mechanism says first.
func first(t *testing.T, c *Credential) (sasl.Session, string, error) {
	t.Helper()
	s, msg, err := c.SASL.Authenticate(t.Context(), "b-1:9092")
	return s, string(msg), err
}

func TestTokensOfClientCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		status, body := 200, ""
		k := NewKeeper(nil)
		defer k.Close()
		k.transport = func(*tls.Config) http.RoundTripper {
			return roundTrip(func(r *http.Request) (*http.Response, error) {
				n := asked.Add(1)
				if err := r.ParseForm(); err != nil || r.Form.Get("grant_type") != "client_credentials" || r.Form.Get("scope") != "kafka read" {
					t.Errorf("asked %v, %v", r.Form, err)
				}
				if id, secret, _ := r.BasicAuth(); status == 200 && (id != "gw" || secret != url.QueryEscape("s+e cret")) {
					t.Errorf("asked as %q, %q", id, secret)
				}
				if body == "" {
					return answer(200, fmt.Sprintf(`{"access_token": "token-%d", "token_type": "Bearer", "expires_in": 300}`, n)), nil
				}
				return answer(status, body), nil
			})
		}
		u, write := cluster(t, resource.UpstreamSASL{
			Mechanism: resource.SASLOAuthBearer, TokenURL: "https://login.example/token?x=hidden", ClientID: "gw", ClientSecret: "file:secret",
			Scopes: []string{"kafka", "read"}, Extensions: map[string]string{"pool": "a"},
		})
		write("secret", "s+e cret\n")
		c, err := k.Open(u)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "without spec.tls") {
			t.Errorf("warnings %q", c.Warnings)
		}
		if got := fmt.Sprint(c.SASL); got != "OAUTHBEARER as gw" || c.SASL.Name() != "OAUTHBEARER" {
			t.Errorf("it calls itself %q, %q", got, c.SASL.Name())
		}
		const want = "n,,\x01auth=Bearer token-1\x01pool=a\x01\x01"
		for range 3 {
			if _, msg, err := first(t, c); err != nil || msg != want {
				t.Errorf("%q, %v, want %q", msg, err, want)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times, want once", n)
		}
		s, _, _ := first(t, c)
		if done, more, err := s.Challenge(nil); !done || len(more) > 0 || err != nil {
			t.Errorf("a token that was taken: %v, %q, %v", done, more, err)
		}
		time.Sleep(time.Minute)
		_, _, err = s.Challenge([]byte(`{"status":"invalid_token","scope":"kafka"}`))
		if err == nil || err.Error() != "the broker refused the token: invalid_token, it wants the scope kafka" {
			t.Errorf("a token that was refused: %v", err)
		}
		first(t, c)
		synctest.Wait()
		if _, msg, _ := first(t, c); !strings.Contains(msg, "token-2") {
			t.Errorf("after it was refused: %q, want the next token", msg)
		}

		time.Sleep(time.Hour)
		for _, e := range []struct {
			status     int
			body, want string
		}{
			{401, `{"error": "invalid_client", "error_description": "s+e cret is wrong\n"}`, "token endpoint https://login.example/token: 401 Unauthorized, invalid_client: [secret] is wrong "},
			{503, `<html>s+e cret</html>`, "token endpoint https://login.example/token: 503 Service Unavailable"},
			{302, `<html/>`, "token endpoint https://login.example/token: 302 Found (write the URL it leads to)"},
			{200, `{"access_token": "a\u0001b", "expires_in": 300}`, "token endpoint https://login.example/token: what it calls a token has characters that no token has"},
		} {
			status, body = e.status, e.body
			time.Sleep(time.Minute)
			if _, _, err := first(t, c); err == nil || err.Error() != e.want {
				t.Errorf("an answer %d: %v, want %s", e.status, err, e.want)
			}
		}
	})
}

func TestATokenWithoutALifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		claims := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp": %d}`, time.Now().Add(time.Hour).Unix()))
		for token, want := range map[string]time.Duration{
			"a." + claims + ".c": time.Hour, "opaque": time.Minute, "a.b.c": time.Minute,
		} {
			if got := time.Until(expiryOf(token)); got != want {
				t.Errorf("%s ends in %v, want %v", token, got, want)
			}
		}
	})
}

const lent = `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials><AccessKeyId>ASIA%d</AccessKeyId>` +
	`<SecretAccessKey>lent</SecretAccessKey><SessionToken>session</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`

// keyID is the one that a token was signed with.
func keyID(t *testing.T, msg string) string {
	t.Helper()
	token, _, _ := strings.Cut(strings.TrimPrefix(msg, "n,,\x01auth=Bearer "), "\x01")
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(string(raw))
	if err != nil {
		t.Fatal(err)
	}
	id, _, _ := strings.Cut(u.Query().Get("X-Amz-Credential"), "/")
	return id
}

// Clusters that agree in region and identity share keys, which are renewed before they end.
func TestKeysOfARoleAreSharedAndRenewed(t *testing.T) {
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CA_BUNDLE", "")
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		down := false
		k := NewKeeper(nil)
		defer k.Close()
		k.aws = roundTrip(func(r *http.Request) (*http.Response, error) {
			if err := r.ParseForm(); err != nil || r.Form.Get("RoleArn") != "arn:aws:iam::111122223333:role/r" || r.Form.Get("ExternalId") != "acme" || r.Form.Get("RoleSessionName") != "tollgate" {
				t.Errorf("asked %v, %v", r.Form, err)
			}
			if r.URL.Host != "sts.eu-west-1.amazonaws.com" {
				t.Errorf("asked %s", r.URL)
			}
			if down {
				return answer(403, `<ErrorResponse><Error><Code>AccessDenied</Code><Message>no more</Message></Error></ErrorResponse>`), nil
			}
			return answer(200, fmt.Sprintf(lent, asked.Add(1), time.Now().Add(time.Hour).UTC().Format(time.RFC3339))), nil
		})
		open := func(external, secret string) *Credential {
			u, write := cluster(t, resource.UpstreamSASL{
				Mechanism: resource.SASLMSKIAM, Region: "eu-west-1", RoleARN: "arn:aws:iam::111122223333:role/r", ExternalID: external,
				AccessKeyID: "file:id", SecretAccessKey: "file:secret",
			})
			write("id", "AKIA")
			write("secret", secret)
			c, err := k.Open(u)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		signs := func(c *Credential, want string) {
			t.Helper()
			if _, msg, err := first(t, c); err != nil || keyID(t, msg) != want {
				t.Errorf("signed with %s, %v, want %s", keyID(t, msg), err, want)
			}
		}
		one, two := open("acme", "s"), open("acme", "s")
		signs(one, "ASIA1")
		signs(two, "ASIA1")
		if n := asked.Load(); n != 1 {
			t.Errorf("asked STS %d times, want once for both", n)
		}
		time.Sleep(49 * time.Minute)
		signs(one, "ASIA1")
		synctest.Wait()
		signs(two, "ASIA2")
		one.Close()
		three := open("acme", "another") // another secret is another identity
		signs(three, "ASIA3")
		signs(two, "ASIA2")
		two.Close()
		three.Close()
		if len(k.iam) != 0 {
			t.Errorf("%d identities are left of nobody", len(k.iam))
		}

		down = true
		denied := open("acme", "s")
		defer denied.Close()
		_, _, err := first(t, denied)
		if err == nil || !strings.HasPrefix(err.Error(), "assume role arn:aws:iam::111122223333:role/r: ") || !strings.Contains(err.Error(), "AccessDenied: no more") {
			t.Errorf("err = %v", err)
		}
	})
}

func TestKeysFromAProfile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", path)
	t.Setenv("AWS_CONFIG_FILE", path+".none")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CA_BUNDLE", "")
	write := func(id string) {
		if err := os.WriteFile(path, []byte("[kafka]\naws_access_key_id = "+id+"\naws_secret_access_key = s\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		k := NewKeeper(nil)
		defer k.Close()
		u, _ := cluster(t, resource.UpstreamSASL{Mechanism: resource.SASLMSKIAM, Region: "eu-west-1", Profile: "kafka"})
		c, err := k.Open(u)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _, err = first(t, c)
		if err == nil || !strings.Contains(err.Error(), "find AWS keys in profile kafka") {
			t.Errorf("without the file: %v", err)
		}
		write("AKIA1")
		time.Sleep(time.Minute)
		if _, msg, err := first(t, c); err != nil || keyID(t, msg) != "AKIA1" {
			t.Errorf("signed with %s, %v", keyID(t, msg), err)
		}
		write("AKIA2")
		time.Sleep(rereadKeys)
		first(t, c)
		synctest.Wait()
		if _, msg, err := first(t, c); err != nil || keyID(t, msg) != "AKIA2" {
			t.Errorf("a quarter of an hour later: signed with %s, %v", keyID(t, msg), err)
		}
	})
}

const krb5Conf = "[libdefaults]\n default_realm = R\n[realms]\n R = {\n  kdc = 127.0.0.1:1\n }\n"

// keytabOf is a keytab with one key of a principal.
func keytabOf(t *testing.T, name, realm string) string {
	t.Helper()
	k := keytabWith(t, name, realm)
	raw, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestKeytabs(t *testing.T) {
	good := keytabOf(t, "tollgate", "R")
	for name, c := range map[string]struct {
		conf, keytab, principal string
		want                    string // empty: it opens
	}{
		"a principal of the default realm":  {krb5Conf, good, "tollgate", ""},
		"a principal with its realm":        {krb5Conf, good, "tollgate@R", ""},
		"settings that the library ignores": {"[libdefaults]\n default_realm = R\n allow_nothing = true\n[plugins]\n x = y\n", good, "tollgate@R", ""},
		"another principal's key":           {krb5Conf, good, "tollgate@OTHER", "spec.sasl.keytab: the keytab holds no key of tollgate@OTHER, but of tollgate@R"},
		"a file that is no keytab":          {krb5Conf, "hello", "tollgate", "spec.sasl.keytab: the file is not a keytab, or is cut off"},
		"a keytab that is cut off":          {krb5Conf, good[:len(good)/2], "tollgate", "spec.sasl.keytab: the file is not a keytab, or is cut off"},
		"a keytab without keys":             {krb5Conf, "\x05\x02", "tollgate", "spec.sasl.keytab: the"},
		"an empty file":                     {krb5Conf, "", "tollgate", "spec.sasl.keytab: resolve secret file:keytab: value is empty"},
		"a principal of no realm":           {"[libdefaults]\n", good, "tollgate", `spec.sasl.principal: "tollgate" has no realm`},
	} {
		t.Run(name, func(t *testing.T) {
			k := NewKeeper(nil)
			defer k.Close()
			u, write := cluster(t, resource.UpstreamSASL{
				Mechanism: resource.SASLGSSAPI, Keytab: "file:keytab", Principal: c.principal, Krb5Conf: "krb5.conf", ServiceName: "kafka",
			})
			write("krb5.conf", c.conf)
			write("keytab", c.keytab)
			cred, err := k.Open(u)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("err = %v, want %s", err, c.want)
			}
			if err == nil && fmt.Sprint(cred.SASL) != "GSSAPI as tollgate@R" {
				t.Errorf("it calls itself %v", cred.SASL)
			}
			cred.Close()
		})
	}
}

// A KDC that does not answer holds nobody longer than they want to wait, and a broker
// that it does not know says nothing of the next.
func TestAKDCThatDoesNotAnswer(t *testing.T) {
	k := NewKeeper(nil)
	defer k.Close()
	u, write := cluster(t, resource.UpstreamSASL{
		Mechanism: resource.SASLGSSAPI, Keytab: "file:keytab", Principal: "tollgate", Krb5Conf: "krb5.conf", ServiceName: "kafka",
	})
	write("krb5.conf", krb5Conf)
	write("keytab", keytabOf(t, "tollgate", "R"))
	c, err := k.Open(u)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = first(t, c)
	if err == nil || !strings.HasPrefix(err.Error(), "KDC of R: ") {
		t.Errorf("err = %v", err)
	}
	if _, _, err = first(t, c); err == nil || !strings.HasPrefix(err.Error(), "next try in ") || !strings.Contains(err.Error(), "KDC of R: ") {
		t.Errorf("at once again: %v", err)
	}
	if _, _, err = c.SASL.Authenticate(t.Context(), "b-2:9092"); err == nil || !strings.HasPrefix(err.Error(), "KDC of R: ") {
		t.Errorf("of another broker: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if _, _, err = c.SASL.Authenticate(ctx, "b-3:9092"); err == nil {
		t.Error("a ticket of nobody")
	}
	c.Close()
	if _, _, err = c.SASL.Authenticate(t.Context(), "b-4:9092"); err == nil || !strings.Contains(err.Error(), "another keytab") {
		t.Errorf("after it was replaced: %v", err)
	}
}

// What a credential was made of is followed, wherever it lies, and the fields that
// cannot be used are named, all of them.
func TestFilesOfACredential(t *testing.T) {
	k := NewKeeper(nil)
	defer k.Close()
	u, write := cluster(t, resource.UpstreamSASL{Mechanism: resource.SASLSCRAM512, Username: "gw", Password: "file:p"})
	u.Spec.TLS = &resource.UpstreamTLS{CAFile: "ca.pem", CertFile: "c.pem", KeyFile: "file:k.pem"}
	write("ca.pem", "not a certificate")
	broken, err := k.Open(u)
	if err == nil {
		t.Fatal("opened without files")
	}
	for _, want := range []string{"spec.tls.caFile: no certificate in ca.pem", "spec.tls.certFile: ", "spec.tls.keyFile: ", "spec.sasl.password: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if broken.Usable() || broken.TLS == nil || broken.Changed() {
		t.Error("what is returned beside an error is no credential that fails")
	}
	if _, _, err := first(t, broken); err == nil || !strings.Contains(err.Error(), "spec.sasl.password") {
		t.Errorf("a login with it: %v", err)
	}
	if err := broken.TLS.VerifyConnection(tls.ConnectionState{}); err == nil {
		t.Error("it trusts a broker")
	}

	u.Spec.TLS = nil
	write("p", "one")
	c, err := k.Open(u)
	if err != nil {
		t.Fatal(err)
	}
	if c.Changed() {
		t.Error("changed at once")
	}
	write("p", "one ")
	if !c.Changed() {
		t.Error("a change was not seen")
	}
	next, err := k.Open(u)
	if err != nil || next.Same(c) {
		t.Errorf("another content: %v", err)
	}
	write("p", "one\n")
	if same, err := k.Open(u); err != nil || !same.Same(c) {
		t.Errorf("the same content: %v", err)
	}
	if fmt.Sprint(c.SASL) != "SCRAM-SHA-512 as gw" {
		t.Errorf("it calls itself %v", c.SASL)
	}
}
