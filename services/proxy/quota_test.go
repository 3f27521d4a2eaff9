package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// throttles adds up the delays that a client is told.
type throttles struct{ told atomic.Int64 }

// OnBrokerThrottle is called for every throttle time that is not 0.
func (h *throttles) OnBrokerThrottle(_ kgo.BrokerMetadata, d time.Duration, _ bool) {
	h.told.Add(int64(d))
}

func (h *throttles) sum() time.Duration { return time.Duration(h.told.Load()) }

// limit gives the virtual cluster "open" quotas and waits until they are in force.
func (g *gateway) limit(t *testing.T, quotas string) {
	t.Helper()
	g.replace(t, "all.yaml", "host: open, home: main,", "host: open, home: main, quotas: {"+quotas+"},")
	time.Sleep(5 * time.Second)
}

func TestQuotasHoldBackClients(t *testing.T) {
	for _, c := range []struct {
		name, quotas string
		work         func(ctx context.Context, cl *kgo.Client) error
		least, most  time.Duration
	}{
		{
			"2 MB produced at 100 kB a second", "produceBytesPerSecond: 100000",
			func(ctx context.Context, cl *kgo.Client) error {
				for range 100 {
					if err := cl.ProduceSync(ctx, kgo.SliceRecord(make([]byte, 20_000))).FirstErr(); err != nil {
						return err
					}
				}
				return nil
			},
			18 * time.Second, 22 * time.Second,
		},
		{
			"2 MB fetched at 100 kB a second", "fetchBytesPerSecond: 100000",
			func(ctx context.Context, cl *kgo.Client) error {
				for range 100 {
					if err := cl.ProduceSync(ctx, kgo.SliceRecord(make([]byte, 20_000))).FirstErr(); err != nil {
						return err
					}
				}
				cl.AddConsumeTopics("bulk")
				for n := 0; n < 100; {
					fs := cl.PollFetches(ctx)
					if err := fs.Err(); err != nil {
						return err
					}
					n += fs.NumRecords()
				}
				// What was fetched last is made good now.
				return cl.Ping(ctx)
			},
			9 * time.Second, 22 * time.Second,
		},
		{
			"300 requests at 20 a second", "requestsPerSecond: 20",
			func(ctx context.Context, cl *kgo.Client) error {
				for range 300 {
					req := kmsg.NewPtrMetadataRequest()
					req.Topics = []kmsg.MetadataRequestTopic{}
					if _, err := req.RequestWith(ctx, cl); err != nil {
						return err
					}
				}
				return nil
			},
			13 * time.Second, 17 * time.Second,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *gateway) {
				if err := g.upstream.CreateTopic("open.bulk", 1, nil); err != nil {
					t.Fatal(err)
				}
				h := new(throttles)
				cl := g.client(t, "open.gw.test", kgo.DefaultProduceTopic("bulk"), kgo.ProducerBatchCompression(kgo.NoCompression()),
					kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxBytes(100_000), kgo.WithHooks(h))
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				if err := cl.ProduceSync(ctx, kgo.StringRecord("warm")).FirstErr(); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if err := c.work(ctx, cl); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took >= c.least/2 || h.sum() != 0 {
					t.Fatalf("took %v and was throttled for %v without a quota", took, h.sum())
				}
				g.limit(t, c.quotas)
				if c.quotas[0] == 'f' {
					cl.PurgeTopicsFromClient("bulk")
				}
				began = time.Now()
				if err := c.work(ctx, cl); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took < c.least || took > c.most {
					t.Errorf("took %v, want %v to %v", took, c.least, c.most)
				}
				if h.sum() == 0 {
					t.Error("the client was told of no throttle time")
				}
			})
		})
	}
}

// askFor sends a request and says when its answer came.
func (r *raw) askFor(req kmsg.Request) (kmsg.Response, time.Time) {
	r.t.Helper()
	resp := r.ask(req)
	return resp, time.Now()
}

