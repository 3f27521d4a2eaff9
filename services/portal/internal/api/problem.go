package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"tollgate.internal/pkg/resource"
)

// Problem is an error as clients read it (RFC 9457). Its type is about:blank: the
// title is the status, and what to do is in the detail and the errors.
type Problem struct {
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail,omitempty" doc:"What went wrong, and what helps."`
	Errors    []FieldError `json:"errors,omitempty" doc:"Everything that is wrong with what was sent."`
	RequestID string       `json:"requestId,omitempty" doc:"What the log of the portal calls this request: only where the fault is the portal's."`

	header http.Header
}

// FieldError is one thing to mend.
type FieldError struct {
	Field   string `json:"field,omitempty" doc:"Path of the field, such as spec.clusters[0]; query.limit for a parameter; missing for the body as a whole."`
	Message string `json:"message"`
	Object  string `json:"object,omitempty" doc:"Of several objects, the one that is meant: kind, name and where it belongs."`
	Line    int    `json:"line,omitempty" doc:"Line of the body, counted from 1: only for YAML, and for several objects."`
}

func (p *Problem) Error() string {
	return cmp.Or(p.Detail, p.Title)
}

// GetStatus and GetHeaders are what huma asks of an error.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders are sent with the problem.
func (p *Problem) GetHeaders() http.Header { return p.header }

// ContentType is the media type of problems.
func (p *Problem) ContentType(string) string { return problemType }

const problemType = "application/problem+json"

func problem(status int, format string, args ...any) *Problem {
	return &Problem{Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

func (p *Problem) with(name, value string) *Problem {
	if p.header == nil {
		p.header = make(http.Header)
	}
	p.header.Set(name, value)
	return p
}

// notFound is the one answer for what is not there, and for what is not there for
// the caller. Nothing in it comes from the request.
func notFound() *Problem {
	return problem(http.StatusNotFound, "there is no such thing, or not for this token")
}

func invalid(errors ...FieldError) *Problem {
	p := problem(http.StatusUnprocessableEntity, "what was sent has mistakes: see errors")
	p.Errors = errors
	return p
}

// fieldErrors are the problems of one document, or of several, where lines matter.
func fieldErrors(problems resource.Problems, lines bool) []FieldError {
	out := make([]FieldError, len(problems))
	for i, one := range problems {
		out[i] = FieldError{Field: one.Field, Message: one.Message}
		if lines {
			out[i].Line = one.Line
		}
	}
	return out
}

// asProblem is a transformer of huma's: what it says of parameters in its own form
// goes out in ours.
func asProblem(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	if m.Status >= http.StatusInternalServerError {
		return problem(m.Status, "the portal failed"), nil // never the text of an internal error
	}
	p := problem(m.Status, "%s", m.Detail)
	if m.Status == http.StatusUnprocessableEntity {
		p = invalid()
	}
	for _, e := range m.Errors {
		p.Errors = append(p.Errors, FieldError{Field: e.Location, Message: e.Message})
	}
	return p, nil
}

// write answers a problem outside of huma.
func (p *Problem) write(w http.ResponseWriter) {
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and numbers
	}
	for name, values := range p.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // a client that is gone reads nothing
}
