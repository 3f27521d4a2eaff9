package session

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/wire"
)

// Reading the tags of a request, kmsg believes their number before it sees whether
// there are any bytes left: a frame of twenty bytes that speaks of four billion tags
// keeps a core busy for minutes. Where tags begin only the schema knows, and kmsg
// keeps that to itself. So a request with a number in it that its size belies is
// tried first with those bytes exchanged for others: it must be as long as before.
// In an integer or in records the exchange changes no length, in a number of tags
// it does, but for one time in a hundred.
const (
	manyTags = 1 << 21 // that many take kmsg some ten milliseconds
	tries    = 4
)

// decode reads the body of a request whose version is set.
func decode(req kmsg.Request, body []byte) error {
	if req.IsFlexible() {
		if high := belied(body); len(high) > 0 {
			for range tries {
				if !survives(req, body, high) {
					return wire.ErrShort
				}
			}
		}
	}
	return req.ReadFrom(body)
}

// belied are where the leading bytes are of what could be a number larger than body,
// with those before them: left there they would lead up to another.
func belied(body []byte) (high []int) {
	for i := 0; i < len(body); i++ {
		begin := i
		for i < len(body) && body[i] >= 0x80 {
			i++
		}
		if i == begin || i == len(body) {
			continue
		}
		v, _ := binary.Uvarint(body[max(begin, i-4) : i+1]) // the largest that ends here
		if v >= manyTags && v > uint64(len(body)) {
			// The last two may begin a length, which must stay: -1 and a note of 200
			// bytes are FF FF FF FF C8 01. Numbers of tags this large have three.
			for at := begin; at < i-2; at++ {
				high = append(high, at)
			}
		}
	}
	return high
}

// survives reports whether req is of the length of body when those bytes of it are
// others.
func survives(req kmsg.Request, body []byte, high []int) bool {
	body = slices.Clone(body)
	for _, i := range high {
		body[i] = byte(rand.IntN(0x80))
	}
	probe := kmsg.RequestForKey(req.Key())
	probe.SetVersion(req.GetVersion())
	return probe.ReadFrom(body) == nil && len(probe.AppendTo(nil)) == len(body)
}

// walkUnauthenticated passes over a request that strangers may send. The decoder
// counts down the tags that a section announces, up to four thousand million of
// them, whether they are there or not.
func walkUnauthenticated(h *header, frame []byte) error {
	c := wire.Cursor{B: frame, Pos: h.body}
	switch {
	case !h.flexible:
	case h.key == keyApiVersions:
		c.String(true) // software
		c.String(true) // and its version
		c.Tags()
	case h.key == keySASLAuthenticate:
		c.Records(true)
		c.Tags()
	}
	return c.Err
}
