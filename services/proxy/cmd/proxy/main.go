// Command proxy is one node of the gateway: it serves what its configuration says
// until SIGTERM, and then drains. A second SIGTERM ends it at once.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"tollgate.internal/services/proxy"
	"tollgate.internal/services/proxy/internal/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the next signal does what signals do
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	if err != nil {
		os.Exit(1)
	}
}

// run says on stderr what went wrong, and returns it.
func run(ctx context.Context, args []string, stderr io.Writer) error {
	cfg, err := config.FromArgs(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err == nil {
		err = proxy.Run(ctx, cfg)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
	}
	return err
}
