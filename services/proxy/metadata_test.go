package proxy_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The Java consumer asks for the topics of an assignment by id, and gives the empty
// name with it, not null.
func TestMetadataIsAskedByIDWhateverTheName(t *testing.T) {
	g := start(t)
	cl := g.client(t, "acme-dev.gw.test", loginDev, kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("events"))
	if err := cl.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	ask := func(name *string, id [16]byte) kmsg.MetadataResponseTopic {
		t.Helper()
		req := kmsg.NewPtrMetadataRequest()
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic, rt.TopicID = name, id
		req.Topics = append(req.Topics, rt)
		resp, err := req.RequestWith(t.Context(), cl)
		if err != nil {
			t.Fatal(err)
		}
		return resp.Topics[0]
	}
	named := ask(kmsg.StringPtr("events"), [16]byte{})
	if named.ErrorCode != 0 || named.TopicID == ([16]byte{}) {
		t.Fatalf("by name: error %d, id %x", named.ErrorCode, named.TopicID)
	}
	for what, name := range map[string]*string{"no name": nil, "an empty name": kmsg.StringPtr(""), "another name": kmsg.StringPtr("x")} {
		got := ask(name, named.TopicID)
		if got.ErrorCode != 0 || got.Topic == nil || *got.Topic != "events" || len(got.Partitions) == 0 {
			t.Errorf("by id with %s: error %d, name %v, %d partitions", what, got.ErrorCode, got.Topic, len(got.Partitions))
		}
		unknown := ask(name, [16]byte{1, 2, 3})
		if unknown.ErrorCode != 100 || unknown.Topic != nil {
			t.Errorf("by an unknown id with %s: error %d, name %v, want 100 and none", what, unknown.ErrorCode, unknown.Topic)
		}
	}
}
