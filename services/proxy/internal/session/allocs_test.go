//go:build !race

package session

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The race detector lets pools forget what they hold, so nothing can be said of
// allocations under it.

// A forwarded frame costs no allocation, whichever way it is mapped (DESIGN.md §8).
func TestForwardingAllocatesNothing(t *testing.T) {
	for _, size := range []int{1 << 10, 64 << 10} {
		for _, version := range []int16{8, 9, 13} {
			for _, more := range []string{"", policies} {
				t.Run(fmt.Sprintf("Produce v%d of %d bytes, policies %v", version, size, more != ""), func(t *testing.T) {
					b := newHotBroker(t, "open.orders")
					h := newHotSession(t, b, more)
					topic := h.table.Topic("orders")
					answer := kmsg.NewPtrProduceResponse()
					answer.Version = version
					rt := kmsg.NewProduceResponseTopic()
					rt.Topic, rt.TopicID = topic.Physical.Name, topic.Physical.ID
					rt.Partitions = append(rt.Partitions, kmsg.NewProduceResponseTopicPartition())
					answer.Topics = append(answer.Topics, rt)
					b.set(answer)
					wantNoAllocations(t, h, frameOf(produceOf(version, topic.Name, topic.ID, batch(size, 9)), 5))
				})
			}
		}
		for _, version := range []int16{11, 12, 13, 17} {
			t.Run(fmt.Sprintf("Fetch v%d of %d bytes", version, size), func(t *testing.T) {
				b := newHotBroker(t, "open.orders")
				h := newHotSession(t, b)
				topic := h.table.Topic("orders")
				answer := fetchAnswerOf(version, topic)
				answer.SessionID = 4711
				answer.Topics[0].Partitions[0].RecordBatches = batch(size, 9)
				b.set(answer)
				first := h.ask(t, fetchOf(version, 0, 0, topic)).(*kmsg.FetchResponse)
				if first.SessionID == 0 || first.SessionID == 4711 {
					t.Fatalf("session id %d, want one of the gateway's", first.SessionID)
				}
				wantNoAllocations(t, h, frameOf(fetchOf(version, first.SessionID, 1, topic), 5))
			})
		}
	}
}

func wantNoAllocations(t *testing.T, h *hotSession, frame []byte) {
	t.Helper()
	n := testing.AllocsPerRun(500, func() {
		if _, err := h.roundTrip(frame); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for each frame", n)
	}
}
