package resource

import (
	"errors"
	"fmt"
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
	l := newLoader(time.Now(), &problems)
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
	set      *Set
	objects  []*object
	problems *Problems

	unread []string // the text of files with syntax errors

	// What must be unique, and who has it.
	hosts         map[string]*object
	physical      map[[3]string]*object // virtual cluster, cluster, topic
	externalNames map[[2]string]*object // virtual cluster, name
}

func newLoader(now time.Time, problems *Problems) *loader {
	return &loader{
		now: now, set: newSet(), problems: problems,
		hosts:         make(map[string]*object),
		physical:      make(map[[3]string]*object),
		externalNames: make(map[[2]string]*object),
	}
}

func (l *loader) add(file, baseDir string, data []byte) {
	objects, whole := parse(file, baseDir, data, l.problems)
	l.objects = append(l.objects, objects...)
	if !whole {
		l.unread = append(l.unread, string(data))
	}
}

func (l *loader) finish() (*Set, error) {
	l.register()
	for _, o := range l.objects {
		l.validate(o)
	}
	if len(*l.problems) > 0 {
		l.problems.Sort()
		return nil, *l.problems
	}
	return l.set, nil
}

// register fills the set, and reports names that are taken.
func (l *loader) register() {
	type identity struct{ kind, scope, name string }
	taken := make(map[identity]*object)
	for _, o := range l.objects {
		if o.meta.Name == "" {
			continue
		}
		id := identity{kind: o.kind, name: o.meta.Name}
		switch o.kind {
		case "TopicGrant":
			id.scope = o.meta.Tenant
		case "AliasTopic", "ServiceAccount", "Acl":
			id.scope = o.meta.VirtualCluster
		}
		if first, ok := taken[id]; ok {
			within := ""
			if id.scope != "" {
				within = " of " + id.scope
			}
			o.Problem("metadata.name", "%s %s%s exists already, in %s", id.kind, id.name, within, first.where())
			continue
		}
		taken[id] = o
		switch v := o.value.(type) {
		case *Tenant:
			l.set.Tenants[id.name] = v
		case *UpstreamCluster:
			l.set.UpstreamClusters[id.name] = v
		case *VirtualCluster:
			l.set.VirtualClusters[id.name] = v
		case *TopicGrant:
			l.set.TopicGrants = append(l.set.TopicGrants, v)
		case *AliasTopic:
			l.set.AliasTopics = append(l.set.AliasTopics, v)
		case *ServiceAccount:
			l.set.ServiceAccounts = append(l.set.ServiceAccounts, v)
		case *ACL:
			l.set.ACLs = append(l.set.ACLs, v)
		}
	}
}
