// Package load keeps numbered records flowing through Kafka while something
// breaks, and checks that what was acknowledged is there: once, and in order.
//
// The records of a partition are numbered from 0. A [Producer] writes them, a
// [Consumer] reads them in a group meanwhile, and [Check] compares what the
// brokers hold in the end.
package load

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	pause  = 20 * time.Millisecond // between two records of a partition, unless a Writing says otherwise
	linger = 50 * time.Millisecond // of a record for others to go with it
	window = 64                    // records of a partition that wait for their acknowledgement

	// A request for each record would keep the brokers busy, and tell no more.
	gathered   = 64 << 10 // bytes that a consumer would rather have at once
	gatherTime = 200 * time.Millisecond
)

// Patience is for something to happen again after a fault.
const Patience = 90 * time.Second

// poll is how often a condition is looked at again.
const poll = 20 * time.Millisecond

// Wait waits until done returns nil. Its error is what done said last.
func Wait(ctx context.Context, done func() error) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		last := done()
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}

// A Producer is a client that writes numbered records to all partitions of a
// topic until it is stopped. It counts on the client alone to try again.
type Producer struct {
	Writing
	client *kgo.Client
	stop   context.CancelFunc
	wg     sync.WaitGroup
	gate   sync.RWMutex // held for writing while nothing is to be begun

	mu      sync.Mutex
	acked   []int64 // by partition
	unended int     // records that were begun and have no outcome yet
	err     error   // the first one
}

// A Writing says what a [Producer] writes.
type Writing struct {
	Topic      string
	Partitions int
	Every      time.Duration                // between two records of a partition
	Key        func(partition int32) string // of all records of a partition; optional
	Acked      func(r *kgo.Record, n int64) // called for each acknowledged record, in the order of each partition; optional
}

// Produce starts producing with a client made with [ProducerOpts].
func Produce(client *kgo.Client, topic string, partitions int) *Producer {
	return Write(client, Writing{Topic: topic, Partitions: partitions, Every: pause})
}

// Write is Produce with more to say.
func Write(client *kgo.Client, w Writing) *Producer {
	ctx, stop := context.WithCancel(context.Background())
	p := &Producer{Writing: w, client: client, stop: stop, acked: make([]int64, w.Partitions)}
	for i := range w.Partitions {
		p.wg.Go(func() { p.produce(ctx, int32(i)) })
	}
	return p
}

// ProducerOpts are what a load producer needs besides its address.
func ProducerOpts() []kgo.Opt {
	return []kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(linger)}
}

// ConsumerOpts are what a load consumer needs besides its address, its topic and its group.
func ConsumerOpts() []kgo.Opt {
	return []kgo.Opt{kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMinBytes(gathered), kgo.FetchMaxWait(gatherTime)}
}

func (p *Producer) produce(ctx context.Context, partition int32) {
	tick := time.NewTicker(p.Every)
	defer tick.Stop()
	room := make(chan struct{}, window)
	var key []byte
	if p.Key != nil {
		key = []byte(p.Key(partition))
	}
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case <-ctx.Done():
			return
		case room <- struct{}{}:
		}
		r := &kgo.Record{Topic: p.Topic, Partition: partition, Key: key, Value: strconv.AppendInt(nil, int64(n), 10)}
		p.gate.RLock()
		p.mu.Lock()
		p.unended++
		p.mu.Unlock()
		// Not ctx: a record that was begun is to be finished.
		p.client.Produce(context.Background(), r, func(r *kgo.Record, err error) {
			<-room
			if err == nil && p.Acked != nil {
				p.Acked(r, int64(n))
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.unended--
			switch {
			case err == nil:
				p.acked[partition]++
			case p.err == nil:
				p.err = fmt.Errorf("record %s of partition %d: %w", r.Value, partition, err)
			}
		})
		p.gate.RUnlock()
	}
}

// Hold begins no more records until [Producer.Resume], and waits until those that
// were begun are acknowledged. The error is the first of any record.
func (p *Producer) Hold(ctx context.Context) error {
	p.gate.Lock()
	return Wait(ctx, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.unended > 0 {
			return fmt.Errorf("%d records of %s wait for their acknowledgement (first error: %w)", p.unended, p.Topic, p.err)
		}
		return nil
	})
}

// Resume ends Hold.
func (p *Producer) Resume() { p.gate.Unlock() }

// Err is the first error of any record.
func (p *Producer) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Counts is how many records of each partition were acknowledged.
func (p *Producer) Counts() []int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]int64(nil), p.acked...)
}

// WaitMore waits until so many more records of each of these partitions, or of
// all without any, are acknowledged than there were at its beginning.
func (p *Producer) WaitMore(ctx context.Context, more int64, partitions ...int32) error {
	from := p.Counts()
	if len(partitions) == 0 {
		for i := range from {
			partitions = append(partitions, int32(i))
		}
	}
	return Wait(ctx, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, i := range partitions {
			if got := p.acked[i] - from[i]; got < more {
				return fmt.Errorf("partition %d: %d of %d more records acknowledged (first error: %v)", i, got, more, p.err)
			}
		}
		return nil
	})
}

