package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"tollgate.internal/services/proxy"
)

// loginAdmin logs in to acme-prod.
var loginAdmin = kgo.SASL(scram.Auth{User: "admin", Pass: "dev-secret"}.AsSha512Mechanism())

// A client, the proxy and a cluster in one bubble: the clock is theirs, and a
// goroutine that is left over fails the test.
func bubble(t *testing.T, f func(t *testing.T, g *gateway)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t, startOn(t, new(kfake.VirtualNetwork)))
	})
}

// produceN produces n records one after the other and fails on any error.
func produceN(t *testing.T, cl *kgo.Client, n int) {
	t.Helper()
	for i := range n {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		err := cl.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(i))).FirstErr()
		cancel()
		if err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
	}
}

func TestNothingIsLeftWhenAClientHasCome(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		cl := g.client(t, "acme-dev.gw.test", loginDev, kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("things"))
		produceN(t, cl, 10)
		cl.Close()
		if err := g.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// Whatever happens to a request upstream, an idempotent producer and a group
// consumer go on: every record is read, once and in order (PROTOCOL.md §H2).
func TestClientsOutliveWhatHappensUpstream(t *testing.T) {
	for key, retriable := range map[kmsg.Key]*kerr.Error{
		kmsg.Produce: kerr.NotLeaderForPartition, kmsg.Fetch: kerr.NotLeaderForPartition, kmsg.ListOffsets: kerr.NotLeaderForPartition,
		kmsg.Metadata: kerr.LeaderNotAvailable, kmsg.FindCoordinator: kerr.CoordinatorNotAvailable,
		kmsg.OffsetCommit: kerr.CoordinatorLoadInProgress, kmsg.OffsetFetch: kerr.NotCoordinator,
		kmsg.JoinGroup: kerr.NotCoordinator, kmsg.SyncGroup: kerr.CoordinatorLoadInProgress, kmsg.Heartbeat: kerr.RebalanceInProgress,
	} {
		for name, inject := range map[string]func(c *kfake.Cluster, happened func()){
			"the broker hangs up": func(c *kfake.Cluster, happened func()) {
				c.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) { happened(); return nil, errors.New("lost"), true })
			},
			"the broker says nothing": func(c *kfake.Cluster, happened func()) {
				c.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) { happened(); return nil, nil, true })
			},
			"it is answered with an error": func(c *kfake.Cluster, happened func()) {
				when := func(kmsg.Request) bool { happened(); return true }
				c.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: retriable, Count: 2, When: when},
					kfake.Fault{Keys: []kmsg.Key{key}, Err: retriable, Count: 1, When: when, TopLevel: true})
			},
		} {
			t.Run(key.Name()+": "+name, func(t *testing.T) {
				bubble(t, func(t *testing.T, g *gateway) {
					producer := g.client(t, "acme.gw.test", loginAdmin, kgo.DefaultProduceTopic("orders"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
					consumer := g.client(t, "acme.gw.test", loginAdmin, kgo.ConsumeTopics("orders"), kgo.ConsumerGroup("readers"),
						kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
					var happened atomic.Int32
					inject(g.upstream, func() { happened.Add(1) })
					produceN(t, producer, 10)
					consumeN(t, consumer, 0, 10)
					commit(t, consumer)
					time.Sleep(10 * time.Second) // heartbeats
					inject(g.upstream, func() { happened.Add(1) })
					time.Sleep(10 * time.Second)
					produceN(t, producer, 10)
					consumeN(t, consumer, 10, 10)
					commit(t, consumer)
					produced(t, g, 20)
					if happened.Load() == 0 {
						t.Error("it never happened")
					}
				})
			})
		}
	}
}

// consumeN reads n records and wants them to be those that follow the first from.
func consumeN(t *testing.T, cl *kgo.Client, from, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	for got := 0; got < n; {
		fs := cl.PollFetches(ctx)
		// A group that must be joined again is told of, and joined again.
		if _, rejoin := errors.AsType[*kgo.ErrGroupSession](fs.Err()); fs.Err() != nil && !rejoin {
			t.Fatalf("after %d records: %v", from+got, fs.Err())
		}
		fs.EachRecord(func(r *kgo.Record) {
			if want := int64(from + got); r.Offset != want || string(r.Value) != fmt.Sprint(got) {
				t.Errorf("record %q at %d, want %d at %d", r.Value, r.Offset, got, want)
			}
			got++
		})
	}
}

// commit commits what was read. It is not done in the background: a kgo client that
// waits for a lock stops the clock of a bubble.
func commit(t *testing.T, cl *kgo.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	for {
		err := cl.CommitUncommittedOffsets(ctx)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("commit: %v", err)
		}
		time.Sleep(time.Second) // kgo does not try again by itself
	}
}

