package proxy_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A cluster is the one of its name, however it is reached: its sessions go on, also
// while its new addresses lead nowhere.
func TestAChangedUpstreamClusterEndsNoSession(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		metadata := &kmsg.MetadataRequest{Version: 9}
		cl := g.client(t, "acme.gw.test", loginAdmin, kgo.DefaultProduceTopic("orders"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		produceN(t, cl, 5)
		held := g.raw(t, "open.gw.test")
		held.ask(metadata)
		all := strings.Join(quoted(g.upstream.ListenAddrs()), ",")
		one := quoted(g.upstream.ListenAddrs())[1]

		g.replace(t, "all.yaml", all, one)
		time.Sleep(time.Second)
		held.ask(metadata)
		produceN(t, cl, 5)
		g.replace(t, "all.yaml", one, all)
		time.Sleep(time.Second)
		held.ask(metadata)
		produceN(t, cl, 5)
		g.replace(t, "all.yaml", all, `"127.0.0.1:1"`)
		time.Sleep(time.Minute)
		held.ask(metadata)
		g.replace(t, "all.yaml", `"127.0.0.1:1"`, all)
		time.Sleep(time.Second)
		held.ask(metadata)
		produceN(t, cl, 5)
		produced(t, g, 20)
		if lines := g.log.with("session ended"); len(lines) > 0 {
			t.Errorf("sessions ended: %q", lines)
		}
	})
}

