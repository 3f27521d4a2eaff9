package store

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"tollgate.internal/pkg/testbed/postgres"
)

// One PostgreSQL serves every test of the package: each has a database of its own.
var server = sync.OnceValues(postgres.New)

var started bool

func TestMain(m *testing.M) {
	code := m.Run()
	if started {
		if s, err := server(); err == nil {
			if err := s.Close(); err != nil {
				code = 1
			}
		}
	}
	os.Exit(code)
}

// each runs a test on both databases. Fresh gives the URL of an empty one.
func each(t *testing.T, test func(t *testing.T, fresh string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, "sqlite:"+filepath.Join(t.TempDir(), "tollgate.db")) })
	t.Run("postgres", func(t *testing.T) {
		started = true
		s, err := server()
		if err != nil {
			t.Fatal(err)
		}
		test(t, s.Database(t))
	})
}

func open(t testing.TB, url string) *Store {
	t.Helper()
	s, err := Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
