// Package secret keeps values that must not be printed, and finds them where a
// reference says they are.
//
// A [Secret] prints as "[secret]" through fmt, slog and encoding/json. Inside
// another struct's unexported field, where fmt does not consult methods, it
// prints as a pointer: never as the value.
//
// Resources hold references only, "env:NAME" or "file:PATH"; "aws-sm:" is kept
// for a secrets manager. [Resolve] reads what one points at; its errors name the reference and never what was read.
package secret

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

const printed = "[secret]"

// A Secret is a value that only Reveal shows. The zero Secret is empty.
type Secret struct{ value *string }

// New hides value.
func New(value string) Secret { return Secret{&value} }

// Reveal returns the value. Whoever calls it answers for where it goes.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// String hides the value.
func (s Secret) String() string { return printed }

// Format hides the value from every verb, %x and %#v included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(printed)) }

// LogValue hides the value from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(printed) }

// MarshalText hides the value from encoding/json and its like.
func (s Secret) MarshalText() ([]byte, error) { return []byte(printed), nil }

// ErrEmpty is the error of a reference that leads to an empty value: almost
// always a variable that was exported before it was set.
var ErrEmpty = errors.New("value is empty")

// maxFileBytes keeps a mistaken path (a log, a device) from filling memory. It
// leaves room for a PEM chain.
const maxFileBytes = 1 << 20

// Resolve reads what ref points at. A relative path is resolved against
// baseDir, the directory of the file that the reference stands in. One line
// break at the end of a file is not part of the secret.
func Resolve(ref, baseDir string) (Secret, error) {
	s, err := ResolveRaw(ref, baseDir)
	if err != nil || !strings.HasPrefix(ref, "file:") {
		return s, err
	}
	value := strings.TrimSuffix(strings.TrimSuffix(s.Reveal(), "\n"), "\r")
	if value == "" {
		return Secret{}, fmt.Errorf("resolve secret %s: %w", ref, ErrEmpty)
	}
	return New(value), nil
}

// ResolveRaw is Resolve for what is not text: every byte of a file counts.
func ResolveRaw(ref, baseDir string) (Secret, error) {
	scheme, rest, _ := strings.Cut(ref, ":")
	switch {
	case scheme == "env" && rest != "":
		value, ok := os.LookupEnv(rest)
		if !ok {
			return Secret{}, fmt.Errorf("resolve secret %s: variable is not set", ref)
		}
		if value == "" {
			return Secret{}, fmt.Errorf("resolve secret %s: %w", ref, ErrEmpty)
		}
		return New(value), nil
	case scheme == "file" && rest != "":
		value, err := readFile(Path(rest, baseDir))
		if err != nil {
			return Secret{}, fmt.Errorf("resolve secret %s: %w", ref, err)
		}
		return New(value), nil
	case scheme == "aws-sm" && rest != "":
		return Secret{}, errors.New("resolve secret: aws-sm: is not supported yet: write env:NAME or file:PATH")
	}
	// ref may be the secret itself, written where a reference belongs.
	return Secret{}, errors.New("resolve secret: not a reference: write env:NAME or file:PATH")
}

// File is the path of the file that ref points at; false where it is none.
func File(ref, baseDir string) (path string, ok bool) {
	rest, ok := strings.CutPrefix(ref, "file:")
	if !ok || rest == "" {
		return "", false
	}
	return Path(rest, baseDir), true
}

// Path resolves a path against the directory of the file it stands in.
func Path(path, baseDir string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(baseDir, path)
}

func readFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", path)
	}
	if info.Size() > maxFileBytes {
		return "", fmt.Errorf("%s holds more than %d bytes", path, maxFileBytes)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if len(raw) == 0 {
		return "", ErrEmpty
	}
	return string(raw), nil
}
