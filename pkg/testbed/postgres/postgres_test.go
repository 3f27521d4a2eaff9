package postgres

import (
	"os"
	"testing"
)

func TestServer(t *testing.T) {
	s := Start(t)
	s.Database(t)
	if _, err := s.Query("t1", "CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)"); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	if _, err := s.Query("t1", "SELECT n FROM kept"); err == nil {
		t.Error("a killed server answers")
	}
	if err := s.Launch(); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Query("t1", "SELECT n FROM kept"); err != nil || got != "42" {
		t.Errorf("after kill -9: %q, %v, want 42", got, err)
	}
	dir := s.dir
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
}
