package resource

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"tollgate.internal/pkg/strictyaml"
)

// Problem is one thing to mend in a file. It is an error by itself.
type Problem = strictyaml.Problem

// Problems is every problem of a directory, by file and line.
type Problems = strictyaml.Problems

// object is one document of a file on its way into a Set.
type object struct {
	*strictyaml.Document

	baseDir string // absolute
	kind    string
	meta    *Metadata
	value   Object
}

func (o *object) where() string { return o.File + ":" + strconv.Itoa(o.Line) }

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

// parse reads the objects of a file. Whole reports whether it came to the end of
// the file: behind a syntax error nothing can be read.
func parse(file, baseDir string, data []byte, problems *Problems) (objects []*object, whole bool) {
	documents, whole := strictyaml.Read(file, data, problems)
	for _, d := range documents {
		o := &object{Document: d, baseDir: baseDir}
		d.Special = o.special
		if o.decode() {
			objects = append(objects, o)
		}
	}
	return objects, whole
}

// decode fills o in. It reports false if the document has no place in a set
// because its kind is unknown.
func (o *object) decode() bool {
	var head struct {
		APIVersion string     `yaml:"apiVersion"`
		Kind       string     `yaml:"kind"`
		Metadata   *yaml.Node `yaml:"metadata"`
		Spec       *yaml.Node `yaml:"spec"`
	}
	o.Decode(o.Root, &head, "")
	switch head.APIVersion {
	case APIVersion:
	case "":
		o.Problem("apiVersion", "required: write %s", APIVersion)
	default:
		o.Problem("apiVersion", "unknown version %q: write %s", head.APIVersion, APIVersion)
	}
	create, known := kinds[head.Kind]
	if !known {
		if head.Kind == "" {
			o.Problem("kind", "required: one of %s", kindNames())
		} else {
			o.Problem("kind", "unknown kind %q: one of %s", head.Kind, kindNames())
		}
		return false
	}
	o.kind = head.Kind
	o.value, o.meta = create()
	for _, part := range []struct {
		name, field string
		node        *yaml.Node
	}{{"metadata", "Metadata", head.Metadata}, {"spec", "Spec", head.Spec}} {
		if part.node == nil {
			o.Unreadable(part.name, "required")
			continue
		}
		o.Decode(part.node, reflect.ValueOf(o.value).Elem().FieldByName(part.field).Addr().Interface(), part.name)
	}
	o.meta.Source = Source{o.File, o.Line, o.Lines}
	return true
}

// special decodes what is written otherwise than its type says.
func (o *object) special(n *yaml.Node, into any, path string) (done bool) {
	switch into := into.(type) {
	case *Reference:
		if !strictyaml.IsScalar(n, "!!str") { // a password of digits, say: quotes would not help
			o.Unreadable(path, notAReference)
			return true
		}
	case *[]OAuthIssuer:
		if n.Kind == yaml.MappingNode { // one issuer needs no list around it
			*into = make([]OAuthIssuer, 1)
			o.Decode(n, &(*into)[0], path)
			return true
		}
	}
	return false
}
