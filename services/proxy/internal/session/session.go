// Package session serves one client connection: it authenticates the client,
// answers what the gateway answers itself, and forwards the rest.
//
// A session is a serial server, as a broker's connection is (PROTOCOL.md §D5):
// requests are taken in order and answered in order. Only runs of Produce or
// Fetch requests are in flight together, on one leased broker connection; every
// other request waits until they are answered. The goroutine that reads the
// client writes the broker, the one that reads the broker writes the client, and
// neither hands anything to the other while all is well.
//
// [table] lists every request key there is, one file per key.
package session

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/auth"
	"tollgate.internal/services/proxy/internal/meter"
	"tollgate.internal/services/proxy/internal/netio"
	"tollgate.internal/services/proxy/internal/producerid"
	"tollgate.internal/services/proxy/internal/quota"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
	"tollgate.internal/services/proxy/internal/wire"
)

// Limits of one session.
const (
	maxUnauthenticatedFrame = 512 << 10 // sasl.server.max.receive.size
)

// Node is what the sessions of a proxy share.
type Node struct {
	Log           *slog.Logger
	Meter         *meter.Meter
	Backoff       *auth.Backoff
	ProducerIDs   *producerid.Issuer
	ACLs          ACLs          // nil: they cannot be changed
	Requests      *netio.Budget // memory for request frames larger than netio.BaseSize
	Decoding      *netio.Budget // memory for what requests become when they are decoded; nil: no limit
	Answers       *netio.Budget // memory for answers that cannot pass on piece by piece
	MaxFrameBytes int32
	MaxInFlight   int           // Produce or Fetch requests of one session
	FrameTimeout  time.Duration // for a frame to arrive once it has begun
	WriteStall    time.Duration // for a client to take some of an answer
	Refusals      *refusal.Notes
	encoded       encodings
	Refused       func(*refusal.Refusal) // nil: not counted
	// Creating waits until no other node creates topics in a virtual cluster; nil: no
	// other node does.
	Creating func(ctx context.Context, virtualCluster string) (done func(), err error)
	Observe  func(key int16, outcome Outcome, took time.Duration) // nil: not measured; allocates nothing
}

// Client is an accepted connection whose TLS handshake is done.
type Client struct {
	Net           net.Conn // what is written to: TLS, or Sock
	Sock          *netio.Conn
	TLS           *tls.Conn // nil: plaintext
	SASL          bool      // the listener expects SASL
	Remote        netip.Addr
	Node          int32 // virtual node id the client dialled; -1: bootstrap
	Advertise     func(vnode int32) (host string, port int32)
	Authenticated func(context.Context)
}

// Session is one client connection.
type Session struct {
	node   *Node
	client *Client
	vc     *view.VirtualCluster

	requestMemory, answerMemory *netio.Budget // the virtual cluster's shares of the node's

	log *slog.Logger
	r   *netio.Reader

	phase     phase
	exchange  auth.Exchange
	began     bool          // the exchange has had a message
	waited    time.Duration // before that message was looked at
	identity  auth.Identity
	principal string                       // "" before authentication
	account   atomic.Pointer[quota.Quotas] // nil: a principal that is no service account
	seat      *quota.Quotas                // of account, as which the session is counted
	mechanism string
	id        uint64
	about     atomic.Pointer[about]
	requests  atomic.Uint64 // that came
	software  string        // of the client, as its ApiVersions says (KIP-511); "" is unknown

	authenticatedAt  time.Time
	reauthenticateBy time.Time // KIP-368; zero: never
	closing          error     // why the connection is closed after the answer
	host             string    // the client's address, as ACLs know it

	up       wire.Splice // requests gathered for the leased connection; the reading goroutine's
	header   header      // of the request being taken
	scratch  []byte
	outcome  Outcome     // of that request
	offer    *view.Offer // what is served; it stays for the session's life
	access   accessCache
	fetch    fetchSession
	share    shareSession
	patterns patterns

	turnedAway time.Time // when a Produce could last not be sent

	finishing bool // a request that had begun when draining did; the reading goroutine's

	throttle int32        // what the answer to the request being taken tells the client, ms
	born     time.Time    // what muted counts from
	muted    atomic.Int64 // until when the client is not read (KIP-219); 0: it is
	muting   *time.Timer
	quit     chan struct{} // closed when the session is to end or to drain
	quitOnce sync.Once
	life     context.Context // ends with End, and with it what waits for a broker: a JoinGroup may for minutes
	abandon  context.CancelCauseFunc

	mu       sync.Mutex
	lease    *upstream.Conn // while hot requests are in flight
	class    upstream.Class
	inFlight int
	drained  chan struct{} // signalled when inFlight falls to 0 and someone waits
	waiting  bool
	broken   error // set once: nothing more is written to the client

	// The broker's reader has these to itself.
	answers int         // gathered in down, not yet written
	down    wire.Splice // answers gathered for the client
	sent    []sent      // what is in them, counted once they are written

	until    atomic.Int64 // when the session is to be revalidated, in Unix nanoseconds; 0: never
	draining atomic.Bool
	ended    atomic.Pointer[endReason]

	requestsSwept uint64       // requests at the last sweep; the sweeper's
	lastSwept     atomic.Int64 // when they had become more, in Unix nanoseconds; 0: never

	writes      uint64 // of Sock at the last sweep; the sweeper's
	writesSince time.Time
}

