package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// Store is an open database. It is safe for concurrent use.
type Store struct {
	postgres    bool
	where       string // for people: a file, or host and database
	write, read *sql.DB
	identity    string
	revisionKey []byte

	rebound sync.Map // query with '?' → query with '$1'
}

// Open opens sqlite:PATH or postgres://…, and brings its schema up to date. A
// SQLite file that is not there is made, for its owner's eyes only.
func Open(ctx context.Context, at string) (*Store, error) {
	s := new(Store)
	scheme, rest, _ := strings.Cut(at, ":")
	var err error
	switch scheme {
	case "sqlite":
		err = s.openSQLite(rest)
	case "postgres", "postgresql":
		err = s.openPostgres(at)
	default:
		return nil, errors.New("database: write sqlite:PATH or postgres://USER@HOST:PORT/DATABASE") // the text may hold a password
	}
	if err != nil {
		return nil, err
	}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", s.where, s.explain(err)), s.Close())
	}
	if err := s.know(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", s.where, s.explain(err)), s.Close())
	}
	return s, nil
}

// revisionKey is the name of a key.
const revisionKey = "revisions"

// know reads what a database keeps about itself.
func (s *Store) know(ctx context.Context) error {
	if err := s.read.QueryRowContext(ctx, "SELECT deployment FROM counter").Scan(&s.identity); err != nil {
		return err
	}
	var key string
	err := s.read.QueryRowContext(ctx, s.rebind("SELECT value FROM keys WHERE name = ?"), revisionKey).Scan(&key)
	if err == nil {
		s.revisionKey, err = hex.DecodeString(key)
	}
	return err
}

// lockPatience is how long a change waits for another one.
const lockPatience = 10 * time.Second

func (s *Store) openSQLite(path string) error {
	if path == "" || strings.HasPrefix(path, ":") {
		return errors.New("database: sqlite: needs the path of a file behind it")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	s.where = path
	// The files beside it, -wal and -shm, get the same rights. One that is there is not
	// touched: closing it would end SQLite's locks of this process.
	if f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
		f.Close()
	} else if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("database: %w", err)
	}
	dsn := func(more ...string) string {
		u := url.URL{Scheme: "file", Path: path}
		q := url.Values{"_pragma": {fmt.Sprintf("busy_timeout(%d)", lockPatience.Milliseconds()), "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"}}
		for i := 0; i < len(more); i += 2 {
			q.Add(more[i], more[i+1])
		}
		u.RawQuery = q.Encode()
		return u.String()
	}
	if s.write, err = sql.Open("sqlite", dsn("_txlock", "immediate")); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	s.write.SetMaxOpenConns(1) // there is one writer at a time in any case: waiting here is fair
	if s.read, err = sql.Open("sqlite", dsn("_pragma", "query_only(1)")); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	s.read.SetMaxOpenConns(8)
	s.read.SetMaxIdleConns(8)
	return nil
}

func (s *Store) openPostgres(at string) error {
	config, err := pgx.ParseConfig(at)
	if err != nil {
		return fmt.Errorf("database: %w", err) // without the password: pgx sees to that
	}
	s.where = config.Host + "/" + config.Database
	defaults := map[string]string{
		"application_name": "tollgate-portal",
		"lock_timeout":     strconv.FormatInt(lockPatience.Milliseconds(), 10),
		// A portal that stopped in the middle of a change must not stop the others.
		"idle_in_transaction_session_timeout": "30000",
	}
	for name, value := range defaults {
		if _, set := config.RuntimeParams[name]; !set {
			config.RuntimeParams[name] = value
		}
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	open := func(connections int) *sql.DB {
		db := stdlib.OpenDB(*config)
		db.SetMaxOpenConns(connections)
		db.SetMaxIdleConns(connections)
		db.SetConnMaxLifetime(30 * time.Minute)
		return db
	}
	s.postgres = true
	s.write, s.read = open(2), open(8)
	return nil
}

// Close closes every connection.
func (s *Store) Close() error {
	var problems []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			problems = append(problems, db.Close())
		}
	}
	return errors.Join(problems...)
}

// Identity is the name that the database gave itself when it was made. Copies
// of it share the name, and nothing else does.
func (s *Store) Identity() string { return s.identity }

// RevisionKey is a secret that the database made for itself: what tenants read in the
// place of revisions is made with it, and is the same from all portals.
func (s *Store) RevisionKey() []byte { return s.revisionKey }

// Where says which database this is, without its password.
func (s *Store) Where() string { return s.where }

