package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the schema up to date. Portals that start at once on one
// database wait for each other.
func (s *Store) migrate(ctx context.Context) error {
	if !s.postgres {
		// Not the file itself: closing it would end SQLite's own locks of this process.
		f, err := os.Open(filepath.Dir(s.where))
		if err != nil {
			return err
		}
		defer f.Close()
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			return fmt.Errorf("lock: %w", err)
		}
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	dialect := goose.DialectSQLite3
	options := []goose.ProviderOption{
		goose.WithGoMigrations(goose.NewGoMigration(1, &goose.GoFunc{RunTx: s.textDomain}, &goose.GoFunc{RunTx: s.dropTextDomain})),
		goose.WithDisableGlobalRegistry(true),
	}
	if s.postgres {
		dialect = goose.DialectPostgres
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60)) // asked for every second, for a minute
		if err != nil {
			return err
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	provider, err := goose.NewProvider(dialect, s.write, files, options...)
	if err != nil {
		return err
	}
	sources := provider.ListSources()
	newest := sources[len(sources)-1].Version
	if have, err := provider.GetDBVersion(ctx); err != nil {
		return err
	} else if have > newest {
		return fmt.Errorf("its schema is number %d and this program knows numbers up to %d: a newer version wrote it, so run that version or restore a backup of before", have, newest)
	}
	if _, err := provider.Up(ctx); err != nil {
		return err
	}
	// The deployment's name for itself and its key are made once, by whoever comes first.
	if _, err = s.write.ExecContext(ctx, s.rebind("INSERT INTO counter (one, revision, deployment) VALUES (1, 0, ?) ON CONFLICT (one) DO NOTHING"), strings.ToLower(rand.Text())); err != nil {
		return err
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	_, err = s.write.ExecContext(ctx, s.rebind("INSERT INTO keys (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING"), revisionKey, hex.EncodeToString(key))
	return err
}

// textDomain is migration 1: text that sorts by its bytes. An index in the order
// of a locale is corrupt once the operating system changes its mind.
func (s *Store) textDomain(ctx context.Context, tx *sql.Tx) error {
	if !s.postgres {
		return nil
	}
	_, err := tx.ExecContext(ctx, `CREATE DOMAIN name_text AS text COLLATE "C"`)
	return err
}

func (s *Store) dropTextDomain(ctx context.Context, tx *sql.Tx) error {
	if !s.postgres {
		return nil
	}
	_, err := tx.ExecContext(ctx, "DROP DOMAIN name_text")
	return err
}