// A password that was corrected in its file, with nothing changed in the resources,
// is used at once, and nobody is thrown out over it.
func TestAPasswordOfTheGatewayIsReadAgain(t *testing.T) {
	g := start(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "gateway", "right"))
	password := filepath.Join(g.resources, "upstream.secret")
	if err := os.WriteFile(password, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.replace(t, "all.yaml", "spec: {bootstrap: [", `spec: {sasl: {mechanism: SCRAM-SHA-256, username: gateway, password: "file:upstream.secret"}, bootstrap: [`)
	eventually(t, "the broker refuses the gateway", func() bool { return len(g.log.with("broker unreachable", "refusal=TG-UPSTREAM-009 ")) > 0 })
	held := g.raw(t, "acme-dev.gw.test")
	if code := held.login("dev", "dev-secret"); code != 0 {
		t.Fatalf("login: error %d", code)
	}
	if err := os.WriteFile(password, []byte("right"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cl := g.client(t, "acme-dev.gw.test", loginDev, kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("things"), kgo.UnknownTopicRetries(-1))
	if err := cl.ProduceSync(ctx, kgo.StringRecord("v")).FirstErr(); err != nil {
		t.Fatalf("with the right password: %v", err)
	}
	if resp := held.ask(&kmsg.MetadataRequest{Version: 9}).(*kmsg.MetadataResponse); len(resp.Brokers) != 3 {
		t.Errorf("a session from before sees %d brokers, want 3", len(resp.Brokers))
	}
	if s := fmt.Sprint(g.log.with("right")); strings.Contains(s, `"right"`) {
		t.Errorf("the password is in the log: %s", s)
	}
}

// password is a file of the gateway's password outside of the resources.
func password(t *testing.T, g *gateway, value string) (path string, write func(string)) {
	t.Helper()
	t.Helper()
	path = filepath.Join(t.TempDir(), "upstream.secret")
	write = func(value string) {
		// As editors and secret mounts do: another file takes the name.
		if err := os.WriteFile(path+".new", []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write(value)
	g.replace(t, "all.yaml", "spec: {bootstrap: [", `spec: {sasl: {mechanism: SCRAM-SHA-256, username: gateway, password: "file:`+path+`"}, bootstrap: [`)
	return path, write
}

// A secret lies where it likes. When it is replaced, new logins use it; when it is gone,
// they use the last one, and operators hear of it by cluster and field.
func TestASecretOutsideOfTheResourcesIsFollowed(t *testing.T) {
	g := start(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "gateway", "right"))
	path, write := password(t, g, "wrong")
	refused := func() bool {
		_, metrics := g.get(t, "/metrics")
		_, ready := g.get(t, "/readyz")
		return strings.Contains(metrics, `tollgate_proxy_upstream_credential_problem{cluster="main"} 1`) &&
			!strings.Contains(metrics, `tollgate_proxy_upstream_login_failures_total{cluster="main"} 0`) &&
			strings.Contains(ready, "cluster main: ") && strings.Contains(ready, "SCRAM-SHA-256 as gateway")
	}
	eventually(t, "the refused login is shown", refused)
	write("right")
	eventually(t, "it is used", func() bool { return len(g.log.with("upstream credential replaced", "cluster=main")) > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cl := g.client(t, "acme-dev.gw.test", loginDev, kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("things"), kgo.UnknownTopicRetries(-1))
	produce := func() {
		t.Helper()
		if err := cl.ProduceSync(ctx, kgo.StringRecord("v")).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	produce()
	fine := func() bool {
		_, metrics := g.get(t, "/metrics")
		_, ready := g.get(t, "/readyz")
		return strings.Contains(metrics, `tollgate_proxy_upstream_credential_problem{cluster="main"} 0`) && !strings.Contains(ready, "main")
	}
	eventually(t, "all is well", fine)
	ended := len(g.log.with("session ended")) // the client may have come before the cluster was ever reached

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	gone := func() bool {
		_, ready := g.get(t, "/readyz")
		return strings.Contains(ready, "cluster main: credential cannot be used") && strings.Contains(ready, "spec.sasl.password") && strings.Contains(ready, path)
	}
	eventually(t, "the missing file is shown", gone)
	// New connections are made with the last one: there is none left of the old.
	g.brokers.cut("")
	produce()
	// A change of something else is not held up by it.
	g.replace(t, "all.yaml", "displayName: ACME", "displayName: Acme")
	eventually(t, "another change is applied", func() bool { return len(g.log.with("resources applied")) > 1 })
	produce()
	if n := len(g.log.with("upstream credential cannot be used, the one before serves on", "cluster=main", "refusal=TG-UPSTREAM-011 ")); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
	write("right")
	eventually(t, "the file that came back is seen", fine)
	if lines := g.log.with("session ended"); len(lines) > ended {
		t.Errorf("sessions ended: %q", lines)
	}
}

// A resource that names a secret which is not there is a mistake of whoever wrote it:
// nothing changes.
func TestAChangeThatNamesNoSecretIsRefused(t *testing.T) {
	g := start(t)
	g.replace(t, "all.yaml", "spec: {bootstrap: [", `spec: {sasl: {mechanism: PLAIN, username: gateway, password: "file:nowhere.secret"}, bootstrap: [`)
	eventually(t, "the change is refused", func() bool {
		return len(g.log.with("resources not applied", "spec.sasl.password", "nowhere.secret")) > 0
	})
	produceN(t, g.client(t, "acme-dev.gw.test", loginDev, kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("things")), 1)
}

// A gateway that starts while the secret of one cluster is missing serves the others,
// and this one as soon as the secret is there.
func TestAMissingSecretKeepsNoGatewayFromStarting(t *testing.T) {
	g := start(t)
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	const west = "{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: west}, spec: {bootstrap: [%s], sasl: {mechanism: SCRAM-SHA-256, username: gateway, password: 'file:west.secret'}}}\n---\n" +
		"{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: far, tenant: acme}, spec: {type: standard, host: far, home: west, authentication: {anonymous: {}}}}\n"
	other, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "far.things"), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "gateway", "right"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	g.write(t, "west.yaml", fmt.Sprintf(west, strings.Join(quoted(other.ListenAddrs()), ",")))
	g.addr = ""
	g.run(t)
	produceN(t, g.client(t, "acme-dev.gw.test", loginDev, kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("things")), 1)
	eventually(t, "the cluster and the field are named", func() bool {
		code, ready := g.get(t, "/readyz")
		return code == 200 && strings.Contains(ready, "cluster west: credential cannot be used") && strings.Contains(ready, "west.secret")
	})
	g.write(t, "west.secret", "right")
	produceN(t, g.client(t, "far.gw.test", kgo.DefaultProduceTopic("things"), kgo.UnknownTopicRetries(-1)), 1)
	eventually(t, "all is well", func() bool { _, ready := g.get(t, "/readyz"); return !strings.Contains(ready, "west") })
}
