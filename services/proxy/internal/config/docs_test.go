package config

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"
)

// The configuration that the documentation shows is one that loads, and every field
// there is stands in it.
func TestTheDocumentationIsTrue(t *testing.T) {
	raw, err := os.ReadFile("../../../../docs/proxy.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(raw)
	if m == nil {
		t.Fatal("no configuration in it")
	}
	dir := directory(t)
	for _, name := range []string{"salt.key", "redis.secret"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("0123456789abcdef"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "proxy.yaml")
	if err := os.WriteFile(path, m[1], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, io.Discard); err != nil {
		t.Error(err)
	}
	for _, name := range allFields(reflect.TypeFor[file]()) {
		if !regexp.MustCompile(`\b` + name + `:`).Match(m[1]) {
			t.Errorf("field %s is not in the documentation", name)
		}
	}
}

func allFields(t reflect.Type) (names []string) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return allFields(t.Elem())
	case reflect.Struct:
		for f := range t.Fields() {
			if name := f.Tag.Get("yaml"); name != "" {
				names = append(append(names, name), allFields(f.Type)...)
			}
		}
	}
	return names
}
