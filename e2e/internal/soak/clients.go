package soak

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/e2e/internal/load"
)

const (
	every          = 50 * time.Millisecond  // between two records of one writer and partition
	betweenTx      = 200 * time.Millisecond // two transactions of one producer
	sessionTimeout = 10 * time.Second
	txTimeout      = 20 * time.Second
)

// writer is the name of who writes to a place; it is the key of the records.
func writer(name string, at place) string { return name + " " + at.String() }

// javaWriter stands for all records without a key in a topic: Kafka's own tool
// numbers them over all partitions.
func javaWriter(topic string) string { return "java " + topic }

// write starts idempotent producers: each writes to the topics of both clusters.
//
// They have one request in flight. A broker remembers the last five batches of a
// producer, but after its own start only the last one; when all replicas of a
// partition were started again, whoever had more in flight is told that they are out
// of order, and writes them once more with a higher epoch (KIP-360), on bare brokers
// too. Several in flight are for the tests of faults that leave a replica alive.
func (s *soak) write(names ...string) error {
	for _, name := range names {
		opts, err := s.opts(name, append(load.ProducerOpts(), kgo.MaxProduceRequestsInflightPerBroker(1))...)
		if err != nil {
			return err
		}
		client, err := kgo.NewClient(opts...)
		if err != nil {
			return err
		}
		s.onClose(func() error { client.Close(); return nil })
		for _, t := range numbers {
			s.producers[name+" "+t.name] = load.Write(client, load.Writing{
				Topic: t.name, Partitions: t.partitions, Every: every,
				Key: func(p int32) string { return writer(name, place{t.name, p}) },
				Acked: func(r *kgo.Record, n int64) {
					s.acknowledge(ack{entry{r.Offset, string(r.Key), n}, place{t.name, r.Partition}})
				},
			})
			for _, at := range t.places() {
				s.writers[at.topic][writer(name, at)] = true
			}
		}
	}
	return nil
}

func (s *soak) acknowledge(a ack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acks = append(s.acks, a)
}

// A txProducer writes transactions to one topic, one after another. Every fourth it aborts.
type txProducer struct {
	soak  *soak
	id    string
	topic topic
	stop  context.CancelFunc
	done  chan struct{}
	gate  sync.RWMutex // held for writing while no transaction is to be begun

	mu        sync.Mutex
	all       []*transaction
	committed int
}

func (s *soak) transact(id string, t topic) *txProducer {
	ctx, stop := context.WithCancel(context.Background())
	p := &txProducer{soak: s, id: id, topic: t, stop: stop, done: make(chan struct{})}
	for _, at := range t.places() {
		s.writers[at.topic][writer(id, at)] = true
	}
	go func() {
		defer close(p.done)
		next := make([]int64, t.partitions)
		for ctx.Err() == nil {
			if err := p.live(ctx, next); err != nil && ctx.Err() == nil {
				s.restarted("transactional producer "+id, err)
			}
		}
	}()
	return p
}

// live is the life of one client; its error is what ended it.
func (p *txProducer) live(ctx context.Context, next []int64) error {
	opts, err := p.soak.opts(p.id, append(load.ProducerOpts(), kgo.TransactionalID(p.id), kgo.TransactionTimeout(txTimeout))...)
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer client.Close()
	tick := time.NewTicker(betweenTx)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		p.gate.RLock()
		err := p.once(ctx, client, next)
		p.gate.RUnlock()
		if err != nil {
			return err
		}
	}
}

func (p *txProducer) once(ctx context.Context, client *kgo.Client, next []int64) error {
	if err := client.BeginTransaction(); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	p.mu.Lock()
	t := &transaction{id: fmt.Sprintf("%s/%d", p.id, len(p.all))}
	abort := len(p.all)%4 == 3
	if abort {
		t.outcome = aborted // whatever its end is answered: nobody asked for a commit
	}
	var records []*kgo.Record
	for _, at := range p.topic.places() {
		for range 1 + len(p.all)%3 {
			n := next[at.partition]
			next[at.partition]++
			key := writer(p.id, at)
			t.records = append(t.records, ack{entry{-1, key, n}, at})
			records = append(records, &kgo.Record{
				Topic: at.topic, Partition: at.partition, Key: []byte(key), Value: strconv.AppendInt(nil, n, 10),
			})
		}
	}
	p.all = append(p.all, t)
	p.mu.Unlock()

	ctx = context.WithoutCancel(ctx)
	failed := client.ProduceSync(ctx, records...).FirstErr()
	if failed != nil {
		abort = true
		p.mu.Lock()
		t.outcome = aborted
		p.mu.Unlock()
		p.soak.report("transaction %s is aborted: %v", t.id, failed)
	}
	if err := client.EndTransaction(ctx, kgo.TransactionEndTry(!abort)); err != nil {
		return fmt.Errorf("end %s (commit: %v, produced: %v): %w", t.id, !abort, failed, err)
	}
	if !abort {
		p.mu.Lock()
		t.outcome = committed
		p.committed++
		p.mu.Unlock()
	}
	return nil
}

func (p *txProducer) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.committed
}

