package config

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/services/proxy"
)

// keys writes the public key of a portal.
func keys(t *testing.T, dir string) *bundle.Signer {
	t.Helper()
	signer, err := bundle.NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	public, err := signer.Public()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"portal.pub": public, "redis.secret": []byte("of the redis"), "node.token": []byte("tg_1_x")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return signer
}

func TestAControlPlane(t *testing.T) {
	dir := directory(t)
	signer := keys(t, dir)
	t.Chdir(dir)
	path := filepath.Join(dir, "proxy.yaml")
	if err := os.WriteFile(path, []byte(good+`
control:
  redis: redis://redis.internal:6379?master_name=ours&addr=h2:26379
  password: file:redis.secret
  publicKeys: portal.pub
  state: state
  deployment: prod
  node: n1
  rack: eu-west-1a
  balancing: internal
  advertise: n1.gw.example.com:443
  api: https://portal.internal:9401
  token: file:node.token
  preload: true
  unloadAfter: 10m
`), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := Load(path, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	flags, err := FromArgs([]string{
		"--listen", "0.0.0.0:9092", "--domain", "gw.example.com", "--certificate", "gw.pem,gw.key",
		"--control-redis", "redis://redis.internal:6379?master_name=ours&addr=h2:26379", "--control-redis-password", "file:redis.secret", "--control-keys", "portal.pub", "--control-state", filepath.Join(dir, "state"),
		"--control-deployment", "prod", "--control-node", "n1", "--control-rack", "eu-west-1a", "--control-balancing", "internal", "--control-advertise", "n1.gw.example.com:443", "--control-api", "https://portal.internal:9401",
		"--control-token", "file:node.token", "--control-preload", "--control-unload-after", "10m",
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for how, f := range map[string]proxy.Fleet{"a file": file.Fleet, "flags": flags.Fleet} {
		if f.Balancing != proxy.Internal || f.Advertise != "n1.gw.example.com:443" {
			t.Errorf("%s: %+v", how, f)
		}
	}
	for how, c := range map[string]*proxy.Control{"a file": file.Control, "flags": flags.Control} {
		if c == nil || !strings.Contains(c.Redis, "master_name=ours") || c.RedisPassword.Reveal() != "of the redis" || c.State != filepath.Join(dir, "state") || c.Deployment != "prod" ||
			c.Node != "n1" || c.Rack != "eu-west-1a" || c.API != "https://portal.internal:9401" || c.APIToken.Reveal() != "tg_1_x" || !c.Preload || c.UnloadAfter != 10*time.Minute {
			t.Errorf("%s: %+v", how, c)
		} else if len(c.PublicKeys) != 1 || c.PublicKeys[signer.ID()] == nil {
			t.Errorf("%s: keys %v", how, c.PublicKeys)
		}
	}
}

func TestMistakesAboutAControlPlane(t *testing.T) {
	for _, tc := range []struct {
		name, control string
		want          []string
	}{
		{"nothing that is needed", "control: {node: n1}", []string{
			"8: control.redis: required: redis://HOST:PORT of the Redis that portal and nodes share",
			"8: control.publicKeys: required: a PEM file with the public key that the portal signs with",
			"8: control.state: required: a directory of this node alone, which outlives the process: it serves what is in there when the Redis is away",
		}},
		{"balancing that is no way", "control: {redis: 'redis://h:1', publicKeys: portal.pub, state: state, balancing: fair}", []string{
			`8: control.balancing: "fair" is neither internal nor external`,
		}},
		{"internal balancing without a domain", "control: {redis: 'redis://h:1', publicKeys: portal.pub, state: state, balancing: internal}", []string{
			"8: control.advertise: required: internal balancing needs the node's own domain, such as n1.gw.example.com",
		}},
		{"internal balancing by the domain of all", "control: {redis: 'redis://h:1', publicKeys: portal.pub, state: state, balancing: internal, advertise: gw.example.com}", []string{
			"8: control.advertise: gw.example.com is a domain of all nodes: the node needs one of its own",
		}},
		{"an address in place of a domain", "control: {redis: 'redis://h:1', publicKeys: portal.pub, state: state, advertise: '10.1.2.3:9092'}", []string{
			`8: control.advertise: "10.1.2.3" is not a domain such as n1.gw.example.com, in lower case`,
		}},
		{"a domain with a port that is none", "control: {redis: 'redis://h:1', publicKeys: portal.pub, state: state, advertise: 'n1.gw.example.com:kafka'}", []string{
			`8: control.advertise: "n1.gw.example.com:kafka" has no port after the colon`,
		}},
		{"files beside it", "resources: resources\ncontrol: {redis: 'redis://h:1', publicKeys: portal.pub, state: state}", []string{
			"9: control: stands in place of resources: a node serves what one of them says",
		}},
		{"what cannot be", "control: {redis: 'http://h:1', password: hunter2, publicKeys: gw.key, state: no/where/state, deployment: a b, node: '-', api: portal, token: 'env:NO_SUCH_TOKEN', unloadAfter: -1s}", []string{
			"8: control.password: resolve secret: not a reference: write env:NAME or file:PATH",
			"8: control.token: resolve secret env:NO_SUCH_TOKEN: variable is not set",
			"8: control.redis: must be redis://HOST:PORT; also rediss:// and unix://",
			"8: control.publicKeys: public keys: there is a private key among them: it belongs to the portal alone",
			"8: control.state: DIR/no/where is not a directory",
			`8: control.deployment: deployment "a b": must be 1 to 63 letters, digits, - and _`,
			`8: control.node: "-" is not an id such as n1: 1 to 63 letters, digits, '.', '_' and '-', another for each node`,
			"8: control.api: must be a URL such as https://portal.internal:9401",
			"8: control.unloadAfter: must be positive: leave it out for the default",
		}},
		{"a token without an API", "control: {redis: 'redis://h:1', publicKeys: portal.pub, state: state, token: file:node.token}", []string{
			"8: control.token: api and token belong together: the portal asks for the node's token",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := directory(t)
			keys(t, dir)
			path, err := load(t, dir, good+tc.control+"\n")
			if err == nil {
				t.Fatal("it loads")
			}
			got := strings.ReplaceAll(strings.ReplaceAll(err.Error(), path+":", ""), dir, "DIR")
			if want := strings.Join(tc.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
