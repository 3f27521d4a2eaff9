package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/version"
)

// The exit codes of commands about the control plane, for scripts. docs/cli.md says
// the same.
const (
	exitOK          = 0
	exitError       = 1 // anything that has no code of its own
	exitUsage       = 2 // the command line cannot be carried out; nothing was sent
	exitDifferent   = 3 // diff: there are differences
	exitNotFound    = 4 // there is no such thing, or not for this token
	exitConflict    = 5 // somebody else changed it, or others need it
	exitInvalid     = 6 // what was sent, or was to be sent, has mistakes
	exitUnreachable = 7 // no answer, or only a part of one; or the server cannot go on
	exitForbidden   = 8 // the token is missing, wrong, or not for this
	exitNotApplied  = 9 // changed, but not every node has applied it in time
)

// errDifferent ends diff when there are differences, which it has printed.
var errDifferent = errors.New("there are differences")

// exitCode is what an error means to a script.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if _, ok := errors.AsType[*usageProblem](err); ok || errors.Is(err, errUsage) {
		return exitUsage
	}
	if errors.Is(err, errDifferent) {
		return exitDifferent
	}
	if _, ok := errors.AsType[resource.Problems](err); ok {
		return exitInvalid
	}
	if _, ok := errors.AsType[*client.Unreachable](err); ok {
		return exitUnreachable
	}
	if client.IsLate(err) {
		return exitNotApplied
	}
	no, ok := errors.AsType[*client.Refusal](err)
	if !ok {
		return exitError
	}
	switch no.Status {
	case http.StatusNotFound, http.StatusGone:
		return exitNotFound
	case http.StatusConflict, http.StatusPreconditionFailed, http.StatusPreconditionRequired:
		return exitConflict
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return exitInvalid
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitForbidden
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusInsufficientStorage, http.StatusTooManyRequests, http.StatusRequestTimeout:
		return exitUnreachable
	}
	return exitError
}

const exitHelp = `Exit codes: 0 done; 1 an error without a code of its own; 2 a command line that
cannot be carried out; 3 diff found differences; 4 not found; 5 a conflict with
what others did or need; 6 mistakes in what was sent; 7 no answer, or the server
cannot go on: try again; 8 the token is not good, or not for this; 9 changed, but
not applied by every node in time.`

const (
	groupControl = "control"
	groupKafka   = "kafka"
	groupDev     = "dev"
)

// root is the whole command line.
func root(std stdio) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tollgate",
		Short: "Lend a Kafka cluster to tenants",
		Long: `tollgate tells the control plane which tenants, virtual clusters, topics, accounts
and ACLs there are, runs the whole product on this machine, and talks Kafka to it.

` + exitHelp,
		Example: `  tollgate dev
  tollgate apply -f examples/
  tollgate get virtual-clusters
  echo hello | tollgate produce --vc acme-dev greetings
  tollgate consume --vc acme-dev greetings --from-beginning --max 1`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				text := fmt.Sprintf("no command %q", args[0])
				if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
					text += ": is it " + strings.Join(near, " or ") + "?"
				}
				return usagef("%s", text)
			}
			fmt.Fprint(std.err, cmd.UsageString())
			return errUsage
		},
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.AddGroup(
		&cobra.Group{ID: groupControl, Title: "The control plane:"},
		&cobra.Group{ID: groupKafka, Title: "Kafka:"},
		&cobra.Group{ID: groupDev, Title: "This machine:"},
	)
	group := func(id string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = id
			cmd.AddCommand(c)
		}
	}
	group(groupControl,
		applyCommand(std), diffCommand(std), getCommand(std), describeCommand(std), editCommand(std), deleteCommand(std), exportCommand(std),
		grantCommand(std), secretCommand(std), tokenCommand(std), nodeCommand(std), sessionCommand(std), auditCommand(std), loginCommand(std), contextCommand(std),
	)
	group(groupKafka,
		older(&cobra.Command{Use: "produce TOPIC", Short: "Send each line of the input as a record"}, std, produce),
		older(&cobra.Command{Use: "consume TOPIC…", Short: "Print records"}, std, consume),
		topicsCommand(std),
	)
	group(groupDev, devCommand(std), versionCommand(std))
	cmd.SetHelpCommandGroupID(groupDev)
	cmd.SetCompletionCommandGroupID(groupDev)
	cmd.SetIn(std.in)
	cmd.SetOut(std.out)
	cmd.SetErr(std.err)
	return cmd
}

