package proxy_test

import (
	"context"
	"hash/crc32"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// brokerLines are the connections of the proxy to the brokers.
type brokerLines struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu    sync.Mutex
	conns []*brokerLine
	dead  string        // addresses with this port prefix cannot be reached
	still string        // these accept connections and say nothing
	thaw  chan struct{} // closed when they speak again
}

// brokerLine is one connection, which may stand still.
type brokerLine struct {
	net.Conn
	lines   *brokerLines
	address string
}

func (c *brokerLine) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.lines.mu.Lock()
	thaw := c.lines.thaw
	still := c.lines.still != "" && strings.HasPrefix(c.address, c.lines.still)
	c.lines.mu.Unlock()
	if still {
		<-thaw
	}
	return n, err
}

func (l *brokerLines) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	_, port, _ := net.SplitHostPort(address)
	l.mu.Lock()
	dead := l.dead != "" && strings.HasPrefix(port, l.dead)
	l.mu.Unlock()
	if dead {
		return nil, syscall.ECONNREFUSED
	}
	c, err := l.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	line := &brokerLine{c, l, port}
	l.conns = append(l.conns, line)
	return line, nil
}

// cut ends those there are to ports that begin so.
func (l *brokerLines) cut(ports string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = slices.DeleteFunc(l.conns, func(c *brokerLine) bool {
		if strings.HasPrefix(c.address, ports) {
			c.Close()
			return true
		}
		return false
	})
}

// kill makes brokers unreachable, until revive.
func (l *brokerLines) kill(ports string) {
	l.mu.Lock()
	l.dead = ports
	l.mu.Unlock()
	l.cut(ports)
}

func (l *brokerLines) revive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = ""
}

// freeze makes brokers silent, until the function it returns is called.
func (l *brokerLines) freeze(ports string) (unfreeze func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.still, l.thaw = ports, make(chan struct{})
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.still = ""
		close(l.thaw)
	}
}

// A producer sends several requests at once. When the first of them cannot be sent
// on and its broker is back for the second, that would be written before the first:
// a broker takes any sequence number of a producer that it does not know.
func TestARequestDoesNotOvertakeOneThatWasRefused(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		cl := g.client(t, "acme-dev.gw.test", loginDev, kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("things"))
		produceN(t, cl, 1)
		meta := kmsg.NewPtrMetadataRequest()
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = kmsg.StringPtr("things")
		meta.Topics = append(meta.Topics, topic)
		described, err := meta.RequestWith(t.Context(), cl)
		if err != nil {
			t.Fatal(err)
		}
		leader, partition := described.Topics[0].Partitions[0].Leader, described.Topics[0].Partitions[0].Partition
		send := func() *kerr.Error {
			t.Helper()
			req := kmsg.NewPtrProduceRequest()
			req.Acks, req.TimeoutMillis = -1, 1000
			rt, p := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
			rt.Topic, rt.TopicID = "things", described.Topics[0].TopicID
			p.Partition, p.Records = partition, oneRecord(t)
			rt.Partitions = append(rt.Partitions, p)
			req.Topics = append(req.Topics, rt)
			resp, err := cl.Broker(int(leader)).Request(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			return kerr.TypedErrorForCode(resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode)
		}
		if err := send(); err != nil {
			t.Fatalf("before: %v", err)
		}
		other := g.client(t, "acme-dev.gw.test", loginDev)
		if err := g.upstream.RemoveNode(leader); err != nil {
			t.Fatal(err)
		}
		g.brokers.cut("")
		time.Sleep(10 * time.Second) // the proxy has noticed
		if err := send(); err != kerr.NotLeaderForPartition {
			t.Errorf("without a broker: %v, want %v", err, kerr.NotLeaderForPartition)
		}
		if _, _, err := g.upstream.AddNode(leader, 19092+int(leader)); err != nil {
			t.Fatal(err)
		}
		if err := g.upstream.MoveTopicPartition("acme-dev.things", partition, leader); err != nil {
			t.Fatal(err)
		}
		if _, err := meta.RequestWith(t.Context(), other); err != nil { // now the proxy knows the broker again
			t.Fatal(err)
		}
		if err := send(); err != kerr.NotLeaderForPartition {
			t.Errorf("right behind: %v, want %v", err, kerr.NotLeaderForPartition)
		}
		time.Sleep(5 * time.Second)
		if err := send(); err != nil {
			t.Errorf("later: %v", err)
		}
	})
}

// oneRecord is a batch of one record, without a producer id, as bytes.
func oneRecord(t *testing.T) []byte {
	t.Helper()
	record := kmsg.NewRecord()
	record.Value = []byte("x")
	record.Length = int32(len(record.AppendTo(nil)) - 1)
	raw := record.AppendTo(nil)
	batch := kmsg.NewRecordBatch()
	batch.PartitionLeaderEpoch, batch.Magic = -1, 2
	batch.ProducerID, batch.ProducerEpoch, batch.FirstSequence = -1, -1, -1
	batch.NumRecords, batch.Records = 1, raw
	full := batch.AppendTo(nil)
	batch.Length = int32(len(full) - 12)
	batch.CRC = int32(crc32.Checksum(batch.AppendTo(nil)[21:], crc32.MakeTable(crc32.Castagnoli)))
	return batch.AppendTo(nil)
}
