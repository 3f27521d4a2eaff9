// Package client talks to the API of the control plane.
//
// Objects are those of package resource; what a server says beside them, such as
// status, is kept as it came, also by fields that this version does not know.
// Errors are of three kinds, to be told apart by whoever decides what happens next:
// [*Refusal], the server answered and said no; [*Unreachable], there was no answer,
// or only a part of one; anything else is this side's own.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"tollgate.internal/pkg/secret"
)

// Options say where the API is, and who asks.
type Options struct {
	Server  string // http or https URL
	Token   secret.Secret
	CAFile  string        // PEM; empty: the system's roots
	Timeout time.Duration // of one request, beside the time a server is asked to wait
}

// Client is safe for concurrent use.
type Client struct {
	unknown error // why there is no server
	server  *url.URL
	token   secret.Secret
	timeout time.Duration
	http    *http.Client
}

// maxAnswerBytes keeps what is no API from filling memory.
const maxAnswerBytes = 256 << 20

// New checks the options; it connects to nothing.
func New(o Options) (*Client, error) {
	server, err := url.Parse(o.Server)
	if err != nil || server.Host == "" || server.Scheme != "https" && server.Scheme != "http" {
		return nil, fmt.Errorf("%q is no address of a server: write https://HOST[:PORT]", o.Server)
	}
	server.RawQuery, server.Fragment, server.User = "", "", nil
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read CA certificates: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read CA certificates: %s has no PEM certificate in it", o.CAFile)
		}
	}
	timeout := o.Timeout
	if timeout == 0 {
		timeout = time.Minute
	}
	return &Client{
		server: server, token: o.Token, timeout: timeout,
		http: &http.Client{
			Transport: &http.Transport{
				Proxy:             http.ProxyFromEnvironment,
				DialContext:       (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
				TLSClientConfig:   config,
				ForceAttemptHTTP2: true,
				MaxIdleConns:      8, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute,
			},
			// A change sent elsewhere than it was meant for is worse than an error.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Unknown is a client without a server: whatever it is asked for, the answer is err.
func Unknown(err error) *Client {
	return &Client{unknown: err, server: new(url.URL), http: new(http.Client)}
}

// Server is the address, for people.
func (c *Client) Server() string { return c.server.String() }

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Unreachable is the error of a request without a whole answer.
type Unreachable struct {
	Server string
	Unsure bool // it was sent: a change may have been made
	Err    error
}

func (e *Unreachable) Error() string {
	text := fmt.Sprintf("%s cannot be reached: %v", e.Server, e.Err)
	if e.Unsure {
		text = fmt.Sprintf("no whole answer from %s: %v", e.Server, e.Err)
	}
	return text
}

func (e *Unreachable) Unwrap() error { return e.Err }

// Refusal is a server's answer that is no success (RFC 9457).
type Refusal struct {
	Method, Path string `json:"-"`

	Status    int          `json:"status"`
	Title     string       `json:"title"`
	Detail    string       `json:"detail"`
	Errors    []FieldError `json:"errors"`
	RequestID string       `json:"requestId"`
}

// FieldError is one thing to mend.
type FieldError struct {
	Object  string `json:"object"` // of several, the one that is meant, as resource.Key prints it
	Field   string `json:"field"`
	Message string `json:"message"`
	Line    int    `json:"line"` // of what was sent
}

func (f FieldError) String() string {
	var parts []string
	for _, part := range []string{f.Object, f.Field, f.Message} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

// Error is the detail and each thing to mend, one a line.
func (e *Refusal) Error() string {
	text := e.Detail
	if text == "" {
		text = fmt.Sprintf("%s %s: %d %s", e.Method, e.Path, e.Status, e.Title)
	}
	for _, f := range e.Errors {
		text += "\n  " + f.String()
	}
	if e.RequestID != "" {
		text += "\n  the server's log calls it request " + e.RequestID
	}
	return text
}

// NotApplied: the change is kept and on its way, but the time to wait for it is over.
// It stands beside a result, not in place of it.
type NotApplied struct{ Why string }

func (e *NotApplied) Error() string {
	return "the change is kept, but not every node has applied it yet: " + e.Why
}

// IsLate reports whether err says no more than that nodes take their time.
func IsLate(err error) bool {
	_, ok := errors.AsType[*NotApplied](err)
	return ok
}

// IsStatus reports whether err is a refusal with one of these statuses.
func IsStatus(err error, statuses ...int) bool {
	r, ok := errors.AsType[*Refusal](err)
	if !ok {
		return false
	}
	for _, status := range statuses {
		if r.Status == status {
			return true
		}
	}
	return false
}

// IsNotFound reports whether err says that there is no such thing.
func IsNotFound(err error) bool { return IsStatus(err, http.StatusNotFound) }

// request is one exchange with the server.
type request struct {
	method string
	path   string // escaped
	query  url.Values
	body   any           // JSON; nil: none
	match  int64         // the revision that is to be changed; 0: whatever it is
	once   bool          // doing it again does something else
	wait   time.Duration // the server was asked to wait so long
}

// do sends a request and stores the answer in what into points to, also when all it
// returns is a [*NotApplied].
func (c *Client) do(ctx context.Context, r request, into any) error {
	if c.unknown != nil {
		return c.unknown
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout+r.wait)
	defer cancel()
	response, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes+1))
	if err != nil {
		return c.noAnswer(r, err, true)
	}
	if len(data) > maxAnswerBytes {
		return fmt.Errorf("%s %s: the answer is larger than %d bytes", r.method, r.path, maxAnswerBytes)
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return c.refusal(r, response, data)
	}
	var late error
	if why := response.Header.Get("Tollgate-Applied"); r.query.Has("wait") && why != "" && why != "yes" {
		late = &NotApplied{why}
	}
	if into == nil {
		return late
	}
	if err := json.Unmarshal(data, into); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok && isJSON(response) && int(syntax.Offset) >= len(data) {
			return c.noAnswer(r, io.ErrUnexpectedEOF, true)
		}
		return fmt.Errorf("%s %s: the answer is not what Tollgate's API says (%s): is %s the API? %w", r.method, r.path, contentType(response), c.Server(), err)
	}
	return late
}

func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	var body io.Reader
	if r.body != nil {
		data, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", r.method, r.path, err)
		}
		body = bytes.NewReader(data)
	}
	address := strings.TrimSuffix(c.server.String(), "/") + r.path
	if len(r.query) > 0 {
		address += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.method, r.path, err)
	}
	req.Header.Set("Accept", "application/json, application/problem+json")
	req.Header.Set("User-Agent", "tollgate")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token := c.token.Reveal(); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if r.match != 0 {
		req.Header.Set("If-Match", fmt.Sprintf(`"%d"`, r.match))
	}
	response, err := c.http.Do(req)
	if err != nil {
		return nil, c.noAnswer(r, err, false)
	}
	return response, nil
}

