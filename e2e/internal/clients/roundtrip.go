package clients

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"tollgate.internal/e2e/internal/kafkajars"
)

// A Job is what a round trip does: produce Records records with keys to Topic,
// then consume them as a member of Group and commit. The topic exists and is
// empty, and the group is new.
type Job struct {
	Topic   string `json:"topic"`
	Group   string `json:"group"`
	Records int    `json:"records"`
}

// A Result counts the records that the brokers acknowledged, and the different
// ones among them that came back with the right key and value.
type Result struct {
	Produced int `json:"produced"`
	Consumed int `json:"consumed"`
}

// A Client is a foreign client.
type Client struct {
	Name string
	// RoundTrip does the job and returns when the group's offsets are committed.
	RoundTrip func(context.Context, Target, Job) (Result, error)
}

// All lists the foreign clients.
func All() []Client {
	all := []Client{
		{"kcat", kcat},
		{"confluent-kafka", python("confluent-kafka")},
		{"kafka-python", python("kafka-python")},
		{"kafkajs", kafkajs},
	}
	for _, version := range kafkajars.Versions() {
		all = append(all, Client{"java-" + version, javaTools(version)})
	}
	return all
}

// records are the lines "key-1:value-1" that console clients read and write.
func records(n int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, "key-%d:value-%d\n", i, i)
	}
	return s.String()
}

// count returns how many of the n records are among the lines.
func count(lines string, n int) int {
	seen := make(map[string]bool)
	for line := range strings.Lines(lines) {
		seen[line] = true
	}
	found := 0
	for line := range strings.Lines(records(n)) {
		if seen[line] {
			found++
		}
	}
	return found
}

func kcat(ctx context.Context, t Target, job Job) (Result, error) {
	if _, err := Kcat(ctx, t, strings.NewReader(records(job.Records)), "-P", "-t", job.Topic, "-K", ":"); err != nil {
		return Result{}, err
	}
	out, err := Kcat(ctx, t, nil, "-X", "auto.offset.reset=earliest", "-q", "-c", strconv.Itoa(job.Records),
		"-f", `%k:%s\n`, "-G", job.Group, job.Topic)
	return Result{Produced: job.Records, Consumed: count(out, job.Records)}, err
}

func javaTools(version string) func(context.Context, Target, Job) (Result, error) {
	return func(ctx context.Context, t Target, job Job) (Result, error) {
		var r Result
		if _, err := Tool(ctx, t, version, "topics", nil, "--describe", "--topic", job.Topic); err != nil {
			return r, err
		}
		_, err := Tool(ctx, t, version, "console-producer", strings.NewReader(records(job.Records)),
			"--topic", job.Topic, "--property", "parse.key=true", "--property", "key.separator=:")
		if err != nil {
			return r, err
		}
		r.Produced = job.Records
		out, err := Tool(ctx, t, version, "console-consumer", nil, "--topic", job.Topic, "--group", job.Group,
			"--from-beginning", "--max-messages", strconv.Itoa(job.Records), "--timeout-ms", "30000",
			"--property", "print.key=true", "--property", "key.separator=:")
		if err != nil {
			return r, err
		}
		r.Consumed = count(out, job.Records)
		groups, err := Tool(ctx, t, version, "consumer-groups", nil, "--describe", "--group", job.Group)
		if err != nil {
			return r, err
		}
		if got := committed(groups, job.Topic); got != job.Records {
			return r, fmt.Errorf("group %s has committed %d of %d records:\n%s", job.Group, got, job.Records, groups)
		}
		return r, nil
	}
}

// committed sums the offsets in a table with the columns GROUP, TOPIC, PARTITION, CURRENT-OFFSET, …
func committed(table, topic string) (sum int) {
	row := regexp.MustCompile(`(?m)^\S+\s+` + regexp.QuoteMeta(topic) + `\s+\d+\s+(\d+)\s`)
	for _, m := range row.FindAllStringSubmatch(table, -1) {
		n, _ := strconv.Atoi(m[1]) // a match of \d+
		sum += n
	}
	return sum
}

var (
	//go:embed roundtrip.py
	pythonScript string
	//go:embed roundtrip.js
	nodeScript string
)

// A script reads its order from standard input, where no process list shows the password.
type order struct {
	Job
	Library    string            `json:"library"`
	Bootstrap  []string          `json:"bootstrap"`
	Protocol   string            `json:"protocol"`
	CA         string            `json:"ca"`
	Cert       string            `json:"cert"`
	Key        string            `json:"key"`
	Mechanism  string            `json:"mechanism"`
	User       string            `json:"user"`
	Password   string            `json:"password"`
	Librdkafka map[string]string `json:"librdkafka"`
}

func python(library string) func(context.Context, Target, Job) (Result, error) {
	return func(ctx context.Context, t Target, job Job) (Result, error) {
		interpreter, err := Python(ctx)
		if err != nil {
			return Result{}, err
		}
		return script(ctx, t, job, library, nil, interpreter, "-c", pythonScript)
	}
}

func kafkajs(ctx context.Context, t Target, job Job) (Result, error) {
	modules, err := Node(ctx)
	if err != nil {
		return Result{}, err
	}
	return script(ctx, t, job, "kafkajs", []string{"NODE_PATH=" + modules, "KAFKAJS_NO_PARTITIONER_WARNING=1"}, "node", "-e", nodeScript)
}

func script(ctx context.Context, t Target, job Job, library string, env []string, name string, args ...string) (Result, error) {
	stdin, err := json.Marshal(order{
		Job: job, Library: library, Bootstrap: strings.Split(t.Bootstrap, ","), Protocol: t.protocol(),
		CA: t.CAFile, Cert: t.CertFile, Key: t.KeyFile,
		Mechanism: t.Mechanism, User: t.User, Password: t.Password, Librdkafka: t.librdkafka(),
	})
	if err != nil {
		return Result{}, err
	}
	out, err := t.run(ctx, strings.NewReader(string(stdin)), env, name, args...)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", library, err)
	}
	var r Result
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return r, fmt.Errorf("%s printed %q: %w", library, out, err)
	}
	return r, nil
}
