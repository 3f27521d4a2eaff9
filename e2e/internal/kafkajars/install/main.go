// Command install has the jars of every Kafka version that the tests use, so that
// no test waits for a download. It prints nothing when they are there.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"tollgate.internal/e2e/internal/kafkajars"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for _, v := range kafkajars.Versions() {
		if _, err := kafkajars.Get(ctx, v); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
