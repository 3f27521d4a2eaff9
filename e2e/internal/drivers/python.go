package drivers

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"tollgate.internal/e2e/internal/cache"
)

// The Python clients, in the versions that are tested.
const (
	ConfluentKafkaVersion = "2.16.1" // with librdkafka 2.16.0 inside
	KafkaPythonVersion    = "3.0.12"
)

//go:embed scripts
var scripts embed.FS

// ConfluentKafka is confluent-kafka for Python: a current librdkafka.
func ConfluentKafka() Driver {
	return script{name: "confluent-kafka-" + ConfluentKafkaVersion, prepare: python("confluent.py")}
}

// KafkaPython is kafka-python, which has the protocol written in Python.
func KafkaPython() Driver {
	return script{name: "kafka-python-" + KafkaPythonVersion, prepare: python("kafkapython.py")}
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
		venv, err := Venv(ctx)
		if err != nil {
			return Command{}, err
		}
		dir, err := scriptDir(ctx)
		if err != nil {
			return Command{}, err
		}
		// -B: tests that run at once must not write compiled files into the cache.
		return Command{Path: filepath.Join(venv, "bin", "python"), Args: []string{"-B", filepath.Join(dir, file)}}, nil
	}
}

// Venv is the folder of the virtual environment with the Python clients; it is
// made when it is not in the cache.
func Venv(ctx context.Context) (string, error) {
	python, err := exec.LookPath("python3")
	if err != nil {
		return "", err
	}
	version, err := exec.CommandContext(ctx, python, "-c", "import sys; print(sys.version, sys.prefix)").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", python, err)
	}
	packages := []string{"confluent-kafka==" + ConfluentKafkaVersion, "kafka-python==" + KafkaPythonVersion}
	entry := "venv-" + cache.Digest(append(packages, string(version))...)
	return cache.Folder(ctx, "python", entry, func(ctx context.Context, dir string) error {
		if err := install(ctx, dir, python, "-m", "venv", "--clear", dir); err != nil {
			return err
		}
		pip := append([]string{"-m", "pip", "install", "-q", "--only-binary=confluent-kafka"}, packages...)
		return install(ctx, dir, filepath.Join(dir, "bin", "python"), pip...)
	})
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

func install(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, tail(out.String(), 2000))
	}
	return nil
}
