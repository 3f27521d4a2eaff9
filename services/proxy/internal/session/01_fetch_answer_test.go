package session

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/meter"
	"tollgate.internal/services/proxy/internal/netio"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
	"tollgate.internal/services/proxy/internal/wire"
)

const longName = "shop.orders.with.a.long.name" // the physical name behind alias a

// Whatever its version, its size, its tags, and the pieces in which it comes from
// the broker, an answer reaches the client with all its records and nothing
// physical.
func TestFetchAnswersAreMapped(t *testing.T) {
	const seed = 20261121
	rng := rand.New(rand.NewPCG(seed, 1))
	for version := int16(4); version <= 18; version++ {
		for _, total := range []int{0, 3000, 100 << 10, 130 << 10, 1 << 20, 3 << 20} {
			for _, mixed := range []bool{false, true} {
				name := fmt.Sprintf("v%d of %d bytes, mixed %v", version, total, mixed)
				t.Run(name, func(t *testing.T) {
					b := newHotBroker(t, "open.orders", "open.payments.2", longName)
					b.chunk = []int{0, 700, 9000, 70000}[rng.IntN(4)]
					h := newHotSession(t, b)
					topics := []*view.Topic{h.table.Topic("orders"), h.table.Topic("payments.2")}
					if mixed {
						topics = append(topics, h.table.Topic("a"))
					}
					answer := fetchAnswerOf(version, topics...)
					want := fetchAnswerOf(version, topics...)
					answer.SessionID = 4711
					for i := range answer.Topics {
						fillPartition(rng, version, &answer.Topics[i].Partitions[0], total/len(topics))
						want.Topics[i].Topic, want.Topics[i].TopicID = topics[i].Name, topics[i].ID
						want.Topics[i].Partitions[0] = answer.Topics[i].Partitions[0]
					}
					if version >= 16 {
						answer.Brokers = []kmsg.FetchResponseBroker{{NodeID: 3, Host: "10.1.2.3", Port: 9092, Rack: kmsg.StringPtr("eu-1a")}}
					}
					b.set(answer)
					got := h.ask(t, fetchOf(version, 0, 0, topics...)).(*kmsg.FetchResponse)
					if version >= 7 && (got.SessionID == 0 || got.SessionID == answer.SessionID) {
						t.Errorf("session id %d, want one of the gateway's", got.SessionID)
					}
					got.SessionID = 0
					if version >= 16 {
						if len(got.Brokers) == 1 {
							if n := got.Brokers[0]; n.Host != "b3-open.gw.test" || n.NodeID != 3 || n.Rack == nil || *n.Rack != "eu-1a" {
								t.Errorf("node endpoint %+v", n)
							}
						} else if total <= wholeAnswer/2 {
							t.Errorf("%d node endpoints, want 1 in an answer that is here in full", len(got.Brokers))
						}
						got.Brokers = nil
					}
					clearTags(got)
					gotBody, wantBody := got.AppendTo(nil), want.AppendTo(nil)
					if !bytes.Equal(gotBody, wantBody) {
						t.Errorf("%d bytes, want %d: the answer differs", len(gotBody), len(wantBody))
					}
					if reason := physical(got); reason != "" {
						t.Error(reason)
					}
					wantFetched(t, h.meter, recordBytes(want), 5*batches(want))
				})
			}
		}
	}
}

// fillPartition puts records of size bytes in p, and now and then everything else
// that a partition can have.
func fillPartition(rng *rand.Rand, version int16, p *kmsg.FetchResponseTopicPartition, size int) {
	for size >= 200 {
		n := min(size, 100+rng.IntN(300<<10))
		if size-n < 200 {
			n = size
		}
		p.RecordBatches = append(p.RecordBatches, batch(n, 5)...)
		size -= n
	}
	for range rng.IntN(20) {
		p.AbortedTransactions = append(p.AbortedTransactions, kmsg.FetchResponseTopicPartitionAbortedTransaction{ProducerID: rng.Int64(), FirstOffset: rng.Int64()})
	}
	if version >= 11 && rng.IntN(2) == 0 {
		p.PreferredReadReplica = 3
	}
	if version >= 12 && rng.IntN(2) == 0 {
		p.CurrentLeader.LeaderID, p.CurrentLeader.LeaderEpoch = 3, 17
		p.DivergingEpoch.Epoch, p.DivergingEpoch.EndOffset = 4, 5
	}
}

// physical finds what a client must not see.
func physical(resp *kmsg.FetchResponse) string {
	if b := resp.AppendTo(nil); bytes.Contains(b, []byte(longName)) || bytes.Contains(b, []byte("open.orders")) {
		return "a physical name is in the answer"
	} else if id := topicIDOf(longName); bytes.Contains(b, id[:]) {
		return "a physical id is in the answer"
	} else if bytes.Contains(b, []byte("10.1.2.3")) {
		return "a broker's address is in the answer"
	}
	return ""
}