type endReason struct{ err error }

// Errors that end a session.
var (
	// errClose closes the connection without an answer, as a broker does.
	errClose = errors.New("closed")
)

// New prepares a session. Run serves it.
func New(node *Node, client *Client, vc *view.VirtualCluster) *Session {
	s := &Session{
		node: node, client: client, vc: vc,
		log:     node.Log.With("virtual_cluster", vc.Name, "remote", client.Remote.String()),
		r:       netio.NewReader(client.Sock, client.TLS),
		host:    client.Remote.String(),
		drained: make(chan struct{}, 1),
		born:    time.Now(),
		quit:    make(chan struct{}),
		id:      rand.Uint64(),
	}
	s.about.Store(&nobody)
	s.requestMemory, s.answerMemory = cmp.Or(vc.Requests, node.Requests), cmp.Or(vc.Answers, node.Answers)
	s.life, s.abandon = context.WithCancelCause(context.Background())
	return s
}

// End closes the session from outside; the first reason counts.
func (s *Session) End(reason error) {
	if s.ended.CompareAndSwap(nil, &endReason{reason}) {
		s.quitOnce.Do(func() { close(s.quit) })
		s.client.Sock.Conn.Close()
		s.abandon(reason)
	}
}

// Drain makes the session read no further request, but for one that has begun to
// arrive, finish those in flight, and end (PROTOCOL.md §H3).
func (s *Session) Drain() {
	if !s.draining.CompareAndSwap(false, true) {
		return
	}
	s.quitOnce.Do(func() { close(s.quit) })
	s.client.Sock.Conn.SetReadDeadline(time.Unix(1, 0))
}

// Revalidate ends the session when its view no longer admits it.
func (s *Session) Revalidate() {
	s.mu.Lock()
	id, authenticated := s.identity, s.principal != ""
	s.mu.Unlock()
	v := s.vc.View()
	switch {
	case v.Suspended:
		s.End(refusal.TenantInactive.Errorf("tenant %s is suspended", v.Tenant))
	case authenticated:
		if err := v.Realm.StillValid(id); err != nil {
			s.End(err)
			return
		}
		s.account.Store(s.vc.Account(id.Account))
		until := int64(0)
		if end := v.Realm.Until(id); !end.IsZero() {
			until = end.UnixNano()
		}
		s.until.Store(until)
	}
}

// Sweep ends the session when its credential has expired, or when an answer has
// waited for longer than WriteStall and its client took nothing: the broker
// connection behind it is others' too. It is called by one goroutine, now and then.
func (s *Session) Sweep(now time.Time) {
	if until := s.until.Load(); until != 0 && now.UnixNano() >= until {
		s.Revalidate()
	}
	s.sweepRequests(now)
	writes := s.client.Sock.Writes()
	switch {
	case writes%2 == 0:
		s.writesSince = time.Time{}
	case writes != s.writes || s.writesSince.IsZero():
		s.writes, s.writesSince = writes, now
	case s.node.WriteStall > 0 && now.Sub(s.writesSince) > s.node.WriteStall:
		s.End(refusal.ClientStalled.Errorf("it has taken nothing for %v", s.node.WriteStall))
	}
}

