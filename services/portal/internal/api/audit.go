package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"tollgate.internal/services/portal/internal/control"
)

// AuditEntry is one line of the log: who did what to which object.
type AuditEntry struct {
	Revision  Revision        `json:"revision" doc:"To a token of a tenant it says which changes are the same one, and not which is newer."`
	Seq       int64           `json:"seq" doc:"Of an entry within its change; to a token of a tenant, in no order."`
	Time      time.Time       `json:"time"`
	Actor     string          `json:"actor" doc:"A token's name and id, a user, or a principal of Kafka. To a token of a tenant: operator, unless it was one of the tenant's own."`
	ActorKind string          `json:"actorKind" doc:"token, user, kafka or system; operator."`
	Address   string          `json:"address,omitempty" doc:"Where it came from. An operator's is left out."`
	Request   string          `json:"request,omitempty" doc:"What the portal's log calls the request. An operator's is left out."`
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
	Revision Revision  `json:"revision" doc:"To a token of a tenant it says which events are of the same change, and not which is newer."`
	Seq      int64     `json:"seq" doc:"Of an event within its change; to a token of a tenant, in no order."`
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
		Action string    `query:"action" enum:"create,replace,delete,issue-secret,import-secret,expire-secret,revoke-secret,create-token,revoke-token,close-session,request-grant,approve-grant,refuse-grant,withdraw-grant,restore"`
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
		if lines {
			q.Limit = control.MaxLimit
		}
		page := auditPage{Items: []AuditEntry{}}
		if any {
			var err error
			if page.Items, page.Next, err = c.view.audit(ctx, q); err != nil {
				return nil, inQuery(err)
			}
		}
		if lines {
			return &reply{stream: func() { auditLines(ctx, c, q, page) }}, nil
		}
		return &reply{body: page}, nil
	})
	register(a, route{
		method: http.MethodGet, path: "/v1/events", id: "followEvents", tag: "log", summary: "Follow changes", roles: forOps | forTenant,
		description: "Server-sent events of type change, whose data is an Event. They begin now or, with Last-Event-ID, behind that one: none is missed, and none comes twice. A comment comes now and then to keep the connection.",
		answers:     map[int]documented{200: {"Events until the client goes, or the portal stops.", reg.Schema(reflect.TypeFor[Event](), true, ""), []string{"text/event-stream"}, nil}},
	}, func(ctx context.Context, c *call, in *eventsInput) (*reply, error) {
		return a.events(ctx, c, in)
	})
}

// auditPage is a part of the log.
type auditPage struct {
	Items []AuditEntry `json:"items"`
	Next  string       `json:"next,omitempty"`
}

// auditLines writes a page and all that follow.
func auditLines(ctx context.Context, c *call, q control.AuditQuery, page auditPage) {
	c.w.Header().Set("Content-Type", typeLines)
	out := json.NewEncoder(c.w)
	out.SetEscapeHTML(false)
	deadline := http.NewResponseController(c.w)
	for {
		_ = deadline.SetWriteDeadline(time.Now().Add(writePatience)) // tests' recorders have none
		for i := range page.Items {
			if err := out.Encode(&page.Items[i]); err != nil {
				panic(err) // the answer ends in the middle, and shows it
			}
		}
		if page.Next == "" {
			return
		}
		q.After = page.Next
		var err error
		if page.Items, page.Next, err = c.view.audit(ctx, q); err != nil {
			panic(fmt.Errorf("read the audit log: %w", err))
		}
	}
}

type eventsInput struct {
	LastEventID string `header:"Last-Event-ID" maxLength:"50" doc:"The id of the last event that was seen."`
}

// keepAlive is how often something is sent on a stream where nothing happens.
const keepAlive = 15 * time.Second

func (a *API) events(ctx context.Context, c *call, in *eventsInput) (*reply, error) {
	head, err := a.control.Head(ctx)
	if err != nil {
		return nil, err
	}
	behind := control.Position{Revision: head + 1, Seq: -1} // everything of the next change
	if in.LastEventID != "" {
		first, second, ok := strings.Cut(in.LastEventID, ".")
		revision, errRevision := strconv.ParseInt(first, 10, 64)
		seq, errSeq := strconv.ParseInt(second, 10, 64)
		ok = ok && errRevision == nil && errSeq == nil && revision > 0 && seq >= 0
		// One that is yet to come was not seen, and would be waited for without an end.
		if behind = c.view.meantAt(Revision(revision), seq); !ok || behind.Revision > head {
			return nil, invalid(FieldError{Field: "header.Last-Event-ID", Message: "is not the id of an event: leave it out to begin now"})
		}
	}
	if c.r.Method == http.MethodHead { // it has no end to wait for
		c.w.Header().Set("Content-Type", "text/event-stream")
		return &reply{}, nil
	}
	// How many others do is not said, nor does one tenant take the place of all.
	if !a.streams.enter(c.caller.tenant()) {
		return nil, problem(http.StatusServiceUnavailable, "events are followed too often already: close a stream, or try again later").with("Retry-After", "10")
	}
	return &reply{stream: func() {
		defer a.streams.leave(c.caller.tenant())
		a.metrics.streams.Inc()
		defer a.metrics.streams.Dec()
		a.stream(ctx, c, behind)
	}}, nil
}

// followers counts who follows events.
type followers struct {
	mu  sync.Mutex
	all int
	of  map[string]int // by tenant; of those who run the gateway under ""
}

// enter reports whether there is room for one more.
func (f *followers) enter(tenant string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == streamsAtMax || tenant != "" && f.of[tenant] == streamsOfTenant {
		return false
	}
	f.all++
	f.of[tenant]++
	return true
}

func (f *followers) leave(tenant string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all--
	if f.of[tenant]--; f.of[tenant] == 0 {
		delete(f.of, tenant)
	}
}

// stream sends what happens behind an event, until the client goes or is told to.
func (a *API) stream(ctx context.Context, c *call, behind control.Position) {
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
	events := c.view.events(ctx, behind)
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
			if e.Revision == behind.Revision && e.Seq <= behind.Seq || !c.caller.sees(e.Tenant) {
				continue
			}
			revision, seq := c.view.shownAt(e.Position())
			data, err := json.Marshal(Event{
				Revision: revision, Seq: seq, Time: e.Time, Action: string(e.Action), Kind: e.Kind, Scope: e.Scope, Name: e.Name, Tenant: e.Tenant,
			})
			if err != nil || !send("id: %d.%d\nevent: change\ndata: %s\n\n", revision, seq, data) {
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
