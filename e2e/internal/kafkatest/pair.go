package kafkatest

import (
	"testing"

	"golang.org/x/sync/errgroup"
)

// A Pair is two clusters for virtual clusters that span both. They run different
// versions of Kafka, and a node id says nothing about whose it is.
type Pair struct {
	Main *Cluster // three nodes with sparse ids
	West *Cluster // one node, with an id that Main has too
}

// PairOptions are those of a pair whose main cluster has this version; its west one
// has the other.
func PairOptions(version string) (main, west Options) {
	other := V3
	if version == V3 {
		other = V4
	}
	main = Options{Version: version, NodeIDs: []int32{2, 7, 1004}, Properties: prompt(version)}
	west = Options{Version: other, NodeIDs: []int32{7}, Properties: prompt(other)}
	return main, west
}

// prompt lets members of KIP-848 groups hear of a change soon; the default is every
// five seconds, and no less.
func prompt(version string) map[string]string {
	if version != V4 {
		return nil
	}
	return map[string]string{"group.consumer.heartbeat.interval.ms": "500", "group.consumer.min.heartbeat.interval.ms": "100"}
}

// ShareSingles describes a broker with SASL of each version, for a package-level variable.
func ShareSingles() map[string]*Shared {
	all := make(map[string]*Shared)
	for _, version := range Versions() {
		all[version] = Share(Options{Version: version, SASL: true, Properties: prompt(version)})
	}
	return all
}

// SharePairs describes a pair for each version, that of its main cluster.
func SharePairs() map[string]*SharedPair {
	all := make(map[string]*SharedPair)
	for _, version := range Versions() {
		all[version] = SharePair(version)
	}
	return all
}

// A SharedPair is a pair for all tests of a package that ask for it.
type SharedPair struct{ main, west *Shared }

// SharePair describes a pair for a package-level variable, as [Share] does.
func SharePair(version string) *SharedPair {
	main, west := PairOptions(version)
	return &SharedPair{Share(main), Share(west)}
}

// Get returns the pair, and prints the end of the brokers' logs if t fails.
func (s *SharedPair) Get(t testing.TB) *Pair {
	t.Helper()
	pair, both := new(Pair), new(errgroup.Group)
	both.Go(func() (err error) { pair.Main, err = s.main.get(t); return err })
	both.Go(func() (err error) { pair.West, err = s.west.get(t); return err })
	if err := both.Wait(); err != nil {
		t.Fatal(err)
	}
	return pair
}

// StartPair starts a pair for one test that does harm to it.
func StartPair(t testing.TB, version string) *Pair {
	t.Helper()
	main, west := PairOptions(version)
	return &Pair{Main: Start(t, main), West: Start(t, west)}
}

// Upstreams are the clusters by the names under which resources know them, with
// their addresses.
func (p *Pair) Upstreams() map[string]string {
	return map[string]string{"main": p.Main.Bootstrap(), "west": p.West.Bootstrap()}
}
