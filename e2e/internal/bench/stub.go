package bench

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// stubConfig says what the stub broker is.
type stubConfig struct {
	Host      string // advertised
	ClusterID string
	Topics    []stubTopic
	Cert      []byte // PEM, for the TLS listener
	Key       []byte
	MaxFrame  int
}

type stubTopic struct {
	topic
	Partitions int
}

// stub is a broker so cheap that it does not hide what stands before it. It
// checks what a broker checks (the topic's name or id, the framing and the
// checksum of a batch) and answers with whole, correct frames, but stores nothing:
// a Fetch from offset 0 reads a batch that was made beforehand. As Kafka does, it
// takes the requests of a connection one by one and writes each answer by itself.
type stub struct {
	config  stubConfig
	byName  map[string]*stubTopic
	byID    map[[16]byte]*stubTopic
	port    int32
	offsets atomic.Int64
	stats   struct{ open, accepted, produced, fetched, refused atomic.Int64 }
}

// StubStats are what a stub has seen.
type StubStats struct{ Open, Accepted, Produced, Fetched, Refused int64 }

// StubAddress is where it listens.
type StubAddress struct{ Plaintext, TLS string }

// stubControl is how the parent asks the stub.
type stubControl struct {
	stub    *stub
	address StubAddress
}

// Address tells where the stub listens.
func (c *stubControl) Address(_ struct{}, reply *StubAddress) error {
	*reply = c.address
	return nil
}

// Stats tells what the stub has seen.
func (c *stubControl) Stats(_ struct{}, reply *StubStats) error {
	s := &c.stub.stats
	*reply = StubStats{
		Open: s.open.Load(), Accepted: s.accepted.Load(),
		Produced: s.produced.Load(), Fetched: s.fetched.Load(), Refused: s.refused.Load(),
	}
	return nil
}

func serveStub(raw []byte, stdio io.ReadWriteCloser) error {
	s := &stub{byName: make(map[string]*stubTopic), byID: make(map[[16]byte]*stubTopic)}
	if err := json.Unmarshal(raw, &s.config); err != nil {
		return err
	}
	for i := range s.config.Topics {
		t := &s.config.Topics[i]
		s.byName[t.Name], s.byID[t.ID] = t, t
	}
	pair, err := tls.X509KeyPair(s.config.Cert, s.config.Key)
	if err != nil {
		return err
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	encrypted, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.port = int32(plain.Addr().(*net.TCPAddr).Port)
	go s.accept(plain, func(c net.Conn) net.Conn { return c })
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true}
	go s.accept(encrypted, func(c net.Conn) net.Conn { return tls.Server(c, config) })
	return serveRPC("Stub", &stubControl{s, StubAddress{plain.Addr().String(), encrypted.Addr().String()}}, stdio)
}

func (s *stub) accept(l net.Listener, wrap func(net.Conn) net.Conn) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.stats.open.Add(1)
		s.stats.accepted.Add(1)
		go func() {
			defer s.stats.open.Add(-1)
			defer c.Close()
			s.serve(wrap(c)) // whatever ends a connection, clients notice it
		}()
	}
}

func (s *stub) serve(c net.Conn) error {
	// An idle connection is to cost little: there may be thousands.
	r := bufio.NewReaderSize(c, 4<<10)
	var in, out []byte
	prepared := make(map[preparedFetch][]byte)
	for {
		head, err := r.Peek(4)
		if err != nil {
			return err
		}
		size := 4 + int(binary.BigEndian.Uint32(head))
		if size < 4+8 || size > s.config.MaxFrame {
			return fmt.Errorf("request of %d bytes", size)
		}
		if cap(in) < size {
			in = make([]byte, size)
			if size > r.Size() {
				r = bufio.NewReaderSize(r, 2*size)
			}
		}
		in = in[:size]
		if _, err := io.ReadFull(r, in); err != nil {
			return err
		}
		if out, err = s.answer(out[:0], in, prepared); err != nil {
			return err
		}
		if _, err := c.Write(out); err != nil {
			return err
		}
	}
}

// answer appends the answer to the request in frame.
func (s *stub) answer(out, frame []byte, prepared map[preparedFetch][]byte) ([]byte, error) {
	key, version := int16(binary.BigEndian.Uint16(frame[4:])), int16(binary.BigEndian.Uint16(frame[6:]))
	correlationID := int32(binary.BigEndian.Uint32(frame[8:]))
	r, served := stubVersions[kmsg.Key(key)]
	if !served || version < r.min || version > r.max {
		return nil, fmt.Errorf("%s v%d is not served", kmsg.NameForKey(key), version)
	}
	req := kmsg.RequestForKey(key)
	req.SetVersion(version)
	body, err := afterHeader(frame, req.IsFlexible())
	if err != nil {
		return nil, err
	}
	if u, ok := req.(kmsg.UnsafeReadFrom); ok {
		err = u.UnsafeReadFrom(body)
	} else {
		err = req.ReadFrom(body)
	}
	if err != nil {
		return nil, err
	}
	switch req := req.(type) {
	case *kmsg.ApiVersionsRequest:
		return appendAnswer(out, apiVersions(req), correlationID), nil
	case *kmsg.MetadataRequest:
		return appendAnswer(out, s.metadata(req), correlationID), nil
	case *kmsg.ProduceRequest:
		return appendAnswer(out, s.produce(req), correlationID), nil
	case *kmsg.FetchRequest:
		return s.fetch(out, req, correlationID, prepared)
	}
	return nil, fmt.Errorf("no answer to %s", kmsg.NameForKey(key))
}

