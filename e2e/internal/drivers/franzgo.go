package drivers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// FranzGo is franz-go, inside this process.
func FranzGo() Driver { return native{name: "franz-go", do: franzGo} }

// A native driver is a Go library inside this process.
type native struct {
	name string
	do   func(ctx context.Context, target Target, step Step, emit func(Event)) error
}

func (n native) Name() string { return n.name }

func (native) Supports(string) bool { return true }

func (n native) Run(ctx context.Context, target Target, steps ...Step) ([]Outcome, error) {
	all := make([]Outcome, len(steps))
	for i, step := range steps {
		step.Count, step.Partitions = max(step.Count, 1), max(step.Partitions, 1)
		if step.Seconds == 0 {
			step.Seconds = 30
		}
		ctx, cancel := context.WithTimeout(ctx, time.Duration(step.Seconds)*time.Second)
		err := n.do(ctx, target, step, func(e Event) { all[i].Events = append(all[i].Events, e) })
		cancel()
		if err == nil {
			continue
		}
		failed := &StepError{Client: n.name, Do: step.Do, Name: fmt.Sprintf("%T", err), Message: err.Error()}
		if ke, ok := errors.AsType[*kerr.Error](err); ok {
			failed.Code, failed.Name = int(ke.Code), ke.Message
		} else if code, name := saramaCode(err); name != "" {
			failed.Code, failed.Name = code, name
		} else if errors.Is(err, context.DeadlineExceeded) {
			failed.Name = "TIMEOUT"
		}
		all[i].Err = failed
	}
	return all, nil
}

// Client is a franz-go client of the target that t closes.
func Client(t testing.TB, target Target, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	base, err := target.KgoOpts()
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(base, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// KgoOpts are the options with which a franz-go client connects to the target.
func (t Target) KgoOpts() ([]kgo.Opt, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(splitBootstrap(t.Bootstrap)...),
		kgo.Dialer(t.Dial),
		kgo.MetadataMinAge(100 * time.Millisecond),
	}
	switch t.Mechanism {
	case "":
	case "PLAIN":
		opts = append(opts, kgo.SASL(plain.Auth{User: t.User, Pass: t.Password}.AsMechanism()))
	case "SCRAM-SHA-256":
		opts = append(opts, kgo.SASL(scram.Auth{User: t.User, Pass: t.Password}.AsSha256Mechanism()))
	case "SCRAM-SHA-512":
		opts = append(opts, kgo.SASL(scram.Auth{User: t.User, Pass: t.Password}.AsSha512Mechanism()))
	case "OAUTHBEARER":
		opts = append(opts, kgo.SASL(oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
			token, err := t.token(ctx)
			return oauth.Auth{Token: token}, err
		})))
	default:
		return nil, fmt.Errorf("franz-go: no mechanism %q here", t.Mechanism)
	}
	return opts, nil
}

func franzGo(ctx context.Context, target Target, step Step, emit func(Event)) error {
	opts, err := target.KgoOpts()
	if err != nil {
		return err
	}
	isolation := kgo.ReadCommitted()
	if step.ReadUncommitted {
		isolation = kgo.ReadUncommitted()
	}
	if step.Config["group.protocol"] == "consumer" {
		opts = append(opts, kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer()))
	}
	if strings.HasPrefix(step.Topic, "^") && step.Do == Consume {
		opts = append(opts, kgo.ConsumeRegex())
	}
	consuming := []kgo.Opt{
		kgo.ConsumerGroup(step.Group), kgo.ConsumeTopics(step.topics()...), kgo.FetchIsolationLevel(isolation),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(200 * time.Millisecond),
	}
	switch step.Do {
	case Produce:
		if step.Partition != nil {
			opts = append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		}
		if !step.Idempotent {
			opts = append(opts, kgo.DisableIdempotentWrite())
		}
	case Consume:
		opts = append(opts, append(consuming, kgo.DisableAutoCommit())...)
	case Transaction, AfterRefusal:
		opts = append(opts, kgo.TransactionalID(step.TransactionalID))
	case Transform:
		return franzGoTransform(ctx, append(append(opts, consuming...), kgo.TransactionalID(step.TransactionalID)), step, emit)
	}
	if codec, ok := map[string]kgo.CompressionCodec{
		"gzip": kgo.GzipCompression(), "lz4": kgo.Lz4Compression(), "snappy": kgo.SnappyCompression(), "zstd": kgo.ZstdCompression(),
	}[step.Compression]; ok {
		opts = append(opts, kgo.ProducerBatchCompression(codec))
	} else {
		opts = append(opts, kgo.ProducerBatchCompression(kgo.NoCompression()))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	admin := kadm.NewClient(client)
	switch step.Do {
	case Produce:
		return franzGoProduce(ctx, client, step, emit)
	case Consume:
		records, err := franzGoRead(ctx, client.PollRecords, step, emit)
		if err != nil {
			return err
		}
		if err := client.CommitRecords(ctx, records...); err != nil {
			return err
		}
		for topic, partitions := range client.CommittedOffsets() {
			for p, o := range partitions {
				emit(Event{Event: "committed", Topic: topic, Partition: p, Offset: o.Offset})
			}
		}
		return nil
	case Transaction:
		if err := client.BeginTransaction(); err != nil {
			return err
		}
		failed := franzGoProduce(ctx, client, step, emit)
		end := client.EndTransaction(ctx, kgo.TransactionEndTry(failed == nil && !step.Abort))
		return errors.Join(failed, end)
	case AfterRefusal:
		return franzGoAfterRefusal(ctx, client, step, emit)
	case CreateTopic:
		_, err := admin.CreateTopic(ctx, int32(step.Partitions), -1, nil, step.Topic)
		return err
	case DeleteTopic:
		_, err := admin.DeleteTopic(ctx, step.Topic)
		return err
	case DescribeTopic:
		found, err := admin.ListTopics(ctx, step.Topic)
		if err != nil {
			return err
		}
		topic := found[step.Topic]
		if topic.Err != nil {
			return topic.Err
		}
		emit(Event{Event: "topic", Topic: topic.Topic, Count: len(topic.Partitions)})
		return nil
	case ListTopics:
		found, err := admin.ListTopicsWithInternal(ctx)
		if err != nil {
			return err
		}
		emit(Event{Event: "topics", Names: found.Names()})
		return nil
	case ListGroups:
		found, err := admin.ListGroups(ctx)
		if err != nil {
			return err
		}
		names := found.Groups()
		slices.Sort(names)
		emit(Event{Event: "groups", Names: names})
		return nil
	}
	return fmt.Errorf("unknown step %q", step.Do)
}

