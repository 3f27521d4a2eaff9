package conformance

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/differential"
	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/rawkafka"
)

// adminProbes are of the keys that administrate.
func adminProbes() []probe {
	return []probe{
		{key: int16(kmsg.ApiVersions), run: probeApiVersions, rules: []differential.Rule{
			{Field: "FinalizedFeaturesEpoch", As: differential.Set},
		}},
		{key: int16(kmsg.CreateTopics), run: probeCreateTopics, rules: []differential.Rule{
			{Field: "Topics[].ErrorMessage", As: differential.Text},
			{Field: "Topics[].TopicID", As: differential.Set},
		}},
		{key: int16(kmsg.DeleteTopics), run: probeDeleteTopics, rules: []differential.Rule{
			{Field: "Topics[].ErrorMessage", As: differential.Text},
			{Field: "Topics[].TopicID", As: differential.TopicID},
		}},
		{key: int16(kmsg.DescribeACLs), run: probeDescribeACLs, rules: []differential.Rule{
			{Field: "ErrorMessage", As: differential.Text},
		}},
		{key: int16(kmsg.CreateACLs), run: probeCreateACLs, rules: []differential.Rule{
			{Field: "Results[].ErrorMessage", As: differential.Text},
		}},
		{key: int16(kmsg.DeleteACLs), run: probeDeleteACLs, rules: []differential.Rule{
			{Field: "Results[].ErrorMessage", As: differential.Text},
		}},
		{key: int16(kmsg.DescribeConfigs), run: probeDescribeConfigs, rules: []differential.Rule{
			{Field: "Resources[].ErrorMessage", As: differential.Text},
		}},
		{key: int16(kmsg.AlterConfigs), run: probeAlterConfigs, rules: []differential.Rule{
			{Field: "Resources[].ErrorMessage", As: differential.Text},
		}},
		{key: int16(kmsg.CreatePartitions), run: probeCreatePartitions, rules: []differential.Rule{
			{Field: "Topics[].ErrorMessage", As: differential.Text},
		}},
		{key: int16(kmsg.IncrementalAlterConfigs), run: probeIncrementalAlterConfigs, rules: []differential.Rule{
			{Field: "Resources[].ErrorMessage", As: differential.Text},
		}},
		{key: int16(kmsg.ListPartitionReassignments), run: probeListPartitionReassignments, rules: []differential.Rule{
			{Field: "ErrorMessage", As: differential.Text},
		}},
		{key: int16(kmsg.DescribeCluster), run: probeDescribeCluster, rules: []differential.Rule{
			{Field: "ErrorMessage", As: differential.Text},
			{Field: "Brokers[].Host", As: differential.Host},
			{Field: "Brokers[].Port", As: differential.Set},
			{Field: "ClusterID", As: differential.ClusterID},
		}},
		{key: int16(kmsg.ListConfigResources), run: probeListConfigResources, rules: []differential.Rule{
			{Field: "ConfigResources[]", As: differential.Own},
		}},
	}
}

// loginProbes are of the keys that log in. Each version takes connections of its
// own, to a listener that wants a login.
func loginProbes() []probe {
	return []probe{
		{key: int16(kmsg.SASLHandshake), run: probeSASLHandshake, rules: []differential.Rule{
			{Field: "SupportedMechanisms", As: differential.Sorted},
		}},
		{key: int16(kmsg.SASLAuthenticate), run: probeSASLAuthenticate, rules: []differential.Rule{
			{Field: "ErrorMessage", As: differential.Text},
		}},
	}
}

func probeApiVersions(x *trial) {
	of := func(software string) *kmsg.ApiVersionsRequest {
		req := kmsg.NewPtrApiVersionsRequest()
		req.ClientSoftwareName, req.ClientSoftwareVersion = software, "1"
		return req
	}
	x.ask("versions", of("raw"))
	x.ask("software with an illegal name", of("-raw-"))
	later := of("raw")
	later.Version = 99
	resp, err := x.connected().Ask(later)
	x.keep("a version to come", resp, err)
}

