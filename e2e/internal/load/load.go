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
	pause  = 5 * time.Millisecond // between two records of a partition
	window = 64                   // records of a partition that wait for their acknowledgement
)

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
	topic  string
	client *kgo.Client
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	acked []int64 // by partition
	err   error   // the first one
}

// Produce starts producing with a client made with [ProducerOpts].
func Produce(client *kgo.Client, topic string, partitions int) *Producer {
	ctx, stop := context.WithCancel(context.Background())
	p := &Producer{topic: topic, client: client, stop: stop, acked: make([]int64, partitions)}
	for i := range partitions {
		p.wg.Go(func() { p.produce(ctx, int32(i)) })
	}
	return p
}

// ProducerOpts are what a load producer needs besides its address.
func ProducerOpts() []kgo.Opt {
	return []kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(time.Millisecond)}
}

func (p *Producer) produce(ctx context.Context, partition int32) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	room := make(chan struct{}, window)
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
		r := &kgo.Record{Topic: p.topic, Partition: partition, Value: strconv.AppendInt(nil, int64(n), 10)}
		// Not ctx: a record that was begun is to be finished.
		p.client.Produce(context.Background(), r, func(r *kgo.Record, err error) {
			<-room
			p.mu.Lock()
			defer p.mu.Unlock()
			switch {
			case err == nil:
				p.acked[partition]++
			case p.err == nil:
				p.err = fmt.Errorf("record %s of partition %d: %w", r.Value, partition, err)
			}
		})
	}
}

// Acked is how many records of each partition were acknowledged.
func (p *Producer) Acked() []int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]int64(nil), p.acked...)
}

// WaitMore waits until so many more records of each of these partitions, or of
// all without any, are acknowledged than there were at its beginning.
func (p *Producer) WaitMore(ctx context.Context, more int64, partitions ...int32) error {
	from := p.Acked()
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

// Consume starts reading with a client that has its topic and group.
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
	client, err := kgo.NewClient(append(opts, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.KeepControlRecords())...) // the last record of a partition may be the end of a transaction
	if err != nil {
		return err
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	if err := ends.Error(); err != nil {
		return err
	}
	left := make(map[int32]int64)
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read %s, ends left %v: %w", topic, left, err)
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
	return nil
}
