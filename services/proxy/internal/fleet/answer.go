package fleet

import (
	"context"
	"time"

	board "tollgate.internal/pkg/fleet"
)

// maxQuestions is how many may wait to be answered. More are not answered: who asks is
// told that this node did not.
const maxQuestions = 16

// answer answers questions about sessions, one after the other, until ctx ends.
func (r *Redis) answer(ctx context.Context, self Self) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-r.questions:
			if err := r.answerOne(ctx, self, c); err != nil && ctx.Err() == nil {
				r.log.Warn("a question about sessions is not answered", "err", err)
			}
		}
	}
}

func (r *Redis) answerOne(ctx context.Context, self Self, c board.Command) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if c.Ask == nil {
		return nil
	}
	// It may have been asked while this node was away, or be somebody's repetition.
	awaited, err := r.reader.Awaited(ctx, c.ID)
	if err != nil || !awaited {
		return err
	}
	began := time.Now()
	a := board.Answer{Node: r.options.Node.ID}
	if c.Action == board.CloseSession {
		a.Closed = self.CloseSession(c.Ask.Session)
		r.log.Info("session closed, as the portal says", "session", c.Ask.Session, "found", a.Closed)
	} else {
		ask := *c.Ask
		ask.Limit = max(0, min(ask.Limit, board.MaxSessions))
		a.Sessions, a.Total = self.Sessions(ask)
		r.log.Debug("told of sessions", "sessions", len(a.Sessions), "of", a.Total, "took", time.Since(began))
	}
	return r.reader.Answer(ctx, c.ID, a)
}
