package kafkajars

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"tollgate.internal/e2e/internal/cache"
)

// archiveFile holds classes as a JVM has them in memory, once they are read and checked.
const archiveFile = "classes.jsa"

// Sharing are the flags by which a JVM takes classes of the jars from their archive, which
// saves it half of its start: none before [Jars.Archive] has made one. The class path has
// to begin with the jars.
func (j *Jars) Sharing() []string {
	if j.archive == "" {
		return nil
	}
	// Without it, should the archive not fit: it is about speed alone.
	return []string{"-Xshare:auto", "-XX:SharedArchiveFile=" + j.archive, "-Xlog:disable"}
}

// Archive makes the archive, for this JDK, unless the cache has it. To see which classes
// are loaded, record runs programs of the jars to their end, each with one more flag.
func (j *Jars) Archive(ctx context.Context, record func(ctx context.Context, list func(name string) (flag string)) error) error {
	if j.archive != "" {
		return nil
	}
	entry, err := j.archiveEntry()
	if err != nil {
		return err
	}
	_, err = cache.Folder(ctx, "classes", entry, func(ctx context.Context, dir string) error {
		var lists []string
		err := record(ctx, func(name string) string {
			lists = append(lists, filepath.Join(dir, name))
			return "-XX:DumpLoadedClassList=" + filepath.Join(dir, name)
		})
		if err != nil {
			return err
		}
		all := filepath.Join(dir, "all")
		if err := merge(all, lists); err != nil {
			return err
		}
		java, err := Java()
		if err != nil {
			return err
		}
		return run(ctx, dir, java, "-Xshare:dump", "-XX:SharedClassListFile="+all,
			"-XX:SharedArchiveFile="+filepath.Join(dir, archiveFile), "-cp", j.Classpath())
	})
	if err != nil {
		return fmt.Errorf("archive the classes of Kafka %s: %w", j.Version, err)
	}
	j.archive = j.findArchive()
	return nil
}

// findArchive is the archive in the cache, if there is one.
func (j *Jars) findArchive() string {
	root, err := cache.Root()
	if err != nil {
		return ""
	}
	entry, err := j.archiveEntry()
	if err != nil {
		return ""
	}
	file := filepath.Join(root, "classes", entry, archiveFile)
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

// archiveEntry names the archive in the cache: it changes with the jars and the JDK.
func (j *Jars) archiveEntry() (string, error) {
	java, err := Java()
	if err != nil {
		return "", err
	}
	if java, err = filepath.EvalSymlinks(java); err != nil {
		return "", err
	}
	home := filepath.Dir(filepath.Dir(java))
	// The modules hold all classes of the JDK.
	modules, err := os.Stat(filepath.Join(home, "lib", "modules"))
	if err != nil {
		return "", err
	}
	return j.Version + "-" + cache.Digest(j.dir, home, modules.ModTime().String(), fmt.Sprint(modules.Size())), nil
}

// merge writes all lines of the lists into one, each once.
func merge(into string, lists []string) error {
	var all []string
	known := make(map[string]bool)
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if !known[line] {
				known[line] = true
				all = append(all, line)
			}
		}
	}
	return os.WriteFile(into, []byte(strings.Join(all, "")), 0o600)
}
