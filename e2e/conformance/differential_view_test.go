package conformance

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/differential"
)

// viewProbes are of what the gateway shows from its own resources, or of a
// tenant's part of a broker.
func viewProbes() []probe {
	return []probe{
		{key: int16(kmsg.DescribeLogDirs), run: probeDescribeLogDirs},
		{key: int16(kmsg.DescribeClientQuotas), run: probeDescribeClientQuotas, rules: []differential.Rule{
			{Field: "ErrorMessage", As: differential.Text},
		}},
		{key: int16(kmsg.AlterClientQuotas), run: probeAlterClientQuotas, rules: []differential.Rule{
			{Field: "Entries[].ErrorMessage", As: differential.Text},
		}},
		{key: int16(kmsg.DescribeUserSCRAMCredentials), run: probeDescribeSCRAM, rules: []differential.Rule{
			{Field: "ErrorMessage", As: differential.Text},
			{Field: "Results[].ErrorMessage", As: differential.Text},
		}},
		{key: int16(kmsg.AlterUserSCRAMCredentials), run: probeAlterSCRAM, rules: []differential.Rule{
			{Field: "Results[].ErrorMessage", As: differential.Text},
		}},
		{key: int16(kmsg.DescribeTopicPartitions), run: probeDescribeTopicPartitions, rules: []differential.Rule{
			{Field: "Topics[].TopicID", As: differential.TopicID},
		}},
	}
}

func probeDescribeLogDirs(x *trial) {
	of := func(topics ...string) *kmsg.DescribeLogDirsRequest {
		req := kmsg.NewPtrDescribeLogDirsRequest()
		req.Topics = []kmsg.DescribeLogDirsRequestTopic{}
		for _, name := range topics {
			req.Topics = append(req.Topics, kmsg.DescribeLogDirsRequestTopic{Topic: name, Partitions: []int32{0, 1}})
		}
		return req
	}
	x.ask("a topic", of(records))
	x.ask("a missing topic", of(missing))
	x.ask("no topic", of())
}

func probeDescribeClientQuotas(x *trial) {
	of := func(components ...kmsg.DescribeClientQuotasRequestComponent) *kmsg.DescribeClientQuotasRequest {
		req := kmsg.NewPtrDescribeClientQuotasRequest()
		req.Components = components
		return req
	}
	component := func(entity string, match kmsg.QuotasMatchType, name *string) kmsg.DescribeClientQuotasRequestComponent {
		return kmsg.DescribeClientQuotasRequestComponent{EntityType: entity, MatchType: match, Match: name}
	}
	x.ask("everything", of())
	x.ask("a user", of(component("user", kmsg.QuotasMatchTypeExact, kmsg.StringPtr("d.nobody"))))
	x.ask("the default user", of(component("user", kmsg.QuotasMatchTypeDefault, nil)))
	x.ask("an unknown entity type", of(component("d.tenant", kmsg.QuotasMatchTypeAny, nil)))
	x.ask("an entity type twice", of(component("user", kmsg.QuotasMatchTypeAny, nil), component("user", kmsg.QuotasMatchTypeDefault, nil)))
	x.ask("an address of a user", of(component("user", kmsg.QuotasMatchTypeAny, nil), component("ip", kmsg.QuotasMatchTypeAny, nil)))
	x.ask("nothing to match", of(component("user", kmsg.QuotasMatchTypeExact, nil)))
	x.ask("an unknown way to match", of(component("user", 9, nil)))
	x.ask("an empty entity type", of(component("", kmsg.QuotasMatchTypeAny, nil)))
}

func probeAlterClientQuotas(x *trial) {
	req := kmsg.NewPtrAlterClientQuotasRequest()
	req.ValidateOnly = true
	req.Entries = []kmsg.AlterClientQuotasRequestEntry{{
		Entity: []kmsg.AlterClientQuotasRequestEntryEntity{{Type: "user", Name: kmsg.StringPtr("d.nobody")}},
		Ops:    []kmsg.AlterClientQuotasRequestEntryOp{{Key: "producer_byte_rate", Value: 1 << 30}},
	}}
	x.ask("a user's, to see whether they could be", req)
}

func probeDescribeSCRAM(x *trial) {
	of := func(users ...string) *kmsg.DescribeUserSCRAMCredentialsRequest {
		req := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
		for _, u := range users {
			req.Users = append(req.Users, kmsg.DescribeUserSCRAMCredentialsRequestUser{Name: u})
		}
		return req
	}
	x.ask("a user that is not there", of("d.nobody"))
	x.ask("a user twice", of("d.nobody", "d.nobody"))
}

func probeAlterSCRAM(x *trial) {
	req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	req.Upsertions = []kmsg.AlterUserSCRAMCredentialsRequestUpsertion{{
		Name: "d.nobody", Mechanism: 1, Iterations: 1, Salt: []byte("salt"), SaltedPassword: []byte("salted"),
	}}
	x.ask("too few iterations", req)
}

func probeDescribeTopicPartitions(x *trial) {
	of := func(limit int32, cursor *kmsg.DescribeTopicPartitionsRequestCursor, topics ...string) *kmsg.DescribeTopicPartitionsRequest {
		req := kmsg.NewPtrDescribeTopicPartitionsRequest()
		req.ResponsePartitionLimit, req.Cursor = limit, cursor
		for _, name := range topics {
			req.Topics = append(req.Topics, kmsg.DescribeTopicPartitionsRequestTopic{Topic: name})
		}
		return req
	}
	at := func(topic string, partition int32) *kmsg.DescribeTopicPartitionsRequestCursor {
		return &kmsg.DescribeTopicPartitionsRequestCursor{Topic: topic, Partition: partition}
	}
	x.ask("a topic", of(2000, nil, records))
	x.ask("topics out of order, one twice, one missing", of(2000, nil, records, missing, produced, records))
	x.ask("an illegal name", of(2000, nil, "d/slash"))
	x.ask("three partitions of four", of(3, nil, records, produced))
	x.ask("the rest", of(3, at(records, 1), records, produced))
	x.ask("as many as there are in the first topic", of(2, nil, records, produced))
	x.ask("no partitions", of(0, nil, records))
	x.ask("after a topic that is missing", of(2000, at(missing, 0), missing, records))
	x.ask("after the last partition", of(2000, at(records, 9), records))
	x.ask("after a topic that was not asked for", of(2000, at(produced, 0), records))
	x.ask("before the first partition", of(2000, at(records, -1), records))
}
