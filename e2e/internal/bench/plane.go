package bench

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/xdg-go/scram"

	"tollgate.internal/e2e/internal/ports"
	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
)

// build compiles a command of this tree into a directory of commands.
func build(ctx context.Context, dir, pkg string) (string, error) {
	bin := filepath.Join(dir, "bin", path.Base(pkg))
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, pkg).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return bin, nil
}

// notices is a Redis that keeps nothing on disk, and what portals sign with.
type notices struct {
	server    *server
	url       string
	signer    *bundle.Signer
	signing   string // files
	verifying string
	flush     func(context.Context) error // empties it
}

func (b *run) startRedis(ctx context.Context, name string) (*notices, error) {
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("%w (tools/setup.sh installs it)", err)
	}
	lease, err := ports.Reserve(1)
	if err != nil {
		return nil, err
	}
	b.onClose(func() error { lease.Release(); return nil })
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	address := loopback(lease.Ports[0])
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n := &notices{url: "redis://" + address, signing: filepath.Join(dir, "private.pem"), verifying: filepath.Join(dir, "public.pem")}
	if n.signer, err = bundle.NewSigner(); err != nil {
		return nil, err
	}
	private, err := n.signer.Private()
	if err != nil {
		return nil, err
	}
	public, err := n.signer.Public()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.WriteFile(n.signing, private, 0o600), os.WriteFile(n.verifying, public, 0o600)); err != nil {
		return nil, err
	}
	n.server, err = launch(dir, "redis", exec.Command(bin, "--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "no"))
	if err != nil {
		return nil, err
	}
	b.onClose(n.server.close)
	client, err := fleet.Open(n.url, secret.Secret{})
	if err != nil {
		return nil, err
	}
	b.onClose(client.Close)
	n.flush = func(ctx context.Context) error { return client.FlushAll(ctx).Err() }
	return n, n.server.await(ctx, func() error {
		c, err := net.Dial("tcp", address)
		return errors.Join(err, closeIf(c))
	})
}

// publisher is the portal's hand on the board of a deployment.
func (b *run) publisher(n *notices, deployment fleet.Deployment) (*fleet.Publisher, error) {
	client, err := fleet.Open(n.url, secret.Secret{})
	if err != nil {
		return nil, err
	}
	b.onClose(client.Close)
	return fleet.NewPublisher(client, deployment, n.signer, nil)
}

// startNode runs a node that serves what is published in Redis. It is not waited for.
func (b *run) startNode(name string, n *notices, deployment fleet.Deployment) (*server, error) {
	lease, err := ports.Reserve(2)
	if err != nil {
		return nil, err
	}
	b.onClose(func() error { lease.Release(); return nil })
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	listen, admin := loopback(lease.Ports[0]), loopback(lease.Ports[1])
	s, err := launch(dir, name, exec.Command(b.Gateway,
		"--control-redis", n.url, "--control-keys", n.verifying, "--control-state", filepath.Join(dir, "state"),
		"--control-deployment", string(deployment), "--control-node", name,
		"--listen", listen, "--domain", domain, "--certificate", b.pki.certFile+","+b.pki.keyFile, "--admin", admin,
		"--log-level", "warn", "--drain-grace", "0s", "--drain-spread", "0s", "--drain-timeout", "1s"))
	if err != nil {
		return nil, err
	}
	b.onClose(s.close)
	s.admin = "http://" + admin
	s.target = Target{Name: name, Addr: listen, CA: b.pki.ca.PEM, Topic: aliasName, Mechanism: "SCRAM-SHA-512", User: userName, Password: userPassword}
	return s, nil
}

// ready is how long it took from began until a node lets clients in.
func (s *server) ready(ctx context.Context, began time.Time) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	for {
		err := get(ctx, s.admin+"/readyz", io.Discard)
		if err == nil {
			return time.Since(began), nil
		}
		select {
		case <-s.process.Done():
			return 0, fmt.Errorf("%s ended: %w\n%s", s.name, s.process.Wait(), s.tail())
		case <-ctx.Done():
			return 0, fmt.Errorf("%s is not ready: %w\n%s", s.name, err, s.tail())
		case <-time.After(time.Millisecond):
		}
	}
}

// of is the target of a virtual cluster of [tenancy] on this node.
func (s *server) of(tenant int) Target {
	t := s.target
	t.Host = virtualClusterOf(tenant) + "." + domain
	return t
}

// The names of tenants by their numbers.
func numberOf(tenant int) string         { return fmt.Sprintf("%06d", tenant) }
func virtualClusterOf(tenant int) string { return "v" + numberOf(tenant) }

// aliasesEach is how many aliases each tenant has: one for the stub's topic, and
// others whose topics no broker has.
const aliasesEach = 20

