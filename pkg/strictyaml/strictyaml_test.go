package strictyaml

import (
	"errors"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// sample has a field of every form.
type sample struct {
	Name   string            `yaml:"name,omitempty"`
	On     bool              `yaml:"on"`
	Count  int32             `yaml:"count"`
	Port   uint16            `yaml:"port"`
	Until  time.Time         `yaml:"until"`
	Every  time.Duration     `yaml:"every"`
	Size   size              `yaml:"size"`
	Nets   []netip.Prefix    `yaml:"nets"`
	Names  []string          `yaml:"names"`
	Labels map[string]string `yaml:"labels"`
	Deep   *deep             `yaml:"deep"`
	Many   []deep            `yaml:"many"`
	Switch *struct{}         `yaml:"switch"`
	Later  *yaml.Node        `yaml:"later"`
	Range  span              `yaml:"range"`
	Hidden string            `yaml:"-"`
}

type deep struct {
	A string `yaml:"a"`
	B int    `yaml:"b"`
}

// size is written as a number of KiB.
type size int64

func (s *size) UnmarshalText(text []byte) error {
	n, err := strconv.ParseInt(strings.TrimSuffix(string(text), "KiB"), 10, 32)
	if err != nil {
		return errors.New("must be a size such as 4KiB")
	}
	*s = size(n << 10)
	return nil
}

// span may be written as its first alone.
type span struct {
	First int `yaml:"first"`
	Last  int `yaml:"last"`
}

func (s *span) UnmarshalText(text []byte) (err error) {
	s.First, err = strconv.Atoi(string(text))
	return err
}

const known = "name, on, count, port, until, every, size, nets, names, labels, deep, many, switch, later, range"

// decode reads the only document of a file.
func decode(t *testing.T, text string) (sample, *Document) {
	t.Helper()
	var problems Problems
	documents, whole := Read("f", []byte(text), &problems)
	if !whole || len(documents) != 1 {
		t.Fatalf("Read = %d documents, whole %v, problems %v: want one", len(documents), whole, problems)
	}
	var s sample
	documents[0].Decode(documents[0].Root, &s, "")
	return s, documents[0]
}

func TestEveryForm(t *testing.T) {
	s, d := decode(t, `# first
name: "7"
on: True
count: -5
port: 65535
until: 2027-06-30T02:00:00+02:00
every: 1m30s
size: 4KiB
nets: 10.0.0.0/8
names: [a, "1"]
labels: {a.b: c}
deep: {a: x}
many:
- a: y
  b: 0x10
-
  a: z
switch: {}
later: {any: [thing]}
range: {first: 1, last: 3}
`)
	if len(*d.Problems) > 0 {
		t.Fatal(*d.Problems)
	}
	if s.Later == nil || s.Later.Kind != yaml.MappingNode {
		t.Errorf("later = %v, want the node itself", s.Later)
	}
	if want := time.Date(2027, 6, 30, 0, 0, 0, 0, time.UTC); !s.Until.Equal(want) {
		t.Errorf("until = %v, want %v", s.Until, want)
	}
	s.Later, s.Until = nil, time.Time{}
	want := sample{
		Name: "7", On: true, Count: -5, Port: 65535, Every: 90 * time.Second, Size: 4096,
		Nets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Names: []string{"a", "1"}, Labels: map[string]string{"a.b": "c"},
		Deep: &deep{A: "x"}, Many: []deep{{"y", 16}, {"z", 0}}, Switch: &struct{}{}, Range: span{1, 3},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	if !d.Written("many[1].a") || d.Written("many[1].b") || d.Written("hidden") {
		t.Error("Written does not say what the file mentions")
	}
	for path, want := range map[string]int{"name": 2, "many[0].b": 15, "many[1]": 17, "many[1].b": 17, "nowhere": 2, "": 2} {
		if got := d.Lines.Of(path, d.Line); got != want {
			t.Errorf("line of %q = %d, want %d", path, got, want)
		}
	}
}

func TestOneValueOrItsFields(t *testing.T) {
	s, d := decode(t, "range: 5\nnets: [10.0.0.0/8, 10.1.0.0/16]\n")
	if len(*d.Problems) > 0 || s.Range != (span{First: 5}) || len(s.Nets) != 2 {
		t.Errorf("range %v, nets %v, problems %v", s.Range, s.Nets, *d.Problems)
	}
}

func TestWhatIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string // line: field: message
	}{
		{"an unknown field", "name: a\nnme: b\n", []string{"2: nme: unknown field: one of " + known}},
		{"a field that files cannot set", "Hidden: b\n-: c\n", []string{"1: Hidden: unknown field: one of " + known, "2: -: unknown field: one of " + known}},
		{"a field of nothing", "switch: {a: b}\n", []string{"1: switch.a: unknown field: nothing can be set here"}},
		{"a field twice, in lists too", "many: [{a: x,\n a: y}]\n", []string{"2: many[0].a: appears twice, first in line 1"}},
		{"a label twice", "labels:\n  a: x\n  a: y\n", []string{"3: labels.a: appears twice, first in line 2"}},
		{"an anchor's alias", "name: &a x\nnames: [*a]\n", []string{"2: names[0]: anchors and aliases are not supported: write the value out"}},
		{"an alias to itself", "later: &a [*a]\ndeep: *a\n", []string{"2: deep: anchors and aliases are not supported: write the value out"}},
		{"a merge key", "labels: &a {a: b}\n<<: *a\n", []string{"2: has a key that is no plain name (a merge key): anchors and merge keys are not supported"}},
		{"keys that are no names", "deep:\n  ? [x]\n  : y\n  ? {}\n  : z\n  \"\": e\n", []string{
			"2: deep: has a key that is no plain name (a list): anchors and merge keys are not supported",
			"4: deep: has a key that is no plain name (a mapping): anchors and merge keys are not supported",
			"6: deep: has a key that is no plain name (a string): anchors and merge keys are not supported",
		}},
		{"an alias for a key", "name: &a x\nlabels: {*a : y}\n", []string{"2: labels: has a key that is no plain name (an alias): anchors and merge keys are not supported"}},
		{"not a mapping", "- a\n", []string{"1: must be a mapping, is a list"}},
		{"a word", "hello\n", []string{"1: must be a mapping, is a string"}},

		{"types that are not the field's", `
name: 7
on: yes
count: 1.5
port: [1]
until: 7
every: 30
size: {}
names: a
labels: []
deep: x
many: {a: x}
switch:
range: [1]
`, []string{
			"2: name: must be a string (put it in quotes), is a number",
			"3: on: must be true or false, is a string",
			"4: count: must be a whole number, is a number",
			"5: port: must be a port number, is a list",
			"6: until: must be a time such as 2027-06-30T00:00:00Z, is a number",
			"7: every: must be a duration with its unit, such as 30s, is a number",
			"8: size: must be a single value, is a mapping",
			"9: names: must be a list, is a string",
			"10: labels: must be a mapping, is a list",
			"11: deep: must be a mapping, is a string",
			"12: many: must be a list, is a mapping",
			"13: switch: must be an empty mapping: write {}, is empty",
			"14: range: must be a single value, is a list",
		}},
		{"nothing for something", "name:\non:\ncount:\nport:\nuntil:\nevery:\nsize:\nnames:\nlabels:\ndeep:\nrange:\n", []string{
			"1: name: must be a string, is empty",
			"2: on: must be true or false, is empty",
			"3: count: must be a whole number, is empty",
			"4: port: must be a port number, is empty",
			"5: until: must be a time such as 2027-06-30T00:00:00Z, is empty",
			"6: every: must be a duration with its unit, such as 30s, is empty",
			"7: size: must be a single value, is empty",
			"8: names: must be a list, is empty",
			"9: labels: must be a mapping, is empty",
			"10: deep: must be a mapping, is empty",
			"11: range: must be a single value, is empty",
		}},
		{"values of the right type", `
count: 3000000000
port: 0
until: 2027-06-30
every: soon
size: large
nets: [10.0.0.0/8, x]
many: [{b: 18446744073709551615}]
`, []string{
			"2: count: number is too large for this field",
			"3: port: is not a port number (1-65535)",
			"4: until: must be a time with its zone, such as 2027-06-30T00:00:00Z",
			"5: every: must be a duration with its unit, such as 30s",
			"6: size: must be a size such as 4KiB",
			`7: nets[1]: netip.ParsePrefix("x"): no '/'`,
			"8: many[0].b: number is too large for this field",
		}},
		{"numbers of two readings", "count: 010\nport: 0_7\nmany: [{b: -08}]\n", []string{
			"1: count: begins with 0, which YAML may read as octal: write the number without it",
			"2: port: begins with 0, which YAML may read as octal: write the number without it",
			"3: many[0].b: begins with 0, which YAML may read as octal: write the number without it",
		}},
		{"a tag that lies", "on: !!bool maybe\nname: !mine x\n", []string{
			"1: on: must be true or false, is a boolean",
			"2: name: must be a string (put it in quotes), is of a type of its own",
		}},
		{"a value below its field's name", "name:\n  # why\n  7\n", []string{"3: name: must be a string (put it in quotes), is a number"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, d := decode(t, c.text)
			expect(t, *d.Problems, c.want...)
		})
	}
}

