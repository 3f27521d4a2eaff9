package proxy_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A cluster that is reached in another way is the same cluster: its sessions go on.
// One that has no address in common with before is another, and its sessions end.
func TestAChangedUpstreamClusterEndsNoSessionThatCanGoOn(t *testing.T) {
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
		produced(t, g, 15)
		if lines := g.log.with("session ended"); len(lines) > 0 {
			t.Errorf("sessions ended: %q", lines)
		}

		g.replace(t, "all.yaml", all, `"127.0.0.1:1"`)
		time.Sleep(time.Second)
		held.closed()
		synctest.Wait()
		if lines := g.log.with("session ended", "refusal=TG-LISTEN-017 "); len(lines) == 0 {
			t.Error("no session ended when the cluster became another")
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
