package drivers

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tollgate.internal/e2e/internal/kafkajars"
)

// A tool is one of Kafka's command line tools.
type tool struct {
	class     string
	class3    string // in 3.9, where it is another
	config    string // the option that takes client.properties
	bootstrap string // the option that takes addresses; "": --bootstrap-server
	alone     bool   // finishes its work in the shutdown of its JVM
	// Some tools give up after 5 s, less than a cold JVM may take for a first TLS
	// handshake and login beside other tests. These arguments and settings have them
	// wait as long as the others.
	patientArgs, patientSettings []string
}

// The name is that of the script without "kafka-" and ".sh".
var tools = map[string]tool{
	"console-producer":          {class: "org.apache.kafka.tools.ConsoleProducer", class3: "kafka.tools.ConsoleProducer", config: "--producer.config"},
	"console-consumer":          {class: "org.apache.kafka.tools.consumer.ConsoleConsumer", config: "--consumer.config"},
	"verifiable-producer":       {class: "org.apache.kafka.tools.VerifiableProducer", config: "--producer.config", alone: true},
	"verifiable-consumer":       {class: "org.apache.kafka.tools.VerifiableConsumer", config: "--consumer.config"},
	"producer-perf-test":        {class: "org.apache.kafka.tools.ProducerPerformance", config: "--producer.config", bootstrap: "none"},
	"consumer-perf-test":        {class: "org.apache.kafka.tools.ConsumerPerformance", config: "--consumer.config"},
	"console-share-consumer":    {class: "org.apache.kafka.tools.consumer.ConsoleShareConsumer", config: "--command-config"},
	"verifiable-share-consumer": {class: "org.apache.kafka.tools.VerifiableShareConsumer", config: "--command-config"},
	"share-groups":              {class: "org.apache.kafka.tools.consumer.group.ShareGroupCommand", config: "--command-config", patientArgs: []string{"--timeout", "60000"}},
	"topics":                    {class: "org.apache.kafka.tools.TopicCommand", config: "--command-config"},
	"consumer-groups":           {class: "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", config: "--command-config", patientArgs: []string{"--timeout", "60000"}},
	"acls":                      {class: "org.apache.kafka.tools.AclCommand", class3: "kafka.admin.AclCommand", config: "--command-config"},
	"log-dirs":                  {class: "org.apache.kafka.tools.LogDirsCommand", config: "--command-config"},
	"configs":                   {class: "kafka.admin.ConfigCommand", config: "--command-config"},
	"transactions":              {class: "org.apache.kafka.tools.TransactionsCommand", config: "--command-config"},
	"get-offsets":               {class: "org.apache.kafka.tools.GetOffsetShell", config: "--command-config"},
	"broker-api-versions":       {class: "org.apache.kafka.tools.BrokerApiVersionsCommand", class3: "kafka.admin.BrokerApiVersionsCommand", config: "--command-config", patientSettings: []string{"request.timeout.ms=60000"}},
}

// A ToolRun is one call of a tool.
type ToolRun struct {
	Tool     string // its script's name, without "kafka-" and ".sh"
	Target   Target
	Settings []string // further lines of the properties file, such as group.protocol=consumer
	Args     []string
	Stdin    string
}

// line is the tool's class and arguments. The target's properties, and what they
// refer to, are files in dir.
func (r ToolRun) line(jars *kafkajars.Jars, dir string) (class string, args []string, err error) {
	tool, ok := tools[r.Tool]
	if !ok {
		return "", nil, fmt.Errorf("unknown Kafka tool %q", r.Tool)
	}
	lines, err := r.Target.properties(dir)
	if err != nil {
		return "", nil, err
	}
	file := filepath.Join(dir, "client.properties")
	if err := os.WriteFile(file, []byte(strings.Join(slices.Concat(lines, tool.patientSettings, r.Settings), "\n")+"\n"), 0o600); err != nil {
		return "", nil, err
	}
	class, args = tool.class, []string{tool.config, file}
	if !jars.Modern() && tool.class3 != "" {
		class = tool.class3
	}
	if tool.bootstrap == "" {
		args = append(args, "--bootstrap-server", r.Target.Bootstrap)
	}
	return class, slices.Concat(args, tool.patientArgs, r.Args), nil
}

