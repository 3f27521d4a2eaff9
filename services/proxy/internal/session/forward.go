package session

import (
	"context"
	"fmt"
	"time"

	"tollgate.internal/services/proxy/internal/meter"
	"tollgate.internal/services/proxy/internal/netio"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// Forwarding of Produce and Fetch: the goroutine that reads the client gathers
// requests in up and writes them to a leased broker connection; the one that reads
// that connection gathers answers in down and writes them to the client. What
// arrived together leaves together.

// hold makes the session hold a lease of the class to a broker of m, with one more
// request in flight. The error is an *upstream.UnavailableError; nothing is in flight then.
func (s *Session) hold(ctx context.Context, m *view.Member, node int32, class upstream.Class) (*upstream.Conn, error) {
	s.mu.Lock()
	for s.lease != nil && (s.class != class || s.inFlight >= s.node.MaxInFlight || s.lease.Due()) {
		s.mu.Unlock()
		if err := s.sendUp(); err != nil {
			return nil, err
		}
		s.waitDrained()
		s.mu.Lock()
	}
	if s.lease != nil {
		s.inFlight++
		c := s.lease
		s.mu.Unlock()
		return c, nil
	}
	broken := s.broken
	s.mu.Unlock()
	if broken != nil {
		// Requests before this one were lost: sent on now, it would overtake what
		// the client sends again (PROTOCOL.md §H2).
		return nil, broken
	}
	c, err := m.Cluster.Lease(ctx, node, class)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.lease, s.class, s.inFlight = c, class, 1
	s.mu.Unlock()
	return c, nil
}

// expect announces the request gathered in up on the held lease.
func (s *Session) expect(c *upstream.Conn, h *header, request any, limit time.Duration) error {
	p := upstream.Pending{
		Sink: (*hotSink)(s), CorrelationID: h.correlationID, Key: h.key, Version: h.version,
		Request: request, Limit: limit,
	}
	if s.node.Observe != nil {
		p.Begun = time.Now()
	}
	return c.Expect(p)
}

// sendUp writes what was gathered for the broker.
func (s *Session) sendUp() error {
	if s.up.Len() == 0 {
		return nil
	}
	s.mu.Lock()
	c := s.lease
	s.mu.Unlock()
	if c == nil {
		return refusal.BrokerUnavailable.Errorf("the connection was lost with requests unsent")
	}
	return s.up.Write(c)
}

// waitDrained waits until nothing is in flight. It ends because every answer
// comes, or its connection ends, or its deadline passes.
func (s *Session) waitDrained() {
	s.mu.Lock()
	for s.inFlight > 0 {
		s.waiting = true
		s.mu.Unlock()
		<-s.drained
		s.mu.Lock()
	}
	s.waiting = false
	s.mu.Unlock()
}

// settle counts n requests as answered and gives the lease back after the last.
func (s *Session) settle(n int) {
	s.mu.Lock()
	s.inFlight -= n
	var c *upstream.Conn
	if s.inFlight == 0 {
		c, s.lease = s.lease, nil
		if s.waiting {
			select {
			case s.drained <- struct{}{}:
			default:
			}
		}
	}
	s.mu.Unlock()
	if c != nil {
		c.Release()
	}
}

// hotSink takes the answers to Produce and Fetch requests that were forwarded.
type hotSink Session

// Answer rewrites one answer and gathers it for the client. One that cannot be
// mapped ends both connections.
func (k *hotSink) Answer(c *upstream.Conn, r *netio.Reader, size int, p *upstream.Pending) error {
	s := (*Session)(k)
	e := entryOf(p.Key)
	before := s.down.Save()
	if err := e.answer(s, c, r, size, p); err != nil {
		if s.err() != nil {
			s.down.Reset() // part of the answer has left, or nobody waits for it
		} else {
			s.down.Rewind(before)
			s.log.Error("answer could not be mapped", "request", e.name, "version", p.Version, "err", err)
		}
		return brokenAnswer(fmt.Errorf("%s v%d: %w", e.name, p.Version, err))
	}
	if s.node.Observe != nil {
		s.node.Observe(p.Key, OK, time.Since(p.Begun))
	}
	s.answers++
	return nil
}

// Flush writes what was gathered.
func (k *hotSink) Flush(c *upstream.Conn) {
	s := (*Session)(k)
	s.writeDown(c)
	n := s.answers
	s.answers = 0
	s.settle(n)
}

// sent is what a client is being sent of a topic.
type sent struct {
	counter        *meter.Counter
	bytes, records int64
}

// writeDown writes what was gathered for the client and counts it.
func (s *Session) writeDown(c *upstream.Conn) {
	if s.down.Len() == 0 {
		return
	}
	c.Handing(true)
	defer c.Handing(false)
	if s.err() != nil {
		s.down.Reset()
	} else if err := s.down.Write(s); err != nil {
		s.down.Reset()
		s.fail(err)
	} else {
		for i := range s.sent {
			s.sent[i].counter.Add(uint64(s.sent[i].bytes), uint64(s.sent[i].records))
			s.sent[i].counter.Request()
		}
	}
	s.sent = s.sent[:0]
}

// Lost closes the client: whether the broker acted is unknown, and a disconnect
// says just that (PROTOCOL.md §C2).
func (k *hotSink) Lost(c *upstream.Conn, p *upstream.Pending, err error) {
	s := (*Session)(k)
	s.writeDown(c)
	s.fail(brokenAnswer(err))
	n := s.answers + 1
	s.answers = 0
	s.settle(n)
}