// Principal is who the client is, "" before authentication.
func (s *Session) Principal() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.principal
}

// VirtualCluster is the one the client dialled.
func (s *Session) VirtualCluster() *view.VirtualCluster { return s.vc }

// Run serves the client until it leaves, does what no broker would bear, or ctx
// ends. It owns the client's connection and returns when nothing of the session
// is left.
func (s *Session) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(ctx, func() { s.End(context.Cause(ctx)) })
	release := context.AfterFunc(s.life, func() { cancel(context.Cause(s.life)) })
	err := s.serve(ctx)
	stop()
	release()
	if broken := s.err(); broken != nil {
		err = broken // by the goroutine that reads the broker
	}
	if r := s.ended.Load(); r != nil {
		err = r.err
	}
	err = ending(err, s.principal != "")
	if s.seat != nil {
		s.seat.Connections.Leave()
	}
	s.client.Net.Close()
	s.fail(err)
	cancel(err)
	s.abandon(err)
	s.mu.Lock()
	polling := s.class == upstream.Fetch
	s.mu.Unlock()
	if !polling {
		// What was produced is still counted. An answer to a long poll is
		// dropped by the broker's reader whenever it comes.
		s.waitDrained()
	}
	s.share.close()
	s.up.Reset()
	s.r.Close()
	return err
}

// serve reads frames until an error.
func (s *Session) serve(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	for {
		if err := s.unmuted(ctx); err != nil {
			return err
		}
		frame, reserved, err := s.nextFrame(ctx)
		if err != nil {
			// A client may close with its last request: that is the broker's all the same.
			if err := s.sendUp(); err != nil {
				return err
			}
			if s.draining.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
				// At a frame boundary, with everything answered (§H3).
				if err := s.answerParked(); err != nil {
					return err
				}
				s.waitDrained()
				s.linger()
				return refusal.Draining
			}
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		// Answers that came while the client was waited for may have muted it.
		if err = s.unmuted(ctx); err == nil {
			if s.phase == rawTokens {
				err = s.rawToken(ctx, frame)
			} else {
				err = s.handle(ctx, frame)
			}
		}
		if s.up.References() && err == nil {
			err = s.sendUp()
		}
		s.r.Discard(len(frame))
		if reserved > 0 {
			s.requestMemory.Release(reserved)
		}
		if err != nil {
			return err
		}
	}
}

// nextFrame returns the next whole frame. Before it waits for the client it sends
// what was gathered for the broker.
func (s *Session) nextFrame(ctx context.Context) (frame []byte, reserved int64, err error) {
	limit := s.node.MaxFrameBytes
	if s.principal == "" {
		limit = maxUnauthenticatedFrame
	}
	timed := false
	defer func() {
		if timed {
			s.readBy(time.Time{})
		}
		if err != nil && reserved > 0 {
			s.requestMemory.Release(reserved)
		}
	}()
	for {
		size, err := s.r.FrameSize(limit)
		if err != nil {
			return nil, reserved, err
		}
		if size > 0 && s.r.Buffered() >= size {
			return s.r.Bytes()[:size], reserved, nil
		}
		if !s.r.Ready() {
			if err := s.sendUp(); err != nil {
				return nil, reserved, err
			}
			if s.r.Buffered() == 0 {
				if err := s.r.Wait(); err != nil {
					return nil, reserved, err
				}
			}
			// Something has begun: a frame, or a TLS record of which it will be part.
			if !timed && s.node.FrameTimeout > 0 && !s.r.Ready() {
				timed = true
				s.readBy(time.Now().Add(s.node.FrameTimeout))
			}
		}
		if size > netio.BaseSize && reserved == 0 {
			if err := s.sendUp(); err != nil {
				return nil, 0, err
			}
			if timed { // what comes now does not wait for the client
				timed = false
				s.readBy(time.Time{})
			}
			if err := s.unmuted(ctx); err != nil {
				return nil, 0, err
			}
			if err := s.requestMemory.Reserve(ctx, int64(size)); err != nil {
				return nil, 0, err
			}
			reserved = int64(size)
		}
		if err := s.r.Fill(size); err != nil {
			if !s.finishes(err) {
				return nil, reserved, err
			}
			timed = true
		}
	}
}

