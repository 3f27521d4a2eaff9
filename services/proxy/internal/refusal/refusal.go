// Package refusal is the catalogue of everything the gateway refuses.
//
// A refusal has two audiences. The client reads Kafka: a code, at most with a
// text in which nothing but its own virtual names occurs. The operator reads a
// log line with the refusal's id, and finds its cause and cure in
// docs/errors.md, which is generated from the catalogue.
//
// A [Refusal] is an error by itself, so the hot path returns one without
// allocating. Where something is to be said about the case at hand, [Refusal.With]
// and [Refusal.Errorf] wrap it in an [Error]; errors.Is finds the refusal in
// both. [Code] is what an error looks like to a client: an error that nobody
// catalogued is UNKNOWN_SERVER_ERROR, and its text stays here.
//
// The catalogue is closed: what is not in catalogue.go cannot be refused, and a
// metric that is labelled with [ID] has a bounded number of values.
package refusal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kerr"
)

//go:generate go run ./gen -o ../../../../docs/errors.md

// A Refusal is one entry of the catalogue.
type Refusal struct {
	ID    string      // "TG-AUTH-002": never changed, never given to another refusal
	Kafka *kerr.Error // nil: the client sees its connection closed and nothing else
	When  string      // what was refused, completing the sentence "Refused: …"
	Cause string      // what is behind it, most likely first
	Cure  string      // what the operator or the client's owner does about it
	// Routine is what happens on any day, and what clients recover from by
	// themselves: the line about it is for DEBUG.
	Routine bool
	// Unseen is what no client is told of: the gateway refuses it to itself.
	Unseen bool
}

// Error is the refusal as an operator reads it.
func (r *Refusal) Error() string { return r.ID + ": " + r.When }

// With adds the cause of this one refusal, for the operator.
func (r *Refusal) With(err error) *Error { return &Error{Refusal: r, Err: err} }

// Errorf adds the circumstances of this one refusal, for the operator.
func (r *Refusal) Errorf(format string, args ...any) *Error {
	return &Error{Refusal: r, Err: fmt.Errorf(format, args...)}
}

// Tell adds a text for the client. It must hold nothing but what the client
// knows already: its own virtual names and numbers.
func (r *Refusal) Tell(format string, args ...any) *Error {
	return &Error{Refusal: r, Text: fmt.Sprintf(format, args...)}
}

// An Error is a refusal in its circumstances.
type Error struct {
	Refusal *Refusal
	Text    string // for the client, in answers that carry a text; "" means Kafka's stock text
	Err     error  // for the operator; may be nil
}

// Error is for the operator.
func (e *Error) Error() string {
	switch {
	case e.Err != nil && e.Text != "":
		return e.Refusal.Error() + ": " + e.Text + ": " + e.Err.Error()
	case e.Err != nil:
		return e.Refusal.Error() + ": " + e.Err.Error()
	case e.Text != "":
		return e.Refusal.Error() + ": " + e.Text
	}
	return e.Refusal.Error()
}

// Unwrap makes both the refusal and its cause visible to errors.Is and As.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Refusal}
	}
	return []error{e.Refusal, e.Err}
}

// Of is the refusal in err: nil when there is none.
func Of(err error) *Refusal {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Refusal // not a refusal further down, which this one explains
	}
	r, _ := errors.AsType[*Refusal](err)
	return r
}

// ID is the id of the refusal in err: [Internal]'s when nobody catalogued err,
// "" when err is nil.
func ID(err error) string {
	if err == nil {
		return ""
	}
	if r := Of(err); r != nil {
		return r.ID
	}
	return Internal.ID
}

// Code is what err looks like to a Kafka client, 0 when err is nil.
func Code(err error) int16 {
	if err == nil {
		return 0
	}
	if r := Of(err); r != nil && r.Kafka != nil {
		return r.Kafka.Code
	}
	return kerr.UnknownServerError.Code // never the text of an internal error
}

// Text is what err says to a Kafka client in answers that carry a text beside
// the code: what [Refusal.Tell] was given, or Kafka's own words for the code.
// nil when err is nil.
func Text(err error) *string {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Text != "" {
		return &e.Text
	}
	if r := Of(err); r != nil && r.Kafka != nil {
		return &r.Kafka.Description
	}
	return &kerr.UnknownServerError.Description
}

// Closes reports whether err is seen by the client as a closed connection
// rather than as a code.
func Closes(err error) bool {
	r := Of(err)
	return r != nil && r.Kafka == nil && !r.Unseen
}

// Log writes the line that an operator looks up in docs/errors.md: msg is a
// constant, such as "request refused" or "connection refused"; args are more
// attributes.
func Log(ctx context.Context, log *slog.Logger, level slog.Level, msg string, err error, args ...any) {
	if !log.Enabled(ctx, level) {
		return
	}
	log.With("refusal", ID(err), "err", err).Log(ctx, level, msg, args...)
}
