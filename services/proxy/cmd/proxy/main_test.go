package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

// The test binary is the command too, when it is told to be.
const beTheCommand = "TOLLGATE_TEST_RUN_PROXY"

func TestMain(m *testing.M) {
	if os.Getenv(beTheCommand) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), beTheCommand+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// output collects what the command writes, to be read while it runs.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("not within half a minute: %s", what)
		}
		time.Sleep(10 * time.Millisecond) // between two looks at the condition
	}
}

func keyPair(t *testing.T, dir string) (flag string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"*.gw.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	write(t, filepath.Join(dir, "cert.pem"), string(cert))
	write(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	return filepath.Join(dir, "cert.pem") + "," + filepath.Join(dir, "key.pem"), roots
}

const resources = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: ["%s"]}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: acme-dev, tenant: acme}
spec: {type: standard, host: acme-dev, home: main, autoCreateTopics: true, authentication: {plain: {}}}
---
apiVersion: tollgate/v1
kind: ServiceAccount
metadata: {name: dev, virtualCluster: acme-dev}
spec: {type: local, password: "file:dev.secret"}
`

// broken has three mistakes, in lines 2, 5 and 6.
const broken = `{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: globex},
 spec: {displayname: Globex}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: globex, tenant: globex},
 spec: {type: unusual, host: globex,
  home: nowhere, authentication: {plain: {}}}}
`

func TestABadFileAtTheStartIsRefusedWithEveryProblem(t *testing.T) {
	dir := t.TempDir()
	certificate, _ := keyPair(t, dir)
	files := filepath.Join(dir, "resources")
	if err := os.Mkdir(files, 0o700); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(files, "bad.yaml")
	write(t, bad, broken)
	cmd := command(t, "--resources", files, "--listen", "127.0.0.1:0", "--domain", "gw.test", "--certificate", certificate)
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("it ended well:\n%s", out)
	}
	for _, want := range []string{":2: spec.displayname: ", ":5: spec.type: ", ":6: spec.home: "} {
		if !strings.Contains(string(out), bad+want) {
			t.Errorf("no line with %s%s in:\n%s", bad, want, out)
		}
	}

	// What is found only when the files are put into service has its place too.
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(files, "good.yaml")
	write(t, good, fmt.Sprintf(resources, "127.0.0.1:1")) // and no dev.secret
	out, err = command(t, "--resources", files, "--listen", "127.0.0.1:0", "--domain", "gw.test", "--certificate", certificate).CombinedOutput()
	if want := good + ":14: spec.password: "; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("no line with %s in (%v):\n%s", want, err, out)
	}
}

func TestMistakesOfTheCommandLineNameTheFlag(t *testing.T) {
	dir := t.TempDir()
	certificate, _ := keyPair(t, dir)
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"nothing", nil, []string{"--resources: required, or --control-redis, or --config", "--listen: required"}},
		{"no domain, no certificate", []string{"--resources", dir, "--listen", "127.0.0.1:0"}, []string{"--listen: ", "needs domains", "--certificate: required"}},
		{"an address without a port", []string{"--resources", dir, "--listen", "127.0.0.1", "--domain", "gw.test", "--certificate", certificate}, []string{"--listen: "}},
		{"a certificate that is not there", []string{"--resources", dir, "--listen", "127.0.0.1:0", "--domain", "gw.test", "--certificate", "a.pem,b.pem"}, []string{"--certificate: open a.pem"}},
		{"times below zero", []string{"--resources", dir, "--listen", "127.0.0.1:0", "--drain-timeout", "-1s", "--reload-every", "-1s"}, []string{"--drain-timeout: must be positive", "--reload-every: must be positive"}},
		{"a port listener without a protocol", []string{"--resources", dir, "--listen-port", "acme=127.0.0.1:9501,9502-9503"}, []string{"listen-port", "must be like"}},
		{"overlapping ports", []string{"--resources", dir, "--listen-port", "acme=PLAINTEXT://127.0.0.1:9501,9501-9503"}, []string{"--listen-port acme: ports 9501-9503 are taken"}},
		{"a file and more", []string{"--config", "x.yaml", "--resources", dir}, []string{"--config: stands alone"}},
		{"a flag that does not exist", []string{"--nodes", "3"}, []string{"-nodes", "--help"}},
		{"an argument", []string{"start"}, []string{`unexpected argument "start"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := command(t, c.args...).CombinedOutput()
			if err == nil {
				t.Fatalf("it ended well:\n%s", out)
			}
			for _, want := range c.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
		})
	}
	out, err := command(t, "--help").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--resources DIR") || !strings.Contains(string(out), "-admin address") {
		t.Errorf("--help: %v\n%s", err, out)
	}
}

