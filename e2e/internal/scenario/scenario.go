// Package scenario is what every client is put through: topics, records,
// idempotence, groups, transactions, listing.
package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/drivers"
)

// Standard walks one client through all it supports, on a cluster where it may
// create topics. Names begin with name.
func Standard(t *testing.T, d drivers.Driver, target drivers.Target, name string) {
	t.Helper()
	from, to := "from-"+name, "to-"+name
	create(t, d, target, from, to)
	walk(t, d, target, append(parts(d, from, to, name), supported(d, []part{remove(to)})...))
}

// Alias walks one client through all it supports with two aliases, from of two
// partitions and to, which others own: it may neither create topics nor delete
// these.
func Alias(t *testing.T, d drivers.Driver, target drivers.Target, from, to, name string) {
	t.Helper()
	walk(t, d, target, append(parts(d, from, to, name), supported(d, []part{
		refused(drivers.Step{Do: drivers.CreateTopic, Topic: "own-" + name}),
		refused(drivers.Step{Do: drivers.DeleteTopic, Topic: from}),
		describe(from),
	})...))
}

// Two are the topics of a client that uses several at once: From of two partitions
// and To are on one cluster, West of two partitions is, behind a virtual cluster
// that spans, on another. Transactional ids that begin with "west-" belong to its
// cluster, all others to that of From and To.
type Two struct {
	From, West, To string
	// Name begins what else has names.
	Name string
	// Owned is where From and To are the client's to create and to delete; else they
	// are there.
	Owned bool
	// Bare is a broker, where West may be in any transaction.
	Bare bool
}

// BothClusters walks one client through all it supports with topics of two clusters:
// all that [Standard] or [Alias] do, groups over both in one go, and transactions
// that read from both.
func BothClusters(t *testing.T, d drivers.Driver, target drivers.Target, topics Two) {
	t.Helper()
	if topics.Owned {
		create(t, d, target, topics.From, topics.To)
	}
	if topics.Bare {
		// A broker says that a topic was created, and a moment later that there is one.
		for _, topic := range []string{topics.From, topics.West, topics.To} {
			await(t, target, topic)
		}
	}
	var end []part
	if !topics.Bare {
		end = append(end, refused(drivers.Step{Do: drivers.DeleteTopic, Topic: topics.West}), describe(topics.West))
	}
	if topics.Owned {
		end = append(end, remove(topics.To))
	}
	// All at once: a client's process takes longer to start than to do most of this.
	walk(t, d, target, append(topics.parts(d), supported(d, end)...))
}

// part is a step with what has to come of it.
type part struct {
	drivers.Step
	values      []string // read, in any order
	transformed bool     // by a Transform before
	listed      []string
	refused     bool // it must not work
}

func describe(topic string) part {
	return part{Step: drivers.Step{Do: drivers.DescribeTopic, Topic: topic}}
}

func remove(topic string) part {
	return part{Step: drivers.Step{Do: drivers.DeleteTopic, Topic: topic}}
}

func refused(s drivers.Step) part { return part{Step: s, refused: true} }

// reads is a part that reads so many records of each prefix.
func reads(s drivers.Step, n int, prefixes ...string) part {
	p := part{Step: s}
	for _, prefix := range prefixes {
		for i := range n {
			p.values = append(p.values, fmt.Sprintf("%sv%d", prefix, i))
		}
	}
	slices.Sort(p.values)
	p.Count = len(p.values)
	return p
}

// parts are all that d supports on the topics from and to.
func parts(d drivers.Driver, from, to, name string) []part {
	group, id := "group-"+name, "t-"+name
	return supported(d, []part{
		describe(from),
		{Step: drivers.Step{Do: drivers.Produce, Topic: from, Count: 5, Prefix: "p-", Compression: "gzip"}},
		{Step: drivers.Step{Do: drivers.Produce, Topic: from, Count: 5, Prefix: "i-", Idempotent: true}},
		reads(drivers.Step{Do: drivers.Consume, Topic: from, Group: group}, 5, "i-", "p-"),
		{Step: drivers.Step{Do: drivers.Transaction, Topic: from, TransactionalID: id, Count: 3, Prefix: "a-", Abort: true}},
		{Step: drivers.Step{Do: drivers.Transaction, Topic: from, TransactionalID: id, Count: 4, Prefix: "c-"}},
		reads(drivers.Step{Do: drivers.Transform, Topic: from, To: to, Group: group, TransactionalID: id}, 4, "c-"),
		needsTransform(reads(drivers.Step{Do: drivers.Consume, Topic: to, Group: group + "-to"}, 4, "c-")),
		{Step: drivers.Step{Do: drivers.ListTopics}, listed: []string{from, to}},
		{Step: drivers.Step{Do: drivers.ListGroups}, listed: []string{group}},
	})
}

