package auth

import (
	"errors"
	"fmt"
)

// Reason says in one word why somebody was refused: a label for metrics, from
// a closed set. A client never sees it.
type Reason string

// Every reason for a refusal.
const (
	Malformed   Reason = "malformed"
	Unsupported Reason = "unsupported"
	UnknownUser Reason = "unknown_user"
	WrongSecret Reason = "wrong_secret"
	BadToken    Reason = "bad_token"
	BadCert     Reason = "bad_certificate"
	Expired     Reason = "expired"
	Changed     Reason = "changed" // a live session lost what it was admitted by
)

// ClientMessage is what a client reads, whatever the reason.
const ClientMessage = "Authentication failed."

// ErrUnavailable is in the chain of an error that says a proof could not be
// checked now, as when an issuer's keys cannot be fetched. It is no verdict on
// the client: close the connection, and it tries again.
var ErrUnavailable = errors.New("cannot check the credential now")

// A Refusal is a verdict. Its text is for the operator, not for the client.
type Refusal struct {
	Reason Reason
	Err    error
}

func (r *Refusal) Error() string { return string(r.Reason) + ": " + r.Err.Error() }

func (r *Refusal) Unwrap() error { return r.Err }

func refuse(reason Reason, format string, args ...any) error {
	return &Refusal{Reason: reason, Err: fmt.Errorf(format, args...)}
}
