package session

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// Where requests go. One virtual broker is exactly one physical one (rule 2 of
// PROTOCOL.md), so what is for a leader, a coordinator or a named broker goes to the
// broker the client dialled; groups and changes to home; and what any broker can
// answer to whichever cluster knows.

// dialled is the cluster of the broker that the client dialled and that broker's id
// there; -1: any one of home. The cluster is nil when it is none of the virtual
// cluster's, or no longer.
func (s *Session) dialled(t *view.Table) (m *view.Member, node int32) {
	if s.client.Node < 0 {
		return t.Home, -1
	}
	return t.Node(s.client.Node)
}

// near is the dialled broker's id if it is one of m, else -1: any.
func (s *Session) near(t *view.Table, m *view.Member) int32 {
	if at, node := s.dialled(t); at == m {
		return node
	}
	return -1
}

var errNoCluster = errors.New("the broker is of no cluster of the virtual cluster")

// request sends req to the broker the client dialled and waits for the answer.
func (s *Session) request(ctx context.Context, t *view.Table, class upstream.Class, limit time.Duration, req kmsg.Request) (kmsg.Response, error) {
	m, node := s.dialled(t)
	if m == nil {
		return nil, &upstream.UnavailableError{Cluster: s.vc.Name, Node: s.client.Node, Err: errNoCluster}
	}
	resp, err := m.Cluster.Request(ctx, node, class, limit, s.clientID(), req)
	if err != nil {
		m.Cluster.MarkStale()
	}
	return resp, err
}

// coordinator sends a request to the group or transaction coordinator the client
// dialled, which has to be one of m. The code is what to answer when there is none to
// be had.
func (s *Session) coordinator(ctx context.Context, t *view.Table, m *view.Member, class upstream.Class, limit time.Duration, req kmsg.Request) (kmsg.Response, int16) {
	if at, _ := s.dialled(t); at != m {
		return nil, s.refused(refusal.CoordinatorElsewhere)
	}
	resp, err := s.request(ctx, t, class, limit, req)
	if err != nil {
		return nil, s.refused(refusal.CoordinatorLost.With(err))
	}
	return resp, 0
}

// admin sends a change to home's controller.
func (s *Session) admin(ctx context.Context, limit time.Duration, req kmsg.Request) (kmsg.Response, error) {
	return s.vc.Home.Request(ctx, s.vc.Home.Controller(), upstream.Control, limit, s.clientID(), req)
}

// markStale says that an answer contradicts what is known of the dialled cluster.
func (s *Session) markStale() {
	if t := s.vc.Table(); t != nil {
		if m, _ := s.dialled(t); m != nil {
			m.Cluster.MarkStale()
		}
	}
}
