package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/control"
	"tollgate.internal/services/portal/internal/store"
)

// Config is what the API works with.
type Config struct {
	Control *control.Control
	Fleet   Fleet        // nil: there are no nodes
	Audit   func() error // why the audit log is not exported; nil: it is not meant to be
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil: counted for nobody
	Version string                // of the program

	// TrustedProxies are the networks of load balancers, who say where requests come from.
	TrustedProxies []netip.Prefix

	// Stopping is closed when the server is to stop: whatever waits or streams ends.
	Stopping <-chan struct{}
}

// API answers requests. It is an http.Handler.
type API struct {
	control  *control.Control
	fleet    Fleet
	audit    func() error
	log      *slog.Logger
	metrics  *metrics
	version  string
	stopping <-chan struct{}
	proxies  []netip.Prefix

	mux      *http.ServeMux
	huma     huma.API
	schemas  *schemas
	document []byte // openapi.json
	docs     page
	limiter  *limiter
	asking   *asking
	large    chan struct{} // who works on a large body at the same time
	streams  *followers
	now      func() time.Time
}

// What the portal does for all clients at the same time.
const (
	largeBody       = 256 << 10
	largeAtOnce     = 4
	streamsAtMax    = 500
	streamsOfTenant = 20
)

// New makes the API, its document and its page.
func New(c Config) *API {
	a := &API{
		control: c.Control, fleet: c.Fleet, audit: c.Audit, log: c.Log, metrics: newMetrics(c.Metrics), version: c.Version, stopping: c.Stopping, proxies: c.TrustedProxies,
		mux: http.NewServeMux(), now: time.Now,
		large: make(chan struct{}, largeAtOnce), streams: &followers{of: make(map[string]int)},
	}
	if a.fleet == nil {
		a.fleet = noFleet{}
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	a.limiter = newLimiter(a.now)
	a.asking = &asking{now: a.now, due: make(map[string]time.Time)}
	registry := huma.NewMapRegistry(schemaPrefix, schemaName)
	a.huma = humago.New(a.mux, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Tollgate", Version: c.Version,
				Description: "Tenants, their virtual Kafka clusters and everything in them. Objects have one shape here, in files and in the CLI: apiVersion, kind, metadata, spec and, when they are read, status.",
			},
			Components: &huma.Components{
				Schemas: registry,
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"token": {Type: "http", Scheme: "bearer", BearerFormat: "tg_<id>_<secret>", Description: "A token of POST /v1/tokens."},
				},
			},
			Security: []map[string][]string{{"token": {}}},
		},
		Formats:                      map[string]huma.Format{typeJSON: huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                typeJSON,
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{asProblem},
	})
	a.huma.UseMiddleware(a.guard)
	a.schemas = newSchemas(registry, func(kind string) reflect.Type {
		if kind == resource.KindServiceAccount {
			return reflect.TypeFor[accountStatus]()
		}
		return reflect.TypeFor[objectStatus]()
	})
	a.routes()
	a.schemas.finish()
	a.huma.OpenAPI().Tags = tags
	var err error
	if a.document, err = json.Marshal(a.huma.OpenAPI()); err != nil {
		panic(err) // all of it is ours
	}
	a.docs = newPage(a.huma.OpenAPI())
	return a
}

// routes are all there are.
func (a *API) routes() {
	for _, kind := range resource.Kinds {
		a.objectRoutes(kind)
	}
	a.secretRoutes()
	a.grantRoutes()
	a.applyRoute()
	a.aclRoute()
	a.tokenRoutes()
	a.nodeRoutes()
	a.sessionRoutes()
	a.auditRoutes()
	a.openRoutes()
}

var tags = []*huma.Tag{
	{Name: "objects", Description: "The resources, kind by kind."},
	{Name: "apply", Description: "Many objects at once."},
	{Name: "secrets", Description: "What local service accounts log in with. Shown once; only what verifies them is kept."},
	{Name: "requests", Description: "What tenants ask to be lent, and what those who run the gateway say to it."},
	{Name: "tokens", Description: "Who may call this API. Shown once."},
	{Name: "fleet", Description: "The nodes that serve clients, and the clients that are connected."},
	{Name: "log", Description: "What changed, and what changes."},
	{Name: "proxies", Description: "What proxies ask for, with a token of scope node."},
	{Name: "open", Description: "What needs no token."},
}

// role is who may call an operation. Whoever may not finds nothing there.
type role int

const (
	forOps    role = 1 << iota
	forTenant      // sees what belongs to one tenant
	forNode
)

// route is one operation.
type route struct {
	method, path, id, tag, summary, description string

	roles    role
	write    bool               // a read-only token is refused
	body     *huma.Schema       // nil: there is none
	types    []string           // media types of the body; nil: JSON
	limit    int64              // of the body; 0: maxObjectBytes
	optional bool               // the body may be missing
	answers  map[int]documented // what it answers when all is well
}

// documented documents an answer.
type documented struct {
	description string
	schema      *huma.Schema
	types       []string // nil: JSON
	headers     []string
}

// call is one request on its way, and who sent it.
type call struct {
	r      *http.Request
	w      http.ResponseWriter
	caller caller
	view   view // what the caller sees
	body   body
	done   func() // with the body, if it is a large one
}

// reply is what an operation answers when all is well.
type reply struct {
	status int // 0: 200
	body   any // nil: none
	stream func()
}

type output struct {
	Status int
	Body   func(huma.Context)
}

type callKey struct{}

var pathParameter = regexp.MustCompile(`\{[^}]+\}`)

