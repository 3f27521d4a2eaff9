package conformance

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/rawkafka"
)

// Why some answers are not a broker's.
const (
	aliasesOnly  = "a partner virtual cluster has alias topics only: none are created, and what an alias stands for is not deleted"
	notTheirs    = "what belongs to others does not exist"
	asConsumer   = "the replica id of a request is forced to that of a consumer"
	neverOffered = "not offered: the connection is closed, as a broker does for a key or version it has not"
	longerNames  = "the prefix of the virtual cluster counts"
)

// Requests that vectors ask for, in the newest version all have.

func askMetadata(topics ...string) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	for _, name := range topics {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, rt)
	}
	return req
}

func askMetadataByID(id [16]byte) *kmsg.MetadataRequest {
	req := askMetadata("")
	req.Topics[0].Topic, req.Topics[0].TopicID = nil, id
	return req
}

// askFetch is of version 12, the last with names.
func askFetch(topics ...string) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxBytes, req.SessionEpoch = 12, 1<<20, -1
	for _, name := range topics {
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic = name
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.PartitionMaxBytes = 1 << 20
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
	}
	return req
}

func askListOffsets(topics ...string) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	for _, name := range topics {
		req.Topics = append(req.Topics, listOffsetsOf(name, 0, -1).Topics...)
	}
	return req
}

func askProduce(topics ...string) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = 9, -1, 10_000
	for _, name := range topics {
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic = name
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Records = rawkafka.Batch{Values: []string{"one"}}.Bytes()
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
	}
	return req
}

func askCoordinator(kind int8, keys ...string) *kmsg.FindCoordinatorRequest {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorType, req.CoordinatorKeys = kind, keys
	return req
}

// askCommit is of version 9, the last with names.
func askCommit(group string, topics ...string) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.Generation = 9, group, -1
	for _, name := range topics {
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic = name
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		rp.Offset, rp.Metadata = 1, kmsg.StringPtr("")
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
	}
	return req
}

// askOffsets is of version 9, the last with names; without topics it asks for all.
func askOffsets(group string, topics ...string) *kmsg.OffsetFetchRequest {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Version = 9
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	for _, name := range topics {
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		gt.Topic, gt.Partitions = name, []int32{0}
		g.Topics = append(g.Topics, gt)
	}
	req.Groups = append(req.Groups, g)
	return req
}

func askConfigs(kind kmsg.ConfigResourceType, names ...string) *kmsg.DescribeConfigsRequest {
	req := kmsg.NewPtrDescribeConfigsRequest()
	for _, name := range names {
		rr := kmsg.NewDescribeConfigsRequestResource()
		rr.ResourceType, rr.ResourceName, rr.ConfigNames = kind, name, []string{"retention.ms"}
		req.Resources = append(req.Resources, rr)
	}
	return req
}

func askCreate(names ...string) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 30_000
	for _, name := range names {
		req.Topics = append(req.Topics, newTopic(name, 1))
	}
	return req
}

func askDescribeGroups(operations bool, groups ...string) *kmsg.DescribeGroupsRequest {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups, req.IncludeAuthorizedOperations = groups, operations
	return req
}

func askACLs(pattern kmsg.ACLResourcePatternType, name *string) *kmsg.DescribeACLsRequest {
	req := kmsg.NewPtrDescribeACLsRequest()
	req.ResourceType, req.ResourcePatternType, req.ResourceName = kmsg.ACLResourceTypeTopic, pattern, name
	req.Operation, req.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
	return req
}

