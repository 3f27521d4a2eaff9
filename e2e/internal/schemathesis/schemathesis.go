// Package schemathesis asks an HTTP API everything that its OpenAPI document admits,
// and much that it does not.
package schemathesis

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/cache"
)

//go:embed requirements.txt
var requirements []byte

// Install returns the folder of its environment, and makes it when it is not in the
// cache.
func Install(ctx context.Context) (string, error) {
	dir, err := cache.Python(ctx, "schemathesis", requirements)
	if err != nil {
		return "", fmt.Errorf("get schemathesis: %w", err)
	}
	return dir, nil
}

// Run is one run.
type Run struct {
	URL      string
	Document []byte        // JSON
	Token    string        // of the security scheme "token"
	Skip     []string      // operation ids
	Checks   string        // parted by commas
	Time     time.Duration // for all of it
	Examples int           // for each operation
	Seed     int
}

// Do runs it, and fails the test with what it found.
func Do(t testing.TB, r Run) {
	t.Helper()
	env, err := Install(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	document, config := filepath.Join(dir, "openapi.json"), filepath.Join(dir, "schemathesis.toml")
	for path, text := range map[string][]byte{document: r.Document, config: fmt.Appendf(nil, "[auth.openapi.token]\nbearer = %q\n", r.Token)} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{
		"--config-file", config, "run", document, "--url", r.URL, "--checks", r.Checks, "--max-examples", strconv.Itoa(r.Examples),
		"--max-time", strconv.Itoa(int(r.Time.Seconds())), "--phases", "examples,coverage,fuzzing", "--mode", "all", "--seed", strconv.Itoa(r.Seed),
		"--continue-on-failure", "--request-timeout", "20", "--warnings", "off",
	}
	for _, id := range r.Skip {
		args = append(args, "--exclude-operation-id", id)
	}
	ctx, cancel := context.WithTimeout(t.Context(), r.Time+time.Minute) // what is under way is finished, and reported
	defer cancel()
	// Its script names the folder that it was installed in, which has another name by now.
	cmd := exec.CommandContext(ctx, filepath.Join(env, "bin", "python"), append([]string{"-B", "-m", "schemathesis.cli"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("schemathesis: %v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("Test cases:")) {
		t.Fatalf("schemathesis tested nothing:\n%s", out)
	}
	if i := bytes.Index(out, []byte("Test cases:")); i >= 0 {
		t.Logf("%s", out[i:])
	}
}
