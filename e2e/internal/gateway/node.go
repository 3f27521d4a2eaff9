package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/build"
	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/ports"
	"tollgate.internal/e2e/internal/proc"
)

// portsOfVC are the bootstrap's and those of the virtual nodes 0 to 8.
const portsOfVC = 10

// Proxy is one node of a fleet: the proxy command with a plaintext listener for
// each virtual cluster. Unlike a [Process] it shares what its flags say with others.
type Proxy struct {
	Admin     string // address
	Log       string // file
	bootstrap map[string]string
	args      []string
	process   *proc.Process
}

// StartProxy runs a proxy over these resource files, by name, and waits until it
// is ready. Without any, the flags say what it serves.
func StartProxy(t testing.TB, files map[string]string, virtualClusters []string, flags ...string) *Proxy {
	t.Helper()
	bin, err := build.Command("services/proxy/cmd/proxy", "")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lease, err := ports.Block(portsOfVC*len(virtualClusters) + 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.Release)
	at := func(i int) string { return "127.0.0.1:" + strconv.Itoa(lease.Ports[i]) }
	p := &Proxy{Admin: at(0), Log: filepath.Join(t.TempDir(), "log"), bootstrap: make(map[string]string)}
	p.args = append([]string{bin, "--admin", p.Admin, "--drain-grace", "0s", "--drain-spread", "0s", "--drain-timeout", "5s"}, flags...)
	if files != nil {
		p.args = append(p.args, "--resources", dir)
	}
	for i, vc := range virtualClusters {
		first := 1 + portsOfVC*i
		p.bootstrap[vc] = at(first)
		p.args = append(p.args, "--listen-port", fmt.Sprintf("%s=PLAINTEXT://%s,%d-%d", vc, at(first), lease.Ports[first+1], lease.Ports[first+portsOfVC-1]))
	}
	t.Cleanup(func() {
		if p.process != nil {
			if err := p.process.Terminate(context.Background(), 20*time.Second); err != nil {
				t.Errorf("end the proxy: %v", err)
			}
		}
		if t.Failed() {
			t.Logf("the proxy said:\n%s", tailOf(p.Log))
		}
	})
	p.Launch(t)
	return p
}

// Launch starts the proxy again after [Proxy.Kill], on the same ports.
func (p *Proxy) Launch(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if p.process, err = proc.Start(cmd); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		status, body, err := p.get(ctx, "/readyz")
		if err == nil && status == http.StatusOK {
			return
		}
		select {
		case <-p.process.Done():
			t.Fatalf("the proxy ended: %v\n%s", p.process.Wait(), tailOf(p.Log))
		case <-ctx.Done():
			t.Fatalf("the proxy is not ready after a minute: %v\n%s\n%s", err, body, tailOf(p.Log))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends the proxy with SIGKILL and waits for its end.
func (p *Proxy) Kill(t testing.TB) {
	t.Helper()
	if err := p.process.Kill(); err != nil {
		t.Fatal(err)
	}
}

// Target is where a client of a virtual cluster connects.
func (p *Proxy) Target(virtualCluster string) drivers.Target {
	return drivers.Target{Bootstrap: p.bootstrap[virtualCluster]}
}

// NodeTarget is where a virtual node is.
func (p *Proxy) NodeTarget(t testing.TB, virtualCluster string, node int) drivers.Target {
	t.Helper()
	host, port, err := net.SplitHostPort(p.bootstrap[virtualCluster])
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return drivers.Target{Bootstrap: net.JoinHostPort(host, strconv.Itoa(n+1+node))}
}

// Metric is the value of a series as /metrics writes it, such as
// `tollgate_proxy_sessions{virtual_cluster="acme"}`; 0 when it is not there.
func (p *Proxy) Metric(t testing.TB, series string) float64 {
	t.Helper()
	_, body, err := p.get(t.Context(), "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	return value(t, body, series)
}

// Metric is the value of a series of the first node, as [Proxy.Metric] has it.
func (p *Process) Metric(t testing.TB, series string) float64 {
	t.Helper()
	return p.MetricOf(t, p.Nodes[0], series)
}

// MetricOf is the value of a series of a node.
func (p *Process) MetricOf(t testing.TB, n Node, series string) float64 {
	t.Helper()
	resp, err := http.Get(n.Metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return value(t, string(body), series)
}

func value(t testing.TB, metrics, series string) float64 {
	t.Helper()
	for lines := bufio.NewScanner(strings.NewReader(metrics)); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), series+" "); ok {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

// Ready is the body of /readyz.
func (p *Proxy) Ready(t testing.TB) string {
	t.Helper()
	_, body, err := p.get(t.Context(), "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func (p *Proxy) get(ctx context.Context, path string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Admin+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}
