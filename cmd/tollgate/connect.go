package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/cmd/tollgate/internal/config"
	"tollgate.internal/pkg/secret"
)

// connection is which control plane to talk to. What is not said by flags comes
// from the environment, then from the current context, then from the tollgate dev
// that runs in this directory.
type connection struct {
	context, server, ca string
	state               string
	timeout             time.Duration
}

func (c *connection) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.context, "context", "", "`name` of the context to use in place of the current one")
	f.StringVar(&c.server, "server", "", "`URL` of the control plane; the token is TOLLGATE_TOKEN")
	f.StringVar(&c.ca, "ca", "", "PEM `file` of the CAs to trust for --server")
	f.StringVar(&c.state, "state", "", "state `directory` of a running tollgate dev, which knows its own address and token")
	f.DurationVar(&c.timeout, "request-timeout", time.Minute, "`time` for one request")
	complete(cmd, "context", func(*cobra.Command, []string, string) []string {
		configured, err := config.Load()
		if err != nil {
			return nil
		}
		return configured.Names()
	})
}

// where resolves what flags, environment and files say.
func (c *connection) where(std stdio) (client.Options, error) {
	o := client.Options{Timeout: c.timeout}
	token := secret.New(os.Getenv("TOLLGATE_TOKEN"))
	fromDev := func(state string) (client.Options, error) {
		d, err := readDev(state)
		if err != nil {
			return o, err
		}
		o.Server, o.Token = d.API, secret.New(d.Token)
		return o, nil
	}
	server := c.server
	if server == "" && c.context == "" && c.state == "" {
		server = os.Getenv("TOLLGATE_SERVER")
	}
	named := 0
	for _, s := range []string{c.server, c.context, c.state} {
		if s != "" {
			named++
		}
	}
	switch {
	case named > 1:
		return o, usagef("--server, --context and --state each say which control plane is meant: choose one")
	case server != "":
		if token.Reveal() == "" {
			return o, usagef("there is no token for %s: set TOLLGATE_TOKEN, or log in once by tollgate login %s", server, server)
		}
		o.Server, o.Token, o.CAFile = server, token, c.ca
		if o.CAFile == "" {
			o.CAFile = os.Getenv("TOLLGATE_CA_FILE")
		}
		return o, nil
	case c.state != "":
		return fromDev(c.state)
	}
	configured, err := config.Load()
	if err != nil {
		return o, err
	}
	if warning := configured.Warning(); warning != "" {
		fmt.Fprintln(std.err, "warning:", warning)
	}
	name := c.context
	if name == "" {
		name = os.Getenv("TOLLGATE_CONTEXT")
	}
	if name == "" && configured.Current == "" {
		if o, err := fromDev(defaultState); err == nil {
			return o, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return o, err
		}
		if names := configured.Names(); len(names) > 0 {
			return o, usagef("no context is current: choose by tollgate context use, or --context: %s", strings.Join(names, ", "))
		}
		return o, usagef("no control plane is known: log in by tollgate login URL, set TOLLGATE_SERVER and TOLLGATE_TOKEN, or start tollgate dev here")
	}
	x, err := configured.Find(name)
	if err != nil {
		return o, usagef("%v", err)
	}
	o.Server, o.Token, o.CAFile = x.Server, x.Token, x.CAFile
	if token.Reveal() != "" {
		o.Token = token
	}
	return o, nil
}

// connect makes the client. It does not ask the server anything yet.
func (c *connection) connect(std stdio) (*client.Client, error) {
	o, err := c.where(std)
	if err != nil {
		return nil, err
	}
	return client.New(o)
}

// devAPI is what dev.json says of the control plane.
type devAPI struct {
	API   string `json:"api"`
	Token string `json:"apiToken"`
}

func readDev(state string) (devAPI, error) {
	var d devAPI
	data, err := os.ReadFile(filepath.Join(state, "dev.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return d, fmt.Errorf("nothing serves on %s: start tollgate dev, or name its directory with --state: %w", state, fs.ErrNotExist)
	}
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return d, fmt.Errorf("read dev.json: %w", err)
	}
	if d.API == "" {
		return d, fmt.Errorf("the tollgate dev on %s has no control plane", state)
	}
	return d, nil
}

// terminal reports whether somebody looks at, or types into, what a command uses.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colourful reports whether colours reach somebody who wants them.
func colourful(w io.Writer) bool {
	return terminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// confirm asks before something that cannot be taken back. Without a terminal
// there is nobody to ask: yes has to be said on the command line.
func confirm(std stdio, yes bool, question string) error {
	if yes {
		return nil
	}
	if !terminal(std.in) {
		return usagef("%s: there is no terminal to ask on: add --yes", strings.TrimSuffix(question, "?"))
	}
	fmt.Fprintf(std.err, "%s [y/N] ", question)
	answer, err := readLine(std.in)
	if err != nil {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was changed")
	}
	return nil
}

// readLine reads one line and nothing behind it.
func readLine(in io.Reader) (string, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		n, err := in.Read(b)
		if n > 0 && b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[:n]...)
		if errors.Is(err, io.EOF) {
			return string(line), nil
		}
		if err != nil {
			return "", err
		}
	}
}
