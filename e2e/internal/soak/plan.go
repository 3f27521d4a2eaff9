package soak

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// A kind of fault.
type kind uint8

const (
	killBroker  kind = iota // SIGKILL, and a start some time later
	pauseBroker             // SIGSTOP, and SIGCONT some time later
	stopBroker              // SIGTERM, and a start some time later
	moveLeaders             // every partition gets another leader
	outage                  // all brokers of a cluster are killed, and started some time later
	killNode                // a node of the gateway gets SIGKILL, and is started some time later
	drainNode               // a node of a fleet is drained, and takes clients again some time later
	flushRedis              // the Redis of a fleet forgets everything
	killRedis               // it gets SIGKILL, and is started some time later, empty
	freezeRedis             // it gets SIGSTOP, and SIGCONT some time later
	killPortal              // the portal gets SIGKILL, and is started some time later
)

func (k kind) String() string {
	return [...]string{
		"kill a broker of", "pause a broker of", "stop a broker of", "move all leaders of", "kill all brokers of", "kill a node of",
		"drain a node of", "flush the Redis of", "kill the Redis of", "freeze the Redis of", "kill the portal of",
	}[k]
}

// The sites that are no cluster: the gateway's nodes, and what tells those of a fleet
// what to serve.
const (
	gatewaySite = "gateway"
	controlSite = "the control plane"
)

// A site is where faults happen: a cluster, the gateway or its control plane.
type site struct {
	name  string
	nodes int
	fleet bool // the gateway is one
}

func (s site) kinds() []kind {
	switch {
	case s.name == controlSite:
		return []kind{flushRedis, killRedis, freezeRedis, killPortal}
	case s.name == gatewaySite && s.fleet:
		return []kind{killNode, drainNode}
	case s.name == gatewaySite:
		return []kind{killNode}
	case s.nodes == 1:
		return []kind{outage, pauseBroker, stopBroker}
	}
	return []kind{killBroker, pauseBroker, stopBroker, moveLeaders, outage}
}

// A fault is one thing to break.
type fault struct {
	site   string
	kind   kind
	node   int           // which of the site's; of no meaning for all of them
	after  time.Duration // since the beginning of the round
	length time.Duration // until it is cured
}

func (f fault) String() string {
	name := fmt.Sprintf("%v %s", f.kind, f.site)
	if f.kind != moveLeaders && f.kind != outage && f.site != controlSite {
		name += fmt.Sprintf(" (#%d)", f.node)
	}
	if f.kind == moveLeaders || f.kind == flushRedis {
		return name
	}
	return fmt.Sprintf("%s for %v", name, f.length)
}

// plan draws the faults of each round: one, or two at different sites. The same
// seed draws the same. Kinds are dealt as cards are, so that few rounds have many.
func plan(seed uint64, rounds int, sites []site) [][]fault {
	random := rand.New(rand.NewPCG(seed, 0))
	decks := make(map[string][]kind)
	deal := func(s site) fault {
		deck := decks[s.name]
		if len(deck) == 0 {
			deck = s.kinds()
			random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		decks[s.name] = deck[1:]
		between := func(low, high time.Duration) time.Duration {
			return (low + time.Duration(random.Int64N(int64(high-low)))).Round(100 * time.Millisecond)
		}
		return fault{
			site: s.name, kind: deck[0], node: random.IntN(s.nodes),
			after: between(0, 2*time.Second), length: between(2*time.Second, 8*time.Second),
		}
	}
	var all [][]fault
	var order []site
	for range rounds {
		var round []fault
		for range 1 + random.IntN(2) {
			if len(order) == 0 {
				order = append(order, sites...)
				random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			}
			if len(round) > 0 && round[0].site == order[0].name {
				break // never two at one site
			}
			round = append(round, deal(order[0]))
			order = order[1:]
		}
		all = append(all, round)
	}
	return all
}

// faultTimes are the moments at which members come and go.
type faultTimes struct{ random *rand.Rand }

func newFaultTimes(seed uint64) *faultTimes {
	return &faultTimes{rand.New(rand.NewPCG(seed, 1))}
}

func (f *faultTimes) next() time.Duration {
	return time.Duration(f.random.Int64N(int64(4 * time.Second)))
}
