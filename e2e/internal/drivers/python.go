package drivers

import (
	"context"
	"embed"
	"fmt"
	"os"
	"path/filepath"

	"tollgate.internal/e2e/internal/cache"
)

//go:embed scripts
var scripts embed.FS

// ConfluentKafka is confluent-kafka for Python: a current librdkafka.
func ConfluentKafka() Driver {
	return script{name: "confluent-kafka", prepare: python("confluent.py")}
}

// KafkaPython is kafka-python, which has the protocol written in Python.
func KafkaPython() Driver {
	return script{name: "kafka-python", prepare: python("kafkapython.py")}
}

// A script is a driver that is a program in another language.
type script struct {
	name    string
	prepare func(ctx context.Context) (Command, error)
	lacks   []string
}

func (s script) Name() string { return s.name }

func (s script) Supports(do string) bool {
	for _, l := range s.lacks {
		if l == do {
			return false
		}
	}
	return true
}

func (s script) Run(ctx context.Context, target Target, steps ...Step) ([]Outcome, error) {
	cmd, err := s.prepare(ctx)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", s.name, err)
	}
	return runScript(ctx, s.name, cmd, target, steps)
}

// python prepares a script of this package to run with the pinned libraries.
func python(file string) func(context.Context) (Command, error) {
	return func(ctx context.Context) (Command, error) {
		python, err := PythonClients(ctx)
		if err != nil {
			return Command{}, err
		}
		dir, err := scriptDir(ctx)
		if err != nil {
			return Command{}, err
		}
		// -B: tests that run at once must not write compiled files into the cache.
		return Command{Path: python, Args: []string{"-B", filepath.Join(dir, file)}}, nil
	}
}

// scriptDir is a folder with the scripts as files.
func scriptDir(ctx context.Context) (string, error) {
	var parts []string
	files := map[string][]byte{}
	entries, err := scripts.ReadDir("scripts")
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		text, err := scripts.ReadFile("scripts/" + e.Name())
		if err != nil {
			return "", err
		}
		files[e.Name()] = text
		parts = append(parts, e.Name(), string(text))
	}
	return cache.Folder(ctx, "scripts", cache.Digest(parts...), func(_ context.Context, dir string) error {
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
				return err
			}
		}
		return nil
	})
}
