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
type node struct {
	name, bin, config, admin, log string

	mu      sync.Mutex
	process *proc.Process
}

// start runs the node and waits until it serves.
func (n *node) start(ctx context.Context) error {
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
		return fmt.Errorf("start %s: %w\n%s", n.name, err, n.tail())
	}
	return nil
}

func (n *node) current() *proc.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

func (n *node) kill() error { return n.current().Kill() }

// check reports a node that has ended by itself.
func (n *node) check() error {
	if p := n.current(); !p.Running() {
		return fmt.Errorf("%s ended: %w\n%s", n.name, p.Wait(), n.tail())
	}
	return nil
}

func (n *node) close() error {
	p := n.current()
	if p == nil || !p.Running() {
		return nil
	}
	return p.Terminate(context.Background(), time.Minute)
}

func (n *node) tail() string {
	raw, _ := os.ReadFile(n.log)
	return string(raw[max(0, len(raw)-4000):])
}