func (g *gateway) rawInBubble(t *testing.T, host string) *raw {
	t.Helper()
	c, err := g.dial(t.Context(), "tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &raw{tls.Client(c, &tls.Config{RootCAs: g.roots, ServerName: host, Time: time.Now}), t}
}

// A client that does not keep to its throttle time is not read before it is over,
// whatever it sends, and whether the answer that told it took the hot way or not.
func TestThrottledConnectionIsNotRead(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		if err := g.upstream.CreateTopic("open.bulk", 1, nil); err != nil {
			t.Fatal(err)
		}
		if err := g.upstream.MoveTopicPartition("open.bulk", 0, 0); err != nil {
			t.Fatal(err)
		}
		seed := g.client(t, "open.gw.test", kgo.DefaultProduceTopic("bulk"), kgo.ProducerBatchCompression(kgo.NoCompression()))
		if err := seed.ProduceSync(t.Context(), kgo.SliceRecord(make([]byte, 400_000))).FirstErr(); err != nil {
			t.Fatal(err)
		}
		g.limit(t, "produceBytesPerSecond: 100000, fetchBytesPerSecond: 100000, requestsPerSecond: 1000")
		id := topicIDOf(t, g, seed, "bulk")
		batch := recordBatch(t, g, 300_000)
		for _, v := range []int16{3, 8, 12, 13} {
			produce := kmsg.NewPtrProduceRequest()
			produce.Version, produce.Acks, produce.TimeoutMillis = v, 1, 1000
			produce.Topics = []kmsg.ProduceRequestTopic{{Topic: "bulk", TopicID: id, Partitions: []kmsg.ProduceRequestTopicPartition{{Records: batch}}}}
			g.notRead(t, fmt.Sprintf("Produce v%d", v), produce, func(resp kmsg.Response) int32 {
				r := resp.(*kmsg.ProduceResponse)
				if code := r.Topics[0].Partitions[0].ErrorCode; code != 0 {
					t.Errorf("Produce v%d: error %d", v, code)
				}
				return r.ThrottleMillis
			})
		}
		for _, v := range []int16{4, 11, 12, 13, 17} {
			fetch := kmsg.NewPtrFetchRequest()
			fetch.Version, fetch.MaxBytes, fetch.SessionEpoch = v, 1<<20, -1
			p := kmsg.NewFetchRequestTopicPartition()
			p.PartitionMaxBytes = 1 << 20
			fetch.Topics = []kmsg.FetchRequestTopic{{Topic: "bulk", TopicID: id, Partitions: []kmsg.FetchRequestTopicPartition{p}}}
			g.notRead(t, fmt.Sprintf("Fetch v%d", v), fetch, func(resp kmsg.Response) int32 {
				r := resp.(*kmsg.FetchResponse)
				if len(r.Topics) == 0 || len(r.Topics[0].Partitions[0].RecordBatches) < 300_000 {
					t.Errorf("Fetch v%d brought no data", v)
				}
				return r.ThrottleMillis
			})
		}
		g.replace(t, "all.yaml", "requestsPerSecond: 1000", "requestsPerSecond: 1")
		time.Sleep(5 * time.Second)
		r := g.rawInBubble(t, "b0-open.gw.test")
		meta := kmsg.NewPtrMetadataRequest()
		meta.Version, meta.Topics = 9, []kmsg.MetadataRequestTopic{}
		r.askFor(meta)
		resp, first := r.askFor(meta)
		told := resp.(*kmsg.MetadataResponse).ThrottleMillis
		if _, second := r.askFor(meta); told == 0 || second.Sub(first) < time.Duration(told)*time.Millisecond-time.Millisecond {
			t.Errorf("Metadata: told %d ms, the next answer came after %v", told, second.Sub(first))
		}
	})
}

// notRead sends a request that exceeds a quota by seconds and at once another one,
// which must wait.
func (g *gateway) notRead(t *testing.T, name string, req kmsg.Request, throttle func(kmsg.Response) int32) {
	t.Helper()
	time.Sleep(time.Minute) // until nothing is owed
	r := g.rawInBubble(t, "b0-open.gw.test")
	resp, answered := r.askFor(req)
	told := time.Duration(throttle(resp)) * time.Millisecond
	if told < time.Second || told > 10*time.Second {
		t.Errorf("%s: told %v", name, told)
	}
	meta := kmsg.NewPtrMetadataRequest()
	meta.Version, meta.Topics = 9, []kmsg.MetadataRequestTopic{}
	if _, next := r.askFor(meta); next.Sub(answered) < told-100*time.Millisecond {
		t.Errorf("%s: told %v, but the next request was answered after %v", name, told, next.Sub(answered))
	}
	// Fed without an end, the connection takes what lies in buffers and no more.
	r.askFor(req)
	big := bytes.Repeat([]byte{0}, 1<<20)
	r.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	if n, err := r.Write(frameOfSize(big)); err == nil {
		t.Errorf("%s: a muted connection took %d bytes", name, n)
	} else if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
		t.Errorf("%s: %v", name, err)
	}
}

