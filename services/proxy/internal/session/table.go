package session

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/netio"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// The request keys that code names.
const (
	keyProduce          = int16(kmsg.Produce)
	keyFetch            = int16(kmsg.Fetch)
	keySASLHandshake    = int16(kmsg.SASLHandshake)
	keyApiVersions      = int16(kmsg.ApiVersions)
	keyJoinGroup        = int16(kmsg.JoinGroup)
	keySyncGroup        = int16(kmsg.SyncGroup)
	keySASLAuthenticate = int16(kmsg.SASLAuthenticate)
)

// where says who answers a request.
type where uint8

const (
	local     where = iota // the gateway
	forwarded              // a broker: its versions bound ours
	groupOnly              // a broker that has the consumer protocol (KIP-848)
	shareOnly              // a broker that has share groups (KIP-932), of the one cluster there is
)

// entry is one request key: what is served of it and how.
type entry struct {
	name     string
	key      int16
	min, max int16
	where    where
	handle   func(*Session, context.Context, kmsg.Request) (kmsg.Response, error)

	// Produce and Fetch only: hot forwards a frame without decoding it, or
	// reports false; answer maps the broker's frame, the next size bytes of the
	// reader, for the client.
	hot    func(*Session, context.Context, *header, []byte) (bool, error)
	answer func(*Session, *upstream.Conn, *netio.Reader, int, *upstream.Pending) error

	tv2      int16 // first version that means transaction.version 2 (KIP-890); 0: none does
	flexible int16 // first flexible version, -1: none; set from kmsg
}

// table lists everything that is served (PROTOCOL.md §A). What is not here does
// not exist: the connection is closed, as a broker does for a key it has not.
var table []*entry

var byKey [128]*entry // table, found in one step

func entries() []*entry {
	return []*entry{
		{name: "Produce", key: 0, min: 3, max: 13, where: forwarded, handle: produce, hot: (*Session).produceHot, answer: (*Session).produceAnswer},
		{name: "Fetch", key: 1, min: 4, max: 18, where: forwarded, handle: fetch, hot: (*Session).fetchHot, answer: (*Session).fetchAnswer},
		{name: "ListOffsets", key: 2, min: 1, max: 11, where: forwarded, handle: listOffsets},
		{name: "Metadata", key: 3, min: 0, max: 13, where: local, handle: metadata},
		{name: "OffsetCommit", key: 8, min: 2, max: 10, where: forwarded, handle: offsetCommit},
		{name: "OffsetFetch", key: 9, min: 1, max: 10, where: forwarded, handle: offsetFetch},
		{name: "FindCoordinator", key: 10, min: 0, max: 6, where: forwarded, handle: findCoordinator},
		{name: "JoinGroup", key: 11, min: 0, max: 9, where: forwarded, handle: joinGroup},
		{name: "Heartbeat", key: 12, min: 0, max: 4, where: forwarded, handle: heartbeat},
		{name: "LeaveGroup", key: 13, min: 0, max: 5, where: forwarded, handle: leaveGroup},
		{name: "SyncGroup", key: 14, min: 0, max: 5, where: forwarded, handle: syncGroup},
		{name: "DescribeGroups", key: 15, min: 0, max: 6, where: forwarded, handle: describeGroups},
		{name: "ListGroups", key: 16, min: 0, max: 5, where: forwarded, handle: listGroups},
		{name: "SaslHandshake", key: 17, min: 0, max: 1, where: local, handle: saslHandshake},
		{name: "ApiVersions", key: 18, min: 0, max: 4, where: local, handle: apiVersions},
		{name: "CreateTopics", key: 19, min: 2, max: 7, where: forwarded, handle: createTopics},
		{name: "DeleteTopics", key: 20, min: 1, max: 6, where: forwarded, handle: deleteTopics},
		{name: "DeleteRecords", key: 21, min: 0, max: 2, where: forwarded, handle: deleteRecords},
		{name: "InitProducerId", key: 22, min: 0, max: 5, where: forwarded, handle: initProducerID},
		{name: "OffsetForLeaderEpoch", key: 23, min: 2, max: 4, where: forwarded, handle: offsetForLeaderEpoch},
		{name: "AddPartitionsToTxn", key: 24, min: 0, max: 3, where: forwarded, handle: addPartitionsToTxn},
		{name: "AddOffsetsToTxn", key: 25, min: 0, max: 4, where: forwarded, handle: addOffsetsToTxn},
		{name: "EndTxn", key: 26, min: 0, max: 5, where: forwarded, handle: endTxn, tv2: 5},
		{name: "TxnOffsetCommit", key: 28, min: 0, max: 5, where: forwarded, handle: txnOffsetCommit, tv2: 5},
		{name: "DescribeAcls", key: 29, min: 1, max: 3, where: local, handle: describeACLs},
		{name: "CreateAcls", key: 30, min: 1, max: 3, where: local, handle: createACLs},
		{name: "DeleteAcls", key: 31, min: 1, max: 3, where: local, handle: deleteACLs},
		{name: "DescribeConfigs", key: 32, min: 1, max: 4, where: forwarded, handle: describeConfigs},
		{name: "AlterConfigs", key: 33, min: 0, max: 2, where: forwarded, handle: alterConfigs},
		{name: "DescribeLogDirs", key: 35, min: 1, max: 4, where: forwarded, handle: describeLogDirs},
		{name: "SaslAuthenticate", key: 36, min: 0, max: 2, where: local, handle: saslAuthenticate},
		{name: "CreatePartitions", key: 37, min: 0, max: 3, where: forwarded, handle: createPartitions},
		{name: "DeleteGroups", key: 42, min: 0, max: 2, where: forwarded, handle: deleteGroups},
		{name: "IncrementalAlterConfigs", key: 44, min: 0, max: 1, where: forwarded, handle: incrementalAlterConfigs},
		{name: "ListPartitionReassignments", key: 46, min: 0, max: 0, where: local, handle: listPartitionReassignments},
		{name: "OffsetDelete", key: 47, min: 0, max: 0, where: forwarded, handle: offsetDelete},
		{name: "DescribeClientQuotas", key: 48, min: 0, max: 1, where: local, handle: describeClientQuotas},
		{name: "AlterClientQuotas", key: 49, min: 0, max: 1, where: local, handle: alterClientQuotas},
		{name: "DescribeUserScramCredentials", key: 50, min: 0, max: 0, where: local, handle: describeUserSCRAMCredentials},
		{name: "AlterUserScramCredentials", key: 51, min: 0, max: 0, where: local, handle: alterUserSCRAMCredentials},
		{name: "DescribeCluster", key: 60, min: 0, max: 2, where: local, handle: describeCluster},
		{name: "DescribeProducers", key: 61, min: 0, max: 0, where: forwarded, handle: describeProducers},
		{name: "DescribeTransactions", key: 65, min: 0, max: 0, where: forwarded, handle: describeTransactions},
		{name: "ListTransactions", key: 66, min: 0, max: 2, where: forwarded, handle: listTransactions},
		{name: "ConsumerGroupHeartbeat", key: 68, min: 0, max: 1, where: groupOnly, handle: consumerGroupHeartbeat},
		{name: "ConsumerGroupDescribe", key: 69, min: 0, max: 1, where: groupOnly, handle: consumerGroupDescribe},
		{name: "ListConfigResources", key: 74, min: 0, max: 1, where: local, handle: listConfigResources},
		{name: "DescribeTopicPartitions", key: 75, min: 0, max: 0, where: local, handle: describeTopicPartitions},
		{name: "ShareGroupHeartbeat", key: 76, min: 1, max: 1, where: shareOnly, handle: shareGroupHeartbeat},
		{name: "ShareGroupDescribe", key: 77, min: 1, max: 1, where: shareOnly, handle: shareGroupDescribe},
		{name: "ShareFetch", key: 78, min: 1, max: 2, where: shareOnly, handle: shareFetch},
		{name: "ShareAcknowledge", key: 79, min: 1, max: 2, where: shareOnly, handle: shareAcknowledge},
		{name: "DescribeShareGroupOffsets", key: 90, min: 0, max: 1, where: shareOnly, handle: describeShareGroupOffsets},
		{name: "AlterShareGroupOffsets", key: 91, min: 0, max: 0, where: shareOnly, handle: alterShareGroupOffsets},
		{name: "DeleteShareGroupOffsets", key: 92, min: 0, max: 0, where: shareOnly, handle: deleteShareGroupOffsets},
	}
}

