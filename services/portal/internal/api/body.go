package api

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"tollgate.internal/pkg/resource"
)

// What a body may hold. Real objects are a few kilobytes and six levels deep.
const (
	maxObjectBytes = 1 << 20
	maxApplyBytes  = 10 << 20
	maxDepth       = 64
)

// The media types of bodies.
const (
	typeJSON  = "application/json"
	typeYAML  = "application/yaml"
	typeMerge = "application/merge-patch+json"
	typeLines = "application/x-ndjson"
)

// body is what a client sent, read to its end.
type body struct {
	data []byte
	yaml bool
}

// readBody reads what a client sends, of one of the media types.
func readBody(w http.ResponseWriter, r *http.Request, limit int64, types []string) (body, *Problem) {
	kind := typeJSON // as curl -d leaves it out only when told so, and we have one default
	if header := r.Header.Get("Content-Type"); header != "" {
		var err error
		if kind, _, err = mime.ParseMediaType(header); err != nil {
			kind = header
		}
	}
	switch kind {
	case "application/x-yaml", "text/yaml", "text/x-yaml":
		kind = typeYAML // before RFC 9512
	}
	if !slices.Contains(types, kind) {
		return body{}, problem(http.StatusUnsupportedMediaType, "the body is of a type that is not understood here: send it with Content-Type: %s", strings.Join(types, " or ")).
			with("Accept", strings.Join(types, ", "))
	}
	if r.Header.Get("Content-Encoding") != "" {
		return body{}, problem(http.StatusUnsupportedMediaType, "the body is encoded: send it as it is, without Content-Encoding").with("Accept-Encoding", "identity")
	}
	tooLarge := problem(http.StatusRequestEntityTooLarge, "the body holds more than %d bytes", limit)
	if r.ContentLength > limit {
		return body{}, tooLarge
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return body{}, tooLarge
	}
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() {
		return body{}, problem(http.StatusRequestTimeout, "the body took too long to arrive")
	}
	if err != nil {
		return body{}, problem(http.StatusBadRequest, "the body could not be read to its end")
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return body{}, problem(http.StatusBadRequest, "the body is empty")
	}
	return body{data: data, yaml: kind == typeYAML}, nil
}

// decode reads a body that is no object: strict JSON of a known shape, and text that
// can be kept.
func (b body) decode(into any) *Problem {
	if p := b.decodeAny(into); p != nil {
		return p
	}
	var whole any
	if err := json.Unmarshal(b.data, &whole); err != nil {
		return problem(http.StatusBadRequest, "not JSON: %v", err)
	}
	if path, found := zero(whole, ""); found {
		return invalid(FieldError{Field: path, Message: "has a character with the number 0 in it"})
	}
	return nil
}

// decodeAny is decode for whoever looks at the texts.
func (b body) decodeAny(into any) *Problem {
	values, p := readJSON(b.data)
	if p != nil {
		return p
	}
	if len(values) != 1 {
		return problem(http.StatusBadRequest, "the body must be one JSON value, and is %d", len(values))
	}
	d := json.NewDecoder(bytes.NewReader(values[0]))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		return nil
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return invalid(FieldError{Field: wrong.Field, Message: "must not be a " + wrong.Value})
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		if name, err = strconv.Unquote(name); err == nil {
			return invalid(FieldError{Field: name, Message: "unknown field"})
		}
	}
	return invalid(FieldError{Message: "has a value of another form than its field's: see the API's document"})
}

// zero finds what no database keeps, and no field needs.
func zero(v any, path string) (string, bool) {
	switch v := v.(type) {
	case string:
		return path, strings.ContainsRune(v, 0)
	case []any:
		for i, item := range v {
			if at, found := zero(item, path+"["+strconv.Itoa(i)+"]"); found {
				return at, true
			}
		}
	case map[string]any:
		for name, item := range v {
			if at, found := zero(item, strings.TrimPrefix(path+"."+name, ".")); found {
				return at, true
			}
		}
	}
	return "", false
}

// document is one object that was sent, with what is wrong with it.
type document struct {
	*resource.Written
	problems *resource.Problems
	line     int // of the body where its text begins, less one
}

// one reads the single object of a body, which must be of a kind.
func (b body) one(kind string) (document, *Problem) {
	documents, p := b.documents(kind)
	if p != nil {
		return document{}, p
	}
	if len(documents) != 1 {
		return document{}, problem(http.StatusBadRequest, "the body must hold one object, and holds %d: several go to POST /v1/apply", len(documents))
	}
	return documents[0], nil
}

