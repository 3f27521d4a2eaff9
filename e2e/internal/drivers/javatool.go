package drivers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tollgate.internal/e2e/internal/kafkajars"
)

// A tool is one of Kafka's command line tools.
type tool struct {
	class     string
	class3    string // in 3.9, where it is another
	config    string // the option that takes client.properties
	bootstrap string // the option that takes addresses; "": --bootstrap-server
}

// The name is that of the script without "kafka-" and ".sh".
var tools = map[string]tool{
	"console-producer":          {class: "org.apache.kafka.tools.ConsoleProducer", class3: "kafka.tools.ConsoleProducer", config: "--producer.config"},
	"console-consumer":          {class: "org.apache.kafka.tools.consumer.ConsoleConsumer", config: "--consumer.config"},
	"verifiable-producer":       {class: "org.apache.kafka.tools.VerifiableProducer", config: "--producer.config"},
	"verifiable-consumer":       {class: "org.apache.kafka.tools.VerifiableConsumer", config: "--consumer.config"},
	"producer-perf-test":        {class: "org.apache.kafka.tools.ProducerPerformance", config: "--producer.config", bootstrap: "none"},
	"consumer-perf-test":        {class: "org.apache.kafka.tools.ConsumerPerformance", config: "--consumer.config"},
	"console-share-consumer":    {class: "org.apache.kafka.tools.consumer.ConsoleShareConsumer", config: "--command-config"},
	"verifiable-share-consumer": {class: "org.apache.kafka.tools.VerifiableShareConsumer", config: "--command-config"},
	"share-groups":              {class: "org.apache.kafka.tools.consumer.group.ShareGroupCommand", config: "--command-config"},
	"topics":                    {class: "org.apache.kafka.tools.TopicCommand", config: "--command-config"},
	"consumer-groups":           {class: "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", config: "--command-config"},
	"acls":                      {class: "org.apache.kafka.tools.AclCommand", class3: "kafka.admin.AclCommand", config: "--command-config"},
	"configs":                   {class: "kafka.admin.ConfigCommand", config: "--command-config"},
	"transactions":              {class: "org.apache.kafka.tools.TransactionsCommand", config: "--command-config"},
	"get-offsets":               {class: "org.apache.kafka.tools.GetOffsetShell", config: "--command-config"},
	"broker-api-versions":       {class: "org.apache.kafka.tools.BrokerApiVersionsCommand", class3: "kafka.admin.BrokerApiVersionsCommand", config: "--command-config"},
}

// JavaTool is one of Kafka's command line tools, in one version of Kafka, with
// arguments of its own. The target is put into the properties file the tool takes;
// settings are further lines of it, such as group.protocol=consumer.
func JavaTool(ctx context.Context, version, name string, target Target, settings []string, args ...string) (Command, error) {
	tool, ok := tools[name]
	if !ok {
		return Command{}, fmt.Errorf("unknown Kafka tool %q", name)
	}
	jars, err := kafkajars.Get(ctx, version)
	if err != nil {
		return Command{}, err
	}
	java, err := kafkajars.Java()
	if err != nil {
		return Command{}, err
	}
	dir, err := os.MkdirTemp("", "tollgate-tool-")
	if err != nil {
		return Command{}, err
	}
	cmd := Command{Path: java, Hosts: target.Hosts, files: []string{dir}}
	lines, err := target.properties(dir)
	if err != nil {
		cmd.remove()
		return Command{}, err
	}
	file := filepath.Join(dir, "client.properties")
	text := strings.Join(slices.Concat(lines, settings), "\n") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		cmd.remove()
		return Command{}, err
	}
	class := tool.class
	if !jars.Modern() && tool.class3 != "" {
		class = tool.class3
	}
	jvm := slices.Concat(kafkajars.SmallJVM(), kafkajars.Quiet())
	if target.TokenURL != "" {
		jvm = append(jvm, "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls="+target.TokenURL)
	}
	cmd.Args = slices.Concat(jvm, []string{"-cp", jars.Classpath(), class, tool.config, file})
	if tool.bootstrap == "" {
		cmd.Args = append(cmd.Args, "--bootstrap-server", target.Bootstrap)
	}
	cmd.Args = append(cmd.Args, args...)
	return cmd, nil
}

// properties are the lines of client.properties for the target; files they refer
// to are written into dir.
func (t Target) properties(dir string) ([]string, error) {
	lines := []string{"bootstrap.servers=" + t.Bootstrap, "security.protocol=" + t.Protocol()}
	if t.CAFile != "" {
		lines = append(lines, "ssl.truststore.type=PEM", "ssl.truststore.location="+t.CAFile)
	}
	if t.CertFile != "" {
		// Kafka wants both in one file, the private one first.
		var keystore []byte
		for _, file := range []string{t.KeyFile, t.CertFile} {
			b, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			keystore = append(keystore, b...)
		}
		file := filepath.Join(dir, "keystore.pem")
		if err := os.WriteFile(file, keystore, 0o600); err != nil {
			return nil, err
		}
		lines = append(lines, "ssl.keystore.type=PEM", "ssl.keystore.location="+file)
	}
	const security = "org.apache.kafka.common.security."
	switch t.Mechanism {
	case "":
	case "OAUTHBEARER":
		lines = append(
			lines, "sasl.mechanism=OAUTHBEARER", "sasl.oauthbearer.token.endpoint.url="+t.TokenURL,
			"sasl.login.callback.handler.class="+security+"oauthbearer.OAuthBearerLoginCallbackHandler",
			fmt.Sprintf("sasl.jaas.config=%soauthbearer.OAuthBearerLoginModule required clientId=%q clientSecret=%q;", security, t.User, t.Password))
	default:
		module := "scram.ScramLoginModule"
		if t.Mechanism == "PLAIN" {
			module = "plain.PlainLoginModule"
		}
		lines = append(
			lines, "sasl.mechanism="+t.Mechanism,
			fmt.Sprintf("sasl.jaas.config=%s%s required username=%q password=%q;", security, module, t.User, t.Password))
	}
	return lines, nil
}