func probeCreateTopics(x *trial) {
	of := func(topics ...kmsg.CreateTopicsRequestTopic) *kmsg.CreateTopicsRequest {
		req := kmsg.NewPtrCreateTopicsRequest()
		req.TimeoutMillis, req.Topics = 30_000, topics
		return req
	}
	x.ask("a topic", of(newTopic(x.vName("topic"), 2)))
	dry := of(newTopic(x.vName("dry"), 1))
	dry.ValidateOnly = true
	x.ask("a topic, to see whether it could be", dry)
	x.ask("a topic that exists", of(newTopic(records, 1)))
	x.ask("two topics, one of them illegal", of(newTopic("d/slash", 1), newTopic(x.vName("legal"), 1)))
	x.ask("names that collide", of(newTopic(strings.ReplaceAll(x.vName("topic"), ".", "_"), 1)))
	x.ask("a topic twice", of(newTopic(x.vName("twice"), 1), newTopic(x.vName("twice"), 1)))
	x.ask("no partitions", of(newTopic(x.vName("none"), 0)))
	many := newTopic(x.vName("many"), 1)
	many.ReplicationFactor = 3
	x.ask("more replicas than brokers", of(many))
	none := newTopic(x.vName("none"), 1)
	none.ReplicationFactor = 0
	x.ask("no replicas", of(none))
	odd := newTopic(x.vName("odd"), 1)
	odd.Configs[0].Name = "odd.config"
	x.ask("a config that does not exist", of(odd))
	wrong := newTopic(x.vName("wrong"), 1)
	wrong.Configs[0].Value = kmsg.StringPtr("soon")
	x.ask("a config with a wrong value", of(wrong))
	placed := newTopic(x.vName("placed"), -1)
	placed.ReplicationFactor = -1
	placed.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Replicas: []int32{1}}}
	byHand := of(placed)
	byHand.ValidateOnly = true
	x.ask("replicas placed by hand", byHand)
	if x.version >= 4 {
		defaults := newTopic(x.vName("defaults"), -1)
		defaults.ReplicationFactor = -1
		x.ask("a topic with the defaults", of(defaults))
	}
	x.ask("nothing", of())
}

func probeDeleteTopics(x *trial) {
	first, second := x.vName("first"), x.vName("second")
	x.createTopics(map[string]int32{first: 1, second: 1})
	id := x.id(second)
	of := func(names ...string) *kmsg.DeleteTopicsRequest {
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.TimeoutMillis, req.TopicNames = 30_000, names
		for _, name := range names {
			rt := kmsg.NewDeleteTopicsRequestTopic()
			rt.Topic = kmsg.StringPtr(name)
			req.Topics = append(req.Topics, rt)
		}
		return req
	}
	x.ask("a topic", of(first))
	x.ask("a missing topic", of(missing))
	x.ask("two topics, one of them missing", of(second, missing))
	x.ask("nothing", of())
	if x.version < 6 {
		return
	}
	third := x.vName("third")
	x.createTopics(map[string]int32{third: 1})
	byID := func(id [16]byte) *kmsg.DeleteTopicsRequest {
		req := of(third)
		req.Topics[0].Topic, req.Topics[0].TopicID = nil, id
		return req
	}
	both := of(third)
	both.Topics[0].TopicID = x.id(third)
	x.ask("a topic by name and id", both)
	x.ask("a topic by neither", byID([16]byte{}))
	x.ask("a topic by id", byID(x.id(third)))
	x.ask("an id of no topic", byID(unknownID))
	x.until("the topic "+second+" is gone", func() bool {
		meta := x.do(x.metadataOf(second)).(*kmsg.MetadataResponse)
		return meta.Topics[0].ErrorCode != 0
	})
	x.ask("the id of a topic that was deleted", byID(id))
}

func probeDescribeACLs(x *trial) {
	req := kmsg.NewPtrDescribeACLsRequest()
	req.ResourceType, req.ResourcePatternType, req.Operation, req.PermissionType = 1, 1, 1, 1
	x.ask("all", req)
}

func probeCreateACLs(x *trial) {
	req := kmsg.NewPtrCreateACLsRequest()
	c := kmsg.NewCreateACLsRequestCreation()
	c.ResourceType, c.ResourceName, c.ResourcePatternType = kmsg.ACLResourceTypeTopic, records, kmsg.ACLResourcePatternTypeLiteral
	c.Principal, c.Host, c.Operation, c.PermissionType = "User:alice", "*", kmsg.ACLOperationRead, kmsg.ACLPermissionTypeAllow
	req.Creations = append(req.Creations, c)
	x.ask("one", req)
	x.ask("none", kmsg.NewPtrCreateACLsRequest())
}

func probeDeleteACLs(x *trial) {
	req := kmsg.NewPtrDeleteACLsRequest()
	f := kmsg.NewDeleteACLsRequestFilter()
	f.ResourceType, f.ResourcePatternType, f.Operation, f.PermissionType = 1, 1, 1, 1
	req.Filters = append(req.Filters, f)
	x.ask("all", req)
	x.ask("none", kmsg.NewPtrDeleteACLsRequest())
}