// Stop ends producing, waits for what is on its way, and returns how many records
// of each partition were acknowledged. The error is the first of any record.
func (p *Producer) Stop(ctx context.Context) ([]int64, error) {
	p.stop()
	p.wg.Wait()
	err := p.client.Flush(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]int64(nil), p.acked...), errors.Join(p.err, err)
}

// A Consumer reads numbered records until it is stopped.
type Consumer struct {
	client *kgo.Client
	stop   context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex
	next map[int32]int64
	err  error // the first one
}

// Consume starts reading with a client that has its topic, its group and [ConsumerOpts].
func Consume(client *kgo.Client) *Consumer {
	ctx, stop := context.WithCancel(context.Background())
	c := &Consumer{client: client, stop: stop, done: make(chan struct{}), next: make(map[int32]int64)}
	go func() {
		defer close(c.done)
		for ctx.Err() == nil {
			c.take(client.PollFetches(ctx))
		}
	}()
	return c
}

func (c *Consumer) take(fetches kgo.Fetches) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range fetches.Errors() {
		// A lost group session is told, and the client joins again by itself.
		if lost := new(kgo.ErrGroupSession); errors.As(e.Err, &lost) || errors.Is(e.Err, context.Canceled) {
			continue
		}
		c.fail(fmt.Errorf("partition %d: %w", e.Partition, e.Err))
	}
	fetches.EachRecord(func(r *kgo.Record) {
		n, err := strconv.ParseInt(string(r.Value), 10, 64)
		switch want := c.next[r.Partition]; {
		case err != nil:
			c.fail(fmt.Errorf("partition %d offset %d: %w", r.Partition, r.Offset, err))
		case n == want:
			c.next[r.Partition]++
		case n > want:
			c.fail(fmt.Errorf("partition %d offset %d: record %d came where %d was due", r.Partition, r.Offset, n, want))
			c.next[r.Partition] = n + 1
		}
		// Lower ones come again after a rebalance that found older commits.
	})
}

func (c *Consumer) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// WaitFor waits until the first counts[i] records of each partition i were read.
func (c *Consumer) WaitFor(ctx context.Context, counts []int64) error {
	return Wait(ctx, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i, want := range counts {
			if got := c.next[int32(i)]; got < want {
				return fmt.Errorf("partition %d: %d of %d records read (first error: %v)", i, got, want, c.err)
			}
		}
		return nil
	})
}

// Stop ends reading. The error is the first there was.
func (c *Consumer) Stop() error {
	c.stop()
	<-c.done
	return c.err
}

// Check reads every record of a topic, with a client of the brokers' own, and
// reports how partition i differs from the numbers 0 to counts[i]-1.
func Check(ctx context.Context, opts []kgo.Opt, topic string, counts []int64) error {
	var errs []error
	next := make([]int64, len(counts))
	err := Each(ctx, opts, topic, func(r *kgo.Record) {
		n, err := strconv.ParseInt(string(r.Value), 10, 64)
		want := next[r.Partition]
		next[r.Partition] = n + 1
		if (err != nil || n != want) && len(errs) < 10 {
			errs = append(errs, fmt.Errorf("partition %d offset %d holds %q, want %d", r.Partition, r.Offset, r.Value, want))
		}
	})
	for i, want := range counts {
		if next[i] != want {
			errs = append(errs, fmt.Errorf("partition %d ends with %d, want %d", i, next[i]-1, want-1))
		}
	}
	return errors.Join(append(errs, err)...)
}

// Each calls do for every record a topic holds now, in the order of each partition.
func Each(ctx context.Context, opts []kgo.Opt, topic string, do func(*kgo.Record)) error {
	_, err := EachFrom(ctx, opts, topic, nil, do)
	return err
}

// EachFrom is Each from these offsets on, and from the beginning of a partition
// that has none. It returns the end of each partition.
func EachFrom(ctx context.Context, opts []kgo.Opt, topic string, from map[int32]int64, do func(*kgo.Record)) (map[int32]int64, error) {
	client, err := kgo.NewClient(append(opts, kgo.KeepControlRecords())...) // the last record of a partition may be the end of a transaction
	if err != nil {
		return nil, err
	}
	defer client.Close()
	listed, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	if err := listed.Error(); err != nil {
		return nil, err
	}
	ends, left, starts := make(map[int32]int64), make(map[int32]int64), make(map[int32]kgo.Offset)
	listed.Each(func(o kadm.ListedOffset) {
		ends[o.Partition] = o.Offset
		if o.Offset > from[o.Partition] {
			left[o.Partition], starts[o.Partition] = o.Offset, kgo.NewOffset().At(from[o.Partition])
		}
	})
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: starts})
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("read %s, ends left %v: %w", topic, left, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset >= left[r.Partition] {
				return // produced meanwhile
			}
			if !r.Attrs.IsControl() {
				do(r)
			}
			if r.Offset == left[r.Partition]-1 {
				delete(left, r.Partition)
			}
		})
	}
	return ends, nil
}
