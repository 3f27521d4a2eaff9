package clients

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"tollgate.internal/e2e/internal/kafkajars"
)

// A tool is one of Kafka's command line tools.
type tool struct {
	class  string // since 4.0
	class3 string // in 3.9, where it is another
	config string // the option that takes client.properties
}

var tools = map[string]tool{
	"console-producer":    {"org.apache.kafka.tools.ConsoleProducer", "kafka.tools.ConsoleProducer", "--producer.config"},
	"console-consumer":    {"org.apache.kafka.tools.consumer.ConsoleConsumer", "", "--consumer.config"},
	"verifiable-producer": {"org.apache.kafka.tools.VerifiableProducer", "", "--producer.config"},
	"verifiable-consumer": {"org.apache.kafka.tools.VerifiableConsumer", "", "--consumer.config"},
	"topics":              {"org.apache.kafka.tools.TopicCommand", "", "--command-config"},
	"consumer-groups":     {"org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "", "--command-config"},
	"acls":                {"org.apache.kafka.tools.AclCommand", "kafka.admin.AclCommand", "--command-config"},
	"configs":             {"kafka.admin.ConfigCommand", "", "--command-config"},
	"transactions":        {"org.apache.kafka.tools.TransactionsCommand", "", "--command-config"},
	"broker-api-versions": {"org.apache.kafka.tools.BrokerApiVersionsCommand", "kafka.admin.BrokerApiVersionsCommand", "--command-config"},
}

// Tool runs one of Kafka's command line tools, by its script's name without
// "kafka-" and ".sh", and returns its standard output. Bootstrap servers and
// credentials are those of the target.
func Tool(ctx context.Context, t Target, version, name string, stdin io.Reader, args ...string) (string, error) {
	tool, ok := tools[name]
	if !ok {
		return "", fmt.Errorf("unknown Kafka tool %q", name)
	}
	jars, err := kafkajars.Get(ctx, version)
	if err != nil {
		return "", err
	}
	java, err := kafkajars.Java()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "tollgate-client-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	properties, err := t.properties(dir)
	if err != nil {
		return "", err
	}
	class := tool.class
	if !jars.Modern() && tool.class3 != "" {
		class = tool.class3
	}
	line := slices.Concat(kafkajars.SmallJVM(), kafkajars.Quiet(),
		[]string{"-cp", jars.Classpath(), class, "--bootstrap-server", t.Bootstrap, tool.config, properties}, args)
	out, err := t.run(ctx, stdin, nil, java, line...)
	if err != nil {
		return out, fmt.Errorf("kafka-%s %s of Kafka %s: %w", name, strings.Join(args, " "), version, err)
	}
	return out, nil
}

// Kcat runs kcat and returns its standard output.
func Kcat(ctx context.Context, t Target, stdin io.Reader, args ...string) (string, error) {
	var line []string
	for name, value := range t.librdkafka() {
		line = append(line, "-X", name+"="+value)
	}
	return t.run(ctx, stdin, nil, "kcat", append(line, args...)...)
}
