package drivers

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"tollgate.internal/e2e/internal/proc"
)

// A Command is a foreign client to run as a process.
type Command struct {
	Path  string
	Args  []string
	Env   []string // besides this process's own
	Stdin string
	// Hosts are names and addresses that the process alone finds in /etc/hosts.
	Hosts Hosts

	files []string // of secrets, removed when the process has ended
}

// A Result is what an ended process left.
type Result struct {
	Name           string
	Stdout, Stderr string
	ExitCode       int // -1: ended by a signal
	Elapsed        time.Duration
}

// Err is nil for exit code 0; else it holds the end of what the process printed.
func (r Result) Err() error {
	if r.ExitCode == 0 {
		return nil
	}
	return fmt.Errorf("%s: exit code %d\n%s", r.Name, r.ExitCode, tail(r.Stdout+r.Stderr, 2000))
}

// Run runs the command to its end. An exit code other than 0 is no error: see
// [Result.Err]. When ctx ends the process is killed, which is one.
func (c Command) Run(ctx context.Context) (Result, error) {
	p, err := c.Start()
	if err != nil {
		return Result{}, err
	}
	return p.Wait(ctx)
}

// A Process is a command that runs.
type Process struct {
	name    string
	process *proc.Process
	started time.Time
	lines   chan string
	stdout  buffer
	stderr  buffer
	output  sync.WaitGroup
	clean   func()
}

// Start starts the command.
func (c Command) Start() (*Process, error) {
	name := filepath.Base(c.Path)
	path, args, clean, err := c.inNamespace()
	if err != nil {
		c.remove()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Process{name: name, started: time.Now(), lines: make(chan string, 1<<16), clean: func() { clean(); c.remove() }}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Stdin = strings.NewReader(c.Stdin)
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&p.stdout, in), &p.stderr
	// A child that the process left behind must not keep Wait from returning.
	cmd.WaitDelay = 2 * time.Second
	p.output.Go(func() { p.split(out) })
	if p.process, err = proc.Start(cmd); err != nil {
		in.Close()
		p.clean()
		return nil, err
	}
	go func() {
		<-p.process.Done()
		in.Close()
	}()
	return p, nil
}

// Lines gives the lines of standard output as they come, and is closed after the
// last one. Who does not read them loses those beyond 65,536; the Result has all.
func (p *Process) Lines() <-chan string { return p.lines }

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error { return p.process.Signal(s) }

// Stop asks the process to end, as Ctrl-C does, and waits for it.
func (p *Process) Stop(ctx context.Context) (Result, error) {
	if err := p.process.Signal(syscall.SIGINT); err != nil {
		return Result{}, err
	}
	return p.Wait(ctx)
}

// Wait waits for the end of the process; when ctx ends first, it kills it.
func (p *Process) Wait(ctx context.Context) (Result, error) {
	var err error
	select {
	case <-p.process.Done():
	case <-ctx.Done():
		err = context.Cause(ctx)
		if kill := p.process.Kill(); kill != nil {
			err = fmt.Errorf("%w; %w", err, kill)
		}
	}
	p.output.Wait()
	p.clean()
	r := Result{
		Name: p.name, Stdout: p.stdout.String(), Stderr: p.stderr.String(),
		ExitCode: p.process.ExitCode(), Elapsed: time.Since(p.started),
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w\n%s", p.name, err, tail(r.Stdout+r.Stderr, 2000))
	}
	return r, nil
}

func (p *Process) split(out *io.PipeReader) {
	defer close(p.lines)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		select {
		case p.lines <- lines.Text():
		default: // nobody reads
		}
	}
	io.Copy(io.Discard, out) // after a line too long, so that the process does not block
}

// inNamespace wraps a command that has Hosts: in a mount namespace of its own, a
// file with these names lies over /etc/hosts. The process id stays that of the
// wrapper, which becomes the command, so signals reach it.
func (c Command) inNamespace() (path string, args []string, clean func(), err error) {
	if len(c.Hosts) == 0 {
		return c.Path, c.Args, func() {}, nil
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return "", nil, nil, err
	}
	text, err := os.ReadFile("/etc/hosts")
	if err != nil {
		return "", nil, nil, err
	}
	text = append(text, '\n')
	for _, name := range slices.Sorted(maps.Keys(c.Hosts)) {
		for _, address := range c.Hosts[name] {
			text = fmt.Appendf(text, "%s %s\n", address, name)
		}
	}
	f, err := os.CreateTemp("", "tollgate-hosts-")
	if err != nil {
		return "", nil, nil, err
	}
	defer f.Close()
	clean = func() { os.Remove(f.Name()) }
	if _, err := f.Write(text); err != nil {
		clean()
		return "", nil, nil, err
	}
	if err := f.Chmod(0o644); err != nil {
		clean()
		return "", nil, nil, err
	}
	args = []string{"--mount", "--propagation", "private"}
	if os.Geteuid() != 0 {
		args = append(args, "--user", "--map-root-user")
	}
	args = append(args, "--", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, f.Name(), c.Path)
	return unshare, append(args, c.Args...), clean, nil
}

func (c Command) remove() {
	for _, f := range c.files {
		os.RemoveAll(f)
	}
}

// buffer is a bytes.Buffer that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func tail(s string, n int) string {
	s = strings.TrimSpace(s)
	if len(s) > n {
		s = "… " + s[len(s)-n:]
	}
	return s
}
