package store

import (
	"context"
	"strings"
	"time"

	"tollgate.internal/pkg/resource"
)

// Entry is one line of the log of changes.
type Entry struct {
	Revision, Seq                      int64
	At                                 time.Time
	Actor, ActorKind, Address, Request string
	ActorTenant                        string // whose the actor is; "": those who run the gateway
	Action                             string
	Key                                resource.Key
	Tenant                             string
	Detail                             string // about what is no object: a secret's id, say
	Before, After                      string // JSON; "": nothing was there, or is
}

const entryColumns = "revision, seq, at, actor, actor_kind, actor_tenant, address, request, action, kind, scope, name, tenant, detail, before, after"

// AddEntry adds to the log, under the revision of the change.
func (t *Tx) AddEntry(ctx context.Context, e Entry) error {
	err := t.do(ctx, "INSERT INTO audit ("+entryColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		t.Revision, t.seq, micros(e.At), e.Actor, e.ActorKind, e.ActorTenant, e.Address, e.Request, e.Action,
		e.Key.Kind, e.Key.Scope, e.Key.Name, e.Tenant, e.Detail, e.Before, e.After)
	t.seq++
	return err
}

// EntryQuery selects from the log. Empty fields select all.
type EntryQuery struct {
	Key           resource.Key // every field for itself
	Tenant, Actor string
	By            By
	Action        string
	From, To      time.Time // half-open
	Since         int64     // only of this revision and those behind it
	Newest        bool      // newest first
	Revision, Seq int64     // only what comes behind this entry
	Limit         int
}

// By is who changed something, as far as the tenant may know whose it is.
type By uint8

// Who changed something.
const (
	ByAnybody   By = iota
	ByTenant       // its own tokens and principals
	ByOperators    // those who run the gateway
)

// Entries lists the log in its order.
func (t *Tx) Entries(ctx context.Context, q EntryQuery) (all []Entry, err error) {
	conditions, args := []string{"1 = 1"}, []any(nil)
	// Of a tenant's log no more is read than that tenant's entries, whatever it asks for:
	// how long others' would take is no business of its own. An index serves columns, and
	// no expressions.
	plain := ""
	if q.Tenant != "" {
		conditions, args, plain = append(conditions, "tenant = ?"), append(args, q.Tenant), " || ''"
	}
	for _, c := range []struct{ column, value string }{
		{"kind", q.Key.Kind}, {"scope", q.Key.Scope}, {"name", q.Key.Name}, {"actor", q.Actor}, {"action", q.Action},
	} {
		if c.value != "" {
			conditions, args = append(conditions, c.column+plain+" = ?"), append(args, c.value)
		}
	}
	switch q.By {
	case ByTenant:
		conditions, args = append(conditions, "actor_tenant = ?"), append(args, q.Tenant)
	case ByOperators:
		conditions = append(conditions, "actor_tenant = ''")
	}
	if q.Since > 0 {
		conditions, args = append(conditions, "revision >= ?"), append(args, q.Since)
	}
	if !q.From.IsZero() {
		conditions, args = append(conditions, "at >= ?"), append(args, micros(q.From))
	}
	if !q.To.IsZero() {
		conditions, args = append(conditions, "at < ?"), append(args, micros(q.To))
	}
	order, behind := "", ">"
	if q.Newest {
		order, behind = " DESC", "<"
	}
	if q.Revision > 0 {
		conditions, args = append(conditions, "(revision, seq) "+behind+" (?, ?)"), append(args, q.Revision, q.Seq)
	}
	query := "SELECT " + entryColumns + " FROM audit WHERE " + strings.Join(conditions, " AND ") + " ORDER BY revision" + order + ", seq" + order
	if q.Limit > 0 {
		query, args = query+" LIMIT ?", append(args, q.Limit)
	}
	err = t.query(ctx, func(scan func(...any) error) error {
		var e Entry
		var at int64
		err := scan(&e.Revision, &e.Seq, &at, &e.Actor, &e.ActorKind, &e.ActorTenant, &e.Address, &e.Request, &e.Action,
			&e.Key.Kind, &e.Key.Scope, &e.Key.Name, &e.Tenant, &e.Detail, &e.Before, &e.After)
		e.At = fromMicros(at)
		all = append(all, e)
		return err
	}, query, args...)
	return all, err
}
