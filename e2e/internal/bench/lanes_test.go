package bench

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The first answer of each workload is checked as a whole, for all others are only
// compared with it.
func TestAnswersThatOthersAreComparedWithAreChecked(t *testing.T) {
	target := &Target{Topics: []string{"a", "b"}}
	w := workload{Key: int16(kmsg.Metadata), Version: 12, Topics: 2, Partitions: 3}
	metadata := func(spoil func(*kmsg.MetadataResponse)) error {
		resp := kmsg.NewPtrMetadataResponse()
		resp.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 7}}
		for _, name := range []string{"b", "a"} {
			rt := kmsg.NewMetadataResponseTopic()
			rt.Topic = &name
			for p := range int32(3) {
				rt.Partitions = append(rt.Partitions, kmsg.MetadataResponseTopicPartition{Partition: p, Leader: 7})
			}
			resp.Topics = append(resp.Topics, rt)
		}
		spoil(resp)
		return w.checkMetadata(target, resp)
	}
	if err := metadata(func(r *kmsg.MetadataResponse) {
		r.Topics = append(r.Topics, kmsg.MetadataResponseTopic{Topic: kmsg.StringPtr("__consumer_offsets"), IsInternal: true})
	}); err != nil {
		t.Errorf("the right answer: %v", err)
	}
	for says, spoil := range map[string]func(*kmsg.MetadataResponse){
		"a topic missing":          func(r *kmsg.MetadataResponse) { r.Topics = r.Topics[:1] },
		"a topic twice":            func(r *kmsg.MetadataResponse) { r.Topics[1] = r.Topics[0] },
		"another topic":            func(r *kmsg.MetadataResponse) { r.Topics[1].Topic = kmsg.StringPtr("c") },
		"a topic with an error":    func(r *kmsg.MetadataResponse) { r.Topics[1].ErrorCode = 5 },
		"a partition missing":      func(r *kmsg.MetadataResponse) { r.Topics[1].Partitions = r.Topics[1].Partitions[:2] },
		"a partition with error":   func(r *kmsg.MetadataResponse) { r.Topics[1].Partitions[2].ErrorCode = 5 },
		"a leader that is no node": func(r *kmsg.MetadataResponse) { r.Topics[1].Partitions[2].Leader = 8 },
	} {
		if metadata(spoil) == nil {
			t.Errorf("%s passes", says)
		}
	}

	req := kmsg.NewPtrOffsetCommitRequest()
	for _, name := range target.Topics {
		req.Topics = append(req.Topics, kmsg.OffsetCommitRequestTopic{Topic: name, Partitions: make([]kmsg.OffsetCommitRequestTopicPartition, 2)})
	}
	committed := func(spoil func(*kmsg.OffsetCommitResponse)) error {
		resp := kmsg.NewPtrOffsetCommitResponse()
		for _, name := range target.Topics {
			resp.Topics = append(resp.Topics, kmsg.OffsetCommitResponseTopic{Topic: name, Partitions: make([]kmsg.OffsetCommitResponseTopicPartition, 2)})
		}
		spoil(resp)
		return checkCommitted(req, resp)
	}
	if err := committed(func(*kmsg.OffsetCommitResponse) {}); err != nil {
		t.Errorf("the right answer: %v", err)
	}
	for says, spoil := range map[string]func(*kmsg.OffsetCommitResponse){
		"a refused partition": func(r *kmsg.OffsetCommitResponse) { r.Topics[1].Partitions[1].ErrorCode = 3 },
		"a partition missing": func(r *kmsg.OffsetCommitResponse) { r.Topics[1].Partitions = r.Topics[1].Partitions[:1] },
		"a topic missing":     func(r *kmsg.OffsetCommitResponse) { r.Topics = r.Topics[:1] },
		"one topic too many": func(r *kmsg.OffsetCommitResponse) {
			r.Topics = append(r.Topics, kmsg.OffsetCommitResponseTopic{Topic: "c"})
		},
	} {
		if committed(spoil) == nil {
			t.Errorf("%s passes", says)
		}
	}
}
