package listener

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"tollgate.internal/services/proxy/internal/refusal"
)

// classify finds the refusal behind a failed handshake. Errors that are refusals
// already, as those about host names, stay what they are.
func classify(err error) error {
	if refusal.Of(err) != nil {
		return err
	}
	if errors.Is(err, io.EOF) {
		return refusal.ClientGone
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return refusal.HandshakeTimeout.With(err)
	}
	if rh, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		if strings.HasPrefix(proxySignature, string(rh.RecordHeader[:])) {
			return refusal.ProxyHeaderUnlisted.With(err)
		}
		return refusal.NotTLS.With(err)
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok || errors.As(err, new(x509.UnknownAuthorityError)) {
		return refusal.ClientCertificateRefused.With(err)
	}
	// crypto/tls has no type for it.
	if strings.Contains(err.Error(), "didn't provide a certificate") {
		return refusal.ClientCertificateRefused.With(err)
	}
	return refusal.HandshakeFailed.With(err)
}

// notes logs one line per refusal and second: whoever floods the gateway with
// bad connections does not also flood its log.
type notes struct {
	log *slog.Logger

	mu   sync.Mutex
	last map[*refusal.Refusal]note
}

type note struct {
	at         time.Time
	suppressed int
}

// due reports whether a line is due, and how many there would have been since
// the last one.
func (n *notes) due(r *refusal.Refusal) (suppressed int, ok bool) {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.last == nil {
		n.last = make(map[*refusal.Refusal]note)
	}
	last := n.last[r]
	if now.Sub(last.at) < time.Second {
		last.suppressed++
		n.last[r] = last
		return 0, false
	}
	n.last[r] = note{at: now}
	return last.suppressed, true
}

func (n *notes) write(ctx context.Context, level slog.Level, msg string, err error, args ...any) {
	suppressed, ok := n.due(refusal.Of(err))
	if !ok {
		return
	}
	if suppressed > 0 {
		args = append(args, "suppressed", suppressed)
	}
	refusal.Log(ctx, n.log, level, msg, err, args...)
}
