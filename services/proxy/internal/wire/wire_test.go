package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What kmsg writes, a cursor reads, in every encoding there is.
func TestCursorReadsWhatKmsgWrites(t *testing.T) {
	for version := int16(3); version <= 13; version++ {
		req := kmsg.NewPtrProduceRequest()
		req.Version, req.TransactionID, req.Acks, req.TimeoutMillis = version, kmsg.StringPtr("pay"), -1, 1500
		if version%2 == 0 {
			req.TransactionID = nil
		}
		topic := kmsg.NewProduceRequestTopic()
		topic.Topic, topic.TopicID = "orders", [16]byte{1, 2, 3}
		for i, records := range [][]byte{nil, {}, bytes.Repeat([]byte{7}, 300)} {
			p := kmsg.NewProduceRequestTopicPartition()
			p.Partition, p.Records = int32(i), records
			topic.Partitions = append(topic.Partitions, p)
		}
		if version >= 9 {
			topic.Partitions[2].UnknownTags.Set(7, []byte("unknown"))
		}
		req.Topics = append(req.Topics, topic)

		flex := version >= 9
		c := Cursor{B: req.AppendTo(nil)}
		if id := c.String(flex); (id == nil) != (req.TransactionID == nil) || id != nil && string(id) != "pay" {
			t.Errorf("v%d: transactional id %q", version, id)
		}
		if acks, timeout := c.Int16(), c.Int32(); acks != -1 || timeout != 1500 {
			t.Errorf("v%d: acks %d, timeout %d", version, acks, timeout)
		}
		if n := c.Array(flex); n != 1 {
			t.Errorf("v%d: %d topics", version, n)
		}
		if version >= 13 {
			if id := c.Skip(16); [16]byte(id) != topic.TopicID {
				t.Errorf("v%d: id %x", version, id)
			}
		} else if name := c.String(flex); string(name) != "orders" {
			t.Errorf("v%d: name %q", version, name)
		}
		if n := c.Len(flex); n != 3 {
			t.Errorf("v%d: %d partitions", version, n)
		}
		for i, p := range topic.Partitions {
			index, records := c.Int32(), c.Records(flex)
			if index != int32(i) || !bytes.Equal(records, p.Records) || (records == nil) != (p.Records == nil) {
				t.Errorf("v%d: partition %d with %d bytes, null %v", version, index, len(records), records == nil)
			}
			if flex && c.Tags() != (i == 2) {
				t.Errorf("v%d: partition %d: tags are seen wrong", version, i)
			}
		}
		for range 2 { // behind the topic, and behind all of them
			if flex && c.Tags() {
				t.Errorf("v%d: tags where there are none", version)
			}
		}
		if c.Err != nil || c.Pos != len(c.B) {
			t.Errorf("v%d: %v at %d of %d", version, c.Err, c.Pos, len(c.B))
		}
		// Cut short anywhere it is an error, and never more than that.
		for end := range len(c.B) {
			short := Cursor{B: c.B[:end]}
			short.String(flex)
			short.Skip(6)
			for range short.Array(flex) {
				if version >= 13 {
					short.Skip(16)
				} else {
					short.String(flex)
				}
				for range short.Len(flex) {
					short.Int32()
					short.Records(flex)
					if flex {
						short.Tags()
					}
				}
				if flex {
					short.Tags()
				}
			}
			if flex {
				short.Tags()
			}
			if !errors.Is(short.Err, ErrShort) {
				t.Errorf("v%d cut at %d of %d: %v", version, end, len(c.B), short.Err)
			}
		}
	}
}

