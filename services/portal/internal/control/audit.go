package control

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/store"
)

// Action is what was done.
type Action string

// The actions of the log.
const (
	ActionCreate       Action = "create"
	ActionReplace      Action = "replace"
	ActionDelete       Action = "delete"
	ActionIssueSecret  Action = "issue-secret"
	ActionImportSecret Action = "import-secret"
	ActionExpireSecret Action = "expire-secret"
	ActionRevokeSecret Action = "revoke-secret"
	ActionCreateToken  Action = "create-token"
	ActionRevokeToken  Action = "revoke-token"
	ActionCloseSession Action = "close-session"

	// Of what a tenant asks to be lent. What is approved also creates a TopicGrant.
	ActionRequestGrant  Action = "request-grant"
	ActionApproveGrant  Action = "approve-grant"
	ActionRefuseGrant   Action = "refuse-grant"
	ActionWithdrawGrant Action = "withdraw-grant"

	ActionRestore Action = "restore" // the database is a copy of before, and goes on from there
)

// Entry is one line of the audit log: who did what to which object, when and from
// where. Before and After are what anybody may read of the object; a secret or a
// token is in Detail by its id.
type Entry struct {
	Revision    int64           `json:"revision"`
	Seq         int64           `json:"seq"` // within a change of several objects
	Time        time.Time       `json:"time"`
	Actor       string          `json:"actor"`
	ActorKind   string          `json:"actorKind"`
	ActorTenant string          `json:"actorTenant,omitempty"` // the tenant whose token or principal it is; empty: those who run the gateway did it
	Address     string          `json:"address,omitempty"`
	Request     string          `json:"request,omitempty"`
	Action      Action          `json:"action"`
	Kind        string          `json:"kind"`
	Scope       string          `json:"scope,omitempty"`
	Name        string          `json:"name"`
	Tenant      string          `json:"tenant,omitempty"`
	Detail      string          `json:"detail,omitempty"`
	Before      json.RawMessage `json:"before,omitempty"`
	After       json.RawMessage `json:"after,omitempty"`
}

// Key is the object that an entry is about.
func (e *Entry) Key() resource.Key {
	return resource.Key{Kind: e.Kind, Scope: e.Scope, Name: e.Name}
}

// audit adds a line, in the transaction of the change.
func (w *write) audit(ctx context.Context, action string, key resource.Key, tenant, detail, before, after string) error {
	w.some = true
	return w.tx.AddEntry(ctx, store.Entry{
		At: w.now, Actor: shown(w.actor.Name), ActorKind: shown(w.actor.Kind), ActorTenant: w.actor.Tenant, Address: shown(w.actor.Address), Request: shown(w.actor.Request),
		Action: action, Key: key, Tenant: tenant, Detail: detail, Before: before, After: after,
	})
}

// AuditQuery selects from the log. Empty fields select all.
type AuditQuery struct {
	Kind, Scope, Name string
	Tenant, Actor     string
	For               string // the tenant who asks: see Operator
	Action            Action
	From, To          time.Time // half-open
	Oldest            bool      // oldest first; otherwise newest first
	Limit             int       // 1 to MaxLimit; 0: MaxLimit
	After             string    // Next of the page before
}

// AuditPage is a part of the log.
type AuditPage struct {
	Entries []Entry
	Next    string // for the next page; empty: this was the last
}

// Operator is who changed something, as tenants may know it: any of those who run the
// gateway. A tenant asks for what they did by this name. Its own tokens and principals
// it knows by theirs; and of whoever had its name before, it knows nothing.
const Operator = "operator"

// Audit reads the log.
func (c *Control) Audit(ctx context.Context, q AuditQuery) (AuditPage, error) {
	if !storable(q.Kind, q.Scope, q.Name, q.Tenant, q.Actor, string(q.Action)) {
		return AuditPage{}, invalid("filter", "must be UTF-8 without NUL")
	}
	sq := store.EntryQuery{
		Key: resource.Key{Kind: q.Kind, Scope: q.Scope, Name: q.Name}, Tenant: q.Tenant, Actor: q.Actor, Action: string(q.Action),
		From: q.From, To: q.To, Newest: !q.Oldest,
	}
	behind, err := ParsePosition(q.After)
	if err != nil {
		return AuditPage{}, err
	}
	sq.Revision, sq.Seq = behind.Revision, behind.Seq
	switch {
	case q.For == "":
	case q.Actor == Operator:
		sq.Actor, sq.By = "", store.ByOperators
	case q.Actor != "":
		sq.By = store.ByTenant
	}
	limit := q.Limit
	if limit <= 0 || limit > MaxLimit {
		limit = MaxLimit
	}
	sq.Limit = limit + 1
	var page AuditPage
	err = c.store.Read(ctx, func(tx *store.Tx) error {
		if err := since(ctx, tx, q.For, &sq); err != nil {
			return err
		}
		entries, err := tx.Entries(ctx, sq)
		if err != nil {
			return err
		}
		page = AuditPage{}
		if len(entries) > limit {
			entries = entries[:limit]
			last := entries[limit-1]
			page.Next = Position{last.Revision, last.Seq}.String()
		}
		for _, e := range entries {
			page.Entries = append(page.Entries, entry(e))
		}
		return nil
	})
	return page, err
}

