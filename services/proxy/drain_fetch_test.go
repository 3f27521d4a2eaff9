package proxy_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy"
	"tollgate.internal/services/proxy/internal/fleet"
)

// parkedFor is how long a Fetch waits for records if nobody answers before.
const parkedFor = 10 * time.Minute

// A Fetch that waits for records does not hold up who drains: it is answered, without
// records, for every partition that was asked for, by the client's own names and ids.
func TestAFetchThatWaitsIsAnsweredByWhoDrains(t *testing.T) {
	for _, v := range []int16{4, 6, 7, 11, 12, 13, 15, 17} {
		for _, epoch := range []int32{-1, 0, 1} {
			if v < 7 && epoch >= 0 {
				continue // there are no fetch sessions yet
			}
			t.Run(fmt.Sprintf("v%d epoch %d", v, epoch), func(t *testing.T) {
				bubble(t, func(t *testing.T, g *gateway) {
					self := g.restart(t, func(*proxy.Config) {})
					for _, topic := range []string{"one", "another"} {
						if err := g.upstream.CreateTopic("open."+topic, 1, nil); err != nil {
							t.Fatal(err)
						}
						if err := g.upstream.MoveTopicPartition("open."+topic, 0, 0); err != nil {
							t.Fatal(err)
						}
					}
					cl := g.client(t, "open.gw.test")
					defer cl.Close()
					r := g.rawInBubble(t, "b0-open.gw.test")
					req := kmsg.NewPtrFetchRequest()
					req.Version, req.MaxBytes, req.MinBytes, req.SessionEpoch = v, 1<<20, 1, epoch
					for _, topic := range []string{"one", "another"} {
						p := kmsg.NewFetchRequestTopicPartition()
						p.PartitionMaxBytes = 1 << 20
						req.Topics = append(req.Topics, kmsg.FetchRequestTopic{Topic: topic, TopicID: topicIDOf(t, g, cl, topic), Partitions: []kmsg.FetchRequestTopicPartition{p}})
					}
					session := int32(0)
					if epoch == 1 {
						req.SessionEpoch = 0
						made := r.ask(req).(*kmsg.FetchResponse)
						if session = made.SessionID; session == 0 || made.ErrorCode != 0 {
							t.Fatalf("fetch session %d, error %d", session, made.ErrorCode)
						}
						req.SessionID, req.SessionEpoch, req.Topics = session, 1, nil
					}
					req.MaxWaitMillis = int32(parkedFor.Milliseconds())
					answer := make(chan *kmsg.FetchResponse, 1)
					go func() { answer <- r.ask(req).(*kmsg.FetchResponse) }()
					time.Sleep(time.Minute) // it waits
					began := time.Now()
					self.Drain(0)
					resp := <-answer
					if took := time.Since(began); took > 2*time.Second {
						t.Errorf("the answer takes %v", took)
					}
					if resp.ErrorCode != 0 || resp.SessionID != session {
						t.Errorf("error %d, fetch session %d, want that of the client, %d", resp.ErrorCode, resp.SessionID, session)
					}
					var got, want []string
					for _, rt := range resp.Topics {
						for _, p := range rt.Partitions {
							got = append(got, fmt.Sprint(rt.Topic, rt.TopicID, p.Partition))
							if p.ErrorCode != 0 || len(p.RecordBatches) != 0 || p.RecordBatches == nil {
								t.Errorf("partition %+v, want no records and no error", p)
							}
						}
					}
					for _, rt := range req.Topics {
						name, id := rt.Topic, rt.TopicID
						if v >= 13 {
							name = ""
						} else {
							id = [16]byte{}
						}
						want = append(want, fmt.Sprint(name, id, 0))
					}
					if !slices.Equal(got, want) {
						t.Errorf("partitions %v, want %v", got, want)
					}
					if _, err := io.ReadAll(r); err != nil {
						t.Errorf("behind it: %v, want the end", err)
					}
					reach(t, self, fleet.Drained)
					if took := time.Since(began); took > 5*time.Second {
						t.Errorf("the node is drained after %v", took)
					}
				})
			})
		}
	}
}

