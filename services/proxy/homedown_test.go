package proxy_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy"
)

// withoutHome starts the proxy anew with home's brokers down while the flag is set.
func (g *gateway) withoutHome(t *testing.T) (down *atomic.Bool) {
	t.Helper()
	down = new(atomic.Bool)
	down.Store(true)
	g.addr = "" // on TCP it is another one then
	g.again(t, func(cfg *proxy.Config) {
		dial := cfg.Dial
		cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if down.Load() {
				return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
			}
			return dial(ctx, network, address)
		}
	})
	return down
}

func askVersions() *kmsg.ApiVersionsRequest {
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = 3, "test", "1"
	return req
}

// A node that is started while home is down does not know what home's brokers can do.
// A Java client that is told of logins alone fails its records for good, so whoever
// asks waits for a moment.
func TestANodeThatStartsWhileHomeIsDownOffersNothingLess(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		down := g.withoutHome(t)
		const outage = 3 * time.Second
		began := time.Now()
		time.AfterFunc(outage, func() { down.Store(false) })
		resp := g.rawInBubble(t, "acme.gw.test").ask(askVersions()).(*kmsg.ApiVersionsResponse)
		if !slices.ContainsFunc(resp.ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool { return k.ApiKey == int16(kmsg.Produce) }) {
			t.Errorf("after %v: no Produce among %d requests", time.Since(began), len(resp.ApiKeys))
		}
	})
}

// Who has waited for long is hung up on as where nothing listens: franz-go takes an
// orderly end for a mistake in its configuration, and fails its records.
func TestWhoeverComesWhileHomeIsDownIsTurnedAway(t *testing.T) {
	g := start(t)
	g.withoutHome(t)
	c := g.raw(t, "acme.gw.test")
	c.send(kmsg.NewRequestFormatter().AppendRequest(nil, askVersions(), 1))
	if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %d bytes, %v, want a reset connection", n, err)
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	if len(g.log.with("TG-UPSTREAM-012")) == 0 {
		t.Error("no word of it in the log")
	}
}

// Clients need not be started again after an outage in which their node was.
func TestClientsOutliveANodeThatStartsWhileHomeIsDown(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		cl := g.client(t, "acme.gw.test", loginAdmin, kgo.DefaultProduceTopic("orders"), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.AlwaysRetryEOF())
		produceN(t, cl, 1)
		down := g.withoutHome(t)
		time.AfterFunc(time.Minute, func() { down.Store(false) })
		produceN(t, cl, 1)
		produced(t, g, 2)
	})
}
