package proxy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy"
	"tollgate.internal/services/proxy/internal/fleet"
)

// shelf is a source that has the resources of a directory, one virtual cluster at a time.
type shelf struct {
	dir string

	mu       sync.Mutex
	into     fleet.Applier
	revision int64
	asked    []string      // what Find, Load and Upstream were asked for
	takes    time.Duration // for each of them
	away     error         // what they answer
	hidden   string        // an upstream cluster that is not there yet
}

func (s *shelf) Run(ctx context.Context, into fleet.Applier, ready func()) error {
	s.mu.Lock()
	s.into = into
	revision := s.revision
	s.mu.Unlock()
	set, err := resource.LoadDir(s.dir)
	if err == nil {
		err = into.PutPolicies(set.PoliciesOf(""), revision)
	}
	if err != nil {
		return err
	}
	ready()
	<-ctx.Done()
	return ctx.Err()
}

func (s *shelf) Problem() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.away
}

// ask counts a question, and takes its time.
func (s *shelf) ask(what string) error {
	s.mu.Lock()
	s.asked = append(s.asked, what)
	takes, away := s.takes, s.away
	s.mu.Unlock()
	time.Sleep(takes)
	return away
}

func (s *shelf) count(what string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if strings.HasPrefix(a, what) {
			n++
		}
	}
	return n
}

func (s *shelf) Find(_ context.Context, host string) error {
	if err := s.ask("find " + host); err != nil {
		return err
	}
	set, err := resource.LoadDir(s.dir)
	if err != nil {
		return err
	}
	for name, vc := range set.VirtualClusters {
		if vc.Spec.Host == host {
			return s.put(set, name)
		}
	}
	return nil
}

func (s *shelf) Load(_ context.Context, name string) error {
	if err := s.ask("load " + name); err != nil {
		return err
	}
	set, err := resource.LoadDir(s.dir)
	if err != nil || set.VirtualClusters[name] == nil {
		return err
	}
	return s.put(set, name)
}

func (s *shelf) Upstream(_ context.Context, name string) error {
	if err := s.ask("upstream " + name); err != nil {
		return err
	}
	set, err := resource.LoadDir(s.dir)
	if err != nil {
		return err
	}
	s.mu.Lock()
	into, hidden, revision := s.into, s.hidden == name, s.revision
	s.mu.Unlock()
	if u := set.UpstreamClusters[name]; u != nil && !hidden {
		return into.PutUpstream(u, revision)
	}
	return nil
}

// cut is what a virtual cluster's bundle holds.
func cut(set *resource.Set, name string) *resource.Set {
	vc := set.VirtualClusters[name]
	own := resource.NewSet(set.Tenants[vc.Metadata.Tenant], vc)
	own.TopicGrants = set.GrantsOf(vc.Metadata.Tenant)
	own.AliasTopics, own.ServiceAccounts, own.ACLs = set.OfVirtualCluster(name)
	own.Policies = set.PoliciesOf(name)
	return own
}

func (s *shelf) put(set *resource.Set, name string) error {
	s.mu.Lock()
	into, revision := s.into, s.revision
	s.mu.Unlock()
	return into.Put(name, cut(set, name), revision)
}

