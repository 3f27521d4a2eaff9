package config

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy"
	"tollgate.internal/services/proxy/internal/listener"
)

// directory has gw.pem, its key gw.key, a key of somebody else, and short.key
// of 5 bytes.
func directory(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "short.key"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	var keys []*ecdsa.PrivateKey
	for _, name := range []string{"gw.key", "other.key"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		write(name, "PRIVATE KEY", der, err)
		keys = append(keys, key)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"*.gw.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, keys[0].Public(), keys[0])
	write("gw.pem", "CERTIFICATE", der, err)
	return dir
}

func load(t *testing.T, dir, text string) (string, error) {
	t.Helper()
	path := filepath.Join(dir, "proxy.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path, io.Discard)
	return path, err
}

func TestAWholeFile(t *testing.T) {
	dir := directory(t)
	path := filepath.Join(dir, "proxy.yaml")
	var logs strings.Builder
	if err := os.WriteFile(filepath.Join(dir, "salt.key"), []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := os.WriteFile(path, []byte(`
resources: resources
domains: [gw.example.com]
saltKey: file:salt.key
producerIDs: {source: 'file:ids', deployment: 9}
admin: 127.0.0.1:9410
log: {level: debug, format: json}
drainGrace: 0s
drainSpread: 2m
drainTimeout: 20s
reloadEvery: 1s
limits:
  handshakeTimeout: 5s
  authenticationTimeout: 15s
  connections: 15000
  connectionsPerAddress: 100
  unauthenticatedConnections: 501
  requestBytes: 10MiB
  requestTimeout: 40s
  stallTimeout: 20s
  requestsInFlight: 9
  requestMemory: 1GiB
listeners:
  - name: public
    address: 0.0.0.0:9092
    routing: sni
    advertisedPort: 443
    certificates: [{certFile: gw.pem, keyFile: gw.key}]
    proxyProtocol: [10.0.0.0/8, 192.0.2.7]
  - name: acme
    address: 10.1.2.3:9501
    routing: port
    protocol: SASL_PLAINTEXT
    virtualCluster: acme-prod
    brokerPorts: 9502-9600
  - name: sparse
    address: 0.0.0.0:9601
    routing: port
    protocol: PLAINTEXT
    virtualCluster: other
    advertisedHost: gw.internal
    brokerPorts: [{ports: 9602-9604}, {ports: 9610-9619, firstNode: 1001, advertised: 19610}]
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(path, &logs)
	if err != nil {
		t.Fatal(err)
	}
	wantListeners := []listener.Spec{
		{
			Name: "public", Address: "0.0.0.0:9092", Routing: listener.BySNI, Protocol: listener.TLS, AdvertisedPort: 443,
			Certificates:  []listener.KeyPair{{CertFile: filepath.Join(dir, "gw.pem"), KeyFile: filepath.Join(dir, "gw.key")}},
			ProxyProtocol: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32")},
		},
		{
			Name: "acme", Address: "10.1.2.3:9501", Routing: listener.ByPort, Protocol: listener.SASLPlaintext, VirtualCluster: "acme-prod",
			BrokerPorts: []listener.PortRange{{First: 9502, Count: 99}},
		},
		{
			Name: "sparse", Address: "0.0.0.0:9601", Routing: listener.ByPort, Protocol: listener.Plaintext, VirtualCluster: "other",
			AdvertisedHost: "gw.internal",
			BrokerPorts:    []listener.PortRange{{First: 9602, Count: 3}, {First: 9610, Count: 10, Lowest: 1001, Advertised: 19610}},
		},
	}
	if !reflect.DeepEqual(cfg.Listeners, wantListeners) {
		t.Errorf("listeners\n got %+v\nwant %+v", cfg.Listeners, wantListeners)
	}
	wantLimits := listener.Limits{
		HandshakeTimeout: 5 * time.Second, AuthenticationTimeout: 15 * time.Second, Connections: 15000, ConnectionsPerAddress: 100,
		UnauthenticatedConnections: 501, UnauthenticatedConnectionsPerAddress: 251,
	}
	if cfg.Limits != wantLimits {
		t.Errorf("limits %+v, want %+v", cfg.Limits, wantLimits)
	}
	if cfg.Resources != filepath.Join(dir, "resources") || cfg.Admin != "127.0.0.1:9410" || len(cfg.Domains) != 1 ||
		cfg.DrainGrace != 0 || cfg.DrainSpread != 2*time.Minute || cfg.DrainTimeout != 20*time.Second || cfg.ReloadEvery != time.Second ||
		cfg.MaxFrameBytes != 10<<20 || cfg.RequestMemory != 1<<30 || cfg.FrameTimeout != 40*time.Second || cfg.StallTimeout != 20*time.Second || cfg.InFlight != 9 {
		t.Errorf("configuration %+v", cfg)
	}
	if string(cfg.SaltKey) != "0123456789abcdef" {
		t.Errorf("salt key of %d bytes is not the file's", len(cfg.SaltKey))
	}
	if want := (proxy.ProducerIDs{Source: "file:" + filepath.Join(dir, "ids"), Deployment: 9}); cfg.ProducerIDs != want {
		t.Errorf("producer ids %+v, want %+v", cfg.ProducerIDs, want)
	}
	cfg.Log.Debug("hello")
	if !strings.Contains(logs.String(), `"msg":"hello"`) {
		t.Errorf("the log is %q, want JSON at level debug", logs.String())
	}
}

// The password of a Redis is that of a reference, and is printed by nobody.
func TestTheSourceOfProducerIDsInARedis(t *testing.T) {
	dir := directory(t)
	cfg, problems := parse(filepath.Join(dir, "proxy.yaml"), []byte(good+"producerIDs: {source: 'rediss://gw@h:1/2', password: 'file:short.key', deployment: 1023}\n"), io.Discard)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	ids := cfg.ProducerIDs
	if ids.Source != "rediss://gw@h:1/2" || ids.Password.Reveal() != "short" || ids.Deployment != 1023 {
		t.Errorf("producer ids %+v", ids)
	}
}

func TestDefaults(t *testing.T) {
	dir := directory(t)
	cfg, problems := parse(filepath.Join(dir, "proxy.yaml"), []byte("listeners:\n- {name: a, address: '127.0.0.1:9501', routing: port, protocol: PLAINTEXT, virtualCluster: v, brokerPorts: 9502-9502}\n"), io.Discard)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := listener.Limits{UnauthenticatedConnections: defaultUnauthenticated, UnauthenticatedConnectionsPerAddress: defaultUnauthenticated / 2}
	if cfg.Limits != want {
		t.Errorf("limits %+v, want %+v", cfg.Limits, want)
	}
	// Resources stay empty, so that --resources can name them; they are not the file's directory.
	if cfg.Resources != "" {
		t.Errorf("resources %q", cfg.Resources)
	}
}

const good = `
domains: [gw.example.com]
listeners:
  - name: public
    address: 0.0.0.0:9092
    routing: sni
    certificates: [{certFile: gw.pem, keyFile: gw.key}]
`

func TestMistakes(t *testing.T) {
	port := func(fields string) string {
		return "listeners:\n  - {name: a, address: '127.0.0.1:9501', routing: port, " + fields + "}\n"
	}
	for _, tc := range []struct {
		name, file string
		want       []string // file:line: field: message, without the file
	}{
		{"nothing at all", "", []string{"1: is empty"}},
		{"not YAML", "listeners: [\n", []string{"1: not YAML: did not find expected node content"}},
		{"two documents", good + "---\n{}\n", []string{"9: a second document: a configuration is one"}},
		{"a list", "- name: x\n", []string{"1: must be a mapping, is a list"}},
		{"an unknown field", good + "    protocoll: TLS\n", []string{
			"8: listeners[0].protocoll: unknown field: one of name, address, routing, protocol, certificates, advertisedPort, proxyProtocol, virtualCluster, advertisedHost, brokerPorts",
		}},
		{"a field twice", good + "    name: again\n", []string{"8: listeners[0].name: appears twice, first in line 4"}},
		{"an alias", good + "admin: &a 127.0.0.1:1\nresources: *a\n", []string{"9: resources: anchors and aliases are not supported: write the value out"}},
		{"wrong types, all of them", "resources: 5\ndomains: gw.example.com\nlimits: {connections: many, handshakeTimeout: 10, requestBytes: [1]}\nlisteners: {}\nlog: []\n", []string{
			"1: resources: must be a string (put it in quotes), is a number",
			"2: domains: must be a list, is a string",
			"3: limits.connections: must be a whole number, is a string",
			"3: limits.handshakeTimeout: must be a duration with its unit, such as 30s, is a number",
			"3: limits.requestBytes: must be a single value, is a list",
			"4: listeners: must be a list, is a mapping",
			"5: log: must be a mapping, is a list",
		}},
		{"values out of range", good + "limits: {connections: 0, connectionsPerAddress: 99999999999999999999, handshakeTimeout: -1s, requestBytes: 3GiB, requestMemory: 0}\nlog: {level: loud, format: xml}\nadmin: nowhere\n", []string{
			"8: limits.connectionsPerAddress: must be a whole number, is a number",
			"8: limits.requestMemory: must be a size such as 512MiB: bytes, KiB, MiB or GiB",
			"8: limits.connections: must be positive: leave it out for the default",
			"8: limits.handshakeTimeout: must be positive: leave it out for the default",
			"8: limits.requestBytes: is larger than a frame can be (2 GiB)",
			`9: log.level: slog: level string "loud": unknown name`,
			`9: log.format: "xml" is neither text nor json`,
			`10: admin: "nowhere" is not an address such as 127.0.0.1:9410`,
		}},
		{"octal numbers", good + "    advertisedPort: 0443\nlimits: {connections: 010}\n", []string{
			"8: listeners[0].advertisedPort: begins with 0, which YAML may read as octal: write the number without it",
			"9: limits.connections: begins with 0, which YAML may read as octal: write the number without it",
		}},
		{"times that end before they begin", good + "drainTimeout: -1s\nreloadEvery: 0s\ndrainGrace: -1s\ndrainSpread: -1s\n", []string{
			"8: drainTimeout: must be positive: leave it out for the default",
			"9: reloadEvery: must be positive: leave it out for the default",
			"10: drainGrace: must not be negative: 0s is none",
			"11: drainSpread: must not be negative: 0s is none",
		}},
		{"memory below one request, against a default too", good + "limits: {requestMemory: 50MiB}\n", []string{
			"8: limits.requestMemory: 52428800 bytes are less than the 104857600 of limits.requestBytes: the largest request would never be read",
		}},
		{"a salt key instead of a reference to one, which is not repeated", good + "saltKey: 0123456789abcdef-\n", []string{
			"8: saltKey: resolve secret: not a reference: write env:NAME or file:PATH",
		}},
		{"a salt key that is not there", good + "saltKey: env:TOLLGATE_NO_SUCH_VARIABLE\n", []string{
			"8: saltKey: resolve secret env:TOLLGATE_NO_SUCH_VARIABLE: variable is not set",
		}},
		{"a salt key that could be guessed", good + "saltKey: file:short.key\n", []string{"8: saltKey: holds 5 bytes: 16 or more are needed"}},
		{"a source of producer ids that is none", good + "producerIDs: {source: /var/lib/ids}\n", []string{
			"8: producerIDs.source: must be file:PATH or redis://HOST:PORT; also rediss:// and unix://",
		}},
		{"a Redis that go-redis cannot make sense of, whose password is not repeated", good + "producerIDs: {source: 'redis://:hunter2@h:1/x'}\n", []string{
			`8: producerIDs.source: redis: invalid database number: "x"`,
		}},
		{"a password instead of a reference to one, which is not repeated", good + "producerIDs: {source: 'redis://h:1', password: hunter2}\n", []string{
			"8: producerIDs.password: resolve secret: not a reference: write env:NAME or file:PATH",
		}},
		{"a password of a file", good + "producerIDs: {source: 'file:ids', password: 'file:short.key'}\n", []string{"8: producerIDs.source: a file has no password"}},
		{"a deployment out of range", good + "producerIDs: {source: 'file:ids', deployment: 1024}\n", []string{"8: producerIDs.deployment: must be 0 to 1023"}},
		{"a deployment of nothing", good + "producerIDs: {deployment: 3}\n", []string{"8: producerIDs.deployment: needs producerIDs.source beside it"}},
		{"no listener", "domains: [gw.example.com]\n", []string{"1: listeners: required: at least one"}},
		{"a listener that says nothing", "domains: [gw.example.com]\nlisteners:\n  - {}\n", []string{
			"3: listeners[0].name: required: it names the listener in logs and metrics",
			"3: listeners[0].address: required: host:port to listen on, such as 0.0.0.0:9092",
			"3: listeners[0].certificates: required with protocol TLS",
			"3: listeners[0].routing: required: sni or port",
		}},
		{"unknown words", "listeners:\n  - {name: a, address: here, routing: magic, protocol: HTTP}\n", []string{
			`2: listeners[0].address: "here" is not an address such as 0.0.0.0:9092`,
			`2: listeners[0].protocol: "HTTP" is none of TLS, SSL, SASL_SSL, PLAINTEXT, SASL_PLAINTEXT`,
			"2: listeners[0].certificates: required with protocol TLS",
			`2: listeners[0].routing: "magic" is neither sni nor port`,
		}},
		{"plaintext cannot be routed by name", "domains: [gw.example.com]\nlisteners:\n  - {name: a, address: ':9092', routing: sni, protocol: SASL_PLAINTEXT, virtualCluster: v}\n", []string{
			"3: listeners[0].protocol: SASL_PLAINTEXT has no handshake and so no host name to route by: use routing port",
			"3: listeners[0].virtualCluster: belongs to routing port",
		}},
		{"sni without a domain", strings.Replace(good, "domains: [gw.example.com]", "domains: []", 1), []string{
			"6: listeners[0].routing: sni needs domains: the hosts of virtual clusters are <host>.<domain>",
		}},
		{"a domain that is none", strings.Replace(good, "[gw.example.com]", "[localhost, GW.example.com, gw.example.com.]", 1), []string{
			`2: domains[0]: "localhost" is not a domain such as gw.example.com, in lower case`,
			`2: domains[1]: "GW.example.com" is not a domain such as gw.example.com, in lower case`,
			`2: domains[2]: "gw.example.com." is not a domain such as gw.example.com, in lower case`,
		}},
		{"a key of another certificate", strings.Replace(good, "gw.key", "other.key", 1), []string{
			"7: listeners[0].certificates[0]: tls: private key does not match public key",
		}},
		{"half a certificate", strings.Replace(good, ", keyFile: gw.key", "", 1), []string{"7: listeners[0].certificates[0].keyFile: required"}},
		{"certificates that nobody would see", port("protocol: PLAINTEXT, virtualCluster: v, brokerPorts: 9502-9503, certificates: [{certFile: gw.pem, keyFile: gw.key}]"), []string{
			"2: listeners[0].certificates: protocol PLAINTEXT uses none",
		}},
		{"a source that is no network", good + "    proxyProtocol: [balancer]\n", []string{
			"8: listeners[0].proxyProtocol[0]: must be an address or a network such as 10.0.0.0/8",
		}},
		{"port routing without its fields", "listeners:\n  - {name: a, address: '0.0.0.0:9501', routing: port, advertisedPort: 1}\n", []string{
			"2: listeners[0].certificates: required with protocol TLS",
			"2: listeners[0].protocol: required with routing port: SASL_SSL, for one",
			"2: listeners[0].advertisedPort: belongs to routing sni",
			"2: listeners[0].virtualCluster: required with routing port",
			"2: listeners[0].advertisedHost: required: clients cannot be sent to 0.0.0.0:9501",
			"2: listeners[0].brokerPorts: required with routing port: a range such as 9502-9600",
		}},
		{"a range upside down", port("protocol: PLAINTEXT, virtualCluster: v, brokerPorts: 9600-9502"), []string{
			"2: listeners[0].brokerPorts: must be a range of ports such as 9502-9600",
		}},
		{"a port that is none", port("protocol: PLAINTEXT, virtualCluster: v, brokerPorts: [{ports: 9502-9503, advertised: 70000}]"), []string{
			"2: listeners[0].brokerPorts[0].advertised: is not a port number (1-65535)",
		}},
		{"brokers with two ports", port("protocol: PLAINTEXT, virtualCluster: v, brokerPorts: [{ports: 9502-9504}, {ports: 9510-9512, firstNode: 2}, {firstNode: 7}]"), []string{
			"2: listeners[0].brokerPorts[1].firstNode: virtual nodes 2-2 have ports in brokerPorts[0] already",
			"2: listeners[0].brokerPorts[2].ports: required: a range such as 9502-9600",
		}},
		{"ids and ports beyond their ends", port("protocol: PLAINTEXT, virtualCluster: v, brokerPorts: [{ports: 9502-9504, firstNode: 1073741822, advertised: 65534}]"), []string{
			"2: listeners[0].brokerPorts[0].firstNode: virtual node ids are 0 to 1073741823",
			"2: listeners[0].brokerPorts[0].advertised: leaves no room for 3 ports below 65536",
		}},
		{"the bootstrap port among the brokers'", port("protocol: PLAINTEXT, virtualCluster: v, brokerPorts: 9500-9502"), []string{
			"2: listeners[0].brokerPorts[0]: ports 9500-9502 are taken by listeners[0].address",
		}},
		{"one port for two listeners, one of them on all addresses", port("protocol: PLAINTEXT, virtualCluster: v, brokerPorts: 9502-9503") +
			"  - {name: a, address: '[::]:9503', routing: port, protocol: PLAINTEXT, virtualCluster: w, advertisedHost: h, brokerPorts: 9600-9601}\n", []string{
			`3: listeners[1].name: "a" is also the name of listeners[0]`,
			"3: listeners[1].address: ports 9503 are taken by listeners[0].brokerPorts[0]",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path, err := load(t, directory(t), tc.file)
			problems, ok := errors.AsType[resource.Problems](err)
			if !ok {
				t.Fatalf("Load = %v, want problems", err)
			}
			var got []string
			for _, p := range problems {
				got = append(got, strings.TrimPrefix(p.String(), path+":"))
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(tc.want, "\n\t"))
			}
		})
	}
}

func TestOnePortOnTwoAddressesIsTwoSockets(t *testing.T) {
	_, err := load(t, directory(t), `
listeners:
  - {name: a, address: '127.0.0.1:9501', routing: port, protocol: PLAINTEXT, virtualCluster: v, brokerPorts: 9502-9503}
  - {name: b, address: '127.0.0.2:9501', routing: port, protocol: PLAINTEXT, virtualCluster: v, brokerPorts: 9502-9503}
`)
	if err != nil {
		t.Error(err)
	}
}

func TestAMissingFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "proxy.yaml"), io.Discard)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load = %v", err)
	}
}

// What passes here must not be refused by the listener, whose words have no
// lines: both check, and they must agree.
func TestTheListenerAgrees(t *testing.T) {
	dir := directory(t)
	path := filepath.Join(dir, "proxy.yaml")
	for _, text := range []string{
		strings.Replace(good, ":9092", ":0", 1),
		"listeners:\n- {name: a, address: '127.0.0.1:0', routing: port, protocol: PLAINTEXT, virtualCluster: v, brokerPorts: 9502-9503}\n",
		"listeners:\n- {name: a, address: '0.0.0.0:0', advertisedHost: h, routing: port, protocol: TLS, certificates: [{certFile: gw.pem, keyFile: gw.key}], virtualCluster: v, brokerPorts: [{ports: 65534-65535, firstNode: 65536}]}\n",
	} {
		cfg, problems := parse(path, []byte(text), io.Discard)
		if len(problems) > 0 {
			t.Errorf("parse(%s) = %v", text, problems)
			continue
		}
		l, err := listener.New(listener.Config{
			Specs: cfg.Listeners, Limits: cfg.Limits, Log: cfg.Log,
			Listen: func(ctx context.Context, network, _ string) (net.Listener, error) {
				return new(net.ListenConfig).Listen(ctx, network, "127.0.0.1:0")
			},
		})
		if err != nil {
			t.Errorf("listener.New(%s) = %v", text, err)
			continue
		}
		l.Stop()
	}
}

func FuzzParse(f *testing.F) {
	f.Add(good)
	f.Add("listeners:\n- {name: a, address: '127.0.0.1:0', routing: port, brokerPorts: [{ports: 9502-9503}]}\n")
	f.Add("limits: {requestBytes: 1GiB}\n---\n")
	f.Add("a: &a [*a]\n")
	f.Add("<<: {}\n? [x]\n: y\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, problems := parse("proxy.yaml", []byte(text), io.Discard)
		for _, p := range problems {
			if p.File == "" || p.Line < 1 || p.Message == "" {
				t.Errorf("a problem without its place: %+v", p)
			}
		}
	})
}
