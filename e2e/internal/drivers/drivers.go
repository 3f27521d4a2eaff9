// Package drivers runs Kafka clients that come from outside the project, the way
// partners run them: as processes of their own, configured by host names, files
// and passwords, against any bootstrap address.
//
// There are two kinds. A [Driver] carries out [Step]s (produce, consume,
// transactions, admin) and reports what happened as [Event]s, the same for every
// client library, so that one table of scenarios runs over all of [Drivers]. A
// tool, such as [Kcat] or [JavaTool], is a [Command] with arguments of its own.
//
// Host names that no resolver knows are given as Target.Hosts: a process sees
// them in its /etc/hosts, a client inside this process through [Target.Dial].
// What a client needs is installed into the cache on first use, in the versions
// that requirements.txt, package.json and package kafkajars pin.
package drivers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"tollgate.internal/e2e/internal/kafkajars"
)

// A Target says where a client connects and how it proves who it is. Without a
// CAFile it speaks plaintext, without a Mechanism it does not use SASL.
type Target struct {
	Bootstrap         string
	CAFile            string
	CertFile, KeyFile string // of an mTLS client
	Mechanism         string // PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER
	User, Password    string
	// TokenURL is where a client with OAUTHBEARER gets its tokens, by the grant of
	// client credentials: User and Password. Go, Java and librdkafka take it.
	TokenURL string
	// Hosts are names that no resolver knows.
	Hosts Hosts
	// From is the address that a client inside this process connects from, if it
	// matters.
	From net.IP
}

// Protocol is what Kafka calls security.protocol.
func (t Target) Protocol() string {
	switch {
	case t.CAFile != "" && t.Mechanism != "":
		return "SASL_SSL"
	case t.CAFile != "":
		return "SSL"
	case t.Mechanism != "":
		return "SASL_PLAINTEXT"
	}
	return "PLAINTEXT"
}

// TLS is the configuration of a client inside this process; nil for plaintext.
func (t Target) TLS() (*tls.Config, error) {
	if t.CAFile == "" {
		return nil, nil
	}
	ca, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{RootCAs: x509.NewCertPool()}
	if !cfg.RootCAs.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("no certificate in %s", t.CAFile)
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// Dial connects a client inside this process: it knows Hosts, and over TLS names
// the host it was asked for.
func (t Target) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	cfg, err := t.TLS()
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: 10 * time.Second}
	if t.From != nil {
		dialer.LocalAddr = &net.TCPAddr{IP: t.From}
	}
	conn, err := t.Hosts.dial(ctx, &dialer, network, host, port)
	if err != nil || cfg == nil {
		return conn, err
	}
	cfg.ServerName = host
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// What a Step can do.
const (
	// Produce writes Count records to Topic, keys k0, k1, …, values v0, v1, …, and
	// waits for all of them. Idempotent, Compression and Partition apply.
	Produce = "produce"
	// Consume reads Topic and Also, or with "^" before it all topics that match, in Group from the beginning, or from what the group has
	// committed, until Count records have come, and commits.
	Consume = "consume"
	// Transaction produces Count records in one transaction of TransactionalID,
	// and commits it, or aborts it when Abort is set.
	Transaction = "transaction"
	// Transform reads Count records of Topic in Group and writes their values to
	// To, with the group's offsets, in one transaction; it commits or aborts.
	Transform = "transform"
	// AfterRefusal writes a record to To, which must be refused, in a transaction,
	// after one to Topic if Mixed is set, and aborts it; then the same producer
	// writes Count records to Topic in another one and commits it.
	AfterRefusal = "after-refusal"
	// CreateTopic creates Topic with Partitions and the broker's replication factor.
	CreateTopic = "create-topic"
	// DescribeTopic reports Topic's partitions.
	DescribeTopic = "describe-topic"
	// DeleteTopic deletes Topic.
	DeleteTopic = "delete-topic"
	// ListTopics reports the names of all topics.
	ListTopics = "list-topics"
	// ListGroups reports the names of all groups.
	ListGroups = "list-groups"
)