// parts are all that d supports on these topics.
func (w Two) parts(d drivers.Driver) []part {
	group, id, west := "group-both-"+w.Name, "t-both-"+w.Name, "west-"+w.Name
	both := []string{w.West}
	all := []part{
		describe(w.From),
		describe(w.West),
		{Step: drivers.Step{Do: drivers.Produce, Topic: w.From, Count: 5, Prefix: "p-", Compression: "gzip"}},
		{Step: drivers.Step{Do: drivers.Produce, Topic: w.West, Count: 5, Prefix: "wp-", Compression: "gzip"}},
		{Step: drivers.Step{Do: drivers.Produce, Topic: w.From, Count: 5, Prefix: "i-", Idempotent: true}},
		{Step: drivers.Step{Do: drivers.Produce, Topic: w.West, Count: 5, Prefix: "wi-", Idempotent: true}},
		reads(drivers.Step{Do: drivers.Consume, Topic: w.From, Also: both, Group: group}, 5, "p-", "wp-", "i-", "wi-"),
		{Step: drivers.Step{Do: drivers.Transaction, Topic: w.From, TransactionalID: id, Count: 3, Prefix: "a-", Abort: true}},
		{Step: drivers.Step{Do: drivers.Transaction, Topic: w.From, TransactionalID: id, Count: 4, Prefix: "c-"}},
		{Step: drivers.Step{Do: drivers.Transaction, Topic: w.West, TransactionalID: west, Count: 3, Prefix: "wa-", Abort: true}},
		{Step: drivers.Step{Do: drivers.Transaction, Topic: w.West, TransactionalID: west, Count: 4, Prefix: "wc-"}},
		reads(drivers.Step{Do: drivers.Transform, Topic: w.From, Also: both, To: w.To, Group: group, TransactionalID: id}, 4, "c-", "wc-"),
		needsTransform(reads(drivers.Step{Do: drivers.Consume, Topic: w.To, Group: group + "-to"}, 4, "c-", "wc-")),
	}
	if !w.Bare && d.Supports(drivers.AfterRefusal) {
		all = append(all,
			part{Step: drivers.Step{Do: drivers.AfterRefusal, Topic: w.To, To: w.West, TransactionalID: id, Count: 4, Prefix: "r-"}},
			part{Step: drivers.Step{Do: drivers.AfterRefusal, Topic: w.To, To: w.West, TransactionalID: id, Count: 4, Prefix: "m-", Mixed: true}},
			reads(drivers.Step{Do: drivers.Consume, Topic: w.To, Group: group + "-to"}, 4, "r-", "m-"),
		)
	}
	return supported(d, append(all,
		part{Step: drivers.Step{Do: drivers.ListTopics}, listed: []string{w.From, w.West, w.To}},
		part{Step: drivers.Step{Do: drivers.ListGroups}, listed: []string{group}},
	))
}

// needsTransform marks what reads the records of a Transform.
func needsTransform(p part) part {
	p.transformed = true
	return p
}

func supported(d drivers.Driver, all []part) []part {
	return slices.DeleteFunc(all, func(p part) bool {
		switch {
		case !d.Supports(p.Do):
			return true
		case p.Abort, p.transformed:
			return !d.Supports(drivers.Transform) // kcat only commits
		}
		return false
	})
}

func create(t *testing.T, d drivers.Driver, target drivers.Target, from, to string) {
	t.Helper()
	steps := []drivers.Step{{Do: drivers.CreateTopic, Topic: from, Partitions: 2}, {Do: drivers.CreateTopic, Topic: to}}
	if d.Supports(drivers.CreateTopic) {
		walk(t, d, target, []part{{Step: steps[0]}, {Step: steps[1]}})
	} else if _, err := drivers.Do(t.Context(), drivers.FranzGo(), target, steps...); err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, target drivers.Target, topic string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		_, err := drivers.Do(ctx, drivers.FranzGo(), target, drivers.Step{Do: drivers.DescribeTopic, Topic: topic})
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("created, and not there: %v", err)
		case <-time.After(50 * time.Millisecond): // between two looks
		}
	}
}

// walk takes the steps and checks what came of each.
func walk(t *testing.T, d drivers.Driver, target drivers.Target, parts []part) {
	t.Helper()
	var steps []drivers.Step
	for _, p := range parts {
		steps = append(steps, p.Step)
	}
	outcomes, err := d.Run(t.Context(), target, steps...)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range outcomes {
		p := parts[i]
		if p.refused {
			if o.Err == nil {
				t.Errorf("%+v was not refused", p.Step)
			}
			continue
		}
		if o.Err != nil {
			t.Errorf("%+v: %v", p.Step, o.Err)
			continue
		}
		switch p.Do {
		case drivers.Consume, drivers.Transform:
			got := o.Values()
			slices.Sort(got)
			if !slices.Equal(got, p.values) {
				t.Errorf("%s of %s: read %v, want %v", p.Do, p.Topic, got, p.values)
			}
		case drivers.DescribeTopic:
			if n := o.Of("topic")[0].Count; n != 2 {
				t.Errorf("described %s with %d partitions, want 2", p.Topic, n)
			}
		case drivers.AfterRefusal:
			if n := len(o.Of("refused")); n != 1 {
				t.Errorf("%+v: refused %d times, want once", p.Step, n)
			}
		}
		for _, name := range p.listed {
			if !slices.Contains(o.Names(), name) {
				t.Errorf("%s: %v without %s", p.Do, o.Names(), name)
			}
		}
	}
}

// Parts are the names of what [Standard], or [Alias] where owned is false, walks a
// client through.
func Parts(d drivers.Driver, owned bool) []string {
	return names(d, parts(d, "from", "to", "name"), owned)
}

// BothClustersParts are the same of [BothClusters].
func BothClustersParts(d drivers.Driver, owned bool) []string { return names(d, Two{}.parts(d), owned) }

func names(d drivers.Driver, all []part, owned bool) []string {
	if owned && d.Supports(drivers.CreateTopic) {
		all = append([]part{{Step: drivers.Step{Do: drivers.CreateTopic}}}, all...)
	}
	if owned && d.Supports(drivers.DeleteTopic) {
		all = append(all, part{Step: drivers.Step{Do: drivers.DeleteTopic}})
	}
	var names []string
	for _, p := range all {
		name := strings.ReplaceAll(p.Do, "-", " ")
		switch {
		case p.Do == drivers.AfterRefusal:
			name = "transaction after a refused one"
		case p.Idempotent:
			name = "idempotent " + name
		case p.Abort:
			name = "aborted " + name
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
