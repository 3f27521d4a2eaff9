package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSecretPrintsNothing(t *testing.T) {
	const value = "hunter2"
	type outer struct {
		Public  Secret
		private Secret
		Many    map[string]*Secret
	}
	s := New(value)
	o := outer{s, s, map[string]*Secret{"a": &s}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p"} {
		for _, v := range []any{s, &s, o, &o, []Secret{s}, map[string]Secret{"k": s}} {
			if got := fmt.Sprintf(verb, v); strings.Contains(got, value) || strings.Contains(got, fmt.Sprintf("%x", value)) {
				t.Errorf("Sprintf(%s, %T) = %s, want no value", verb, v, got)
			}
		}
	}
	if got := fmt.Sprint(s); got != "[secret]" {
		t.Errorf("Sprint = %s, want [secret]", got)
	}
	raw, err := json.Marshal(o)
	if err != nil || string(raw) != `{"Public":"[secret]","Many":{"a":"[secret]"}}` {
		t.Errorf("json = %s, %v, want [secret] twice", raw, err)
	}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("x", "secret", s, "outer", o, "pointer", &s)
	}
	if strings.Contains(log.String(), value) || !strings.Contains(log.String(), "secret=[secret]") {
		t.Errorf("log = %s, want [secret] and no value", log.String())
	}
	if got := s.Reveal(); got != value {
		t.Errorf("Reveal = %q, want %q", got, value)
	}
	if got := (Secret{}).Reveal(); got != "" {
		t.Errorf("Reveal of the zero Secret = %q, want nothing", got)
	}
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"plain": "a b\n", "crlf": "x\r\n", "lines": "one\ntwo\n\n", "empty": "\n", "bare": "y", "big": strings.Repeat("z", maxFileBytes+1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TOLLGATE_TEST_SECRET", "value\n")
	t.Setenv("TOLLGATE_TEST_EMPTY", "")
	for _, c := range []struct {
		name, ref, want string
		err             error // nil with want "": any error
	}{
		{"a variable, as it is", "env:TOLLGATE_TEST_SECRET", "value\n", nil},
		{"an unset variable", "env:TOLLGATE_TEST_UNSET", "", nil},
		{"an empty variable", "env:TOLLGATE_TEST_EMPTY", "", ErrEmpty},
		{"a relative file", "file:plain", "a b", nil},
		{"an absolute file", "file:" + filepath.Join(dir, "bare"), "y", nil},
		{"a line break of another system", "file:crlf", "x", nil},
		{"one line break only is taken off", "file:lines", "one\ntwo\n", nil},
		{"an empty file", "file:empty", "", ErrEmpty},
		{"no file", "file:none", "", fs.ErrNotExist},
		{"a directory", "file:.", "", nil},
		{"a file that is no secret", "file:big", "", nil},
		{"no path", "file:", "", nil},
		{"no name", "env:", "", nil},
		{"a secrets manager, later", "aws-sm:hunter2", "", nil},
		{"a value in the place of a reference", "hunter2", "", nil},
		{"a value with a colon", "hunter2:x", "", nil},
	} {
		got, err := Resolve(c.ref, dir)
		if (err == nil) != (c.want != "") || got.Reveal() != c.want || c.err != nil && !errors.Is(err, c.err) {
			t.Errorf("%s: Resolve(%s) = %q, %v, want %q, %v", c.name, c.ref, got.Reveal(), err, c.want, c.err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: error shows the value: %v", c.name, err)
		}
	}
}

func TestResolveRawKeepsEveryByte(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keytab")
	if err := os.WriteFile(path, []byte("\x05\x02\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ResolveRaw("file:keytab", filepath.Dir(path))
	if err != nil || got.Reveal() != "\x05\x02\r\n" {
		t.Errorf("ResolveRaw = %q, %v", got.Reveal(), err)
	}
}

func TestFileIsWhereAReferenceLeads(t *testing.T) {
	for ref, want := range map[string]string{"file:a": "/etc/tollgate/a", "file:/b/../c": "/c", "file:": "", "env:A": "", "hunter2": ""} {
		if got, ok := File(ref, "/etc/tollgate"); got != want || ok != (want != "") {
			t.Errorf("File(%s) = %q, %v, want %q", ref, got, ok, want)
		}
	}
}
