package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate.internal/pkg/version"
)

func newHandler(t *testing.T, checks *Checks) http.Handler {
	t.Helper()
	h, err := Handler(NewRegistry("1.2.3"), checks, http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestReadiness(t *testing.T) {
	bad := errors.New("resources/acme.yaml:7: spec.home: no such cluster")
	for _, tc := range []struct {
		name  string
		do    func(*Checks)
		code  int
		state state
		err   string
	}{
		{"a required check that nobody has set is not ready", func(*Checks) {}, 503, stateFailed, errPending.Error()},
		{"a check that holds is ready", func(c *Checks) { c.Set("resources", nil) }, 200, stateOK, ""},
		{"a check that fails is not", func(c *Checks) { c.Set("resources", bad) }, 503, stateFailed, bad.Error()},
		{"a bad reload is shown, and the node serves on", func(c *Checks) { c.Set("resources", nil); c.Warn("resources", bad) }, 200, stateWarning, bad.Error()},
		{"a good reload clears the warning", func(c *Checks) { c.Warn("resources", bad); c.Set("resources", nil) }, 200, stateOK, ""},
		{"a warning that is over is ok", func(c *Checks) { c.Warn("resources", bad); c.Warn("resources", nil) }, 200, stateOK, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			checks := NewChecks("resources")
			h := newHandler(t, checks)
			tc.do(checks)
			code, body := get(t, h, "/readyz")
			var got report
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatalf("GET /readyz: %v in %s", err, body)
			}
			if code != tc.code || got.Ready != (tc.code == 200) || checks.Ready() != got.Ready {
				t.Errorf("GET /readyz = %d, %s, want %d", code, body, tc.code)
			}
			if len(got.Checks) != 1 || got.Checks[0].Name != "resources" || got.Checks[0].State != tc.state || got.Checks[0].Error != tc.err {
				t.Errorf("GET /readyz = %s, want resources %s %q", body, tc.state, tc.err)
			}
			_, metrics := get(t, h, "/metrics")
			for _, want := range []string{
				map[bool]string{true: "tollgate_proxy_ready 1", false: "tollgate_proxy_ready 0"}[tc.code == 200],
				map[bool]string{true: `tollgate_proxy_check_healthy{check="resources"} 1`, false: `tollgate_proxy_check_healthy{check="resources"} 0`}[tc.state == stateOK],
			} {
				if !strings.Contains(metrics, want) {
					t.Errorf("GET /metrics lacks %s", want)
				}
			}
			// A process that is not ready is not therefore dead: a restart mends no file.
			if code, _ := get(t, h, "/healthz"); code != 200 {
				t.Errorf("GET /healthz = %d", code)
			}
		})
	}
}

func TestACheckRemembersSinceWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewChecks()
		c.Set("upstream", errors.New("first"))
		began := time.Now().UTC()
		time.Sleep(time.Minute)
		c.Set("upstream", errors.New("second"))
		if got := c.report().Checks[0]; !got.Since.Equal(began) || got.Error != "second" {
			t.Errorf("the same state with another text: %+v, want since %v and the newer text", got, began)
		}
		time.Sleep(time.Minute)
		c.Set("upstream", nil)
		if got := c.report().Checks[0]; !got.Since.Equal(began.Add(2 * time.Minute)) {
			t.Errorf("another state: %+v, want since %v", got, began.Add(2*time.Minute))
		}
	})
}

func TestRoutes(t *testing.T) {
	h := newHandler(t, NewChecks())
	for _, tc := range []struct {
		path string
		code int
		want string
	}{
		{"/", 200, "/metrics"},
		{"/healthz", 200, "ok"},
		{"/metrics", 200, `tollgate_build_info{goversion="go`},
		{"/metrics", 200, `version="1.2.3"} 1`},
		{"/metrics", 200, "go_goroutines"},
		{"/metrics", 200, "process_open_fds"},
		{"/debug/pprof/", 200, "goroutine"},
		{"/debug/pprof/cmdline", 200, "admin.test"},
		{"/debug/pprof/goroutine?debug=1", 200, "goroutine profile"},
		{"/debug", 404, ""},
		{"/elsewhere", 404, ""},
	} {
		if code, body := get(t, h, tc.path); code != tc.code || !strings.Contains(body, tc.want) {
			t.Errorf("GET %s = %d without %q", tc.path, code, tc.want)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/metrics", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST /metrics = %d", w.Code)
	}
}

func TestTheBuildIsReadFromTheBinary(t *testing.T) {
	reg := NewRegistry("")
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	labels := make(map[string]string)
	for _, f := range families {
		if f.GetName() != "tollgate_build_info" {
			continue
		}
		for _, l := range f.Metric[0].Label {
			labels[l.GetName()] = l.GetValue()
		}
	}
	if _, ok := labels["revision"]; labels["version"] != version.String() || !ok {
		t.Errorf("labels are %v", labels)
	}
}

func TestAHandlerPerRegistry(t *testing.T) {
	reg, checks := prometheus.NewRegistry(), NewChecks()
	if _, err := Handler(reg, checks, http.NotFoundHandler(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if _, err := Handler(reg, checks, http.NotFoundHandler(), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("checks were registered twice without a word")
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, ln, newHandler(t, NewChecks()), slog.New(slog.DiscardHandler))
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: admin\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET /healthz = %v, %v", resp, err)
	}
	resp.Body.Close()
	cancel() // the kept-alive connection above must not delay it
	if err := <-done; err != nil {
		t.Errorf("Serve = %v", err)
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("the socket is still open")
	}
}

func TestServeReportsABrokenSocket(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := Serve(t.Context(), ln, http.NotFoundHandler(), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("Serve on a closed socket = nil")
	}
}
