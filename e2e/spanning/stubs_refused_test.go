package spanning

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
)

// Where home lets the gateway create no topics, offsets are kept on the topic's own
// cluster, and stay there when home changes its mind, for as long as they are wanted.
func TestHomeRefusesStubs(t *testing.T) {
	t.Parallel()
	home := kafkatest.Start(t, kafkatest.Options{SASL: true, Authorizer: true})
	west := upstreams[kafkatest.V3].Get(t)
	s := &spanned{home: home, aliases: &aliasFile{specs: make(map[string]string)}, main: kadm.NewClient(home.Client(t)), west: kadm.NewClient(west.Client(t))}
	allow := func(b *kadm.ACLBuilder) {
		t.Helper()
		resp, err := s.main.CreateACLs(t.Context(), b.Allow("User:gateway").AllowHosts().ResourcePatternType(kadm.ACLPatternPrefixed))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range resp {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	allow(kadm.NewACLs().Topics("stubs.").Operations(kadm.OpRead, kadm.OpWrite, kadm.OpDescribe, kadm.OpAlter, kadm.OpDelete, kadm.OpDescribeConfigs, kadm.OpAlterConfigs))
	allow(kadm.NewACLs().Groups("stubs.").Operations(kadm.OpAll))
	s.create(t, s.west, "refused", 2)
	p := gateway.Start(t, nil, map[string]string{
		"clusters.yaml": fmt.Sprintf(`
apiVersion: tollgate/v1
kind: UpstreamCluster
metadata: {name: main}
spec: {bootstrap: ["%s"], tls: {caFile: home.pem}, sasl: {mechanism: SCRAM-SHA-512, username: gateway, password: "file:gateway.secret"}}
---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: west}, spec: {bootstrap: ["%s"]}}
`, strings.Join(home.Seeds(kafkatest.SASL), `", "`), strings.Join(west.Seeds(kafkatest.PLAINTEXT), `", "`)),
		"tenant.yaml": stubResources, "aliases.yaml": "", "dev.secret": "dev-secret\n", "gateway.secret": home.Password("gateway") + "\n", "home.pem": string(home.PKI.PEM),
	})
	s.before(t, p, "stubs")
	s.alias(t, "refused", onWest("refused"))
	s.shows(t, "refused", 2)
	s.before(t, p, "stubs") // what is offered is so for the life of a connection
	offered := func() bool {
		t.Helper()
		resp, err := kmsg.NewPtrApiVersionsRequest().RequestWith(t.Context(), s.client)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(resp.ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool { return k.ApiKey == int16(kmsg.ConsumerGroupHeartbeat) })
	}
	said := func(id string) {
		t.Helper()
		if !strings.Contains(s.said(t), "refusal="+id) {
			t.Errorf("the gateway did not say %s:\n%s", id, s.said(t))
		}
	}
	said("TG-STUB-001")
	if got := offsetsOf(t, p); got.Offsets != "split" || got.ConsumerProtocol || !strings.Contains(got.SplitTopics["refused"], "TOPIC_AUTHORIZATION_FAILED") {
		t.Errorf("status %+v", got)
	}
	if offered() {
		t.Error("KIP-848 is offered without stubs")
	}
	if err := s.commit(t.Context(), "refused", "refused", 2, 7); err != nil {
		t.Fatal(err)
	}
	s.wantCommitted(t, "refused", "refused", 7, 7)
	if got := s.committed(t, s.west, "stubs.refused", "stubbed.refused", 2); !slices.Equal(got, []int64{7, 7}) {
		t.Errorf("committed on west: %v", got)
	}

	allow(kadm.NewACLs().Topics("stubs.").Operations(kadm.OpCreate))
	again := func() {
		t.Helper()
		p.Kill(t)
		p.Launch(t)
		s.before(t, p, "stubs")
		s.shows(t, "refused", 2)
	}
	again()
	said("TG-STUB-002")
	if got := offsetsOf(t, p); got.Offsets != "split" || !strings.Contains(got.SplitTopics["refused"], "stubs.refused") {
		t.Errorf("status %+v", got)
	}
	s.wantCommitted(t, "refused", "refused", 7, 7)

	if resp, err := s.west.DeleteGroups(t.Context(), "stubs.refused"); err != nil || resp.Error() != nil {
		t.Fatal(err, resp)
	}
	again()
	s.wantCommitted(t, "refused", "refused", -1, -1)
	if err := s.commit(t.Context(), "refused", "refused", 2, 8); err != nil {
		t.Fatal(err)
	}
	s.wantCommitted(t, "refused", "refused", 8, 8)
	if got := s.committed(t, s.west, "stubs.refused", "stubbed.refused", 2); slices.Max(got) >= 0 {
		t.Errorf("committed on west although there is a stub: %v", got)
	}
	if got := offsetsOf(t, p); got.Offsets != "stubs" || !got.ConsumerProtocol || len(got.SplitTopics) > 0 {
		t.Errorf("status %+v", got)
	}
	if !offered() {
		t.Error("KIP-848 is not offered although there are stubs")
	}
}

// offsetStatus is what a node says of a virtual cluster.
type offsetStatus struct {
	Name             string
	Offsets          string
	SplitTopics      map[string]string
	ConsumerProtocol bool
}

func offsetsOf(t *testing.T, p *gateway.Process) offsetStatus {
	t.Helper()
	resp, err := http.Get(strings.TrimSuffix(p.Nodes[0].Metrics, "/metrics") + "/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var status struct{ VirtualClusters []offsetStatus }
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		t.Fatal(err)
	}
	for _, vc := range status.VirtualClusters {
		if vc.Name == "stubs" {
			return vc
		}
	}
	t.Fatalf("no status of the virtual cluster: %+v", status)
	return offsetStatus{}
}
