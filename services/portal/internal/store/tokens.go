package store

import (
	"context"
	"time"
)

// Token is what is kept of an API token.
type Token struct {
	ID, Hash   string // SHA-256 in hexadecimal
	Name       string
	Role       string
	Tenant     string
	ReadOnly   bool
	CreatedAt  time.Time
	CreatedBy  string
	ExpiresAt  time.Time // zero: never
	RevokedAt  time.Time // zero: it was not
	LastUsedAt time.Time // to the minute; zero: never
}

const tokenColumns = "id, hash, name, role, tenant, read_only, created_at, created_by, expires_at, revoked_at, last_used_at"

func scanToken(scan func(...any) error) (k Token, err error) {
	var readOnly, created, expires, revoked, used int64
	err = scan(&k.ID, &k.Hash, &k.Name, &k.Role, &k.Tenant, &readOnly, &created, &k.CreatedBy, &expires, &revoked, &used)
	k.ReadOnly = readOnly != 0
	k.CreatedAt, k.ExpiresAt, k.RevokedAt, k.LastUsedAt = fromMicros(created), fromMicros(expires), fromMicros(revoked), fromMicros(used)
	return k, err
}

// Token finds a token by its id.
func (t *Tx) Token(ctx context.Context, id string) (k Token, ok bool, err error) {
	err = t.query(ctx, func(scan func(...any) error) (err error) {
		ok = true
		k, err = scanToken(scan)
		return err
	}, "SELECT "+tokenColumns+" FROM tokens WHERE id = ?", id)
	return k, ok, err
}

// Tokens lists every token, the oldest first; only those of a tenant if one is named.
func (t *Tx) Tokens(ctx context.Context, tenant string) (all []Token, err error) {
	err = t.query(ctx, func(scan func(...any) error) error {
		k, err := scanToken(scan)
		all = append(all, k)
		return err
	}, "SELECT "+tokenColumns+" FROM tokens WHERE ? = '' OR tenant = ? ORDER BY created_at, id", tenant, tenant)
	return all, err
}

// AddToken adds a token.
func (t *Tx) AddToken(ctx context.Context, k Token) error {
	_, err := t.exec(ctx, "INSERT INTO tokens ("+tokenColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		k.ID, k.Hash, k.Name, k.Role, k.Tenant, number(k.ReadOnly), micros(k.CreatedAt), k.CreatedBy, micros(k.ExpiresAt), micros(k.RevokedAt), micros(k.LastUsedAt))
	return err
}

// RevokeToken ends a token; it stays in the list.
func (t *Tx) RevokeToken(ctx context.Context, id string, at time.Time) error {
	_, err := t.exec(ctx, "UPDATE tokens SET revoked_at = ? WHERE id = ? AND revoked_at = 0", micros(at), id)
	return err
}

// RevokeTokensOf ends the tokens of a tenant that is deleted.
func (t *Tx) RevokeTokensOf(ctx context.Context, tenant string, at time.Time) (n int64, err error) {
	return t.exec(ctx, "UPDATE tokens SET revoked_at = ? WHERE tenant = ? AND revoked_at = 0", micros(at), tenant)
}

// TokenUsed remembers when a token was used last.
func (t *Tx) TokenUsed(ctx context.Context, id string, at time.Time) error {
	_, err := t.exec(ctx, "UPDATE tokens SET last_used_at = ? WHERE id = ? AND last_used_at < ?", micros(at), id, micros(at))
	return err
}
