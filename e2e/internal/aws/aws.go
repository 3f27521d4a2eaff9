// Package aws is the part of AWS that a gateway in front of Amazon MSK meets: STS,
// which lends keys of roles, and the brokers' check of what was signed with them.
//
// STS is moto, an emulator. It is believed for what its answers look like; who may
// assume a role it does not ask, so [AWS] looks at every request before: at its
// signature, the role and the external id. moto rather than LocalStack because the
// two are equal in this, and it needs a quarter of the space and a Python that Debian has.
package aws

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/cache"
	"tollgate.internal/e2e/internal/kafkajars"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/ports"
	"tollgate.internal/e2e/internal/proc"
)

var (
	//go:embed requirements.txt
	requirements []byte
	//go:embed MskIamValidator.java
	validator []byte
)

// Region is where everything is.
const Region = "eu-west-1"

// Install returns the folder of moto's environment, and makes it when it is not in the cache.
func Install(ctx context.Context) (string, error) {
	dir, err := cache.Python(ctx, "moto", requirements)
	if err != nil {
		return "", fmt.Errorf("get moto: %w", err)
	}
	return dir, nil
}

// AWS is running.
type AWS struct {
	STS string // URL of the endpoint

	moto     string
	keysFile string

	mu      sync.Mutex
	keys    map[string]Key
	roles   map[string]string // external id by ARN
	assumed map[string]int
}

// Key is one that something can be signed with.
type Key struct {
	ID, Secret, Token string
	Principal         string // whose it is
}

// Start starts AWS until t ends.
func Start(t testing.TB) *AWS {
	t.Helper()
	env, err := Install(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lease, err := ports.Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.Release)
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "moto.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(env, "bin", "python"), "-B", "-m", "moto.server", "-H", "127.0.0.1", "-p", fmt.Sprint(lease.Ports[0]))
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, dir
	process, err := proc.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	a := &AWS{
		moto: fmt.Sprintf("http://127.0.0.1:%d", lease.Ports[0]), keysFile: filepath.Join(dir, "keys.properties"),
		keys: make(map[string]Key), roles: make(map[string]string), assumed: make(map[string]int),
	}
	t.Cleanup(func() {
		if err := process.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("moto said:\n%s", text)
		}
	})
	if err := a.write(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // between two looks
		resp, err := http.Get(a.moto + "/moto-api/")
		if err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(end) || !process.Running() {
			t.Fatalf("moto does not answer: %v", err)
		}
	}
	server := httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(server.Close)
	a.STS = server.URL
	return a
}

// Broker adds an IAM listener to the options of a cluster: SASL_SSL and OAUTHBEARER, as
// Amazon MSK offers it.
func (a *AWS) Broker(t testing.TB, o *kafkatest.Options, l kafkatest.Listener) {
	t.Helper()
	version := o.Version
	if version == "" {
		version = kafkatest.V4
	}
	jars, err := kafkajars.Get(t.Context(), version)
	if err != nil {
		t.Fatal(err)
	}
	jar, err := jars.Compile(t.Context(), "MskIamValidator", validator)
	if err != nil {
		t.Fatal(err)
	}
	o.Jars = append(o.Jars, jar)
	o.Listeners[l] = "SASL_SSL"
	prefix := "listener.name." + strings.ToLower(string(l)) + "."
	maps.Copy(o.Properties, map[string]string{
		prefix + "sasl.enabled.mechanisms": "OAUTHBEARER",
		prefix + "oauthbearer.sasl.jaas.config": fmt.Sprintf(
			"org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required region=%q keys=%q;", Region, a.keysFile),
		prefix + "oauthbearer.sasl.server.callback.handler.class": "tollgate.MskIamValidator",
		// The default one does not stand options in the line above.
		prefix + "oauthbearer.sasl.login.callback.handler.class": "tollgate.MskIamValidator",
	})
}

// SetKey puts a key in force, in the place of the one with its id.
func (a *AWS) SetKey(t testing.TB, k Key) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys[k.ID] = k
	if err := a.write(); err != nil {
		t.Fatal(err)
	}
}

// SetRole says who may assume a role: whoever names the external id.
func (a *AWS) SetRole(arn, externalID string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.roles[arn] = externalID
}

// Assumed is how often a role was assumed.
func (a *AWS) Assumed(arn string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.assumed[arn]
}