// frameOfSize is a Metadata request that never ends well, of len(body) bytes.
func frameOfSize(body []byte) []byte { return frame(3, 9, body...) }

func topicIDOf(t *testing.T, g *gateway, cl *kgo.Client, name string) [16]byte {
	t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{{Topic: kmsg.StringPtr(name)}}
	resp, err := req.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Topics[0].TopicID
}

// recordBatch is a batch of about size bytes, as a client wrote it.
func recordBatch(t *testing.T, g *gateway, size int) []byte {
	t.Helper()
	var got []byte
	g.upstream.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		got = bytes.Clone(req.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records)
		return nil, nil, false
	})
	cl, err := kgo.NewClient(kgo.SeedBrokers(g.upstream.ListenAddrs()...), kgo.Dialer(g.dial), kgo.DefaultProduceTopic("open.bulk"),
		kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck()), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), kgo.SliceRecord(make([]byte, size))).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return got
}

// Whoever is throttled is not kept longer for it: draining and withdrawn access end
// the session at once.
func TestThrottledSessionEndsAtOnce(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, g *gateway){
		"drained": func(t *testing.T, g *gateway) {
			if err := g.stop(); err != nil {
				t.Error(err)
			}
		},
		"suspended": func(t *testing.T, g *gateway) {
			g.replace(t, "all.yaml", "displayName: ACME}", "displayName: ACME, state: suspended}")
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *gateway) {
				g.limit(t, "requestsPerSecond: 1")
				r := g.rawInBubble(t, "open.gw.test")
				meta := kmsg.NewPtrMetadataRequest()
				meta.Version, meta.Topics = 9, []kmsg.MetadataRequestTopic{}
				for range 5 {
					others := g.rawInBubble(t, "open.gw.test")
					others.ask(meta)
				}
				if told := r.ask(meta).(*kmsg.MetadataResponse).ThrottleMillis; told < 4000 {
					t.Fatalf("told %d ms, want at least 4 s", told)
				}
				began := time.Now()
				ended := make(chan time.Duration, 1)
				go func() {
					r.Read(make([]byte, 1))
					ended <- time.Since(began)
				}()
				end(t, g)
				if took := <-ended; took > 2*time.Second {
					t.Errorf("the session ended after %v", took)
				}
			})
		})
	}
}

// How long clients are delayed, and for which limit, is in the metrics.
func TestThrottlingIsCounted(t *testing.T) {
	g := start(t)
	g.replace(t, "all.yaml", "host: open, home: main,", "host: open, home: main, quotas: {requestsPerSecond: 100},")
	throttled := func(kind string) float64 {
		_, body := g.get(t, "/metrics")
		for line := range strings.Lines(body) {
			var seconds float64
			if _, err := fmt.Sscanf(line, `tollgate_proxy_throttle_seconds_total{kind="`+kind+`",virtual_cluster="open"} %g`, &seconds); err == nil {
				return seconds
			}
		}
		return 0
	}
	r := g.raw(t, "open.gw.test")
	meta := kmsg.NewPtrMetadataRequest()
	meta.Version, meta.Topics = 9, []kmsg.MetadataRequestTopic{}
	told := 0.0
	for asked := 0; told == 0 && asked < 100_000; asked++ { // until it is in effect
		told += float64(r.ask(meta).(*kmsg.MetadataResponse).ThrottleMillis) / 1000
	}
	if got := throttled("request"); told == 0 || got < told-0.2 || got > told+0.2 {
		t.Errorf("%v s counted, and clients were told %v s", got, told)
	}
	if got := throttled("produce") + throttled("fetch"); got != 0 {
		t.Errorf("%v s for other limits", got)
	}
}
