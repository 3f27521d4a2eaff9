package proxy_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const zstdOnly = `{apiVersion: tollgate/v1, kind: Policy, metadata: {name: small, virtualCluster: acme-dev}, spec: {type: produce, scope: {principals: ["User:dev"]}, config: {compression: [zstd]}}}`

// A policy is in force within the second, under sessions that go on, and so is its
// end; the log names it, and so does what the client is told.
func TestPoliciesAreInForceUnderSessions(t *testing.T) {
	for name, in := range map[string]func(*testing.T, func(*testing.T, *gateway, func(t *testing.T))){
		"from files": func(t *testing.T, f func(*testing.T, *gateway, func(*testing.T))) {
			bubble(t, func(t *testing.T, g *gateway) { f(t, g, func(*testing.T) { time.Sleep(time.Second) }) })
		},
		"from bundles": func(t *testing.T, f func(*testing.T, *gateway, func(*testing.T))) {
			controlled(t, func(t *testing.T, g *gateway, s *shelf) { f(t, g, s.changed) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, g *gateway, changed func(*testing.T)) {
				r := g.raw(t, "acme-dev.gw.test")
				if code := r.login("dev", "dev-secret"); code != 0 {
					t.Fatalf("login: error %d", code)
				}
				cl := g.client(t, "acme-dev.gw.test", loginDev, kgo.DefaultProduceTopic("t"), kgo.AllowAutoTopicCreation(), kgo.DisableIdempotentWrite(),
					kgo.ProducerBatchCompression(kgo.NoCompression()))
				produceN(t, cl, 3)
				g.write(t, "policy.yaml", zstdOnly)
				changed(t)
				err := cl.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr()
				if !errors.Is(err, kerr.PolicyViolation) {
					t.Errorf("produced without zstd: %v, want POLICY_VIOLATION", err)
				}
				zstd := g.client(t, "acme-dev.gw.test", loginDev, kgo.DefaultProduceTopic("t"), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
				big := make([]byte, 10_000) // small ones are not worth it, and are sent as they are
				if err := zstd.ProduceSync(t.Context(), kgo.SliceRecord(big)).FirstErr(); err != nil {
					t.Errorf("produced with zstd: %v", err)
				}
				synctest.Wait()
				if lines := g.log.with("request refused", "refusal=TG-POLICY-010", "policy small", "topic=t", "principal=User:dev"); len(lines) == 0 {
					t.Errorf("logged %q", g.log.with("refused"))
				}

				// One that cannot be read refuses the change, and not traffic.
				g.write(t, "policy.yaml", `{apiVersion: tollgate/v1, kind: Policy, metadata: {name: small, virtualCluster: acme-dev}, spec: {type: tap-dance, config: {}}}`)
				time.Sleep(time.Second)
				if err := zstd.ProduceSync(t.Context(), kgo.SliceRecord(big)).FirstErr(); err != nil {
					t.Errorf("produced beside a policy that cannot be read: %v", err)
				}

				g.write(t, "policy.yaml", "")
				changed(t)
				produceN(t, cl, 3)
				r.SetDeadline(time.Now().Add(time.Minute))
				r.ask(&kmsg.MetadataRequest{Version: 9}) // the connection is the one of before
			})
		})
	}
}
