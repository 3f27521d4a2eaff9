package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"tollgate.internal/pkg/resource"
)

// Secret is what is kept of a service account's secret.
type Secret struct {
	VirtualCluster, Account, ID string
	Revision                    int64
	CreatedAt, ExpiresAt        time.Time // ExpiresAt zero: never
	Imported                    bool
	Verifiers                   []resource.Verifier
}

const secretColumns = "virtual_cluster, account, id, revision, created_at, expires_at, imported, verifiers"

// Secrets lists the secrets of an account, or of a whole virtual cluster when
// account is empty, the oldest first.
func (t *Tx) Secrets(ctx context.Context, virtualCluster, account string) (all []Secret, err error) {
	query, args := "SELECT "+secretColumns+" FROM secrets WHERE virtual_cluster = ?", []any{virtualCluster}
	if account != "" {
		query += " AND account = ?"
		args = append(args, account)
	}
	err = t.query(ctx, func(scan func(...any) error) error {
		var s Secret
		var created, expires, imported int64
		var verifiers string
		if err := scan(&s.VirtualCluster, &s.Account, &s.ID, &s.Revision, &created, &expires, &imported, &verifiers); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(verifiers), &s.Verifiers); err != nil {
			return fmt.Errorf("secret %s of %s in %s: %w", s.ID, s.Account, s.VirtualCluster, err)
		}
		s.CreatedAt, s.ExpiresAt, s.Imported = fromMicros(created), fromMicros(expires), imported != 0
		all = append(all, s)
		return nil
	}, query+" ORDER BY account, created_at, id", args...)
	return all, err
}

// PutSecret creates or replaces a secret.
func (t *Tx) PutSecret(ctx context.Context, s Secret) error {
	verifiers, err := json.Marshal(s.Verifiers)
	if err != nil {
		return err
	}
	_, err = t.exec(ctx, `INSERT INTO secrets (`+secretColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (virtual_cluster, account, id) DO UPDATE SET revision = excluded.revision, expires_at = excluded.expires_at, verifiers = excluded.verifiers`,
		s.VirtualCluster, s.Account, s.ID, s.Revision, micros(s.CreatedAt), micros(s.ExpiresAt), number(s.Imported), string(verifiers))
	return err
}

// DeleteSecrets removes one secret of an account, or all when id is empty.
func (t *Tx) DeleteSecrets(ctx context.Context, virtualCluster, account, id string) (n int64, err error) {
	query, args := "DELETE FROM secrets WHERE virtual_cluster = ? AND account = ?", []any{virtualCluster, account}
	if id != "" {
		query += " AND id = ?"
		args = append(args, id)
	}
	return t.exec(ctx, query, args...)
}
