package cache

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Python returns the folder of a virtual environment that holds what the requirements
// pin, and makes it when it is not in the cache.
func Python(ctx context.Context, kind string, requirements []byte) (string, error) {
	// Libraries may be compiled for one Python.
	version, err := Output(ctx, "", "python3", "--version")
	if err != nil {
		return "", err
	}
	return Folder(ctx, kind, Digest(string(requirements), string(version)), func(ctx context.Context, dir string) error {
		if _, err := Output(ctx, dir, "python3", "-m", "venv", dir); err != nil {
			return err
		}
		file := filepath.Join(dir, "requirements.txt")
		if err := os.WriteFile(file, requirements, 0o644); err != nil {
			return err
		}
		_, err := Output(ctx, dir, filepath.Join(dir, "bin", "python"), "-m", "pip", "install",
			"--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "-r", file)
		return err
	})
}

// Output runs a command in dir and returns what it printed; an error has that too.
func Output(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", name, err, bytes.TrimSpace(out))
	}
	return out, nil
}
