package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/e2e/internal/drivers"
)

// A Verifiable is a running VerifiableProducer or VerifiableConsumer: Kafka's own
// tools for tests with faults, which print a line of JSON for everything that
// happens to them.
type Verifiable struct {
	process *drivers.Process
	done    chan struct{}

	mu     sync.Mutex
	acked  []Ack // in the order they came
	taken  int   // of acked, by Acks
	ranges []Range
	lines  []string // since Printed was called
	next   map[int32]int64
	err    error // the first one
	alone  error // the first time that no connection was left
}

// An Ack is the acknowledgement of a record.
type Ack struct {
	Value     int64
	Partition int32
	Offset    int64
}

// A Range are records of a partition that were read, from one offset to another
// and with both.
type Range struct {
	Partition int32
	From, To  int64
}

// The lines of both tools, with the fields that are read here.
type verifiableLine struct {
	Name       string `json:"name"`
	Value      string `json:"value"`
	Partition  int32  `json:"partition"`
	Offset     int64  `json:"offset"`
	Exception  string `json:"exception"`
	Message    string `json:"message"`
	Partitions []struct {
		Partition int32 `json:"partition"`
		MinOffset int64 `json:"minOffset"`
		MaxOffset int64 `json:"maxOffset"`
	} `json:"partitions"`
}

// VerifiableProducer writes the numbers from 0 on to a topic, idempotently. The
// tool switches retries off unless its properties file says otherwise. Settings are
// further lines of it.
func VerifiableProducer(ctx context.Context, version string, target drivers.Target, topic string, settings ...string) (*Verifiable, error) {
	cmd, err := drivers.JavaTool(ctx, version, drivers.ToolRun{
		Tool: "verifiable-producer", Target: target,
		Settings: append(settings, "retries=2147483647", "enable.idempotence=true", "acks=all", fmt.Sprintf("linger.ms=%d", linger.Milliseconds())),
		Args:     []string{"--topic", topic, "--max-messages", "-1", "--throughput", "200"},
	})
	if err != nil {
		return nil, err
	}
	return start(cmd)
}

// VerifiableConsumer reads a topic in a group, from its beginning. Settings are
// further lines of its properties file.
func VerifiableConsumer(ctx context.Context, version string, target drivers.Target, topic, group string, settings ...string) (*Verifiable, error) {
	cmd, err := drivers.JavaTool(ctx, version, drivers.ToolRun{
		Tool: "verifiable-consumer", Target: target,
		Settings: append(settings, fmt.Sprintf("fetch.min.bytes=%d", gathered), fmt.Sprintf("fetch.max.wait.ms=%d", gatherTime.Milliseconds())),
		Args:     []string{"--topic", topic, "--group-id", group, "--reset-policy", "earliest"},
	})
	if err != nil {
		return nil, err
	}
	return start(cmd)
}

// LibrdkafkaProducer is VerifiableProducer with another client.
func LibrdkafkaProducer(ctx context.Context, target drivers.Target, topic string) (*Verifiable, error) {
	cmd, err := drivers.Librdkafka(ctx, target, topic, "")
	if err != nil {
		return nil, err
	}
	return start(cmd)
}

// LibrdkafkaConsumer is VerifiableConsumer with another client.
func LibrdkafkaConsumer(ctx context.Context, target drivers.Target, topic, group string) (*Verifiable, error) {
	cmd, err := drivers.Librdkafka(ctx, target, topic, group)
	if err != nil {
		return nil, err
	}
	return start(cmd)
}

func start(cmd drivers.Command) (*Verifiable, error) {
	p, err := cmd.Start()
	if err != nil {
		return nil, err
	}
	v := &Verifiable{process: p, done: make(chan struct{}), next: make(map[int32]int64)}
	go func() {
		defer close(v.done)
		for line := range p.Lines() {
			v.mu.Lock()
			v.lines = append(v.lines, line)
			v.mu.Unlock()
			var l verifiableLine
			if json.Unmarshal([]byte(line), &l) == nil {
				v.take(l)
			}
		}
	}()
	return v, nil
}

func (v *Verifiable) take(l verifiableLine) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var err error
	switch l.Name {
	case "producer_send_success":
		var n int64
		if n, err = strconv.ParseInt(l.Value, 10, 64); err == nil {
			v.acked = append(v.acked, Ack{n, l.Partition, l.Offset})
		}
	case "disconnected":
		if v.alone == nil {
			v.alone = errors.New(l.Message)
		}
	case "client_error":
		err = fmt.Errorf("%s: %s", l.Exception, l.Message)
	case "producer_send_error":
		err = fmt.Errorf("record %s: %s: %s", l.Value, l.Exception, l.Message)
	case "records_consumed":
		for _, p := range l.Partitions {
			if p.MinOffset > v.next[p.Partition] {
				err = fmt.Errorf("partition %d: offset %d came where %d was due", p.Partition, p.MinOffset, v.next[p.Partition])
			}
			v.next[p.Partition] = max(v.next[p.Partition], p.MaxOffset+1)
			v.ranges = append(v.ranges, Range{p.Partition, p.MinOffset, p.MaxOffset})
		}
	}
	if v.err == nil {
		v.err = err
	}
}

