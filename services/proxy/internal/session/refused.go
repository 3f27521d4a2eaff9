package session

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"syscall"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/netio"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/wire"
)

// Outcome is what became of a request: a label of metrics.
type Outcome uint8

// A request was answered, answered with something of it refused by the gateway, or
// its connection was closed.
const (
	OK Outcome = iota
	Refused
	Closed
	Outcomes = iota
)

func (o Outcome) String() string { return [Outcomes]string{"ok", "refused", "closed"}[o] }

// refused is the code that the client is to be answered. The operator gets a line
// with the refusal's id and with what is said about the case: why is one of the
// catalogue, perhaps with its cause. It is called by the goroutine that reads the
// client.
func (s *Session) refused(why error, args ...any) int16 {
	s.outcome = Refused
	r := refusal.Of(why)
	if s.node.Refused != nil {
		s.node.Refused(r)
	}
	level := slog.LevelWarn
	if r != nil && r.Routine {
		level = slog.LevelDebug
	}
	// What is the same in all lines of the session is in args, not in a logger of
	// its own: most lines are left out.
	args = append(args, "request", kmsg.NameForKey(s.header.key), "virtual_cluster", s.vc.Name, "principal", s.principal, "remote", s.host)
	s.node.Refusals.Write(context.Background(), level, "request refused", s.vc.Name, why, args...)
	return refusal.Code(why)
}

// refusedText is refused for answers that carry a text beside the code.
func (s *Session) refusedText(why error, args ...any) (code int16, text *string) {
	return s.refused(why, args...), refusal.Text(why)
}

// ending says why a session ended, in words of the catalogue: nil when the client
// left, or lost its connection, between two requests or within one.
func ending(err error, authenticated bool) error {
	switch {
	case err == nil || refusal.Of(err) != nil:
		return err
	case errors.Is(err, netio.ErrFrameNegative):
		return refusal.SizeInvalid.With(err)
	case errors.Is(err, netio.ErrFrameSize):
		if !authenticated {
			return refusal.TooLargeUnauthenticated.With(err)
		}
		return refusal.TooLarge.With(err)
	case errors.Is(err, wire.ErrShort):
		return refusal.Truncated.With(err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refusal.RequestTimeout.With(err)
	case errors.Is(err, errForeign):
		return refusal.AnswerInvalid.With(err)
	case errors.Is(err, upstream.ErrLost):
		return refusal.OutcomeUnknown.With(err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, errClientGone), isAlert(err):
		return nil
	}
	if _, unavailable := errors.AsType[*upstream.UnavailableError](err); unavailable {
		return refusal.BrokerUnavailable.With(err)
	}
	return refusal.Internal.With(err)
}

// brokenAnswer says why a client does not get the answer, or not all of it.
func brokenAnswer(err error) error {
	switch {
	case refusal.Of(err) != nil, errors.Is(err, errClientGone):
		return err
	case errors.Is(err, wire.ErrShort), errors.Is(err, errForeign):
		return refusal.AnswerInvalid.With(err)
	}
	return refusal.OutcomeUnknown.With(err)
}

// isAlert reports whether a client ended its TLS connection with an alert.
func isAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}
