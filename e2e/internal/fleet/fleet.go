// Package fleet runs several nodes of the gateway as they are run in production: a portal
// with a store of its own, a real Redis, proxies that serve what the portal says, each at
// an address of its own, and a TCP balancer before them that asks whether they are ready.
package fleet

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
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
	"tollgate.internal/e2e/internal/load"
	"tollgate.internal/e2e/internal/ports"
	"tollgate.internal/e2e/internal/proc"
	"tollgate.internal/e2e/internal/redistest"
	"tollgate.internal/e2e/internal/testpki"
)

// Domain is that of all nodes; node n1 has n1.<Domain>.
const Domain = "gw.fleet.test"

// patience is for a process to be ready, or to end.
const patience = time.Minute

// Options say what fleet to start.
type Options struct {
	Nodes    int
	Internal bool   // balancing
	Settings string // further lines of each node's configuration
}

// Fleet is what runs.
type Fleet struct {
	Nodes []*Node

	dir      string
	port     int
	balancer *balancer
	api      string
	token    string
	caFile   string
}

// Node is a proxy, running or not.
type Node struct {
	ID    string
	Admin string // address

	address string // of its listener
	config  string
	log     string
	bin     string
	process *proc.Process
}

var builds sync.Map // of commands, by package

func compile(pkg string) (string, error) {
	dir, err := os.MkdirTemp("", "tollgate-e2e-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, filepath.Base(pkg))
	if out, err := exec.Command("go", "build", "-o", bin, pkg).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return bin, nil
}

// build compiles a command once.
func build(t testing.TB, pkg string) string {
	t.Helper()
	once, _ := builds.LoadOrStore(pkg, sync.OnceValues(func() (string, error) { return compile(pkg) }))
	bin, err := once.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

const nodeFile = `
control: {redis: %[1]q, publicKeys: portal.pub, state: state-%[2]s, node: %[2]s, balancing: %[3]s, advertise: %[2]s.%[4]s}
domains: [%[4]s]
saltKey: file:salt.key
producerIDs: {source: %[1]q}
admin: %[5]s
listeners:
  - {name: sni, address: "%[6]s", routing: sni, certificates: [{certFile: gw.pem, keyFile: gw.key}]}
`

// Start starts everything and waits until it serves. It ends with the test.
func Start(t testing.TB, o Options) *Fleet {
	t.Helper()
	f := &Fleet{dir: t.TempDir()}
	redis := redistest.Start(t)
	lease, err := ports.Reserve(2 + o.Nodes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.Release)
	f.port = lease.Ports[0]

	ca, err := testpki.New("fleet")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"*." + Domain}
	for i := range o.Nodes {
		names = append(names, fmt.Sprintf("*.n%d.%s", i+1, Domain))
	}
	pair, err := ca.Server(names...)
	if err != nil {
		t.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	publicDER, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	f.caFile = filepath.Join(f.dir, "ca.pem")
	for name, content := range map[string][]byte{
		"ca.pem": ca.PEM, "gw.pem": pair.CertPEM, "gw.key": pair.KeyPEM, "salt.key": []byte("0123456789abcdef"),
		"portal.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: privateDER}),
		"portal.pub": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER}),
	} {
		if err := os.WriteFile(filepath.Join(f.dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.startPortal(t, redis.URL, fmt.Sprint("127.0.0.1:", lease.Ports[1]))

	balancing := "external"
	if o.Internal {
		balancing = "internal"
	}
	for i := range o.Nodes {
		id := fmt.Sprint("n", i+1)
		n := &Node{
			ID: id, Admin: fmt.Sprint("127.0.0.1:", lease.Ports[2+i]), address: net.JoinHostPort(fmt.Sprint("127.0.0.", 11+i), strconv.Itoa(f.port)),
			config: filepath.Join(f.dir, id+".yaml"), log: filepath.Join(f.dir, id+".log"), bin: build(t, "tollgate.internal/services/proxy/cmd/proxy"),
		}
		text := fmt.Sprintf(nodeFile, redis.URL, id, balancing, Domain, n.Admin, n.address) + o.Settings
		if err := os.WriteFile(n.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f.Nodes = append(f.Nodes, n)
		t.Cleanup(func() {
			if n.process != nil {
				if err := n.process.Terminate(context.Background(), patience); err != nil {
					t.Errorf("end %s: %v", n.ID, err)
				}
			}
			if t.Failed() {
				t.Logf("%s said:\n%s", n.ID, tail(n.log))
			}
		})
		n.Launch(t)
	}
	f.balancer = startBalancer(t, net.JoinHostPort("127.0.0.10", strconv.Itoa(f.port)), f.Nodes)
	return f
}

func (f *Fleet) startPortal(t testing.TB, redis, address string) {
	log := filepath.Join(f.dir, "portal.log")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	token := filepath.Join(f.dir, "token")
	cmd := exec.Command(build(t, "tollgate.internal/services/portal/cmd/portal"))
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "TOLLGATE_PORTAL_LISTEN="+address, "TOLLGATE_PORTAL_DATABASE=sqlite:"+filepath.Join(f.dir, "tollgate.db"),
		"TOLLGATE_PORTAL_REDIS="+redis, "TOLLGATE_PORTAL_SIGNING_KEY="+filepath.Join(f.dir, "portal.key"), "TOLLGATE_PORTAL_FIRST_TOKEN="+token)
	p, err := proc.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Terminate(context.Background(), patience); err != nil {
			t.Errorf("end the portal: %v", err)
		}
		if t.Failed() {
			t.Logf("the portal said:\n%s", tail(log))
		}
	})
	f.api = "http://" + address
	f.wait(t, "the portal", p, func(ctx context.Context) error {
		raw, err := os.ReadFile(token)
		if err != nil {
			return err
		}
		f.token = strings.TrimSpace(string(raw))
		_, err = f.try(ctx, http.MethodGet, "/v1/tenants", nil)
		return err
	})
}

func (f *Fleet) wait(t testing.TB, what string, p *proc.Process, ready func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := load.Wait(ctx, func() error {
		select {
		case <-p.Done():
			cancel()
			return fmt.Errorf("it ended: %w", p.Wait())
		default:
		}
		return ready(ctx)
	})
	if err != nil {
		t.Fatalf("%s is not ready: %v", what, err)
	}
}

// Launch starts the node, also again, and waits until it is ready.
func (n *Node) Launch(t testing.TB) {
	t.Helper()
	out, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(n.bin, "--config", n.config)
	cmd.Stdout, cmd.Stderr = out, out
	if n.process, err = proc.Start(cmd); err != nil {
		t.Fatal(err)
	}
	new(Fleet).wait(t, n.ID, n.process, func(ctx context.Context) error {
		if !n.ready(ctx) {
			return fmt.Errorf("/readyz says no\n%s", tail(n.log))
		}
		return nil
	})
}

// Stop sends SIGTERM and waits for the end, which has to be a good one.
func (n *Node) Stop(t testing.TB) (took time.Duration) {
	t.Helper()
	began := time.Now()
	if err := n.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-n.process.Done():
	case <-time.After(patience):
		t.Fatalf("%s has not ended a minute after SIGTERM", n.ID)
	}
	if code := n.process.ExitCode(); code != 0 {
		t.Errorf("%s ended with code %d", n.ID, code)
	}
	n.process = nil
	return time.Since(began)
}

