package session

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/auth"
)

// SaslAuthenticate (PROTOCOL.md §F1–F5): one step of the mechanism. A refusal says
// the same for every cause, after a delay that grows with failures.

// refusedText is all a client learns, as a broker says it.
const refusedText = "Authentication failed during authentication due to invalid credentials"

var errUnjudged = errors.New("the credential could not be judged")

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
		resp.ErrorCode = kerr.IllegalSaslState.Code
		resp.ErrorMessage = kmsg.StringPtr("SaslAuthenticate without SaslHandshake")
		return resp, nil
	}
	server, err := s.saslStep(ctx, req.SASLAuthBytes)
	if errors.Is(err, errUnjudged) {
		return nil, err
	}
	if err != nil {
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		resp.ErrorMessage = kmsg.StringPtr(refusedText)
		s.closing = err.Error()
		return resp, nil
	}
	resp.SASLAuthBytes = server
	if s.phase == authenticated && req.Version >= 1 {
		resp.SessionLifetimeMillis = s.lifetime().Milliseconds()
	}
	return resp, nil
}

// saslStep gives one message to the mechanism. After the last one the session is
// authenticated. An error refuses the client.
func (s *Session) saslStep(ctx context.Context, msg []byte) ([]byte, error) {
	server, done, err := s.exchange.Step(ctx, msg)
	if err != nil {
		claimed := s.exchange.Claimed()
		s.exchange = nil
		if _, refused := errors.AsType[*auth.Refusal](err); !refused {
			// Nobody judged the credential: its issuer is down, say. Error 58
			// would be final to a client; a closed connection is tried again.
			return nil, fmt.Errorf("%w: %w", errUnjudged, err)
		}
		s.node.Backoff.Failed(s.client.Remote, s.vc.Name, claimed)
		if err := s.pause(ctx, s.node.Backoff.Delay(s.client.Remote, s.vc.Name, claimed)); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("authentication refused: %w", err)
	}
	if !done {
		return server, nil
	}
	id, claimed := s.exchange.Identity(), s.exchange.Claimed()
	s.exchange = nil
	if s.principal != "" && id.Principal != s.principal {
		return nil, fmt.Errorf("re-authentication as %s on a session of %s", id.Principal, s.principal)
	}
	s.node.Backoff.Succeeded(s.client.Remote, s.vc.Name, claimed)
	s.becomes(id)
	return server, nil
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

// becomes makes the session authenticated.
func (s *Session) becomes(id auth.Identity) {
	first := s.principal == ""
	s.mu.Lock()
	s.identity, s.principal = id, id.Principal
	s.mu.Unlock()
	s.phase = authenticated
	s.authenticatedAt = time.Now()
	s.reauthenticateBy = time.Time{}
	if l := s.lifetime(); l > 0 {
		s.reauthenticateBy = s.authenticatedAt.Add(l)
	}
	if first {
		s.log = s.log.With("principal", id.Principal)
		if s.client.Authenticated != nil {
			s.client.Authenticated()
		}
	}
}

// lifetime is what KIP-368 calls session_lifetime_ms: until the credential ends
// or the virtual cluster's bound, 0 for none.
func (s *Session) lifetime() time.Duration {
	bound := s.vc.View().Spec.Authentication.MaxReauthentication
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
func (s *Session) mayReauthenticate(mechanism string) int16 {
	if mechanism != s.mechanism || time.Since(s.authenticatedAt) < time.Second {
		return kerr.IllegalSaslState.Code
	}
	return 0
}

// begin logs in who needs no SASL, and asks everybody else for it.
func (s *Session) begin() error {
	if s.vc.View().Suspended {
		return fmt.Errorf("%w: tenant %s is suspended", errRevoked, s.vc.View().Tenant)
	}
	if s.client.SASL {
		return nil
	}
	realm := s.vc.View().Realm
	if s.client.TLS != nil {
		if chain := s.client.TLS.ConnectionState().PeerCertificates; len(chain) > 0 {
			id, err := realm.FromCertificate(chain)
			if err != nil {
				return fmt.Errorf("client certificate: %w", err)
			}
			s.becomes(id)
			return nil
		}
	}
	id, ok := realm.Anonymous()
	if !ok {
		return errors.New("no client certificate, and anonymous clients are not admitted")
	}
	s.becomes(id)
	return nil
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
