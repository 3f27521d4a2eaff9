package session

import (
	"context"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/view"
	"tollgate.internal/services/proxy/internal/wire"
)

// group is the name a group has on home.
func group(t *view.Table, name string) string { return t.View.Prefix + name }

// ungroup maps a group of home back; false: another tenant's, or nobody's.
func ungroup(t *view.Table, name string) (string, bool) {
	return strings.CutPrefix(name, t.View.Prefix)
}

// tableFor is the view of now for a request to a coordinator, if refuse lets the
// client do op with the group or transactional id of that name; else why not.
func (s *Session) tableFor(ctx context.Context, refuse func(*view.Table, kmsg.ACLOperation, string) error, op kmsg.ACLOperation, name string) (t *view.Table, why error) {
	t, err := s.table(ctx)
	if err != nil {
		return nil, refusal.CoordinatorUnavailable.With(err)
	}
	return t, refuse(t, op, name)
}

// subscription rewrites the topic names inside a consumer's JoinGroup metadata or
// SyncGroup assignment: version, topics (an assignment has partitions with each),
// user data, and from subscription version 1 the owned partitions (PROTOCOL.md
// §B5). What follows is copied. Bytes that are not such a structure are left as
// they are: the coordinator does not read them either.
func subscription(b []byte, assignment bool, rename func(string) (string, bool)) []byte {
	c := wire.Cursor{B: b}
	version := c.Int16()
	out := append([]byte(nil), b[:min(2, len(b))]...)
	topicList := func(partitions bool) bool {
		n := c.Len(false)
		if c.Err != nil || n < 0 {
			return false
		}
		at := len(out)
		out = append(out, 0, 0, 0, 0)
		kept := 0
		for range n {
			name := c.String(false)
			if c.Err != nil || name == nil {
				return false
			}
			from := c.Pos
			if partitions {
				c.Skip(4 * max(c.Len(false), 0))
			}
			if c.Err != nil {
				return false
			}
			to, ok := rename(string(name))
			if !ok {
				continue
			}
			kept++
			out = append(out, byte(len(to)>>8), byte(len(to)))
			out = append(out, to...)
			out = append(out, b[from:c.Pos]...)
		}
		out[at], out[at+1], out[at+2], out[at+3] = byte(kept>>24), byte(kept>>16), byte(kept>>8), byte(kept)
		return true
	}
	if !topicList(assignment) {
		return b
	}
	from := c.Pos
	c.Records(false) // user data travels between clients in virtual names
	if c.Err != nil {
		// Assignments may end here; a subscription without user data too.
		return append(out, b[from:]...)
	}
	out = append(out, b[from:c.Pos]...)
	if !assignment && version >= 1 {
		if c.Pos == len(b) || !topicList(true) {
			return b
		}
	}
	return append(out, b[c.Pos:]...)
}

// toGrouped names a topic as home's coordinators know it.
func toGrouped(t *view.Table) func(string) (string, bool) {
	return func(name string) (string, bool) { return t.GroupName(name), true }
}
