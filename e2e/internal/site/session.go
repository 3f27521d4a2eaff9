package site

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/load"
	"tollgate.internal/e2e/internal/rawkafka"
)

// A Session is a connection that is logged in and says nothing.
type Session struct {
	Name  string
	conn  *rawkafka.Conn
	ended chan struct{}
	at    time.Time // that it was closed; to be read when ended is closed
}

// Open logs in by PLAIN.
func Open(t testing.TB, name string, target drivers.Target) *Session {
	t.Helper()
	conn, err := login(t.Context(), target)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	s := &Session{Name: name, conn: conn, ended: make(chan struct{})}
	conn.SetDeadline(time.Time{})
	go func() {
		defer close(s.ended)
		_, _ = conn.Read(make([]byte, 1))
		s.at = time.Now()
	}()
	t.Cleanup(func() {
		conn.Close()
		<-s.ended
	})
	return s
}

func login(ctx context.Context, target drivers.Target) (*rawkafka.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	target.Mechanism = "PLAIN"
	if target.From == nil {
		target.From = elsewhere()
	}
	return rawkafka.Dial(ctx, target)
}

var strangers atomic.Uint32

// elsewhere is an address that nobody has come from yet: a node slows down who comes
// from where logins failed, which is not what is tested with it.
func elsewhere() net.IP {
	n := strangers.Add(1)
	return net.IPv4(127, byte(1+n>>16), byte(n>>8), byte(n))
}

// Ended waits until the session is closed, and returns when that was.
func (s *Session) Ended(ctx context.Context) (time.Time, error) {
	select {
	case <-s.ended:
		return s.at, nil
	case <-ctx.Done():
		return time.Time{}, fmt.Errorf("%s is still open: %w", s.Name, context.Cause(ctx))
	}
}

// StillOpen is an error if the session was closed.
func (s *Session) StillOpen() error {
	select {
	case <-s.ended:
		return fmt.Errorf("%s was closed", s.Name)
	default:
		return nil
	}
}

// Refused asks whether a login is refused for its credentials. The error says that
// nobody knows: nothing answered.
func Refused(ctx context.Context, target drivers.Target) (bool, error) {
	conn, err := login(ctx, target)
	switch {
	case err == nil:
		conn.Close()
		return false, nil
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return true, nil
	}
	return false, err
}

// Eventually waits for a condition.
func Eventually(t testing.TB, what string, done func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := load.Wait(ctx, func() error { return done(ctx) }); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// An Asker asks one node, and dials it again when it went.
type Asker struct {
	target drivers.Target
	conn   *rawkafka.Conn
}

// Asker asks this node.
func (n *Node) Asker(label, user, password string) *Asker {
	return &Asker{target: n.Target(label, "PLAIN", user, password)}
}

// Ask sends a request.
func (a *Asker) Ask(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	if a.conn == nil {
		conn, err := login(ctx, a.target)
		if err != nil {
			return nil, err
		}
		a.conn = conn
	}
	resp, err := a.conn.Ask(req)
	if err != nil {
		a.Close()
	}
	return resp, err
}

// Close closes its connection, if it has one.
func (a *Asker) Close() {
	if a.conn != nil {
		a.conn.Close()
		a.conn = nil
	}
}
