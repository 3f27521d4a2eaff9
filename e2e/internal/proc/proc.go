// Package proc runs the foreign processes of the test bed: brokers, clients, proxies.
//
// A process never outlives the one that started it, however that one ends, and
// is always waited for, so that a killed broker is gone and not a zombie that
// still shows up by its process id. Its output goes to files or buffers of the
// caller; the package never reads it.
package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// A Process is a running, or ended, child.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; readable once done is closed
}

// Start starts cmd. The kernel kills it when this process ends, also by a
// signal that runs no deferred function.
func Start(cmd *exec.Cmd) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The death signal follows the thread that forked, not the process, so
		// that thread must live exactly as long as the child is waited for.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// PID is the process id; it may have been given to another process once Done is closed.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and has been waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the process has not ended yet; a stopped process runs.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Wait waits for the end of the process and returns what exec.Cmd.Wait returned.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// ExitCode waits for the end of the process; -1 says that a signal ended it.
func (p *Process) ExitCode() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Rusage waits for the end of the process and returns what it used.
func (p *Process) Rusage() *syscall.Rusage {
	<-p.done
	usage, _ := p.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return usage
}

// Signal sends a signal; to an ended process it sends nothing.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to process %d: %w", s, p.PID(), err)
	}
	return nil
}

// Kill ends the process with SIGKILL and waits for it.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

// Terminate asks the process to end with SIGTERM, waking it if it was stopped,
// and waits for it. After patience it is killed, and that is an error.
func (p *Process) Terminate(ctx context.Context, patience time.Duration) error {
	// A stopped process holds SIGTERM back until it runs again.
	if err := errors.Join(p.Signal(syscall.SIGTERM), p.Signal(syscall.SIGCONT)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience,
		fmt.Errorf("process %d still ran %v after SIGTERM", p.PID(), patience))
	defer cancel()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), p.Kill())
	}
}