// vectors are the table.
func vectors() []vector {
	return []vector{
		{
			number: 1, name: "a literal ACL allows its name and no other", topics: []string{"v1-orders", "v1-orders2"},
			acls: []string{"v1 ALLOW READ topic v1-orders"},
			run: func(x *exam) {
				x.ask("v1", "fetch", "29", askFetch("v1-orders", "v1-orders2"))
				x.ask("v1", "metadata", "29", askMetadata("v1-orders", "v1-orders2"))
				x.ask("v1", "produce", "29", askProduce("v1-orders"))
			},
		},
		{
			number: 2, name: "a prefixed ACL allows the prefix and longer names", topics: []string{"v2-orders", "v2-or", "v2-o"},
			acls: []string{"v2 ALLOW READ topic v2-or prefixed"},
			run: func(x *exam) {
				x.ask("v2", "fetch", "29", askFetch("v2-orders", "v2-or", "v2-o"))
			},
		},
		{
			number: 3, name: "a wildcard allows every name", topics: []string{"v3-orders"},
			acls: []string{"v3 ALLOW READ topic *"},
			run: func(x *exam) {
				x.ask("v3", "fetch", "3", askFetch("v3-orders", "v3-missing"))
				x.ask("v3", "metadata", "3", askMetadata("v3-orders", "v3-missing"))
			},
		},
		{
			number: 4, name: "a prefix that is a star is no wildcard", topics: []string{"v4-orders"},
			acls: []string{"v4 ALLOW READ topic * prefixed"},
			run: func(x *exam) {
				x.ask("v4", "fetch", "29", askFetch("v4-orders"))
			},
		},
		{
			number: 5, name: "a prefix that is denied beats a name that is allowed", topics: []string{"v5-orders", "v5-other"},
			acls: []string{"v5 ALLOW READ topic v5-orders", "v5 DENY READ topic v5-o prefixed"},
			run: func(x *exam) {
				x.ask("v5", "fetch", "29 29", askFetch("v5-orders", "v5-other"))
			},
		},
		{
			number: 6, name: "what is denied to everybody is denied to whom it is allowed", topics: []string{"v6-orders"},
			acls: []string{"v6 ALLOW READ topic v6-orders", "* DENY READ topic v6-orders"},
			run: func(x *exam) {
				x.ask("v6", "fetch", "29", askFetch("v6-orders"))
			},
		},
		{
			number: 7, name: "an ACL may be of one host", topics: []string{"v7-here", "v7-there", "v7-only"},
			acls: []string{
				"v7 ALLOW READ topic v7- prefixed", "v7 DENY READ topic v7-here from 127.0.0.1", "v7 DENY READ topic v7-there from 10.1.1.1",
				"v7 ALLOW WRITE topic v7-only from 127.0.0.1", "v7 ALLOW WRITE topic v7-there from 10.1.1.1",
			},
			run: func(x *exam) {
				x.ask("v7", "fetch", "29", askFetch("v7-here", "v7-there"))
				x.ask("v7", "produce", "29", askProduce("v7-only", "v7-there"))
			},
		},
		{
			number: 8, name: "nothing is denied to a super user", topics: []string{"v8-orders"},
			acls: []string{"* DENY ALL topic v8-orders", "admin DENY ALL topic v8-orders"},
			run: func(x *exam) {
				x.ask("admin", "fetch", "0", askFetch("v8-orders"))
			},
		},
		{
			number: 9, name: "READ, WRITE, DELETE and ALTER imply DESCRIBE, CREATE does not",
			topics: []string{"v9-read", "v9-write", "v9-delete", "v9-alter", "v9-create", "v9-altcfg"},
			acls: []string{
				"v9 ALLOW READ topic v9-read", "v9 ALLOW WRITE topic v9-write", "v9 ALLOW DELETE topic v9-delete", "v9 ALLOW ALTER topic v9-alter",
				"v9 ALLOW CREATE topic v9-create", "v9 ALLOW ALTER_CONFIGS topic v9-altcfg",
				"v9 ALLOW READ group v9-read", "v9 ALLOW DELETE group v9-delete", "v9 ALLOW WRITE transactional_id v9-write",
			},
			run: func(x *exam) {
				x.ask("v9", "metadata", "29 29", askMetadata("v9-read", "v9-write", "v9-delete", "v9-alter", "v9-create", "v9-altcfg"))
				x.ask("v9", "offsets", "29 29", askListOffsets("v9-read", "v9-write", "v9-delete", "v9-alter", "v9-create", "v9-altcfg"))
				x.ask("v9", "groups", "30", askCoordinator(0, "v9-read", "v9-delete", "v9-none"))
				x.ask("v9", "transactions", "53", askCoordinator(1, "v9-write", "v9-none"))
				x.ask("v9", "configs", "29", askConfigs(kmsg.ConfigResourceTypeTopic, "v9-altcfg", "v9-alter"))
			},
		},
		{
			number: 10, name: "to deny READ leaves DESCRIBE", topics: []string{"v10-orders"},
			acls: []string{"v10 ALLOW READ topic v10-orders", "v10 DENY READ topic v10-orders"},
			run: func(x *exam) {
				x.ask("v10", "metadata", "0", askMetadata("v10-orders"))
				x.ask("v10", "fetch", "29", askFetch("v10-orders"))
			},
		},
		{
			number: 11, name: "ALL is every operation, allowed or denied", topics: []string{"v11-all", "v11-butread", "v11-none"},
			acls: []string{
				"v11 ALLOW ALL topic v11-all", "v11 ALLOW ALL topic v11-butread", "v11 DENY READ topic v11-butread",
				"v11 ALLOW READ topic v11-none", "v11 DENY ALL topic v11-none",
			},
			run: func(x *exam) {
				x.ask("v11", "fetch", "29 29", askFetch("v11-all", "v11-butread", "v11-none"))
				x.ask("v11", "produce", "29", askProduce("v11-all", "v11-butread", "v11-none"))
				x.ask("v11", "metadata", "29", askMetadata("v11-all", "v11-butread", "v11-none"))
			},
		},
		{
			number: 12, name: "without any ACL a topic is denied", topics: []string{"v12-free", "v12-taken"},
			acls: []string{"v12other ALLOW READ topic v12-taken"},
			run: func(x *exam) {
				x.ask("v12", "fetch", "29 29", askFetch("v12-free", "v12-taken"))
				x.ask("v12other", "fetch of whom it is allowed", "0", askFetch("v12-taken"))
			},
		},
		{
			number: 12, name: "where that is said, a topic without any ACL is everybody's", topics: []string{"v12-free", "v12-taken"}, open: true,
			acls: []string{"v12other ALLOW READ topic v12-taken"},
			run: func(x *exam) {
				x.ask("v12", "fetch", "29", askFetch("v12-free", "v12-taken"))
				x.ask("v12", "metadata", "29", askMetadata("v12-free", "v12-taken"))
				x.ask("v12", "a group without any", "0", askCoordinator(0, "v12-group"))
			},
		},
		{
			number: 13, name: "Metadata shows as little of what is hidden as of what is missing", topics: []string{"v13-hidden", "v13-seen"},
			acls: []string{"v13 ALLOW DESCRIBE topic v13-seen", "v13all ALLOW DESCRIBE topic *"},
			run: func(x *exam) {
				x.ask("v13", "by name", "29 29", askMetadata("v13-seen", "v13-hidden", "v13-absent"))
				x.ask("v13", "by id", "29", askMetadataByID(x.id("v13-hidden")))
				x.ask("v13", "by an id of no topic", "100", askMetadataByID(unknownID))
				x.ask("v13", "all", "0", kmsg.NewPtrMetadataRequest())
				x.same("v13", "hidden and missing", askMetadata("v13-hidden"), "v13-hidden", askMetadata("v13-absent"), "v13-absent")
				if x.name == "broker" {
					return
				}
				// What others have is as missing: topics of the cluster, and of the gateway itself.
				x.same("v13all", "another's topic", askMetadata("shop.v13-hidden"), "shop.v13-hidden", askMetadata("none.v13-hidden"), "none.v13-hidden")
				x.same("v13all", "a topic with a prefix", askMetadata("standard.v13-seen"), "standard.v13-seen", askMetadata("nonsense.v13-seen"), "nonsense.v13-seen")
				x.same("v13all", "what the gateway keeps", askMetadata("__tg.v13-keep"), "__tg.v13-keep", askMetadata("none.v13-keep"), "none.v13-keep")
				x.same("v13all", "an internal topic", askMetadata("__consumer_offsets"), "__consumer_offsets", askMetadata("__konsumer_offsets"), "__konsumer_offsets")
			},
		},
		{
			number: 14, name: "OffsetCommit judges each topic", topics: []string{"v14-mine", "v14-other"},
			acls: []string{"v14 ALLOW READ group v14-group", "v14 ALLOW READ topic v14-mine", "v14 ALLOW READ topic v14-missing"},
			run: func(x *exam) {
				x.ask("v14", "mixed", "3 29 29", askCommit("v14-group", "v14-mine", "v14-missing", "v14-other", "v14-absent"))
				x.ask("v14", "another group", "30 30", askCommit("v14-other", "v14-mine", "v14-other"))
				byID := askCommit("v14-group", "", "", "")
				byID.Version = 10
				byID.Topics[0].TopicID, byID.Topics[1].TopicID, byID.Topics[2].TopicID = x.id("v14-mine"), x.id("v14-other"), unknownID
				x.ask("v14", "by id", "29 100", byID)
			},
		},
		{
			number: 15, name: "OffsetFetch of all topics leaves out what is hidden", topics: []string{"v15-mine", "v15-other"},
			acls: []string{"v15 ALLOW DESCRIBE group v15-group", "v15 ALLOW DESCRIBE topic v15-mine"},
			run: func(x *exam) {
				x.admin(askCommit("v15-group", "v15-mine", "v15-other"))
				x.ask("v15", "all", "0", askOffsets("v15-group"))
				x.ask("v15", "named", "29", askOffsets("v15-group", "v15-mine", "v15-other"))
				x.ask("v15", "another group", "30", askOffsets("v15-other", "v15-mine"))
				x.ask("admin", "all of a super user", "0", askOffsets("v15-group"))
			},
		},
		{
			number: 16, name: "ListGroups shows all to who may describe the cluster, and others theirs", topics: []string{"v16-topic"},
			acls: []string{"v16all ALLOW DESCRIBE cluster kafka-cluster", "v16 ALLOW READ group v16-one"},
			run: func(x *exam) {
				x.admin(askCommit("v16-one", "v16-topic"))
				x.admin(askCommit("v16-two", "v16-topic"))
				x.ask("v16all", "all", "0", kmsg.NewPtrListGroupsRequest())
				x.ask("v16", "one's own", "0", kmsg.NewPtrListGroupsRequest())
			},
		},
		{
			number: 17, name: "InitProducerId is for who may write somewhere",
			acls: []string{
				"v17a ALLOW WRITE topic v17-some prefixed", "v17b ALLOW WRITE topic v17-some prefixed", "v17b DENY WRITE topic v17-so prefixed",
				"v17c ALLOW WRITE topic v17-some prefixed", "v17c DENY WRITE topic *", "v17d ALLOW IDEMPOTENT_WRITE cluster kafka-cluster",
				"v17e ALLOW WRITE topic v17-some", "v17e DENY WRITE topic v17-some", "v17f ALLOW READ topic v17-some",
			},
			run: func(x *exam) {
				x.ask("v17a", "WRITE on a prefix", "0", initOf(nil))
				x.ask("v17b", "a prefix that is denied by a shorter one", "31", initOf(nil))
				x.ask("v17c", "everything is denied", "31", initOf(nil))
				x.ask("v17d", "IDEMPOTENT_WRITE", "0", initOf(nil))
				x.ask("v17e", "the one topic is denied", "31", initOf(nil))
				x.ask("v17f", "READ only", "31", initOf(nil))
				x.ask("v17", "nothing", "31", initOf(nil))
			},
		},
		{
			number: 18, name: "AddPartitionsToTxn refuses all for one", topics: []string{"v18-mine", "v18-other"},
			acls: []string{"v18 ALLOW WRITE transactional_id v18-txn", "v18 ALLOW WRITE topic v18-mine"},
			run: func(x *exam) {
				id := "v18-txn"
				init := x.must("v18", initOf(&id)).(*kmsg.InitProducerIDResponse)
				at3 := func(req *kmsg.AddPartitionsToTxnRequest) *kmsg.AddPartitionsToTxnRequest {
					req.Version = 3
					return req
				}
				x.ask("v18", "one of two", "29 55", at3(addOf(id, init.ProducerID, init.ProducerEpoch, "v18-mine", "v18-other")))
				end := kmsg.NewPtrEndTxnRequest()
				end.Version, end.TransactionalID, end.ProducerID, end.ProducerEpoch = 3, id, init.ProducerID, init.ProducerEpoch
				x.ask("v18", "its abort", "48", end, onGateway("0", "the abort of a transaction of which all was refused is answered by the gateway: 48 is the end of librdkafka's producers (§C3)"))
				x.ask("v18", "the good one", "0", at3(addOf(id, init.ProducerID, init.ProducerEpoch, "v18-mine")))
				x.ask("v18", "another id", "53", at3(addOf("v18-other", init.ProducerID, init.ProducerEpoch, "v18-mine")))
			},
		},
		{
			number: 19, name: "CreateTopics needs CREATE on the cluster or the topic, and DESCRIBE_CONFIGS shows more",
			acls: []string{
				"v19all ALLOW CREATE cluster kafka-cluster", "v19 ALLOW CREATE topic v19-new prefixed",
				"v19cfg ALLOW CREATE cluster kafka-cluster", "v19cfg ALLOW DESCRIBE_CONFIGS topic v19- prefixed",
			},
			run: func(x *exam) {
				x.ask("v19all", "CREATE on the cluster", "0", askCreate("v19-cluster"), onPartner("44", aliasesOnly))
				x.ask("v19", "CREATE on a prefix", "29", askCreate("v19-new-one", "v19-other"), onPartner("29 44", aliasesOnly))
				x.ask("v19cfg", "with its configs", "0", askCreate("v19-shown"), onPartner("44", aliasesOnly))
			},
		},
		{
			number: 20, name: "DeleteTopics by id hides the name without DESCRIBE", topics: []string{"v20-hidden", "v20-seen", "v20-mine", "v20-byid"},
			acls: []string{"v20 ALLOW DESCRIBE topic v20-seen", "v20 ALLOW DELETE topic v20-mine", "v20 ALLOW DELETE topic v20-byid"},
			run: func(x *exam) {
				byID := func(id [16]byte) *kmsg.DeleteTopicsRequest {
					req := kmsg.NewPtrDeleteTopicsRequest()
					req.TimeoutMillis = 30_000
					rt := kmsg.NewDeleteTopicsRequestTopic()
					rt.TopicID = id
					req.Topics = append(req.Topics, rt)
					return req
				}
				byName := func(name string) *kmsg.DeleteTopicsRequest {
					req := byID([16]byte{})
					req.Topics[0].Topic = kmsg.StringPtr(name)
					return req
				}
				x.ask("v20", "hidden, by id", "29", byID(x.id("v20-hidden")))
				x.ask("v20", "described, by id", "29", byID(x.id("v20-seen")))
				x.ask("v20", "of no topic", "100", byID(unknownID))
				x.ask("v20", "hidden, by name", "29", byName("v20-hidden"))
				x.ask("v20", "missing, by name", "29", byName("v20-absent"))
				x.ask("v20", "one's own, by name", "0", byName("v20-mine"), onPartner("29", aliasesOnly))
				x.ask("v20", "one's own, by id", "0", byID(x.id("v20-byid")), onPartner("29", aliasesOnly))
			},
		},
		{
			number: 21, name: "what may be done is told as bits", topics: []string{"v21-some", "v21-all"},
			acls: []string{
				"v21 ALLOW WRITE topic v21-some", "v21 ALLOW ALTER_CONFIGS topic v21-some", "v21 ALLOW ALL topic v21-all", "v21 DENY DELETE topic v21-all",
				"v21 ALLOW READ group v21-group", "v21 ALLOW DESCRIBE cluster kafka-cluster", "v21 ALLOW CREATE cluster kafka-cluster",
				"v21few ALLOW CREATE cluster kafka-cluster",
			},
			run: func(x *exam) {
				x.admin(askCommit("v21-group", "v21-all"))
				topics := askMetadata("v21-some", "v21-all")
				topics.IncludeTopicAuthorizedOperations = true
				x.ask("v21", "topics", "0", topics)
				cluster := askMetadata()
				cluster.Version, cluster.IncludeClusterAuthorizedOperations = 10, true
				x.ask("v21", "the cluster, in Metadata", "0", cluster)
				x.ask("v21", "a group", "0", askDescribeGroups(true, "v21-group"))
				for _, user := range []string{"v21", "v21few"} {
					describe := kmsg.NewPtrDescribeClusterRequest()
					describe.IncludeClusterAuthorizedOperations = true
					x.ask(user, "the cluster for "+user, "0", describe)
				}
			},
		},
		{
			number: 22, name: "DescribeAcls filters by ANY, MATCH, LITERAL and PREFIXED",
			acls: []string{
				"v22 ALLOW DESCRIBE cluster kafka-cluster", "v22x ALLOW READ topic v22-orders", "v22x ALLOW READ topic v22-or prefixed",
				"v22x DENY WRITE topic v22-orders prefixed", "v22x ALLOW READ topic v22-ordersandmore",
			},
			run: func(x *exam) {
				name := kmsg.StringPtr("v22-orders")
				x.ask("v22", "any", "0", askACLs(kmsg.ACLResourcePatternTypeAny, name))
				x.ask("v22", "match", "0", askACLs(kmsg.ACLResourcePatternTypeMatch, name))
				x.ask("v22", "literal", "0", askACLs(kmsg.ACLResourcePatternTypeLiteral, name))
				x.ask("v22", "prefixed", "0", askACLs(kmsg.ACLResourcePatternTypePrefixed, name))
				x.ask("v22", "every name", "0", askACLs(kmsg.ACLResourcePatternTypeAny, nil))
				x.ask("v22", "a wildcard", "0", askACLs(kmsg.ACLResourcePatternTypeLiteral, kmsg.StringPtr("*")))
				x.ask("v22x", "without DESCRIBE on the cluster", "31", askACLs(kmsg.ACLResourcePatternTypeAny, name))
			},
		},
		{
			number: 25, name: "two virtual clusters with equal names see nothing of each other", topics: []string{"v25-topic"},
			acls: []string{"v25 ALLOW ALL topic v25- prefixed", "v25 ALLOW ALL group v25- prefixed", "v25 ALLOW ALL transactional_id v25- prefixed", "v25 ALLOW ALL cluster kafka-cluster"},
			run:  askTwin,
		},
		{
			number: 26, name: "a client is no replica", topics: []string{"v26-topic"},
			acls: []string{"v26 ALLOW READ topic v26-topic"},
			run: func(x *exam) {
				fetch := askFetch("v26-topic")
				fetch.ReplicaID = 1
				x.ask("v26", "fetch as a broker", "29", fetch, onGateway("0", asConsumer))
				fetch = askFetch("v26-topic")
				fetch.ReplicaID = -3
				x.ask("v26", "fetch as a replica to come", "0", fetch)
				list := askListOffsets("v26-topic")
				list.ReplicaID = -2
				x.ask("v26", "list as a debugger", "0", list)
				epoch := kmsg.NewPtrOffsetForLeaderEpochRequest()
				epoch.ReplicaID = -2
				et := kmsg.NewOffsetForLeaderEpochRequestTopic()
				et.Topic = "v26-topic"
				et.Partitions = append(et.Partitions, kmsg.NewOffsetForLeaderEpochRequestTopicPartition())
				epoch.Topics = append(epoch.Topics, et)
				x.ask("v26", "epochs as a debugger", "0", epoch)
			},
		},
		{
			number: 27, name: "the client id of brokers' tools gives no rights", topics: []string{"v27-topic"},
			acls: []string{"v27 ALLOW WRITE topic *"},
			run: func(x *exam) {
				without := askProduce("__consumer_offsets")
				x.ask("v27", "an internal topic", "17", without, onGateway("3", notTheirs))
				// A record without a key, which the broker finds out behind the check.
				with := askProduce("__consumer_offsets")
				with.Topics[0].Partitions[0].Records = []byte{}
				x.ask("v27 as __admin_client", "an internal topic as __admin_client", "87", with, onGateway("3", notTheirs))
				x.ask("v27 as __admin_client", "one's own topic as __admin_client", "0", askProduce("v27-topic"))
			},
		},
		{
			number: 28, name: "names of every kind", topics: []string{"v28-a.b"},
			acls: []string{"v28 ALLOW ALL topic *", "v28 ALLOW CREATE cluster kafka-cluster"},
			run: func(x *exam) {
				x.ask("v28", "the name of another with a prefix", "0", askMetadata("standard.v28-a.b"), onGateway("3", notTheirs))
				x.ask("v28", "a name of 249 bytes", "0", askCreate("v28-"+strings.Repeat("x", 245)), onStandard("17", longerNames), onPartner("44", aliasesOnly))
				x.ask("v28", "a name of 250 bytes", "17", askCreate("v28-"+strings.Repeat("x", 246)), onPartner("44", aliasesOnly))
				x.ask("v28", "a dot and an underscore", "17", askCreate("v28-a_b"), onPartner("44", aliasesOnly))
				x.ask("v28", "names that cannot be", "17 17 17 17", askMetadata(strings.Repeat("x", 250), ".", "..", "v28/x"))
			},
		},
		{
			number: 29, name: "a fetch session is of its connection", topics: []string{"v29-topic"},
			acls: []string{"v29 ALLOW READ topic v29-topic"},
			run: func(x *exam) {
				full := askFetch("v29-topic")
				full.SessionEpoch = 0
				session := x.must("v29", full).(*kmsg.FetchResponse).SessionID
				if session == 0 {
					x.t.Fatal("no session")
				}
				next := askFetch()
				next.SessionID, next.SessionEpoch = session, 1
				x.ask("v29#2", "guessed on another connection", "0", next, onGateway("70", "a session is good on the connection it was made on and nowhere else"))
				none := askFetch()
				none.SessionID, none.SessionEpoch = session^1, 1
				x.ask("v29", "a session that is not there", "70", none)
			},
		},
		{
			number: 30, name: "what only brokers ask is refused",
			acls: []string{"v30 ALLOW ALL transactional_id v30- prefixed", "v30 ALLOW ALL group v30- prefixed"},
			run: func(x *exam) {
				batched := kmsg.NewPtrAddPartitionsToTxnRequest()
				batched.Version = 4
				txn := kmsg.NewAddPartitionsToTxnRequestTransaction()
				txn.TransactionalID = "v30-txn"
				batched.Transactions = append(batched.Transactions, txn)
				x.ask("v30", "AddPartitionsToTxn of brokers", "31", batched, onGateway(closedCode, neverOffered))
				markers := kmsg.NewPtrWriteTxnMarkersRequest()
				markers.Version = 1
				marker := kmsg.NewWriteTxnMarkersRequestMarker()
				mt := kmsg.NewWriteTxnMarkersRequestMarkerTopic()
				mt.Topic, mt.Partitions = "v30-topic", []int32{0}
				marker.Topics = append(marker.Topics, mt)
				markers.Markers = append(markers.Markers, marker)
				x.ask("v30", "WriteTxnMarkers", "31", markers, onGateway(closedCode, neverOffered))
				initialize, read, write := kmsg.NewPtrInitializeShareGroupStateRequest(), kmsg.NewPtrReadShareGroupStateRequest(), kmsg.NewPtrWriteShareGroupStateRequest()
				remove, summary := kmsg.NewPtrDeleteShareGroupStateRequest(), kmsg.NewPtrReadShareGroupStateSummaryRequest()
				initialize.GroupID, read.GroupID, write.GroupID, remove.GroupID, summary.GroupID = "v30-group", "v30-group", "v30-group", "v30-group", "v30-group"
				initialize.Topics = []kmsg.InitializeShareGroupStateRequestTopic{{TopicID: unknownID, Partitions: []kmsg.InitializeShareGroupStateRequestTopicPartition{{}}}}
				read.Topics = []kmsg.ReadShareGroupStateRequestTopic{{TopicID: unknownID, Partitions: []kmsg.ReadShareGroupStateRequestTopicPartition{{}}}}
				write.Topics = []kmsg.WriteShareGroupStateRequestTopic{{TopicID: unknownID, Partitions: []kmsg.WriteShareGroupStateRequestTopicPartition{{}}}}
				remove.Topics = []kmsg.DeleteShareGroupStateRequestTopic{{TopicID: unknownID, Partitions: []kmsg.DeleteShareGroupStateRequestTopicPartition{{}}}}
				summary.Topics = []kmsg.ReadShareGroupStateSummaryRequestTopic{{TopicID: unknownID, Partitions: []kmsg.ReadShareGroupStateSummaryRequestTopicPartition{{}}}}
				for _, req := range []kmsg.Request{initialize, read, write, remove, summary} {
					x.ask("v30", kmsg.NameForKey(req.Key()), "31", req, onGateway(closedCode, neverOffered))
				}
			},
		},
		{
			number: 23, name: "a right that is taken away ends an open fetch session", topics: []string{"v23-topic"},
			acls: []string{"v23 ALLOW READ topic v23-topic"},
			run: func(x *exam) {
				full := askFetch("v23-topic")
				full.SessionEpoch = 0
				session := x.must("v23", full).(*kmsg.FetchResponse).SessionID
				next := func(epoch int32) *kmsg.FetchRequest {
					req := askFetch()
					req.SessionID, req.SessionEpoch = session, epoch
					return req
				}
				x.ask("v23", "before", "0", next(1))
				x.revoke("v23 ALLOW READ topic v23-topic")
				x.until("v23#2", "29", askListOffsets("v23-topic"))
				x.ask("v23", "after", "29", next(2), onGateway("70", "the client is made to fetch in full, which is judged anew"))
				x.ask("v23", "in full", "29", askFetch("v23-topic"))
			},
		},
		{
			number: 24, name: "a right that is taken away ends a membership", topics: []string{"v24-topic"},
			acls: []string{"v24 ALLOW READ group v24-group", "v24 ALLOW READ topic v24-topic"},
			run: func(x *exam) {
				joined := x.must("v24", beatOf("v24-group", sharer, 0, "v24-topic")).(*kmsg.ConsumerGroupHeartbeatResponse)
				x.revoke("v24 ALLOW READ topic v24-topic")
				x.until("v24#2", "29", askListOffsets("v24-topic"))
				x.ask("v24", "with the topic named", "29", beatOf("v24-group", sharer, joined.MemberEpoch, "v24-topic"), onGateway("29", explained))
				x.revoke("v24 ALLOW READ group v24-group")
				x.until("v24#2", "30", askCoordinator(0, "v24-group"))
				x.ask("v24", "without the group", "30", beatOf("v24-group", sharer, joined.MemberEpoch), onGateway("30", explained))
			},
		},
	}
}

