package conformance

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/differential"
)

// transactionProbes are of the keys that go to transaction coordinators.
func transactionProbes() []probe {
	return []probe{
		{key: int16(kmsg.InitProducerID), run: probeInitProducerID, rules: []differential.Rule{{Field: "ProducerID", As: differential.Number}}},
		{key: int16(kmsg.AddPartitionsToTxn), run: probeAddPartitionsToTxn},
		{key: int16(kmsg.AddOffsetsToTxn), run: probeAddOffsetsToTxn},
		{key: int16(kmsg.EndTxn), run: probeEndTxn, rules: []differential.Rule{{Field: "ProducerID", As: differential.Number}}},
		{key: int16(kmsg.TxnOffsetCommit), run: probeTxnOffsetCommit},
		{key: int16(kmsg.DescribeTransactions), run: probeDescribeTransactions, rules: []differential.Rule{
			{Field: "TransactionStates[].ProducerID", As: differential.Number},
			{Field: "TransactionStates[].StartTimestamp", As: differential.Set},
		}},
		{key: int16(kmsg.ListTransactions), run: probeListTransactions, rules: []differential.Rule{
			{Field: "TransactionStates[]", As: differential.Own},
			{Field: "TransactionStates[].ProducerID", As: differential.Number},
		}},
	}
}

func initOf(id *string) *kmsg.InitProducerIDRequest {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = id, sessionMillis
	return req
}

// producer registers a transactional id.
func (x *trial) producer(id string) (pid int64, epoch int16) {
	x.t.Helper()
	var resp *kmsg.InitProducerIDResponse
	// A broker that waits for a block of producer ids says that it loads.
	x.until("the coordinator knows "+id, func() bool {
		resp = x.do(initOf(&id)).(*kmsg.InitProducerIDResponse)
		return !kerr.IsRetriable(kerr.ErrorForCode(resp.ErrorCode))
	})
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		x.t.Fatalf("initialise %s: %v", id, err)
	}
	return resp.ProducerID, resp.ProducerEpoch
}

// begun registers a transactional id and adds a partition to its transaction.
func (x *trial) begun(id string) (pid int64, epoch int16) {
	x.t.Helper()
	pid, epoch = x.producer(id)
	resp := x.do(addOf(id, pid, epoch, produced)).(*kmsg.AddPartitionsToTxnResponse)
	if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
		x.t.Fatalf("add a partition to %s: %v", id, err)
	}
	return pid, epoch
}

// end aborts a transaction.
func (x *trial) end(id string, pid int64, epoch int16) {
	x.t.Helper()
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = id, pid, epoch
	if err := kerr.ErrorForCode(x.do(req).(*kmsg.EndTxnResponse).ErrorCode); err != nil {
		x.t.Fatalf("abort of %s: %v", id, err)
	}
	x.ended(id)
}

// ended waits until the markers of a transaction are written, which is after its
// end was answered.
func (x *trial) ended(id string) {
	x.t.Helper()
	x.until("the transaction of "+id+" is complete", func() bool {
		req := kmsg.NewPtrDescribeTransactionsRequest()
		req.TransactionalIDs = []string{id}
		state := x.do(req).(*kmsg.DescribeTransactionsResponse).TransactionStates[0]
		return state.State != "PrepareAbort" && state.State != "PrepareCommit"
	})
}

func probeInitProducerID(x *trial) {
	id := x.vName("init")
	x.ask("no transactional id", initOf(nil))
	resp := x.ask("a transactional id", initOf(&id))
	x.ask("the id again", initOf(&id))
	x.ask("an empty id", initOf(kmsg.StringPtr("")))
	long := initOf(kmsg.StringPtr(x.vName("long")))
	long.TransactionTimeoutMillis = 1 << 30
	x.ask("too long a timeout", long)
	if x.version >= 3 && resp != nil {
		stale := initOf(&id)
		stale.ProducerID, stale.ProducerEpoch = resp.(*kmsg.InitProducerIDResponse).ProducerID, 0
		x.ask("an epoch that has passed", stale)
		half := initOf(&id)
		half.ProducerID, half.ProducerEpoch = 5, -1
		x.ask("a producer id without its epoch", half)
	}
}

func addOf(id string, pid int64, epoch int16, topics ...string) *kmsg.AddPartitionsToTxnRequest {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = id, pid, epoch
	for _, topic := range topics {
		rt := kmsg.NewAddPartitionsToTxnRequestTopic()
		rt.Topic, rt.Partitions = topic, []int32{0}
		req.Topics = append(req.Topics, rt)
	}
	return req
}

func probeAddPartitionsToTxn(x *trial) {
	id := x.vName("adds")
	pid, epoch := x.producer(id)
	x.ask("a partition", addOf(id, pid, epoch, produced))
	x.ask("the partition again", addOf(id, pid, epoch, produced))
	x.ask("two topics, one of them missing", addOf(id, pid, epoch, produced, missing))
	x.ask("an epoch to come", addOf(id, pid, epoch+3, produced))
	x.ask("another producer id", addOf(id, pid+1_000_000, epoch, produced))
	x.ask("an id that is not there", addOf(x.vName("nobody"), pid, epoch, produced))
	x.ask("an empty id", addOf("", pid, epoch, produced))
	x.ask("nothing", addOf(id, pid, epoch))
}