// clearTags drops unknown tags if their bytes are blank; others stay, and make the
// answers differ.
func clearTags(resp *kmsg.FetchResponse) {
	blank := true
	resp.UnknownTags.Each(func(_ uint32, b []byte) {
		blank = blank && len(bytes.Trim(b, "\x00")) == 0
	})
	if blank {
		resp.UnknownTags = kmsg.Tags{}
	}
}

// wantFetched waits until so much is counted: that is when it was written, which may
// be after the client has read it.
func wantFetched(t *testing.T, m *meter.Meter, wantBytes, wantRecords int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		var bytes, records int
		for k, u := range m.All() {
			if k.Direction == meter.Fetched {
				bytes, records = bytes+int(u.Bytes), records+int(u.Records)
			}
		}
		if bytes == wantBytes && records == wantRecords {
			return
		}
		if bytes > wantBytes || records > wantRecords || time.Now().After(deadline) {
			t.Errorf("counted %d bytes and %d records, want %d and %d", bytes, records, wantBytes, wantRecords)
			return
		}
	}
}

func recordBytes(resp *kmsg.FetchResponse) (n int) {
	for _, rt := range resp.Topics {
		for _, p := range rt.Partitions {
			n += len(p.RecordBatches)
		}
	}
	return n
}

func batches(resp *kmsg.FetchResponse) (n int) {
	for _, rt := range resp.Topics {
		for _, p := range rt.Partitions {
			for b := p.RecordBatches; len(b) > 0; n++ {
				size, _ := wire.Batch(b)
				b = b[size:]
			}
		}
	}
	return n
}

// A client that does not read holds back its broker, and costs the node a few
// buffers, however large its answer is.
func TestLargeAnswersTakeLittleMemory(t *testing.T) {
	const size = 96 << 20
	b := newHotBroker(t, "open.orders")
	h := newHotSession(t, b)
	topic := h.table.Topic("orders")
	answer := fetchAnswerOf(17, topic)
	answer.Topics[0].Partitions[0].RecordBatches = batch(size, 5)
	b.set(answer)
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if _, err := h.Write(frameOf(fetchOf(17, 0, -1, topic), 5)); err != nil {
		t.Fatal(err)
	}
	got, most := 0, uint64(0)
	for got < size {
		n, err := h.Read(h.buf)
		if err != nil {
			t.Fatal(err)
		}
		if before := got >> 22; (got+n)>>22 != before {
			runtime.ReadMemStats(&during)
			most = max(most, during.HeapAlloc)
		}
		got += n
	}
	if held := int64(most) - int64(before.HeapAlloc); held > size/2 {
		t.Errorf("%d MiB more on the heap while %d MiB passed", held>>20, size>>20)
	}
	if used, _ := h.session.answerMemory.Used(); used != 0 {
		t.Errorf("%d bytes held for answers", used)
	}
}

// A client that takes nothing of its answer loses its connection, and the broker
// connection behind it is free again; one that reads goes on, however slowly.
func TestClientsThatTakeNothingAreClosed(t *testing.T) {
	const size = 64 << 20
	var sessions []*hotSession
	for range 2 {
		b := newHotBroker(t, "open.orders")
		h := newHotSession(t, b)
		topic := h.table.Topic("orders")
		answer := fetchAnswerOf(17, topic)
		answer.Topics[0].Partitions[0].RecordBatches = batch(size, 5)
		b.set(answer)
		h.session.node.WriteStall = 30 * time.Second
		if _, err := h.Write(frameOf(fetchOf(17, 0, -1, topic), 5)); err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, h)
	}
	reads, stalls := sessions[0], sessions[1]
	now := time.Now()
	for got := 0; got < size; { // a quarter each time is more than sockets hold
		n, err := io.ReadFull(reads, make([]byte, size/4))
		if err != nil {
			t.Fatal(err)
		}
		got += n
		now = now.Add(29 * time.Second)
		reads.session.Sweep(now)
	}
	for deadline := time.Now().Add(time.Minute); stalls.session.ended.Load() == nil; runtime.Gosched() {
		now = now.Add(time.Second)
		stalls.session.Sweep(now)
		if time.Now().After(deadline) {
			t.Fatal("the client that does not read is still there")
		}
	}
	if err := stalls.session.ended.Load().err; !strings.Contains(err.Error(), "taken nothing for 30s") {
		t.Errorf("ended with %v", err)
	}
	for deadline := time.Now().Add(time.Minute); ; runtime.Gosched() {
		if _, leased := stalls.session.vc.Home.Connections(); leased[upstream.Fetch.String()] == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the broker connection is still leased")
		}
	}
}

