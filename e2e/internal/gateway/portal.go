package gateway

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/ports"
	"tollgate.internal/e2e/internal/proc"
)

// buildPortal compiles the portal once for all tests of a package.
var buildPortal = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tollgate-e2e-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "portal")
	if out, err := exec.Command("go", "build", "-o", bin, "tollgate.internal/services/portal/cmd/portal").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the portal: %w\n%s", err, out)
	}
	return bin, nil
})

// deployment is what portal and proxies of a test call their fleet.
const deployment = "e2e"

// Portal is a control plane on SQLite: the portal command.
type Portal struct {
	API     string // URL
	Log     string // file
	redis   string
	keys    string // file with the public key
	token   string
	dir     string
	process *proc.Process
}

// StartPortal runs a portal that publishes in a Redis, and waits until it answers.
func StartPortal(t testing.TB, redis string) *Portal {
	t.Helper()
	bin, err := buildPortal()
	if err != nil {
		t.Fatal(err)
	}
	lease, err := ports.Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.Release)
	address := "127.0.0.1:" + strconv.Itoa(lease.Ports[0])
	dir := t.TempDir()
	p := &Portal{API: "http://" + address, Log: filepath.Join(dir, "log"), redis: redis, keys: filepath.Join(dir, "portal.pub"), dir: dir}
	signing, first := p.makeKeys(t), filepath.Join(dir, "first.token")
	log, err := os.Create(p.Log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(bin)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "TOLLGATE_PORTAL_LISTEN="+address, "TOLLGATE_PORTAL_DATABASE=sqlite:"+filepath.Join(dir, "portal.db"),
		"TOLLGATE_PORTAL_REDIS="+redis, "TOLLGATE_PORTAL_SIGNING_KEY="+signing, "TOLLGATE_PORTAL_DEPLOYMENT="+deployment,
		"TOLLGATE_PORTAL_FIRST_TOKEN="+first, "TOLLGATE_PORTAL_LOG_FORMAT=text")
	if p.process, err = proc.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.process.Terminate(context.Background(), 30*time.Second); err != nil {
			t.Errorf("end the portal: %v", err)
		}
		if t.Failed() {
			t.Logf("the portal said:\n%s", tailOf(p.Log))
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		if raw, err := os.ReadFile(first); err == nil {
			p.token = strings.TrimSpace(string(raw))
			if status, _, err := p.ask(ctx, http.MethodGet, "/readyz", "", ""); err == nil && status == http.StatusOK {
				return p
			}
		}
		select {
		case <-p.process.Done():
			t.Fatalf("the portal ended: %v\n%s", p.process.Wait(), tailOf(p.Log))
		case <-ctx.Done():
			t.Fatalf("the portal is not ready after a minute\n%s", tailOf(p.Log))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// makeKeys writes what the portal signs with, and what proxies believe.
func (p *Portal) makeKeys(t testing.TB) (signing string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	open, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	signing = filepath.Join(p.dir, "portal.key")
	for name, block := range map[string]*pem.Block{signing: {Type: "PRIVATE KEY", Bytes: secret}, p.keys: {Type: "PUBLIC KEY", Bytes: open}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return signing
}

// Apply makes YAML documents be what there is.
func (p *Portal) Apply(t testing.TB, documents string) {
	t.Helper()
	status, body, err := p.ask(t.Context(), http.MethodPost, "/v1/apply", "application/yaml", documents)
	if err != nil {
		t.Fatal(err)
	}
	if status != http.StatusOK {
		t.Fatalf("apply: %d\n%s", status, body)
	}
}

func (p *Portal) ask(ctx context.Context, method, path, kind, body string) (status int, answer string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, p.API+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}

// StartNode runs a proxy that serves what the portal says.
func (p *Portal) StartNode(t testing.TB, id string, virtualClusters []string, flags ...string) *Proxy {
	t.Helper()
	state := filepath.Join(t.TempDir(), "state")
	return StartProxy(t, nil, virtualClusters, append([]string{
		"--control-redis", p.redis, "--control-keys", p.keys, "--control-state", state, "--control-deployment", deployment,
		"--control-node", id, "--control-preload",
	}, flags...)...)
}
