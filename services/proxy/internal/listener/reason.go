package listener

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"

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
