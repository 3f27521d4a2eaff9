package proxy_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy"
)

// spanningResources are a virtual cluster with two clusters and everything in one
// with an account that may only read.
const spanningResources = `
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: west}, spec: {bootstrap: ["127.0.0.1:1"]}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: wide, tenant: acme}, spec: {type: standard, host: wide, home: main, clusters: [main, west], authentication: {plain: {}}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: dev, virtualCluster: wide}, spec: {type: local, password: "file:dev.secret"}}
`

// withProducerIDs puts a source of producer ids into service, and virtual clusters
// of more than one cluster.
func withProducerIDs(t *testing.T, source string, f func(t *testing.T, g *gateway)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := startOn(t, new(kfake.VirtualNetwork))
		if err := g.stop(); err != nil {
			t.Fatal(err)
		}
		g.write(t, "wide.yaml", spanningResources)
		g.cfg.ProducerIDs = proxy.ProducerIDs{Source: source, Deployment: 5}
		g.run(t)
		synctest.Wait()
		f(t, g)
	})
}

// asked counts the requests of a key that brokers get.
func (g *gateway) asked(key kmsg.Key) *atomic.Int32 {
	n := new(atomic.Int32)
	g.upstream.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
		g.upstream.KeepControl()
		n.Add(1)
		return nil, nil, false
	})
	return n
}

// initID asks without a transactional id, in every version.
func (r *raw) initID(check func(version int16, resp *kmsg.InitProducerIDResponse)) {
	for version := range int16(6) {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.Version, req.TransactionTimeoutMillis = version, 60000
		if version >= 3 {
			req.ProducerID, req.ProducerEpoch = 1<<52+4711, 12
		}
		check(version, r.ask(req).(*kmsg.InitProducerIDResponse))
	}
}

func TestProducerIDsComeFromTheirSource(t *testing.T) {
	for _, host := range []string{"acme-dev.gw.test", "wide.gw.test"} {
		t.Run(host, func(t *testing.T) {
			withProducerIDs(t, "file:"+filepath.Join(t.TempDir(), "ids"), func(t *testing.T, g *gateway) {
				asked := g.asked(kmsg.InitProducerID)
				r := g.raw(t, host)
				if code := r.login("dev", "dev-secret"); code != 0 {
					t.Fatal(kerr.ErrorForCode(code))
				}
				seen := make(map[int64]bool)
				r.initID(func(version int16, resp *kmsg.InitProducerIDResponse) {
					if resp.ErrorCode != 0 || resp.ProducerEpoch != 0 || resp.ProducerID>>42 != 1<<10|5 || seen[resp.ProducerID] {
						t.Errorf("v%d: %v, id %#x, epoch %d", version, kerr.ErrorForCode(resp.ErrorCode), resp.ProducerID, resp.ProducerEpoch)
					}
					seen[resp.ProducerID] = true
				})
				if n := asked.Load(); n != 0 {
					t.Errorf("the broker was asked %d times", n)
				}
			})
		})
	}
}

// Without a source one cluster's ids are handed on, and several have none.
func TestProducerIDsWithoutASource(t *testing.T) {
	withProducerIDs(t, "", func(t *testing.T, g *gateway) {
		asked := g.asked(kmsg.InitProducerID)
		r := g.raw(t, "acme-dev.gw.test")
		if code := r.login("dev", "dev-secret"); code != 0 {
			t.Fatal(kerr.ErrorForCode(code))
		}
		r.initID(func(version int16, resp *kmsg.InitProducerIDResponse) {
			if resp.ErrorCode != 0 || resp.ProducerID < 0 || asked.Load() != int32(version)+1 {
				t.Errorf("one cluster, v%d: %v, id %#x, the broker was asked %d times", version, kerr.ErrorForCode(resp.ErrorCode), resp.ProducerID, asked.Load())
			}
		})
		r = g.raw(t, "wide.gw.test")
		if code := r.login("dev", "dev-secret"); code != 0 {
			t.Fatal(kerr.ErrorForCode(code))
		}
		r.initID(func(version int16, resp *kmsg.InitProducerIDResponse) {
			if resp.ErrorCode != kerr.CoordinatorLoadInProgress.Code || resp.ProducerID != -1 || resp.ProducerEpoch != -1 {
				t.Errorf("two clusters, v%d: %v, id %#x, epoch %d", version, kerr.ErrorForCode(resp.ErrorCode), resp.ProducerID, resp.ProducerEpoch)
			}
		})
		if len(g.log.with("refusal=TG-TXN-010", "virtual_cluster=wide")) == 0 {
			t.Error("the log does not say why")
		}
	})
}

