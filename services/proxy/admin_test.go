package proxy_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func (g *gateway) get(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + g.admin + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// eventually waits for a condition; it fails after ten seconds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("not within ten seconds: %s", what)
		}
		time.Sleep(10 * time.Millisecond) // between two looks at the condition
	}
}

func TestMetricsCountWhatWasProduced(t *testing.T) {
	g := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cl := g.client(t, "acme-dev.gw.test", loginDev, kgo.AllowAutoTopicCreation())
	for range 7 {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "things", Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if code, body := g.get(t, "/metrics"); code != 200 || !strings.Contains(body, `tollgate_proxy_records_total{direction="produced",virtual_cluster="acme-dev"} 7`) {
		t.Errorf("metrics %d without the seven records:\n%s", code, body)
	}
}

func TestReadinessShowsAMistakeInTheFiles(t *testing.T) {
	g := start(t)
	eventually(t, "ready", func() bool { code, _ := g.get(t, "/readyz"); return code == 200 })
	g.write(t, "zz.yaml", "{apiVersion: tollgate/v1, kind: Nonsense}\n")
	eventually(t, "readyz names the file", func() bool {
		code, body := g.get(t, "/readyz")
		return code == 200 && strings.Contains(body, "zz.yaml")
	})
	if _, body := g.get(t, "/metrics"); !strings.Contains(body, "tollgate_proxy_resources_refused 1") {
		t.Error("the metric does not show it")
	}
	g.write(t, "zz.yaml", "{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: another}, spec: {displayName: Another}}\n")
	eventually(t, "the mistake is forgotten", func() bool {
		_, body := g.get(t, "/readyz")
		return !strings.Contains(body, "zz.yaml")
	})
}
