package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Target is what clients connect to and as whom.
type Target struct {
	Name string
	Addr string // every connection goes there, whatever the advertised host
	// Host is the bootstrap's name, for SNI; empty: plaintext.
	Host string
	CA   []byte // PEM
	// Mechanism is PLAIN or SCRAM-SHA-512; empty: no login.
	Mechanism, User, Password string
	Topic                     string   // of Produce and Fetch
	Topics                    []string // of Metadata and OffsetCommit
}

// cipherSuite is what every TLS connection of the benchmark uses, so that no side
// has it cheaper: Go's server takes it by itself, HAProxy is told to.
const cipherSuite = tls.TLS_AES_128_GCM_SHA256

func (t *Target) tls(host string) (*tls.Config, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(t.CA) {
		return nil, errors.New("no certificate of an authority")
	}
	return &tls.Config{
		ServerName: host, RootCAs: pool, MinVersion: tls.VersionTLS13,
		// OpenSSL 3.0 has no hybrid exchange, and it would be most of a handshake.
		CurvePreferences: []tls.CurveID{tls.X25519},
		// Java and librdkafka fill their records from the beginning.
		DynamicRecordSizingDisabled: true,
	}, nil
}

// conn is one client connection. Nothing of it is hidden in a client library: the
// load is the same bytes at the same moments whatever it goes through.
type conn struct {
	net.Conn
	r             *bufio.Reader
	correlationID int32
	frame         []byte // of the last answer
}

var formatter = kmsg.NewRequestFormatter(kmsg.FormatterClientID("bench"))

// timeLimit bounds whatever takes no time unless something is broken.
const timeLimit = 30 * time.Second

// open connects and shakes hands. From is the address to come from, or nil.
func (t *Target) open(host string, from net.Addr) (*conn, error) {
	d := net.Dialer{Timeout: timeLimit, LocalAddr: from}
	c, err := d.Dial("tcp", t.Addr)
	if err != nil {
		return nil, err
	}
	if t.Host != "" {
		config, err := t.tls(host)
		if err != nil {
			return nil, err
		}
		tc := tls.Client(c, config)
		ctx, cancel := context.WithTimeout(context.Background(), timeLimit)
		defer cancel()
		if err := tc.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, fmt.Errorf("%s: %w", t.Name, err)
		}
		if got := tc.ConnectionState().CipherSuite; got != cipherSuite {
			c.Close()
			return nil, fmt.Errorf("%s: cipher suite %s: want %s", t.Name, tls.CipherSuiteName(got), tls.CipherSuiteName(cipherSuite))
		}
		c = tc
	}
	return &conn{Conn: c, r: bufio.NewReaderSize(c, 4<<10)}, nil
}

// connect opens a connection to host and logs in.
func (t *Target) connect(host string, from net.Addr) (*conn, error) {
	c, err := t.open(host, from)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(timeLimit))
	if err := t.login(c); err != nil {
		c.Close()
		return nil, fmt.Errorf("%s: %w", t.Name, err)
	}
	c.SetDeadline(time.Time{})
	return c, nil
}

// toLeader connects as clients do: to the bootstrap, which names the leader of the
// topic's one partition, and from there to the leader. It returns the topic as the
// target names it.
func (t *Target) toLeader() (host string, found topic, err error) {
	c, err := t.connect(t.Host, nil)
	if err != nil {
		return "", topic{}, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(timeLimit))
	host, found, err = t.metadata(c)
	return t.server(host), found, err
}

// server is what the broker of that host is called in its certificate.
func (t *Target) server(host string) string {
	if net.ParseIP(host) != nil {
		return t.Host // the broker's own address, which no certificate is for
	}
	return host
}

