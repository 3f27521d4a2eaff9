// Package differential compares what two sides answer to the same request: a
// broker, and a gateway before that broker.
//
// An answer is taken apart into its leaves ([Flatten]). What must differ between
// the sides, such as ids, hosts and clocks, is replaced by what it stands for, as
// [Rule]s say field by field; everything else is compared as it is. What differs
// then must be in a literal list of [Difference]s, and what is in that list must
// differ.
package differential

import (
	"encoding/hex"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// A Side is one of the two, with what is needed to read its answers.
type Side struct {
	TopicName func(id [16]byte) (string, bool)
	ClusterID string
	Hosts     map[string]bool // names of its brokers
	// Own reports whether an element of a list, by its identity, belongs to the
	// comparison: a bare broker also lists what others keep on it.
	Own func(identity string) bool
}

// A Rule replaces the values of one field: `Topics[].TopicID`.
type Rule struct {
	Field string
	As    func(s *Side, value any) any
}

// TopicID replaces an id by the topic's name.
func TopicID(s *Side, value any) any {
	id := value.([16]byte)
	if id != ([16]byte{}) {
		if name, ok := s.TopicName(id); ok {
			return "id of " + name
		}
	}
	return value
}

// ClusterID replaces the cluster's id.
func ClusterID(s *Side, value any) any {
	switch v := value.(type) {
	case string:
		if v == s.ClusterID {
			return "the cluster's id"
		}
	case *string:
		if v != nil && *v == s.ClusterID {
			return "the cluster's id"
		}
	}
	return value
}

// Host replaces the name of one of the side's brokers.
func Host(s *Side, value any) any {
	if s.Hosts[value.(string)] {
		return "a broker"
	}
	return value
}

// Set replaces any value that says something: not empty, not zero, not negative.
// Clocks, ports, and ids that the side draws at random are compared by that.
func Set(_ *Side, value any) any {
	v := reflect.ValueOf(value)
	switch {
	case v.Kind() == reflect.Pointer && v.IsNil(), v.IsZero(), v.CanInt() && v.Int() < 0:
		return value
	}
	return "set"
}

// Number replaces a number that is drawn, such as a producer id; negative ones
// mean that there is none.
func Number(_ *Side, value any) any {
	if reflect.ValueOf(value).Int() < 0 {
		return value
	}
	return "a number"
}

// Text replaces an error text: each side has words of its own for it.
func Text(_ *Side, value any) any {
	text, ok := value.(string)
	if p, isPointer := value.(*string); isPointer && p != nil {
		text, ok = *p, true
	}
	if ok && text != "" {
		return "a text"
	}
	return value
}

// Sorted is for a list of names whose order says nothing.
func Sorted(_ *Side, value any) any {
	return slices.Sorted(slices.Values(value.([]string)))
}

// Own is for a list (`Topics[]`): elements that are not the side's own are left out.
func Own(s *Side, value any) any {
	if s.Own != nil && !s.Own(value.(string)) {
		return nil
	}
	return value
}

// Answer is an answer's leaves by path: `Topics[orders].Partitions[0].ErrorCode`.
type Answer map[string]string

// connection is the path of the one leaf of [Closed].
const connection = "connection"

// Closed stands for the answer of a side that closes the connection instead.
func Closed() Answer { return Answer{connection: "closed"} }

func (a Answer) closed() bool { _, ok := a[connection]; return ok }

// Flatten takes a message apart. Elements of lists are known by their identity
// and not by their place: Kafka promises no order.
func Flatten(s *Side, rules []Rule, message any) Answer {
	f := flattener{side: s, rules: make(map[string]func(*Side, any) any), answer: Answer{}}
	for _, r := range rules {
		f.rules[r.Field] = r.As
	}
	f.walk("", "", reflect.ValueOf(message))
	return f.answer
}

type flattener struct {
	side   *Side
	rules  map[string]func(*Side, any) any
	answer Answer
}

func (f *flattener) walk(path, shape string, v reflect.Value) {
	if as, ok := f.rules[shape]; ok && !strings.HasSuffix(shape, "[]") {
		replaced := as(f.side, v.Interface())
		if !reflect.DeepEqual(replaced, v.Interface()) {
			f.answer[path] = fmt.Sprint(replaced)
			return
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			f.answer[path] = null
			return
		}
		f.walk(path, shape, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if name == "Version" || name == "UnknownTags" && v.Field(i).IsZero() {
				continue
			}
			f.walk(join(path, name), join(shape, name), v.Field(i))
		}
	case reflect.Slice:
		f.list(path, shape, v)
	case reflect.Array:
		b := make([]byte, v.Len())
		reflect.Copy(reflect.ValueOf(b), v)
		f.answer[path] = hex.EncodeToString(b)
	case reflect.String:
		f.answer[path] = fmt.Sprintf("%q", v.String())
	default:
		f.answer[path] = fmt.Sprint(v.Interface())
	}
}

func (f *flattener) list(path, shape string, v reflect.Value) {
	if b, ok := v.Interface().([]byte); ok {
		f.answer[path] = null
		if b != nil {
			f.answer[path] = "bytes " + hex.EncodeToString(b)
		}
		return
	}
	if v.Type().Elem().Kind() != reflect.Struct {
		f.answer[path] = fmt.Sprint(v.Interface())
		return
	}
	own := f.rules[shape+"[]"]
	seen := make(map[string]int)
	for i := range v.Len() {
		identity := f.identity(shape+"[]", v.Index(i))
		if identity == "" {
			identity = fmt.Sprint(i)
		}
		if own != nil && own(f.side, identity) == nil {
			continue
		}
		if seen[identity]++; seen[identity] > 1 {
			identity = fmt.Sprintf("%s #%d", identity, seen[identity])
		}
		element := path + "[" + strings.ReplaceAll(identity, "]", ")") + "]"
		f.answer[element] = "there"
		f.walk(element, shape+"[]", v.Index(i))
	}
	if v.IsNil() || len(seen) == 0 && own != nil {
		f.answer[path] = null
	}
}

// identities are the fields that tell elements apart.
var identities = []string{
	"Topic", "TopicID", "Partition", "Group", "GroupID", "FirstOffset", "Key", "NodeID", "ApiKey", "Name", "Type",
	"ResourceType", "ResourceName", "ResourcePatternType", "Principal", "Host", "Operation", "PermissionType",
	"TransactionalID", "MemberID", "User", "Mechanism", "LogDir",
}

func (f *flattener) identity(shape string, v reflect.Value) string {
	var parts []string
	for _, name := range identities {
		field := v.FieldByName(name)
		if !field.IsValid() || field.Kind() == reflect.Slice || field.Kind() == reflect.Struct {
			continue
		}
		value := field.Interface()
		if as, ok := f.rules[shape+"."+name]; ok {
			value = as(f.side, value)
		}
		if field := reflect.ValueOf(value); field.Kind() == reflect.Pointer {
			if field.IsNil() {
				continue
			}
			value = field.Elem().Interface()
		}
		if id, ok := value.([16]byte); ok {
			if id == ([16]byte{}) {
				continue
			}
			value = hex.EncodeToString(id[:])
		}
		if value == "" {
			value = `""`
		}
		if name == "TopicID" && len(parts) > 0 && parts[0] != `""` {
			continue // the name is enough
		}
		parts = append(parts, fmt.Sprint(value))
	}
	return strings.Join(parts, " ")
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// A Finding is a leaf, or a whole element, in which two answers differ.
type Finding struct{ Path, Bare, Gateway string }

// Field is the finding's path without the identities: `Topics[].ErrorCode`.
func (f Finding) Field() string { return Field(f.Path) }

// Field strips the identities of a path.
func Field(path string) string { return element.ReplaceAllString(path, "[]") }

var element = regexp.MustCompile(`\[[^\]]*\]`)

// null stands for nothing, and for a list that kmsg did not have to make.
const null = "null"

// absent stands for a leaf that one side has not.
const absent = "absent"

// Compare lists what differs, in the order of paths. Of an element that one side
// has not, only the element itself is listed.
func Compare(bare, gateway Answer) []Finding {
	switch {
	case bare.closed() && gateway.closed():
		return nil
	case bare.closed():
		return []Finding{{connection, "closed", "answered"}}
	case gateway.closed():
		return []Finding{{connection, "answered", "closed"}}
	}
	all := slices.Sorted(maps.Keys(bare))
	for path := range gateway {
		if _, ok := bare[path]; !ok {
			all = append(all, path)
		}
	}
	slices.Sort(all)
	var found []Finding
	for _, path := range all {
		b, inBare := bare[path]
		g, inGateway := gateway[path]
		switch {
		case !inBare && !parentIn(bare, path), !inGateway && !parentIn(gateway, path):
			continue
		case !inBare && g == null && hasElements(bare, path), !inGateway && b == null && hasElements(gateway, path):
			continue // the elements are listed
		case !inBare:
			b = absent
		case !inGateway:
			g = absent
		}
		if b != g {
			found = append(found, Finding{path, b, g})
		}
	}
	return found
}

// hasElements reports whether a has elements of the list at path.
func hasElements(a Answer, path string) bool {
	for p := range a {
		if strings.HasPrefix(p, path+"[") {
			return true
		}
	}
	return false
}

// parentIn reports whether the element that path lies in is in a.
func parentIn(a Answer, path string) bool {
	at := strings.LastIndexByte(strings.TrimSuffix(path, "]"), ']')
	if at < 0 {
		return true
	}
	_, ok := a[path[:at+1]]
	return ok
}
