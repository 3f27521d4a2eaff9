package resource

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// DefaultConfigKeys are the topic configurations that tenants may set where a
// virtual cluster does not list its own: those that cost only the tenant's own
// quota and reveal nothing of the brokers.
var DefaultConfigKeys = []string{
	"cleanup.policy",
	"compression.type",
	"delete.retention.ms",
	"max.compaction.lag.ms",
	"max.message.bytes",
	"message.timestamp.after.max.ms",
	"message.timestamp.before.max.ms",
	"message.timestamp.type",
	"min.cleanable.dirty.ratio",
	"min.compaction.lag.ms",
	"min.insync.replicas",
	"retention.bytes",
	"retention.ms",
	"segment.bytes",
	"segment.ms",
}

// The defaults of [TopicPolicy].
const (
	DefaultMaxPartitions        = 100
	DefaultMinReplicationFactor = 1
	DefaultMaxReplicationFactor = 3
)

const (
	maxTopicName = 249
	clusterName  = "kafka-cluster"
)

// internalTopics are where brokers keep the state of everybody.
var internalTopics = []string{"__cluster_metadata", "__consumer_offsets", "__share_group_state", "__transaction_state"}

// IsInternalTopic reports whether a physical topic is the brokers' own. No
// grant covers such a topic.
func IsInternalTopic(name string) bool { return slices.Contains(internalTopics, name) }

// CheckTopicName says why Kafka would refuse a topic of this name.
func CheckTopicName(name string) error {
	switch {
	case name == "":
		return errors.New("topic name is empty")
	case name == "." || name == "..":
		return fmt.Errorf("topic name is %q", name)
	case len(name) > maxTopicName:
		return fmt.Errorf("topic name has %d characters, more than %d", len(name), maxTopicName)
	}
	if i := strings.IndexFunc(name, func(r rune) bool { return !topicRune(r) }); i >= 0 {
		return fmt.Errorf("topic name %q has a character other than a-z, A-Z, 0-9, '.', '_' and '-'", name)
	}
	return nil
}

func topicRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
}

// label reports whether s is a DNS label (RFC 1123), in lower case.
func label(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}

// aclWords is Kafka's ACL model: the resource types in the spelling of its
// files, each with the operations that have a meaning for it besides ALL.
var aclWords = []struct {
	resourceType string
	operations   []string
}{
	{"topic", []string{"READ", "WRITE", "CREATE", "DESCRIBE", "DELETE", "ALTER", "DESCRIBE_CONFIGS", "ALTER_CONFIGS"}},
	{"group", []string{"READ", "DESCRIBE", "DELETE", "DESCRIBE_CONFIGS", "ALTER_CONFIGS"}},
	{"cluster", []string{"CREATE", "CLUSTER_ACTION", "DESCRIBE_CONFIGS", "ALTER_CONFIGS", "IDEMPOTENT_WRITE", "ALTER", "DESCRIBE"}},
	{"transactionalId", []string{"DESCRIBE", "WRITE", "TWO_PHASE_COMMIT"}},
	{"delegationToken", []string{"DESCRIBE"}},
	{"user", []string{"CREATE_TOKENS", "DESCRIBE_TOKENS"}},
}

// ACLResourceTypes lists the resource types in the spelling of [ACLResource].
func ACLResourceTypes() []string {
	types := make([]string, len(aclWords))
	for i, w := range aclWords {
		types[i] = w.resourceType
	}
	return types
}

// ACLOperations lists the operations that are legal for a resource type, ALL
// first; none for an unknown type.
func ACLOperations(resourceType string) []string {
	for _, w := range aclWords {
		if w.resourceType == resourceType {
			return append([]string{"ALL"}, w.operations...)
		}
	}
	return nil
}

// canonical finds word among words. Kafka's protocol writes DESCRIBE_CONFIGS
// and its tools DescribeConfigs; both are understood, in any case.
func canonical(word string, words []string) (string, bool) {
	i := slices.IndexFunc(words, func(w string) bool { return fold(w) == fold(word) })
	if i < 0 {
		return "", false
	}
	return words[i], true
}

func fold(word string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(word))
}
