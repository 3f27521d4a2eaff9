package conformance

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/differential"
	"tollgate.internal/e2e/internal/rawkafka"
)

// dataProbes are of the keys that go to partition leaders, and of Metadata.
func dataProbes() []probe {
	return []probe{
		{key: int16(kmsg.Produce), run: probeProduce, rules: []differential.Rule{
			{Field: "Topics[].Partitions[].ErrorMessage", As: differential.Text},
			{Field: "Topics[].Partitions[].ErrorRecords[].ErrorMessage", As: differential.Text},
			{Field: "Topics[].TopicID", As: differential.TopicID},
		}},
		{key: int16(kmsg.Fetch), run: probeFetch, rules: []differential.Rule{
			{Field: "Topics[].TopicID", As: differential.TopicID},
			{Field: "SessionID", As: differential.Set},
		}},
		{key: int16(kmsg.ListOffsets), run: probeListOffsets},
		{key: int16(kmsg.Metadata), run: probeMetadata, rules: []differential.Rule{
			{Field: "Brokers[].Host", As: differential.Host},
			{Field: "Brokers[].Port", As: differential.Set},
			{Field: "ClusterID", As: differential.ClusterID},
			{Field: "Topics[]", As: differential.Own},
			{Field: "Topics[].TopicID", As: differential.TopicID},
		}},
		{key: int16(kmsg.DeleteRecords), run: probeDeleteRecords},
		{key: int16(kmsg.OffsetForLeaderEpoch), run: probeOffsetForLeaderEpoch},
		{key: int16(kmsg.DescribeProducers), run: probeDescribeProducers, rules: []differential.Rule{
			{Field: "Topics[].Partitions[].ErrorMessage", As: differential.Text},
			{Field: "Topics[].Partitions[].ActiveProducers[].ProducerID", As: differential.Number},
			{Field: "Topics[].Partitions[].ActiveProducers[].LastTimestamp", As: differential.Set},
		}},
	}
}