// Tx is a transaction.
type Tx struct {
	// Revision is that of the change, in Write; in Read it is the newest there is.
	Revision int64

	store *Store
	tx    *sql.Tx
	conn  *sql.Conn                      // that tx is on; nil: nothing is written
	later []statement                    // that were not sent yet
	seq   int64                          // of the next audit entry
	again map[string]*sql.Stmt           // of queries that were asked; nil: once
	watch func(query string, args []any) // of tests; nil: nobody looks
}

// database is who answers a query.
type database interface {
	ExecContext(ctx context.Context, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, args ...any) *sql.Row
}

// plain is a query that is asked once.
type plain struct {
	tx    *sql.Tx
	query string
}

func (p plain) ExecContext(ctx context.Context, args ...any) (sql.Result, error) {
	return p.tx.ExecContext(ctx, p.query, args...)
}

func (p plain) QueryContext(ctx context.Context, args ...any) (*sql.Rows, error) {
	return p.tx.QueryContext(ctx, p.query, args...)
}

func (p plain) QueryRowContext(ctx context.Context, args ...any) *sql.Row {
	return p.tx.QueryRowContext(ctx, p.query, args...)
}

// ask prepares what is asked again in one transaction: to SQLite, reading the text of
// a query is half of answering it. PostgreSQL's driver prepares everything by itself.
// Statements end with the transaction.
func (t *Tx) ask(ctx context.Context, query string) (database, error) {
	if err := t.flush(ctx); err != nil {
		return nil, err
	}
	if t.store.postgres {
		return plain{t.tx, t.store.rebind(query)}, nil
	}
	statement, before := t.again[query]
	if statement != nil {
		return statement, nil
	}
	if t.again == nil {
		t.again = make(map[string]*sql.Stmt)
	}
	if !before {
		t.again[query] = nil
		return plain{t.tx, query}, nil
	}
	statement, err := t.tx.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	t.again[query] = statement
	return statement, nil
}

// statement changes something, and nobody waits for how much.
type statement struct {
	query string
	args  []any
}

// mostLater bounds what is sent at once.
const mostLater = 500

// do is exec for what nobody waits for. PostgreSQL is sent such statements together: before
// the next question, and before the end. What is wrong with one is the error of that.
func (t *Tx) do(ctx context.Context, query string, args ...any) error {
	if !t.store.postgres {
		_, err := t.exec(ctx, query, args...)
		return err
	}
	if t.later = append(t.later, statement{t.store.rebind(query), args}); len(t.later) >= mostLater {
		return t.store.explain(t.flush(ctx))
	}
	return nil
}

// flush sends what was not sent yet.
func (t *Tx) flush(ctx context.Context) error {
	if len(t.later) == 0 {
		return nil
	}
	var batch pgx.Batch
	for _, s := range t.later {
		batch.Queue(s.query, s.args...)
	}
	t.later = t.later[:0]
	return t.conn.Raw(func(driver any) error {
		return driver.(*stdlib.Conn).Conn().SendBatch(ctx, &batch).Close()
	})
}

// ErrDiscard makes [Store.Write] forget what was done, and return nil: nothing
// changed, or was meant to.
var ErrDiscard = errors.New("nothing is to be kept")

// retries is how often a transaction that collided with another is tried again.
const retries = 5

// Write runs change in a transaction of its own, after every other change. It may
// run it again when the database could not order it, so change keeps nothing of
// an earlier run. The transaction is kept when change returns nil.
func (s *Store) Write(ctx context.Context, change func(*Tx) error) error {
	return s.transaction(ctx, func(t *Tx) error {
		// This row is what writers wait for. The revision is lost with the transaction.
		if err := t.tx.QueryRowContext(ctx, "UPDATE counter SET revision = revision + 1 RETURNING revision").Scan(&t.Revision); err != nil {
			return s.explain(err)
		}
		return change(t)
	})
}

// Raise gives the change a higher revision, and leaves out those between.
func (t *Tx) Raise(ctx context.Context, revision int64) error {
	if _, err := t.exec(ctx, "UPDATE counter SET revision = ? WHERE revision < ?", revision, revision); err != nil {
		return err
	}
	t.Revision = max(t.Revision, revision)
	return nil
}

// Note is Write for what is no change of the fleet's state and takes no revision:
// that bundles were published, that a token was used.
func (s *Store) Note(ctx context.Context, change func(*Tx) error) error {
	return s.transaction(ctx, func(t *Tx) error {
		if s.postgres {
			// In line with the changes: whoever takes rows of several bundles in another
			// order than they do would wait for them, and they for it.
			if _, err := t.exec(ctx, "SELECT 1 FROM counter FOR UPDATE"); err != nil {
				return err
			}
		}
		return change(t)
	})
}

