package fleet

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	board "tollgate.internal/pkg/fleet"
)

// membership is what a node knows of the others.
//
// A node is believed to be there until its heartbeats have not changed for
// board.NodeTTL, and longer where Redis takes its time, by the clock of the one who looks and while it can look: a Redis that
// lost its records, or was away, does not make a fleet of one. A node that says it is
// gone is gone.
type membership struct {
	id string

	mu      sync.Mutex // guards those below
	self    Self       // nil: not joined
	known   map[string]known
	nodes   []board.Node // as they were last seen, by id
	members []Member
	changed chan struct{}
	taken   *board.Node // who has this node's id
	err     error       // of the last heartbeat
}

// known is a node, and when there was last news of it.
type known struct {
	board.Node
	at time.Time
}

func newMembership(id string) *membership {
	return &membership{id: id, known: make(map[string]known), changed: make(chan struct{})}
}

// Members are the live nodes.
func (r *Redis) Members() (members []Member, changed <-chan struct{}) {
	m := r.members
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.members, m.changed
}

// Nodes are the live nodes with everything they say, as they were last seen.
func (r *Redis) Nodes() []board.Node {
	m := r.members
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.nodes)
}

func (m *membership) takenBy() *board.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.taken
}

func (m *membership) beatErr() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

func (m *membership) obey(c board.Command) {
	m.mu.Lock()
	self := m.self
	m.mu.Unlock()
	switch {
	case self == nil:
	case c.Action == board.Drain:
		self.Drain(c.Over)
	case c.Action == board.Undrain:
		self.Undrain()
	}
}

// beatSoon bounds how often heartbeats come early.
const beatSoon = 100 * time.Millisecond

// Join makes the node a member, and follows who the others are, until ctx ends. It
// leaves then. A node id that another process has stays that one's for as long as it
// lives: this node serves who comes, is not in the maps of the others, says so, and
// joins when the id is free.
func (r *Redis) Join(ctx context.Context, self Self) {
	r.members.mu.Lock()
	r.members.self = self
	r.members.mu.Unlock()
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() { r.answer(ctx, self) })
	// Beside the heartbeats: they come no later because looking takes its time.
	others.Go(func() { r.lookAround(ctx, self) })
	for ctx.Err() == nil {
		t := newTact()
		report, changed := self.Report()
		_ = r.beat(ctx, report) // Problem has it
		t.wait(ctx, changed, r.woken)
	}
	report, _ := self.Report()
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit)
	defer cancel()
	if err := r.reader.Leave(leaving, r.record(report), r.disk.owner); err != nil {
		r.log.Warn("the others are not told that the node leaves: they notice", "err", err)
	}
}

// lookAround follows who the others are until ctx ends.
func (r *Redis) lookAround(ctx context.Context, self Self) {
	var lost bool // the last look failed
	for ctx.Err() == nil {
		t := newTact()
		report, changed := self.Report()
		if nodes, err := r.nodes(ctx); err == nil {
			r.members.saw(r.record(report), nodes, time.Now(), lost, r.credit())
			lost = false
		} else {
			r.members.saw(r.record(report), nil, time.Time{}, true, 0)
			lost = true
		}
		t.wait(ctx, changed, nil)
	}
}

// credit is for how long a node is believed to be there after its heartbeat: longer
// where those, and news of them, come late.
func (r *Redis) credit() time.Duration {
	return board.NodeTTL + 2*min(r.pace.Answered(), askMost)
}

// tact is the time from one heartbeat to the next, and from one look to the next: news
// have it come early, but not more often than beatSoon.
type tact struct{ soonest, latest *time.Timer }

func newTact() tact { return tact{time.NewTimer(beatSoon), time.NewTimer(board.HeartbeatEvery)} }

func (t tact) wait(ctx context.Context, news ...<-chan struct{}) {
	defer t.soonest.Stop()
	defer t.latest.Stop()
	select {
	case <-ctx.Done():
	case <-news[0]:
	case <-news[1]: // perhaps nil
	case <-t.latest.C:
	}
	select {
	case <-ctx.Done():
	case <-t.soonest.C:
	}
}

// record is what the node says of itself.
func (r *Redis) record(report Report) board.Node {
	n := r.options.Node
	n.State, n.Sessions, n.Load, n.Weight = board.NodeState(report.State), report.Sessions, report.Load, report.Weight
	n.Heartbeat, n.Lasts = time.Now().Round(0), r.credit()
	if problem := r.Problem(); problem != nil {
		n.Problem = problem.Error()
		if len(n.Problem) > maxProblem {
			n.Problem = strings.ToValidUTF8(n.Problem[:maxProblem], "") + " …"
		}
	}
	r.mu.Lock()
	n.Applied, n.Head = r.applied, r.heads.top
	r.mu.Unlock()
	return n
}

const maxProblem = 1000

func (r *Redis) beat(ctx context.Context, report Report) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	rival, err := r.reader.Heartbeat(ctx, r.record(report), r.disk.owner)
	r.members.mu.Lock()
	before := r.members.taken
	if r.members.err = err; err == nil {
		r.members.taken = rival
	}
	r.members.mu.Unlock()
	if err != nil {
		return err
	}
	if rival != nil && before == nil {
		r.log.Error("node id is taken by another process: clients are not sent here", "node", rival.ID, "host", rival.Host, "port", rival.Port, "started", rival.Started)
	}
	return nil
}

func (r *Redis) nodes(ctx context.Context) ([]board.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return r.reader.Nodes(ctx)
}

// saw takes note of the records there are, or that they could not be looked at.
func (m *membership) saw(self board.Node, nodes []board.Node, now time.Time, lost bool, credit time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !now.IsZero() {
		if lost {
			// Redis is back: everyone has time to say that they are there.
			for id, k := range m.known {
				k.at = now
				m.known[id] = k
			}
		}
		for _, n := range nodes {
			before, is := m.known[n.ID]
			switch {
			case n.ID == m.id:
			case n.State == board.NodeGone:
				delete(m.known, n.ID)
			case !is || !before.Heartbeat.Equal(n.Heartbeat) || !before.Started.Equal(n.Started):
				m.known[n.ID] = known{n, now}
			}
		}
		for id, k := range m.known {
			if now.Sub(k.at) > credit {
				delete(m.known, id)
			}
		}
	}
	m.nodes = append(m.nodes[:0:0], self)
	for _, k := range m.known {
		m.nodes = append(m.nodes, k.Node)
	}
	slices.SortFunc(m.nodes, func(a, b board.Node) int { return strings.Compare(a.ID, b.ID) })
	members := make([]Member, len(m.nodes))
	for i, n := range m.nodes {
		members[i] = Member{ID: n.ID, Domain: n.Domain, Port: n.Port, Rack: n.Rack, State: State(n.State), Weight: n.Weight}
	}
	if !slices.Equal(members, m.members) {
		m.members = members
		close(m.changed)
		m.changed = make(chan struct{})
	}
}
