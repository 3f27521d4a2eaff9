package site

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/load"
)

// An Answer is what a portal said.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Into decodes the body.
func (a Answer) Into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Body), v); err != nil {
		t.Fatalf("%v: %s", err, a.Body)
	}
}

// requestLimit bounds one request.
const requestLimit = 20 * time.Second

// Ask sends one request to a portal, as an operator with all rights. Headers are
// "Name: value". An error says that nobody knows what became of it.
func (s *Site) Ask(ctx context.Context, p *Portal, method, path, body string, headers ...string) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, p.URL+path, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	r.Header.Set("Authorization", "Bearer "+s.token)
	switch {
	case strings.HasPrefix(path, "/v1/apply"):
		r.Header.Set("Content-Type", "application/yaml")
	case body != "":
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return Answer{resp.StatusCode, resp.Header, string(raw)}, err
}

// away reports whether a request is to be sent again: nothing answered, or what did
// says that something behind it does not.
func away(a Answer, err error) bool { return err != nil || a.Status == http.StatusServiceUnavailable }

// Do sends a request until a portal has carried it out or refused it, to each in turn,
// for as long as ctx lasts. So it is for what may be done twice.
func (s *Site) Do(ctx context.Context, method, path, body string, headers ...string) (Answer, error) {
	var a Answer
	next := 0
	err := load.Wait(ctx, func() (err error) {
		p := s.Portals[next%len(s.Portals)]
		next++
		if a, err = s.Ask(ctx, p, method, path, body, headers...); away(a, err) {
			return fmt.Errorf("%s %s at %s: %w %d %s", method, path, p.Name, err, a.Status, a.Body)
		}
		return nil
	})
	return a, err
}

// Must is Do that is carried out.
func (s *Site) Must(t testing.TB, method, path, body string, headers ...string) Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, err := s.Do(ctx, method, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	if a.Status >= 300 {
		t.Fatalf("%s %s: %d %s", method, path, a.Status, a.Body)
	}
	return a
}

// Apply makes documents be what there is, on every node.
func (s *Site) Apply(t testing.TB, documents string) {
	t.Helper()
	if a := s.Must(t, http.MethodPost, "/v1/apply?wait=applied&timeout=30s", documents); a.Status != http.StatusOK {
		t.Fatalf("apply: %d %s", a.Status, a.Body)
	}
}

// Secret gives a service account a secret, which is on every node then, and returns
// its path.
func (s *Site) Secret(t testing.TB, virtualCluster, account, password string) string {
	t.Helper()
	path := "/v1/virtual-clusters/" + virtualCluster + "/service-accounts/" + account + "/secrets"
	body, err := json.Marshal(map[string]string{"password": password})
	if err != nil {
		t.Fatal(err)
	}
	var made struct{ ID string }
	s.Must(t, http.MethodPost, path+"?wait=applied&timeout=30s", string(body)).Into(t, &made)
	return path + "/" + made.ID
}
