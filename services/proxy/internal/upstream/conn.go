package upstream

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/netio"
)

// maxResponse bounds an answer of a broker; fetch.max.bytes is 55 MiB by default
// and one batch may exceed it (KIP-74).
const maxResponse = 256 << 20

// A Sink takes the answers to the requests a lease holder has sent. Its methods
// are called by the goroutine that reads the connection, one at a time and in
// the order of the requests.
type Sink interface {
	// Answer consumes exactly the size bytes of one frame of c, prefix included,
	// from r. An error ends the broker connection.
	Answer(c *Conn, r *netio.Reader, size int, p *Pending) error
	// Flush is called when no further answer can be read without waiting. From
	// within it the lease may be released.
	Flush(c *Conn)
	// Lost tells that the connection ended with p unanswered: whether the
	// broker acted on the request is unknown.
	Lost(c *Conn, p *Pending, err error)
}

// Pending is a request that was sent and not been answered.
type Pending struct {
	Sink          Sink
	CorrelationID int32
	Key, Version  int16
	Request       any           // the sink's own
	Begun         time.Time     // the sink's own
	Limit         time.Duration // without a byte of the answer, before the connection counts as stalled; 0: none
}

// Conn is one connection to a broker. Whoever leases it alone sends on it.
type Conn struct {
	broker *Broker
	net    net.Conn    // what is written to: TLS, or the socket
	sock   *netio.Conn // the socket
	r      *netio.Reader
	class  Class
	addr   string          // the broker's, when it was dialled
	offers map[int16]Range // request keys and their versions
	login  session

	mu      sync.Mutex
	queue   []Pending // queue[head:] are unanswered
	head    int
	err     error   // why the connection ended
	current Pending // the reader's copy of queue[head]
	// An answer is on its way through the sink, up to the Flush behind it.
	delivering bool
	delivered  chan struct{} // closed when it is through; nil: nobody waits

	// What the sweep sees: it needs no clock to be read for each request.
	progress atomic.Uint64 // answers begun, and pieces of them passed on
	handing  atomic.Bool   // the sink has an answer: it is not the broker that is waited for
	swept    uint64        // progress at the last sweep; guarded by broker.mu, as is sweptAt
	sweptAt  time.Time     // when progress was first seen at swept

	idleSince time.Time // guarded by broker.mu
}

// Expect announces a request that is about to be written.
func (c *Conn) Expect(p Pending) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if c.head > 0 && len(c.queue) == cap(c.queue) {
		n := copy(c.queue, c.queue[c.head:])
		clear(c.queue[n:])
		c.queue, c.head = c.queue[:n], 0
	}
	c.queue = append(c.queue, p)
	return nil
}

// Write sends announced requests. An error has ended the connection.
func (c *Conn) Write(b []byte) error {
	err := c.sock.WriteOver(c.net, b)
	if err != nil {
		c.fail(err)
	}
	return err
}

// WriteBuffers is Write of several pieces, in one system call.
func (c *Conn) WriteBuffers(bufs *net.Buffers) error {
	err := c.sock.WriteBuffersOver(c.net, bufs)
	if err != nil {
		c.fail(err)
	}
	return err
}

// Release gives the lease back. Nothing may be unanswered.
func (c *Conn) Release() { c.broker.release(c) }

// Close ends the connection and the lease, answered or not.
func (c *Conn) Close() {
	c.fail(net.ErrClosed)
	c.broker.release(c)
}

func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.mu.Unlock()
	c.net.Close()
}

// through says that no answer is on its way. c.mu is held.
func (c *Conn) through() {
	c.delivering = false
	if c.delivered != nil {
		close(c.delivered)
		c.delivered = nil
	}
}

// errRecalled ends a connection whose holder does not want its answers any more.
var errRecalled = errors.New("the answers are not wanted any more")