func probeAddOffsetsToTxn(x *trial) {
	id := x.vName("offsets")
	pid, epoch := x.producer(id)
	of := func(id string, pid int64, epoch int16, group string) *kmsg.AddOffsetsToTxnRequest {
		req := kmsg.NewPtrAddOffsetsToTxnRequest()
		req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = id, pid, epoch, group
		return req
	}
	x.ask("a group", of(id, pid, epoch, own+"group"))
	x.ask("the group with an empty name", of(id, pid, epoch, ""))
	x.ask("an epoch to come", of(id, pid, epoch+3, own+"group"))
	x.ask("another producer id", of(id, pid+1_000_000, epoch, own+"group"))
	x.ask("an id that is not there", of(x.vName("nobody"), pid, epoch, own+"group"))
}

func probeEndTxn(x *trial) {
	of := func(id string, pid int64, epoch int16, commit bool) *kmsg.EndTxnRequest {
		req := kmsg.NewPtrEndTxnRequest()
		req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = id, pid, epoch, commit
		return req
	}
	fresh := x.vName("fresh")
	pid, epoch := x.producer(fresh)
	x.ask("the commit of nothing", of(fresh, pid, epoch, true))
	x.ask("the abort of nothing", of(fresh, pid, epoch, false))
	for _, commit := range []bool{true, false} {
		id := x.vName(map[bool]string{true: "commits", false: "aborts"}[commit])
		pid, epoch := x.begun(id)
		x.ask("an epoch to come"+map[bool]string{true: " commits", false: " aborts"}[commit], of(id, pid, epoch+3, commit))
		x.ask(map[bool]string{true: "a commit", false: "an abort"}[commit], of(id, pid, epoch, commit))
		x.ended(id)
	}
	x.ask("an id that is not there", of(x.vName("nobody"), pid, epoch, true))
	x.ask("an empty id", of("", pid, epoch, true))
}

func probeTxnOffsetCommit(x *trial) {
	id, group := x.vName("commits"), x.vName("group")
	pid, epoch := x.producer(id)
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = id, pid, epoch, group
	if err := kerr.ErrorForCode(x.do(add).(*kmsg.AddOffsetsToTxnResponse).ErrorCode); err != nil {
		x.t.Fatalf("add offsets to %s: %v", id, err)
	}
	of := func(group string, pid int64, epoch int16, topics ...string) *kmsg.TxnOffsetCommitRequest {
		req := kmsg.NewPtrTxnOffsetCommitRequest()
		req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch, req.Generation = id, group, pid, epoch, -1
		for _, topic := range topics {
			rt := kmsg.NewTxnOffsetCommitRequestTopic()
			rt.Topic = topic
			rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			rp.Offset, rp.Metadata = 5, kmsg.StringPtr("")
			rt.Partitions = append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
		}
		return req
	}
	x.ask("two topics, one of them missing", of(group, pid, epoch, offsets, missing))
	x.end(id, pid, epoch) // before the epochs to come, which coordinators may believe
	x.ask("an epoch to come", of(group, pid, epoch+3, offsets))
	x.ask("another producer id", of(group, pid+1_000_000, epoch, offsets))
	x.ask("a missing topic", of(group, pid, epoch, missing))
	x.ask("the group with an empty name", of("", pid, epoch, offsets))
	x.ask("nothing", of(group, pid, epoch))
	if x.version >= 3 {
		stranger := of(group, pid, epoch, offsets)
		stranger.MemberID, stranger.Generation = "stranger", 3
		x.ask("of a stranger", stranger)
	}
}

func probeDescribeTransactions(x *trial) {
	id, idle := x.vName("open"), x.vName("idle")
	pid, epoch := x.begun(id)
	x.producer(idle)
	of := func(ids ...string) *kmsg.DescribeTransactionsRequest {
		req := kmsg.NewPtrDescribeTransactionsRequest()
		req.TransactionalIDs = ids
		return req
	}
	x.ask("an open transaction", of(id))
	x.ask("none open, and an id that is not there", of(idle, x.vName("nobody")))
	x.ask("an empty id", of(""))
	x.ask("none", of())
	x.end(id, pid, epoch)
}

func probeListTransactions(x *trial) {
	id, idle := x.vName("open"), x.vName("idle")
	pid, epoch := x.begun(id)
	x.producer(idle)
	x.ask("all", kmsg.NewPtrListTransactionsRequest())
	open := kmsg.NewPtrListTransactionsRequest()
	open.StateFilters = []string{"Ongoing", "Odd"}
	x.ask("open ones, and of a state that does not exist", open)
	mine := kmsg.NewPtrListTransactionsRequest()
	mine.ProducerIDFilters = []int64{pid}
	x.ask("of a producer id", mine)
	if x.version >= 1 {
		old := kmsg.NewPtrListTransactionsRequest()
		old.DurationFilterMillis = 3_600_000
		x.ask("older than an hour", old)
	}
	if x.version >= 2 {
		for name, pattern := range map[string]string{
			"by a pattern": own + "idle.*", "by a pattern that is no regular expression": "(", "by an empty pattern": "",
		} {
			req := kmsg.NewPtrListTransactionsRequest()
			req.TransactionalIDPattern = &pattern
			x.ask(name, req)
		}
	}
	x.end(id, pid, epoch)
}
