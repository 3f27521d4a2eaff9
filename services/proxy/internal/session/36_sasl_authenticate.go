package session

import (
	"context"
	"encoding/binary"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/auth"
	"tollgate.internal/services/proxy/internal/refusal"
)

// SaslAuthenticate (PROTOCOL.md §F1–F5): one step of the mechanism. A refusal says
// the same for every cause, after a delay that grows with failures.

// invalidCredentials is all a client learns, as a broker says it.
const invalidCredentials = "Authentication failed during authentication due to invalid credentials"

func quote(v string) string {
	if len(v) > 64 {
		v = v[:64]
	}
	return strconv.Quote(v)
}

func saslAuthenticate(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.SASLAuthenticateRequest)
	resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
	if s.phase != handshaken {
		resp.ErrorCode, resp.ErrorMessage = s.refusedText(refusal.OutOfOrder.Tell("SaslAuthenticate without SaslHandshake"))
		return resp, nil
	}
	server, err := s.saslStep(ctx, req.SASLAuthBytes)
	if err != nil && (!auth.Verdict(err) || s.phase == authenticated) {
		return nil, err // who has proved who he is, and finds no room, may come again
	}
	if err != nil {
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		resp.ErrorMessage = kmsg.StringPtr(invalidCredentials)
		s.closing = err
		return resp, nil
	}
	resp.SASLAuthBytes, resp.ErrorMessage = server, kmsg.StringPtr("")
	if s.phase == authenticated && req.Version >= 1 {
		resp.SessionLifetimeMillis = s.lifetime().Milliseconds()
	}
	return resp, nil
}

// saslStep gives one message to the mechanism. After the last one the session is
// authenticated. An error refuses the client.
//
// Who has failed before waits before the first message is looked at, and who
// fails waits for the rest of the longer delay before hearing of it: hanging up
// and dialling again saves a guesser nothing.
func (s *Session) saslStep(ctx context.Context, msg []byte) ([]byte, error) {
	if !s.began {
		s.began = true
		s.waited = s.node.Backoff.Delay(s.client.Remote, s.vc.Name, s.exchange.Claims(msg))
		if err := s.pause(ctx, s.waited); err != nil {
			return nil, err
		}
	}
	server, done, err := s.exchange.Step(ctx, msg)
	if err != nil {
		claimed := s.exchange.Claimed()
		s.exchange = nil
		if !auth.Verdict(err) {
			return nil, err
		}
		s.node.Backoff.Failed(s.client.Remote, s.vc.Name, claimed)
		if err := s.pause(ctx, s.node.Backoff.Delay(s.client.Remote, s.vc.Name, claimed)-s.waited); err != nil {
			return nil, err
		}
		return nil, err
	}
	if !done {
		return server, nil
	}
	id, claimed := s.exchange.Identity(), s.exchange.Claimed()
	s.exchange = nil
	if s.principal != "" && id.Principal != s.principal {
		return nil, refusal.ReauthenticationMismatch.Errorf("as %s on a session of %s", id.Principal, s.principal)
	}
	s.node.Backoff.Succeeded(s.client.Remote, s.vc.Name, claimed)
	return server, s.becomes(ctx, id)
}

func (s *Session) pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// becomes makes the session authenticated. An error says that there are too many as
// the service account.
func (s *Session) becomes(ctx context.Context, id auth.Identity) error {
	first := s.principal == ""
	s.mu.Lock()
	s.identity, s.principal = id, id.Principal
	s.mu.Unlock()
	s.says(func(a *about) { a.principal, a.mechanism = id.Principal, s.proof() })
	s.phase = authenticated
	s.authenticatedAt = time.Now()
	s.reauthenticateBy = time.Time{}
	if l := s.lifetime(); l > 0 {
		s.reauthenticateBy = s.authenticatedAt.Add(l)
	}
	if first {
		s.log = s.log.With("principal", id.Principal)
		if s.client.Authenticated != nil {
			s.client.Authenticated(ctx)
		}
		if err := s.countIn(ctx, id.Account); err != nil {
			return err
		}
	}
	s.Revalidate() // the realm that judged may have been replaced meanwhile
	return nil
}

// proof is how the client has logged in.
func (s *Session) proof() string {
	switch {
	case s.mechanism != "":
		return s.mechanism
	case s.client.TLS != nil && len(s.client.TLS.ConnectionState().PeerCertificates) > 0:
		return "mTLS"
	}
	return "anonymous"
}

// lifetime is what KIP-368 calls session_lifetime_ms: until the credential ends
// or the virtual cluster's bound, 0 for none.
func (s *Session) lifetime() time.Duration {
	bound := time.Duration(s.vc.View().Spec.Authentication.MaxReauthentication)
	if !s.identity.Expires.IsZero() {
		left := max(time.Until(s.identity.Expires), time.Millisecond)
		if bound == 0 || left < bound {
			bound = left
		}
	}
	return bound
}

// expired reports whether the login has outlived its lifetime.
func (s *Session) expired() bool {
	return !s.reauthenticateBy.IsZero() && time.Now().After(s.reauthenticateBy)
}

// mayReauthenticate refuses another mechanism and more than one login a second.
func (s *Session) mayReauthenticate(mechanism string) error {
	switch {
	case mechanism != s.mechanism:
		return refusal.OutOfOrder.Errorf("re-authentication by %s on a session of %s", mechanism, s.mechanism)
	case time.Since(s.authenticatedAt) < time.Second:
		return refusal.ReauthenticationTooSoon
	}
	return nil
}

// begin logs in who needs no SASL, and asks everybody else for it.
func (s *Session) begin(ctx context.Context) error {
	if s.vc.View().Suspended {
		return refusal.TenantInactive.Errorf("tenant %s is suspended", s.vc.View().Tenant)
	}
	realm := s.vc.View().Realm
	if s.client.SASL {
		if len(realm.Mechanisms()) == 0 {
			return refusal.ProtocolNotOffered.Errorf("the listener expects SASL, and the virtual cluster has no mechanism")
		}
		return nil
	}
	if s.client.TLS != nil {
		if chain := s.client.TLS.ConnectionState().PeerCertificates; len(chain) > 0 {
			id, err := realm.FromCertificate(chain)
			if err != nil {
				return err
			}
			return s.becomes(ctx, id)
		}
	}
	id, ok := realm.Anonymous()
	switch {
	case !ok && realm.ClientCAs() != nil:
		return refusal.CertificateMissing
	case !ok:
		return refusal.ProtocolNotOffered.Errorf("the listener has no SASL, and the virtual cluster offers nothing else")
	}
	return s.becomes(ctx, id)
}

// rawToken is a step after SaslHandshake v0: length and bytes, no Kafka header, and
// no answer to a refusal but the close.
func (s *Session) rawToken(ctx context.Context, frame []byte) error {
	server, err := s.saslStep(ctx, frame[4:])
	if err != nil {
		return err
	}
	out := binary.BigEndian.AppendUint32(nil, uint32(len(server)))
	return s.Write(append(out, server...))
}
