package session

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"

	"tollgate.internal/services/proxy/internal/netio"
	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/wire"
)

// An answer to Fetch is walked as it arrives: ids, node ids and the session id are
// patched where they are, names are exchanged, and record bytes pass by. A large
// answer leaves in pieces, and a slow client holds back its broker connection, not
// memory. Its size comes first (PROTOCOL.md §D1), so names can be exchanged on the
// way only where the size can be told from the number of topics; other answers are
// held whole, in a budget, and kept small by the request (maxHeldAnswer).

const (
	// wholeAnswer is up to which size an answer leaves in one piece.
	wholeAnswer = 128 << 10
	// pieceSize is how much of a larger one is gathered before it is passed on, and
	// readSize how much room the broker's next bytes get.
	pieceSize = 64 << 10
	readSize  = 112 << 10
	// maxTag bounds a tagged field; the largest names every broker of a cluster.
	maxTag = 1 << 20
)

var errClientGone = errors.New("the client left while its answer was under way")

// fetchWalk is one answer under way.
type fetchWalk struct {
	s        *Session
	conn     *upstream.Conn
	r        *netio.Reader
	req      *fetchRequest
	version  int16
	flexible bool
	size     int // of the frame that the client gets
	left     int // bytes of the broker's frame, counted from the begin of c.B
	from     int // c.B before it is in down
	begun    bool
	c        wire.Cursor // over what is here of the frame
}

// fetchAnswer maps a broker's answer and counts what the client is sent.
func (s *Session) fetchAnswer(conn *upstream.Conn, r *netio.Reader, size int, p *upstream.Pending) error {
	req := p.Request.(*fetchRequest)
	defer req.free()
	w := fetchWalk{s: s, conn: conn, r: r, req: req, version: p.Version, flexible: p.Version >= 12, size: size, left: size}
	if size <= wholeAnswer {
		if _, err := r.Frame(int32(size)); err != nil {
			return err
		}
	}
	w.window()
	if err := w.walk(); err != nil {
		if w.begun {
			s.fail(brokenAnswer(err))
		}
		return err
	}
	return nil
}

// window looks at what the reader has of the frame.
func (w *fetchWalk) window() {
	b := w.r.Bytes()
	w.c.B = b[:min(len(b), w.left)]
}

// need waits until the next n bytes of the frame are here, or all that is left.
func (w *fetchWalk) need(n int) error {
	n = min(n, w.left-w.c.Pos)
	for len(w.c.B)-w.c.Pos < n {
		if err := w.fill(n); err != nil {
			return err
		}
	}
	return nil
}

// fill reads more of the frame. What lies before the cursor may leave.
func (w *fetchWalk) fill(n int) error {
	if w.c.Pos >= pieceSize || w.s.down.References() {
		if err := w.pass(); err != nil {
			return err
		}
	}
	err := w.r.Fill(max(w.c.Pos+n, min(w.left, readSize)))
	w.conn.Progress()
	w.window()
	return err
}

// pass sends what lies before the cursor to the client and forgets it.
func (w *fetchWalk) pass() error {
	s := w.s
	if !w.begun {
		w.begun = true
		s.down.EndAt(w.size)
	}
	s.down.Append(w.c.B[w.from:w.c.Pos])
	s.writeDown(w.conn)
	if s.err() != nil && w.left > pieceSize {
		return errClientGone
	}
	w.r.Discard(w.c.Pos)
	w.left -= w.c.Pos
	w.c.Pos, w.from = 0, 0
	w.window()
	return nil
}

// skip passes n bytes.
func (w *fetchWalk) skip(n int) error {
	if n > w.left-w.c.Pos {
		return wire.ErrShort
	}
	for {
		k := min(n, len(w.c.B)-w.c.Pos)
		w.c.Pos += k
		if n -= k; n == 0 {
			return nil
		}
		if err := w.fill(1); err != nil {
			return err
		}
	}
}

// length reads the length of an array or of bytes, -1: null.
func (w *fetchWalk) length() (int, error) {
	if err := w.need(5); err != nil {
		return 0, err
	}
	n := 0
	if w.flexible {
		n = int(w.c.Uvarint()) - 1
	} else {
		n = int(w.c.Int32())
	}
	if n > w.left-w.c.Pos {
		return 0, wire.ErrShort
	}
	return n, w.c.Err
}

