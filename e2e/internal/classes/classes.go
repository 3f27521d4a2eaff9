// Package classes archives the classes that Kafka's programs load, for their JVMs to
// start sooner: see [kafkajars.Jars.Sharing]. Nothing depends on it but time.
package classes

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/kafkajars"
	"tollgate.internal/e2e/internal/kafkatest"
)

// Archive makes the archive of one version, unless the cache has it: a broker and
// clients run once to see what they load.
func Archive(ctx context.Context, version string) error {
	jars, err := kafkajars.Get(ctx, version)
	if err != nil {
		return err
	}
	return jars.Archive(ctx, func(ctx context.Context, list func(name string) (flag string)) error {
		dir, err := os.MkdirTemp("", "tollgate-classes-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		kafka, err := kafkatest.StartCluster(ctx, dir, kafkatest.Options{
			Version: version, SASL: true, MTLS: true, Authorizer: true, AllowEveryoneIfNoACL: true, JVM: []string{list("broker")},
		})
		if err != nil {
			return err
		}
		defer kafka.Close()
		if err := clients(ctx, kafka, list); err != nil {
			return err
		}
		return kafka.Brokers()[0].Stop(ctx) // one that is killed does not finish its list
	})
}

func clients(ctx context.Context, kafka *kafkatest.Cluster, list func(name string) (flag string)) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	target := drivers.Target{
		Bootstrap: kafka.BootstrapOn(kafkatest.SASL), CAFile: kafka.CAFile,
		Mechanism: "SCRAM-SHA-512", User: "alice", Password: kafka.Password("alice"),
	}
	for _, run := range []struct{ tool, args string }{
		{"topics", "--create --topic classes"},
		{"verifiable-producer", "--topic classes --max-messages 5"},
		{"verifiable-consumer", "--topic classes --max-messages 5 --reset-policy earliest --group-id classes"},
		{"console-consumer", "--topic classes --max-messages 5 --from-beginning --timeout-ms 60000"},
		{"consumer-groups", "--describe --group classes"},
		{"configs", "--describe --entity-type topics --entity-name classes"},
	} {
		cmd, err := drivers.JavaTool(ctx, kafka.Options.Version, drivers.ToolRun{Tool: run.tool, Target: target, Args: strings.Fields(run.args)})
		if err != nil {
			return err
		}
		cmd.Args = append([]string{list(run.tool)}, cmd.Args...)
		result, err := cmd.Run(ctx)
		if err != nil {
			return err
		}
		if err := result.Err(); err != nil {
			return fmt.Errorf("%s %s: %w", run.tool, run.args, err)
		}
	}
	return nil
}