func TestCursorRefusesWhatCannotBe(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    []byte
		read func(c *Cursor)
	}{
		{"a string longer than the frame", []byte{0, 9, 'a'}, func(c *Cursor) { c.String(false) }},
		{"a compact string longer than the frame", []byte{9, 'a'}, func(c *Cursor) { c.String(true) }},
		{"records longer than the frame", []byte{0x7f, 0xff, 0xff, 0xff, 1}, func(c *Cursor) { c.Records(false) }},
		{"an array of more elements than bytes", []byte{0, 0, 0, 3, 1, 2}, func(c *Cursor) { c.Array(false) }},
		{"a compact array of more elements than bytes", []byte{5, 1, 2}, func(c *Cursor) { c.Len(true) }},
		{"a varint without an end", bytes.Repeat([]byte{0xff}, 9), func(c *Cursor) { c.Uvarint() }},
		{"a tag longer than the frame", []byte{1, 0, 200, 1, 1}, func(c *Cursor) { c.Tags() }},
		{"more tags than there are", []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0}, func(c *Cursor) { c.Tags() }},
		{"a step back", []byte{1, 2, 3}, func(c *Cursor) { c.Skip(2); c.Skip(-1) }},
	} {
		c := Cursor{B: tt.b}
		tt.read(&c)
		if !errors.Is(c.Err, ErrShort) {
			t.Errorf("%s: %v", tt.name, c.Err)
		}
		if c.Skip(0) != nil || c.Int8() != 0 || c.Int16() != 0 || c.Int32() != 0 || c.Int64() != 0 || c.Uvarint() != 0 || c.String(false) != nil || c.Len(true) != 0 {
			t.Errorf("%s: something was read after the error", tt.name)
		}
	}
}

// Frames are gathered one after the other, pieces large and small, and leave as they
// were gathered; large ones are not copied.
func TestSpliceGathersFrames(t *testing.T) {
	var s Splice
	var want []byte
	large := bytes.Repeat([]byte{'L'}, refSize)
	frame := func(flex bool, pieces ...[]byte) {
		body := binary.BigEndian.AppendUint16(nil, 7)
		s.Begin()
		s.Int16(7)
		s.Int32(-2)
		body = binary.BigEndian.AppendUint32(body, 0xfffffffe)
		s.String(flex, "acme.", "orders")
		s.StringOf(flex, "acme.", []byte("pay"))
		for _, name := range []string{"acme.orders", "acme.pay"} {
			if flex {
				body = binary.AppendUvarint(body, uint64(len(name)+1))
			} else {
				body = binary.BigEndian.AppendUint16(body, uint16(len(name)))
			}
			body = append(body, name...)
		}
		for _, piece := range pieces {
			s.Append(piece)
			body = append(body, piece...)
		}
		s.End()
		want = append(binary.BigEndian.AppendUint32(want, uint32(len(body))), body...)
	}
	frame(false, []byte("small"))
	frame(true, large, []byte("between"), large)
	if !s.References() {
		t.Error("a large piece was copied")
	}
	// What is taken back was never there, references neither.
	before := s.Save()
	s.Begin()
	s.Append(large)
	s.Copy([]byte("no"))
	s.End()
	s.Rewind(before)
	frame(true)
	if s.Len() != len(want) {
		t.Errorf("Len() = %d, want %d", s.Len(), len(want))
	}
	var out sink
	if err := s.Write(&out); err != nil || !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%v; written %d bytes, want %d", err, out.Len(), len(want))
	}
	if s.Len() != 0 || s.References() || s.buf != nil {
		t.Error("it is not empty after Write")
	}
	if err := s.Write(&out); err != nil || out.Len() != len(want) {
		t.Errorf("an empty splice wrote something, or %v", err)
	}
	for _, cut := range s.cuts[:cap(s.cuts)] {
		if cut.ref != nil {
			t.Error("memory of others is kept after Write")
		}
	}
}

// A frame whose end is not here yet can leave with its size.
func TestSpliceTellsSizesAhead(t *testing.T) {
	var s Splice
	var out sink
	s.Copy([]byte("before"))
	s.Begin()
	s.Copy([]byte("ab"))
	s.EndAt(4 + 5)
	s.Write(&out)
	s.Copy([]byte("cde"))
	s.Write(&out)
	if got := out.String(); got != "before\x00\x00\x00\x05abcde" {
		t.Errorf("%q", got)
	}
}

// broken is a writer that fails.
type broken struct{ err error }

func (b broken) Write([]byte) error              { return b.err }
func (b broken) WriteBuffers(*net.Buffers) error { return b.err }

func TestSpliceIsEmptyAfterAnError(t *testing.T) {
	var s Splice
	gone := errors.New("gone")
	for _, n := range []int{10, 2 * refSize} {
		s.Append(make([]byte, n))
		if err := s.Write(broken{gone}); !errors.Is(err, gone) || s.Len() != 0 || s.References() {
			t.Errorf("Write of %d bytes = %v, %d left", n, err, s.Len())
		}
	}
}

