package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/cmd/tollgate/internal/show"
	"tollgate.internal/pkg/resource"
)

func tokenCommand(std stdio) *cobra.Command {
	return parent(&cobra.Command{
		Use:   "token COMMAND",
		Short: "Create, list and revoke tokens for the API",
	}, std, createTokenCommand(std), listTokensCommand(std), revokeTokenCommand(std))
}

func createTokenCommand(std stdio) *cobra.Command {
	var e expiry
	var t client.NewToken
	var output string
	cmd := &cobra.Command{
		Use:   "create NAME --role ops|tenant|node",
		Short: "Make a token, and print it this once",
		Long: `create makes a token. The role says what it is for:

  ops     everything, of all tenants
  tenant  what is one tenant's, which it sees and nothing else; it changes their
          service accounts, secrets, ACLs and own budgets, and asks for topics
  node    what a proxy asks for

With --read-only it changes nothing.`,
		Example: `  tollgate token create ci --role ops --in 2160h
  tollgate token create acme-portal --role tenant --tenant acme --read-only
  tollgate token create node-1 --role node -o token > node.token`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&t.Role, "role", "", "`ops`, tenant or node")
	f.StringVar(&t.Tenant, "tenant", "", "`tenant` of the role tenant")
	f.BoolVar(&t.ReadOnly, "read-only", false, "it changes nothing")
	e.flags(cmd, "the token")
	outputFlag(cmd, &output, "", "json", "token")
	complete(cmd, "role", words("ops", "tenant", "node"))
	complete(cmd, "tenant", namesOf(resource.KindTenant))
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		t.Name = args[0]
		switch {
		case t.Role != "ops" && t.Role != "tenant" && t.Role != "node":
			return usagef("--role says what the token is for: ops, tenant or node")
		case (t.Role == "tenant") != (t.Tenant != ""):
			return usagef("--role tenant and --tenant NAME belong together")
		}
		var err error
		if t.Expires, err = e.time(); err != nil {
			return err
		}
		made, err := c.CreateToken(ctx, t)
		if err != nil {
			return err
		}
		switch output {
		case "json":
			return printJSON(std, made)
		case "token":
			fmt.Fprintln(std.out, made.Token)
			return nil
		}
		fmt.Fprintf(std.out, "id:    %s\ntoken: %s\n", made.ID, made.Token)
		if !made.Expires.IsZero() {
			fmt.Fprintf(std.out, "ends:  %s\n", show.Time(made.Expires))
		}
		fmt.Fprintln(std.err, "the token is shown this once: nobody keeps it")
		return nil
	})
}

func listTokensCommand(std stdio) *cobra.Command {
	var output string
	var all bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List tokens, never what they are",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&all, "all", false, "also those that ended or were revoked")
	outputFlag(cmd, &output, "table", "json", "name")
	return operation(cmd, std, func(ctx context.Context, c *client.Client, _ []string) error {
		tokens := []client.Token{}
		now := time.Now()
		var rows [][]string
		for t, err := range c.Tokens(ctx) {
			if err != nil {
				return err
			}
			state := "live"
			switch {
			case !t.Revoked.IsZero():
				state = "revoked"
			case !t.Expires.IsZero() && !now.Before(t.Expires):
				state = "ended"
			}
			if state != "live" && !all {
				continue
			}
			tokens = append(tokens, t)
			role := t.Role
			if t.Tenant != "" {
				role += ":" + t.Tenant
			}
			if t.ReadOnly {
				role += ",read-only"
			}
			rows = append(rows, []string{t.ID, t.Name, role, state, show.Time(t.Created), show.Time(t.Expires), show.Time(t.LastUsed)})
		}
		switch output {
		case "json":
			return printJSON(std, map[string]any{"items": tokens})
		case "name":
			for _, t := range tokens {
				fmt.Fprintln(std.out, t.ID)
			}
			return nil
		}
		return show.Table(std.out, []string{"ID", "NAME", "ROLE", "STATE", "CREATED", "EXPIRES", "LAST-USED"}, rows)
	})
}

func revokeTokenCommand(std stdio) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "revoke ID…",
		Short: "End tokens now",
		Args:  cobra.MinimumNArgs(1),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.ValidArgsFunction = completeTokens
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		if err := confirm(std, yes, "Revoke "+strings.Join(args, ", ")+"?"); err != nil {
			return err
		}
		for _, id := range args {
			if err := c.RevokeToken(ctx, id); err != nil {
				return fmt.Errorf("token %s: %w", id, err)
			}
			fmt.Fprintln(std.out, "revoked token", id)
		}
		return nil
	})
}
