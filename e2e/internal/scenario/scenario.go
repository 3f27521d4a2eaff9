// Package scenario is what every client is put through: topics, records,
// idempotence, groups, transactions, listing.
package scenario

import (
	"fmt"
	"slices"
	"testing"

	"tollgate.internal/e2e/internal/drivers"
)

// Standard walks one client through all it supports, on a cluster where it may
// create topics. Names begin with name.
func Standard(t *testing.T, d drivers.Driver, target drivers.Target, name string) {
	t.Helper()
	from, to, group := "from-"+name, "to-"+name, "group-"+name
	create := []drivers.Step{{Do: drivers.CreateTopic, Topic: from, Partitions: 2}, {Do: drivers.CreateTopic, Topic: to}}
	if !d.Supports(drivers.CreateTopic) {
		if _, err := drivers.Do(t.Context(), drivers.FranzGo(), target, create...); err != nil {
			t.Fatal(err)
		}
	}
	wanted := append(create,
		drivers.Step{Do: drivers.DescribeTopic, Topic: from},
		drivers.Step{Do: drivers.Produce, Topic: from, Count: 5, Prefix: "p-", Compression: "gzip"},
		drivers.Step{Do: drivers.Produce, Topic: from, Count: 5, Prefix: "i-", Idempotent: true},
		drivers.Step{Do: drivers.Consume, Topic: from, Group: group, Count: 10},
		drivers.Step{Do: drivers.Transaction, Topic: from, TransactionalID: "t-" + name, Count: 3, Prefix: "a-", Abort: true},
		drivers.Step{Do: drivers.Transaction, Topic: from, TransactionalID: "t-" + name, Count: 4, Prefix: "c-"},
		drivers.Step{Do: drivers.Transform, Topic: from, To: to, Group: group, TransactionalID: "t-" + name, Count: 4},
		drivers.Step{Do: drivers.Consume, Topic: to, Group: group + "-to", Count: 4},
		drivers.Step{Do: drivers.ListTopics},
		drivers.Step{Do: drivers.ListGroups},
		drivers.Step{Do: drivers.DeleteTopic, Topic: to},
	)
	var steps []drivers.Step
	for _, s := range wanted {
		switch {
		case !d.Supports(s.Do):
		case s.Abort && !d.Supports(drivers.Transform): // kcat only commits
		case s.Topic == to && s.Do == drivers.Consume && !d.Supports(drivers.Transform):
		default:
			steps = append(steps, s)
		}
	}
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
			for _, topic := range []string{from, to} {
				if !slices.Contains(o.Names(), topic) {
					t.Errorf("listed topics %v without %s", o.Names(), topic)
				}
			}
		case drivers.ListGroups:
			if !slices.Contains(o.Names(), group) {
				t.Errorf("listed groups %v without %s", o.Names(), group)
			}
		}
	}
}

// Alias walks one client through records and a group on a topic that exists.
func Alias(t *testing.T, d drivers.Driver, target drivers.Target, topic, name string) {
	t.Helper()
	steps := []drivers.Step{
		{Do: drivers.Produce, Topic: topic, Count: 5, Prefix: "p-"},
		{Do: drivers.Produce, Topic: topic, Count: 5, Prefix: "i-", Idempotent: true},
		{Do: drivers.Consume, Topic: topic, Group: "group-" + name, Count: 10},
	}
	outcomes, err := drivers.Do(t.Context(), d, target, steps...)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, steps[2], outcomes[2], true)
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