func (w *fetchWalk) walk() error {
	s := w.s
	if err := w.need(32); err != nil { // the longest of what precedes the topics
		return err
	}
	w.c.Pos = 8
	if w.flexible && w.c.Tags() {
		return errors.New("tags in the header")
	}
	raise(w.c.Skip(4), max(w.req.throttle, s.fetched(w.size)))
	if w.version >= 7 {
		code := w.c.Int16()
		at := w.c.Pos
		id := w.c.Int32()
		if w.c.Err != nil {
			return w.c.Err
		}
		binary.BigEndian.PutUint32(w.c.B[at:], uint32(s.clientSession(w.req, code, id)))
	}
	topics, err := w.length()
	if err != nil {
		return err
	}
	if w.version <= 12 && topics > 0 {
		growth, ok := w.req.topics.uniform()
		w.size += topics * growth
		if !ok && len(w.c.B) < w.left {
			size := int64(w.left)
			w.conn.Handing(true)
			err := s.answerMemory.Reserve(s.life, size)
			w.conn.Handing(false)
			if err != nil {
				return err
			}
			defer func() {
				s.writeDown(w.conn)
				s.answerMemory.Release(size)
			}()
			if err := w.need(w.left); err != nil {
				return err
			}
		}
	}
	s.down.Begin()
	w.from = 4
	for range topics {
		if err := w.topic(); err != nil {
			return err
		}
	}
	if w.flexible {
		if err := w.tags(w.endTag); err != nil {
			return err
		}
	}
	if w.c.Pos != w.left {
		return wire.ErrShort
	}
	s.down.Append(w.c.B[w.from:w.c.Pos])
	if !w.begun {
		s.down.End()
	}
	if w.begun || s.down.References() {
		s.writeDown(w.conn) // before the frame's memory is gone
	}
	w.r.Discard(w.left)
	return nil
}

// topic maps one topic with its partitions.
func (w *fetchWalk) topic() error {
	if err := w.need(16); err != nil {
		return err
	}
	at := w.c.Pos
	var a *topicAccess
	if w.version >= 13 {
		id := w.c.Skip(16)
		if a = w.req.topics.identified(id); a != nil {
			copy(id, a.topic.ID[:])
		}
	} else {
		n := 0
		if w.flexible {
			n = int(w.c.Uvarint()) - 1
		} else {
			n = int(w.c.Int16())
		}
		prefix := w.c.Pos - at
		w.c.Pos = at
		if err := w.need(prefix + n); err != nil {
			return err
		}
		at = w.c.Pos
		w.c.Skip(prefix)
		if a = w.req.topics.named(w.c.Skip(n)); a != nil {
			w.s.down.Append(w.c.B[w.from:at])
			w.s.down.String(w.flexible, "", a.topic.Name)
			w.from = w.c.Pos
		}
	}
	if w.c.Err != nil {
		return w.c.Err
	}
	if a == nil {
		return errForeign
	}
	partitions, err := w.length()
	if err != nil {
		return err
	}
	count := sent{counter: a.fetched}
	for range partitions {
		if err := w.partition(&count); err != nil {
			return err
		}
	}
	if count.bytes > 0 {
		w.s.sent = append(w.s.sent, count)
	}
	if w.flexible {
		return w.tags(nil)
	}
	return nil
}

func (w *fetchWalk) partition(count *sent) error {
	if err := w.need(4 + 2 + 8 + 8 + 8); err != nil {
		return err
	}
	w.c.Skip(4) // index
	if code := w.c.Int16(); code != 0 {
		w.s.noteError(code)
	}
	w.c.Skip(8 + 8) // high watermark, last stable offset
	if w.version >= 5 {
		w.c.Skip(8) // log start offset
	}
	if w.c.Err != nil {
		return w.c.Err
	}
	aborted, err := w.length()
	if err != nil {
		return err
	}
	for range aborted {
		if err := w.skip(8 + 8); err != nil { // producer id, first offset
			return err
		}
		if w.flexible {
			if err := w.tags(nil); err != nil {
				return err
			}
		}
	}
	if w.version >= 11 {
		if err := w.need(4); err != nil {
			return err
		}
		at := w.c.Pos
		if node := w.c.Int32(); w.c.Err == nil && node >= 0 { // preferred read replica
			binary.BigEndian.PutUint32(w.c.B[at:], uint32(w.req.member.VirtualNode(node)))
		}
	}
	n, err := w.length()
	if err != nil {
		return err
	}
	if err := w.records(n, count); err != nil {
		return err
	}
	if w.flexible {
		return w.tags(w.partitionTag)
	}
	return nil
}

// records passes n bytes of record batches and counts them.
func (w *fetchWalk) records(n int, count *sent) error {
	count.bytes += int64(max(n, 0))
	for n > 0 {
		if err := w.need(min(n, wire.BatchHeader)); err != nil {
			return err
		}
		b := w.c.B[w.c.Pos:]
		size, records := wire.Batch(b[:min(n, len(b))])
		if size == 0 || size > n {
			return w.skip(n) // a batch cut short at the end of a fetch
		}
		count.records += records
		if err := w.skip(size); err != nil {
			return err
		}
		n -= size
	}
	return nil
}

