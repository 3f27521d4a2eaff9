package resource

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxFileBytes bounds what one file may hold: a directory is read again on every
// change, and a log file that strayed into it must not fill memory.
const maxFileBytes = 64 << 20

// LoadDir reads every *.yaml and *.yml file below dir, in the order of their
// names. Names that begin with a dot are passed over: that is where editors and
// Kubernetes keep what is not meant to be read. Symbolic links are followed, to
// files and to directories. A directory without any object is refused: a volume
// that is not mounted looks the same as the end of every tenant. The error is of
// type [Problems].
func LoadDir(dir string) (*Set, error) {
	var problems Problems
	l := &loader{now: time.Now(), problems: &problems}
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return nil, Problems{{File: dir, Message: err.Error()}}
	}
	l.read(dir, absolute, nil)
	if len(l.objects) == 0 && len(problems) == 0 {
		return nil, Problems{{File: dir, Message: "holds no objects: there is no *.yaml or *.yml file with a document in it"}}
	}
	return l.finish()
}

// read reads what path names: a file, or a directory with all below it. Above
// are the directories on the way to it.
func (l *loader) read(path, absolute string, above []fs.FileInfo) {
	report := func(message string) {
		*l.problems = append(*l.problems, Problem{File: path, Message: message})
	}
	info, err := os.Stat(path)
	if err != nil {
		report(reason(err))
		return
	}
	if !info.IsDir() {
		if !isYAML(path) {
			return
		}
		data, err := readFile(path, info)
		if err != nil {
			report(reason(err))
			return
		}
		l.add(path, filepath.Dir(absolute), data)
		return
	}
	if slices.ContainsFunc(above, func(a fs.FileInfo) bool { return os.SameFile(a, info) }) {
		report("a symbolic link leads back to a directory that holds it")
		return
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		report(reason(err)) // and read the entries that came before the error
	}
	above = append(slices.Clip(above), info)
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") || entry.Type().IsRegular() && !isYAML(name) {
			continue
		}
		l.read(filepath.Join(path, name), filepath.Join(absolute, name), above)
	}
}

// Signature changes when any file below dir does, be it of resources or what they refer
// to. Links are followed, as [LoadDir] follows them; one back into itself ends at a depth
// that no real tree has. Two signatures are compared within one process only.
func Signature(dir string) uint64 {
	h := fnv.New64a()
	var walk func(path string, depth int)
	walk = func(path string, depth int) {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			fmt.Fprintf(h, "%v\x00", err)
		case !info.IsDir():
			fmt.Fprintf(h, "%s\x00%d\x00%d\x00", path, info.ModTime().UnixNano(), info.Size())
		case depth < 16:
			entries, err := os.ReadDir(path)
			if err != nil {
				fmt.Fprintf(h, "%v\x00", err)
			}
			for _, e := range entries {
				walk(filepath.Join(path, e.Name()), depth+1)
			}
		}
	}
	walk(dir, 0)
	return h.Sum64()
}

func isYAML(path string) bool {
	ext := filepath.Ext(path)
	return ext == ".yaml" || ext == ".yml"
}

func readFile(path string, info fs.FileInfo) ([]byte, error) {
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if info.Size() > maxFileBytes {
		return nil, fmt.Errorf("file holds more than %d bytes", maxFileBytes)
	}
	return os.ReadFile(path)
}

// reason is err without the path, which stands in front of it already.
func reason(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Op + ": " + p.Err.Error()
	}
	return err.Error()
}

// loader gathers objects from files and then looks at them together.
type loader struct {
	now      time.Time
	objects  []*Written
	problems *Problems

	unread []string // the text of files with syntax errors
}

func (l *loader) add(file, baseDir string, data []byte) {
	objects, whole := parse(file, baseDir, "", data, l.problems)
	l.objects = append(l.objects, objects...)
	if !whole {
		l.unread = append(l.unread, string(data))
	}
}

func (l *loader) finish() (*Set, error) {
	v := newValidator(l.objects, nil, l.now)
	v.unread = l.unread
	v.validate()
	if len(*l.problems) > 0 {
		l.problems.Sort()
		return nil, *l.problems
	}
	set := NewSet()
	for _, o := range l.objects {
		set.add(o.Object)
	}
	return set, nil
}