// produceOf is a request for one partition; in versions with ids the topic goes by
// its id.
func (x *trial) produceOf(topic string, partition int32, batch []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID = topic, x.idOr(topic)
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = partition, batch
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

func probeProduce(x *trial) {
	produced := x.vName("produced")
	x.createTopics(map[string]int32{produced: 2})
	batch := rawkafka.Batch{Values: []string{"one", "two"}}.Bytes()
	x.ask("records", x.produceOf(produced, 0, batch))
	leader := x.produceOf(produced, 1, batch)
	leader.Acks = 1
	x.ask("acks of the leader only", leader)
	both := x.produceOf(produced, 0, batch)
	both.Topics[0].Partitions = append(both.Topics[0].Partitions, x.produceOf(produced, 1, batch).Topics[0].Partitions...)
	both.Topics = append(both.Topics, x.produceOf(missing, 0, batch).Topics...)
	x.ask("two topics, one of them missing", both)
	x.ask("a missing topic", x.produceOf(missing, 0, batch))
	x.ask("a missing partition", x.produceOf(produced, 7, batch))
	odd := x.produceOf(produced, 0, batch)
	odd.Acks = 2
	x.ask("acks that do not exist", odd)
	corrupt := rawkafka.Batch{Values: []string{"one"}}.Bytes()
	corrupt[len(corrupt)-1] ^= 1
	x.ask("a wrong checksum", x.produceOf(produced, 0, corrupt))
	x.ask("no batch", x.produceOf(produced, 0, []byte{}))
	x.ask("two batches", x.produceOf(produced, 0, append(append([]byte{}, batch...), batch...)))
	x.ask("a transactional batch without a transactional id",
		x.produceOf(produced, 0, rawkafka.Batch{Values: []string{"t"}, Transactional: true, ProducerID: 1 << 52}.Bytes()))
	first := rawkafka.Batch{Values: []string{"i"}, Idempotent: true, ProducerID: 1<<52 + int64(x.version), Sequence: 0}
	x.ask("the first of a sequence", x.produceOf(produced, 0, first.Bytes()))
	x.ask("the first of a sequence again", x.produceOf(produced, 0, first.Bytes()))
	first.Sequence = 9
	x.ask("a gap in the sequence", x.produceOf(produced, 0, first.Bytes()))
	x.ask("a timestamp in the far future", x.produceOf(produced, 0, rawkafka.Batch{Values: []string{"late"}, Timestamp: 9_000_000_000_000}.Bytes()))
	none := x.produceOf(produced, 0, batch)
	none.Topics = nil
	x.ask("nothing", none)
}

// fetchOf is a request for one partition from an offset on.
func (x *trial) fetchOf(topic string, partition int32, offset int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes, req.SessionEpoch = 1<<20, -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = topic, x.idOr(topic)
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = partition, offset, 1<<20
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

func probeFetch(x *trial) {
	x.ask("all records", x.fetchOf(records, 0, 0))
	x.ask("from the middle", x.fetchOf(records, 0, 4))
	committed := x.fetchOf(records, 0, 0)
	committed.IsolationLevel = 1
	x.ask("committed records", committed)
	x.ask("the end", x.fetchOf(records, 0, 6))
	long := x.fetchOf(records, 1, 0)
	long.MaxWaitMillis, long.MinBytes = 30, 1
	x.ask("an empty partition, waiting", long)
	x.ask("behind the end", x.fetchOf(records, 0, 100))
	x.ask("a missing partition", x.fetchOf(records, 9, 0))
	x.ask("a missing topic", x.fetchOf(missing, 0, 0))
	both := x.fetchOf(records, 0, 0)
	both.Topics = append(both.Topics, x.fetchOf(missing, 0, 0).Topics...)
	both.Topics[0].Partitions = append(both.Topics[0].Partitions, x.fetchOf(records, 1, 0).Topics[0].Partitions...)
	x.ask("two topics, one of them missing", both)
	small := x.fetchOf(records, 0, 0)
	small.MaxBytes, small.Topics[0].Partitions[0].PartitionMaxBytes = 1, 1
	x.ask("less than one batch", small)
	for _, epoch := range []int32{0, 5} {
		known := x.fetchOf(records, 0, 0)
		known.Topics[0].Partitions[0].CurrentLeaderEpoch = epoch
		x.ask(map[int32]string{0: "the leader epoch", 5: "a leader epoch to come"}[epoch], known)
	}
	if x.version >= 12 {
		diverged := x.fetchOf(records, 0, 6)
		diverged.Topics[0].Partitions[0].LastFetchedEpoch = 7
		x.ask("a fetched epoch that never was", diverged)
	}
	if x.version < 7 {
		return
	}
	full := x.fetchOf(records, 0, 0)
	full.SessionEpoch = 0
	full.Topics[0].Partitions = append(full.Topics[0].Partitions, x.fetchOf(records, 1, 0).Topics[0].Partitions...)
	resp := x.ask("a new session", full)
	if resp == nil {
		return
	}
	session := resp.(*kmsg.FetchResponse).SessionID
	next := kmsg.NewPtrFetchRequest()
	next.MaxBytes, next.SessionID, next.SessionEpoch = 1<<20, session, 1
	x.ask("the session goes on", next)
	forward := x.fetchOf(records, 0, 6)
	forward.SessionID, forward.SessionEpoch = session, 2
	forgotten := kmsg.NewFetchRequestForgottenTopic()
	forgotten.Topic, forgotten.TopicID, forgotten.Partitions = records, x.id(records), []int32{1}
	forward.ForgottenTopics = append(forward.ForgottenTopics, forgotten)
	x.ask("the session moves on and forgets a partition", forward)
	wrong := kmsg.NewPtrFetchRequest()
	wrong.MaxBytes, wrong.SessionID, wrong.SessionEpoch = 1<<20, session, 9
	x.ask("a wrong epoch of the session", wrong)
	last := x.fetchOf(records, 0, 6)
	last.SessionID, last.SessionEpoch = session, -1
	x.ask("the session ends", last)
	unknown := kmsg.NewPtrFetchRequest()
	unknown.MaxBytes, unknown.SessionID, unknown.SessionEpoch = 1<<20, session, 3
	x.ask("a session that has ended", unknown)
	mixed := x.fetchOf(records, 0, 0)
	mixed.SessionEpoch = 0
	mixed.Topics = append(mixed.Topics, x.fetchOf(missing, 0, 0).Topics...)
	x.ask("a new session with a missing topic", mixed)
	end := x.fetchOf(records, 0, 6)
	end.SessionID, end.SessionEpoch = 0, -1
	x.ask("no session", end)
}

func listOffsetsOf(topic string, partition int32, timestamp int64) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.TimeoutMillis = -1, 10_000
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Partition, rp.Timestamp, rp.MaxNumOffsets = partition, timestamp, 1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

func probeListOffsets(x *trial) {
	for name, timestamp := range map[string]int64{
		"the end": -1, "the beginning": -2, "the newest timestamp": -3, "the beginning on the broker's disk": -4,
		"the end in remote storage": -5, "the first not yet in remote storage": -6, "a kind that does not exist": -9,
		"a time": rawkafka.Epoch, "a time to come": rawkafka.Epoch + 1,
	} {
		x.ask(name, listOffsetsOf(records, 0, timestamp))
	}
	committed := listOffsetsOf(records, 0, -1)
	committed.IsolationLevel = 1
	x.ask("the last stable offset", committed)
	x.ask("a missing topic", listOffsetsOf(missing, 0, -1))
	x.ask("a missing partition", listOffsetsOf(records, 9, -1))
	both := listOffsetsOf(records, 0, -1)
	both.Topics = append(both.Topics, listOffsetsOf(missing, 0, -1).Topics...)
	x.ask("two topics, one of them missing", both)
	twice := listOffsetsOf(records, 0, -1)
	twice.Topics[0].Partitions = append(twice.Topics[0].Partitions, twice.Topics[0].Partitions[0])
	x.ask("a partition twice", twice)
	if x.version >= 4 {
		ahead := listOffsetsOf(records, 0, -1)
		ahead.Topics[0].Partitions[0].CurrentLeaderEpoch = 5
		x.ask("a leader epoch to come", ahead)
	}
}

func (x *trial) metadataOf(topics ...string) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	for _, name := range topics {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, rt)
	}
	return req
}

