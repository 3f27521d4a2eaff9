package resource

import (
	"bytes"
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
)

// object is one document of a file on its way into a Set.
type object struct {
	file    string
	baseDir string // absolute
	line    int
	kind    string
	meta    *Metadata
	value   Object

	lines    map[string]int // of every field that was written, by path
	bad      map[string]bool
	problems *Problems
}

// problem reports what is wrong with a field, unless the field or what it
// stands in could not be read and was reported for that.
func (o *object) problem(field, format string, args ...any) {
	for at := field; at != ""; at = parent(at) {
		if o.bad[at] {
			return
		}
	}
	o.report(o.lineOf(field), field, format, args...)
}

// unreadable reports a field that could not be read.
func (o *object) unreadable(line int, field, format string, args ...any) {
	o.bad[field] = true
	o.report(line, field, format, args...)
}

func (o *object) report(line int, field, format string, args ...any) {
	*o.problems = append(*o.problems, Problem{o.file, line, field, fmt.Sprintf(format, args...)})
}

// lineOf is where a field is written, or where it is missing.
func (o *object) lineOf(field string) int { return lineOf(o.lines, field, o.line) }

func lineOf(lines map[string]int, field string, first int) int {
	for at := field; at != ""; at = parent(at) {
		if line, ok := lines[at]; ok {
			return line
		}
	}
	return first
}

// written reports whether the file mentions a field, whatever its value.
func (o *object) written(field string) bool { _, ok := o.lines[field]; return ok }

func (o *object) where() string { return o.file + ":" + strconv.Itoa(o.line) }

func parent(field string) string {
	if i := strings.LastIndexAny(field, ".["); i >= 0 {
		return field[:i]
	}
	return ""
}

// kinds says what a kind is decoded into. The ACL model is Kafka's, the
// spelling of its kind is ours.
var kinds = map[string]func() (Object, *Metadata){
	"Tenant":          func() (Object, *Metadata) { t := new(Tenant); return t, &t.Metadata },
	"UpstreamCluster": func() (Object, *Metadata) { c := new(UpstreamCluster); return c, &c.Metadata },
	"VirtualCluster":  func() (Object, *Metadata) { c := new(VirtualCluster); return c, &c.Metadata },
	"TopicGrant":      func() (Object, *Metadata) { g := new(TopicGrant); return g, &g.Metadata },
	"AliasTopic":      func() (Object, *Metadata) { a := new(AliasTopic); return a, &a.Metadata },
	"ServiceAccount":  func() (Object, *Metadata) { a := new(ServiceAccount); return a, &a.Metadata },
	"Acl":             func() (Object, *Metadata) { a := new(ACL); return a, &a.Metadata },
}

func kindNames() string {
	names := make([]string, 0, len(kinds))
	for name := range kinds {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// parse reads the documents of a file. Whole reports whether it came to the end
// of the file: behind a syntax error nothing can be read.
func parse(file, baseDir string, data []byte, problems *Problems) (objects []*object, whole bool) {
	documents := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var document yaml.Node
		if err := documents.Decode(&document); err != nil {
			if errors.Is(err, io.EOF) {
				return objects, true
			}
			line, message := syntaxError(err)
			*problems = append(*problems, Problem{File: file, Line: line, Message: message})
			return objects, false
		}
		root := &document
		if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
			root = root.Content[0]
		}
		if root.Kind == 0 || isNull(root) {
			continue // an empty document: a lone ---, or comments
		}
		o := &object{
			file: file, baseDir: baseDir, line: root.Line, problems: problems,
			lines: make(map[string]int), bad: make(map[string]bool),
		}
		if o.decodeDocument(root) {
			objects = append(objects, o)
		}
	}
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

func syntaxError(err error) (line int, message string) {
	message = strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = message[len(m[0]):]
	}
	return line, "not YAML: " + message
}

