package rawkafka

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Batch is a record batch to produce. Its bytes follow from its fields alone.
type Batch struct {
	Values        []string
	Timestamp     int64 // of every record; 0 means Epoch
	Transactional bool
	ProducerID    int64 // with Idempotent or Transactional
	ProducerEpoch int16
	Sequence      int32
	Idempotent    bool
}

// Epoch is the timestamp of records that are given none. Topics of such records
// need retention.ms=-1.
// long ago that brokers would delete them.
const Epoch = 1_700_000_000_000

// Bytes encodes the batch (magic 2).
func (b Batch) Bytes() []byte {
	at := b.Timestamp
	if at == 0 {
		at = Epoch
	}
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(len(b.Values) - 1),
		FirstTimestamp: at, MaxTimestamp: at,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(len(b.Values)),
	}
	if b.Transactional {
		batch.Attributes |= 0x10
	}
	if b.Transactional || b.Idempotent {
		batch.ProducerID, batch.ProducerEpoch, batch.FirstSequence = b.ProducerID, b.ProducerEpoch, b.Sequence
	}
	for i, v := range b.Values {
		r := kmsg.Record{OffsetDelta: int32(i), Key: []byte("k"), Value: []byte(v)}
		body := r.AppendTo(nil)[1:] // without the length, which is 0 and one byte long
		r.Length = int32(len(body))
		batch.Records = append(batch.Records, r.AppendTo(nil)...)
	}
	const behindLength, crcAt, behindCRC = 12, 17, 21
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-behindLength))
	sum := crc32.Checksum(raw[behindCRC:], crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(raw[crcAt:], sum)
	return raw
}
