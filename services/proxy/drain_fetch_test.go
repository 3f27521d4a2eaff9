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

// A ShareFetch that waits is answered without records, and the share session with it is
// given up: records that come after that are somebody else's.
func TestAShareFetchThatWaitsIsAnsweredByWhoDrains(t *testing.T) {
	for _, epoch := range []int32{0, 1} {
		t.Run(fmt.Sprintf("epoch %d", epoch), func(t *testing.T) {
			bubble(t, func(t *testing.T, g *gateway) {
				self := g.restart(t, func(*proxy.Config) {})
				id := g.sharedHere(t)
				r := g.rawInBubble(t, "b0-open.gw.test")
				req := shareFetch("workers", 0, id)
				if epoch == 1 {
					if made := r.ask(req).(*kmsg.ShareFetchResponse); made.ErrorCode != 0 {
						t.Fatal(kerr.ErrorForCode(made.ErrorCode))
					}
					req = shareFetch("workers", 1)
				}
				req.MaxWaitMillis = int32(parkedFor.Milliseconds())
				answer := make(chan *kmsg.ShareFetchResponse, 1)
				go func() { answer <- r.ask(req).(*kmsg.ShareFetchResponse) }()
				time.Sleep(time.Second) // it waits, which it may for five
				began := time.Now()
				self.Drain(0)
				resp := <-answer
				if took := time.Since(began); took > time.Second {
					t.Errorf("the answer takes %v", took)
				}
				partitions := 0
				for _, rt := range resp.Topics {
					for _, p := range rt.Partitions {
						partitions++
						if rt.TopicID != id || p.ErrorCode != 0 || p.AcknowledgeErrorCode != 0 || len(p.Records) != 0 || len(p.AcquiredRecords) != 0 {
							t.Errorf("partition of %x: %+v, want no records and no error", rt.TopicID, p)
						}
					}
				}
				if want := 3 * int(1-epoch); resp.ErrorCode != 0 || partitions != want {
					t.Errorf("error %d, %d partitions, want %d", resp.ErrorCode, partitions, want)
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

// One that acknowledges is the broker's to answer: nothing that a client believes to be
// acknowledged comes again.
func TestAcknowledgementsOutliveADrain(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		self := g.restart(t, func(*proxy.Config) {})
		id := g.sharedHere(t)
		producer, err := kgo.NewClient(kgo.SeedBrokers(g.upstream.ListenAddrs()...), kgo.Dialer(g.dial), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			t.Fatal(err)
		}
		defer producer.Close()
		r := g.rawInBubble(t, "b0-open.gw.test")
		if made := r.ask(shareFetch("workers", 0, id)).(*kmsg.ShareFetchResponse); made.ErrorCode != 0 {
			t.Fatal(kerr.ErrorForCode(made.ErrorCode))
		}
		if err := producer.ProduceSync(t.Context(), &kgo.Record{Topic: "open.work", Partition: 1, Value: []byte("x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		epoch := int32(1)
		for acquired := false; !acquired; epoch++ {
			for _, rt := range r.ask(shareFetch("workers", epoch)).(*kmsg.ShareFetchResponse).Topics {
				for _, p := range rt.Partitions {
					acquired = acquired || p.Partition == 1 && len(p.AcquiredRecords) == 1
				}
			}
		}
		req := shareFetch("workers", epoch, id)
		req.MaxWaitMillis = int32(parkedFor.Milliseconds())
		accept := kmsg.NewShareFetchRequestTopicPartitionAcknowledgementBatch()
		accept.AcknowledgeTypes = []int8{1}
		req.Topics[0].Partitions[1].AcknowledgementBatches = append(req.Topics[0].Partitions[1].AcknowledgementBatches, accept)
		answer := make(chan *kmsg.ShareFetchResponse, 1)
		go func() { answer <- r.ask(req).(*kmsg.ShareFetchResponse) }()
		time.Sleep(time.Second)
		self.Drain(0)
		resp := <-answer
		told := false
		for _, rt := range resp.Topics {
			for _, p := range rt.Partitions {
				told = told || p.Partition == 1 && p.AcknowledgeErrorCode == 0
			}
		}
		if resp.ErrorCode != 0 || !told {
			t.Fatalf("the answer to an acknowledgement is %+v", resp)
		}
		reach(t, self, fleet.Drained)
		self.Undrain()
		reach(t, self, fleet.Serving)
		r = g.rawInBubble(t, "b0-open.gw.test")
		for epoch := range int32(20) {
			again := shareFetch("workers", epoch)
			if epoch == 0 {
				again = shareFetch("workers", 0, id)
			}
			for _, rt := range r.ask(again).(*kmsg.ShareFetchResponse).Topics {
				for _, p := range rt.Partitions {
					if len(p.AcquiredRecords) > 0 {
						t.Fatalf("the acknowledged record comes again: %+v", p)
					}
				}
			}
		}
	})
}

// sharedHere is a topic of three partitions, all of them with broker 0, that the share
// group "workers" reads from its beginning.
func (g *gateway) sharedHere(t *testing.T) (id [16]byte) {
	t.Helper()
	if err := g.upstream.CreateTopic("open.work", 3, nil); err != nil {
		t.Fatal(err)
	}
	for p := range int32(3) {
		if err := g.upstream.MoveTopicPartition("open.work", p, 0); err != nil {
			t.Fatal(err)
		}
	}
	cl := g.client(t, "open.gw.test")
	defer cl.Close()
	if err := groupConfig(t, cl, "workers", "share.auto.offset.reset", "earliest"); err != nil {
		t.Fatal(err)
	}
	return topicIDOf(t, g, cl, "work")
}
