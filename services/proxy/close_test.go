package proxy_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// gather is a connection whose writes arrive together.
type gather struct {
	net.Conn
	mu     sync.Mutex
	held   bool
	gained []byte
}

func (g *gather) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.held {
		return g.Conn.Write(p)
	}
	g.gained = append(g.gained, p...)
	return len(p), nil
}

// SetWriteDeadline does nothing: TLS lets nobody write after its good-bye.
func (g *gather) SetWriteDeadline(time.Time) error { return nil }

// hold has what is written from now on wait for release.
func (g *gather) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = true
}

func (g *gather) release() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = false
	_, err := g.Conn.Write(g.gained)
	return err
}

// A client may close the connection with its last request: producers that wait for no
// acknowledgement do. What it sent is the broker's all the same, and the session ends
// with the answer and not with the time that is left for one.
func TestTheLastRequestBeforeTheEndArrives(t *testing.T) {
	for _, acks := range []int16{0, -1} {
		t.Run(fmt.Sprint("acks ", acks), func(t *testing.T) {
			g := start(t)
			if err := g.upstream.CreateTopic("open.last", 1, nil); err != nil {
				t.Fatal(err)
			}
			direct, err := kgo.NewClient(kgo.SeedBrokers(g.upstream.ListenAddrs()...))
			if err != nil {
				t.Fatal(err)
			}
			defer direct.Close()
			admin := kadm.NewClient(direct)
			topics, err := admin.ListTopics(t.Context(), "open.last")
			if err != nil {
				t.Fatal(err)
			}
			held := &gather{Conn: g.tcp(t)}
			host := fmt.Sprintf("b%d-open.gw.test", topics["open.last"].Partitions[0].Leader)
			c := tls.Client(held, &tls.Config{RootCAs: g.roots, ServerName: host})
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			r := &raw{c, t}
			versions := kmsg.NewPtrApiVersionsRequest()
			versions.Version = 2
			r.ask(versions)

			metadata := kmsg.NewPtrMetadataRequest()
			metadata.Version = 8
			asked := kmsg.NewMetadataRequestTopic()
			asked.Topic = kmsg.StringPtr("last")
			metadata.Topics = append(metadata.Topics, asked)
			eventually(t, "the gateway knows the topic", func() bool {
				found := r.ask(metadata).(*kmsg.MetadataResponse).Topics
				return len(found) == 1 && found[0].ErrorCode == 0 && len(found[0].Partitions) == 1 && found[0].Partitions[0].ErrorCode == 0
			})

			req := kmsg.NewPtrProduceRequest()
			req.Version, req.Acks, req.TimeoutMillis = 9, acks, 60000
			topic, partition := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
			topic.Topic, partition.Records = "last", oneRecord(t)
			topic.Partitions = append(topic.Partitions, partition)
			req.Topics = append(req.Topics, topic)
			held.hold()
			r.send(kmsg.NewRequestFormatter(kmsg.FormatterClientID("raw")).AppendRequest(nil, req, 78))
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if err := held.release(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the record arrives", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				ends, err := admin.ListEndOffsets(ctx, "open.last")
				end, _ := ends.Lookup("open.last", 0)
				return err == nil && end.Offset == 1
			})
			began := time.Now()
			if err := g.stop(); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("the session held up the end for %v", took)
			}
		})
	}
}
