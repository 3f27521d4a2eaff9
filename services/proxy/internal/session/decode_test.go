package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/wire"
)

// billions is the largest number of tags that a request can speak of. To believe it
// takes minutes; a test that does runs into its limit.
var billions = binary.AppendUvarint(nil, 1<<32-1)

// A small request that speaks of billions of tags is refused at once, wherever they
// are to be, also before authentication.
func TestBillionsOfTagsAreNotBelieved(t *testing.T) {
	versions := kmsg.NewPtrApiVersionsRequest()
	versions.Version, versions.ClientSoftwareName, versions.ClientSoftwareVersion = 3, "a", "1"
	login := kmsg.NewPtrSASLAuthenticateRequest()
	login.Version, login.SASLAuthBytes = 2, []byte("\x00a\x00b")
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.Version = 12
	metadata.Topics = []kmsg.MetadataRequestTopic{{Topic: kmsg.StringPtr("orders")}, {Topic: kmsg.StringPtr("logs")}}
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Version, commit.Group = 9, "g"
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "orders", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{LeaderEpoch: -1, Offset: -1}}}}
	for _, req := range []kmsg.Request{versions, login, metadata, commit} {
		body := req.AppendTo(nil)
		for at := range body {
			if body[at] != 0 {
				continue // no number of tags
			}
			evil := append(append(bytes.Clone(body[:at]), billions...), body[at+1:]...)
			into := kmsg.RequestForKey(req.Key())
			into.SetVersion(req.GetVersion())
			// In place of a number that is not of tags it may be anything but slow.
			if err := decode(into, evil); at == len(body)-1 && !errors.Is(err, wire.ErrShort) {
				t.Errorf("%s with billions of tags at the end: %v", kmsg.NameForKey(req.Key()), err)
			}
		}
		if err := decode(req, body); err != nil {
			t.Errorf("%s as it is: %v", kmsg.NameForKey(req.Key()), err)
		}
	}
}

// FuzzDecode: whatever a client sends of what is served is read or refused, at once
// and without a panic; what was read can be read again.
func FuzzDecode(f *testing.F) {
	table := newHotSession(f, newHotBroker(f, "open.orders", longName)).table
	for _, e := range entries() {
		for _, msg := range seeds(f, e.key, "client_request", table) {
			req := msg.(kmsg.Request)
			f.Add(req.Key(), req.GetVersion(), req.AppendTo(nil))
		}
	}
	f.Fuzz(func(t *testing.T, key, version int16, body []byte) {
		e := entryOf(key)
		if e == nil || version < e.min || version > e.max {
			return
		}
		req := kmsg.RequestForKey(key)
		req.SetVersion(version)
		if err := decode(req, body); err != nil {
			return
		}
		stripUnknownTags(req)
		again := kmsg.RequestForKey(key)
		again.SetVersion(version)
		if written := req.AppendTo(nil); decode(again, written) != nil || !bytes.Equal(again.AppendTo(nil), written) {
			t.Errorf("%s v%d: %x is written as %x, which is read as something else", e.name, version, body, written)
		}
	})
}

// The epoch -1 stands right before the length of the note.
func TestOffsetsWithNotesAreRead(t *testing.T) {
	for _, length := range []int{0, 126, 127, 128, 200, 5000, 20_000, 1 << 20} {
		commit := kmsg.NewPtrOffsetCommitRequest()
		commit.Version, commit.Group, commit.Generation = 9, "g", -1
		note := string(bytes.Repeat([]byte("x"), length))
		commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "orders", Partitions: []kmsg.OffsetCommitRequestTopicPartition{
			{Offset: 3, LeaderEpoch: -1, Metadata: &note},
		}}}
		into := kmsg.NewPtrOffsetCommitRequest()
		into.Version = 9
		if err := decode(into, commit.AppendTo(nil)); err != nil {
			t.Errorf("a note of %d bytes: %v", length, err)
		}
	}
}

// Whatever integers, names and records look like, requests are read.
func TestRequestsWithLargeIntegersAreRead(t *testing.T) {
	for range 200 {
		commit := kmsg.NewPtrOffsetCommitRequest()
		commit.Version, commit.Group, commit.Generation, commit.MemberID = 9, "gruppe-\u4e2d\u6587\U0001f600", -1, "m"
		commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "orders", Partitions: []kmsg.OffsetCommitRequestTopicPartition{
			{Partition: 1, Offset: 1<<62 - 1, LeaderEpoch: -1, Metadata: kmsg.StringPtr("\u4e2d\u6587")}, {Partition: 2, Offset: -1, LeaderEpoch: -1},
		}}}
		commit.Topics[0].UnknownTags.Set(9, bytes.Repeat([]byte{0xff}, 40))
		records := batch(5000, 3)
		for i := range records[batchHeader:] {
			records[batchHeader+i] |= 0x80
		}
		for _, req := range []kmsg.Request{commit, produceOf(9, "orders", [16]byte{}, records), produceOf(13, "", [16]byte{0xff, 0xff, 0xff, 0xff, 5}, records)} {
			into := kmsg.RequestForKey(req.Key())
			into.SetVersion(req.GetVersion())
			body := req.AppendTo(nil)
			if err := decode(into, body); err != nil || !bytes.Equal(into.AppendTo(nil), body) {
				t.Fatalf("%s: %v", kmsg.NameForKey(req.Key()), err)
			}
		}
	}
}
