// Package version tells what a program was built from, so that two that run side by
// side can be told apart.
//
// [String] is, of these, the first that is known: the release that the build was told
// (make build), the module's version, the commit, and for a build that knows none of
// them a digest of the program's own file. It is the same for every process of a
// build, and another for another build.
package version

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"runtime/debug"
	"sync"
)

// release is set by the linker: -X tollgate.internal/pkg/version.release=v1.2.3.
var release string

// commitChars is how much of a commit, or of a digest, is shown.
const commitChars = 12

// String is the version of this program.
var String = sync.OnceValue(func() string {
	return of(release, debug.ReadBuildInfo, digest)
})

// Commit is what this program was built from, empty if the build does not say.
func Commit() string { return commit(debug.ReadBuildInfo) }

func of(release string, read func() (*debug.BuildInfo, bool), digest func() string) string {
	if release != "" {
		return release
	}
	if info, ok := read(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	if c := commit(read); c != "" {
		return "devel-" + c
	}
	if d := digest(); d != "" {
		return "devel-" + d
	}
	return "devel"
}

func commit(read func() (*debug.BuildInfo, bool)) string {
	info, ok := read()
	if !ok {
		return ""
	}
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(len(s.Value), commitChars)]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+dirty"
		}
	}
	if revision == "" {
		return ""
	}
	return revision + dirty
}

// digest is of the program's file; empty if that cannot be read.
func digest() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))[:commitChars]
}