// askTwin fills one virtual cluster and asks the other, which answers as a broker
// does on which there is nothing of the kind.
func askTwin(x *exam) {
	const topic, group, modern = "v25-topic", "v25-group", "v25-modern"
	id := "v25-txn"
	if x.name != "broker" {
		x.must("v25", askCommit(group, topic))
		init := x.must("v25", initOf(&id)).(*kmsg.InitProducerIDResponse)
		add := addOf(id, init.ProducerID, init.ProducerEpoch, topic)
		add.Version = 3
		x.must("v25", add)
		x.must("v25", askProduce(topic))
		x.must("v25", beatOf(modern, sharer, 0, topic))
	}
	twin := &exam{party: x.twin, answers: x.answers, excused: x.excused}
	before := twin.side.Own
	defer func() { twin.side.Own = before }()
	twin.side.Own = func(name string) bool { return strings.HasPrefix(name, "v25-") || strings.HasPrefix(name, "1 ") }
	twin.ask("v25", "3 Metadata", "3", askMetadata(topic))
	twin.ask("v25", "3 Metadata of all", "0", kmsg.NewPtrMetadataRequest())
	twin.ask("v25", "9 OffsetFetch", "0", askOffsets(group, topic))
	twin.ask("v25", "9 OffsetFetch of all topics", "0", askOffsets(group))
	twin.ask("v25", "15 DescribeGroups", "69", askDescribeGroups(false, group))
	twin.ask("v25", "16 ListGroups", "0", kmsg.NewPtrListGroupsRequest())
	twin.ask("v25", "32 DescribeConfigs", "3", askConfigs(kmsg.ConfigResourceTypeTopic, topic), onGateway("3", explained))
	twin.ask("v25", "60 DescribeCluster", "0", kmsg.NewPtrDescribeClusterRequest())
	producers := kmsg.NewPtrDescribeProducersRequest()
	producers.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: topic, Partitions: []int32{0}}}
	twin.ask("v25", "61 DescribeProducers", "3", producers)
	transactions := kmsg.NewPtrDescribeTransactionsRequest()
	transactions.TransactionalIDs = []string{id}
	twin.ask("v25", "65 DescribeTransactions", "105", transactions)
	twin.ask("v25", "66 ListTransactions", "0", kmsg.NewPtrListTransactionsRequest())
	groups := kmsg.NewPtrConsumerGroupDescribeRequest()
	groups.Groups = []string{modern}
	twin.ask("v25", "69 ConsumerGroupDescribe", "69", groups)
	resources := kmsg.NewPtrListConfigResourcesRequest()
	resources.ResourceTypes = []int8{int8(kmsg.ConfigResourceTypeTopic)}
	twin.ask("v25", "74 ListConfigResources", "0", resources)
	partitions := kmsg.NewPtrDescribeTopicPartitionsRequest()
	partitions.ResponsePartitionLimit, partitions.Topics = 100, []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: topic}}
	twin.ask("v25", "75 DescribeTopicPartitions", "3", partitions)
	x.order = append(x.order, twin.order...)
}
