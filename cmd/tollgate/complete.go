package main

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/pkg/resource"
)

// completionTime is how long a shell waits for words.
const completionTime = 2 * time.Second

// maxCompletions keeps a shell from being flooded.
const maxCompletions = 200

// ask runs look with a client of the connection that a command line names so far.
// Whatever goes wrong, there are no words then: a shell is no place for errors.
func ask(cmd *cobra.Command, look func(context.Context, *client.Client) []string) []string {
	value := func(name string) string {
		if f := cmd.Flags().Lookup(name); f != nil {
			return f.Value.String()
		}
		return ""
	}
	at := connection{context: value("context"), server: value("server"), ca: value("ca"), state: value("state"), timeout: completionTime}
	c, err := at.connect(stdio{strings.NewReader(""), io.Discard, io.Discard})
	if err != nil {
		return nil
	}
	defer c.Close()
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithTimeout(parent, completionTime)
	defer cancel()
	return look(ctx, c)
}

// names are those of a kind's objects that begin so.
func names(ctx context.Context, c *client.Client, s *selection, k resource.Kind, begun string, form func(resource.Key) string) (found []string) {
	for o, err := range s.list(ctx, c, k) {
		if err != nil || len(found) == maxCompletions {
			break
		}
		if name := form(resource.KeyOf(o.Object)); strings.HasPrefix(name, begun) {
			found = append(found, name)
		}
	}
	return found
}

// namesOf completes the value of a flag that names an object.
func namesOf(kind string) func(*cobra.Command, []string, string) []string {
	return func(cmd *cobra.Command, _ []string, begun string) []string {
		return ask(cmd, func(ctx context.Context, c *client.Client) []string {
			k, _ := resource.KindOf(kind)
			return names(ctx, c, new(selection), k, begun, func(key resource.Key) string { return key.Name })
		})
	}
}

// completeObjects completes KIND NAME… and KIND/NAME.
func (s *scope) completeObjects(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	within := &selection{scope: *s}
	if len(args) > 0 && !strings.Contains(args[0], "/") {
		k, err := kindNamed(args[0])
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return ask(cmd, func(ctx context.Context, c *client.Client) []string {
			return names(ctx, c, within, k, begun, func(key resource.Key) string { return s.short(k, key) })
		}), cobra.ShellCompDirectiveNoFileComp
	}
	kind, _, slash := strings.Cut(begun, "/")
	if !slash {
		words := plurals()
		for _, k := range resource.Kinds {
			words = append(words, singular(k.Name)+"/")
		}
		return words, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	k, err := kindNamed(kind)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return ask(cmd, func(ctx context.Context, c *client.Client) []string {
		return names(ctx, c, within, k, begun, func(key resource.Key) string { return kind + "/" + s.short(k, key) })
	}), cobra.ShellCompDirectiveNoFileComp
}

// short is a name as it is typed: with its scope in front, unless a flag says it.
func (s *scope) short(k resource.Kind, key resource.Key) string {
	if key.Scope == "" || s.of(k) != "" {
		return key.Name
	}
	return key.Scope + "/" + key.Name
}

// completeAccounts completes the account that is a command's first argument.
func (a *accountArgument) completeAccounts(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	k, _ := resource.KindOf(resource.KindServiceAccount)
	return ask(cmd, func(ctx context.Context, c *client.Client) []string {
		if len(args) == 0 {
			return names(ctx, c, &selection{scope: a.scope}, k, begun, func(key resource.Key) string { return a.short(k, key) })
		}
		key, err := a.key(args)
		if err != nil || len(args) > 1 || cmd.Name() != "expire" && cmd.Name() != "revoke" {
			return nil
		}
		o, err := c.Get(ctx, key)
		if err != nil {
			return nil
		}
		secrets, err := o.Secrets()
		if err != nil {
			return nil
		}
		var ids []string
		for _, s := range secrets {
			ids = append(ids, s.ID)
		}
		return ids
	}), cobra.ShellCompDirectiveNoFileComp
}

func completeNodes(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return ask(cmd, func(ctx context.Context, c *client.Client) (ids []string) {
		nodes, _, err := c.Nodes(ctx)
		if err != nil {
			return nil
		}
		for _, n := range nodes {
			ids = append(ids, n.ID)
		}
		return ids
	}), cobra.ShellCompDirectiveNoFileComp
}

func completeTokens(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return ask(cmd, func(ctx context.Context, c *client.Client) (ids []string) {
		for t, err := range c.Tokens(ctx) {
			if err != nil {
				return ids
			}
			if t.Revoked.IsZero() {
				ids = append(ids, t.ID+"\t"+t.Name)
			}
		}
		return ids
	}), cobra.ShellCompDirectiveNoFileComp
}
