package strictyaml

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Problem is one thing to mend in a file. It is an error by itself.
type Problem struct {
	File    string
	Line    int    // 0: the file as a whole
	Field   string // "spec.authentication.oauthbearer[0].audience"; empty: the document
	Message string
}

func (p Problem) Error() string { return p.String() }

// String is file:line: field: message, or line 7: field: message of what is no file.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	switch line := strconv.Itoa(p.Line); {
	case p.File != "" && p.Line > 0:
		b.WriteString(":" + line + ": ")
	case p.File != "":
		b.WriteString(": ")
	case p.Line > 0:
		b.WriteString("line " + line + ": ")
	}
	if p.Field != "" {
		b.WriteString(p.Field)
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Problems is everything to mend, in one file or several.
type Problems []Problem

// Error lists all problems, one a line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// Sort orders the problems by file and line. Those of one line stay as found.
func (p Problems) Sort() {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
}