// decodeDocument fills o in. It reports false if the document has no place in a
// set because its kind is unknown.
func (o *object) decodeDocument(root *yaml.Node) bool {
	if root.Kind != yaml.MappingNode {
		o.report(root.Line, "", "must be a mapping with apiVersion, kind, metadata and spec, is %s", describe(root))
		return false
	}
	var metadata, spec *yaml.Node
	apiVersion := ""
	o.fields(root, "", func(name, path string, key, value *yaml.Node) {
		switch name {
		case "apiVersion":
			o.decode(value, reflect.ValueOf(&apiVersion).Elem(), path)
		case "kind":
			o.decode(value, reflect.ValueOf(&o.kind).Elem(), path)
		case "metadata":
			metadata = value
		case "spec":
			spec = value
		default:
			o.unreadable(key.Line, path, "unknown field: a document has apiVersion, kind, metadata and spec")
		}
	})
	switch apiVersion {
	case APIVersion:
	case "":
		o.problem("apiVersion", "required: write %s", APIVersion)
	default:
		o.problem("apiVersion", "unknown version %q: write %s", apiVersion, APIVersion)
	}
	create, known := kinds[o.kind]
	if !known {
		if o.kind == "" {
			o.problem("kind", "required: one of %s", kindNames())
		} else {
			o.problem("kind", "unknown kind %q: one of %s", o.kind, kindNames())
		}
		return false
	}
	o.value, o.meta = create()
	for _, part := range []struct {
		name, field string
		node        *yaml.Node
	}{{"metadata", "Metadata", metadata}, {"spec", "Spec", spec}} {
		if part.node == nil {
			o.problem(part.name, "required")
			o.bad[part.name] = true
			continue
		}
		o.decode(part.node, reflect.ValueOf(o.value).Elem().FieldByName(part.field), part.name)
	}
	o.meta.Source = Source{o.file, o.line, o.lines}
	return true
}

// fields calls each for every field of a mapping, once.
func (o *object) fields(n *yaml.Node, path string, each func(name, path string, key, value *yaml.Node)) {
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" || key.Alias != nil {
			o.report(key.Line, path, "has a key that is no plain name (%s): anchors and merge keys are not supported", describe(key))
			continue
		}
		at := key.Value
		if path != "" {
			at = path + "." + key.Value
		}
		if first, again := seen[key.Value]; again {
			o.report(key.Line, at, "appears twice, first in line %d", first)
			continue
		}
		seen[key.Value] = key.Line
		o.lines[at] = key.Line
		each(key.Value, at, key, value)
	}
}

var (
	timeType      = reflect.TypeFor[time.Time]()
	durationType  = reflect.TypeFor[time.Duration]()
	referenceType = reflect.TypeFor[Reference]()
	issuerType    = reflect.TypeFor[OAuthIssuer]()

	upstreamSASLType = reflect.TypeFor[UpstreamSASL]()
)

// decode stores n in v and reports what does not fit, with YAML's own types: a
// number is not a string, and null is nothing.
func (o *object) decode(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.AliasNode {
		o.unreadable(n.Line, path, "anchors and aliases are not supported: write the value out")
		return
	}
	switch {
	case v.Type() == timeType:
		o.decodeTime(n, v, path)
		return
	case v.Type() == durationType:
		o.decodeDuration(n, v, path)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		o.decode(n, v.Elem(), path)
	case reflect.Struct:
		o.decodeStruct(n, v, path)
	case reflect.Slice:
		if n.Kind == yaml.MappingNode && v.Type().Elem() == issuerType {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1)) // one issuer needs no list around it
			o.decode(n, v.Index(0), path)
			return
		}
		if n.Kind != yaml.SequenceNode {
			o.mismatch(n, path, "a list")
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, item := range n.Content {
			at := path + "[" + strconv.Itoa(i) + "]"
			o.lines[at] = item.Line
			o.decode(item, v.Index(i), at)
		}
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			o.mismatch(n, path, "a mapping")
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		o.fields(n, path, func(name, path string, _, value *yaml.Node) {
			element := reflect.New(v.Type().Elem()).Elem()
			o.decode(value, element, path)
			v.SetMapIndex(reflect.ValueOf(name), element)
		})
	case reflect.String:
		if !isScalar(n, "!!str") {
			if v.Type() == referenceType { // a password of digits, say: quotes would not help
				o.unreadable(n.Line, path, notAReference)
				return
			}
			if n.Kind == yaml.ScalarNode && !isNull(n) {
				o.mismatch(n, path, "a string (put it in quotes)")
			} else {
				o.mismatch(n, path, "a string")
			}
			return
		}
		v.SetString(n.Value)
	case reflect.Bool:
		if !isScalar(n, "!!bool") {
			o.mismatch(n, path, "true or false")
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case reflect.Int, reflect.Int16, reflect.Int32, reflect.Int64:
		var i int64
		if leadingZero.MatchString(n.Value) && (isScalar(n, "!!int") || isScalar(n, "!!float")) {
			o.unreadable(n.Line, path, "begins with 0, which YAML may read as octal: write the number without it")
		} else if !isScalar(n, "!!int") {
			o.mismatch(n, path, "a whole number")
		} else if err := n.Decode(&i); err != nil || v.OverflowInt(i) {
			o.unreadable(n.Line, path, "number is too large for this field")
		} else {
			v.SetInt(i)
		}
	default:
		panic("resource: no YAML form for " + v.Type().String())
	}
}