// tenancy is what each tenant has: itself, a virtual cluster, grants, aliases, an
// account and ACLs. Tenants differ in their numbers.
type tenancy []resource.Object

// upstreamObject is the cluster behind all of them.
func upstreamObject(bootstrap string) *resource.UpstreamCluster {
	return &resource.UpstreamCluster{Metadata: resource.Metadata{Name: mainCluster}, Spec: resource.UpstreamClusterSpec{Bootstrap: []string{bootstrap}}}
}

func newTenancy(bootstrap string) (tenancy, error) {
	const number = "000000"
	tenant, vc := "t"+number, "v"+number
	var m manifest
	m.add("UpstreamCluster", "name: "+mainCluster, fmt.Sprintf("bootstrap: [%q]", bootstrap))
	m.add("Tenant", "name: "+tenant+", labels: {cost-centre: c}", "displayName: Tenant "+number+", contacts: [ops@"+tenant+".example], plan: standard")
	m.add("VirtualCluster", fmt.Sprintf("name: %s, tenant: %s", vc, tenant), fmt.Sprintf("type: partner, host: %s, home: %s, authentication: {plain: {}, scram: {}}", vc, mainCluster))
	grant := func(name, physical, pattern string) {
		m.add("TopicGrant", fmt.Sprintf("name: %s, tenant: %s", name, tenant), fmt.Sprintf("cluster: %s, topic: {name: %s, pattern: %s}, access: read-write", mainCluster, physical, pattern))
	}
	grant("orders", physicalName, "literal")
	grant("own", "shop"+number+".", "prefixed")
	m.add("ServiceAccount", fmt.Sprintf("name: %s, virtualCluster: %s", userName, vc), "type: local")
	m.alias(vc, aliasName, mainCluster, physicalName)
	for i := 1; i < aliasesEach; i++ {
		m.alias(vc, fmt.Sprintf("things-%02d", i), mainCluster, fmt.Sprintf("shop%s.things.%02d", number, i))
	}
	m.allow(vc, "topic", aliasName, "literal")
	m.allow(vc, "topic", "things-", "prefixed")
	m.allow(vc, "group", groupPrefix, "prefixed")

	var problems resource.Problems
	written := resource.Parse([]byte(m.String()), &problems)
	resource.Validate(written, nil, time.Now())
	if len(problems) > 0 {
		return nil, problems
	}
	var t tenancy
	for _, o := range written[1:] { // behind the upstream cluster
		t = append(t, o.Object)
	}
	return t, nil
}

// of are the objects of one tenant.
func (t tenancy) of(tenant int) []resource.Object {
	number := numberOf(tenant)
	name := func(s string) string { return strings.Replace(s, "000000", number, 1) }
	meta := func(m resource.Metadata) resource.Metadata {
		m.Tenant, m.VirtualCluster, m.Name = name(m.Tenant), name(m.VirtualCluster), name(m.Name)
		return m
	}
	all := make([]resource.Object, len(t))
	for i, o := range t {
		switch o := o.(type) {
		case *resource.Tenant:
			c := *o
			c.Metadata = meta(c.Metadata)
			c.Metadata.Labels = map[string]string{"cost-centre": costCentreOf(tenant)}
			all[i] = &c
		case *resource.VirtualCluster:
			c := *o
			c.Metadata, c.Spec.Host = meta(c.Metadata), name(c.Spec.Host)
			all[i] = &c
		case *resource.TopicGrant:
			c := *o
			c.Metadata, c.Spec.Topic.Name = meta(c.Metadata), name(c.Spec.Topic.Name)
			all[i] = &c
		case *resource.AliasTopic:
			c := *o
			c.Metadata, c.Spec.Topic = meta(c.Metadata), name(c.Spec.Topic)
			all[i] = &c
		case *resource.ServiceAccount:
			c := *o
			c.Metadata = meta(c.Metadata)
			all[i] = &c
		case *resource.ACL:
			c := *o
			c.Metadata = meta(c.Metadata)
			all[i] = &c
		}
	}
	return all
}

// costCentres is how many labels there are to look for.
const costCentres = 100

func costCentreOf(tenant int) string { return fmt.Sprintf("c%02d", tenant%costCentres) }

// passwordVerifier is a verifier of what every account logs in with: made once, for it costs
// as much as it is meant to.
func passwordVerifier() (resource.Verifier, error) {
	client, err := scramClient(userName, userPassword)
	if err != nil {
		return resource.Verifier{}, err
	}
	salt := []byte("0123456789abcdef")
	v := resource.Verifier{ID: "bench", Mechanism: "SCRAM-SHA-512", Iterations: 4096, Salt: base64.StdEncoding.EncodeToString(salt)}
	keys, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: v.Iterations})
	if err != nil {
		return v, err
	}
	v.StoredKey, v.ServerKey = base64.StdEncoding.EncodeToString(keys.StoredKey), base64.StdEncoding.EncodeToString(keys.ServerKey)
	return v, nil
}

