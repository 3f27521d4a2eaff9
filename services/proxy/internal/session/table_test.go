package session

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Keys that must stay out (PROTOCOL.md §A, rule 10): between brokers, of the
// operator, or worth another tenant's data.
func TestWhatTenantsMustNotReachIsNotServed(t *testing.T) {
	for key, name := range map[int16]string{
		4: "LeaderAndIsr", 5: "StopReplica", 6: "UpdateMetadata", 7: "ControlledShutdown", 27: "WriteTxnMarkers",
		34: "AlterReplicaLogDirs", 38: "CreateDelegationToken", 43: "ElectLeaders", 45: "AlterPartitionReassignments",
		52: "Vote", 55: "DescribeQuorum", 57: "UpdateFeatures", 64: "UnregisterBroker", 71: "GetTelemetrySubscriptions",
		72: "PushTelemetry", 80: "AddRaftVoter", 83: "InitializeShareGroupState", 87: "ReadShareGroupStateSummary",
		88: "StreamsGroupHeartbeat", 94: "UnregisterController",
	} {
		if entryOf(key) != nil {
			t.Errorf("%s (%d) is served", name, key)
		}
	}
	if e := entryOf(24); e.max != 3 {
		t.Errorf("AddPartitionsToTxn to version %d, want 3: 4 and up need CLUSTER_ACTION", e.max)
	}
	if e := entryOf(22); e.max != 5 {
		t.Errorf("InitProducerId to version %d, want 5", e.max)
	}
}

func TestEveryEntryIsOneKmsgKnows(t *testing.T) {
	last := int16(-1)
	for _, e := range table {
		if e.key <= last {
			t.Errorf("%s (%d) is out of order", e.name, e.key)
		}
		last = e.key
		req := kmsg.RequestForKey(e.key)
		if req == nil {
			t.Errorf("%s (%d) is unknown to kmsg", e.name, e.key)
			continue
		}
		if e.max > req.MaxVersion() || e.min > e.max || e.min < 0 {
			t.Errorf("%s versions %d to %d, kmsg knows up to %d", e.name, e.min, e.max, req.MaxVersion())
		}
	}
	for _, key := range []int16{-1, 93, 127, 128, 32767, -32768} {
		if e := entryOf(key); e != nil {
			t.Errorf("key %d is served as %s", key, e.name)
		}
	}
}

func TestNothingButLoggingInIsAdmittedBeforeAuthentication(t *testing.T) {
	for key := range int16(128) {
		for p, want := range map[phase]bool{
			connected:     key == keyApiVersions || key == keySASLHandshake,
			handshaken:    key == keySASLAuthenticate,
			rawTokens:     false,
			authenticated: true,
			phase(9):      false,
		} {
			if got := p.admits(key); got != want {
				t.Errorf("phase %d admits key %d: %v, want %v", p, key, got, want)
			}
		}
	}
}