// changed publishes what is loaded anew, and removes what is gone.
func (s *shelf) changed(t *testing.T) {
	t.Helper()
	set, err := resource.LoadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.revision++
	into, revision := s.into, s.revision
	s.mu.Unlock()
	if err := into.PutPolicies(set.PoliciesOf(""), revision); err != nil {
		t.Errorf("policies of all: %v", err)
	}
	vcs, _ := into.Loaded()
	for name := range vcs {
		if set.VirtualClusters[name] == nil {
			err = into.Remove(name, revision)
		} else {
			err = s.put(set, name)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// controlled is bubble with a node that is served by a shelf.
func controlled(t *testing.T, f func(t *testing.T, g *gateway, s *shelf)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g, s := startControlled(t, new(kfake.VirtualNetwork))
		f(t, g, s)
	})
}

func startControlled(t *testing.T, network *kfake.VirtualNetwork, more ...func(*proxy.Config)) (*gateway, *shelf) {
	t.Helper()
	g := startOn(t, network)
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	g.write(t, "second.yaml", `{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: second, virtualCluster: acme-dev}, spec: {type: local, password: "file:dev.secret"}}`)
	s := &shelf{dir: g.resources, revision: 7}
	g.cfg, g.addr = proxy.From(g.cfg, s, proxy.Control{}), ""
	for _, f := range more {
		f(&g.cfg)
	}
	g.run(t)
	return g, s
}

// A change ends those sessions whose right to be there is gone, within the second, and
// nobody else's: neither of the changed virtual cluster nor of others.
func TestAChangeOfOneVirtualClusterEndsNoOtherSession(t *testing.T) {
	const account = `metadata: {name: dev, virtualCluster: acme-dev}, spec: {type: local, password: "file:dev.secret"`
	for _, c := range []struct {
		name   string
		change func(t *testing.T, g *gateway)
		why    string // the session of dev ends
		all    bool   // and so does that of second
		tenant bool   // and that of another virtual cluster of the tenant
	}{
		{"an account is removed", func(t *testing.T, g *gateway) {
			g.replace(t, "all.yaml", "metadata: {name: dev, virtualCluster: acme-dev}", "metadata: {name: someone, virtualCluster: acme-dev}")
		}, "TG-AUTH-016", false, false},
		{"an account expires", func(t *testing.T, g *gateway) {
			g.replace(t, "all.yaml", account, account+", expires: "+time.Now().Add(300*time.Millisecond).UTC().Format(time.RFC3339Nano))
		}, "TG-AUTH-016", false, false},
		{"the tenant is suspended", func(t *testing.T, g *gateway) {
			g.replace(t, "all.yaml", "spec: {displayName: ACME}", "spec: {displayName: ACME, state: suspended}")
		}, "TG-AUTH-019", true, true},
		{"the virtual cluster is removed", func(t *testing.T, g *gateway) {
			g.replace(t, "all.yaml", "metadata: {name: acme-dev, tenant: acme}", "metadata: {name: acme-new, tenant: acme}")
			g.replace(t, "all.yaml", "virtualCluster: acme-dev}", "virtualCluster: acme-new}")
			g.replace(t, "second.yaml", "virtualCluster: acme-dev}", "virtualCluster: acme-new}")
		}, "TG-LISTEN-017", true, false},
		{"something else changes", func(t *testing.T, g *gateway) {
			g.replace(t, "all.yaml", "  autoCreateTopics: true", "  quotas: {requestsPerSecond: 100}")
			g.replace(t, "all.yaml", "displayName: ACME", "displayName: Acme")
		}, "", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			controlled(t, func(t *testing.T, g *gateway, s *shelf) {
				login := func(user string) *raw {
					r := g.raw(t, "acme-dev.gw.test")
					if code := r.login(user, "dev-secret"); code != 0 {
						t.Fatalf("login of %s: error %d", user, code)
					}
					return r
				}
				dev, second, bystander := login("dev"), login("second"), g.raw(t, "open.gw.test")
				metadata := &kmsg.MetadataRequest{Version: 9}
				bystander.ask(metadata)
				c.change(t, g)
				s.changed(t)
				stays := func(r *raw, yes bool) {
					t.Helper()
					if !yes {
						if took := whenClosed(t, r); took > 900*time.Millisecond {
							t.Errorf("ended after %v", took)
						}
						return
					}
					r.SetDeadline(time.Now().Add(time.Minute))
					r.ask(metadata)
				}
				stays(dev, c.why == "")
				time.Sleep(time.Second)
				stays(second, !c.all)
				stays(bystander, !c.tenant)
				synctest.Wait()
				if c.why != "" && len(g.log.with("session ended", " refusal="+c.why+" ", "virtual_cluster=acme-dev")) == 0 {
					t.Errorf("logged %q, want %s", g.log.with("session ended"), c.why)
				}
			})
		})
	}
}