// The table is filled here because handlers refer to it; it never changes after.
func init() {
	table = entries()
	for _, e := range table {
		e.flexible = -1
		for v := e.min; v <= e.max; v++ {
			req := kmsg.RequestForKey(e.key)
			req.SetVersion(v)
			if req.IsFlexible() {
				e.flexible = v
				break
			}
		}
		byKey[e.key] = e
	}
}

func entryOf(key int16) *entry {
	if key < 0 || int(key) >= len(byKey) {
		return nil
	}
	return byKey[key]
}

// offered is what this session's clients were told, or will be.
func (s *Session) offered() *view.Offer {
	if s.offer == nil {
		s.offer = s.vc.Offer()
	}
	return s.offer
}

// versions is the range of e that a virtual cluster offers; false: none.
func (e *entry) versions(o *view.Offer) (low, high int16, ok bool) {
	if e.where == local {
		return e.min, e.max, true
	}
	r, known := o.Ranges[e.key]
	if !known || e.where == groupOnly && !o.Groups || e.where == shareOnly && !o.Shares {
		return 0, 0, false
	}
	low, high = max(e.min, r.Min), min(e.max, r.Max)
	switch {
	case e.key == keyProduce:
		low = 0 // librdkafka switches codecs off otherwise (KAFKA-18659)
	case e.tv2 > 0 && o.Finalized["transaction.version"] < 2:
		high = min(high, e.tv2-1)
	}
	return low, high, low <= high
}

// offers reports whether a version is served. While the brokers' are not known
// everything in the table is: the answer will be that no broker can be had.
func (e *entry) offers(o *view.Offer, version int16) bool {
	if o == nil {
		return version >= e.min && version <= e.max
	}
	low, high, ok := e.versions(o)
	return ok && version >= low && version <= high
}

// phase is how far a connection has come in authentication:
//
//	connected --SaslHandshake--> handshaken --last SaslAuthenticate--> authenticated
//	                                 '<----------SaslHandshake-----------'
//
// A request that its phase does not admit ends the session. A connection that
// needs no SASL begins authenticated.
type phase uint8

const (
	connected phase = iota
	handshaken
	rawTokens // after SaslHandshake v0: tokens without a Kafka header
	authenticated
)

func (p phase) admits(key int16) bool {
	switch p {
	case connected:
		return key == keyApiVersions || key == keySASLHandshake
	case handshaken:
		return key == keySASLAuthenticate
	case authenticated:
		return true // SaslAuthenticate out of order gets ILLEGAL_SASL_STATE
	}
	return false
}

// Time the broker may take before its connection counts as stalled, beyond what
// the request itself allows it.
const grace = 10 * time.Second
