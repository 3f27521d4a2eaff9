package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/testbed/postgres"
	"tollgate.internal/services/portal/internal/store"
)

// The test binary is also the portal that is killed, and the one without room.
const childVariable = "TOLLGATE_TEST_CHILD"

func child() int {
	work, argument, _ := strings.Cut(os.Getenv(childVariable), " ")
	var err error
	switch work {
	case "write":
		err = writeOn(argument)
	case "fill":
		err = fill(argument)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func childCommand(t *testing.T, work, argument string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), childVariable+"="+work+" "+argument)
	cmd.Stderr = os.Stderr
	return cmd
}

// pair is one change of two objects: number n of its kind.
func pair(n int64) string {
	return doc(fmt.Sprintf(`UpstreamCluster name: left | bootstrap: ["h%d:1"]`, n), fmt.Sprintf(`UpstreamCluster name: right | bootstrap: ["h%d:1"]`, n))
}

func applyPair(ctx context.Context, c *Control, n int64) (int64, error) {
	problems := new(resource.Problems)
	results, err := c.Apply(ctx, alice, resource.Parse([]byte(pair(n)), problems), Options{})
	if err != nil {
		return 0, err
	}
	return results[0].Revision, nil
}

// writeOn goes on with the pairs where the database ends, and says each number
// once it is kept.
func writeOn(url string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, url)
	if err != nil {
		return err
	}
	c := New(s, nil)
	head, err := c.Head(ctx)
	if err != nil {
		return err
	}
	for n := head + 1; ; n++ {
		revision, err := applyPair(ctx, c, n)
		if err != nil {
			return err
		}
		fmt.Println(revision)
	}
}

// checkPairs reports what is half there, and returns how far it came.
func checkPairs(ctx context.Context, c *Control) (int64, error) {
	var head int64
	err := c.store.Read(ctx, func(tx *store.Tx) error {
		head = tx.Revision
		if head == 0 {
			return nil
		}
		for _, name := range []string{"left", "right"} {
			row, ok, err := tx.Object(ctx, key("UpstreamCluster", "", name))
			if err != nil {
				return err
			}
			if !ok || row.Revision != head || !strings.Contains(row.Document, fmt.Sprintf(`"h%d:1"`, head)) {
				return fmt.Errorf("revision is %d, and %s is at %d: %s", head, name, row.Revision, row.Document)
			}
			b, ok, err := tx.Bundle(ctx, string(bundle.UpstreamCluster), name)
			if err != nil {
				return err
			}
			if !ok || b.Revision != head {
				return fmt.Errorf("revision is %d, and the bundle of %s at %d", head, name, b.Revision)
			}
		}
		entries, err := tx.Entries(ctx, store.EntryQuery{})
		if err != nil {
			return err
		}
		if int64(len(entries)) != 2*head {
			return fmt.Errorf("revision is %d, and the log has %d entries", head, len(entries))
		}
		return nil
	})
	return head, err
}

// A portal that is killed in the middle of a change leaves the change as a whole or
// nothing of it, and everything that it said was kept.
func TestKilledPortal(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		var kept int64
		for round := range 8 {
			cmd := childCommand(t, "write", b.url)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for range 1 + rand.N(20) {
				if !lines.Scan() {
					t.Fatal("the portal ended by itself")
				}
				if kept, err = strconv.ParseInt(lines.Text(), 10, 64); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(rand.N(3 * time.Millisecond)) // anywhere in a change
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			for lines.Scan() {
				if n, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
					kept = n
				}
			}
			_ = cmd.Wait()
			// PostgreSQL may still be at the last change of whom it does not know to be dead:
			// the next one waits for that.
			if err := b.store.Write(t.Context(), func(*store.Tx) error { return store.ErrDiscard }); err != nil {
				t.Fatal(err)
			}
			head, err := checkPairs(t.Context(), b.Control)
			if err != nil || head < kept || head > kept+1 {
				t.Fatalf("round %d: %d were kept, %d are there, %v", round, kept, head, err)
			}
		}
	})
}

