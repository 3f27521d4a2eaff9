package drivers

import (
	"context"
	_ "embed"
	"fmt"
	"os"
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
	dir, err := cache.Python(ctx, "python", requirements)
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
			_, err := cache.Output(ctx, dir, "npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts")
			return err
		})
	if err != nil {
		return "", fmt.Errorf("get the Node client: %w", err)
	}
	return filepath.Join(dir, "node_modules"), nil
}
