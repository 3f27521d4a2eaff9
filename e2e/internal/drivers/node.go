package drivers

import (
	"context"
	"os/exec"
	"path/filepath"
)

// KafkaJS is kafkajs on Node.
func KafkaJS() Driver {
	return script{name: "kafkajs", prepare: func(ctx context.Context) (Command, error) {
		modules, err := NodeClients(ctx)
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