func probeDescribeConfigs(x *trial) {
	of := func(kind kmsg.ConfigResourceType, names ...string) *kmsg.DescribeConfigsRequest {
		req := kmsg.NewPtrDescribeConfigsRequest()
		for _, name := range names {
			rr := kmsg.NewDescribeConfigsRequestResource()
			rr.ResourceType, rr.ResourceName = kind, name
			req.Resources = append(req.Resources, rr)
		}
		return req
	}
	x.ask("a topic", of(kmsg.ConfigResourceTypeTopic, records))
	one := of(kmsg.ConfigResourceTypeTopic, records)
	one.Resources[0].ConfigNames = []string{"retention.ms", "odd.config"}
	one.IncludeSynonyms, one.IncludeDocumentation = true, true
	x.ask("one config, its synonyms and its text", one)
	x.ask("two topics, one of them missing", of(kmsg.ConfigResourceTypeTopic, records, missing))
	x.ask("an illegal topic", of(kmsg.ConfigResourceTypeTopic, "d/slash"))
	x.ask("a topic twice", of(kmsg.ConfigResourceTypeTopic, records, records))
	x.ask("a group", of(kmsg.ConfigResourceTypeGroupConfig, own+"group"))
	x.ask("a broker", of(kmsg.ConfigResourceTypeBroker, "1"))
	x.ask("a broker's loggers", of(kmsg.ConfigResourceTypeBrokerLogger, "1"))
	x.ask("of a kind that does not exist", of(77, "thing"))
	x.ask("nothing", of(kmsg.ConfigResourceTypeTopic))
}

func probeAlterConfigs(x *trial) {
	topic := x.vName("altered")
	x.createTopics(map[string]int32{topic: 1})
	of := func(kind kmsg.ConfigResourceType, name, config, value string) *kmsg.AlterConfigsRequest {
		req := kmsg.NewPtrAlterConfigsRequest()
		rr := kmsg.NewAlterConfigsRequestResource()
		rr.ResourceType, rr.ResourceName = kind, name
		rc := kmsg.NewAlterConfigsRequestResourceConfig()
		rc.Name, rc.Value = config, kmsg.StringPtr(value)
		rr.Configs = append(rr.Configs, rc)
		req.Resources = append(req.Resources, rr)
		return req
	}
	x.ask("a config", of(kmsg.ConfigResourceTypeTopic, topic, "retention.ms", "60000"))
	dry := of(kmsg.ConfigResourceTypeTopic, topic, "retention.ms", "70000")
	dry.ValidateOnly = true
	x.ask("a config, to see whether it could be", dry)
	x.ask("a wrong value", of(kmsg.ConfigResourceTypeTopic, topic, "retention.ms", "soon"))
	x.ask("a config that does not exist", of(kmsg.ConfigResourceTypeTopic, topic, "odd.config", "1"))
	x.ask("a missing topic", of(kmsg.ConfigResourceTypeTopic, missing, "retention.ms", "1"))
	x.ask("a broker", of(kmsg.ConfigResourceTypeBroker, "1", "log.cleaner.threads", "1"))
	both := of(kmsg.ConfigResourceTypeTopic, topic, "retention.ms", "80000")
	both.Resources = append(both.Resources, of(kmsg.ConfigResourceTypeTopic, missing, "retention.ms", "1").Resources...)
	x.ask("two topics, one of them missing", both)
	x.ask("nothing", kmsg.NewPtrAlterConfigsRequest())
}

