// Package show prints what a server tells: as a table for people, as YAML and JSON
// with every field as it came, and as names for scripts.
package show

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// YAML is a JSON value in YAML, with its fields in their order. What it means does
// not change: a string that looks like a number stays a string. Fields can be left
// out, by paths such as metadata.revision.
func YAML(value []byte, without ...string) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	n, err := node(d)
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	for _, path := range without {
		remove(n, strings.Split(path, "."))
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(n); err != nil {
		return nil, err
	}
	if err := e.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func node(d *json.Decoder) (*yaml.Node, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token := token.(type) {
	case json.Delim:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		if token == '[' {
			n = &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		}
		for d.More() {
			child, err := node(d) // a name, or a value
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		if len(n.Content) == 0 {
			n.Style = yaml.FlowStyle
		}
		_, err := d.Token() // the closing one
		return n, err
	case string:
		n := new(yaml.Node)
		n.SetString(token)
		return n, nil
	case json.Number:
		tag := "!!int"
		if strings.ContainsAny(token.String(), ".eE") {
			tag = "!!float"
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: token.String()}, nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(token)}, nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
}

// JSON prints a JSON value, indented.
func JSON(w io.Writer, value []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(value), "", "  "); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

func remove(n *yaml.Node, path []string) {
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch {
		case n.Content[i].Value != path[0]:
		case len(path) > 1:
			remove(n.Content[i+1], path[1:])
		default:
			n.Content = append(n.Content[:i], n.Content[i+2:]...)
			return
		}
	}
}