// What is older than what is served, or than its removal, is never applied, nor is it
// after everything was dropped from memory.
func TestNothingOlderIsApplied(t *testing.T) {
	controlled(t, func(t *testing.T, g *gateway, s *shelf) {
		g.raw(t, "acme-dev.gw.test").login("dev", "dev-secret")
		old, err := resource.LoadDir(g.resources)
		if err != nil {
			t.Fatal(err)
		}
		g.replace(t, "all.yaml", "metadata: {name: dev, virtualCluster: acme-dev}", "metadata: {name: someone, virtualCluster: acme-dev}")
		s.changed(t) // to 8
		refused := func(what string) {
			t.Helper()
			if err := s.into.Put("acme-dev", cut(old, "acme-dev"), 7); !errors.Is(err, fleet.ErrOlder) {
				t.Errorf("%s: Put of an older revision: %v", what, err)
			}
		}
		refused("served")
		if err := s.into.Remove("acme-dev", 7); !errors.Is(err, fleet.ErrOlder) {
			t.Errorf("Remove of an older revision: %v", err)
		}
		if code := g.raw(t, "acme-dev.gw.test").login("dev", "dev-secret"); code == 0 {
			t.Error("who was removed is admitted")
		}
		time.Sleep(2 * time.Hour)
		if vcs, _ := s.into.Loaded(); vcs["acme-dev"] != 0 {
			t.Error("it is still loaded")
		}
		refused("unloaded")
		if err := s.into.Remove("acme-dev", 9); err != nil {
			t.Error(err)
		}
		refused("removed")
		if err := s.into.Put("acme-dev", cut(old, "acme-dev"), 10); err != nil {
			t.Errorf("made again: %v", err)
		}
		if err := s.into.PutUpstream(old.UpstreamClusters["main"], 3); !errors.Is(err, fleet.ErrOlder) {
			t.Errorf("PutUpstream of an older revision: %v", err)
		}
		if err := s.into.RemoveUpstream("main", 3); !errors.Is(err, fleet.ErrOlder) {
			t.Errorf("RemoveUpstream of an older revision: %v", err)
		}
	})
}

// However many clients come at once, their virtual cluster is loaded once, and its
// upstream cluster too.
func TestAVirtualClusterIsLoadedOnceForAllItsFirstClients(t *testing.T) {
	controlled(t, func(t *testing.T, g *gateway, s *shelf) {
		s.takes = time.Second
		if vcs, upstreams := s.into.Loaded(); len(vcs)+len(upstreams) != 0 {
			t.Errorf("loaded before anybody came: %v, %v", vcs, upstreams)
		}
		var wg sync.WaitGroup
		for range 100 {
			c := g.tcp(t)
			wg.Go(func() {
				r := &raw{tls.Client(c, &tls.Config{RootCAs: g.roots, ServerName: "b1-acme-dev.gw.test"}), t}
				if code := r.login("dev", "dev-secret"); code != 0 {
					t.Errorf("login: error %d", code)
				}
			})
		}
		wg.Wait()
		if n, m := s.count("find acme-dev"), s.count("upstream main"); n != 1 || m != 1 {
			t.Errorf("asked %d times for the virtual cluster and %d for the upstream, want once", n, m)
		}
		vcs, upstreams := s.into.Loaded()
		if len(vcs) != 1 || vcs["acme-dev"] != 7 || len(upstreams) != 1 || upstreams["main"] != 7 {
			t.Errorf("loaded: %v, %v", vcs, upstreams)
		}
		s.takes = 0
		produceN(t, g.client(t, "acme-dev.gw.test", loginDev, kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("things")), 3)
	})
}

