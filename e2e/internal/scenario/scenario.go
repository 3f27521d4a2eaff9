// Package scenario is what every client is put through: topics, records,
// idempotence, groups, transactions, listing.
package scenario

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"tollgate.internal/e2e/internal/drivers"
)

// Standard walks one client through all it supports, on a cluster where it may
// create topics. Names begin with name.
func Standard(t *testing.T, d drivers.Driver, target drivers.Target, name string) {
	t.Helper()
	from, to := "from-"+name, "to-"+name
	create := []drivers.Step{{Do: drivers.CreateTopic, Topic: from, Partitions: 2}, {Do: drivers.CreateTopic, Topic: to}}
	if d.Supports(drivers.CreateTopic) {
		walk(t, d, target, create)
	} else if _, err := drivers.Do(t.Context(), drivers.FranzGo(), target, create...); err != nil {
		t.Fatal(err)
	}
	walk(t, d, target, steps(d, from, to, name))
	if d.Supports(drivers.DeleteTopic) {
		walk(t, d, target, []drivers.Step{{Do: drivers.DeleteTopic, Topic: to}})
	}
}

// Alias walks one client through all it supports with two aliases, from of two
// partitions and to, which others own: it may neither create topics nor delete
// these.
func Alias(t *testing.T, d drivers.Driver, target drivers.Target, from, to, name string) {
	t.Helper()
	walk(t, d, target, steps(d, from, to, name))
	for _, s := range []drivers.Step{{Do: drivers.CreateTopic, Topic: "own-" + name}, {Do: drivers.DeleteTopic, Topic: from}} {
		if !d.Supports(s.Do) {
			continue
		}
		outcomes, err := d.Run(t.Context(), target, s)
		if err != nil {
			t.Fatal(err)
		}
		if outcomes[0].Err == nil {
			t.Errorf("%+v was not refused", s)
		}
	}
	if d.Supports(drivers.DescribeTopic) {
		walk(t, d, target, []drivers.Step{{Do: drivers.DescribeTopic, Topic: from}})
	}
}

// steps are all that d supports on the topics from and to.
func steps(d drivers.Driver, from, to, name string) (steps []drivers.Step) {
	group := "group-" + name
	for _, s := range []drivers.Step{
		{Do: drivers.DescribeTopic, Topic: from},
		{Do: drivers.Produce, Topic: from, Count: 5, Prefix: "p-", Compression: "gzip"},
		{Do: drivers.Produce, Topic: from, Count: 5, Prefix: "i-", Idempotent: true},
		{Do: drivers.Consume, Topic: from, Group: group, Count: 10},
		{Do: drivers.Transaction, Topic: from, TransactionalID: "t-" + name, Count: 3, Prefix: "a-", Abort: true},
		{Do: drivers.Transaction, Topic: from, TransactionalID: "t-" + name, Count: 4, Prefix: "c-"},
		{Do: drivers.Transform, Topic: from, To: to, Group: group, TransactionalID: "t-" + name, Count: 4},
		{Do: drivers.Consume, Topic: to, Group: group + "-to", Count: 4},
		{Do: drivers.ListTopics, Topic: from, To: to},
		{Do: drivers.ListGroups, Group: group},
	} {
		switch {
		case !d.Supports(s.Do):
		case s.Abort && !d.Supports(drivers.Transform): // kcat only commits
		case s.Topic == to && s.Do == drivers.Consume && !d.Supports(drivers.Transform):
		default:
			steps = append(steps, s)
		}
	}
	return steps
}

// walk takes the steps and checks what came of each.
func walk(t *testing.T, d drivers.Driver, target drivers.Target, steps []drivers.Step) {
	t.Helper()
	outcomes, err := d.Run(t.Context(), target, steps...)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range outcomes {
		s := steps[i]
		if o.Err != nil {
			t.Errorf("%+v: %v", s, o.Err)
			continue
		}
		switch s.Do {
		case drivers.Consume, drivers.Transform:
			expect(t, s, o, s.Count == 10)
		case drivers.DescribeTopic:
			if n := o.Of("topic")[0].Count; n != 2 {
				t.Errorf("described %s with %d partitions, want 2", s.Topic, n)
			}
		case drivers.ListTopics:
			for _, topic := range []string{s.Topic, s.To} {
				if !slices.Contains(o.Names(), topic) {
					t.Errorf("listed topics %v without %s", o.Names(), topic)
				}
			}
		case drivers.ListGroups:
			if !slices.Contains(o.Names(), s.Group) {
				t.Errorf("listed groups %v without %s", o.Names(), s.Group)
			}
		}
	}
}

func expect(t *testing.T, s drivers.Step, o drivers.Outcome, first bool) {
	t.Helper()
	var want []string
	prefixes, n := []string{"c-"}, 4
	if first {
		prefixes, n = []string{"i-", "p-"}, 5
	}
	for _, p := range prefixes {
		for i := range n {
			want = append(want, fmt.Sprintf("%sv%d", p, i))
		}
	}
	got := o.Values()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s of %s: read %v, want %v", s.Do, s.Topic, got, want)
	}
}

// Parts are the names of what [Standard], or [Alias] where owned is false, walks a
// client through.
func Parts(d drivers.Driver, owned bool) []string {
	all := steps(d, "from", "to", "name")
	if owned && d.Supports(drivers.CreateTopic) {
		all = append([]drivers.Step{{Do: drivers.CreateTopic}}, all...)
	}
	if owned && d.Supports(drivers.DeleteTopic) {
		all = append(all, drivers.Step{Do: drivers.DeleteTopic})
	}
	var names []string
	for _, s := range all {
		name := strings.ReplaceAll(s.Do, "-", " ")
		switch {
		case s.Idempotent:
			name = "idempotent " + name
		case s.Abort:
			name = "aborted " + name
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
