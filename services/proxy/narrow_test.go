package proxy_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/fleet"
)

// changedTo publishes acme-dev as it is in the files, and returns what the node says.
func (s *shelf) changedTo(t *testing.T) error {
	t.Helper()
	set, err := resource.LoadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.revision++
	s.mu.Unlock()
	return s.put(set, "acme-dev")
}

// A node that cannot serve a change as it is takes away what the change does, at once and
// from those alone whom it concerns, and serves all of it as soon as it can.
func TestWhatIsTakenAwayIsTakenAwayWhateverElseIsWrong(t *testing.T) {
	const plain = "  autoCreateTopics: true\n  authentication: {plain: {}, scram: {}}"
	for _, spoilt := range []struct {
		name  string
		spoil func(t *testing.T, g *gateway)
		heal  func(t *testing.T, g *gateway)
		text  string
	}{
		{"a file is missing on this node", func(t *testing.T, g *gateway) {
			g.replace(t, "all.yaml", plain, "  authentication: {plain: {}, scram: {}, mtls: {caFile: "+filepath.Join(g.resources, "..", "later.pem")+"}}")
		}, func(t *testing.T, g *gateway) {
			g.replace(t, "all.yaml", "later.pem", "cert.pem")
		}, "later.pem"},
		{"a slot is another cluster's", func(t *testing.T, g *gateway) {
			g.write(t, "west.yaml", `{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: west}, spec: {bootstrap: ["127.0.0.1:1"]}}`)
			g.replace(t, "all.yaml", "  host: acme-dev\n  home: main\n", "  host: acme-dev\n  home: west\n  clusters: [west]\n")
		}, func(t *testing.T, g *gateway) {
			g.replace(t, "all.yaml", "  host: acme-dev\n  home: west\n  clusters: [west]\n", "  host: acme-dev\n  home: main\n")
		}, "slot"},
	} {
		for _, taken := range []struct {
			name string
			take func(t *testing.T, g *gateway)
			all  bool // from everybody
		}{
			{"an account", func(t *testing.T, g *gateway) {
				g.replace(t, "all.yaml", "metadata: {name: dev, virtualCluster: acme-dev}", "metadata: {name: someone, virtualCluster: acme-dev}")
			}, false},
			{"a secret", func(t *testing.T, g *gateway) {
				g.write(t, "another.secret", "another-secret-now")
				g.replace(t, "all.yaml", `metadata: {name: dev, virtualCluster: acme-dev}, spec: {type: local, password: "file:dev.secret"`, `metadata: {name: dev, virtualCluster: acme-dev}, spec: {type: local, password: "file:another.secret"`)
			}, false},
			{"the right of a tenant to be there", func(t *testing.T, g *gateway) {
				g.replace(t, "all.yaml", "spec: {displayName: ACME}", "spec: {displayName: ACME, state: suspended}")
			}, true},
			{"a way to log in", func(t *testing.T, g *gateway) {
				g.replace(t, "all.yaml", "{plain: {}, scram: {}", "{scram: {}")
			}, true},
		} {
			t.Run(spoilt.name+", "+taken.name, func(t *testing.T) {
				controlled(t, func(t *testing.T, g *gateway, s *shelf) {
					login := func(user string) (*raw, int16) {
						r := g.raw(t, "acme-dev.gw.test")
						return r, r.login(user, "dev-secret")
					}
					dev, first := login("dev")
					second, code := login("second")
					if first != 0 || code != 0 {
						t.Fatalf("logins: errors %d and %d", first, code)
					}
					spoilt.spoil(t, g)
					taken.take(t, g)
					if err := s.changedTo(t); !errors.Is(err, fleet.ErrNarrowed) || !strings.Contains(err.Error(), spoilt.text) {
						t.Errorf("Put: %v, want %v with %s in it", err, fleet.ErrNarrowed, spoilt.text)
					}
					if took := whenClosed(t, dev); took > 900*time.Millisecond {
						t.Errorf("dev ended after %v", took)
					}
					if taken.all {
						if took := whenClosed(t, second); took > 900*time.Millisecond {
							t.Errorf("second ended after %v", took)
						}
						return
					}
					if _, code := login("dev"); code == 0 {
						t.Error("dev is let in again")
					}
					second.SetDeadline(time.Now().Add(time.Minute))
					second.ask(&kmsg.MetadataRequest{Version: 9})
					if _, code := login("second"); code != 0 {
						t.Errorf("login of second: error %d", code)
					}
					if vcs, _ := s.into.Loaded(); vcs["acme-dev"] != 7 {
						t.Errorf("it says that it serves revision %d, and that is not so", vcs["acme-dev"])
					}
					spoilt.heal(t, g)
					if err := s.changedTo(t); err != nil {
						t.Errorf("Put of what is right again: %v", err)
					}
					if vcs, _ := s.into.Loaded(); vcs["acme-dev"] != 9 {
						t.Errorf("served at revision %d, want 9", vcs["acme-dev"])
					}
					second.ask(&kmsg.MetadataRequest{Version: 9})
					if _, code := login("dev"); code == 0 {
						t.Error("dev is let in again")
					}
				})
			})
		}
	}
}
