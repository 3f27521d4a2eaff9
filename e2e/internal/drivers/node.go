package drivers

import (
	"context"
	"os/exec"
	"path/filepath"

	"tollgate.internal/e2e/internal/cache"
)

// KafkaJSVersion is as scripts/package.json says.
const KafkaJSVersion = "2.2.4"

// KafkaJS is kafkajs on Node.
func KafkaJS() Driver {
	return script{name: "kafkajs-" + KafkaJSVersion, prepare: func(ctx context.Context) (Command, error) {
		modules, err := NodeModules(ctx)
		if err != nil {
			return Command{}, err
		}
		dir, err := scriptDir(ctx)
		if err != nil {
			return Command{}, err
		}
		node, err := exec.LookPath("node")
		if err != nil {
			return Command{}, err
		}
		return Command{
			Path: node, Args: []string{filepath.Join(dir, "kafkajs.js")},
			Env: []string{"KAFKAJS=" + filepath.Join(modules, "kafkajs"), "KAFKAJS_NO_PARTITIONER_WARNING=1"},
		}, nil
	}}
}

// NodeModules is the folder of the Node clients' packages; it is filled when it
// is not in the cache.
func NodeModules(ctx context.Context) (string, error) {
	scripts, err := scriptDir(ctx)
	if err != nil {
		return "", err
	}
	dir, err := cache.Folder(ctx, "node", "kafkajs-"+KafkaJSVersion, func(ctx context.Context, dir string) error {
		for _, name := range []string{"package.json", "package-lock.json"} {
			if err := install(ctx, dir, "cp", filepath.Join(scripts, name), dir); err != nil {
				return err
			}
		}
		return install(ctx, dir, "npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts")
	})
	return filepath.Join(dir, "node_modules"), err
}
