package resource

import (
	"cmp"
	"strconv"

	"go.yaml.in/yaml/v3"

	"tollgate.internal/pkg/strictyaml"
)

// Problem is one thing to mend in a file. It is an error by itself.
type Problem = strictyaml.Problem

// Problems is every problem of a directory, by file and line.
type Problems = strictyaml.Problems

// Written is an object as somebody wrote it: what it says and where each field stands.
type Written struct {
	*strictyaml.Document
	Object Object

	baseDir string // absolute; empty: it came through the API
}

// where is the place for those who look for it, in the form ", in file:line".
func (o *Written) where() string {
	if o.File == "" {
		return ""
	}
	return ", in " + o.File + ":" + strconv.Itoa(o.Line)
}

func (o *Written) meta() *Metadata { return o.Object.Meta() }
func (o *Written) kind() string    { return o.Object.Kind() }

// fromFile tells what lies in files beside each other from what is stored: only the
// former has relative paths and passwords.
func (o *Written) fromFile() bool { return o.baseDir != "" }

// Parse reads the objects that somebody sends, in YAML or JSON, one or several
// documents. What each means is for [Validate].
func Parse(data []byte, problems *Problems) []*Written {
	objects, _ := parse("", "", "", data, problems)
	return objects
}

// ParseAs is [Parse] where it is known of which kind the objects must be. One that
// says another kind, or none, is wrong in that, and read as that kind all the same,
// so that what else is wrong is told with it.
func ParseAs(kind string, data []byte, problems *Problems) []*Written {
	objects, _ := parse("", "", kind, data, problems)
	return objects
}

// parse reads the objects of a file, of whatever kind where none is given. Whole
// reports whether it came to the end of the file: behind a syntax error nothing can be
// read.
func parse(file, baseDir, kind string, data []byte, problems *Problems) (objects []*Written, whole bool) {
	documents, whole := strictyaml.Read(file, data, problems)
	for _, d := range documents {
		o := &Written{Document: d, baseDir: baseDir}
		d.Special = o.special
		if o.decode(kind) {
			objects = append(objects, o)
		}
	}
	return objects, whole
}

// decode fills o in. It reports false if the document has no place in a set
// because its kind is unknown, unless it must be of a certain one.
func (o *Written) decode(must string) bool {
	var head struct {
		APIVersion string     `yaml:"apiVersion"`
		Kind       string     `yaml:"kind"`
		Metadata   *yaml.Node `yaml:"metadata"`
		Spec       *yaml.Node `yaml:"spec"`
		Status     *yaml.Node `yaml:"status"` // what was read is written again: it says nothing
	}
	o.Decode(o.Root, &head, "")
	switch head.APIVersion {
	case APIVersion:
	case "":
		o.Problem("apiVersion", "required: write %s", APIVersion)
	default:
		o.Problem("apiVersion", "unknown version %q: write %s", head.APIVersion, APIVersion)
	}
	kind, known := KindOf(cmp.Or(must, head.Kind))
	names := cmp.Or(must, "one of "+kindNames())
	switch {
	case head.Kind == "":
		o.Problem("kind", "required: %s", names)
	case must != "" && head.Kind != must:
		o.Problem("kind", "is %q, and must be %s here", head.Kind, must)
	case !known:
		o.Problem("kind", "unknown kind %q: %s", head.Kind, names)
	}
	if !known {
		return false
	}
	o.Object = kind.New()
	for _, part := range []struct {
		name string
		node *yaml.Node
		into any
	}{{"metadata", head.Metadata, o.Object.Meta()}, {"spec", head.Spec, o.Object.spec()}} {
		if part.node == nil {
			o.Unreadable(part.name, "required")
			continue
		}
		o.Decode(part.node, part.into, part.name)
	}
	o.meta().Source = Source{o.File, o.Line, o.Lines}
	return true
}

// special decodes what is written otherwise than its type says.
func (o *Written) special(n *yaml.Node, into any, path string) (done bool) {
	switch into := into.(type) {
	case *Reference:
		if !strictyaml.IsScalar(n, "!!str") { // a password of digits, say: quotes would not help
			o.Unreadable(path, notAReference)
			return true
		}
	case *Decimal:
		into.special(o, n, path)
		return true
	case *[]OAuthIssuer:
		if n.Kind == yaml.MappingNode { // one issuer needs no list around it
			*into = make([]OAuthIssuer, 1)
			o.Decode(n, &(*into)[0], path)
			return true
		}
	}
	return false
}