// tags passes a tag section. known returns a tag's bytes as the client gets them,
// nil for a tag that is not known. What is not known is dropped; in a frame that is
// not all here, and whose size is therefore told, it becomes a tag that clients do
// not know either (PROTOCOL.md §D3), as does what changed its length. A tag that is
// known and malformed sets c.Err.
func (w *fetchWalk) tags(known func(tag uint32, body []byte) []byte) error {
	if err := w.need(5); err != nil {
		return err
	}
	begin := w.c.Pos
	n := w.c.Uvarint()
	if n == 0 {
		return w.c.Err
	}
	whole := !w.begun && len(w.c.B) == w.left
	count, kept := uint32(0), []byte(nil)
	for range n {
		if err := w.need(10); err != nil {
			return err
		}
		at := w.c.Pos
		tag, size := w.c.Uvarint(), w.c.Uvarint()
		if w.c.Err != nil || size > maxTag {
			return wire.ErrShort
		}
		prefix := w.c.Pos - at
		w.c.Pos = at
		if err := w.need(prefix + int(size)); err != nil {
			return err
		}
		at = w.c.Pos
		w.c.Skip(prefix)
		body := w.c.Skip(int(size))
		if w.c.Err != nil {
			return w.c.Err
		}
		var mapped []byte
		if known != nil {
			if mapped = known(tag, body); w.c.Err != nil {
				return w.c.Err
			}
		}
		switch {
		case whole && mapped != nil:
			count++
			kept = binary.AppendUvarint(kept, uint64(tag))
			kept = binary.AppendUvarint(kept, uint64(len(mapped)))
			kept = append(kept, mapped...)
		case whole:
		case len(mapped) == len(body):
			copy(body, mapped)
		default:
			for ; w.c.B[at] >= 0x80; at++ {
				w.c.B[at] = 0xff
			}
			w.c.B[at] = 0x7f
			clear(body)
		}
	}
	if whole {
		down := &w.s.down
		down.Append(w.c.B[w.from:begin])
		down.Uvarint(count)
		down.Copy(kept)
		w.from = w.c.Pos
	}
	return w.c.Err
}

// partitionTag maps 0 DivergingEpoch {epoch int32, end offset int64}, 1 CurrentLeader
// {leader int32, epoch int32} and 2 SnapshotId {end offset int64, epoch int32}.
func (w *fetchWalk) partitionTag(tag uint32, body []byte) []byte {
	size := 12
	if tag == 1 {
		size = 8
	}
	if tag > 2 {
		return nil
	}
	c := wire.Cursor{B: body}
	c.Skip(size)
	if c.Tags(); c.Err != nil || c.Pos != len(body) {
		w.c.Err = wire.ErrShort
		return nil
	}
	out := append(make([]byte, 0, 13), body[:size]...)
	if tag == 1 {
		if node := int32(binary.BigEndian.Uint32(out)); node >= 0 {
			binary.BigEndian.PutUint32(out, uint32(w.req.member.VirtualNode(node)))
		}
	}
	return append(out, 0) // no tags
}

// endTag maps 0 NodeEndpoints. CurrentLeader stands also without it.
func (w *fetchWalk) endTag(tag uint32, body []byte) []byte {
	if tag != 0 {
		return nil
	}
	c := wire.Cursor{B: body}
	n := max(c.Len(true), 0)
	out := binary.AppendUvarint(nil, uint64(n+1))
	for range n {
		vnode := w.req.member.VirtualNode(c.Int32())
		c.String(true) // host
		c.Int32()      // port
		rack := c.String(true)
		c.Tags()
		host, port := w.s.client.Advertise(vnode)
		out = binary.BigEndian.AppendUint32(out, uint32(vnode))
		out = append(binary.AppendUvarint(out, uint64(len(host)+1)), host...)
		out = binary.BigEndian.AppendUint32(out, uint32(port))
		if rack == nil {
			out = append(out, 0)
		} else {
			out = append(binary.AppendUvarint(out, uint64(len(rack)+1)), rack...)
		}
		out = append(out, 0) // no tags
	}
	if c.Err != nil || c.Pos != len(body) {
		w.c.Err = wire.ErrShort
		return nil
	}
	return out
}

// clientSession is the id the client knows the broker's session by.
func (s *Session) clientSession(req *fetchRequest, code int16, id int32) int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if code != 0 || id == 0 {
		if code != 0 || req.fresh {
			s.fetch.client, s.fetch.broker = 0, 0
		}
		return 0
	}
	if s.fetch.broker != id {
		s.fetch.broker = id
		s.fetch.client = 1 + rand.Int32N(1<<31-1)
	}
	return s.fetch.client
}
