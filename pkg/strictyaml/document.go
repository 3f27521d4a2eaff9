// Package strictyaml reads the files that operators write, and tells them every
// mistake at once, each with file, line and field.
//
// It reads less than YAML allows, because what is misread here serves the wrong
// tenant: a field nobody knows, a field twice, anchors, aliases, merge keys and
// values of another type than the field's are refused. Values are never shown in
// a problem: they may be secrets in the wrong place.
//
// [Read] finds the documents of a file, [Document.Decode] stores one in a struct
// with yaml tags. What the struct then means is for its owner to check and to
// report by [Document.Problem], which stays silent about what could not be read.
// The package does no I/O.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Document is one document of a file, and where its fields stand.
type Document struct {
	File     string
	Line     int // of its content, 1 or more
	Root     *yaml.Node
	Problems *Problems // where they are added
	Lines    Lines

	// Special, if set, is asked before a value is decoded into what is pointed to,
	// and reports whether that is done: for what is written otherwise than its type says.
	Special func(n *yaml.Node, into any, path string) (done bool)

	bad map[string]bool // could not be read, and was reported
}

// Lines is where every field that was written stands, by its path, such as
// spec.clusters[0].
type Lines map[string]int

// Of is the line of a field or, when it is missing, of what it belongs into.
func (l Lines) Of(path string, document int) int {
	for at := path; at != ""; at = parent(at) {
		if line, ok := l[at]; ok {
			return line
		}
	}
	return document
}

func parent(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// Read finds the documents of a file, without the empty ones: a lone ---, or
// comments. Whole reports whether it came to the end of the file: behind a syntax
// error nothing can be read.
func Read(file string, data []byte, problems *Problems) (documents []*Document, whole bool) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var n yaml.Node
		if err := decoder.Decode(&n); errors.Is(err, io.EOF) {
			return documents, true
		} else if err != nil {
			message, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
			if m := yamlLine.FindStringSubmatch(message); m != nil {
				line, _ = strconv.Atoi(m[1])
				message = message[len(m[0]):]
			}
			*problems = append(*problems, Problem{File: file, Line: max(line, 1), Message: "not YAML: " + message})
			return documents, false
		}
		if len(n.Content) == 1 && !IsScalar(n.Content[0], "!!null") {
			documents = append(documents, &Document{
				File: file, Line: n.Content[0].Line, Root: n.Content[0], Problems: problems,
				Lines: make(Lines), bad: make(map[string]bool),
			})
		}
	}
}

// Problem reports what is wrong with a field, where it is written or should be;
// unless the field, or what it belongs into, could not be read and was reported
// for that.
func (d *Document) Problem(path, format string, args ...any) {
	for at := path; !d.bad[at]; at = parent(at) {
		if at == "" {
			d.report(d.Lines.Of(path, d.Line), path, format, args...)
			return
		}
	}
}

// Unreadable is [Document.Problem] for a field of which nothing more can be said.
func (d *Document) Unreadable(path, format string, args ...any) {
	d.Problem(path, format, args...)
	d.bad[path] = true
}

// Written reports whether the file mentions a field, whatever its value.
func (d *Document) Written(path string) bool { _, ok := d.Lines[path]; return ok }

// unreadable is Unreadable for a value, which may begin below its field's name.
func (d *Document) unreadable(n *yaml.Node, path, format string, args ...any) {
	d.bad[path] = true
	d.report(n.Line, path, format, args...)
}

func (d *Document) report(line int, path, format string, args ...any) {
	*d.Problems = append(*d.Problems, Problem{File: d.File, Line: line, Field: path, Message: fmt.Sprintf(format, args...)})
}
