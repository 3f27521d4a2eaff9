package drivers

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"tollgate.internal/e2e/internal/cache"
)

var (
	//go:embed requirements.txt
	requirements []byte
	//go:embed package.json
	packageJSON []byte
)

// PythonClients returns the interpreter of an environment that holds confluent-kafka and
// kafka-python in the pinned versions, and makes it when it is not in the cache.
func PythonClients(ctx context.Context) (string, error) {
	// The libraries are compiled for one Python.
	version, err := output(ctx, "", "python3", "--version")
	if err != nil {
		return "", fmt.Errorf("get the Python clients: %w", err)
	}
	dir, err := cache.Folder(ctx, "python", cache.Digest(string(requirements), string(version)),
		func(ctx context.Context, dir string) error {
			if _, err := output(ctx, dir, "python3", "-m", "venv", dir); err != nil {
				return err
			}
			file := filepath.Join(dir, "requirements.txt")
			if err := os.WriteFile(file, requirements, 0o644); err != nil {
				return err
			}
			_, err := output(ctx, dir, filepath.Join(dir, "bin", "python"), "-m", "pip", "install",
				"--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "-r", file)
			return err
		})
	if err != nil {
		return "", fmt.Errorf("get the Python clients: %w", err)
	}
	return filepath.Join(dir, "bin", "python"), nil
}

// NodeClients returns the node_modules folder that holds kafkajs in the pinned version,
// and makes it when it is not in the cache.
func NodeClients(ctx context.Context) (string, error) {
	dir, err := cache.Folder(ctx, "node", cache.Digest(string(packageJSON)),
		func(ctx context.Context, dir string) error {
			if err := os.WriteFile(filepath.Join(dir, "package.json"), packageJSON, 0o644); err != nil {
				return err
			}
			_, err := output(ctx, dir, "npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts")
			return err
		})
	if err != nil {
		return "", fmt.Errorf("get the Node client: %w", err)
	}
	return filepath.Join(dir, "node_modules"), nil
}

func output(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", name, err, bytes.TrimSpace(out))
	}
	return out, nil
}
