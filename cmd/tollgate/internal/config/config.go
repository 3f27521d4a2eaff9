// Package config keeps the contexts of the command: servers by name, with the
// tokens for them. The file is for its owner's eyes only.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"tollgate.internal/pkg/secret"
	"tollgate.internal/pkg/strictyaml"
)

// Config is the file.
type Config struct {
	Current  string // name of the context that is meant when none is named
	Contexts []Context

	path  string
	loose fs.FileMode
}

// Context is a server and who asks there.
type Context struct {
	Name   string
	Server string
	Token  secret.Secret
	CAFile string // absolute; empty: the system's roots
}

// file is the form on disk.
type file struct {
	Current  string        `yaml:"current,omitempty"`
	Contexts []fileContext `yaml:"contexts,omitempty"`
}

type fileContext struct {
	Name   string `yaml:"name"`
	Server string `yaml:"server"`
	Token  string `yaml:"token,omitempty"`
	CAFile string `yaml:"caFile,omitempty"`
}

// Path is where the file is: TOLLGATE_CONFIG, or tollgate/config.yaml where the
// system keeps configuration of its user's.
func Path() (string, error) {
	if path := os.Getenv("TOLLGATE_CONFIG"); path != "" {
		return path, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no place for the configuration: %w: name a file by TOLLGATE_CONFIG", err)
	}
	return filepath.Join(dir, "tollgate", "config.yaml"), nil
}

// Load reads the file; one that is not there has no contexts.
func Load() (*Config, error) {
	path, err := Path()
	if err != nil {
		return nil, err
	}
	c := &Config{path: path}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c.loose = info.Mode().Perm() & 0o077
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	var problems strictyaml.Problems
	var f file
	documents, _ := strictyaml.Read(path, data, &problems)
	for _, d := range documents {
		d.Decode(d.Root, &f, "")
	}
	if len(problems) > 0 {
		return nil, problems
	}
	c.Current = f.Current
	for _, x := range f.Contexts {
		c.Contexts = append(c.Contexts, Context{Name: x.Name, Server: x.Server, Token: secret.New(x.Token), CAFile: x.CAFile})
	}
	return c, nil
}

// Warning says what is wrong with the file's rights; empty if nothing is.
func (c *Config) Warning() string {
	if c.loose == 0 || len(c.Contexts) == 0 {
		return ""
	}
	return fmt.Sprintf("%s holds tokens and is open to others: chmod 600 %s", c.path, c.path)
}

// Find is the context of a name; the current one if the name is empty.
func (c *Config) Find(name string) (*Context, error) {
	if name == "" {
		name = c.Current
	}
	at := slices.IndexFunc(c.Contexts, func(x Context) bool { return x.Name == name })
	if at >= 0 {
		return &c.Contexts[at], nil
	}
	names := c.Names()
	if len(names) == 0 {
		return nil, fmt.Errorf("no context %q: there are none in %s yet; tollgate login makes one", name, c.path)
	}
	return nil, fmt.Errorf("no context %q in %s: there are %s", name, c.path, strings.Join(names, ", "))
}

// Names are the names of all contexts.
func (c *Config) Names() (names []string) {
	for _, x := range c.Contexts {
		names = append(names, x.Name)
	}
	slices.Sort(names)
	return names
}

// Set adds or replaces a context.
func (c *Config) Set(x Context) {
	if at := slices.IndexFunc(c.Contexts, func(o Context) bool { return o.Name == x.Name }); at >= 0 {
		c.Contexts[at] = x
		return
	}
	c.Contexts = append(c.Contexts, x)
}

// Delete takes a context away. Without a current one a name is asked for, so that
// nothing is sent to a server that was not meant.
func (c *Config) Delete(name string) error {
	if _, err := c.Find(name); err != nil {
		return err
	}
	c.Contexts = slices.DeleteFunc(c.Contexts, func(x Context) bool { return x.Name == name })
	if c.Current == name {
		c.Current = ""
	}
	return nil
}

// Save puts the file in place as a whole.
func (c *Config) Save() error {
	f := file{Current: c.Current}
	for _, x := range c.Contexts {
		f.Contexts = append(f.Contexts, fileContext{x.Name, x.Server, x.Token.Reveal(), x.CAFile})
	}
	var data bytes.Buffer
	e := yaml.NewEncoder(&data)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(f), e.Close()); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	path := c.path
	if to, err := filepath.EvalSymlinks(path); err == nil {
		path = to // a link stays one
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	t, err := os.CreateTemp(filepath.Dir(path), ".config-*") // 0600
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	defer os.Remove(t.Name()) // gone after the rename
	_, err = t.Write(data.Bytes())
	if err := errors.Join(err, t.Close()); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if err := os.Rename(t.Name(), path); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	c.loose = 0
	return nil
}
