package session

import (
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func up(name string) (string, bool)   { return "acme." + name, true }
func down(name string) (string, bool) { return strings.CutPrefix(name, "acme.") }

func TestTopicsInsideGroupMetadataAreRenamed(t *testing.T) {
	for _, version := range []int16{0, 1, 2, 3} {
		m := kmsg.NewConsumerMemberMetadata()
		m.Version = version
		m.Topics = []string{"orders", "things"}
		m.UserData = []byte("orders stay orders in here")
		m.Generation = 7
		m.Rack = kmsg.StringPtr("r1")
		if version >= 1 {
			owned := kmsg.NewConsumerMemberMetadataOwnedPartition()
			owned.Topic, owned.Partitions = "orders", []int32{1, 2}
			m.OwnedPartitions = append(m.OwnedPartitions, owned)
		}
		before := m.AppendTo(nil)
		there := subscription(before, false, up)
		var got kmsg.ConsumerMemberMetadata
		if err := got.ReadFrom(there); err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		if want := []string{"acme.orders", "acme.things"}; !slices.Equal(got.Topics, want) {
			t.Errorf("version %d: topics %v, want %v", version, got.Topics, want)
		}
		if string(got.UserData) != string(m.UserData) {
			t.Errorf("version %d: user data %q was touched", version, got.UserData)
		}
		if version >= 1 && (got.OwnedPartitions[0].Topic != "acme.orders" || !slices.Equal(got.OwnedPartitions[0].Partitions, []int32{1, 2})) {
			t.Errorf("version %d: owned partitions %+v", version, got.OwnedPartitions)
		}
		if back := subscription(there, false, down); !slices.Equal(back, before) {
			t.Errorf("version %d: %x there and back, want %x", version, back, before)
		}
	}
}

func TestTopicsInsideAssignmentsAreRenamed(t *testing.T) {
	var a kmsg.ConsumerMemberAssignment
	topic := kmsg.NewConsumerMemberAssignmentTopic()
	topic.Topic, topic.Partitions = "orders", []int32{0, 2}
	a.Topics = append(a.Topics, topic)
	a.UserData = []byte{1, 2, 3}
	before := a.AppendTo(nil)
	there := subscription(before, true, up)
	var got kmsg.ConsumerMemberAssignment
	if err := got.ReadFrom(there); err != nil {
		t.Fatal(err)
	}
	if got.Topics[0].Topic != "acme.orders" || !slices.Equal(got.Topics[0].Partitions, []int32{0, 2}) {
		t.Errorf("assignment %+v", got.Topics)
	}
	if back := subscription(there, true, down); !slices.Equal(back, before) {
		t.Errorf("%x there and back, want %x", back, before)
	}
}

func FuzzSubscription(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 0, 1, 0, 1, 'a', 0, 0, 0, 0, 0, 0, 0, 0}, false)
	f.Add([]byte{0, 0, 0, 0, 0, 1, 0, 1, 'a', 0, 0, 0, 1, 0, 0, 0, 0, 255, 255, 255, 255}, true)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, b []byte, assignment bool) {
		there := subscription(b, assignment, up)
		if back := subscription(there, assignment, down); !slices.Equal(back, b) {
			t.Errorf("%x came back as %x by way of %x", b, back, there)
		}
	})
}
