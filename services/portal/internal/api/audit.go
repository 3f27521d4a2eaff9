package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"tollgate.internal/services/portal/internal/control"
)

// AuditEntry is one line of the log: who did what to which object.
type AuditEntry struct {
	Revision  int64           `json:"revision"`
	Seq       int64           `json:"seq" doc:"Within a change of several objects."`
	Time      time.Time       `json:"time"`
	Actor     string          `json:"actor" doc:"A token's name and id, a user, or a principal of Kafka."`
	ActorKind string          `json:"actorKind" doc:"token, user, kafka or system."`
	Address   string          `json:"address,omitempty" doc:"Where it came from. Left out for tokens of a tenant."`
	Request   string          `json:"request,omitempty" doc:"What the portal's log calls the request."`
	Action    string          `json:"action"`
	Kind      string          `json:"kind"`
	Scope     string          `json:"scope,omitempty"`
	Name      string          `json:"name"`
	Tenant    string          `json:"tenant,omitempty"`
	Detail    string          `json:"detail,omitempty"`
	Before    json.RawMessage `json:"before,omitempty" doc:"What was there, without secrets."`
	After     json.RawMessage `json:"after,omitempty" doc:"What is there now, without secrets."`
}

// Event is a change as it is announced.
type Event struct {
	Revision int64     `json:"revision"`
	Seq      int64     `json:"seq" doc:"Within a change of several objects."`
	Time     time.Time `json:"time"`
	Action   string    `json:"action"`
	Kind     string    `json:"kind"`
	Scope    string    `json:"scope,omitempty"`
	Name     string    `json:"name"`
	Tenant   string    `json:"tenant,omitempty"`
}

func (a *API) auditRoutes() {
	type input struct {
		Kind   string    `query:"kind" maxLength:"249"`
		Scope  string    `query:"scope" maxLength:"249" doc:"The tenant or virtual cluster that the name is unique in."`
		Name   string    `query:"name" maxLength:"249" doc:"The whole name."`
		Tenant string    `query:"tenant" maxLength:"63" doc:"Only what is this tenant's."`
		Actor  string    `query:"actor" maxLength:"249" doc:"As the entries say it."`
		Action string    `query:"action" enum:"create,replace,delete,issue-secret,import-secret,expire-secret,revoke-secret,create-token,revoke-token,close-session,restore"`
		From   time.Time `query:"from" doc:"What happened then or later."`
		To     time.Time `query:"to" doc:"What happened before then."`
		Order  string    `query:"order" enum:"newest,oldest" doc:"newest, if nothing is said."`
		Paging
	}
	reg := a.schemas.registry
	entry := reg.Schema(reflect.TypeFor[AuditEntry](), true, "")
	list := documented{"A page; or, when Accept asks for application/x-ndjson, everything from there on, an entry a line.", a.listSchema("AuditEntryList", entry), nil, nil}
	register(a, route{
		method: http.MethodGet, path: "/v1/audit", id: "listAudit", tag: "log", summary: "Who changed what", roles: forOps | forTenant,
		description: "With Accept: application/x-ndjson the answer is a stream of entries, one a line, to its end: limit is not looked at.",
		answers:     map[int]documented{200: list},
	}, func(ctx context.Context, c *call, in *input) (*reply, error) {
		q := control.AuditQuery{
			Kind: in.Kind, Scope: in.Scope, Name: in.Name, Actor: in.Actor, Action: control.Action(in.Action),
			From: in.From, To: in.To, Oldest: in.Order == "oldest", Limit: in.limit(), After: in.After,
		}
		tenant, any := c.of(in.Tenant)
		q.Tenant = tenant
		lines := strings.Contains(c.r.Header.Get("Accept"), "ndjson")
		page, err := control.AuditPage{}, error(nil)
		if lines {
			q.Limit = control.MaxLimit
		}
		if any {
			if page, err = a.control.Audit(ctx, q); err != nil {
				return nil, inQuery(err)
			}
		}
		if lines {
			return &reply{stream: func() { a.auditLines(ctx, c, q, page) }}, nil
		}
		out := struct {
			Items []AuditEntry `json:"items"`
			Next  string       `json:"next,omitempty"`
		}{make([]AuditEntry, len(page.Entries)), page.Next}
		for i := range page.Entries {
			if out.Items[i], err = c.entry(&page.Entries[i]); err != nil {
				return nil, err
			}
		}
		return &reply{body: out}, nil
	})
	register(a, route{
		method: http.MethodGet, path: "/v1/events", id: "followEvents", tag: "log", summary: "Follow changes", roles: forOps | forTenant,
		description: "Server-sent events of type change, whose data is an Event. They begin now or, with Last-Event-ID, behind that one: none is missed, and none comes twice. A comment comes now and then to keep the connection.",
		answers:     map[int]documented{200: {"Events until the client goes, or the portal stops.", reg.Schema(reflect.TypeFor[Event](), true, ""), []string{"text/event-stream"}, nil}},
	}, func(ctx context.Context, c *call, in *eventsInput) (*reply, error) {
		return a.events(ctx, c, in)
	})
}