// Recall takes back every request that is unanswered, if the holder of the lease can do
// without the answers: it then has to answer them itself, and nobody else will. The
// connection ends, since its next answer would be to them. While an answer is on its
// way nothing is taken back, and busy is closed when it is through.
func (c *Conn) Recall(dispensable func(*Pending) bool) (recalled []Pending, busy <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return nil, nil
	case c.delivering:
		if c.delivered == nil {
			c.delivered = make(chan struct{})
		}
		return nil, c.delivered
	}
	for i := range c.queue[c.head:] {
		if !dispensable(&c.queue[c.head+i]) {
			return nil, nil
		}
	}
	recalled = append(recalled, c.queue[c.head:]...)
	if len(recalled) > 0 {
		c.queue, c.head, c.err = nil, 0, errRecalled
		c.net.Close()
	}
	return recalled, nil
}

func (c *Conn) dead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// stalled reports whether the oldest unanswered request has waited longer than its
// limit. It is called once per sweep with broker.mu held, and errs by up to one
// sweep towards patience.
func (c *Conn) stalled(now time.Time) bool {
	c.mu.Lock()
	waiting := c.head < len(c.queue)
	var limit time.Duration
	if waiting {
		limit = c.queue[c.head].Limit
	}
	c.mu.Unlock()
	progress := c.progress.Load()
	switch {
	case !waiting || c.handing.Load():
		c.sweptAt = time.Time{}
	case c.sweptAt.IsZero() || progress != c.swept:
		c.swept, c.sweptAt = progress, now
	default:
		return limit > 0 && now.Sub(c.sweptAt) > limit
	}
	return false
}

// Progress tells that part of a large answer has arrived.
func (c *Conn) Progress() { c.progress.Add(1) }

// Handing tells whether a sink is handing an answer on: meanwhile it is not the
// broker that is waited for.
func (c *Conn) Handing(on bool) { c.handing.Store(on) }

// read delivers answers until the connection ends. It owns c.r.
func (c *Conn) read() {
	err := c.deliver()
	c.fail(err)
	err = c.dead()
	c.login.end()
	c.broker.lost(c)
	c.mu.Lock()
	rest := append([]Pending(nil), c.queue[c.head:]...)
	c.queue, c.head = nil, 0
	c.through()
	c.mu.Unlock()
	for i := range rest {
		rest[i].Sink.Lost(c, &rest[i], err)
	}
	c.r.Close()
}

func (c *Conn) deliver() error {
	for {
		if c.r.Buffered() == 0 {
			if err := c.r.Wait(); err != nil {
				return err
			}
		}
		size, err := c.r.FrameSize(maxResponse)
		if err != nil {
			return err
		}
		if size == 0 || c.r.Buffered() < 8 {
			if err := c.r.Fill(8); err != nil {
				return err
			}
			continue
		}
		if size < 8 {
			return fmt.Errorf("answer of %d bytes", size)
		}
		corr := int32(binary.BigEndian.Uint32(c.r.Bytes()[4:]))
		c.mu.Lock()
		if c.head == len(c.queue) {
			c.mu.Unlock()
			return errors.New("answer to no request")
		}
		c.current = c.queue[c.head]
		c.delivering = true
		c.mu.Unlock()
		p := &c.current
		if p.CorrelationID != corr {
			return fmt.Errorf("answer %d to request %d", corr, p.CorrelationID)
		}
		c.Progress()
		if err := p.Sink.Answer(c, c.r, size, p); err != nil {
			return err
		}
		c.mu.Lock()
		c.queue[c.head] = Pending{}
		c.head++
		if c.head == len(c.queue) {
			c.queue, c.head = c.queue[:0], 0
		}
		c.mu.Unlock()
		c.Progress()
		if !c.answerBuffered() {
			sink := p.Sink
			c.current = Pending{}
			sink.Flush(c)
			c.mu.Lock()
			c.through()
			c.mu.Unlock()
		}
	}
}

// answerBuffered reports whether the next answer is here in full, so that both
// can leave together.
func (c *Conn) answerBuffered() bool {
	for {
		size, err := c.r.FrameSize(maxResponse)
		if err != nil {
			return false
		}
		if size > 0 && c.r.Buffered() >= size {
			return true
		}
		if size > netio.BaseSize || !c.r.Ready() || c.r.Fill(size) != nil {
			return false
		}
	}
}

