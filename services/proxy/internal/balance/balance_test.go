package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// a fleet and a virtual cluster, as a seed has them.
func draw(seed uint64) (vc string, nodes []Node, brokers []Broker) {
	r := rand.New(rand.NewPCG(seed, 0))
	racks := []string{"", "a", "b", "c"}[:1+r.IntN(4)]
	for i := range 1 + r.IntN(12) {
		nodes = append(nodes, Node{ID: fmt.Sprintf("node-%d", i), Rack: racks[r.IntN(len(racks))], Weight: r.IntN(Full + 2)})
	}
	for range 1 + r.IntN(40) {
		brokers = append(brokers, Broker{VNode: r.Int32N(8)<<16 | r.Int32N(1<<16), Rack: racks[r.IntN(len(racks))]})
	}
	slices.SortFunc(brokers, func(a, b Broker) int { return int(a.VNode - b.VNode) })
	brokers = slices.CompactFunc(brokers, func(a, b Broker) bool { return a.VNode == b.VNode })
	return fmt.Sprintf("vc-%d", r.IntN(1000)), nodes, brokers
}

// better says whether a broker is better off on node a than on node b.
func better(vc string, br Broker, a, b *Node) bool {
	if here, there := near(br, a), near(br, b); here != there {
		return here
	}
	return score(vc, br.VNode, a) > score(vc, br.VNode, b)
}

func near(b Broker, n *Node) bool { return b.Rack != "" && b.Rack == n.Rack }

func byID(nodes []Node, at []int) []string {
	ids := make([]string, len(at))
	for i, n := range at {
		ids[i] = nodes[n].ID
	}
	return ids
}

func FuzzPlace(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		vc, nodes, brokers := draw(seed)
		at := Place(vc, nodes, brokers)
		bound := Bound(len(brokers), len(nodes))
		has := make([]int, len(nodes))
		for _, n := range at {
			has[n]++ // panics for a broker without a node
		}
		if most := int(math.Ceil(1.25 * float64(len(brokers)) / float64(len(nodes)))); slices.Max(has) > most {
			t.Fatalf("nodes have %v of %d brokers, %d at most", has, len(brokers), most)
		}
		if len(nodes) > 1 && len(brokers) > 1 && slices.Max(has) == len(brokers) {
			t.Fatalf("one of %d nodes has all %d brokers", len(nodes), len(brokers))
		}

		// A broker is where it is best off, but for nodes that are full of better ones. With
		// a node of its rack above all others that is the preference of racks, too.
		for b, n := range at {
			for other := range nodes {
				if other == n || !better(vc, brokers[b], &nodes[other], &nodes[n]) {
					continue
				}
				if has[other] < bound {
					t.Fatalf("broker %d is on %s, and %s has room", brokers[b].VNode, nodes[n].ID, nodes[other].ID)
				}
				for rival, m := range at {
					if m != other {
						continue
					}
					here, there := near(brokers[b], &nodes[other]), near(brokers[rival], &nodes[other])
					if here && !there || here == there && score(vc, brokers[b].VNode, &nodes[other]) > score(vc, brokers[rival].VNode, &nodes[other]) {
						t.Fatalf("broker %d is not on %s, which has %d", brokers[b].VNode, nodes[other].ID, brokers[rival].VNode)
					}
				}
			}
		}

		// Every node comes to the same, in whatever order it learned of the others.
		shuffled, few := slices.Clone(nodes), slices.Clone(brokers)
		r := rand.New(rand.NewPCG(seed, 1))
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		r.Shuffle(len(few), func(i, j int) { few[i], few[j] = few[j], few[i] })
		again := make(map[int32]string)
		for i, n := range Place(vc, shuffled, few) {
			again[few[i].VNode] = shuffled[n].ID
		}
		for b, n := range at {
			if again[brokers[b].VNode] != nodes[n].ID {
				t.Fatalf("broker %d is on %s or on %s, as the order is", brokers[b].VNode, nodes[n].ID, again[brokers[b].VNode])
			}
		}

		// A node that goes, while the bound stays: nobody is better off than before, and who
		// was elsewhere moves only because another was worse off.
		if len(nodes) < 2 {
			return
		}
		gone := r.IntN(len(nodes))
		left := slices.Delete(slices.Clone(nodes), gone, gone+1)
		after := Place(vc, left, brokers)
		if Bound(len(brokers), len(left)) != bound {
			return
		}
		for b := range brokers {
			was, is := nodes[at[b]], left[after[b]]
			if was.ID != is.ID && better(vc, brokers[b], &is, &was) {
				t.Fatalf("when %s went, broker %d moved from %s to %s, which had been there before and better", nodes[gone].ID, brokers[b].VNode, was.ID, is.ID)
			}
		}
		if has[gone] == 0 && !slices.Equal(byID(nodes, at), byID(left, after)) {
			t.Fatalf("%s had nothing, and brokers moved when it went", nodes[gone].ID)
		}
	})
}

