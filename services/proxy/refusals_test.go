package proxy_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// more virtual clusters, one for each way to log in, and one of a tenant that is
// suspended.
const moreResources = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: gone}, spec: {displayName: Gone, state: suspended}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: gone, tenant: gone}, spec: {type: standard, host: gone, home: main, authentication: {anonymous: {}}}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: tokens, tenant: acme}
spec: {type: standard, host: tokens, home: main, authentication: {oauthbearer: [{issuer: "http://127.0.0.1:1", audience: [kafka]}]}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: certs, tenant: acme}, spec: {type: standard, host: certs, home: main, authentication: {plain: {}, mtls: {caFile: ../cert.pem}}}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: short, tenant: acme}, spec: {type: standard, host: short, home: main, authentication: {plain: {}, maxReauthentication: 10m}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: dev, virtualCluster: short}, spec: {type: local, password: "file:dev.secret"}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: other, virtualCluster: short}, spec: {type: local, password: "file:dev.secret"}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: ungranted, virtualCluster: acme-prod}, spec: {cluster: main, topic: other.secret}}
`

func (r *raw) handshake(mechanism string) *kmsg.SASLHandshakeResponse {
	req := kmsg.NewPtrSASLHandshakeRequest()
	req.Version, req.Mechanism = 1, mechanism
	return r.ask(req).(*kmsg.SASLHandshakeResponse)
}

func (r *raw) authenticate(msg string) *kmsg.SASLAuthenticateResponse {
	req := kmsg.NewPtrSASLAuthenticateRequest()
	req.Version, req.SASLAuthBytes = 1, []byte(msg)
	return r.ask(req).(*kmsg.SASLAuthenticateResponse)
}

// What a login or a session is refused for has its id in a line of the log, and the
// client is told what the catalogue says, and nothing else.
func TestLoginsAreRefusedByTheCatalogue(t *testing.T) {
	const failed = 58 // SASL_AUTHENTICATION_FAILED
	for _, c := range []struct {
		name, host string
		provoke    func(t *testing.T, r *raw) int16 // what the client is told last; 0: nothing
		code       int16
		refusal    string
		closed     bool
	}{
		{"another mechanism", "acme-dev", func(t *testing.T, r *raw) int16 { return r.handshake("GSSAPI").ErrorCode }, 33, "TG-AUTH-001", true},
		{"a wrong password", "acme-dev", func(t *testing.T, r *raw) int16 { return r.login("dev", "guess") }, failed, "TG-AUTH-002", true},
		{"no such user", "acme-dev", func(t *testing.T, r *raw) int16 { return r.login("nobody", "guess") }, failed, "TG-AUTH-002", true},
		{"a message that is none", "acme-dev", func(t *testing.T, r *raw) int16 {
			r.handshake("PLAIN")
			return r.authenticate("nonsense").ErrorCode
		}, failed, "TG-AUTH-003", true},
		{"on behalf of somebody else", "acme-dev", func(t *testing.T, r *raw) int16 {
			r.handshake("PLAIN")
			return r.authenticate("admin\x00dev\x00dev-secret").ErrorCode
		}, failed, "TG-AUTH-004", true},
		{"a delegation token", "acme-dev", func(t *testing.T, r *raw) int16 {
			r.handshake("SCRAM-SHA-256")
			return r.authenticate("n,,n=dev,r=abc,tokenauth=true").ErrorCode
		}, failed, "TG-AUTH-005", true},
		{"a token that is none", "tokens", func(t *testing.T, r *raw) int16 {
			r.handshake("OAUTHBEARER")
			if resp := r.authenticate("n,,\x01auth=Bearer abc\x01\x01"); resp.ErrorCode != 0 || string(resp.SASLAuthBytes) != `{"status":"invalid_token"}` {
				t.Errorf("told %d %q of the token", resp.ErrorCode, resp.SASLAuthBytes)
			}
			return r.authenticate("\x01").ErrorCode
		}, failed, "TG-AUTH-006", true},
		{"neither certificate nor login", "certs", func(t *testing.T, r *raw) int16 {
			r.send(frame(3, 1, 0xff, 0xff, 0xff, 0xff))
			return 0
		}, 0, "TG-AUTH-011", true},
		{"SaslAuthenticate after the login", "short", func(t *testing.T, r *raw) int16 {
			r.login("dev", "dev-secret")
			return r.authenticate("x").ErrorCode
		}, 34, "TG-AUTH-012", false},
		{"a second login at once", "short", func(t *testing.T, r *raw) int16 {
			r.login("dev", "dev-secret")
			return r.handshake("PLAIN").ErrorCode
		}, 34, "TG-AUTH-013", false},
		{"a second login as somebody else", "short", func(t *testing.T, r *raw) int16 {
			r.login("dev", "dev-secret")
			time.Sleep(2 * time.Second)
			return r.login("other", "dev-secret")
		}, failed, "TG-AUTH-014", true},
		{"no second login", "short", func(t *testing.T, r *raw) int16 {
			r.login("dev", "dev-secret")
			time.Sleep(11 * time.Minute)
			r.SetDeadline(time.Now().Add(time.Minute))
			r.send(frame(3, 1, 0xff, 0xff, 0xff, 0xff))
			return 0
		}, 0, "TG-AUTH-015", true},
		{"a tenant that is suspended", "gone", func(t *testing.T, r *raw) int16 { return 0 }, 0, "TG-AUTH-019", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *gateway) {
				g.write(t, "more.yaml", moreResources)
				time.Sleep(time.Second) // until the files were looked at
				r := g.raw(t, c.host+".gw.test")
				if code := c.provoke(t, r); code != c.code {
					t.Errorf("told %d, want %d", code, c.code)
				}
				if c.closed {
					r.closed()
				} else {
					r.ask(&kmsg.MetadataRequest{Version: 9})
					r.Close()
				}
				time.Sleep(time.Second)
				if lines := g.log.with(" refusal=" + c.refusal + " "); len(lines) != 1 {
					t.Errorf("logged %q, want one line with %s", lines, c.refusal)
				}
				if lines := g.log.with(" refusal="); len(lines) != 1 {
					t.Errorf("logged %q, want one refusal", lines)
				}
			})
		})
	}
}

var sample = regexp.MustCompile(`(?m)^(tollgate_[a-z_]+)(?:\{(.*)\})? (\S+)$`)

// metric is the value of one series, 0 when it is not there.
func (g *gateway) metric(t *testing.T, series string) float64 {
	t.Helper()
	_, text := g.get(t, "/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), series+" "); ok {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

// The metrics tell what became of real sessions, and their labels are of closed
// sets, however many names clients make up.
func TestMetricsOfRealSessions(t *testing.T) {
	g := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cl := g.client(t, "acme-dev.gw.test", loginDev, kgo.AllowAutoTopicCreation())
	for i := range 5 {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: fmt.Sprintf("made-up-topic-%d", i), Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	cl.Close()

	r := g.raw(t, "open.gw.test")
	for i := range 20 { // each is refused, under a name of its own
		req := kmsg.NewPtrMetadataRequest()
		req.Version = 12
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = kmsg.StringPtr(fmt.Sprintf("made-up-unknown-%d", i))
		req.Topics = append(req.Topics, topic)
		r.ask(req)
	}
	r.send(frame(9999, 0))
	r.closed()
	if code := g.raw(t, "acme-dev.gw.test").login("made-up-user", "guess"); code == 0 {
		t.Fatal("a made-up user is let in")
	}
	strange := tls.Client(g.tcp(t), &tls.Config{RootCAs: g.roots, ServerName: "made-up-host.gw.test"})
	if err := strange.Handshake(); err == nil {
		t.Fatal("a made-up host has a certificate")
	}
	if err := os.WriteFile(filepath.Join(g.resources, "bad.yaml"), []byte("kind: made-up-kind\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	for series, want := range map[string]float64{
		`tollgate_proxy_requests_refused_total{refusal="TG-TOPIC-002"}`:                           20,
		`tollgate_proxy_sessions_closed_total{reason="TG-FRAME-005"}`:                             1,
		`tollgate_proxy_sessions_closed_total{reason="TG-AUTH-002"}`:                              1,
		`tollgate_proxy_connections_refused_total{refusal="TG-LISTEN-002"}`:                       1,
		`tollgate_proxy_resources_reload_failures_total`:                                          1,
		`tollgate_proxy_resources_refused`:                                                        1,
		`tollgate_proxy_request_duration_seconds_count{outcome="refused",request="Metadata"}`:     20,
		`tollgate_proxy_request_duration_seconds_count{outcome="ok",request="SASLHandshake"}`:     -1, // at least one
		`tollgate_proxy_request_duration_seconds_count{outcome="ok",request="Produce"}`:           -1,
		`tollgate_proxy_sessions_closed_total{reason="client"}`:                                   -1,
		`tollgate_proxy_certificate_expiry_timestamp_seconds{listener="sni"}`:                     -1,
		`tollgate_proxy_records_total{direction="produced",virtual_cluster="acme-dev"}`:           5,
		`tollgate_proxy_certificate_reload_failures_total{listener="sni"}`:                        0,
		`tollgate_proxy_request_duration_seconds_bucket{outcome="ok",request="Metadata",le="30"}`: -1,
	} {
		eventually(t, series, func() bool {
			got := g.metric(t, series)
			return got == want || want < 0 && got > 0
		})
	}

	// A closed set for every label; what clients made up is in none.
	allowed := map[string][]string{
		"virtual_cluster": {"acme-dev", "acme-prod", "open"},
		"cluster":         {"main"},
		"listener":        {"sni"},
		"outcome":         {"ok", "refused", "closed"},
		"direction":       {"produced", "fetched"},
		"check":           {"listeners", "resources", "upstream"},
		"frame":           {"request", "answer"},
		"state":           {"serving", "draining", "drained"},
	}
	id := regexp.MustCompile(`^TG-[A-Z]+-[0-9]{3}$`)
	_, text := g.get(t, "/metrics")
	if strings.Contains(text, "made-up") {
		t.Error("a name that a client made up is in the metrics")
	}
	for _, m := range sample.FindAllStringSubmatch(text, -1) {
		for pair := range strings.SplitSeq(m[2], ",") {
			label, value, ok := strings.Cut(pair, "=")
			value = strings.Trim(value, `"`)
			switch {
			case m[1] == "tollgate_build_info" || !ok || label == "le":
			case label == "refusal" || label == "reason":
				if !id.MatchString(value) && value != "client" {
					t.Errorf("%s: %s=%q is no refusal", m[1], label, value)
				}
			case label == "request":
				if !slices.ContainsFunc(slices.Collect(keys), func(k int16) bool { return kmsg.NameForKey(k) == value }) {
					t.Errorf("%s: %q is no request", m[1], value)
				}
			case label == "class":
				if strings.ContainsAny(value, ".:/ ") {
					t.Errorf("%s: class %q", m[1], value)
				}
			case !slices.Contains(allowed[label], value):
				t.Errorf("%s: %s=%q is of no closed set", m[1], label, value)
			}
		}
	}
}

// keys are all request keys.
func keys(yield func(int16) bool) {
	for k := range int16(kmsg.MaxKey + 1) {
		if !yield(k) {
			return
		}
	}
}