// finishes lets the request arrive that had begun to when draining began: its client
// may wait for nothing but the answer, and then sees the connection end between two
// requests. That is done once. A client that sends one after the other is cut off at
// any time the same.
func (s *Session) finishes(err error) bool {
	if s.finishing || !s.draining.Load() || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	s.finishing = true
	deadline := time.Time{}
	if s.node.FrameTimeout > 0 {
		deadline = time.Now().Add(s.node.FrameTimeout)
	}
	s.client.Sock.Conn.SetReadDeadline(deadline)
	return true
}

// lingerTime bounds how long a client is given to see that the connection ends.
const lingerTime = time.Second

// linger ends the connection without losing the last answers. To close a socket that
// has something left to read resets the connection, and the peer's system may throw
// away what its application has not read yet: so the client is told that nothing more
// comes, and what it has sent since is dropped until it closes.
func (s *Session) linger() {
	half, ok := s.client.Sock.Conn.(interface{ CloseWrite() error })
	if !ok {
		return
	}
	if s.client.TLS != nil && s.client.TLS.CloseWrite() != nil {
		return
	}
	if half.CloseWrite() != nil {
		return
	}
	s.client.Sock.Conn.SetReadDeadline(time.Now().Add(lingerTime))
	buf := netio.Get(netio.BaseSize)
	defer buf.Release()
	for {
		if _, err := s.client.Sock.Conn.Read(buf.B); err != nil {
			return
		}
	}
}