// A Step is one thing for a client to do.
type Step struct {
	Do    string `json:"do"`
	Topic string `json:"topic,omitempty"`
	// Also are further topics that a Consume or a Transform reads.
	Also            []string `json:"also,omitempty"`
	To              string   `json:"to,omitempty"`
	Group           string   `json:"group,omitempty"`
	TransactionalID string   `json:"transactional_id,omitempty"`
	Count           int      `json:"count,omitempty"`
	Prefix          string   `json:"prefix,omitempty"` // before every key and value
	Partitions      int      `json:"partitions,omitempty"`
	// Partition takes all records of a Produce; franz-go only.
	Partition   *int   `json:"partition,omitempty"`
	Idempotent  bool   `json:"idempotent,omitempty"`
	Compression string `json:"compression,omitempty"`
	Abort       bool   `json:"abort,omitempty"`
	Mixed       bool   `json:"mixed,omitempty"`
	// ReadUncommitted also shows records of open and aborted transactions.
	ReadUncommitted bool `json:"read_uncommitted,omitempty"`
	// Config are settings in the client's own words, such as group.protocol.
	Config map[string]any `json:"config,omitempty"`
	// Seconds bound the step; 0 means 30.
	Seconds int `json:"seconds,omitempty"`
}

// record is the key and value of the step's i-th record.
func (s Step) record(i int) (key, value string) {
	return fmt.Sprintf("%sk%d", s.Prefix, i), fmt.Sprintf("%sv%d", s.Prefix, i)
}

// topics are all that the step reads.
func (s Step) topics() []string { return append([]string{s.Topic}, s.Also...) }

func (s Step) records() [][2]string {
	var all [][2]string
	for i := range s.Count {
		key, value := s.record(i)
		all = append(all, [2]string{key, value})
	}
	return all
}

// An Event is something that happened in a step. Which fields are filled depends on Event.
type Event struct {
	Step  int    `json:"step"`
	Event string `json:"event"` // produced, record, committed, refused, topic, topics, groups, error, done

	Topic     string   `json:"topic,omitempty"` // produced, record, committed, topic
	Partition int32    `json:"partition,omitempty"`
	Offset    int64    `json:"offset,omitempty"`
	Key       string   `json:"key,omitempty"`
	Value     string   `json:"value,omitempty"`
	Count     int      `json:"count,omitempty"` // topic: its partitions
	Names     []string `json:"names,omitempty"` // topics, groups

	// Of an error or a refusal: Kafka's code where the client shows it, else 0; the client's
	// name for it and its text.
	Code    int    `json:"code,omitempty"`
	Name    string `json:"name,omitempty"`
	Message string `json:"message,omitempty"`
}

// An Outcome is what became of one step.
type Outcome struct {
	Events []Event
	Err    *StepError // nil: the step is done
}

// Of returns the events of one kind.
func (o Outcome) Of(event string) []Event {
	var found []Event
	for _, e := range o.Events {
		if e.Event == event {
			found = append(found, e)
		}
	}
	return found
}

// Values are the values of the records the step read, in the order they came.
func (o Outcome) Values() []string {
	var values []string
	for _, e := range o.Of("record") {
		values = append(values, e.Value)
	}
	return values
}

// Names are the names of topics or groups the step listed.
func (o Outcome) Names() []string {
	for _, e := range o.Events {
		if e.Event == "topics" || e.Event == "groups" {
			return e.Names
		}
	}
	return nil
}

// A StepError is how a client reported that a step did not work.
type StepError struct {
	Client, Do    string
	Code          int
	Name, Message string
}

func (e *StepError) Error() string {
	return fmt.Sprintf("%s: %s: %s (%d): %s", e.Client, e.Do, e.Name, e.Code, e.Message)
}