func franzGoProduce(ctx context.Context, client *kgo.Client, step Step, emit func(Event)) error {
	var records []*kgo.Record
	for i := range step.Count {
		key, value := step.record(i)
		record := &kgo.Record{Topic: step.Topic, Key: []byte(key), Value: []byte(value)}
		if step.Partition != nil {
			record.Partition = int32(*step.Partition)
		}
		records = append(records, record)
	}
	results := client.ProduceSync(ctx, records...)
	for _, r := range results {
		if r.Err == nil {
			emit(Event{Event: "produced", Topic: r.Record.Topic, Partition: r.Record.Partition, Offset: r.Record.Offset, Key: string(r.Record.Key)})
		}
	}
	return results.FirstErr()
}

func franzGoAfterRefusal(ctx context.Context, client *kgo.Client, step Step, emit func(Event)) error {
	if err := client.BeginTransaction(); err != nil {
		return err
	}
	if step.Mixed {
		if err := client.ProduceSync(ctx, &kgo.Record{Topic: step.Topic, Value: []byte("aborted")}).FirstErr(); err != nil {
			return err
		}
	}
	refused := client.ProduceSync(ctx, &kgo.Record{Topic: step.To, Value: []byte("refused")}).FirstErr()
	if refused == nil {
		return errNotRefused
	}
	emit(refusal(refused))
	if err := client.EndTransaction(ctx, kgo.TryAbort); err != nil {
		return fmt.Errorf("abort: %w", err)
	}
	if err := client.BeginTransaction(); err != nil {
		return fmt.Errorf("begin again: %w", err)
	}
	if err := franzGoProduce(ctx, client, step, emit); err != nil {
		return err
	}
	return client.EndTransaction(ctx, kgo.TryCommit)
}

var errNotRefused = errors.New("the record was not refused")

// refusal is the event of an error that was to come.
func refusal(err error) Event {
	e := Event{Event: "refused", Name: fmt.Sprintf("%T", err), Message: err.Error()}
	if ke, ok := errors.AsType[*kerr.Error](err); ok {
		e.Code, e.Name = int(ke.Code), ke.Message
	} else if code, name := saramaCode(err); name != "" {
		e.Code, e.Name = code, name
	}
	return e
}

func franzGoRead(ctx context.Context, poll func(context.Context, int) kgo.Fetches, step Step, emit func(Event)) ([]*kgo.Record, error) {
	var records []*kgo.Record
	for len(records) < step.Count {
		fetches := poll(ctx, step.Count-len(records))
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		for _, r := range fetches.Records() {
			records = append(records, r)
			emit(Event{Event: "record", Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: string(r.Key), Value: string(r.Value)})
		}
	}
	return records, nil
}

func franzGoTransform(ctx context.Context, opts []kgo.Opt, step Step, emit func(Event)) error {
	session, err := kgo.NewGroupTransactSession(opts...)
	if err != nil {
		return err
	}
	defer session.Close()
	got, err := franzGoRead(ctx, session.PollRecords, step, emit)
	if err != nil {
		return err
	}
	if err := session.Begin(); err != nil {
		return err
	}
	var out []*kgo.Record
	for _, r := range got {
		out = append(out, &kgo.Record{Topic: step.To, Key: r.Key, Value: r.Value})
	}
	failed := session.ProduceSync(ctx, out...).FirstErr()
	committed, err := session.End(ctx, kgo.TransactionEndTry(failed == nil && !step.Abort))
	if failed == nil && err == nil && committed == step.Abort {
		err = errors.New("the group was rebalanced within the transaction, which was aborted")
	}
	return errors.Join(failed, err)
}
