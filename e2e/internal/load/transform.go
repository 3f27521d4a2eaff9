package load

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A Transformer moves the records of topics to another, each partition to its
// like, in transactions that commit what was read with what was written: exactly
// once (KIP-98, KIP-447).
type Transformer struct {
	to   string
	stop context.CancelFunc
	done chan struct{}

	mu        sync.Mutex
	committed []int64 // records, by partition
	err       error   // what ended it
}

// Transform starts moving records, keys included, to a topic. The session has
// topics, a group, a transactional id, [ProducerOpts] and [ConsumerOpts].
func Transform(session *kgo.GroupTransactSession, to string, partitions int) *Transformer {
	ctx, stop := context.WithCancel(context.Background())
	t := &Transformer{to: to, stop: stop, done: make(chan struct{}), committed: make([]int64, partitions)}
	go func() {
		defer close(t.done)
		for ctx.Err() == nil {
			if err := t.once(ctx, session); err != nil && ctx.Err() == nil {
				t.mu.Lock()
				t.err = err
				t.mu.Unlock()
				return
			}
		}
	}()
	return t
}

// once is one transaction. One that does not commit is aborted, and its records
// are read again.
func (t *Transformer) once(ctx context.Context, session *kgo.GroupTransactSession) error {
	fetches := session.PollFetches(ctx)
	for _, e := range fetches.Errors() {
		if lost := new(kgo.ErrGroupSession); !errors.As(e.Err, &lost) {
			return fmt.Errorf("read partition %d: %w", e.Partition, e.Err)
		}
	}
	if fetches.NumRecords() == 0 {
		return nil
	}
	if err := session.Begin(); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	var out []*kgo.Record
	fetches.EachRecord(func(r *kgo.Record) {
		out = append(out, &kgo.Record{Topic: t.to, Partition: r.Partition, Key: r.Key, Value: r.Value})
	})
	written := session.ProduceSync(context.WithoutCancel(ctx), out...).FirstErr()
	committed, err := session.End(context.WithoutCancel(ctx), kgo.TransactionEndTry(written == nil))
	if err != nil {
		return fmt.Errorf("end, after %v: %w", written, err)
	}
	if committed {
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, r := range out {
			t.committed[r.Partition]++
		}
	}
	return nil
}

// WaitFor waits until the first counts[i] records of each partition i are moved.
func (t *Transformer) WaitFor(ctx context.Context, counts []int64) error {
	return Wait(ctx, func() error {
		t.mu.Lock()
		defer t.mu.Unlock()
		for i, want := range counts {
			if got := t.committed[i]; got < want {
				return fmt.Errorf("partition %d: %d of %d records moved (ended by: %v)", i, got, want, t.err)
			}
		}
		return nil
	})
}

// Done is closed when moving has ended.
func (t *Transformer) Done() <-chan struct{} { return t.done }

// Stop ends moving. The error is what ended it before.
func (t *Transformer) Stop() error {
	t.stop()
	<-t.done
	return t.err
}