// A PostgreSQL that is killed: whoever changes something is told that it is not
// there, or that it is not known whether it is; and all goes on once it is back.
func TestKilledPostgres(t *testing.T) {
	s := postgres.Start(t)
	b := newBed(t, s.Database(t))
	ctx := t.Context()
	for round := range 3 {
		stop := make(chan struct{})
		kept := make(chan int64, 1)
		last, err := b.Head(ctx)
		if err != nil {
			t.Fatal(err)
		}
		first := last
		go func() {
			defer func() { kept <- last }()
			for n := int64(1); ; n++ {
				revision, err := applyPair(ctx, b.Control, n+int64(round)*1_000_000)
				switch {
				case err == nil:
					last = revision
				case !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrUnknown):
					t.Errorf("a change without the database: %v", err)
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
		if _, err := b.Wait(ctx, first+5); err != nil {
			t.Fatal(err)
		}
		s.Kill()
		if _, err := b.Get(ctx, keyTenant); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("a look without the database: %v", err)
		}
		close(stop)
		last = <-kept
		if err := s.Launch(); err != nil {
			t.Fatal(err)
		}
		var head int64
		for { // connections that broke are found out one by one
			var err error
			if head, err = b.Head(ctx); err == nil {
				break
			} else if !errors.Is(err, store.ErrUnavailable) {
				t.Fatal(err)
			}
		}
		if head < last || head > last+1 {
			t.Errorf("round %d: %d were kept, %d are there", round, last, head)
		}
	}
}

// fillBytes is little, and more than what SQLite's log of changes grows to.
const fillBytes = 8 << 20

// fill changes things until the disk is full, and again when there is room.
func fill(dir string) error {
	ctx := context.Background()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+strconv.Itoa(fillBytes)); err != nil {
		return fmt.Errorf("mount a disk of %d bytes: %w", fillBytes, err)
	}
	reserve := filepath.Join(dir, "reserve")
	if err := os.WriteFile(reserve, make([]byte, fillBytes/2), 0o600); err != nil {
		return err
	}
	s, err := store.Open(ctx, "sqlite:"+filepath.Join(dir, "tollgate.db"))
	if err != nil {
		return err
	}
	c := New(s, nil)
	n := int64(1)
	var full error
	for refused := 0; refused < 3; {
		_, err := applyPair(ctx, c, n)
		switch {
		case err == nil:
			n, refused = n+1, 0
		case !errors.Is(err, store.ErrFull) || !strings.Contains(err.Error(), "nothing of this change was kept; free space there"):
			return fmt.Errorf("the disk is full: %w", err)
		default:
			refused, full = refused+1, err
			// What is there can be read.
			if head, err := checkPairs(ctx, c); err != nil || head != n-1 {
				return fmt.Errorf("%d were kept, %d are there, %w", n-1, head, err)
			}
		}
		if n > fillBytes {
			return errors.New("the disk does not get full")
		}
	}
	// Another portal sees the same: nothing is only in memory.
	again, err := store.Open(ctx, "sqlite:"+filepath.Join(dir, "tollgate.db"))
	if err == nil {
		head, err := checkPairs(ctx, New(again, nil))
		if err != nil || head != n-1 {
			return fmt.Errorf("opened again: %d were kept, %d are there, %w", n-1, head, err)
		}
		if err := again.Close(); err != nil {
			return err
		}
	} else if !errors.Is(err, store.ErrFull) {
		return err
	}
	if err := os.Remove(reserve); err != nil {
		return err
	}
	for end := n + 20; n < end; n++ {
		if _, err := applyPair(ctx, c, n); err != nil {
			return fmt.Errorf("there is room again: %w", err)
		}
	}
	head, err := checkPairs(ctx, c)
	if err != nil || head != n-1 {
		return fmt.Errorf("%d were kept, %d are there, %w", n-1, head, err)
	}
	fmt.Println(full)
	return s.Close()
}

// A disk that is full, a real one of eight megabytes: changes are refused, nothing that
// was kept is lost, and all goes on as soon as there is room.
func TestFullDisk(t *testing.T) {
	cmd := childCommand(t, "fill", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 { // root in a namespace of one's own may mount as well
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		}
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !strings.Contains(string(out), "the database's disk is full: ") {
		t.Errorf("%s", out)
	}
}
