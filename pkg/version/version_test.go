package version

import (
	"runtime/debug"
	"strings"
	"testing"
)

func TestTheFirstThatIsKnown(t *testing.T) {
	info := func(version string, settings ...debug.BuildSetting) func() (*debug.BuildInfo, bool) {
		return func() (*debug.BuildInfo, bool) {
			return &debug.BuildInfo{Main: debug.Module{Version: version}, Settings: settings}, true
		}
	}
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "4d2b27a9c0ffee0123456789"}
	dirty := debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	file := func() string { return "0123456789ab" }
	for _, c := range []struct {
		name, release string
		read          func() (*debug.BuildInfo, bool)
		file          func() string
		want          string
	}{
		{"a release", "v1.2.3", info("v0.9.0", revision), file, "v1.2.3"},
		{"a module's version", "", info("v0.9.0", revision), file, "v0.9.0"},
		{"a commit", "", info("(devel)", revision), file, "devel-4d2b27a9c0ff"},
		{"a commit with changes", "", info("", revision, dirty), file, "devel-4d2b27a9c0ff+dirty"},
		{"only the file", "", info("(devel)"), file, "devel-0123456789ab"},
		{"no build information", "", func() (*debug.BuildInfo, bool) { return nil, false }, file, "devel-0123456789ab"},
		{"nothing", "", info("(devel)"), func() string { return "" }, "devel"},
	} {
		if got := of(c.release, c.read, c.file); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestThisProgramHasOne(t *testing.T) {
	if v := String(); v == "devel" || v != String() {
		t.Errorf("String() = %s, then %s", v, String())
	}
	if d := digest(); len(d) != commitChars || strings.Trim(d, "0123456789abcdef") != "" {
		t.Errorf("digest() = %q", d)
	}
}
