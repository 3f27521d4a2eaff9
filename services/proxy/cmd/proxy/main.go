// Command proxy is one node of the gateway: it serves what its configuration file
// says until SIGTERM, and then drains.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"tollgate.internal/services/proxy"
	"tollgate.internal/services/proxy/internal/config"
)

func main() {
	file := flag.String("config", "", "configuration `FILE`, in YAML")
	flag.Parse()
	if *file == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := config.Load(*file, os.Stderr)
	if err == nil {
		err = proxy.Run(ctx, cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}
