package proxy_test

import (
	"github.com/twmb/franz-go/pkg/kmsg"
)

// login logs in by PLAIN and returns the error code.
func (r *raw) login(user, password string) int16 {
	r.t.Helper()
	handshake := kmsg.NewPtrSASLHandshakeRequest()
	handshake.Version, handshake.Mechanism = 1, "PLAIN"
	if code := r.ask(handshake).(*kmsg.SASLHandshakeResponse).ErrorCode; code != 0 {
		return code
	}
	auth := kmsg.NewPtrSASLAuthenticateRequest()
	auth.Version, auth.SASLAuthBytes = 1, []byte("\x00"+user+"\x00"+password)
	return r.ask(auth).(*kmsg.SASLAuthenticateResponse).ErrorCode
}
