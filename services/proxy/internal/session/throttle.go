package session

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/quota"
	"tollgate.internal/services/proxy/internal/refusal"
)

// Throttling (KIP-219, PROTOCOL.md §E): a request over quota is served and answered
// at once; the answer tells for how long the client is not read from now on. What
// the broker asks for itself is passed to the request it was meant for.

// charge counts a request against the quotas of the virtual cluster and of the service
// account. Frames are what producers pay for, as on a broker; fetched bytes are charged
// when they come.
func (s *Session) charge(h *header, size int) {
	s.throttle = 0
	if s.principal == "" || h.key == keySASLHandshake || h.key == keySASLAuthenticate {
		return
	}
	q, own := s.vc.Quotas, s.account.Load()
	rate, d := quota.Requests, q.Requests.Take(1)
	if own != nil {
		d = max(d, own.Requests.Take(1))
	}
	if h.key == keyProduce {
		bytes := q.Produce.Take(size)
		if own != nil {
			bytes = max(bytes, own.Produce.Take(size))
		}
		if bytes > d {
			rate, d = quota.Produce, bytes
		}
	}
	if d > 0 {
		s.throttle = s.delay(rate, d)
	}
}

// chargeFetched counts bytes that the client is being sent, by the goroutine that
// reads the client.
func (s *Session) chargeFetched(bytes int64) {
	s.throttle = max(s.throttle, s.fetched(int(bytes)))
}

// fetched counts bytes that the client is being sent, and returns what it is told.
func (s *Session) fetched(bytes int) int32 {
	d := s.vc.Quotas.Fetch.Take(bytes)
	if own := s.account.Load(); own != nil {
		d = max(d, own.Fetch.Take(bytes))
	}
	return s.delay(quota.Fetch, d)
}

// fetchAtOnce is how many bytes may be asked for in one request.
func (s *Session) fetchAtOnce(most int32) int32 {
	if own := s.account.Load(); own != nil {
		most = own.Fetch.AtOnce(most)
	}
	return s.vc.Quotas.Fetch.AtOnce(most)
}

// rushWait is how long a client is not read at most because others have logged in as
// the same account too fast.
const rushWait = 2 * time.Second

// countIn counts the connection as one of its service account.
func (s *Session) countIn(ctx context.Context, account string) error {
	own := s.vc.Account(account)
	if own == nil {
		return nil
	}
	wait, ok := own.Connects.TakeWithin(1, rushWait)
	if !ok {
		return refusal.TooFastForAccount.Errorf("%s", account)
	}
	if !own.Connections.Enter(ctx) {
		return refusal.TooManyOfAccount.Errorf("%s", account)
	}
	s.seat = own
	s.delay(quota.Connects, wait)
	return nil
}

// delay keeps the client from being read for d, and returns what it is told.
func (s *Session) delay(rate int, d time.Duration) int32 {
	if d <= 0 {
		return 0
	}
	s.vc.Quotas.Throttled.Add(rate, d)
	until := int64(time.Since(s.born) + d)
	for {
		muted := s.muted.Load()
		if muted >= until || s.muted.CompareAndSwap(muted, until) {
			return quota.Told(d)
		}
	}
}

// raise sets a throttle_time_ms in a frame, unless the broker's is longer; a negative
// one becomes none.
func raise(field []byte, millis int32) {
	if len(field) == 4 && int32(binary.BigEndian.Uint32(field)) < millis {
		binary.BigEndian.PutUint32(field, uint32(millis))
	}
}

// tell puts the throttle time of the request being taken into its answer.
func (s *Session) tell(resp kmsg.Response) {
	if s.throttle == 0 {
		return
	}
	if now, ok := resp.(kmsg.ThrottleResponse); ok {
		if millis, _ := now.Throttle(); millis >= s.throttle {
			return
		}
	}
	if r, ok := resp.(kmsg.SetThrottleResponse); ok {
		r.SetThrottle(s.throttle)
	}
}

// unmuted waits until the client may be read again. It ends early when the session
// is to end.
func (s *Session) unmuted(ctx context.Context) error {
	for {
		muted := s.muted.Load()
		if muted == 0 {
			return nil
		}
		wait := time.Duration(muted) - time.Since(s.born)
		if wait <= 0 {
			s.muted.CompareAndSwap(muted, 0)
			continue
		}
		if err := s.sendUp(); err != nil {
			return err
		}
		if s.muting == nil {
			s.muting = time.NewTimer(wait)
		} else {
			s.muting.Reset(wait)
		}
		select {
		case <-s.muting.C:
		case <-s.quit:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
