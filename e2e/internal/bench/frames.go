package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A workload is what every request of a run is.
type workload struct {
	Key     int16
	Version int16
	Bytes   int // Produce, Fetch: of record batches in a request, or in an answer to Fetch

	Topics, Partitions int  // Metadata: of the cluster; OffsetCommit: of a request. Partitions are of each topic
	Named              bool // Metadata: each topic is asked for by name, not all that there are
}

func (w workload) String() string {
	what := fmt.Sprintf("%s v%d of ", kmsg.NameForKey(w.Key), w.Version)
	switch kmsg.Key(w.Key) {
	case kmsg.Metadata:
		if w.Named {
			return fmt.Sprintf("%s%d topics by name", what, w.Topics)
		}
		return fmt.Sprintf("%sall %d topics", what, w.Topics)
	case kmsg.OffsetCommit:
		return fmt.Sprintf("%s%d × %d partitions", what, w.Topics, w.Partitions)
	}
	return what + sizeText(w.Bytes)
}

func sizeText(n int) string {
	if n%1024 == 0 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

const (
	batchHeader = 61 // bytes before the records of a batch
	batchPrefix = 12 // of them, those that Length does not count
	batchCRC    = 17 // where the checksum lies; it covers what follows it
	recordBytes = 1024
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batch is a record batch of exactly n bytes with about a record per KiB. Equal
// sizes give equal bytes, so that both ends know them.
func batch(n int) ([]byte, error) {
	count := max(n/recordBytes, 1)
	values := rand.New(rand.NewPCG(uint64(n), 4711))
	// The record headers are a few bytes each; the last record takes up the rest.
	var body []byte
	for i := range count {
		rest := n - batchHeader - len(body)
		size := min(recordBytes-16, rest)
		var r []byte
		for last := i == count-1; ; size-- {
			if size < 0 {
				return nil, fmt.Errorf("a batch of %d bytes is too small", n)
			}
			r = record(int32(i), size)
			if !last || len(r) == rest {
				break
			}
			if len(r) < rest {
				size = min(size+rest-len(r)+1, rest)
			}
		}
		value := r[len(r)-1-size : len(r)-1] // before the number of headers
		for i := range value {
			value[i] = byte(values.Uint32())
		}
		body = append(body, r...)
	}
	b := kmsg.RecordBatch{
		Length: int32(n - batchPrefix), PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(count - 1),
		FirstTimestamp: 1_800_000_000_000, MaxTimestamp: 1_800_000_000_000,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(count), Records: body,
	}
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[batchCRC:], crc32.Checksum(raw[batchCRC+4:], castagnoli))
	if len(raw) != n {
		return nil, fmt.Errorf("a batch of %d bytes became %d", n, len(raw))
	}
	return raw, nil
}

func record(offset int32, value int) []byte {
	r := kmsg.Record{OffsetDelta: offset, Value: make([]byte, value)}
	r.Length = int32(len(r.AppendTo(nil)) - 1) // a length of 0 takes one byte itself
	return r.AppendTo(nil)
}

// checkBatch is what a broker checks before it appends.
func checkBatch(b []byte) error {
	switch {
	case len(b) < batchHeader:
		return errors.New("batch cut short")
	case b[16] != 2:
		return fmt.Errorf("magic %d", b[16])
	case int(binary.BigEndian.Uint32(b[8:]))+batchPrefix != len(b):
		return errors.New("batch of another length")
	case binary.BigEndian.Uint32(b[batchCRC:]) != crc32.Checksum(b[batchCRC+4:], castagnoli):
		return errors.New("wrong checksum")
	}
	return nil
}

// topic is how one side of the gateway names the topic: the client's side by
// alias, the broker's by what is stored.
type topic struct {
	Name string
	ID   [16]byte
}

// request is the frame of a workload; its correlation id is set before each use.
func (w workload) request(t topic) ([]byte, error) {
	formatter := kmsg.NewRequestFormatter(kmsg.FormatterClientID("bench"))
	switch kmsg.Key(w.Key) {
	case kmsg.Produce:
		records, err := batch(w.Bytes)
		if err != nil {
			return nil, err
		}
		req := kmsg.NewPtrProduceRequest()
		req.Version, req.Acks, req.TimeoutMillis = w.Version, -1, 30_000
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic, rt.TopicID = t.Name, t.ID
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Records = records
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		return formatter.AppendRequest(nil, req, 0), nil
	case kmsg.Fetch:
		// Without a fetch session: the topic is in every request and answer, and
		// several requests of a connection can be in flight.
		req := kmsg.NewPtrFetchRequest()
		req.Version, req.SessionEpoch = w.Version, -1
		req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 500, 1, 50<<20
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic, rt.TopicID = t.Name, t.ID
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.PartitionMaxBytes = int32(w.Bytes)
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		return formatter.AppendRequest(nil, req, 0), nil
	}
	return nil, fmt.Errorf("no workload of %s", kmsg.NameForKey(w.Key))
}

// An expectation is the answer to a request, byte for byte. What differs from
// answer to answer is the correlation id and the offset a batch was given.
type expectation struct {
	frame  []byte
	offset int // where the offset lies; 0: nowhere
}

func (w workload) answer(t topic) (*expectation, error) {
	resp, err := w.response(t, markedOffset)
	if err != nil {
		return nil, err
	}
	e := &expectation{frame: appendAnswer(nil, resp, 0)}
	if kmsg.Key(w.Key) == kmsg.Produce {
		e.offset = bytes.Index(e.frame, binary.BigEndian.AppendUint64(nil, markedOffset))
		if e.offset < 0 {
			return nil, errors.New("no offset in an answer to Produce")
		}
	}
	return e, nil
}

const markedOffset = 0x1234567890abcdef

// matches compares an answer, its length prefix included.
func (e *expectation) matches(frame []byte, correlationID int32) error {
	if len(frame) != len(e.frame) {
		return fmt.Errorf("answer of %d bytes: want %d", len(frame), len(e.frame))
	}
	if got := int32(binary.BigEndian.Uint32(frame[4:])); got != correlationID {
		return fmt.Errorf("answer to request %d: want %d", got, correlationID)
	}
	rest := 8
	if e.offset > 0 {
		if !bytes.Equal(frame[rest:e.offset], e.frame[rest:e.offset]) {
			return errors.New("answer differs from what the broker said")
		}
		rest = e.offset + 8
	}
	if !bytes.Equal(frame[rest:], e.frame[rest:]) {
		return errors.New("answer differs from what the broker said")
	}
	return nil
}

func (w workload) response(t topic, offset int64) (kmsg.Response, error) {
	switch kmsg.Key(w.Key) {
	case kmsg.Produce:
		resp := kmsg.NewPtrProduceResponse()
		resp.Version = w.Version
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = t.Name, t.ID
		rp := kmsg.NewProduceResponseTopicPartition()
		rp.BaseOffset, rp.LogStartOffset = offset, 0
		rt.Partitions = append(rt.Partitions, rp)
		resp.Topics = append(resp.Topics, rt)
		return resp, nil
	case kmsg.Fetch:
		records, err := batch(w.Bytes)
		if err != nil {
			return nil, err
		}
		return fetched(w.Version, t, records), nil
	}
	return nil, fmt.Errorf("no workload of %s", kmsg.NameForKey(w.Key))
}

func fetched(version int16, t topic, records []byte) *kmsg.FetchResponse {
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = version
	rt := kmsg.NewFetchResponseTopic()
	rt.Topic, rt.TopicID = t.Name, t.ID
	rp := kmsg.NewFetchResponseTopicPartition()
	rp.HighWatermark, rp.LastStableOffset, rp.LogStartOffset = logEnd, logEnd, 0
	rp.RecordBatches = records
	rt.Partitions = append(rt.Partitions, rp)
	resp.Topics = append(resp.Topics, rt)
	return resp
}

// logEnd is the end of the stub's log.
const logEnd = 1 << 20

func appendAnswer(dst []byte, resp kmsg.Response, correlationID int32) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(correlationID))
	if resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions) {
		dst = append(dst, 0)
	}
	dst = resp.AppendTo(dst)
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst
}
