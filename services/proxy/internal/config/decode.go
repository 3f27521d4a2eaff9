package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"tollgate.internal/pkg/resource"
)

// decoder reads the one document of a file into a struct, strictly, and
// remembers where every field stands.
type decoder struct {
	file     string
	lines    map[string]int  // by path, such as listeners[0].address
	bad      map[string]bool // could not be read, and was reported
	problems resource.Problems
}

func newDecoder(file string) *decoder {
	return &decoder{file: file, lines: make(map[string]int), bad: make(map[string]bool)}
}

// problem reports what is wrong with a field, where it is written or, when it is
// missing, where it should be; unless the field, or what it stands in, could not
// be read and was reported for that.
func (d *decoder) problem(path, format string, args ...any) {
	line := 0
	for at := path; at != ""; at = parent(at) {
		if d.bad[at] {
			return
		}
		if line == 0 {
			line = d.lines[at]
		}
	}
	d.report(max(line, 1), path, format, args...)
}

func (d *decoder) unreadable(line int, path, format string, args ...any) {
	d.bad[path] = true
	d.report(line, path, format, args...)
}

func (d *decoder) report(line int, path, format string, args ...any) {
	d.problems = append(d.problems, resource.Problem{File: d.file, Line: line, Field: path, Message: fmt.Sprintf(format, args...)})
}

func parent(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// document decodes data into v, a pointer to a struct.
func (d *decoder) document(data []byte, v any) {
	documents := yaml.NewDecoder(bytes.NewReader(data))
	var root, second yaml.Node
	err := documents.Decode(&root)
	if err == nil {
		if err = documents.Decode(&second); err == nil {
			d.report(second.Line, "", "a second document: a configuration is one")
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		message, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
		if m := yamlLine.FindStringSubmatch(message); m != nil {
			line, _ = strconv.Atoi(m[1])
			message = message[len(m[0]):]
		}
		d.report(line, "", "not YAML: %s", message)
		return
	}
	if len(root.Content) == 0 || isScalar(root.Content[0], "!!null") {
		d.report(1, "", "is empty")
		return
	}
	d.decode(root.Content[0], reflect.ValueOf(v).Elem(), "")
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func (d *decoder) decode(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.AliasNode {
		d.unreadable(n.Line, path, "anchors and aliases are not supported: write the value out")
		return
	}
	if v.Type() == durationType {
		d.duration(n, v, path)
		return
	}
	if isText(v.Type()) {
		if n.Kind == yaml.ScalarNode && !isScalar(n, "!!null") {
			if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value)); err != nil {
				d.unreadable(n.Line, path, "%s", err)
			}
			return
		}
		if n.Kind != yaml.MappingNode || v.Kind() != reflect.Struct || fieldNames(v.Type()) == nil {
			d.mismatch(n, path, "a single value")
			return
		}
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Slice:
		if n.Kind == yaml.ScalarNode && !isScalar(n, "!!null") && isText(v.Type().Elem()) {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1)) // one needs no list around it
			d.decode(n, v.Index(0), path)
			return
		}
		if n.Kind != yaml.SequenceNode {
			d.mismatch(n, path, "a list")
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			d.lines[at] = item.Line
			d.decode(item, v.Index(i), at)
		}
	case reflect.String:
		switch {
		case isScalar(n, "!!str"):
			v.SetString(n.Value)
		case n.Kind == yaml.ScalarNode && !isScalar(n, "!!null"):
			d.mismatch(n, path, "a string (put it in quotes)")
		default:
			d.mismatch(n, path, "a string")
		}
	case reflect.Int, reflect.Int32, reflect.Int64:
		var i int64
		switch {
		case !isScalar(n, "!!int"):
			d.mismatch(n, path, "a whole number")
		case n.Decode(&i) != nil || v.OverflowInt(i):
			d.unreadable(n.Line, path, "number is too large for this field")
		default:
			v.SetInt(i)
		}
	case reflect.Uint16:
		var i int64
		switch {
		case !isScalar(n, "!!int"):
			d.mismatch(n, path, "a port number")
		case n.Decode(&i) != nil || i < 1 || i > 65535:
			d.unreadable(n.Line, path, "is not a port number (1-65535)")
		default:
			v.SetUint(uint64(i))
		}
	default:
		panic("config: no YAML form for " + v.Type().String())
	}
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.mismatch(n, path, "a mapping")
		return
	}
	names := fieldNames(v.Type())
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if name.Kind != yaml.ScalarNode || name.ShortTag() == "!!merge" {
			d.report(name.Line, path, "has a key that is no plain name: anchors and merge keys are not supported")
			continue
		}
		at := strings.TrimPrefix(path+"."+name.Value, ".")
		if first, again := seen[name.Value]; again {
			d.report(name.Line, at, "appears twice, first in line %d", first)
			continue
		}
		seen[name.Value] = name.Line
		field := slices.Index(names, name.Value)
		if field < 0 {
			d.unreadable(name.Line, at, "unknown field: one of %s", strings.Join(names, ", "))
			continue
		}
		d.lines[at] = name.Line
		d.decode(value, v.Field(field), at)
	}
}

// fieldNames are the names of a struct's fields in files, in order; nil for a
// struct that is not written as a mapping.
func fieldNames(t reflect.Type) []string {
	var names []string
	for f := range t.Fields() {
		name, ok := f.Tag.Lookup("yaml")
		if !ok {
			return nil
		}
		names = append(names, name)
	}
	return names
}

func (d *decoder) duration(n *yaml.Node, v reflect.Value, path string) {
	if !isScalar(n, "!!str") {
		d.mismatch(n, path, "a duration with its unit, such as 30s")
		return
	}
	t, err := time.ParseDuration(n.Value)
	if err != nil || t <= 0 {
		d.unreadable(n.Line, path, "must be a positive duration with its unit, such as 30s")
		return
	}
	v.SetInt(int64(t))
}

func (d *decoder) mismatch(n *yaml.Node, path, want string) {
	d.unreadable(n.Line, path, "must be %s, is %s", want, describe(n))
}

func isText(t reflect.Type) bool { return reflect.PointerTo(t).Implements(textType) }

func isScalar(n *yaml.Node, tag string) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == tag
}

// describe names the type of a node, not its value.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "empty"
	case "!!str":
		return "a string"
	case "!!bool":
		return "a boolean"
	case "!!int", "!!float":
		return "a number"
	}
	return "something else"
}
