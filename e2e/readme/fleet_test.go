package readme

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/kafkajars"
	"tollgate.internal/e2e/internal/kafkatest"
)

// insideAlready tells the test that it runs where every port is free.
const insideAlready = "TOLLGATE_TEST_INSIDE_ALREADY"

// What docs/operating.md has operators type, from building it to a node that was
// drained, one shell types as it stands, beside a Kafka, and it prints what the page
// says.
func TestAFleetFromNothing(t *testing.T) {
	if os.Getenv(insideAlready) == "" {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if _, err := kafkajars.Get(ctx, kafkatest.V4); err != nil { // while there is a network
			t.Fatal(err)
		}
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := inside(ctx, t, self, "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(cmd.Env, insideAlready+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	kafka := kafkatest.Start(t, kafkatest.Options{})
	const there = "127.0.0.1:19092" // of the page's Kafka
	var script strings.Builder
	script.WriteString("set -euo pipefail\ntrap 'kill $(jobs -p); wait' EXIT\n")
	blocks := block.FindAllStringSubmatch(section(t, "docs/operating.md", "## From nothing to a fleet"), -1)
	for i, b := range blocks {
		fmt.Fprintf(&script, "echo block %d\n%s\n", i, strings.ReplaceAll(b[1], there, kafka.Bootstrap()))
	}
	if !strings.Contains(script.String(), kafka.Bootstrap()) {
		t.Fatalf("the page has no Kafka on %s:\n%s", there, &script)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	home := t.TempDir()
	cmd := exec.CommandContext(ctx, "bash", "-c", script.String())
	cmd.Dir = checkOut(ctx, t)
	cmd.Env = append(os.Environ(), "TOLLGATE_CONFIG="+filepath.Join(home, "config.yaml"))
	var errs strings.Builder
	cmd.Stderr = &errs
	raw, err := cmd.Output()
	out := string(raw)
	if err != nil {
		tail := exec.CommandContext(t.Context(), "bash", "-c", "tail -n 20 fleet/*.log")
		tail.Dir = cmd.Dir
		logs, _ := tail.CombinedOutput()
		t.Fatalf("%v, having printed\n%s\n%s\n%s", err, out, &errs, logs)
	}
	for i, b := range blocks {
		_, of, _ := strings.Cut(out, fmt.Sprintf("block %d\n", i))
		of, _, _ = strings.Cut(of, fmt.Sprintf("block %d\n", i+1))
		if b[2] != "" && strings.TrimSpace(of) != strings.TrimSpace(b[2]) {
			t.Errorf("block %d printed\n%s\nwant\n%s", i, of, b[2])
		}
	}
	for _, said := range []string{"4 objects: 4 created", "n1 ", "n2 ", "n3 "} {
		if !strings.Contains(out, said) {
			t.Errorf("%q was not printed, but\n%s", said, out)
		}
	}
}
