package session

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// SaslHandshake (PROTOCOL.md §F1, §F3): the first step of logging in, and of
// logging in again. An unknown mechanism gets the list of those there are, and
// the connection is closed after it.
func saslHandshake(s *Session, _ context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.SASLHandshakeRequest)
	resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
	realm := s.vc.View().Realm
	if s.phase == authenticated && (!s.client.SASL || req.Version == 0) {
		resp.ErrorCode = kerr.IllegalSaslState.Code
		return resp, nil
	}
	resp.SupportedMechanisms = realm.Mechanisms()
	if !slices.Contains(resp.SupportedMechanisms, req.Mechanism) {
		resp.ErrorCode = kerr.UnsupportedSaslMechanism.Code
		s.closing = "SASL mechanism " + quote(req.Mechanism) + " is not offered"
		return resp, nil
	}
	if s.phase == authenticated {
		if code := s.mayReauthenticate(req.Mechanism); code != 0 {
			resp.ErrorCode = code
			return resp, nil
		}
	}
	exchange, err := realm.Begin(req.Mechanism)
	if err != nil {
		return nil, err
	}
	s.exchange, s.mechanism = exchange, req.Mechanism
	s.phase = handshaken
	if req.Version == 0 {
		s.phase = rawTokens
	}
	return resp, nil
}