// since narrows a query down to what is of a tenant, from when it was made.
func since(ctx context.Context, tx *store.Tx, tenant string, q *store.EntryQuery) error {
	if tenant == "" {
		return nil
	}
	row, _, err := tx.Object(ctx, resource.Key{Kind: resource.KindTenant, Name: tenant})
	q.Tenant, q.Since = tenant, row.Created
	return err
}

// String is a position as pages have it; empty: where the log begins.
func (p Position) String() string {
	if p == (Position{}) {
		return ""
	}
	return cursor(strconv.FormatInt(p.Revision, 10), strconv.FormatInt(p.Seq, 10))
}

// ParsePosition reads what String writes.
func ParsePosition(text string) (p Position, err error) {
	a, b, err := openCursor(text)
	if err != nil || a == "" {
		return Position{}, err
	}
	var errRevision, errSeq error
	p.Revision, errRevision = strconv.ParseInt(a, 10, 64)
	p.Seq, errSeq = strconv.ParseInt(b, 10, 64)
	if errRevision != nil || errSeq != nil || p.Revision <= 0 {
		return Position{}, invalid("after", "is not what the page before gave: leave it out to begin anew")
	}
	return p, nil
}

func entry(e store.Entry) Entry {
	return Entry{
		Revision: e.Revision, Seq: e.Seq, Time: e.At, Actor: e.Actor, ActorKind: e.ActorKind, ActorTenant: e.ActorTenant, Address: e.Address, Request: e.Request,
		Action: Action(e.Action), Kind: e.Key.Kind, Scope: e.Key.Scope, Name: e.Key.Name, Tenant: e.Tenant, Detail: e.Detail,
		Before: raw(e.Before), After: raw(e.After),
	}
}

func raw(text string) json.RawMessage {
	if text == "" {
		return nil
	}
	return json.RawMessage(text)
}

// Head is the newest revision.
func (c *Control) Head(ctx context.Context) (int64, error) { return c.store.Head(ctx) }

// How often the store is asked whether somebody else changed something, and how
// long it is left alone when it does not answer.
const (
	pollEvery  = 200 * time.Millisecond
	retryAfter = time.Second
)

// Wait returns as soon as there is a revision above after: at once for changes of
// this Control, within a moment for those of others.
func (c *Control) Wait(ctx context.Context, after int64) (head int64, err error) {
	for {
		changed := c.watch() // before the question, so that nothing comes between
		if head, err = c.store.Head(ctx); err != nil || head > after {
			return head, err
		}
		select {
		case <-ctx.Done():
			return head, ctx.Err()
		case <-changed:
		case <-time.After(pollEvery):
		}
	}
}

func (c *Control) watch() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

func (c *Control) announce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}

// Events sends every entry of the log behind a revision, and then those that come,
// in their order and none twice, until ctx ends; then it closes the channel. While
// the database is away it waits. Whoever does not receive misses nothing: nothing
// is kept in memory for them. For a tenant these are its own; "": everybody's.
func (c *Control) Events(ctx context.Context, tenant string, after int64) <-chan Entry {
	events := make(chan Entry)
	go func() {
		defer close(events)
		revision, seq := after, int64(1)<<62 // behind everything of this revision
		for ctx.Err() == nil {
			var entries []store.Entry
			head, err := c.Wait(ctx, revision)
			if err == nil {
				entries, err = c.since(ctx, tenant, Position{revision, seq})
			}
			if err != nil {
				select {
				case <-ctx.Done():
				case <-time.After(retryAfter):
				}
				continue
			}
			if len(entries) == 0 {
				revision = head
			}
			for _, e := range entries {
				select {
				case events <- entry(e):
					revision, seq = e.Revision, e.Seq
				case <-ctx.Done():
					return
				}
			}
			if len(entries) < MaxLimit {
				seq = 1 << 62 // a change is there as a whole, so its rest was there too
			}
		}
	}()
	return events
}

func (c *Control) since(ctx context.Context, tenant string, behind Position) (entries []store.Entry, err error) {
	err = c.store.Read(ctx, func(tx *store.Tx) error {
		q := store.EntryQuery{Revision: behind.Revision, Seq: behind.Seq, Limit: MaxLimit}
		if err := since(ctx, tx, tenant, &q); err != nil {
			return err
		}
		entries, err = tx.Entries(ctx, q)
		return err
	})
	return entries, err
}
