package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/cmd/tollgate/internal/config"
	"tollgate.internal/cmd/tollgate/internal/show"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
)

func loginCommand(std stdio) *cobra.Command {
	var name, ca, from string
	cmd := &cobra.Command{
		Use:   "login URL",
		Short: "Remember a control plane and a token for it as a context",
		Long: `login asks a control plane whether a token is good, and then keeps both as a context
in the configuration file, which only its owner can read; from then on the context
is the current one. The file is TOLLGATE_CONFIG or ` + "`~/.config/tollgate/config.yaml`" + `.

The token is read from --token-from or TOLLGATE_TOKEN, or asked for on a terminal. Without a file, for
scripts, TOLLGATE_SERVER, TOLLGATE_TOKEN and TOLLGATE_CA_FILE say the same.`,
		Example: `  tollgate login https://tollgate.example --name prod
  tollgate login https://tollgate.example --name prod --token-from file:token --ca ca.pem`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			configured, err := config.Load()
			if err != nil {
				return err
			}
			x := config.Context{Name: name, Server: strings.TrimSuffix(args[0], "/")}
			if x.CAFile, err = absolute(ca); err != nil {
				return err
			}
			server, err := url.Parse(x.Server)
			if err != nil {
				return usagef("%v", err)
			}
			if x.Name == "" {
				x.Name = server.Hostname()
			}
			if _, err := client.New(client.Options{Server: x.Server, CAFile: x.CAFile}); err != nil {
				return err
			}
			if host := server.Hostname(); server.Scheme == "http" && host != "localhost" && !strings.HasPrefix(host, "127.") && host != "::1" {
				fmt.Fprintf(std.err, "warning: the token goes to %s without TLS: everybody on the way can read it\n", host)
			}
			if from == "" && os.Getenv("TOLLGATE_TOKEN") != "" {
				from = "env:TOLLGATE_TOKEN"
			}
			if x.Token, err = readSecret(std, from, "Token"); err != nil {
				return err
			}
			c, err := client.New(client.Options{Server: x.Server, CAFile: x.CAFile, Token: x.Token, Timeout: time.Minute})
			if err != nil {
				return err
			}
			defer c.Close()
			if err := probe(cmd.Context(), c); err != nil {
				return err
			}
			configured.Set(x)
			configured.Current = x.Name
			if err := configured.Save(); err != nil {
				return err
			}
			fmt.Fprintf(std.out, "logged in to %s; the context %s is the current one\n", x.Server, x.Name)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "`name` of the context; default: the host")
	f.StringVar(&ca, "ca", "", "PEM `file` of the CAs to trust")
	f.StringVar(&from, "token-from", "", "where the token is: file:`PATH`, env:NAME, or - for the standard input")
	return cmd
}

// probe asks for something that needs a good token and costs nothing.
func probe(ctx context.Context, c *client.Client) error {
	k, _ := resource.KindOf(resource.KindTenant)
	for _, err := range c.List(ctx, client.ListOptions{Kind: k}) {
		return err
	}
	return nil
}

// askSecret asks on a terminal, without showing what is typed.
func askSecret(std stdio, prompt string) (secret.Secret, error) {
	f, ok := std.in.(*os.File)
	if !ok {
		return secret.Secret{}, errors.New("there is no terminal to ask on")
	}
	fmt.Fprint(std.err, prompt, ": ")
	value, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(std.err)
	if err != nil {
		return secret.Secret{}, fmt.Errorf("read from the terminal: %w", err)
	}
	if len(value) == 0 {
		return secret.Secret{}, errors.New("nothing was typed")
	}
	return secret.New(string(value)), nil
}

func contextCommand(std stdio) *cobra.Command {
	list := &cobra.Command{
		Use:   "list",
		Short: "List contexts",
		Args:  cobra.NoArgs,
	}
	var output string
	outputFlag(list, &output, "table", "name")
	list.RunE = func(*cobra.Command, []string) error {
		configured, err := config.Load()
		if err != nil {
			return err
		}
		if warning := configured.Warning(); warning != "" {
			fmt.Fprintln(std.err, "warning:", warning)
		}
		var rows [][]string
		for _, name := range configured.Names() {
			x, err := configured.Find(name)
			if err != nil {
				return err
			}
			current := ""
			if name == configured.Current {
				current = "*"
			}
			if output == "name" {
				fmt.Fprintln(std.out, name)
			}
			rows = append(rows, []string{name, x.Server, current})
		}
		switch {
		case output == "name":
			return nil
		case len(rows) == 0:
			fmt.Fprintln(std.err, "no contexts: tollgate login makes one")
			return nil
		}
		return show.Table(std.out, []string{"NAME", "SERVER", "CURRENT"}, rows)
	}
	change := func(use, short, done string, change func(*config.Config, string) error) *cobra.Command {
		cmd := &cobra.Command{Use: use + " NAME", Short: short, Args: cobra.ExactArgs(1)}
		cmd.RunE = func(_ *cobra.Command, args []string) error {
			configured, err := config.Load()
			if err != nil {
				return err
			}
			if err := change(configured, args[0]); err != nil {
				return usagef("%v", err)
			}
			if err := configured.Save(); err != nil {
				return err
			}
			fmt.Fprintf(std.out, done+"\n", args[0])
			return nil
		}
		cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			configured, err := config.Load()
			if err != nil || len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return configured.Names(), cobra.ShellCompDirectiveNoFileComp
		}
		return cmd
	}
	return parent(&cobra.Command{
		Use:   "context COMMAND",
		Short: "List, choose and forget the control planes that login made known",
	}, std, list,
		change("use", "Make a context the current one", "the context %s is the current one", func(c *config.Config, name string) error {
			_, err := c.Find(name)
			c.Current = name
			return err
		}),
		change("delete", "Forget a context and its token", "deleted the context %s; its token is as good as before: tollgate token revoke ends it", (*config.Config).Delete),
	)
}
