// Package cache keeps what the test bed downloads or compiles, between runs.
//
// The cache lies in the user's cache folder, or where TOLLGATE_E2E_CACHE says.
// An entry is a folder that is complete from the moment it exists: it is filled
// under another name and renamed. Its name holds a digest of everything it was
// made from, so it is never stale and never changed; deleting the whole cache is
// always safe while no test runs.
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Root is the folder of the cache; it exists.
func Root() (string, error) {
	dir := os.Getenv("TOLLGATE_E2E_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the user's cache folder: %w", err)
		}
		dir = filepath.Join(base, "tollgate-e2e")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// Digest names what an entry is made from.
func Digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// Folder returns the entry kind/name and calls fill to make it when it is not
// there. Entries of one kind are filled one at a time, by whichever process
// comes first: Maven's and npm's own stores do not stand two writers either.
func Folder(ctx context.Context, kind, name string, fill func(ctx context.Context, dir string) error) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, kind, name)
	if exists(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	unlock, err := Lock(ctx, filepath.Join(root, kind+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(dir) {
		return dir, nil // another process filled it while this one waited
	}
	tmp := dir + ".filling"
	if err := os.RemoveAll(tmp); err != nil { // of a process that died; the lock says nobody is at it
		return "", err
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return "", err
	}
	if err := fill(ctx, tmp); err != nil {
		return "", errors.Join(fmt.Errorf("fill cache entry %s/%s: %w", kind, name, err), os.RemoveAll(tmp))
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", err
	}
	return dir, nil
}

// Lock takes an exclusive lock on a file, which is made if it is not there and
// stays. The kernel drops the lock when the process ends.
func Lock(ctx context.Context, file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	// A blocking flock cannot be interrupted by ctx, so ask again and again.
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", file, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for the lock %s: %w", file, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func exists(dir string) bool {
	_, err := os.Stat(dir)
	return err == nil
}
