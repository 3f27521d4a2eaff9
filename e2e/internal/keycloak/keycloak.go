// Package keycloak runs a real OAuth 2.0 authorisation server for tests: Keycloak, with
// one realm and one client that may ask for tokens for the audience kafka.
package keycloak

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/cache"
	"tollgate.internal/e2e/internal/kafkajars"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/ports"
	"tollgate.internal/e2e/internal/proc"
)

// The client, and what its tokens are for.
const (
	ClientID     = "gateway"
	ClientSecret = "gateway-secret"
	Audience     = "kafka"
)

const version = "26.4.7"

//go:embed tollgate-realm.json
var realm []byte

// options are those that Keycloak is built with, which is most of what a first start takes.
var options = []string{"build", "--db=dev-mem", "--health-enabled=true"}

// Install returns Keycloak's folder, and makes it when it is not in the cache.
func Install(ctx context.Context) (string, error) {
	dir, err := cache.Folder(ctx, "keycloak", version+"-"+cache.Digest(options...), func(ctx context.Context, dir string) error {
		run := func(name string, args ...string) error {
			cmd := exec.CommandContext(ctx, name, args...)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w\n%s", filepath.Base(name), err, bytes.TrimSpace(out))
			}
			return nil
		}
		archive := "keycloak-quarkus-dist-" + version + ".tar.gz"
		get := []string{"-q", "-B", "-ntp", "dependency:copy", "-Dartifact=org.keycloak:keycloak-quarkus-dist:" + version + ":tar.gz", "-DoutputDirectory=" + dir}
		if err := run("mvn", get...); err != nil {
			// Maven remembers for a day that a download went wrong; -U asks again.
			if err := run("mvn", append(get, "-U")...); err != nil {
				return err
			}
		}
		if err := run("tar", "-xzf", archive, "--strip-components=1"); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(dir, archive)); err != nil {
			return err
		}
		return run(filepath.Join(dir, "bin", "kc.sh"), options...)
	})
	if err != nil {
		return "", fmt.Errorf("get Keycloak: %w", err)
	}
	return dir, nil
}

// Server is a running Keycloak.
type Server struct {
	Issuer string // what its tokens say who they are of
}

// Start starts Keycloak until t ends.
func Start(t testing.TB) *Server {
	t.Helper()
	dir, err := Install(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lease, err := ports.Reserve(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.Release)
	url := fmt.Sprintf("http://127.0.0.1:%d", lease.Ports[0])
	home := t.TempDir()
	if err := furnish(home, dir); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "keycloak.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	java, err := kafkajars.Java()
	if err != nil {
		t.Fatal(err)
	}
	// As bin/kc.sh does, which stays beside the process it starts and would be killed instead of it.
	cmd := exec.Command(java, "-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:MaxMetaspaceSize=256m",
		"-Dkc.home.dir="+home, "-Djboss.server.config.dir="+filepath.Join(home, "conf"),
		"-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
		"-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
		"--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
		"--add-opens=java.base/java.security=ALL-UNNAMED",
		"-cp", filepath.Join(home, "lib", "quarkus-run.jar"), "io.quarkus.bootstrap.runner.QuarkusEntryPoint",
		"start", "--optimized", "--import-realm", "--cache=local", // it would look for others on the network
		"--http-enabled=true", "--http-host=127.0.0.1", fmt.Sprintf("--http-port=%d", lease.Ports[0]),
		fmt.Sprintf("--http-management-port=%d", lease.Ports[1]), "--hostname="+url)
	cmd.Env = append(os.Environ(), "KC_BOOTSTRAP_ADMIN_USERNAME=admin", "KC_BOOTSTRAP_ADMIN_PASSWORD=admin")
	cmd.Stdout, cmd.Stderr = log, log
	process, err := proc.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := process.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("Keycloak said:\n%s", text[max(0, len(text)-4000):])
		}
	})
	ready := fmt.Sprintf("http://127.0.0.1:%d/health/ready", lease.Ports[1])
	for end := time.Now().Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) { // between two looks
		resp, err := http.Get(ready)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return &Server{Issuer: url + "/realms/tollgate"}
			}
		}
		if time.Now().After(end) || !process.Running() {
			t.Fatalf("Keycloak is not ready: %v", err)
		}
	}
}

// furnish gives a server a home of its own, with the programs of the cache in it.
func furnish(home, cached string) error {
	entries, err := os.ReadDir(cached)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "data" {
			continue
		}
		if err := os.Symlink(filepath.Join(cached, e.Name()), filepath.Join(home, e.Name())); err != nil {
			return err
		}
	}
	imported := filepath.Join(home, "data", "import")
	if err := os.MkdirAll(imported, 0o755); err != nil {
		return err
	}
	// The name of the file is the realm's.
	return os.WriteFile(filepath.Join(imported, "tollgate-realm.json"), realm, 0o644)
}

// TokenURL is where clients get their tokens.
func (s *Server) TokenURL() string { return s.Issuer + "/protocol/openid-connect/token" }

// Broker adds a listener to the options of a cluster that takes the server's tokens over
// TLS, and verifies them by its published keys.
func (s *Server) Broker(o *kafkatest.Options, l kafkatest.Listener) {
	keys := s.Issuer + "/protocol/openid-connect/certs"
	o.JVM = append(o.JVM, "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls="+keys)
	o.Listeners[l] = "SASL_SSL"
	prefix := "listener.name." + strings.ToLower(string(l)) + "."
	const module = "org.apache.kafka.common.security.oauthbearer.OAuthBearer"
	maps.Copy(o.Properties, map[string]string{
		prefix + "sasl.enabled.mechanisms":                        "OAUTHBEARER",
		prefix + "oauthbearer.sasl.jaas.config":                   module + "LoginModule required;",
		prefix + "oauthbearer.sasl.server.callback.handler.class": module + "ValidatorCallbackHandler",
		"sasl.oauthbearer.jwks.endpoint.url":                      keys,
		"sasl.oauthbearer.expected.audience":                      Audience,
		"sasl.oauthbearer.expected.issuer":                        s.Issuer,
	})
}
