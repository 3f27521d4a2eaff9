package proxy_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy"
)

// status reads /status of the virtual cluster wide.
func (g *gateway) status(t *testing.T) (wide proxy.VirtualClusterStatus, west proxy.UpstreamStatus) {
	t.Helper()
	code, body := g.get(t, "/status")
	var st proxy.Status
	if err := json.Unmarshal([]byte(body), &st); code != 200 || err != nil {
		t.Fatalf("%d %v: %s", code, err, body)
	}
	for _, vc := range st.VirtualClusters {
		if vc.Name == "wide" {
			wide = vc
		}
	}
	for _, u := range st.UpstreamClusters {
		if u.Name == "west" {
			west = u
		}
	}
	return wide, west
}

// The status of a virtual cluster says where the offsets of topics elsewhere are, and
// why they are not where they should be; that of a cluster whether it answers.
func TestStatusSaysHowAVirtualClusterSpans(t *testing.T) {
	for name, refuse := range map[string]bool{"home takes stubs": false, "home refuses them": true} {
		t.Run(name, func(t *testing.T) {
			west, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "shop.far"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(west.Close)
			g := start(t)
			if refuse {
				g.upstream.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.PolicyViolation, Count: 1000})
			}
			g.write(t, "spanning.yaml", fmt.Sprintf(wideResources, strings.Join(quoted(west.ListenAddrs()), ",")))
			eventually(t, "the status shows it", func() bool {
				wide, u := g.status(t)
				if refuse {
					return u.Reached && wide.Offsets == "split" && wide.SplitTopics["far"] != "" && wide.StubProblems["far"] != "" && !wide.ConsumerProtocol && wide.Stubs["refused"] == 1
				}
				return u.Reached && wide.Offsets == "stubs" && wide.SplitTopics == nil && wide.ConsumerProtocol && wide.Stubs["confirmed"] == 1 && wide.Topics == 1
			})
			if wide, _ := g.status(t); wide.Home != "main" || wide.Tenant != "acme" || wide.Clusters["main"] != 0 || wide.Clusters["west"] == 0 {
				t.Errorf("status %+v", wide)
			}
			state := "confirmed"
			if refuse {
				state = "refused"
			}
			if _, body := g.get(t, "/metrics"); !strings.Contains(body, `tollgate_proxy_stubs{state="`+state+`",virtual_cluster="wide"} 1`) || !strings.Contains(body, `tollgate_proxy_upstream_suspect{cluster="west"} 0`) {
				t.Error("the metrics do not show it")
			}
			west.Close()
			eventually(t, "the other cluster is suspect", func() bool { _, u := g.status(t); return u.Suspect && u.Problem != "" })
			if _, body := g.get(t, "/metrics"); !strings.Contains(body, `tollgate_proxy_upstream_suspect{cluster="west"} 1`) {
				t.Error("the metric of the suspect cluster does not show it")
			}
		})
	}
}