// auditLines writes a page and all that follow.
func (a *API) auditLines(ctx context.Context, c *call, q control.AuditQuery, page control.AuditPage) {
	c.w.Header().Set("Content-Type", typeLines)
	out := json.NewEncoder(c.w)
	out.SetEscapeHTML(false)
	deadline := http.NewResponseController(c.w)
	for {
		_ = deadline.SetWriteDeadline(time.Now().Add(writePatience)) // tests' recorders have none
		for i := range page.Entries {
			e, err := c.entry(&page.Entries[i])
			if err == nil {
				err = out.Encode(e)
			}
			if err != nil {
				panic(err) // the answer ends in the middle, and shows it
			}
		}
		if page.Next == "" {
			return
		}
		q.After = page.Next
		var err error
		if page, err = a.control.Audit(ctx, q); err != nil {
			panic(fmt.Errorf("read the audit log: %w", err))
		}
	}
}

// entry is a line of the log as the caller may see it.
func (c *call) entry(e *control.Entry) (AuditEntry, error) {
	out := AuditEntry{
		Revision: e.Revision, Seq: e.Seq, Time: e.Time, Actor: e.Actor, ActorKind: e.ActorKind, Address: e.Address, Request: e.Request,
		Action: string(e.Action), Kind: e.Kind, Scope: e.Scope, Name: e.Name, Tenant: e.Tenant, Detail: e.Detail,
		Before: e.Before, After: e.After,
	}
	if c.caller.Role == control.RoleOps {
		return out, nil
	}
	out.Address, out.Request = "", "" // it may be that of somebody else
	switch e.Action {
	case control.ActionCreate, control.ActionReplace, control.ActionDelete:
		for _, document := range []*json.RawMessage{&out.Before, &out.After} {
			if len(*document) == 0 {
				continue
			}
			less, err := redacted(e.Kind, *document)
			if err != nil {
				return AuditEntry{}, err
			}
			*document = less
		}
	}
	return out, nil
}

type eventsInput struct {
	LastEventID string `header:"Last-Event-ID" maxLength:"50" doc:"The id of the last event that was seen."`
}

// keepAlive is how often something is sent on a stream where nothing happens.
const keepAlive = 15 * time.Second

func (a *API) events(ctx context.Context, c *call, in *eventsInput) (*reply, error) {
	var (
		revision, seq int64
		err           error
	)
	if in.LastEventID == "" {
		if revision, err = a.control.Head(ctx); err != nil {
			return nil, err
		}
		revision, seq = revision+1, -1 // everything of the next change
	} else {
		first, second, ok := strings.Cut(in.LastEventID, ".")
		var errRevision, errSeq error
		revision, errRevision = strconv.ParseInt(first, 10, 64)
		seq, errSeq = strconv.ParseInt(second, 10, 64)
		if !ok || errRevision != nil || errSeq != nil || revision < 1 || seq < 0 {
			return nil, invalid(FieldError{Field: "header.Last-Event-ID", Message: "is not the id of an event: leave it out to begin now"})
		}
	}
	if c.r.Method == http.MethodHead { // it has no end to wait for
		c.w.Header().Set("Content-Type", "text/event-stream")
		return &reply{}, nil
	}
	select {
	case a.streams <- struct{}{}:
	default:
		return nil, problem(http.StatusServiceUnavailable, "%d clients follow events already: try again later", streamsAtMax).with("Retry-After", "10")
	}
	return &reply{stream: func() {
		defer func() { <-a.streams }()
		a.metrics.streams.Inc()
		defer a.metrics.streams.Dec()
		a.stream(ctx, c, revision, seq)
	}}, nil
}

// stream sends what happens behind an event, until the client goes or is told to.
func (a *API) stream(ctx context.Context, c *call, revision, seq int64) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.w.Header().Set("Content-Type", "text/event-stream")
	c.w.Header().Set("X-Accel-Buffering", "no") // proxies that gather answers would hold events back
	out := http.NewResponseController(c.w)
	send := func(format string, args ...any) bool {
		_ = out.SetWriteDeadline(time.Now().Add(writePatience)) // tests' recorders have none
		_, err := fmt.Fprintf(c.w, format, args...)
		if err == nil {
			err = out.Flush()
		}
		return err == nil
	}
	if !send(": events follow\n\n") {
		return
	}
	quiet := time.NewTicker(keepAlive)
	defer quiet.Stop()
	events := a.control.Events(ctx, revision-1)
	defer func() {
		cancel()
		for range events { // until it is closed
		}
	}()
	for {
		select {
		case e, more := <-events:
			if !more {
				return
			}
			if e.Revision == revision && e.Seq <= seq {
				continue
			}
			if !c.caller.sees(e.Tenant) {
				continue
			}
			data, err := json.Marshal(Event{
				Revision: e.Revision, Seq: e.Seq, Time: e.Time, Action: string(e.Action), Kind: e.Kind, Scope: e.Scope, Name: e.Name, Tenant: e.Tenant,
			})
			if err != nil || !send("id: %d.%d\nevent: change\ndata: %s\n\n", e.Revision, e.Seq, data) {
				return
			}
		case <-quiet.C:
			// A token that ended in the meantime follows nothing any more.
			if _, p := a.authenticate(c.r); p != nil && p.Status == http.StatusUnauthorized {
				return
			}
			if !send(":\n\n") {
				return
			}
		case <-ctx.Done():
			return
		case <-a.stopping:
			return
		}
	}
}
