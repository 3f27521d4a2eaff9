// Package site runs the product as operators run it: portals on one database, a real
// Redis, nodes that follow the portals through it, each at an address of its own, and a
// balancer before the nodes, which asks whether they are ready. Each is a process of its
// own, and can be killed.
package site

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/balancer"
	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/ports"
	"tollgate.internal/e2e/internal/testpki"
	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/testbed/redistest"
)

// Options say what there is.
type Options struct {
	Database  string // URL; SQLite when empty
	Portals   int    // 1 when 0
	Nodes     int
	Internal  bool     // balancing
	Flags     []string // of each node, besides those that it has anyway
	Env       []string // of portals, besides what they need: NAME=value
	Link      bool     // portals and nodes come to Redis by way of a link
	Disk      string   // a directory where portals find a small disk of their own; none when empty
	DiskBytes int64
	NodeDisk  string // a directory where each node finds a small disk of its own; none when empty
}

// A Site is everything together.
type Site struct {
	Redis    *redistest.Server
	Link     *redistest.Link // nil: portals and nodes come to Redis itself
	Portals  []*Portal
	Nodes    []*Node
	Key      ed25519.PrivateKey // that the portals sign with
	Keyring  bundle.Keyring     // that nodes believe
	options  Options
	dir      string
	redis    string // its URL
	port     int    // of the balancer and of all nodes
	balancer *balancer.Balancer
	cert     string // files
	salt     string
	public   string
	first    string // the token of an operator
	caFile   string
	token    string
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
	ip   string
}

const (
	// domain is that of all hosts; node1 has node1.gw.test.
	domain = "gw.test"
	// maxNodes is how many the certificate is good for.
	maxNodes   = 9
	balancerIP = "127.0.0.10"
)

// Start starts a site, and waits until all of it is ready.
func Start(t testing.TB, o Options) *Site {
	t.Helper()
	o.Portals = max(1, o.Portals)
	lease, err := ports.Reserve(1 + 2*o.Portals)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.Release)
	s := &Site{Redis: redistest.Start(t), options: o, dir: t.TempDir(), port: lease.Ports[0]}
	s.redis = s.Redis.URL
	if o.Link {
		s.Link = s.Redis.Link(t)
		s.redis = s.Link.URL
	}
	if o.Database == "" {
		o.Database = "sqlite:" + s.file("tollgate.db")
	}
	var signing string
	signing, s.public = s.keys(t)
	s.cert = s.certificate(t)
	s.first, s.salt = s.file("first.token"), s.file("salt")
	if err := os.WriteFile(s.salt, []byte(rand.Text()), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range o.Portals {
		p := &Portal{Process: s.process(fmt.Sprintf("portal%d", i+1), "portal", lease.Ports[1+2*i]), URL: "http://" + loopback(lease.Ports[2+2*i])}
		p.env = []string{
			"TOLLGATE_PORTAL_LISTEN=" + strings.TrimPrefix(p.URL, "http://"), "TOLLGATE_PORTAL_ADMIN=" + p.Admin, "TOLLGATE_PORTAL_DATABASE=" + o.Database,
			"TOLLGATE_PORTAL_REDIS=" + s.redis, "TOLLGATE_PORTAL_SIGNING_KEY=" + signing, "TOLLGATE_PORTAL_FIRST_TOKEN=" + s.first, "TOLLGATE_PORTAL_LOG_FORMAT=text",
		}
		p.env = append(p.env, o.Env...)
		if o.Disk != "" {
			p.wrapper = onDisk(o.Disk, o.DiskBytes)
		}
		t.Cleanup(func() { p.end(t) })
		s.Portals = append(s.Portals, p)
		p.Launch(t)
	}
	token, err := os.ReadFile(s.first)
	if err != nil {
		t.Fatal(err)
	}
	s.token = strings.TrimSpace(string(token))
	if s.balancer, err = balancer.Start(s.at(balancerIP)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.balancer.Close)
	for range o.Nodes {
		s.begin(t)
	}
	for _, n := range s.Nodes {
		n.Await(t)
	}
	return s
}

