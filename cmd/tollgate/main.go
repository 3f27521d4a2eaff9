// Command tollgate is the operator's tool: it runs the whole product on one
// machine, and talks Kafka to it without a Kafka installation.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: tollgate COMMAND [flags] [arguments]

  dev                      run everything on this machine, until interrupted
  dev exec -- CMD [ARG]…   run CMD so that it finds the gateway's host names
  topics COMMAND           list, create, describe and delete topics
  produce TOPIC            send each line of the input as a record
  consume TOPIC…           print records

topics, produce and consume take --bootstrap, --user, --password, --ca and
--mechanism, and ask the running tollgate dev for what is not said; --vc NAME
picks one of its virtual clusters. COMMAND --help explains the flags.

  tollgate dev
  echo hello | tollgate produce greetings
  tollgate consume greetings --from-beginning --max 1
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr})
	switch {
	case err == nil:
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "tollgate:", err)
		os.Exit(1)
	}
}

// stdio is what a command reads and prints.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// errUsage ends a command whose mistake has been explained on stderr.
var errUsage = errors.New("usage")

func run(ctx context.Context, args []string, std stdio) error {
	if len(args) == 0 {
		fmt.Fprint(std.err, usage)
		return errUsage
	}
	command, args := args[0], args[1:]
	switch command {
	case "dev":
		if len(args) > 0 && args[0] == "exec" {
			return devExec(args[1:], std)
		}
		return runDev(ctx, args, std)
	case "topics":
		return topics(ctx, args, std)
	case "produce":
		return produce(ctx, args, std)
	case "consume":
		return consume(ctx, args, std)
	case "help", "-h", "--help":
		fmt.Fprint(std.out, usage)
		return nil
	}
	fmt.Fprintf(std.err, "tollgate: no command %q\n\n%s", command, usage)
	return errUsage
}
