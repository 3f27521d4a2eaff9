package portal_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"tollgate.internal/services/portal"
)

func TestTheAdminListenerServesWhatOperatorsLookAt(t *testing.T) {
	c := run(t, portal.Config{Database: sqlite(t), Admin: "127.0.0.1:0"})
	for _, want := range []struct {
		path   string
		status int
		text   string
	}{
		{"/readyz", 200, "ok"},
		{"/metrics", 200, "tollgate_portal_store_reachable 1"},
		{"/debug/pprof/", 200, "goroutine"},
		{"/debug/pprof/heap?debug=1&gc=1", 200, "HeapAlloc"},
		{"/v1/tenants", 404, "not found"}, // nobody authenticates here
	} {
		resp, err := http.Get("http://" + c.addresses[portal.AdminAddress] + want.path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != want.status || !strings.Contains(string(body), want.text) {
			t.Errorf("GET %s: %d, want %d with %q in (%v)\n%.500s", want.path, resp.StatusCode, want.status, want.text, err, body)
		}
	}
}