func expect(t *testing.T, problems Problems, want ...string) {
	t.Helper()
	var got []string
	for _, p := range problems {
		got = append(got, strings.TrimPrefix(p.String(), "f:"))
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// What could not be read was reported: that it is also missing, or less than it
// should be, would only be its echo.
func TestProblemsHaveNoEchoes(t *testing.T) {
	_, d := decode(t, "name: 7\ndeep: x\nmany: [{a: 1, b: 2}]\n")
	*d.Problems = nil
	d.Problem("name", "required")
	d.Problem("deep.a", "required")
	d.Problem("many[0].a", "required")
	d.Problem("many[0].b", "is too small")
	d.Problem("names", "required")
	d.Unreadable("labels", "required")
	d.Problem("labels.a", "required")
	expect(t, *d.Problems, "3: many[0].b: is too small", "1: names: required", "1: labels: required")

	_, d = decode(t, "[]\n")
	*d.Problems = nil
	d.Problem("name", "required")
	d.Problem("", "is too short")
	expect(t, *d.Problems)
}

func TestWhatIsWrittenOtherwiseThanItsTypeSays(t *testing.T) {
	var problems Problems
	documents, _ := Read("f", []byte("many: {a: x, c: y}\ndeep: {b: 3}\n"), &problems)
	d := documents[0]
	d.Special = func(n *yaml.Node, into any, path string) bool {
		many, ok := into.(*[]deep)
		if !ok || n.Kind != yaml.MappingNode {
			return false
		}
		*many = make([]deep, 1)
		d.Decode(n, &(*many)[0], path)
		return true
	}
	var s sample
	d.Decode(d.Root, &s, "")
	if !reflect.DeepEqual(s.Many, []deep{{A: "x"}}) || s.Deep == nil || s.Deep.B != 3 {
		t.Errorf("many %v, deep %v", s.Many, s.Deep)
	}
	expect(t, problems, "1: many.c: unknown field: one of a, b")
}

func TestRead(t *testing.T) {
	for _, c := range []struct {
		name, text string
		lines      []int // of the documents
		want       []string
	}{
		{"nothing", "", nil, nil},
		{"comments and separators", "# a\n---\n---\n# b\n--- ~\n", nil, nil},
		{"documents between empty ones", "# a\n---\n# b\nx: 1\n---\n---\ny: 2\n", []int{4, 7}, nil},
		{"a syntax error behind a document", "x: 1\n---\ny: [\n", []int{1}, []string{"3: not YAML: did not find expected node content"}},
		{"an error of the whole file", "x: \x00\n", nil, []string{"1: not YAML: control characters are not allowed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var problems Problems
			documents, whole := Read("f", []byte(c.text), &problems)
			var lines []int
			for _, d := range documents {
				lines = append(lines, d.Line)
			}
			if !reflect.DeepEqual(lines, c.lines) || whole != (c.want == nil) {
				t.Errorf("documents in lines %v, whole %v, want %v", lines, whole, c.lines)
			}
			expect(t, problems, c.want...)
		})
	}
}

func TestProblemsAreSortedByPlace(t *testing.T) {
	problems := Problems{{"f", 2, "b", "x"}, {"g", 1, "", "x"}, {"f", 2, "a", "x"}, {"f", 0, "", "x"}, {"", 0, "c", "x"}}
	problems.Sort()
	if got, want := problems.Error(), "c: x\nf: x\nf:2: b: x\nf:2: a: x\ng:1: x"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Whatever a file holds, reading it does not panic, every problem has a line of
// the file, and what was refused is not taken for what was not written.
func FuzzDecode(f *testing.F) {
	f.Add("name: a\non: true\ncount: 1\nport: 1\nuntil: 2027-06-30T00:00:00Z\nevery: 1s\nsize: 1KiB\nnets: 10.0.0.0/8\n---\nrange: 1\nswitch: {}\n")
	f.Add("names: [a]\nlabels: {a: b}\ndeep: {a: x, b: 1}\nmany: [{a: x}]\nrange: {first: 1}\nlater: {a: b}\n")
	f.Add("a: &a [*a]\nname: *a\n")
	f.Add("<<: {}\n? [x]\n: y\n\"\": z\n")
	f.Add("port: 010\ncount: 99999999999\non: !!bool x\nsize: !!int y\nevery: -1ns\n")
	f.Add("--- !!binary aa\n--- a: [\n")
	f.Add("name: \x00")
	f.Fuzz(func(t *testing.T, text string) {
		var problems Problems
		documents, whole := Read("f", []byte(text), &problems)
		if whole == (len(problems) > 0) {
			t.Errorf("whole %v with problems %v", whole, problems)
		}
		for _, d := range documents {
			d.Decode(d.Root, new(sample), "")
			d.Problem("names", "required")
		}
		if len(problems) < len(documents) {
			t.Errorf("%d documents have %d problems, one each was reported at least", len(documents), len(problems))
		}
		last := 2 + strings.Count(text, "\n") + strings.Count(text, "\r") + strings.Count(text, "\u0085") + strings.Count(text, "\u2028") + strings.Count(text, "\u2029")
		for _, p := range problems {
			if p.File != "f" || p.Line < 1 || p.Line > last || p.Message == "" {
				t.Errorf("a problem without its place: %+v", p)
			}
		}
	})
}
