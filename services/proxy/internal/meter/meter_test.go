package meter

import (
	"fmt"
	"sync"
	"testing"
)

// Nothing that is counted is lost, whoever counts at the same time, and nobody who
// looks meanwhile sees a counter go back.
func TestNothingCountedIsLost(t *testing.T) {
	const workers, rounds, topics = 8, 2000, 5
	m := New()
	key := func(i int, d Direction) Key {
		return Key{VirtualCluster: "acme", Principal: "User:a", Topic: fmt.Sprint("t", i%topics), Cluster: "main", Direction: d}
	}
	var counting, looking sync.WaitGroup
	done := make(chan struct{})
	looking.Go(func() {
		seen := make(map[Key]Usage)
		for {
			for k, u := range m.All() {
				if before := seen[k]; u.Bytes < before.Bytes || u.Records < before.Records || u.Requests < before.Requests {
					t.Errorf("%v went from %+v back to %+v", k, before, u)
				}
				seen[k] = u
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for range workers {
		counting.Go(func() {
			for i := range rounds {
				c := m.Counter(key(i, Produced))
				c.Add(100, 3)
				c.Request()
				m.Counter(key(i, Fetched)).Add(1, 0)
			}
		})
	}
	counting.Wait()
	close(done)
	looking.Wait()
	n := 0
	for k, u := range m.All() {
		n++
		want := Usage{Bytes: 100 * workers * rounds / topics, Records: 3 * workers * rounds / topics, Requests: workers * rounds / topics}
		if k.Direction == Fetched {
			want = Usage{Bytes: workers * rounds / topics}
		}
		if u != want {
			t.Errorf("%v: %+v, want %+v", k, u, want)
		}
	}
	if n != 2*topics {
		t.Errorf("%d counters, want %d", n, 2*topics)
	}
}

// Many at once count on one counter.
func TestOneCounterForMany(t *testing.T) {
	const workers, rounds = 8, 50_000
	c := New().Counter(Key{})
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range rounds {
				c.Add(2, 1)
				c.Request()
			}
		})
	}
	wg.Wait()
	if b, r, q := c.bytes.Load(), c.records.Load(), c.requests.Load(); b != 2*workers*rounds || r != workers*rounds || q != workers*rounds {
		t.Errorf("%d bytes, %d records, %d requests of %d", b, r, q, workers*rounds)
	}
}

// A counter is for one key, and stays: sessions keep it.
func TestCountersAreKept(t *testing.T) {
	m := New()
	k := Key{VirtualCluster: "acme", Principal: "User:a", Topic: "t", Cluster: "main"}
	c := m.Counter(k)
	for i, other := range []Key{
		{VirtualCluster: "other", Principal: k.Principal, Topic: k.Topic, Cluster: k.Cluster},
		{VirtualCluster: k.VirtualCluster, Principal: "User:b", Topic: k.Topic, Cluster: k.Cluster},
		{VirtualCluster: k.VirtualCluster, Principal: k.Principal, Topic: "u", Cluster: k.Cluster},
		{VirtualCluster: k.VirtualCluster, Principal: k.Principal, Topic: k.Topic, Cluster: "west"},
		{VirtualCluster: k.VirtualCluster, Principal: k.Principal, Topic: k.Topic, Cluster: k.Cluster, Direction: Fetched},
	} {
		if m.Counter(other) == c {
			t.Errorf("key %d shares its counter", i)
		}
	}
	if m.Counter(k) != c {
		t.Error("another counter for the same key")
	}
	for range m.All() {
		m.Counter(Key{Topic: "made meanwhile"}) // no lock is held
		break
	}
	if Produced.String() != "produced" || Fetched.String() != "fetched" {
		t.Error("directions are misnamed")
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	m := New()
	k := Key{VirtualCluster: "acme", Topic: "t"}
	m.Counter(k)
	if n := testing.AllocsPerRun(100, func() { c := m.Counter(k); c.Add(1, 1); c.Request() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
