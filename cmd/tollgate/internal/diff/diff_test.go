package diff

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestUnified(t *testing.T) {
	for _, c := range []struct{ name, before, after, want string }{
		{"nothing differs", "a\nb\n", "a\nb\n", ""},
		{"it is new", "", "a\nb\n", "--- old\n+++ new\n@@ -0,0 +1,2 @@\n+a\n+b\n"},
		{"it is gone", "a\n", "", "--- old\n+++ new\n@@ -1 +0,0 @@\n-a\n"},
		{
			"far apart changes are hunks of their own", "1\na\nb\nc\nd\ne\nf\ng\n2\n", "one\na\nb\nc\nd\ne\nf\ng\ntwo\n",
			"--- old\n+++ new\n@@ -1,4 +1,4 @@\n-1\n+one\n a\n b\n c\n@@ -6,4 +6,4 @@\n e\n f\n g\n-2\n+two\n",
		},
		{
			"near ones share one", "1\na\nb\nc\nd\ne\nf\n2\n", "one\na\nb\nc\nd\ne\nf\ntwo\n",
			"--- old\n+++ new\n@@ -1,8 +1,8 @@\n-1\n+one\n a\n b\n c\n d\n e\n f\n-2\n+two\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Unified("old", "new", c.before, c.after, false); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
		})
	}
	if got := Unified("old", "new", "a\n", "b\n", true); !strings.Contains(got, "\x1b[31m-a\x1b[0m\n\x1b[32m+b\x1b[0m\n") {
		t.Errorf("in colour: %q", got)
	}
}

// patch makes the new text of the old one, believing nothing but what stands in the hunks.
func patch(t *testing.T, before, diff string) string {
	t.Helper()
	old, at := lines(before), 0
	var out []string
	for _, line := range lines(diff)[2:] {
		if strings.HasPrefix(line, "@@") {
			var start int
			if _, err := fmt.Sscanf(line, "@@ -%d", &start); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.Fields(line)[1], ",0") {
				start-- // counted from 1, and the line itself
			}
			out = append(out, old[at:start]...)
			at = start
			continue
		}
		if line[0] != '+' {
			if old[at] != line[1:] {
				t.Fatalf("line %d is %q, the patch says %q", at+1, old[at], line)
			}
			at++
		}
		if line[0] != '-' {
			out = append(out, line[1:])
		}
	}
	return strings.Join(append(append(out, old[at:]...), ""), "\n")
}

func TestWhatIsPrintedIsAPatch(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	text := func() string {
		var b strings.Builder
		for range random.IntN(30) {
			b.WriteString(string(rune('a'+random.IntN(4))) + "\n")
		}
		return b.String()
	}
	for range 500 {
		before, after := text(), text()
		diff := Unified("text", "text", before, after, false)
		if diff == "" {
			continue
		}
		if got := patch(t, before, diff); got != after {
			t.Fatalf("%q became %q, want %q\n%s", before, got, after, diff)
		}
	}
}