// A Driver is a client library that carries out steps.
type Driver interface {
	// Name is the library and its version, fit for the name of a test.
	Name() string
	// Supports reports whether the library can do what Step.Do says.
	Supports(do string) bool
	// Run carries out the steps one after another, also after one that failed,
	// and returns one outcome for each. The error is of the driver itself: it
	// could not be installed or started, or it died.
	Run(ctx context.Context, target Target, steps ...Step) ([]Outcome, error)
}

// Do runs the steps and takes the first failed one for an error.
func Do(ctx context.Context, d Driver, target Target, steps ...Step) ([]Outcome, error) {
	outcomes, err := d.Run(ctx, target, steps...)
	if err != nil {
		return outcomes, err
	}
	for _, o := range outcomes {
		if o.Err != nil {
			return outcomes, o.Err
		}
	}
	return outcomes, nil
}

// Drivers are all drivers; those that come in the versions of Kafka under test
// come once for each.
func Drivers() []Driver {
	all := []Driver{FranzGo(), Sarama(), Kcat(), ConfluentKafka(), KafkaPython(), KafkaJS()}
	for _, version := range kafkajars.Versions() {
		all = append(all, Java(version))
	}
	return all
}

// Slug is a driver's name as it is fit for topics, groups and hosts.
func Slug(d Driver) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(d.Name()))
}

func splitBootstrap(list string) []string { return strings.Split(list, ",") }

// outcomes sorts events by their steps. Every step must have ended in done or error.
func outcomes(client string, steps []Step, events []Event) ([]Outcome, error) {
	all := make([]Outcome, len(steps))
	ended := make([]bool, len(steps))
	for _, e := range events {
		if e.Step < 0 || e.Step >= len(steps) {
			return nil, fmt.Errorf("%s: event of step %d, which does not exist", client, e.Step)
		}
		o := &all[e.Step]
		switch e.Event {
		case "done":
			ended[e.Step] = true
		case "error":
			ended[e.Step] = true
			o.Err = &StepError{Client: client, Do: steps[e.Step].Do, Code: e.Code, Name: e.Name, Message: e.Message}
		default:
			o.Events = append(o.Events, e)
		}
	}
	for i, ok := range ended {
		if !ok {
			return all, fmt.Errorf("%s: step %d (%s) did not end", client, i, steps[i].Do)
		}
	}
	return all, nil
}

// job is what a script reads on its standard input.
type job struct {
	Bootstrap string `json:"bootstrap"`
	Protocol  string `json:"protocol"`
	CA        string `json:"ca,omitempty"`
	Cert      string `json:"cert,omitempty"`
	Key       string `json:"key,omitempty"`
	Mechanism string `json:"mechanism,omitempty"`
	User      string `json:"user,omitempty"`
	Password  string `json:"password,omitempty"`
	TokenURL  string `json:"token_url,omitempty"`
	Steps     []Step `json:"steps"`
}

// runScript runs a driver's script: the job as JSON on its standard input, an
// event as a line of JSON on its standard output. Lines that are not JSON come
// from the library's own log and are left alone.
func runScript(ctx context.Context, client string, cmd Command, target Target, steps []Step) ([]Outcome, error) {
	j := job{
		Bootstrap: target.Bootstrap, Protocol: target.Protocol(),
		CA: target.CAFile, Cert: target.CertFile, Key: target.KeyFile,
		Mechanism: target.Mechanism, User: target.User, Password: target.Password, TokenURL: target.TokenURL,
	}
	for _, s := range steps {
		if s.Seconds == 0 {
			s.Seconds = 30
		}
		if s.Partitions == 0 {
			s.Partitions = 1
		}
		j.Steps = append(j.Steps, s)
	}
	input, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	cmd.Stdin, cmd.Hosts = string(input), target.Hosts
	result, err := cmd.Run(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", client, err)
	}
	var events []Event
	for line := range strings.Lines(result.Stdout) {
		var e Event
		if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &e) == nil && e.Event != "" {
			events = append(events, e)
		}
	}
	all, err := outcomes(client, steps, events)
	if err != nil {
		return all, errors.Join(err, result.Err())
	}
	return all, nil
}
