// Package gateway runs the product for tests: the tollgate command, built from
// this tree, as a process of its own, driven as its users drive it.
package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/ports"
)

// Dev is what `tollgate dev` writes into dev.json.
type Dev struct {
	Listen          string           `json:"listen"`
	Domain          string           `json:"domain"`
	CAFile          string           `json:"caFile"`
	HostsFile       string           `json:"hostsFile"`
	Nodes           []Node           `json:"nodes"`
	VirtualClusters []VirtualCluster `json:"virtualClusters"`
}

// Node is a proxy.
type Node struct {
	ID      string `json:"id"`
	PID     int    `json:"pid"`
	Metrics string `json:"metrics"`
}

// VirtualCluster is one that is served.
type VirtualCluster struct {
	Name            string    `json:"name"`
	Bootstrap       string    `json:"bootstrap"`
	PortBootstrap   string    `json:"portBootstrap"`
	ServiceAccounts []Account `json:"serviceAccounts"`
}

// Account is how to log in.
type Account struct {
	Name       string   `json:"name"`
	Username   string   `json:"username"`
	Password   string   `json:"password"`
	Mechanisms []string `json:"mechanisms"`
}

// build compiles the command once for all tests of a package.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tollgate-e2e-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "tollgate")
	cmd := exec.Command("go", "build", "-o", bin, "tollgate.internal/cmd/tollgate")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build tollgate: %w\n%s", err, out)
	}
	return bin, nil
})

// blockSize is how many ports a run may use from its --port-base on, and one more
// for --listen.
const blockSize = 192

// Process is a running `tollgate dev`.
type Process struct {
	Dev
	Resources string // directory of the resource files it follows
	Log       string // file
	cmd       *exec.Cmd
	done      chan struct{}
}

// Start runs `tollgate dev` over a real cluster with these resource files, by
// name, and waits until dev.json says that it serves.
func Start(t testing.TB, upstreams map[string]string, files map[string]string) *Process {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	p := &Process{Resources: filepath.Join(state, "resources-under-test"), Log: filepath.Join(state, "log"), done: make(chan struct{})}
	if err := os.Mkdir(p.Resources, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		p.Write(t, name, content)
	}
	lease, err := ports.Block(blockSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.Release)
	args := []string{
		"dev", "--state", filepath.Join(state, "state"), "--resources", p.Resources,
		"--listen", "127.0.0.1:" + strconv.Itoa(lease.Ports[blockSize-1]), "--port-base", strconv.Itoa(lease.Ports[0]),
	}
	for name, bootstrap := range upstreams {
		args = append(args, "--upstream", name+"="+bootstrap)
	}
	log, err := os.Create(p.Log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(bin, args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(40 * time.Second):
			t.Errorf("tollgate dev has not ended 40 s after SIGTERM")
			p.cmd.Process.Kill()
			<-p.done
		}
		if t.Failed() {
			t.Logf("tollgate dev said:\n%s", p.tail())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		raw, err := os.ReadFile(filepath.Join(state, "state", "dev.json"))
		if err == nil {
			if err := json.Unmarshal(raw, &p.Dev); err != nil {
				t.Fatalf("dev.json: %v", err)
			}
			return p
		}
		select {
		case <-p.done:
			t.Fatalf("tollgate dev ended: %v\n%s", p.cmd.ProcessState, p.tail())
		case <-ctx.Done():
			t.Fatalf("no dev.json after a minute\n%s", p.tail())
		case <-time.After(20 * time.Millisecond):
		}
	}
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
		hosts := make(map[string]string)
		raw, err := os.ReadFile(p.HostsFile)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(raw)) {
			if f := strings.Fields(line); len(f) >= 2 && f[0][0] != '#' {
				for _, name := range f[1:] {
					hosts[name] = f[0]
				}
			}
		}
		return drivers.Target{
			Bootstrap: v.Bootstrap, CAFile: p.CAFile, Mechanism: mechanism, User: user, Password: password, Hosts: hosts,
		}
	}
	t.Fatalf("no virtual cluster %s in dev.json", vc)
	return drivers.Target{}
}

func (p *Process) tail() string {
	raw, _ := os.ReadFile(p.Log)
	if len(raw) > 8000 {
		raw = raw[len(raw)-8000:]
	}
	return string(raw)
}