func probeIncrementalAlterConfigs(x *trial) {
	topic := x.vName("altered")
	x.createTopics(map[string]int32{topic: 1})
	of := func(kind kmsg.ConfigResourceType, name, config string, op kmsg.IncrementalAlterConfigOp, value *string) *kmsg.IncrementalAlterConfigsRequest {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		rr := kmsg.NewIncrementalAlterConfigsRequestResource()
		rr.ResourceType, rr.ResourceName = kind, name
		rc := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		rc.Name, rc.Op, rc.Value = config, op, value
		rr.Configs = append(rr.Configs, rc)
		req.Resources = append(req.Resources, rr)
		return req
	}
	const set, remove, add = kmsg.IncrementalAlterConfigOpSet, kmsg.IncrementalAlterConfigOpDelete, kmsg.IncrementalAlterConfigOpAppend
	some := kmsg.StringPtr("60000")
	x.ask("set a config", of(kmsg.ConfigResourceTypeTopic, topic, "retention.ms", set, some))
	x.ask("delete a config", of(kmsg.ConfigResourceTypeTopic, topic, "retention.ms", remove, nil))
	x.ask("append to a config", of(kmsg.ConfigResourceTypeTopic, topic, "cleanup.policy", add, kmsg.StringPtr("compact")))
	x.ask("append to what is no list", of(kmsg.ConfigResourceTypeTopic, topic, "retention.ms", add, some))
	x.ask("a wrong value", of(kmsg.ConfigResourceTypeTopic, topic, "retention.ms", set, kmsg.StringPtr("soon")))
	x.ask("no value", of(kmsg.ConfigResourceTypeTopic, topic, "retention.ms", set, nil))
	x.ask("a config that does not exist", of(kmsg.ConfigResourceTypeTopic, topic, "odd.config", set, some))
	x.ask("a missing topic", of(kmsg.ConfigResourceTypeTopic, missing, "retention.ms", set, some))
	x.ask("a group", of(kmsg.ConfigResourceTypeGroupConfig, x.vName("group"), "consumer.session.timeout.ms", set, some))
	x.ask("a broker", of(kmsg.ConfigResourceTypeBroker, "1", "log.cleaner.threads", set, kmsg.StringPtr("1")))
	twice := of(kmsg.ConfigResourceTypeTopic, topic, "retention.ms", set, some)
	twice.Resources = append(twice.Resources, twice.Resources[0])
	x.ask("a topic twice", twice)
	both := of(kmsg.ConfigResourceTypeTopic, topic, "retention.ms", set, some)
	both.Resources = append(both.Resources, of(kmsg.ConfigResourceTypeTopic, missing, "retention.ms", set, some).Resources...)
	x.ask("two topics, one of them missing", both)
	x.ask("nothing", kmsg.NewPtrIncrementalAlterConfigsRequest())
}

func probeCreatePartitions(x *trial) {
	topic := x.vName("grows")
	x.createTopics(map[string]int32{topic: 2})
	of := func(topic string, count int32) *kmsg.CreatePartitionsRequest {
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.TimeoutMillis = 30_000
		rt := kmsg.NewCreatePartitionsRequestTopic()
		rt.Topic, rt.Count = topic, count
		req.Topics = append(req.Topics, rt)
		return req
	}
	dry := of(topic, 3)
	dry.ValidateOnly = true
	x.ask("one more, to see whether it could be", dry)
	x.ask("one more", of(topic, 3))
	x.ask("as many", of(topic, 3))
	x.ask("fewer", of(topic, 1))
	x.ask("a missing topic", of(missing, 4))
	twice := of(topic, 4)
	twice.Topics = append(twice.Topics, twice.Topics[0])
	x.ask("a topic twice", twice)
	placed := of(topic, 4)
	placed.Topics[0].Assignment = []kmsg.CreatePartitionsRequestTopicAssignment{{Replicas: []int32{1}}}
	placed.ValidateOnly = true
	x.ask("replicas placed by hand", placed)
	x.ask("nothing", kmsg.NewPtrCreatePartitionsRequest())
}

func probeListPartitionReassignments(x *trial) {
	req := kmsg.NewPtrListPartitionReassignmentsRequest()
	req.TimeoutMillis = 10_000
	x.ask("all", req)
	one := kmsg.NewPtrListPartitionReassignmentsRequest()
	one.TimeoutMillis = 10_000
	rt := kmsg.NewListPartitionReassignmentsRequestTopic()
	rt.Topic, rt.Partitions = missing, []int32{0}
	one.Topics = append(one.Topics, rt)
	x.ask("of a missing topic", one)
}

func probeDescribeCluster(x *trial) {
	x.ask("the cluster", kmsg.NewPtrDescribeClusterRequest())
	operations := kmsg.NewPtrDescribeClusterRequest()
	operations.IncludeClusterAuthorizedOperations = true
	x.ask("what may be done", operations)
	if x.version >= 1 {
		controllers := kmsg.NewPtrDescribeClusterRequest()
		controllers.EndpointType = 2
		x.ask("the controllers", controllers)
		odd := kmsg.NewPtrDescribeClusterRequest()
		odd.EndpointType = 9
		x.ask("endpoints that do not exist", odd)
	}
	if x.version >= 2 {
		fenced := kmsg.NewPtrDescribeClusterRequest()
		fenced.IncludeFencedBrokers = true
		x.ask("fenced brokers too", fenced)
	}
}