func probeMetadata(x *trial) {
	x.ask("a topic", x.metadataOf(records))
	x.ask("two topics, one of them missing", x.metadataOf(missing, offsets))
	x.ask("a topic twice", x.metadataOf(records, records))
	x.ask("no name is legal", x.metadataOf("d/slash", "..", ""))
	x.ask("a missing topic that might be created", func() *kmsg.MetadataRequest {
		req := x.metadataOf(missing)
		req.AllowAutoTopicCreation = true
		return req
	}())
	all := kmsg.NewPtrMetadataRequest()
	all.IncludeTopicAuthorizedOperations, all.IncludeClusterAuthorizedOperations = true, true
	x.ask("all topics, and what may be done with them", all)
	x.ask("no topics", x.metadataOf())
	if x.version < 12 {
		return
	}
	byID := func(id [16]byte) *kmsg.MetadataRequest {
		req := x.metadataOf(records)
		req.Topics[0].Topic, req.Topics[0].TopicID = nil, id
		return req
	}
	x.ask("a topic by id", byID(x.id(records)))
	x.ask("an id of no topic", byID(unknownID))
	both := x.metadataOf(records)
	both.Topics[0].TopicID = x.id(records)
	x.ask("a topic by name and id", both)
}

func probeDeleteRecords(x *trial) {
	topic := x.vName("shrinks")
	x.createTopics(map[string]int32{topic: 1})
	x.produce(topic, 0, rawkafka.Batch{Values: []string{"a", "b", "c"}})
	of := func(topic string, partition int32, offset int64) *kmsg.DeleteRecordsRequest {
		req := kmsg.NewPtrDeleteRecordsRequest()
		req.TimeoutMillis = 10_000
		rt := kmsg.NewDeleteRecordsRequestTopic()
		rt.Topic = topic
		rp := kmsg.NewDeleteRecordsRequestTopicPartition()
		rp.Partition, rp.Offset = partition, offset
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		return req
	}
	x.ask("to an offset", of(topic, 0, 2))
	x.ask("to the end", of(topic, 0, -1))
	x.ask("behind the end", of(topic, 0, 100))
	x.ask("a missing partition", of(topic, 4, 1))
	both := of(topic, 0, -1)
	both.Topics = append(both.Topics, of(missing, 0, 1).Topics...)
	x.ask("two topics, one of them missing", both)
}

func probeOffsetForLeaderEpoch(x *trial) {
	of := func(topic string, partition, epoch int32) *kmsg.OffsetForLeaderEpochRequest {
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		req.ReplicaID = -1
		rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
		rt.Topic = topic
		rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		rp.Partition, rp.LeaderEpoch = partition, epoch
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		return req
	}
	x.ask("an epoch", of(records, 0, 0))
	x.ask("an epoch to come", of(records, 0, 8))
	x.ask("no epoch", of(records, 0, -1))
	x.ask("a missing topic", of(missing, 0, 0))
	x.ask("a missing partition", of(records, 9, 0))
	ahead := of(records, 0, 0)
	ahead.Topics[0].Partitions[0].CurrentLeaderEpoch = 5
	x.ask("a leader epoch to come", ahead)
	both := of(records, 0, 0)
	both.Topics = append(both.Topics, of(missing, 0, 0).Topics...)
	x.ask("two topics, one of them missing", both)
}

func probeDescribeProducers(x *trial) {
	topic := x.vName("written")
	x.createTopics(map[string]int32{topic: 1})
	x.produce(topic, 0, rawkafka.Batch{Values: []string{"a", "b"}, Idempotent: true, ProducerID: 1 << 52})
	of := func(topic string, partitions ...int32) *kmsg.DescribeProducersRequest {
		req := kmsg.NewPtrDescribeProducersRequest()
		rt := kmsg.NewDescribeProducersRequestTopic()
		rt.Topic, rt.Partitions = topic, partitions
		req.Topics = append(req.Topics, rt)
		return req
	}
	x.ask("a producer", of(topic, 0))
	x.ask("no producer", of(records, 1))
	x.ask("a missing partition", of(topic, 0, 3))
	both := of(topic, 0)
	both.Topics = append(both.Topics, of(missing, 0).Topics...)
	x.ask("two topics, one of them missing", both)
}
