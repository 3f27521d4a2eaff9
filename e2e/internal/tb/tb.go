// Package tb lets a command use what is made for tests.
package tb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Run gives do a test to start things in, and ends them when do has returned. The error
// is the one of do, and all that the test was told of.
func Run(ctx context.Context, dir string, say func(format string, args ...any), do func(t testing.TB) error) error {
	t := &run{ctx: ctx, dir: dir, say: say}
	err := Try(t, func() error { return do(t) })
	for len(t.cleanups) > 0 {
		last := len(t.cleanups) - 1
		cleanup := t.cleanups[last]
		t.cleanups = t.cleanups[:last]
		err = errors.Join(err, Try(t, func() error { cleanup(); return nil }))
	}
	return errors.Join(err, t.failure())
}

// Try runs what may give a test up, on any goroutine, and says so in its error.
func Try(t testing.TB, do func() error) error {
	given := make(chan error, 1)
	go func() {
		err := fmt.Errorf("%s was given up", t.Name())
		defer func() { given <- err }()
		err = do()
	}()
	return <-given
}

// run is a test of a command. What a test has and this has not panics.
type run struct {
	testing.TB
	ctx context.Context //nolint:containedctx // a test has one
	dir string
	say func(format string, args ...any)

	mu       sync.Mutex
	cleanups []func()
	dirs     int
	told     []string
}

func (r *run) Helper()                  {}
func (r *run) Name() string             { return "the run" }
func (r *run) Context() context.Context { return r.ctx }

func (r *run) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *run) TempDir() string {
	r.mu.Lock()
	r.dirs++
	dir := filepath.Join(r.dir, strconv.Itoa(r.dirs))
	r.mu.Unlock()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		r.Fatal(err)
	}
	return dir
}

func (r *run) Log(args ...any)                 { r.say("%s", strings.TrimSpace(fmt.Sprintln(args...))) }
func (r *run) Logf(format string, args ...any) { r.say(format, args...) }

func (r *run) Error(args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, strings.TrimSpace(fmt.Sprintln(args...)))
}

func (r *run) Errorf(format string, args ...any) { r.Error(fmt.Sprintf(format, args...)) }
func (r *run) Fatal(args ...any)                 { r.Error(args...); r.FailNow() }
func (r *run) Fatalf(format string, args ...any) { r.Errorf(format, args...); r.FailNow() }
func (r *run) FailNow()                          { runtime.Goexit() }

func (r *run) Failed() bool { return r.failure() != nil }

func (r *run) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.told) == 0 {
		return nil
	}
	return errors.New(strings.Join(slices.Clone(r.told), "\n"))
}
