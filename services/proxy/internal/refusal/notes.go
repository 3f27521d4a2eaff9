package refusal

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Notes are the lines about refusals in a log. Of one refusal in one place, such
// as a virtual cluster, there is a line a second, which says how many were left
// out: whoever floods the gateway with bad requests does not also flood its log.
type Notes struct {
	log *slog.Logger

	mu     sync.Mutex
	last   map[noteKey]note
	places int // how many there may be before those of old are forgotten
}

type noteKey struct {
	refusal *Refusal
	place   string
}

type note struct {
	at         time.Time
	suppressed int
}

// maxNotes is how many refusals in how many places are kept apart.
const maxNotes = 1 << 14

// NewNotes writes to log.
func NewNotes(log *slog.Logger) *Notes {
	return &Notes{log: log, last: make(map[noteKey]note), places: maxNotes}
}

// Write writes the line of [Log], unless one about the same refusal in the same
// place was written within the second.
func (n *Notes) Write(ctx context.Context, level slog.Level, msg, place string, err error, args ...any) {
	if !n.log.Enabled(ctx, level) {
		return
	}
	suppressed, due := n.due(noteKey{Of(err), place})
	if !due {
		return
	}
	if suppressed > 0 {
		args = append(args, "suppressed", suppressed)
	}
	Log(ctx, n.log, level, msg, err, args...)
}

// due reports whether a line is due, and how many there would have been since
// the last one.
func (n *Notes) due(k noteKey) (suppressed int, ok bool) {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	last, known := n.last[k]
	if known && now.Sub(last.at) < time.Second {
		last.suppressed++
		n.last[k] = last
		return 0, false
	}
	if !known && len(n.last) >= n.places {
		for old, l := range n.last {
			if now.Sub(l.at) >= time.Second {
				delete(n.last, old)
			}
		}
		if len(n.last) >= n.places {
			return 0, false // more than that in a second: the counts tell
		}
	}
	n.last[k] = note{at: now}
	return last.suppressed, true
}
