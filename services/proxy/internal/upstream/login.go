package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"

	"tollgate.internal/services/proxy/internal/refusal"
)

// session is a login whose lifetime a broker may limit (KIP-368):
//
//	valid --at 80 to 90 %--> due --renewed--> valid
//	                          \'--refused, or not in time--> closed
//
// A connection that is due takes no more requests before it has logged in again, on
// the same connection; one that is leased is so as soon as its holder, who asks Due,
// has no answer outstanding. Other connections go on meanwhile. After the lifetime a
// broker takes nothing but a new login, and closes the connection over anything else.
type session struct {
	access *access   // by which it logged in
	expire time.Time // zero: never
	again  time.Time // not to be renewed before: a broker refuses more than one renewal a second

	due   atomic.Bool
	mu    sync.Mutex // guards timer
	timer *time.Timer
	ended bool
}

// renewalPause is the least time from one renewal to the next, with some to spare.
const renewalPause = 1100 * time.Millisecond

// Due reports whether the connection is to be used no more before it has logged in
// again: given back, it does so.
func (c *Conn) Due() bool { return c.login.due.Load() }

// begun notes a login at that time, of that lifetime.
func (c *Conn) begun(at time.Time, lifetime time.Duration) {
	s := &c.login
	s.expire = time.Time{}
	s.due.Store(false)
	if lifetime <= 0 {
		return
	}
	s.expire = at.Add(lifetime)
	c.dueAt(at.Add(lifetime*8/10 + rand.N(lifetime/10+1)))
}

func (c *Conn) dueAt(due time.Time) {
	s := &c.login
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.timer = time.AfterFunc(time.Until(due), func() {
		s.due.Store(true)
		c.broker.fallDue(c)
	})
}

func (s *session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if s.timer != nil {
		s.timer.Stop()
	}
}

// errCrowded is a broker that takes no more connections for now. Amazon MSK says so
// by refusing logins with this text and no code of its own (PROTOCOL.md §D5).
var errCrowded = errors.New("too many connects")

// errNoCredential is a login that was not begun: there is nothing to log in with.
var errNoCredential = errors.New("no credential")

// authenticate logs in, by asking the broker. The name that it is called by is part of
// a Kerberos principal.
func (c *Conn) authenticate(ctx context.Context, ask func(kmsg.Request) (kmsg.Response, error)) error {
	a := c.broker.cluster.access.Load()
	c.login.access = a
	if a.sasl == nil {
		return nil
	}
	lifetime, at, err := c.sasl(ctx, a.sasl, ask)
	if err != nil {
		return err
	}
	c.begun(at, lifetime)
	return nil
}

func (c *Conn) sasl(ctx context.Context, mech sasl.Mechanism, ask func(kmsg.Request) (kmsg.Response, error)) (lifetime time.Duration, at time.Time, err error) {
	refused := func(format string, args ...any) error {
		return refusal.LoginFailed.Errorf("%s: %w", mechanismText(mech), fmt.Errorf(format, args...))
	}
	// First of all: without one the broker need not be bothered.
	dialogue, msg, err := mech.Authenticate(ctx, c.addr)
	if err != nil {
		return 0, at, refused("%w: %w", errNoCredential, err)
	}
	handshake := kmsg.NewPtrSASLHandshakeRequest()
	handshake.Version = 1
	handshake.Mechanism = mech.Name()
	resp, err := ask(handshake)
	if err != nil {
		return 0, at, fmt.Errorf("SaslHandshake: %w", err)
	}
	if answer := resp.(*kmsg.SASLHandshakeResponse); answer.ErrorCode != 0 {
		return 0, at, refused("SaslHandshake: %w: the broker offers %s", kerr.ErrorForCode(answer.ErrorCode), strings.Join(answer.SupportedMechanisms, ", "))
	}
	// GSSAPI has one more message to send when it is done.
	for done := false; !done || len(msg) > 0; {
		auth := kmsg.NewPtrSASLAuthenticateRequest()
		auth.Version = min(2, max(1, c.offers[auth.Key()].Max))
		auth.SASLAuthBytes = msg
		asked := time.Now() // the lifetime begins later than that
		resp, err := ask(auth)
		if errors.Is(err, io.EOF) { // how some brokers refuse
			return 0, at, refused("SaslAuthenticate: the broker hung up: %w", err)
		}
		if err != nil {
			return 0, at, fmt.Errorf("SaslAuthenticate: %w", err)
		}
		answer := resp.(*kmsg.SASLAuthenticateResponse)
		if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
			text := ""
			if answer.ErrorMessage != nil {
				text = *answer.ErrorMessage
			}
			if strings.Contains(strings.ToLower(text), errCrowded.Error()) {
				return 0, at, refusal.Busy.With(errCrowded)
			}
			// What it was made from may be good no longer.
			if r, ok := mech.(interface{ Refused() }); ok {
				r.Refused()
			}
			if text != "" {
				return 0, at, refused("SaslAuthenticate: %w (%s)", err, text)
			}
			return 0, at, refused("SaslAuthenticate: %w", err)
		}
		msg = nil
		if !done {
			if done, msg, err = dialogue.Challenge(answer.SASLAuthBytes); err != nil {
				return 0, at, refused("%w", err)
			}
		}
		if answer.SessionLifetimeMillis > 0 {
			lifetime, at = time.Duration(answer.SessionLifetimeMillis)*time.Millisecond, asked
		}
	}
	return lifetime, at, nil
}

