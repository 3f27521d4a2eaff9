package upstream

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/netio"
)

// stub is a cluster of two brokers, 3 and 7, that answers what a connection begins
// with and Metadata; handle takes every other request.
type stub struct {
	serving sync.WaitGroup

	mu                  sync.Mutex
	refuse              error // dials fail
	dials               map[string]int
	ids                 []int32
	topics              []kmsg.MetadataResponseTopic
	versions            map[string]*kmsg.ApiVersionsResponse // by address
	sasl                *stubSASL
	asked               int                 // Metadata requests
	silent              bool                // nothing is answered
	cluster             map[string]string   // cluster ids by address, when there are several
	hanging, hungAtOnce int                 // such dials, and the most of them
	dialAt              []time.Time         // all of them
	hang                map[string]bool     // dials of these addresses do not end
	refused             map[string]error    // dials of these addresses fail
	conns               map[net.Conn]string // open, with their addresses
	listed              func(addr string) []kmsg.MetadataResponseBroker
	slow                time.Duration                  // how long Metadata takes
	handle              func(c net.Conn, frame []byte) // nil: silent
}

func newStub() *stub {
	return &stub{dials: make(map[string]int), ids: []int32{3, 7}, versions: make(map[string]*kmsg.ApiVersionsResponse), conns: make(map[net.Conn]string)}
}

// hangUp ends all connections. s.mu is held.
func (s *stub) hangUp() {
	for c := range s.conns {
		c.Close()
	}
}

const bootstrap = "boot:9092"

func addrOf(id int32) string { return map[int32]string{3: "node3:9092", 7: "node7:9092"}[id] }

// withStub runs f with a cluster in a bubble with a clock of its own. Nobody asks
// for metadata but f.
func withStub(t *testing.T, configure func(*Config, *stub), f func(t *testing.T, c *Cluster, s *stub)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newStub()
		cfg := Config{Name: "main", Bootstrap: []string{bootstrap}, Dial: s.dial, MetadataAge: 24 * time.Hour}
		if configure != nil {
			configure(&cfg, s)
		}
		defer s.serving.Wait()
		c := New(cfg)
		defer c.Close()
		if err := c.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		f(t, c, s)
	})
}

func (s *stub) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hang[addr] {
		s.hanging++
		s.hungAtOnce = max(s.hungAtOnce, s.hanging)
		s.mu.Unlock()
		<-ctx.Done()
		s.mu.Lock()
		s.hanging--
		return nil, ctx.Err()
	}
	s.dials[addr]++
	s.dialAt = append(s.dialAt, time.Now())
	if s.refuse != nil {
		return nil, s.refuse
	}
	if err := s.refused[addr]; err != nil {
		return nil, err
	}
	ours, theirs := net.Pipe()
	s.conns[theirs] = addr
	s.serving.Go(func() { s.serve(theirs, addr) })
	return ours, nil
}

func (s *stub) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *stub) dialled(addr string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dials[addr]
}

func (s *stub) serve(c net.Conn, addr string) {
	defer s.set(func() { delete(s.conns, c) })
	login := &stubLogin{of: s.sasl}
	defer c.Close()
	for {
		frame := make([]byte, 4)
		if _, err := io.ReadFull(c, frame); err != nil {
			return
		}
		frame = append(frame, make([]byte, binary.BigEndian.Uint32(frame))...)
		if _, err := io.ReadFull(c, frame[4:]); err != nil {
			return
		}
		s.mu.Lock()
		if s.silent {
			s.mu.Unlock()
			continue
		}
		handle, slow := s.handle, s.slow
		if key := kmsg.Key(binary.BigEndian.Uint16(frame[4:])); s.sasl != nil && key != kmsg.ApiVersions &&
			key != kmsg.SASLHandshake && key != kmsg.SASLAuthenticate && !login.admits() {
			s.mu.Unlock()
			return
		}
		var resp kmsg.Response
		switch kmsg.Key(binary.BigEndian.Uint16(frame[4:])) {
		case kmsg.ApiVersions:
			r := s.versions[addr]
			if r == nil {
				r = versionsOf(map[int16]int16{0: 13, 1: 18, 3: 13}, nil)
			}
			own := *r
			resp = &own
		case kmsg.SASLHandshake, kmsg.SASLAuthenticate:
			s.mu.Unlock()
			if !login.step(c, s, addr, frame) {
				return
			}
			continue
		case kmsg.Metadata:
			s.asked++
			r := kmsg.NewPtrMetadataResponse()
			r.Topics = s.topics
			if id, ok := s.cluster[addr]; ok {
				r.ClusterID = &id
			}
			if s.listed != nil {
				r.Brokers = s.listed(addr)
			}
			for _, id := range s.ids {
				if len(r.Brokers) > 0 && s.listed != nil {
					break
				}
				host, _, _ := net.SplitHostPort(addrOf(id))
				r.Brokers = append(r.Brokers, kmsg.MetadataResponseBroker{NodeID: id, Host: host, Port: 9092})
			}
			resp = r
		}
		s.mu.Unlock()
		if resp == nil {
			if handle != nil {
				handle(c, frame)
			}
			continue
		}
		if _, ok := resp.(*kmsg.MetadataResponse); ok {
			time.Sleep(slow)
		}
		resp.SetVersion(int16(binary.BigEndian.Uint16(frame[6:])))
		if _, err := c.Write(answerTo(frame, resp)); err != nil {
			return
		}
	}
}