// register adds an operation. I has its parameters, but for those in the path.
func register[I any](a *API, rt route, handle func(ctx context.Context, c *call, in *I) (*reply, error)) {
	op := huma.Operation{
		Method: rt.method, Path: rt.path, OperationID: rt.id, Tags: []string{rt.tag}, Summary: rt.summary, Description: rt.description,
		Responses: map[string]*huma.Response{
			"default": {
				Description: "A problem (RFC 9457).",
				Content:     map[string]*huma.MediaType{problemType: {Schema: a.schemas.registry.Schema(reflect.TypeFor[Problem](), true, "")}},
			},
		},
		Metadata:         map[string]any{"route": &rt},
		SkipValidateBody: true,
	}
	if rt.roles == 0 {
		op.Security = []map[string][]string{} // overrides that of the whole document
	}
	for _, name := range pathParameter.FindAllString(rt.path, -1) {
		name = strings.Trim(name, "{}")
		op.Parameters = append(op.Parameters, &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString, MinLength: ptr(1), MaxLength: ptr(249)}})
	}
	if rt.body != nil {
		op.RequestBody = &huma.RequestBody{Required: !rt.optional, Content: make(map[string]*huma.MediaType)}
		if rt.types == nil {
			rt.types = []string{typeJSON}
		}
		for _, t := range rt.types {
			op.RequestBody.Content[t] = &huma.MediaType{Schema: rt.body}
		}
		if rt.limit == 0 {
			rt.limit = maxObjectBytes
		}
	}
	for status, answers := range rt.answers {
		response := &huma.Response{Description: answers.description}
		if answers.schema != nil {
			if answers.types == nil {
				answers.types = []string{typeJSON}
			}
			response.Content = make(map[string]*huma.MediaType)
			for _, t := range answers.types {
				response.Content[t] = &huma.MediaType{Schema: answers.schema}
			}
		}
		for _, header := range answers.headers {
			if response.Headers == nil {
				response.Headers = make(map[string]*huma.Param)
			}
			response.Headers[header] = &huma.Param{Description: headers[header], Schema: &huma.Schema{Type: huma.TypeString}}
		}
		op.Responses[strconv.Itoa(status)] = response
		if op.DefaultStatus == 0 || status < op.DefaultStatus {
			op.DefaultStatus = status
		}
	}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*output, error) {
		c := ctx.Value(callKey{}).(*call)
		re, err := handle(ctx, c, in)
		if err != nil {
			return nil, a.fail(ctx, err)
		}
		return &output{Status: re.status, Body: func(huma.Context) { re.write(c.w) }}, nil
	})
}

func (re *reply) write(w http.ResponseWriter) {
	if re.stream != nil {
		re.stream()
		return
	}
	status := re.status
	if status == 0 {
		status = http.StatusOK
	}
	if re.body == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", typeJSON)
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(re.body) // a client that is gone reads nothing
}

// headers are the ones of answers.
var headers = map[string]string{
	"ETag":             "The object's revision in quotes, for If-Match. Two are equal or not; to a token of a tenant they have no order.",
	"Location":         "Where the new object is.",
	"Tollgate-Change":  "created, replaced, unchanged or deleted; in a dry run what would have been.",
	"Tollgate-Applied": "With wait=applied: yes, or why not yet.",
}

func ptr[T any](v T) *T { return &v }

// refused is what is up to the client: nil if it is something else.
func refused(err error) *Problem {
	if _, ok := errors.AsType[*control.NotFound](err); ok {
		return notFound()
	}
	if e, ok := errors.AsType[*control.Exists](err); ok {
		return problem(http.StatusPreconditionFailed, "%v", e)
	}
	if e, ok := errors.AsType[*control.Invalid](err); ok {
		return invalid(fieldErrors(e.Problems, false)...)
	}
	if e, ok := errors.AsType[*control.Referenced](err); ok {
		p := problem(http.StatusConflict, "%v", e)
		for _, by := range e.By {
			p.Errors = append(p.Errors, FieldError{Object: by.String(), Message: "refers to it"})
		}
		return p
	}
	if e, ok := errors.AsType[*control.Forbidden](err); ok {
		return problem(http.StatusForbidden, "%v", e)
	}
	_, conflict := errors.AsType[*control.Conflict](err)
	if _, ok := errors.AsType[*control.Refused](err); ok || conflict {
		return problem(http.StatusConflict, "%v", err)
	}
	return nil
}

// fail is an error as clients see it. What is nobody's business stays in the log.
func (a *API) fail(ctx context.Context, err error) error {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if p := refused(err); p != nil {
		return p
	}
	about := requestOf(ctx)
	var p *Problem
	switch {
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		p = problem(http.StatusServiceUnavailable, "the request ended before its answer") // nobody reads it
		p.RequestID = about.id
		return p
	case errors.Is(err, store.ErrFull):
		p = problem(http.StatusInsufficientStorage, "%v: nothing of this change was kept", store.ErrFull)
	case errors.Is(err, store.ErrUnknown):
		p = problem(http.StatusServiceUnavailable, "%v: look, or do it again, which does no harm", store.ErrUnknown)
	case errors.Is(err, store.ErrBusy):
		p = problem(http.StatusServiceUnavailable, "%v: nothing of this change was kept, so do it again", store.ErrBusy).with("Retry-After", "1")
	case errors.Is(err, store.ErrUnavailable):
		p = problem(http.StatusServiceUnavailable, "%v: do it again later", store.ErrUnavailable).with("Retry-After", "2")
	case errors.Is(err, errNoFleet):
		p = problem(http.StatusServiceUnavailable, "%v", errNoFleet).with("Retry-After", "2")
	default:
		p = problem(http.StatusInternalServerError, "the portal failed: its log says more about the request of this id")
	}
	p.RequestID = about.id
	about.cause = err
	return p
}
