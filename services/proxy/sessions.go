package proxy

import (
	"slices"

	board "tollgate.internal/pkg/fleet"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/session"
)

// What is told of sessions to those who ask the fleet (pkg/fleet). Only the asking costs
// something: sessions are looked at as they are, and nothing is kept for it.

// Sessions are those that are asked about.
func (g *gateway) Sessions(ask board.Ask) (some []board.Session, all int) {
	g.eachSession(ask, func(sv *served, s *session.Session) bool {
		a := s.About()
		if ask.Session != "" && a.ID != ask.Session || ask.Principal != "" && a.Principal != ask.Principal {
			return true
		}
		all++
		some = append(some, board.Session{
			ID: a.ID, Tenant: sv.vc.View().Tenant, VirtualCluster: sv.vc.Name, Principal: a.Principal, Mechanism: a.Mechanism,
			ClientID: a.ClientID, Software: a.Software, SoftwareVersion: a.SoftwareVersion, Address: a.Address,
			Since: a.Since.UTC().Round(0), LastRequest: a.LastRequest.UTC().Round(0), Requests: a.Requests, BytesIn: a.BytesIn, BytesOut: a.BytesOut,
		})
		if len(some) >= 2*ask.Limit+spareSessions {
			some = firstSessions(some, ask.Limit)
		}
		return true
	})
	return firstSessions(some, ask.Limit), all
}

// spareSessions keeps small limits from sorting all the time.
const spareSessions = 1000

func firstSessions(some []board.Session, limit int) []board.Session {
	slices.SortFunc(some, board.CompareSessions)
	return some[:min(len(some), limit)]
}

// CloseSession ends a session at once.
func (g *gateway) CloseSession(id string) (found bool) {
	g.eachSession(board.Ask{}, func(_ *served, s *session.Session) bool {
		if found = s.ID() == id; found {
			s.End(refusal.ClosedByOperator)
		}
		return !found
	})
	return found
}

// eachSession looks at the sessions of the tenant and the virtual cluster that are asked
// about, until do returns false.
func (g *gateway) eachSession(ask board.Ask, do func(*served, *session.Session) bool) {
	g.mu.RLock()
	var of []*served
	for name, sv := range g.served {
		if (ask.VirtualCluster == "" || ask.VirtualCluster == name) && (ask.Tenant == "" || ask.Tenant == sv.vc.View().Tenant) {
			of = append(of, sv)
		}
	}
	g.mu.RUnlock()
	for _, sv := range of {
		for _, s := range sv.all() {
			if !do(sv, s) {
				return
			}
		}
	}
}