func TestStringSize(t *testing.T) {
	for _, flex := range []bool{false, true} {
		for _, n := range []int{0, 1, 126, 127, 128, 249, 16382, 16383} {
			var s Splice
			v := string(make([]byte, n))
			s.String(flex, "", v)
			if got := StringSize(flex, v); got != s.Len() {
				t.Errorf("StringSize(%v) of %d bytes = %d, want %d", flex, n, got, s.Len())
			}
			s.Reset()
		}
	}
}

// Records are counted in what a real client produced and a cluster stored, whatever
// the codec, with the markers of transactions, which are nobody's records.
func TestBatchesOfARealClient(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	want := 0
	for i, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DefaultProduceTopic("t"), kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		for range 10 * (i + 1) {
			client.Produce(t.Context(), kgo.SliceRecord(make([]byte, 100)), func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
			want++
		}
		if err := client.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		client.Close()
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DefaultProduceTopic("t"), kgo.TransactionalID("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, commit := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := client.ProduceSync(t.Context(), kgo.StringRecord("a"), kgo.StringRecord("b")).FirstErr(); err != nil {
			t.Fatal(err)
		}
		want += 2
		if err := client.EndTransaction(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
	}

	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes = 1 << 20
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = "t", cluster.TopicInfo("t").TopicID
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.PartitionMaxBytes = 1 << 20
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	stored := resp.Topics[0].Partitions[0].RecordBatches
	if got := Batches(stored); got != int64(want) {
		t.Errorf("%d records in what was stored, want %d", got, want)
	}
	control := 0
	for b := stored; ; {
		size, records := Batch(b)
		if size == 0 {
			break
		}
		if b[22]&0x20 != 0 {
			control++
			if records != 0 {
				t.Errorf("a marker counts as %d records", records)
			}
		}
		b = b[size:]
	}
	if control != 2 {
		t.Errorf("%d markers, want one for each transaction", control)
	}
	// The last batch of a fetch may be cut short: it is fetched again.
	last := 0
	for b := stored; ; {
		size, _ := Batch(b)
		if size == len(b) {
			break
		}
		last, b = last+size, b[size:]
	}
	if whole, cut := Batches(stored[:last]), Batches(stored[:len(stored)-1]); whole != cut {
		t.Errorf("%d records with the last batch cut short, want %d", cut, whole)
	}
}

// Message sets from before record batches are counted by message.
func TestBatchesOfOldMessages(t *testing.T) {
	v0 := kmsg.MessageV0{Magic: 0, Value: []byte("value")}
	v0.MessageSize = int32(len(v0.AppendTo(nil)) - 12)
	v1 := kmsg.MessageV1{Magic: 1, Key: []byte("k"), Value: []byte("value"), Timestamp: 1}
	v1.MessageSize = int32(len(v1.AppendTo(nil)) - 12)
	set := v1.AppendTo(v0.AppendTo(v1.AppendTo(nil)))
	if got := Batches(set); got != 3 {
		t.Errorf("%d messages, want 3", got)
	}
	if got := Batches(set[:len(set)-1]); got != 2 {
		t.Errorf("%d messages with the last cut short, want 2", got)
	}
}

func TestBatchesThatAreNone(t *testing.T) {
	header := func(size int32, magic byte) []byte {
		b := make([]byte, BatchHeader)
		binary.BigEndian.PutUint32(b[8:], uint32(size))
		b[16] = magic
		binary.BigEndian.PutUint32(b[57:], 5)
		return b
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "too short for a size": make([]byte, 16), "a negative size": header(-1, 2), "no size": header(0, 2),
		"the largest size": header(1<<31-1, 2), "a size that overflows": header(-1<<31, 2), "longer than what is here": header(BatchHeader, 2),
	} {
		if got := Batches(b); got != 0 {
			t.Errorf("%s: %d records", name, got)
		}
	}
	if size, records := Batch(header(10, 2)); size != 22 || records != 0 {
		t.Errorf("a batch too small for its header: %d bytes, %d records", size, records)
	}
}
