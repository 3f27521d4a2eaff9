package auth

import (
	"encoding/hex"
	"os"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDistinguishedNameIsJavas(t *testing.T) {
	file, err := os.ReadFile("testdata/java_names.tsv")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(file)) {
		if line[0] == '#' {
			continue
		}
		raw, quoted, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		der, err := hex.DecodeString(raw)
		if err != nil {
			t.Fatal(err)
		}
		want, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatalf("%s: %v", quoted, err)
		}
		if got, err := distinguishedName(der); got != want || err != nil {
			t.Errorf("distinguishedName(%s) = %q, %v, want %q", raw, got, err, want)
		}
		n++
	}
	if n < 30 {
		t.Fatalf("only %d names", n)
	}
}

func FuzzDistinguishedName(f *testing.F) {
	file, err := os.ReadFile("testdata/java_names.tsv")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(file)) {
		if der, err := hex.DecodeString(strings.Split(line, "\t")[0]); err == nil {
			f.Add(der)
		}
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		name, err := distinguishedName(der)
		if err == nil && !utf8.ValidString(name) || err != nil && name != "" {
			t.Fatalf("distinguishedName(%x) = %q, %v", der, name, err)
		}
	})
}
