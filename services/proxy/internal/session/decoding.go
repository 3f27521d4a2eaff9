package session

import (
	"context"

	"tollgate.internal/services/proxy/internal/refusal"
)

const (
	// decodedFactor is how much more memory a request and its answer take than the
	// frame has bytes: an empty name is one byte long, and a string with what is
	// answered about it takes many.
	decodedFactor = 32
	// decodedFree is decoded without asking: it comes to little.
	decodedFree = 2 << 10
)

// reserveDecoding waits until there is memory to decode a request, and returns what
// gives it back. A request that could take more than there is in the whole node is
// refused, unless it is a Produce, most of which are records that stay where they
// are: such a one waits until it is alone.
func (s *Session) reserveDecoding(ctx context.Context, h *header, frame []byte) (release func(), err error) {
	b := s.node.Decoding
	if b == nil || len(frame) <= decodedFree {
		return func() {}, nil
	}
	n := int64(len(frame)) * decodedFactor
	if n > b.Limit() && h.key != keyProduce {
		return nil, refusal.TooLarge.Errorf("%d bytes, which may be %d when they are decoded", len(frame), n)
	}
	if err := b.Reserve(ctx, n); err != nil {
		return nil, err
	}
	done := false
	return func() {
		if !done {
			done = true
			b.Release(n)
		}
	}, nil
}

// waitsForOthers names requests that a broker answers when other members of the
// group have come too. Nearly all of them is bytes that are handed on.
func waitsForOthers(key int16) bool { return key == keyJoinGroup || key == keySyncGroup }