func (t *Target) metadata(c *conn) (host string, found topic, err error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 12
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &t.Topic
	req.Topics = append(req.Topics, rt)
	resp, err := roundTrip[*kmsg.MetadataResponse](c, req)
	if err != nil {
		return "", topic{}, err
	}
	if len(resp.Topics) != 1 {
		return "", topic{}, fmt.Errorf("metadata of %d topics", len(resp.Topics))
	}
	mt := resp.Topics[0]
	if err := kerr.ErrorForCode(mt.ErrorCode); err != nil {
		return "", topic{}, fmt.Errorf("topic %s: %w", t.Topic, err)
	}
	if len(mt.Partitions) != 1 {
		return "", topic{}, fmt.Errorf("topic %s has %d partitions", t.Topic, len(mt.Partitions))
	}
	for _, b := range resp.Brokers {
		if b.NodeID == mt.Partitions[0].Leader {
			return b.Host, topic{t.Topic, mt.TopicID}, nil
		}
	}
	return "", topic{}, fmt.Errorf("topic %s has no leader", t.Topic)
}

func (t *Target) login(c *conn) error {
	if err := c.hello(); err != nil || t.Mechanism == "" {
		return err
	}
	handshake := kmsg.NewPtrSASLHandshakeRequest()
	handshake.Version, handshake.Mechanism = 1, t.Mechanism
	hs, err := roundTrip[*kmsg.SASLHandshakeResponse](c, handshake)
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(hs.ErrorCode); err != nil {
		return err
	}
	step := func(token []byte) ([]byte, error) {
		req := kmsg.NewPtrSASLAuthenticateRequest()
		req.Version, req.SASLAuthBytes = 2, token
		resp, err := roundTrip[*kmsg.SASLAuthenticateResponse](c, req)
		if err != nil {
			return nil, err
		}
		return resp.SASLAuthBytes, kerr.ErrorForCode(resp.ErrorCode)
	}
	if t.Mechanism == "PLAIN" {
		_, err := step([]byte("\x00" + t.User + "\x00" + t.Password))
		return err
	}
	client, err := scramClient(t.User, t.Password)
	if err != nil {
		return err
	}
	talk := client.NewConversation()
	var token []byte
	for !talk.Done() {
		say, err := talk.Step(string(token))
		if err != nil {
			return err
		}
		if talk.Done() {
			break
		}
		if token, err = step([]byte(say)); err != nil {
			return err
		}
	}
	return nil
}

// hello asks for the versions, as every client does first.
func (c *conn) hello() error {
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = 3, "bench", "1"
	resp, err := roundTrip[*kmsg.ApiVersionsResponse](c, req)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.ErrorCode)
}

func roundTrip[R kmsg.Response](c *conn, req kmsg.Request) (R, error) {
	var none R
	name := kmsg.NameForKey(req.Key())
	c.correlationID++
	if _, err := c.Write(formatter.AppendRequest(nil, req, c.correlationID)); err != nil {
		return none, fmt.Errorf("send %s: %w", name, err)
	}
	if err := c.receive(); err != nil {
		return none, fmt.Errorf("await the answer to %s: %w", name, err)
	}
	if got := int32(binary.BigEndian.Uint32(c.frame[4:])); got != c.correlationID {
		return none, fmt.Errorf("%s: answer to request %d: want %d", name, got, c.correlationID)
	}
	body := c.frame[8:]
	if req.IsFlexible() && req.Key() != int16(kmsg.ApiVersions) {
		if len(body) == 0 {
			return none, fmt.Errorf("%s: %w", name, io.ErrUnexpectedEOF)
		}
		body = body[1:] // no tags
	}
	resp := req.ResponseKind()
	if err := resp.ReadFrom(append([]byte(nil), body...)); err != nil {
		return none, fmt.Errorf("%s: %w", name, err)
	}
	return resp.(R), nil
}

// maxAnswer is more than any answer of the benchmark.
const maxAnswer = 1 << 20

// receive reads one frame, its length prefix included, into c.frame.
func (c *conn) receive() error {
	head, err := c.r.Peek(4)
	if err != nil {
		return err
	}
	size := 4 + int(binary.BigEndian.Uint32(head))
	if size < 8 || size > maxAnswer {
		return fmt.Errorf("answer of %d bytes", size)
	}
	if cap(c.frame) < size {
		c.frame = make([]byte, size)
	}
	c.frame = c.frame[:size]
	_, err = io.ReadFull(c.r, c.frame)
	return err
}