// readBy sets when reading the client ends in an error; zero: never. Draining has
// the last word.
func (s *Session) readBy(deadline time.Time) {
	s.client.Sock.Conn.SetReadDeadline(deadline)
	if s.draining.Load() {
		s.client.Sock.Conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// header is what every request begins with.
type header struct {
	key, version  int16
	correlationID int32
	clientID      []byte // nil: null
	body          int    // where the body begins in the frame
	flexible      bool
	tagged        bool // it has tags, of which no schema knows any
}

// parseHeader reads a request header, v1 or v2 as the version says.
func parseHeader(frame []byte) (h header, err error) {
	if len(frame) < 12 {
		return h, wire.ErrShort
	}
	h.key = int16(binary.BigEndian.Uint16(frame[4:]))
	h.version = int16(binary.BigEndian.Uint16(frame[6:]))
	h.correlationID = int32(binary.BigEndian.Uint32(frame[8:]))
	return h, nil
}

func (h *header) rest(frame []byte) error {
	c := wire.Cursor{B: frame, Pos: 12}
	h.clientID = c.String(false)
	if h.flexible {
		h.tagged = c.Tags()
	}
	h.body = c.Pos
	return c.Err
}

// handle takes one request.
func (s *Session) handle(ctx context.Context, frame []byte) error {
	var err error
	if s.header, err = parseHeader(frame); err != nil {
		return refusal.SizeInvalid.Errorf("%d bytes are no request: %w", len(frame), err)
	}
	h := &s.header
	e := entryOf(h.key)
	if e == nil {
		if kmsg.RequestForKey(h.key) == nil {
			return refusal.KeyUnknown.Errorf("request key %d", h.key)
		}
		return refusal.KeyNotOffered.Errorf("%s (%d)", kmsg.NameForKey(h.key), h.key)
	}
	if !s.phase.admits(h.key) {
		return refusal.NotAuthenticated.Errorf("%s", e.name)
	}
	if h.key == keyApiVersions {
		if h.version < 0 || h.version > e.max {
			return s.apiVersionsUnsupported(*h)
		}
	} else if h.version < e.min || h.version > e.max {
		return refusal.VersionNotOffered.Errorf("%s version %d is not served, %d to %d are", e.name, h.version, e.min, e.max)
	}
	h.flexible = e.flexible >= 0 && h.version >= e.flexible
	if err := h.rest(frame); err != nil {
		return err
	}
	if s.expired() && h.key != keySASLHandshake && h.key != keySASLAuthenticate && h.key != keyApiVersions {
		return refusal.SessionExpired
	}
	s.requests.Add(1)
	s.charge(h, len(frame))
	if e.hot != nil && !h.tagged { // a forwarded frame keeps its header
		done, err := e.hot(s, ctx, h, frame)
		if done || err != nil {
			return err
		}
	}
	return s.slow(ctx, e, h, frame)
}

// slow decodes a request, lets its handler answer it, and writes the answer. All
// requests before it have been answered.
func (s *Session) slow(ctx context.Context, e *entry, h *header, frame []byte) error {
	if err := s.sendUp(); err != nil {
		return err
	}
	s.waitDrained()
	if err := s.err(); err != nil {
		return err
	}
	if !e.offers(s.offered(), h.version) {
		return refusal.VersionNotOffered.Errorf("%s version %d", e.name, h.version)
	}
	s.saysClientID(h.clientID)
	began := time.Now()
	release, err := s.reserveDecoding(ctx, h, frame)
	if err != nil {
		return err
	}
	defer release()
	if err := walkUnauthenticated(h, frame); err != nil {
		return refusal.Truncated.Errorf("%s v%d: %w", e.name, h.version, err)
	}
	req := kmsg.RequestForKey(h.key)
	req.SetVersion(h.version)
	if err := decode(req, frame[h.body:]); err != nil {
		return refusal.Truncated.Errorf("%s v%d: %w", e.name, h.version, err)
	}
	stripUnknownTags(req)
	if waitsForOthers(h.key) {
		release()
	}
	s.outcome = OK
	resp, err := e.handle(s, ctx, req)
	outcome := s.outcome
	if err != nil {
		outcome = Closed
	}
	if s.node.Observe != nil {
		s.node.Observe(h.key, outcome, time.Since(began))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", e.name, err)
	}
	if resp == nil {
		return nil // Produce with acks=0
	}
	stripUnknownTags(resp)
	s.tell(resp)
	if err := s.answer(h, resp); err != nil {
		return err
	}
	if s.closing != nil {
		return s.closing
	}
	return nil
}

// answer writes a response; nothing is in flight.
func (s *Session) answer(h *header, resp kmsg.Response) error {
	if m, ok := resp.(*metadataAnswer); ok {
		return s.answerMetadata(h, m)
	}
	resp.SetVersion(h.version)
	return s.finishAnswer(resp.AppendTo(s.beginAnswer(h)))
}

// beginAnswer is a frame as far as its body.
func (s *Session) beginAnswer(h *header) []byte {
	b := append(s.scratch[:0], 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(h.correlationID))
	if h.flexible && h.key != keyApiVersions {
		b = append(b, 0)
	}
	return b
}

// finishAnswer writes a frame that beginAnswer began.
func (s *Session) finishAnswer(b []byte) error {
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	if cap(b) <= 4096 {
		s.scratch = b
	}
	return s.Write(b)
}

// Write sends b to the client.
func (s *Session) Write(b []byte) error { return s.client.Sock.WriteOver(s.client.Net, b) }

// WriteBuffers sends several pieces to the client in one system call.
func (s *Session) WriteBuffers(bufs *net.Buffers) error {
	return s.client.Sock.WriteBuffersOver(s.client.Net, bufs)
}

func (s *Session) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// fail makes the session write nothing more to the client and closes it.
func (s *Session) fail(err error) {
	if err == nil {
		err = errClose
	}
	s.mu.Lock()
	if s.broken == nil {
		s.broken = err
	}
	s.mu.Unlock()
	s.client.Sock.Conn.Close()
}

// clientID is what brokers are told of the client: it shows in the descriptions of
// its groups. Its one privileged value is not for tenants.
func (s *Session) clientID() string {
	if id := string(s.header.clientID); id != "" && id != adminClient {
		return id
	}
	return upstream.OwnClientID
}