// documents reads the objects of a body: YAML documents, or JSON values, or one list
// of objects in JSON, of whatever kind where none is given. What cannot be read at all is a [Problem]; what is wrong with
// an object waits in it, until whoever knows more has added to it.
func (b body) documents(kind string) (documents []document, p *Problem) {
	var texts []text
	if b.yaml {
		texts = splitYAML(b.data)
	} else {
		values, p := readJSON(b.data)
		if p != nil {
			return nil, p
		}
		if len(values) == 1 && values[0][0] == '[' {
			var list []json.RawMessage
			if err := json.Unmarshal(values[0], &list); err != nil {
				return nil, problem(http.StatusBadRequest, "not JSON: %v", err)
			}
			values = values[:0]
			for _, one := range list {
				values = append(values, one)
			}
		}
		for _, value := range values {
			texts = append(texts, text{data: value})
		}
	}
	for _, t := range texts {
		if len(t.data) > maxObjectBytes {
			return nil, problem(http.StatusRequestEntityTooLarge, "an object holds more than %d bytes", maxObjectBytes)
		}
		problems := new(resource.Problems)
		var written []*resource.Written
		if kind == "" {
			written = resource.Parse(t.data, problems)
		} else {
			written = resource.ParseAs(kind, t.data, problems)
		}
		switch {
		case len(written) == 1:
			d := document{written[0], problems, t.line}
			d.checkTree(d.Root, "", 0)
			documents = append(documents, d)
		case len(*problems) > 0:
			// It has no kind, or is no YAML: it cannot be looked at beside the others.
			errors := fieldErrors(*problems, b.yaml)
			for i := range errors {
				if errors[i].Line > 0 {
					errors[i].Line += t.line
				}
				if text, syntax := strings.CutPrefix(errors[i].Message, "not YAML: "); syntax && errors[i].Field == "" {
					return nil, problem(http.StatusBadRequest, "line %d is not YAML: %s", max(errors[i].Line, 1), text)
				}
			}
			return nil, invalid(errors...)
		}
	}
	return documents, nil
}

// errors are what is wrong with a document. Several need to be told apart.
func (d document) errors(several, lines bool) []FieldError {
	slices.SortStableFunc(*d.problems, func(a, b resource.Problem) int { return cmp.Compare(a.Line, b.Line) })
	out := fieldErrors(*d.problems, lines)
	for i := range out {
		if out[i].Line > 0 {
			out[i].Line += d.line
		}
		if several {
			out[i].Object = resource.KeyOf(d.Object).String()
		}
	}
	return out
}

// checkTree reports what no database keeps, and no field needs.
func (d document) checkTree(n *yaml.Node, path string, depth int) {
	if depth > maxDepth {
		d.Unreadable(path, "is nested deeper than %d levels", maxDepth)
		return
	}
	switch n.Kind {
	case yaml.ScalarNode:
		if strings.ContainsRune(n.Value, 0) {
			d.Unreadable(path, "has a character with the number 0 in it")
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if strings.ContainsRune(key, 0) {
				d.Unreadable(path, "has a field with a character with the number 0 in its name")
				continue
			}
			d.checkTree(n.Content[i+1], strings.TrimPrefix(path+"."+key, "."), depth+1)
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			d.checkTree(item, path+"["+strconv.Itoa(i)+"]", depth+1)
		}
	}
}

// text is a part of a body.
type text struct {
	data []byte
	line int // lines in front of it
}

// splitYAML cuts a stream where documents begin: a line that begins with --- does
// nothing else in YAML, wherever it stands. Each then has a size of its own.
func splitYAML(data []byte) (texts []text) {
	begin, line, at := 0, 0, 0
	add := func(end int) {
		if part := data[begin:end]; len(bytes.TrimSpace(part)) > 0 {
			texts = append(texts, text{part, line})
		}
		line += bytes.Count(data[begin:end], []byte("\n"))
		begin = end
	}
	for at < len(data) {
		rest := data[at:]
		if at > begin && bytes.HasPrefix(rest, []byte("---")) && (len(rest) == 3 || strings.ContainsRune(" \t\r\n", rune(rest[3]))) {
			add(at)
		}
		next := bytes.IndexByte(rest, '\n')
		if next < 0 {
			break
		}
		at += next + 1
	}
	add(len(data))
	return texts
}