// WaitMore waits until so many more records are acknowledged.
func (v *Verifiable) WaitMore(ctx context.Context, more int) error {
	v.mu.Lock()
	want := len(v.acked) + more
	v.mu.Unlock()
	return Wait(ctx, func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		if len(v.acked) < want {
			return fmt.Errorf("%d of %d records acknowledged (first error: %v)", len(v.acked), want, v.err)
		}
		return nil
	})
}

// WaitEverywhere waits until a record of each partition is acknowledged. Until then a
// partition's brokers know nothing of the producer, and take whichever of several requests
// in flight comes first: one that is refused while a leader comes or goes, and sent again,
// is out of order then for ever. That is between the
// client and the brokers, whatever is in between.
func (v *Verifiable) WaitEverywhere(ctx context.Context, partitions int) error {
	return Wait(ctx, func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		seen := make(map[int32]bool)
		for _, a := range v.acked {
			seen[a.Partition] = true
		}
		if len(seen) < partitions {
			return fmt.Errorf("records of %d of %d partitions acknowledged (first error: %v)", len(seen), partitions, v.err)
		}
		return nil
	})
}

// WaitFor waits until every partition was read up to its end.
func (v *Verifiable) WaitFor(ctx context.Context, ends map[int32]int64) error {
	return Wait(ctx, func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		for p, end := range ends {
			if v.next[p] < end {
				return fmt.Errorf("partition %d: read up to offset %d of %d (first error: %v)", p, v.next[p], end, v.err)
			}
		}
		return nil
	})
}

// Acks are the acknowledgements since it was called last.
func (v *Verifiable) Acks() []Ack {
	v.mu.Lock()
	defer v.mu.Unlock()
	news := v.acked[v.taken:len(v.acked):len(v.acked)]
	v.taken = len(v.acked)
	return news
}

// Ranges is what was read since it was called last.
func (v *Verifiable) Ranges() []Range {
	v.mu.Lock()
	defer v.mu.Unlock()
	news := v.ranges
	v.ranges = nil
	return news
}

// Printed is what the tool has printed since it was called last.
func (v *Verifiable) Printed() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	news := v.lines
	v.lines = nil
	return news
}

// Err is the first error the tool reported, or that it has ended.
func (v *Verifiable) Err() error {
	select {
	case <-v.done:
		return errors.Join(v.err, errors.New("it has ended"))
	default:
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.err
}

// Disconnected is the first time that librdkafka said that no connection was left, which
// may be so when something is killed.
func (v *Verifiable) Disconnected() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.alone
}

// Stop asks the tool to finish and returns the first error it reported, or how it
// ended if that was not well.
func (v *Verifiable) Stop(ctx context.Context) error {
	result, err := v.process.Stop(ctx)
	<-v.done
	if err == nil && result.ExitCode != 0 && result.ExitCode != 130 { // 130: as asked
		err = result.Err()
	}
	return errors.Join(v.err, err)
}

// Check reads every record a stopped producer's topic holds, and reports what was
// acknowledged and is not there, what is there twice, and what is out of order. It
// returns the end of each partition.
func (v *Verifiable) Check(ctx context.Context, opts []kgo.Opt, topic string) (map[int32]int64, error) {
	var errs []error
	note := func(format string, args ...any) {
		if len(errs) < 10 {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	seen := make(map[int64]bool)
	last := make(map[int32]int64)
	ends := make(map[int32]int64)
	err := Each(ctx, opts, topic, func(r *kgo.Record) {
		n, err := strconv.ParseInt(string(r.Value), 10, 64)
		before, any := last[r.Partition]
		switch {
		case err != nil:
			note("partition %d offset %d: %w", r.Partition, r.Offset, err)
		case seen[n]:
			note("partition %d offset %d: %d is there twice", r.Partition, r.Offset, n)
		case any && n < before:
			note("partition %d offset %d: %d after %d", r.Partition, r.Offset, n, before)
		}
		seen[n], last[r.Partition], ends[r.Partition] = true, n, r.Offset+1
	})
	for _, a := range v.acked {
		if !seen[a.Value] {
			note("%d was acknowledged and is not there", a.Value)
		}
	}
	if len(v.acked) == 0 {
		note("nothing was acknowledged")
	}
	return ends, errors.Join(append(errs, err)...)
}
