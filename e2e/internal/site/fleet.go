// Package site runs the product as operators run it: portals on one database, nodes
// that follow them through Redis, and a balancer before the nodes. Each is a process of
// its own, and can be killed.
package site

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollgate.internal/e2e/internal/balancer"
	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/ports"
	"tollgate.internal/e2e/internal/testpki"
	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/testbed/redistest"
)

// Options say what there is.
type Options struct {
	Database       string // URL
	Portals, Nodes int
	Env            []string // of portals, besides what they need: NAME=value
	Disk           string   // a directory where portals find a small disk of their own; none when empty
	DiskBytes      int64
}

// A Site is everything together.
type Site struct {
	Redis   *redistest.Server
	Portals []*Portal
	Nodes   []*Node
	Key     ed25519.PrivateKey // that the portals sign with
	Keyring bundle.Keyring     // that nodes believe
	dir     string
	port    int // of the balancer
	caFile  string
	token   string
}

// A Portal is the portal command.
type Portal struct {
	Process
	URL string
}

// A Node is the proxy command.
type Node struct {
	Process
	site *Site
	port int
}

// domain is that of all hosts.
const domain = "gw.test"

// Start starts a site, and waits until all of it is ready.
func Start(t testing.TB, o Options) *Site {
	t.Helper()
	lease, err := ports.Reserve(1 + 2*o.Portals + 2*o.Nodes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.Release)
	port := func() int {
		p := lease.Ports[0]
		lease.Ports = lease.Ports[1:]
		return p
	}
	s := &Site{Redis: redistest.Start(t), dir: t.TempDir(), port: port()}
	signing, public := s.keys(t)
	cert := s.certificate(t)
	first, salt := s.file("first.token"), s.file("salt")
	if err := os.WriteFile(salt, []byte(rand.Text()), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range o.Portals {
		p := &Portal{Process: s.process(t, fmt.Sprintf("portal%d", i+1), "portal", port()), URL: "http://" + loopback(port())}
		p.env = []string{
			"TOLLGATE_PORTAL_LISTEN=" + strings.TrimPrefix(p.URL, "http://"), "TOLLGATE_PORTAL_ADMIN=" + p.Admin, "TOLLGATE_PORTAL_DATABASE=" + o.Database,
			"TOLLGATE_PORTAL_REDIS=" + s.Redis.URL, "TOLLGATE_PORTAL_SIGNING_KEY=" + signing, "TOLLGATE_PORTAL_FIRST_TOKEN=" + first, "TOLLGATE_PORTAL_LOG_FORMAT=text",
		}
		p.env = append(p.env, o.Env...)
		if o.Disk != "" {
			p.wrapper = onDisk(o.Disk, o.DiskBytes)
		}
		t.Cleanup(func() { p.end(t) })
		s.Portals = append(s.Portals, p)
		p.Launch(t)
	}
	token, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	s.token = strings.TrimSpace(string(token))
	var addresses []string
	for i := range o.Nodes {
		name := fmt.Sprintf("node%d", i+1)
		n := &Node{Process: s.process(t, name, "proxy", port()), site: s, port: port()}
		n.args = []string{
			"--listen", loopback(n.port), "--advertised-port", fmt.Sprint(s.port), "--domain", domain, "--certificate", cert, "--admin", n.Admin,
			"--control-redis", s.Redis.URL, "--control-keys", public, "--control-state", s.file(name + ".state"), "--control-node", name,
			"--control-api", s.Portals[0].URL, "--control-token", "file:" + first,
			"--salt-key", "file:" + salt, "--producer-ids", s.Redis.URL, "--drain-grace", "0s", "--drain-spread", "0s",
		}
		addresses = append(addresses, loopback(n.port))
		t.Cleanup(func() { n.end(t) })
		s.Nodes = append(s.Nodes, n)
		n.Begin(t)
	}
	for _, n := range s.Nodes {
		n.Await(t)
	}
	b, err := balancer.Start(loopback(s.port), addresses)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return s
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func (s *Site) file(name string) string { return filepath.Join(s.dir, name) }

func (s *Site) process(t testing.TB, name, command string, admin int) Process {
	return Process{Name: name, Version: Present, Admin: loopback(admin), Log: s.file(name + ".log"), command: command}
}

// keys makes what the portals sign with, and what nodes believe.
func (s *Site) keys(t testing.TB) (signing, public string) {
	t.Helper()
	open, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.Key = private
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := x509.MarshalPKIXPublicKey(open)
	if err != nil {
		t.Fatal(err)
	}
	signing, public = s.file("portal.key"), s.file("portal.pub")
	for name, block := range map[string]*pem.Block{signing: {Type: "PRIVATE KEY", Bytes: secret}, public: {Type: "PUBLIC KEY", Bytes: shown}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	if s.Keyring, err = bundle.ParseKeyring(text); err != nil {
		t.Fatal(err)
	}
	return signing, public
}

// onDisk is a command line that runs another with a disk in a directory, which nobody
// else sees and which goes with it.
func onDisk(dir string, bytes int64) []string {
	line := []string{"unshare", "--mount"}
	if os.Geteuid() != 0 { // root in a namespace of one's own may mount as well
		line = append(line, "--user", "--map-root-user")
	}
	return append(line, "sh", "-c", fmt.Sprintf(`mount -t tmpfs -o size=%d tmpfs "$0" && exec "$@"`, bytes), dir)
}

func (s *Site) certificate(t testing.TB) string {
	t.Helper()
	ca, err := testpki.New("fleet")
	if err != nil {
		t.Fatal(err)
	}
	if s.caFile, err = ca.Write(s.dir, "ca"); err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Server("*." + domain)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := pair.Write(s.dir, "server")
	if err != nil {
		t.Fatal(err)
	}
	return cert + "," + key
}

// maxNodeID bounds the node ids that hosts are listed for.
const maxNodeID = 40

// Target is how a client of the virtual cluster with this host label connects, by way
// of the balancer.
func (s *Site) Target(label, mechanism, user, password string) drivers.Target {
	hosts := drivers.Hosts{label + "." + domain: {"127.0.0.1"}}
	for id := range maxNodeID {
		hosts[fmt.Sprintf("b%d-%s.%s", id, label, domain)] = []string{"127.0.0.1"}
	}
	return drivers.Target{
		Bootstrap: fmt.Sprintf("%s.%s:%d", label, domain, s.port), CAFile: s.caFile,
		Mechanism: mechanism, User: user, Password: password, Hosts: hosts,
	}
}

// Target is how a client gets to this node with its first connection.
func (n *Node) Target(label, mechanism, user, password string) drivers.Target {
	target := n.site.Target(label, mechanism, user, password)
	target.Bootstrap = fmt.Sprintf("%s.%s:%d", label, domain, n.port)
	return target
}
