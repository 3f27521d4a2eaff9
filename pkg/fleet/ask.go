package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Sessions are kept nowhere: who wants to know of them asks the nodes, by a [Command],
// and they answer into a list that is there for as long as somebody waits. A node that
// reads the question later (it was away) finds no list, and does nothing.

// Ask is a question about sessions, beside the Command that carries it. Empty fields
// mean all.
type Ask struct {
	Session        string `json:"session,omitempty"` // by its id
	Tenant         string `json:"tenant,omitempty"`
	VirtualCluster string `json:"virtualCluster,omitempty"`
	Principal      string `json:"principal,omitempty"`
	Limit          int    `json:"limit"` // of sessions that one node tells of
}

// MaxSessions is the most that one node tells of.
const MaxSessions = 1000

// Session is one client connection.
type Session struct {
	ID              string    `json:"id"` // of its own, in the whole fleet
	Tenant          string    `json:"tenant"`
	VirtualCluster  string    `json:"virtualCluster"`
	Principal       string    `json:"principal,omitempty"` // empty: it has not logged in yet
	Mechanism       string    `json:"mechanism,omitempty"`
	ClientID        string    `json:"clientId,omitempty"`
	Software        string    `json:"software,omitempty"` // as the client says (KIP-511)
	SoftwareVersion string    `json:"softwareVersion,omitempty"`
	Address         string    `json:"address"`
	Since           time.Time `json:"since"`       // by the node's clock, as is the next
	LastRequest     time.Time `json:"lastRequest"` // to about a second
	Requests        uint64    `json:"requests"`
	BytesIn         uint64    `json:"bytesIn"` // from the client, on the wire
	BytesOut        uint64    `json:"bytesOut"`
}

// CompareSessions is the order in which sessions are told of.
func CompareSessions(a, b Session) int {
	return cmp.Or(
		cmp.Compare(a.VirtualCluster, b.VirtualCluster), cmp.Compare(a.Principal, b.Principal), a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID),
	)
}

// Answer is what a node says.
type Answer struct {
	Node     string    `json:"node"`
	Sessions []Session `json:"sessions,omitempty"` // the first of them, in the order of CompareSessions
	Total    int       `json:"total"`              // that were asked about
	Closed   bool      `json:"closed,omitempty"`   // one was, as it was told
}

const (
	// answersTTL is when answers are forgotten that nobody has read.
	answersTTL = 10 * time.Second
	// maxAnswerBytes bounds one.
	maxAnswerBytes = 1 << 20
	// answerEvery is how often who waits for answers looks.
	answerEvery = 5 * time.Millisecond
)

// Ask asks the nodes that are named, which the command is for, and returns what they
// answer within patience. A node that does not is missing.
func (p *Publisher) Ask(ctx context.Context, c Command, nodes []string, patience time.Duration) (map[string]Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience+ioTimeout)
	defer cancel()
	c.ID = rand.Text()
	key := p.deployment.answers(c.ID)
	if err := p.client.Eval(ctx, awaitScript, []string{key}, answersTTL.Milliseconds()).Err(); err != nil {
		return nil, explain("write", key, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ioTimeout)
		defer cancel()
		_ = p.client.Del(ctx, key).Err() // it expires
	}()
	if err := p.Send(ctx, c); err != nil {
		return nil, err
	}
	answers := make(map[string]Answer, len(nodes))
	tick := time.NewTicker(answerEvery)
	defer tick.Stop()
	over := time.NewTimer(patience)
	defer over.Stop()
	for seen, last := int64(1), false; ; { // behind what awaitScript put there
		texts, err := p.client.LRange(ctx, key, seen, -1).Result()
		if err != nil {
			return nil, explain("read", key, err)
		}
		seen += int64(len(texts))
		for _, text := range texts {
			// What is no answer is nobody's.
			if a, err := decodeAnswer(text); err == nil && slices.Contains(nodes, a.Node) {
				answers[a.Node] = a
			}
		}
		if len(answers) == len(nodes) || last {
			return answers, nil
		}
		select {
		case <-tick.C:
		case <-over.C:
			last = true
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func decodeAnswer(text string) (Answer, error) {
	var a Answer
	if len(text) > maxAnswerBytes {
		return a, fmt.Errorf("answer of %d bytes", len(text))
	}
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return Answer{}, fmt.Errorf("answer: %w", err)
	}
	return a, nil
}

// Awaited reports whether somebody waits for answers to a command.
func (r *Reader) Awaited(ctx context.Context, command string) (bool, error) {
	key := r.deployment.answers(command)
	n, err := r.client.Exists(ctx, key).Result()
	if err != nil {
		return false, explain("read", key, err)
	}
	return n > 0, nil
}

// Answer answers a command, if somebody still waits. An answer that would be too large
// is cut.
func (r *Reader) Answer(ctx context.Context, command string, a Answer) error {
	data, err := json.Marshal(a)
	for err == nil && len(data) > maxAnswerBytes {
		a.Sessions = a.Sessions[:len(a.Sessions)/2]
		data, err = json.Marshal(a)
	}
	if err != nil {
		return fmt.Errorf("encode answer of node %s: %w", a.Node, err)
	}
	key := r.deployment.answers(command)
	if err := r.client.RPushX(ctx, key, data).Err(); err != nil {
		return explain("write", key, err)
	}
	return nil
}
