package kafkatest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tollgate.internal/e2e/internal/cache"
	"tollgate.internal/e2e/internal/kafkajars"
)

// metaProperties says whose a data folder is.
const metaProperties = "meta.properties"

// format prepares the data folder. What StorageTool writes differs from broker to
// broker only in the ids of [metaProperties], so it runs once for each choice of
// features and users, and never while the cache has what it wrote.
func (b *Broker) format(ctx context.Context) error {
	template, err := b.cluster.formatted(ctx)
	if err != nil {
		return fmt.Errorf("format node %d: %w", b.ID, err)
	}
	data := filepath.Join(b.dir, "data")
	if err := os.CopyFS(data, os.DirFS(template)); err != nil {
		return err
	}
	directory, err := newID()
	if err != nil {
		return err
	}
	file := filepath.Join(data, metaProperties)
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	ids := map[string]string{"cluster.id": b.cluster.ID, "node.id": fmt.Sprint(b.ID), "directory.id": directory}
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		name, _, _ := strings.Cut(line, "=")
		if id, ok := ids[name]; ok {
			lines[i] = name + "=" + id
			delete(ids, name)
		}
	}
	if len(ids) > 0 {
		return fmt.Errorf("format node %d: %s has no %v:\n%s", b.ID, file, slices.Sorted(maps.Keys(ids)), text)
	}
	return os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600)
}

// formatted is the data folder of a broker that does not exist, in the cache.
func (c *Cluster) formatted(ctx context.Context) (string, error) {
	args := c.formatArgs()
	entry := c.Options.Version + "-" + cache.Digest(append([]string{c.jars.Entry()}, args...)...)
	dir, err := cache.Folder(ctx, "formatted", entry, func(ctx context.Context, dir string) error {
		id, err := newID()
		if err != nil {
			return err
		}
		config := filepath.Join(dir, "server.properties")
		err = os.WriteFile(config, encode(map[string]string{
			"process.roles":                  "broker,controller",
			"node.id":                        "1",
			"controller.quorum.voters":       "1@127.0.0.1:9093",
			"controller.listener.names":      "CONTROLLER",
			"listeners":                      "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093",
			"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
			"log.dirs":                       filepath.Join(dir, "data"),
		}), 0o600)
		if err != nil {
			return err
		}
		cmd, err := c.java(ctx, slices.Concat(
			c.jars.SmallJVM(), kafkajars.Quiet(),
			[]string{"-cp", c.jars.Classpath(), "kafka.tools.StorageTool", "format", "-t", id, "-c", config}, args)...)
		if err != nil {
			return err
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, bytes.TrimSpace(out))
		}
		return nil
	})
	return filepath.Join(dir, "data"), err
}

// formatArgs are what StorageTool is told of features and users.
func (c *Cluster) formatArgs() []string {
	var args []string
	for _, name := range slices.Sorted(maps.Keys(c.Options.Features)) {
		args = append(args, "--feature", fmt.Sprintf("%s=%d", name, c.Options.Features[name]))
	}
	if c.Options.SASL {
		for _, user := range slices.Sorted(maps.Keys(c.Options.Users)) {
			for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
				args = append(args, "--add-scram",
					fmt.Sprintf("%s=[name=%s,password=%s,iterations=4096]", mechanism, user, c.Options.Users[user]))
			}
		}
	}
	return args
}
