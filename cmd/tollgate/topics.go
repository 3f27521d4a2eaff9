package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/twmb/franz-go/pkg/kadm"
)

const topicsUsage = `usage: tollgate topics COMMAND [flags] [TOPIC]…

  list              names, partitions and replication factors
  create TOPIC…     make topics
  describe TOPIC…   partitions with leaders, replicas and offsets
  delete TOPIC…     delete topics and their records
`

func topics(ctx context.Context, args []string, std stdio) error {
	commands := map[string]func(context.Context, []string, stdio) error{
		"list": listTopics, "create": createTopics, "describe": describeTopics, "delete": deleteTopics,
	}
	if len(args) > 0 && (args[0] == "--help" || args[0] == "-h") {
		fmt.Fprint(std.out, topicsUsage)
		return flag.ErrHelp
	}
	if len(args) == 0 || commands[args[0]] == nil {
		fmt.Fprint(std.err, topicsUsage)
		return errUsage
	}
	return commands[args[0]](ctx, args[1:], std)
}

func listTopics(ctx context.Context, args []string, std stdio) error {
	var l login
	f := flags("topics list", "", std)
	l.flags(f)
	names, err := parseFlags(f, args)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return usageError(f, "topics list takes no topics")
	}
	cl, err := l.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	found, err := kadm.NewClient(cl).ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOPIC\tPARTITIONS\tREPLICAS")
	for _, t := range found.Sorted() {
		fmt.Fprintf(w, "%s\t%d\t%d\n", t.Topic, len(t.Partitions), t.Partitions.NumReplicas())
	}
	return w.Flush()
}

func createTopics(ctx context.Context, args []string, std stdio) error {
	var l login
	f := flags("topics create", "TOPIC…", std)
	l.flags(f)
	partitions := f.Int("partitions", -1, "`number` of partitions; -1: as the cluster says")
	replicas := f.Int("replication-factor", -1, "`number` of replicas; -1: as the cluster says")
	configs := make(map[string]*string)
	f.Func("config", "`KEY=VALUE`, repeatable", func(s string) error {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("not KEY=VALUE")
		}
		configs[k] = &v
		return nil
	})
	names, err := parseFlags(f, args)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return usageError(f, "topics create needs a topic")
	}
	cl, err := l.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	created, err := kadm.NewClient(cl).CreateTopics(ctx, int32(*partitions), int16(*replicas), configs, names...)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	var errs []error
	for _, t := range created.Sorted() {
		if t.Err != nil {
			errs = append(errs, refused("create topic "+t.Topic, t.Err, t.ErrMessage))
			continue
		}
		fmt.Fprintln(std.out, "created", t.Topic)
	}
	return errors.Join(errs...)
}

func deleteTopics(ctx context.Context, args []string, std stdio) error {
	var l login
	f := flags("topics delete", "TOPIC…", std)
	l.flags(f)
	names, err := parseFlags(f, args)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return usageError(f, "topics delete needs a topic")
	}
	cl, err := l.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	deleted, err := kadm.NewClient(cl).DeleteTopics(ctx, names...)
	if err != nil {
		return fmt.Errorf("delete topics: %w", err)
	}
	var errs []error
	for _, t := range deleted.Sorted() {
		if t.Err != nil {
			errs = append(errs, refused("delete topic "+t.Topic, t.Err, t.ErrMessage))
			continue
		}
		fmt.Fprintln(std.out, "deleted", t.Topic)
	}
	return errors.Join(errs...)
}

func describeTopics(ctx context.Context, args []string, std stdio) error {
	var l login
	f := flags("topics describe", "TOPIC…", std)
	l.flags(f)
	names, err := parseFlags(f, args)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return usageError(f, "topics describe needs a topic")
	}
	cl, err := l.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	found, err := adm.ListTopics(ctx, names...)
	if err != nil {
		return fmt.Errorf("describe topics: %w", err)
	}
	var errs []error
	for _, t := range found.Sorted() {
		if t.Err != nil {
			errs = append(errs, fmt.Errorf("describe topic %s: %w", t.Topic, t.Err))
			continue
		}
		starts, err := adm.ListStartOffsets(ctx, t.Topic)
		if err != nil {
			return fmt.Errorf("offsets of %s: %w", t.Topic, err)
		}
		ends, err := adm.ListEndOffsets(ctx, t.Topic)
		if err != nil {
			return fmt.Errorf("offsets of %s: %w", t.Topic, err)
		}
		fmt.Fprintf(std.out, "%s\tid %s\n", t.Topic, t.ID)
		w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "  PARTITION\tLEADER\tREPLICAS\tISR\tSTART\tEND")
		for _, p := range t.Partitions.Sorted() {
			start, _ := starts.Lookup(t.Topic, p.Partition)
			end, _ := ends.Lookup(t.Topic, p.Partition)
			fmt.Fprintf(w, "  %d\t%d\t%v\t%v\t%d\t%d\n", p.Partition, p.Leader, p.Replicas, p.ISR, start.Offset, end.Offset)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// refused adds the broker's own words to what its code means.
func refused(what string, err error, message string) error {
	if message == "" {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w (%s)", what, err, message)
}
