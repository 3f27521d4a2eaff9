// Command install has everything the tests of this module run against that comes
// from a package registry rather than from the system: Kafka in every version
// under test, the Python and Node clients, moto and Keycloak. It prints nothing when all of it is
// in the cache.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"tollgate.internal/e2e/internal/aws"
	"tollgate.internal/e2e/internal/classes"
	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/kafkajars"
	"tollgate.internal/e2e/internal/keycloak"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	failed := false
	for _, version := range kafkajars.Versions() {
		if _, err := kafkajars.Get(ctx, version); err != nil {
			fmt.Fprintln(os.Stderr, err)
			failed = true
			continue
		}
		if err := classes.Archive(ctx, version); err != nil {
			fmt.Fprintln(os.Stderr, err, "(its JVMs start slower)")
		}
	}
	for _, install := range []func(context.Context) (string, error){drivers.PythonClients, drivers.NodeClients, aws.Install, keycloak.Install} {
		if _, err := install(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}