// plane is a whole control plane: a database, a portal, Redis, and nodes.
type plane struct {
	database string // what it is called
	notices  *notices
	board    *fleet.Publisher
	portal   *server
	api      string
	token    string
	nodes    []*server
	clients  [][]*conn // by tenant and node
}

const planeDeployment fleet.Deployment = "bench"

// fleetNodes is how many nodes a change has to reach.
const fleetNodes = 3

func (b *run) startPlane(ctx context.Context, database, portal, url string) (*plane, error) {
	p := &plane{database: database}
	name := "plane-" + strings.ToLower(database)
	var err error
	if p.notices, err = b.startRedis(ctx, name); err != nil {
		return nil, err
	}
	if p.board, err = b.publisher(p.notices, planeDeployment); err != nil {
		return nil, err
	}
	lease, err := ports.Reserve(2)
	if err != nil {
		return nil, err
	}
	b.onClose(func() error { lease.Release(); return nil })
	dir := filepath.Join(b.dir, name)
	listen, admin, token := loopback(lease.Ports[0]), loopback(lease.Ports[1]), filepath.Join(dir, "token")
	cmd := exec.Command(portal)
	cmd.Env = os.Environ()
	for name, value := range map[string]string{
		"LISTEN": listen, "ADMIN": admin, "DATABASE": url, "REDIS": p.notices.url, "SIGNING_KEY": p.notices.signing,
		"DEPLOYMENT": string(planeDeployment), "FIRST_TOKEN": token, "LOG_LEVEL": "warn", "DRAIN_TIMEOUT": "2s",
	} {
		cmd.Env = append(cmd.Env, "TOLLGATE_PORTAL_"+name+"="+value)
	}
	if p.portal, err = launch(dir, "portal", cmd); err != nil {
		return nil, err
	}
	b.onClose(p.portal.close)
	p.portal.admin, p.api = "http://"+admin, "http://"+listen
	if err := p.portal.await(ctx, func() error { return get(ctx, p.portal.admin+"/readyz", io.Discard) }); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(token)
	if err != nil {
		return nil, err
	}
	p.token = strings.TrimSpace(string(text))
	for i := range fleetNodes {
		began := time.Now()
		node, err := b.startNode(fmt.Sprintf("%s-%d", name, i+1), p.notices, planeDeployment)
		if err != nil {
			return nil, err
		}
		if _, err := node.ready(ctx, began); err != nil {
			return nil, err
		}
		p.nodes = append(p.nodes, node)
	}
	return p, nil
}

// apiClient keeps connections to the portals.
var apiClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}, Timeout: 2 * time.Minute}

// call sends a request to the API and returns what it answers, how long that took, and
// whether every node has applied the change.
func (p *plane) call(ctx context.Context, method, path string, in, out any) (took time.Duration, applied bool, err error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return 0, false, err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, p.api+path, body)
	if err != nil {
		return 0, false, err
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	began := time.Now()
	resp, err := apiClient.Do(req)
	if err != nil {
		return 0, false, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, false, fmt.Errorf("%s %s: %w", method, path, err)
	}
	took = time.Since(began)
	if resp.StatusCode/100 != 2 {
		return took, false, fmt.Errorf("%s %s: %s: %.2000s", method, path, resp.Status, text)
	}
	if out != nil {
		if err := json.Unmarshal(text, out); err != nil {
			return took, false, fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
	return took, resp.Header.Get("Tollgate-Applied") == "yes", nil
}

// apply sends objects in one change, and returns its revision.
func (p *plane) apply(ctx context.Context, objects []resource.Object) (revision int64, err error) {
	list := make([]json.RawMessage, len(objects))
	for i, o := range objects {
		if list[i], err = resource.Marshal(o); err != nil {
			return 0, err
		}
	}
	var out struct {
		Revision int64 `json:"revision"`
	}
	_, _, err = p.call(ctx, http.MethodPost, "/v1/apply", list, &out)
	return out.Revision, err
}

// published waits until Redis has everything up to a revision.
func (p *plane) published(ctx context.Context, revision int64) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		head, err := p.board.Head(ctx)
		if err == nil && head.Revision >= revision {
			return nil
		}
		select {
		case <-p.portal.process.Done():
			return fmt.Errorf("the portal ended: %w\n%s", p.portal.process.Wait(), p.portal.tail())
		case <-ctx.Done():
			return fmt.Errorf("revision %d is not published, but %d (%w)\n%s", revision, head.Revision, errors.Join(err, ctx.Err()), p.portal.tail())
		case <-time.After(5 * time.Millisecond):
		}
	}
}
