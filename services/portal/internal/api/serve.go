package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// request is what is known of a request beside what it says.
type request struct {
	id      string
	address string // where it comes from
	route   string // the pattern that matched; empty: none
	caller  string // who sent it, once that is known
	cause   error  // why it failed, if the portal is to blame
}

type requestKey struct{}

func requestOf(ctx context.Context) *request {
	r, _ := ctx.Value(requestKey{}).(*request)
	if r == nil {
		r = new(request)
	}
	return r
}

// answer watches what is answered.
type answer struct {
	http.ResponseWriter
	status int
	lost   bool // the client took no more of it
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	n, err := a.ResponseWriter.Write(b)
	a.lost = a.lost || err != nil
	return n, err
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// How long an answer may take to be taken by its client, from when the request was
// read. Whatever waits, or streams, sets its own.
const writePatience = time.Minute

// ServeHTTP answers one request: everything that holds for all of them is here.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	about := &request{id: strings.ToLower(rand.Text()), address: addressOf(r, a.proxies)}
	out := &answer{ResponseWriter: w}
	r = r.WithContext(context.WithValue(r.Context(), requestKey{}, about))
	_ = http.NewResponseController(w).SetWriteDeadline(began.Add(writePatience)) // tests' recorders have none
	h := w.Header()
	h.Set("Request-Id", about.id)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	if r.TLS != nil {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	a.metrics.inFlight.Inc()
	defer func() {
		a.metrics.inFlight.Dec()
		broken := recover()
		if broken != nil {
			if err, ok := broken.(error); ok && (errors.Is(err, http.ErrAbortHandler) || out.lost) {
				about.cause = nil // the client left in the middle of its answer
			} else {
				about.cause = fmt.Errorf("panic: %v\n%s", broken, debug.Stack())
			}
			if out.status == 0 {
				p := problem(http.StatusInternalServerError, "the portal failed: its log says more about the request of this id")
				p.RequestID = about.id
				p.write(out)
				broken = nil
			}
		}
		a.record(r, about, out, time.Since(began))
		if broken != nil {
			panic(http.ErrAbortHandler) // the answer cannot be whole: the connection ends
		}
	}()
	a.route(out, r, about)
}

// route hands a request to its handler, or says that there is none.
func (a *API) route(w http.ResponseWriter, r *http.Request, about *request) {
	// ServeMux would redirect to what it takes for the same path. Whoever writes
	// //v1 or /v1/../v1 has a mistake, or intentions.
	if r.URL.Path != path.Clean(r.URL.Path) || strings.Contains(r.RequestURI, "%2f") || strings.Contains(r.RequestURI, "%2F") {
		notFound().write(w)
		return
	}
	handler, pattern := a.mux.Handler(r)
	if pattern != "" {
		_, about.route, _ = strings.Cut(pattern, " ")
		a.mux.ServeHTTP(w, r) // once more, for the values in its path
		return
	}
	// What ServeMux would answer: 404, or 405 with what is allowed.
	instead := &discarded{header: make(http.Header)}
	handler.ServeHTTP(instead, r)
	if allow := instead.header.Get("Allow"); instead.status == http.StatusMethodNotAllowed {
		problem(http.StatusMethodNotAllowed, "this path knows %s", allow).with("Allow", allow).write(w)
		return
	}
	notFound().write(w)
}

type discarded struct {
	header http.Header
	status int
}

func (d *discarded) Header() http.Header         { return d.header }
func (d *discarded) Write(b []byte) (int, error) { return len(b), nil }
func (d *discarded) WriteHeader(status int)      { d.status = status }

// record logs and counts a request once it is answered.
func (a *API) record(r *http.Request, about *request, out *answer, took time.Duration) {
	if out.status == 0 {
		out.status = http.StatusOK
	}
	route := about.route
	if route == "" {
		route = "none"
	}
	method := r.Method
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete:
	default:
		method = "other"
	}
	a.metrics.requests.WithLabelValues(method, route, strconv.Itoa(out.status)).Inc()
	a.metrics.durations.WithLabelValues(method, route).Observe(took.Seconds())

	level := slog.LevelDebug
	switch {
	case about.cause != nil:
		level = slog.LevelError
	case out.status >= 500:
		level = slog.LevelWarn
	case method != http.MethodGet && method != http.MethodHead && out.status < 400:
		level = slog.LevelInfo // somebody changed something
	}
	attributes := []slog.Attr{
		slog.String("request", about.id), slog.String("method", method), slog.String("route", route),
		slog.Int("status", out.status), slog.Duration("took", took), slog.String("address", about.address),
	}
	if about.caller != "" {
		attributes = append(attributes, slog.String("caller", about.caller))
	}
	if about.cause != nil {
		attributes = append(attributes, slog.Any("err", about.cause))
	}
	a.log.LogAttrs(r.Context(), level, "request answered", attributes...)
}