// A mistake in the files of a running node changes nothing for clients; it is in
// the log, the readiness detail and a metric until the files are right again.
func TestABadFileLaterChangesNothing(t *testing.T) {
	upstream, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	dir := t.TempDir()
	certificate, roots := keyPair(t, dir)
	files := filepath.Join(dir, "resources")
	if err := os.Mkdir(files, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(files, "good.yaml"), fmt.Sprintf(resources, upstream.ListenAddrs()[0]))
	write(t, filepath.Join(files, "dev.secret"), "dev-secret")

	var log output
	cmd := command(t, "--resources", files, "--domain", "gw.test", "--certificate", certificate,
		"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("after SIGTERM: %v\n%s", err, log.String())
		}
	}()
	serves := regexp.MustCompile(`"msg":"serving","addresses":{"admin":"([^"]+)","sni":"([^"]+)"}`)
	var address, admin string
	eventually(t, "it says where it serves", func() bool {
		m := serves.FindStringSubmatch(log.String())
		if m != nil {
			admin, address = m[1], m[2]
		}
		return m != nil
	})
	get := func(path string) string {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + admin + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(resp.StatusCode, " ", string(body))
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers("acme-dev.gw.test:9092"), kgo.DefaultProduceTopic("things"), kgo.AllowAutoTopicCreation(),
		kgo.SASL(plain.Auth{User: "dev", Pass: "dev-secret"}.AsMechanism()),
		kgo.Dialer(func(ctx context.Context, _, hostport string) (net.Conn, error) {
			name, _, err := net.SplitHostPort(hostport)
			if err != nil {
				return nil, err
			}
			return (&tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: name}}).DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	produce := func(when string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := client.ProduceSync(ctx, kgo.StringRecord(when)).FirstErr(); err != nil {
			t.Fatalf("%s: %v\n%s", when, err, log.String())
		}
	}
	produce("before")
	sessions := `tollgate_proxy_sessions_closed_total{reason="TG-AUTH-016"}`

	bad := filepath.Join(files, "bad.yaml")
	write(t, bad, broken)
	eventually(t, "the readiness detail names every problem", func() bool {
		detail := get("/readyz")
		return strings.HasPrefix(detail, "200 ") && strings.Contains(detail, bad+":2: spec.displayname: ") &&
			strings.Contains(detail, bad+":5: spec.type: ") && strings.Contains(detail, bad+":6: spec.home: ")
	})
	metrics := get("/metrics")
	for _, want := range []string{"tollgate_proxy_resources_refused 1\n", "tollgate_proxy_resources_reload_failures_total 1\n"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %q in the metrics", want)
		}
	}
	if said := log.String(); !strings.Contains(said, `"level":"ERROR"`) || !strings.Contains(said, bad+":5: spec.type: ") {
		t.Errorf("no error that names the problem in the log:\n%s", said)
	}
	produce("while a file is bad")
	if strings.Contains(get("/metrics"), sessions) {
		t.Error("a session ended over a bad file")
	}

	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the problem is forgotten", func() bool {
		return !strings.Contains(get("/readyz"), bad) && strings.Contains(get("/metrics"), "tollgate_proxy_resources_refused 0\n")
	})
	produce("after")
}
