package producerid

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestADamagedFileIsRefusedAndLeftAlone(t *testing.T) {
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[(at+len(b))%len(b)] ^= 1; return b }
	}
	for _, tc := range []struct {
		name   string
		damage func([]byte) []byte
		want   string
	}{
		{"emptied", func([]byte) []byte { return nil }, "has 0 bytes instead of 524350"},
		{"cut off", func(b []byte) []byte { return b[:len(b)-1] }, "has 524349 bytes instead of 524350"},
		{"with something behind it", func(b []byte) []byte { return append(b, '\n') }, "has 524351 bytes instead of 524350"},
		{"something else", func(b []byte) []byte { return bytes.Repeat([]byte{0}, len(b)) }, `does not begin with "tollgate producer id leases 1\n"`},
		{"of another version", flip(len(fileHead) - 2), `does not begin with "tollgate producer id leases 1\n"`},
		{"with a bit flipped", flip(300_000), "does not have the checksum"},
		{"with a bit of its checksum flipped", flip(-1), "does not have the checksum"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ids")
			s := open(t, "file:"+path)
			if _, err := s.Take(t.Context()); err != nil {
				t.Fatal(err)
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			damaged := tc.damage(raw)
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = s.Take(t.Context())
			if err == nil || !strings.HasPrefix(err.Error(), path+" "+tc.want) || !strings.Contains(err.Error(), "restore it from a backup, or move it away") {
				t.Errorf("Take: %v, want %s, and a cure", err, tc.want)
			}
			if _, err := s.Confirm(t.Context(), []Lease{1}); err == nil {
				t.Error("Confirm took the file for a good one")
			}
			if now, _ := os.ReadFile(path); !bytes.Equal(now, damaged) {
				t.Error("the file was changed")
			}
		})
	}
}

// Deleting the file, or putting an old copy in its place, takes nothing from the
// leases of processes that run: they record them again.
func TestALostFileIsRestoredByThoseWhoHoldLeases(t *testing.T) {
	for name, lose := range map[string]func(path string, before []byte) error{
		"deleted":  func(path string, _ []byte) error { return os.Remove(path) },
		"restored": func(path string, before []byte) error { return os.WriteFile(path, before, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ids")
			s := open(t, "file:"+path)
			if _, err := s.Take(t.Context()); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var leases []Lease
			for range 3 {
				l, err := s.Take(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				leases = append(leases, l)
			}
			if err := lose(path, before); err != nil {
				t.Fatal(err)
			}
			for _, want := range []int{3, 0} {
				if n, err := s.Confirm(t.Context(), leases); n != want || err != nil {
					t.Errorf("Confirm: %d forgotten, %v, want %d", n, err, want)
				}
			}
		})
	}
}

func TestAFileThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nowhere")
	if _, err := open(t, "file:"+filepath.Join(dir, "ids")).Take(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a directory that does not exist: %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory was made: it may be where a volume was to be mounted")
	}

	dir = t.TempDir()
	path := filepath.Join(dir, "ids")
	s := open(t, "file:"+path)
	if _, err := s.Take(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	asNobody(t, dir, func() {
		if _, err := s.Take(t.Context()); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("without the right to write: %v", err)
		}
	})

	out, err := child("take without room", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := "write " + path + ".new: file too large\n"; string(out) != want {
		t.Errorf("without room: %q, want %q", out, want)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(after, before) {
		t.Error("the file was changed")
	}
	if _, err := os.Stat(path + ".new"); err == nil {
		t.Error("half a file is left over")
	}
	if _, err := s.Take(t.Context()); err != nil {
		t.Errorf("when all is well again: %v", err)
	}
}

// asNobody runs f without the right to write to dir, also when the test is root's.
func asNobody(t *testing.T, dir string, f func()) {
	t.Helper()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o555); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(d, 0o755)
	}
	if os.Geteuid() == 0 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // and end the thread: it is of no use to others
			const nobody = 65534
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETFSUID, nobody, 0, 0); errno != 0 {
				t.Errorf("setfsuid: %v", errno)
				return
			}
			f()
		}()
		<-done
		return
	}
	f()
}

func TestALockIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ids")
	s := open(t, "file:"+path)
	unlock, err := lockFile(t.Context(), path+".lock")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := s.Take(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "which another process holds") {
		t.Errorf("Take: %v, want the deadline", err)
	}
	done := make(chan error)
	go func() { _, err := s.Take(t.Context()); done <- err }()
	unlock()
	if err := <-done; err != nil {
		t.Errorf("Take after the lock is free: %v", err)
	}
}

// The lock is on the file of that name: one who opened a file that was deleted since
// would lock nothing.
func TestADeletedLockIsNoLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	deleted, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer deleted.Close()
	if !isStill(deleted, path) {
		t.Error("the file is another one before it is deleted")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if isStill(deleted, path) {
		t.Error("a deleted file still is the lock")
	}
	unlock, err := lockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if isStill(deleted, path) {
		t.Error("a deleted file is the one that is made after it")
	}
}

func TestALinkToAFileStaysOne(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	direct := open(t, "file:"+real)
	l, err := direct.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	through := open(t, "file:"+link)
	m, err := through.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := direct.Confirm(t.Context(), []Lease{l, m}); n != 0 || err != nil {
		t.Errorf("the file behind the link misses %d of 2 leases, %v", n, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info, err)
	}
}