// A grant ends at its time, without a change of files: the alias is gone for whoever
// asks and for the fetch session that is open.
func TestAGrantEndsOnTime(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		cl := g.client(t, "acme.gw.test", loginAdmin, kgo.DefaultProduceTopic("orders"), kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepRetryableFetchErrors())
		produceN(t, cl, 5)
		consumeN(t, cl, 0, 5)
		until := time.Now().Add(time.Hour).Truncate(time.Second)
		g.replace(t, "all.yaml", "access: read-write}", "access: read-write, until: "+until.UTC().Format(time.RFC3339)+"}")
		time.Sleep(time.Until(until) - time.Second)
		produceN(t, cl, 5)
		consumeN(t, cl, 5, 5)
		time.Sleep(2 * time.Second)
		err := cl.ProduceSync(t.Context(), kgo.StringRecord("late")).FirstErr()
		if !errors.Is(err, kerr.UnknownTopicOrPartition) && !errors.Is(err, kerr.UnknownTopicID) {
			t.Errorf("produce after the grant: %v, want an unknown topic", err)
		}
		produced(t, g, 10)
	})
}

// produced wants the broker to hold n records of the physical topic.
func produced(t *testing.T, g *gateway, n int64) {
	t.Helper()
	if info := g.upstream.PartitionInfo("shop.orders.v2", 0); info.HighWatermark != n {
		t.Errorf("%d records at the broker, want %d", info.HighWatermark, n)
	}
}

// A proxy that stops finishes what is in flight, and a client that finds the next
// one goes on as if nothing had been (PROTOCOL.md §H3).
func TestAClientOutlivesTheProxy(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		cl := g.client(t, "acme.gw.test", loginAdmin, kgo.DefaultProduceTopic("orders"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		consumer := g.client(t, "acme.gw.test", loginAdmin, kgo.ConsumeTopics("orders"), kgo.ConsumerGroup("readers"),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
		const n = 300
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for i := range n {
				if err := cl.ProduceSync(t.Context(), kgo.StringRecord(fmt.Sprint(i))).FirstErr(); err != nil {
					t.Errorf("record %d: %v", i, err)
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
		for range 3 {
			time.Sleep(500 * time.Millisecond)
			if err := g.stop(); err != nil {
				t.Fatalf("Run: %v", err)
			}
			g.run(t)
		}
		consumeN(t, consumer, 0, n)
		wg.Wait()
		produced(t, g, n)
	})
}

// Whatever was accepted or sent is counted, by who, what, where and which way, and
// stays counted when the session, the account and the proxy's files are gone.
func TestUsageIsComplete(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		for _, batch := range []int{1, 7, 92} {
			cl := g.client(t, "acme.gw.test", loginAdmin, kgo.DefaultProduceTopic("orders"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
			records := make([]*kgo.Record, batch)
			for i := range records {
				records[i] = kgo.StringRecord(fmt.Sprint(i))
			}
			if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			cl.Close()
		}
		cl := g.client(t, "acme.gw.test", loginAdmin, kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		got := 0
		for got < 100 {
			fs := cl.PollFetches(t.Context())
			if err := fs.Err(); err != nil {
				t.Fatal(err)
			}
			got += fs.NumRecords()
		}
		cl.Close()
		g.replace(t, "all.yaml", "name: admin,", "name: other,")
		time.Sleep(time.Second)
		if err := g.stop(); err != nil {
			t.Fatal(err)
		}
		counted := make(map[string]proxy.Usage)
		for u := range g.usage {
			if u.VirtualCluster != "acme-prod" || u.Principal != "User:admin" || u.Topic != "orders" || u.Cluster != "main" {
				t.Errorf("counted %+v", u)
			}
			counted[u.Direction] = u
		}
		produced, fetched := counted["produced"], counted["fetched"]
		if produced.Records != 100 || produced.Requests != 3 || produced.Bytes == 0 {
			t.Errorf("produced %+v, want 100 records in 3 requests", produced)
		}
		if fetched.Records != 100 || fetched.Bytes != produced.Bytes {
			t.Errorf("fetched %+v, want 100 records of %d bytes", fetched, produced.Bytes)
		}
	})
}
