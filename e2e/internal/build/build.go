// Package build compiles the repository's commands, each once for all tests of a process.
package build

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sync"
)

// made is what was compiled, by what it was compiled from.
var made struct {
	sync.Mutex
	dir      string // empty: there is none
	commands map[source]string
}

type source struct{ pkg, overlay string }

// Command compiles the command of a package, such as services/proxy/cmd/proxy, and returns
// its file. An overlay, if there is one, is what go build -overlay takes.
func Command(pkg, overlay string) (string, error) {
	made.Lock()
	defer made.Unlock()
	from := source{pkg, overlay}
	if file, is := made.commands[from]; is {
		return file, nil
	}
	if err := begin(); err != nil {
		return "", err
	}
	file := filepath.Join(made.dir, fmt.Sprintf("%d-%s", len(made.commands), path.Base(pkg)))
	args := []string{"build", "-o", file}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	if out, err := exec.Command("go", append(args, "tollgate.internal/"+pkg)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	made.commands[from] = file
	return file, nil
}

// Dir is a directory for what commands are compiled from.
func Dir() (string, error) {
	made.Lock()
	defer made.Unlock()
	err := begin()
	return made.dir, err
}

// begin makes the directory. made is locked.
func begin() (err error) {
	if made.dir == "" {
		made.dir, err = os.MkdirTemp("", "tollgate-commands-")
		made.commands = make(map[source]string)
	}
	return err
}

// Remove removes all of that.
func Remove() error {
	made.Lock()
	defer made.Unlock()
	dir := made.dir
	made.dir, made.commands = "", nil
	if dir == "" {
		return nil
	}
	return os.RemoveAll(dir)
}