// noAnswer explains why there is none.
func (c *Client) noAnswer(r request, err error, answered bool) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the method and the address are said already
	}
	op, _ := errors.AsType[*net.OpError](err)
	unsure := r.method != http.MethodGet && (answered || op == nil || op.Op != "dial")
	switch {
	case unsure && r.once:
		err = fmt.Errorf("%w: it is not known whether it was done: look before you do it again", err)
	case unsure:
		err = fmt.Errorf("%w: it is not known whether the change was made; doing it again does no harm", err)
	}
	return &Unreachable{Server: c.Server(), Unsure: unsure || answered, Err: err}
}

func isJSON(response *http.Response) bool {
	kind := contentType(response)
	return kind == "application/json" || strings.HasSuffix(kind, "+json")
}

func contentType(response *http.Response) string {
	kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil {
		return "without a content type"
	}
	return kind
}

// refusal reads an answer that is no success.
func (c *Client) refusal(r request, response *http.Response, data []byte) error {
	no := &Refusal{Method: r.method, Path: r.path}
	if isJSON(response) {
		_ = json.Unmarshal(data, no) // whatever it is, the status is known
	}
	no.Status = response.StatusCode
	if no.Title == "" {
		no.Title = http.StatusText(response.StatusCode)
	}
	switch {
	case response.StatusCode >= 300 && response.StatusCode <= 399:
		no.Detail = fmt.Sprintf("%s redirects to %s: name that server", c.Server(), response.Header.Get("Location"))
	case no.Detail == "" && !isJSON(response):
		no.Detail = fmt.Sprintf("%s %s: %d %s, and no word of Tollgate's API: is %s the API?", r.method, r.path, no.Status, no.Title, c.Server())
	}
	return no
}