// Who may write nothing gets no id, whoever gives them.
func TestProducerIDsAreForThoseWhoMayWrite(t *testing.T) {
	withProducerIDs(t, "file:"+filepath.Join(t.TempDir(), "ids"), func(t *testing.T, g *gateway) {
		r := g.raw(t, "acme.gw.test")
		if code := r.login("reader", "dev-secret"); code != 0 {
			t.Fatal(kerr.ErrorForCode(code))
		}
		r.initID(func(version int16, resp *kmsg.InitProducerIDResponse) {
			if resp.ErrorCode != kerr.ClusterAuthorizationFailed.Code || resp.ProducerID != -1 {
				t.Errorf("v%d: %v, id %d", version, kerr.ErrorForCode(resp.ErrorCode), resp.ProducerID)
			}
		})
	})
}

// A node without a lease gives no id, not even home's: the producer keeps its id when
// the virtual cluster spans one day. The producer waits, and goes on with what is
// given soon after the cause is gone.
func TestNoProducerIDWithoutALease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ids")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	withProducerIDs(t, "file:"+path, func(t *testing.T, g *gateway) {
		r := g.raw(t, "acme-dev.gw.test")
		if code := r.login("dev", "dev-secret"); code != 0 {
			t.Fatal(kerr.ErrorForCode(code))
		}
		r.initID(func(version int16, resp *kmsg.InitProducerIDResponse) {
			if resp.ErrorCode != kerr.CoordinatorLoadInProgress.Code || resp.ProducerID != -1 || resp.ProducerEpoch != -1 {
				t.Errorf("v%d: %v, id %d", version, kerr.ErrorForCode(resp.ErrorCode), resp.ProducerID)
			}
		})
		if len(g.log.with("refusal=TG-TXN-009", "has 0 bytes instead of")) == 0 {
			t.Error("the log does not say why")
		}
		cl := g.client(t, "acme.gw.test", loginAdmin, kgo.DefaultProduceTopic("orders"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			done <- cl.ProduceSync(ctx, kgo.StringRecord("0")).FirstErr()
		}()
		time.Sleep(time.Minute)
		select {
		case err := <-done:
			t.Fatalf("the producer did not wait: %v", err)
		default:
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Errorf("when there is a lease: %v", err)
		}
		produced(t, g, 1)
	})
}

// The admin listener says what is missing, and counts.
func TestTheNodeReportsItsProducerIDs(t *testing.T) {
	g := start(t)
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ids")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g.cfg.ProducerIDs.Source, g.addr, g.admin = "file:"+path, "", ""
	g.run(t)
	g.says(t, "/readyz", `"name": "producer_ids",
      "state": "warning",
      "error": "no lease for producer ids from file:`+path+`: `+path+` has 0 bytes`)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	g.says(t, "/readyz", `"name": "producer_ids",
      "state": "ok"`)
	cl := g.client(t, "acme.gw.test", loginAdmin, kgo.DefaultProduceTopic("orders"))
	if err := cl.ProduceSync(t.Context(), kgo.StringRecord("0")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	g.says(t, "/metrics", "\ntollgate_proxy_producer_id_leases_total 1\n")
	g.says(t, "/metrics", "\ntollgate_proxy_producer_ids_total 1\n")
	g.says(t, "/metrics", "\ntollgate_proxy_producer_ids_without_lease_seconds_total ")
}

// says waits until a page of the admin listener has a text.
func (g *gateway) says(t *testing.T, page, text string) {
	t.Helper()
	var body string
	defer func() {
		if t.Failed() {
			t.Log(body)
		}
	}()
	eventually(t, page+" has "+text, func() bool {
		_, body = g.get(t, page)
		return strings.Contains(body, text)
	})
}
