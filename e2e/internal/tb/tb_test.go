package tb

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestARunEndsWhatItStarted(t *testing.T) {
	var done []string
	note := func(s string) { done = append(done, s) }
	say := func(string, ...any) {}
	err := Run(t.Context(), t.TempDir(), say, func(r testing.TB) error {
		one, other := r.TempDir(), r.TempDir()
		if _, err := os.Stat(one); err != nil || one == other {
			t.Errorf("the directories %s and %s: %v", one, other, err)
		}
		r.Cleanup(func() { note("first"); r.Fatal("in a cleanup") })
		r.Cleanup(func() { note("second") })
		if err := Try(r, func() error { r.Fatalf("of %s", "one part"); return nil }); err == nil {
			t.Error("a part that was given up has no error")
		}
		if err := Try(r, func() error { return nil }); err != nil {
			t.Errorf("a part that was not given up: %v", err)
		}
		note("goes on")
		r.FailNow()
		note("never")
		return nil
	})
	if want := []string{"goes on", "second", "first"}; !slices.Equal(done, want) {
		t.Errorf("happened: %v, want %v", done, want)
	}
	for _, want := range []string{"given up", "of one part", "in a cleanup"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, without %q", err, want)
		}
	}
	if err := Run(t.Context(), t.TempDir(), say, func(testing.TB) error { return nil }); err != nil {
		t.Errorf("a good run: %v", err)
	}
	bad := errors.New("bad")
	if err := Run(t.Context(), t.TempDir(), say, func(testing.TB) error { return bad }); !errors.Is(err, bad) {
		t.Errorf("a bad run: %v, want %v", err, bad)
	}
}
