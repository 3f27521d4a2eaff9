// Package gateway runs the product for tests: the tollgate command, built from
// this tree, as a process of its own, driven as its users drive it.
package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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

// Dev is what `tollgate dev` writes into dev.json.
type Dev struct {
	Listen          string           `json:"listen"`
	Domain          string           `json:"domain"`
	CAFile          string           `json:"caFile"`
	HostsFile       string           `json:"hostsFile"`
	Nodes           []Node           `json:"nodes"`
	Upstreams       []Upstream       `json:"upstreams"`
	VirtualClusters []VirtualCluster `json:"virtualClusters"`
}

// Node is a proxy.
type Node struct {
	ID      string `json:"id"`
	PID     int    `json:"pid"`
	Listen  string `json:"listen"`
	Metrics string `json:"metrics"`
}

// Upstream is a physical cluster.
type Upstream struct {
	Name      string `json:"name"`
	Bootstrap string `json:"bootstrap"`
}

// VirtualCluster is one that is served.
type VirtualCluster struct {
	Name            string    `json:"name"`
	Bootstrap       string    `json:"bootstrap"`
	PortBootstrap   string    `json:"portBootstrap"`
	Topics          []Topic   `json:"topics"`
	ServiceAccounts []Account `json:"serviceAccounts"`
}

// Topic is an alias and what it stands for.
type Topic struct {
	Name     string `json:"name"`
	Cluster  string `json:"cluster"`
	Physical string `json:"physical"`
}

// Account is how to log in.
type Account struct {
	Name       string   `json:"name"`
	Username   string   `json:"username"`
	Password   string   `json:"password"`
	Mechanisms []string `json:"mechanisms"`
}

// blockSize is how many ports a run may use from its --port-base on, and one more
// for --listen.
const blockSize = 192

// Process is a `tollgate dev`, running or, after [Process.Kill], not.
type Process struct {
	Dev
	Resources string // directory of the resource files it follows
	Log       string // file
	state     string
	args      []string
	env       []string
	process   *proc.Process
}

// Start runs `tollgate dev` over a real cluster with these resource files, by
// name, and waits until dev.json says that it serves. env is put behind this process's own.
func Start(t testing.TB, upstreams map[string]string, files map[string]string, env ...string) *Process {
	t.Helper()
	p := prepare(t)
	p.Resources = filepath.Join(filepath.Dir(p.state), "resources-under-test")
	p.env = append(os.Environ(), env...)
	if err := os.Mkdir(p.Resources, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		p.Write(t, name, content)
	}
	p.args = append(p.args, "--resources", p.Resources)
	for name, bootstrap := range upstreams {
		p.args = append(p.args, "--upstream", name+"="+bootstrap)
	}
	p.Launch(t)
	return p
}

// Seeded runs `tollgate dev` with the tenants of its own, and with these flags besides
// those that say where.
func Seeded(t testing.TB, flags ...string) *Process {
	t.Helper()
	p := prepare(t)
	p.Resources = filepath.Join(p.state, "resources")
	p.args = append(p.args, flags...)
	p.Launch(t)
	return p
}

// prepare is a command line without clusters and resources, and what becomes of it
// at the end of the test.
func prepare(t testing.TB) *Process {
	t.Helper()
	bin, err := build.Command("cmd/tollgate", "")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := &Process{Log: filepath.Join(dir, "log"), state: filepath.Join(dir, "state")}
	lease, err := ports.Block(blockSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.Release)
	p.args = []string{
		bin, "dev", "--state", p.state,
		"--listen", "127.0.0.1:" + strconv.Itoa(lease.Ports[blockSize-1]), "--port-base", strconv.Itoa(lease.Ports[0]),
	}
	t.Cleanup(func() {
		if p.process != nil {
			if err := p.process.Terminate(context.Background(), 40*time.Second); err != nil {
				t.Errorf("end tollgate dev: %v", err)
			}
		}
		if t.Failed() {
			t.Logf("tollgate dev said:\n%s", p.tail())
		}
	})
	return p
}

// Launch starts the gateway again after [Process.Kill], on the same state and
// ports, and waits until it serves.
func (p *Process) Launch(t testing.TB) {
	t.Helper()
	info := filepath.Join(p.state, "dev.json")
	// One that was killed left it behind.
	if err := os.Remove(info); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, p.env
	if p.process, err = proc.Start(cmd); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		if _, err := os.Stat(info); err == nil {
			p.Refresh(t)
			return
		}
		select {
		case <-p.process.Done():
			t.Fatalf("tollgate dev ended: %v\n%s", p.process.Wait(), p.tail())
		case <-ctx.Done():
			t.Fatalf("no dev.json after a minute\n%s", p.tail())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends the gateway with SIGKILL and waits for its end.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	if err := p.process.Kill(); err != nil {
		t.Fatal(err)
	}
}

// Run runs another tollgate command beside it, such as "node list", and returns what it
// prints.
func (p *Process) Run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, p.args[0], append(args, "--state", p.state)...)
	var out, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("tollgate %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out.String(), nil
}

// Refresh reads dev.json again.
func (p *Process) Refresh(t testing.TB) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(p.state, "dev.json"))
	if err != nil {
		t.Fatal(err)
	}
	p.Dev = Dev{}
	if err := json.Unmarshal(raw, &p.Dev); err != nil {
		t.Fatalf("dev.json: %v", err)
	}
}

// Account is how to log in to a virtual cluster.
func (p *Process) Account(t testing.TB, vc, name string) Account {
	t.Helper()
	for _, v := range p.VirtualClusters {
		for _, a := range v.ServiceAccounts {
			if v.Name == vc && a.Name == name {
				return a
			}
		}
	}
	t.Fatalf("dev.json has no account %s of %s", name, vc)
	return Account{}
}

// Write puts a resource file in place, whole.
func (p *Process) Write(t testing.TB, name, content string) {
	t.Helper()
	path := filepath.Join(p.Resources, name)
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// Target is where and how a client of a virtual cluster connects.
func (p *Process) Target(t testing.TB, vc, mechanism, user, password string) drivers.Target {
	t.Helper()
	for _, v := range p.VirtualClusters {
		if v.Name != vc {
			continue
		}
		hosts, err := drivers.ReadHosts(p.HostsFile)
		if err != nil {
			t.Fatal(err)
		}
		return drivers.Target{
			Bootstrap: v.Bootstrap, CAFile: p.CAFile, Mechanism: mechanism, User: user, Password: password, Hosts: hosts,
		}
	}
	t.Fatalf("no virtual cluster %s in dev.json", vc)
	return drivers.Target{}
}

func (p *Process) tail() string { return tailOf(p.Log) }

func tailOf(log string) string {
	raw, _ := os.ReadFile(log)
	if len(raw) > 8000 {
		raw = raw[len(raw)-8000:]
	}
	return string(raw)
}
