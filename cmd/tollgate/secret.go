package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/cmd/tollgate/internal/show"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
)

func secretCommand(std stdio) *cobra.Command {
	return parent(&cobra.Command{
		Use:   "secret COMMAND",
		Short: "Issue, import, list, expire and revoke secrets of service accounts",
		Long: `A service account of type local logs in with a secret. At most two are live at a
time, so that a new one can be given out before the old one ends:

  tollgate secret issue acme-prod/shipping
  tollgate secret list acme-prod/shipping
  tollgate secret expire acme-prod/shipping ID --in 24h`,
	}, std, issueCommand(std), importCommand(std), listSecretsCommand(std), expireCommand(std), revokeSecretCommand(std))
}

// accountArgument is for commands whose first argument is an account: VC/NAME, or
// NAME with --vc.
type accountArgument struct{ scope }

func (a *accountArgument) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.vc, "vc", "", "`virtual cluster` of the account")
	complete(cmd, "vc", namesOf(resource.KindVirtualCluster))
	cmd.ValidArgsFunction = a.completeAccounts
}

func (a *accountArgument) key(args []string) (resource.Key, error) {
	k, _ := resource.KindOf(resource.KindServiceAccount)
	return a.scope.key(k, args[0])
}

// expiry is when something ends: at a time, or after one.
type expiry struct {
	at string
	in time.Duration
}

func (e *expiry) flags(cmd *cobra.Command, what string) {
	cmd.Flags().StringVar(&e.at, "at", "", "`time` at which "+what+" ends, such as 2027-06-30T00:00:00Z")
	cmd.Flags().DurationVar(&e.in, "in", 0, "`time` after which "+what+" ends, such as 24h")
}

func (e *expiry) time() (*time.Time, error) {
	switch {
	case e.at != "" && e.in != 0:
		return nil, usagef("--at and --in both say when: choose one")
	case e.at != "":
		t, err := time.Parse(time.RFC3339, e.at)
		if err != nil {
			return nil, usagef("--at %s: write a time with its zone, such as 2027-06-30T00:00:00Z", e.at)
		}
		return &t, nil
	case e.in < 0:
		return nil, usagef("--in %s is in the past", e.in)
	case e.in != 0:
		t := time.Now().Add(e.in).UTC().Truncate(time.Second)
		return &t, nil
	}
	return nil, nil
}

func issueCommand(std stdio) *cobra.Command {
	var a accountArgument
	var e expiry
	var wait waiting
	var output string
	cmd := &cobra.Command{
		Use:   "issue VC/ACCOUNT",
		Short: "Make a secret, and print it this once",
		Example: `  tollgate secret issue acme-prod/shipping
  tollgate secret issue acme-prod/shipping --in 720h -o json`,
		Args: cobra.ExactArgs(1),
	}
	a.flags(cmd)
	e.flags(cmd, "the secret")
	wait.flags(cmd)
	outputFlag(cmd, &output, "", "json", "password")
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		key, err := a.key(args)
		if err != nil {
			return err
		}
		expires, err := e.time()
		if err != nil {
			return err
		}
		s, late := c.AddSecret(ctx, key, client.NewSecret{Expires: expires}, wait.time())
		if late != nil && !client.IsLate(late) {
			return late
		}
		switch output {
		case "json":
			if err := printJSON(std, s); err != nil {
				return err
			}
		case "password":
			fmt.Fprintln(std.out, s.Password)
		default:
			fmt.Fprintf(std.out, "id:       %s\nusername: %s\npassword: %s\n", s.ID, s.Username, s.Password)
			if !s.Expires.IsZero() {
				fmt.Fprintf(std.out, "expires:  %s\n", show.Time(s.Expires))
			}
			fmt.Fprintln(std.err, "the password is shown this once: nobody keeps it")
		}
		return late
	})
}

func importCommand(std stdio) *cobra.Command {
	var a accountArgument
	var e expiry
	var wait waiting
	var from string
	cmd := &cobra.Command{
		Use:   "import VC/ACCOUNT",
		Short: "Bring a password along that an account has elsewhere",
		Long: `import makes a password that exists a secret of the account. It is read from --from,
or asked for on a terminal. Importing one that is live already changes nothing.`,
		Example: `  tollgate secret import acme-prod/shipping --from file:shipping.secret
  tollgate secret import acme-prod/shipping --from env:SHIPPING_PASSWORD
  pass show shipping | tollgate secret import acme-prod/shipping --from -`,
		Args: cobra.ExactArgs(1),
	}
	a.flags(cmd)
	e.flags(cmd, "the secret")
	wait.flags(cmd)
	cmd.Flags().StringVar(&from, "from", "", "where the password is: file:`PATH`, env:NAME, or - for the standard input")
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		key, err := a.key(args)
		if err != nil {
			return err
		}
		expires, err := e.time()
		if err != nil {
			return err
		}
		password, err := readSecret(std, from, "Password of "+key.Name)
		if err != nil {
			return err
		}
		s, late := c.AddSecret(ctx, key, client.NewSecret{Password: password.Reveal(), Expires: expires}, wait.time())
		if late != nil && !client.IsLate(late) {
			return late
		}
		if s.Change == client.Created {
			fmt.Fprintln(std.out, "imported as secret", s.ID)
		} else {
			fmt.Fprintln(std.out, "nothing changed: it is secret", s.ID)
		}
		return late
	})
}

