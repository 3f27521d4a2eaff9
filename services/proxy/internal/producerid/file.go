package producerid

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A file is a head, the set of the leases that are taken, and a checksum of both:
// 512 KiB, always. It is replaced whole, so what is there was written to its end.
const fileHead = "tollgate producer id leases 1\n"

const fileBytes = len(fileHead) + leaseSetBytes + sha256.Size

// lockPatience is between two tries to lock the file.
const lockPatience = 5 * time.Millisecond

// fileSource keeps the leases in a file that processes of one machine share. They
// take turns by a lock on PATH.lock: the file itself is another one after each
// change.
type fileSource struct{ path string }

func openFile(path string) *fileSource { return &fileSource{path} }

func (f *fileSource) String() string { return "file:" + f.path }

func (f *fileSource) Close() error { return nil }

func (f *fileSource) Take(ctx context.Context) (Lease, error) {
	var l Lease
	err := f.change(ctx, func(taken leaseSet) (changed bool, err error) {
		if l, err = taken.draw(); err != nil {
			return false, err
		}
		taken.add(l)
		return true, nil
	})
	return l, err
}

func (f *fileSource) Confirm(ctx context.Context, leases []Lease) (forgotten int, err error) {
	err = f.change(ctx, func(taken leaseSet) (bool, error) {
		for _, l := range leases {
			if !taken.has(l) {
				forgotten++
				taken.add(l)
			}
		}
		return forgotten > 0, nil
	})
	return forgotten, err
}

// change lets modify work on the set while nobody else does, and returns when the
// result is on disk.
func (f *fileSource) change(ctx context.Context, modify func(taken leaseSet) (changed bool, err error)) error {
	path := f.path
	// A rename would put a file in the place of a link, and leave the one behind
	// it to those who know it by its name.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	unlock, err := lockFile(ctx, path+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	taken, err := readLeases(path)
	if err != nil {
		return err
	}
	changed, err := modify(taken)
	if err != nil || !changed {
		return err
	}
	return writeLeases(path, taken)
}

// lockFile waits until the process alone holds the file. The kernel lets go of it
// when the process ends, however that is.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil && isStill(file, path) {
			return func() { file.Close() }, nil
		}
		file.Close()
		if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s, which another process holds: %w", path, ctx.Err())
		case <-time.After(lockPatience):
		}
	}
}

// isStill is false when somebody deleted the file between opening and locking it,
// or ever: the next one to come would lock another.
func isStill(file *os.File, path string) bool {
	ours, err := file.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(path)
	return err == nil && os.SameFile(ours, now)
}

// readLeases is empty when there is no file: nobody has taken a lease, or somebody
// deleted the file, and then the leases of before are met with the odds of a random
// draw. A damaged file is another matter: its disk or its owner needs help.
func readLeases(path string) (leaseSet, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return make(leaseSet, leaseSetBytes), nil
	}
	if err != nil {
		return nil, err
	}
	damaged := func(what string) error {
		return fmt.Errorf("%s %s: it was damaged, or is not a file of leases; restore it from a backup, or move it away and a new one is begun", path, what)
	}
	if len(raw) != fileBytes {
		return nil, damaged(fmt.Sprintf("has %d bytes instead of %d", len(raw), fileBytes))
	}
	body, sum := raw[:len(raw)-sha256.Size], raw[len(raw)-sha256.Size:]
	if !bytes.HasPrefix(body, []byte(fileHead)) {
		return nil, damaged(fmt.Sprintf("does not begin with %q", fileHead))
	}
	if want := sha256.Sum256(body); !bytes.Equal(sum, want[:]) {
		return nil, damaged("does not have the checksum that it says")
	}
	return leaseSet(body[len(fileHead):]), nil
}

// writeLeases puts a whole file in the place of the old one. When it returns nil,
// the file survives the loss of power.
func writeLeases(path string, taken leaseSet) (err error) {
	body := append([]byte(fileHead), taken...)
	sum := sha256.Sum256(body)
	next := path + ".new" // one that a killed process left behind is overwritten
	file, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			file.Close()
			os.Remove(next)
		}
	}()
	if _, err := file.Write(append(body, sum[:]...)); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
