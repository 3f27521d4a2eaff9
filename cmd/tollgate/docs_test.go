package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tollgate.internal/pkg/resource"
)

// What the page about the command line says is what happens: its commands run, in
// their order, on a control plane that has the clusters of tollgate dev.
func TestTheCommandsOfTheDocumentationRun(t *testing.T) {
	page, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		script.WriteString(m[1])
	}
	server, token := servePortal(t)
	operate(t, server, token)
	must(t, upstreams, "apply", "-f", "-")
	from, err := filepath.Abs(examples)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(from, filepath.Join(dir, "examples")); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "tollgate"), fmt.Appendf(nil, "#!/bin/sh\nTOLLGATE_AS_COMMAND=1 exec %s \"$@\"\n", self), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-eux", "-c", script.String())
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	contains(t, "what was printed", string(out), "11 objects: 11 created", "nothing changed: 11 objects are as the files say", "password: ", "INITECH")

	// Every command there is, and every exit code, stands on the page.
	for _, c := range root(stdio{strings.NewReader(""), &script, &script}).Commands() {
		if c.GroupID == groupControl && !strings.Contains(string(page), "tollgate "+c.Name()+" ") && !strings.Contains(string(page), "tollgate "+c.Name()+"`") {
			t.Errorf("docs/cli.md does not show tollgate %s", c.Name())
		}
	}
	for code := exitOK; code <= exitNotApplied; code++ {
		contains(t, "docs/cli.md", string(page), fmt.Sprintf("\n| %d | ", code))
	}
}

// The examples are what a proxy serves from files, too.
func TestTheExamplesLoad(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(examples)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "upstreams.yaml"), []byte(upstreams), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := resource.LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.VirtualClusters) != 1 || len(set.AliasTopics) != 2 {
		t.Errorf("%d virtual clusters, %d aliases", len(set.VirtualClusters), len(set.AliasTopics))
	}
}
