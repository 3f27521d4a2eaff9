package soak

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"tollgate.internal/e2e/internal/load"
	"tollgate.internal/e2e/internal/proc"
)

// A node is one of the gateway's, running or not.
type node interface {
	fmt.Stringer // its name
	start(ctx context.Context) error
	kill() error
	check() error // reports one that has ended by itself
	logFile() string
}

func tail(n node) string {
	raw, _ := os.ReadFile(n.logFile())
	return string(raw[max(0, len(raw)-4000):])
}

// A fileNode reads its resources from files.
type fileNode struct {
	name, bin, config, admin, log string

	mu      sync.Mutex
	process *proc.Process
}

func (n *fileNode) String() string  { return n.name }
func (n *fileNode) logFile() string { return n.log }

// start runs the node and waits until it serves.
func (n *fileNode) start(ctx context.Context) error {
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(n.bin, "--config", n.config)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, filepath.Dir(n.config)
	p, err := proc.Start(cmd)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.process = p
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ctx, ended := context.WithCancelCause(ctx)
	defer ended(nil)
	go func() {
		select {
		case <-ctx.Done():
		case <-p.Done():
			ended(fmt.Errorf("%s ended: %w", n.name, p.Wait()))
		}
	}()
	err = load.Wait(ctx, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.admin+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("start %s: %w\n%s", n.name, err, tail(n))
	}
	return nil
}

func (n *fileNode) current() *proc.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

func (n *fileNode) kill() error { return n.current().Kill() }

func (n *fileNode) check() error {
	if p := n.current(); !p.Running() {
		return fmt.Errorf("%s ended: %w\n%s", n.name, p.Wait(), tail(n))
	}
	return nil
}

func (n *fileNode) close() error {
	p := n.current()
	if p == nil || !p.Running() {
		return nil
	}
	return p.Terminate(context.Background(), time.Minute)
}
