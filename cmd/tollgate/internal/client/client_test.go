package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
)

// serve is a client of a server that answers everything so.
func serve(t *testing.T, handle http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return at(t, s.URL)
}

func at(t *testing.T, address string) *Client {
	t.Helper()
	c, err := New(Options{Server: address, Token: secret.New("tg_1_s3cret"), Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

var acme = &resource.Tenant{Metadata: resource.Metadata{Name: "acme"}}

const acmeJSON = `{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":{"name":"acme","revision":7},"spec":{"state":"active","later":1},"status":{"x":2}}`

func TestAnObjectIsKeptAsItCame(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer tg_1_s3cret" {
			t.Errorf("Authorization: %q", got)
		}
		if r.URL.Path != "/v1/tenants/acme" {
			t.Errorf("path %s", r.URL.Path)
		}
		io.WriteString(w, acmeJSON)
	})
	o, err := c.Get(t.Context(), resource.KeyOf(acme))
	if err != nil {
		t.Fatal(err)
	}
	var status struct{ X int }
	if err := o.Status(&status); err != nil || status.X != 2 || o.Meta().Revision != 7 || string(o.Raw) != acmeJSON {
		t.Errorf("status %+v, %v, revision %d, raw %s", status, err, o.Meta().Revision, o.Raw)
	}
}

// Names of objects are not paths.
func TestNamesAreEscaped(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if want := "/v1/virtual-clusters/a%2Fb/alias-topics/..%2F..%2Fx%3Fy"; r.URL.EscapedPath() != want {
			t.Errorf("path %s, want %s", r.URL.EscapedPath(), want)
		}
		w.WriteHeader(http.StatusNotFound)
	})
	_, err := c.Get(t.Context(), resource.Key{Kind: resource.KindAliasTopic, Scope: "a/b", Name: "../../x?y"})
	if !IsNotFound(err) {
		t.Error(err)
	}
}

func TestEveryPageIsRead(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("labelSelector") != "plan=gold" || q.Get("limit") == "" {
			t.Errorf("query %s", r.URL.RawQuery)
		}
		switch q.Get("after") {
		case "":
			fmt.Fprintf(w, `{"items":[%s,%s],"next":"two"}`, acmeJSON, acmeJSON)
		case "two":
			fmt.Fprintf(w, `{"items":[%s]}`, acmeJSON)
		default:
			t.Errorf("after %s", q.Get("after"))
		}
	})
	k, _ := resource.KindOf(resource.KindTenant)
	n := 0
	for _, err := range c.List(t.Context(), ListOptions{Kind: k, Labels: "plan=gold"}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 3 {
		t.Errorf("%d objects, want 3", n)
	}
}

// Whoever reads an error learns what it was, and what helps.
func TestFaultsAreExplained(t *testing.T) {
	for _, c := range []struct {
		name   string
		handle http.HandlerFunc
		want   []string
		gone   bool // there was no whole answer
		status int
	}{
		{"a problem", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusUnprocessableEntity)
			io.WriteString(w, `{"status":422,"title":"Unprocessable Entity","detail":"what was sent has mistakes","errors":[{"field":"spec.state","message":"unknown word"}]}`)
		}, []string{"what was sent has mistakes", "spec.state: unknown word"}, false, 422},
		{"a proxy's page", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(http.StatusBadGateway)
			io.WriteString(w, "<h1>Bad Gateway</h1>")
		}, []string{"502 Bad Gateway", "is http://"}, false, 502},
		{"another server", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<h1>Welcome</h1>")
		}, []string{"not what Tollgate's API says (text/html)"}, false, 0},
		{"a redirect", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://elsewhere.example/")
			w.WriteHeader(http.StatusMovedPermanently)
		}, []string{"redirects to https://elsewhere.example/"}, false, 301},
		{"an answer without its end", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, acmeJSON)
		}, []string{"no whole answer", "unexpected EOF", "doing it again does no harm"}, true, 0},
		{"half a value", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, acmeJSON[:30])
		}, []string{"no whole answer", "doing it again does no harm"}, true, 0},
		{"a connection that breaks", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close()
		}, []string{"no whole answer", "doing it again does no harm"}, true, 0},
		{"a failure of its own", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, `{"status":500,"detail":"the portal failed","requestId":"abc"}`)
		}, []string{"the portal failed", "request abc"}, false, 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := serve(t, c.handle).Put(t.Context(), acme, Change{})
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q has no %q", err, want)
				}
			}
			_, gone := errors.AsType[*Unreachable](err)
			if gone != c.gone {
				t.Errorf("unreachable %v, want %v: %v", gone, c.gone, err)
			}
			if c.status != 0 && !IsStatus(err, c.status) {
				t.Errorf("%v, want status %d", err, c.status)
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the token is in %q", err)
			}
		})
	}
}

