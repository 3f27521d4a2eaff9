package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/view"
)

// FindCoordinator: versions 0 to 6; one key to 3, a list from 4. Key type 0 is a
// group, 1 a transactional id; 2 (share groups) only brokers ask for.
func findCoordinator(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.FindCoordinatorRequest)
	resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
	keys := req.CoordinatorKeys
	if req.Version <= 3 {
		keys = []string{req.CoordinatorKey}
	}
	t, err := s.table(ctx)
	out := make([]kmsg.FindCoordinatorResponseCoordinator, len(keys))
	asked := make(map[*view.Member][]int) // indices of keys, by the cluster that knows
	for i, key := range keys {
		out[i] = kmsg.NewFindCoordinatorResponseCoordinator()
		out[i].Key, out[i].NodeID, out[i].Port = key, -1, -1
		out[i].ErrorMessage = noError(req.Version)
		switch {
		case err != nil:
			out[i].ErrorCode = s.refused(refusal.CoordinatorUnavailable.With(err))
		case req.CoordinatorType == 0 && !s.mayGroup(t, kmsg.ACLOperationDescribe, key):
			out[i].ErrorCode = s.refused(refusal.GroupNotAuthorized, "group", key)
		case req.CoordinatorType == 1 && !s.mayTxn(t, kmsg.ACLOperationDescribe, key):
			out[i].ErrorCode = s.refused(refusal.TransactionalIDNotAuthorized, "transactional_id", key)
		case len(t.View.Prefix)+len(key) > maxString:
			out[i].ErrorCode = s.refused(refusal.Invalid.Errorf("a key of %d bytes", len(key)))
		case req.CoordinatorType == 0:
			asked[t.Home] = append(asked[t.Home], i)
		case req.CoordinatorType == 1:
			m := t.TransactionMember(key)
			asked[m] = append(asked[m], i)
		default:
			out[i].ErrorCode = s.refused(refusal.CoordinatorKeyType.Errorf("type %d", req.CoordinatorType))
		}
		if code := out[i].ErrorCode; code == kerr.InvalidRequest.Code || code != 0 && req.Version <= 3 {
			out[i].ErrorMessage = stockText(code) // the lists of brokers explain nothing else
		}
	}
	for m, indices := range asked {
		forward := *req
		forward.CoordinatorKeys = nil
		for _, i := range indices {
			forward.CoordinatorKey = t.View.Prefix + keys[i]
			forward.CoordinatorKeys = append(forward.CoordinatorKeys, t.View.Prefix+keys[i])
		}
		up, err := m.Cluster.RequestAny(ctx, s.near(t, m), s.clientID(), &forward)
		if err != nil {
			m.Cluster.MarkStale()
			for _, i := range indices {
				out[i].ErrorCode = s.refused(refusal.CoordinatorUnavailable.With(err))
				out[i].ErrorMessage = stockText(out[i].ErrorCode)
			}
			continue
		}
		answer := up.(*kmsg.FindCoordinatorResponse)
		resp.ThrottleMillis = max(resp.ThrottleMillis, answer.ThrottleMillis)
		answers := answer.Coordinators
		if answer.Version <= 3 {
			c := kmsg.NewFindCoordinatorResponseCoordinator()
			c.NodeID, c.ErrorCode = answer.NodeID, answer.ErrorCode
			answers = []kmsg.FindCoordinatorResponseCoordinator{c}
		}
		if len(answers) != len(indices) {
			return nil, errForeign
		}
		for k, i := range indices {
			s.coordinatorOf(m, &out[i], answers[k])
		}
	}
	if req.Version <= 3 {
		c := out[0]
		resp.ErrorCode, resp.ErrorMessage, resp.NodeID, resp.Host, resp.Port = c.ErrorCode, c.ErrorMessage, c.NodeID, c.Host, c.Port
		return resp, nil
	}
	resp.Coordinators = out
	return resp, nil
}

// noError is what brokers say beside the code 0.
func noError(version int16) *string {
	if version <= 3 {
		return kmsg.StringPtr("NONE")
	}
	return kmsg.StringPtr("")
}

func (s *Session) coordinatorOf(m *view.Member, out *kmsg.FindCoordinatorResponseCoordinator, a kmsg.FindCoordinatorResponseCoordinator) {
	out.ErrorCode = a.ErrorCode
	if a.ErrorCode != 0 {
		out.ErrorMessage = stockText(a.ErrorCode)
		return
	}
	out.NodeID = m.VirtualNode(a.NodeID)
	out.Host, out.Port = s.client.Advertise(out.NodeID)
}