// older makes a command of a function that reads its flags itself.
func older(cmd *cobra.Command, std stdio, run func(context.Context, []string, stdio) error) *cobra.Command {
	cmd.DisableFlagParsing = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return run(cmd.Context(), args, std) }
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { // it alone knows its flags
		_ = run(cmd.Context(), []string{"--help"}, stdio{std.in, std.out, std.out})
	})
	return cmd
}

func topicsCommand(std stdio) *cobra.Command {
	cmd := older(&cobra.Command{Use: "topics COMMAND", Short: "List, create, describe and delete topics"}, std, topics)
	for _, c := range []struct{ name, short string }{
		{"list", "Names, partitions and replication factors"},
		{"create", "Make topics"},
		{"describe", "Partitions with leaders, replicas and offsets"},
		{"delete", "Delete topics and their records"},
	} {
		cmd.AddCommand(older(&cobra.Command{Use: c.name, Short: c.short}, std, func(ctx context.Context, args []string, std stdio) error {
			return topics(ctx, append([]string{c.name}, args...), std)
		}))
	}
	return cmd
}

func versionCommand(std stdio) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Tell which version this is", Args: cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(std.out, "tollgate", version.String())
			return err
		},
	}
}

func devCommand(std stdio) *cobra.Command {
	cmd := older(&cobra.Command{Use: "dev", Short: "Run everything on this machine, until interrupted"}, std, runDev)
	cmd.AddCommand(older(&cobra.Command{Use: "exec -- CMD [ARG]…", Short: "Run CMD so that it finds the gateway's host names"}, std,
		func(_ context.Context, args []string, std stdio) error { return devExec(args, std) }))
	node := older(&cobra.Command{Use: "node FILE", Short: "Be a node of tollgate dev --nodes"}, std, devNode)
	node.Hidden = true
	cmd.AddCommand(node)
	return cmd
}

// operation makes a command about the control plane: with a connection, and with
// the arguments it takes explained when they are not those.
func operation(cmd *cobra.Command, std stdio, run func(ctx context.Context, c *client.Client, args []string) error) *cobra.Command {
	var at connection
	at.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := at.connect(std)
		if err != nil {
			c = client.Unknown(err) // what is wrong with the arguments comes first
		}
		defer c.Close()
		return run(cmd.Context(), c, args)
	}
	return cmd
}

// parent makes a command that has others below it and does nothing itself.
func parent(cmd *cobra.Command, std stdio, children ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(children...)
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("%s has no command %q", cmd.CommandPath(), args[0])
		}
		fmt.Fprint(std.err, cmd.UsageString())
		return errUsage
	}
	return cmd
}

// execute runs one command line. What it returns as errUsage has been explained.
func execute(ctx context.Context, args []string, std stdio) error {
	cmd := root(std)
	cmd.SetArgs(args)
	started := false
	cmd.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	ran, err := cmd.ExecuteContextC(ctx)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if _, usage := errors.AsType[*usageProblem](err); usage || err != nil && !started && !errors.Is(err, errUsage) {
		fmt.Fprintf(std.err, "%s: %v\n", ran.CommandPath(), err)
		fmt.Fprintf(std.err, "%s --help tells more\n", ran.CommandPath())
		return errUsage
	}
	return err
}

// complete offers words for the value of a flag.
func complete(cmd *cobra.Command, flag string, words func(cmd *cobra.Command, args []string, begun string) []string) {
	err := cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return words(cmd, args, begun), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // there is no such flag
	}
}

// isFile reports whether a path names something that is there.
func isFile(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// words offers a closed set.
func words(list ...string) func(*cobra.Command, []string, string) []string {
	return func(*cobra.Command, []string, string) []string { return slices.Clone(list) }
}