// What makes something new each time is not to be done again unseen.
func TestWhatIsNotToBeRepeated(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		conn.Close()
	})
	account := resource.Key{Kind: resource.KindServiceAccount, Scope: "a", Name: "b"}
	if _, err := c.AddSecret(t.Context(), account, NewSecret{}, 0); err == nil || !strings.Contains(err.Error(), "look before you do it again") {
		t.Errorf("issue: %v", err)
	}
	if _, err := c.AddSecret(t.Context(), account, NewSecret{Password: "x"}, 0); err == nil || !strings.Contains(err.Error(), "does no harm") {
		t.Errorf("import: %v", err)
	}
	if _, err := c.CreateToken(t.Context(), NewToken{Name: "a"}); err == nil || !strings.Contains(err.Error(), "look before you do it again") {
		t.Errorf("token: %v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "http://" + l.Addr().String()
	l.Close()
	_, err = at(t, address).Put(t.Context(), acme, Change{})
	u, ok := errors.AsType[*Unreachable](err)
	if !ok || u.Unsure || !strings.Contains(err.Error(), address+" cannot be reached") {
		t.Errorf("%v", err)
	}
}

func TestAnAnswerThatDoesNotCome(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // only then does the server see that a client goes
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	}))
	defer s.Close()
	c, err := New(Options{Server: s.URL, Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Put(t.Context(), acme, Change{})
	if _, ok := errors.AsType[*Unreachable](err); !ok || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want a deadline", err)
	}
}

// The result is there although the fleet takes its time.
func TestAChangeThatIsNotAppliedYet(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if q := r.URL.Query(); q.Get("wait") != "applied" || q.Get("timeout") != "5s" || r.Header.Get("If-Match") != `"6"` {
			t.Errorf("query %s, If-Match %s", r.URL.RawQuery, r.Header.Get("If-Match"))
		}
		w.Header().Set("Tollgate-Applied", "pending: revision 7 is not on every node after 5s")
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, acmeJSON)
	})
	o, err := c.Put(t.Context(), acme, Change{Wait: 5 * time.Second, Revision: 6})
	if !IsLate(err) || !strings.Contains(err.Error(), "revision 7") || o == nil || o.Meta().Revision != 7 {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Server: "tollgate.example"}, "write https://HOST"},
		{Options{Server: "ftp://tollgate.example"}, "write https://HOST"},
		{Options{Server: "https://tollgate.example", CAFile: file}, "no PEM certificate"},
		{Options{Server: "https://tollgate.example", CAFile: file + ".absent"}, "no such file"},
	} {
		if _, err := New(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
}

func TestATrustedCA(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, acmeJSON) }))
	s.Config.ErrorLog = nil
	s.StartTLS()
	defer s.Close()
	_, err := at(t, s.URL).Get(t.Context(), resource.KeyOf(acme))
	if _, ok := errors.AsType[*Unreachable](err); !ok || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown CA: %v", err)
	}
}