func probeListConfigResources(x *trial) {
	x.ask("all", kmsg.NewPtrListConfigResourcesRequest())
	if x.version == 0 {
		return
	}
	of := func(kind kmsg.ConfigResourceType) *kmsg.ListConfigResourcesRequest {
		req := kmsg.NewPtrListConfigResourcesRequest()
		req.ResourceTypes = []int8{int8(kind)}
		return req
	}
	x.ask("topics", of(kmsg.ConfigResourceTypeTopic))
	x.ask("groups", of(kmsg.ConfigResourceTypeGroupConfig))
	x.ask("brokers", of(kmsg.ConfigResourceTypeBroker))
	x.ask("of a kind that does not exist", of(77))
}

// dialLogin opens a connection to the listener that wants a login.
func (x *trial) dialLogin() *rawkafka.Conn {
	x.t.Helper()
	conn, err := rawkafka.Connect(x.t.Context(), drivers.Target{
		Bootstrap: x.login.Bootstrap, CAFile: x.login.CAFile, Hosts: x.login.Hosts,
	})
	if err != nil {
		x.t.Fatal(err)
	}
	return conn
}

// onLogin asks on a connection of its own, after what before sends on it.
func (x *trial) onLogin(name string, req kmsg.Request, before ...kmsg.Request) {
	x.t.Helper()
	conn := x.dialLogin()
	defer conn.Close()
	for _, r := range before {
		if _, err := conn.Ask(r); err != nil {
			x.t.Fatalf("%s, before: %v", name, err)
		}
	}
	req.SetVersion(x.version)
	resp, err := conn.Ask(req)
	x.keep(name, resp, err)
}

func handshakeOf(version int16, mechanism string) *kmsg.SASLHandshakeRequest {
	req := kmsg.NewPtrSASLHandshakeRequest()
	req.Version, req.Mechanism = version, mechanism
	return req
}

func plainOf(version int16, user, password string) *kmsg.SASLAuthenticateRequest {
	req := kmsg.NewPtrSASLAuthenticateRequest()
	req.Version, req.SASLAuthBytes = version, []byte("\x00"+user+"\x00"+password)
	return req
}

func probeSASLHandshake(x *trial) {
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", ""} {
		x.onLogin("mechanism "+mechanism, handshakeOf(0, mechanism))
	}
	x.ask("where there is no login", handshakeOf(0, "PLAIN"))
	x.onLogin("after a handshake", handshakeOf(0, "PLAIN"), handshakeOf(1, "PLAIN"))
	x.onLogin("at once after a login", handshakeOf(0, "PLAIN"), handshakeOf(1, "PLAIN"), plainOf(2, x.login.User, x.login.Password))
	// Version 0 leads to tokens without a header.
	if x.version == 0 {
		for name, password := range map[string]string{"a token": x.login.Password, "a wrong token": "wrong"} {
			conn := x.dialLogin()
			if _, err := conn.Ask(handshakeOf(0, "PLAIN")); err != nil {
				x.t.Fatal(err)
			}
			err := conn.Token([]byte("\x00" + x.login.User + "\x00" + password))
			conn.Close()
			resp := kmsg.NewPtrSASLAuthenticateResponse()
			x.keep(name, resp, err)
		}
	}
}

func probeSASLAuthenticate(x *trial) {
	shake := handshakeOf(1, "PLAIN")
	x.onLogin("a password", plainOf(0, x.login.User, x.login.Password), shake)
	scram := kmsg.NewPtrSASLAuthenticateRequest()
	scram.SASLAuthBytes = []byte("p=tls-unique,,n=alice,r=nonce")
	// Failures delay what follows, so each version has one of its own.
	switch x.version {
	case 0:
		x.onLogin("a wrong password", plainOf(0, x.login.User, "wrong"), shake)
	case 1:
		x.onLogin("a user that does not exist", plainOf(0, "nobody", "wrong"), shake)
	case 2:
		x.onLogin("no message of the mechanism", plainOf(0, "", ""), shake)
		x.onLogin("a SCRAM message with channel binding", scram, handshakeOf(1, "SCRAM-SHA-256"))
	}
	x.onLogin("before a handshake", plainOf(0, x.login.User, x.login.Password))
	x.onLogin("after a login", plainOf(0, x.login.User, x.login.Password), shake, plainOf(2, x.login.User, x.login.Password))
	x.ask("where there is no login", plainOf(0, "", ""))
}
