package session

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/upstream"
	"tollgate.internal/services/proxy/internal/view"
)

// Limits of a share session.
const (
	// maxShareBytes is what one ShareFetch may bring: its answer is held whole. A
	// broker lowers the client's limit too (fetch.max.bytes), and returns the
	// first batch whatever its size.
	maxShareBytes = 8 << 20
	// maxShareWait is how long one ShareFetch may wait for records. Whether the
	// client is still there is seen only after that, and until then what it holds
	// stays locked. Clients wait for half a second by default.
	maxShareWait = 5 * time.Second
	// maxSharePartitions bounds what a share session remembers.
	maxSharePartitions = 100_000
)

// shareSession is the client's share session (KIP-932, PROTOCOL.md §B7). A broker
// binds it to the connection it was opened on and releases what was acquired when
// that ends, so it lives on a broker connection of its own, which is closed with
// the client's. As on a broker there is one for each connection.
type shareSession struct {
	conn       *upstream.Conn // nil: none was needed yet
	key        string         // group and member; "": no session is open
	topics     map[[16]byte]*shareTopic
	partitions int         // in topics
	table      *view.Table // by which topics were judged
	refused    int         // of topics, by that table
}

// shareTopic is a topic that the client has in its share session.
type shareTopic struct {
	physical   [16]byte // zero: never known
	partitions map[int32]struct{}
	held       bool  // the broker's session has them
	code       int16 // why not
}

func shareKey(group, member string) string { return group + "\x00" + member }

func (ss *shareSession) open(key string) {
	ss.forget()
	ss.key, ss.topics = key, make(map[[16]byte]*shareTopic)
}

func (ss *shareSession) forget() {
	*ss = shareSession{conn: ss.conn}
}

// close ends the broker connection and with it what the client has acquired.
func (ss *shareSession) close() {
	if ss.conn != nil {
		ss.conn.Close()
	}
	*ss = shareSession{}
}

// add puts a partition into the session; false: there are too many.
func (ss *shareSession) add(id [16]byte, partition int32) bool {
	st := ss.topics[id]
	if st == nil {
		st = &shareTopic{partitions: make(map[int32]struct{})}
		ss.topics[id] = st
		ss.table = nil // not judged yet
	}
	if _, ok := st.partitions[partition]; !ok {
		st.partitions[partition] = struct{}{}
		ss.partitions++
	}
	return ss.partitions <= maxSharePartitions
}

// remove takes a partition out of the session and reports its topic's physical id;
// false: the broker does not have it.
func (ss *shareSession) remove(id [16]byte, partition int32) ([16]byte, bool) {
	st := ss.topics[id]
	if st == nil {
		return id, false
	}
	if _, ok := st.partitions[partition]; !ok {
		return id, false
	}
	delete(st.partitions, partition)
	ss.partitions--
	if len(st.partitions) == 0 {
		if st.code != 0 {
			ss.refused--
		}
		delete(ss.topics, id)
	}
	return st.physical, st.held
}

// judge decides about every topic of the session again, if rights or metadata have
// changed: a topic that may not be read any more leaves the broker's session, one
// that may comes back (PROTOCOL.md §G3, vector 23).
func (ss *shareSession) judge(s *Session, t *view.Table) (join, leave []*shareTopic) {
	if ss.table == t {
		return nil, nil
	}
	ss.table, ss.refused = t, 0
	for id, st := range ss.topics {
		topic, code := s.topicByID(t, kmsg.ACLOperationRead, id)
		st.code = code
		switch {
		case code != 0:
			ss.refused++
			if st.held {
				leave = append(leave, st)
			}
			st.held = false
		case !st.held:
			st.physical, st.held = topic.Physical.ID, true
			join = append(join, st)
		}
	}
	return join, leave
}

// virtualID maps an id of the broker's answer back.
func (ss *shareSession) virtualID(t *view.Table, physical [16]byte) ([16]byte, *view.Topic, bool) {
	if topic := t.GroupedByID(physical); topic != nil {
		return topic.ID, topic, true
	}
	for id, st := range ss.topics { // deleted a moment ago
		if st.physical == physical {
			return id, nil, true
		}
	}
	return physical, nil, false
}

// shareRequest sends req on the connection that the share session is bound to. An
// error ends the session of the client: its share session is lost, and with the
// connection it learns so.
func (s *Session) shareRequest(ctx context.Context, t *view.Table, limit time.Duration, req kmsg.Request) (kmsg.Response, error) {
	if s.share.conn == nil {
		conn, err := s.vc.Home.Lease(ctx, s.near(t, t.Home), upstream.Share)
		if err != nil {
			s.vc.Home.MarkStale()
			return nil, err
		}
		s.share.conn = conn
	}
	resp, err := s.share.conn.RoundTrip(ctx, s.clientID(), req, limit)
	if err != nil {
		s.vc.Home.MarkStale()
	}
	return resp, err
}

// assigned finds a topic that a coordinator has assigned. It may have learned of it
// before the metadata here did.
func (s *Session) assigned(ctx context.Context, t *view.Table, physical [16]byte) *view.Topic {
	if topic := t.GroupedByID(physical); topic != nil {
		return topic
	}
	if t, err := s.vc.Fresh(ctx, 0); err == nil {
		return t.GroupedByID(physical)
	}
	return nil
}

// shareTable is the view of now; one that has the topics, if there is such a one.
func (s *Session) shareTable(ctx context.Context, topics []kmsg.ShareFetchRequestTopic) (*view.Table, error) {
	t, err := s.table(ctx)
	if err != nil {
		return nil, err
	}
	for _, rt := range topics {
		if t.TopicByID(rt.TopicID) == nil {
			s.vc.Home.MarkStale()
			return s.vc.Fresh(ctx, metadataAge)
		}
	}
	return t, nil
}
