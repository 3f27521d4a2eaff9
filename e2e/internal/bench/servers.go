package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"tollgate.internal/e2e/internal/ports"
	"tollgate.internal/e2e/internal/proc"
	"tollgate.internal/e2e/internal/testpki"
)

// A server is the gateway, or what it is compared with.
type server struct {
	name    string
	process *proc.Process
	log     *os.File
	target  Target
	admin   string // of a gateway: its admin listener
}

func (s *server) close() error {
	defer s.log.Close()
	if !s.process.Running() {
		return fmt.Errorf("%s ended: %w\n%s", s.name, s.process.Wait(), s.tail())
	}
	return s.process.Terminate(context.Background(), time.Minute)
}

func (s *server) tail() string {
	raw, _ := os.ReadFile(s.log.Name())
	return string(raw[max(0, len(raw)-4000):])
}

// await polls until ready returns nil.
func (s *server) await(ctx context.Context, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-s.process.Done():
			return fmt.Errorf("%s ended: %w\n%s", s.name, s.process.Wait(), s.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", s.name, err, s.tail())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// launch runs a command with its output in a file of dir.
func launch(dir, name string, cmd *exec.Cmd) (*server, error) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	p, err := proc.Start(cmd)
	if err != nil {
		log.Close()
		return nil, err
	}
	return &server{name: name, process: p, log: log}, nil
}

// pki are the certificates of a run: gateway, HAProxy and stub have the same one.
type pki struct {
	ca                *testpki.CA
	pair              *testpki.Pair
	certFile, keyFile string
	bothFile          string // certificate and key, as HAProxy wants them
	caFile            string
}

func newPKI(dir string) (*pki, error) {
	ca, err := testpki.New("bench")
	if err != nil {
		return nil, err
	}
	pair, err := ca.Server("*."+domain, "*."+bootstrapHost, "*."+spanningHost)
	if err != nil {
		return nil, err
	}
	p := &pki{ca: ca, pair: pair, bothFile: filepath.Join(dir, "both.pem")}
	if p.certFile, p.keyFile, err = pair.Write(dir, "server"); err != nil {
		return nil, err
	}
	if p.caFile, err = ca.Write(dir, "ca"); err != nil {
		return nil, err
	}
	return p, os.WriteFile(p.bothFile, append(append([]byte(nil), pair.CertPEM...), pair.KeyPEM...), 0o600)
}

// buildGateway compiles the gateway's node as it is in this tree.
func buildGateway(ctx context.Context, dir string) (string, error) {
	bin := filepath.Join(dir, "proxy")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, "tollgate.internal/services/proxy/cmd/proxy")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the gateway: %w\n%s", err, out)
	}
	return bin, nil
}

const gatewayFile = `
resources: resources
domains: [%s]
admin: %s
log: {level: warn}
drainGrace: 0s
drainSpread: 0s
drainTimeout: 1s
listeners:
  - {name: sni, address: "%s", routing: sni, certificates: [{certFile: %q, keyFile: %q}]}
`

// startGateway runs a node of the gateway with these resources.
func (b *run) startGateway(ctx context.Context, name, bin, resourceFile string) (*server, error) {
	dir := filepath.Join(b.dir, strings.ReplaceAll(name, " ", "-"))
	resources := filepath.Join(dir, "resources")
	if err := os.MkdirAll(resources, 0o700); err != nil {
		return nil, err
	}
	lease, err := ports.Reserve(2)
	if err != nil {
		return nil, err
	}
	b.onClose(func() error { lease.Release(); return nil })
	listen, admin := loopback(lease.Ports[0]), loopback(lease.Ports[1])
	for file, content := range map[string]string{
		"resources/all.yaml": resourceFile,
		"resources/password": userPassword,
		"proxy.yaml":         fmt.Sprintf(gatewayFile, domain, admin, listen, b.pki.certFile, b.pki.keyFile),
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	s, err := launch(dir, name, exec.Command(bin, "--config", filepath.Join(dir, "proxy.yaml")))
	if err != nil {
		return nil, err
	}
	b.onClose(s.close)
	s.admin = "http://" + admin
	s.target = Target{
		Name: name, Addr: listen, Host: bootstrapHost, CA: b.pki.ca.PEM, Topic: aliasName,
		Mechanism: "SCRAM-SHA-512", User: userName, Password: userPassword,
	}
	return s, s.await(ctx, func() error { return get(ctx, s.admin+"/readyz", io.Discard) })
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// get copies what a URL gives, and returns an error unless it answers 200.
func get(ctx context.Context, url string, to io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("%s: %s: %s", url, resp.Status, strings.TrimSpace(string(text)))
	}
	_, err = io.Copy(to, resp.Body)
	return err
}

// haproxyFile makes HAProxy do what the gateway does to bytes and nothing else:
// the same TLS in, plaintext out, by its defaults. The second frontend does not
// reach for a broker before a client has spoken, as the gateway does not, so that
// a handshake costs a handshake.
const haproxyFile = `
global
  maxconn 8000
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
frontend tls
  bind %[1]s ssl crt %[3]s ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256 curves X25519
  default_backend broker
frontend patient
  bind %[2]s ssl crt %[3]s ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256 curves X25519
  tcp-request inspect-delay 1h
  tcp-request content accept if { req.len gt 0 }
  tcp-request content reject
  default_backend broker
backend broker
  server broker %[4]s
`

// haproxyCommand finds HAProxy, also where Debian has it out of a user's PATH.
func haproxyCommand() (string, error) {
	bin, err := exec.LookPath("haproxy")
	if err == nil {
		return bin, nil
	}
	if bin, sbin := exec.LookPath("/usr/sbin/haproxy"); sbin == nil {
		return bin, nil
	}
	return "", fmt.Errorf("%w (tools/setup.sh installs it)", err)
}

// startHAProxy runs HAProxy in front of the broker at addr. It knows nothing of
// Kafka, so there is no login, and its clients use what the broker calls the topic.
func (b *run) startHAProxy(ctx context.Context, name, addr string) (s *server, patient string, err error) {
	lease, err := ports.Reserve(2)
	if err != nil {
		return nil, "", err
	}
	b.onClose(func() error { lease.Release(); return nil })
	listen, patient := loopback(lease.Ports[0]), loopback(lease.Ports[1])
	file := filepath.Join(b.dir, name+".cfg")
	if err := os.WriteFile(file, fmt.Appendf(nil, haproxyFile, listen, patient, b.pki.bothFile, addr), 0o600); err != nil {
		return nil, "", err
	}
	bin, err := haproxyCommand()
	if err != nil {
		return nil, "", err
	}
	if s, err = launch(b.dir, name, exec.Command(bin, "-db", "-f", file)); err != nil {
		return nil, "", err
	}
	b.onClose(s.close)
	s.target = Target{Name: s.name, Addr: listen, Host: stubHost, CA: b.pki.ca.PEM, Topic: physicalName}
	return s, patient, s.await(ctx, func() error {
		c, err := net.Dial("tcp", patient)
		return errors.Join(err, closeIf(c))
	})
}

func closeIf(c net.Conn) error {
	if c == nil {
		return nil
	}
	return c.Close()
}