// Join starts one more node, and waits until it is ready.
func (s *Site) Join(t testing.TB) *Node {
	t.Helper()
	n := s.begin(t)
	n.Await(t)
	return n
}

func (s *Site) begin(t testing.TB) *Node {
	t.Helper()
	i := len(s.Nodes) + 1
	if i > maxNodes {
		t.Fatalf("the certificate is good for %d nodes", maxNodes)
	}
	lease, err := ports.Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.Release)
	n := &Node{Process: s.process(fmt.Sprintf("node%d", i), "proxy", lease.Ports[0]), site: s, ip: fmt.Sprintf("127.0.0.%d", 10+i)}
	balancing := "external"
	if s.options.Internal {
		balancing = "internal"
	}
	n.args = append([]string{
		"--listen", s.at(n.ip), "--domain", domain, "--certificate", s.cert, "--admin", n.Admin,
		"--control-redis", s.redis, "--control-keys", s.public, "--control-state", s.file(n.Name + ".state"), "--control-node", n.Name,
		"--control-balancing", balancing, "--control-advertise", n.Name + "." + domain,
		"--control-api", s.Portals[0].URL, "--control-token", "file:" + s.first,
		"--salt-key", "file:" + s.salt, "--producer-ids", s.redis, "--drain-grace", "0s", "--drain-spread", "0s",
	}, s.options.Flags...)
	if s.options.NodeDisk != "" {
		n.wrapper = onDisk(s.options.NodeDisk, 1<<20)
	}
	t.Cleanup(func() { n.end(t) })
	s.Nodes = append(s.Nodes, n)
	n.Begin(t)
	s.balancer.Add(s.at(n.ip), n.Ready)
	return n
}

// at is an address that clients come to.
func (s *Site) at(ip string) string { return fmt.Sprintf("%s:%d", ip, s.port) }

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func (s *Site) file(name string) string { return filepath.Join(s.dir, name) }

func (s *Site) process(name, command string, admin int) Process {
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
	names := []string{"*." + domain}
	for i := range maxNodes {
		names = append(names, fmt.Sprintf("*.node%d.%s", i+1, domain))
	}
	pair, err := ca.Server(names...)
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

// names are those of a host label and its brokers below a domain.
func names(label, domain string) []string {
	all := []string{label + "." + domain}
	for id := range maxNodeID {
		all = append(all, fmt.Sprintf("b%d-%s.%s", id, label, domain))
	}
	return all
}

// Target is how a client of the virtual cluster with this host label connects: by way of
// the balancer, and by the names of a node to that node. Without a mechanism it does not
// log in.
func (s *Site) Target(label, mechanism, user, password string) drivers.Target {
	hosts := make(drivers.Hosts)
	for _, name := range names(label, domain) {
		hosts[name] = []string{balancerIP}
	}
	for _, n := range s.Nodes {
		for _, name := range names(label, n.Name+"."+domain) {
			hosts[name] = []string{n.ip}
		}
	}
	return drivers.Target{
		Bootstrap: fmt.Sprintf("%s.%s:%d", label, domain, s.port), CAFile: s.caFile,
		Mechanism: mechanism, User: user, Password: password, Hosts: hosts,
	}
}

// Target is how a client comes to this node with every connection.
func (n *Node) Target(label, mechanism, user, password string) drivers.Target {
	target := n.site.Target(label, mechanism, user, password)
	for name := range target.Hosts {
		target.Hosts[name] = []string{n.ip}
	}
	return target
}

// Ready reports whether the node says that clients are to be sent to it.
func (n *Node) Ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	status, _, err := n.Get(ctx, "/readyz")
	return err == nil && status == http.StatusOK
}

// Sessions is how many clients are connected to the node.
func (n *Node) Sessions(ctx context.Context) (int, error) {
	_, body, err := n.Get(ctx, "/status")
	if err != nil {
		return 0, err
	}
	var st struct{ Node struct{ Sessions int } }
	err = json.Unmarshal([]byte(body), &st)
	return st.Node.Sessions, err
}
