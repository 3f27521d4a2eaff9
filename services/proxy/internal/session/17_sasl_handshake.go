package session

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
)

// SaslHandshake (PROTOCOL.md §F1, §F3): the first step of logging in, and of
// logging in again. An unknown mechanism gets the list of those there are, and
// the connection is closed after it.
func saslHandshake(s *Session, _ context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.SASLHandshakeRequest)
	resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
	realm := s.vc.View().Realm
	if s.phase == authenticated && (!s.client.SASL || req.Version == 0) {
		resp.ErrorCode = s.refused(refusal.OutOfOrder)
		return resp, nil
	}
	if s.phase == authenticated {
		if err := s.mayReauthenticate(req.Mechanism); err != nil {
			resp.ErrorCode = s.refused(err)
			return resp, nil
		}
	}
	resp.SupportedMechanisms = realm.Mechanisms()
	if !slices.Contains(resp.SupportedMechanisms, req.Mechanism) {
		s.closing = refusal.MechanismNotOffered.Errorf("%s is not among %q", quote(req.Mechanism), resp.SupportedMechanisms)
		resp.ErrorCode = refusal.Code(s.closing)
		return resp, nil
	}
	exchange, err := realm.Begin(req.Mechanism)
	if err != nil {
		return nil, err
	}
	s.exchange, s.mechanism = exchange, req.Mechanism
	s.began = false
	s.phase = handshaken
	if req.Version == 0 {
		s.phase = rawTokens
	}
	return resp, nil
}