func (s *Store) transaction(ctx context.Context, change func(*Tx) error) error {
	return s.retry(ctx, func() error {
		conn, err := s.write.Conn(ctx)
		if err != nil {
			return s.explain(err)
		}
		defer func() { _ = conn.Close() }()
		tx, err := conn.BeginTx(ctx, nil)
		if err != nil {
			return s.explain(err)
		}
		defer func() { _ = tx.Rollback() }() // what was committed stays
		t := &Tx{store: s, tx: tx, conn: conn}
		err = change(t)
		if err == nil {
			err = s.explain(t.flush(ctx))
		}
		if errors.Is(err, ErrDiscard) {
			return nil
		} else if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
			return context.Cause(ctx) // which is what ended it
		} else if err != nil {
			return err
		}
		if err := tx.Commit(); err != nil {
			// SQLite may have left the transaction open: the next one must not inherit it.
			_ = conn.Raw(func(any) error { return driver.ErrBadConn })
			return s.explainCommit(err)
		}
		return nil
	})
}

func (s *Store) retry(ctx context.Context, try func() error) error {
	for attempt := 1; ; attempt++ {
		err := try()
		again := errors.Is(err, errCollision) || errors.Is(err, ErrFull) && s.makeRoom(ctx)
		if err == nil || attempt == retries || !again {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(attempt) * 10 * time.Millisecond):
		}
	}
}

// makeRoom gives back what SQLite's log of changes takes beside the database, and
// reports whether that was anything.
func (s *Store) makeRoom(ctx context.Context) bool {
	if s.postgres {
		return false
	}
	log, err := os.Stat(s.where + "-wal")
	if err != nil || log.Size() == 0 {
		return false
	}
	var busy, pages, moved int64
	err = s.write.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved)
	return err == nil && busy == 0
}

// Read runs look on one snapshot: what it sees belongs together, whatever is
// changed meanwhile.
func (s *Store) Read(ctx context.Context, look func(*Tx) error) error {
	return s.retry(ctx, func() error {
		options := &sql.TxOptions{}
		if s.postgres {
			options = &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
		}
		tx, err := s.read.BeginTx(ctx, options)
		if err != nil {
			return s.explain(err)
		}
		defer func() { _ = tx.Rollback() }()
		t := &Tx{store: s, tx: tx}
		if err := tx.QueryRowContext(ctx, "SELECT revision FROM counter").Scan(&t.Revision); err != nil {
			return s.explain(err)
		}
		return look(t)
	})
}

// Head is the newest revision.
func (s *Store) Head(ctx context.Context) (revision int64, err error) {
	err = s.read.QueryRowContext(ctx, "SELECT revision FROM counter").Scan(&revision)
	return revision, s.explain(err)
}

// rebind writes the parameters of a query as PostgreSQL wants them. No query has
// a '?' that is none.
func (s *Store) rebind(query string) string {
	if !s.postgres {
		return query
	}
	if done, ok := s.rebound.Load(query); ok {
		return done.(string)
	}
	var b strings.Builder
	n := 0
	for part := range strings.SplitSeq(query, "?") {
		if n > 0 {
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(n))
		}
		b.WriteString(part)
		n++
	}
	s.rebound.Store(query, b.String())
	return b.String()
}

func (t *Tx) exec(ctx context.Context, query string, args ...any) (rows int64, err error) {
	db, err := t.ask(ctx, query)
	if err != nil {
		return 0, t.store.explain(err)
	}
	result, err := db.ExecContext(ctx, args...)
	if err != nil {
		return 0, t.store.explain(err)
	}
	rows, err = result.RowsAffected()
	return rows, t.store.explain(err)
}

// query calls each for every row.
func (t *Tx) query(ctx context.Context, each func(scan func(...any) error) error, query string, args ...any) error {
	if t.watch != nil {
		t.watch(query, args)
	}
	db, err := t.ask(ctx, query)
	if err != nil {
		return t.store.explain(err)
	}
	rows, err := db.QueryContext(ctx, args...)
	if err != nil {
		return t.store.explain(err)
	}
	defer func() { _ = rows.Close() }() // rows.Err tells what went wrong
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return t.store.explain(rows.Err())
}

// one reads a single row; false where there is none.
func (t *Tx) one(ctx context.Context, query string, args []any, into ...any) (bool, error) {
	db, err := t.ask(ctx, query)
	if err != nil {
		return false, t.store.explain(err)
	}
	err = db.QueryRowContext(ctx, args...).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, t.store.explain(err)
}

// micros is a time as the tables keep it.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
