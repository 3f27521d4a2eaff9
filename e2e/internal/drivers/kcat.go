package drivers

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// KcatArgs are the arguments that make kcat, or anything else that takes
// librdkafka's -X, connect to a target.
func KcatArgs(target Target) []string {
	args := []string{"-b", target.Bootstrap, "-X", "security.protocol=" + strings.ToLower(target.Protocol())}
	add := func(name, value string) {
		if value != "" {
			args = append(args, "-X", name+"="+value)
		}
	}
	add("ssl.ca.location", target.CAFile)
	add("ssl.certificate.location", target.CertFile)
	add("ssl.key.location", target.KeyFile)
	add("sasl.mechanism", target.Mechanism)
	add("sasl.username", target.User)
	add("sasl.password", target.Password)
	return args
}

// KcatCommand is kcat with arguments of its own, such as -L -J.
func KcatCommand(target Target, args ...string) (Command, error) {
	path, err := exec.LookPath("kcat")
	if err != nil {
		return Command{}, fmt.Errorf("find kcat: %w (tools/setup.sh installs it)", err)
	}
	// Without -m it gives up after 5 s, which a first connection may take beside other tests.
	return Command{Path: path, Args: slices.Concat(KcatArgs(target), []string{"-m", "30"}, args), Hosts: target.Hosts}, nil
}

// Kcat is kcat as a driver: Debian's, with librdkafka 2.0.2. Each step is a process.
func Kcat() Driver { return kcat{} }

type kcat struct{}

func (kcat) Name() string { return "kcat" }

func (kcat) Supports(do string) bool {
	return slices.Contains([]string{Produce, Consume, Transaction, DescribeTopic, ListTopics}, do)
}

func (k kcat) Run(ctx context.Context, target Target, steps ...Step) ([]Outcome, error) {
	var all []Outcome
	for _, step := range steps {
		events, failed, err := k.step(ctx, target, step)
		if err != nil {
			return all, err
		}
		all = append(all, Outcome{Events: events, Err: failed})
	}
	return all, nil
}

func (k kcat) step(ctx context.Context, target Target, step Step) ([]Event, *StepError, error) {
	var args []string
	var stdin strings.Builder
	switch step.Do {
	case Produce, Transaction:
		args = []string{"-P", "-t", step.Topic, "-K", ":", "-X", "acks=all"}
		if step.Idempotent {
			args = append(args, "-X", "enable.idempotence=true")
		}
		if step.Compression != "" {
			args = append(args, "-z", step.Compression)
		}
		if step.Do == Transaction {
			if step.Abort {
				return nil, nil, fmt.Errorf("kcat cannot abort a transaction")
			}
			args = append(args, "-X", "transactional.id="+step.TransactionalID)
		}
		for i := range max(step.Count, 1) {
			fmt.Fprintf(&stdin, "%sk%d:%sv%d\n", step.Prefix, i, step.Prefix, i)
		}
	case Consume:
		isolation := "read_committed"
		if step.ReadUncommitted {
			isolation = "read_uncommitted"
		}
		args = []string{"-c", fmt.Sprint(max(step.Count, 1)), "-J", "-q", "-X", "auto.offset.reset=earliest", "-X", "isolation.level=" + isolation}
	case DescribeTopic:
		args = []string{"-L", "-J", "-t", step.Topic}
	case ListTopics:
		args = []string{"-L", "-J"}
	default:
		return nil, nil, fmt.Errorf("kcat cannot %s", step.Do)
	}
	for name, value := range step.Config {
		args = append(args, "-X", fmt.Sprintf("%s=%v", name, value))
	}
	if step.Do == Consume {
		args = append(append(args, "-G", step.Group), step.topics()...) // takes all that follows for topics
	}
	cmd, err := KcatCommand(target, args...)
	if err != nil {
		return nil, nil, err
	}
	cmd.Stdin = stdin.String()
	seconds := step.Seconds
	if seconds == 0 {
		seconds = 30
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
	defer cancel()
	result, err := cmd.Run(ctx)
	if ctx.Err() != nil {
		// kcat tries again for ever; what it printed meanwhile is the reason.
		return nil, &StepError{Client: k.Name(), Do: step.Do, Name: "TIMEOUT", Message: tail(result.Stderr, 1000)}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if result.ExitCode != 0 {
		return nil, &StepError{Client: k.Name(), Do: step.Do, Name: fmt.Sprint("exit code ", result.ExitCode), Message: tail(result.Stderr, 1000)}, nil
	}
	switch step.Do {
	case Consume:
		events, err := kcatRecords(result.Stdout)
		return events, nil, err
	case DescribeTopic, ListTopics:
		return k.listed(step, result.Stdout)
	}
	return nil, nil, nil
}

func kcatRecords(out string) ([]Event, error) {
	var events []Event
	for line := range strings.Lines(out) {
		var r struct {
			Topic        string
			Partition    int32
			Offset       int64
			Key, Payload string
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return events, fmt.Errorf("kcat printed %q: %w", line, err)
		}
		events = append(events, Event{Event: "record", Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Payload})
	}
	return events, nil
}

func (k kcat) listed(step Step, out string) ([]Event, *StepError, error) {
	var list struct {
		Topics []struct {
			Topic, Error string
			Partitions   []any
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, nil, fmt.Errorf("kcat -L printed %q: %w", out, err)
	}
	var names []string
	for _, t := range list.Topics {
		if step.Do == DescribeTopic {
			if t.Error != "" {
				return nil, &StepError{Client: k.Name(), Do: step.Do, Name: t.Error, Message: t.Error}, nil
			}
			return []Event{{Event: "topic", Topic: t.Topic, Count: len(t.Partitions)}}, nil, nil
		}
		names = append(names, t.Topic)
	}
	slices.Sort(names)
	return []Event{{Event: "topics", Names: names}}, nil, nil
}
