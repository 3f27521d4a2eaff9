// Package readme proves that what README.md says to type does what it says.
package readme

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/kafkajars"
)

const (
	root = "../.."
	// insideEnv makes the test binary what runs inside the namespaces: it raises the
	// loopback, puts the file of its first argument in place of /etc/hosts, and
	// becomes the others.
	insideEnv = "TOLLGATE_TEST_INSIDE_NETWORK"
)

func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) != "" {
		fmt.Fprintln(os.Stderr, becomeInside(os.Args[1:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func becomeInside(argv []string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	up, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	up.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, up); err != nil {
		return fmt.Errorf("raise the loopback: %w", err)
	}
	if err := unix.Mount(argv[0], "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := os.Unsetenv(insideEnv); err != nil {
		return err
	}
	return syscall.Exec(argv[1], argv[1:], os.Environ())
}

// block is what is to be typed and, if the page says so, what it prints.
var block = regexp.MustCompile("(?s)\n```sh\n(.*?)\n```(?:\n```text\n(.*?)\n```)?")

// Everything under "Try it" is typed as it stands, in a network of its own so that
// the ports of make dev are free, and prints what the page says, in any order. Where
// it says nothing, every client gets the record.
func TestWhatTheReadmeSaysWorks(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	blocks := block.FindAllStringSubmatch(section(t, "README.md", "## Try it"), -1)
	if len(blocks) < 2 || !strings.Contains(blocks[0][1], "\nmake dev ") {
		t.Fatalf("%d blocks, the first of which does not end in make dev", len(blocks))
	}
	env := clientsOnPath(ctx, t)
	clone := checkOut(ctx, t)

	// One shell starts it, as a person would, and the others follow in the same
	// network once dev.json says that it serves.
	var script strings.Builder
	script.WriteString(`set -um
cd "$1"
make dev >dev.log 2>&1 &
dev=$!
trap 'kill -INT -- -$dev 2>/dev/null; wait $dev; flock .tollgate/lock true' EXIT # as an interrupt ends it
until [ -e .tollgate/dev.json ]; do kill -0 $dev || { cat dev.log; exit 1; }; sleep 0.1; done
`)
	for i, b := range blocks[1:] {
		file := filepath.Join(clone, fmt.Sprintf("block-%d.sh", i+1))
		if err := os.WriteFile(file, []byte(b[1]+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&script, "timeout 120 bash -eo pipefail %s >out-%d 2>err-%d; echo $? >code-%d\n", file, i+1, i+1, i+1)
	}
	cmd := inside(ctx, t, "bash", "-c", script.String(), "bash", clone)
	cmd.Env = append(cmd.Env, env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make dev: %v\n%s", err, out)
	}
	for i, b := range blocks[1:] {
		read := func(name string) string {
			raw, err := os.ReadFile(filepath.Join(clone, fmt.Sprintf("%s-%d", name, i+1)))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			return strings.TrimSpace(string(raw))
		}
		code, out, want := read("code"), read("out"), "hello last"
		// Some clients say more than the record before it.
		right := out == "hello" || strings.HasSuffix(out, "\nhello")
		if b[2] != "" {
			want, right = b[2], sorted(out) == sorted(b[2])
		}
		if code != "0" || !right {
			t.Errorf("status %s, printed %q, want %s, of\n%s\n%s", code, out, want, b[1], read("err"))
		}
	}
	if t.Failed() {
		log, _ := os.ReadFile(filepath.Join(clone, "dev.log"))
		t.Logf("make dev said:\n%s", log)
	}
}

// inside is a command in a network of its own, where every port is free, with a hosts
// file of its own. What it starts ends with it.
func inside(ctx context.Context, t *testing.T, argv ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath(argv[0])
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(own, hosts, 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--net", "--mount", "--pid", "--mount-proc", "--kill-child"}
	if os.Geteuid() != 0 {
		flags = append(flags, "--map-root-user")
	}
	cmd := exec.CommandContext(ctx, "unshare", append(append(flags, self, own, program), argv[1:]...)...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// section is a page's part under a heading.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", page, heading)
	}
	before, _, _ := strings.Cut(after, "\n## ")
	return before
}

func sorted(lines string) string {
	return strings.Join(slices.Sorted(strings.SplitSeq(lines, "\n")), "\n")
}

// checkOut is what git clone brings, with what is not committed yet.
func checkOut(ctx context.Context, t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	list := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	names, err := list.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(root, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// clientsOnPath is an environment where the clients are installed that the README
// takes for installed.
func clientsOnPath(ctx context.Context, t *testing.T) []string {
	t.Helper()
	python, err := drivers.PythonClients(ctx)
	if err != nil {
		t.Fatal(err)
	}
	modules, err := drivers.NodeClients(ctx)
	if err != nil {
		t.Fatal(err)
	}
	versions := kafkajars.Versions()
	jars, err := kafkajars.Get(ctx, versions[len(versions)-1])
	if err != nil {
		t.Fatal(err)
	}
	java, err := kafkajars.Java()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	var consumer bytes.Buffer
	fmt.Fprintf(&consumer, "#!/bin/sh\nexec %s %s -cp '%s' org.apache.kafka.tools.consumer.ConsoleConsumer \"$@\"\n",
		java, strings.Join(append(jars.SmallJVM(), kafkajars.Quiet()...), " "), jars.Classpath())
	if err := os.WriteFile(filepath.Join(bin, "kafka-console-consumer.sh"), consumer.Bytes(), 0o700); err != nil {
		t.Fatal(err)
	}
	return []string{"PATH=" + bin + ":" + filepath.Dir(python) + ":" + os.Getenv("PATH"), "NODE_PATH=" + modules}
}
