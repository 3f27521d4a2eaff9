// Package redistest runs a real Redis for tests. Nothing but tests imports it.
//
// A server has a directory and a socket of its own, and ends with who started it. It
// keeps nothing: killed and launched again it is empty, unless it is given a copy of
// its data from before.
package redistest

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const patience = 30 * time.Second

// A Server is a running, or killed, Redis.
type Server struct {
	URL     string
	dir     string
	port    int // 0: its socket only
	args    []string
	client  *redis.Client
	process *exec.Cmd
	ended   chan struct{} // closed once process was waited for
}

// Start starts a server that ends with its test.
func Start(t testing.TB) *Server {
	t.Helper()
	return start(t, 0)
}

// start starts a server on its socket, and on a port if there is one.
func start(t testing.TB, port int, args ...string) *Server {
	t.Helper()
	// Short: the path of a socket has 107 characters at most.
	dir, err := os.MkdirTemp("", "redis") //nolint:usetesting // that one is long
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	s := &Server{URL: "unix://" + socket, dir: dir, port: port, args: args}
	if port != 0 {
		s.URL = "redis://" + s.Address()
	}
	s.client = redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
	s.Launch(t)
	t.Cleanup(func() {
		s.Kill(t)
		_ = s.client.Close()
		os.RemoveAll(dir)
	})
	return s
}

// Address is where it listens besides its socket.
func (s *Server) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Launch starts it again after it was killed.
func (s *Server) Launch(t testing.TB) {
	t.Helper()
	log := filepath.Join(s.dir, "log")
	args := []string{
		"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--unixsocket", filepath.Join(s.dir, "s"),
		"--dir", s.dir, "--save", "", "--appendonly", "no", "--logfile", log,
	}
	if slices.Contains(s.args, "--sentinel") {
		// Its configuration is a file that it writes itself, and it knows no data.
		args = []string{filepath.Join(s.dir, "sentinel.conf"), "--sentinel", "--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--unixsocket", filepath.Join(s.dir, "s"), "--dir", s.dir, "--logfile", log}
		if err := os.WriteFile(args[0], []byte(s.args[1]), 0o600); err != nil {
			t.Fatal(err)
		}
	} else {
		args = append(args, s.args...)
	}
	cmd := exec.Command("redis-server", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ended, started := make(chan struct{}), make(chan error, 1)
	go func() {
		// The death signal follows the thread that forked, not the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // killed
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("%v: tools/setup.sh installs it", err)
	}
	s.process, s.ended = cmd, ended
	s.until(t, "redis-server answers", func() bool { return s.client.Ping(context.Background()).Err() == nil })
}

// until waits for a condition of a server that runs.
func (s *Server) until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); {
		select {
		case <-s.ended:
			text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			t.Fatalf("redis-server ended:\n%s", text)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// Kill ends it without a word to anybody.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if err := s.process.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	<-s.ended
}

// Freeze has it stop in the middle of whatever it does, until Thaw.
func (s *Server) Freeze(t testing.TB) { s.signal(t, syscall.SIGSTOP) }

// Thaw has it go on.
func (s *Server) Thaw(t testing.TB) { s.signal(t, syscall.SIGCONT) }

func (s *Server) signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	if err := s.process.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// Client sends it what a test has to say.
func (s *Server) Client() *redis.Client { return s.client }

// Copy is all its data at a moment.
func (s *Server) Copy(t testing.TB) []byte {
	t.Helper()
	if err := s.client.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(s.dump())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.dump()); err != nil {
		t.Fatal(err)
	}
	return data
}

// Restore kills it, and launches it with a copy of its data.
func (s *Server) Restore(t testing.TB, data []byte) {
	t.Helper()
	s.Kill(t)
	if err := os.WriteFile(s.dump(), data, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Launch(t)
	if err := os.Remove(s.dump()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func (s *Server) dump() string { return filepath.Join(s.dir, "dump.rdb") }
