package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// produce sends each line of its input as a record.
func produce(ctx context.Context, args []string, std stdio) error {
	var l login
	f := flags("produce", "TOPIC", std)
	l.flags(f)
	separator := f.String("key-separator", "", "`string` between key and value of a line; default: lines are values")
	names, err := parseFlags(f, args)
	if err != nil {
		return err
	}
	if len(names) != 1 {
		return usageError(f, "produce needs one topic")
	}
	// A topic that is being created is asked for again soon, not in 5 s.
	cl, err := l.client(kgo.DefaultProduceTopic(names[0]), kgo.AllowAutoTopicCreation(), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := admitted(ctx, cl); err != nil {
		return err
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	acknowledged := 0
	read := readLines(ctx, std.in, func(line string) {
		r := &kgo.Record{Value: []byte(line)}
		if *separator != "" {
			if key, value, found := strings.Cut(line, *separator); found {
				r.Key, r.Value = []byte(key), []byte(value)
			}
		}
		cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				cancel(err) // the first refusal ends it
				return
			}
			acknowledged++
		})
	})
	flushed := cl.Flush(ctx)
	mu.Lock()
	defer mu.Unlock()
	if ctx.Err() != nil {
		return fmt.Errorf("produce to %s after %d records: %w", names[0], acknowledged, context.Cause(ctx))
	}
	fmt.Fprintf(std.err, "%d records\n", acknowledged)
	return errors.Join(read, flushed)
}

// readLines calls each line until the input or ctx ends.
func readLines(ctx context.Context, in io.Reader, each func(string)) error {
	lines := make(chan string)
	failed := make(chan error, 1)
	// A read of a terminal cannot be called off: when ctx ends first, the
	// goroutine stays behind until the process ends.
	go func() {
		defer close(lines)
		for r := bufio.NewReader(in); ; {
			line, err := r.ReadString('\n')
			if line != "" {
				select {
				case lines <- strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"):
				case <-ctx.Done():
					return
				}
			}
			if err == nil {
				continue
			}
			if err != io.EOF {
				failed <- fmt.Errorf("read records: %w", err)
			}
			return
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case line, more := <-lines:
			if more {
				each(line)
				continue
			}
			select {
			case err := <-failed:
				return err
			default:
				return nil
			}
		}
	}
}

// consume prints the values of records, and their keys if asked to.
func consume(ctx context.Context, args []string, std stdio) error {
	var l login
	f := flags("consume", "TOPIC…", std)
	l.flags(f)
	group := f.String("group", "", "consumer `group` that remembers what was read")
	beginning := f.Bool("from-beginning", false, "begin with the oldest record, unless the group has read before")
	limit := f.Int("max", 0, "end after so `many` records; 0: never")
	separator := f.String("key-separator", "", "print keys, and this `string` between key and value")
	names, err := parseFlags(f, args)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return usageError(f, "consume needs a topic")
	}
	from := kgo.NewOffset().AtEnd()
	if *beginning {
		from = kgo.NewOffset().AtStart()
	}
	options := []kgo.Opt{kgo.ConsumeTopics(names...), kgo.ConsumeResetOffset(from)}
	if *group != "" {
		options = append(options, kgo.ConsumerGroup(*group), kgo.DisableAutoCommit())
	}
	cl, err := l.client(options...)
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := admitted(ctx, cl); err != nil {
		return err
	}

	out := bufio.NewWriter(std.out)
	for n := 0; *limit == 0 || n < *limit; {
		var fetches kgo.Fetches
		if *limit > 0 {
			fetches = cl.PollRecords(ctx, *limit-n)
		} else {
			fetches = cl.PollFetches(ctx)
		}
		if ctx.Err() != nil {
			return nil // interrupted, which is how it ends without --max
		}
		for _, e := range fetches.Errors() {
			return fmt.Errorf("consume %s: %w", strings.Join(names, ", "), e.Err)
		}
		for r := range fetches.RecordsAll() {
			if *separator != "" {
				out.Write(r.Key)
				out.WriteString(*separator)
			}
			out.Write(r.Value)
			out.WriteByte('\n')
			n++
		}
		// Committed is what was printed, never more.
		if err := out.Flush(); err != nil {
			return err
		}
		if *group != "" {
			if err := cl.CommitUncommittedOffsets(ctx); err != nil {
				return fmt.Errorf("commit offsets of group %s: %w", *group, err)
			}
		}
	}
	return nil
}
