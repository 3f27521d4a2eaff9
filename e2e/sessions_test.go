package e2e

import (
	"context"
	"net/http"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/site"
)

// sessionList is what the API answers.
type sessionList struct {
	Items []struct {
		ID, Tenant, VirtualCluster, Principal, Mechanism, ClientID, Software, SoftwareVersion, Address, Node string
		Since, LastRequest                                                                                   time.Time
		Requests, BytesIn, BytesOut                                                                          uint64
	}
	Total      int
	Incomplete bool
	Missing    []string
}

// Operators see every client of a fleet, whatever it is written with and wherever it is
// connected; a node that is killed is named as long as it is believed to be there; who is
// closed comes back, and goes on.
func TestTheClientsOfAFleetAreListed(t *testing.T) {
	const vc = "watched"
	kafka := three.Get(t)
	f := site.Start(t, site.Options{Nodes: 3})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	crew, goesOn := crewOf(ctx, t, f, kafka, vc)
	goesOn("at the beginning")

	list := func(query string) (l sessionList) {
		t.Helper()
		f.Must(t, http.MethodGet, "/v1/sessions?"+query, "").Into(t, &l)
		return l
	}
	all := list("limit=1000&virtualCluster=" + vc)
	if all.Total != len(all.Items) || all.Incomplete || len(all.Missing) > 0 {
		t.Errorf("%d of %d sessions, missing %v", len(all.Items), all.Total, all.Missing)
	}
	software, nodes, busy := make(map[string]int), make(map[string]int), 0
	for _, s := range all.Items {
		switch s.Software {
		case "kgo":
			software["franz-go"]++
		case "apache-kafka-java":
			software["Java"]++
		case "": // it has only just come
		default: // a binding of librdkafka has a name of its own
			software["librdkafka"]++
		}
		nodes[s.Node]++
		if s.Principal == "" {
			continue // it logs in right now
		}
		if s.Tenant != "acme" || s.VirtualCluster != vc || s.Principal != "User:dev" || s.Mechanism != "SCRAM-SHA-512" || s.Address == "" || s.SoftwareVersion == "" ||
			s.Requests == 0 || s.BytesIn == 0 || s.BytesOut == 0 || s.Since.IsZero() || s.LastRequest.Before(s.Since) {
			t.Errorf("a session is %+v", s)
		}
		if s.Requests > 10 {
			busy++
		}
	}
	t.Logf("%d sessions: %v on %v", all.Total, software, nodes)
	if len(software) != 3 || len(nodes) != 3 || busy == 0 {
		t.Errorf("sessions of %v on %v, %d of them busy; want three kinds of clients on three nodes", software, nodes, busy)
	}
	sum := 0
	for id := range nodes {
		sum += list("limit=1000&node=" + id).Total
	}
	if few := list("limit=2"); len(few.Items) != 2 || few.Total < 2 || sum < 2 {
		t.Errorf("%d of %d, and %d by node", len(few.Items), few.Total, sum)
	}

	// One that is closed comes back as another, and nobody misses anything.
	closed := all.Items[len(all.Items)/2]
	f.Must(t, http.MethodDelete, "/v1/sessions/"+closed.ID, "")
	there := func() bool {
		for _, s := range list("limit=1000").Items {
			if s.ID == closed.ID {
				return true
			}
		}
		return false
	}
	for end := time.Now().Add(10 * time.Second); there(); time.Sleep(100 * time.Millisecond) { // its node was told, and has it end
		if time.Now().After(end) {
			t.Fatalf("session %s was closed and is there", closed.ID)
		}
	}
	goesOn("after one connection was closed")

	if _, err := crew.End(ctx); err != nil {
		t.Error(err)
	}

	f.Nodes[2].Kill(t)
	if l := list("limit=1"); !l.Incomplete || len(l.Missing) != 1 {
		t.Errorf("without %s nobody is missing: %+v", f.Nodes[2].Name, l)
	}
}