// hold begins no more transactions and waits for the end of the last one.
func (p *txProducer) hold(ctx context.Context) error {
	held := make(chan struct{})
	go func() { p.gate.Lock(); close(held) }()
	select {
	case <-held:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("a transaction of %s does not end: %w", p.id, context.Cause(ctx))
	}
}

// movers is their group.
const movers = "movers"

// move keeps a member of the group of movers alive: it reads the numbers of both
// clusters and writes them to one topic, with the offsets in the transaction.
func (s *soak) move(id string) (end func()) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := s.moveOnce(ctx, id); err != nil && ctx.Err() == nil {
				s.restarted("mover "+id, err)
			}
		}
	}()
	return func() { stop(); <-done }
}

func (s *soak) moveOnce(ctx context.Context, id string) error {
	opts, err := s.opts(id, append(
		append(load.ProducerOpts(), load.ConsumerOpts()...), kgo.TransactionalID(id), kgo.TransactionTimeout(txTimeout),
		kgo.ConsumerGroup(movers), kgo.ConsumeTopics(names(numbers)...),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.SessionTimeout(sessionTimeout), kgo.HeartbeatInterval(time.Second),
	)...)
	if err != nil {
		return err
	}
	session, err := kgo.NewGroupTransactSession(opts...)
	if err != nil {
		return err
	}
	defer session.Close()
	t := load.Transform(session, movedTo.name, movedTo.partitions)
	select {
	case <-ctx.Done():
	case <-t.Done():
	}
	return t.Stop()
}

func names(topics []topic) []string {
	var all []string
	for _, t := range topics {
		all = append(all, t.name)
	}
	return all
}

// A member is a consumer in a group.
type member struct {
	soak        *soak
	name, group string
	client      *kgo.Client
	stop        context.CancelFunc
	done        chan struct{}
	last        map[place]int64 // offset read last; of this assignment
}

// join starts a member.
func (s *soak) join(name, group string, topics []topic, more ...kgo.Opt) (*member, error) {
	ctx, stop := context.WithCancel(context.Background())
	m := &member{soak: s, name: name, group: group, stop: stop, done: make(chan struct{}), last: make(map[place]int64)}
	forget := func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
		for topic, all := range partitions {
			for _, p := range all {
				delete(m.last, place{topic, p})
			}
		}
	}
	opts, err := s.opts(name, append(append(
		load.ConsumerOpts(), kgo.ConsumerGroup(group), kgo.ConsumeTopics(names(topics)...),
		kgo.SessionTimeout(sessionTimeout), kgo.HeartbeatInterval(time.Second), kgo.AutoCommitInterval(time.Second),
		// The callbacks run between two polls only, as what they change is read by them.
		kgo.BlockRebalanceOnPoll(), kgo.OnPartitionsAssigned(forget), kgo.OnPartitionsRevoked(forget), kgo.OnPartitionsLost(forget),
	), more...)...)
	if err != nil {
		stop()
		return nil, err
	}
	if m.client, err = kgo.NewClient(opts...); err != nil {
		stop()
		return nil, err
	}
	go func() {
		defer close(m.done)
		for ctx.Err() == nil {
			m.take(m.client.PollFetches(ctx))
			m.client.AllowRebalance()
		}
	}()
	return m, nil
}

func (m *member) take(fetches kgo.Fetches) {
	for _, e := range fetches.Errors() {
		// A lost group session is told, and the client joins again by itself.
		if lost := new(kgo.ErrGroupSession); errors.As(e.Err, &lost) || errors.Is(e.Err, context.Canceled) {
			continue
		}
		if loss, ok := errors.AsType[*kgo.ErrDataLoss](e.Err); ok {
			m.soak.suspect(m.name, loss)
			continue
		}
		m.soak.fail(fmt.Errorf("member %s of %s: %s/%d: %w", m.name, m.group, e.Topic, e.Partition, e.Err))
	}
	m.soak.mu.Lock()
	defer m.soak.mu.Unlock()
	fetches.EachRecord(func(r *kgo.Record) {
		at := place{r.Topic, r.Partition}
		e, err := read(r)
		if err != nil {
			m.soak.failLocked(fmt.Errorf("member %s of %s: %v: %w", m.name, m.group, at, err))
			return
		}
		if last, ok := m.last[at]; ok && e.offset <= last {
			m.soak.failLocked(broken(at, e.offset, "member %s of %s read %v after offset %d, with no assignment between", m.name, m.group, e, last))
		}
		m.last[at] = e.offset
		reader := m.soak.reader(m.group, at)
		reader.pending = append(reader.pending, e)
	})
}

// leave ends the member. Without an instance id it leaves the group.
func (m *member) leave() {
	m.stop()
	<-m.done
	m.client.CloseAllowingRebalance()
}

// read understands a record of any of the writers.
func read(r *kgo.Record) (entry, error) {
	n, err := strconv.ParseInt(string(r.Value), 10, 64)
	if err != nil {
		return entry{}, fmt.Errorf("offset %d: %w", r.Offset, err)
	}
	name := string(r.Key)
	if name == "" {
		for _, t := range allTopics() { // as it is called on either side
			if r.Topic == t.name || r.Topic == t.physical() {
				name = javaWriter(t.name)
			}
		}
	}
	return entry{r.Offset, name, n}, nil
}
