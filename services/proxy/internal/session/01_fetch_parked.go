package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
)

// A Fetch that waits at a broker for records is answered by a session that drains, with
// none (PROTOCOL.md §H3): a client may let it wait for minutes. The broker's answer
// cannot be called off, so its connection ends. Records that it has sent already are
// dropped with it: the client asks for them again, from the offset it asked from.
//
// The fetch session (KIP-227) is good on this client connection alone, which ends
// behind the answers. The answer to an incremental fetch keeps it, as one without
// records does; one that would make a fetch session says that there is none.

// maxParked bounds a request that is remembered while it waits. A larger one is waited
// for.
const maxParked = 64 << 10

// errParked ends what waits for a broker in the slow way.
var errParked = errors.New("draining")

// answerParked answers what waits at a broker and can be answered without it. All that
// is in flight was sent.
func (s *Session) answerParked() error {
	for {
		s.mu.Lock()
		conn, polling := s.lease, s.class == upstream.Fetch && s.inFlight > 0
		s.mu.Unlock()
		if conn == nil || !polling {
			return nil
		}
		parked, busy := conn.Recall(func(p *upstream.Pending) bool {
			req, ok := p.Request.(*fetchRequest)
			return ok && (req.session != 0 || len(req.body) > 0)
		})
		if busy != nil {
			select {
			case <-busy:
			case <-s.life.Done():
				return context.Cause(s.life)
			}
			continue
		}
		if len(parked) == 0 {
			return nil
		}
		var err error
		for i := range parked {
			if err == nil {
				err = s.answerEmpty(&parked[i])
			}
			parked[i].Request.(*fetchRequest).free()
		}
		s.settle(len(parked))
		return err
	}
}

// answerEmpty answers a Fetch that was forwarded, without records.
func (s *Session) answerEmpty(p *upstream.Pending) error {
	req := p.Request.(*fetchRequest)
	resp := kmsg.NewPtrFetchResponse()
	resp.ThrottleMillis, resp.SessionID = req.throttle, req.session
	if len(req.body) > 0 {
		asked := kmsg.NewPtrFetchRequest()
		asked.Version = p.Version
		if err := decode(asked, req.body); err != nil {
			return fmt.Errorf("Fetch v%d: %w", p.Version, err)
		}
		for _, rt := range asked.Topics {
			resp.Topics = append(resp.Topics, refusedFetch(rt, 0))
		}
	}
	h := header{key: p.Key, version: p.Version, correlationID: p.CorrelationID, flexible: p.Version >= 12}
	if s.node.Observe != nil {
		s.node.Observe(p.Key, OK, time.Since(p.Begun))
	}
	return s.answer(&h, resp)
}

// untilLeaving is ctx until the session drains.
func (s *Session) untilLeaving(ctx context.Context) (waiting context.Context, stop func()) {
	waiting, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		select {
		case <-s.quit:
			cancel(errParked)
		case <-done:
			cancel(nil)
		}
	}()
	return waiting, func() { close(done) }
}
