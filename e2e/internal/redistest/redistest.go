// Package redistest runs a real Redis for tests.
package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/ports"
	"tollgate.internal/e2e/internal/proc"
)

// A Server keeps nothing on disk. It ends with its test.
type Server struct {
	URL     string
	Process *proc.Process // to be stopped and killed
	port    int
	dir     string
}

// Start starts a server on a port of its own.
func Start(t testing.TB) *Server {
	t.Helper()
	lease, err := ports.Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.Release)
	s := &Server{port: lease.Ports[0], dir: t.TempDir()}
	s.URL = fmt.Sprintf("redis://127.0.0.1:%d", s.port)
	s.Launch(t)
	t.Cleanup(func() {
		if err := s.Process.Kill(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Launch starts it again, on the same port and without data, after it was killed.
func (s *Server) Launch(t testing.TB) {
	t.Helper()
	log := filepath.Join(s.dir, "log")
	p, err := proc.Start(exec.Command("redis-server", "--port", strconv.Itoa(s.port), "--bind", "127.0.0.1",
		"--dir", s.dir, "--save", "", "--appendonly", "no", "--logfile", log))
	if err != nil {
		t.Fatalf("%v: tools/setup.sh installs it", err)
	}
	s.Process = p
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)))
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-p.Done():
			raw, _ := os.ReadFile(log)
			t.Fatalf("redis-server ended: %v\n%s", p.Wait(), raw)
		case <-ctx.Done():
			t.Fatalf("redis-server does not listen: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