// Consumers on a node that drains again and again while records come, which they would
// wait for for minutes: every record comes once, and no drain takes long.
func TestConsumersLoseNothingWhenTheirFetchesAreAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		self := g.restart(t, func(*proxy.Config) {})
		if err := g.upstream.CreateTopic("open.many", 3, nil); err != nil {
			t.Fatal(err)
		}
		producer, err := kgo.NewClient(kgo.SeedBrokers(g.upstream.ListenAddrs()...), kgo.Dialer(g.dial), kgo.DefaultProduceTopic("open.many"))
		if err != nil {
			t.Fatal(err)
		}
		defer producer.Close()
		for name, opts := range map[string][]kgo.Opt{"with fetch sessions": nil, "without": {kgo.DisableFetchSessions()}} {
			consumer := g.client(t, "open.gw.test", append(opts, kgo.ConsumeTopics("many"), kgo.FetchMaxWait(parkedFor), kgo.WithLogger(kgo.BasicLogger(t.Output(), kgo.LogLevelWarn, nil)))...)
			seen := make(map[string]int)
			for round := range 5 {
				wantRecords := 20 * (round + 1)
				for i := range 20 {
					if err := producer.ProduceSync(t.Context(), kgo.StringRecord(fmt.Sprint(name, round, i))).FirstErr(); err != nil {
						t.Fatal(err)
					}
				}
				for len(seen) < wantRecords {
					ctx, cancel := context.WithTimeout(t.Context(), parkedFor)
					fetches := consumer.PollFetches(ctx)
					cancel()
					if err := fetches.Err(); err != nil {
						t.Fatalf("%s, round %d: %v", name, round, err)
					}
					fetches.EachRecord(func(r *kgo.Record) {
						if strings.HasPrefix(string(r.Value), name) || seen[string(r.Value)] > 0 {
							seen[string(r.Value)]++
						}
					})
				}
				time.Sleep(30 * time.Second) // everything waits
				began := time.Now()
				self.Drain(0)
				reach(t, self, fleet.Drained)
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("%s: drained after %v", name, took)
				}
				self.Undrain()
				reach(t, self, fleet.Serving)
			}
			for value, times := range seen {
				if times != 1 {
					t.Errorf("%s: record %s came %d times", name, value, times)
				}
			}
			consumer.Close()
		}
	})
}

// The same where the request is not forwarded as it is, since a topic of it is refused.
func TestAFetchThatWaitsTheSlowWayIsAnsweredToo(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		self := g.restart(t, func(*proxy.Config) {})
		if err := g.upstream.CreateTopic("open.one", 1, nil); err != nil {
			t.Fatal(err)
		}
		if err := g.upstream.MoveTopicPartition("open.one", 0, 0); err != nil {
			t.Fatal(err)
		}
		cl := g.client(t, "open.gw.test")
		defer cl.Close()
		topicIDOf(t, g, cl, "one") // it is known then
		r := g.rawInBubble(t, "b0-open.gw.test")
		req := kmsg.NewPtrFetchRequest()
		req.Version, req.MaxBytes, req.MinBytes, req.SessionEpoch, req.MaxWaitMillis = 12, 1<<20, 1, -1, int32(parkedFor.Milliseconds())
		for _, topic := range []string{"one", "none"} {
			p := kmsg.NewFetchRequestTopicPartition()
			p.PartitionMaxBytes = 1 << 20
			req.Topics = append(req.Topics, kmsg.FetchRequestTopic{Topic: topic, Partitions: []kmsg.FetchRequestTopicPartition{p}})
		}
		answer := make(chan *kmsg.FetchResponse, 1)
		go func() { answer <- r.ask(req).(*kmsg.FetchResponse) }()
		time.Sleep(time.Minute)
		began := time.Now()
		self.Drain(0)
		codes := make(map[string]int16)
		for _, rt := range (<-answer).Topics {
			codes[rt.Topic] = rt.Partitions[0].ErrorCode
		}
		if code, is := codes["one"]; !is || code != 0 || codes["none"] != kerr.UnknownTopicOrPartition.Code {
			t.Errorf("error codes %v", codes)
		}
		reach(t, self, fleet.Drained)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the node is drained after %v", took)
		}
	})
}
