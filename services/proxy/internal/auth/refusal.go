package auth

import "tollgate.internal/services/proxy/internal/refusal"

// Verdict reports whether an error of a login is a judgement on the client: one of
// the refusals of the catalogue. Any other, [refusal.TokenKeysUnavailable] among
// them, says that its proof could not be checked now. Such a client is to find its
// connection closed, for that it tries again; an authentication error is final.
func Verdict(err error) bool {
	r := refusal.Of(err)
	return r != nil && r != refusal.TokenKeysUnavailable
}
