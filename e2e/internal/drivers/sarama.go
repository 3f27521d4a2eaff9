package drivers

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"
)

// Sarama is IBM's sarama, inside this process.
func Sarama() Driver { return native{name: "sarama", do: saramaStep} }

func saramaCode(err error) (int, string) {
	if ke, ok := errors.AsType[sarama.KError](err); ok {
		return int(ke), ke.Error()
	}
	// These two hold Kafka's code without Unwrap.
	if te, ok := errors.AsType[*sarama.TopicError](err); ok {
		return int(te.Err), te.Err.Error()
	}
	if pe, ok := errors.AsType[*sarama.ProducerError](err); ok {
		return saramaCode(pe.Err)
	}
	return 0, ""
}

// saramaDialer gives sarama, which brings its own TLS, the target's hosts.
type saramaDialer struct{ target Target }

func (d saramaDialer) Dial(network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return d.target.Hosts.dial(context.Background(), &net.Dialer{Timeout: 10 * time.Second}, network, host, port)
}

func saramaConfig(target Target, step Step) (*sarama.Config, error) {
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V3_6_0_0
	cfg.Net.Proxy.Enable = true
	cfg.Net.Proxy.Dialer = saramaDialer{target}
	secure, err := target.TLS()
	if err != nil {
		return nil, err
	}
	if secure != nil {
		cfg.Net.TLS.Enable, cfg.Net.TLS.Config = true, secure
	}
	if target.Mechanism != "" {
		cfg.Net.SASL.Enable = true
		cfg.Net.SASL.Mechanism = sarama.SASLMechanism(target.Mechanism)
		cfg.Net.SASL.User, cfg.Net.SASL.Password = target.User, target.Password
		switch target.Mechanism {
		case "SCRAM-SHA-256":
			cfg.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &saramaSCRAM{hash: sha256.New} }
		case "SCRAM-SHA-512":
			cfg.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &saramaSCRAM{hash: sha512.New} }
		}
	}
	cfg.Producer.RequiredAcks = sarama.WaitForAll
	cfg.Producer.Return.Successes = true
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	cfg.Consumer.Offsets.AutoCommit.Enable = false
	cfg.Consumer.Return.Errors = true
	cfg.Consumer.MaxWaitTime = 200 * time.Millisecond
	if !step.ReadUncommitted {
		cfg.Consumer.IsolationLevel = sarama.ReadCommitted
	}
	if step.Idempotent || step.TransactionalID != "" {
		cfg.Producer.Idempotent = true
		cfg.Net.MaxOpenRequests = 1
	}
	if step.TransactionalID != "" {
		cfg.Producer.Transaction.ID = step.TransactionalID
	}
	if step.Compression != "" {
		if err := cfg.Producer.Compression.UnmarshalText([]byte(step.Compression)); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

func saramaStep(ctx context.Context, target Target, step Step, emit func(Event)) error {
	cfg, err := saramaConfig(target, step)
	if err != nil {
		return err
	}
	addrs := splitBootstrap(target.Bootstrap)
	switch step.Do {
	case Produce:
		return saramaProduce(addrs, cfg, step.Topic, step.records(), emit, nil, false)
	case Transaction:
		return saramaProduce(addrs, cfg, step.Topic, step.records(), emit, func(sarama.SyncProducer) error { return nil }, step.Abort)
	case AfterRefusal:
		return saramaAfterRefusal(addrs, cfg, step, emit)
	case Consume:
		return saramaConsume(ctx, addrs, cfg, step, emit, func(s sarama.ConsumerGroupSession, next positions, _ [][2]string) error {
			for at, o := range next {
				s.MarkOffset(at.topic, at.partition, o, "")
				emit(Event{Event: "committed", Topic: at.topic, Partition: at.partition, Offset: o})
			}
			s.Commit()
			return nil
		})
	case Transform:
		return saramaConsume(ctx, addrs, cfg, step, emit, func(_ sarama.ConsumerGroupSession, next positions, got [][2]string) error {
			offsets := map[string][]*sarama.PartitionOffsetMetadata{}
			for at, o := range next {
				offsets[at.topic] = append(offsets[at.topic], &sarama.PartitionOffsetMetadata{Partition: at.partition, Offset: o})
			}
			return saramaProduce(addrs, cfg, step.To, got, emit, func(p sarama.SyncProducer) error {
				return p.AddOffsetsToTxn(offsets, step.Group)
			}, step.Abort)
		})
	}
	admin, err := sarama.NewClusterAdmin(addrs, cfg)
	if err != nil {
		return err
	}
	defer admin.Close()
	switch step.Do {
	case CreateTopic:
		return admin.CreateTopic(step.Topic, &sarama.TopicDetail{NumPartitions: int32(step.Partitions), ReplicationFactor: -1}, false)
	case DeleteTopic:
		return admin.DeleteTopic(step.Topic)
	case DescribeTopic:
		found, err := admin.DescribeTopics([]string{step.Topic})
		if err != nil {
			return err
		}
		if found[0].Err != sarama.ErrNoError {
			return found[0].Err
		}
		emit(Event{Event: "topic", Topic: found[0].Name, Count: len(found[0].Partitions)})
		return nil
	case ListTopics:
		found, err := admin.ListTopics()
		if err != nil {
			return err
		}
		emit(Event{Event: "topics", Names: slices.Sorted(maps.Keys(found))})
		return nil
	case ListGroups:
		found, err := admin.ListConsumerGroups()
		if err != nil {
			return err
		}
		emit(Event{Event: "groups", Names: slices.Sorted(maps.Keys(found))})
		return nil
	}
	return fmt.Errorf("unknown step %q", step.Do)
}

// saramaProduce produces, in a transaction if there is something to do within it.
func saramaProduce(addrs []string, cfg *sarama.Config, topic string, pairs [][2]string, emit func(Event),
	within func(sarama.SyncProducer) error, abort bool,
) error {
	producer, err := sarama.NewSyncProducer(addrs, cfg)
	if err != nil {
		return err
	}
	defer producer.Close()
	if within != nil {
		if err := producer.BeginTxn(); err != nil {
			return err
		}
	}
	var messages []*sarama.ProducerMessage
	for _, p := range pairs {
		messages = append(messages, &sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder(p[0]), Value: sarama.StringEncoder(p[1])})
	}
	if err := producer.SendMessages(messages); err != nil {
		if each, ok := errors.AsType[sarama.ProducerErrors](err); ok && len(each) > 0 {
			return each[0]
		}
		return err
	}
	for i, m := range messages {
		emit(Event{Event: "produced", Topic: topic, Partition: m.Partition, Offset: m.Offset, Key: pairs[i][0]})
	}
	if within == nil {
		return nil
	}
	if err := within(producer); err != nil {
		return err
	}
	if abort {
		return producer.AbortTxn()
	}
	return producer.CommitTxn()
}

