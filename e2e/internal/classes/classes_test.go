package classes

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/kafkajars"
)

// What a tool loads comes out of the archive, and not out of its jars.
func TestClassesComeFromTheArchive(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	java, err := kafkajars.Java()
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range kafkajars.Versions() {
		if err := Archive(ctx, version); err != nil {
			t.Fatal(err)
		}
		jars, err := kafkajars.Get(ctx, version)
		if err != nil {
			t.Fatal(err)
		}
		// The class path of a program of the tests' own is longer.
		line := slices.Concat(jars.SmallJVM(), []string{"-Xlog:class+load", "-cp", jars.Classpath("more.jar"), "org.apache.kafka.tools.TopicCommand", "--version"})
		out, err := exec.CommandContext(ctx, java, line...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		from := make(map[string]int)
		for l := range strings.Lines(string(out)) {
			if _, source, ok := strings.Cut(strings.TrimSpace(l), " source: "); ok && strings.Contains(l, "org.apache.kafka.") {
				from[source]++
			}
		}
		if shared := from["shared objects file"]; shared < 20 || len(from) > 1 {
			t.Errorf("Kafka %s: classes come from %v", version, from)
		}
	}
}
