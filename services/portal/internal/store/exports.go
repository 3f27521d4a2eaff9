package store

import (
	"context"
	"time"
)

// Export is how far the log was passed on to somewhere else, and by whom.
type Export struct {
	Revision, Seq int64     // everything up to this entry was; 0: nothing yet
	Holder        string    // who does it; "": nobody
	Until         time.Time // and nobody else before then, by the database's clock
	Problem       string    // why the holder gets no further; "": it does
}

// Now is the time by the database's clock, which all portals share.
func (t *Tx) Now(ctx context.Context) (time.Time, error) {
	query := "SELECT CAST(unixepoch('subsec') * 1000000 AS bigint)"
	if t.store.postgres {
		query = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"
	}
	var now int64
	_, err := t.one(ctx, query, nil, &now)
	return fromMicros(now), err
}

// Export reads how far an export is; false where there never was one of the name.
func (t *Tx) Export(ctx context.Context, name string) (e Export, ok bool, err error) {
	var until int64
	ok, err = t.one(ctx, "SELECT revision, seq, holder, until_at, problem FROM exports WHERE name = ?", []any{name},
		&e.Revision, &e.Seq, &e.Holder, &until, &e.Problem)
	e.Until = fromMicros(until)
	return e, ok, err
}

// PutExport writes how far an export is.
func (t *Tx) PutExport(ctx context.Context, name string, e Export) error {
	_, err := t.exec(ctx, `INSERT INTO exports (name, revision, seq, holder, until_at, problem) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, seq = excluded.seq, holder = excluded.holder, until_at = excluded.until_at, problem = excluded.problem`,
		name, e.Revision, e.Seq, e.Holder, micros(e.Until), e.Problem)
	return err
}

// EntriesBehind counts what the log has behind an entry, up to a limit, and tells
// when the first of it was written.
func (t *Tx) EntriesBehind(ctx context.Context, revision, seq int64, limit int) (n int64, oldest time.Time, err error) {
	if _, err = t.one(ctx, "SELECT count(*) FROM (SELECT 1 FROM audit WHERE (revision, seq) > (?, ?) LIMIT ?) behind", []any{revision, seq, limit}, &n); err != nil || n == 0 {
		return n, oldest, err
	}
	var at int64
	_, err = t.one(ctx, "SELECT at FROM audit WHERE (revision, seq) > (?, ?) ORDER BY revision, seq LIMIT 1", []any{revision, seq}, &at)
	return n, fromMicros(at), err
}

// RemoveEntries removes what was written before a time from the beginning of the
// log, a limited number at once, and nothing behind an entry. It tells how many.
func (t *Tx) RemoveEntries(ctx context.Context, revision, seq int64, before time.Time, limit int) (int64, error) {
	return t.exec(ctx, `DELETE FROM audit WHERE at < ? AND (revision, seq) <= (?, ?) AND (revision, seq) IN
		(SELECT revision, seq FROM audit ORDER BY revision, seq LIMIT ?)`, micros(before), revision, seq, limit)
}
