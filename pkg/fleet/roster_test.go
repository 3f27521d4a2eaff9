package fleet

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTheRosterRemembersWhatRedisForgot(t *testing.T) {
	began := time.Now()
	node := func(id string, state NodeState, beat float64) Node {
		return Node{ID: id, State: state, Heartbeat: began.Add(time.Duration(beat * float64(time.Second)))}
	}
	type list struct {
		at   float64 // seconds
		of   []Node
		want string // presumed
	}
	for name, lists := range map[string][]list{
		"emptied, and back": {
			{0, []Node{node("a", NodeServing, 0), node("b", NodeDraining, 0)}, ""},
			{1, nil, "a b"},
			{2, []Node{node("a", NodeServing, 1.5)}, "b"},
			{3, []Node{node("a", NodeServing, 2.5), node("b", NodeDraining, 2.5)}, ""},
		},
		"killed: missed as soon as its record ends": {
			{0, []Node{node("a", NodeServing, 0)}, ""},
			{1, []Node{node("a", NodeServing, 0)}, ""},
			{2, []Node{node("a", NodeServing, 0)}, ""},
			{4, []Node{node("a", NodeServing, 0)}, ""},
			{5.1, nil, ""},
		},
		"emptied, and killed": {
			{0, []Node{node("a", NodeServing, 0)}, ""},
			{1, nil, "a"},
			{3, nil, "a"},
			{5, nil, "a"},
			{5.1, nil, ""},
			{6, nil, ""},
		},
		"away for long": {
			{0, []Node{node("a", NodeServing, 0), node("b", NodeServing, 0)}, ""},
			{60, nil, "a b"},
			{61, []Node{node("a", NodeServing, 60.5)}, "b"},
			{64.9, []Node{node("a", NodeServing, 64)}, "b"},
			{65.1, []Node{node("a", NodeServing, 65)}, ""},
		},
		"slow, and killed: not put off for ever": {
			{0, []Node{node("a", NodeServing, 0)}, ""},
			{4, nil, "a"},
			{8, nil, "a"},
			{12, nil, ""},
		},
		"gone by itself": {
			{0, []Node{node("a", NodeServing, 0)}, ""},
			{1, []Node{node("a", NodeGone, 0.5)}, ""},
			{2, nil, ""},
		},
		"an older list that comes later": {
			{2, []Node{node("a", NodeServing, 2)}, ""},
			{1, nil, "a"},
			{3, []Node{node("a", NodeServing, 3)}, ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var r roster
			for _, l := range lists {
				var got []string
				for _, n := range r.note(began.Add(time.Duration(l.at*float64(time.Second))), l.of) {
					got = append(got, n.ID)
				}
				slices.Sort(got)
				if s := strings.Join(got, " "); s != l.want {
					t.Errorf("after %v s: presumed %q, want %q", l.at, s, l.want)
				}
			}
		})
	}
}
