// Command tollgate is the operator's tool: it tells the control plane what there is
// to be, runs the whole product on one machine, and talks Kafka to it without a
// Kafka installation.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"tollgate.internal/cmd/tollgate/internal/manifest"
	"tollgate.internal/pkg/resource"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr})
	code := exitCode(err)
	if err != nil && !errors.Is(err, errUsage) && !errors.Is(err, errDifferent) {
		complain(os.Stderr, err)
	}
	stop()
	os.Exit(code)
}

// complain prints an error: problems in files as compilers do, so that editors
// find the places.
func complain(w io.Writer, err error) {
	if _, ok := errors.AsType[resource.Problems](err); ok {
		fmt.Fprintln(w, err)
		return
	}
	if _, ok := errors.AsType[*manifest.Located](err); ok {
		fmt.Fprintln(w, err)
		return
	}
	fmt.Fprintln(w, "tollgate:", err)
}

// stdio is what a command reads and prints.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// errUsage ends a command whose mistake has been explained on stderr.
var errUsage = errors.New("usage")

func run(ctx context.Context, args []string, std stdio) error { return execute(ctx, args, std) }
