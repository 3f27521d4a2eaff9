package proxy_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/bundle"
	board "tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/pkg/testbed/redistest"
	"tollgate.internal/services/proxy"
)

// portal publishes the resource files of a gateway in a real Redis.
type portal struct {
	redis     *redistest.Server
	signer    *bundle.Signer
	publisher *board.Publisher
	dir       string
	revision  int64
	was       map[bundle.ID]bool
}

const deployment = "eu"

func newPortal(t *testing.T, dir string) *portal {
	t.Helper()
	p := &portal{redis: redistest.Start(t), dir: dir, was: make(map[bundle.ID]bool)}
	var err error
	if p.signer, err = bundle.NewSigner(); err != nil {
		t.Fatal(err)
	}
	client, err := board.Open(p.redis.URL, secret.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if p.publisher, err = board.NewPublisher(client, deployment, p.signer, nil); err != nil {
		t.Fatal(err)
	}
	return p
}

// publish publishes everything anew, and tombstones of what is gone.
func (p *portal) publish(t *testing.T) {
	t.Helper()
	set, err := resource.LoadDir(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	p.revision++
	var bundles []*bundle.Bundle
	var changes []board.Change
	is := make(map[bundle.ID]bool)
	add := func(id bundle.ID, objects bundle.Objects) {
		bundles = append(bundles, &bundle.Bundle{Deployment: deployment, ID: id, Revision: p.revision, Deleted: objects == nil, Objects: objects})
		changes = append(changes, board.Change{ID: id, Revision: p.revision})
	}
	for name, u := range set.UpstreamClusters {
		id := bundle.ID{Kind: bundle.UpstreamCluster, Name: name}
		add(id, bundle.Objects{u})
		is[id] = true
	}
	for name := range set.VirtualClusters {
		own := cut(set, name)
		objects := bundle.Objects{own.VirtualClusters[name], own.Tenants[own.VirtualClusters[name].Metadata.Tenant]}
		for _, g := range own.TopicGrants {
			objects = append(objects, g)
		}
		for _, a := range own.AliasTopics {
			objects = append(objects, a)
		}
		for _, a := range own.ServiceAccounts {
			objects = append(objects, a)
		}
		for _, a := range own.ACLs {
			objects = append(objects, a)
		}
		id := bundle.ID{Kind: bundle.VirtualCluster, Name: name}
		add(id, objects)
		is[id] = true
	}
	for id := range p.was {
		if !is[id] {
			add(id, nil)
		}
	}
	p.was = is
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := errors.Join(p.publisher.Put(ctx, bundles...), p.publisher.Announce(ctx, changes...), p.publisher.SetHead(ctx, p.revision)); err != nil {
		t.Fatal(err)
	}
}

// startInFleet starts a gateway that is served by a portal and a Redis.
func startInFleet(t *testing.T, more ...func(*proxy.Config)) (*gateway, *portal) {
	t.Helper()
	g := start(t)
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	// There are no files beside what comes from a store.
	g.replace(t, "all.yaml", "file:dev.secret", "file:"+filepath.Join(g.resources, "dev.secret"))
	g.write(t, "second.yaml", `{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: second, virtualCluster: acme-dev}, spec: {type: local, password: "file:`+filepath.Join(g.resources, "dev.secret")+`"}}`)
	p := newPortal(t, g.resources)
	p.publish(t)
	g.cfg.Resources, g.cfg.Control = "", &proxy.Control{
		Redis: p.redis.URL, PublicKeys: p.signer.Keyring(), State: filepath.Join(t.TempDir(), "state"), Deployment: deployment, Node: "n1",
	}
	for _, f := range more {
		f(&g.cfg)
	}
	g.addr = ""
	g.run(t)
	return g, p
}

// A node serves what the portal publishes: with the first client, every change of it
// within a second, and without the Redis what it last knew, also after it was started
// again.
func TestANodeServesWhatThePortalPublishes(t *testing.T) {
	g, p := startInFleet(t)
	login := func(user string) *raw {
		t.Helper()
		r := g.raw(t, "acme-dev.gw.test")
		if code := r.login(user, "dev-secret"); code != 0 {
			t.Fatalf("login of %s: error %d", user, code)
		}
		return r
	}
	metadata := &kmsg.MetadataRequest{Version: 9}
	orders := []kgo.Opt{loginAdmin, kgo.DefaultProduceTopic("orders"), kgo.RecordPartitioner(kgo.ManualPartitioner())}
	partner := g.client(t, "acme.gw.test", orders...)
	produceN(t, partner, 3)
	dev, second := login("dev"), login("second")

	g.replace(t, "all.yaml", "metadata: {name: dev, virtualCluster: acme-dev}", "metadata: {name: someone, virtualCluster: acme-dev}")
	p.publish(t)
	if took := whenClosed(t, dev); took > time.Second {
		t.Errorf("the session of a removed account ended after %v", took)
	}
	second.ask(metadata)
	produceN(t, partner, 3)
	if code, body := g.get(t, "/readyz"); code != 200 || strings.Contains(body, "warning") {
		t.Errorf("/readyz: %d %s", code, body)
	}
	eventually(t, "the node tells what it has applied", func() bool {
		nodes, err := p.publisher.Nodes(t.Context())
		return err == nil && len(nodes) == 1 && nodes[0].ID == "n1" && nodes[0].Applied == p.revision && nodes[0].Sessions > 0 && nodes[0].Port != 0
	})

	p.redis.Kill(t)
	eventually(t, "it is said that the Redis is away", func() bool {
		code, body := g.get(t, "/readyz")
		_, status := g.get(t, "/status")
		_, metrics := g.get(t, "/metrics")
		return code == 200 && strings.Contains(body, "warning") && strings.Contains(status, `"stale": true`) && strings.Contains(metrics, "tollgate_proxy_fleet_connected 0")
	})
	second.ask(metadata)
	login("second").ask(metadata)
	produceN(t, partner, 3)
	partner.Close()
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	g.addr = ""
	g.run(t)
	produceN(t, g.client(t, "acme.gw.test", orders...), 3)
	if code := g.raw(t, "acme-dev.gw.test").login("dev", "dev-secret"); code == 0 {
		t.Error("who was removed is admitted after a restart without the Redis")
	}
	held := login("second")

	p.redis.Launch(t)
	g.replace(t, "all.yaml", "metadata: {name: acme-dev, tenant: acme}", "metadata: {name: acme-new, tenant: acme}")
	g.replace(t, "all.yaml", "virtualCluster: acme-dev}", "virtualCluster: acme-new}")
	g.replace(t, "second.yaml", "virtualCluster: acme-dev}", "virtualCluster: acme-new}")
	p.publish(t)
	held.SetDeadline(time.Now().Add(10 * time.Second))
	held.closed()
	login("second").ask(metadata) // the host leads to the one that took its place
}

// Everything there is can be loaded beforehand: then virtual clusters have their
// listeners by port at the start, and those that are new soon after they are.
func TestANodeMayLoadEverythingBeforehand(t *testing.T) {
	g, p := startInFleet(t, func(cfg *proxy.Config) {
		cfg.Control.Preload, cfg.Control.UnloadAfter = true, time.Millisecond
		cfg.PortsOf = func(vc *resource.VirtualCluster) (proxy.Listener, bool) {
			return proxy.Listener{Name: "port-" + vc.Metadata.Name, Address: "127.0.0.1:0", Routing: proxy.ByPort, Protocol: proxy.SASLPlaintext, VirtualCluster: vc.Metadata.Name, BrokerPorts: []proxy.PortRange{{First: 40000, Count: 1, Lowest: 1 << 20}}}, true
		}
	})
	for _, name := range []string{"acme-dev", "acme-prod", "open"} {
		if _, body := g.get(t, "/status"); !strings.Contains(body, `"name": "`+name+`"`) {
			t.Errorf("%s is not loaded at the start", name)
		}
	}
	g.write(t, "more.yaml", `{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: more, tenant: acme}, spec: {type: standard, host: more, home: main, authentication: {anonymous: {}}}}`)
	p.publish(t)
	eventually(t, "one that is new is loaded", func() bool {
		_, body := g.get(t, "/status")
		return strings.Contains(body, `"name": "more"`)
	})
}