// JavaTool is one of Kafka's command line tools, in one version of Kafka, as a
// process of its own.
func JavaTool(ctx context.Context, version string, run ToolRun) (Command, error) {
	cmd, jars, err := jvm(ctx, version, run.Target)
	if err != nil {
		return Command{}, err
	}
	class, args, err := run.line(jars, cmd.files[0])
	if err != nil {
		cmd.remove()
		return Command{}, err
	}
	cmd.Stdin, cmd.Args = run.Stdin, slices.Concat(cmd.Args, []string{"-cp", jars.Classpath(), class}, args)
	return cmd, nil
}

//go:embed scripts/Tools.java
var toolsJava []byte

// JavaTools runs tools of one version of Kafka one after another, in one JVM where
// that can be, which takes a quarter of the time. All targets are of one gateway.
func JavaTools(ctx context.Context, version string, runs ...ToolRun) ([]Result, error) {
	if len(runs) == 0 {
		return nil, nil
	}
	if i := slices.IndexFunc(runs, func(r ToolRun) bool { return tools[r.Tool].alone }); i >= 0 {
		results, err := JavaTools(ctx, version, runs[:i]...)
		if err != nil {
			return results, err
		}
		cmd, err := JavaTool(ctx, version, runs[i])
		if err != nil {
			return results, err
		}
		result, err := cmd.Run(ctx)
		if err != nil {
			return results, err
		}
		rest, err := JavaTools(ctx, version, runs[i+1:]...)
		return slices.Concat(results, []Result{result}, rest), err
	}
	cmd, jars, err := jvm(ctx, version, runs[0].Target)
	if err != nil {
		return nil, err
	}
	defer cmd.remove()
	runner, err := jars.Compile(ctx, "Tools", toolsJava)
	if err != nil {
		return nil, err
	}
	type job struct {
		Class string   `json:"class"`
		Args  []string `json:"args"`
		Stdin string   `json:"stdin"`
	}
	var jobs []job
	for i, run := range runs {
		dir := filepath.Join(cmd.files[0], fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, err
		}
		class, args, err := run.line(jars, dir)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, job{class, args, run.Stdin})
	}
	input, err := json.Marshal(jobs)
	if err != nil {
		return nil, err
	}
	cmd.Stdin, cmd.Args = string(input), append(cmd.Args, "-cp", jars.Classpath(runner), "Tools")
	ended, err := cmd.Run(ctx)
	if err != nil {
		return nil, err
	}
	var results []Result
	for line := range strings.Lines(ended.Stdout) {
		var r struct {
			Stdout, Stderr string
			Code           int
			Nanos          int64
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return results, fmt.Errorf("the runner of tools printed %q: %w", line, err)
		}
		results = append(results, Result{
			Name: runs[min(len(results), len(runs)-1)].Tool, Stdout: r.Stdout, Stderr: r.Stderr,
			ExitCode: r.Code, Elapsed: time.Duration(r.Nanos),
		})
	}
	if len(results) != len(runs) {
		return results, fmt.Errorf("%d of %d tools have ended: %w", len(results), len(runs), ended.Err())
	}
	return results, nil
}

// jvm begins the command of a Java program that can reach the target. It has a
// folder for files, which is removed with the command.
func jvm(ctx context.Context, version string, target Target) (Command, *kafkajars.Jars, error) {
	jars, err := kafkajars.Get(ctx, version)
	if err != nil {
		return Command{}, nil, err
	}
	java, err := kafkajars.Java()
	if err != nil {
		return Command{}, nil, err
	}
	dir, err := os.MkdirTemp("", "tollgate-tool-")
	if err != nil {
		return Command{}, nil, err
	}
	args := slices.Concat(jars.SmallJVM(), kafkajars.Quiet())
	if target.TokenURL != "" {
		args = append(args, "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls="+target.TokenURL)
	}
	return Command{Path: java, Args: args, Hosts: target.Hosts, files: []string{dir}}, jars, nil
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
