package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

var (
	// ErrFull: there is no room for the change, which left no trace.
	ErrFull = errors.New("the database's disk is full")
	// ErrBusy: others changed things for too long; it is worth trying again.
	ErrBusy = errors.New("the database is busy with other changes")
	// ErrUnavailable: the database cannot be reached, or cannot go on.
	ErrUnavailable = errors.New("the database is unavailable")
	// ErrUnknown: the connection broke in the moment of keeping a change. It is there
	// as a whole or not at all; looking tells which, and doing it again does no harm.
	ErrUnknown = errors.New("it is not known whether the database kept the change")

	errCollision = errors.New("collided with another transaction")
)

// explain adds what a database's error means for who asked.
func (s *Store) explain(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch {
		case e.Code == "40001" || e.Code == "40P01": // serialization_failure, deadlock_detected
			return fmt.Errorf("%w: %w: %w", ErrBusy, errCollision, err)
		case e.Code == "55P03": // lock_not_available
			return fmt.Errorf("%w: %w", ErrBusy, err)
		case e.Code == "53100": // disk_full
			return s.full(err)
		case e.Code[:2] == "08" || e.Code[:2] == "53" || e.Code[:2] == "57" || e.Code[:2] == "58" || e.Code == "25006":
			// Connections, resources, an operator's intervention, the system, read-only.
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return err
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_FULL:
			return s.full(err)
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
			return fmt.Errorf("%w: %w", ErrBusy, err)
		case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return fmt.Errorf("%w: %s: %w", ErrUnavailable, s.where, err)
		}
		return err
	}
	switch {
	case !s.postgres, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, sql.ErrTxDone):
		return err
	}
	// Whatever else comes from there has to do with the connection: pgx has no type
	// for most of it.
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

func (s *Store) full(err error) error {
	return fmt.Errorf("%w: %s: nothing of this change was kept; free space there and do it again: %w", ErrFull, s.where, err)
}

// explainCommit is explain for the last step, where silence may mean either.
func (s *Store) explainCommit(err error) error {
	err = s.explain(err)
	if s.postgres && !errors.Is(err, ErrFull) && !errors.Is(err, ErrBusy) {
		if _, answered := errors.AsType[*pgconn.PgError](err); !answered || errors.Is(err, ErrUnavailable) {
			return fmt.Errorf("%w: %w", ErrUnknown, err)
		}
	}
	return err
}