// call is a Sink for one request whose sender waits.
type call struct {
	frame []byte
	err   error
	done  chan struct{}
}

func (w *call) Answer(_ *Conn, r *netio.Reader, size int, _ *Pending) error {
	frame, err := r.Frame(maxResponse)
	if err != nil {
		return err
	}
	w.frame = append([]byte(nil), frame...)
	r.Discard(size)
	close(w.done)
	return nil
}

func (w *call) Flush(*Conn) {}

func (w *call) Lost(_ *Conn, _ *Pending, err error) {
	w.err = err
	close(w.done)
}

// ErrLost is a request that was sent and whose answer never came: whether the
// broker acted on it is unknown.
var ErrLost = errors.New("connection lost before the answer")

// Serves reports whether the broker serves a request that is not to be sent at any
// other version.
func (c *Conn) Serves(key, version int16) bool {
	r, ok := c.offers[key]
	return ok && r.Min <= version && version <= r.Max
}

// A VersionError is a request that a broker does not serve at any version the request
// may be sent at: it is older than the others of its cluster, or too new for the
// client. Nothing was sent.
type VersionError struct {
	Cluster      string
	Node         int32
	Key, Version int16
	Offered      *Range // nil: it does not know the request
}

func (e *VersionError) Error() string {
	s := fmt.Sprintf("cluster %s node %d does not serve %s version %d, ", e.Cluster, e.Node, kmsg.NameForKey(e.Key), e.Version)
	if e.Offered == nil {
		return s + "nor any other"
	}
	return s + fmt.Sprintf("but %d to %d", e.Offered.Min, e.Offered.Max)
}

func (e *VersionError) Unwrap() error { return kerr.UnsupportedVersion }

// atMost returns req, or a copy of it at the highest version that the broker serves.
// Others may be sending req at the same time.
func (c *Conn) atMost(req kmsg.Request) (kmsg.Request, error) {
	r, ok := c.offers[req.Key()]
	switch v := req.GetVersion(); {
	case !ok:
		return nil, &VersionError{Cluster: c.broker.cluster.cfg.Name, Node: c.broker.ID, Key: req.Key(), Version: v}
	case v < r.Min:
		return nil, &VersionError{Cluster: c.broker.cluster.cfg.Name, Node: c.broker.ID, Key: req.Key(), Version: v, Offered: &r}
	case v <= r.Max:
		return req, nil
	}
	lower := reflect.New(reflect.TypeOf(req).Elem())
	lower.Elem().Set(reflect.ValueOf(req).Elem())
	req = lower.Interface().(kmsg.Request)
	req.SetVersion(r.Max)
	return req, nil
}

// RoundTrip sends req, at its version or the highest that the broker serves, and waits
// for the answer. Nothing else may be in flight. It fails with ErrLost when the
// outcome is unknown; the connection is then closed.
func (c *Conn) RoundTrip(ctx context.Context, clientID string, req kmsg.Request, limit time.Duration) (kmsg.Response, error) {
	req, err := c.atMost(req)
	if err != nil {
		return nil, err
	}
	if c.Due() && c.dead() == nil {
		if err := c.renew(ctx); err != nil {
			return nil, c.broker.unavailable(err)
		}
	}
	return c.exchange(ctx, clientID, req, limit)
}

func (c *Conn) exchange(ctx context.Context, clientID string, req kmsg.Request, limit time.Duration) (kmsg.Response, error) {
	corr := c.broker.cluster.nextCorrelationID()
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID)).AppendRequest(nil, req, corr)
	w := &call{done: make(chan struct{})}
	p := Pending{Sink: w, CorrelationID: corr, Key: req.Key(), Version: req.GetVersion(), Limit: limit}
	if err := c.Expect(p); err != nil {
		return nil, c.broker.unavailable(err)
	}
	if err := c.Write(frame); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLost, err)
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		c.fail(context.Cause(ctx))
		return nil, fmt.Errorf("%w: %w", ErrLost, context.Cause(ctx))
	}
	if w.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLost, w.err)
	}
	return decode(req, w.frame)
}

