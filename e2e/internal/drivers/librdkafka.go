package drivers

import (
	"context"
	"encoding/json"
)

// Librdkafka is confluent-kafka that produces to a topic, or with a group reads it,
// until it is asked to end. It prints what Kafka's verifiable tools print.
func Librdkafka(ctx context.Context, target Target, topic, group string) (Command, error) {
	cmd, err := python("verifiable.py")(ctx)
	if err != nil {
		return cmd, err
	}
	j := map[string]string{"do": "produce", "bootstrap": target.Bootstrap, "protocol": target.Protocol(), "topic": topic}
	if group != "" {
		j["do"], j["group"] = "consume", group
	}
	if target.CAFile != "" {
		j["ca"] = target.CAFile
	}
	if target.Mechanism != "" {
		j["mechanism"], j["user"], j["password"] = target.Mechanism, target.User, target.Password
	}
	input, err := json.Marshal(j)
	cmd.Stdin, cmd.Hosts = string(input), target.Hosts
	return cmd, err
}
