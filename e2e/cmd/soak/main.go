// Command soak lets clients live through faults of the brokers and of the gateway,
// and checks what they were promised; `make soak` runs it. See docs/soak.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/build"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/soak"
	"tollgate.internal/e2e/internal/tb"
)

func main() {
	began := time.Now()
	o := soak.Options{
		Java: kafkatest.Versions(),
		Say: func(format string, args ...any) {
			fmt.Printf("%5.0fs %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
		},
	}
	flag.IntVar(&o.Rounds, "rounds", 30, "how many `rounds` of faults")
	flag.Uint64Var(&o.Seed, "seed", uint64(began.Unix()), "`number` that the faults follow from")
	one := flag.Bool("one", false, "one cluster instead of two that the virtual cluster spans")
	fleet := flag.Bool("fleet", false, "a fleet with a control plane in place of nodes that read files")
	flag.Parse()
	o.Clusters = soak.Clusters(!*one)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, *fleet); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o soak.Options, fleet bool) (err error) {
	if o.Dir, err = os.MkdirTemp("", "tollgate-soak-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.Dir), build.Remove()) }()
	o.Say("seed %d", o.Seed)
	if !fleet {
		return soak.Run(ctx, o)
	}
	return tb.Run(ctx, o.Dir, o.Say, func(t testing.TB) error {
		o.Fleet = soak.StartFleet(t)
		return soak.Run(ctx, o)
	})
}