// Log is what the node has written.
func (n *Node) Log(t testing.TB) string {
	t.Helper()
	raw, err := os.ReadFile(n.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// Sessions is how many clients are connected to the node.
func (n *Node) Sessions(ctx context.Context) (int, error) {
	body, err := get(ctx, "http://"+n.Admin+"/status")
	if err != nil {
		return 0, err
	}
	var st struct {
		Node struct{ Sessions int }
	}
	err = json.Unmarshal(body, &st)
	return st.Node.Sessions, err
}

func (n *Node) ready(ctx context.Context) bool {
	_, err := get(ctx, "http://"+n.Admin+"/readyz")
	return err == nil
}

func get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return body, err
}

// Put puts a resource in place, by its path below /v1.
func (f *Fleet) Put(t testing.TB, path string, object any) {
	t.Helper()
	if _, err := f.try(t.Context(), http.MethodPut, "/v1/"+path, object); err != nil {
		t.Fatal(err)
	}
}

// Post does an action.
func (f *Fleet) Post(t testing.TB, path string, body any) {
	t.Helper()
	if _, err := f.try(t.Context(), http.MethodPost, "/v1/"+path, body); err != nil {
		t.Fatal(err)
	}
}

func (f *Fleet) try(ctx context.Context, method, path string, body any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var content io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, f.api+path, content)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+f.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	return answer, err
}

// Target is how a client of a virtual cluster connects: names below the domain of all
// lead to the balancer, those of a node to that node.
func (f *Fleet) Target(host string, brokers []int32) drivers.Target {
	target := drivers.Target{
		Bootstrap: fmt.Sprintf("%s.%s:%d", host, Domain, f.port), CAFile: f.caFile, Hosts: make(drivers.Hosts),
	}
	under := func(domain, address string) {
		target.Hosts[host+"."+domain] = []string{address}
		for _, b := range brokers {
			target.Hosts[fmt.Sprintf("b%d-%s.%s", b, host, domain)] = []string{address}
		}
	}
	under(Domain, "127.0.0.10")
	for i, n := range f.Nodes {
		under(n.ID+"."+Domain, fmt.Sprint("127.0.0.", 11+i))
	}
	return target
}

func tail(log string) string {
	raw, _ := os.ReadFile(log)
	if len(raw) > 6000 {
		raw = raw[len(raw)-6000:]
	}
	return string(raw)
}
