package store

import (
	"context"

	"tollgate.internal/pkg/resource"
)

// Bundle says how far the fleet was told of something: it waits to be published
// while Revision is above Published.
type Bundle struct {
	Kind, Name string
	Revision   int64
	Published  int64 // 0: never
	Deleted    bool
}

const bundleColumns = "kind, name, revision, published, deleted"

// MarkBundle says that a bundle changed with this change.
func (t *Tx) MarkBundle(ctx context.Context, kind, name string, deleted bool) error {
	return t.do(ctx, `INSERT INTO bundles (kind, name, revision, published, deleted) VALUES (?, ?, ?, 0, ?)
		ON CONFLICT (kind, name) DO UPDATE SET revision = excluded.revision, deleted = excluded.deleted`, kind, name, t.Revision, number(deleted))
}

// MarkBundlesOf says that the bundles named after every object of a kind that a
// tenant has changed.
func (t *Tx) MarkBundlesOf(ctx context.Context, kind, tenant string) error {
	_, err := t.exec(ctx, `INSERT INTO bundles (kind, name, revision, published, deleted)
			SELECT kind, name, CAST(? AS bigint), 0, 0 FROM objects WHERE kind = ? AND tenant = ?
		ON CONFLICT (kind, name) DO UPDATE SET revision = excluded.revision, deleted = excluded.deleted`, t.Revision, kind, tenant)
	return err
}

// MarkAllBundles says that every bundle changed, tombstones included.
func (t *Tx) MarkAllBundles(ctx context.Context) (n int64, err error) {
	return t.exec(ctx, "UPDATE bundles SET revision = ?", t.Revision)
}

// Weight is how many bytes the documents of a virtual cluster have that are in its
// bundle, with its tenant's grants and its secrets.
func (t *Tx) Weight(ctx context.Context, virtualCluster, tenant string) (n int64, err error) {
	_, err = t.one(ctx, `SELECT
		(SELECT COALESCE(SUM(octet_length(document)), 0) FROM objects WHERE kind IN (?, ?, ?, ?) AND scope = ?) +
		(SELECT COALESCE(SUM(octet_length(document)), 0) FROM objects WHERE kind = ? AND scope = ?) +
		(SELECT COALESCE(SUM(octet_length(document)), 0) FROM objects WHERE kind = ? AND scope = '' AND name = ?) +
		(SELECT COALESCE(SUM(octet_length(verifiers)), 0) FROM secrets WHERE virtual_cluster = ?)`,
		[]any{
			resource.KindAliasTopic, resource.KindServiceAccount, resource.KindACL, resource.KindPolicy, virtualCluster,
			resource.KindTopicGrant, tenant, resource.KindVirtualCluster, virtualCluster, virtualCluster,
		}, &n)
	return n, err
}

// WeightEverywhere is how many bytes the documents of a kind have that are in no scope.
func (t *Tx) WeightEverywhere(ctx context.Context, kind string) (n int64, err error) {
	_, err = t.one(ctx, "SELECT COALESCE(SUM(octet_length(document)), 0) FROM objects WHERE kind = ? AND scope = ''", []any{kind}, &n)
	return n, err
}

// Bundle finds a bundle; false where there never was one.
func (t *Tx) Bundle(ctx context.Context, kind, name string) (b Bundle, ok bool, err error) {
	err = t.query(ctx, func(scan func(...any) error) (err error) {
		ok = true
		b, err = scanBundle(scan)
		return err
	}, "SELECT "+bundleColumns+" FROM bundles WHERE kind = ? AND name = ?", kind, name)
	return b, ok, err
}

// PendingBundles lists what waits to be published, in the order of the changes.
func (t *Tx) PendingBundles(ctx context.Context, limit int) ([]Bundle, error) {
	return t.bundles(ctx, "WHERE published < revision ORDER BY revision, kind, name LIMIT ?", limit)
}

// Bundles lists every bundle behind a name, tombstones included.
func (t *Tx) Bundles(ctx context.Context, afterKind, afterName string, limit int) ([]Bundle, error) {
	return t.bundles(ctx, "WHERE (kind, name) > (?, ?) ORDER BY kind, name LIMIT ?", afterKind, afterName, limit)
}

func (t *Tx) bundles(ctx context.Context, where string, args ...any) (all []Bundle, err error) {
	err = t.query(ctx, func(scan func(...any) error) error {
		b, err := scanBundle(scan)
		all = append(all, b)
		return err
	}, "SELECT "+bundleColumns+" FROM bundles "+where, args...)
	return all, err
}

func scanBundle(scan func(...any) error) (b Bundle, err error) {
	var deleted int64
	err = scan(&b.Kind, &b.Name, &b.Revision, &b.Published, &deleted)
	b.Deleted = deleted != 0
	return b, err
}

// BundlePublished says that the fleet was told of a bundle up to a revision. What
// changed since waits on.
func (t *Tx) BundlePublished(ctx context.Context, kind, name string, revision int64) error {
	return t.do(ctx, "UPDATE bundles SET published = ? WHERE kind = ? AND name = ? AND published < ?", revision, kind, name, revision)
}
