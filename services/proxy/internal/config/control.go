package config

import (
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"tollgate.internal/pkg/bundle"
	board "tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/pkg/strictyaml"
	"tollgate.internal/services/proxy"
)

// control says where a node of a fleet learns what it serves.
type control struct {
	Redis       string        `yaml:"redis"`
	Password    string        `yaml:"password"`
	PublicKeys  string        `yaml:"publicKeys"`
	State       string        `yaml:"state"`
	Deployment  string        `yaml:"deployment"`
	Node        string        `yaml:"node"`
	Rack        string        `yaml:"rack"`
	Balancing   string        `yaml:"balancing"`
	Advertise   string        `yaml:"advertise"`
	API         string        `yaml:"api"`
	Token       string        `yaml:"token"`
	Preload     bool          `yaml:"preload"`
	UnloadAfter time.Duration `yaml:"unloadAfter"`
}

// nodeID is what stands in keys, in logs and in labels of metrics.
var nodeID = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

// resolve reports every problem; nil: there is no control plane.
func (c *control) resolve(f *file, d *strictyaml.Document, dir string) *proxy.Control {
	if *c == (control{}) {
		return nil
	}
	bad := func(field, format string, args ...any) { d.Problem("control."+field, format, args...) }
	if f.Resources != "" {
		d.Problem("control", "stands in place of resources: a node serves what one of them says")
	}
	out := &proxy.Control{
		Redis: c.Redis, State: within(dir, c.State), Deployment: c.Deployment, Node: c.Node, Rack: c.Rack,
		API: c.API, Preload: c.Preload, UnloadAfter: c.UnloadAfter,
	}
	reference := func(field, ref string) secret.Secret {
		if ref == "" {
			return secret.Secret{}
		}
		s, err := secret.Resolve(ref, dir)
		if err != nil {
			bad(field, "%v", err)
		}
		return s
	}
	out.RedisPassword, out.APIToken = reference("password", c.Password), reference("token", c.Token)
	if c.Redis == "" {
		bad("redis", "required: redis://HOST:PORT of the Redis that portal and nodes share")
	} else if client, err := board.Open(c.Redis, out.RedisPassword); err != nil { // it connects to nobody yet
		bad("redis", "%v", err)
	} else if err := client.Close(); err != nil {
		bad("redis", "%v", err)
	}
	if c.PublicKeys == "" {
		bad("publicKeys", "required: a PEM file with the public key that the portal signs with")
	} else if text, err := os.ReadFile(within(dir, c.PublicKeys)); err != nil {
		bad("publicKeys", "%v", err)
	} else if out.PublicKeys, err = bundle.ParseKeyring(text); err != nil {
		bad("publicKeys", "%v", err)
	}
	if c.State == "" {
		bad("state", "required: a directory of this node alone, which outlives the process: it serves what is in there when the Redis is away")
	} else if parent := filepath.Dir(filepath.Clean(out.State)); !isDirectory(parent) {
		bad("state", "%s is not a directory", parent)
	}
	if out.Deployment == "" {
		out.Deployment = string(board.DefaultDeployment)
	} else if err := board.Deployment(out.Deployment).Check(); err != nil {
		bad("deployment", "%v", err)
	}
	if out.Node == "" {
		out.Node, _ = os.Hostname()
	}
	if !nodeID.MatchString(out.Node) {
		bad("node", "%q is not an id such as n1: 1 to 63 letters, digits, '.', '_' and '-', another for each node", out.Node)
	}
	if c.API != "" {
		if u, err := url.Parse(c.API); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			bad("api", "must be a URL such as https://portal.internal:9401")
		}
	}
	if (c.API == "") != (c.Token == "") {
		bad("token", "api and token belong together: the portal asks for the node's token")
	}
	positive(d, "control.unloadAfter", c.UnloadAfter)
	fleet := c.fleet()
	if field, err := fleet.Check(f.Domains, f.config(dir, io.Discard).Listeners); err != nil {
		bad(field, "%v", err)
	}
	return out
}

// fleet is how the node shares the clients with the others.
func (c *control) fleet() proxy.Fleet {
	return proxy.Fleet{Balancing: proxy.Balancing(c.Balancing), Advertise: c.Advertise}
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