// readJSON reads the values of a body and writes each in the form that is YAML too:
// without escapes for what needs none, and on one line. Doubled names stay doubled,
// where the reader of objects reports them with their paths.
func readJSON(data []byte) (values [][]byte, p *Problem) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var (
		out   bytes.Buffer
		stack []byte // '{' before a name, ':' before its value, '[' in a list
		first = []bool{true}
	)
	write := func(v any) {
		e := json.NewEncoder(&out)
		e.SetEscapeHTML(false)
		_ = e.Encode(v) // a string, a number, a boolean or null
		out.Truncate(out.Len() - 1)
	}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) && len(stack) == 0 {
			return values, nil
		}
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, problem(http.StatusBadRequest, "not JSON: the body ends in the middle of a value")
			}
			return nil, problem(http.StatusBadRequest, "not JSON, at byte %d of %d", d.InputOffset(), len(data))
		}
		closing := token == json.Delim('}') || token == json.Delim(']')
		if top := len(stack) - 1; top >= 0 && !closing && stack[top] != ':' {
			if !first[top+1] {
				out.WriteByte(',')
			}
			first[top+1] = false
		}
		switch token := token.(type) {
		case json.Delim:
			out.WriteByte(byte(token))
			if closing {
				stack, first = stack[:len(stack)-1], first[:len(first)-1]
				break
			}
			if len(stack) == maxDepth {
				return nil, problem(http.StatusBadRequest, "the body is nested deeper than %d levels", maxDepth)
			}
			stack, first = append(stack, byte(token)), append(first, true)
			continue
		default:
			if number, ok := token.(json.Number); ok {
				out.WriteString(number.String())
			} else {
				write(token)
			}
			if top := len(stack) - 1; top >= 0 && stack[top] == '{' {
				out.WriteByte(':')
				stack[top] = ':'
				continue
			}
		}
		// A value is complete.
		if top := len(stack) - 1; top >= 0 {
			if stack[top] == ':' {
				stack[top] = '{'
			}
			continue
		}
		values = append(values, bytes.Clone(out.Bytes()))
		out.Reset()
	}
}

// merged is a document with a patch on it (RFC 7396).
func merged(original, patch []byte) ([]byte, *Problem) {
	values, p := readJSON(patch)
	if p != nil {
		return nil, p
	}
	if len(values) != 1 || values[0][0] != '{' {
		return nil, problem(http.StatusBadRequest, "a merge patch is one JSON object with the fields to change, and null for those to take away")
	}
	if name, twice := doubled(values[0]); twice {
		return nil, invalid(FieldError{Field: name, Message: "appears twice"})
	}
	read := func(data []byte) (v any, err error) {
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		err = d.Decode(&v)
		return v, err
	}
	into, err := read(original)
	if err != nil {
		panic(fmt.Sprintf("a stored document is no JSON: %v", err))
	}
	change, err := read(values[0])
	if err != nil {
		return nil, problem(http.StatusBadRequest, "not JSON: %v", err)
	}
	out, err := json.Marshal(merge(into, change))
	if err != nil {
		panic(err) // both came from JSON
	}
	return out, nil
}

func merge(into, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	target, ok := into.(map[string]any)
	if !ok {
		target = make(map[string]any)
	}
	for name, value := range changes {
		if value == nil {
			delete(target, name)
			continue
		}
		target[name] = merge(target[name], value)
	}
	return target
}

// doubled finds a name that an object of a JSON value has twice, with its path.
func doubled(data []byte) (path string, twice bool) {
	var n yaml.Node
	if yaml.Unmarshal(data, &n) != nil || len(n.Content) == 0 {
		return "", false
	}
	var look func(n *yaml.Node, path string) (string, bool)
	look = func(n *yaml.Node, path string) (string, bool) {
		seen := make(map[string]bool)
		for i, child := range n.Content {
			at := path + "[" + strconv.Itoa(i) + "]"
			if n.Kind == yaml.MappingNode {
				if i%2 == 0 {
					continue
				}
				name := n.Content[i-1].Value
				at = strings.TrimPrefix(path+"."+name, ".")
				if seen[name] {
					return at, true
				}
				seen[name] = true
			}
			if found, twice := look(child, at); twice {
				return found, true
			}
		}
		return "", false
	}
	return look(n.Content[0], "")
}