// afterHeader skips size, key, version, correlation id, client id and tags.
func afterHeader(frame []byte, flexible bool) ([]byte, error) {
	body := frame[12:]
	if len(body) < 2 {
		return nil, io.ErrUnexpectedEOF
	}
	clientID := max(int(int16(binary.BigEndian.Uint16(body))), 0)
	body = body[2:]
	if len(body) < clientID {
		return nil, io.ErrUnexpectedEOF
	}
	body = body[clientID:]
	if !flexible {
		return body, nil
	}
	if len(body) == 0 || body[0] != 0 {
		return nil, errors.New("tags in the header of a request")
	}
	return body[1:], nil
}

type versionRange struct{ min, max int16 }

// stubVersions are what Kafka 4.3 serves of these keys.
var stubVersions = map[kmsg.Key]versionRange{
	kmsg.Produce: {0, 13}, kmsg.Fetch: {4, 18}, kmsg.Metadata: {0, 13}, kmsg.ApiVersions: {0, 4},
}

func apiVersions(req *kmsg.ApiVersionsRequest) kmsg.Response {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.Version = req.Version
	for key, r := range stubVersions {
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = int16(key), r.min, r.max
		resp.ApiKeys = append(resp.ApiKeys, k)
	}
	return resp
}

func (s *stub) metadata(req *kmsg.MetadataRequest) kmsg.Response {
	resp := kmsg.NewPtrMetadataResponse()
	resp.Version = req.Version
	b := kmsg.NewMetadataResponseBroker()
	b.NodeID, b.Host, b.Port = 1, s.config.Host, s.port
	resp.Brokers, resp.ControllerID = append(resp.Brokers, b), 1
	resp.ClusterID = &s.config.ClusterID
	if req.Topics == nil {
		for i := range s.config.Topics {
			req.Topics = append(req.Topics, kmsg.MetadataRequestTopic{Topic: &s.config.Topics[i].Name})
		}
	}
	for _, asked := range req.Topics {
		t := kmsg.NewMetadataResponseTopic()
		t.Topic, t.TopicID = asked.Topic, asked.TopicID
		found := s.byID[asked.TopicID]
		if asked.Topic != nil {
			found = s.byName[*asked.Topic]
		}
		if found == nil {
			t.ErrorCode = unknownTopic
			resp.Topics = append(resp.Topics, t)
			continue
		}
		t.Topic, t.TopicID = &found.Name, found.ID
		for i := range found.Partitions {
			p := kmsg.NewMetadataResponseTopicPartition()
			p.Partition, p.Leader, p.LeaderEpoch, p.Replicas, p.ISR = int32(i), 1, 0, []int32{1}, []int32{1}
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

const (
	offsetOutOfRange = 1
	corruptMessage   = 2
	unknownTopic     = 3
	unknownTopicID   = 100
)

// known is a topic named as the version names it, or the error code.
func (s *stub) known(version int16, name string, id [16]byte) (*stubTopic, int16) {
	if version < 13 {
		if t := s.byName[name]; t != nil {
			return t, 0
		}
		return nil, unknownTopic
	}
	if t := s.byID[id]; t != nil {
		return t, 0
	}
	return nil, unknownTopicID
}

func (s *stub) produce(req *kmsg.ProduceRequest) kmsg.Response {
	resp := kmsg.NewPtrProduceResponse()
	resp.Version = req.Version
	for i := range req.Topics {
		t := &req.Topics[i]
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for j := range t.Partitions {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition = t.Partitions[j].Partition
			var found *stubTopic
			found, rp.ErrorCode = s.known(req.Version, t.Topic, t.TopicID)
			if rp.ErrorCode == 0 && int(rp.Partition) >= found.Partitions {
				rp.ErrorCode = unknownTopic
			}
			if rp.ErrorCode == 0 && checkBatch(t.Partitions[j].Records) != nil {
				rp.ErrorCode = corruptMessage
			}
			if rp.ErrorCode != 0 {
				s.stats.refused.Add(1)
				rp.BaseOffset = -1
			} else {
				s.stats.produced.Add(1)
				rp.LogStartOffset = 0
				n := int64(binary.BigEndian.Uint32(t.Partitions[j].Records[batchHeader-4:]))
				rp.BaseOffset = s.offsets.Add(n) - n
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

// preparedFetch tells the answers to Fetch apart.
type preparedFetch struct {
	workload
	topic *stubTopic
}

// fetch reads one batch, as large as the client allows, from offset 0.
func (s *stub) fetch(out []byte, req *kmsg.FetchRequest, correlationID int32, prepared map[preparedFetch][]byte) ([]byte, error) {
	if len(req.Topics) != 1 || len(req.Topics[0].Partitions) != 1 || req.SessionEpoch > 0 {
		return nil, errors.New("Fetch of anything but one partition")
	}
	t := &req.Topics[0]
	p := &t.Partitions[0]
	found, code := s.known(req.Version, t.Topic, t.TopicID)
	if code == 0 && p.FetchOffset != 0 {
		code = offsetOutOfRange
	}
	if code != 0 {
		s.stats.refused.Add(1)
		resp := fetched(req.Version, topic{t.Topic, t.TopicID}, nil)
		resp.Topics[0].Partitions[0].ErrorCode = code
		return appendAnswer(out, resp, correlationID), nil
	}
	s.stats.fetched.Add(1)
	w := workload{Key: int16(kmsg.Fetch), Version: req.Version, Bytes: int(p.PartitionMaxBytes)}
	frame := prepared[preparedFetch{w, found}]
	if frame == nil {
		records, err := batch(w.Bytes)
		if err != nil {
			return nil, err
		}
		frame = appendAnswer(nil, fetched(req.Version, found.topic, records), 0)
		prepared[preparedFetch{w, found}] = frame
	}
	out = append(out, frame...)
	binary.BigEndian.PutUint32(out[4:], uint32(correlationID))
	return out, nil
}