// An answer whose names grow differently is held whole: the request asks for
// little, and the memory is accounted for.
func TestMixedNamesAskForLittleAndAreAccounted(t *testing.T) {
	b := newHotBroker(t, "open.orders", longName)
	h := newHotSession(t, b)
	topics := []*view.Topic{h.table.Topic("orders"), h.table.Topic("a")}
	answer := fetchAnswerOf(12, topics...)
	answer.Topics[0].Partitions[0].RecordBatches = batch(4<<20, 5)
	b.set(answer)
	h.session.answerMemory = netio.NewBudget(1) // a frame larger than all of it goes alone
	h.ask(t, fetchOf(12, 0, -1, topics...))
	forwarded := kmsg.NewPtrFetchRequest()
	forwarded.Version = 12
	b.request(t, forwarded)
	if forwarded.MaxBytes != maxHeldAnswer {
		t.Errorf("asked the broker for %d bytes, want %d", forwarded.MaxBytes, maxHeldAnswer)
	}
	h.ask(t, fetchOf(12, 0, -1, topics...)) // waits until the first answer's memory is back
	if used, waiting := h.session.answerMemory.Used(); used > 5<<20 || waiting != 0 {
		t.Errorf("%d bytes held, %d waiting after two answers of 4 MiB", used, waiting)
	}
}

// An answer that the broker breaks off, or that is not what it says it is, ends the
// client's connection; nothing of it looks like a whole answer.
func TestBrokenFetchAnswersEndTheSession(t *testing.T) {
	for _, version := range []int16{4, 11, 12, 13, 18} {
		for name, spoil := range map[string]func(frame []byte) []byte{
			"foreign topic": func(b []byte) []byte {
				return bytes.Replace(bytes.Replace(b, []byte("open.orders"), []byte("open.0rders"), 1), []byte("open.orders......"), []byte("open.0rders......"), 1)
			},
			"one byte less": func(b []byte) []byte { return b[:len(b)-1] },
			"one byte more": func(b []byte) []byte { return append(b, 0) },
			"records too long": func(b []byte) []byte {
				return bytes.Replace(b, []byte("\x00\x03\x0d\x40"), []byte("\x7f\xff\xff\xff"), 1)
			},
			"nothing but zeros": func(b []byte) []byte { return append(b[:8:8], make([]byte, 3)...) },
		} {
			t.Run(fmt.Sprintf("v%d %s", version, name), func(t *testing.T) {
				b := newHotBroker(t, "open.orders")
				h := newHotSession(t, b)
				topic := h.table.Topic("orders")
				answer := fetchAnswerOf(version, topic)
				answer.Topics[0].Partitions[0].RecordBatches = batch(200000, 5)
				b.set(answer)
				b.mu.Lock()
				whole := append([]byte(nil), b.answer[1]...)
				spoiled := spoil(append([]byte(nil), whole...))
				if name == "records too long" && bytes.Equal(spoiled, whole) {
					// Flexible versions write the length as a varint.
					spoiled = bytes.Replace(whole, []byte("\xc1\x9a\x0c"), []byte("\xc1\x9a\x7f"), 1)
				}
				if bytes.Equal(spoiled, whole) {
					t.Fatal("nothing was spoiled")
				}
				binary.BigEndian.PutUint32(spoiled, uint32(len(spoiled)-4))
				b.answer[1] = spoiled
				b.mu.Unlock()
				h.SetReadDeadline(time.Now().Add(time.Minute))
				if _, err := h.Write(frameOf(fetchOf(version, 0, -1, topic), 5)); err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(h)
				if err != nil && !strings.Contains(err.Error(), "reset") {
					t.Fatalf("the connection did not end: %v", err)
				}
				if len(got) >= 4 && len(got) >= 4+int(binary.BigEndian.Uint32(got)) {
					t.Errorf("%d bytes, which read as a whole answer", len(got))
				}
			})
		}
	}
}

// Errors and hints in an answer pass to the client.
func TestFetchErrorsPass(t *testing.T) {
	b := newHotBroker(t, "open.orders")
	h := newHotSession(t, b)
	topic := h.table.Topic("orders")
	answer := fetchAnswerOf(16, topic)
	answer.Topics[0].Partitions[0].ErrorCode = kerr.NotLeaderForPartition.Code
	answer.Topics[0].Partitions[0].CurrentLeader.LeaderID = 4
	b.set(answer)
	got := h.ask(t, fetchOf(16, 0, -1, topic)).(*kmsg.FetchResponse)
	p := got.Topics[0].Partitions[0]
	if p.ErrorCode != kerr.NotLeaderForPartition.Code || p.CurrentLeader.LeaderID != 4 {
		t.Errorf("error %d, leader %d", p.ErrorCode, p.CurrentLeader.LeaderID)
	}
	if !reflect.DeepEqual(got.Topics[0].TopicID, topic.ID) {
		t.Error("the topic id is not the virtual one")
	}
}
