package store

import (
	"context"
	"strings"
	"time"
)

// GrantRequest is what a tenant asks to be lent, as it is kept.
type GrantRequest struct {
	Tenant, ID string
	State      string
	AskedAt    time.Time
	DecidedAt  time.Time // zero: nobody has
	Document   string    // JSON
}

const requestColumns = "tenant, id, state, asked_at, decided_at, document"

func scanRequest(scan func(...any) error) (r GrantRequest, err error) {
	var asked, decided int64
	err = scan(&r.Tenant, &r.ID, &r.State, &asked, &decided, &r.Document)
	r.AskedAt, r.DecidedAt = fromMicros(asked), fromMicros(decided)
	return r, err
}

// GrantRequest finds a request; false where there is none.
func (t *Tx) GrantRequest(ctx context.Context, tenant, id string) (r GrantRequest, ok bool, err error) {
	err = t.query(ctx, func(scan func(...any) error) (err error) {
		ok = true
		r, err = scanRequest(scan)
		return err
	}, "SELECT "+requestColumns+" FROM grant_requests WHERE tenant = ? AND id = ?", tenant, id)
	return r, ok, err
}

// PutGrantRequest adds a request, or what became of it.
func (t *Tx) PutGrantRequest(ctx context.Context, r GrantRequest) error {
	return t.do(ctx, "INSERT INTO grant_requests ("+requestColumns+") VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, id) DO UPDATE SET state = excluded.state, decided_at = excluded.decided_at, document = excluded.document",
		r.Tenant, r.ID, r.State, micros(r.AskedAt), micros(r.DecidedAt), r.Document)
}

// RequestQuery selects requests. Empty fields select all.
type RequestQuery struct {
	Tenant, State string
	AfterAsked    time.Time // with AfterID: only what comes behind this request
	AfterID       string
	Limit         int // 0: no limit
}

// GrantRequests lists requests, the oldest first.
func (t *Tx) GrantRequests(ctx context.Context, q RequestQuery) (all []GrantRequest, err error) {
	conditions, args := []string{"1 = 1"}, []any(nil)
	// Of a tenant's requests no others are read than its own, whatever it asks for: what
	// is an expression is looked up in no index that has everybody's.
	state, asked := "state", "asked_at"
	if q.Tenant != "" {
		conditions, args = append(conditions, "tenant = ?"), append(args, q.Tenant)
		state, asked = "state || ''", "asked_at + 0"
	}
	if q.State != "" {
		conditions, args = append(conditions, state+" = ?"), append(args, q.State)
	}
	if q.AfterID != "" {
		conditions, args = append(conditions, "("+asked+", id) > (?, ?)"), append(args, micros(q.AfterAsked), q.AfterID)
	}
	query := "SELECT " + requestColumns + " FROM grant_requests WHERE " + strings.Join(conditions, " AND ") + " ORDER BY " + asked + ", id"
	if q.Limit > 0 {
		query, args = query+" LIMIT ?", append(args, q.Limit)
	}
	err = t.query(ctx, func(scan func(...any) error) error {
		r, err := scanRequest(scan)
		all = append(all, r)
		return err
	}, query, args...)
	return all, err
}

// ForgetGrantRequests removes the requests of a tenant that were decided, but for so many
// that were decided last.
func (t *Tx) ForgetGrantRequests(ctx context.Context, tenant string, keep int) error {
	const decided = "tenant = ? AND decided_at > 0"
	return t.do(ctx, "DELETE FROM grant_requests WHERE "+decided+" AND id NOT IN (SELECT id FROM grant_requests WHERE "+decided+" ORDER BY decided_at DESC, id LIMIT ?)",
		tenant, tenant, keep)
}

// DeleteGrantRequests removes the requests of a tenant that is deleted.
func (t *Tx) DeleteGrantRequests(ctx context.Context, tenant string) error {
	return t.do(ctx, "DELETE FROM grant_requests WHERE tenant = ?", tenant)
}
