// Package diff compares texts line by line and prints what differs as diff -u does,
// in colour where somebody looks.
//
// The texts are objects in YAML, of tens to hundreds of lines: the comparison is the
// plain one, quadratic in what differs.
package diff

import (
	"fmt"
	"slices"
	"strings"
)

// context is how many lines that did not change are shown around those that did.
const context = 3

// An edit is a line of the old text, of the new one, or of both.
type edit struct {
	kind byte // '-', '+' or ' '
	line string
}

// Unified is the difference between two texts, with names in front; empty if there
// is none. The name of a text that is not there at all is /dev/null, by custom.
func Unified(oldName, newName, before, after string, colour bool) string {
	if before == after {
		return ""
	}
	p := painter(colour)
	var b strings.Builder
	fmt.Fprintln(&b, p.bold("--- "+oldName))
	fmt.Fprintln(&b, p.bold("+++ "+newName))
	edits := compare(lines(before), lines(after))
	oldLine, newLine := 1, 1 // of the next edit
	for i := 0; i < len(edits); {
		if edits[i].kind == ' ' {
			i, oldLine, newLine = i+1, oldLine+1, newLine+1
			continue
		}
		// A hunk begins before the change and ends where nothing changes for long.
		first := max(0, i-context)
		end, same := i, 0
		for end < len(edits) && same <= 2*context {
			if edits[end].kind == ' ' {
				same++
			} else {
				same = 0
			}
			end++
		}
		end -= max(0, same-context)
		hunk := edits[first:end]
		oldStart, newStart := oldLine-(i-first), newLine-(i-first)
		olds := count(hunk, '-') + count(hunk, ' ')
		news := count(hunk, '+') + count(hunk, ' ')
		fmt.Fprintln(&b, p.cyan(fmt.Sprintf("@@ -%s +%s @@", span(oldStart, olds), span(newStart, news))))
		for _, e := range hunk {
			text := string(e.kind) + e.line
			switch e.kind {
			case '-':
				text = p.red(text)
			case '+':
				text = p.green(text)
			}
			fmt.Fprintln(&b, text)
		}
		oldLine, newLine, i = oldStart+olds, newStart+news, end
	}
	return b.String()
}

func span(start, n int) string {
	if n == 0 {
		start-- // the line in front of what is not there
	}
	if n == 1 {
		return fmt.Sprint(start)
	}
	return fmt.Sprintf("%d,%d", start, n)
}

func count(edits []edit, kind byte) (n int) {
	for _, e := range edits {
		if e.kind == kind {
			n++
		}
	}
	return n
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// compare finds a shortest way from a to b.
func compare(a, b []string) (edits []edit) {
	var head, tail int
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	for _, line := range a[:head] {
		edits = append(edits, edit{' ', line})
	}
	edits = append(edits, subsequence(a[head:len(a)-tail], b[head:len(b)-tail])...)
	for _, line := range a[len(a)-tail:] {
		edits = append(edits, edit{' ', line})
	}
	return edits
}

// maxCells bounds the table of subsequence: what differs more is shown as
// replaced altogether.
const maxCells = 16 << 20

func subsequence(a, b []string) (edits []edit) {
	if len(a)*len(b) > maxCells {
		for _, line := range a {
			edits = append(edits, edit{'-', line})
		}
		for _, line := range b {
			edits = append(edits, edit{'+', line})
		}
		return edits
	}
	// common[i][j] is the length of the longest common subsequence of a[i:] and b[j:].
	common := make([][]int32, len(a)+1)
	for i := range common {
		common[i] = make([]int32, len(b)+1)
	}
	for i, line := range slices.Backward(a) {
		for j := len(b) - 1; j >= 0; j-- {
			if line == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			edits = append(edits, edit{' ', a[i]})
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || common[i+1][j] >= common[i][j+1]):
			edits = append(edits, edit{'-', a[i]})
			i++
		default:
			edits = append(edits, edit{'+', b[j]})
			j++
		}
	}
	return edits
}

// painter puts colours around whole lines, for a terminal.
type painter bool

func (p painter) paint(code, s string) string {
	if !p {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p painter) bold(s string) string  { return p.paint("1", s) }
func (p painter) red(s string) string   { return p.paint("31", s) }
func (p painter) green(s string) string { return p.paint("32", s) }
func (p painter) cyan(s string) string  { return p.paint("36", s) }
