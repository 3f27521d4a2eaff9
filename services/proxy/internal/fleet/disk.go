package fleet

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"tollgate.internal/pkg/bundle"
)

// disk is where a node keeps what it was given, as it was sealed: nothing in it is
// believed for being there. A file is written whole or not at all, and is there after
// a power cut once it was written.
//
//	owner            what tells this node from another that says it is the same
//	head             the highest that was ever seen
//	vc/<name>        the last bundle of a virtual cluster, tombstones too
//	upstream/<name>  the last bundle of an upstream cluster
//	policies         the last bundle with the policies of all virtual clusters
//	host/<host>      the name of the virtual cluster that claimed it last: a hint
type disk struct {
	dir   string
	lock  *os.File
	owner string

	mu    sync.Mutex // guards those below
	known map[bundle.ID]struct{}
}

// maxFileBytes bounds what is read back.
const maxFileBytes = bundle.MaxBytes

// openDisk takes a directory for this process alone.
func openDisk(dir string) (*disk, error) {
	d := &disk{dir: dir, known: make(map[bundle.ID]struct{})}
	for _, sub := range []string{"", "vc", "upstream", "host"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("state directory %s is that of a process which runs: each node has one of its own", dir)
		}
		return nil, fmt.Errorf("state directory: lock %s: %w", lock.Name(), err)
	}
	d.lock = lock
	if err := d.scan(); err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

// scan learns what is there, without reading it.
func (d *disk) scan() error {
	for _, sub := range []string{"", "vc", "upstream", "host"} {
		entries, err := os.ReadDir(filepath.Join(d.dir, sub))
		if err != nil {
			return fmt.Errorf("state directory: %w", err)
		}
		for _, e := range entries {
			name := e.Name()
			if strings.HasPrefix(name, unfinished) {
				os.Remove(filepath.Join(d.dir, sub, name))
				continue
			}
			switch name, ok := unsafeName(name); {
			case !ok:
			case sub == "" && name == policiesFile:
				d.known[bundle.Everywhere] = struct{}{}
			case sub == "vc":
				d.known[bundle.ID{Kind: bundle.VirtualCluster, Name: name}] = struct{}{}
			case sub == "upstream":
				d.known[bundle.ID{Kind: bundle.UpstreamCluster, Name: name}] = struct{}{}
			}
		}
	}
	owner, err := d.read("owner")
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if d.owner = string(owner); d.owner == "" {
		d.owner = rand.Text()
		if err := d.write("owner", []byte(d.owner)); err != nil {
			return fmt.Errorf("state directory: %w", err)
		}
	}
	return nil
}

func (d *disk) close() { d.lock.Close() }

// safeName is a file name for any name. Names are DNS labels, so that it is mostly
// the name itself.
func safeName(name string) (string, bool) {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String(), name != "" && b.Len() <= 200
}

func unsafeName(file string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(file); i++ {
		c := file[i]
		if c == '%' {
			if _, err := fmt.Sscanf(file[i:], "%%%02x", &c); err != nil {
				return "", false
			}
			i += 2
		}
		b.WriteByte(c)
	}
	name := b.String()
	again, ok := safeName(name)
	return name, ok && again == file
}

const policiesFile = "policies"

func pathOf(id bundle.ID) (string, bool) {
	if id == bundle.Everywhere {
		return policiesFile, true
	}
	name, ok := safeName(id.Name)
	if id.Kind == bundle.UpstreamCluster {
		return filepath.Join("upstream", name), ok
	}
	return filepath.Join("vc", name), ok
}

// ids are all of which there is a bundle.
func (d *disk) ids() []bundle.ID {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := make([]bundle.ID, 0, len(d.known))
	for id := range d.known {
		ids = append(ids, id)
	}
	return ids
}

func (d *disk) has(id bundle.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.known[id]
	return ok
}

// bundle is what is kept of an id; nil if there is nothing.
func (d *disk) bundle(id bundle.ID) ([]byte, error) {
	path, ok := pathOf(id)
	if !ok {
		return nil, nil
	}
	return d.read(path)
}

// keep writes a bundle. If it cannot, it forgets the one that it would have replaced:
// what was revoked by the new one must not come back with the old one.
func (d *disk) keep(id bundle.ID, data []byte) error {
	path, ok := pathOf(id)
	if !ok {
		return nil // and is asked for each time
	}
	err := d.write(path, data)
	d.mu.Lock()
	d.known[id] = struct{}{}
	d.mu.Unlock()
	if err == nil {
		return nil
	}
	if remove := os.Remove(filepath.Join(d.dir, path)); remove == nil || errors.Is(remove, fs.ErrNotExist) {
		d.mu.Lock()
		delete(d.known, id)
		d.mu.Unlock()
	} else {
		err = errors.Join(err, remove)
	}
	return err
}

// host is the virtual cluster that claimed a host last; empty: none.
func (d *disk) host(host string) string {
	name, ok := safeName(host)
	if !ok {
		return ""
	}
	data, err := d.read(filepath.Join("host", name))
	if err != nil {
		return ""
	}
	return string(data)
}

func (d *disk) keepHost(host, vc string) error {
	name, ok := safeName(host)
	if !ok || d.host(host) == vc {
		return nil
	}
	return d.write(filepath.Join("host", name), []byte(vc))
}

// read returns nil if there is no such file.
func (d *disk) read(name string) ([]byte, error) {
	path := filepath.Join(d.dir, name)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case info.Size() > maxFileBytes:
		return nil, fmt.Errorf("%s holds more than %d bytes", path, maxFileBytes)
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// unfinished begins the names of files that are being written.
const unfinished = ".new-"

func (d *disk) write(name string, data []byte) (err error) {
	path := filepath.Join(d.dir, name)
	f, err := os.CreateTemp(filepath.Dir(path), unfinished)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
