package strictyaml

import (
	"encoding"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Decode stores n, which stands at path, in what into points to, and reports what
// does not fit. Types are YAML's own: a number is not a string, and null is
// nothing. A struct is a mapping of the fields that have yaml tags; a uint16 is a
// port; what reads itself from text is a single value or, if it has fields too,
// a mapping; a list of such values may be one of them alone; a *yaml.Node is kept
// as it is, to be decoded when its type is known.
func (d *Document) Decode(n *yaml.Node, into any, path string) {
	d.decode(n, reflect.ValueOf(into).Elem(), path)
}

var textType = reflect.TypeFor[encoding.TextUnmarshaler]()

func (d *Document) decode(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.AliasNode {
		d.unreadable(n, path, "anchors and aliases are not supported: write the value out")
		return
	}
	into := v.Addr().Interface()
	if d.Special != nil && d.Special(n, into, path) {
		return
	}
	switch into := into.(type) {
	case **yaml.Node:
		*into = n
		return
	case *time.Time:
		d.time(n, into, path)
		return
	case *time.Duration:
		d.duration(n, into, path)
		return
	case encoding.TextUnmarshaler:
		if isValue(n) {
			if err := into.UnmarshalText([]byte(n.Value)); err != nil {
				d.unreadable(n, path, "%s", err)
			}
			return
		}
		if names, _ := fieldsOf(v); n.Kind != yaml.MappingNode || names == nil {
			d.mismatch(n, path, "a single value")
			return
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(n, v.Elem(), path)
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			d.mismatch(n, path, "a mapping")
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		d.fields(n, path, func(name, path string, _, value *yaml.Node) {
			element := reflect.New(v.Type().Elem()).Elem()
			d.decode(value, element, path)
			v.SetMapIndex(reflect.ValueOf(name), element)
		})
	case reflect.String:
		switch {
		case IsScalar(n, "!!str"):
			v.SetString(n.Value)
		case isValue(n):
			d.mismatch(n, path, "a string (put it in quotes)")
		default:
			d.mismatch(n, path, "a string")
		}
	case reflect.Bool:
		var b bool
		if !IsScalar(n, "!!bool") || n.Decode(&b) != nil {
			d.mismatch(n, path, "true or false")
			return
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int16, reflect.Int32, reflect.Int64:
		if i, ok := d.number(n, path, "a whole number"); ok && v.OverflowInt(i) {
			d.unreadable(n, path, "number is too large for this field")
		} else if ok {
			v.SetInt(i)
		}
	case reflect.Uint16:
		if i, ok := d.number(n, path, "a port number"); ok && (i < 1 || i > 65535) {
			d.unreadable(n, path, "is not a port number (1-65535)")
		} else if ok {
			v.SetUint(uint64(i))
		}
	default:
		panic("strictyaml: no form for " + v.Type().String())
	}
}

func (d *Document) structure(n *yaml.Node, v reflect.Value, path string) {
	names, byName := fieldsOf(v)
	if n.Kind != yaml.MappingNode {
		if names == nil {
			d.mismatch(n, path, "an empty mapping: write {}")
		} else {
			d.mismatch(n, path, "a mapping")
		}
		return
	}
	d.fields(n, path, func(name, path string, key, value *yaml.Node) {
		field, known := byName[name]
		switch {
		case known:
			d.decode(value, field, path)
		case names == nil:
			d.unreadable(key, path, "unknown field: nothing can be set here")
		default:
			d.unreadable(key, path, "unknown field: one of %s", strings.Join(names, ", "))
		}
	})
}

// fieldsOf are the fields of a struct that files can set; none of other types.
func fieldsOf(v reflect.Value) (names []string, byName map[string]reflect.Value) {
	if v.Kind() != reflect.Struct {
		return nil, nil
	}
	byName = make(map[string]reflect.Value, v.NumField())
	for f, field := range v.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "" && name != "-" {
			names = append(names, name)
			byName[name] = field
		}
	}
	return names, byName
}

// fields calls each for every field of a mapping, once.
func (d *Document) fields(n *yaml.Node, path string, each func(name, path string, key, value *yaml.Node)) {
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" || key.Value == "" {
			d.report(key.Line, path, "has a key that is no plain name (%s): anchors and merge keys are not supported", describe(key))
			continue
		}
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		if first, again := seen[key.Value]; again {
			d.report(key.Line, at, "appears twice, first in line %d", first)
			continue
		}
		seen[key.Value] = key.Line
		d.Lines[at] = key.Line
		each(key.Value, at, key, value)
	}
}

func (d *Document) list(n *yaml.Node, v reflect.Value, path string) {
	if isValue(n) && reflect.PointerTo(v.Type().Elem()).Implements(textType) {
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
		at := path + "[" + strconv.Itoa(i) + "]"
		d.Lines[at] = item.Line
		d.decode(item, v.Index(i), at)
	}
}

// leadingZero matches the numbers of which YAML 1.1 and 1.2 have different
// opinions: 010 is 8 to one and 10 to the other.
var leadingZero = regexp.MustCompile(`^[-+]?0[0-9_]`)

func (d *Document) number(n *yaml.Node, path, want string) (i int64, ok bool) {
	switch {
	case leadingZero.MatchString(n.Value) && (IsScalar(n, "!!int") || IsScalar(n, "!!float")):
		d.unreadable(n, path, "begins with 0, which YAML may read as octal: write the number without it")
	case !IsScalar(n, "!!int"):
		d.mismatch(n, path, want)
	case n.Decode(&i) != nil:
		d.unreadable(n, path, "number is too large for this field")
	default:
		return i, true
	}
	return 0, false
}

func (d *Document) time(n *yaml.Node, into *time.Time, path string) {
	if !IsScalar(n, "!!timestamp") && !IsScalar(n, "!!str") {
		d.mismatch(n, path, "a time such as 2027-06-30T00:00:00Z")
		return
	}
	t, err := time.Parse(time.RFC3339, n.Value)
	if err != nil {
		d.unreadable(n, path, "must be a time with its zone, such as 2027-06-30T00:00:00Z")
		return
	}
	*into = t
}

func (d *Document) duration(n *yaml.Node, into *time.Duration, path string) {
	if !IsScalar(n, "!!str") {
		d.mismatch(n, path, "a duration with its unit, such as 30s")
		return
	}
	t, err := time.ParseDuration(n.Value)
	if err != nil {
		d.unreadable(n, path, "must be a duration with its unit, such as 30s")
		return
	}
	*into = t
}

func (d *Document) mismatch(n *yaml.Node, path, want string) {
	d.unreadable(n, path, "must be %s, is %s", want, describe(n))
}

// IsScalar reports whether n is a single value of a type, such as !!str.
func IsScalar(n *yaml.Node, tag string) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == tag
}

// isValue reports whether n is a single value of whatever type.
func isValue(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" }

// describe names the type of a node, not its value, which may be a secret.
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
