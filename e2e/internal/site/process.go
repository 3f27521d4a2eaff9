package site

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/build"
	"tollgate.internal/e2e/internal/load"
	"tollgate.internal/e2e/internal/proc"
)

// patience is for a process to start, and for anything that must come in the end.
const patience = 90 * time.Second

// A Version is a state of the source that commands are built from.
type Version struct {
	// Overlay are files of the repository, by their path in it, and what is built in
	// their place, made from what they hold.
	Overlay map[string]func(string) string
	once    sync.Once
	written string // the overlay's file
	err     error
}

// Present is the source as it is.
var Present = new(Version)

// build compiles one of the commands, and returns its file.
func (v *Version) build(name string) (string, error) {
	v.once.Do(func() { v.written, v.err = v.write() })
	if v.err != nil {
		return "", v.err
	}
	return build.Command("services/"+name+"/cmd/"+name, v.written)
}

// write writes what `go build -overlay` reads.
func (v *Version) write() (string, error) {
	if len(v.Overlay) == 0 {
		return "", nil
	}
	dir, err := build.Dir()
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "env", "GOWORK").Output()
	if err != nil {
		return "", err
	}
	root := filepath.Dir(strings.TrimSpace(string(out)))
	var replaced []string
	for path, change := range v.Overlay {
		source := filepath.Join(root, path)
		text, err := os.ReadFile(source)
		if err != nil {
			return "", err
		}
		changed := change(string(text))
		if changed == string(text) {
			return "", fmt.Errorf("%s has nothing to change", path)
		}
		file := filepath.Join(dir, rand.Text()+".go")
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			return "", err
		}
		replaced = append(replaced, fmt.Sprintf("%q: %q", source, file))
	}
	path := filepath.Join(dir, rand.Text()+".json")
	return path, os.WriteFile(path, []byte(`{"Replace": {`+strings.Join(replaced, ", ")+`}}`), 0o600)
}

// A Process is a portal or a node, running or not.
type Process struct {
	Name    string
	Version *Version
	Admin   string // address
	Log     string // file
	command string
	args    []string
	env     []string
	wrapper []string // what runs the command
	process *proc.Process
}

// Set adds to its environment, NAME=value, from its next start on.
func (p *Process) Set(env ...string) { p.env = append(p.env, env...) }

// Begin starts it, and does not wait until it is of use.
func (p *Process) Begin(t testing.TB) {
	t.Helper()
	bin, err := p.Version.build(p.command)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	line := append(append(append([]string(nil), p.wrapper...), bin), p.args...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), p.env...)
	if p.process, err = proc.Start(cmd); err != nil {
		t.Fatal(err)
	}
}

// Launch starts it, and waits until it says that it is ready.
func (p *Process) Launch(t testing.TB) {
	t.Helper()
	p.Begin(t)
	p.Await(t)
}

// Await waits until it says that it is ready.
func (p *Process) Await(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := load.Wait(ctx, func() error {
		if !p.Runs() {
			t.Fatalf("%s ended: %v\n%s", p.Name, p.process.Wait(), p.tail())
		}
		status, body, err := p.Get(ctx, "/readyz")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%s is not ready: %s", p.Name, body)
		}
		return err
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, p.tail())
	}
}

// Runs reports whether it has not ended.
func (p *Process) Runs() bool {
	select {
	case <-p.process.Done():
		return false
	default:
		return true
	}
}

// Path is a file as the process sees it, for one that has a disk of its own.
func (p *Process) Path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(p.process.PID()), "root", name)
}

// Kill ends it with SIGKILL, and waits for its end.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	if err := p.process.Kill(); err != nil {
		t.Fatal(err)
	}
}

// Stop ends it with SIGTERM, which has to be a good end.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	if err := p.process.Terminate(context.Background(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if code := p.process.ExitCode(); code != 0 {
		t.Errorf("%s ended with code %d", p.Name, code)
	}
}

// Get asks its admin listener.
func (p *Process) Get(ctx context.Context, path string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Admin+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}

// Said is what it has written to its log.
func (p *Process) Said(t testing.TB) string {
	t.Helper()
	raw, err := os.ReadFile(p.Log)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// Metric is the value of a series as /metrics writes it; 0 when it is not there.
func (p *Process) Metric(t testing.TB, series string) float64 {
	t.Helper()
	_, body, err := p.Get(t.Context(), "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(strings.NewReader(body)); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), series+" "); ok {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

func (p *Process) tail() string {
	raw, _ := os.ReadFile(p.Log)
	return string(raw[max(0, len(raw)-6000):])
}

// end is what becomes of it when its test ends.
func (p *Process) end(t testing.TB) {
	if p.process != nil {
		if err := p.process.Kill(); err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		t.Logf("%s said:\n%s", p.Name, p.tail())
	}
}