// readSecret reads a secret from where it is, or asks for it.
func readSecret(std stdio, from, prompt string) (secret.Secret, error) {
	switch {
	case from == "-":
		data, err := io.ReadAll(io.LimitReader(std.in, 1<<20))
		if err != nil {
			return secret.Secret{}, fmt.Errorf("read the standard input: %w", err)
		}
		value := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
		if value == "" {
			return secret.Secret{}, errors.New("the standard input is empty")
		}
		return secret.New(value), nil
	case from != "":
		return secret.Resolve(from, "")
	case !terminal(std.in):
		return secret.Secret{}, usagef("there is no terminal to ask on: say --from file:PATH, env:NAME or - for the standard input")
	}
	return askSecret(std, prompt)
}

func listSecretsCommand(std stdio) *cobra.Command {
	var a accountArgument
	var output string
	cmd := &cobra.Command{
		Use:     "list VC/ACCOUNT",
		Short:   "List the secrets of an account, never what they are",
		Example: `  tollgate secret list acme-prod/shipping`,
		Args:    cobra.ExactArgs(1),
	}
	a.flags(cmd)
	outputFlag(cmd, &output, "table", "json", "name")
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		key, err := a.key(args)
		if err != nil {
			return err
		}
		o, err := c.Get(ctx, key)
		if err != nil {
			return err
		}
		secrets, err := o.Secrets()
		if err != nil {
			return err
		}
		switch output {
		case "json":
			return printJSON(std, map[string]any{"items": append([]client.Secret{}, secrets...)})
		case "name":
			for _, s := range secrets {
				fmt.Fprintln(std.out, s.ID)
			}
			return nil
		}
		if len(secrets) == 0 {
			fmt.Fprintln(std.err, "no secrets")
			return nil
		}
		return secretTable(std.out, secrets, time.Now())
	})
}

func secretTable(w io.Writer, secrets []client.Secret, now time.Time) error {
	var rows [][]string
	for _, s := range secrets {
		state, origin := "live", "issued"
		if !s.Expires.IsZero() && !now.Before(s.Expires) {
			state = "ended"
		}
		if s.Imported {
			origin = "imported"
		}
		rows = append(rows, []string{s.ID, state, origin, show.Time(s.Created), show.Time(s.Expires)})
	}
	return show.Table(w, []string{"ID", "STATE", "ORIGIN", "CREATED", "EXPIRES"}, rows)
}

func expireCommand(std stdio) *cobra.Command {
	var a accountArgument
	var e expiry
	var wait waiting
	cmd := &cobra.Command{
		Use:     "expire VC/ACCOUNT ID --in TIME | --at TIME",
		Short:   "Let a secret end later, and with it the sessions that live by it",
		Example: `  tollgate secret expire acme-prod/shipping 7f3a --in 24h`,
		Args:    cobra.ExactArgs(2),
	}
	a.flags(cmd)
	e.flags(cmd, "the secret")
	wait.flags(cmd)
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		key, err := a.key(args)
		if err != nil {
			return err
		}
		at, err := e.time()
		if err != nil {
			return err
		}
		if at == nil {
			return usagef("say when: --in 24h, or --at 2027-06-30T00:00:00Z; revoke ends it now")
		}
		err = c.ExpireSecret(ctx, key, args[1], *at, wait.time())
		if err == nil || client.IsLate(err) {
			fmt.Fprintln(std.out, "secret", args[1], "ends at", show.Time(*at))
		}
		return err
	})
}

func revokeSecretCommand(std stdio) *cobra.Command {
	var a accountArgument
	var wait waiting
	var yes bool
	cmd := &cobra.Command{
		Use:     "revoke VC/ACCOUNT ID",
		Short:   "End a secret now, and the sessions that live by it",
		Example: `  tollgate secret revoke acme-prod/shipping 7f3a --wait`,
		Args:    cobra.ExactArgs(2),
	}
	a.flags(cmd)
	wait.flags(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		key, err := a.key(args)
		if err != nil {
			return err
		}
		if err := confirm(std, yes, fmt.Sprintf("End secret %s of %s, and its sessions?", args[1], key)); err != nil {
			return err
		}
		err = c.RevokeSecret(ctx, key, args[1], wait.time())
		if err == nil || client.IsLate(err) {
			fmt.Fprintln(std.out, "revoked secret", args[1])
		}
		return err
	})
}

// printJSON prints a value of ours.
func printJSON(std stdio, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return show.JSON(std.out, data)
}