// hasLaterMechanism reports whether a login uses a mechanism that is not
// supported yet. Its fields cannot be judged: the mechanism alone is reported.
func hasLaterMechanism(login *yaml.Node) bool {
	for i := 0; i+1 < len(login.Content); i += 2 {
		if key, value := login.Content[i], login.Content[i+1]; key.Value == "mechanism" {
			return isScalar(value, "!!str") && slices.Contains(laterMechanisms, value.Value)
		}
	}
	return false
}

// leadingZero matches the numbers of which YAML 1.1 and 1.2 have different
// opinions: 010 is 8 to one and 10 to the other.
var leadingZero = regexp.MustCompile(`^[-+]?0[0-9_]`)

func (o *object) decodeStruct(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		if v.NumField() == 0 {
			o.mismatch(n, path, "an empty mapping: write {}")
		} else {
			o.mismatch(n, path, "a mapping")
		}
		return
	}
	byName := make(map[string]reflect.Value, v.NumField())
	var names []string
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if name != "-" {
			byName[name] = v.Field(i)
			names = append(names, name)
		}
	}
	later := v.Type() == upstreamSASLType && hasLaterMechanism(n)
	o.fields(n, path, func(name, path string, key, value *yaml.Node) {
		if later && name != "mechanism" {
			return
		}
		field, known := byName[name]
		switch {
		case known:
			o.decode(value, field, path)
		case len(names) == 0:
			o.unreadable(key.Line, path, "unknown field: nothing can be set here")
		default:
			o.unreadable(key.Line, path, "unknown field: one of %s", strings.Join(names, ", "))
		}
	})
}

func (o *object) decodeTime(n *yaml.Node, v reflect.Value, path string) {
	if !isScalar(n, "!!timestamp") && !isScalar(n, "!!str") {
		o.mismatch(n, path, "a time such as 2027-06-30T00:00:00Z")
		return
	}
	t, err := time.Parse(time.RFC3339, n.Value)
	if err != nil {
		o.unreadable(n.Line, path, "must be a time with its zone, such as 2027-06-30T00:00:00Z")
		return
	}
	v.Set(reflect.ValueOf(t))
}

func (o *object) decodeDuration(n *yaml.Node, v reflect.Value, path string) {
	if !isScalar(n, "!!str") {
		o.mismatch(n, path, "a duration with its unit, such as 30m")
		return
	}
	d, err := time.ParseDuration(n.Value)
	if err != nil {
		o.unreadable(n.Line, path, "must be a duration with its unit, such as 30m")
		return
	}
	v.SetInt(int64(d))
}

func (o *object) mismatch(n *yaml.Node, path, want string) {
	o.unreadable(n.Line, path, "must be %s, is %s", want, describe(n))
}

func isScalar(n *yaml.Node, tag string) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == tag
}

func isNull(n *yaml.Node) bool { return isScalar(n, "!!null") }

// describe names the type of a node. Its value may be a secret in the wrong
// place, so it is never shown.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
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
	case "!!timestamp":
		return "a time"
	case "!!merge":
		return "a merge key"
	}
	return "of a type of its own"
}
