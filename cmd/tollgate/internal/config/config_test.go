package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollgate.internal/pkg/secret"
)

func TestContextsAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "config.yaml")
	t.Setenv("TOLLGATE_CONFIG", path)
	c, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Find("prod"); err == nil || !strings.Contains(err.Error(), "tollgate login") {
		t.Errorf("without any: %v", err)
	}
	c.Set(Context{Name: "prod", Server: "https://prod.example", Token: secret.New("tg_1_s3cret"), CAFile: "/ca.pem"})
	c.Set(Context{Name: "dev", Server: "http://127.0.0.1:9401", Token: secret.New("tg_2_other")})
	c.Current = "prod"
	if err := c.Save(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, want 0600", info.Mode(), err)
	}
	if c, err = Load(); err != nil {
		t.Fatal(err)
	}
	x, err := c.Find("")
	if err != nil || x.Server != "https://prod.example" || x.Token.Reveal() != "tg_1_s3cret" || x.CAFile != "/ca.pem" {
		t.Errorf("%+v, %v", x, err)
	}
	if printed := fmt.Sprintf("%+v", c); strings.Contains(printed, "s3cret") {
		t.Errorf("a token is printed: %s", printed)
	}
	if _, err := c.Find("test"); err == nil || !strings.Contains(err.Error(), "dev, prod") {
		t.Errorf("%v, want the names there are", err)
	}
	if c.Warning() != "" {
		t.Error(c.Warning())
	}

	if err := c.Delete("prod"); err != nil || c.Current != "" {
		t.Errorf("%v, current %q", err, c.Current)
	}
	if _, err := c.Find(""); err == nil {
		t.Error("another context took the place of the current one")
	}
}

func TestTheFileIsAnswerable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	t.Setenv("TOLLGATE_CONFIG", path)
	for _, c := range []struct{ name, text, want string }{
		{"an unknown field", "contexts:\n- {name: a, sever: x}\n", path + ":2: contexts[0].sever: unknown field"},
		{"no YAML", "contexts: [\n", "not YAML"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if err := os.WriteFile(path, []byte("contexts: [{name: a, server: http://x, token: t}]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(c.Warning(), "chmod 600") {
		t.Errorf("no warning of a file that others can read: %q", c.Warning())
	}
}