// renew logs in again on a connection that has nothing in flight. An error has ended
// the connection.
func (c *Conn) renew(ctx context.Context) error {
	b := c.broker
	ctx, cancel := context.WithTimeout(ctx, b.cluster.cfg.DialTimeout)
	defer cancel()
	before := c.login.access
	err := c.renewal(ctx)
	now := b.cluster.access.Load()
	switch {
	case err == nil:
		b.cluster.renewals.Add(1)
		_ = b.noteLogin(nil)
		return nil
	case errors.Is(err, errNoCredential) && c.dead() == nil && time.Until(c.login.expire) > 2*renewalPause:
		// Nothing was sent, and what there is is good for a while yet.
		c.login.due.Store(false)
		c.dueAt(time.Now().Add(renewalPause))
		_ = b.noteLogin(err)
		b.reportRenewal(ctx, err)
		return nil
	}
	c.fail(err)
	if now == before && b.cluster.ctx.Err() == nil { // else as somebody else: the next connection will
		_ = b.noteLogin(err)
		b.reportRenewal(ctx, err)
	}
	return err
}

func (c *Conn) renewal(ctx context.Context) error {
	if err := c.dead(); err != nil {
		return err
	}
	a := c.broker.cluster.access.Load()
	if a.sasl == nil || c.login.access.sasl == nil || a.sasl.Name() != c.login.access.sasl.Name() {
		return errors.New("the gateway logs in by another mechanism now")
	}
	ask := func(req kmsg.Request) (kmsg.Response, error) {
		return c.exchange(ctx, OwnClientID, req, c.broker.cluster.cfg.DialTimeout)
	}
	for tries := 0; ; tries++ {
		if wait := time.Until(c.login.again); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		c.login.again = time.Now().Add(renewalPause)
		err := c.authenticate(ctx, ask)
		if tries > 0 || !errors.Is(err, kerr.IllegalSaslState) {
			return err
		}
		// Too soon after the last; the connection is none the worse for it.
	}
}

// reportRenewal logs that a connection could not log in again.
func (b *Broker) reportRenewal(ctx context.Context, err error) {
	if refusal.Of(err) == refusal.LoginFailed && b.reportLogin(cause(err)) {
		b.report(ctx, "broker connection could not log in again", err)
	}
}

// logins is what became of a cluster's logins. While they fail, one at a time is
// tried, and less and less often: a password that is wrong at one broker is wrong at
// all of them, and an account may be locked over it.
type logins struct {
	failed atomic.Uint64

	mu      sync.Mutex
	last    error // nil: the last one went well
	backoff time.Duration
	until   time.Time        // no dials
	told    map[int32]string // the causes that were logged, by node
}

const (
	minLoginBackoff = 250 * time.Millisecond
	maxLoginBackoff = 10 * time.Second
)

// noteLogin keeps what became of a login, and returns it. An error that is not about
// logging in says nothing of it.
func (b *Broker) noteLogin(err error) error {
	l := &b.cluster.logins
	switch {
	case err == nil:
		l.mu.Lock()
		l.last, l.backoff, l.until = nil, 0, time.Time{}
		delete(l.told, b.ID)
		l.mu.Unlock()
	case refusal.Of(err) == refusal.LoginFailed:
		l.failed.Add(1)
		l.mu.Lock()
		l.last = err
		if now := time.Now(); now.After(l.until) { // not one of many that failed together
			l.backoff = min(max(2*l.backoff, minLoginBackoff), maxLoginBackoff)
			l.until = now.Add(jittered(l.backoff))
		}
		l.mu.Unlock()
	}
	return err
}

// loginPause is how long nobody is to try to log in, and why.
func (c *Cluster) loginPause(now time.Time) (time.Duration, error) {
	l := &c.logins
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until.Sub(now), l.last
}

// forgiveLogins lets the next one be tried at once.
func (c *Cluster) forgiveLogins() {
	l := &c.logins
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last, l.backoff, l.until = nil, 0, time.Time{} // it may be another credential
	clear(l.told)
}

// reportLogin reports whether a failed login is to be logged: it fails for another
// cause than the one before, and no other broker gives the same.
func (b *Broker) reportLogin(why string) bool {
	l := &b.cluster.logins
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, told := range l.told {
		if told == why {
			return false
		}
	}
	if l.told == nil {
		l.told = make(map[int32]string)
	}
	l.told[b.ID] = why
	return true
}

// Logins are those that failed, and why the last one did; nil once one went well.
func (c *Cluster) Logins() (failed uint64, last error) {
	l := &c.logins
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed.Load(), l.last
}

// mechanismText is what a mechanism says of itself, without the secret.
func mechanismText(mech sasl.Mechanism) string {
	if s, ok := mech.(fmt.Stringer); ok {
		return s.String()
	}
	return mech.Name()
}

// untrusted makes a failed login of an error of TLS that is about a certificate: the
// cluster's, or the gateway's, which a broker may judge after the handshake only.
func untrusted(err error) error {
	if refusal.Of(err) != nil {
		return err
	}
	if remote, ok := errors.AsType[*net.OpError](err); ok && remote.Op == "remote error" { // an alert, as crypto/tls tells it
		return refusal.LoginFailed.With(fmt.Errorf("the broker ended TLS: %w", remote.Err))
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return refusal.LoginFailed.With(err)
	}
	return err
}
