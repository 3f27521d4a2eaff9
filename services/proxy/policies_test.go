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

// A policy of all virtual clusters comes under sessions of each, adds to what a virtual
// cluster asks for itself, and goes again; no connection ends.
func TestPoliciesOfAllAreInForceUnderSessions(t *testing.T) {
	const (
		acked  = `{apiVersion: tollgate/v1, kind: Policy, metadata: {name: after-globex}, spec: {type: produce, priority: -1, scope: {exceptVirtualClusterLabels: {exempt: acks}}, config: {acks: leader, compression: [none, zstd]}}}`
		looser = `{apiVersion: tollgate/v1, kind: Policy, metadata: {name: loose, virtualCluster: acme-dev}, spec: {type: produce, priority: -2, config: {compression: [none, gzip, zstd]}}}`
	)
	play := func(t *testing.T, g *gateway, changed func(*testing.T)) {
		r := g.raw(t, "acme-dev.gw.test")
		if code := r.login("dev", "dev-secret"); code != 0 {
			t.Fatalf("login: error %d", code)
		}
		big := make([]byte, 10_000)
		client := func(host string, codec kgo.CompressionCodec, opts ...kgo.Opt) *kgo.Client {
			return g.client(t, host, append(opts, kgo.DefaultProduceTopic("t"), kgo.AllowAutoTopicCreation(), kgo.DisableIdempotentWrite(), kgo.ProducerBatchCompression(codec))...)
		}
		gzip, zstd := client("acme-dev.gw.test", kgo.GzipCompression(), loginDev), client("acme-dev.gw.test", kgo.ZstdCompression(), loginDev)
		produces := func(cl *kgo.Client, what string, want error) {
			t.Helper()
			if err := cl.ProduceSync(t.Context(), kgo.SliceRecord(big)).FirstErr(); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
		}
		produces(gzip, "before there is one", nil)
		g.write(t, "loose.yaml", looser)
		g.write(t, "policy.yaml", acked)
		changed(t)
		produces(gzip, "against that of all, with that of its own", kerr.PolicyViolation)
		produces(zstd, "as both want it", nil)
		open := client("open.gw.test", kgo.GzipCompression())
		create := kmsg.NewPtrCreateTopicsRequest()
		create.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: "t", NumPartitions: 1, ReplicationFactor: 1}}
		if resp, err := create.RequestWith(t.Context(), open); err != nil || resp.Topics[0].ErrorCode != 0 {
			t.Fatalf("create a topic: %+v, %v", resp, err)
		}
		produces(open, "of a virtual cluster that is loaded behind it", kerr.PolicyViolation)
		synctest.Wait()
		if lines := g.log.with("request refused", "refusal=TG-POLICY-010", "policy after-globex of all virtual clusters", "virtual_cluster=acme-dev"); len(lines) == 0 {
			t.Errorf("logged %q", g.log.with("refused"))
		}

		// Operators exempt a virtual cluster by a label.
		g.replace(t, "all.yaml", "metadata: {name: acme-dev, tenant: acme}", "metadata: {name: acme-dev, tenant: acme, labels: {exempt: acks}}")
		changed(t)
		produces(gzip, "where it is exempt", nil)
		g.replace(t, "all.yaml", ", labels: {exempt: acks}}", "}")
		changed(t)
		produces(gzip, "where it is exempt no longer", kerr.PolicyViolation)

		// One that cannot be read refuses the change, and not traffic.
		g.write(t, "policy.yaml", `{apiVersion: tollgate/v1, kind: Policy, metadata: {name: after-globex}, spec: {type: tap-dance, config: {}}}`)
		time.Sleep(time.Second)
		produces(zstd, "beside a policy that cannot be read", nil)
		produces(gzip, "beside a policy that cannot be read", kerr.PolicyViolation)

		g.write(t, "policy.yaml", "")
		changed(t)
		produces(gzip, "when it is gone", nil)
		produces(open, "when it is gone", nil)
		r.SetDeadline(time.Now().Add(time.Minute))
		r.ask(&kmsg.MetadataRequest{Version: 9}) // the connection is the one of before
	}
	t.Run("from files", func(t *testing.T) {
		bubble(t, func(t *testing.T, g *gateway) { play(t, g, func(*testing.T) { time.Sleep(time.Second) }) })
	})
	t.Run("from bundles", func(t *testing.T) {
		controlled(t, func(t *testing.T, g *gateway, s *shelf) { play(t, g, s.changed) })
	})
}
