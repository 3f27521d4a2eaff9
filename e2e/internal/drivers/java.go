package drivers

import (
	"context"
	_ "embed"
	"slices"

	"tollgate.internal/e2e/internal/kafkajars"
)

//go:embed scripts/Driver.java
var driverJava []byte

// Java is the Java client of one version of Kafka.
func Java(version string) Driver {
	return script{name: "java-" + version, prepare: func(ctx context.Context) (Command, error) {
		jars, err := kafkajars.Get(ctx, version)
		if err != nil {
			return Command{}, err
		}
		driver, err := jars.Compile(ctx, "Driver", driverJava)
		if err != nil {
			return Command{}, err
		}
		java, err := kafkajars.Java()
		if err != nil {
			return Command{}, err
		}
		args := slices.Concat(jars.SmallJVM(), kafkajars.Quiet(), []string{"-cp", jars.Classpath(driver), "Driver"})
		return Command{Path: java, Args: args}, nil
	}}
}
