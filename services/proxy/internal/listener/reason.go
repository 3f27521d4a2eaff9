package listener

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Reason is why a connection never became a session. The set is closed, so it
// can be a metric's label.
type Reason string

// The reasons.
const (
	ReasonAccept               Reason = "accept_failed"
	ReasonProxy                Reason = "bad_proxy_header"
	ReasonHandshake            Reason = "handshake_failed"
	ReasonNoHost               Reason = "no_host_name"
	ReasonUnknownHost          Reason = "unknown_host_name"
	ReasonUnauthenticated      Reason = "not_authenticated_in_time"
	ReasonUnauthenticatedLimit Reason = "unauthenticated_limit"
	ReasonAddressLimit         Reason = "address_limit"
	ReasonClusterLimit         Reason = "virtual_cluster_limit"
)

// closed is an error with its reason and what the log line adds.
type closed struct {
	reason Reason
	err    error
	hosts  []string
	of     int // number of known hosts, of which hosts is a part
}

func (c *closed) Error() string { return c.err.Error() }
func (c *closed) Unwrap() error { return c.err }

// notes logs one line per reason and second: whoever floods the gateway with
// bad connections does not also flood its log.
type notes struct {
	log *slog.Logger

	mu   sync.Mutex
	last map[Reason]note
}

type note struct {
	at         time.Time
	suppressed int
}

func (n *notes) warn(ctx context.Context, reason Reason, message string, args ...any) {
	now := time.Now()
	n.mu.Lock()
	if n.last == nil {
		n.last = make(map[Reason]note)
	}
	last := n.last[reason]
	if now.Sub(last.at) < time.Second {
		last.suppressed++
		n.last[reason] = last
		n.mu.Unlock()
		return
	}
	n.last[reason] = note{at: now}
	n.mu.Unlock()
	if last.suppressed > 0 {
		args = append(args, "suppressed", last.suppressed)
	}
	n.log.WarnContext(ctx, message, args...)
}
