package conformance

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/differential"
	"tollgate.internal/e2e/internal/kafkatest"
)

// Reasons that several differences share.
const (
	olderBroker  = "The gateway answers by itself and in newer versions than this broker has."
	operatorOnly = "Brokers are shared by all tenants: their settings are neither shown nor changed."
	ownKeys      = "Configs that the policy does not list are refused by it, whether they exist or not."
	ownPlacement = "Where replicas lie is the provider's choice."
	oneFace      = "The address a coordinator sees is the gateway's, so none is shown."
	ownQuotas    = "Quotas are the provider's to set."
	explained    = "The gateway says why; a broker says nothing."
)

// differences are all there are.
var differences = []differential.Difference{
	{Key: int16(kmsg.Produce), Versions: "0-2", Kafka: kafkatest.V3, Field: "connection", Reason: "Message formats older than Kafka 0.11 are not taken. The versions are offered because librdkafka looks at them (KAFKA-18659)."},

	{Key: int16(kmsg.Fetch), Versions: "7-18", Case: "a new session with a missing topic", Field: "SessionID", Reason: "A fetch in which something is refused gets no session; the client fetches without one."},

	{Key: int16(kmsg.Metadata), Versions: "13", Kafka: kafkatest.V3, Field: "connection", Reason: olderBroker},

	{Key: int16(kmsg.FindCoordinator), Versions: "6", Case: "of a share group's partition", Field: "Coordinators[].ErrorCode", Reason: "Only brokers ask for the coordinators of share groups' partitions."},
	{Key: int16(kmsg.FindCoordinator), Versions: "4-6", Case: "of a share group's partition", Field: "Coordinators[].ErrorMessage", Reason: explained},

	{Key: int16(kmsg.DescribeGroups), Versions: "3-5", Kafka: kafkatest.V3, Case: "what may be done", Field: "Groups[].AuthorizedOperations", Reason: "Kafka 3.9 does not count DESCRIBE_CONFIGS and ALTER_CONFIGS among the operations on groups; the gateway does, as Kafka 4 does."},
	{Key: int16(kmsg.DescribeGroups), Field: "Groups[].Members[].ClientHost", Reason: oneFace},

	{Key: int16(kmsg.SASLHandshake), Case: "after a handshake", Field: "connection", Reason: "A client that begins a login within a login is closed at once; a broker closes it after an answer."},

	{Key: int16(kmsg.ApiVersions), Field: "ApiKeys[]", Reason: "Keys that are not for tenants are not offered: see below."},
	{Key: int16(kmsg.ApiVersions), Kafka: kafkatest.V3, Field: "ApiKeys[].MinVersion", Reason: "Versions that Kafka 4 has dropped (KIP-896) are not offered on older brokers either."},
	{Key: int16(kmsg.ApiVersions), Field: "ApiKeys[].MaxVersion", Reason: "Versions that are only for brokers are not offered, and those of requests that the gateway answers by itself are its own: see above."},
	{Key: int16(kmsg.ApiVersions), Versions: "3-4", Kafka: kafkatest.V4, Field: "FinalizedFeatures[]", Reason: "Features that only concern what is not offered are not shown."},
	{Key: int16(kmsg.ApiVersions), Versions: "4", Field: "SupportedFeatures[]", Reason: "Features that only concern what is not offered are not shown."},

	{Key: int16(kmsg.CreateTopics), Versions: "7", Case: "a topic, to see whether it could be", Field: "Topics[].TopicID", Reason: "A broker draws an id for a topic that it does not create; the gateway shows none."},
	{Key: int16(kmsg.CreateTopics), Case: "a config that does not exist", Field: "Topics[].ErrorCode", Reason: ownKeys},
	{Key: int16(kmsg.CreateTopics), Case: "replicas placed by hand", Field: "Topics[].ErrorCode", Reason: ownPlacement},
	{Key: int16(kmsg.CreateTopics), Case: "replicas placed by hand", Field: "Topics[].ErrorMessage", Reason: ownPlacement},
	{Key: int16(kmsg.CreateTopics), Versions: "5-7", Case: "replicas placed by hand", Field: "Topics[].Configs[]", Reason: ownPlacement},
	{Key: int16(kmsg.CreateTopics), Versions: "5-7", Case: "replicas placed by hand", Field: "Topics[].NumPartitions", Reason: ownPlacement},
	{Key: int16(kmsg.CreateTopics), Versions: "5-7", Case: "replicas placed by hand", Field: "Topics[].ReplicationFactor", Reason: ownPlacement},
	{Key: int16(kmsg.CreateTopics), Versions: "7", Case: "replicas placed by hand", Field: "Topics[].TopicID", Reason: ownPlacement},

	{Key: int16(kmsg.DescribeConfigs), Case: "a broker", Field: "Resources[].ErrorCode", Reason: operatorOnly},
	{Key: int16(kmsg.DescribeConfigs), Case: "a broker", Field: "Resources[].ErrorMessage", Reason: operatorOnly},
	{Key: int16(kmsg.DescribeConfigs), Field: "Resources[].Configs[]", Reason: "Configs that name brokers (*.replication.throttled.replicas) are left out, and those of brokers are not shown."},
	{Key: int16(kmsg.DescribeConfigs), Case: "a broker's loggers", Field: "Resources[].ErrorCode", Reason: operatorOnly},
	{Key: int16(kmsg.DescribeConfigs), Case: "a broker's loggers", Field: "Resources[].ErrorMessage", Reason: operatorOnly},
	{Key: int16(kmsg.DescribeConfigs), Case: "two topics, one of them missing", Field: "Resources[].ErrorMessage", Reason: explained},

	{Key: int16(kmsg.AlterConfigs), Case: "a broker", Field: "Resources[].ErrorCode", Reason: operatorOnly},
	{Key: int16(kmsg.AlterConfigs), Case: "a broker", Field: "Resources[].ErrorMessage", Reason: operatorOnly},
	{Key: int16(kmsg.AlterConfigs), Case: "a config that does not exist", Field: "Resources[].ErrorCode", Reason: ownKeys},

	{Key: int16(kmsg.CreatePartitions), Case: "replicas placed by hand", Field: "Topics[].ErrorCode", Reason: ownPlacement},
	{Key: int16(kmsg.CreatePartitions), Case: "replicas placed by hand", Field: "Topics[].ErrorMessage", Reason: ownPlacement},
	{Key: int16(kmsg.CreatePartitions), Case: "a missing topic", Field: "Topics[].ErrorMessage", Reason: explained},

	{Key: int16(kmsg.IncrementalAlterConfigs), Case: "a broker", Field: "Resources[].ErrorCode", Reason: operatorOnly},
	{Key: int16(kmsg.IncrementalAlterConfigs), Case: "a broker", Field: "Resources[].ErrorMessage", Reason: operatorOnly},
	{Key: int16(kmsg.IncrementalAlterConfigs), Case: "a config that does not exist", Field: "Resources[].ErrorCode", Reason: ownKeys},

	{Key: int16(kmsg.DescribeCluster), Versions: "2", Kafka: kafkatest.V3, Field: "connection", Reason: olderBroker},

	{Key: int16(kmsg.DescribeLogDirs), Field: "Dirs[].Dir", Reason: "Where a broker keeps its data is the provider's affair: the directories are counted."},
	{Key: int16(kmsg.DescribeLogDirs), Versions: "4", Field: "Dirs[].TotalBytes", Reason: "How large the provider's disks are is not shown; -1 means unknown."},
	{Key: int16(kmsg.DescribeLogDirs), Versions: "4", Field: "Dirs[].UsableBytes", Reason: "How full the provider's disks are is not shown; -1 means unknown."},

	{Key: int16(kmsg.AlterClientQuotas), Field: "Entries[].ErrorCode", Reason: ownQuotas},
	{Key: int16(kmsg.AlterClientQuotas), Field: "Entries[].ErrorMessage", Reason: ownQuotas},
	{Key: int16(kmsg.AlterUserSCRAMCredentials), Case: "too few iterations", Field: "Results[].ErrorCode", Reason: "Credentials are changed in the resource files."},

	{Key: int16(kmsg.ConsumerGroupDescribe), Field: "Groups[].Members[].ClientHost", Reason: oneFace},

	{Key: int16(kmsg.ListConfigResources), Versions: "1", Kafka: kafkatest.V3, Field: "connection", Reason: olderBroker},

	{Key: int16(kmsg.ShareGroupDescribe), Field: "Groups[].Members[].ClientHost", Reason: oneFace},
	{Key: int16(kmsg.ShareFetch), Case: "a session that has ended", Field: "ErrorMessage", Reason: explained},
	{Key: int16(kmsg.ShareAcknowledge), Case: "a session that has ended", Field: "ErrorMessage", Reason: explained},
	{Key: int16(kmsg.DescribeShareGroupOffsets), Case: "the group with an empty name", Field: "Groups[].ErrorCode", Reason: "The gateway says that the name is invalid, where a broker runs into an unexpected error."},
}