// What moves when a node comes is little more than its share.
func TestANodeThatComesMovesItsShare(t *testing.T) {
	for _, tc := range []struct{ brokers, nodes int }{{3, 2}, {3, 3}, {6, 3}, {12, 3}, {30, 3}, {30, 10}, {100, 9}} {
		moved, clusters := 0, 400
		for i := range clusters {
			vc := fmt.Sprint("vc-", i)
			var nodes []Node
			for n := range tc.nodes + 1 {
				nodes = append(nodes, Node{ID: fmt.Sprint("node-", n), Weight: Full})
			}
			var brokers []Broker
			for b := range tc.brokers {
				brokers = append(brokers, Broker{VNode: int32(b)})
			}
			before, after := Place(vc, nodes[:tc.nodes], brokers), Place(vc, nodes, brokers)
			for b := range brokers {
				if before[b] != after[b] {
					moved++
				}
			}
		}
		share := float64(tc.brokers) / float64(tc.nodes+1)
		if got := float64(moved) / float64(clusters); got > share*1.5 {
			t.Errorf("%d brokers on %d nodes: %.2f moved when one came, its share is %.2f", tc.brokers, tc.nodes, got, share)
		}
	}
}

// All virtual clusters together are spread as the weights are.
func TestWeights(t *testing.T) {
	nodes := []Node{{ID: "a", Weight: 4}, {ID: "b", Weight: 4}, {ID: "c", Weight: 2}, {ID: "d", Weight: 1}}
	has := make([]int, len(nodes))
	brokers := []Broker{{VNode: 1}, {VNode: 2}}
	for i := range 5000 {
		before := Place(fmt.Sprint("vc-", i), nodes, brokers[:1])
		has[before[0]]++
		// A weight that falls moves brokers away from there, and no other.
		lighter := slices.Clone(nodes)
		lighter[0].Weight--
		if after := Place(fmt.Sprint("vc-", i), lighter, brokers[:1]); after[0] != before[0] && before[0] != 0 {
			t.Fatalf("a broker moved from %s to %s when the weight of a fell", nodes[before[0]].ID, nodes[after[0]].ID)
		}
	}
	for n, weight := range []float64{4, 4, 2, 1} {
		if want := 5000 * weight / 11; float64(has[n]) < 0.9*want || float64(has[n]) > 1.1*want {
			t.Errorf("%s has %d brokers, want about %.0f", nodes[n].ID, has[n], want)
		}
	}
}

func TestPlaceOfNothing(t *testing.T) {
	if at := Place("vc", nil, []Broker{{VNode: 1}}); at != nil {
		t.Errorf("no nodes: %v", at)
	}
	if at := Place("vc", []Node{{ID: "a"}}, nil); len(at) != 0 {
		t.Errorf("no brokers: %v", at)
	}
}

// What is placed where is agreed between nodes of different versions, too: a change here
// moves clients to and fro for as long as a fleet has both.
func TestPlacesStayWhatTheyAre(t *testing.T) {
	nodes := []Node{{ID: "n1", Rack: "a", Weight: 4}, {ID: "n2", Rack: "b", Weight: 4}, {ID: "n3", Weight: 2}}
	var brokers []Broker
	for i := range int32(9) {
		brokers = append(brokers, Broker{VNode: i, Rack: []string{"a", "", "b"}[i%3]})
	}
	if got, want := fmt.Sprint(byID(nodes, Place("acme-prod", nodes, brokers))), "[n1 n2 n2 n1 n1 n2 n1 n3 n2]"; got != want {
		t.Errorf("brokers are on %s, were on %s", got, want)
	}
}

func TestAWeightMovesSlowly(t *testing.T) {
	now := time.Unix(0, 0)
	var w Weigher
	run := func(what string, load float64, d time.Duration, want int) {
		t.Helper()
		got := 0
		for end := now.Add(d); now.Before(end); now = now.Add(time.Second) {
			got = w.Weigh(now, load)
		}
		if got != want {
			t.Errorf("%s: weight %d, want %d", what, got, want)
		}
	}
	run("idle", 0, time.Hour, 4)
	run("busy, not for long", 1, 50*time.Second, 4)
	run("a pause", 0.8, 2*time.Second, 4)
	run("busy again, not for long", 1, 50*time.Second, 4)
	run("for a minute", 1, 20*time.Second, 3)
	run("what is left of the load when a quarter went", 0.75, time.Hour, 3)
	run("quiet, not for long", 0.1, 4*time.Minute, 3)
	run("quiet for five minutes", 0.1, 2*time.Minute, 4)
	run("overloaded for good", 1, time.Hour, 1)
	run("as much as two would be too much", 0.4, time.Hour, 1)
	run("less and less", 0, time.Hour, 4)
}
