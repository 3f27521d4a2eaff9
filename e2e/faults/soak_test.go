package faults

import (
	"testing"

	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/soak"
)

// The beginning of `make soak`. The rounds of this seed have every kind of fault
// but a controlled stop, which the tests of faults have.
func TestPromisesHoldThroughRoundsOfFaults(t *testing.T) {
	t.Parallel()
	err := soak.Run(t.Context(), soak.Options{
		Seed: 0, Rounds: 3, Clusters: soak.Clusters(true), Java: []string{kafkatest.V4}, Dir: t.TempDir(), Say: t.Logf,
	})
	if err != nil {
		t.Error(err)
	}
}
