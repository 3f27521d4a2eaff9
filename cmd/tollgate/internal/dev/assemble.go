package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// upstreamsFile stands beside the links to the resource files. A directory
// cannot hold two entries of one name, so files of the source must not have it.
const upstreamsFile = "tollgate-dev-upstreams.yaml"

// definedClusters are the UpstreamClusters that resource files define themselves.
// What is wrong with the files is reported by those who load them.
func definedClusters(dir string) (map[string]bool, error) {
	defined := make(map[string]bool)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ext := filepath.Ext(path); d.IsDir() || ext != ".yaml" && ext != ".yml" {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		documents := yaml.NewDecoder(strings.NewReader(string(data)))
		for {
			var o struct {
				Kind     string
				Metadata struct{ Name string }
			}
			err := documents.Decode(&o)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if _, mismatch := errors.AsType[*yaml.TypeError](err); err != nil && !mismatch {
				return nil // a syntax error
			}
			if o.Kind == "UpstreamCluster" {
				defined[o.Metadata.Name] = true
			}
		}
	})
	return defined, err
}

// assemble makes dir what the proxy loads: links to every file of source, and the
// upstream clusters. Called again, it follows what came and went in source.
func assemble(dir, source string, upstreams []Upstream) error {
	source, err := filepath.Abs(source)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	wanted := map[string]bool{upstreamsFile: true}
	err = filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(source, path)
		if err != nil || below == "." {
			return err
		}
		target := filepath.Join(dir, below)
		wanted[below] = true
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		if to, err := os.Readlink(target); err == nil && to == path {
			return nil
		}
		if err := os.RemoveAll(target); err != nil {
			return err
		}
		return os.Symlink(path, target)
	})
	if err != nil {
		return err
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(dir, path)
		if err != nil || below == "." || wanted[below] {
			return err
		}
		if err := os.RemoveAll(path); err != nil || !d.IsDir() {
			return err
		}
		return fs.SkipDir
	})
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, u := range upstreams {
		fmt.Fprintf(&b, "---\n{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: %q}, spec: {bootstrap: [\"%s\"]}}\n",
			u.Name, strings.Join(u.Bootstrap, `", "`))
	}
	path := filepath.Join(dir, upstreamsFile)
	if old, err := os.ReadFile(path); err == nil && string(old) == b.String() {
		return nil
	}
	return WriteFile(path, []byte(b.String()), 0o600)
}

// follow keeps dir assembled until ctx ends.
func follow(ctx context.Context, log *slog.Logger, dir, source string, upstreams []Upstream) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := assemble(dir, source, upstreams); err != nil {
			log.Error("resource files not followed", "dir", source, "err", err)
		}
	}
}
