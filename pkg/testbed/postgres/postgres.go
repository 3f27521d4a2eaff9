// Package postgres runs a real PostgreSQL for tests. Nothing but tests imports it.
//
// A server has a directory, a socket and processes of its own, and ends with who
// started it. It does not flush to disk: it survives being killed, not a power
// failure. Where PostgreSQL is missing, the repository's tools/setup.sh is asked
// to install it; where that fails, so does the test, by name.
package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	superuser = "postgres" // of every server, and the system's user where tests run as root
	patience  = 60 * time.Second
)

// A Server is a running, or killed, PostgreSQL.
type Server struct {
	bin, dir  string
	log       string
	owner     *syscall.Credential // nil: the user of the test
	process   *exec.Cmd
	ended     chan struct{} // closed once process was waited for
	databases atomic.Int64
}

// Start starts a server that ends with its test.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := New()
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

// New starts a server for whoever calls Close: a TestMain, say.
func New() (*Server, error) {
	s := new(Server)
	if err := s.create(); err != nil {
		return nil, errors.Join(fmt.Errorf("PostgreSQL for tests: %w", err), s.Close())
	}
	return s, nil
}

func (s *Server) create() (err error) {
	if s.bin, err = binaries(); err != nil {
		return err
	}
	// Short, and open to another user: neither holds for the directories of tests,
	// and the path of a socket has 107 characters at most.
	if s.dir, err = os.MkdirTemp("", "pg"); err != nil {
		return err
	}
	s.log = filepath.Join(s.dir, "log")
	if os.Geteuid() == 0 { // the server refuses to run as root
		u, err := user.Lookup(superuser)
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		s.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(s.dir, uid, gid); err != nil {
			return err
		}
	}
	if _, err := s.run("initdb", "-D", s.data(), "-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"); err != nil {
		return err
	}
	return s.Launch()
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// binaries is the directory of the newest server there is.
func binaries() (string, error) {
	find := func() string {
		found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
		if len(found) > 0 {
			version := func(path string) int {
				n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
				return n
			}
			return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }))
		}
		if path, err := exec.LookPath("initdb"); err == nil {
			return filepath.Dir(path)
		}
		return ""
	}
	if dir := find(); dir != "" {
		return dir, nil
	}
	root, err := os.Getwd()
	for ; err == nil && root != "/"; root = filepath.Dir(root) {
		setup := filepath.Join(root, "tools", "setup.sh")
		if _, err := os.Stat(setup); err != nil {
			continue
		}
		if out, err := exec.Command(setup).CombinedOutput(); err != nil {
			return "", fmt.Errorf("initdb is missing, and tools/setup.sh: %w\n%s", err, out)
		}
		break
	}
	if dir := find(); dir != "" {
		return dir, nil
	}
	return "", errors.New("initdb is missing: install the package postgresql (tools/setup.sh does)")
}

// command is one of PostgreSQL's own programs, as the owner of the data.
func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "PGHOST=" + s.dir, "PGUSER=" + superuser, "PGCONNECT_TIMEOUT=5"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner}
	return cmd
}

func (s *Server) run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := s.command(ctx, name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return string(bytes.TrimSpace(out)), nil
}

// Launch starts the server, again after Kill or Stop, and waits until it answers.
func (s *Server) Launch() error {
	deadline := time.Now().Add(patience)
	for {
		err := s.launch(deadline)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		// The sessions of a killed server go when they notice, and until then hold
		// the memory that the next one must have for itself.
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *Server) launch(deadline time.Time) error {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := s.command(context.Background(), "postgres", "-D", s.data(),
		"-c", "listen_addresses=", "-c", "unix_socket_directories="+s.dir,
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB", "-c", "max_connections=200",
		"-c", "autovacuum_naptime=10s", "-c", "log_min_messages=warning")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT // "immediate": it leaves no shared memory behind
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		// The death signal follows the thread that forked, so that thread lives as
		// long as the server does.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	for {
		_, err := s.run("psql", "-X", "-q", "-d", "postgres", "-c", "SELECT 1")
		if err == nil {
			s.process, s.ended = cmd, ended
			return nil
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(s.log)
			return fmt.Errorf("postgres ended at once:\n%s", text[max(0, len(text)-4096):])
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Signal(syscall.SIGQUIT)
			<-ended
			return fmt.Errorf("postgres does not answer: %w", err)
		}
	}
}

// Database creates an empty database and returns its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("t%d", s.databases.Add(1))
	if _, err := s.run("createdb", "-T", "template0", name); err != nil {
		t.Fatal(err)
	}
	return s.URL(name)
}

// URL is how clients of any kind reach a database, over the server's socket.
func (s *Server) URL(database string) string {
	u := url.URL{Scheme: "postgres", Path: "/" + database, RawQuery: url.Values{"host": {s.dir}, "user": {superuser}}.Encode()}
	return u.String()
}

// Query runs one statement and returns what psql prints: columns parted by '|'.
func (s *Server) Query(database, statement string) (string, error) {
	return s.run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement)
}

// Kill ends the server and every process of its sessions with SIGKILL.
func (s *Server) Kill() {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(syscall.SIGSTOP) // it starts no more of them
	sessions := children(s.process.Process.Pid)
	s.end(syscall.SIGKILL)
	for _, pid := range sessions {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, pid := range sessions { // the next server must not meet them
		for running(pid) {
			time.Sleep(time.Millisecond)
		}
	}
}

// children are the processes that a process started.
func children(parent int) (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, path := range all {
		pid, _ := strconv.Atoi(filepath.Base(path))
		if stat := status(pid); len(stat) > 1 && stat[1] == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// running reports whether a process has not ended yet; it may still be waited for.
func running(pid int) bool {
	stat := status(pid)
	return len(stat) > 0 && stat[0] != "Z" && stat[0] != "X"
}

// status is the state of a process, its parent and more; nothing once it is gone.
func status(pid int) []string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:])) // the name before it may hold anything
}

// Stop ends the server in order; sessions are cut.
func (s *Server) Stop() { s.end(syscall.SIGINT) }

func (s *Server) end(signal syscall.Signal) {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(signal)
	<-s.ended
	s.process = nil
}

// Close stops the server and removes its data.
func (s *Server) Close() error {
	s.Stop()
	if s.dir == "" {
		return nil
	}
	return os.RemoveAll(s.dir)
}