// write tells the brokers which keys are in force. a.mu is held, or nobody else has a yet.
func (a *AWS) write() error {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(a.keys)) {
		k := a.keys[id]
		fmt.Fprintf(&b, "%s.secret=%s\n%s.principal=%s\n", id, k.Secret, id, strings.ReplaceAll(k.Principal, ":", `\:`))
		if k.Token != "" {
			fmt.Fprintf(&b, "%s.token=%s\n", id, k.Token)
		}
	}
	if err := os.WriteFile(a.keysFile+".new", []byte(b.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(a.keysFile+".new", a.keysFile)
}

// serve is STS: it judges, and lets moto answer.
func (a *AWS) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || form.Get("Action") != "AssumeRole" {
		refuse(w, "InvalidAction", fmt.Sprintf("%q is not asked for here", form.Get("Action")))
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	id, signed := a.signed(r, body)
	role := form.Get("RoleArn")
	switch external, known := a.roles[role]; {
	case id == "":
		refuse(w, "InvalidClientTokenId", "The security token included in the request is invalid.")
		return
	case !signed:
		refuse(w, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided.")
		return
	case !known || external != form.Get("ExternalId"):
		refuse(w, "AccessDenied", a.keys[id].Principal+" is not authorized to perform: sts:AssumeRole on resource: "+role)
		return
	}
	forwarded, err := http.NewRequestWithContext(r.Context(), http.MethodPost, a.moto, bytes.NewReader(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	forwarded.Header = r.Header.Clone()
	resp, err := http.DefaultClient.Do(forwarded)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	var lent struct {
		ID     string `xml:"AssumeRoleResult>Credentials>AccessKeyId"`
		Secret string `xml:"AssumeRoleResult>Credentials>SecretAccessKey"`
		Token  string `xml:"AssumeRoleResult>Credentials>SessionToken"`
		ARN    string `xml:"AssumeRoleResult>AssumedRoleUser>Arn"`
	}
	if err := xml.Unmarshal(answer, &lent); err != nil || lent.ID == "" {
		http.Error(w, fmt.Sprintf("moto answered %s: %s", resp.Status, answer), http.StatusBadGateway)
		return
	}
	a.keys[lent.ID] = Key{ID: lent.ID, Secret: lent.Secret, Token: lent.Token, Principal: lent.ARN}
	if err := a.write(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	a.assumed[role]++
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	w.Write(answer)
}

func refuse(w http.ResponseWriter, code, text string) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(http.StatusForbidden)
	fmt.Fprintf(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>1</RequestId></ErrorResponse>`, code, text)
}

// signed says by which key a request was signed, if it is a known one, and whether it
// was (AWS Signature Version 4, in the header).
func (a *AWS) signed(r *http.Request, body []byte) (id string, ok bool) {
	fields := make(map[string]string)
	for part := range strings.SplitSeq(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 "), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[name] = value
	}
	scope := strings.Split(fields["Credential"], "/") // key, date, region, service, aws4_request
	if len(scope) != 5 {
		return "", false
	}
	key, known := a.keys[scope[0]]
	if !known || key.Token != r.Header.Get("X-Amz-Security-Token") {
		return "", false
	}
	sum := func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
	var request strings.Builder
	fmt.Fprintf(&request, "%s\n%s\n%s\n", r.Method, r.URL.EscapedPath(), r.URL.RawQuery)
	for name := range strings.SplitSeq(fields["SignedHeaders"], ";") {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = fmt.Sprint(r.ContentLength)
		}
		fmt.Fprintf(&request, "%s:%s\n", name, strings.TrimSpace(value))
	}
	fmt.Fprintf(&request, "\n%s\n%s", fields["SignedHeaders"], sum(body))
	text := strings.Join([]string{"AWS4-HMAC-SHA256", r.Header.Get("X-Amz-Date"), strings.Join(scope[1:], "/"), sum([]byte(request.String()))}, "\n")
	mac := []byte("AWS4" + key.Secret)
	for _, part := range append(slices.Clone(scope[1:]), text) {
		h := hmac.New(sha256.New, mac)
		h.Write([]byte(part))
		mac = h.Sum(nil)
	}
	return scope[0], hmac.Equal([]byte(hex.EncodeToString(mac)), []byte(fields["Signature"])) && scope[2] == Region && scope[3] == "sts"
}