func answerTo(frame []byte, resp kmsg.Response) []byte {
	out := append(make([]byte, 4), frame[8:12]...)
	if resp.IsFlexible() && kmsg.Key(resp.Key()) != kmsg.ApiVersions {
		out = append(out, 0)
	}
	out = resp.AppendTo(out)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out
}

// versionsOf serves keys from version 0 on, and has features at these levels.
func versionsOf(highest map[int16]int16, features map[string]int16) *kmsg.ApiVersionsResponse {
	r := kmsg.NewPtrApiVersionsResponse()
	for key, version := range highest {
		r.ApiKeys = append(r.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: key, MaxVersion: version})
	}
	for name, level := range features {
		r.FinalizedFeatures = append(r.FinalizedFeatures, kmsg.ApiVersionsResponseFinalizedFeature{Name: name, MaxVersionLevel: level, MinVersionLevel: level})
		r.SupportedFeatures = append(r.SupportedFeatures, kmsg.ApiVersionsResponseSupportedFeature{Name: name, MinVersion: 0, MaxVersion: level})
	}
	return r
}

// lease is a connection to node 3 that must be had at once.
func lease(t *testing.T, c *Cluster, class Class) *Conn {
	t.Helper()
	conn, err := c.Lease(t.Context(), 3, class)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// produceFrame is a request that the stub hands to handle.
func produceFrame(correlationID int32) []byte {
	req := kmsg.NewPtrProduceRequest()
	req.Version = 9
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("c")).AppendRequest(nil, req, correlationID)
}

// send announces a request on conn and writes it.
func send(t *testing.T, conn *Conn, sink Sink, correlationID int32, limit time.Duration) {
	t.Helper()
	if err := conn.Expect(Pending{Sink: sink, CorrelationID: correlationID, Key: 0, Version: 9, Limit: limit}); err != nil {
		t.Fatal(err)
	}
	if err := conn.Write(produceFrame(correlationID)); err != nil {
		t.Fatal(err)
	}
}

// recorder is a sink that remembers what it was told.
type recorder struct {
	mu       sync.Mutex
	answered []int32
	lost     []int32
	flushed  int
	err      error
	at       time.Time // of the last loss
	take     func(c *Conn, r *netio.Reader, size int) error
}

func (k *recorder) Answer(c *Conn, r *netio.Reader, size int, p *Pending) error {
	if k.take != nil {
		if err := k.take(c, r, size); err != nil {
			return err
		}
	} else {
		if _, err := r.Frame(1 << 20); err != nil {
			return err
		}
		r.Discard(size)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answered = append(k.answered, p.CorrelationID)
	return nil
}

func (k *recorder) Flush(*Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.flushed++
}

func (k *recorder) Lost(_ *Conn, p *Pending, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lost, k.err, k.at = append(k.lost, p.CorrelationID), err, time.Now()
}

func (k *recorder) saw() (answered, lost []int32, at time.Time, err error) {
	synctest.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.answered, k.lost, k.at, k.err
}