func saramaAfterRefusal(addrs []string, cfg *sarama.Config, step Step, emit func(Event)) error {
	producer, err := sarama.NewSyncProducer(addrs, cfg)
	if err != nil {
		return err
	}
	defer producer.Close()
	if err := producer.BeginTxn(); err != nil {
		return err
	}
	if step.Mixed {
		if _, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: step.Topic, Value: sarama.StringEncoder("aborted")}); err != nil {
			return err
		}
	}
	_, _, refused := producer.SendMessage(&sarama.ProducerMessage{Topic: step.To, Value: sarama.StringEncoder("refused")})
	if refused == nil {
		return errNotRefused
	}
	emit(refusal(refused))
	if err := producer.AbortTxn(); err != nil {
		return fmt.Errorf("abort: %w", err)
	}
	if err := producer.BeginTxn(); err != nil {
		return fmt.Errorf("begin again: %w", err)
	}
	for i, pair := range step.records() {
		m := &sarama.ProducerMessage{Topic: step.Topic, Key: sarama.StringEncoder(pair[0]), Value: sarama.StringEncoder(pair[1])}
		if _, _, err := producer.SendMessage(m); err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
	}
	return producer.CommitTxn()
}

// positions are the offsets after what was read.
type positions map[partition]int64

type partition struct {
	topic     string
	partition int32
}

func saramaConsume(ctx context.Context, addrs []string, cfg *sarama.Config, step Step, emit func(Event),
	then func(sarama.ConsumerGroupSession, positions, [][2]string) error,
) error {
	group, err := sarama.NewConsumerGroup(addrs, step.Group, cfg)
	if err != nil {
		return err
	}
	defer group.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		for err := range group.Errors() {
			cancel(err) // sarama itself would go on trying
		}
	}()
	h := &saramaHandler{messages: make(chan *sarama.ConsumerMessage), sessions: make(chan sarama.ConsumerGroupSession, 1)}
	consumed := make(chan error, 1)
	go func() { consumed <- group.Consume(ctx, step.topics(), h) }()

	next := positions{}
	var got [][2]string
	for len(got) < step.Count {
		select {
		case m := <-h.messages:
			got = append(got, [2]string{string(m.Key), string(m.Value)})
			next[partition{m.Topic, m.Partition}] = m.Offset + 1
			emit(Event{Event: "record", Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Key: string(m.Key), Value: string(m.Value)})
		case err := <-consumed:
			if err == nil {
				err = errors.New("the group was rebalanced before all records had come")
			}
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return then(<-h.sessions, next, got)
}

type saramaHandler struct {
	messages chan *sarama.ConsumerMessage
	sessions chan sarama.ConsumerGroupSession
}

func (h *saramaHandler) Setup(s sarama.ConsumerGroupSession) error {
	h.sessions <- s
	return nil
}

func (*saramaHandler) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (h *saramaHandler) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case m, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			select {
			case h.messages <- m:
			case <-s.Context().Done():
				return nil
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

// saramaSCRAM is how sarama's own examples do SCRAM.
type saramaSCRAM struct {
	hash         func() hash.Hash
	conversation *scram.ClientConversation
}

func (s *saramaSCRAM) Begin(user, password, authzID string) error {
	client, err := scram.HashGeneratorFcn(s.hash).NewClient(user, password, authzID)
	if err == nil {
		s.conversation = client.NewConversation()
	}
	return err
}

func (s *saramaSCRAM) Step(challenge string) (string, error) { return s.conversation.Step(challenge) }
func (s *saramaSCRAM) Done() bool                            { return s.conversation.Done() }