// request is RoundTrip of one request on a lease that ends with it.
func (c *Conn) request(ctx context.Context, clientID string, limit time.Duration, req kmsg.Request) (kmsg.Response, error) {
	resp, err := c.RoundTrip(ctx, clientID, req, limit)
	if _, unsent := errors.AsType[*VersionError](err); err != nil && !unsent {
		c.Close()
		return nil, err
	}
	c.Release()
	return resp, err
}

// decode reads an answer: size, correlation id, tags of a flexible header
// (ApiVersions never has them, KIP-511), body.
func decode(req kmsg.Request, frame []byte) (kmsg.Response, error) {
	body := frame[8:]
	if req.IsFlexible() && req.Key() != int16(kmsg.ApiVersions) {
		if len(body) == 0 || body[0] != 0 {
			return nil, fmt.Errorf("%s answer with header tags", kmsg.NameForKey(req.Key()))
		}
		body = body[1:]
	}
	resp := req.ResponseKind()
	if err := resp.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("%s v%d answer: %w", kmsg.NameForKey(req.Key()), req.GetVersion(), err)
	}
	return resp, nil
}

// dial connects, learns the broker's versions and logs in.
func (b *Broker) dial(ctx context.Context, addr string) (*Conn, error) {
	cfg := &b.cluster.cfg
	ctx, cancel := context.WithTimeout(ctx, cfg.DialTimeout)
	defer cancel()
	nc, err := cfg.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	sock := netio.New(nc)
	c := &Conn{broker: b, addr: addr, sock: sock, net: sock}
	if tc := b.cluster.access.Load().tls; tc != nil {
		if tc.ServerName == "" {
			host, _, _ := net.SplitHostPort(addr)
			tc = tc.Clone()
			tc.ServerName = host
		}
		t := tls.Client(sock, tc)
		if err := t.HandshakeContext(ctx); err != nil {
			nc.Close()
			if cause := context.Cause(ctx); cause != nil {
				return nil, cause
			}
			return nil, b.noteLogin(untrusted(err))
		}
		c.net, c.r = t, netio.NewReader(sock, t)
	} else {
		c.r = netio.NewReader(sock, nil)
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	if err := c.hello(ctx); err != nil {
		nc.Close()
		if cause := context.Cause(ctx); cause != nil { // not what the broker did
			return nil, cause
		}
		return nil, b.noteLogin(untrusted(err))
	}
	_ = b.noteLogin(nil)
	if !stop() {
		return nil, context.Cause(ctx)
	}
	return c, nil
}

// serial is one request and its answer, before anything reads the connection.
func (c *Conn) serial(req kmsg.Request) (kmsg.Response, error) {
	corr := c.broker.cluster.nextCorrelationID()
	if _, err := c.net.Write(c.broker.cluster.formatter.AppendRequest(nil, req, corr)); err != nil {
		return nil, err
	}
	frame, err := c.r.Frame(1 << 20)
	if err != nil {
		return nil, err
	}
	defer c.r.Discard(len(frame))
	if len(frame) < 8 || int32(binary.BigEndian.Uint32(frame[4:])) != corr {
		return nil, errors.New("answer to another request")
	}
	return decode(req, append([]byte(nil), frame...))
}

func (c *Conn) hello(ctx context.Context) error {
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version = 3
	req.ClientSoftwareName, req.ClientSoftwareVersion = "tollgate", "1"
	resp, err := c.serial(req)
	if err != nil {
		return fmt.Errorf("ApiVersions: %w", err)
	}
	versions := resp.(*kmsg.ApiVersionsResponse)
	if err := kerr.ErrorForCode(versions.ErrorCode); err != nil {
		return fmt.Errorf("ApiVersions: %w", err)
	}
	c.offers = make(map[int16]Range, len(versions.ApiKeys))
	for _, k := range versions.ApiKeys {
		c.offers[k.ApiKey] = Range{k.MinVersion, k.MaxVersion}
	}
	c.broker.setVersions(versions)
	return c.authenticate(ctx, c.serial)
}
