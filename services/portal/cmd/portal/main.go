// Command portal is the control plane: it serves what its environment says until
// SIGTERM. Every variable is in docs/api.md.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"tollgate.internal/services/portal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Getenv, os.Stderr)
	stop()
	if err != nil {
		os.Exit(1)
	}
}

// run says on stderr what went wrong, and returns it.
func run(ctx context.Context, getenv func(string) string, stderr io.Writer) error {
	cfg, err := portal.FromEnv(getenv)
	if err == nil {
		err = portal.Run(ctx, cfg)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
	}
	return err
}