// A client that nobody knows yet is let come again; one of a name that nobody owns is
// told so, until somebody does.
func TestANameIsAskedForAgainWhenItMayBeKnown(t *testing.T) {
	controlled(t, func(t *testing.T, g *gateway, s *shelf) {
		attempt := func() error {
			c := tls.Client(g.tcp(t), &tls.Config{RootCAs: g.roots, ServerName: "open.gw.test"})
			return c.Handshake()
		}
		s.mu.Lock()
		s.away = errors.New("the store is away")
		s.mu.Unlock()
		for range 10 {
			if err := attempt(); err == nil || strings.Contains(err.Error(), "tls: ") {
				t.Fatalf("the client sees %v, want a connection that is closed", err)
			}
		}
		if n := s.count("find open"); n != 1 {
			t.Errorf("asked %d times while it was away, want once in a second", n)
		}
		synctest.Wait()
		if len(g.log.with("connection refused", "TG-LISTEN-019", "the store is away")) == 0 {
			t.Error("nothing of it in the log")
		}
		s.mu.Lock()
		s.away = nil
		s.mu.Unlock()
		g.replace(t, "all.yaml", "host: open", "host: other")
		time.Sleep(time.Second + time.Millisecond)
		for range 10 {
			if err := attempt(); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
				t.Fatalf("the client sees %v, want the alert unrecognized name", err)
			}
		}
		if n := s.count("find open"); n != 3 { // as a label, and whole
			t.Errorf("asked %d times, want once more", n)
		}
		g.replace(t, "all.yaml", "host: other", "host: open")
		s.into.Announced()
		if err := attempt(); err != nil {
			t.Errorf("it is there now: %v", err)
		}
	})
}

// A virtual cluster may be known before its upstream cluster is: its first clients wait,
// and it is reached within seconds of being known.
func TestAnUpstreamClusterMayComeLater(t *testing.T) {
	controlled(t, func(t *testing.T, g *gateway, s *shelf) {
		s.mu.Lock()
		s.hidden = "main"
		s.mu.Unlock()
		time.AfterFunc(time.Minute, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.hidden = ""
		})
		held := g.raw(t, "acme-dev.gw.test")
		held.SetDeadline(time.Now().Add(time.Hour))
		if code := held.login("dev", "dev-secret"); code != 0 {
			t.Fatalf("login: error %d", code)
		}
		time.Sleep(time.Minute + 2*time.Second)
		if resp := held.ask(&kmsg.MetadataRequest{Version: 9}).(*kmsg.MetadataResponse); len(resp.Brokers) != 3 {
			t.Errorf("%d brokers, want 3", len(resp.Brokers))
		}
		// It goes when it was removed and nobody uses it.
		if err := s.into.RemoveUpstream("main", 8); err != nil {
			t.Fatal(err)
		}
		held.ask(&kmsg.MetadataRequest{Version: 9})
		if err := s.into.Remove("acme-dev", 9); err != nil {
			t.Fatal(err)
		}
		if _, upstreams := s.into.Loaded(); len(upstreams) != 0 {
			t.Errorf("%v are still there", upstreams)
		}
	})
}

// What nobody uses leaves the memory, and comes back with its next client; what is used
// stays, however quiet it is.
func TestAVirtualClusterWithoutClientsIsUnloaded(t *testing.T) {
	controlled(t, func(t *testing.T, g *gateway, s *shelf) {
		quiet := g.raw(t, "open.gw.test")
		quiet.SetDeadline(time.Now().Add(24 * time.Hour))
		quiet.ask(&kmsg.MetadataRequest{Version: 9})
		r := g.raw(t, "acme-dev.gw.test")
		r.login("dev", "dev-secret")
		r.Close()
		time.Sleep(59 * time.Minute)
		if vcs, _ := s.into.Loaded(); len(vcs) != 2 {
			t.Errorf("loaded after less than an hour: %v", vcs)
		}
		time.Sleep(3 * time.Minute)
		if vcs, upstreams := s.into.Loaded(); len(vcs) != 1 || vcs["open"] == 0 || len(upstreams) != 1 {
			t.Errorf("loaded after an hour: %v, %v", vcs, upstreams)
		}
		quiet.ask(&kmsg.MetadataRequest{Version: 9})
		if code := g.raw(t, "acme-dev.gw.test").login("dev", "dev-secret"); code != 0 {
			t.Errorf("login when it is loaded again: error %d", code)
		}
		if n := s.count("find acme-dev"); n != 2 {
			t.Errorf("asked for it %d times, want twice", n)
		}
	})
}

