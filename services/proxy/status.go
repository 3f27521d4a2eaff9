package proxy

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate.internal/services/proxy/internal/fleet"
	"tollgate.internal/services/proxy/internal/stub"
	"tollgate.internal/services/proxy/internal/view"
)

// What an operator asks of virtual clusters that span: /status of the admin listener,
// and two metrics.

var (
	descSuspect = prometheus.NewDesc("tollgate_proxy_upstream_suspect",
		"1 while an upstream cluster does not answer: nobody waits for it.", []string{"cluster"}, nil)
	descStubs = prometheus.NewDesc("tollgate_proxy_stubs",
		"Stub topics of a virtual cluster on its home: pending, confirmed, refused, waiting for the topic's cluster; orphans are to be deleted.", []string{"virtual_cluster", "state"}, nil)
)

// Status is what /status answers.
type Status struct {
	Node             NodeStatus             `json:"node"`
	Fleet            *fleet.Health          `json:"fleet,omitempty"` // how it gets on with the control plane
	UpstreamClusters []UpstreamStatus       `json:"upstreamClusters"`
	VirtualClusters  []VirtualClusterStatus `json:"virtualClusters"`
}

// UpstreamStatus is how a physical cluster is.
type UpstreamStatus struct {
	Name    string    `json:"name"`
	Reached bool      `json:"reached"`           // ever
	Suspect bool      `json:"suspect"`           // it does not answer now
	Since   time.Time `json:"since"`             // that this is so
	Problem string    `json:"problem,omitempty"` // why it does not answer
}

// VirtualClusterStatus is how a virtual cluster is.
type VirtualClusterStatus struct {
	Name     string           `json:"name"`
	Tenant   string           `json:"tenant"`
	Clusters map[string]int32 `json:"clusters"` // slots, by name
	Home     string           `json:"home"`
	Topics   int              `json:"topics"`
	// Where the offsets of topics on other clusters are: "stubs" on home, or "split"
	// for those of SplitTopics, which are on the topics' own clusters.
	Offsets          string            `json:"offsets,omitempty"`
	SplitTopics      map[string]string `json:"splitTopics,omitempty"` // why, by alias
	ConsumerProtocol bool              `json:"consumerProtocol"`      // KIP-848 is offered
	Stubs            map[string]int    `json:"stubs,omitempty"`       // by state
	StubProblems     map[string]string `json:"stubProblems,omitempty"`
	Orphans          int               `json:"orphanedStubs,omitempty"`
}

func (g *gateway) status() Status {
	out := Status{Node: g.nodeStatus()}
	if g.redis != nil {
		h := g.redis.Health()
		out.Fleet = &h
	}
	g.mu.RLock()
	for _, name := range slices.Sorted(maps.Keys(g.clusters)) {
		s := g.clusters[name].cluster.State()
		u := UpstreamStatus{Name: name, Reached: s.Reached, Suspect: s.Suspect, Since: s.Since.UTC()}
		if s.Err != nil {
			u.Problem = s.Err.Error()
		}
		out.UpstreamClusters = append(out.UpstreamClusters, u)
	}
	g.mu.RUnlock()
	clusters := g.loaded()
	for _, name := range slices.Sorted(maps.Keys(clusters)) {
		out.VirtualClusters = append(out.VirtualClusters, statusOf(clusters[name]))
	}
	return out
}

func statusOf(vc *view.VirtualCluster) VirtualClusterStatus {
	v := vc.View()
	s := VirtualClusterStatus{Name: v.Name, Tenant: v.Tenant, Home: v.Spec.Home, Clusters: make(map[string]int32)}
	for _, name := range v.Spec.Clusters {
		s.Clusters[name] = v.Spec.Slot(name)
	}
	if o := vc.Offer(); o != nil {
		s.ConsumerProtocol = o.Groups
	}
	if t := vc.Table(); t != nil {
		s.Topics = len(t.Topics)
		for _, topic := range t.Topics {
			if topic.Split != nil {
				if s.SplitTopics == nil {
					s.SplitTopics = make(map[string]string)
				}
				s.SplitTopics[topic.Name] = topic.Split.Error()
			}
		}
	}
	st, kept := vc.Stubs()
	if !kept {
		return s
	}
	s.Offsets, s.Orphans = "stubs", len(st.Orphans)
	if s.SplitTopics != nil {
		s.Offsets = "split"
	}
	s.Stubs, s.StubProblems = make(map[string]int), make(map[string]string)
	for state, n := range st.Counts {
		s.Stubs[stub.State(state).String()] = n
	}
	for _, one := range st.Stubs {
		if one.Problem != nil {
			s.StubProblems[one.Alias] = one.Problem.Error()
		}
	}
	return s
}

func (g *gateway) serveStatus(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(g.status()) // the reader is gone
}

// stubs is how the stub topics of the virtual clusters are that have any.
func (g *gateway) stubs() map[string]stub.Status {
	all := make(map[string]stub.Status)
	for name, vc := range g.loaded() {
		if st, kept := vc.Stubs(); kept {
			all[name] = st
		}
	}
	return all
}
