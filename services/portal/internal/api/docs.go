package api

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// page is the API's document for people. It needs nothing from elsewhere, and no
// script.
type page struct {
	html   []byte
	policy string
}

//go:embed docs.css
var docsStyle string

//go:embed docs.html
var docsText string

// What the page shows, in finished strings.
type (
	docsView struct {
		Title, Version, Description string
		Style                       template.CSS
		Groups                      []docsGroup
		Schemas                     []docsSchema
	}
	docsGroup struct {
		Name, Description string
		Operations        []docsOperation
	}
	docsOperation struct {
		ID, Method, Path, Summary, Description string
		Open                                   bool
		Parameters                             []docsField
		Body                                   string // its media types
		BodySchema                             docsType
		Answers                                []docsAnswer
	}
	docsAnswer struct {
		Status, Description, Media string
		Schema                     docsType
		Headers                    []docsField
	}
	docsField struct {
		Name, In, Description, Values string
		Required                      bool
		Type                          docsType
	}
	docsSchema struct {
		Name, Description string
		Fields            []docsField
		Types             []docsType // one of them
	}
	docsType struct{ Text, Link string }
)

func newPage(doc *huma.OpenAPI) page {
	sum := sha256.Sum256([]byte(docsStyle))
	p := page{policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"}
	view := docsView{Title: doc.Info.Title, Version: doc.Info.Version, Description: doc.Info.Description, Style: template.CSS(docsStyle)}
	for _, tag := range doc.Tags {
		view.Groups = append(view.Groups, docsGroup{Name: tag.Name, Description: tag.Description, Operations: docsOperations(doc, tag.Name)})
	}
	components := doc.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(components)) {
		s := components[name]
		one := docsSchema{Name: name, Description: s.Description, Fields: docsFields(s, "")}
		for _, t := range s.OneOf {
			one.Types = append(one.Types, docsTypeOf(t))
		}
		view.Schemas = append(view.Schemas, one)
	}
	var out bytes.Buffer
	if err := template.Must(template.New("docs").Parse(docsText)).Execute(&out, view); err != nil {
		panic(err) // template and data are ours
	}
	p.html = out.Bytes()
	return p
}

func (p page) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", p.policy)
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(p.html) // a client that is gone reads nothing
}

func docsOperations(doc *huma.OpenAPI, tag string) (all []docsOperation) {
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		item := doc.Paths[path]
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op == nil || !slices.Contains(op.Tags, tag) {
				continue
			}
			o := docsOperation{ID: op.OperationID, Method: op.Method, Path: path, Summary: op.Summary, Description: op.Description, Open: op.Security != nil}
			for _, p := range op.Parameters {
				o.Parameters = append(o.Parameters, docsField{
					Name: p.Name, In: p.In, Required: p.Required, Type: docsTypeOf(p.Schema), Values: docsValues(p.Schema),
					Description: cmp.Or(p.Description, p.Schema.Description),
				})
			}
			if op.RequestBody != nil {
				media := slices.Sorted(maps.Keys(op.RequestBody.Content))
				o.Body = strings.Join(media, ", ")
				o.BodySchema = docsTypeOf(op.RequestBody.Content[media[0]].Schema)
			}
			for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
				r := op.Responses[status]
				answer := docsAnswer{Status: status, Description: r.Description}
				for _, media := range slices.Sorted(maps.Keys(r.Content)) {
					answer.Media, answer.Schema = media, docsTypeOf(r.Content[media].Schema)
				}
				for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
					answer.Headers = append(answer.Headers, docsField{Name: name, Description: r.Headers[name].Description})
				}
				o.Answers = append(o.Answers, answer)
			}
			all = append(all, o)
		}
	}
	return all
}

// docsFields are the fields of a schema, those within them too.
func docsFields(s *huma.Schema, under string) (fields []docsField) {
	names := slices.SortedFunc(maps.Keys(s.Properties), func(a, b string) int {
		order := []string{"apiVersion", "kind", "metadata", "name", "tenant", "virtualCluster", "spec", "status"}
		rank := func(name string) int {
			if i := slices.Index(order, name); i >= 0 {
				return i
			}
			return len(order)
		}
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
	})
	for _, name := range names {
		property := s.Properties[name]
		fields = append(fields, docsField{
			Name: under + name, Required: slices.Contains(s.Required, name), Type: docsTypeOf(property), Values: docsValues(property), Description: property.Description,
		})
		if property.Type == huma.TypeObject {
			fields = append(fields, docsFields(property, under+name+".")...)
		}
	}
	return fields
}

func docsValues(s *huma.Schema) string {
	values := make([]string, len(s.Enum))
	for i, v := range s.Enum {
		values[i] = fmt.Sprint(v)
	}
	return strings.Join(values, ", ")
}

func docsTypeOf(s *huma.Schema) docsType {
	switch {
	case s == nil:
		return docsType{}
	case s.Ref != "":
		name := strings.TrimPrefix(s.Ref, schemaPrefix)
		return docsType{name, "#schema-" + name}
	case len(s.AllOf) > 0:
		return docsTypeOf(s.AllOf[0])
	case len(s.OneOf) > 0:
		return docsType{Text: "any object"}
	case s.Type == huma.TypeArray:
		item := docsTypeOf(s.Items)
		return docsType{"list of " + item.Text, item.Link}
	case s.Type == huma.TypeObject:
		if values, ok := s.AdditionalProperties.(*huma.Schema); ok {
			item := docsTypeOf(values)
			return docsType{"map of " + item.Text, item.Link}
		}
	case s.Format == "date-time":
		return docsType{Text: "time (RFC 3339)"}
	}
	return docsType{Text: cmp.Or(s.Type, "anything")}
}