// A listener by port names its virtual cluster: that is loaded before a client comes, and
// stays. One that its virtual cluster asks for is there as long as that is.
func TestAListenerByPortBringsItsVirtualCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		port := func(vc, address string) proxy.Listener {
			return proxy.Listener{Name: "port-" + vc, Address: address, Routing: proxy.ByPort, Protocol: proxy.SASLPlaintext, VirtualCluster: vc, BrokerPorts: []proxy.PortRange{{First: 9600, Count: 10}}}
		}
		g, s := startControlled(t, new(kfake.VirtualNetwork), func(cfg *proxy.Config) {
			cfg.Listeners = append(cfg.Listeners, port("acme-dev", "127.0.0.1:9501"))
			cfg.PortsOf = func(vc *resource.VirtualCluster) (proxy.Listener, bool) {
				return port(vc.Metadata.Name, "127.0.0.1:9502"), vc.Metadata.Name == "acme-prod"
			}
		})
		login := func(address, user string) (code int16, err error) {
			c, err := g.dial(t.Context(), "tcp", address)
			if err != nil {
				return 0, err
			}
			defer c.Close()
			r := &raw{c, t}
			return r.login(user, "dev-secret"), nil
		}
		time.Sleep(time.Second)
		if code, err := login("127.0.0.1:9501", "dev"); code != 0 || err != nil {
			t.Errorf("login by port: error %d, %v", code, err)
		}
		if _, err := login("127.0.0.1:9502", "admin"); err == nil {
			t.Error("there is a listener for what is not loaded")
		}
		g.raw(t, "acme.gw.test").Close()
		time.Sleep(3 * time.Hour)
		for address, user := range map[string]string{"127.0.0.1:9501": "dev", "127.0.0.1:9502": "admin"} {
			if code, err := login(address, user); code != 0 || err != nil {
				t.Errorf("login at %s hours later: error %d, %v", address, code, err)
			}
		}
		if vcs, _ := s.into.Loaded(); len(vcs) != 2 {
			t.Errorf("loaded: %v", vcs)
		}
		if err := s.into.Remove("acme-prod", 8); err != nil {
			t.Fatal(err)
		}
		if _, err := login("127.0.0.1:9502", "admin"); err == nil {
			t.Error("the listener of what was removed is still there")
		}
		if n := s.count("load acme-dev"); n != 1 {
			t.Errorf("asked for it %d times, want once", n)
		}
	})
}

// Of two virtual clusters that claim a host the newer one has it, in whatever order the
// node hears of them.
func TestTheNewerClaimOfAHostCounts(t *testing.T) {
	controlled(t, func(t *testing.T, g *gateway, s *shelf) {
		g.raw(t, "open.gw.test").ask(&kmsg.MetadataRequest{Version: 9})
		g.replace(t, "all.yaml", "host: open", "host: closed")
		g.replace(t, "all.yaml", "host: acme-dev", "host: open")
		set, err := resource.LoadDir(g.resources)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.into.Put("acme-dev", cut(set, "acme-dev"), 9); err != nil {
			t.Fatal(err)
		}
		if code := g.raw(t, "open.gw.test").login("dev", "dev-secret"); code != 0 {
			t.Errorf("login on the host that changed hands: error %d", code)
		}
		if err := s.into.Put("open", cut(set, "open"), 8); err != nil {
			t.Fatal(err)
		}
		g.raw(t, "closed.gw.test").ask(&kmsg.MetadataRequest{Version: 9})
		if code := g.raw(t, "open.gw.test").login("dev", "dev-secret"); code != 0 {
			t.Errorf("login after the other one let go of it: error %d", code)
		}
	})
}
